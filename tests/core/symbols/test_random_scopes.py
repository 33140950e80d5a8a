"""Scopes made at random: what each reference and each dlsym finds in them is what glibc finds.

The names are defined again and again, and hash tables can hardly tell them apart: a chain word of
DT_GNU_HASH is the hash of a name without its lowest bit. Of these names three have the same word,
and two of them the same hash.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from core.steps import Steps


def _gnu_hash(name: str) -> int:
    value = 5381
    for letter in name.encode():
        value = (value * 33 + letter) & 0xFFFFFFFF
    return value


def _names(count: int) -> list[str]:
    names: list[str] = []
    number = 0
    while len(names) < count:
        base = f"name_{number}_"
        number += 1
        alike = [base + end for end in ("aa", "ab", "bA")]
        if len({_gnu_hash(name) >> 1 for name in alike}) == 1:
            names += alike
    return names


_NAMES = _names(18)
_HASH_STYLES = ["gnu", "gnu", "both", "sysv"]


def test_the_names_are_alike() -> None:
    assert len({_gnu_hash(name) >> 1 for name in _NAMES}) == len(_NAMES) // 3
    assert len({_gnu_hash(name) for name in _NAMES}) == len(_NAMES) // 3 * 2


def _source(chance: random.Random, number: int, defined: list[str], called: str) -> str:
    """C: defines some names, and a function that says what each is, called or pointed to."""
    lines = ["#include <stdio.h>"]
    for name in _NAMES:
        weak = "__attribute__((weak)) " if name not in defined or chance.random() < 0.3 else ""
        lines.append(f"{weak}int {name}(void);")
        lines.append(f"static int (*volatile pointer_{name})(void) = {name};")
        if name in defined:
            value = number * 100 + _NAMES.index(name)
            lines.append(f"int {name}(void) {{ return {value}; }}")
    lines.append(f"int {called}(void) {{")
    lines.extend(
        f'  dprintf(1, "{called} {name} %d %d\\n", {name} ? {name}() : -1,'
        f" pointer_{name} ? pointer_{name}() : -1);"
        for name in _NAMES
    )
    lines.append("  return 0; }")
    return "\n".join(lines)


def _libraries(
    steps: Steps, chance: random.Random, count: int, most_needs: int = 6
) -> tuple[list[Path], list[str]]:
    made: list[Path] = []
    called: list[str] = []
    for number in range(count):
        defined = chance.sample(_NAMES, chance.randrange(0, len(_NAMES) // 2))
        flags = [f"-Wl,--hash-style={chance.choice(_HASH_STYLES)}", "-fno-inline"]
        flags += ["-Wl,-Bsymbolic"] if chance.random() < 0.15 else []
        if chance.random() < 0.4:
            script = steps.directory / f"{number}.map"
            first = chance.sample(defined, len(defined) // 2)
            script.write_text(
                f"V1 {{ {' '.join(f'{name};' for name in first) or 'nothing;'} }};\nV2 {{ *; }};\n"
            )
            flags.append(f"-Wl,--version-script={script}")
        called.append(f"see_{number}")
        made.append(
            steps.library(
                f"random{number}",
                _source(chance, number, defined, called[-1]),
                *flags,
                needs=chance.sample(made, min(len(made), chance.randrange(most_needs + 1))),
            )
        )
    return made, called


@pytest.mark.parametrize("seed", range(6))
def test_what_is_found_is_what_glibc_finds(steps: Steps, seed: int) -> None:
    chance = random.Random(seed)
    made, called = _libraries(steps, chance, 14)
    order = chance.sample(range(len(made)), len(made))
    asked: list[str] = []
    for place, number in enumerate(order):
        mode = chance.choice(["n", "n", "ng", "l", "lg", "nd"])
        asked.append(f"open:./{made[number].name}:{mode}")
        asked.append(f"call:{place}:{called[number]}")
        for name in chance.sample(_NAMES, 4):
            asked.append(f"find:{place}:{name}")
            asked.append(f"find:{place}:{name}@{chance.choice(['V1', 'V2'])}")
    # The first ones again: calls that are bound late, when more is global than at their open, and
    # some that was has gone.
    gone = chance.sample(range(len(order)), 3)
    asked += [f"close:{place}" for place in gone]
    for place, number in enumerate(order):
        if place not in gone:
            asked.append(f"call:{place}:{called[number]}")
            asked += [f"find:{place}:{name}" for name in _NAMES]
    asked += [f"open:./{made[order[place]].name}:n" for place in gone]
    asked += [f"call:{len(order) + i}:{called[order[place]]}" for i, place in enumerate(gone)]
    steps.both(*asked)


@pytest.mark.parametrize("seed", range(4))
def test_while_globals_come_and_go(steps: Steps, seed: int) -> None:
    """Mostly the last ones go: what joins then stands where they have stood."""
    chance = random.Random(seed)
    for number in range(10):
        value = number * 100
        steps.library(
            f"global{number}",
            "\n".join(
                f"int {name}(void) {{ return {value + _NAMES.index(name)}; }}"
                for name in chance.sample(_NAMES, 5)
            ),
            f"-Wl,--hash-style={chance.choice(_HASH_STYLES)}",
        )
    steps.library("user", _source(chance, 99, [], "see"), "-fno-inline")
    asked: list[str] = []
    opened: list[tuple[int, int]] = []  # the handle, and which of them
    for handle in range(0, 60, 2):
        while len(opened) == 9 or (opened and chance.random() < 0.5):
            place = -1 if chance.random() < 0.7 else chance.randrange(len(opened))
            asked.append(f"close:{opened.pop(place)[0]}")
        number = chance.choice([n for n in range(10) if n not in {other for _, other in opened}])
        asked.append(f"open:./libglobal{number}.so:ng")
        opened.append((handle, number))
        asked += [f"open:./libuser.so:{chance.choice('nl')}", f"call:{handle + 1}:see"]
        asked.append(f"close:{handle + 1}")
    steps.both(*asked)


_MISSING = "\n".join(
    [
        *(f"__attribute__((weak)) void missing_{i}(void);" for i in range(4000)),
        "void (*missing[])(void) = {",
        *(f"  missing_{i}," for i in range(4000)),
        "};",
    ]
)


@pytest.mark.parametrize("seed", range(6))
def test_what_one_open_of_many_finds_is_what_glibc_finds(steps: Steps, seed: int) -> None:
    """All are new at once: their search list has an index from the start (symbols/index.pxd).

    Of the global scope, two of them in it, there is one when many names have been missing there.
    """
    chance = random.Random(100 + seed)
    made, called = _libraries(steps, chance, 16, most_needs=2)
    steps.library("missing", _MISSING)
    steps.library("all", "int all(void) { return 0; }", needs=chance.sample(made, len(made)))
    asked = [f"open:./{library.name}:nkg" for library in chance.sample(made, 2)]
    asked.append("open:./libmissing.so:n")
    asked.append(f"open:./liball.so:{['n', 'l', 'ng', 'nd', 'n', 'n'][seed]}")
    asked += [f"call:3:{name}" for name in called]
    asked += [f"find:3:{name}" for name in _NAMES]
    steps.both(*asked)
