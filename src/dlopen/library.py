"""Libraries: opened, looked into, called, closed."""

from __future__ import annotations

import ctypes
import os
import sys
from _weakref import ref
from os import RTLD_LOCAL, RTLD_NOW

from dlopen import _linker
from dlopen._lifecycle import late
from dlopen._mapped import Mapped, Place, content
from dlopen._records import Record, or_log
from dlopen.errors import Error
from dlopen.functions import ClosedFunction, Function, Variable, check_size, function_type
from dlopen.symbols import TYPES, Symbol, undefined_in, without_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Literal, Self, TypedDict, Unpack

    from typing_extensions import Buffer

    from dlopen._files import Files
    from dlopen._gate import Gate, Passage
    from dlopen._replacing import Replacement
    from dlopen.errors import SymbolError
    from dlopen.patching import Patch
    from dlopen.reloading import Reloaded, Reloading

    class Keywords(TypedDict, total=False):
        """Those of `Library`, for who passes them on."""

        gil: bool
        use_errno: bool
        reload: bool
        replace: Mapping[str, Replacement] | None
        replace_in: Literal["tree"] | None
        files: Files | None
        arena: bool

    class PlacedKeywords(Keywords, total=False):
        """With what a namespace gives itself."""

        namespace: Place | None


opened: list[Callable[[Library], object]] = []
"""Called with each library that is opened with `reload=True`."""

# ruff: noqa: PLC0415  (imports where they are needed: each would make that of the package longer)

_open = _linker.Opened._open  # not asked for by way of `__getattr__`

# Of these the address is known when they are used.
_FOUND_LATE = ("IFUNC", "TLS")


class Blocker(Record):
    """Something that keeps a closed library mapped."""

    kind: str
    """open (elsewhere), nodelete, dependency, binding, initialising, patch (one that is in force
    leads to it), retained (an old version: `release_old`) or thread_local (an object that its
    thread has not destroyed yet)."""
    library: str | None
    """The path of the image that needs it, if one does."""


