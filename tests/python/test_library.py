"""Libraries: how they are opened, what their attributes are, what their keywords do."""

from __future__ import annotations

import copy
import ctypes
import errno
import gc
import os
import re
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest

import dlopen
from dlopen import _lifecycle
from support.fixtures import compile_library, maps, run_python


def drop(objects: list[dlopen.Library]) -> None:
    objects.clear()
    gc.collect()


def mapped(path: Path) -> bool:
    return any(mapping.path == str(path) for mapping in maps())


def test_a_path_is_opened_and_closed(example: Path) -> None:
    library = dlopen.Library(str(example))
    assert mapped(example)
    assert not library.closed
    assert library.add(2, 3) == 5
    library.close()
    assert not mapped(example)
    library.close()  # again: nothing happens


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_kinds_of_path(example: Path, kind: type) -> None:
    with dlopen.Library(kind(example)) as library:
        assert library.add(1, 1) == 2
    assert library.closed


def test_a_path_object_is_never_searched(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example.parent)
    with pytest.raises(dlopen.LoadError):
        dlopen.Library(example.name)
    with dlopen.Library(Path(example.name)) as library:
        assert library.info.path == str(example)


def test_none_is_the_program() -> None:
    program = dlopen.Library(None)
    assert program.function("getpid")() == os.getpid()


def test_bytes(example: Path) -> None:
    data = bytearray(example.read_bytes())
    with dlopen.Library.from_bytes(data, name="libmemory.so") as library:
        data[:] = bytes(len(data))  # a copy was made
        assert library.add(20, 22) == 42
        assert library.info.path == "libmemory.so"
        assert not mapped(example)
        start, end = library.info.map_start, library.info.map_end
        inside = [mapping for mapping in maps() if start <= mapping.start < end]
        assert inside
    assert not set(inside) & set(maps())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_kinds_of_buffer(example: Path, kind: type) -> None:
    with dlopen.Library.from_bytes(kind(example.read_bytes())) as library:
        assert library.add(1, 2) == 3


def test_private_copies_count_apart(example: Path) -> None:
    first = dlopen.Library(example, dlopen.PRIVATE)
    second = dlopen.Library(example, dlopen.PRIVATE)
    shared = dlopen.Library(example)
    with first, second, shared:
        assert [first.count(), first.count(), second.count(), shared.count()] == [6, 7, 6, 6]
        assert first.info != second.info
        assert first.info.is_private
        assert not shared.info.is_private


def test_opening_twice_gives_two_objects_on_one_image(example: Path) -> None:
    first, second = dlopen.Library(example), dlopen.Library(example)
    assert first is not second
    assert first.info == second.info
    assert first.info.open_count == 2
    first.count()
    first.close()
    assert second.count() == 7
    second.close()
    assert not mapped(example)


def test_attributes_and_items_are_the_same_function(example: Path) -> None:
    with dlopen.Library(example) as library:
        add = library.add
        assert library.add is add
        assert library["add"] is add
        add.argtypes, add.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_double
        assert library.add.restype is ctypes.c_double
        assert isinstance(add, dlopen.Function)
        assert add.__name__ == "add"
        assert "add" in repr(add)


def test_items_reach_symbols_whose_name_is_taken(example: Path) -> None:
    with dlopen.Library(example) as library:
        assert library["close"](1) == 1001
        assert not library.closed


def test_function_is_typed_and_new(example: Path) -> None:
    with dlopen.Library(example) as library:
        half = library.function("half", ctypes.c_double, ctypes.c_double)
        assert half(3) == 1.5
        assert half is not library.half
        assert library.half.restype is ctypes.c_int
        with pytest.raises(ctypes.ArgumentError):
            half("3")


def test_versions_of_a_function(example: Path) -> None:
    with dlopen.Library(example) as library:
        assert library.twice(10) == 20
        assert library["twice@EXAMPLE_2"](10) == 20
        assert library["twice@EXAMPLE_1"](10) == 21
        assert library.function("twice@EXAMPLE_1")(10) == 21
        with pytest.raises(dlopen.SymbolError) as caught:
            library["twice@EXAMPLE_3"]
        assert (caught.value.symbol, caught.value.version) == ("twice", "EXAMPLE_3")


def test_functions_of_dependencies(example: Path) -> None:
    with dlopen.Library(example) as library:
        assert library.function("getpid")() == os.getpid()


def test_undefined_symbols(example: Path) -> None:
    with dlopen.Library(example) as library:
        assert not hasattr(library, "subtract")
        with pytest.raises(AttributeError):
            library.subtract  # noqa: B018
        with pytest.raises(KeyError):
            library["subtract"]
        with pytest.raises(dlopen.SymbolError):
            library.function("hidden_one")
        with pytest.raises(AttributeError):
            library.__missing__  # noqa: B018


