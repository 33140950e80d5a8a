"""The public face: __all__ is sorted and complete, and the stub covers the extension."""

import ast
import inspect
import pickle
import sys
from pathlib import Path
from types import ModuleType

import dlopen
from dlopen import _linker


def test_all_is_sorted_and_has_no_duplicates() -> None:
    assert list(dlopen.__all__) == sorted(set(dlopen.__all__))


def test_all_is_complete() -> None:
    public = {
        name
        for name in dir(dlopen)
        if not name.startswith("_") and not isinstance(getattr(dlopen, name), ModuleType)
    }
    assert public - {"annotations", "TYPE_CHECKING"} == set(dlopen.__all__) - {"__version__"}


def test_public_classes_are_where_they_say() -> None:
    """As pickle needs it, and who reads a traceback."""
    for name in dlopen.__all__:
        value = getattr(dlopen, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.startswith("dlopen"), name
            assert getattr(sys.modules[value.__module__], value.__qualname__) is value


def test_what_is_known_can_be_pickled() -> None:
    with dlopen.Library("libm.so.6") as library:
        known = library.info
        kept = known.segments, known.versions, known.relocations[:3], dlopen.find("libm.so.6")
    assert pickle.loads(pickle.dumps(kept)) == kept


def test_public_names_are_documented() -> None:
    without = [
        name
        for name in dlopen.__all__
        if (inspect.isclass(value := getattr(dlopen, name)) or inspect.isroutine(value))
        and not inspect.getdoc(value)
    ]
    assert not without


def test_the_stub_says_what_the_extension_says() -> None:
    """The reference is made from the one, `help` shows the other."""
    stub = ast.parse(Path(dlopen.__file__).with_name("_linker.pyi").read_text())
    said = {
        f"{thing.name}.{method.name}": text
        for thing in stub.body
        if isinstance(thing, ast.ClassDef)
        for method in thing.body
        if isinstance(method, ast.FunctionDef) and (text := ast.get_docstring(method))
    }
    assert set(said) == {"Opened.close"}
    assert said["Opened.close"] == inspect.getdoc(_linker.Opened.close)
    assert inspect.getdoc(dlopen.Library.close) == inspect.getdoc(dlopen.Image.close)
