"""C functions made from Python ones."""

from __future__ import annotations

import atexit
import ctypes
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
    (a library's destructors run that late) a call does nothing and returns 0.

    Args:
        restype: The ctypes type that it returns; None for void.
        argtypes: Those of its parameters.
        use_errno: Whether `ctypes.get_errno` and `ctypes.set_errno` work in the function.
    """
    prototype = ctypes.CFUNCTYPE(restype, *argtypes, use_errno=use_errno)

    def decorate(function: Callable[..., Any]) -> Any:
        made = prototype(function)
        if thunk := (made._objects or {}).get("0"):
            code = ctypes.cast(made, ctypes.c_void_p).value or 0
            _linker.guard_callback(thunk, code, thunk.__sizeof__())
        _alive[id(made)] = made
        return made

    return decorate


@atexit.register
def _outlive_interpreter() -> None:
    """What C may still call is not freed when the interpreter clears its modules."""
    for made in list(_alive.values()):
        _linker.keep_for_ever(made)
