"""Namespaces: trees of their own, one family of libraries, one program."""

from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import pickle
import sys
import threading
import zlib
from ctypes import c_char_p, c_int, c_size_t, c_ulong, c_void_p
from pathlib import Path

import pytest

import dlopen
from dlopen import _linker
from support.fixtures import compile_library, maps, missing, run, run_python

ANSWER = "int answer(void) { return %d; }\n"
ASKS = "int answer(void);\nint ask(void) { return answer(); }\n"


def build_foo(directory: Path, number: int) -> Path:
    return compile_library(directory, "libfoo.so.1", ANSWER % number)


@pytest.fixture
def asks(tmp_path: Path) -> Path:
    """A library that needs libfoo.so.1, which it does not find by itself."""
    foo = build_foo(tmp_path / "stub", 0)
    return compile_library(tmp_path, "libasks.so", ASKS, libraries=[foo], rpath="")


def paths(namespace: dlopen.Namespace) -> list[str]:
    return [info.path for info in namespace.libraries]


def mapped(directory: Path) -> list[str]:
    return [mapping.path for mapping in maps() if mapping.path.startswith(f"{directory}/")]


# At once ---------------------------------------------------------------------------------

SQLITE = """
import ctypes, sys
from ctypes import byref, c_char_p, c_int, c_int64, c_void_p

import dlopen
from support.fixtures import maps

OK, MISUSE, ROW = 0, 21, 100
MULTITHREAD = 2  # SQLITE_CONFIG_MULTITHREAD
path, count = sys.argv[1], 100

def mapped():
    return [m for m in maps() if "libsqlite3" in m.path]

before = mapped()
namespaces = [dlopen.Namespace(f"{i}") for i in range(count)]
libraries = [dlopen.Library(path, dlopen.PRIVATE) for _ in range(count)]
libraries += [namespace.load(path) for namespace in namespaces]
assert len({library.info.load_bias for library in libraries}) == 2 * count
assert len({m.start for m in mapped()} - {m.start for m in before}) >= 8 * count

def execute(library, database, text):
    rows = []
    @dlopen.callback(c_int, c_void_p, c_int, ctypes.POINTER(c_char_p), c_void_p)
    def row(_data, _columns, values, _names):
        rows.append(values[0])
        return 0
    function = library.function(
        "sqlite3_exec", c_int, c_void_p, c_char_p, c_void_p, c_void_p, c_void_p)
    assert function(database, text.encode(), row, None, None) == OK
    return rows

databases = []
for number, library in enumerate(libraries):
    # Only what is not initialised yet can be configured: the one, not those before and after it.
    assert library.sqlite3_config(MULTITHREAD) == OK
    assert library.sqlite3_initialize() == OK
    assert library.sqlite3_config(MULTITHREAD) == MISUSE
    limit = library.function("sqlite3_soft_heap_limit64", c_int64, c_int64)
    assert limit(1_000_000_000 + number) == 0
    database = c_void_p()
    assert library.sqlite3_open(b":memory:", byref(database)) == OK
    execute(library, database, f"create table t (x); insert into t values ({number})")
    databases.append(database)
for number, (library, database) in enumerate(zip(libraries, databases)):
    limit = library.function("sqlite3_soft_heap_limit64", c_int64, c_int64)
    assert limit(-1) == 1_000_000_000 + number
    assert execute(library, database, "select x from t") == [b"%d" % number]
    assert execute(library, database, "select count(*) from sqlite_master") == [b"1"]
    used = library.function("sqlite3_memory_used", c_int64)
    assert used() > 0
    assert library.sqlite3_close(database) == OK
    assert library.sqlite3_shutdown() == OK
    assert used() == 0

for library in libraries[:count]:
    library.close()
    assert library.unload_blockers == ()
for namespace in namespaces:
    namespace.close()
    assert namespace.libraries == namespace.unload_blockers == ()
assert mapped() == before
print("unloaded")
"""


def test_a_hundred_private_copies_and_namespaces_of_sqlite() -> None:
    path = dlopen.find("libsqlite3.so.0").path or missing("libsqlite3.so.0 is not installed")
    assert run_python(SQLITE, path).stdout == "unloaded\n"


