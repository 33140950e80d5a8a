"""Libraries: opened, looked into, called, closed."""

from __future__ import annotations

import ctypes
import os
import sys
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_PYTHONAPI, FUNCFLAG_USE_ERRNO, CFuncPtr
from weakref import ref

from dlopen import _linker
from dlopen._records import Record
from dlopen._replacing import forget_gone, keep, replacements_for
from dlopen.image import Mapped, encode_name
from dlopen.modes import PRIVATE, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW, Mode
from dlopen.symbols import Symbol, Symbols, split_key, undefined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Literal, NoReturn, Self

    from typing_extensions import Buffer

    from dlopen._replacing import Replacement
    from dlopen.namespaces import Namespace


class Function(CFuncPtr):
    """A function of a library: a ctypes function object that keeps its library open.

    `argtypes`, `restype` and `errcheck` are as in ctypes.  When the library is closed, it becomes
    a `ClosedFunction`.  Copies of its address (by `ctypes.cast`, in a C structure) are not tracked.
    """

    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int
    _library: Library
    __name__: str
    __hash__ = object.__hash__  # by identity, as its equality; ctypes objects have none

    def __repr__(self) -> str:
        return f"<dlopen.{type(self).__name__} {self.__name__!r} of {self._library!r}>"


class ClosedFunction(Function):
    """A function of a library that was closed: calling it raises `ValueError`."""

    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int

    def __call__(self, *_arguments: object, **_keywords: object) -> NoReturn:
        """Raise `ValueError`."""
        raise ValueError(f"{self.__name__} called, but {self._library._path} is closed")


# As numbers: flags of an enumeration are combined ten times as slowly.
_NOW = int(RTLD_NOW)
_LAZY_OR_NOW = int(RTLD_LAZY | RTLD_NOW)
_PRIVATE = int(PRIVATE)

# (gil, use_errno) -> the class of a library's functions
_FUNCTION_TYPES: dict[tuple[bool, bool], type[Function]] = {
    (gil, use_errno): type(
        "Function",
        (Function,),
        {
            "_flags_": FUNCFLAG_CDECL
            | (FUNCFLAG_PYTHONAPI if gil else 0)
            | (FUNCFLAG_USE_ERRNO if use_errno else 0),
            "_restype_": ctypes.c_int,
            "__doc__": Function.__doc__,
        },
    )
    for gil in (False, True)
    for use_errno in (False, True)
}


# The core's own function that stands for those of closed libraries.
_CLOSED = _linker.closed_function()
_pointer_at = ctypes.c_void_p.from_address


def _turn_off(function: Function) -> None:
    """Make a function object raise `ValueError` when called.

    Its class is what is changed: a call costs nothing more while the library is open.  The
    address in it is changed, too, for C code that is given the object as a pointer.
    """
    _pointer_at(ctypes.addressof(function)).value = _CLOSED
    function.__class__ = ClosedFunction


class Variable:
    """A variable of a library, as a C type.  Raises `ValueError` when the library is closed.

    A thread-local one is the calling thread's at each use.
    """

    def __init__(self, symbol: Symbol, type_: type[Any]) -> None:
        self._symbol = symbol
        self._type = type_

    @property
    def address(self) -> int:
        """Where it is in this process."""
        return self._symbol.address

    @property
    def value(self) -> Any:
        """Its value: what `.value` of the C type is.

        For a type without (a structure, a pointer, most arrays): the ctypes object itself, which
        lies in the library and is valid while that is open.  Assigning copies into the library.
        """
        variable = self._type.from_address(self.address)
        return getattr(variable, "value", variable)

    @value.setter
    def value(self, value: Any) -> None:
        variable = self._type.from_address(self.address)
        if hasattr(variable, "value"):
            variable.value = value
        else:
            ctypes.pointer(variable)[0] = value

    def __repr__(self) -> str:
        return f"<dlopen.Variable {self._symbol.name!r} {self._type.__name__}>"


class Blocker(Record):
    """Something that keeps a closed library mapped."""

    kind: str
    """open (elsewhere), nodelete, dependency, binding, initialising or thread_local (an object that
    its thread has not destroyed yet)."""
    library: str | None
    """The path of the image that needs it, if one does."""


