"""The dl* calls of libraries that are loaded, and of those imported later, answered by this linker.

What `dlopen` gives must be understood by `dlsym`, `dlclose` and the rest, of the same caller, for
as long as it may have such a handle: for ever.  These know the handles of the system's loader too,
and so they are bound first, and stay.  Only `dlopen` and `dlmopen` come and go.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import sys
from _ctypes import CFuncPtr

from dlopen import _linker
from dlopen._lifecycle import late, new_lock
from dlopen._modules import lead_places
from dlopen._records import log
from dlopen.errors import Error, one_line
from dlopen.info import Info
from dlopen.library import Library
from dlopen.patching import Patch
from dlopen.process import existing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType, TracebackType
    from typing import Any, Self, TypeAlias

    Caller: TypeAlias = ModuleType | Library | Info | str | os.PathLike[str]
    """An extension module or its name, or a library as `existing` finds it."""

_OPENING = ("dlopen", "dlmopen")
_ANSWERING = (
    *("dlsym", "dlvsym", "dlclose", "dlerror", "dladdr", "dladdr1", "dlinfo", "dl_iterate_phdr"),
    "_dl_find_object",
)


def _ours(names: tuple[str, ...]) -> dict[str, int]:
    """Where they are in this linker."""
    image = _linker.address(_linker.OWN_CODE)
    assert image
    found = {name: _linker.symbol_address(image[0], name.encode(), None, True) for name in names}
    return {name: address[0] for name, address in found.items() if address}


class _Adopted:
    """A library whose calls come here: patched, and so never unloaded."""

    def __init__(self, library: Library, answering: Patch) -> None:
        self.library = library
        self.image = library._open_image()
        self._answering = answering  # for ever
        # Guarded by `_lock`.
        self._opening: Patch | None = None
        self._count = 0  # of adoptions that want it

    def answers_here(self) -> None:
        """From now on: it is the one for its image."""
        self._stand(self._answering)

    def opens_here(self) -> None:
        """One adoption more wants it."""
        if self._counts():
            return
        opening = self.library.patch(_ours(_OPENING))
        if not self._begins(opening):
            opening.restore()

    def _counts(self) -> bool:
        """Whether the patch is in force already; it is counted then."""
        with _lock:
            self._count += self._opening is not None
            return self._opening is not None

    def _begins(self, opening: Patch) -> bool:
        """Whether this is the patch, and not that of a thread that was first."""
        with _lock:
            self._count += 1
            is_first = self._opening is None
            if is_first:
                self._opening = opening
                self._stand(opening)
            return is_first

    def _stand(self, patch: Patch) -> None:
        """Who patches the same over it calls on into this linker."""
        for name, address in patch._replacements.items():
            if patch.places[name]:
                _linker.standing[self.image, name.encode()] = int(address)

    def no_longer(self) -> None:
        """One adoption less does."""
        with _lock:
            self._count -= 1
            opening = None if self._count else self._opening
            if opening is None:
                return
            self._opening = None
            for name in _OPENING:
                _linker.standing.pop((self.image, name.encode()), None)
        try:
            opening.restore()
        except Error:  # it is in force still
            self._begins(opening)
            raise


class _Interpreter(_Adopted):
    """The executable or libpython, whose places lead to what makes modules of our images.

    They go on to lead there, and other calls go on from there.
    """

    LED = ("dlsym", "dlerror")
    _before = 0  # where other calls of dlopen went; guarded by `_lock`

    def answers_here(self) -> None:
        super().answers_here()
        _linker.lead_others(0, *_ours(self.LED).values())

    def opens_here(self) -> None:
        with _lock:
            self._count += 1
            if self._count == 1:
                self._before = _linker.lead_others(_ours(_OPENING)["dlopen"], 0, 0)

    def no_longer(self) -> None:
        with _lock:
            self._count -= 1
            if not self._count:
                _linker.lead_others(self._before, 0, 0)


_lock = new_lock()
_adopted: dict[int, _Adopted] = {}  # by image; guarded by it
_later: list[Adoption] = []  # those of what is imported; changed under it
_watched: list[object] = []  # what makes modules, once it tells of them; changed under it
_is_ctypes_answered: list[bool] = []  # not empty: so it is


def _answer(library: Library) -> _Adopted | None:
    """Bind all that it calls of the family but `dlopen` and `dlmopen`, for ever.

    None: it calls nothing of the family, or what it calls is this linker's anyway, since that has
    loaded it.  The library is this function's to keep, or to close.
    """
    image = library._open_image()
    known = _adopted.get(image)
    if known is None and library.info.is_host:
        kind = _Interpreter if image == _interpreter() and lead_places() else _Adopted
        led = _Interpreter.LED if kind is _Interpreter else ()
        answering = library.patch(_ours(tuple(name for name in _ANSWERING if name not in led)))
        if led or any(answering.places.values()) or _calls_opening(library):
            made = kind(library, answering)
            with _lock:
                known = _adopted.setdefault(image, made)
                if known is made:
                    made.answers_here()
                    return made
        # Nothing to answer, or another thread was first.
        answering.restore()
    library.close()
    return known


def _interpreter() -> int:
    """The image that makes modules."""
    found = _linker.address(_linker.definition_of(sys))
    return found[0] if found else 0


def _calls_opening(library: Library) -> bool:
    """Asked of one that calls nothing of the rest, and so can do nothing with a handle."""
    with library.patch(_ours(_OPENING)) as opening:
        return any(opening.places.values())


def answer_ctypes() -> None:
    """Let the `ctypes` of this process understand this linker's handles, for ever."""
    if not _is_ctypes_answered:
        _answer(_library_of(_ctypes))
        _is_ctypes_answered.append(True)


