"""The order of locks: a build that checks it ends the process where it is broken."""

from __future__ import annotations

import ctypes
import re
import signal
from pathlib import Path

import pytest

from support.fixtures import run_python
from support.units import compile_unit

pytestmark = pytest.mark.in_process

CORE = Path(__file__).parents[3] / "src" / "dlopen" / "core"
UNIT = """
from libc.stdint cimport uint32_t

from dlopen.core.base.lock cimport Lock, give_rank, lock_acquire, lock_release, lock_try

cdef Lock locks[32]

cdef public void unit_rank(int number, uint32_t rank) noexcept nogil:
    give_rank(&locks[number], rank)

cdef public void unit_take(int number) noexcept nogil:
    lock_acquire(&locks[number])

cdef public int unit_try(int number) noexcept nogil:
    return lock_try(&locks[number])

cdef public void unit_release(int number) noexcept nogil:
    lock_release(&locks[number])

cdef public size_t unit_size() noexcept nogil:
    return sizeof(Lock)
"""
# Number 0 has no rank, the others have their number's.
RUN = """
import ctypes, sys
unit = ctypes.CDLL(sys.argv[1])
for number in range(1, 5):
    unit.unit_rank(number, number)
for step in sys.argv[2].split():
    number = int(step[1:])
    if step[0] == "?":
        assert unit.unit_try(number)
    else:
        (unit.unit_take if step[0] == "+" else unit.unit_release)(number)
print("at rest")
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_unit(tmp_path_factory.mktemp("checked"), "locks", UNIT, "DLOPEN_CHECKED")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_unit(tmp_path_factory.mktemp("plain"), "locks", UNIT)


@pytest.mark.parametrize(
    "steps",
    [
        "+1 +2 +3 +4 +0 -0 -4 -3 -2 -1",
        "+4 -4 +1 -1",
        "+1 +4 -1 -4 +1 -1",  # in any order back
        "+4 ?1 -1 +0 -0 -4",  # who does not wait may ask for any
        "+3 +0 -0 +4 -4 -3",
    ],
)
def test_locks_in_order(checked: Path, steps: str) -> None:
    assert run_python(RUN, str(checked), steps).stdout == "at rest\n"


@pytest.mark.parametrize(
    ("steps", "taken", "held"),
    [
        ("+4 +3", "Registry.reclaiming", "Registry.lock"),
        ("+1 +4 +2", "Tls.lock", "Registry.lock"),
        ("+0 +1", "Debugger.lock", "a leaf"),
        ("+2 +2", "Tls.lock", "Tls.lock"),
        ("+4 ?1 +3", "Registry.reclaiming", "Registry.lock"),
        ("+1 +4 -1 +3", "Registry.reclaiming", "Registry.lock"),
    ],
)
def test_a_broken_order_ends_the_process(checked: Path, steps: str, taken: str, held: str) -> None:
    done = run_python(RUN, str(checked), steps, check=False)
    assert done.returncode == -signal.SIGILL
    message = f"dlopen: the order of locks is broken: {taken} is taken by who holds {held}\n"
    assert message in done.stderr


def test_elsewhere_it_costs_nothing(plain: Path, checked: Path) -> None:
    assert ctypes.CDLL(str(plain)).unit_size() == 4
    assert ctypes.CDLL(str(checked)).unit_size() > 4
    assert run_python(RUN, str(plain), "+4 +3 -3 -4").stdout == "at rest\n"
    assert b"order of locks" not in plain.read_bytes()


def test_each_lock_has_a_rank() -> None:
    """One that is a leaf says so here."""
    leaves = {"base/allocator.pxd: lock"}
    found = {
        f"{path.relative_to(CORE)}: {name}"
        for path in CORE.rglob("*.pxd")
        for name in re.findall(r"^ +Lock (\w+)", path.read_text(), re.MULTILINE)
    }
    ranked = set(
        re.findall(r"give_rank\(&linker\.([\w.]+)", (CORE / "host/linker.pxd").read_text())
    )
    assert len(found - leaves) == len(ranked)
    assert {name.rpartition(".")[2] for name in ranked} == {
        name.split(": ")[1] for name in found - leaves
    }