CXX_HEADER = """
#include <map>
#include <stdexcept>
#include <string>
extern "C" typedef void (*report_function)(int);
// Of all translation units of one program: STB_GNU_UNIQUE.
template <class T> struct Shared { static T value; };
template <class T> T Shared<T>::value;
struct AtEnd {
    int number;
    report_function report = nullptr;
    explicit AtEnd(int n) : number(n) {}
    ~AtEnd() { if (report) report(number); }
};
"""
CXX_BOTTOM = """
static std::map<std::string, int> entries;
static AtEnd at_end{1};
static thread_local AtEnd of_thread{10};
static thread_local std::string in_thread = "none";
void store(const std::string &name, int value) {
    entries[name] = value;
    Shared<int>::value += value;
}
int lookup(const std::string &name) {
    auto found = entries.find(name);
    if (found == entries.end()) throw std::out_of_range("no " + name);
    return found->second;
}
std::string &thread_text() { return in_thread; }
void report_bottom(report_function report) { at_end.report = report; }
void report_thread(report_function report) { of_thread.report = report; }
"""
CXX_MIDDLE = """
void store(const std::string &, int);
int lookup(const std::string &);
void report_bottom(report_function);
static AtEnd at_end{2};
std::string describe(const std::string &name) {
    std::string all = std::to_string(Shared<int>::value);
    return name + " is " + std::to_string(lookup(name)) + " of " + all;
}
void report_middle(report_function report) { at_end.report = report; report_bottom(report); }
"""
CXX_TOP = """
std::string describe(const std::string &);
void store(const std::string &, int);
std::string &thread_text();
void report_middle(report_function);
void report_thread(report_function);
static AtEnd at_end{3};
static std::string last;
extern "C" {
void put(const char *name, int value) { store(name, value); }
const char *get(const char *name) {
    try {
        last = describe(name);
    } catch (const std::out_of_range &error) {
        last = std::string("caught: ") + error.what();
    }
    return last.c_str();
}
void put_in_thread(const char *text) { thread_text() = text; }
const char *get_in_thread(void) { return thread_text().c_str(); }
void report_to(report_function report) { at_end.report = report; report_middle(report); }
void report_thread_to(report_function report) { report_thread(report); }
}
"""
CXX = """
import sys, threading
from collections import Counter
from ctypes import c_char_p, c_int

import dlopen
from support.fixtures import maps

path, folder, count = sys.argv[1], sys.argv[2], 100

def mapped():
    return {m.path for m in maps() if m.path.startswith(folder)}

namespaces = [dlopen.Namespace(f"{i}", [folder + "/lib"]) for i in range(count)]
libraries = [dlopen.Library(path, dlopen.PRIVATE) for _ in range(count)]
libraries += [namespace.load(path) for namespace in namespaces]
assert len(mapped()) == 3
assert all(len(namespace.libraries) == 3 for namespace in namespaces)
reported = Counter()
@dlopen.callback(None, c_int)
def report(number):
    reported[number] += 1

def call(library, name, *arguments):
    return library.function(name, c_char_p, *[type(a) for a in arguments])(*arguments)

for number, library in enumerate(libraries):
    library.report_to(report)
    library.put(b"number", number)
    library.put(b"%d" % number, 1)
for number, library in enumerate(libraries):
    assert call(library, "get", c_char_p(b"number")) == b"number is %d of %d" % (number, number + 1)
    assert call(library, "get", c_char_p(b"%d" % number)).startswith(b"%d is 1" % number)
    absent = b"%d" % (number + 1)
    assert call(library, "get", c_char_p(absent)) == b"caught: no " + absent

def in_thread():
    for number, library in enumerate(libraries):
        assert call(library, "get_in_thread") == b"none"
        library.put_in_thread(b"thread %d" % number)
        library.report_thread_to(report)
    for number, library in enumerate(libraries):
        assert call(library, "get_in_thread") == b"thread %d" % number
for _ in range(2):
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
# Joined is not yet ended: the thread destroys its objects after Python's part of it.
for _ in range(1000):
    if reported[10] == 4 * count:
        break
    threading.Event().wait(0.01)
assert reported == {10: 4 * count}, reported

for library in libraries[:count]:
    library.close()
for namespace in namespaces:
    namespace.close()
    assert namespace.libraries == ()
assert reported == {10: 4 * count, 1: 2 * count, 2: 2 * count, 3: 2 * count}, reported
assert mapped() == set()
print("unloaded")
"""


