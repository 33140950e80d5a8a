"""`make bench-check`: what has become half as slow again is seen."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from support.fixtures import REPOSITORY, missing, run

BENCHMARKS = REPOSITORY / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import check  # noqa: E402

LIMITS: dict[str, dict[str, float]] = json.loads((BENCHMARKS / "limits.json").read_text())
EVERY = [(name, count) for name, counts in LIMITS.items() for count in counts]


def test_each_check_has_limits() -> None:
    assert {name: set(values) for name, values in LIMITS.items()} == {
        **{name: set(one.counted) for name, one in check.CHECKS.items()},
        "memory": {"anonymous", "mappings"},
    }


@pytest.mark.parametrize(("name", "count"), EVERY)
def test_half_as_much_again_is_seen(name: str, count: str) -> None:
    value = LIMITS[name][count]
    for factor, seen in ((1.0, 0), (1.25, 0), (1.5, 1)):
        found = {name: {count: max(factor * value, value + (factor > 1.4))}}
        assert len(check.exceeded(found, LIMITS)) == seen


def test_what_has_no_limit_is_seen() -> None:
    (line,) = check.exceeded({"new": {"instructions": 1}}, LIMITS)
    assert "no limit" in line


def test_one_check_ends_well() -> None:
    for tool in ("valgrind", "strace"):
        if not shutil.which(tool):
            missing(f"{tool} is not installed")
    done = run([sys.executable, BENCHMARKS / "check.py", "--only", "^open and close: tiny C$"])
    assert "none has become slower" in done.stdout


def test_a_limit_of_two_thirds_is_a_failure(tmp_path: Path) -> None:
    """As if this tree did half as much again: in a copy of the benchmarks with lower limits."""
    for tool in ("valgrind", "strace"):
        if not shutil.which(tool):
            missing(f"{tool} is not installed")
    name = "open and close: tiny C"
    folder = tmp_path / "benchmarks"
    shutil.copytree(BENCHMARKS, folder, ignore=shutil.ignore_patterns("peers"))
    (tmp_path / "tests").symlink_to(REPOSITORY / "tests")
    lower = {count: value / 1.5 for count, value in LIMITS[name].items()}
    (folder / "limits.json").write_text(json.dumps({name: lower}))
    done = run([sys.executable, folder / "check.py", "--only", f"^{name}$"], check=False)
    assert done.returncode == 1
    assert all(f"{name}: {count}: " in done.stdout for count in lower)