def test_variables(example: Path) -> None:
    with dlopen.Library(example) as library:
        counter = library.variable("counter", ctypes.c_int)
        counter.value += 10
        assert library.count() == 16
        assert counter.value == 16
        assert counter.address == library.symbols["counter"].address
        assert library.variable("label", ctypes.c_char * 8).value == b"label"

        table = library.variable("table", ctypes.c_int * 4)
        assert list(table.value) == [1, 2, 3, 4]
        table.value = (ctypes.c_int * 4)(5, 6, 7, 8)
        assert list(table.value) == [5, 6, 7, 8]

        class Point(ctypes.Structure):
            _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int))

        origin = library.variable("origin", Point)
        assert (origin.value.x, origin.value.y) == (1, 2)
        origin.value = Point(3, 4)
        assert (origin.value.x, origin.value.y) == (3, 4)

        with pytest.raises(ValueError, match="4 bytes"):
            library.variable("counter", ctypes.c_int64)
        with pytest.raises(dlopen.SymbolError):
            library.variable("no_counter", ctypes.c_int)


def test_use_errno(example: Path) -> None:
    with (
        dlopen.Library(example, use_errno=True) as with_errno,
        dlopen.Library(example) as without,
    ):
        ctypes.set_errno(0)
        without.fails()
        assert ctypes.get_errno() == 0
        with_errno.fails()
        assert ctypes.get_errno() == errno.ERANGE


def test_gil_is_kept_when_asked_for(tmp_path: Path) -> None:
    source = """
    extern int PyGILState_Check(void);
    int has_gil(void) { return PyGILState_Check(); }
    """
    path = compile_library(tmp_path, "libgil.so", source)
    with dlopen.Library(path, gil=True) as library:
        assert library.has_gil() == 1
    with dlopen.Library(path) as library:
        assert library.has_gil() == 0


def test_gil_calls_check_for_exceptions(tmp_path: Path) -> None:
    source = """
    extern void *PyExc_LookupError;
    extern void PyErr_SetString(void *, const char *);
    void *raise_it(void) { PyErr_SetString(PyExc_LookupError, "from C"); return 0; }
    """
    path = compile_library(tmp_path, "libraise.so", source)
    with dlopen.Library(path, gil=True) as library:
        raise_it = library.function("raise_it", ctypes.py_object)
        with pytest.raises(LookupError, match="from C"):
            raise_it()


def test_modes(example: Path) -> None:
    assert int(dlopen.RTLD_NOW | dlopen.RTLD_GLOBAL) == os.RTLD_NOW | os.RTLD_GLOBAL
    for name in ("LOCAL", "LAZY", "NOW", "NOLOAD", "DEEPBIND", "GLOBAL", "NODELETE"):
        assert getattr(dlopen, f"RTLD_{name}") == getattr(os, f"RTLD_{name}")
    assert dlopen.PRIVATE == 1024
    with pytest.raises(dlopen.LoadError):
        dlopen.Library(example, dlopen.RTLD_NOLOAD)
    with (
        dlopen.Library(example) as library,
        dlopen.Library(example, dlopen.RTLD_NOLOAD) as again,
    ):
        assert again.info == library.info


def test_global_symbols_are_found_by_later_libraries(tmp_path: Path) -> None:
    lender = compile_library(tmp_path, "liblender.so", "int lent(void) { return 7; }")
    borrower = compile_library(
        tmp_path, "libborrower.so", "int lent(void); int borrow(void) { return lent(); }"
    )
    with pytest.raises(dlopen.SymbolError) as caught, dlopen.Library(lender):
        dlopen.Library(borrower)
    assert caught.value.symbol == "lent"
    with (
        dlopen.Library(lender, dlopen.RTLD_GLOBAL),
        dlopen.Library(borrower) as library,
    ):
        assert library.borrow() == 7


