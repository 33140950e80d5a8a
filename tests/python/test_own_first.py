"""Images of one's own in a process that has an older version of all of it in its global scope."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.elf64 import STB_GNU_UNIQUE, STB_WEAK, Elf
from support.fixtures import compile_library, run_python

LEAF = """
const char *leaf(void) {{ return "{0}"; }}
int number = {1};
const char *both(void) {{ return "{0} leaf"; }}
"""
ROOT = """
#define _GNU_SOURCE
#include <dlfcn.h>
const char *leaf(void);
extern int number;
const char *both(void) { return "root"; }
const char *call_leaf(void) { return leaf(); }
const char *call_both(void) { return both(); }
int get_number(void) { return number; }
const char *find_leaf(void) { return ((const char *(*)(void))dlsym(RTLD_DEFAULT, "leaf"))(); }
"""
# Each way to open `root`, with what it needs, as images of one's own.
OPEN = """
import ctypes, sys
from ctypes import c_char_p, c_int
from pathlib import Path
import dlopen

folder, how, mode = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
data = {path.name: path.read_bytes() for path in folder.glob("*.so*")}
kept = []

def open_root(mode=mode, **keywords):
    if how == "private":
        return dlopen.Library(folder / "libroot.so", mode | dlopen.PRIVATE, **keywords)
    if how == "files":
        return dlopen.Library("libroot.so", mode, files=data, **keywords)
    if how == "bytes":
        leaf = dlopen.Library.from_bytes(data["libleaf.so.2"], name="libleaf.so.2",
                                         mode=mode | dlopen.RTLD_GLOBAL)
        kept.append(leaf)
        return dlopen.Library.from_bytes(data["libroot.so"], name="libroot.so", mode=mode,
                                         **keywords)
    space = dlopen.Namespace("own")
    kept.append(space.load_bytes(data["libleaf.so.2"], name="libleaf.so.2"))
    kept.append(space)
    return space.load_bytes(data["libroot.so"], name="libroot.so", mode=mode, **keywords)

def ask(library, name, kind=c_char_p):
    answer = library.function(name, kind)()
    return answer.decode() if isinstance(answer, bytes) else answer

def ask_all(library):
    return [ask(library, "call_leaf"), ask(library, "call_both"), ask(library, "get_number", c_int),
            ask(library, "find_leaf")]
"""
NOW, LAZY = "2", "1"
NEW = "['new', 'root', 2, 'new']\n"
WAYS = ("private", "files", "bytes", "namespace")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """libroot.so, which needs libleaf.so.2; beside it, in `old`, both as they were."""
    old = tmp_path / "old"
    compile_library(old, "libleaf.so.1", LEAF.format("old", 1))
    leaf = compile_library(tmp_path, "libleaf.so.2", LEAF.format("new", 2))
    compile_library(tmp_path, "libroot.so", ROOT, flags=["-Wl,-z,lazy"], libraries=[leaf])
    return tmp_path


@pytest.mark.parametrize("loader", ["ctypes", "dlopen"])
@pytest.mark.parametrize("mode", [NOW, LAZY])
@pytest.mark.parametrize("how", WAYS)
def test_one_needs_the_other(folder: Path, how: str, mode: str, loader: str) -> None:
    opening = {
        "ctypes": 'ctypes.CDLL(str(folder / "old/libleaf.so.1"), ctypes.RTLD_GLOBAL)',
        "dlopen": 'dlopen.Library(folder / "old/libleaf.so.1", dlopen.RTLD_GLOBAL)',
    }[loader]
    code = f"{OPEN}\nold = {opening}\nprint(ask_all(open_root()))"
    assert run_python(code, str(folder), how, mode).stdout == NEW


@pytest.mark.parametrize("how", ["private", "files", "bytes"])
def test_global_gives_the_order_of_all_others(folder: Path, how: str) -> None:
    code = f"""{OPEN}
