"""The Python side of the benchmarks: ctypes.CDLL and dlopen.Library in turn, in one process.

    python_face.py ROUNDS PATH FUNCTION [LIBRARY]...

FUNCTION takes nothing and returns an int; each LIBRARY is loaded by libc before.
Output: "METRIC CTYPES DLOPEN" a round, in nanoseconds.
"""

from __future__ import annotations

import _ctypes
import ctypes
import gc
import sys
from pathlib import Path
from time import perf_counter_ns as now
from typing import Any

import dlopen

WARM_UP, CALLS = 10, 200
PEERS: tuple[type[Any], ...] = (ctypes.CDLL, dlopen.Library)


def close_ctypes(library: ctypes.CDLL) -> None:
    """What ctypes has no method for."""
    _ctypes.dlclose(library._handle)


def close_dlopen(library: dlopen.Library) -> None:
    """The counterpart of close_ctypes."""
    library.close()


CLOSE: tuple[Any, ...] = (close_ctypes, close_dlopen)
METRICS = ("open", "first-attribute", "call", "close", "open+close", "open-after-other")


def measure(peer: int, path: str, name: str) -> tuple[float, ...]:
    """One life of a library: nanoseconds, as METRICS but for the last."""
    open_, close = PEERS[peer], CLOSE[peer]
    start = now()
    library = open_(path)
    opened = now()
    function = getattr(library, name)
    found = now()
    function.argtypes = ()
    calls = range(CALLS)
    calling = now()
    for _ in calls:
        function()
    called = now()
    close(library)
    closed = now()
    return (
        opened - start,
        found - opened,
        (called - calling) / CALLS,
        closed - called,
        opened - start + closed - called,
    )


def main(rounds: int, path: str, name: str, *loaded: str) -> None:
    """Measure and print."""
    for library in loaded:
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    real = str(Path(path).resolve())
    gc.disable()
    for round_ in range(-WARM_UP, rounds):
        taken: list[tuple[float, ...]] = [()] * 2
        for turn in range(2):
            peer = turn ^ (round_ & 1)
            # Twice, as native.c does: the first one sees what the other's loader changed.
            after_other = measure(peer, path, name)
            taken[peer] = (*measure(peer, path, name), after_other[0])
            if round_ == -WARM_UP and real in Path("/proc/self/maps").read_text():
                raise SystemExit(f"{path} is loaded after it was closed: not a measure of loading")
        if round_ >= 0:
            for metric, *pair in zip(METRICS, *taken, strict=True):
                print(f"{metric} {pair[0]:.1f} {pair[1]:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
