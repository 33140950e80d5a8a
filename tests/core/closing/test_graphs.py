"""What goes with a close: libraries that need each other at random, opened and closed at random."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from core.steps import Steps

LIBRARIES = 24
OPENS = 60
MODES = "ln"


def make(steps: Steps, rng: random.Random, circles: bool) -> list[str]:
    """Each needs up to three; without circles, of those before it."""
    names = [f"n{number:02}" for number in range(LIBRARIES)]
    paths = [steps.library(name, trace=True) for name in names]
    for number, name in enumerate(names):
        others = [*paths[:number], *(paths[number + 1 :] if circles else ())]
        needs = rng.sample(others, min(len(others), rng.choice([0, 1, 1, 2, 3])))
        steps.library(name, trace=True, needs=needs)
    return names


def walk(rng: random.Random, names: list[str]) -> list[str]:
    """Opens and closes; at the end all is closed."""
    found: list[str] = []
    opened: list[int] = []
    for handle in range(OPENS):
        found.append(f"open:./lib{rng.choice(names)}.so:{rng.choice(MODES)}")
        opened.append(handle)
        while opened and rng.random() < 0.45:
            found.append(f"close:{opened.pop(rng.randrange(len(opened)))}")
    rng.shuffle(opened)
    return found + [f"close:{handle}" for handle in opened]


def traced(steps: Steps, loader: str, walked: list[str]) -> list[list[str]]:
    """What comes and goes with each step, in its order."""
    groups: list[list[str]] = [[]]
    for line in steps.run(loader, *walked).stdout.splitlines():
        if line[0] in "+-":
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


@pytest.mark.parametrize("circles", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_as_under_glibc(steps: Steps, seed: int, circles: bool) -> None:
    rng = random.Random(seed)
    names = make(steps, rng, circles)
    walked = walk(rng, names)
    glibc = traced(steps, "glibc", walked)
    assert sum(line.startswith("-") for group in glibc for line in group) > LIBRARIES
    assert traced(steps, str(steps.libdlopen), walked) == glibc
