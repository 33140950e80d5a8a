"""The statistics and the turns of the benchmarks, with values and workers that are known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.fixtures import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import paired
import turns

if TYPE_CHECKING:
    from collections.abc import Callable

WORKER = """
import sys
log, name, task = sys.argv[1:]
if task == "never":
    sys.exit(77)
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    if task == "ends" and number == 2:
        print("broken", file=sys.stderr)
        sys.exit(3)
    if task == "stops" and number == 2:
        print("no more", file=sys.stderr)
        sys.exit(77)
    with open(log, "a") as file:
        file.write(name)
    print("took", 10 * int(line) + number, flush=True)
"""


# Ranks as tables of the sign test have them, for 95 %.
@pytest.mark.parametrize(
    ("count", "lowest", "highest"),
    [(1, 1, 1), (5, 1, 5), (6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15), (30, 10, 21)],
)
def test_interval_of_the_median(count: int, lowest: int, highest: int) -> None:
    values = list(range(count, 0, -1))
    assert paired.interval(values) == (lowest, highest)


def test_what_slows_a_round_slows_both() -> None:
    theirs = [10.0, 100.0, 20.0, 1000.0]
    found = paired.ratios([2 * value for value in theirs], theirs)
    assert found == paired.Spread(2, 2, 2, 2, 2)


def test_differences_are_of_one_round() -> None:
    assert paired.differences([5, 7, 100], [1, 3, 96]).high == 4


@pytest.fixture
def commands(tmp_path: Path) -> Callable[..., dict[str, turns.Command]]:
    def made(**tasks: str) -> dict[str, turns.Command]:
        log = str(tmp_path / "log")
        return {
            name: turns.Command([sys.executable, "-c", WORKER, log, name, task])
            for name, task in tasks.items()
        }

    return made


def test_turns_change(tmp_path: Path, commands: Callable[..., dict[str, turns.Command]]) -> None:
    found = turns.take_turns(commands(a="works", b="works"), 4)
    assert (tmp_path / "log").read_text() in {"abbaabba", "baabbaab"}
    assert found.values[0, "took"] == {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}
    assert not found.failed
    assert not found.not_done


def test_each_process_has_its_share(commands: Callable[..., dict[str, turns.Command]]) -> None:
    found = turns.take_turns(commands(a="works"), 5, processes=3, requests=(1, 2))
    assert found.values[1, "took"] == {"a": [10, 11, 10, 11, 10, 11]}
    assert found.values[2, "took"] == {"a": [22, 23, 22, 23, 22, 23]}


def test_who_ends_says_why(commands: Callable[..., dict[str, turns.Command]]) -> None:
    sides = commands(a="works", b="never", c="ends", d="stops")
    found = turns.take_turns(sides, 4)
    assert found.values[0, "took"]["a"] == [0, 1, 2, 3]
    assert found.values[0, "took"]["c"] == found.values[0, "took"]["d"] == [0, 1]
    assert found.failed == {"c": "ended with status 3: broken"}
    assert found.not_done == {"b": "without a word", "d": "no more"}
