"""What glibc opens and promotes by itself, in the scope of ours: as glibc's own loader has it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, libdlopen, run

COUNT = 9
SOURCE = Path(__file__).with_name("globals.c")
NAMES = [f"name{i}" for i in range(COUNT)]
ASK = (
    "".join(f"int {name}(void) __attribute__((weak));\n" for name in NAMES)
    + "unsigned seen(void) { return "
    + " | ".join(f"(unsigned)({name} != 0) << {i}" for i, name in enumerate(NAMES))
    + "; }\n"
)


class Globals:
    """The program and its libraries, of which the last two export what others do, or nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for i, name in enumerate(NAMES[:-2]):
            # One has no DT_GNU_HASH, and one more names than are looked for one by one.
            more = "".join(f"int more{i}_{j}(void) {{ return 0; }}" for j in range(i * 90))
            style = "-Wl,--hash-style=sysv" if i == 1 else "-Wl,--hash-style=gnu"
            text = f"int {name}(void) {{ return {i}; }}{more}"
            compile_library(directory, f"libhost{i}.so", text, flags=[style])
        again = "".join(f"int {name}(void) {{ return 9; }}" for name in (*NAMES[:2], NAMES[-2]))
        compile_library(directory, f"libhost{COUNT - 2}.so", again)
        compile_library(
            directory, f"libhost{COUNT - 1}.so", "static int x;", flags=["-nostartfiles"]
        )
        compile_library(directory, "libask.so", ASK)
        self.program = compile_program(directory, "globals", SOURCE)

    def both(self, *steps: str) -> list[str]:
        """What is seen, which must be the same under glibc."""
        glibc, ours = (
            run([self.program, loader, *steps], cwd=self.directory).stdout.split()
            for loader in ("glibc", str(libdlopen()))
        )
        assert ours == glibc, f"{steps}: {glibc} under glibc, {ours} here"
        return ours


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Globals:
    return Globals(tmp_path_factory.mktemp("globals"))


def test_a_library_is_promoted_between_two_opens(hosts: Globals) -> None:
    """No library comes or goes for that: libc's counters stay as they are."""
    steps = ("host:0:", "host:2:", "ask", "host:2:go", "ask", "host:0:go", "ask", "ask")
    assert hosts.both(*steps) == ["0", "4", "5", "5"]


def test_all_of_them_are_global(hosts: Globals) -> None:
    steps = [f"host:{i}:g" for i in range(COUNT)]
    assert hosts.both(*steps, "ask", "close:0:", "close:3:", "ask") == ["ff", "f7"]
    assert hosts.both("self", *steps, "ask", "close:2:", "ask") == ["ff", "fb"]


def test_libdlopen_itself_is_global_and_another_is_not(hosts: Globals) -> None:
    """As many as if it were the other way round."""
    steps = ("host:0:g", "host:2:", "self", "ask", "host:2:go", "ask")
    assert hosts.both(*steps) == ["1", "5"]
    assert hosts.both("ask", *steps) == ["0", "1", "5"]


@pytest.mark.parametrize("seed", range(12))
def test_at_random(hosts: Globals, seed: int) -> None:
    rng = random.Random(seed)
    counts = [0] * COUNT
    steps = ["hide"] if seed % 4 == 3 else []
    for _ in range(60):
        k = rng.randrange(COUNT)
        if counts[k] and rng.random() < 0.4:
            steps.append(f"close:{k}:")
            counts[k] -= 1
        else:
            mode = rng.choice(("", "", "g", "g", "o", "go")) if counts[k] else rng.choice(("", "g"))
            steps.append(f"host:{k}:{mode}")
            counts[k] += 1
        if rng.random() < 0.1:
            steps.append("self")
        if rng.random() < 0.5:
            steps.append("ask")
    hosts.both(*steps, "ask")
