"""Malformed libraries by rule: one thing broken in an otherwise good one, and what must follow.

    python generate.py LIBRARY DIRECTORY    writes every case of a library, for a look at them

A rule says REFUSED where no loader could use the file (what it needs is outside the file, or the
gABI excludes the value), LOADED where the field is none of a loader's business, and EITHER where
both are right.  Whatever is expected, nothing may crash, hang, or stay behind.
"""

# A lambda given to each() is used up before its loop goes on:
# ruff: noqa: B023

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from malformed.elf import (
    OTHERS,
    PF_W,
    PF_X,
    PT_DYNAMIC,
    PT_GNU_STACK,
    PT_LOAD,
    READ_ONLY,
    RELOCATED,
    TAGS,
    VERNEED,
    Elf,
    Field,
    Mover,
)
from support.elf64 import relocation_numbers

PAGE = 4096
ROOM = 1 << 20  # of the array `room` in fixture.c, compiled with ROOM
# By e_machine: the types that are tried, and one above all that the psABI has for a library.
TYPES = {62: [*range(43), 249, 250, 255]}
ABOVE_TYPES = {62: 50, 183: 1040, 243: 100, 258: 140}
LOCAL_OBJECT = 1  # st_info: STB_LOCAL, STT_OBJECT


class Expect(Enum):
    REFUSED = "an error"
    LOADED = "success"
    EITHER = "an error or success"


class Case(NamedTuple):
    name: str
    data: bytes
    expect: Expect


Rule = Callable[[Elf], Iterator[Case]]


def refused_if(condition: bool) -> Expect:
    return Expect.REFUSED if condition else Expect.EITHER


