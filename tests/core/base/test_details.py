"""Details of errors: a number for each, with our words and libc's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.in_process

CORE = Path(__file__).parents[3] / "src" / "dlopen" / "core"
TABLE = (CORE / "base" / "details.pxd").read_text()
ROWS = re.findall(r'D\((\w+),\s*\\*\s*((?:"[^"]*"[\s\\]*)+),\s*\\*\s*("[^"]*")\)', TABLE)
CALL = re.compile(
    r"(?<!inline int )\b(?:fail|fail_at|fail_system|malformed|bad_relocation)"
    r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)"
)


def test_the_table_is_whole() -> None:
    names = [name for name, _, _ in ROWS]
    declared = re.findall(r"DETAIL_(\w+)", TABLE.partition("    enum:\n")[2].partition("const")[0])
    assert len(names) > 100
    assert names == declared
    ours = [re.sub(r'"[\s\\]*"', "", text).strip() for _, text, _ in ROWS]
    assert len(set(ours)) == len(ours), "two numbers of one text"
    assert all(libc == '""' or libc != text for text, (_, _, libc) in zip(ours, ROWS, strict=True))


def test_each_detail_is_used() -> None:
    """And no text is given in the place of a number."""
    sources = [*CORE.rglob("*.pxd"), CORE.parent / "libdlopen.pyx"]
    texts = {path: path.read_text() for path in sources if path.name != "details.pxd"}
    used = set(re.findall(r"DETAIL_(\w+)", " ".join(texts.values())))
    assert used == {name for name, _, _ in ROWS}
    calls = [(path.name, call) for path, text in texts.items() for call in CALL.findall(text)]
    assert len(calls) > 150
    assert [pair for pair in calls if re.search(r'b"[^"]', pair[1])] == []