class Library(Mapped):
    """A shared library, loaded by this package's own linker; see dlopen(3).

    Its functions are attributes, and items where a name is taken: ctypes function objects, the
    same one each time.  (So are its variables, to be cast and passed on; calling one raises
    `TypeError`.)  A symbol whose value is NULL is a `SymbolError`, as one that is not there.
    `"x" in library` says whether there is an item; iteration gives the names of the library's own,
    without those of what it needs; `del library.x` lets the next `library.x` be a new object.
    There is no `len`: a library without exports is true.
    Opening a library twice gives two objects on one image.

    Args:
        path: A path, or a name without a slash, which is searched as ld.so(8) does (an
            `os.PathLike` is always a path); None is the program itself.
        mode: `RTLD_*` and `PRIVATE`; without `RTLD_LAZY` or `RTLD_NOW`, `RTLD_NOW` is added.
        gil: Whether calls keep the GIL, and check for a Python exception, as `ctypes.PyDLL`.
        use_errno: Whether calls keep a copy of errno, as in `ctypes.CDLL`.
        reload: Whether `reload` can put a new version in its place.  It is an image of its own
            then, in memory: the file may be overwritten.
        replace: What its references are bound to instead of what they would be: "name" or
            "name@VERSION" to a `callback`, another ctypes function, a `Symbol` or an address.
            Kept alive as long as the library is loaded.
        replace_in: "tree": in the dependencies that are loaded with it, too.
        files: Files that need not be on any disk, for the library and for what it needs, laid over
            the file system: a mapping from paths to bytes, a function that returns the content for
            a path, a `Member`, or None, a `zipfile.ZipFile`, a `zipfile.Path` or a folder of
            `importlib.resources`.  See below.
        namespace: Where it is loaded, as by `Namespace.load`; None: where the program is.
        arena: Whether it, and what is loaded with it, is read into memory that closed libraries
            have left, if it is small, instead of being mapped: quicker where many small libraries
            come and go.  See the guide for what that costs.

    Raises:
        LoadError: It cannot be found, read, mapped or linked.
        SymbolError: It, or a library that it needs, refers to a symbol that nobody defines.
        Error: `replace` for a library that is loaded already, and so bound: open a `PRIVATE` one.
        ValueError: An argument that cannot be.
        TypeError: A replacement that has no address, or files or a namespace that are none.
        Exception: What `files` raises; nothing of the library is left then.  (`KeyError` of a
            mapping means that it has no such file.)

    With `files`, the library is looked for in them by its own name first.  What is needed is
    searched for as ld.so(8) does, and each path that the search forms is looked for in them before
    the file system; in order: RPATH; RUNPATH and the needed name as it is, in files only;
    LD_LIBRARY_PATH; RUNPATH; the cache; the default folders.  Paths are plain ("lib/libx.so", never
    "./lib/../libx.so"); glibc-hwcaps subfolders are not looked for.  A relative path in a
    library from files, with its `$ORIGIN`, is a path in them, never one from the working directory.
    What comes from files is as if from bytes: an image of its own for each open, which no other
    finds unless this one is RTLD_GLOBAL.  But a member of an archive that is a file (of a zip that
    is open for reading; a `Member`) is as if from a file: the same image for each open, mapped from
    the archive where that has it uncompressed at a multiple of the page size.  What is needed and
    loaded already is used as ever, and libc, libstdc++ and the others that must be the host's are
    never taken from files.

    Nothing is unloaded by garbage collection or at the interpreter's end: use `close`, or `with`.
    Raises the audit event `dlopen.open` with path and mode, and `dlopen.symbol` with path and
    name for each lookup.
    """

    _functions: dict[str, Function]
    _given: set[ref[Function]] | None
    _type: type[Function]
    _reloading: Reloading | None = None
    _version = 0  # how many times it was reloaded; changed under `_lock`
    _namespace: Place | None = None

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None,
        mode: int = RTLD_NOW | RTLD_LOCAL,
        *,
        gil: bool = False,
        use_errno: bool = False,
        reload: bool = False,
        replace: Mapping[str, Replacement] | None = None,
        replace_in: Literal["tree"] | None = None,
        files: Files | None = None,
        namespace: Place | None = None,
        arena: bool = False,
    ) -> None:
        if replace_in not in (None, "tree"):
            raise ValueError(f"replace_in is None or 'tree', not {replace_in!r}")
        place = 0
        if namespace is not None:
            if path is None:
                raise ValueError("the program is in no namespace")
            if not isinstance(namespace, Place):
                raise TypeError(f"a namespace is a Namespace, not {namespace!r}")
            place = namespace._entered()
            arena = arena or namespace._arena
        flags = (_linker.REPLACE_IN_TREE if replace_in else 0) | (_linker.ARENA if arena else 0)
        replacements, kept = None, None
        if replace is not None:
            with late():
                from dlopen._replacing import keep, kept_of, replacements_for

            replacements, kept = replacements_for(replace), kept_of(replace)
        read = None
        if files is not None:
            with late():
                from dlopen._files import reader

            read = reader(files)
        is_usual = not (gil or use_errno or reload)
        type_ = Function if is_usual else function_type(gil, use_errno, reload)
        if reload:
            with late():
                from dlopen._requests import Request
                from dlopen.reloading import Reloading

            name, text, modes = _linker.asked(path, mode)
            data, self._given_data = self._given_data, None
            request = Request(name, modes, flags, replacements or [], kept or [], read, place)
            self._reloading = or_log(Reloading, text, request, is_from_file=data is None)
            image = or_log(self._reloading.load, text, data)
            self._has_ending = True
            self._adopt(image, text, type_, namespace is None)
        else:
            _open(self, path, mode, type_, flags, replacements, read, place)
            if kept:
                keep(self._open_image(), kept, in_tree=replace_in is not None)
        if namespace is not None:
            self._namespace = namespace
            self._has_ending = True
            namespace._add(self)
        for act in opened if reload else ():
            act(self)

    @classmethod
    def from_bytes(
        cls,
        data: Buffer,
        *,
        name: str = "<bytes>",
        mode: int = RTLD_NOW | RTLD_LOCAL,
        **keywords: Unpack[PlacedKeywords],
    ) -> Self:
        """A library from the content of a file, which need not be on any disk.

        The content is copied before it is checked; later changes of `data` have no effect.
        `name` stands in for its path: a `$ORIGIN` in it is that of the name.  Each call gives an
        image of its own; of libc and its family, of which there is one in a process, the process's.
        The keywords are those of `Library`; `files` may have what it needs, as if it were one of
        them.
        """
        self = cls.__new__(cls)
        self._given_data = content(data)
        Library.__init__(self, _linker.encode_name(name), mode, **keywords)
        return self

    def _gate(self) -> Gate:
        assert self._reloading
        return self._reloading.gate

    def _inside(self) -> Passage:
        """For `with`: the current version is not unmapped meanwhile."""
        with late():
            from dlopen._gate import Passage

        return Passage(self._reloading.gate if self._reloading else None)

    def _handed_out(self) -> list[Function]:
        given = [reference() for reference in (self._given or set()).copy()]
        return [*self._functions.copy().values(), *filter(None, given)]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Function: ...

    else:
        __getattr__ = _linker.Opened._attribute

    def __delattr__(self, name: str) -> None:
        own = self.__dict__.get(name)
        if hasattr(type(self), name) or (own is not None and own is not self._functions.get(name)):
            super().__delattr__(name)
        else:
            del self[name]

    def __delitem__(self, name: str) -> None:
        """Give a new function object when it is asked for next; the old one stays as it is."""
        function = self._functions.get(name)
        if function is None:
            if name not in self:
                raise undefined_in(self, name)
            return
        self._give(function)  # first: it turns off with the library
        self._functions.pop(name, None)
        if self.__dict__.get(name) is function:
            self.__dict__.pop(name, None)

    def __contains__(self, name: object) -> bool:
        """Whether there is an item of the name: of this library, or of one that it needs.

        Raises `ValueError` when the library is closed.
        """
        image = self._open_image()
        if not isinstance(name, str) or "\0" in name:
            return False
        found = _linker.symbol(image, *_linker.split_key(name), False)
        return found is not None and (found[2] != 0 or TYPES.get(found[5]) in _FOUND_LATE)

    def __iter__(self) -> Iterator[str]:
        """The names of the items that are this library's own.  `ValueError` when it is closed."""
        return filter(self.__contains__, self.symbols)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def _changed_meanwhile(self, function: Function) -> None:
        """Closed or reloaded by another thread, which may not have found the function."""
        while (image := self._image) is not None:
            self._redirect(function, image)
            if isinstance(function, ClosedFunction):
                raise undefined_in(self, function.__name__)
            if image == self._image:
                return
        self._forget()
        self._open_image()

    def _redirect(
        self, function: Function, image: int, found: tuple[int, int] | None = None
    ) -> None:
        """Let it lead into another version, to the address and of the type that are `found`."""
        if found is None:
            found = _linker.symbol_address(image, *_linker.split_key(function.__name__), False)
        if found is None or not found[0]:  # handed out in the moment of the switch
            self._functions.pop(function.__name__, None)
            self.__dict__.pop(function.__name__, None)
            _linker.turn_off(function)
        else:
            _linker.redirect(function, *found, self._type)

    def function(self, name: str, restype: Any = ctypes.c_int, *argtypes: Any) -> Function:
        """A new function object of the given types.

        Args:
            name: A symbol of this library or of one that it needs; may be "name@VERSION".
            restype: The ctypes type that it returns; None for void.
            argtypes: Those of its parameters.

        Raises:
            SymbolError: There is none, or its value is NULL.
            ValueError: The library is closed.
        """
        image = self._image
        function: Function = self._make(name)
        function.restype = restype
        function.argtypes = argtypes
        self._give(function)
        if self._image != image:
            self._changed_meanwhile(function)
        return function

    def _undefined(self, name: str, is_there: bool = False) -> SymbolError:
        """The error for a name that is not there, or whose value is NULL."""
        return without_address(name, self._path) if is_there else undefined_in(self, name)

    def variable(self, name: str, type_: type[Any]) -> Variable:
        """A variable of the given ctypes type, of this library or of one that it needs.

        Raises:
            SymbolError: There is none of that name ("name@VERSION" is possible), or its value is
                NULL.
            ValueError: It is smaller than the type, or the library is closed.
        """
        sys.audit("dlopen.symbol", self._path, name)
        found = _linker.symbol(self._open_image(), *_linker.split_key(name), False)
        if found is None:
            raise undefined_in(self, name)
        symbol = Symbol(found, self, own=False)
        check_size(name, symbol.size, type_)
        variable = Variable(symbol, type_)
        if symbol.type != "TLS":  # which the calling thread may not have yet
            variable.address  # noqa: B018  (for its error)
        if self._reloading:
            self._reloading.note_variable(variable)
        return variable

    def patch(
        self, replacements: Mapping[str, Replacement] | None = None, /, **names: Replacement
    ) -> Patch:
        """Bind what this library refers to anew, now, until `restore` or the end of `with`.

        Every place of it that was bound to a symbol (for calls and in data) leads to the
        replacement, each by one store, while other threads may run.  It is for libraries that the
        system's loader has loaded, too (see `existing`).  The library's own uses of what it
        defines itself are patched where they go through its symbol table, as they do when others
        may stand before it.  Patches of the same symbol stack up, and may be restored in any order.

        Args:
            replacements: "name" or "name@VERSION", as its references have it, to a `callback`,
                another ctypes function, a `Symbol` or an address.
            names: The same for plain names.

        Returns:
            A `Patch`: `original` has the functions to call on, `places` how many were found.

        Raises:
            LoadError: The kernel does not let a place be changed; nothing is changed then.
            ValueError: The library is closed, or a replacement has no address.
            TypeError: A replacement cannot be one.
            Exception: At the end: what a callback raised.
        """
        with late():
            from dlopen.patching import Patch

        return Patch(self, {**(replacements or {}), **names})

    def reload(
        self, source: Any = None, keep: Iterable[str] = (), *, timeout: float = 1.0
    ) -> Reloaded:
        """Put a new version in its place (hot swap): it was opened with `reload=True`.

        The new version is loaded beside the old one, with its dependencies; its constructors run.
        For the moment of the switch new calls from Python are held back.  The variables of `keep`
        are copied, every place of other libraries of ours that was bound to the old version is
        bound to the new one, and so are the functions, variables and symbols that this object has
        handed out, and patches that are in force.  Then the old destructors run.

        The code of the old version stays mapped until no call from Python is inside of it and
        `release_old` was called: this package cannot know what C code is inside.

        Args:
            source: A path or the content of a file; None: the file that it was opened from, as it
                is now.
            keep: Variables whose values move to the new version: of the same size and type there.
                Pointers in them lead to where they led.
            timeout: With `keep`: seconds in which there must be a moment when no call from Python
                is inside, so that nobody changes what is to be kept.

        Raises:
            LoadError: The new version cannot be loaded.
            SymbolError: It lacks a symbol that is in use: by another library, by a function,
                variable or name of `keep`; or it refers to one that nobody defines.
            Error: A variable cannot be kept, calls are inside for longer than `timeout`, another
                reload is under way, or the library was opened without `reload=True`.
            ValueError: The library is closed.

        If it raises, the old version goes on untouched.
        """
        if self._reloading is None:
            raise Error(f"{self._path or 'the program'} was opened without reload=True")
        return self._reloading.reload(self, source, keep, timeout)

    def release_old(self) -> None:
        """Say that no C code is inside of old versions, or has addresses of them any more.

        They are unmapped now, or when the last call from Python returns from them.
        """
        if self._reloading:
            self._reloading.gate.release()

    @property
    def unload_blockers(self) -> tuple[Blocker, ...]:
        """What keeps the image mapped, now that this object is closed."""
        image = self._image if self._image is not None else self._left
        if image is None:
            return ()
        return tuple(Blocker(*holder) for holder in _linker.holders(image))

    def _end(self) -> None:
        """Called once, when the core has closed the image."""
        if self._reloading:
            self.release_old()
        if self._namespace is not None:
            self._namespace._remove(self)

    def __dir__(self) -> Iterable[str]:
        names = set(super().__dir__())
        if not self.closed:
            names.update(key for key in self.symbols if key.isidentifier())
        return sorted(names)