@pytest.mark.cxx
def test_a_hundred_private_copies_and_namespaces_of_a_cxx_library(tmp_path: Path) -> None:
    lib = tmp_path / "lib"

    def build(directory: Path, name: str, source: str, *needed: Path) -> Path:
        text = CXX_HEADER + source
        return compile_library(directory, name, text, language="c++", libraries=needed)

    bottom = build(lib, "libbottom.so", CXX_BOTTOM)
    middle = build(lib, "libmiddle.so", CXX_MIDDLE, bottom)
    top = compile_library(
        tmp_path,
        "libtop.so",
        CXX_HEADER + CXX_TOP,
        language="c++",
        libraries=[middle, bottom],
        rpath="$ORIGIN/lib",
    )
    assert run_python(CXX, str(top), str(tmp_path)).stdout == "unloaded\n"


def library_of_package(name: str) -> Path:
    """Of those that the group `libraries` of pyproject.toml brings."""
    found = sorted(Path(sys.prefix, "libraries").glob(f"*/lib*/{name}"))
    return found[0] if found else missing(f"no package has brought {name}: make test does")


def version_by_ctypes(path: Path) -> str:
    code = (
        "import ctypes, sys; z = ctypes.CDLL(sys.argv[1])\n"
        "z.zlibVersion.restype = ctypes.c_char_p; print(z.zlibVersion().decode())"
    )
    return run([sys.executable, "-c", code, path]).stdout.strip()


def test_two_builds_of_zlib_side_by_side(tmp_path: Path) -> None:
    system = Path(dlopen.find("libz.so.1").path or missing("libz.so.1 is not installed"))
    other = library_of_package("libz.so.1")
    # Where both are of one version they are known apart by their paths alone.
    versions = [version_by_ctypes(system), version_by_ctypes(other)]
    source = "const char *zlibVersion(void);\nconst char *version(void) { return zlibVersion(); }\n"
    user = compile_library(tmp_path, "libuser.so", source, libraries=[system], rpath="")
    text = b"".join(b"%d squared is %d\n" % (i, i * i) for i in range(10_000))
    packed = []
    with (
        dlopen.Namespace("system", [system.parent]) as first,
        dlopen.Namespace("package", [other.parent]) as second,
    ):
        libraries = [first.load("libz.so.1"), second.load("libz.so.1")]
        users = [first.load(user), second.load(user)]
        for library, needs_it, version in zip(libraries, users, versions, strict=True):
            assert library.function("zlibVersion", c_char_p)() == version.encode()
            assert needs_it.function("version", c_char_p)() == version.encode()
        for library in libraries:
            size = c_ulong(len(text))
            room = ctypes.create_string_buffer(len(text))
            compress = library.function("compress", c_int, c_void_p, c_void_p, c_char_p, c_ulong)
            assert compress(room, ctypes.byref(size), text, len(text)) == 0
            packed.append(room.raw[: size.value])
        for library, other_packed in itertools.product(libraries, packed):
            size = c_ulong(len(text))
            room = ctypes.create_string_buffer(len(text))
            uncompress = library.function(
                "uncompress", c_int, c_void_p, c_void_p, c_char_p, c_ulong
            )
            assert uncompress(room, ctypes.byref(size), other_packed, len(other_packed)) == 0
            assert room.raw == text
        assert [zlib.decompress(one) for one in packed] == [text, text]
        assert paths(first) == [str(system), str(user)]
        assert paths(second) == [str(other), str(user)]
    assert not mapped(other.parent)


# What is shared -----------------------------------------------------------------------------


def test_the_family_is_shared(tmp_path: Path) -> None:
    source = """
    #include <errno.h>
    #include <math.h>
    #include <stdlib.h>
    #include <string.h>
    char *make(void) { return strdup("made"); }
    void *get_malloc(void) { return (void *)malloc; }
    int *get_errno(void) { return &errno; }
    double root(double x) { return sqrt(x); }
    """
    flags = ["-fno-builtin", "-lm"]
    path = compile_library(tmp_path, "libmakes.so", source, flags=flags)
    libc = dlopen.existing("libc.so.6")
    with dlopen.Namespace("a") as a, dlopen.Namespace("b") as b:
        first, second = a.load(path), b.load(path)
        made = first.function("make", c_void_p)()
        assert ctypes.string_at(made) == b"made"
        libc.function("free", None, c_void_p)(made)
        program = dlopen.Library(None)
        for name in ("get_malloc", "get_errno"):
            assert first.function(name, c_void_p)() == second.function(name, c_void_p)()
        malloc = program.function("malloc", c_void_p, c_size_t)
        assert first.function("get_malloc", c_void_p)() == ctypes.cast(malloc, c_void_p).value
        assert first.function("root", ctypes.c_double, ctypes.c_double)(9) == 3
        program.close()
        # The dependencies that are in the namespaces are those that are not of the family.
        assert paths(a) == paths(b) == [str(path)]
        family = {info.soname for info in first.info.dependencies}
        assert family == {"libm.so.6", "libc.so.6"}
        assert all(info.is_host for info in first.info.dependencies)
        assert a.load("libm.so.6").info.is_host
    libc.close()


