"""Libraries of another ABI for floating point (e_flags), which take arguments elsewhere."""

from __future__ import annotations

import struct

import pytest

from core.steps import Steps
from support.machines import machine

# e_flags, the ABI that they mean, and whether libc refuses them, too.
_OTHERS = {
    "riscv64": {
        0x1: ("lp64 (soft float)", True),
        0x3: ("lp64f (single)", True),
        0x7: ("lp64q (quad)", True),
        0x9: ("lp64e (RVE)", True),
        0xD: ("one that is not known here", False),
    },
    "loongarch64": {
        0x41: ("lp64s (soft float)", False),
        0x42: ("lp64f (single)", False),
        0x40: ("one that is not known here", False),
    },
}


def _library(steps: Steps, flags: int) -> None:
    path = steps.library("a", "int call(void) { return 7; }")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 48, flags)
    path.write_bytes(data)


@pytest.mark.only_on("riscv64", "loongarch64")
@pytest.mark.parametrize("number", range(5))
def test_another_float_abi_is_refused(steps: Steps, number: int) -> None:
    others = [*_OTHERS[machine().name].items()]
    if number >= len(others):
        pytest.skip(f"{machine().name} has no more of them")
    flags, (name, by_libc) = others[number]
    _library(steps, flags)
    steps.refused("open:./liba.so", detail=f"its ABI (e_flags {flags:#x}) is {name}, and that of ")
    assert ("not opened" in steps.run("glibc", "open:./liba.so").stdout) == by_libc


@pytest.mark.only_on("riscv64", "loongarch64")
def test_the_search_goes_on_behind_one(steps: Steps) -> None:
    _library(steps, 0x41 if machine().name == "loongarch64" else 0x1)
    folder = steps.directory / "folder"
    folder.mkdir()
    (steps.directory / "liba.so").rename(folder / "liba.so")
    steps.library("a", "int call(void) { return 8; }")
    paths = {"LD_LIBRARY_PATH": f"{folder}:{steps.directory}"}
    assert steps.run(str(steps.libdlopen), "open:liba.so", "call:0:call", env=paths).stdout == (
        "opened\n8\n"
    )


@pytest.mark.only_on("riscv64", "loongarch64")
def test_flags_of_other_things_do_not_matter(steps: Steps) -> None:
    _library(steps, 0x43 if machine().name == "loongarch64" else 0x4 | 0x10)  # RVTSO
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "7"]
