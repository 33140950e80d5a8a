"""`load_library` and `patch_library`, used as a project would: by test files of their own."""

from __future__ import annotations

import textwrap

import pytest

from support.fixtures import compile_library

pytest_plugins = ["pytester"]

SOURCE = """
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <wchar.h>
int counter;
int count(void) { return ++counter; }
long now(void) { return time(NULL); }
int later(long *values, int size) {
  for (int i = 0; i < size; i++) values[i] = time(&values[i]);
  return size;
}
const char *home(void) { return getenv("HOME"); }
int year(void) { time_t then = 0; return 1900 + gmtime(&then)->tm_year; }
int error_of_open(const char *path) { errno = 0; return open(path, O_RDONLY) < 0 ? errno : 0; }
int errno_after_time(void) { errno = 77; time(NULL); return errno; }
double real(const char *text) { return strtod(text, NULL); }
void shuffle(unsigned seed) { srand(seed); }
static int inner(void) { return 1; }
int outer(void) { return inner(); }
__attribute__((destructor)) static void end(void) { srand(99); }
"""
HEAD = """
import ctypes, errno, gc, os, time, weakref, _bz2
from ctypes import *
from unittest.mock import DEFAULT, call
import dlopen, pytest
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with libexample.so, in which no setting of ours holds."""
    pytester.makeini("[pytest]\naddopts = --strict-markers -p no:cacheprovider\n")
    compile_library(pytester.path, "libexample.so", SOURCE, flags=["-fno-builtin"])
    return pytester


def run(project: pytest.Pytester, code: str, *arguments: str, **outcomes: int) -> pytest.RunResult:
    """Run a test file in a process of its own; it has to end with these outcomes."""
    project.makepyfile(HEAD + textwrap.dedent(code))
    result = project.runpytest_subprocess("-W", "error", *arguments, timeout=60)
    result.assert_outcomes(**outcomes)
    return result


def test_each_test_has_an_image_of_its_own(project: pytest.Pytester) -> None:
    code = """
    loaded = []

    @pytest.mark.parametrize("i", range(2))
    def test_private(load_library, i):
        lib = load_library("./libexample.so")
        assert lib.count() == 1 and lib.count() == 2
        loaded.append(lib)

    def test_twice(load_library):
        first, second = load_library("./libexample.so"), load_library("./libexample.so")
        assert first.count() == 1 and second.count() == 1
        loaded.extend([first, second])

    def test_from_bytes(load_library):
        with open("libexample.so", "rb") as file:
            lib = load_library.from_bytes(file.read(), name="libbytes.so", use_errno=True)
        assert lib.info.path == "libbytes.so" and lib.count() == 1
        loaded.append(lib)

    def test_shared(load_library):
        lib = load_library("./libexample.so", dlopen.RTLD_LOCAL)
        assert lib.count() == 1 and load_library("./libexample.so", dlopen.RTLD_NOW).count() == 2
        loaded.append(lib)

    def test_program(load_library):
        assert load_library(None).getpid() == os.getpid()

    def test_closed_early(load_library):
        load_library("./libexample.so").close()

    def test_fails(load_library):
        loaded.append(load_library("./libexample.so"))
        assert False

    def test_all_are_closed():
        assert len(loaded) == 7 and all(lib.closed for lib in loaded)
        assert not [i for i in dlopen.libraries() if "libexample" in i.path or "bytes" in i.path]
    """
    run(project, code, passed=8, failed=1)


def test_closed_in_reverse_order(project: pytest.Pytester) -> None:
    source = """
    #include <unistd.h>
    __attribute__((destructor)) static void end(void) { if (write(1, NAME, 2)) {} }
    """
    for name in "ab":
        library = f"lib{name}.so"
        compile_library(project.path, library, source, flags=[f'-DNAME="{name}."'])
    code = """
    def test_two(load_library):
        load_library("./liba.so"), load_library("./libb.so")
    """
    result = run(project, code, "-s", passed=1)
    assert "b.a." in result.stdout.str()


