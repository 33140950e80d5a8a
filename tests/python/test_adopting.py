"""Libraries that others open - ctypes, cffi, extension modules - opened by this linker."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from dlopen._command_line import preload_path
from support.archives import pack
from support.fixtures import compile_library, missing, run_python

INCLUDE = f"-I{sysconfig.get_paths()['include']}"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

# What is adopted stays so: each test has a process of its own.
START = """
import ctypes, os, sys, _ctypes
from ctypes import CFUNCTYPE, c_char_p, c_int, c_long, c_void_p
import dlopen
PATH, *REST = sys.argv[1:]

def is_ours(path=PATH):
    found = [info.is_host for info in dlopen.libraries() if info.path == path]
    return None if not found else not found[0]
"""

EXAMPLE = """
#include <errno.h>
#include <dlfcn.h>
int counter = 5;
__thread int mine = 7;
int add(int a, int b) { return a + b; }
int fails(void) { errno = ERANGE; return -1; }
static int answer_impl(void) { return 42; }
__attribute__((visibility("hidden"))) void *resolve(void) { return answer_impl; }
int answer(void) __attribute__((ifunc("resolve")));
"""

# Calls each of the family that a library may.
CALLER = """
#define _GNU_SOURCE
#include <Python.h>
#include <dlfcn.h>
#include <link.h>
static int count(struct dl_phdr_info *info, size_t size, void *name)
{
    return strstr(info->dlpi_name, name) != NULL;
}
static PyObject *use(PyObject *self, PyObject *path)
{
    const char *name = PyUnicode_AsUTF8(path);
    void *handle = dlopen(name, RTLD_NOW);
    void *other = dlmopen(LM_ID_BASE, name, RTLD_NOW);
    int (*add)(int, int) = handle ? dlsym(handle, "add") : NULL;
    struct link_map *map = NULL;
    Dl_info info, more;
    void *extra = NULL;
    int value = -1;
    if (!add) return PyErr_Format(PyExc_OSError, "%s", dlerror());
    dlinfo(handle, RTLD_DI_LINKMAP, &map);
    value = add(2, 3);
    value += 10 * (other == handle);
    value += 100 * (dladdr(add, &info) && strcmp(info.dli_sname, "add") == 0);
    value += 1000 * (dladdr1(add, &more, &extra, RTLD_DL_LINKMAP) && extra == map);
    value += 10000 * (dlvsym(handle, "add", "NONE") == NULL && dlerror() != NULL);
    value += 100000 * dl_iterate_phdr(count, (void *)name);
    value += 1000000 * (dlclose(other) == 0);
    return Py_BuildValue("in", value, PyLong_AsSsize_t(PyLong_FromVoidPtr(handle)));
}
static PyObject *close_(PyObject *self, PyObject *handle)
{
    return PyLong_FromLong(dlclose(PyLong_AsVoidPtr(handle)));
}
static PyMethodDef methods[] = {
    {"use", use, METH_O, NULL}, {"close", close_, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "caller", NULL, 0, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_caller(void) { return PyModule_Create(&definition); }
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("example"), "libexample.so", EXAMPLE)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caller")
    return compile_library(folder, f"caller{SUFFIX}", CALLER, flags=[INCLUDE])


def check(code: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    return run_python(START + code, *map(str, arguments), env=env).stdout


def test_for_good(example: Path) -> None:
    code = """
before = ctypes.CDLL("libc.so.6")
adoption = dlopen.adopt()
assert adoption.in_force and "_ctypes" in repr(adoption), adoption
assert [info.path for info in adoption.libraries] == [_ctypes.__file__]
lib = ctypes.CDLL(PATH, use_errno=True)
assert is_ours()
assert lib.add(2, 3) == 5 and lib["add"](3, 4) == 7 and lib.answer() == 42
assert lib.fails() == -1 and ctypes.get_errno() != 0
assert c_int.in_dll(lib, "counter").value == 5 and c_int.in_dll(lib, "mine").value == 7
Binary = CFUNCTYPE(c_int, c_int, c_int)
assert Binary(("add", lib))(4, 5) == 9
assert Binary(("add", lib), ((1, "a", 1), (1, "b", 2)))(b=5) == 6
assert not hasattr(lib, "no_such_function")
try:
    ctypes.CDLL("/no/such/file")
except OSError as error:
    assert str(error).startswith("/no/such/file: cannot open shared object file"), error
# What was there before, and the program.
assert before.abs(-3) == 3 and before.getpid() == os.getpid()
assert ctypes.pythonapi.Py_IsInitialized() == 1 and ctypes.CDLL(None).abs(-3) == 3
# A second open, one close, and the other.
again = ctypes.CDLL(PATH)
assert again._handle == lib._handle
_ctypes.dlclose(again._handle)
assert is_ours()
_ctypes.dlclose(lib._handle)
assert is_ours() is None
try:
    _ctypes.dlclose(lib._handle)
except OSError as error:
    assert "not open" in str(error), error
del adoption
import gc; gc.collect()
assert ctypes.CDLL(PATH).add(1, 1) == 2 and is_ours()
"""
    check(code, example)


def test_the_end_of_a_block(example: Path) -> None:
    code = """
with dlopen.adopt() as adoption:
    lib = ctypes.CDLL(PATH)
    assert is_ours()
assert not adoption.in_force and adoption.libraries == () and "restored" in repr(adoption)
adoption.restore()
# What was opened in it goes on.
assert lib.add(2, 3) == 5 and c_int.in_dll(lib, "counter").value == 5
assert CFUNCTYPE(c_int, c_int, c_int)(("add", lib))(1, 2) == 3
assert not hasattr(lib, "no_such_function")
# What is opened now is the host's.
assert not [info for info in dlopen.libraries() if not info.is_host and "libbz2" in info.path]
other = ctypes.CDLL(REST[0])
assert is_ours(REST[0]) is False and other.add(5, 5) == 10
_ctypes.dlclose(lib._handle)
assert is_ours() is None
_ctypes.dlclose(other._handle)
assert is_ours(REST[0]) is None
try:
    with dlopen.adopt():
        raise KeyError("it ends all the same")
except KeyError:
    ctypes.CDLL(PATH)
assert is_ours() is False
"""
    other = compile_library(example.parent, "libother.so", EXAMPLE)
    check(code, example, other)


def test_nested_and_several(example: Path) -> None:
    code = """
def now():
    lib = ctypes.CDLL(PATH)
    found = is_ours()
    _ctypes.dlclose(lib._handle)
    assert is_ours() is None
    return found

with dlopen.adopt():
    with dlopen.adopt() as inner:
        assert now()
    assert now() and not inner.in_force
assert not now()
# They end in any order.
first, second = dlopen.adopt(), dlopen.adopt("_ctypes", _ctypes)
first.restore()
assert now()
second.restore()
assert not now()
with dlopen.adopt():
    forever = dlopen.adopt()
assert now()
# Nothing more of the process for each.
from dlopen import patching
count = len(patching._in_force)
for _ in range(100):
    dlopen.adopt()
    with dlopen.adopt():
        pass
assert now() and len(patching._in_force) == count
counts = [info.open_count for info in dlopen.libraries() if info.path == _ctypes.__file__]
dlopen.adopt()
assert counts == [
    info.open_count for info in dlopen.libraries() if info.path == _ctypes.__file__]
"""
    check(code, example)


def test_patches_of_the_same_symbols(example: Path) -> None:
    """They stack up, and those that are made over it call on into this linker."""
    code = """
def counted(*types):
    calls = []
    def act(*arguments):
        calls.append(arguments)
        return of.original(*arguments)
    act = dlopen.callback(*types)(act)
    act.calls = calls
    return act

mine = dlopen.existing(_ctypes.__file__)
types = {"dlopen": (c_void_p, c_char_p, c_int), "dlsym": (c_void_p, c_void_p, c_char_p)}

class of:
    pass

def now():
    lib = ctypes.CDLL(PATH)
    found = is_ours()
    assert lib.add(2, 3) == 5
    _ctypes.dlclose(lib._handle)
    return found

opens = []
@dlopen.callback(*types["dlopen"])
def open_first(name, mode):
    opens.append("first")
    return first.original["dlopen"](name, mode)

@dlopen.callback(*types["dlopen"])
def open_second(name, mode):
    opens.append("second")
    return second.original["dlopen"](name, mode)

looked = []
@dlopen.callback(*types["dlsym"])
def look(handle, name):
    looked.append(name)
    return second.original["dlsym"](handle, name)

first = mine.patch(dlopen=open_first)
assert now() is False and opens == ["first"]
with dlopen.adopt():
    opens.clear()
    assert now() is True and opens == []
    second = mine.patch(dlopen=open_second, dlsym=look)
    assert now() is True and opens == ["second"] and looked == [b"add"]
    with dlopen.adopt():
        assert now() is True and opens == ["second"] * 2
    second.restore()
    assert now() is True and len(opens) == 2
    second = mine.patch(dlopen=open_second, dlsym=look)
    # A handle of ours, looked up by way of a patch.
    lib = ctypes.CDLL(PATH)
opens.clear()
looked.clear()
assert lib.add(1, 2) == 3 and looked == [b"add"]
_ctypes.dlclose(lib._handle)
assert now() is True and opens == ["second"]
second.restore()
assert now() is False and opens == ["second", "first"]
first.restore()
assert now() is False and len(opens) == 2
with dlopen.adopt():
    assert now() is True
third = mine.patch(dlopen=open_first)
first = third
assert now() is False
third.restore()
"""
    check(code, example)


def test_threads(example: Path) -> None:
    code = """
import threading
sys.setswitchinterval(1e-5)
stop = threading.Event()
failed = []

def work():
    try:
        while not stop.is_set():
            with dlopen.adopt():
                lib = ctypes.CDLL(PATH)
            assert lib.add(2, 3) == 5 and c_int.in_dll(lib, "counter").value == 5
            _ctypes.dlclose(lib._handle)
    except BaseException as error:
        failed.append(repr(error))

threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for _ in range(200):
    with dlopen.adopt() as adoption:
        assert adoption.libraries
stop.set()
for thread in threads:
    thread.join()
assert not failed, failed
assert is_ours() is None
ctypes.CDLL(PATH)
assert is_ours() is False
"""
    check(code, example)


def test_a_forked_child(example: Path) -> None:
    code = """
import signal, threading
adoption = dlopen.adopt()
lib = ctypes.CDLL(PATH)
stop = threading.Event()

def work():
    while not stop.is_set():
        with dlopen.adopt():
            pass

thread = threading.Thread(target=work)
thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        ours = lib.add(2, 3) == 5 and ctypes.CDLL(PATH)._handle == lib._handle
        adoption.restore()
        with dlopen.adopt():
            other = ctypes.CDLL(REST[0])
        os._exit(not (ours and is_ours(REST[0]) and other.add(1, 1) == 2))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
thread.join()
"""
    other = compile_library(example.parent, "libother.so", EXAMPLE)
    check(code, example, other)


def test_under_the_preload(example: Path) -> None:
    """There all of it is ours already, and stays."""
    code = """
assert ctypes.CDLL(PATH) and is_ours()
with dlopen.adopt() as adoption:
    lib = ctypes.CDLL(REST[0])
    assert is_ours(REST[0]) and lib.add(2, 3) == 5
again = ctypes.CDLL(PATH)
assert again.add(2, 3) == 5 and lib.add(2, 4) == 6
assert ctypes.CDLL(REST[0])._handle == lib._handle
with dlopen.CDLL(PATH) as one:
    assert one._handle == again._handle and one.add(1, 1) == 2
"""
    other = compile_library(example.parent, "libother.so", EXAMPLE)
    check(code, example, other, env={"LD_PRELOAD": str(preload_path())})


def test_what_each_calls_of_the_family(example: Path, caller: Path) -> None:
    code = """
sys.path.append(os.path.dirname(REST[0]))
import caller
value, handle = caller.use(PATH)
assert value % 1000 == 115 and is_ours() is False, value
assert caller.close(handle) == 0 and is_ours() is None
for asked in (caller, "caller", REST[0], os.path.basename(REST[0]), dlopen.existing(REST[0]),
              dlopen.dladdr(dlopen.existing(REST[0]).PyInit_caller).library):
    with dlopen.adopt(asked) as adoption:
        assert [info.path for info in adoption.libraries] == [_ctypes.__file__, REST[0]]
        value, handle = caller.use(PATH)
        assert value == 1111115 and is_ours(), value
    assert caller.close(handle) == 0 and is_ours() is None
value, handle = caller.use(PATH)
assert is_ours() is False
# Its answers are this linker's still, as complete as before.
with dlopen.Library(REST[1]) as lib:
    assert caller.use(PATH)[0] == 1111115
"""
    other = compile_library(example.parent, "libother.so", EXAMPLE)
    check(code, example, caller, other)


def test_a_library_that_only_opens(example: Path) -> None:
    code = """
opener = ctypes.CDLL(REST[0])
with dlopen.adopt(REST[0]) as adoption:
    assert [info.path for info in adoption.libraries] == [_ctypes.__file__, REST[0]]
    opener.open_it(os.fsencode(PATH))
    assert is_ours()
with dlopen.adopt(REST[0]):
    pass
opener.open_it(os.fsencode(REST[1]))
assert is_ours(REST[1]) is False
"""
    source = "#include <dlfcn.h>\nint open_it(const char *path) { return !dlopen(path, RTLD_NOW); }"
    opener = compile_library(example.parent, "libopener.so", source)
    other = compile_library(example.parent, "libother.so", EXAMPLE)
    check(code, example, opener, other)


def test_modules_that_are_imported_later(example: Path, caller: Path) -> None:
    code = """
from importlib import machinery, util
def load():
    loader = machinery.ExtensionFileLoader("caller", REST.pop())
    spec = util.spec_from_loader("caller", loader)
    return util.module_from_spec(spec)

def opened(module):
    value, handle = module.use(PATH)
    found = is_ours()
    module.close(handle)
    return found

with dlopen.adopt():
    before = load()
    assert opened(before) is False
with dlopen.adopt(later=True) as adoption:
    assert opened(before) is False
    during = load()
    import _bz2                         # which calls nothing of the family
    assert opened(during) is True
    paths = [info.path for info in adoption.libraries]
    assert paths == [_ctypes.__file__, during.__file__], paths
    with dlopen.adopt(later=True):
        pass
    later = load()
    assert opened(later) is True
assert opened(during) is False and opened(later) is False
after = load()
assert opened(after) is False
dlopen.adopt(later=True)
assert opened(after) is False and opened(load()) is True
"""
    copies = [
        compile_library(example.parent / str(number), f"caller{SUFFIX}", CALLER, flags=[INCLUDE])
        for number in range(5)
    ]
    check(code, example, *copies)


def test_a_module_that_is_built_in(example: Path) -> None:
    """Then the interpreter's own calls come here, which those of extension modules are."""
    code = """
import posix
with dlopen.adopt(posix) as adoption:
    (path,) = [info.path for info in adoption.libraries if info.path != _ctypes.__file__]
    assert dlopen.dladdr(ctypes.pythonapi.Py_IsInitialized).library.path in (path, ""), path
    import _bz2, _lzma
    assert is_ours(_bz2.__file__)
import _queue
assert is_ours(_queue.__file__) is False
import bz2, lzma, queue
assert bz2.decompress(bz2.compress(b"text")) == b"text"
assert lzma.decompress(lzma.compress(b"text")) == b"text"
"""
    check(code, example)


@pytest.mark.parametrize("first", ["adopted", "imported"])
def test_modules_of_our_images_with_an_interpreter_that_is_adopted(
    first: str, example: Path
) -> None:
    """What makes them is in the same places."""
    code = """
import posix
def load(name):
    with dlopen.Namespace(name) as namespace:
        with namespace.imports("_bz2"):
            import _bz2
        assert any(info.path == _bz2.__file__ for info in namespace.libraries), namespace.libraries
        assert _bz2.BZ2Compressor().flush()

interpreter = dlopen.dladdr(ctypes.pythonapi.Py_IsInitialized).library
if REST[0] == "imported":
    load("before")
with dlopen.adopt(posix) as adoption:
    load("during")
    with dlopen.adopt(posix):
        import _lzma
    assert is_ours(_lzma.__file__)
    import _queue
    assert is_ours(_queue.__file__)
load("after")
import _lsprof
assert is_ours(_lsprof.__file__) is False
opened = []
@dlopen.callback(c_void_p, c_char_p, c_int)
def open_noted(name, mode):
    opened.append(name)
    return patch.original["dlopen"](name, mode)
with dlopen.existing(interpreter).patch(dlopen=open_noted) as patch:
    load("patched")
    import _json
assert is_ours(_json.__file__) is False and len(opened) == 2, opened
forever = dlopen.adopt(posix)
load("for good")
import _zoneinfo
assert is_ours(_zoneinfo.__file__)
"""
    check(code, example, first)


def test_a_list_of_libraries(example: Path) -> None:
    """`ctypes.util.dllist`, of 3.14, keeps what it has found when it was imported."""
    code = """
import ctypes.util
Visit = CFUNCTYPE(c_int, c_void_p, ctypes.c_size_t, c_void_p)
if not hasattr(ctypes.util, "dllist"):      # as in 3.14
    ctypes.util._dl_iterate_phdr = ctypes.CDLL(None)["dl_iterate_phdr"]
    def dllist():
        found = []
        visit = Visit(lambda info, size, data: found.append(
            os.fsdecode(c_char_p.from_address(info + 8).value or b"")) or 0)
        ctypes.util._dl_iterate_phdr(visit, None)
        return found
    ctypes.util.dllist = dllist
assert PATH not in ctypes.util.dllist()
with dlopen.adopt():
    lib = ctypes.CDLL(PATH)
    assert PATH in ctypes.util.dllist()
    found = ctypes.CDLL(None).dl_iterate_phdr
assert PATH in ctypes.util.dllist() and len(ctypes.util.dllist()) == len(dlopen.libraries())
paths = []
@Visit
def visit(info, size, data):
    paths.append(c_char_p.from_address(info + 8).value)
    return 0
found(visit, None)
assert os.fsencode(PATH) in paths
_ctypes.dlclose(lib._handle)
assert PATH not in ctypes.util.dllist()
"""
    check(code, example)


def test_cffi(example: Path) -> None:

    code = """
try:
    import cffi
except ImportError:
    print("missing")
    sys.exit()
ffi = cffi.FFI()
ffi.cdef("int add(int a, int b); extern int counter; int abs(int); int no_such_function(void);")
old = ffi.dlopen(None)
with dlopen.adopt() as adoption:
    assert len(adoption.libraries) == 2
    lib = ffi.dlopen(PATH)
    assert is_ours() and ffi.dlopen(None).abs(-3) == 3
    shared = ffi.dlopen(ffi.cast("void *", ctypes.CDLL(PATH)._handle))
    assert shared.add(20, 1) == 21
assert lib.add(2, 3) == 5 and lib.counter == 5 and old.abs(-4) == 4
lib.counter = 6
handle = dlopen.existing(PATH).info.handle      # which both of them take
assert c_int.in_dll(ctypes.CDLL(PATH, handle=handle), "counter").value == 6
assert ffi.dlopen(ffi.cast("void *", handle)).counter == 6
try:
    lib.no_such_function
except AttributeError as error:
    assert "no_such_function" in str(error)
ffi.dlclose(lib)
"""
    if "missing" in check(code, example):
        missing("cffi is not installed")


def test_a_library_beside_a_module_in_an_archive(example: Path, tmp_path: Path) -> None:
    """As bindings in wheels find theirs."""
    code = """
from dlopen import importer
importer.install()
sys.path.insert(0, PATH)
try:
    import binding
    print("opened by the system's loader")
except OSError as error:
    assert PATH in str(error)
with dlopen.adopt():
    import binding
path = os.path.join(PATH, "binding", "libexample.so")
assert binding.lib.add(2, 3) == 5 and binding.lib._name == path and is_ours(path)
assert c_int.in_dll(binding.lib, "counter").value == 5
assert dlopen.CDLL(path)._handle == binding.lib._handle
assert ctypes.CDLL(path, handle=binding.lib._handle).answer() == 42
"""
    source = """
import ctypes, os
lib = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "libexample.so"))
"""
    members = {"binding/__init__.py": source.encode()}
    archive = tmp_path / "binding.whl"
    pack(archive, members | {"binding/libexample.so": example.read_bytes()})
    assert check(code, archive) == ""


def test_what_cannot_be(example: Path) -> None:
    code = """
def is_untouched():
    lib = ctypes.CDLL(PATH)
    found = is_ours()
    _ctypes.dlclose(lib._handle)
    return found is False

for wrong, kind, text in [
    ("no_such_module", dlopen.LoadError, "no_such_module"),
    ("/no/such/library.so", dlopen.LoadError, "/no/such/library.so"),
    (os, TypeError, "os is no extension module"),
    ("os", TypeError, "os is no extension module"),
    (None, TypeError, "None"),
    (5, TypeError, "int"),
]:
    try:
        dlopen.adopt(wrong, later=True)
        print("no error", wrong)
    except kind as error:
        assert text in str(error), error
    assert is_untouched()
with dlopen.existing("libc.so.6") as libc:
    pass
try:
    dlopen.adopt(libc)
except ValueError as error:
    assert "closed" in str(error)
try:
    dlopen.adopt("libdlopen.so")
except ValueError as error:
    assert "libdlopen.so" in str(error), error
assert is_untouched()
# What calls nothing of it, and what we have loaded.
with dlopen.adopt("libc.so.6", dlopen.Library(PATH)) as adoption:
    assert [info.path for info in adoption.libraries] == [_ctypes.__file__]
"""
    assert check(code, example) == ""


def test_a_place_that_cannot_be_changed(example: Path) -> None:
    """Nothing is adopted then; or all is still, and can be given back later."""
    code = """
from dlopen import _linker, adopting
usual = _linker.patch, _linker.unpatch
def refuse(*arguments):
    raise dlopen.LoadError("the kernel refuses")

refused = []
def patch(image, replacements):
    if any(name == b"dlopen" for name, _, _ in replacements):
        refuse()
    return usual[0](image, replacements)

_linker.patch = patch
try:
    dlopen.adopt()
    print("adopted")
except dlopen.LoadError:
    _linker.patch = usual[0]
lib = ctypes.CDLL(PATH)
assert is_ours() is False
_ctypes.dlclose(lib._handle)

adoption = dlopen.adopt()
_linker.unpatch = refuse
try:
    adoption.restore()
    print("restored")
except dlopen.LoadError:
    _linker.unpatch = usual[1]
assert adoption.in_force and adoption.libraries
lib = ctypes.CDLL(PATH)
assert is_ours() and lib.add(1, 2) == 3
adoption.restore()
_ctypes.dlclose(lib._handle)
ctypes.CDLL(PATH)
assert is_ours() is False
"""
    assert check(code, example) == ""


def test_audit_events(example: Path) -> None:
    code = """
events = []
sys.addaudithook(lambda name, arguments: events.append((name, *arguments)))
with dlopen.adopt():
    pass
patches = [event for event in events if event[0] == "dlopen.patch"]
assert [event[1] for event in patches] == [_ctypes.__file__] * 2
assert "dlsym" in patches[0][2] and patches[1][2] == ("dlopen", "dlmopen")
"""
    check(code, example)
