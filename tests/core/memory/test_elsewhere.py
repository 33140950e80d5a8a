"""An image is put together where its bytes are, for where it will run: nothing is touched there."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_RELOC_TYPE_x64 as TYPES

from support.fixtures import compile_library, run_python
from support.units import compile_unit

pytestmark = pytest.mark.in_process

HERE = Path(__file__).parent
SOURCE = """
int number = 7, *own = &number, zeroes[3000];
static int hidden = 8;
int *place = &hidden, *in_bss = &zeroes[2000];
static int *const sealed[] = {&hidden, &number};
int add(int a) { return a + number; }
int (*function)(int) = add;
int call(int a) { return add(a) + *sealed[a]; }
"""
DISTANCE = 0x7ABC0000000
RUN = """
import ctypes, json, sys
unit = ctypes.CDLL(sys.argv[1])
content = open(sys.argv[2], "rb").read()
distance, places, exchanged = json.loads(sys.argv[3])
unit.unit_detail.restype = ctypes.c_char_p
unit.unit_load_bias.restype = unit.unit_exchange.restype = ctypes.c_uint64
unit.unit_exchange.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
code = unit.unit_link(content, ctypes.c_uint64(len(content)), ctypes.c_uint64(distance))
assert code == 0, (code, unit.unit_detail())
bias = unit.unit_load_bias()
assert hex(bias)[2:] not in open("/proc/self/maps").read()

def word(place):
    buffer = (ctypes.c_uint64 * 1)()
    unit.unit_read(ctypes.c_uint64(place), buffer, ctypes.c_size_t(8))
    return buffer[0]

words = [word(place) for place in places]
before = [unit.unit_exchange(bias + place, 5) for place in exchanged]
after = [word(place) for place in exchanged]
print(json.dumps([bias, words, before, after]))
unit.unit_unmap()
"""


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    return compile_unit(folder, "elsewhere", (HERE / "elsewhere.pyx").read_text())


def expected(elf: Any) -> dict[int, int]:
    """What each place leads to, with a load bias of 0: x86-64 psABI, table of relocation types."""
    symbols = elf.get_section_by_name(".dynsym")
    found = {}
    for name in (".rela.dyn", ".rela.plt"):
        section = elf.get_section_by_name(name)
        for entry in section.iter_relocations() if section else ():
            kind, symbol = entry["r_info_type"], symbols.get_symbol(entry["r_info_sym"])
            if kind == TYPES["R_X86_64_RELATIVE"]:
                found[entry["r_offset"]] = entry["r_addend"]
            elif symbol["st_shndx"] != "SHN_UNDEF":
                addend = entry["r_addend"] if kind == TYPES["R_X86_64_64"] else 0
                found[entry["r_offset"]] = symbol["st_value"] + addend
    if packed := elf.get_section_by_name(".relr.dyn"):
        for entry in packed.iter_relocations():
            place = entry["r_offset"]
            (segment,) = [
                each
                for each in elf.iter_segments("PT_LOAD")
                if each["p_vaddr"] <= place < each["p_vaddr"] + each["p_filesz"]
            ]
            start = place - segment["p_vaddr"]
            found[place] = int.from_bytes(segment.data()[start : start + 8], "little")
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_for_where_nothing_is(unit: Path, tmp_path: Path, packed: bool) -> None:
    flags = ["-Wl,-z,relro,-z,now", *(["-Wl,-z,pack-relative-relocs"] if packed else [])]
    library = compile_library(tmp_path, "libelsewhere.so", SOURCE, flags=flags)
    elf = ELFFile(io.BytesIO(library.read_bytes()))
    wanted = expected(elf)
    assert len(wanted) > 5
    assert (elf.get_section_by_name(".relr.dyn") is not None) == packed
    (sealed,) = elf.iter_segments("PT_GNU_RELRO")
    inside = [p for p in wanted if sealed["p_vaddr"] <= p < sealed["p_vaddr"] + sealed["p_memsz"]]
    exchanged = [inside[0], *[place for place in wanted if place not in inside][:1]]
    assert len(exchanged) == 2
    arguments = json.dumps([DISTANCE, list(wanted), exchanged])
    output = run_python(RUN, str(unit), str(library), arguments).stdout
    bias, words, before, after = json.loads(output)
    assert dict(zip(wanted, words, strict=True)) == {
        place: bias + value for place, value in wanted.items()
    }
    assert before == [bias + wanted[place] for place in exchanged]
    assert after == [5, 5]