ctypes.CDLL(str(folder / "old/libleaf.so.1"), ctypes.RTLD_GLOBAL)
host = ctypes.CDLL(str(folder / "libroot.so"), ctypes.RTLD_GLOBAL)
host.call_leaf.restype = host.call_both.restype = c_char_p
expected = [host.call_leaf().decode(), host.call_both().decode(), host.get_number()]
assert expected == ["old", "old leaf", 1], expected
print(ask_all(open_root(mode | dlopen.RTLD_GLOBAL))[:3] == expected)
"""
    assert run_python(code, str(folder), how, NOW).stdout == "True\n"


@pytest.mark.parametrize("how", WAYS)
def test_what_a_patch_finds_instead(folder: Path, how: str) -> None:
    """Of calls that are not bound yet: what is restored, and what was there without it."""
    code = f"""{OPEN}
ctypes.CDLL(str(folder / "old/libleaf.so.1"), ctypes.RTLD_GLOBAL)
library = open_root()
text = ctypes.create_string_buffer(b"patched")
@dlopen.callback(ctypes.c_void_p)
def other():
    return ctypes.addressof(text)
with library.patch(leaf=other) as patch:
    print(ask(library, "call_leaf"))
    original = ctypes.CFUNCTYPE(c_char_p)(dlopen_address(patch.original["leaf"]))
    print(original().decode())
print(ask_all(library))
"""
    code = code.replace(
        "library = open_root()",
        "dlopen_address = lambda f: ctypes.cast(f, ctypes.c_void_p).value\nlibrary = open_root()",
    )
    assert run_python(code, str(folder), how, LAZY).stdout == f"patched\nnew\n{NEW}"


def test_a_reloaded_version_calls_itself(folder: Path) -> None:
    code = f"""{OPEN}
ctypes.CDLL(str(folder / "old/libleaf.so.1"), ctypes.RTLD_GLOBAL)
hot = dlopen.Library(folder / "libroot.so", mode, reload=True)
print(ask(hot, "call_both"))
hot.reload()
print(ask(hot, "call_both"))
"""
    for mode in (NOW, LAZY):
        assert run_python(code, str(folder), "", mode).stdout == "root\nroot\n"


def test_what_replaces_comes_before_all(folder: Path) -> None:
    code = f"""{OPEN}
ctypes.CDLL(str(folder / "old/libleaf.so.1"), ctypes.RTLD_GLOBAL)
text = ctypes.create_string_buffer(b"given")
@dlopen.callback(ctypes.c_void_p)
def given():
    return ctypes.addressof(text)
library = open_root(replace={{"leaf": given}})
print(ask(library, "call_leaf"), ask(library, "call_both"), ask(library, "get_number", c_int))
"""
    for how in WAYS:
        assert run_python(code, str(folder), how, LAZY).stdout == "given root 2\n"


# Vague linkage: inline functions, what templates have, virtual tables, type information.
CLASSES = """
#include <typeinfo>
template <class T> struct Box { static int value; };
template <class T> int Box<T>::value;
struct Problem {
  int code;
  virtual ~Problem() {}
  virtual int get() const { return code; }
};
extern "C" int COUNT() { return ++Box<int>::value; }
extern "C" const void *TYPE() { return &typeid(Problem); }
"""
THROWER = CLASSES + 'extern "C" void throws() { Problem p; p.code = 5; throw p; }\n'
CATCHER = (
    CLASSES
    + """
extern "C" void throws();
extern "C" int catches_from(void (*function)()) {
  try { function(); } catch (const Problem &problem) { return problem.get(); }
  catch (...) { return -1; }
  return 0;
}
extern "C" int catches() { return catches_from(throws); }
"""
)


def classes(folder: Path, *flags: str) -> None:
    """libcatcher.so, which needs libthrower.so, and both once more, for the host, in `host`."""
    for place, number in ((folder, ""), (folder / "host", "0")):
        thrower = compile_library(
            place,
            f"libthrower{number}.so",
            THROWER,
            language="c++",
            flags=["-DCOUNT=count_thrower", "-DTYPE=type_thrower", *flags],
        )
        compile_library(
            place,
            f"libcatcher{number}.so",
            CATCHER,
            language="c++",
            flags=["-DCOUNT=count_catcher", "-DTYPE=type_catcher", *flags],
            libraries=[thrower],
        )


CHECK_CLASSES = """
import ctypes, sys
from ctypes import c_int, c_void_p
from pathlib import Path
import dlopen

