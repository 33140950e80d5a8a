"""Python's own ways to a library, ctypes and cffi: the host's without the preload, ours with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fixtures import compile_library, run

pytestmark = pytest.mark.in_process

SOURCE = "int counter = 40; int add(int a, int b) { counter++; return a + b; }"
PROGRAM = """
import ctypes, sys
from ctypes import CFUNCTYPE, c_int
import cffi

def mapped():
    with open("/proc/self/maps") as file:
        return sys.argv[1] in file.read()

ffi = cffi.FFI()
ffi.cdef("int add(int, int);")
opened = ffi.dlopen(sys.argv[1])
print(opened.add(2, 3), mapped())
ffi.dlclose(opened)
print(mapped())

library = ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
named = CFUNCTYPE(c_int, c_int, c_int)(("add", library), ((1, "a"), (1, "b", 5)))
print(named(a=1), c_int.in_dll(library, "counter").value, ctypes.CDLL(None).add(2, 2))
print(ffi.dlopen(ffi.cast("void *", library._handle)).add(3, 3))
"""


def test_ctypes_and_cffi(tmp_path: Path, preloads: Callable[..., dict[str, str]]) -> None:
    path = compile_library(tmp_path, "libexample.so", SOURCE)
    log = tmp_path / "log"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    without = run(command)
    assert without.stdout.splitlines() == ["5 True", "False", "6 41 4", "6"]
    logging = {"DLOPEN_LOG": "info", "DLOPEN_LOG_FILE": str(log)}
    assert run(command, env={**preloads(), **logging}).stdout == without.stdout
    assert log.read_text().count(f"load {path}:") == 2
