"""The tables of relocated places in docs/machines.md, from what `make differential` has found.

A run of all libraries of a machine leaves build/tests/differential/MACHINE/all.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from machines_page import MACHINES, PAGE, ROOT, fill, table

RESULTS = ROOT / "build/tests/differential"
Report = dict[str, Any]


def number(count: int | None) -> str:
    """An empty cell where the machine has no such thing."""
    return f"{count:,}" if count else ""


def rows(
    reports: dict[str, Report], names: Iterable[str], value: Callable[[Report, str], int | None]
) -> str:
    """A line for each name, a column for each machine."""
    return table(
        ["", *reports],
        ([name, *(number(value(report, name)) for report in reports.values())] for name in names),
    )


def all_of(reports: dict[str, Report], key: str) -> list[str]:
    """The names of all of them, first what there is most of."""
    counts: dict[str, int] = {}
    for report in reports.values():
        for name, count in report[key].items():
            counts[name] = counts.get(name, 0) + (count if isinstance(count, int) else len(count))
    return sorted(counts, key=lambda name: (-counts[name], name))


def compared(reports: dict[str, Report]) -> str:
    """How much was compared, and what came of it."""
    lines: dict[str, Callable[[Report], int]] = {
        "libraries of Debian": lambda report: report["system_libraries"],
        "packages": lambda report: report["packages"],
        "libraries that the test builds": lambda report: report["built_libraries"],
        "images, each as often as it was loaded": lambda report: report["images"],
        "places": lambda report: sum(report["places"].values()),
        "different by nature": lambda report: sum(report["by_nature"].values()),
        "libraries that both refuse, or this one by design": lambda report: sum(
            map(len, report["refused"].values())
        ),
        "unexplained differences": lambda report: len(report["differences"]),
    }
    return table(
        ["", *reports],
        ([name, *(f"{of(one):,}" for one in reports.values())] for name, of in lines.items()),
    )


def refused(reports: dict[str, Report]) -> str:
    """Why libraries were not compared."""
    said = "driver ended with status"
    lines = {
        kind.replace(said, "its own code ends the process: status"): kind
        for kind in all_of(reports, "refused")
    }
    return rows(reports, lines, lambda report, name: len(report["refused"].get(lines[name], ())))


def write(page: str, reports: dict[str, Report]) -> str:
    """The page with the tables that are written by this."""

    def count(key: str) -> Callable[[Report, str], int | None]:
        return lambda report, name: report[key].get(name)

    return fill(page, {
        "compared": compared(reports),
        "places": rows(reports, all_of(reports, "places"), count("places")),
        "bound": rows(reports, all_of(reports, "bound"), count("bound")),
        "by_nature": rows(reports, all_of(reports, "by_nature"), count("by_nature")),
        "refused": refused(reports),
    })  # fmt: skip


def main() -> None:
    """Write the tables."""
    paths = {name: RESULTS / name / "all.json" for name in MACHINES}
    there = {name: path for name, path in paths.items() if path.exists()}
    if not there:
        sys.exit("differential_page: no results: make differential")
    reports = {name: json.loads(path.read_text()) for name, path in there.items()}
    PAGE.write_text(write(PAGE.read_text(), reports))


if __name__ == "__main__":
    main()
