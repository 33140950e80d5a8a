"""An image's bytes are touched where they are, not where they will run, and in one way."""

import re
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "src" / "dlopen" / "core"
# A run address as a pointer, or given to what reads, writes or asks the kernel.
TOUCH = re.compile(
    r"<(?:const )?\w+ ?\*+>\s*\(?[^()\n]*\bload_bias\b"
    r"|\b(?:memory_\w+|kernel_\w+|protect_\w+|mem\w+|(?:load|store)_(?:pointer|u32|u64))\([^()]*\bload_bias\b"
)
# What is handed out as an address, for others to call or to look at.
HANDED_OUT = {
    "face/iterating.pxd": "eh_frame",
    "opening/map_image.pxd": "l_ld",
}
ASKS_THE_KERNEL = re.compile(r"\bkernel_(?:map|protect|unmap)\b")


def touches(source: str) -> list[str]:
    return [match[0] for match in TOUCH.finditer(source)]


def sources() -> dict[str, str]:
    return {str(path.relative_to(CORE)): path.read_text() for path in CORE.rglob("*.pxd")}


def test_no_byte_is_touched_where_it_will_run() -> None:
    found = {name: touches(text) for name, text in sources().items() if touches(text)}
    assert found.keys() == HANDED_OUT.keys(), found
    for name, parts in found.items():
        (line,) = [line for line in sources()[name].splitlines() if any(p in line for p in parts)]
        assert HANDED_OUT[name] in line


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("load_pointer(<void*>(image.load_bias + place))", True),
        ("memcmp(one, <const void*>(image.load_bias + 8), 2)", True),
        ("memory_protect(image.load_bias + start, size, PROT_READ)", True),
        ("kernel_protect(align, image.load_bias)", True),
        ("protect_relro(&image.layout, image.load_bias, name, error)", True),
        ("(<Destructor>(image.load_bias + image.fini))()", False),
        ("place = image.load_bias + relocation.r_offset", False),
        ("<const void*>(image.bytes_bias + place)", False),
    ],
)
def test_a_touch_is_found(code: str, found: bool) -> None:
    assert bool(touches(code)) == found


def test_memory_is_asked_for_in_one_place() -> None:
    """The linker's own blocks apart."""
    found = {name for name, text in sources().items() if ASKS_THE_KERNEL.search(text)}
    assert found == {"base/allocator.pxd", "base/kernel.pxd", "memory/memory.pxd"}
