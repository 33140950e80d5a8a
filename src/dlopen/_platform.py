"""What this package needs, checked before anything of it is loaded."""

from __future__ import annotations

import _thread
import os
import sys


def _glibc_version() -> tuple[int, int]:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else (0, 0)
    except (ValueError, OSError):  # musl does not know the question
        return (0, 0)


def check() -> None:
    """Raise an `ImportError` that says what is not supported here."""
    # An abi3 extension is built for the interpreter with the GIL, whose objects it knows.
    if sys.implementation.name != "cpython":
        raise ImportError(f"dlopen needs CPython, not {sys.implementation.name}")
    if "t" in getattr(sys, "abiflags", ""):
        raise ImportError("dlopen needs CPython with the GIL; this is a free-threaded build")
    # Python 3.11 cannot say: there the extension asks, which is imported next.
    is_main = getattr(_thread, "_is_main_interpreter", None)
    if is_main and not is_main():
        raise ImportError("dlopen works in the main interpreter only, not in a subinterpreter")
    # Which machines there are the build knows, and a wheel says in its name.
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        bits = sys.maxsize.bit_length() + 1
        raise ImportError(f"dlopen needs 64-bit Linux, not {sys.platform} of {bits} bits")
    version = _glibc_version()
    if version < (2, 34):
        found = "glibc {}.{}".format(*version) if version[0] else "another C library"
        raise ImportError(f"dlopen needs glibc 2.34 or newer, not {found}")
