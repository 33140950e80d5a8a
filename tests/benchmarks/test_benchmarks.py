"""`make bench` in small: rows give figures, and what cannot be measured says why."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.fixtures import REPOSITORY, compile_library, run, run_python

BENCHMARKS = REPOSITORY / "benchmarks"


def run_benchmark(folder: Path, only: str, rounds: int = 2) -> tuple[list[dict[str, object]], str]:
    """Its results, and what it prints."""
    output = folder / "results.json"
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--only", only]
    done = run(
        [*command, "--rounds", str(rounds), "--json", str(output)],
        env={"DLOPEN_BENCH_WITHOUT_PEERS": "1"},  # they would be fetched
    )
    report = json.loads(output.read_text())
    assert report["without_peers"] in done.stdout
    assert report["machine"]["libc"]
    return report["results"], done.stdout


# One row for each task of the workers.
@pytest.mark.cxx
@pytest.mark.parametrize(
    ("only", "metrics"),
    [
        ("Open and close: tiny C", {"open", "close", "open+close"}),
        ("In the arena: tiny C", {"open", "close", "open+close"}),
        ("First open of a process: tiny C, preloaded", {"open"}),
        ("From bytes: tiny C", {"open+close"}),
        ("Chained libraries: one", {"open", "close"}),
        ("Chained libraries: the last", {"open", "close"}),
        ("dlsym: zlib", {"hit", "miss"}),
        ("RTLD_DEFAULT", {"lookup"}),
        ("dl_iterate_phdr", {"iteration"}),
        ("dladdr", {"dladdr"}),
        ("Throw and catch: through frames of a library", {"throw"}),
        ("Threads: all is held", {"operation"}),
        ("Threads: a library", {"load"}),
        ("Threads: one library", {"all-open"}),
        ("Threads: four", {"operation", "constructor-run"}),
        ("Python: tiny", {"open", "close", "open+close", "first-attribute", "call"}),
        ("Python: import", {"import"}),
        ("Preload", {"start"}),
        ("Memory", {"anonymous", "mappings"}),
    ],
)
def test_a_row_has_its_metrics(tmp_path: Path, only: str, metrics: set[str]) -> None:
    results, printed = run_benchmark(tmp_path, only)
    assert {result["metric"] for result in results} == metrics
    for result in results:
        sides, to = result["sides"], result["to"]
        assert isinstance(sides, dict)
        assert isinstance(to, dict)
        assert {"dlopen", result["reference"]} <= sides.keys()
        assert to.keys() == sides.keys() - {"dlopen"}
        for spread in (*sides.values(), *to.values()):
            assert spread["low"] <= spread["median"] <= spread["high"]
        assert all(spread["low"] > 0 for spread in sides.values())
        assert f": {result['metric']} " in printed


def test_a_place_on_a_curve_is_one_request(tmp_path: Path) -> None:
    results, _ = run_benchmark(tmp_path, "One more library: LOCAL", rounds=1)
    assert {result["at"] for result in results} == {100, 250, 500, 1000}


@pytest.mark.parametrize("arguments", [["--only", "nothing like it"], ["--rounds", "0"]])
def test_a_wrong_argument_is_an_error(arguments: list[str]) -> None:
    done = run([sys.executable, BENCHMARKS / "run.py", *arguments], check=False)
    assert done.returncode == 2


def test_a_library_that_stays_loaded_is_an_error(tmp_path: Path) -> None:
    """Opening it again would be a lookup, and quick."""
    library = compile_library(tmp_path, "libstays.so", "int i;", flags=["-Wl,-z,nodelete"])
    done = in_benchmarks(
        "import turns, rows\n"
        "commands = rows.sides('opening.c', 'open', sys.argv[2])\n"
        "print(turns.take_turns(commands, 1).failed)\n",
        str(library),
    )
    assert done.count("is loaded") == 2


def in_benchmarks(code: str, *arguments: str) -> str:
    """What the code prints, which may import the modules of the benchmarks."""
    start = "import sys\nsys.path.insert(0, sys.argv[1])\n"
    environment = {"DLOPEN_BENCH_WITHOUT_PEERS": "1"}
    return run_python(start + code, str(BENCHMARKS), *arguments, env=environment).stdout


@pytest.mark.parametrize("chained", [False, True])
def test_a_renamed_copy_is_what_a_compiler_makes(tmp_path: Path, chained: bool) -> None:
    code = """
import libraries
from pathlib import Path
folder = Path(sys.argv[2])
before = libraries.template(folder, "88888")
needs = [before] if sys.argv[3] == "True" else []
template = libraries.template(folder, "99999", *needs)
compiled = libraries.template(folder, "88889", *needs)
copy = libraries.renamed(template, {b"copy99999": b"copy88889"}, b"copy88889")
assert copy == compiled.read_bytes()
print("equal")
"""
    assert in_benchmarks(code, str(tmp_path), str(chained)) == "equal\n"
