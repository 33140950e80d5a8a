"""Fuzz the linker with libFuzzer: each target of fuzz.c for some time; a table of what came of it.

The library and the program are built by clang with AddressSanitizer, UBSan and the counters of
libFuzzer, in build/fuzz.  What a target has found interesting is kept in build/fuzz/corpus, and is
where the next run begins, beside what seeds.py makes.  An input that fails is kept in
build/fuzz/failed; its line holds the command that repeats it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from fuzz import seeds  # noqa: E402

BUILD = REPOSITORY / "build" / "fuzz"
TARGETS = ("map", "relocate", "steps", "lookups", "cache", "files")
MOST_FAILURES = 10  # of one target: there is work enough then
SANITIZE = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]
# What one input may take; a machine may be busy.
LIMITS = ["-timeout=60", "-rss_limit_mb=3072"]


class Result(NamedTuple):
    """Of one target."""

    target: str
    executions: int
    edges: int
    failures: list[str]


def find_clang() -> str:
    """The newest one, or CLANG."""
    names = [os.environ.get("CLANG"), "clang", *(f"clang-{n}" for n in range(30, 13, -1))]
    for name in filter(None, names):
        if path := shutil.which(name):
            return path
    sys.exit("make fuzz needs clang and its runtime: apt-get install clang libclang-rt-dev")


def build(clang: str) -> Path:
    """The program, linked to a libdlopen.so of its own."""
    subprocess.run(
        [sys.executable, "tools/install.py", "fuzz"],
        cwd=REPOSITORY,
        env={**os.environ, "CC": clang},
        check=True,
    )
    library = BUILD / "site" / "dlopen" / "_lib"
    program = BUILD / "fuzz"
    command = [clang, "-std=gnu17", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZE]
    command += [f"-I{REPOSITORY / 'src' / 'dlopen' / 'include'}", str(HERE / "fuzz.c")]
    command += [str(library / "libdlopen.so"), f"-Wl,-rpath,{library}", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def environment(target: str, clang: str) -> dict[str, str]:
    """Of one run; the sanitizers' reports name functions if clang's symbolizer is there."""
    folder = Path(clang).resolve().parent
    symbolizer = folder / "llvm-symbolizer"
    extra = {"ASAN_SYMBOLIZER_PATH": str(symbolizer)} if symbolizer.exists() else {}
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("LD_")},
        **extra,
        "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:quarantine_size_mb=16",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "DLOPEN_FUZZ": target,
    }


def fuzz(target: str, seconds: float, program: Path, clang: str) -> Result:
    """Until the time is over: a failure ends a process, and the next goes on."""
    corpus, failed = BUILD / "corpus" / target, BUILD / "failed"
    for folder in (corpus, failed):
        folder.mkdir(parents=True, exist_ok=True)
    log = BUILD / f"{target}.log"
    executions = edges = 0
    failures: list[str] = []
    end = time.monotonic() + seconds
    with log.open("w") as output:
        while (left := end - time.monotonic()) > 1 and len(failures) < MOST_FAILURES:
            start = log.stat().st_size
            done = subprocess.run(
                [
                    *(str(program), *LIMITS, "-print_final_stats=1", "-reload=0"),
                    *(f"-max_total_time={int(left)}", f"-artifact_prefix={failed}/{target}-"),
                    *(str(corpus), str(BUILD / "seeds" / seeds.folder_of(target))),
                ],
                env=environment(target, clang),
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            with log.open(errors="backslashreplace") as file:
                file.seek(start)
                said = file.read()
            executions += last_number(r"stat::number_of_executed_units: +(\d+)", said)
            edges = max(edges, last_number(r"\bcov: (\d+)", said))
            if done.returncode:
                failures.append(describe(target, said, done.returncode, program))
            elif not last_number(r"stat::number_of_executed_units: +(\d+)", said):
                failures.append(f"{target}: nothing was run: see {log}")
    return Result(target, executions, edges, failures)


def last_number(pattern: str, text: str) -> int:
    return int((re.findall(pattern, text) or ["0"])[-1])


def describe(target: str, said: str, status: int, program: Path) -> str:
    """One line: what it is, and how to see it again."""
    reasons = re.findall(r"^WRONG: .*|runtime error: .*|^SUMMARY: .*|ERROR: .*", said, re.MULTILINE)
    files = re.findall(r"Test unit written to (.*)", said)
    again = "" if not files else f"; again: DLOPEN_FUZZ={target} {program} {shlex.quote(files[-1])}"
    return f"{target}: {(reasons or [f'status {status}'])[0]}{again}"


def main() -> int:
    """The exit status: 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each target (60)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at a time")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    clang = find_clang()
    program = build(clang)
    shutil.rmtree(BUILD / "seeds", ignore_errors=True)
    seeds.write(BUILD / "seeds")
    print(f"{len(targets)} targets, {arguments.seconds:g} s each", flush=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda one: fuzz(one, arguments.seconds, program, clang), targets))
    print(f"{'target':<10} {'executions':>12} {'edges':>7} {'crashes':>8}")
    for result in results:
        print(
            f"{result.target:<10} {result.executions:>12,} {result.edges:>7,}"
            f" {len(result.failures):>8}"
        )
    failures = [line for result in results for line in result.failures]
    print("\n".join(failures), end="\n" if failures else "")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
