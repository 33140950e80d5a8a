"""Against glibc and ctypes: opening, closing, looking up, iterating; interleaved, as paired ratios.

    run.py [--case NAME]... [--rounds N] [--json PATH]

A ratio is the median over rounds of (ours / theirs) in that round, below 1 where we are quicker,
with its quartiles; for the host's throws, with our images in the process over without; for a
preload, what ours adds to a program's start over what a library of the same size adds.  Where libc
has nothing alike there is a time and no ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import cases

LIBRARIES = (10, 100)  # loaded while iterating
THROWN_BESIDE = 200  # loaded while the host throws


@dataclass
class Result:
    """Medians in nanoseconds; `peer` and the ratios are None where there is no peer."""

    case: str
    face: str
    metric: str
    rounds: int
    peer: float | None
    ours: float
    ratio: float | None = None
    lower_quartile: float | None = None
    upper_quartile: float | None = None


def worker(face: str, case: str, command: list[str]) -> list[Result]:
    """Run one worker; its pairs as results.  A worker that fails ends the benchmark."""
    print(f"  {face} {case} …", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    samples: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in done.stdout.splitlines():
        metric, theirs, ours = line.split()
        samples[metric].append((theirs, ours))
    if not samples:
        raise SystemExit(f"{' '.join(command)}\nmeasured nothing")
    results = []
    for metric, pairs in samples.items():
        mine = [float(pair[1]) for pair in pairs]
        peers = [float(pair[0]) for pair in pairs if pair[0] != "-"]
        result = Result(case, face, metric, len(pairs), None, statistics.median(mine))
        if peers:
            ratios = [one / other for one, other in zip(mine, peers, strict=True)]
            result.lower_quartile, result.ratio, result.upper_quartile = statistics.quantiles(
                ratios, n=4
            )
            result.peer = statistics.median(peers)
        results.append(result)
    return results


def measure(names: list[str], rounds: int | None) -> list[Result]:
    """All faces of all cases."""
    native = [str(cases.native()), str(cases.libdlopen())]
    python = [sys.executable, str(Path(__file__).with_name("python_face.py"))]
    results = []
    for name in names:
        case = cases.CASES[name]()
        count, path = str(rounds or case.rounds), str(case.path)
        c = [*native, *cases.loaded_first(case)]
        results += worker("C", name, [*c, "open", count, path])
        results += worker("C", name, [*c, "special", count, path])
        symbols = cases.exports(case.path)
        results += worker("C", name, [*c, "lookup", count, path, *symbols])
        results += worker("Python", name, [*python, count, path, case.function, *case.loaded])
    for size in LIBRARIES:
        copies = [str(path) for path in cases.copies(size)]
        command = [*native, "iterate", str(rounds or 200), *copies]
        results += worker("C", f"iterate {size}", command)
    command = [str(cases.startup()), str(rounds or 40), str(cases.preloads())]
    command += ["libempty.so", "libdlopen.so", "/bin/true"]
    results += worker("preload", "/bin/true", command)
    beside = [str(path) for path in cases.copies(THROWN_BESIDE)]
    command = [str(cases.throws()), str(cases.libdlopen()), str(rounds or 200), *beside]
    results += worker("C++", f"host's throws beside {THROWN_BESIDE}", command)
    return results


def table(results: list[Result]) -> str:
    """The results in columns, microseconds."""
    head = ("case", "face", "metric", "theirs µs", "ours µs", "ratio", "quartiles", "rounds")
    rows = [head]
    for r in results:
        ratio = "-" if r.ratio is None else f"{r.ratio:.3f}"
        spread = "-" if r.ratio is None else f"{r.lower_quartile:.3f} … {r.upper_quartile:.3f}"
        peer = "-" if r.peer is None else f"{r.peer / 1e3:.3f}"
        ours = f"{r.ours / 1e3:.3f}"
        rows.append((r.case, r.face, r.metric, peer, ours, ratio, spread, str(r.rounds)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def environment() -> dict[str, str | int]:
    """What the figures depend on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cpus": os.cpu_count() or 0,
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=cases.CASES, help="all by default")
    parser.add_argument("--rounds", type=int, help="instead of each case's own")
    parser.add_argument("--json", type=Path, default=cases.BUILD / "results.json")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 2:
        parser.error("--rounds must be at least 2")
    results = measure(arguments.case or list(cases.CASES), arguments.rounds)
    print(table(results))
    report = {"environment": environment(), "results": [asdict(result) for result in results]}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(f"\nalso in {arguments.json}")


if __name__ == "__main__":
    main()