@pytest.mark.cxx
def test_one_cxx_runtime(tmp_path: Path) -> None:
    throws = """
    #include <stdexcept>
    extern "C" void fail(void) { throw std::runtime_error("from the other namespace"); }
    """
    catches = """
    #include <stdexcept>
    #include <string>
    static std::string text;
    extern "C" const char *attempt(void (*function)(void)) {
        try { function(); } catch (const std::exception &error) { text = error.what(); }
        return text.c_str();
    }
    """
    a_path = compile_library(tmp_path, "libthrows.so", throws, language="c++")
    b_path = compile_library(tmp_path, "libcatches.so", catches, language="c++")
    with dlopen.Namespace("a") as a, dlopen.Namespace("b") as b:
        thrower, catcher = a.load(a_path), b.load(b_path)
        attempt = catcher.function("attempt", c_char_p, c_void_p)
        assert attempt(thrower.fail) == b"from the other namespace"


def test_what_stands_before_the_family_stands_before_it_in_namespaces(tmp_path: Path) -> None:
    """There is one heap: a preloaded malloc is everybody's."""
    preloaded = compile_library(
        tmp_path, "libbefore.so", 'const char *l64a(long value) { return "preloaded"; }\n'
    )
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdlib.h>
    const char *call(void) { return l64a(1); }
    const char *find(void) { return ((const char *(*)(long))dlsym(RTLD_DEFAULT, "l64a"))(1); }
    """
    path = compile_library(tmp_path, "libcalls.so", source)
    code = """
import sys, dlopen
from ctypes import c_char_p
for way in (dlopen.RTLD_LOCAL, dlopen.RTLD_GLOBAL, dlopen.RTLD_DEEPBIND, dlopen.PRIVATE):
    for mode in (way | dlopen.RTLD_NOW, way | dlopen.RTLD_LAZY):
        with dlopen.Namespace("a") as namespace:
            library = namespace.load(sys.argv[1], mode)
            for name in ("call", "find"):
                print(library.function(name, c_char_p)().decode())
"""
    env = {"LD_PRELOAD": preloaded.name, "LD_LIBRARY_PATH": str(tmp_path)}
    assert run_python(code, str(path), env=env).stdout == 16 * "preloaded\n"


def test_the_program_comes_last(tmp_path: Path) -> None:
    """What nobody else defines is Python's, be it in a libpython; an own one comes first."""
    source = """
    const char *Py_GetVersion(void);
    int Py_IsInitialized(void) { return 77; }
    const char *version(void) { return Py_GetVersion(); }
    int own(void) { return Py_IsInitialized(); }
    """
    path = compile_library(tmp_path, "libasks_python.so", source)
    code = """
import sys, dlopen
from ctypes import c_char_p
for mode in (dlopen.RTLD_NOW, dlopen.RTLD_LAZY):
    with dlopen.Namespace("a") as namespace:
        library = namespace.load(sys.argv[1], mode)
        print(library.function("version", c_char_p)() == sys.version.encode(), library.own())
"""
    assert run_python(code, str(path)).stdout == "True 77\nTrue 77\n"


def test_its_own_tree_comes_before_the_family(tmp_path: Path) -> None:
    """Not so where the program is: there, libc stands in the global scope."""
    deep = compile_library(tmp_path, "libdeep.so", "int getpagesize(void) { return 1; }\n")
    flags = ["-Wl,--no-as-needed"]
    middle = compile_library(tmp_path, "libmid.so", "int x;\n", libraries=[deep], flags=flags)
    source = "int getpagesize(void);\nint size(void) { return getpagesize(); }\n"
    path = compile_library(tmp_path, "libsize.so", source, libraries=[middle], flags=flags)
    with dlopen.Namespace("a") as namespace, dlopen.Library(path) as library:
        assert library.size() == 4096
        assert namespace.load(path).size() == 1


