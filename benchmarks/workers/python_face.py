"""The Python side of the benchmarks: ctypes, dlopen or cffi; the protocol is that of side.h.

Arguments: SIDE life PATH FUNCTION, where FUNCTION takes nothing and returns an int; or
SIDE first PATH.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

now = time.perf_counter_ns
BATCH, CALLS = 15, 200


class Ctypes:
    """What ctypes does."""

    open: Callable[[str], Any]

    def __init__(self, name: str) -> None:
        import _ctypes  # noqa: PLC0415
        import ctypes  # noqa: PLC0415

        self.open, self._name = ctypes.CDLL, name
        self._close = _ctypes.dlclose

    def function(self, library: Any) -> Any:
        return getattr(library, self._name)

    def typed(self, function: Any) -> None:
        function.argtypes = ()

    def close(self, library: Any) -> None:
        self._close(library._handle)


class Ours(Ctypes):
    """The same of dlopen."""

    def __init__(self, name: str) -> None:
        import dlopen  # noqa: PLC0415

        self.open, self._name = dlopen.Library, name

    def close(self, library: Any) -> None:
        library.close()


class Cffi(Ctypes):
    """In its ABI mode; a function is declared once, before anything is measured."""

    def __init__(self, name: str) -> None:
        import cffi  # type: ignore[import-untyped]  # noqa: PLC0415

        self._ffi, self._name = cffi.FFI(), name
        self._ffi.cdef(f"int {name}(void);")
        self.open = self._ffi.dlopen

    def typed(self, function: Any) -> None:
        pass

    def close(self, library: Any) -> None:
        self._ffi.dlclose(library)


FACES = {"ctypes": Ctypes, "dlopen": Ours, "cffi": Cffi}


def life(face: Ctypes, path: str) -> dict[str, float]:
    """One life of a library, in nanoseconds."""
    start = now()
    library = face.open(path)
    opened = now()
    function = face.function(library)
    found = now()
    face.typed(function)
    calls = range(CALLS)
    calling = now()
    for _ in calls:
        function()
    called = now()
    # What holds the function would count as its user, and keep the library open.
    del function
    closing = now()
    face.close(library)
    closed = now()
    return {
        "open": opened - start,
        "first-attribute": found - opened,
        "call": (called - calling) / CALLS,
        "close": closed - closing,
        "open+close": opened - start + closed - closing,
    }


def first(open_: Callable[[str], Any], path: str) -> dict[str, float]:
    """The first open, in CPU time."""
    start = time.process_time_ns()
    open_(path)
    return {"open": time.process_time_ns() - start}


def batch(face: Ctypes, path: str) -> dict[str, float]:
    """The medians of a batch of lives, after one that finds the caches of another process."""
    lives = [life(face, path) for _ in range(-1, BATCH)][1:]
    return {metric: sorted(one[metric] for one in lives)[BATCH // 2] for metric in lives[0]}


def need_unloaded(path: str) -> None:
    """A library that stays would make the second open a lookup."""
    with open("/proc/self/maps") as maps:  # noqa: PTH123  (pathlib would come with it)
        if path in maps.read():
            raise SystemExit(f"{path} is loaded after it was closed: not a measure of loading")


def main(side: str, task: str, *arguments: str) -> None:
    """Answer as many rounds as the harness asks for."""
    work: Callable[[], dict[str, float]]
    if task == "first":
        work = partial(first, FACES[side]("").open, arguments[0])
    else:
        path, name = arguments
        face = FACES[side](name)
        life(face, path)
        need_unloaded(path)
        gc.disable()
        work = partial(batch, face, path)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*(f"{metric} {value:.1f}" for metric, value in work().items()), flush=True)
    # A big library may have destructors that do not expect this end.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
