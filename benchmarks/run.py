"""Against libc, ctypes and other loaders, interleaved in one run; see rows.py for what is measured.

    run.py [--full] [--only REGEX] [--rounds N] [--json PATH]

A ratio is the median over rounds of (ours / theirs) in that round, below 1 where we are quicker,
with its quartiles and the interval that holds the true median with 95 %.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import libraries
import machine
import paired
import peers
import rows
from turns import Command, take_turns

Result = dict[str, Any]


def results_of(row: rows.Row, values: Mapping[tuple[int, str], Mapping[str, Sequence[float]]],
               rounds: int) -> list[Result]:  # fmt: skip
    """One result for each metric that all rounds of ours and of the reference have."""
    found = []
    for (request, metric), sides in values.items():
        whole = {
            side: [value / row.divisor for value in column]
            for side, column in sides.items()
            if len(column) == rounds
        }
        if not whole.keys() >= {rows.OURS, row.reference}:
            continue
        ours = whole[rows.OURS]
        compare = paired.differences if row.difference else paired.ratios
        goal = row.goals.get(f"{metric}@{request}" if request else metric)
        found.append(
            {
                "group": row.group,
                "case": row.case,
                "metric": metric,
                "at": request or row.at,
                "file": row.file and described(row.file()),
                "unit": rows.UNITS.get(metric, "ns"),
                "rounds": rounds,
                "reference": row.reference,
                "comparison": "difference" if row.difference else "ratio",
                "at_most": goal and goal.at_most,
                "stretch": goal and goal.stretch,
                "sides": {side: asdict(paired.spread(column)) for side, column in whole.items()},
                "to": {
                    side: asdict(compare(ours, column))
                    for side, column in whole.items()
                    if side != rows.OURS
                },
            }
        )
    return found


def described(path: Path) -> str:
    """A file's name and size."""
    return f"{path.name}, {path.stat().st_size / 2**20:.0f} MB"


def measure(row: rows.Row, commands: Mapping[str, Command]) -> tuple[list[Result], dict[str, str]]:
    """The results of a row, and why a side has none; a failure of ours or of libc's begins so."""
    processes = row.rounds if row.fresh else min(row.processes, row.rounds)
    each = -(-row.rounds // processes)
    samples = take_turns(commands, row.rounds, processes=processes, requests=row.requests)
    why = samples.not_done | {side: f"failed: {reason}" for side, reason in samples.failed.items()}
    return results_of(row, samples.values, processes * each), why


def figure(value: float, unit: str) -> str:
    """Three digits that count, and the unit."""
    if unit == "bytes":
        return f"{value / 1024:.1f} KB"
    if unit == "mappings":
        return f"{value:.1f}"
    for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns")):
        if abs(value) >= size or size == 1:
            return f"{value / size:#.3g}".rstrip(".") + f" {name}"
    raise AssertionError


def line(result: Result) -> str:
    """A result in a line for people."""
    at = f" {result['at']}" if result["at"] is not None else ""
    name = f"  {result['case']}{at}: {result['metric']}"
    sides = ", ".join(
        f"{side} {figure(spread['median'], result['unit'])}"
        for side, spread in result["sides"].items()
    )
    compared = result["to"][result["reference"]]
    if result["comparison"] == "difference":
        shown = [figure(compared[key], result["unit"]) for key in ("median", "low", "high")]
    else:
        shown = [f"{compared[key]:.3f}" for key in ("median", "low", "high")]
    goal = ""
    if result["at_most"] is not None:
        met = "met" if compared["median"] <= result["at_most"] else "missed"
        goal = f"  {met}"
    return f"{name:58} {shown[0]:>8}  {shown[1]} … {shown[2]}{goal}   {sides}"


def main() -> None:
    """Measure, print each row when it is done, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="all rows, and more rounds")
    parser.add_argument("--only", default="", help="rows whose group and case match")
    parser.add_argument("--rounds", type=int, help="instead of each row's own")
    parser.add_argument("--json", type=Path, help="by default in build/benchmarks")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    chosen = [
        row
        for row in rows.chosen(arguments.full, arguments.rounds)
        if re.search(arguments.only, f"{row.group}: {row.case}")
    ]
    if not chosen:
        parser.error(f"no row matches {arguments.only}")
    report: dict[str, Any] = {
        "run": "full" if arguments.full else "quick",
        "only": arguments.only,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.described(),
        "without_peers": peers.built()[1],
        "results": [],
        "missing": [],
    }
    if report["without_peers"]:
        print(f"without other loaders: {report['without_peers']}")
    path = arguments.json or libraries.BUILD / f"{report['run']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    group, failed = "", False
    for row in chosen:
        if row.group != group:
            group = row.group
            print(group, flush=True)
        try:
            results, why = measure(row, row.commands())
        except libraries.MissingError as error:
            results, why = [], {"all": str(error)}
        for result in results:
            print(line(result), flush=True)
        for side, reason in why.items():
            at = f" {row.at}" if row.at is not None else ""
            print(f"  {row.case}{at}: {side}: {reason}", flush=True)
            failed |= side in (rows.OURS, row.reference) and reason.startswith("failed")
        report["results"] += results
        report["missing"] += [
            {"group": row.group, "case": row.case, "at": row.at, "side": side, "why": reason}
            for side, reason in why.items()
        ]
        # After each row: a run takes long, and may be ended.
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(f"also in {path}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
