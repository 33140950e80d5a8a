"""C functions made from Python ones."""

from __future__ import annotations

import ctypes
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