def test_what_the_host_has_is_not_seen(tmp_path: Path) -> None:
    """Loaded by the system's loader, and global: a namespace has its own all the same, or none."""
    source = "int state = 1;\nint hostonly(void) { return 1; }\n"
    path = compile_library(tmp_path, "libstate.so", source)
    host = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    c_int.in_dll(host, "state").value = 5
    needs = compile_library(
        tmp_path, "libneeds.so", "int hostonly(void);\nint call(void) { return hostonly(); }"
    )
    with dlopen.Namespace("a") as namespace:
        with pytest.raises(dlopen.SymbolError):
            namespace.load(needs)
        assert not paths(namespace)
        assert namespace.load(path).variable("state", c_int).value == 1
        assert paths(namespace) == [str(path)]
    with dlopen.Library(needs) as library:
        assert library.call() == 1


def test_what_the_family_needs_is_not_of_the_family(tmp_path: Path) -> None:
    """A libpython of the process's may need a libz; a namespace does not see that one."""
    helper = compile_library(tmp_path, "libhelper.so", "int answer(void) { return 1; }\n")
    flags = ["-Wl,--no-as-needed"]
    family = compile_library(
        tmp_path, "libpython3fake.so", "int x;\n", libraries=[helper], flags=flags
    )
    ctypes.CDLL(str(family))
    path = compile_library(tmp_path, "libasks.so", ASKS, libraries=[family], flags=flags)
    with dlopen.Namespace("a") as namespace:
        with pytest.raises(dlopen.SymbolError):
            namespace.load(path)
        own = namespace.load(family)
        assert own.info.is_host
    with dlopen.Library(path) as library:
        assert library.ask() == 1


# Searching ----------------------------------------------------------------------------------


def test_the_path_holds_for_dependencies(tmp_path: Path, asks: Path) -> None:
    folders = [build_foo(tmp_path / name, number).parent for number, name in ((1, "a"), (2, "b"))]
    with dlopen.Namespace("1", folders) as first, dlopen.Namespace("2", folders[::-1]) as second:
        assert first.load(asks).ask() == 1
        assert second.load(asks).ask() == 2
        assert second.load("libfoo.so.1").answer() == 2
        assert first.path == tuple(map(str, folders))
        assert paths(first) == [str(asks), str(folders[0] / "libfoo.so.1")]
    with pytest.raises(dlopen.LoadError, match=r"libfoo\.so\.1"):
        dlopen.Library(asks)


def test_the_path_wins_over_the_system_and_runpath_but_not_rpath(tmp_path: Path) -> None:
    folder = build_foo(tmp_path / "path", 1).parent
    own = build_foo(tmp_path / "own", 2)
    by_runpath = compile_library(
        tmp_path, "librunpath.so", ASKS, libraries=[own], rpath="$ORIGIN/own"
    )
    by_rpath = compile_library(
        tmp_path,
        "librpath.so",
        ASKS,
        libraries=[own],
        rpath="",
        flags=["-Wl,--disable-new-dtags,-rpath,$ORIGIN/own"],
    )
    with dlopen.Namespace("without") as namespace:
        assert namespace.load(by_runpath).ask() == 2
    with dlopen.Namespace("runpath", [folder]) as namespace:
        assert namespace.load(by_runpath).ask() == 1
    with dlopen.Namespace("rpath", [folder]) as namespace:
        assert namespace.load(by_rpath).ask() == 2
    code = """
import sys, dlopen
with dlopen.Namespace("a", [sys.argv[1]]) as a, dlopen.Namespace("b") as b:
    print(a.load("libfoo.so.1").answer(), b.load("libfoo.so.1").answer())
"""
    env = {"LD_LIBRARY_PATH": str(own.parent)}
    assert run_python(code, str(folder), env=env).stdout == "1 2\n"


def test_the_errors_name_the_path(tmp_path: Path) -> None:
    with dlopen.Namespace("a", [tmp_path]) as namespace, pytest.raises(dlopen.LoadError) as caught:
        namespace.load("libnonesuch.so")
    assert (str(tmp_path / "libnonesuch.so"), "No such file or directory") in caught.value.searched


