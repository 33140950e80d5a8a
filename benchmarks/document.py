"""Tables and pictures of docs/performance.md, from the JSON of a run.

    document.py [JSON]

What stands between `<!-- NAME -->` and `<!-- end -->` is written anew; the rest is written by hand
and holds no figure.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import libraries
from drawing import SERIES, Bar, Value, bars, curves
from run import figure

DOCS = libraries.ROOT / "docs"
PAGE = DOCS / "performance.md"
PEERS = ("dlopen-rs", "relink", "cffi", "shiv", "PyInstaller")
Result = dict[str, Any]
Report = dict[str, Any]


def value(spread: dict[str, float], divisor: float = 1) -> Value:
    """A spread as a place in a picture."""
    return Value(*(spread[key] / divisor for key in ("median", "low", "high")))


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    rows = [list(head), *map(list, lines)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def is_met(result: Result) -> bool | None:
    """None where nothing is asked for."""
    if result["at_most"] is None:
        return None
    return bool(result["to"][result["reference"]]["median"] <= result["at_most"])


def named(result: Result) -> str:
    """What was done."""
    at = f", {result['at']:,}" if result["at"] is not None else ""
    name = f"{result['case']}{at}"
    if result["file"]:
        name += f" ({result['file']})"
    return f"{name}: {result['metric']}"


def cells(result: Result) -> list[str]:
    """A line of the tables."""
    unit, reference = result["unit"], result["reference"]
    compared = result["to"][reference]
    if result["comparison"] == "difference":
        ratio = f"{figure(compared['median'], unit)} more"
        interval = f"{figure(compared['low'], unit)} … {figure(compared['high'], unit)}"
        goal = "" if result["at_most"] is None else figure(result["at_most"], unit)
    else:
        ratio = f"{compared['median']:.2f}"
        interval = f"{compared['low']:.2f} … {compared['high']:.2f}"
        goal = "" if result["at_most"] is None else f"{result['at_most']:g}"
    if is_met(result):
        ratio = f"**{ratio}**"
    others = (
        f"{result['to'][peer]['median']:.2f}" if peer in result["to"] else "" for peer in PEERS
    )
    sides = result["sides"]
    return [
        named(result),
        figure(sides[reference]["median"], unit),
        figure(sides["dlopen"]["median"], unit),
        ratio,
        interval,
        goal,
        *others,
    ]


def results_table(report: Report, groups: Iterable[str]) -> str:
    """Every metric of these groups."""
    chosen = [result for result in report["results"] if result["group"] in groups]
    if not chosen:
        return "Not measured in this run."
    reference = chosen[0]["reference"]
    reference = reference if reference == "installed" else "libc"
    head = [
        "",
        reference,
        "ours",
        f"ours : {reference}",
        "95 %",
        "at most",
        *(f"ours : {p}" for p in PEERS),
    ]
    columns = list(zip(head, *map(cells, chosen), strict=True))
    # A column that says nothing is left out.
    kept = [column for column in columns if any(column[1:])]
    first, *rest = zip(*kept, strict=True)
    return table(first, rest)


def machine(report: Report) -> str:
    """What it was measured on."""
    found = {**report["machine"], "run": f"{report['run']}, {report['date']}"}
    if report["without_peers"]:
        found["other loaders"] = f"none: {report['without_peers']}"
    return table(["", ""], found.items())


def summary(report: Report) -> str:
    """How many of the goals are met."""
    asked = [result for result in report["results"] if result["at_most"] is not None]
    met = sum(bool(is_met(result)) for result in asked)
    unfinished = sum(entry["side"] == "dlopen" for entry in report["missing"])
    more = f"; rows that ours did not finish: {unfinished}" if unfinished else ""
    return f"{met} of {len(asked)} goals are met in this run{more}."


def missed(report: Report) -> str:
    """What is slower than it has to be, the worst first."""
    found = [result for result in report["results"] if is_met(result) is False]
    unfinished = [
        [f"{entry['group']}: {entry['case']}", entry["why"], "", ""]
        for entry in report["missing"]
        if entry["side"] == "dlopen"
    ]
    if not found and not unfinished:
        return "Nothing."

    def excess(result: Result) -> float:
        return float(result["to"][result["reference"]]["median"] / result["at_most"])

    lines = unfinished
    for result in sorted(found, key=excess, reverse=True):
        ratio, interval, goal = cells(result)[3:6]
        lines.append([f"{result['group']}: {named(result)}", ratio, interval, goal])
    return table(["", "ours : libc", "95 %", "at most"], lines)


def growth(report: Report) -> str:
    """One more library beside many, against the same beside a hundred."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for result in report["results"]:
        if result["group"] == "One more library" and result["metric"] in {"open", "close"}:
            for side, spread in result["sides"].items():
                key = (result["case"], result["metric"], side)
                found.setdefault(key, {})[result["at"]] = spread["median"]
    sizes = sorted({size for column in found.values() for size in column})
    lines = [
        [f"{case}, {metric}", side, *(
            f"{column[size] / column[sizes[0]]:.2f}" if size in column else "" for size in sizes
        )]
        for (case, metric, side), column in found.items()
    ]  # fmt: skip
    return table(["", "side", *(f"{size:,}" for size in sizes)], lines)