def _library_of(caller: Caller) -> Library:
    """The library to patch; raises `LoadError` or `TypeError` where there is none."""
    if isinstance(caller, Library):
        return existing(caller.info)
    if isinstance(caller, str):
        caller = sys.modules.get(caller, caller)
    if not isinstance(caller, type(sys)):
        return existing(caller)
    path = getattr(caller, "__file__", None)
    if path is not None:
        try:
            return existing(path)
        except Error:  # a source file, for one
            pass
    definition = _linker.definition_of(caller)
    found = _linker.address(definition) if definition else None
    if found is None:
        raise TypeError(one_line(f"{caller.__name__} is no extension module"))
    # Built in: the executable's, or libpython's.
    return existing(Info(found[0]))


def _adopt_list_of_ctypes() -> None:
    """`ctypes.util.dllist` calls what was found when its module was imported."""
    util: Any = sys.modules.get("ctypes.util")
    function = getattr(util, "_dl_iterate_phdr", None)
    if isinstance(function, CFuncPtr):
        address = _ours(("dl_iterate_phdr",))["dl_iterate_phdr"]
        ctypes.c_void_p.from_buffer(function).value = address


class Adoption:
    """What `adopt` returns: it is in force from then on.

    The end of a `with` block, or `restore`, lets `dlopen` and `dlmopen` go back.
    """

    def __init__(self, libraries: list[Library], later: bool) -> None:
        """See `adopt`."""
        self._in_force = True  # guarded by `_lock`, as the next
        self._adopted: list[_Adopted] = []
        try:
            for library in libraries:
                self._add(_answer(library))
            if later:
                _watch_imports()
                with _lock:
                    _later.append(self)
        except BaseException:
            self.restore()
            raise

    def _add(self, adopted: _Adopted | None) -> None:
        if adopted is None:
            return
        adopted.opens_here()
        with _lock:
            if self._in_force and adopted not in self._adopted:
                self._adopted.append(adopted)
                return
        adopted.no_longer()  # named twice, or restored meanwhile

    @property
    def libraries(self) -> tuple[Info, ...]:
        """Those whose calls come here by it.

        One that calls nothing of the family is not among them, nor is one that this linker has
        loaded: there is nothing to bind anew.
        """
        return tuple(adopted.library.info for adopted in self._adopted.copy())

    @property
    def in_force(self) -> bool:
        """Whether `dlopen` is not given back yet."""
        return self._in_force

    def restore(self) -> None:
        """Let `dlopen` and `dlmopen` lead where they led; further calls do nothing.

        All else stays, and so do the libraries that were opened meanwhile.

        Raises:
            LoadError: The kernel does not let the places be changed; it is in force still.
        """
        with _lock:
            if not self._in_force:
                return
            self._in_force = False
            if self in _later:
                _later.remove(self)
        while True:
            with _lock:
                if not self._adopted:
                    return
                adopted = self._adopted.pop()
            try:
                adopted.no_longer()
            except Error:
                with _lock:
                    self._adopted.append(adopted)
                    self._in_force = True
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        names = ", ".join(os.path.basename(info.path) or "the program" for info in self.libraries)  # noqa: PTH119
        state = "in force" if self.in_force else "restored"
        return f"<dlopen.Adoption of {names or 'nothing'}, {state}>"