def test_a_folder_cannot_bring_another_family(tmp_path: Path) -> None:
    """Not even where the process has not loaded that part of it yet."""
    fake = compile_library(tmp_path / "lib", "libstdc++.so.6", "int fake;\n")
    code = """
import sys, dlopen
assert not any("libstdc++" in info.path for info in dlopen.libraries())
with dlopen.Namespace("a", [sys.argv[1]]) as namespace:
    library = namespace.load(sys.argv[2])
    print([info.path.rpartition("/")[0] for info in dlopen.libraries() if "stdc++" in info.path])
"""
    path = compile_library(
        tmp_path,
        "libneedscxx.so",
        "int x;\n",
        libraries=[fake],
        rpath="",
        flags=["-Wl,--no-as-needed"],
    )
    real = dlopen.find("libstdc++.so.6").path or missing("libstdc++.so.6 is not installed")
    output = run_python(code, str(fake.parent), str(path)).stdout
    assert output == f"{[str(Path(real).parent)]}\n"


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="colon"):
        dlopen.Namespace("a", ["/x:/y"])
    with pytest.raises(TypeError, match="folders"):
        dlopen.Namespace("a", "/usr/lib")
    with pytest.raises(TypeError, match="folders"):
        dlopen.Namespace("a", tmp_path)  # type: ignore[arg-type]
    with dlopen.Namespace("a") as namespace:
        with pytest.raises(ValueError, match="namespace"):
            dlopen.Library(None, namespace=namespace)
        with pytest.raises(ValueError, match="replace_in"):
            namespace.load("libz.so.1", replace_in="all")  # type: ignore[arg-type]
        for function in (copy.copy, pickle.dumps):
            with pytest.raises(TypeError, match="copied or pickled"):
                function(namespace)
        assert repr(namespace) == "<dlopen.Namespace 'a'>"
        assert namespace.name == "a"
    assert repr(namespace) == "<dlopen.Namespace 'a' closed>"


def test_audit_events(asks: Path) -> None:
    code = """
import sys
events = []
sys.addaudithook(lambda *event: event[0].startswith("dlopen.") and events.append(event))
import dlopen
namespace = dlopen.Namespace("a", ["/nonesuch"])
try:
    namespace.load("libnonesuch.so")
except dlopen.LoadError:
    pass
print(events)
"""
    expected = [
        ("dlopen.namespace", ("a", ("/nonesuch",))),
        ("dlopen.open", ("libnonesuch.so", int(dlopen.RTLD_NOW))),
    ]
    assert run_python(code).stdout == f"{expected}\n"


# Opening and closing ------------------------------------------------------------------------


def test_one_image_in_a_namespace_another_in_the_next(tmp_path: Path) -> None:
    source = "static int n;\nint count(void) { return ++n; }\n"
    path = compile_library(tmp_path, "libcount.so", source)
    with (
        dlopen.Namespace("a") as a,
        dlopen.Namespace("b") as b,
        dlopen.Library(path) as outside,
    ):
        first, again, second = a.load(path), a.load("./" + path.name), None
        second = dlopen.Library(path, namespace=b)
        assert [first.count(), again.count(), second.count(), outside.count()] == [1, 2, 1, 1]
        assert first.info == again.info != second.info
        assert len(a.libraries) == 1
        assert a.libraries[0].open_count == 2
        first.close()
        assert again.count() == 3
        private = a.load(path, dlopen.PRIVATE)
        assert private.count() == 1
        assert len({info.namespace_id for info in (again.info, private.info)}) == 1
        assert outside.info.namespace_id == 0 != again.info.namespace_id


@pytest.fixture(autouse=True)
def in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_core_refuses_what_is_no_namespace() -> None:
    number = _linker.new_namespace(None)
    _linker.end_namespace(number)
    for use in (
        _linker.end_namespace,
        lambda id_: _linker.open(b"libz.so.1", None, 2, namespace=id_),
    ):
        for wrong in (number, number + 1, 1 << 40):
            with pytest.raises(ValueError, match="namespace"):
                use(wrong)


def test_an_empty_namespace_is_one(tmp_path: Path) -> None:
    path = build_foo(tmp_path, 1)
    with dlopen.Namespace("a") as namespace:
        assert namespace.libraries == namespace.unload_blockers == ()
        for _ in range(3):
            library = namespace.load(path)
            assert library.answer() == 1
            library.close()
            assert not paths(namespace)
            assert not mapped(tmp_path)
        with pytest.raises(dlopen.LoadError):
            namespace.load("./nonesuch.so")
        with pytest.raises(dlopen.LoadError):
            namespace.load(path, dlopen.RTLD_NOW | dlopen.RTLD_NOLOAD)
    namespace.close()
    assert namespace.closed
    for use in (lambda: namespace.load(path), namespace.imports, namespace.__enter__):
        with pytest.raises(ValueError, match="'a' is closed"):
            use()


