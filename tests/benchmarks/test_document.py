"""docs/performance.md: figures come from a run, prose holds none, pictures are whole."""

from __future__ import annotations

import re
import sys
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from support.fixtures import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import document
import drawing
import rows

PAGE = document.PAGE.read_text()
WRITTEN = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def spread(middle: float) -> dict[str, float]:
    return {"median": middle, "low": 0.9 * middle, "high": 1.1 * middle}


def result(group: str, case: str, metric: str, at: int | None, ours: float) -> dict[str, Any]:
    return {
        "group": group, "case": case, "metric": metric, "at": at, "unit": "ns", "file": None,
        "rounds": 3, "reference": "libc", "comparison": "ratio", "at_most": 0.8, "stretch": None,
        "sides": {"libc": spread(1000.0), "dlopen": spread(ours), "relink": spread(2000.0)},
        "to": {"libc": spread(ours / 1000), "relink": spread(ours / 2000)},
    }  # fmt: skip


@pytest.fixture
def report() -> dict[str, Any]:
    return {
        "run": "full",
        "date": "2000-01-01",
        "machine": {"processor": "a fast one"},
        "without_peers": "",
        "results": [
            result("Open and close", "tiny C", "open+close", None, 700.0),
            result("Open and close", "zlib", "open+close", None, 900.0),
            result("One more library", "LOCAL", "open", 100, 1000.0),
            result("One more library", "LOCAL", "open", 1000, 1500.0),
        ],
        "missing": [
            {"group": "dladdr", "case": "others", "at": 1000, "side": "relink", "why": "none"}
        ],
    }


def test_page_has_a_place_for_each_group() -> None:
    names = [name for name, _ in WRITTEN.findall(PAGE)]
    assert sorted(names) == sorted([*document.WRITERS, *document.GROUPS])
    assert {row.group for row in rows.all_rows()} == {
        group for groups in document.GROUPS.values() for group in groups
    }


def test_prose_holds_no_figure() -> None:
    prose = WRITTEN.sub("", PAGE)
    assert not re.findall(r"\d\s?(?:[µnm]s|KB)|\b\d+ times", prose.replace("1.3 times", ""))


def test_tables_and_what_is_won(report: dict[str, Any]) -> None:
    page = document.written(PAGE, report)
    parts = dict(WRITTEN.findall(page))
    assert "| tiny C: open+close | 1.00 µs | 700 ns | **0.70** | 0.63 … 0.77 | 0.8 |" in page
    assert "| zlib: open+close | 1.00 µs | 900 ns | 0.90 |" in page
    assert "1 of 4 goals" in parts["summary"]
    assert parts["missed"].index("LOCAL, 1,000") < parts["missed"].index("zlib")
    assert "tiny C" not in parts["missed"]
    assert "| LOCAL, open | dlopen | 1.00 | 1.50 |" in parts["growth"]
    assert "| dladdr: others, 1,000 | relink | none |" in parts["missing"]
    assert "Not measured in this run" in parts["python"]


def test_a_run_of_some_rows_leaves_the_others(report: dict[str, Any]) -> None:
    report |= {"only": "packages", "results": [result("Import of packages", "x", "all", None, 1.0)]}
    before, after = dict(WRITTEN.findall(PAGE)), WRITTEN.findall(document.written(PAGE, report))
    assert {name for name, text in after if text != before[name]} == {"packages", "packages_run"}


def test_writing_twice_changes_nothing(report: dict[str, Any]) -> None:
    page = document.written(PAGE, report)
    assert document.written(page, report) == page


def test_pictures_are_whole(report: dict[str, Any]) -> None:
    found = document.pictures(report)
    assert set(found) == {"performance-small.svg", "performance-local-open.svg"}
    for picture in found.values():
        root = ET.fromstring(picture)
        *_, width, height = map(float, root.attrib["viewBox"].split())
        marks = [element for element in root.iter() if element.tag.endswith("circle")]
        assert marks
        for mark in marks:
            assert 0 < float(mark.attrib["cx"]) < width
            assert 0 < float(mark.attrib["cy"]) < height
        assert "prefers-color-scheme:dark" in picture


def test_page_shows_each_picture() -> None:
    shown = set(re.findall(r"\]\((performance-[\w-]+\.svg)\)", PAGE))
    assert shown == {f"performance-{name}.svg" for name in (*document.BARS, *document.CURVES)}


def test_longer_is_farther_right() -> None:
    values = {"dlopen": drawing.Value(2, 1, 4), "relink": drawing.Value(1, 1, 1)}
    bar = drawing.Bar("x", values)
    root = ET.fromstring(drawing.bars("title", "libc", [bar]))
    first, second = (float(e.attrib["cx"]) for e in root.iter() if e.tag.endswith("circle"))
    assert second < first


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.5, 2.1, [0.5, 0.6, 0.8, 1, 1.5, 2]),
        (0.5, 20, [0.5, 1, 2, 5, 10, 20]),
        (1, 100000, [10**n for n in range(6)]),
    ],
)
def test_ticks(low: float, high: float, wanted: list[float]) -> None:
    assert drawing.ticks(low, high) == pytest.approx(wanted)
