"""Symbols that are no functions: those whose value is NULL, and variables."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import POINTER, c_int, c_long
from pathlib import Path

import pytest

import dlopen
from malformed.elf import Elf
from support.fixtures import compile_library, run_python

SOURCE = """
__asm__(".globl absolute, object\\n.set absolute, 0\\n.set object, 0\\n.type object, @object");
typedef void function(void);
static function *none(void) { return 0; }
function chosen __attribute__((ifunc("none")));
extern function absolute_of_none __attribute__((weak));

int counter = 5;
__thread int mine = 7;
int common;
int add(int a, int b) { return a + b; }
int read_int(int *where) { return *where; }
__asm__(".section .text.plain, \\"ax\\"\\n.globl plain\\nplain:\\n.text");
__attribute__((section(".text.plain"))) int plain_with_a_type(void) { return 42; }
"""
NULLS = ("absolute", "object", "chosen", "V1")


def make(tmp_path: Path, name: str = "liba.so", source: str = SOURCE) -> Path:
    script = tmp_path / "a.map"
    script.write_text("V1 { global: *; };")
    return compile_library(
        tmp_path,
        name,
        source,
        flags=[f"-Wl,--version-script={script}", "-fcommon", "-fno-toplevel-reorder"],
    )


@pytest.fixture(params=["ours", "private", "host", "steps"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dlopen.Library]:
    path = make(tmp_path)
    if request.param == "host":
        ctypes.CDLL(str(path))
        opened = dlopen.existing(path)
    elif request.param == "steps":
        opened = dlopen.Image(path).relocate()
    else:
        opened = dlopen.Library(path, dlopen.PRIVATE if request.param == "private" else 0)
    with opened:
        yield opened


@pytest.mark.parametrize("name", NULLS)
def test_a_symbol_at_null_is_a_symbol_error(library: dlopen.Library, name: str) -> None:
    for look in (
        lambda: getattr(library, name),
        lambda: library[name],
        lambda: library.function(name),
        lambda: library.variable(name, c_int),
    ):
        with pytest.raises(dlopen.SymbolError, match=rf"{name}(@V1)? is at no address") as caught:
            look()
        assert caught.value.symbol == name
    assert not hasattr(library, name)
    assert getattr(library, name, None) is None
    # It is there all the same.
    assert name in library.symbols
    assert library.symbols[name].address == 0


def test_a_version_is_named(library: dlopen.Library) -> None:
    with pytest.raises(dlopen.SymbolError) as caught:
        library["chosen@V1"]
    assert (caught.value.symbol, caught.value.version) == ("chosen", "V1")


def test_it_cannot_replace_anything(library: dlopen.Library, example: Path) -> None:
    for name in NULLS:
        with pytest.raises(ValueError, match="a replacement has an address"):
            dlopen.Library(example, dlopen.PRIVATE, replace={"puts": library.symbols[name]})


def test_a_patch_of_what_leads_nowhere_has_no_original(tmp_path: Path) -> None:
    make(tmp_path)
    user = compile_library(
        tmp_path,
        "libuser.so",
        "extern char absolute[]; void chosen(void);"
        "void *a(void) { return absolute; } void *b(void) { return (void *)chosen; }",
        libraries=[tmp_path / "liba.so"],
    )
    with dlopen.Library(user) as library:
        made = dlopen.callback(None)(lambda: None)
        with library.patch(absolute=made, chosen=made) as patch:
            assert dict(patch.places) == {"absolute": 1, "chosen": 1}
            assert dict(patch.original) == {"absolute": None, "chosen": None}


@pytest.mark.parametrize("name", ["counter", "mine", "common"])
def test_a_variable_is_not_called(library: dlopen.Library, name: str) -> None:
    functions = [getattr(library, name), library.function(name, c_long, c_int)]
    for function in functions:
        for arguments in ((), (1,)):
            with pytest.raises(TypeError, match=rf"is a variable.*variable\('{name}', TYPE\)"):
                function(*arguments)


@pytest.mark.parametrize(("name", "value"), [("counter", 5), ("mine", 7), ("common", 0)])
def test_a_variable_is_cast_and_passed_on(library: dlopen.Library, name: str, value: int) -> None:
    """As in ctypes."""
    for thing in (getattr(library, name), library.function(name)):
        assert isinstance(thing, ctypes._CFuncPtr)  # type: ignore[attr-defined]
        assert ctypes.cast(thing, POINTER(c_int))[0] == value
        assert library.read_int(thing) == value
        assert library.variable(name, c_int).value == value
    assert repr(library[name]).startswith(f"<dlopen.Data '{name}' of ")


def test_what_has_no_type_is_called(library: dlopen.Library) -> None:
    """Assembler sources often say none."""
    assert library.symbols["plain"].type == "NOTYPE"
    assert library.plain() == 42
    assert library.add(1, 2) == 3


def test_keywords_of_a_library(tmp_path: Path) -> None:
    path = make(tmp_path)
    for keywords in ({"gil": True}, {"use_errno": True}, {"reload": True}):
        with dlopen.Library(path, dlopen.PRIVATE, **keywords) as library:  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="is a variable"):
                library.counter()
            with pytest.raises(dlopen.SymbolError):
                library.absolute  # noqa: B018


def test_after_close_it_is_closed(tmp_path: Path) -> None:
    with dlopen.Library(make(tmp_path)) as library:
        counter = library.counter
    with pytest.raises(ValueError, match="is closed"):
        counter()


def test_a_new_version_may_make_it_a_function_or_take_its_address(tmp_path: Path) -> None:
    old = make(tmp_path, "libold.so", "int thing = 3; int other(void) { return 4; }")
    new = make(tmp_path, "libnew.so", "int thing(void) { return 5; } int other = 6;")
    gone = make(
        tmp_path,
        "libgone.so",
        'int thing(void) { return 5; } __asm__(".globl other\\n.set other, 0");',
    )
    code = """
