"""The public face: __all__ is sorted and complete, and the stub covers the extension."""

import inspect
from types import ModuleType

import dlopen


def test_all_is_sorted_and_has_no_duplicates() -> None:
    assert list(dlopen.__all__) == sorted(set(dlopen.__all__))


def test_all_is_complete() -> None:
    public = {
        name
        for name, value in vars(dlopen).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public - {"annotations"} == set(dlopen.__all__) - {"__version__"}


def test_public_names_are_documented() -> None:
    without = [
        name
        for name in dlopen.__all__
        if (inspect.isclass(value := getattr(dlopen, name)) or inspect.isroutine(value))
        and not inspect.getdoc(value)
    ]
    assert not without