def test_closing_turns_everything_off(tmp_path: Path, asks: Path) -> None:
    folder = build_foo(tmp_path / "lib", 3).parent
    namespace = dlopen.Namespace("a", [folder])
    library, foo = namespace.load(asks), namespace.load("libfoo.so.1")
    ask, answer = library.ask, foo.function("answer", c_int)
    foo.close()
    assert len(namespace.libraries) == 2
    assert ask() == 3
    namespace.close()
    assert library.closed
    assert not mapped(tmp_path)
    assert not paths(namespace)
    for function in (ask, answer):
        with pytest.raises(ValueError, match="is closed"):
            function()


def test_destructors_run_dependents_first(tmp_path: Path) -> None:
    source = """
    extern void (*report)(int);
    void needed_%d(void);
    __attribute__((destructor)) static void end(void) { report(%d); }
    void needed_%d(void) { %s }
    """
    holder = compile_library(tmp_path, "libholder.so", "void (*report)(int);\n")
    built = [holder]
    for number in range(3):
        call = f"needed_{number - 1}();" if number else ""
        text = f"void needed_{number - 1}(void);" if number else ""
        text += source % (number, number, number, call)
        name = f"libstep{number}.so"
        built.append(compile_library(tmp_path, name, text, libraries=[holder, built[-1]]))
    ended: list[int] = []
    report = dlopen.callback(None, c_int)(ended.append)
    namespace = dlopen.Namespace("a")
    for path in built[:0:-1]:  # a later one is not closed later than what it needs
        namespace.load(path)
    holding = namespace.load(holder)
    holding.variable("report", c_void_p).value = ctypes.cast(report, c_void_p).value
    namespace.close()
    assert ended == [2, 1, 0]
    assert not mapped(tmp_path)


def test_what_keeps_it_is_named(tmp_path: Path) -> None:
    path = build_foo(tmp_path, 1)
    namespace = dlopen.Namespace("a")
    namespace.load(path)
    assert [blocker.kind for blocker in namespace.unload_blockers] == ["open"]
    needs = compile_library(tmp_path, "libneeds.so", ASKS, libraries=[path])
    namespace.load(needs, dlopen.RTLD_NOW | dlopen.RTLD_NODELETE)
    namespace.close()
    assert namespace.unload_blockers == (dlopen.Blocker("nodelete", str(needs)),)
    assert set(paths(namespace)) == {str(path), str(needs)}
    assert namespace.closed


def test_one_that_is_dropped_open_warns(tmp_path: Path) -> None:
    path = build_foo(tmp_path, 1)
    dlopen.Namespace("empty")
    gc.collect()
    namespace = dlopen.Namespace("full")
    namespace.load(path)
    number = namespace.libraries[0].namespace_id
    del namespace  # it is in a cycle with what is open in it
    with pytest.warns(ResourceWarning, match="unclosed <dlopen.Namespace 'full'>"):
        gc.collect()
    left = [info for info in dlopen.libraries() if info.namespace_id == number]
    assert [info.path for info in left] == [str(path)]


def test_replacements_in_a_namespace(tmp_path: Path, asks: Path) -> None:
    folder = build_foo(tmp_path / "lib", 3).parent
    five = dlopen.callback(c_int)(lambda: 5)
    with dlopen.Namespace("a", [folder]) as namespace:
        library = namespace.load(asks, replace={"answer": five})
        assert library.ask() == 5
        with pytest.raises(dlopen.Error, match="private copy"):
            namespace.load(asks, replace={"answer": five})


# Bytes, and RTLD_GLOBAL ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["libfoo.so.1", "another name"])
def test_bytes_are_what_is_needed_later(tmp_path: Path, asks: Path, name: str) -> None:
    """By their name and by their soname; in this namespace, and nowhere else."""
    data = build_foo(tmp_path / "lib", 8).read_bytes()
    folder = build_foo(tmp_path / "path", 9).parent
    with dlopen.Namespace("a", [folder]) as a, dlopen.Namespace("b") as b:
        foo = a.load_bytes(data, name=name)
        assert foo.answer() == 8
        assert a.load(asks).ask() == 8
        assert a.load("libfoo.so.1").info == foo.info
        with pytest.raises(dlopen.LoadError, match=r"libfoo\.so\.1"):
            b.load(asks)
        with pytest.raises(dlopen.LoadError, match=r"libfoo\.so\.1"):
            dlopen.Library(asks)
        assert a.load_bytes(data, name=name).info != foo.info


