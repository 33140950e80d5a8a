"""Random orders of opening and closing libraries that refer to each other's names.

Everything is weak, protected, symbolic, versioned, global or deep-bound at random.  Each word, each
constructor's turn and what stays mapped must be as under glibc; destructors run in the same step as
there, a library's before those of what it needs.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from differential.compare import COMPARED_TYPES, compare, open_elf, run_driver
from differential.report import DRIVER
from support.fixtures import compile_library, compile_program

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES, NAMES, ORDERS = 20, 14, 300

_TRACE = """
#include <stdio.h>
__attribute__((constructor)) static void start(void) { dprintf(2, "+%(number)d\\n"); }
__attribute__((destructor)) static void stop(void) { dprintf(2, "-%(number)d\\n"); }
"""


def build(directory: Path, rng: random.Random) -> list[Path]:
    libraries: list[Path] = []
    for number in range(LIBRARIES):
        defined = rng.sample(range(NAMES), 5)
        lines = [_TRACE % {"number": number}]
        for name in range(NAMES):
            if name in defined:
                attribute = rng.choice(
                    ("", "", "weak", 'visibility("protected")', 'visibility("hidden")')
                )
                prefix = f"__attribute__(({attribute})) " if attribute else ""
                lines += [f"{prefix}int f{name}(void) {{ return {number}; }}"]
            else:
                lines += [f"__attribute__((weak)) int f{name}(void);"]
        used = rng.sample(range(NAMES), 9)
        pointers = ", ".join(f"f{name}" for name in used[:6])
        calls = " + ".join(f"(f{name} ? f{name}() : 0)" for name in used[3:])
        # All libraries have these two, which makes them the most contested names.
        lines += [f"int (*pointers[])(void) = {{ {pointers} }};"]
        lines += [f"int contested(void) {{ return {calls}; }}"]
        lines += [f"static int (*self{number})(void) = contested;"]
        lines += [f"int call{number}(void) {{ return self{number}() + contested(); }}"]

        flags = ["-fno-inline", "-Wl,--no-as-needed", "-fno-semantic-interposition"]
        chance = rng.random()
        if chance < 0.15:
            flags.append("-Wl,-Bsymbolic")
        elif chance < 0.25:
            flags.append("-Wl,-z,nodelete")
        elif number == LIBRARIES // 2:
            flags.append("-Wl,-z,initfirst")
        if rng.random() < 0.3:
            script = directory / f"{number}.map"
            some = "".join(f"f{name}; " for name in defined[:3])
            script.write_text(f"V{number % 3} {{ global: {some}}};\n")
            flags.append(f"-Wl,--version-script={script}")
        flags += rng.sample(["-Wl,--hash-style=sysv", "-Wl,-z,pack-relative-relocs", "-fno-plt"], 1)
        needs = rng.sample(libraries, min(len(libraries), rng.choice((0, 1, 1, 2, 3))))
        libraries.append(
            compile_library(
                directory, f"lib{number}.so", "\n".join(lines), flags=flags, libraries=needs
            )
        )
    return libraries


def order(rng: random.Random, libraries: list[Path]) -> list[str]:
    steps: list[str] = []
    opened: list[int] = []
    for _ in range(rng.randrange(1, 9)):
        if opened and rng.random() < 0.3:
            steps.append(f"-{opened.pop(rng.randrange(len(opened)))}")
            continue
        opened.append(len(steps))
        mode = rng.choice(("", "", "g", "g", "d", "gd", "k"))
        steps.append(f"+{mode}:{rng.choice(libraries)}")
    return steps


def needs_before_users(stops: list[str], libraries: list[Path]) -> set[tuple[str, str]]:
    """Whose destructors ran before those of a library that needs it."""
    return {
        (needed, number)
        for at, number in enumerate(stops)
        for needed in {name[3:-3] for name in open_elf(str(libraries[int(number)])).needed}
        if needed in stops[:at]
    }


def trace_differences(glibc: str, ours: str, libraries: list[Path]) -> list[str]:
    """Newer releases of glibc finish what is closed first, also before what needs it."""
    found = []
    for there, here in zip(glibc.split("|"), ours.split("|"), strict=True):
        starts, stops = (
            [[line[1:] for line in said.split() if line[0] == sign] for said in (there, here)]
            for sign in "+-"
        )
        if starts[0] != starts[1] or sorted(stops[0]) != sorted(stops[1]):
            found.append(f"trace {there.split()} under glibc, {here.split()} here")
        early = [needs_before_users(said, libraries) for said in stops]
        if early[0] != early[1]:
            found.append(f"finished before what needs it: {early[0]} under glibc, {early[1]} here")
    return found


@pytest.mark.parametrize("seed", range(3))
def test_orders(tmp_path: Path, libdlopen: Path, seed: int) -> None:
    rng = random.Random(seed)
    driver = compile_program(tmp_path, "driver", DRIVER)
    libraries = build(tmp_path, rng)
    met: Counter[str] = Counter()
    wrong = []
    for _ in range(ORDERS // 3):
        steps = order(rng, libraries)
        glibc = run_driver(driver, f"glibc:{libdlopen}", *steps)
        ours = run_driver(driver, str(libdlopen), *steps)
        result = compare(" ".join(steps), glibc, ours, str(libdlopen))
        met.update(result.places, opened=len(glibc.new), closed="-" in glibc.trace)
        differences = [str(difference) for difference in result.differences]
        if [*glibc.new] != [*ours.new]:
            differences.append(f"load order {[*glibc.new]}, {[*ours.new]} here")
        differences += trace_differences(glibc.trace, ours.trace, libraries)
        if differences:
            wrong.append("\n".join([" ".join(steps), *differences]))
    assert not wrong, f"{len(wrong)} of {ORDERS // 3} orders differ; the first:\n{wrong[0]}"
    # Some machines have no GLOB_DAT.
    expected = {"JUMP_SLOT", "GLOB_DAT", "64"} & COMPARED_TYPES | {"opened", "closed"}
    assert min(met[name] for name in expected) > 20, met
