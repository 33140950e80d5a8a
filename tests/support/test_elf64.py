"""The independent reader against readelf, on the system's C library and on fixtures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from differential import built
from support.elf64 import Elf
from support.fixtures import need_tool, run


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Elf]:
    mapped = re.findall(r"/\S*/(?:libc|libm)\.so\.6", Path("/proc/self/maps").read_text())
    assert mapped
    paths = [*map(Path, set(mapped)), *built.build(tmp_path_factory.mktemp("samples"))]
    return [Elf(path) for path in paths]


def readelf(option: str, elf: Elf) -> str:
    return run([need_tool("readelf"), "-W", option, elf.path], env={"LC_ALL": "C"}).stdout


def test_relocations(samples: list[Elf]) -> None:
    total = 0
    for elf in samples:
        pattern = r"^([0-9a-f]{16})  ([0-9a-f]{16}) R_X86_64_(\w+)"
        expected = [
            (int(place, 16), int(info, 16), name)
            for place, info, name in re.findall(pattern, readelf("-r", elf), re.MULTILINE)
        ]
        assert [
            (found.place, found.symbol << 32 | found.type, elf.relocation_name(found))
            for found in elf.relocations
        ] == expected
        total += len(expected)
    assert total > 500


def test_relr(samples: list[Elf]) -> None:
    counted = 0
    for elf in samples:
        output = readelf("-r", elf)
        # The places alone; since binutils 2.43 beside their entries and symbols.
        shown = re.search(r"\n *(\d+) offsets\n((?:[0-9a-f]{16}\n)*)", output) or re.search(
            r" which relocate (\d+) locations:\nIndex: .*\n((?:[0-9a-f:]* +[0-9a-f]{16}.*\n)*)",
            output,
        )
        if shown:
            places = re.findall(r"^(?:\w+: +\w+)? *\b([0-9a-f]{16})\b", shown[2], re.MULTILINE)
            assert elf.relr == [int(place, 16) for place in places]
            assert len(elf.relr) == int(shown[1])
            counted += len(elf.relr)
    assert counted > 500


def test_symbols_and_their_versions(samples: list[Elf]) -> None:
    total = 0
    for elf in samples:
        rows = re.findall(
            r"^ *\d+: ([0-9a-f]{16})(?: +\S+){4} +(\S+) (\S*)",
            readelf("--dyn-syms", elf),
            re.MULTILINE,
        )
        mine = []
        for symbol in elf.symbols:
            label = ""
            if symbol.version not in ("", symbol.name):  # the symbol of a version itself
                at = "@" if symbol.hidden or not symbol.section else "@@"
                label = at + symbol.version
            mine.append((symbol.value, not symbol.section, symbol.name + label))
        assert mine == [(int(value, 16), section == "UND", name) for value, section, name in rows]
        total += len(mine)
    assert total > 3000


def test_dynamic_section(samples: list[Elf]) -> None:
    for elf in samples:
        text = readelf("-d", elf)
        assert elf.needed == re.findall(r"\(NEEDED\) +Shared library: \[(.*)\]", text)
        assert [elf.soname] == (re.findall(r"\(SONAME\) +Library soname: \[(.*)\]", text) or [None])