def test_nodelete_stays(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libnodelete.so", "int one(void) { return 1; }")
    library = dlopen.Library(path, dlopen.RTLD_NODELETE)
    library.close()
    assert mapped(path)
    assert [blocker.kind for blocker in library.unload_blockers] == ["nodelete"]


def test_unload_blockers(example: Path) -> None:
    first, second = dlopen.Library(example), dlopen.Library(example)
    first.close()
    assert [blocker.kind for blocker in first.unload_blockers] == ["open"]
    second.close()
    assert first.unload_blockers == ()
    assert second.unload_blockers == ()


def test_unload_blockers_name_a_dependent(tmp_path: Path) -> None:
    inner = compile_library(tmp_path, "libinner.so", "int inner(void) { return 1; }")
    outer = compile_library(
        tmp_path,
        "libouter.so",
        "int inner(void); int outer(void) { return inner(); }",
        libraries=[inner],
    )
    library = dlopen.Library(inner)
    with dlopen.Library(outer):
        library.close()
        assert str(outer) in {blocker.library for blocker in library.unload_blockers}
    assert library.unload_blockers == ()
    assert not mapped(inner)


def test_dir_and_repr(example: Path) -> None:
    library = dlopen.Library(example)
    assert {"add", "twice", "close", "symbols"} <= set(dir(library))
    assert "twice@EXAMPLE_1" not in dir(library)
    assert str(example) in repr(library)
    library.close()
    assert "closed" in repr(library)
    assert "add" not in dir(library)


def test_a_dropped_private_library_warns_and_stays(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libprivate.so", "int one(void) { return 1; }")
    library = dlopen.Library(path, dlopen.PRIVATE)
    library.one()
    start = library.info.map_start
    dropped = [library]
    del library
    with pytest.warns(ResourceWarning, match=r"unclosed.*libprivate"):
        drop(dropped)
    assert any(mapping.start == start for mapping in maps())


def test_a_dropped_shared_library_stays_silently(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libdropped.so", "int one(void) { return 1; }")
    library = dlopen.Library(path)
    library.one()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del library
        gc.collect()
    assert mapped(path)


def test_a_function_keeps_its_library_open(example: Path) -> None:
    add = dlopen.Library(example, dlopen.PRIVATE).function("add")
    gc.collect()  # no ResourceWarning: the library is not dropped
    assert add(1, 2) == 3
    assert isinstance(add._library, dlopen.Library)
    add._library.close()


def test_a_library_cannot_be_copied(example: Path) -> None:
    with dlopen.Library(example) as library, pytest.raises(TypeError, match="copied"):
        copy.copy(library)


def test_unknown_keywords(example: Path) -> None:
    with pytest.raises(TypeError):
        dlopen.Library(example, lazy=True)  # type: ignore[call-arg]


def test_null_bytes_in_names() -> None:
    with pytest.raises(ValueError, match="null"):
        dlopen.Library("lib\0.so")


def test_audit_events(example: Path) -> None:
    code = """
import sys, dlopen
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)) if event[:7] == "dlopen." else None)
library = dlopen.Library(sys.argv[1], dlopen.RTLD_NOW)
library.add(1, 2)
library.add(1, 2)
library.symbols["count"]
library.close()
for event, args in seen:
    print(event, *args)
"""
    assert run_python(code, str(example)).stdout.splitlines() == [
        f"dlopen.open {example} {os.RTLD_NOW}",
        f"dlopen.symbol {example} add",
        f"dlopen.symbol {example} count",
    ]


def test_logging(example: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="dlopen")
    dlopen.Library(example).close()
    records = [record for record in caplog.records if record.name.startswith("dlopen.")]
    assert [record.message.split()[0] for record in records] == ["opened", "closed"]


def test_importing_it_is_quick() -> None:
    code = "import sys; before = {*sys.modules}; import dlopen; print(*{*sys.modules} - before)"
    loaded = set(run_python(code).stdout.split())
    slow = {"dataclasses", "difflib", "importlib.resources", "inspect", "logging", "re", "typing"}
    assert not loaded & slow


def test_a_library_has_no_lock_before_one_is_needed(example: Path) -> None:
    """Each would be known to who makes them free in a child."""
    before = len(_lifecycle._locks)
    with dlopen.Library(example) as library:
        assert library.add(1, 2) == 3
        library.function("count")
        assert len(_lifecycle._locks) == before
        assert library._lock is library._lock
        assert len(_lifecycle._locks) == before + 1


@pytest.mark.parametrize("mode", [2.0, "2", None, -1, 1 << 32, 1 << 64])
def test_what_is_no_mode(example: Path, mode: Any) -> None:
    with pytest.raises(ValueError, match=f"^{mode!r} is not a valid Mode$"):
        dlopen.Library(example, mode)


def test_a_number_of_another_type_is_a_mode(example: Path) -> None:
    class Number:
        def __index__(self) -> int:
            return os.RTLD_NOW | os.RTLD_GLOBAL

    with dlopen.Library(example, Number()) as library:  # type: ignore[arg-type]
        assert library.info.is_global


def test_header_is_installed() -> None:
    header = Path(dlopen.get_include(), "dlopen.h")
    assert "DLOPEN_open" in header.read_text()


def test_a_closed_library_is_freed_at_once(example: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        library = dlopen.Library(example)
        library.add(1, 2)
        library["count"]()
        library.function("add")(1, 2)
        assert "add" in library.symbols
        assert library.info.relocations
        alive = weakref.ref(library)
        library.close()
        del library
        assert alive() is None
    finally:
        gc.enable()


def test_reference_counts_are_stable(example: Path) -> None:
    with dlopen.Library(example) as library:
        before = sys.getrefcount(library)
        for _ in range(100):
            library.info  # noqa: B018
            library.symbols["add"]
            library.function("add")(1, 2)
        gc.collect()
        assert sys.getrefcount(library) <= before + 1


def test_a_library_is_a_container_of_names(example: Path) -> None:
    with dlopen.Library(example) as library:
        assert "add" in library
        assert "twice@EXAMPLE_1" in library
        assert "answer" in library  # an IFUNC, whose resolver was not called
        assert "close" in library
        assert "getpid" in library  # of what it needs, as library["getpid"]
        for none in ("hidden_one", "nonesuch", "add\0", "", "twice@NONE", 5, None):
            assert none not in library
        assert "add\0" not in library.symbols
        names = list(library)
        assert {"add", "close", "counter", "twice", "twice@EXAMPLE_1"} <= set(names)
        assert "getpid" not in names
        assert "EXAMPLE_1" in library.symbols  # the name of a version, at NULL
        assert "EXAMPLE_1" not in names
        assert "EXAMPLE_1" not in library
        assert all(library[name] is not None for name in names)
    for act in (lambda: "add" in library, lambda: iter(library)):
        with pytest.raises(ValueError, match="closed"):
            act()


def test_a_library_without_exports_is_true(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libempty.so", "", flags=["-nostdlib"])
    with dlopen.Library(path) as library:
        assert list(library) == []
        assert bool(library)
        assert not hasattr(library, "__len__")


def test_deleting_lets_the_next_be_new(example: Path) -> None:
    library = dlopen.Library(example)
    old = library.add
    old.restype = ctypes.c_char
    del library.add
    assert library.add is library["add"] is not old
    assert library.add(1, 2) == 3
    assert old.restype is ctypes.c_char
    del library["add"]
    assert library.add is library["add"]
    del library.half  # which was not asked for yet
    function = library["close"]
    with pytest.raises(AttributeError):
        del library.close
    assert library["close"] is function
    del library["close"]
    assert library["close"] is not function
    vars(library)["mine"] = 5
    del library.mine
    with pytest.raises(dlopen.SymbolError):
        del library.mine
    with pytest.raises(dlopen.SymbolError):
        del library["mine"]
    library.close()
    for kept in (old, function):
        with pytest.raises(ValueError, match="is closed"):
            kept(1, 2)


def test_keys_are_completed(example: Path) -> None:
    """What IPython asks for after a bracket and a quotation mark."""
    with dlopen.Library(example) as library:
        assert {"add", "close"} <= set(library._ipython_key_completions_())
        assert set(library.symbols._ipython_key_completions_()) == set(library.symbols)


def test_names_that_methods_take_are_documented(example: Path) -> None:
    text = Path(__file__).parents[2].joinpath("docs", "from-ctypes.md").read_text()
    named = re.search(r"\*\*Methods take names\.\*\*(.*?)are ours", text, re.DOTALL)
    assert named
    public = {name for name in dir(dlopen.Library) if not name.startswith("_")}
    assert set(re.findall("`(\\w+)`", named[1])) == public
    with dlopen.Library(example) as library:
        assert library["close"](1) == 1001
        assert not library.closed


def test_a_subclass_can_be_opened_in_another_way(example: Path) -> None:
    """`from_bytes` does not ask the subclass's constructor, whose parameters it cannot know."""

    class Example(dlopen.Library):
        def __init__(self) -> None:
            super().__init__(example, dlopen.PRIVATE)

    with Example() as library, Example.from_bytes(example.read_bytes(), use_errno=True) as other:
        assert type(other) is Example
        assert (library.add(1, 2), other.add(3, 4)) == (3, 7)
        assert "_given_data" not in vars(other)  # the content is not kept


def test_keywords_that_are_none(example: Path) -> None:
    content = example.read_bytes()
    with dlopen.Namespace("keywords") as home:
        placed: Any = [(home.load, example), (home.load_bytes, content)]
        free: Any = [(dlopen.Library, example), (dlopen.Library.from_bytes, content)]
        for open_, argument in [*placed, *free]:
            with pytest.raises(TypeError, match="gill"):
                open_(argument, gill=True)
        for open_, argument in placed:
            with pytest.raises(TypeError, match="namespace"):
                open_(argument, namespace=None)
        assert home.libraries == ()