def nasty(elf: Elf, field: Field, *others: int) -> list[int]:
    """The values that break things, for a field of this width, without the one it has."""
    bits, size, now = 8 * field.size, len(elf.data), elf.get(field)
    values = [
        0,
        1,
        (1 << bits) - 1,
        1 << (bits - 1),
        (1 << (bits - 1)) - 1,
        now - 1,
        now + 1,
        *others,
    ]
    if bits >= 32:
        values += [size - 1, size, size + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    if bits == 64:
        values += [1 << 32, (1 << 47) - PAGE, 1 << 47, 1 << 62, (1 << 64) - PAGE, now + (1 << 63)]
    low = {value & ((1 << bits) - 1) for value in values}
    return sorted(low - {now})


def each(elf: Elf, field: Field, expect: Callable[[int], Expect], *others: int) -> Iterator[Case]:
    for value in nasty(elf, field, *others):
        yield Case(f"{field.name}={value:#x}", elf.changed((field, value)), expect(value))


def either(_: int) -> Expect:
    return Expect.EITHER


def loaded(_: int) -> Expect:
    return Expect.LOADED


def refused(_: int) -> Expect:
    return Expect.REFUSED


# ---- the file


def unchanged(elf: Elf) -> Iterator[Case]:
    yield Case("unchanged", bytes(elf.data), Expect.LOADED)


def truncations(elf: Elf) -> Iterator[Case]:
    """Cut at each boundary of a structure, and a byte before and after it."""
    size = len(elf.data)
    ends = {0, 4, 16, 64, elf.file_end, size, size // 2, elf.get(elf.header["e_shoff"])}
    for ph in elf.program_headers():
        ends |= {ph["p_type"].offset, ph["p_align"].offset + 8, elf.get(ph["p_offset"])}
        ends.add(elf.get(ph["p_offset"]) + elf.get(ph["p_filesz"]))
    for name, entry in elf.dynamic():
        ends.add(entry["d_tag"].offset)
        if name in POINTERS:
            ends.add(elf.offset_of(elf.get(entry["d_val"])))
    for end in sorted({end + delta for end in ends for delta in (-1, 0, 1)}):
        if 0 <= end < size:
            expect = Expect.REFUSED if end < elf.file_end else Expect.LOADED
            yield Case(f"truncated to {end}", bytes(elf.data[:end]), expect)


def not_libraries(elf: Elf) -> Iterator[Case]:
    header = elf.data[:64]
    others = {
        "empty": b"",
        "linker script": b"/* GNU ld script */\nINPUT(-lc)\n" + b" " * 100,
        "archive": b"!<arch>\n" + b" " * 200,
        "zeroes": bytes(len(elf.data)),
        "ones": b"\xff" * len(elf.data),
        "header alone": bytes(header),
        "header then zeroes": bytes(header) + bytes(len(elf.data) - 64),
        "header repeated": bytes(header) * (len(elf.data) // 64),
    }
    for name, data in others.items():
        yield Case(name, data, Expect.REFUSED)


def file_header(elf: Elf) -> Iterator[Case]:
    size, count = len(elf.data), elf.get(elf.header["e_phnum"])
    # gABI, "ELF Header": any other value is another kind of file.
    only = {"ei_mag", "ei_class", "ei_data", "ei_version", "e_type", "e_machine", "e_version"}
    sections = {"e_shoff", "e_shentsize", "e_shnum", "e_shstrndx"}
    start = elf.get(elf.header["e_phoff"])
    for name, field in elf.header.items():
        if name in only or name == "e_phentsize":
            yield from each(elf, field, refused)
        elif name in sections:
            yield from each(elf, field, loaded)
        elif name == "e_phoff":
            yield from each(elf, field, lambda at: refused_if(at + 56 * count > size), start + 8)
        elif name == "e_phnum":
            yield from each(
                elf, field, lambda n: refused_if(n == 0 or start + 56 * n > size), 0xFFFE
            )
        else:
            yield from each(elf, field, either)


# ---- segments


def segments(elf: Elf) -> Iterator[Case]:
    size = len(elf.data)
    starts = [elf.get(ph["p_vaddr"]) for ph in elf.segments(PT_LOAD)]
    for ph in elf.program_headers():
        kind, offset, address = (elf.get(ph[name]) for name in ("p_type", "p_offset", "p_vaddr"))
        filesz, memsz = elf.get(ph["p_filesz"]), elf.get(ph["p_memsz"])
        rules: dict[str, Callable[[int], Expect]] = dict.fromkeys(ph, either)
        rules["p_paddr"] = loaded
        if kind == PT_LOAD:
            index = starts.index(address)
            room = starts[index + 1] - address if index + 1 < len(starts) else 1 << 47
            rules["p_offset"] = lambda v: refused_if(v + filesz > size or (v - address) % PAGE != 0)
            rules["p_vaddr"] = lambda v: refused_if(
                v + memsz >= 1 << 47 or (v - offset) % PAGE != 0
            )
            rules["p_filesz"] = lambda v: refused_if(v > memsz or offset + v > size)
            rules["p_memsz"] = lambda v: refused_if(v < filesz or v > room)
            rules["p_align"] = lambda v: refused_if(v & (v - 1) != 0 or v >= 1 << 47)
        elif kind == PT_DYNAMIC:
            rules["p_type"] = refused  # gABI: a shared object has one
            rules["p_vaddr"] = lambda v: refused_if(v > elf.memory_end)
        elif kind == PT_GNU_STACK:
            rules["p_flags"] = lambda v: refused_if(v & PF_X != 0)
        for name, field in ph.items():
            yield from each(elf, field, rules[name], *starts)


def overlaps(elf: Elf) -> Iterator[Case]:
    """Segments that cover each other, stand in the wrong order, or are all one."""
    loads = elf.segments(PT_LOAD)
    for i, one in enumerate(loads):
        for j, other in enumerate(loads):
            if i == j:
                continue
            names = ("p_vaddr", "p_memsz", "p_offset", "p_filesz")
            same = [(one[name], elf.get(other[name])) for name in names]
            yield Case(f"segment {i} is {j}", elf.changed(*same), Expect.REFUSED)
            swapped = [change for name in one for change in (
                (one[name], elf.get(other[name])), (other[name], elf.get(one[name])))]  # fmt: skip
            yield Case(f"segments {i} and {j} swapped", elf.changed(*swapped), Expect.EITHER)
        if i + 1 < len(loads):
            over = elf.get(loads[i + 1]["p_vaddr"]) - elf.get(one["p_vaddr"]) + 1
            changes = [(one["p_memsz"], over)]
            yield Case(f"segment {i} ends in the next", elf.changed(*changes), Expect.REFUSED)
        none = elf.changed((one["p_type"], 0))
        yield Case(f"segment {i} is not loaded", none, Expect.EITHER)
    changes = [(ph["p_type"], 0) for ph in loads]
    yield Case("no segment is loaded", elf.changed(*changes), Expect.REFUSED)
    changes = [(ph["p_memsz"], 1 << 62) for ph in loads]
    yield Case("all segments are huge", elf.changed(*changes), Expect.REFUSED)
    changes = [(ph["p_flags"], 7) for ph in loads]
    yield Case("all segments are writable and executable", elf.changed(*changes), Expect.EITHER)
    changes = [(ph["p_flags"], 0) for ph in loads]
    yield Case("no segment is readable", elf.changed(*changes), Expect.EITHER)
    changes = [(ph["p_type"], PT_LOAD) for ph in elf.program_headers()]
    yield Case("every program header is a PT_LOAD", elf.changed(*changes), Expect.REFUSED)
    changes = [(ph["p_type"], PT_DYNAMIC) for ph in elf.program_headers()]
    yield Case("every program header is a PT_DYNAMIC", elf.changed(*changes), Expect.REFUSED)


# ---- the dynamic section

POINTERS = {
    "HASH", "GNU_HASH", "STRTAB", "SYMTAB", "RELA", "JMPREL", "RELR", "INIT_ARRAY", "FINI_ARRAY",
    "VERSYM", "VERDEF", "VERNEED",
}  # fmt: skip
SIZES = {"RELASZ", "PLTRELSZ", "RELRSZ", "INIT_ARRAYSZ", "FINI_ARRAYSZ", "STRSZ"}
ENTRIES = {"RELAENT", "SYMENT", "RELRENT", "PLTREL"}
UNITS = {"RELASZ": 24, "PLTRELSZ": 24, "RELRSZ": 8}
STRINGS = {"NEEDED", "SONAME", "RPATH", "RUNPATH"}


def dynamic_section(elf: Elf) -> Iterator[Case]:
    end, strings = elf.memory_end, elf.value("STRSZ")
    pointers = [elf.get(entry["d_val"]) for name, entry in elf.dynamic() if name in POINTERS]
    for name, entry in elf.dynamic():
        field = entry["d_val"]
        yield from each(elf, entry["d_tag"], either, *TAGS.values())
        if name in POINTERS:
            # Zero: "no such table", or the file's first byte.
            yield from each(elf, field, lambda v: refused_if(v >= end), *pointers)
        elif name in ("INIT", "FINI"):
            yield from each(
                elf, field, lambda v: refused_if(v != 0 and not elf.has_segment(v, PF_X))
            )
        elif name in SIZES:
            unit = UNITS.get(name, 1)
            yield from each(
                elf,
                field,
                lambda v: refused_if(v > end or v % unit != 0),
                1 << 40,
                elf.get(field) * 1000,
            )
        elif name in ENTRIES:
            yield from each(elf, field, refused, TAGS["REL"])
        elif name in STRINGS:
            yield from each(elf, field, lambda v: refused_if(v >= strings), strings, strings - 1)
        else:
            yield from each(elf, field, either)


def dynamic_shapes(elf: Elf) -> Iterator[Case]:
    entries = list(elf.dynamic())
    by_name = dict(entries)
    last = entries[-1][1]["d_tag"]
    segment = elf.segments(PT_DYNAMIC)[0]
    stop = elf.get(segment["p_filesz"])
    filler = [
        (Field("", at, 8), 0x6FFFFEF0)
        for at in range(last.offset, elf.get(segment["p_offset"]) + stop, 16)
    ]
    yield Case("no DT_NULL", elf.changed(*filler), Expect.EITHER)
    yield Case("DT_NULL first", elf.changed((entries[0][1]["d_tag"], 0)), Expect.EITHER)
    for name in ("STRTAB", "SYMTAB"):
        gone = elf.changed((by_name[name]["d_tag"], 0x6FFFFEF0))
        yield Case(f"no DT_{name}", gone, Expect.REFUSED)
    everything = [(entry["d_val"], (1 << 64) - 1) for _, entry in entries]
    yield Case("every d_val is -1", elf.changed(*everything), Expect.REFUSED)
    soname = elf.value("SONAME")
    if "NEEDED" in by_name and "SONAME" in by_name:
        itself = elf.changed((by_name["NEEDED"]["d_val"], soname))
        yield Case("needs itself by its soname", itself, Expect.EITHER)
        many = [
            change
            for name, entry in entries
            if name not in ("STRTAB", "STRSZ", "SYMTAB", "SYMENT", "NULL")
            for change in ((entry["d_tag"], TAGS["NEEDED"]), (entry["d_val"], soname))
        ]
        yield Case("needs itself many times", elf.changed(*many), Expect.EITHER)
    if "NEEDED" in by_name:
        cut = elf.get(by_name["NEEDED"]["d_val"]) + 3
        changes = (by_name["STRSZ"]["d_val"], cut)
        yield Case("DT_STRSZ ends in a needed name", elf.changed(changes), Expect.REFUSED)


def strings_without_end(elf: Elf) -> Iterator[Case]:
    start, size = elf.table("STRTAB"), elf.value("STRSZ")
    assert start is not None
    last = elf.changed((Field("", start + size - 1, 1), ord("x")))
    yield Case("the last string has no end", last, Expect.EITHER)
    copy = bytearray(elf.data)
    copy[start : start + size] = b"x" * size
    yield Case("no string has an end", bytes(copy), Expect.REFUSED)
    needed = elf.value("NEEDED")
    copy = bytearray(elf.data)
    copy[start + needed : start + size] = b"/" * (size - needed)
    yield Case("the needed name never ends", bytes(copy), Expect.REFUSED)


# ---- symbols and hash tables


def symbols(elf: Elf) -> Iterator[Case]:
    strings = elf.value("STRSZ")
    used = {elf.get(record["r_sym"]) for record in all_relocations(elf)} - {0}
    table = elf.symbols()
    for index in sorted({0, 1, 2, len(table) // 2, len(table) - 2, len(table) - 1}):
        for name, field in table[index].items():
            bound = name == "st_name" and index in used
            yield from each(
                elf,
                field,
                lambda v: refused_if(bound and v >= strings),
                *((0x1A, 0xA1, 0x06, 0x0F, 0xF0) if name == "st_info" else ()),
                *((0xFFF1, 0xFFF2, 0xFF00, 0xFEFF) if name == "st_shndx" else ()),
            )
    for value in (0x1A, 0x16):  # all are an IFUNC, all are thread-local
        changes = [(symbol["st_info"], value) for symbol in table[1:]]
        yield Case(f"every st_info={value:#x}", elf.changed(*changes), Expect.EITHER)


def gnu_hash(elf: Elf) -> Iterator[Case]:
    if elf.tag("GNU_HASH") is None:
        return
    table, end, count = elf.gnu_hash(), elf.memory_end, elf.symbol_count()
    yield from each(elf, table.nbuckets, lambda n: refused_if(4 * n > end), 2, 1 << 30)
    yield from each(elf, table.symoffset, either, count, count + 1)
    # The bloom filter is indexed with a mask: its size must be a power of two.
    yield from each(elf, table.bloom_size, lambda n: refused_if(8 * n > end), 3, 1 << 29)
    yield from each(elf, table.bloom_shift, either, 31, 32, 63, 64)
    first = elf.get(table.symoffset)
    for bucket in (*table.buckets[:3], table.buckets[-1]):
        yield from each(elf, bucket, either, first, first - 1, count - 1, count, 2 * count)
    chain = elf.words(table.chain, count - first, 4, "GNU_HASH.chain")
    for word in (chain[0], chain[-1]):
        yield from each(elf, word, either)
    ones = [(word, (1 << 64) - 1) for word in table.bloom]
    yield Case("GNU_HASH bloom filter full", elf.changed(*ones), Expect.LOADED)
    endless = [(word, elf.get(word) & ~1) for word in chain]
    yield Case("GNU_HASH chains never end", elf.changed(*ones, *endless), Expect.EITHER)
    same = [(bucket, first) for bucket in table.buckets]
    yield Case("GNU_HASH one chain", elf.changed(*ones, *same, *endless), Expect.EITHER)
    for value in (count, 1 << 31, (1 << 32) - 1):
        out = [(bucket, value) for bucket in table.buckets]
        yield Case(f"GNU_HASH buckets={value:#x}", elf.changed(*ones, *out), Expect.EITHER)


def sysv_hash(elf: Elf) -> Iterator[Case]:
    start = elf.table("HASH")
    if start is None:
        return
    nbucket, nchain = (
        Field(name, start + at, 4) for name, at in (("HASH.nbucket", 0), ("HASH.nchain", 4))
    )
    buckets = elf.words(start + 8, elf.get(nbucket), 4, "HASH.bucket")
    chain = elf.words(start + 8 + 4 * len(buckets), elf.get(nchain), 4, "HASH.chain")
    end, count = elf.memory_end, len(chain)
    for field in (nbucket, nchain):
        yield from each(elf, field, lambda n: refused_if(4 * n > end), 1 << 30)
    for word in (*buckets[:3], *chain[:3], chain[-1]):
        yield from each(elf, word, either, count - 1, count, count + 1)
    itself = [(word, i) for i, word in enumerate(chain)]
    yield Case("HASH chains of one, cyclic", elf.changed(*itself), Expect.EITHER)
    ring = [(word, max(1, (i + 1) % count)) for i, word in enumerate(chain)]
    yield Case("HASH one chain, cyclic", elf.changed(*ring), Expect.EITHER)
    pairs = [(word, i ^ 1) for i, word in enumerate(chain)]
    yield Case("HASH chains of two, cyclic", elf.changed(*pairs), Expect.EITHER)
    for value in (count, 1 << 31, (1 << 32) - 1):
        out = [(word, value) for word in (*buckets, *chain)]
        yield Case(f"HASH all words {value:#x}", elf.changed(*out), Expect.EITHER)


# ---- versions


def versions(elf: Elf) -> Iterator[Case]:
    strings = elf.value("STRSZ")
    numbers = {"vn_version", "vd_version"}
    for record in elf.version_records():
        for name, field in record.items():
            # A definition's first name is its own; the others, its parents', bind nothing.
            if name in ("vn_file", "vna_name") or field.name.endswith("aux[0].vda_name"):
                yield from each(
                    elf, field, lambda v: refused_if(v >= strings), strings, strings - 1
                )
            elif name in numbers:
                yield from each(elf, field, refused)
            else:
                # 2**32 - n would be a step back, if offsets were added in 32 bits: a cycle.
                yield from each(elf, field, either, (1 << 32) - 16, (1 << 32) - 32, 16, 20)
    start = elf.table("VERSYM")
    if start is not None:
        table = elf.words(start, elf.symbol_count(), 2, "VERSYM")
        for word in (*table[:3], table[-1]):
            yield from each(elf, word, either, 0x7FFE, 0x8001, 100)
        for value in (0, 1, 0x7FFF, 0x8000, 0xFFFF):
            every = [(word, value) for word in table]
            yield Case(f"every VERSYM={value:#x}", elf.changed(*every), Expect.EITHER)


# ---- relocations


def all_relocations(elf: Elf) -> list[dict[str, Field]]:
    return elf.relocations() + elf.relocations("JMPREL", "PLTRELSZ")


def relocations(elf: Elf) -> Iterator[Case]:
    count, end = elf.symbol_count(), elf.memory_end
    tables = [elf.value(name) for name in sorted(POINTERS) if elf.tag(name) is not None]
    dynamic = elf.get(elf.segments(PT_DYNAMIC)[0]["p_vaddr"])
    writable = [ph for ph in elf.segments(PT_LOAD) if elf.get(ph["p_flags"]) & PF_W]
    text = next(ph for ph in elf.segments(PT_LOAD) if elf.get(ph["p_flags"]) & PF_X)
    places = [*tables, dynamic, dynamic + 8, elf.get(text["p_vaddr"]), end - 4, end]
    places += [elf.get(writable[0]["p_vaddr"]) - 4, elf.get(writable[0]["p_vaddr"]) - 8]

    def outside(place: int) -> bool:
        return not any(
            elf.get(ph["p_vaddr"]) <= place
            and place + 8 <= elf.get(ph["p_vaddr"]) + elf.get(ph["p_memsz"])
            for ph in writable
        )

    machine = elf.get(elf.header["e_machine"])
    numbers = relocation_numbers(machine)
    types = TYPES.get(machine, sorted({*numbers.values(), ABOVE_TYPES[machine] - 1}))
    symbolic = {numbers[name] for name in ("64", "GLOB_DAT", "JUMP_SLOT")}
    seen = set()
    for record in all_relocations(elf):
        kind = elf.get(record["r_type"])
        if kind in seen:
            continue
        seen.add(kind)
        wide = kind in symbolic or kind == numbers["RELATIVE"]
        yield from each(
            elf,
            record["r_offset"],
            lambda v: refused_if(wide and outside(v)),
            *places,
        )
        yield from each(
            elf, record["r_type"], lambda v: refused_if(v > ABOVE_TYPES[machine]), *types
        )
        bound = kind in symbolic
        yield from each(
            elf,
            record["r_sym"],
            lambda v: refused_if(bound and v * 24 > end),
            count - 1,
            count,
            1 << 24,
        )
        resolver = kind == numbers["IRELATIVE"]
        yield from each(
            elf,
            record["r_addend"],
            lambda v: refused_if(resolver and not elf.has_segment(v, PF_X)),
            *places,
        )
    records = all_relocations(elf)
    for place in (*tables, dynamic):
        changes = [(record["r_offset"], place) for record in records]
        expect = refused_if(outside(place))
        yield Case(f"every r_offset={place:#x}", elf.changed(*changes), expect)
    for kind in types:
        changes = [(record["r_type"], kind) for record in records]
        yield Case(f"every r_type={kind}", elf.changed(*changes), Expect.EITHER)
    # A local symbol's COPY is one of the image's own, here over itself.
    number, symbol = next(
        (number, symbol)
        for number, symbol in enumerate(elf.symbols())
        if elf.get(symbol["st_value"]) >= elf.get(writable[0]["p_vaddr"])
        and elf.get(symbol["st_size"]) > 16
    )
    changes = [
        (symbol["st_info"], LOCAL_OBJECT),
        (records[0]["r_type"], numbers["COPY"]),
        (records[0]["r_sym"], number),
        (records[0]["r_offset"], elf.get(symbol["st_value"]) + 8),
    ]
    yield Case("a COPY over itself", elf.changed(*changes), Expect.REFUSED)


def relr(elf: Elf) -> Iterator[Case]:
    start = elf.table("RELR")
    if start is None:
        return
    words = elf.words(start, elf.value("RELRSZ") // 8, 8, "RELR")
    writable = [ph for ph in elf.segments(PT_LOAD) if elf.get(ph["p_flags"]) & PF_W]
    low = elf.get(writable[0]["p_vaddr"])
    last = elf.get(writable[-1]["p_vaddr"]) + elf.get(writable[-1]["p_memsz"]) & ~7
    for word in words:
        is_place = elf.get(word) & 1 == 0
        yield from each(
            elf,
            word,
            lambda v: refused_if(is_place and v & 1 == 0 and not low <= v <= last - 8),
            0x100,
            low - 8,
            last - 8,
            last,
        )
    yield Case("RELR starts with a bitmap", elf.changed((words[0], 3)), Expect.REFUSED)
    changes = [(words[0], last - 8)] + [(word, (1 << 64) - 1) for word in words[1:]]
    yield Case("RELR runs out of the segment", elf.changed(*changes), Expect.REFUSED)
    changes = [(word, (1 << 64) - 1) for word in words[1:]]
    yield Case("RELR bitmaps only", elf.changed(*changes), Expect.EITHER)
    changes = [(word, elf.value("RELR")) for word in words]
    yield Case("RELR relocates itself", elf.changed(*changes), Expect.REFUSED)
    dynamic = elf.get(elf.segments(PT_DYNAMIC)[0]["p_vaddr"])
    changes = [(word, dynamic) for word in words]
    yield Case("RELR relocates the dynamic section", elf.changed(*changes), Expect.EITHER)


def arrays(elf: Elf) -> Iterator[Case]:
    """Constructors and destructors that are not code: their relocated pointers, their place."""
    text = next(ph for ph in elf.segments(PT_LOAD) if elf.get(ph["p_flags"]) & PF_X)
    for name in ("INIT_ARRAY", "FINI_ARRAY"):
        field, size = elf.tag(name), elf.tag(name + "SZ")
        if field is None or size is None:
            continue
        address, length = elf.get(field), elf.get(size)
        for record in elf.relocations():
            if address <= elf.get(record["r_offset"]) < address + length:
                yield from each(elf, record["r_addend"], either, elf.get(text["p_vaddr"]) - 1)
        at_end = elf.memory_end - 8
        for count in (16, PAGE, 1 << 63, (1 << 64) - 8):
            data = elf.changed((field, at_end), (size, count))
            yield Case(f"DT_{name} at the end, {count:#x} bytes", data, Expect.REFUSED)


# ---- sizes that a file cannot hold, and work that it should not cause


def huge_tables(elf: Elf) -> Iterator[Case]:
    """A last segment of 1 TiB, nearly all .bss, and tables in it that are all zeroes."""
    last = elf.segments(PT_LOAD)[-1]
    huge = (last["p_memsz"], 1 << 40)
    zeroes = elf.get(last["p_vaddr"]) + (1 << 20)
    sizes = {"RELA": "RELASZ", "JMPREL": "PLTRELSZ", "RELR": "RELRSZ", "STRTAB": "STRSZ"}
    sizes |= {"INIT_ARRAY": "INIT_ARRAYSZ", "FINI_ARRAY": "FINI_ARRAYSZ"}
    yield Case("a huge .bss", elf.changed(huge), Expect.EITHER)
    for name in sorted(POINTERS):
        field = elf.tag(name)
        if field is None:
            continue
        yield Case(f"DT_{name} in .bss", elf.changed(huge, (field, zeroes)), Expect.EITHER)
        size = elf.tag(sizes.get(name, ""))
        if size is not None:
            changes = (huge, (field, zeroes), (size, 24 << 34))
            yield Case(f"DT_{name} in a huge .bss", elf.changed(*changes), Expect.EITHER)
    for name in ("HASH", "GNU_HASH"):
        start = elf.table(name)
        if start is not None:
            counts = [(Field("", start + at, 4), (1 << 32) - 1) for at in (0, 4)]
            yield Case(f"huge counts in DT_{name}", elf.changed(huge, *counts), Expect.EITHER)
    dynamic = elf.segments(PT_DYNAMIC)[0]
    moved = [(dynamic["p_vaddr"], zeroes), (dynamic["p_memsz"], 1 << 39)]
    yield Case("the dynamic section in .bss", elf.changed(huge, *moved), Expect.REFUSED)


def many_versions(elf: Elf) -> Iterator[Case]:
    """32767 needed files that share 65535 versions: a megabyte that means 2**31 steps."""
    number, table = elf.tag("VERNEEDNUM"), elf.tag("VERNEED")
    room = next((s for s in elf.symbols() if elf.get(s["st_size"]) == ROOM), None)
    if number is None or table is None or room is None:
        return
    address = elf.get(room["st_value"])
    copy = Elf(bytes(elf.data))
    start, records, name = copy.offset_of(address), 32767, elf.value("NEEDED")
    shared = 16 * records
    for i in range(records):
        step = 16 if i + 1 < records else 0
        record = copy.record(VERNEED, start + 16 * i)
        values = {"vn_version": 1, "vn_cnt": 65535, "vn_file": name, "vn_next": step}
        values["vn_aux"] = shared - 16 * i
        for field, value in values.items():
            copy.put(record[field], value)
    # Entries that overlap: each word is a step of 4 to the next entry, and a name.
    copy.data[start + shared : start + shared + 4 * 65540] = (4).to_bytes(4, "little") * 65540
    copy.put(table, address)
    copy.put(number, records)
    yield Case("many versions", bytes(copy.data), Expect.EITHER)


def unaligned(elf: Elf) -> Iterator[Case]:
    """Tables at addresses that the gABI does not allow and libc takes."""
    names = {elf.string(symbol["st_name"]) for symbol in elf.symbols()}
    if not {"room", "writable_room"} <= names:
        return
    rooms = [elf.get(elf.symbol_named(name)["st_value"]) for name in ("room", "writable_room")]
    there = [name for name in (*READ_ONLY, *RELOCATED) if elf.tag(name) is not None]
    tables = (*there, *OTHERS)
    one = [{what: odd} for what in tables for odd in range(1, 8)]
    for whither in (*one, dict.fromkeys(tables, 1)):
        copy = Elf(bytes(elf.data))
        mover = Mover(copy, *rooms)
        for what, odd in whither.items():
            mover.move(what, odd)
        name = ", ".join(f"{what}+{odd}" for what, odd in whither.items())
        yield Case(f"unaligned {name}", bytes(copy.data), Expect.LOADED)


RULES: tuple[Rule, ...] = (
    unchanged, truncations, not_libraries, file_header, segments, overlaps, dynamic_section,
    dynamic_shapes, strings_without_end, symbols, gnu_hash, sysv_hash, versions, relocations, relr,
    arrays, huge_tables, many_versions, unaligned,
)  # fmt: skip


def cases(data: bytes, rules: tuple[Rule, ...] = RULES) -> Iterator[tuple[str, Case]]:
    """Each case of each rule for a library's content, with the rule's name; no content twice."""
    elf, seen = Elf(data), set()
    for rule in rules:
        for case in rule(elf):
            if case.data not in seen:
                seen.add(case.data)
                yield rule.__name__, case


def write(data: bytes, directory: Path, rules: tuple[Rule, ...] = RULES) -> dict[Path, Case]:
    """Write the cases as numbered files of their rule's name: path -> case."""
    directory.mkdir(parents=True, exist_ok=True)
    written = {}
    for number, (rule, case) in enumerate(cases(data, rules)):
        path = directory / f"{rule}-{number:05}"
        path.write_bytes(case.data)
        written[path] = case
    return written


if __name__ == "__main__":
    for path, case in write(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])).items():
        print(f"{path}\t{case.expect.name}\t{case.name}")
