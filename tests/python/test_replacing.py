"""Symbols that the caller decides: `replace`, and linking an `Image` by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, run_python

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int add(int a, int b) { return a + b; }
void *(*pointer)(size_t) = malloc;
int work(void) {
  char *text = malloc(100);
  strcpy(text, "hello");
  void *other = pointer(200);
  int length = (int)strlen(text);
  free(text);
  free(other);
  return length;
}
"""
HEAD = """
import ctypes, gc, os, sys
from ctypes import c_char_p, c_int, c_size_t, c_void_p
import dlopen
path = sys.argv[1]
libc = dlopen.existing("libc.so.6")
real_malloc = libc.function("malloc", c_void_p, c_size_t)
sizes = []
@dlopen.callback(c_void_p, c_size_t)
def my_malloc(size):
    sizes.append(size)
    return real_malloc(size)
"""


def python(code: str, *arguments: Path | str) -> list[str]:
    return run_python(HEAD + code, *map(str, arguments)).stdout.splitlines()


@pytest.fixture(params=["lazy", "now"])
def library(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    flags = ["-fno-builtin", f"-Wl,-z,{request.param}"]
    return compile_library(tmp_path, "libexample.so", SOURCE, flags=flags)


@pytest.mark.parametrize("mode", ["RTLD_LAZY", "RTLD_NOW"])
@pytest.mark.parametrize("key", ["malloc", "malloc@GLIBC_2.2.5"])
def test_malloc_is_replaced_in_one_library(library: Path, mode: str, key: str) -> None:
    code = f"""
lib = dlopen.Library(path, dlopen.{mode}, replace={{"{key}": my_malloc}})
del my_malloc
gc.collect()
assert lib.work() == 5
assert sizes == [100, 200], sizes
other = dlopen.Library(path, dlopen.PRIVATE)
assert other.work() == 5 and libc.malloc and sizes == [100, 200]
lib.close()
other.close()
again = dlopen.Library(path)
assert again.work() == 5 and sizes == [100, 200]
"""
    python(code, library)


def test_what_may_stand_for_a_symbol(library: Path) -> None:
    code = """
address = ctypes.cast(my_malloc, c_void_p).value
symbol = libc.symbols["malloc"]
for replacement in (my_malloc, address, symbol, libc.malloc):
    with dlopen.Library(path, dlopen.PRIVATE, replace={"malloc": replacement}) as lib:
        assert lib.work() == 5
assert sizes == [100, 200] * 2, sizes
try:
    dlopen.Library(path, replace={"malloc": print})
except TypeError as error:
    print(error)
# A version that it does not ask for: nothing is replaced.
with dlopen.Library(path, replace={"malloc@NONE_1": my_malloc}) as lib:
    lib.work()
assert sizes == [100, 200] * 2, sizes
"""
    (line,) = python(code, library)
    assert line.startswith("a replacement is an address, a Symbol or a ctypes function, not <built")


def test_a_library_that_is_loaded_is_bound(library: Path) -> None:
    code = """
with dlopen.Library(path) as lib:
    try:
        dlopen.Library(path, replace={"malloc": my_malloc})
    except dlopen.Error as error:
        print(error)
    assert lib.work() == 5
"""
    (line,) = python(code, library)
    assert "loaded already" in line


def test_replace_in_the_tree(tmp_path: Path) -> None:
    base = compile_library(
        tmp_path, "libbase.so", "#include <stdlib.h>\nint *base(void) { return malloc(11); }"
    )
    source = (
        "#include <stdlib.h>\nint *base(void); int *top(void) { free(base()); return malloc(22); }"
    )
    top = compile_library(tmp_path, "libtop.so", source, flags=["-fno-builtin"], libraries=[base])
    code = """
for where, seen in ((None, [22]), ("tree", [11, 22])):
    sizes.clear()
    with dlopen.Library(path, replace={"malloc": my_malloc}, replace_in=where) as lib:
        lib.function("top", c_void_p)()
    assert sizes == seen, (where, sizes)
"""
    python(code, top)


@pytest.mark.parametrize("mode", ["RTLD_LAZY", "RTLD_NOW"])
def test_an_image_is_linked_by_hand(library: Path, mode: str) -> None:
    """The second example of the manual that this package's model has."""
    code = f"""
libgcc = dlopen.existing("libgcc_s.so.1") if len(sys.argv) > 2 else libc
image = dlopen.Image.from_bytes(open(path, "rb").read(), name="mine")
assert image.info.needed == ("libc.so.6",)
asked = []
def find(name, version):
    asked.append((name, version))
    return my_malloc if name == "malloc" else None
lib = image.relocate(scope=[libc, libgcc], find=find, mode=dlopen.{mode})
assert image.closed and lib.function("add", c_int, c_int, c_int)(1, 1) == 2
once = sorted(name for name, version in asked if version)
assert once == sorted(set(once)) and "malloc" in once, asked
assert ("malloc", "GLIBC_2.2.5") in asked
assert lib.work() == 5 and sizes == [100, 200]
assert not any(info.soname == "mine" for info in dlopen.libraries() if info.is_host)
try:
    image.relocate()
except ValueError as error:
    print(error)
lib.close()
print(lib.unload_blockers)
"""
    assert python(code, library) == ["mine is closed", "()"]


def test_the_scope_is_exactly_the_list(library: Path) -> None:
    code = """
image = dlopen.Image(path)
try:
    image.relocate()
except dlopen.SymbolError as error:
    print(error.symbol)
print(image.closed, any(info.path == path for info in dlopen.libraries()))
"""
    symbol, rest = python(code, library)
    assert symbol
    assert rest == "True False"


def test_an_exception_of_find_is_raised(library: Path) -> None:
    code = """
image = dlopen.Image(path)
def find(name, version):
    raise LookupError(f"not {name[:0]}this one")
try:
    image.relocate([libc], find)
except LookupError as error:
    print(error)
print(any(info.path == path for info in dlopen.libraries()))
"""
    assert python(code, library) == ["not this one", "False"]