def test_bytes_in_the_base_are_found_when_they_are_global(tmp_path: Path, asks: Path) -> None:
    data = build_foo(tmp_path / "lib", 8).read_bytes()
    foo = dlopen.Library.from_bytes(data, name="libfoo.so.1")
    with pytest.raises(dlopen.LoadError):
        dlopen.Library(asks)
    foo.close()
    mode = dlopen.RTLD_NOW | dlopen.RTLD_GLOBAL
    with (
        dlopen.Library.from_bytes(data, name="libfoo.so.1", mode=mode),
        dlopen.Library(asks) as library,
        dlopen.Namespace("a") as namespace,
    ):
        assert library.ask() == 8
        with pytest.raises(dlopen.LoadError):
            namespace.load(asks)


def test_global_is_global_in_the_namespace(tmp_path: Path) -> None:
    path = build_foo(tmp_path, 4)
    asks = compile_library(tmp_path, "libunderlinked.so", ASKS)
    mode = dlopen.RTLD_NOW | dlopen.RTLD_GLOBAL
    with dlopen.Namespace("a") as a, dlopen.Namespace("b") as b:
        with pytest.raises(dlopen.SymbolError):
            a.load(asks)
        foo = a.load(path, mode)
        assert foo.info.is_global
        assert a.load(asks).ask() == 4
        with pytest.raises(dlopen.SymbolError):
            b.load(asks)
        with pytest.raises(dlopen.SymbolError):
            dlopen.Library(asks)
        with dlopen.Library(None) as program, pytest.raises(dlopen.SymbolError):
            program.function("answer")


def test_dlopen_inside_stays_inside(tmp_path: Path, asks: Path) -> None:
    """What a library opens by itself comes into its namespace, and is searched there."""
    folder = build_foo(tmp_path / "lib", 6).parent
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdlib.h>
    const char *first_folder(void *handle) {
        Dl_serinfo size, *info;
        if (dlinfo(handle, RTLD_DI_SERINFOSIZE, &size)) return dlerror();
        info = malloc(size.dls_size);
        *info = size;
        if (dlinfo(handle, RTLD_DI_SERINFO, info)) return dlerror();
        return info->dls_serpath[0].dls_name;
    }
    void *open_it(const char *name) { return dlopen(name, RTLD_NOW); }
    int call_it(void *handle) { return ((int (*)(void))dlsym(handle, "answer"))(); }
    int close_it(void *handle) { return dlclose(handle); }
    void *find_it(const char *name) { return dlsym(RTLD_DEFAULT, name); }
    """
    path = compile_library(tmp_path, "libopens.so", source)
    with dlopen.Namespace("a", [folder]) as namespace:
        library = namespace.load(path)
        handle = library.function("open_it", c_void_p, c_char_p)(b"libfoo.so.1")
        assert handle
        assert library.function("call_it", c_int, c_void_p)(handle) == 6
        assert paths(namespace) == [str(path), str(folder / "libfoo.so.1")]
        first = library.function("first_folder", c_char_p, c_void_p)
        assert first(handle) == str(folder).encode()
        find = library.function("find_it", c_void_p, c_char_p)
        assert find(b"malloc")
        assert find(b"Py_GetVersion")
        assert not find(b"answer")
        assert library.function("close_it", c_int, c_void_p)(handle) == 0
        assert paths(namespace) == [str(path)]


# Threads ------------------------------------------------------------------------------------


def test_threads_load_into_the_same_and_into_different_namespaces(
    tmp_path: Path, asks: Path
) -> None:
    folder = build_foo(tmp_path / "lib", 1).parent
    common = dlopen.Namespace("common", [folder])
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work() -> None:
        try:
            start.wait()
            for _ in range(30):
                with dlopen.Namespace("own", [folder]) as own:
                    assert own.load(asks).ask() == 1
                    with common.load(asks) as library:
                        assert library.ask() == 1
                        assert len(own.libraries) == 2
                assert not paths(own)
        except BaseException as failure:  # noqa: BLE001  (raised in the test)
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert not paths(common)
    common.close()
    assert not mapped(tmp_path)


def test_closing_while_others_load(tmp_path: Path) -> None:
    path = build_foo(tmp_path, 1)
    outcomes: set[str] = set()

    def work(namespace: dlopen.Namespace) -> None:
        while True:
            try:
                namespace.load(path)
            except ValueError as error:
                outcomes.add(str(error).partition(" ")[0])
                return

    for _ in range(50):
        namespace = dlopen.Namespace("a")
        threads = [threading.Thread(target=work, args=[namespace]) for _ in range(3)]
        for thread in threads:
            thread.start()
        namespace.close()
        for thread in threads:
            thread.join()
        assert not paths(namespace)
    assert outcomes
    assert not mapped(tmp_path)