import sys, dlopen
from ctypes import cast, c_int, POINTER
old, new, gone = sys.argv[1:]
lib = dlopen.Library(old, reload=True)
thing, other = lib.thing, lib.other
def called(function):
    try:
        return function()
    except TypeError as error:
        return "TypeError"
print(called(thing), called(other), cast(thing, POINTER(c_int))[0])
lib.reload(new)
print(called(thing), called(other), cast(other, POINTER(c_int))[0])
try:
    lib.reload(gone)
except dlopen.SymbolError as error:
    print(error.symbol, called(thing))
lib.reload(old)
print(called(thing), called(other))
"""
    said = run_python(code, str(old), str(new), str(gone)).stdout.splitlines()
    assert said == ["TypeError 4 3", "5 TypeError 6", "other 5", "TypeError 4"]


def test_an_extension_whose_start_is_at_null_is_not_called(tmp_path: Path) -> None:
    path = compile_library(
        tmp_path, "absent.so", '__asm__(".globl PyInit_absent\\n.set PyInit_absent, 0");'
    )
    done = run_python(
        """
import sys, dlopen
sys.path.insert(0, sys.argv[1])
space = dlopen.Namespace("one")
with space.imports():
    try:
        import absent
    except ImportError as error:
        print("ImportError", error)
""",
        str(path.parent),
    )
    assert "ImportError" in done.stdout


def test_a_resolver_that_is_no_code_is_not_called(tmp_path: Path) -> None:
    """Which a file with a wrong type of symbol asks for."""
    elf = Elf(compile_library(tmp_path, "liba.so", "int data = 5;").read_bytes())
    elf.put(elf.symbol_named("data")["st_info"], 0x1A)  # GLOBAL, IFUNC
    (tmp_path / "liba.so").write_bytes(bytes(elf.data))
    code = """
import sys, dlopen
lib = dlopen.Library(sys.argv[1])
assert lib.symbols["data"].type == "IFUNC"
assert not hasattr(lib, "data") and lib.symbols["data"].address == 0
"""
    run_python(code, str(tmp_path / "liba.so"))
