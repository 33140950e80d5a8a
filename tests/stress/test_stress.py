"""Eight threads at random: from C++, and through the package; nothing crashes, hangs or is left.

`make stress` runs for DLOPEN_STRESS_SECONDS (300), `make race` the C++ program and libdlopen.so
under ThreadSanitizer. A failure says its seed.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from stress.libraries import make_libraries
from support.fixtures import compile_program, need_tool, run
from support.machines import machine

pytestmark = pytest.mark.cxx

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("DLOPEN_STRESS_SECONDS", "300"))
SITE = os.environ.get("DLOPEN_RACE_SITE")
SEEDS = (1, 2, 3)
# glibc keeps the stacks of threads that have ended, as many as there were at once.
NO_STACKS_KEPT = {"GLIBC_TUNABLES": "glibc.pthread.stack_cache_size=0"}
EMULATED = {"EMULATED": "1"} if machine().emulator else {}
# An emulator is slow, and its run is the long one of the other machines: `make test-arch`.
SHORT = SECONDS / 15 if machine().emulator else 2


def make_program(directory: Path, *flags: str) -> Path:
    return compile_program(
        directory,
        "stress",
        HERE / "stress.cc",
        language="c++",
        flags=[
            *("-std=c++17", "-g", "-rdynamic", "-pthread"),
            *flags,
        ],
    )


def stress(directory: Path, libdlopen: Path, seed: int, seconds: float, *plant: str) -> str:
    make_libraries(directory)
    program = make_program(directory)
    done = run(
        [program, libdlopen, str(seed), str(seconds), *plant],
        cwd=directory,
        env=NO_STACKS_KEPT | EMULATED,
        timeout=2 * seconds + 120,
        check=not plant,
    )
    return done.stdout


def stress_python(directory: Path, seed: int, seconds: float, *plant: str) -> str:
    make_libraries(directory)
    script = str(HERE / "stress.py")
    done = run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            script,
            str(directory),
            str(seed),
            str(seconds),
            *plant,
        ],
        env={"PYTHONPATH": str(HERE.parent)},
        timeout=2 * seconds + 120,
        check=not plant,
    )
    return done.stdout


def test_short(tmp_path: Path, libdlopen: Path) -> None:
    done = stress(tmp_path, libdlopen, 1, SHORT)
    print(done)
    assert done.endswith("done\n")


@pytest.mark.in_process
def test_short_from_python(tmp_path: Path) -> None:
    assert stress_python(tmp_path, 1, 2).endswith("done\n")


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        ("crash", "failed: seed 5: Segmentation fault"),
        ("deadlock", "failed: seed 5: a deadlock"),
        ("leak", "failed: seed 5: a library is still mapped"),
    ],
)
def test_a_planted_mistake_is_found(tmp_path: Path, libdlopen: Path, plant: str, says: str) -> None:
    assert says in stress(tmp_path, libdlopen, 5, 0.6, plant)


@pytest.mark.in_process
@pytest.mark.parametrize(
    ("plant", "says"),
    [("deadlock", "failed: seed 5: a deadlock"), ("leak", "failed: seed 5: still mapped")],
)
def test_a_planted_mistake_is_found_from_python(tmp_path: Path, plant: str, says: str) -> None:
    assert says in stress_python(tmp_path, 5, 0.6, plant)


@pytest.mark.slow
@pytest.mark.skipif(SITE is not None, reason="the package in this interpreter is another build")
@pytest.mark.parametrize("seed", SEEDS)
def test_long(tmp_path: Path, libdlopen: Path, seed: int) -> None:
    done = stress(tmp_path, libdlopen, seed, SECONDS / 2 / len(SEEDS))
    print(done)
    assert done.endswith("done\n")


@pytest.mark.in_process
@pytest.mark.slow
@pytest.mark.skipif(SITE is not None, reason="the package in this interpreter is another build")
@pytest.mark.parametrize("seed", SEEDS)
def test_long_from_python(tmp_path: Path, seed: int) -> None:
    done = stress_python(tmp_path, seed, SECONDS / 2 / len(SEEDS))
    print(done)
    assert done.endswith("done\n")


@pytest.mark.slow
@pytest.mark.skipif(SITE is None, reason="make race")
@pytest.mark.parametrize(
    ("seed", "plant"),
    [*((seed, []) for seed in "123"), ("1", ["race"])],
    ids=["seed 1", "seed 2", "seed 3", "planted"],
)
def test_race(tmp_path: Path, seed: str, plant: list[str]) -> None:
    """Without address randomisation, which this ThreadSanitizer does not understand."""
    make_libraries(tmp_path, interposed=True)
    program = make_program(tmp_path, "-fsanitize=thread")
    library = f"{SITE}/dlopen/_lib/libdlopen.so"
    seconds = "4" if plant else "60"
    suppressions = HERE / "thread_sanitizer.supp"
    done = run(
        [
            need_tool("setarch"),
            platform.machine(),
            "-R",
            str(program),
            library,
            seed,
            seconds,
            *plant,
        ],
        cwd=tmp_path,
        env={"TSAN_OPTIONS": f"die_after_fork=0 suppressions={suppressions}"},
        timeout=240,
        check=False,
    )
    print(done.stderr)
    if plant:
        assert "data race" in done.stderr
        assert "make_step" in done.stderr
    else:
        assert (done.stdout[-5:], done.stderr, done.returncode) == ("done\n", "", 0)
