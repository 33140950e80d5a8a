"""C functions made from Python ones."""

from __future__ import annotations

import ctypes
from _ctypes import CFuncPtr
from weakref import WeakValueDictionary

from dlopen import _linker
from dlopen._lifecycle import at_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    class Callback(CFuncPtr):
        """What `callback` makes: of a type that ctypes has for each prototype."""

        __wrapped__: Callable[..., Any]
        _on_error: Outcome

    OnError: TypeAlias = Any | tuple[Any, int] | None
    """A value, or a value and what errno is set to; None: 0."""

_alive: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by id: they have no hash


def callback(
    restype: Any, *argtypes: Any, use_errno: bool = False, on_error: OnError = None
) -> Callable[[Callable[..., Any]], Callback]:
    """Decorate a Python function so that C can call it: a ctypes function object.

    As with `ctypes.CFUNCTYPE`, keep the object for as long as C may call it.  An exception in the
    function goes to `sys.unraisablehook` (in a patch it is raised by `Patch.restore`), and the
    caller gets `on_error`.  After the interpreter's end (a library's destructors run that late) a
    call does nothing and returns 0.  `__wrapped__` is the Python function.

    Args:
        restype: The ctypes type that it returns; None for void.
        argtypes: Those of its parameters.
        use_errno: Whether `ctypes.get_errno` and `ctypes.set_errno` work in the function.
        on_error: What C gets from a call that raises, or returns what `restype` cannot hold: a
            value, or `(value, errno)`.  By default 0, or NULL, which often means success:
            `callback(c_int, …, on_error=(-1, errno.ECONNREFUSED))` for connect(2).  With an errno,
            `use_errno` is True.

    Raises:
        TypeError: `on_error` is nothing that `restype` can hold.
    """
    outcome = Outcome(restype, on_error)
    prototype = ctypes.CFUNCTYPE(
        restype, *argtypes, use_errno=use_errno or outcome.errno is not None
    )

    def decorate(function: Callable[..., Any]) -> Callback:
        if on_error is None:
            return make_callback(prototype, function)

        def call(*arguments: Any) -> Any:
            try:
                return outcome.checked(function(*arguments))
            except BaseException as error:  # noqa: BLE001  (told)
                return outcome.report(function, error)

        made = make_callback(prototype, call)
        made.__wrapped__ = function
        made._on_error = outcome
        return made

    return decorate


class Outcome:
    """What C gets from a callback that fails."""

    def __init__(self, restype: Any, on_error: OnError = None) -> None:
        pair = on_error if isinstance(on_error, tuple) else (on_error, None)
        if len(pair) != 2 or not isinstance(pair[1], (int, type(None))):
            raise TypeError(f"on_error is a value, or a value and an errno, not {on_error!r}")
        self._restype = restype
        self._value, self.errno = pair
        if restype is None and self._value is not None:
            raise TypeError(f"a function that returns nothing cannot return {self._value!r}")
        if self._value is not None:
            self.checked(self._value)

    def checked(self, result: Any) -> Any:
        """The result; raises here what ctypes would raise where nobody sees it."""
        if self._restype is not None:
            self._restype(result)
        return result

    def give(self) -> Any:
        """Set errno, and return the value."""
        if self.errno is not None:
            ctypes.set_errno(self.errno)
        if self._value is not None or self._restype in (None, ctypes.py_object):
            return self._value
        zero = self._restype()
        return getattr(zero, "value", zero)

    def report(self, function: Callable[..., Any], error: BaseException) -> Any:
        """Tells `sys.unraisablehook`, as there is nobody to raise the error for; then as `give`."""
        _linker.tell_unraisable(function, error)
        return self.give()


def outcome_of(made: Any) -> Outcome:
    """Of a callback of ours, or of ctypes."""
    return getattr(made, "_on_error", None) or Outcome(getattr(made, "_restype_", None))


def make_callback(prototype: type[CFuncPtr], function: Callable[..., Any]) -> Callback:
    """A C function, with a prototype that `ctypes.CFUNCTYPE` has made."""
    made: Callback = prototype(function)  # type: ignore[assignment]
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


@at_end
def _outlive_interpreter() -> None:
    """What C may still call is not freed when the interpreter clears its modules."""
    for made in list(_alive.values()):
        _linker.keep_for_ever(made)
