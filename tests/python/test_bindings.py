"""Beside ctypes and cffi, which ask the host's loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, run_python

OURS_FIRST = """
import ctypes, sys
import cffi, dlopen

library = dlopen.Library(sys.argv[1], dlopen.RTLD_GLOBAL)
assert dlopen.Library(None).add(1, 2) == dlopen.Library(sys.argv[2]).three() == 3
library.variable("counter", ctypes.c_int).value = 100
ffi = cffi.FFI()
ffi.cdef("int add(int, int); extern int counter;")
for program in (ctypes.CDLL(None), ffi.dlopen(None)):
    assert not hasattr(program, "add")
assert ctypes.c_int.in_dll(ctypes.CDLL(sys.argv[1]), "counter").value == 40
assert ffi.dlopen(sys.argv[1]).counter == 40
"""
THEIRS_FIRST = """
import ctypes, sys
import dlopen

try:
    dlopen.Library(sys.argv[2])
except dlopen.SymbolError as error:
    assert error.symbol == "add"
else:
    sys.exit("nobody defines add")
library = ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
assert dlopen.Library(sys.argv[2]).three() == 3
with dlopen.Library(sys.argv[1]) as same:
    assert same.info.is_host
assert library.add(1, 1) == 2
"""


@pytest.mark.parametrize("program", [OURS_FIRST, THEIRS_FIRST], ids=["ours", "theirs"])
def test_who_sees_whose_libraries(tmp_path: Path, program: str) -> None:
    source = "int counter = 40; int add(int a, int b) { return a + b; }"
    library = compile_library(tmp_path, "libexample.so", source)
    source = "int add(int, int); int three(void) { return add(1, 2); }"
    user = compile_library(tmp_path, "libuser.so", source)
    run_python(program, str(library), str(user))
