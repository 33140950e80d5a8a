"""The exceptions: their tree, their attributes, pickling."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
from collections.abc import Callable
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
    assert (caught.value.library, caught.value.needed_by) == (str(path), "")  # asked for itself
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
        dlopen.SymbolError("one line", symbol="cuont", version="V", exports=("add", "other")),
        dlopen.SymbolError("one line", symbol="cuont", version="V", exports=("count", "add")),
    ],
)
def test_they_pickle(error: dlopen.Error) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert repr(copy) == repr(error)
    hint = ". Did you mean: 'count'?" if "count" in error.similar else ""
    assert str(error) == f"one line{hint}"
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


def test_needed_by_is_who_brought_the_library_in(tmp_path: Path) -> None:
    """Of a missing symbol as of a missing library: not the library itself, which refers to it."""
    lost = compile_library(
        tmp_path, "liblost.so", "int nowhere(void); int lost(void) { return nowhere(); }"
    )
    outer = compile_library(
        tmp_path,
        "libouter.so",
        "int lost(void); int top(void) { return lost(); }",
        libraries=[lost],
    )
    with pytest.raises(dlopen.SymbolError, match=r"nowhere \(needed by .*libouter\.so\)") as caught:
        dlopen.Library(outer)
    error = caught.value
    assert (error.symbol, error.library, error.needed_by) == ("nowhere", str(lost), str(outer))


def test_repr_names_the_library(tmp_path: Path, example: Path) -> None:
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("libnowhere.so")
    assert "library='libnowhere.so'" in repr(caught.value)
    with dlopen.Library(example) as library, pytest.raises(dlopen.SymbolError) as undefined:
        library.symbols["add@NONE"]
    text = repr(undefined.value)
    assert text.startswith("SymbolError(")
    assert f"library={str(example)!r}, symbol='add', version='NONE'" in text


SHOWS = """
import sys, traceback
import dlopen
lib = dlopen.Library(sys.argv[1])
wholes = {
    "attribute": lambda: lib.coun,
    "item": lambda: lib["coun"],
    "symbols": lambda: lib.symbols["coun"],
    "function": lambda: lib.function("coun"),
    "variable": lambda: lib.variable("countr", int),
}
for act in wholes.values():
    try:
        with lib.__class__(sys.argv[1]) as closed:  # shown when it is closed
            act()
    except dlopen.SymbolError as error:
        print("str:", error)
        print("traceback:", "".join(traceback.format_exception(error)))
sys.stdout.flush()
print("----", file=sys.stderr, flush=True)
with lib:
    lib.coun
"""


def test_did_you_mean_is_said_once(example: Path) -> None:
    """In `str` and in tracebacks; for attributes the interpreter would say it again."""
    done = subprocess.run(
        [sys.executable, "-c", SHOWS, example], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    shown = done.stdout.split("str:")[1:]
    assert len(shown) == 5, done
    for text in shown:
        plain, _, trace = text.partition("traceback:")
        assert plain.count("Did you mean: 'count") == plain.count("Did you mean") == 1, plain
        assert trace.count("Did you mean") == 1, trace
    end = done.stderr.split("----")[1]
    assert "SymbolError" in end
    assert end.count("Did you mean: 'count'?") == end.count("Did you mean") == 1, end


def test_did_you_mean_after_closing(example: Path) -> None:
    with pytest.raises(dlopen.SymbolError) as caught, dlopen.Library(example) as library:
        library.coun  # noqa: B018
    assert str(caught.value).endswith("undefined symbol: coun. Did you mean: 'count'?")
    with pytest.raises(dlopen.SymbolError) as caught, dlopen.Library(example) as library:
        library["twice@EXAMPLE_3"]
    assert sorted(caught.value.similar) == ["twice", "twice@EXAMPLE_1"]
    with pytest.raises(dlopen.SymbolError) as caught, dlopen.Library(example) as library:
        library.nothing_of_the_kind  # noqa: B018
    assert "Did you mean" not in str(caught.value)


def test_a_name_without_its_ends(tmp_path: Path) -> None:
    """What a compiler makes of -lz, and the file that only a -dev package has."""
    for name in ("z", "libz", "libz.so.77"):
        with pytest.raises(dlopen.LoadError) as caught:
            dlopen.Library(name)
        assert caught.value.similar[0] == "libz.so.1"
        assert str(caught.value).endswith(". Did you mean: 'libz.so.1'?")
    for path in ("zzyzx", tmp_path / "libz.so.1"):
        with pytest.raises(dlopen.LoadError) as caught:
            dlopen.Library(path)
        assert caught.value.similar == ()
        assert "Did you mean" not in str(caught.value)


def test_a_failed_open_is_logged(
    tmp_path: Path, example: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "dlopen")
    text = tmp_path / "libtext.so"
    text.write_text("no library")
    with dlopen.Namespace("logged") as space, dlopen.Library(example, reload=True) as hot:
        acts: dict[str, Callable[[], object]] = {
            "libnowhere.so": lambda: dlopen.Library("libnowhere.so"),
            "libbytes.so": lambda: dlopen.Library.from_bytes(b"none", name="libbytes.so"),
            "libexisting.so": lambda: dlopen.existing("libexisting.so"),
            "libimage.so": lambda: dlopen.Image.from_bytes(b"none", name="libimage.so"),
            "libspace.so": lambda: space.load("libspace.so"),
            str(text): lambda: dlopen.Library(text, reload=True),
            str(tmp_path / "libfile.so"): lambda: dlopen.Image(tmp_path / "libfile.so"),
            str(example): lambda: hot.reload(b"none"),
        }
        for name, act in acts.items():
            caplog.clear()
            with pytest.raises(dlopen.LoadError) as caught:
                act()
            assert [record.name for record in caplog.records] == ["dlopen.library"], name
            assert caplog.messages == [f"cannot open {name!r}: {caught.value}"]
