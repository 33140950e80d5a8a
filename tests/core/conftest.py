from __future__ import annotations

from pathlib import Path

import pytest

from core.steps import Steps


@pytest.fixture
def steps(tmp_path: Path, libdlopen: Path) -> Steps:
    return Steps(tmp_path, libdlopen)
