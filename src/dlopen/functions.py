"""What a library hands out: its functions and variables."""

from __future__ import annotations

import ctypes
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_PYTHONAPI, FUNCFLAG_USE_ERRNO, CFuncPtr

from dlopen import _linker
from dlopen.errors import one_line
from dlopen.symbols import Symbol, without_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Protocol

    from dlopen._gate import Gate

    class Owner(Protocol):
        """The library that hands them out."""

        _path: str

        @property
        def closed(self) -> bool:
            """Whether it was closed."""

        def _gate(self) -> Gate: ...


class Function(CFuncPtr):
    """A function of a library: a ctypes function object that keeps its library open.

    `argtypes`, `restype` and `errcheck` are as in ctypes.  When the library is closed, it becomes
    a `ClosedFunction`.  Copies of its address (by `ctypes.cast`, in a C structure) are not tracked.
    """

    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int
    _library: Owner
    __name__: str
    __hash__ = object.__hash__  # by identity, as its equality; ctypes objects have none

    def __repr__(self) -> str:
        return f"<dlopen.{type(self).__name__} {self.__name__!r} of {self._library!r}>"


class ClosedFunction(Function):
    """A function of a library that was closed, or lacks it by now: calling raises `ValueError`."""

    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int

    def __call__(self, *_arguments: object, **_keywords: object) -> NoReturn:
        """Raise `ValueError`."""
        library = self._library
        reason = "is closed" if library.closed else "lacks it since it was reloaded"
        path = library._path or "the program"
        raise ValueError(one_line(f"{self.__name__} called, but {path} {reason}"))


class Data(Function):
    """What a symbol of the type OBJECT or TLS is among a library's attributes.

    It can be cast, and passed to C as a pointer, as in ctypes; calling raises `TypeError`.
    """

    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int

    def __call__(self, *_arguments: object, **_keywords: object) -> NoReturn:
        """Raise `TypeError`."""
        name, path = self.__name__, self._library._path or "the program"
        raise TypeError(
            one_line(
                f"{name} of {path} is a variable, not a function: use variable({name!r}, TYPE)"
            )
        )


class ReloadableFunction(Function):
    """A function of a library that can be reloaded: a call counts as inside of its version."""

    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the function of the current version."""
        gate = self._library._gate()
        version = gate.enter()
        try:
            if isinstance(self, (ClosedFunction, Data)):  # since it began to wait
                return self(*arguments, **keywords)
            return CFuncPtr.__call__(self, *arguments, **keywords)
        finally:
            gate.leave(version)


_types: dict[tuple[bool, bool, bool], type[Function]] = {(False, False, False): Function}


def function_type(gil: bool, use_errno: bool, reload: bool = False) -> type[Function]:
    """The class of a library's functions; the parameters are those of `Library`."""
    wanted = bool(gil), bool(use_errno), bool(reload)
    return _types.get(wanted) or _types.setdefault(wanted, _make_type(*wanted))


def _make_type(gil: bool, use_errno: bool, reload: bool) -> type[Function]:
    base: type[Function] = ReloadableFunction if reload else Function
    return type(
        base.__name__,
        (base,),
        {
            "_flags_": FUNCFLAG_CDECL
            | (FUNCFLAG_PYTHONAPI if gil else 0)
            | (FUNCFLAG_USE_ERRNO if use_errno else 0),
            "_restype_": ctypes.c_int,
            "__doc__": Function.__doc__,
        },
    )


_linker.set_function_classes(Data, ClosedFunction)


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
        symbol = self._symbol
        address = symbol.address
        if not address:  # of a new version, or a resolver changed its mind
            raise without_address(symbol.key, symbol._source._path)
        return address

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


def check_size(name: str, size: int, type_: type[Any]) -> None:
    """A variable is as large as the C type that it is read as."""
    if 0 < size < ctypes.sizeof(type_):
        needed = f"{type_.__name__} {ctypes.sizeof(type_)}"
        raise ValueError(one_line(f"{name} has {size} bytes, {needed}"))
