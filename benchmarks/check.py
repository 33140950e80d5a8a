"""Has it become slower?  By counts that no neighbour disturbs, against those in limits.json.

    check.py [--renew] [--only REGEX]

Instructions (callgrind), system calls (strace), page faults, memory and mappings of one operation.
A count that is SLACK times its limit or more is a failure: compilers differ by less, and
what has become half as slow again by more.  --renew writes what is found as the limits.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import counts
import libraries
import peers
import rows
from turns import Command

LIMITS = Path(__file__).with_name("limits.json")
SLACK = 1.3
BATCH = 16  # operations in a round: workers/side.h, and one before
INSTRUCTIONS, CALLS, FAULTS = "instructions", "system calls", "page faults"
ALL = (INSTRUCTIONS, CALLS, FAULTS)


@dataclass(frozen=True)
class Check:
    """What is counted of one row, between two lists of rounds."""

    commands: Callable[[], Mapping[str, Command]]
    counted: Sequence[str] = ALL
    operations: int = BATCH  # in a round
    before: Sequence[int] = (0,)
    rounds: Sequence[int] = (0, 0)
    whole: bool = False  # instructions of the process, less those before


def once(made: Callable[[], Mapping[str, Command]]) -> Check:
    """What happens once in a process."""
    return Check(made, operations=1, before=(), rounds=(0,))


def one_more(mode: str, most: int) -> Check:
    """So many libraries, one more at a time."""
    made = partial(rows.one_more, most, mode)
    return Check(made, [INSTRUCTIONS], operations=most + BATCH, before=(), rounds=(most,))


def counting() -> dict[str, Command]:
    """What is open already."""
    return rows.sides("opening.c", "counting", libraries.tiny())


def question(task: str, count: int = 100) -> Check:
    """What is asked of so many libraries."""
    passes = 15 * 200
    return Check(partial(rows.beside, "lookups.c", task, count), [INSTRUCTIONS], passes)


def preload() -> dict[str, Command]:
    """A program that does nothing, with ours preloaded."""
    command = rows.startup()[rows.OURS]
    variable, _, value = command.arguments[-1].partition("=")
    return {rows.OURS: Command(["/bin/true"], {variable: value})}


CHECKS: dict[str, Check] = {
    **{
        f"open and close: {name}": Check(rows.SMALL[name])
        for name in ("tiny C", "chain of three", "C++", "zlib", "sqlite3")
    },
    "in the arena: tiny C": Check(rows.ARENA["tiny C"], [INSTRUCTIONS, CALLS]),
    "counting": Check(counting, [INSTRUCTIONS, CALLS]),
    "first open, preloaded": once(
        partial(rows.preloaded, partial(rows.opening_worker, "first", libraries.tiny))
    ),
    "first open, brought in late": once(partial(rows.opening_worker, "first", libraries.tiny)),
    "first open beside the host's libraries": once(rows.beside_host_libraries),
    **{
        f"{most} libraries, {mode}": one_more(mode, most)
        for mode in ("local", "global")
        for most in (100, 500)
    },
    "chain of 100": Check(partial(rows.whole_chain, 100), [INSTRUCTIONS], 100, (), (0,)),
    "binding beside 100": Check(partial(rows.bind, 100), [INSTRUCTIONS], BATCH * 1000),
    "from bytes: zlib": Check(partial(rows.opening_worker, "bytes", rows.system("libz.so.1"))),
    "dlsym of all names of zlib": Check(
        partial(rows.symbols, "libz.so.1"), [INSTRUCTIONS], operations=15
    ),
    "RTLD_DEFAULT": question("default"),
    "dl_iterate_phdr": question("iterate"),
    "dladdr": question("address"),
    "throw": Check(partial(rows.throwing, "image", 100), [INSTRUCTIONS], 15 * (1000 // 15)),
    "Python: import": Check(rows.importing, [INSTRUCTIONS], 1, (), (0,), whole=True),
    "Python: open, attribute, call, close": Check(
        partial(rows.python_life, libraries.tiny, "answer"), [INSTRUCTIONS], BATCH, whole=True
    ),
    "preload of /bin/true": Check(preload, [INSTRUCTIONS, FAULTS], 1, (), (), whole=True),
}


def instructions(check: Check, command: Command) -> float:
    """For one operation: of the last rounds, or of the process less what is before them."""
    if not check.whole:
        return counts.instructions(command, check.rounds) / len(check.rounds)
    late = counts.instructions(command, check.rounds, whole=True)
    early = counts.instructions(command, check.before, whole=True) if check.rounds else 0
    return late - early


def faults(command: Command, rounds: Sequence[int]) -> int:
    """Those of a process; where its stack begins differs by some."""
    return min(counts.used(command, rounds)[1] for _ in range(3))


def measure(check: Check) -> dict[str, float]:
    """Each count of one operation."""
    command = check.commands()[rows.OURS]
    found = {}
    if INSTRUCTIONS in check.counted:
        found[INSTRUCTIONS] = instructions(check, command) / check.operations
    if CALLS in check.counted:
        before, after = (
            counts.system_calls(command, rounds).total() for rounds in (check.before, check.rounds)
        )
        found[CALLS] = (after - before) / check.operations
    if FAULTS in check.counted:
        before = faults(command, check.before) if check.rounds else 0
        found[FAULTS] = (faults(command, check.rounds) - before) / check.operations
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def memory() -> dict[str, float]:
    """Of one more small library."""
    words = counts.run(rows.memory()[rows.OURS], requests=(0,)).split()
    return {words[i]: float(words[i + 1]) for i in range(1, len(words), 2)}


def exceeded(found: Mapping[str, Mapping[str, float]], limits: Mapping[str, Mapping[str, float]]
             ) -> list[str]:  # fmt: skip
    """A line for each count that is SLACK times its limit, or that has none."""
    lines = []
    for name, values in found.items():
        for count, value in values.items():
            limit = limits.get(name, {}).get(count)
            if limit is None:
                lines.append(f"{name}: {count}: {value:g}, and there is no limit")
            elif value > SLACK * limit:
                lines.append(f"{name}: {count}: {value:g} instead of {limit:g}")
    return lines


def main() -> None:
    """Count, compare, and say what has become worse; or write the limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--renew", action="store_true", help="what is found is the limit")
    parser.add_argument("--only", default="", help="checks whose names match")
    arguments = parser.parse_args()
    os.environ[peers.WITHOUT] = "1"
    chosen = {name: check for name, check in CHECKS.items() if re.search(arguments.only, name)}
    # Fixtures are made before anything runs beside something else.
    for check in chosen.values():
        check.commands()
    found = {}
    with ThreadPoolExecutor(2) as pool:
        for name, values in zip(chosen, pool.map(measure, chosen.values()), strict=True):
            found[name] = values
            print(f"{name}:", ", ".join(f"{key} {value:g}" for key, value in values.items()))
    if re.search(arguments.only, "memory"):
        found["memory"] = memory()
        print("memory of one more library:", found["memory"])
    limits = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    if arguments.renew:
        kept = limits if arguments.only else {}
        LIMITS.write_text(json.dumps(kept | found, indent=1, sort_keys=True) + "\n")
        print(f"written to {LIMITS.name}")
        return
    lines = exceeded(found, limits)
    print("\n".join(["slower than it was:", *lines]) if lines else "none has become slower")
    better = [
        f"{name}: {count}"
        for name, values in found.items()
        for count, value in values.items()
        if SLACK * value < limits.get(name, {}).get(count, 0)
    ]
    if better:
        print("better than its limit, which --renew would lower:", "; ".join(better))
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