folder, how = Path(sys.argv[1]), sys.argv[2]
host = ctypes.CDLL(str(folder / "host/libthrower0.so"), ctypes.RTLD_GLOBAL)
host_catcher = ctypes.CDLL(str(folder / "host/libcatcher0.so"), ctypes.RTLD_GLOBAL)
print("host", host.count_thrower(), host_catcher.count_catcher())
if how == "private":
    own = dlopen.Library(folder / "libcatcher.so", dlopen.PRIVATE)
else:
    own = dlopen.Library("libcatcher.so", files={
        path.name: path.read_bytes() for path in folder.glob("*.so")})
# Through its handle: what it needs, too.
print("own", own.count_thrower(), own.count_catcher())
print("host", host.count_thrower())
types = [library.function(name, c_void_p)() for library in (own,)
         for name in ("type_thrower", "type_catcher")]
host.type_thrower.restype = c_void_p
print("types", types[0] == types[1], types[0] == host.type_thrower())
print("caught", own.catches())
throws = own.function("throws", None)
print("by the host", host_catcher.catches_from(ctypes.cast(throws, c_void_p)))
print("of the host", own.function("catches_from", c_int, c_void_p)(
    ctypes.cast(host.throws, c_void_p).value))
"""


@pytest.mark.cxx
@pytest.mark.parametrize("how", ["private", "files"])
def test_vague_linkage_is_one_in_the_set(tmp_path: Path, how: str) -> None:
    classes(tmp_path, "-fno-gnu-unique")
    bindings = {
        symbol.binding for symbol in Elf(tmp_path / "libthrower.so").symbols if "Box" in symbol.name
    }
    assert bindings == {STB_WEAK}
    assert run_python(CHECK_CLASSES, str(tmp_path), how).stdout.splitlines() == [
        *("host 1 2", "own 1 2", "host 3", "types True False"),
        *("caught 5", "by the host 5", "of the host 5"),
    ]


@pytest.mark.cxx
def test_unique_definitions_are_one_where_they_are_shared(tmp_path: Path) -> None:
    classes(tmp_path)
    bindings = {
        symbol.binding for symbol in Elf(tmp_path / "libthrower.so").symbols if "Box" in symbol.name
    }
    assert bindings == {STB_GNU_UNIQUE}
    lines = run_python(CHECK_CLASSES, str(tmp_path), "files").stdout.splitlines()
    assert lines[:3] == ["host 1 2", "own 3 4", "host 5"]
    lines = run_python(CHECK_CLASSES, str(tmp_path), "private").stdout.splitlines()
    assert lines[:3] == ["host 1 2", "own 1 2", "host 3"]


BOX = """
template <class T> struct Box { static int value; };
template <class T> int Box<T>::value;
extern "C" int count() { return ++Box<int>::value; }
"""


@pytest.mark.cxx
def test_unique_definitions_follow_libcs_order_where_they_are_shared(tmp_path: Path) -> None:
    """Also to a definition that is not unique, and was first in the global scope."""
    compile_library(tmp_path, "libweak.so", BOX, language="c++", flags=["-fno-gnu-unique"])
    compile_library(tmp_path, "libunique.so", BOX, language="c++")
    code = """
import ctypes, sys
from pathlib import Path
import dlopen
folder, how = Path(sys.argv[1]), sys.argv[2]
host = ctypes.CDLL(str(folder / "libweak.so"), ctypes.RTLD_GLOBAL)
host.count()
path = folder / "libunique.so"
if how == "libc":
    own = ctypes.CDLL(str(path))
elif how == "private":
    own = dlopen.Library(path, dlopen.PRIVATE)
else:
    own = dlopen.Library.from_bytes(path.read_bytes(), name="bytes.so", reload=how == "reload")
print(own.count(), host.count())
if how in ("private", "reload"):
    print(own.variable("_ZN3BoxIiE5valueE", ctypes.c_int).value)
"""
    assert run_python(code, str(tmp_path), "libc").stdout == "2 3\n"
    assert run_python(code, str(tmp_path), "bytes").stdout == "2 3\n"
    # These have their own, whoever asks.
    assert run_python(code, str(tmp_path), "private").stdout == "1 2\n1\n"
    assert run_python(code, str(tmp_path), "reload").stdout == "1 2\n1\n"
