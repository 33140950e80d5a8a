"""What holds for every test: marks, the rule for missing tools, and where temporary files go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import dlopen
from support import fixtures
from support.fixtures import BUILD, LANGUAGE_MARKS, compiler, missing
from support.machines import machine


def pytest_configure() -> None:
    # tmp_path holds libraries that are mapped executable; /tmp may be mounted noexec.
    BUILD.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(BUILD))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.get_closest_marker(name) for name in LANGUAGE_MARKS):
            item.add_marker("core")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, language in LANGUAGE_MARKS.items():
        if item.get_closest_marker(name):
            compiler(language)
    only_on = item.get_closest_marker("only_on")
    if only_on and machine().name not in only_on.args:
        pytest.skip(only_on.kwargs.get("reason", f"not of {machine().name}"))
    if machine().is_foreign:
        if item.get_closest_marker("in_process"):
            pytest.skip(f"the interpreter of the tests is none of {machine().name}")
        if emulated := item.get_closest_marker("emulated"):
            pytest.skip(emulated.kwargs["reason"])


@pytest.fixture(scope="session")
def libdlopen() -> Path:
    return fixtures.libdlopen()


@pytest.fixture
def need_library() -> Callable[[str], Path]:
    """Where a library of the system is; the test is skipped without it, and fails in CI."""

    def need(soname: str) -> Path:
        return Path(dlopen.find(soname).path or missing(f"{soname} is not installed"))

    return need