def adopt(*libraries: Caller, later: bool = False) -> Adoption:
    """Let ctypes, cffi and others open libraries by this linker, without LD_PRELOAD.

    Binds what they call of the dl* family (dlopen, dlmopen, dlsym, dlvsym, dlclose, dlerror,
    dladdr, dladdr1, dlinfo, dl_iterate_phdr) anew, by patches, for the whole process: for good, or
    to the end of a `with` block.  `_ctypes` always, and `_cffi_backend` if it was imported; where
    such a module is built in, the executable or libpython.

    At the end of the block only `dlopen` and `dlmopen` go back.  The others know the handles of the
    system's loader, too, and stay: libraries that were opened in the block remain open, and go on
    to work.  Handles, and function objects, of before the block are what they were.

    Args:
        libraries: Others that shall open through this linker: extension modules or their names, or
            libraries as `existing` finds them.
        later: Whether also each extension module that is imported from now on, when it was made;
            what it opens itself while that happens is the system loader's.

    Returns:
        An `Adoption`: `libraries` says which, `restore` ends it as the block would.

    A library that is adopted already is counted, and given back by the last.  Other patches
    of the same symbols stack up with these, as all do.

    Raises:
        LoadError: One is not loaded, or the kernel does not let its places be changed; nothing is
            adopted then.
        TypeError: A module that is none of an extension.
        ValueError: A library that is closed, or this package's own.
    """
    callers: list[Caller] = [_ctypes, *libraries]
    if cffi := sys.modules.get("_cffi_backend"):  # None forbids it
        callers.insert(1, cffi)
    found: list[Library] = []
    try:
        for caller in callers:
            found.append(_library_of(caller))  # noqa: PERF401  (what is there is closed)
    except BaseException:
        for library in found:
            library.close()
        raise
    _adopt_list_of_ctypes()
    return Adoption(found, later)


def _watch_imports() -> None:
    """Be told of each extension module that the interpreter makes.  No finder, no other loader."""
    with late():
        from importlib.machinery import ExtensionFileLoader  # noqa: PLC0415  (slow to import)

    with _lock:
        if _watched:
            return
        usual = ExtensionFileLoader.create_module
        _watched.append(usual)

    def create_module(self: ExtensionFileLoader, spec: ModuleSpec) -> ModuleType:
        module = usual(self, spec)
        if _later:
            _adopt_imported(module)
        return module

    ExtensionFileLoader.create_module = create_module  # type: ignore[method-assign]


def _adopt_imported(module: ModuleType) -> None:
    """It is imported, whatever comes of this."""
    try:
        adopted = _answer(_library_of(module))
        for adoption in _later.copy():
            adoption._add(adopted)
    except (Error, TypeError, ValueError) as error:
        log("dlopen.patch", "cannot adopt %r: %s", module, error)