class Library(Mapped):
    """A shared library, loaded by this package's own linker; see dlopen(3).

    Its functions are attributes, and items where a name is taken: ctypes function objects, the
    same one each time.  Opening a library twice gives two objects on one image.

    Args:
        path: A path, or a name without a slash, which is searched as ld.so(8) does (an
            `os.PathLike` is always a path); None is the program itself.
        mode: `RTLD_*` and `PRIVATE`; without `RTLD_LAZY` or `RTLD_NOW`, `RTLD_NOW` is added.
        gil: Whether calls keep the GIL, and check for a Python exception, as `ctypes.PyDLL`.
        use_errno: Whether calls keep a copy of errno, as in `ctypes.CDLL`.
        replace: What its references are bound to instead of what they would be: "name" or
            "name@VERSION" to a `callback`, another ctypes function, a `Symbol` or an address.
            Kept alive as long as the library is loaded.
        replace_in: "tree": in the dependencies that are loaded with it, too.
        namespace: Where it is loaded, as by `Namespace.load`; None: where the program is.

    Raises:
        LoadError: It cannot be found, read, mapped or linked.
        SymbolError: It, or a library that it needs, refers to a symbol that nobody defines.
        Error: `replace` for a library that is loaded already, and so bound: open a `PRIVATE` one.
        ValueError: An argument that cannot be.
        TypeError: A replacement that has no address.

    Nothing is unloaded by garbage collection or at the interpreter's end: use `close`, or `with`.
    Raises the audit event `dlopen.open` with path and mode, and `dlopen.symbol` with path and
    name for each lookup.
    """

    _functions: dict[str, Function]  # attributes and items
    _given: set[ref[Function]]  # what `function` made
    _type: type[Function]
    _left: int | None = None
    _namespace: Namespace | None = None

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None,
        mode: int = RTLD_NOW | RTLD_LOCAL,
        *,
        gil: bool = False,
        use_errno: bool = False,
        replace: Mapping[str, Replacement] | None = None,
        replace_in: Literal["tree"] | None = None,
        namespace: Namespace | None = None,
    ) -> None:
        name = None if path is None else encode_name(path)
        self._load(name, None, mode, gil, use_errno, replace, replace_in, namespace)

    @classmethod
    def from_bytes(
        cls,
        data: Buffer,
        *,
        name: str = "<bytes>",
        mode: int = RTLD_NOW | RTLD_LOCAL,
        gil: bool = False,
        use_errno: bool = False,
        replace: Mapping[str, Replacement] | None = None,
        replace_in: Literal["tree"] | None = None,
        namespace: Namespace | None = None,
    ) -> Self:
        """A library from the content of a file, which need not be on any disk.

        The content is copied before it is checked; later changes of `data` have no effect.
        `name` stands in for its path: a `$ORIGIN` in it is that of the name.  Each call gives an
        image of its own.
        """
        self = cls.__new__(cls)
        self._load(encode_name(name), data, mode, gil, use_errno, replace, replace_in, namespace)
        return self

    def _load(
        self,
        name: bytes | None,
        data: Buffer | None,
        mode: int,
        gil: bool,
        use_errno: bool,
        replace: Mapping[str, Replacement] | None,
        replace_in: Literal["tree"] | None,
        namespace: Namespace | None,
        *,
        keeps_gil: bool = False,
    ) -> None:
        if replace_in not in (None, "tree"):
            raise ValueError(f"replace_in is None or 'tree', not {replace_in!r}")
        flags = int(Mode(mode))
        if not flags & _LAZY_OR_NOW:
            flags |= _NOW
        path = "" if name is None else os.fsdecode(name)
        if name is None and namespace is not None:
            raise ValueError("the program is in no namespace")
        number = 0 if namespace is None else namespace._entered()
        sys.audit("dlopen.open", path, flags)
        replacements = replacements_for(replace)
        in_tree = _linker.REPLACE_IN_TREE if replace_in else 0
        image = _linker.open(name, data, flags, in_tree, replacements, number, keeps_gil)
        keep(image, list((replace or {}).values()), in_tree=replace_in is not None)
        # Of a namespace's, the namespace warns.
        is_own = data is not None or flags & _PRIVATE != 0
        self._adopt(image, path, gil, use_errno, is_own and namespace is None)
        if namespace is not None:
            self._namespace = namespace
            namespace._add(self)

    def _adopt(self, image: int, path: str, gil: bool, use_errno: bool, warns: bool) -> None:
        self._functions = {}
        self._given = set()
        self._type = _FUNCTION_TYPES[bool(gil), bool(use_errno)]
        self._opened(image, path, warns)

    def __getattr__(self, name: str) -> Function:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        function = self.__dict__[name] = self[name]
        if self._image is None:  # closed by another thread, which may not have found it here
            self.__dict__.pop(name, None)
        return function

    def __getitem__(self, name: str) -> Function:
        function = self._functions.get(name)
        if function is None:
            function = self._functions.setdefault(name, self._make(name))
            if self._image is None:
                self._closed_meanwhile()
        return function

    def _closed_meanwhile(self) -> None:
        """By another thread, when a function was being noted: `close` may not have found it."""
        self._forget()
        self._open_image()

    def function(self, name: str, restype: Any = ctypes.c_int, *argtypes: Any) -> Function:
        """A new function object of the given types.

        Args:
            name: A symbol of this library or of one that it needs; may be "name@VERSION".
            restype: The ctypes type that it returns; None for void.
            argtypes: Those of its parameters.

        Raises:
            SymbolError: There is none.
            ValueError: The library is closed.
        """
        function = self._make(name)
        function.restype = restype
        function.argtypes = argtypes
        given = self._given
        given.add(ref(function, given.discard))
        if self._image is None:
            self._closed_meanwhile()
        return function

    def _make(self, name: str) -> Function:
        sys.audit("dlopen.symbol", self._path, name)
        symbol, version = split_key(name)
        address = _linker.symbol_address(self._open_image(), symbol, version, False)
        if address is None:
            raise undefined(name, self._path, Symbols(self))
        function = self._type(address)
        function.__name__ = name
        function._library = self
        return function

    def _address_of_own(self, name: str) -> int | None:
        """Of a function that this library itself defines; None if it does not."""
        sys.audit("dlopen.symbol", self._path, name)
        return _linker.symbol_address(self._open_image(), name.encode(), None, True)

    def variable(self, name: str, type_: type[Any]) -> Variable:
        """A variable of the given ctypes type, of this library or of one that it needs.

        Raises:
            SymbolError: There is none of that name ("name@VERSION" is possible).
            ValueError: It is smaller than the type, or the library is closed.
        """
        sys.audit("dlopen.symbol", self._path, name)
        found = _linker.symbol(self._open_image(), *split_key(name), False)
        if found is None:
            raise undefined(name, self._path, Symbols(self))
        symbol = Symbol(found, self, own=False)
        if 0 < symbol.size < ctypes.sizeof(type_):
            raise ValueError(
                f"{name} has {symbol.size} bytes, {type_.__name__} {ctypes.sizeof(type_)}"
            )
        return Variable(symbol, type_)

    @property
    def unload_blockers(self) -> tuple[Blocker, ...]:
        """What keeps the image mapped, now that this object is closed."""
        image = self._image if self._image is not None else self._left
        if image is None:
            return ()
        return tuple(Blocker(*holder) for holder in _linker.holders(image))

    def _forget(self) -> None:
        for reference in self._given.copy():  # those that go meanwhile leave it
            if function := reference():
                _turn_off(function)
        self._given.clear()
        for name, function in self._functions.copy().items():
            _turn_off(function)
            self.__dict__.pop(name, None)
        self._functions.clear()

    def _closed(self, image: int, is_held: bool) -> None:
        # An image that nothing holds is gone, and another may take its address.
        self._left = image if is_held else None
        forget_gone()
        if self._namespace is not None:
            self._namespace._remove(self)

    def __dir__(self) -> Iterable[str]:
        names = set(super().__dir__())
        if not self.closed:
            names.update(key for key in self.symbols if key.isidentifier())
        return sorted(names)
