"""ELF64 little-endian files, read independently of the linker under test.

Only what the tests compare; offsets are trusted, since the files are compilers' output.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PT_LOAD, PT_DYNAMIC, PT_TLS, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 7, 0x6474E551, 0x6474E552
PF_X, PF_W = 1, 2
DT_NEEDED, DT_PLTRELSZ, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ = 1, 2, 4, 5, 6, 7, 8
DT_SONAME, DT_RPATH, DT_SYMBOLIC, DT_TEXTREL, DT_JMPREL, DT_RUNPATH = 14, 15, 16, 22, 23, 29
DT_FLAGS, DT_RELRSZ, DT_RELR, DT_GNU_HASH = 30, 35, 36, 0x6FFFFEF5
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD
DT_VERNEED, DT_VERNEEDNUM, DT_FLAGS_1 = 0x6FFFFFFE, 0x6FFFFFFF, 0x6FFFFFFB
DF_SYMBOLIC, DF_TEXTREL, DF_1_PIE = 2, 4, 0x08000000
STT_TLS, STT_GNU_IFUNC, STB_LOCAL, STB_WEAK, STB_GNU_UNIQUE = 6, 10, 0, 2, 10
VERSYM_HIDDEN = 0x8000

# By e_machine: the same kinds of relocations have the same names, those of x86-64.
RELOCATION_NAMES = {
    62: {0: "NONE", 1: "64", 2: "PC32", 5: "COPY", 6: "GLOB_DAT", 7: "JUMP_SLOT", 8: "RELATIVE",
         10: "32", 11: "32S", 12: "16", 13: "PC16", 14: "8", 15: "PC8", 16: "DTPMOD64",
         17: "DTPOFF64", 18: "TPOFF64", 24: "PC64", 32: "SIZE32", 33: "SIZE64", 36: "TLSDESC",
         37: "IRELATIVE", 38: "RELATIVE64"},
    183: {0: "NONE", 257: "64", 258: "32", 260: "PC64", 261: "PC32", 1024: "COPY", 1025: "GLOB_DAT",
          1026: "JUMP_SLOT", 1027: "RELATIVE", 1028: "DTPMOD64", 1029: "DTPOFF64", 1030: "TPOFF64",
          1031: "TLSDESC", 1032: "IRELATIVE"},
    243: {0: "NONE", 1: "32", 2: "64", 3: "RELATIVE", 4: "COPY", 5: "JUMP_SLOT", 7: "DTPMOD64",
          9: "DTPOFF64", 11: "TPOFF64", 12: "TLSDESC", 57: "PC32", 58: "IRELATIVE"},
    258: {0: "NONE", 1: "32", 2: "64", 3: "RELATIVE", 4: "COPY", 5: "JUMP_SLOT", 7: "DTPMOD64",
          9: "DTPOFF64", 11: "TPOFF64", 12: "IRELATIVE", 14: "TLSDESC", 99: "PC32", 109: "PC64"},
}  # fmt: skip


def relocation_numbers(machine: int) -> dict[str, int]:
    """Of the machine of this e_machine, by x86-64's names."""
    numbers = {name: number for number, name in RELOCATION_NAMES[machine].items()}
    numbers.setdefault("GLOB_DAT", numbers["64"])
    return numbers


# Bytes written at the place where not 8: psABI, table of relocation types.
RELOCATION_WIDTHS = {
    "PC32": 4, "32": 4, "32S": 4, "16": 2, "PC16": 2, "8": 1, "PC8": 1, "SIZE32": 4
}  # fmt: skip


class Segment(NamedTuple):
    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    align: int


class Relocation(NamedTuple):
    place: int
    type: int
    symbol: int
    addend: int


class Symbol(NamedTuple):
    name: str
    version: str  # "" without one
    hidden: bool  # the version is not the default one
    value: int
    size: int
    type: int
    binding: int
    section: int  # 0: undefined


