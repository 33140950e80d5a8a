"""C functions made from Python ones."""

from __future__ import annotations

import atexit
import ctypes
from _ctypes import CFuncPtr
from weakref import WeakValueDictionary

from dlopen import _linker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_alive: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by id: they have no hash


def callback(
    restype: Any, *argtypes: Any, use_errno: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a Python function so that C can call it: a ctypes function object.

    As with `ctypes.CFUNCTYPE`, keep the object for as long as C may call it.  An exception in the
    function goes to `sys.unraisablehook`, and the caller gets 0.  After the interpreter's end
    (a library's destructors run that late) a call does nothing and returns 0.  `__wrapped__` is
    the Python function.

    Args:
        restype: The ctypes type that it returns; None for void.
        argtypes: Those of its parameters.
        use_errno: Whether `ctypes.get_errno` and `ctypes.set_errno` work in the function.
    """
    prototype = ctypes.CFUNCTYPE(restype, *argtypes, use_errno=use_errno)

    def decorate(function: Callable[..., Any]) -> Any:
        return make_callback(prototype, function)

    return decorate


def make_callback(prototype: type[CFuncPtr], function: Callable[..., Any]) -> Any:
    """The same with a prototype that `ctypes.CFUNCTYPE` has made."""
    made: Any = prototype(function)
    made.__wrapped__ = function
    guard(made)
    _alive[id(made)] = made
    return made


def guard(made: Any) -> None:
    """Let a ctypes callback do nothing and return 0 when it fails, or is called too late."""
    if thunk := _thunk_of(made):
        _linker.guard_callback(thunk, code_of(made), thunk.__sizeof__())


def code_of(function: CFuncPtr) -> int:
    """The address that a ctypes function object leads to; 0 for NULL.

    `ctypes.cast` would tie the object to itself, and leave it to the garbage collector.
    """
    return ctypes.c_void_p.from_address(ctypes.addressof(function)).value or 0


def _thunk_of(function: Any) -> Any:
    """What ctypes keeps for a C function that it has made itself, or None."""
    thunk = (function._objects or {}).get("0")
    return thunk if type(thunk).__name__ == "CThunkObject" else None


def is_callback(thing: object) -> bool:
    """Whether it is a C function made from a Python one, by `callback` or by ctypes."""
    return isinstance(thing, CFuncPtr) and _thunk_of(thing) is not None


@atexit.register
def _outlive_interpreter() -> None:
    """What C may still call is not freed when the interpreter clears its modules."""
    for made in list(_alive.values()):
        _linker.keep_for_ever(made)
