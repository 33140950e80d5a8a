"""`CDLL` and `PyDLL`: subclasses of ctypes', on libraries of this linker."""

from __future__ import annotations

import ctypes
import inspect
from pathlib import Path

import pytest

import dlopen
from support.fixtures import compile_library, run_python

SOURCE = """
#include <errno.h>
int counter = 5;
__thread int mine = 7;
int add(int a, int b) { return a + b; }
int close(int value) { return value + 1000; }
int info(void) { return 1; }
int symbols(void) { return 2; }
int fails(void) { errno = ERANGE; return -1; }
int call(int (*function)(int), int value) { return function(value); }
static int answer_impl(void) { return 42; }
__attribute__((visibility("hidden"))) void *resolve(void) { return answer_impl; }
int answer(void) __attribute__((ifunc("resolve")));
"""
# The first of them changes the process: each test has its own.
START = """
import ctypes, errno, os, sys, _ctypes
from ctypes import CFUNCTYPE, PYFUNCTYPE, c_char_p, c_int, py_object
import dlopen
PATH, *REST = sys.argv[1:]

def raised(act, *kinds):
    try:
        act()
    except kinds as error:
        return str(error)
    raise AssertionError("nothing was raised")

def is_mapped(path=PATH):
    return any(info.path == path for info in dlopen.libraries())
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("example"), "libexample.so", SOURCE)


def check(code: str, *arguments: object) -> None:
    run_python(START + code, *map(str, arguments))


def test_it_is_one_of_ctypes(example: Path) -> None:
    code = """
lib = dlopen.CDLL(PATH)
assert isinstance(lib, ctypes.CDLL) and lib._name == PATH and type(lib).__name__ == "CDLL"
assert repr(lib).startswith(f"<CDLL '{PATH}', handle {lib._handle:x} at 0x"), lib
assert not lib._library.info.is_host and lib._library.info.handle == lib._handle
assert lib.add(2, 3) == 5 and lib["add"](2, 3) == 5 and lib.answer() == 42
assert lib.add is lib.add and lib["add"] is not lib["add"] and lib.add.__name__ == "add"
assert isinstance(lib.add, lib._FuncPtr) and isinstance(lib.add, ctypes._CFuncPtr)
lib.add.argtypes, lib.add.restype = [c_int, c_int], ctypes.c_bool
assert lib.add(2, 3) is True and lib["add"].restype is c_int
# No function of the library's is hidden.
assert lib.close(1) == 1001 and lib.info() == 1 and lib.symbols() == 2
counter = c_int.in_dll(lib, "counter")
counter.value += 1
assert counter.value == 6 and c_int.in_dll(lib, "mine").value == 7
Binary = CFUNCTYPE(c_int, c_int, c_int)
assert Binary(("add", lib))(4, 5) == 9
assert Binary(("add", lib), ((1, "a", 1), (1, "b", 2)))(b=5) == 6
assert lib.call(CFUNCTYPE(c_int, c_int)(lambda value: value * 2), 4) == 8
assert not hasattr(lib, "no_such_function") and not hasattr(lib, "__no_such_name__")
assert "no_such_function" in raised(lambda: lib["no_such_function"], AttributeError)
assert "no_such" in raised(lambda: c_int.in_dll(lib, "no_such"), ValueError)
# The same library, the same image; what ctypes opens itself is the system loader's.
assert dlopen.CDLL(PATH)._handle == lib._handle == dlopen.existing(PATH).info.handle
own = ctypes.CDLL("libbz2.so.1.0")
assert dlopen.existing("libbz2.so.1.0").info.is_host and own.BZ2_bzlibVersion
# It can be given to where a handle is taken.
assert ctypes.CDLL(PATH, handle=lib._handle).add(1, 2) == 3
"""
    check(code, example)


def test_its_arguments_are_those_of_ctypes() -> None:
    """Of this version's CDLL."""
    kinds = (dlopen.CDLL, ctypes.CDLL)
    own, theirs = ([*inspect.signature(kind.__init__).parameters.values()] for kind in kinds)
    assert [(one.name, one.default, one.kind) for one in own[: len(theirs)]] == [
        (one.name, one.default, one.kind) for one in theirs
    ]
    assert {one.kind for one in own[len(theirs) :]} == {inspect.Parameter.KEYWORD_ONLY}


