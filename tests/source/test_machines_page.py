"""docs/machines.md: what its tables say comes from tests, and of each machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.features import FEATURES, few_of_each, shows
from support.fixtures import REPOSITORY
from support.machines import MACHINES

sys.path.insert(0, str(REPOSITORY / "tools"))
import differential_page
import machines_page
from machines_page import NOT_RUN, Run

PAGE = machines_page.PAGE.read_text()


@pytest.fixture(scope="module")
def names() -> list[str]:
    """All tests."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_each_feature_has_tests(names: list[str]) -> None:
    assert [name for name in FEATURES if not any(shows(name, test) for test in names)] == []


def test_a_few_are_some_of_each(names: list[str]) -> None:
    chosen = few_of_each(names, 3)
    for feature in FEATURES:
        there = sum(shows(feature, name) for name in names)
        assert sum(shows(feature, name) for name in chosen) >= min(3, there), feature
    assert len(chosen) <= 3 * len(FEATURES)


def test_the_page_has_each_machine_and_feature() -> None:
    assert list(machines_page.MACHINES) == list(MACHINES)
    (text,) = re.findall(r"<!-- features -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines()]
    assert rows[0] == ["", *MACHINES]
    assert [row[0] for row in rows[2:]] == list(FEATURES)
    assert all(all(row) for row in rows[2:])


def test_the_page_tells_of_relocated_places_of_other_machines() -> None:
    (text,) = re.findall(r"<!-- compared -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    head, _, *lines = [
        [part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines()
    ]
    assert head[-3:] == [*MACHINES][-3:]
    counts = {name: [int(cell.replace(",", "")) for cell in cells] for name, *cells in lines}
    assert min(counts["libraries of Debian"]) >= 200
    assert set(counts["unexplained differences"]) == {0}


def test_tables_of_relocated_places() -> None:
    reports = {
        name: {
            "system_libraries": 2000, "packages": 3, "built_libraries": 4, "images": 5,
            "places": {"64": 6, f"of {name}": 7}, "bound": {"the definition": 8},
            "by_nature": {"a reason": 9}, "refused": {"not found": ["liba.so", "libb.so"]},
            "differences": [],
        }
        for name in ("one", "two")
    }  # fmt: skip
    names = "compared", "places", "bound", "by_nature", "refused"
    page = "".join(f"<!-- {name} -->\nold\n<!-- end -->\n" for name in names)
    written = differential_page.write(page, reports)
    assert "old" not in written
    for line in (
        "| libraries of Debian | 2,000 | 2,000 |", "| places | 13 | 13 |", "| 64 | 6 | 6 |",
        "| of two |  | 7 |", "| a reason | 9 | 9 |", "| not found | 2 | 2 |",
    ):  # fmt: skip
        assert f"\n{line}\n" in written


def test_what_is_not_run_is_there() -> None:
    assert set(NOT_RUN) < set(machines_page.folders())


def run(machine: str, **tests: dict[str, Any]) -> Run:
    """As of a file; a test's name is that of a case of lazy.c."""
    path = "tests/family/test_family.py::test_case[lazy-{}]"
    return Run(
        machine, "bookworm", "2.36", "qemu 7.2", "",
        {path.format(name): test for name, test in tests.items()},
    )  # fmt: skip


PASSED = {"outcome": "passed"}
LEFT_OUT = {"outcome": "left out", "reason": "the shell is this machine's"}
FAILED = {"outcome": "failed", "reason": "E  assert 1 == 2"}
ELSEWHERE = {"outcome": "left out", "elsewhere": True, "reason": "it is about x86_64"}


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ({"a": PASSED, "b": PASSED}, "pass: 2"),
        ({"a": PASSED, "b": LEFT_OUT}, "pass: 1, left out: 1"),
        ({"a": PASSED, "b": LEFT_OUT, "c": FAILED}, "**1 of 2 fail**"),
        ({"a": LEFT_OUT, "b": ELSEWHERE}, LEFT_OUT["reason"]),
        ({"a": ELSEWHERE}, "no test"),
    ],
)
def test_a_cell(tests: dict[str, dict[str, Any]], expected: str) -> None:
    found = run("aarch64", **tests)
    assert machines_page.cell(found, "lazy calls", set(found.tests)) == expected
    assert machines_page.cell(found, "Python face", set(found.tests)) == "no test"


def test_a_folder_that_is_not_run_is_a_gap() -> None:
    folder = next(iter(NOT_RUN))
    (reason,) = {NOT_RUN["tests/python"]}
    everywhere = {"tests/python/test_x.py::test_y", f"{folder}/test_x.py::test_y"}
    assert machines_page.cell(run("aarch64"), "Python face", everywhere) == reason


def test_of_two_runs_the_last_word_counts(tmp_path: Path) -> None:
    whole, apart = tmp_path / "sid.json", tmp_path / "sid-gdb.json"
    found = run("aarch64", a=FAILED, b=PASSED)
    whole.write_text(json.dumps(vars(found)))
    apart.write_text(json.dumps(vars(run("aarch64", a=PASSED, c=PASSED))))
    for later, expected in ((apart, 3), (whole, 2)):
        os.utime(later, (later.stat().st_mtime + 60,) * 2)
        assert machines_page.read(whole).number("passed") == expected
        assert len(machines_page.read(whole).tests) == 3
        os.utime(later, (1, 1))


def test_the_page_is_written() -> None:
    other = run("riscv64", a=FAILED)
    found = run("aarch64", a={**PASSED, "differs": "on purpose"}, b=LEFT_OUT)
    page = machines_page.write(PAGE, [found, run("riscv64", a=PASSED)], [other])
    assert "| lazy calls | pass: 1, left out: 1 | pass: 1 |" in page
    assert "| `lazy-a` | on purpose | aarch64 |" in page
    assert "| riscv64, bookworm | 1 | E  assert 1 == 2 | `test_family.py::test_case[" in page
    assert "| aarch64 | 2.36 (bookworm) | qemu 7.2 | 1 | 0 | 1 | 0 |" in page
    assert machines_page.write(page, [found, run("riscv64", a=PASSED)], [other]) == page
    assert machines_page.summary(found) == (
        "aarch64, glibc 2.36 of bookworm under qemu 7.2: 1 passed; "
        "left out: 1 the shell is this machine's"
    )