def test_what_stays_mapped_is_a_warning(project: pytest.Pytester) -> None:
    code = """
    kept = []

    def test_leaves(load_library):
        lib, other = load_library("./libexample.so"), dlopen.Library("./libexample.so")
        kept.append(other.patch(time=lib.symbols["now"]))
        kept.append(other)

    def test_puts_back():
        kept[0].restore()
        kept[1].close()
    """
    result = run(project, code, passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ResourceWarning: still mapped*libexample.so*: patch*"])


def test_a_fake_is_a_mock(project: pytest.Pytester) -> None:
    code = """
    def test_returns(load_library, patch_library):
        lib = load_library("./libexample.so")
        fake = patch_library(lib, "time", c_long, c_void_p, return_value=5)
        assert lib.now() == 5
        fake.assert_called_once_with(None)
        fake.return_value = 6
        assert [lib.now(), lib.now()] == [6, 6]
        assert fake.call_count == 3 and fake.call_args_list == [call(None)] * 3
        values = (c_long * 2)()
        lib.later(values, 2)
        assert list(values) == [6, 6]
        assert fake.call_args == call(addressof(values) + sizeof(c_long))
        assert abs(fake.original(None) - time.time()) < 2
        assert fake.patch.places["time"] >= 1 and fake.patch.in_force
        with pytest.raises(AttributeError):
            fake.retrun_value = 7

    def test_by_default_zero(load_library, patch_library):
        lib = load_library("./libexample.so")
        patch_library(lib, "time", c_long, c_void_p)
        patch_library(lib, "getenv", c_char_p, c_char_p)
        patch_library(lib, "strtod", c_double, c_char_p, c_void_p)
        seed = patch_library(lib, "srand", None, c_uint)
        assert lib.now() == 0 and lib.function("home", c_char_p)() is None
        assert lib.function("real", c_double, c_char_p)(b"2.5") == 0
        lib.shuffle(3)
        seed.assert_called_once_with(3)

    def test_side_effects(load_library, patch_library):
        lib = load_library("./libexample.so")
        fake = patch_library(lib, "time", c_long, c_void_p, side_effect=[1, 2])
        assert [lib.now(), lib.now()] == [1, 2]
        fake.side_effect = lambda where: DEFAULT if where is None else 9
        fake.return_value = 4
        assert lib.now() == 4
        def write(where):
            c_long.from_address(where).value = 8
            return 9
        fake.side_effect = write
        values = (c_long * 1)()
        lib.later(values, 1)
        assert list(values) == [9]

    def test_spy(load_library, patch_library):
        lib = load_library("./libexample.so")
        fake = patch_library(lib, "time@GLIBC_2.2.5", c_long, c_void_p, wraps=True)
        assert abs(lib.now() - time.time()) < 2
        fake.assert_called_once_with(None)
        fake.return_value = 3
        assert lib.now() == 3
        text = patch_library(lib, "getenv", c_char_p, c_char_p, wraps=True)
        home = lib.function("home", c_char_p)
        assert home() == os.environb[b"HOME"] == text.original(b"HOME")
        assert text.call_args_list == [call(b"HOME")]

    def test_errno(load_library, patch_library):
        lib = load_library("./libexample.so")
        assert lib.error_of_open(b"libexample.so") == 0
        spy = patch_library(lib, "open", c_int, c_char_p, c_int, wraps=True)
        assert lib.error_of_open(b"nonesuch") == errno.ENOENT
        spy.patch.restore()
        fake = patch_library(lib, "open", c_int, c_char_p, c_int, return_value=-1, errno=errno.EIO)
        assert lib.error_of_open(b"libexample.so") == errno.EIO
        fake.assert_called_once_with(b"libexample.so", os.O_RDONLY)
        fake.errno = errno.EMFILE
        assert lib.error_of_open(b"libexample.so") == errno.EMFILE
        def fail(path, flags):
            ctypes.set_errno(errno.ENOSPC)
            return -1
        fake.side_effect, fake.errno = fail, None
        assert lib.error_of_open(b"libexample.so") == errno.ENOSPC
        def uses_errno(where):
            try:
                os.stat("nonesuch")
            except OSError:
                return 0
        patch_library(lib, "time", c_long, c_void_p, side_effect=uses_errno)
        assert lib.errno_after_time() == 77

    def test_what_c_gets_from_a_fake_that_raises(load_library, patch_library):
        lib = load_library("./libexample.so")
        failing = patch_library(
            lib, "open", c_int, c_char_p, c_int,
            side_effect=OSError("none"), on_error=(-1, errno.ENOTDIR),
        )
        assert lib.error_of_open(b"libexample.so") == errno.ENOTDIR
        other = patch_library(
            lib, "getenv", c_char_p, c_char_p, side_effect=OSError("none"), on_error=b"/nowhere"
        )
        lib.home.restype = c_char_p
        assert lib.home() == b"/nowhere"
        for fake in (failing, other):
            with pytest.raises(OSError, match="none"):
                fake.patch.restore()

    def test_what_c_cannot_get(load_library, patch_library):
        lib = load_library("./libexample.so")
        with pytest.raises(TypeError):
            patch_library(lib, "time", c_long, c_void_p, on_error="text")

    def test_what_c_points_to_stays(load_library, patch_library):
        class Text(c_char * 8):
            pass
        returned = []
        def make(name):
            text = Text(*name)
            returned.append(weakref.ref(text))
            return text
        lib = load_library("./libexample.so")
        patch_library(lib, "getenv", c_char_p, c_char_p, side_effect=make)
        lib.home(), lib.home()
        gc.collect()
        assert [text().value for text in returned] == [b"HOME", b"HOME"]

    class Tm(Structure):
        _fields_ = [(name, c_int) for name in ("sec", "min", "hour", "mday", "mon", "year")]

    @pytest.mark.parametrize("restype", [POINTER(Tm), c_void_p])
    def test_pointers(load_library, patch_library, restype):
        lib = load_library("./libexample.so")
        assert lib.year() == 1970
        fake = patch_library(lib, "gmtime", restype, POINTER(c_long), return_value=Tm(year=99))
        assert lib.year() == 1999
        fake.return_value = pointer(Tm(year=100))
        assert lib.year() == 2000
        fake.side_effect = lambda where: pointer(Tm(year=101 + where[0]))
        assert lib.year() == 2001
        fake.side_effect = lambda where: addressof(fake.return_value.contents)
        assert lib.year() == 2000
        other = patch_library(lib, "getenv", c_char_p, c_char_p, return_value=b"/there")
        assert lib.function("home", c_char_p)() == b"/there"
        other.return_value = create_string_buffer(b"/here")
        assert lib.function("home", c_char_p)() == b"/here"
        other.side_effect = lambda name: name.lower()
        assert lib.function("home", c_char_p)() == b"home"
    """
    run(project, code, passed=10)


def test_patches_end_with_their_test(project: pytest.Pytester) -> None:
    code = """
    fakes = []

    @pytest.fixture(scope="module")
    def lib():
        with dlopen.Library("./libexample.so") as lib:
            yield lib

    def is_real(lib):
        return abs(lib.now() - time.time()) < 2

    def test_one(lib, patch_library):
        assert is_real(lib)
        patch_library("libexample.so", "time", c_long, c_void_p, return_value=1)
        assert lib.now() == 1

    def test_does_not_see_it(lib):
        assert is_real(lib) and lib.info.open_count == 1

    def test_fails(lib, patch_library):
        patch_library(lib, "time", c_long, c_void_p, return_value=2)
        assert lib.now() == 3

    def test_after_failure(lib):
        assert is_real(lib)

    def test_many(lib, patch_library):
        for i in range(5):
            patch_library(lib, "time", c_long, c_void_p, return_value=i)
            assert lib.now() == i

    @pytest.mark.usefixtures("patched")
    class TestClass:
        @pytest.fixture
        def patched(self, lib, patch_library):
            patch_library(lib, "time", c_long, c_void_p, return_value=7)

        def test_seven(self, lib):
            assert lib.now() == 7

    def test_raises(lib, patch_library):
        fake = patch_library(lib, "time", c_long, c_void_p, side_effect=LookupError("none"))
        other = patch_library(lib, "getenv", c_char_p, c_char_p, return_value=b"/there")
        other.return_value = 1.5
        assert lib.now() == 0 and lib.home() == 0

    def test_ends_early(lib, patch_library):
        fake = patch_library(lib, "time", c_long, c_void_p, side_effect=[])
        lib.now()
        with pytest.raises(StopIteration):
            fake.patch.restore()
        assert is_real(lib)

    def test_closes_itself(patch_library, load_library):
        lib = load_library("./libexample.so")
        fakes.append(patch_library(lib, "srand", None, c_uint))
        lib.close()

    def test_is_closed_after_its_patches(patch_library, load_library):
        lib = load_library("./libexample.so")
        fakes.append(patch_library(lib, "srand", None, c_uint))

    def test_in_this_order():
        fakes[0].assert_called_once_with(99)
        fakes[1].assert_not_called()

    def test_at_the_end(lib):
        assert is_real(lib) and lib.info.open_count == 1
    """
    result = run(project, code, passed=11, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*TypeError: 1.5 is no pointer*", "*LookupError('none')*"])
    result.stdout.fnmatch_lines(["*assert 2 == 3*", "ERROR *::test_raises*"])


def test_what_the_library_is(project: pytest.Pytester) -> None:
    code = """
    import pathlib, sqlite3, sys, _sqlite3

    def opens(patch_library, library, symbol="malloc"):
        fake = patch_library(library, symbol, c_void_p, c_size_t)
        try:
            sqlite3.connect(":memory:").close()
        except MemoryError:
            fake.assert_called()
        return fake.called

    def test_name(patch_library):
        assert opens(patch_library, "libsqlite3.so.0")

    def test_path(patch_library):
        with dlopen.existing("libsqlite3.so.0") as sqlite:
            path = pathlib.Path(sqlite.info.path)
        assert opens(patch_library, path)

    def test_cdll(patch_library):
        assert opens(patch_library, ctypes.CDLL("libsqlite3.so.0"))

    def test_extension_module(patch_library):
        assert not sqlite3.complete_statement("select")
        fake = patch_library(_sqlite3, "sqlite3_complete", c_int, c_char_p, return_value=1)
        assert sqlite3.complete_statement("select")
        fake.assert_called_once_with(b"select")

    @pytest.mark.parametrize("module", [sys, pathlib])
    def test_no_extension_module(patch_library, module):
        with pytest.raises(TypeError, match="not in a shared library of its own"):
            patch_library(module, "malloc", c_void_p, c_size_t)

    def test_not_loaded(patch_library):
        with pytest.raises(dlopen.LoadError, match="libnonesuch.so: it is not loaded"):
            patch_library("libnonesuch.so", "malloc", c_void_p, c_size_t)
    """
    run(project, code, passed=7)


def test_a_fake_of_nothing_is_an_error(project: pytest.Pytester) -> None:
    code = """
    @pytest.fixture
    def lib(load_library):
        return load_library("./libexample.so")

    @pytest.mark.parametrize("symbol, message", [
        ("tim", "libexample.so does not refer to tim; it refers to time.*"),
        ("env", "libexample.so does not refer to env; it refers to getenv"),
        ("time@GLIBC_9", "does not refer to time@GLIBC_9; it refers to (.*, )?time@GLIBC_2.2.5.*"),
        ("outer", "does not refer to outer.*; it defines outer, and calls that without .*"),
        ("puts", "libexample.so does not refer to puts"),
    ])
    def test_nothing(lib, patch_library, symbol, message):
        with pytest.raises(dlopen.SymbolError, match=message + "$") as raised:
            patch_library(lib, symbol, c_int)
        assert raised.value.symbol == symbol.partition("@")[0]
        fake = patch_library(lib, symbol, c_int, missing_ok=True)
        assert fake.patch.places[symbol] == 0 and fake.original is None and not fake.called

    def test_who_does(patch_library):
        # An extension module calls libbz2, and that calls malloc. (Some have zlib built in.)
        with pytest.raises(dlopen.SymbolError) as raised:
            patch_library(_bz2, "malloc", c_void_p, c_size_t)
        assert str(raised.value).endswith("; libbz2.so.1.0, which it needs, does")
        patch_library("libbz2.so.1.0", "malloc", c_void_p, c_size_t, wraps=True)

    @pytest.mark.parametrize("restype, value", [
        (c_int, "text"), (c_int, 1.5), (c_int, None), (c_char_p, 1.5), (Structure, None),
    ])
    def test_no_such_value(lib, patch_library, restype, value):
        with pytest.raises(TypeError):
            patch_library(lib, "time", restype, c_void_p, return_value=value)
        assert abs(lib.now() - time.time()) < 2
    """
    run(project, code, passed=11)