@dataclass
class Elf:
    """One file.  ValueError when it is not an ELF64 little-endian file."""

    path: Path

    @cached_property
    def data(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{self.path} is not ELF64")
        return data

    @property
    def type(self) -> int:
        return int.from_bytes(self.data[16:18], "little")

    @property
    def machine(self) -> int:
        return int.from_bytes(self.data[18:20], "little")

    @cached_property
    def segments(self) -> list[Segment]:
        (table,) = struct.unpack_from("<Q", self.data, 32)
        size, count = struct.unpack_from("<HH", self.data, 54)
        found = []
        for index in range(count):
            type_, flags, offset, address, _, file_size, memory_size, align = struct.unpack_from(
                "<IIQQQQQQ", self.data, table + index * size
            )
            found.append(Segment(type_, flags, offset, address, file_size, memory_size, align))
        return found

    def segment(self, type_: int) -> Segment | None:
        return next((segment for segment in self.segments if segment.type == type_), None)

    def offset(self, address: int) -> int:
        """Where in the file the byte of this (unbiased) address is."""
        for segment in self.segments:
            if segment.type == PT_LOAD and 0 <= address - segment.address < segment.file_size:
                return address - segment.address + segment.offset
        raise ValueError(f"{self.path}: {address:#x} is not in the file")

    def is_writable(self, address: int) -> bool:
        return any(
            segment.type == PT_LOAD
            and segment.flags & PF_W
            and 0 <= address - segment.address < segment.memory_size
            for segment in self.segments
        )

    @cached_property
    def dynamic(self) -> list[tuple[int, int]]:
        segment = self.segment(PT_DYNAMIC)
        found: list[tuple[int, int]] = []
        if segment is not None and segment.file_size:
            content = self.data[segment.offset : segment.offset + segment.file_size]
            for tag, value in struct.iter_unpack("<qQ", content[: len(content) // 16 * 16]):
                if tag == 0:
                    break
                found.append((tag, value))
        return found

    @cached_property
    def tags(self) -> dict[int, int]:
        """The dynamic section without repeated entries (the last of each counts)."""
        return dict(self.dynamic)

    def string(self, offset: int) -> str:
        start = self.offset(self.tags[DT_STRTAB]) + offset
        return self.data[start : self.data.find(b"\0", start)].decode()

    @cached_property
    def needed(self) -> list[str]:
        return [self.string(value) for tag, value in self.dynamic if tag == DT_NEEDED]

    @property
    def soname(self) -> str | None:
        return self.string(self.tags[DT_SONAME]) if DT_SONAME in self.tags else None

    @cached_property
    def symbol_count(self) -> int:
        if DT_HASH in self.tags:
            start = self.offset(self.tags[DT_HASH])
            return int(struct.unpack_from("<I", self.data, start + 4)[0])
        if DT_GNU_HASH not in self.tags:
            return 0
        start = self.offset(self.tags[DT_GNU_HASH])
        buckets, first, bloom, _ = struct.unpack_from("<IIII", self.data, start)
        start += 16 + 8 * bloom
        last: int = max(struct.unpack_from(f"<{buckets}I", self.data, start), default=0)
        if last < first:
            # No exports: what is undefined is counted by who refers to it.
            used = [relocation.symbol for relocation in self.relocations]
            return max([int(first), *(symbol + 1 for symbol in used)])
        start += 4 * buckets
        while not struct.unpack_from("<I", self.data, start + 4 * (last - first))[0] & 1:
            last += 1
        return last + 1

    @cached_property
    def versions(self) -> dict[int, str]:
        """Version index -> name, of both the defined and the needed ones."""
        found: dict[int, str] = {}
        if DT_VERDEF in self.tags:
            at = self.offset(self.tags[DT_VERDEF])
            for _ in range(self.tags[DT_VERDEFNUM]):
                _, flags, index, _, _, aux, next_ = struct.unpack_from("<HHHHIII", self.data, at)
                (name,) = struct.unpack_from("<I", self.data, at + aux)
                if not flags & 1:  # VER_FLG_BASE: the file itself
                    found[index] = self.string(name)
                at += next_
        if DT_VERNEED in self.tags:
            at = self.offset(self.tags[DT_VERNEED])
            for _ in range(self.tags[DT_VERNEEDNUM]):
                _, count, _, aux, next_ = struct.unpack_from("<HHIII", self.data, at)
                entry = at + aux
                for _ in range(count):
                    _, _, other, name, following = struct.unpack_from("<IHHII", self.data, entry)
                    found[other & ~VERSYM_HIDDEN] = self.string(name)
                    entry += following
                at += next_
        return found

    @property
    def needs_private_libc(self) -> bool:
        """Whether only libc's own loader may load it: it uses libc's internal interface."""
        return "GLIBC_PRIVATE" in self.versions.values()

    @cached_property
    def symbols(self) -> list[Symbol]:
        """The dynamic symbol table."""
        count = self.symbol_count
        if not count:
            return []
        start = self.offset(self.tags[DT_SYMTAB])
        table = struct.iter_unpack("<IBBHQQ", self.data[start : start + 24 * count])
        strings = self.offset(self.tags[DT_STRTAB])
        versym: tuple[int, ...] = (1,) * count
        if DT_VERSYM in self.tags:
            at = self.offset(self.tags[DT_VERSYM])
            versym = struct.unpack_from(f"<{count}H", self.data, at)
        data, versions = self.data, self.versions
        found = []
        for (name, info, _, section, value, size), version in zip(table, versym, strict=True):
            at = strings + name
            text = data[at : data.find(b"\0", at)].decode()
            label = versions.get(version & ~VERSYM_HIDDEN, "")
            hidden = bool(version & VERSYM_HIDDEN)
            found.append(Symbol(text, label, hidden, value, size, info & 15, info >> 4, section))
        return found

    @cached_property
    def relr(self) -> list[int]:
        """The places of DT_RELR: an even word is a place, an odd one a bitmap of the next 63."""
        if DT_RELR not in self.tags:
            return []
        start = self.offset(self.tags[DT_RELR])
        places: list[int] = []
        base = 0
        for (word,) in struct.iter_unpack("<Q", self.data[start : start + self.tags[DT_RELRSZ]]):
            if word & 1:
                places += [base + 8 * bit for bit in range(63) if word >> (bit + 1) & 1]
                base += 8 * 63
            else:
                places.append(word)
                base = word + 8
        return places

    @cached_property
    def relocations(self) -> list[Relocation]:
        """DT_RELA, then DT_JMPREL, which GNU ld for RISC-V makes a part of the first."""
        found: list[Relocation] = []
        tags = self.tags
        for table, size in ((DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)):
            is_part = 0 <= tags.get(table, 0) - tags.get(DT_RELA, 0) < tags.get(DT_RELASZ, 0)
            if tags.get(size) and (table == DT_RELA or not is_part):
                start = self.offset(self.tags[table])
                content = self.data[start : start + self.tags[size]]
                found += [
                    Relocation(place, info & 0xFFFFFFFF, info >> 32, addend)
                    for place, info, addend in struct.iter_unpack("<QQq", content)
                ]
        return found

    @cached_property
    def _relocation_names(self) -> dict[int, str]:
        return RELOCATION_NAMES.get(self.machine, {})

    def relocation_name(self, relocation: Relocation) -> str:
        """Its kind; its number where that is of no kind that a linker leaves to the loader."""
        return self._relocation_names.get(relocation.type) or str(relocation.type)

    @property
    def relocation_names(self) -> set[str]:
        """Those that there are."""
        return {self.relocation_name(relocation) for relocation in self.relocations}

    @property
    def relocation_numbers(self) -> dict[str, int]:
        """Of its machine, by these names."""
        return relocation_numbers(self.machine)

    @property
    def is_symbolic(self) -> bool:
        return DT_SYMBOLIC in self.tags or bool(self.tags.get(DT_FLAGS, 0) & DF_SYMBOLIC)

    @property
    def has_textrel(self) -> bool:
        return DT_TEXTREL in self.tags or bool(self.tags.get(DT_FLAGS, 0) & DF_TEXTREL)

    @property
    def has_ifunc(self) -> bool:
        return "IRELATIVE" in self.relocation_names or any(
            symbol.type == STT_GNU_IFUNC and symbol.section for symbol in self.symbols
        )

    @property
    def has_unaligned_place(self) -> bool:
        return any(
            relocation.place % RELOCATION_WIDTHS.get(self.relocation_name(relocation), 8)
            for relocation in self.relocations
        )


def system_libraries(roots: list[Path]) -> Iterator[Elf]:
    """Each shared library (no program) of the machine under `roots`, once, in path order."""
    seen: set[tuple[int, int]] = set()
    for path in sorted(path for root in roots for path in root.rglob("*.so*")):
        if path.is_symlink() or not path.is_file():
            continue
        status = path.stat()
        if not status.st_size:
            continue
        elf = Elf(path)
        try:
            if (status.st_dev, status.st_ino) in seen or elf.type != 3:
                continue
            if elf.machine != machine().number:
                continue
        except ValueError:
            continue
        seen.add((status.st_dev, status.st_ino))
        if not elf.tags.get(DT_FLAGS_1, 0) & DF_1_PIE and elf.dynamic:
            yield elf
