"""Symbols that the caller decides: `replace`, and linking an `Image` by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, run_python
from support.machines import machine

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
@pytest.mark.parametrize("key", ["malloc", f"malloc@{machine().baseline}"])
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


def test_what_may_stand_for_a_symbol(library: Path, tmp_path: Path) -> None:
    source = "unsigned long nine(const char *text) { return text ? 9 : 0; }"
    other = compile_library(tmp_path, "libother.so", source)
    code = """
other = dlopen.Library(sys.argv[2])
nine = other.nine
address = ctypes.cast(nine, c_void_p).value
mine = dlopen.callback(c_size_t, c_char_p)(lambda text: 9)
for replacement in (mine, address, other.symbols["nine"], nine):
    with dlopen.Library(path, dlopen.PRIVATE, replace={"strlen": replacement}) as lib:
        assert lib.work() == 9
try:
    dlopen.Library(path, replace={"strlen": print})
except TypeError as error:
    print(error)
# A version that it does not ask for: nothing is replaced.
with dlopen.Library(path, replace={"strlen@NONE_1": nine}) as lib:
    assert lib.work() == 5
"""
    (line,) = python(code, library, other)
    assert line.startswith("a replacement is an address, a Symbol or a ctypes function, not <built")


@pytest.mark.parametrize("mode", ["RTLD_LAZY", "RTLD_NOW"])
def test_the_library_of_a_replacement_stays(library: Path, tmp_path: Path, mode: str) -> None:
    source = "unsigned long nine(const char *text) { return text ? 9 : 0; }"
    other = compile_library(tmp_path, "libother.so", source)
    code = f"""
other = dlopen.Library(sys.argv[2])
lib = dlopen.Library(path, dlopen.{mode}, replace={{"strlen": other.symbols["nine"]}})
other.close()
print([(blocker.kind, blocker.library == path) for blocker in other.unload_blockers])
assert lib.work() == 9
lib.close()
print(other.unload_blockers, any(info.path in sys.argv for info in dlopen.libraries()))
"""
    assert python(code, library, other) == ["[('binding', True)]", "() False"]


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
image = dlopen.Image.from_bytes(open(path, "rb").read(), name="mine")
assert image.info.needed == ("libc.so.6",)
asked = []
def find(name, version):
    asked.append((name, version))
    return my_malloc if name == "malloc" else None
lib = image.relocate(scope=[libc], find=find, mode=dlopen.{mode})
assert image.closed and lib.function("add", c_int, c_int, c_int)(1, 1) == 2
once = sorted(name for name, version in asked if version)
assert once == sorted(set(once)) and "malloc" in once, asked
assert ("malloc", "{machine().baseline}") in asked
assert lib.work() == 5 and sizes == [100, 200]
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


@pytest.mark.parametrize("mode", ["RTLD_LAZY", "RTLD_NOW"])
def test_the_global_scope_is_not_in_the_list(tmp_path: Path, mode: str) -> None:
    flags = ["-Wl,-z,lazy", "-nostdlib"]
    base = compile_library(tmp_path, "libbase.so", "int one(void) { return 1; }", flags=flags)
    source = "int one(void); int two(void) { return 1 + one(); } int three(void) { return 3; }"
    mine = compile_library(tmp_path, "libmine.so", source, flags=flags)
    code = f"""
base = dlopen.Library(path, dlopen.RTLD_GLOBAL)
with dlopen.Library(sys.argv[2], dlopen.RTLD_LAZY) as lib:
    assert lib.two() == 2
with dlopen.Image(sys.argv[2]).relocate([base], mode=dlopen.{mode}) as lib:
    assert lib.two() == 2
print("without it", flush=True)
lib = dlopen.Image(sys.argv[2]).relocate(mode=dlopen.{mode})
print(lib.three(), flush=True)
lib.two()
print("bound all the same")
"""
    done = run_python(HEAD + code, str(base), str(mine), check=False)
    lazy = mode == "RTLD_LAZY"
    assert done.stdout.splitlines() == ["without it", "3"][: 1 + lazy]
    assert "undefined symbol: one" in done.stderr
    assert done.returncode == (127 if lazy else 1)  # as ld.so ends a process


@pytest.mark.parametrize("wrong", ["-1", "1 << 64", "0"])
def test_what_is_no_address(library: Path, wrong: str) -> None:
    code = f"""