def not_measured(report: Report) -> str:
    """Which side did not do what, and why."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for entry in report["missing"]:
        why = entry["why"].replace("failed: ended with status 1: ", "")
        at = "" if entry["at"] is None else f"{entry['at']:,}"
        key = (f"{entry['group']}: {entry['case']}", entry["side"], why)
        found.setdefault(key, []).append(at)
    lines = [
        [f"{name}{', ' if any(places) else ''}{'; '.join(places)}", side, why]
        for (name, side, why), places in found.items()
    ]
    return table(["", "side", "why"], lines) if lines else "Nothing."


GROUPS = {
    "small": ["Open and close"],
    "arena": ["In the arena"],
    "first": ["First open of a process"],
    "bytes": ["From bytes"],
    "scale": ["One more library", "Chained libraries"],
    "lookups": ["Binding a symbol", "dlsym", "dlsym of RTLD_DEFAULT", "dl_iterate_phdr", "dladdr"],
    "throws": ["Throw and catch"],
    "threads": ["Threads", "fork(2)"],
    "big": ["First load", "First load, constructors taken off"],
    "python": ["Python"],
    "rest": ["Preload", "Memory"],
    "packages": ["Import of packages"],
    "applications": ["Start of an application"],
}
PACKAGES = ["packages", "applications"]


def packages_run(report: Report) -> str:
    """These rows may be of a run of their own."""
    load = report["machine"].get("load at the start", "?")
    return f"Measured on {report['date']}, with a load of {load} at the start."


WRITERS: dict[str, Callable[[Report], str]] = {
    "machine": machine,
    "summary": summary,
    "growth": growth,
    "missed": missed,
    "missing": not_measured,
    "packages_run": packages_run,
}


def written(page: str, report: Report) -> str:
    """The page with what this run has found."""
    measured = {result["group"] for result in report["results"]}

    def one(match: re.Match[str]) -> str:
        name = match[1]
        # A run of some rows says nothing about the others.
        of = PACKAGES if name == "packages_run" else [name]
        groups = [group for key in of for group in GROUPS.get(key, [])]
        if report.get("only") and not measured.intersection(groups):
            return match[0]
        text = WRITERS[name](report) if name in WRITERS else results_table(report, GROUPS[name])
        return f"<!-- {name} -->\n\n{text}\n\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", one, page, flags=re.DOTALL)


def ratio_bars(report: Report, groups: list[str], metric: str) -> list[Bar]:
    """Ours to the reference, and the others' to it, by their medians."""
    found = []
    for result in report["results"]:
        if result["group"] not in groups or result["metric"] != metric:
            continue
        reference = result["sides"][result["reference"]]["median"]
        values = {"dlopen": value(result["to"][result["reference"]])}
        for peer in PEERS:
            if peer in result["sides"]:
                values[peer] = Value(*[result["sides"][peer]["median"] / reference] * 3)
        name = result["case"]
        if result["group"] != groups[0]:
            name += ", no constructors"
        found.append(Bar(name, values, result["at_most"]))
    return found


def curve(report: Report, group: str, case: str, metric: str, divisor: float
          ) -> dict[str, dict[float, Value]]:  # fmt: skip
    """By side: the values by what is loaded."""
    series: dict[str, dict[float, Value]] = {}
    for result in report["results"]:
        if (result["group"], result["case"], result["metric"]) != (group, case, metric):
            continue
        for side, spread in result["sides"].items():
            at = max(result["at"], 1)
            series.setdefault(side, {})[at] = value(spread, divisor)
    return {side: series[side] for side in SERIES if series.get(side)}


CURVES = {
    "local-open": ("One more library", "LOCAL", "open", "Opening one more library", 1e3),
    "local-close": ("One more library", "LOCAL", "close", "Closing it", 1e3),
    "global-open": ("One more library", "GLOBAL", "open", "Opening one more, all global", 1e3),
    "binding": (
        "Binding a symbol",
        "libraries before the one that has it",
        "open",
        "Binding a symbol",
        1,
    ),
    "default": (
        "dlsym of RTLD_DEFAULT",
        "libraries before the one that has it",
        "lookup",
        "dlsym of RTLD_DEFAULT",
        1,
    ),
    "iterate": ("dl_iterate_phdr", "libraries", "iteration", "dl_iterate_phdr", 1),
    "address": ("dladdr", "its library beside others", "dladdr", "dladdr", 1),
}
BARS = {
    "small": (["Open and close"], "open+close", "Opening and closing small libraries"),
    "first": (["First open of a process"], "open", "The first open of a process"),
    "big": (
        ["First load", "First load, constructors taken off"],
        "open",
        "The first load of big libraries",
    ),
    "packages": (
        ["Import of packages"],
        "all",
        "Importing packages from an archive, with the import of dlopen",
    ),
    "applications": (
        ["Start of an application"],
        "start-wall",
        "A whole run of an application that imports a package, wall time",
    ),
}


def pictures(report: Report) -> dict[str, str]:
    """By file name; of what this run has measured."""
    found = {}
    for name, (groups, metric, title) in BARS.items():
        if rows := ratio_bars(report, groups, metric):
            reference = "the installed one" if name in PACKAGES else "libc"
            found[f"performance-{name}.svg"] = bars(title, reference, rows)
    for name, (group, case, metric, title, divisor) in CURVES.items():
        if series := curve(report, group, case, metric, divisor):
            unit = "µs" if divisor == 1e3 else "ns"
            found[f"performance-{name}.svg"] = curves(
                title, "libraries that are open", unit, series
            )
    return found


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", type=Path, nargs="?", default=libraries.BUILD / "full.json")
    arguments = parser.parse_args()
    report = json.loads(arguments.json.read_text())
    PAGE.write_text(written(PAGE.read_text(), report))
    for name, picture in pictures(report).items():
        (DOCS / name).write_text(picture)


if __name__ == "__main__":
    main()
