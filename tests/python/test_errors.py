"""The exceptions: their tree, their attributes, pickling."""

from __future__ import annotations

import errno
import pickle
from ctypes import c_int, c_longlong
from pathlib import Path
from typing import Any

import pytest

import dlopen
from dlopen import errors
from support.fixtures import compile_library


def test_tree() -> None:
    assert issubclass(dlopen.LoadError, (dlopen.Error, OSError))
    assert issubclass(dlopen.LoadError, OSError)
    assert issubclass(dlopen.VersionError, dlopen.LoadError)
    for base in (dlopen.Error, AttributeError, KeyError):
        assert issubclass(dlopen.SymbolError, base)


def test_a_missing_library() -> None:
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("libnowhere.so")
    error = caught.value
    assert error.library == error.filename == "libnowhere.so"
    assert error.errno == errno.ENOENT
    assert error.searched
    assert all(path.endswith("/libnowhere.so") and reason for path, reason in error.searched)
    assert "libnowhere.so" in str(error)
    assert "\n" not in str(error)


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "libnowhere.so"
    with pytest.raises(OSError, match="No such file") as caught:
        dlopen.Library(path)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(path)


def test_a_missing_dependency(tmp_path: Path) -> None:
    inner = compile_library(tmp_path, "libinner.so", "int inner(void) { return 1; }")
    outer = compile_library(
        tmp_path,
        "libouter.so",
        "int inner(void); int outer(void) { return inner(); }",
        libraries=[inner],
    )
    inner.unlink()
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library(outer)
    assert caught.value.library == "libinner.so"
    assert caught.value.needed_by == str(outer)
    assert str(inner) in [path for path, _ in caught.value.searched]


def test_an_undefined_symbol(tmp_path: Path) -> None:
    path = compile_library(
        tmp_path, "libundefined.so", "int missing(void); int call(void) { return missing(); }"
    )
    with pytest.raises(dlopen.SymbolError) as caught:
        dlopen.Library(path)
    assert caught.value.symbol == "missing"
    assert caught.value.needed_by == str(path)
    assert "missing" in str(caught.value)
    assert "libundefined.so" in str(caught.value)


def test_a_missing_version(tmp_path: Path) -> None:
    old_map, new_map = tmp_path / "old.map", tmp_path / "new.map"
    old_map.write_text("ONE { global: *; };")
    new_map.write_text("ONE { }; TWO { global: *; };")
    source = "int inner(void) { return 1; }"
    new = tmp_path / "new"
    inner = compile_library(new, "libinner.so", source, flags=[f"-Wl,--version-script={new_map}"])
    outer = compile_library(
        tmp_path,
        "libouter.so",
        "int inner(void); int outer(void) { return inner(); }",
        libraries=[inner],
    )
    compile_library(tmp_path, "libinner.so", source, flags=[f"-Wl,--version-script={old_map}"])
    with pytest.raises(dlopen.VersionError) as caught:
        dlopen.Library(outer)
    assert caught.value.version == "TWO"
    assert "TWO" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        dlopen.Error("one line"),
        dlopen.LoadError(
            "one line",
            library="lib.so",
            reason="why",
            needed_by="outer.so",
            searched=(("/lib/lib.so", "absent"),),
            error_number=errno.EACCES,
        ),
        dlopen.VersionError("one line", library="lib.so", symbol="s", version="V"),
        dlopen.SymbolError("one line", symbol="cuont", version="V", exports=("count", "add")),
    ],
)
def test_they_pickle(error: dlopen.Error) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) == "one line"
    for name in ("library", "reason", "needed_by", "searched", "symbol", "version", "similar"):
        assert getattr(copy, name, None) == getattr(error, name, None)
    for name in ("errno", "filename", "strerror"):
        assert getattr(copy, name, None) == getattr(error, name, None)


def test_similar_is_most_similar_first() -> None:
    error = dlopen.SymbolError("", symbol="cuont", exports=("discount@V1", "count@V2", "add"))
    assert error.similar[0] == "count"


def test_every_code_has_an_exception() -> None:
    header = Path(dlopen.get_include(), "dlopen.h").read_text()
    codes = {
        word.removeprefix("DLOPEN_E_").rstrip(",")
        for word in header.split("enum DLOPEN_code {")[1].split("};")[0].split()
        if word.startswith("DLOPEN_E_")
    }
    assert codes - {"HANDLE", "INVALID"} == set(errors._EXCEPTIONS)
    for code in ("HANDLE", "INVALID"):
        assert type(errors.exception_for(code, 0, "")) is ValueError


def test_arguments_that_cannot_be(example: Path) -> None:
    data = example.read_bytes()
    none: Any = None
    number: Any = 5
    name: Any = "name"
    with dlopen.Library(example, reload=True) as library, dlopen.Image(example) as image:
        for expected, act in (
            (ValueError, lambda: dlopen.Library(example, 1 << 40)),
            (ValueError, lambda: dlopen.Library(example, -1)),
            (ValueError, lambda: dlopen.Library.from_bytes(data, mode=1 << 40)),
            (TypeError, lambda: dlopen.Library(example, replace=number)),
            (TypeError, lambda: dlopen.Library(example, namespace=number)),
            (TypeError, lambda: dlopen.Library(example, namespace=name)),
            (TypeError, lambda: dlopen.Library.from_bytes(none, name=str(example))),
            (TypeError, lambda: dlopen.Image.from_bytes(none, name=str(example))),
            (TypeError, lambda: image.relocate(scope=[number])),
            (ValueError, lambda: library["add\0"]),
            (ValueError, lambda: library.symbols["add\0"]),
            (ValueError, lambda: library.function("add\0")),
            (ValueError, lambda: library.variable("counter\0", c_int)),
            (ValueError, lambda: library.patch({"add\0": 5})),
            (ValueError, lambda: dlopen.Library(example, dlopen.PRIVATE, replace={"add\0": 5})),
            (TypeError, lambda: library.reload(keep="counter")),
        ):
            with pytest.raises(expected):
                act()
        assert not image.closed
        assert library.add(1, 2) == 3
    assert dlopen.dladdr(-1) is dlopen.dladdr(1 << 64) is None


def test_names_do_not_break_the_line(tmp_path: Path) -> None:
    """What Python says of a library is one line too; the attributes have the name as it is."""
    path = compile_library(
        tmp_path, "lib\nodd.so", "int counter; int call(void) { return 1; }", soname="libodd.so"
    )
    library = dlopen.Library(path)
    function = library.call

    def call_when_closed() -> object:
        library.close()
        return function()

    for act in (
        lambda: library.nonesuch,
        library.counter,
        lambda: library["a\nb"],
        lambda: library.symbols["a\nb"],
        lambda: library.variable("counter", c_longlong),
        library.reload,
        call_when_closed,
        lambda: library.call,
    ):
        with pytest.raises((dlopen.Error, ValueError, TypeError)) as caught:
            act()
        assert len(str(caught.value).splitlines()) == 1, caught.value
        if isinstance(caught.value, dlopen.SymbolError):
            assert caught.value.library == str(path)


def test_the_program_has_a_name() -> None:
    """`Library(None)` has no path to be named by."""
    program = dlopen.Library(None)
    function = program.getpid

    def call_when_closed() -> object:
        program.close()
        return function()

    for act in (
        lambda: program.nonesuch,
        lambda: program.symbols["nonesuch"],
        lambda: program.variable("nonesuch", c_int),
        program.environ,
        program.reload,
        call_when_closed,
        lambda: program.getpid,
    ):
        with pytest.raises((dlopen.Error, ValueError, TypeError), match="the program"):
            act()
