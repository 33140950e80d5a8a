"""Debian's libraries of each machine, compared with readelf(1): `make machines` fetches them."""

from __future__ import annotations

from pathlib import Path

import pytest

import dlopen
from core.arch.readelf import as_mapped, as_readelf_says
from support.fixtures import REPOSITORY, missing

pytestmark = pytest.mark.in_process

LIBRARIES = REPOSITORY / "build" / "libraries"
ARCHITECTURES = {"amd64": "x86-64", "arm64": "AArch64", "riscv64": "RISC-V", "loong64": "LoongArch"}
ENOUGH = 50
# What a linker of that machine writes into any such number of libraries.
EXPECTED_KINDS = {"RELATIVE", "SYMBOLIC", "JUMP_SLOT"}


def libraries(architecture: str) -> list[Path]:
    folder = LIBRARIES / architecture
    return sorted(folder.iterdir()) if folder.is_dir() else missing(f"there is no {folder}")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_as_readelf_says(architecture: str) -> None:
    paths = libraries(architecture)
    kinds: dict[str, int] = {}
    compared = versioned = 0
    for path in paths:
        mapped = as_mapped(path)
        told = as_readelf_says(path)
        for field, value in mapped._asdict().items():
            assert value == getattr(told, field), f"{path}: {field}"
        assert mapped.machine == ARCHITECTURES[architecture]
        compared += 1
        versioned += bool(mapped.versions)
        for relocation in mapped.relocations:
            kinds[relocation.kind] = kinds.get(relocation.kind, 0) + 1
    print(architecture, compared, "libraries:", dict(sorted(kinds.items())))
    assert compared >= ENOUGH
    assert versioned >= ENOUGH
    assert kinds.keys() >= EXPECTED_KINDS
    assert kinds.keys() & {"DTPMOD", "TLSDESC"}
    assert "UNKNOWN" not in kinds


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [one for one in ARCHITECTURES if one != "amd64"])
def test_none_of_another_machine_is_opened(architecture: str) -> None:
    reason = f"it is for {ARCHITECTURES[architecture]}, and "
    for path in libraries(architecture):
        with pytest.raises(dlopen.LoadError, match=reason):
            dlopen.Library(path)
