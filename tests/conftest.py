"""What holds for every test: marks, the rule for missing tools, and where temporary files go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support import features, fixtures
from support.fixtures import BUILD, LANGUAGE_MARKS, compiler, machine_library, missing
from support.machines import machine
from support.results import Results


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="a file for what became of each test: JSON")
    parser.addoption(
        "--few", type=int, metavar="N", help="N tests of each feature of docs/machines.md only"
    )


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--results"):
        config.pluginmanager.register(Results(path))
    # tmp_path holds libraries that are mapped executable; /tmp may be mounted noexec.
    BUILD.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(BUILD))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.get_closest_marker(name) for name in LANGUAGE_MARKS):
            item.add_marker("core")
    if count := config.getoption("--few"):
        chosen = features.few_of_each((item.nodeid for item in items), count)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in chosen])
        items[:] = [item for item in items if item.nodeid in chosen]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, language in LANGUAGE_MARKS.items():
        if item.get_closest_marker(name):
            compiler(language)
    only_on = item.get_closest_marker("only_on")
    if only_on and machine().name not in only_on.args:
        if "reason" not in only_on.kwargs:
            item.user_properties.append(("elsewhere", True))
        pytest.skip(only_on.kwargs.get("reason", f"it is about {', '.join(only_on.args)}"))
    if machine().is_foreign and item.get_closest_marker("in_process"):
        pytest.skip(f"the interpreter of the tests is none of {machine().name}")
    emulated = item.get_closest_marker("emulated")
    if machine().emulator and emulated:
        pytest.skip(emulated.kwargs["reason"])


@pytest.fixture(scope="session")
def libdlopen() -> Path:
    return fixtures.libdlopen()


@pytest.fixture
def need_library() -> Callable[[str], Path]:
    """Where a library of the system is; the test is skipped without it, and fails in CI."""

    def need(soname: str) -> Path:
        return machine_library(soname) or missing(f"{soname} is not installed")

    return need
