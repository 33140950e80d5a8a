"""Why an open costs what it costs: system calls, page faults, time, and where the time goes.

    explain.py [--case NAME]... [--rounds N] [--perf]

Each side opens and closes the case's library alone, in a process of its own.  System calls come
from strace (the difference between some rounds and one), time and faults from wait4(2), the symbols
of --perf from perf(1).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import libraries
import rows
from turns import Command

OPENS = 16  # in a round of workers/opening.c


def need(tool: str) -> str:
    """The path of a program; without it there is no explanation."""
    path = shutil.which(tool)
    if path is None:
        raise SystemExit(f"{tool} is not installed")
    return path


def run(command: Sequence[str], rounds: int = 0) -> str:
    """Its standard output, of a worker with so many rounds; a failure ends the program."""
    done = subprocess.run(
        command, input="0\n" * rounds, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    return done.stdout


def used(command: Command, rounds: int) -> tuple[float, int]:
    """Seconds of CPU time, and page faults, of a worker with so many rounds."""
    with tempfile.TemporaryFile() as requests:
        requests.write(b"0\n" * rounds)
        requests.seek(0)
        process = subprocess.Popen(command.arguments, stdin=requests, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    return usage.ru_utime + usage.ru_stime, usage.ru_minflt


def system_calls(command: Command) -> Counter[str]:
    """How often each is called for one open and close."""
    rounds, counts = 4, []
    for number in (1, 1 + rounds):
        with tempfile.NamedTemporaryFile("r") as output:
            run([need("strace"), "-f", "-c", "-o", output.name, *command.arguments], number)
            found = re.findall(
                r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) (?:.* )?(\w+)$", output.read(), re.MULTILINE
            )
        counts.append(Counter({name: int(count) for count, name in found if name != "total"}))
    counts[1].subtract(counts[0])
    per = rounds * OPENS
    return Counter({name: round(n / per) for name, n in counts[1].items() if n >= per})


def symbols(command: Command, rounds: int) -> str:
    """The most frequent symbols, kernel and user, of one side."""
    with tempfile.TemporaryDirectory() as scratch:
        data = str(Path(scratch, "perf.data"))
        record = [need("perf"), "record", "-q", "-F", "5000", "-o", data]
        run([*record, *command.arguments], rounds)
        report = [need("perf"), "report", "-q", "--stdio", "-i", data]
        text = run([*report, "--sort", "dso,symbol", "--percent-limit", "1"])
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
            before, after = (used(commands[side], rounds) for rounds in (0, arguments.rounds))
            took, faults = (
                (late - early) / arguments.rounds / OPENS
                for early, late in zip(before, after, strict=True)
            )
            print(f"  {side:6} {took * 1e6:.1f} µs of CPU time, {faults:.1f} page faults")
            calls = system_calls(commands[side])
            listed = ", ".join(f"{name} {count}" for name, count in calls.most_common())
            print(f"         {calls.total()} system calls: {listed}")
            if arguments.perf:
                print(symbols(commands[side], 5 * arguments.rounds))


if __name__ == "__main__":
    main()