for act in (
    lambda: dlopen.Library(path, replace={{"malloc": {wrong}}}),
    lambda: dlopen.Image(path).relocate([libc], replace={{"malloc": {wrong}}}),
    lambda: dlopen.Image(path).relocate([libc], lambda name, version: {wrong}),
):
    try:
        act()
    except ValueError as error:
        print(error)
gc.collect()
"""
    lines = python(code, library)
    assert len(lines) == 3
    assert all("address" in line for line in lines), lines


def test_a_wrong_mode_leaves_the_image(library: Path) -> None:
    code = """
with dlopen.Image(path) as image:
    try:
        image.relocate([libc], mode="now")
    except ValueError:
        print(image.closed)
"""
    assert python(code, library) == ["False"]


def test_replacements_outlive_the_library_that_brought_them(tmp_path: Path) -> None:
    """Another library still needs a part of the tree."""
    source = "#include <stdlib.h>\nvoid *base(void) { return malloc(11); }"
    base = compile_library(tmp_path, "libbase.so", source, flags=["-fno-builtin"])
    source = "void *base(void); void *%s(void) { return base(); }"
    top = compile_library(tmp_path, "libtop.so", source % "top", libraries=[base])
    other = compile_library(tmp_path, "libother.so", source % "other", libraries=[base])
    code = """
from weakref import ref
lib = dlopen.Library(path, replace={"malloc": my_malloc}, replace_in="tree")
gone = ref(my_malloc)
other = dlopen.Library(sys.argv[2])
del my_malloc
lib.close()
gc.collect()
other.function("other", c_void_p)()
assert sizes == [11] and gone() is not None
other.close()
gc.collect()
assert gone() is None
"""
    python(code, top, other)


@pytest.mark.parametrize("made_by", ["ctypes.CFUNCTYPE", "dlopen.callback"])
def test_a_callback_after_the_end(tmp_path: Path, made_by: str) -> None:
    """A destructor calls it when there is no interpreter any more: that is 0."""
    source = """
    #include <unistd.h>
    long count(void);
    __attribute__((destructor)) static void end(void) {
      if (write(1, count() ? "wrong\\n" : "0\\n", 2)) {}
    }
    """
    library = compile_library(tmp_path, "libend.so", source)
    code = f"""
count = {made_by}(ctypes.c_long)(lambda: 7)
lib = dlopen.Library(path, replace={{"count": count}})
"""
    assert python(code, library) == ["0"]


@pytest.mark.parametrize("mode", ["RTLD_LAZY", "RTLD_NOW"])
@pytest.mark.parametrize("how", ["replace", "find", "tree"])
def test_replacements_end_before_the_interpreter(tmp_path: Path, mode: str, how: str) -> None:
    source = """
    #include <stdio.h>
    #include <stdlib.h>
    #include <unistd.h>
    void *(*pointer)(size_t) = malloc;
    void *work(void) { return malloc(10); }
    __attribute__((destructor)) static void end(void) {
      char text[40];
      int size = snprintf(text, 40, "%d %d\\n", malloc(10) != 0, pointer(10) != 0);
      if (write(1, text, size)) {}
    }
    """
    base = compile_library(tmp_path, "libend.so", source, flags=["-fno-builtin", "-Wl,-z,lazy"])
    source = "void *work(void); void *top(void) { return work(); }"
    top = compile_library(tmp_path, "libtop.so", source, libraries=[base])
    code = f"""
mode, taken = dlopen.{mode}, {{"malloc": my_malloc}}
if "{how}" == "replace":
    lib = dlopen.Library(path, mode, replace=taken)
elif "{how}" == "tree":
    lib = dlopen.Library(sys.argv[2], mode, replace=taken, replace_in="tree")
else:
    lib = dlopen.Image(path).relocate([libc], lambda name, version: taken.get(name), mode=mode)
lib.work()
print(sizes, flush=True)
"""
    assert python(code, base, top) == ["[10]", "1 1"]


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
