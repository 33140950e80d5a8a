"""libdlopen.so in LD_PRELOAD."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def preloads(tmp_path: Path, libdlopen: Path) -> Callable[..., dict[str, str]]:
    """The environment that preloads libraries in this order; without any, libdlopen.so.

    LD_PRELOAD cannot hold a path with a space: by name, found through LD_LIBRARY_PATH.
    """

    def environment(*libraries: Path) -> dict[str, str]:
        folder = tmp_path / "preloads"
        folder.mkdir(exist_ok=True)
        names = []
        for library in libraries or (libdlopen,):
            link = folder / library.name
            if not link.exists():
                link.symlink_to(library)
            names.append(library.name)
        return {"LD_PRELOAD": ":".join(names), "LD_LIBRARY_PATH": str(folder)}

    return environment
