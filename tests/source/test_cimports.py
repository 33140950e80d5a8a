"""Each name that the core cimports is used: neither Cython nor its linter says which are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "dlopen"
FILES = sorted(path for kind in ("*.pxd", "*.pxi", "*.pyx") for path in SOURCE.rglob(kind))
CIMPORT = re.compile(r"^from \S+ cimport (\([^)]*\)|[^\n]*)\n", re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_cimports_are_used(path: Path) -> None:
    text = path.read_text()
    names = re.findall(r"\w+(?= *[,\n)])|\w+$", " ".join(CIMPORT.findall(text)) + ",")
    rest = CIMPORT.sub("", text)
    assert [name for name in names if not re.search(rf"\b{name}\b", rest)] == []
