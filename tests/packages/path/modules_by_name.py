"""A plugin of pytest: tests of modules that a file `*.modules` names, wherever they come from."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class NamedModule(pytest.Module):
    """Imported by its name; its path is none."""

    def _getobj(self) -> Any:
        return importlib.import_module(self.path.stem)


class Names(pytest.File):
    """The modules that it names."""

    def collect(self) -> Iterator[pytest.Module]:
        for name in self.path.read_text().split():
            yield NamedModule.from_parent(self, path=self.path.with_name(f"{name}.py"))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Names | None:
    return Names.from_parent(parent, path=file_path) if file_path.suffix == ".modules" else None