def test_arguments(example: Path) -> None:
    code = """
from pathlib import Path
with dlopen.CDLL(PATH, use_errno=True) as lib:
    ctypes.set_errno(0)
    assert lib.fails() == -1 and ctypes.get_errno() == errno.ERANGE
with dlopen.CDLL(PATH) as lib:
    ctypes.set_errno(0)
    assert lib.fails() == -1 and ctypes.get_errno() == 0
with dlopen.CDLL(PATH, ctypes.RTLD_GLOBAL, None, False, False, None) as lib:
    assert lib._library.info.is_global
with dlopen.CDLL(PATH, mode=dlopen.PRIVATE) as one, dlopen.CDLL(PATH, dlopen.PRIVATE) as two:
    assert one._handle != two._handle
    c_int.in_dll(one, "counter").value = 50
    assert c_int.in_dll(two, "counter").value == 5
with dlopen.CDLL(PATH, use_last_error=True, winmode=0) as lib:
    assert lib.add(1, 1) == 2
with dlopen.CDLL(Path(PATH)) as lib:
    assert lib.add(1, 1) == 2
os.chdir(os.path.dirname(PATH))
# A name is searched, whatever type it has.
for name in ("libexample.so", Path("libexample.so")):
    assert "libexample.so: cannot open" in raised(lambda: dlopen.CDLL(name), OSError)
# The program, of which ours that are global are a part.
keep = dlopen.CDLL(PATH, ctypes.RTLD_GLOBAL)
for program in (dlopen.CDLL(None), dlopen.CDLL(""), dlopen.PyDLL(None)):
    assert program.abs(-3) == 3 and program.answer() == 42
    assert program.getpid() == os.getpid()
# What the host has loaded.
libc = dlopen.CDLL("libc.so.6")
assert libc._library.info.is_host and libc.abs(-3) == 3
assert libc._handle == ctypes.CDLL("libc.so.6")._handle
assert ctypes.CDLL("libc.so.6", handle=libc._handle).abs(-3) == 3
assert dlopen.CDLL("libc.so.6", handle=libc._handle).abs(-3) == 3
"""
    check(code, example)


def test_arguments_of_library(example: Path) -> None:
    code = """
with open(PATH, "rb") as file:
    data = file.read()
with dlopen.CDLL("/none/libfiles.so", files={"/none/libfiles.so": data}) as lib:
    assert lib.add(2, 3) == 5 and lib._name == "/none/libfiles.so"
with dlopen.Namespace("own") as own:
    lib = dlopen.CDLL(PATH, namespace=own)
    assert lib._library.info.namespace_id and lib.add(1, 2) == 3
    kept = lib.add
assert "is closed" in raised(lambda: kept(1, 2), ValueError)
assert "is closed" in raised(lambda: dlopen.CDLL(PATH, namespace=own), ValueError)
with dlopen.CDLL(PATH, dlopen.PRIVATE, arena=True) as lib:
    assert lib._library.info.arena_size and lib.add(1, 2) == 3

@dlopen.callback(c_int, c_int)
def doubled(value):
    return 2 * value
with dlopen.CDLL(REST[0], dlopen.PRIVATE, replace={"abs": doubled}) as lib:
    assert lib.absolute(-3) == -6

# Of a Library, however it was opened.
library = dlopen.Library.from_bytes(data, name="libbytes.so")
with dlopen.CDLL(library, use_errno=True) as lib:
    assert lib._library is library and lib._name == "libbytes.so" and lib.add(2, 3) == 5
    assert c_int.in_dll(lib, "counter").value == 5
    assert lib.fails() == -1 and ctypes.get_errno() == errno.ERANGE
assert library.closed
assert "closed" in raised(lambda: dlopen.CDLL(library), ValueError)
assert dlopen.CDLL(dlopen.existing("libc.so.6")).abs(-3) == 3
assert dlopen.CDLL(dlopen.Library(None)).getpid() == os.getpid()
with dlopen.Library(PATH, reload=True) as library:
    assert "can be reloaded" in raised(lambda: dlopen.CDLL(library), TypeError)
with dlopen.Library(PATH) as library:
    raised(lambda: dlopen.CDLL(library, arena=True), TypeError)
    raised(lambda: dlopen.CDLL(PATH, handle=library.info.handle, files={}), TypeError)
    raised(lambda: dlopen.CDLL(PATH, reload=True), TypeError)
"""
    other = compile_library(
        example.parent,
        "libother.so",
        "int abs(int); int absolute(int value) { return abs(value); }",
        flags=["-fno-builtin"],
    )
    check(code, example, other)


def test_close(example: Path) -> None:
    code = """
import gc, warnings
warnings.simplefilter("error")
with dlopen.CDLL(PATH) as lib:
    add, item, cast = lib.add, lib["answer"], ctypes.cast(lib.add, ctypes.c_void_p)
    assert add(1, 2) == 3 and item() == 42
assert not is_mapped() and lib._library.closed
for function in (add, item, lib.add):
    assert "is closed" in raised(function, ValueError)
for act in (lambda: lib.fails, lambda: lib["fails"], lambda: c_int.in_dll(lib, "counter"),
            lambda: CFUNCTYPE(c_int)(("answer", lib)), lambda: lib._handle, lib.__enter__):
    assert f"{PATH} is closed" in raised(act, ValueError)
assert repr(lib).startswith(f"<CDLL '{PATH}', closed at 0x")
lib._library.close()
# As in ctypes, where nothing is closed but by its function; and none warns.
lib = dlopen.CDLL(PATH, dlopen.PRIVATE)
del lib
gc.collect()
with dlopen.CDLL(PATH):
    pass
assert is_mapped()
own = dlopen.CDLL(REST[0])
_ctypes.dlclose(own._handle)
assert not is_mapped(REST[0])
assert "not open" in raised(lambda: own.add, AttributeError)
# Two, of which the other one goes on.
one, two = dlopen.CDLL(REST[0]), dlopen.CDLL(REST[0])
with one:
    first = one.add
assert two.add(1, 2) == 3 and "is closed" in raised(first, ValueError)
# A handle that was given is not this object's to close.
given = dlopen.CDLL(REST[0], handle=two._handle)
assert given._library is None and given.add(1, 2) == 3
assert "was given as a handle" in raised(given.__enter__, ValueError)
two._library.close()
assert not is_mapped(REST[0])
"""
    other = compile_library(example.parent, "libother.so", SOURCE)
    check(code, example, other)


