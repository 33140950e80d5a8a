"""`make bench` in small: each case and face gives figures; what cannot be measured is an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.fixtures import REPOSITORY, run, run_python

BENCHMARKS = REPOSITORY / "benchmarks"
WITHOUT_PEER = {"from-bytes", "private"}


@pytest.mark.cxx
def test_every_metric_has_a_ratio_or_no_peer_by_nature(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    done = run(
        [sys.executable, BENCHMARKS / "run.py", "--case", "tiny", "--rounds", "4", "--json", output]
    )
    report = json.loads(output.read_text())
    assert report["environment"]["libc"]
    metrics = set()
    for result in report["results"]:
        assert result["rounds"] == 4
        assert result["ours"] > 0
        if result["metric"] in WITHOUT_PEER:
            assert result["peer"] is result["ratio"] is None
        else:
            assert result["lower_quartile"] <= result["ratio"] <= result["upper_quartile"]
        metrics.add((result["face"], result["metric"]))
        assert result["metric"] in done.stdout
    both = {"open", "close", "open+close", "open-after-other"}
    assert metrics == {
        *(("C", name) for name in both | WITHOUT_PEER | {"hit", "miss", "an-image"}),
        *(("Python", name) for name in both | {"first-attribute", "call"}),
        ("C++", "throw"),
        ("preload", "added"),
    }


@pytest.mark.parametrize("arguments", [["--case", "none"], ["--rounds", "1"]])
def test_a_wrong_argument_is_an_error(arguments: list[str]) -> None:
    done = run([sys.executable, BENCHMARKS / "run.py", *arguments], check=False)
    assert done.returncode == 2


def test_a_library_that_stays_loaded_is_an_error(tmp_path: Path) -> None:
    """Opening it again would be a lookup, and quick."""
    done = run_python(CODE, str(BENCHMARKS), str(tmp_path))
    assert "is loaded" in done.stdout


CODE = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import cases
from support.fixtures import compile_library
library = compile_library(Path(sys.argv[2]), "libstays.so", "int i;", flags=["-Wl,-z,nodelete"])
command = [str(cases.native()), str(cases.libdlopen()), "open", "4", str(library)]
done = subprocess.run(command, capture_output=True, text=True)
assert done.returncode == 1, done
print(done.stderr)
"""
