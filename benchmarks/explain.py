"""Why an open costs what it costs: system calls, page faults, time, and where the time goes.

    explain.py [--case NAME]... [--rounds N] [--perf]

Each side opens and closes the case's library alone, in a process of its own.  System calls come
from strace (the difference between N rounds and none), times and faults from getrusage(2), the
symbols of --perf from perf(1).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import cases

SIDES = ("libc", "dlopen")


def need(tool: str) -> str:
    """The path of a program; without it there is no explanation."""
    path = shutil.which(tool)
    if path is None:
        raise SystemExit(f"{tool} is not installed")
    return path


def run(command: list[str]) -> str:
    """Its standard output; a failure ends the program."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    return done.stdout


def command_of(case: cases.Case, side: str, rounds: int) -> list[str]:
    """The native worker of one side."""
    start = [str(cases.native()), str(cases.libdlopen()), *cases.loaded_first(case)]
    return [*start, "alone", side, str(rounds), str(case.path)]


def system_calls(case: cases.Case, side: str) -> Counter[str]:
    """How often each is called for one open and close."""
    rounds, counts = 10, []
    for number in (0, rounds):
        with tempfile.NamedTemporaryFile("r") as output:
            run([need("strace"), "-f", "-c", "-o", output.name, *command_of(case, side, number)])
            found = re.findall(
                r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) (?:.* )?(\w+)$", output.read(), re.MULTILINE
            )
        counts.append(Counter({name: int(count) for count, name in found if name != "total"}))
    counts[1].subtract(counts[0])
    return Counter({name: round(n / rounds) for name, n in counts[1].items() if n >= rounds})


def symbols(case: cases.Case, side: str, rounds: int) -> str:
    """The most frequent symbols, kernel and user, of one side."""
    with tempfile.TemporaryDirectory() as scratch:
        data = str(Path(scratch, "perf.data"))
        record = [need("perf"), "record", "-q", "-F", "5000", "-o", data]
        run([*record, *command_of(case, side, rounds)])
        report = [need("perf"), "report", "-q", "--stdio", "-i", data]
        text = run([*report, "--sort", "dso,symbol", "--percent-limit", "1"])
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def main() -> None:
    """Print one paragraph a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=cases.CASES, help="all by default")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--perf", action="store_true", help="symbols, too")
    arguments = parser.parse_args()
    for name in arguments.case or cases.CASES:
        case = cases.CASES[name]()
        print(f"{name}: one open and close of {case.path.name}")
        for side in SIDES:
            figures = run(command_of(case, side, arguments.rounds)).split()
            calls = system_calls(case, side)
            print(f"  {side:6}", *map("=".join, zip(figures[::2], figures[1::2], strict=True)))
            listed = ", ".join(f"{name} {count}" for name, count in calls.most_common())
            print(f"         {calls.total()} system calls: {listed}")
            if arguments.perf:
                print(symbols(case, side, 5 * arguments.rounds))


if __name__ == "__main__":
    main()