def test_errors(example: Path) -> None:
    code = """
assert issubclass(dlopen.LoadError, OSError)
text = raised(lambda: dlopen.CDLL("/no/such/file.so"), dlopen.LoadError)
assert text == "/no/such/file.so: cannot open shared object file: No such file or directory", text
assert "text file" in raised(lambda: dlopen.CDLL("/etc/passwd"), OSError)
# ctypes raises no other error of opening: an undefined symbol.
try:
    dlopen.CDLL(REST[0])
except OSError as error:
    assert "undefined symbol: nobody_has_it" in str(error), error
    assert isinstance(error.__cause__, dlopen.SymbolError)
    assert error.reason == "undefined symbol"
raised(lambda: dlopen.CDLL("null\\0byte"), ValueError)
raised(lambda: dlopen.CDLL(5), TypeError)
raised(lambda: dlopen.CDLL(PATH, handle="text").add, TypeError)
events = []
sys.addaudithook(lambda name, arguments: events.append((name, *arguments)))
lib = dlopen.CDLL(PATH)
lib.add
assert ("ctypes.dlopen", PATH) in events
assert any(event[0] == "ctypes.dlsym" and event[2] == "add" for event in events)
"""
    source = "void nobody_has_it(void); void use(void) { nobody_has_it(); }"
    check(code, example, compile_library(example.parent, "libundefined.so", source))


@pytest.mark.parametrize("name", [False, 0, [], ()])
def test_what_is_no_name_is_refused_as_by_ctypes(name: object) -> None:
    said = []
    for kind in (ctypes.CDLL, dlopen.CDLL):
        with pytest.raises(TypeError) as caught:
            kind(name)  # type: ignore[arg-type]
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_loaders(example: Path) -> None:
    code = """
loader = ctypes.LibraryLoader(dlopen.CDLL)
lib = loader.LoadLibrary(PATH)
assert type(lib) is dlopen.CDLL and lib.add(2, 3) == 5
assert type(getattr(loader, PATH)) is dlopen.CDLL and loader[PATH].add(2, 3) == 5

class Own(dlopen.CDLL):
    _func_restype_ = ctypes.c_double

assert Own(PATH).add(1, 2) != 3 and Own("libm.so.6").sqrt.restype is ctypes.c_double
"""
    check(code, example)


def test_pydll(example: Path) -> None:
    code = """
lib = dlopen.PyDLL(None)
assert isinstance(lib, ctypes.PyDLL) and isinstance(lib, dlopen.CDLL)
assert lib._FuncPtr._flags_ == ctypes.PyDLL(None)._FuncPtr._flags_
length = lib.PyList_Size
length.argtypes = [py_object]
assert length([1, 2]) == 2
assert "bad argument" in raised(lambda: length(5), SystemError)
assert PYFUNCTYPE(c_int, py_object)(("PyList_Size", lib))([1]) == 1
with dlopen.PyDLL(PATH) as own:
    assert own.add(1, 2) == 3 and repr(own).startswith("<PyDLL")
    kept = own.add
assert "is closed" in raised(lambda: kept(1, 2), ValueError)
"""
    check(code, example)


def test_a_module_that_names_ctypes_own_class(example: Path) -> None:
    """A binding that checks what it is given, and caches by handle."""
    code = """
import types
binding = types.ModuleType("binding")
exec('''
import ctypes
from ctypes import CDLL
lib = CDLL(PATH, mode=ctypes.RTLD_GLOBAL, use_errno=True)
assert isinstance(lib, ctypes.CDLL)
add = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(("add", lib))
counter = ctypes.c_int.in_dll(lib, "counter")
''', {"PATH": PATH, "__name__": "before"})
from unittest import mock
with mock.patch("ctypes.CDLL", dlopen.CDLL):
    exec('''
from ctypes import CDLL
lib = CDLL(PATH)
assert isinstance(lib, __import__("ctypes").CDLL)
''', vars(binding) | {"PATH": PATH})
"""
    check(code, example)


def test_threads(example: Path) -> None:
    code = """
import threading
sys.setswitchinterval(1e-5)
failed = []
def work():
    try:
        for _ in range(100):
            with dlopen.CDLL(PATH, dlopen.PRIVATE) as lib:
                assert lib.add(1, 2) == 3 and c_int.in_dll(lib, "counter").value == 5
                kept = lib.add
            raised(lambda: kept(1, 2), ValueError)
    except BaseException as error:
        failed.append(repr(error))
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
assert not is_mapped()
child = os.fork()
if child == 0:
    with dlopen.CDLL(PATH) as lib:
        os._exit(lib.add(1, 2) != 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    check(code, example)
