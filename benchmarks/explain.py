"""Why an open costs what it costs: system calls, page faults, time, and where the time goes.

    explain.py [--case NAME]... [--rounds N] [--perf]

Each side opens and closes the case's library alone, in a process of its own.  System calls come
from strace (the difference between some rounds and one), time and faults from wait4(2), the symbols
of --perf from perf(1).
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import counts
import libraries
import rows
from turns import Command

OPENS = 16  # in a round of workers/opening.c


def system_calls(command: Command) -> Counter[str]:
    """How often each is called for one open and close."""
    rounds = 4
    early, late = (counts.system_calls(command, [0] * number) for number in (1, 1 + rounds))
    late.subtract(early)
    per = rounds * OPENS
    return Counter({name: round(n / per) for name, n in late.items() if n >= per})


def symbols(command: Command, rounds: int) -> str:
    """The most frequent symbols, kernel and user, of one side."""
    with tempfile.TemporaryDirectory() as scratch:
        data = str(Path(scratch, "perf.data"))
        perf = counts.need("perf")
        counts.run(command, [perf, "record", "-q", "-F", "5000", "-o", data], [0] * rounds)
        report = [perf, "report", "-q", "--stdio", "-i", data, "--sort", "dso,symbol"]
        text = counts.run(Command([*report, "--percent-limit", "1"]))
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def main() -> None:
    """Print one paragraph a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=rows.SMALL, help="all by default")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--perf", action="store_true", help="symbols, too")
    arguments = parser.parse_args()
    for name in arguments.case or rows.SMALL:
        print(f"{name}: one open and close")
        try:
            commands = rows.SMALL[name]()
        except libraries.MissingError as error:
            print(f"  {error}")
            continue
        for side in (rows.LIBC, rows.OURS):
            command, rounds = commands[side], [0] * arguments.rounds
            before, after = (counts.used(command, number) for number in ([], rounds))
            took, faults = (
                (late - early) / arguments.rounds / OPENS
                for early, late in zip(before, after, strict=True)
            )
            print(f"  {side:6} {took * 1e6:.1f} µs of CPU time, {faults:.1f} page faults")
            calls = system_calls(command)
            listed = ", ".join(f"{name} {count}" for name, count in calls.most_common())
            print(f"         {calls.total()} system calls: {listed}")
            if arguments.perf:
                print(symbols(command, 5 * arguments.rounds))


if __name__ == "__main__":
    main()
