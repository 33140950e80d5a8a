"""C functions made from Python ones."""

from __future__ import annotations

import ctypes
import errno
import sys
from pathlib import Path

import pytest

import dlopen


def test_a_callback_is_called(example: Path) -> None:
    @dlopen.callback(ctypes.c_int, ctypes.c_int)
    def double(value: int) -> int:
        return 2 * value

    with dlopen.Library(example) as library:
        assert library.call(double, 21) == 42
    assert double(4) == 8


def test_an_exception_goes_to_the_unraisable_hook(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dlopen.callback(ctypes.c_int, ctypes.c_int)
    def fail(value: int) -> int:
        raise LookupError(value)

    caught: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: caught.append(event.exc_value))
    with dlopen.Library(example) as library:
        assert library.call(fail, 5) == 0
    (error,) = caught
    assert isinstance(error, LookupError)
    assert error.args == (5,)


def test_a_callback_keeps_the_gil_from_nobody(example: Path) -> None:
    """A call with gil=True holds it already."""

    @dlopen.callback(ctypes.c_int, ctypes.c_int)
    def double(value: int) -> int:
        return 2 * value

    with dlopen.Library(example, gil=True) as library:
        assert library.call(double, 4) == 8


def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    caught: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: caught.append(event.exc_value))
    return caught


def test_what_c_gets_from_one_that_raises(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught = unraisable(monkeypatch)

    @dlopen.callback(ctypes.c_int, ctypes.c_int, on_error=-1)
    def fail(value: int) -> int:
        raise LookupError(value)

    @dlopen.callback(ctypes.c_int, ctypes.c_int, on_error=(-2, errno.ECONNREFUSED))
    def refuse(value: int) -> int:
        raise LookupError(value)

    @dlopen.callback(ctypes.c_int, ctypes.c_int, on_error=-3)
    def returns_text(value: int) -> str:
        return f"{value}"

    with dlopen.Library(example, use_errno=True) as library:
        assert library.call(fail, 5) == -1
        ctypes.set_errno(0)
        assert library.call(refuse, 6) == -2
        assert ctypes.get_errno() == errno.ECONNREFUSED
        assert library.call(returns_text, 7) == -3
    assert [type(error) for error in caught] == [LookupError, LookupError, TypeError]
    with pytest.raises(LookupError):
        fail.__wrapped__(8)


@pytest.mark.parametrize("on_error", ["text", (1, "text"), (1, 2, 3), 1.5])
def test_what_c_cannot_get(on_error: object) -> None:
    with pytest.raises(TypeError):
        dlopen.callback(ctypes.c_int, on_error=on_error)


def test_nothing_is_returned_by_void() -> None:
    with pytest.raises(TypeError, match="returns nothing"):
        dlopen.callback(None, on_error=-1)
    dlopen.callback(None, on_error=(None, errno.EIO))


def test_a_lambda_is_no_replacement(example: Path) -> None:
    """Refused when it runs, and by mypy: `make types` says so of an ignore that is not needed."""
    typed = dlopen.callback(ctypes.c_int)(lambda: 5)
    with dlopen.Library(example, dlopen.PRIVATE) as library:
        with pytest.raises(TypeError, match="a replacement is"):
            library.patch(malloc=lambda: None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a replacement is"):
            library.patch({"malloc": "text"})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="a replacement is"):
            dlopen.Library(
                example,
                dlopen.PRIVATE,
                replace={"malloc": lambda: None},  # type: ignore[dict-item]
            )
        for right in (typed, ctypes.CDLL(None).malloc, library.add, int(library.symbols["add"])):
            library.patch(puts=right).restore()
        library.patch({"puts": library.symbols["add"]}).restore()
