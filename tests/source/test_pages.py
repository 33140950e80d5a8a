"""The size of a page is asked for: nothing in the core takes it for 4096."""

import re
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "src" / "dlopen" / "core"
SIZE = re.compile(r"\b(?:4096|4095|0x1000|0x0?fff|1 << 12)(?:UL{0,2})?\b|PAGE_SIZE|>> 12\b")
# What else has that value: (file, what the line holds, the reason).
OTHERS = (
    ("base/allocator.pxd", "mapped > -4096", "the last errno that the kernel returns"),
    ("base/log.pxd", "char path[4096]", "PATH_MAX"),
    ("base/log.pxd", "char text[4096]", "PIPE_BUF"),
    ("elf/layout.pxd", "MAX_PHNUM", "a number of program headers"),
    ("face/sizes.pxd", "LARGEST_STRUCT", "bytes of a struct of dlopen.h"),
    ("host/assumptions.pxd", "anywhere", "some address"),
    ("host/identity.pxd", "MAP_ROOM", "a buffer for lines"),
    ("host/static_tls.pxd", "STATIC_TLS_MORE", "an advice to the user"),
    ("memory/memory.pxd", "result > -4096", "the last errno that the kernel returns"),
)


def found() -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(CORE)), line.strip())
        for path in sorted([*CORE.rglob("*.pxd"), *CORE.rglob("*.S")])
        for line in path.read_text().splitlines()
        if SIZE.search(line)
    ]


def test_no_size_of_a_page_is_taken_for_granted() -> None:
    left = [
        (path, line)
        for path, line in found()
        if not any(path == file and text in line for file, text, _ in OTHERS)
    ]
    assert left == []


@pytest.mark.parametrize("other", OTHERS)
def test_each_other_is_needed(other: tuple[str, str, str]) -> None:
    assert any(path == other[0] and other[1] in line for path, line in found())


@pytest.mark.parametrize("text", ["PAGE = 4096", "x & ~<uint64_t>0xfff", "a + 4095U", "n >> 12"])
def test_a_size_is_found(text: str) -> None:
    assert SIZE.search(text)
