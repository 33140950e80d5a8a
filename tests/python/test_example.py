"""The first example of a dynamic linker's manual: load, call, ask whose an address is, list."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, run_python

C = """
#include <stdio.h>
int add(int a, int b) { return a + b; }
void print(const char *text) { puts(text); fflush(stdout); }
"""
CXX = """
#include <iostream>
#include <stdexcept>
#include <string>
extern "C" int add(int a, int b)
{
  try { throw std::runtime_error(std::to_string(a + b)); }
  catch (const std::exception &error) { return std::stoi(error.what()); }
}
extern "C" void print(const char *text) { std::cout << std::string(text) << std::endl; }
"""
EXAMPLE = """
import logging, sys
from ctypes import c_char_p, c_int
import dlopen

logging.basicConfig(level="DEBUG", stream=sys.stderr)
libexample = dlopen.Library(sys.argv[1], dlopen.RTLD_LOCAL | dlopen.RTLD_LAZY)
add = libexample.function("add", c_int, c_int, c_int)
print(add(1, 1), flush=True)

say = libexample.function("print", None, c_char_p)
say(b"dlopen: hello world")

info = dlopen.dladdr(say)
print(info.library.path, info.symbol.name, info.offset)

def visit(info):
    print("iterate dynamic library:", info.name)

dlopen.dl_iterate_phdr(visit)
"""


@pytest.mark.parametrize(
    ("language", "source"), [("c", C), pytest.param("c++", CXX, marks=pytest.mark.cxx)]
)
def test_example(tmp_path: Path, language: str, source: str) -> None:
    path = compile_library(tmp_path, "libexample.so", source, language=language)
    done = run_python(EXAMPLE, str(path))
    first, second, third, *listed = done.stdout.splitlines()
    assert first == "2"
    assert second == "dlopen: hello world"
    assert third == f"{path} print 0"
    assert f"iterate dynamic library: {path}" in listed
    assert any("libc.so.6" in line for line in listed)
    assert "DEBUG:dlopen." in done.stderr
