"""A little-endian ELF64 file as named, editable fields: just enough to break one on purpose.

Field names are those of elf(5) and of the gABI.  Nothing is checked: writing nonsense is the point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EHDR = {
    "ei_mag": (0, 4), "ei_class": (4, 1), "ei_data": (5, 1), "ei_version": (6, 1),
    "ei_osabi": (7, 1), "ei_abiversion": (8, 1), "e_type": (16, 2), "e_machine": (18, 2),
    "e_version": (20, 4), "e_entry": (24, 8), "e_phoff": (32, 8), "e_shoff": (40, 8),
    "e_flags": (48, 4), "e_ehsize": (52, 2), "e_phentsize": (54, 2), "e_phnum": (56, 2),
    "e_shentsize": (58, 2), "e_shnum": (60, 2), "e_shstrndx": (62, 2),
}  # fmt: skip
PHDR = {
    "p_type": (0, 4), "p_flags": (4, 4), "p_offset": (8, 8), "p_vaddr": (16, 8),
    "p_paddr": (24, 8), "p_filesz": (32, 8), "p_memsz": (40, 8), "p_align": (48, 8),
}  # fmt: skip
DYN = {"d_tag": (0, 8), "d_val": (8, 8)}
SYM = {
    "st_name": (0, 4), "st_info": (4, 1), "st_other": (5, 1), "st_shndx": (6, 2),
    "st_value": (8, 8), "st_size": (16, 8),
}  # fmt: skip
SHDR = {
    "sh_name": (0, 4), "sh_type": (4, 4), "sh_flags": (8, 8), "sh_addr": (16, 8),
    "sh_offset": (24, 8), "sh_size": (32, 8),
}  # fmt: skip
RELA = {"r_offset": (0, 8), "r_type": (8, 4), "r_sym": (12, 4), "r_addend": (16, 8)}
VERNEED = {
    "vn_version": (0, 2), "vn_cnt": (2, 2), "vn_file": (4, 4), "vn_aux": (8, 4),
    "vn_next": (12, 4),
}  # fmt: skip
VERNAUX = {
    "vna_hash": (0, 4), "vna_flags": (4, 2), "vna_other": (6, 2), "vna_name": (8, 4),
    "vna_next": (12, 4),
}  # fmt: skip
VERDEF = {
    "vd_version": (0, 2), "vd_flags": (2, 2), "vd_ndx": (4, 2), "vd_cnt": (6, 2),
    "vd_hash": (8, 4), "vd_aux": (12, 4), "vd_next": (16, 4),
}  # fmt: skip
VERDAUX = {"vda_name": (0, 4), "vda_next": (4, 4)}

PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_TLS, PT_GNU_STACK, PT_GNU_RELRO = (
    1, 2, 4, 7, 0x6474E551, 0x6474E552,
)  # fmt: skip
PF_X, PF_W, PF_R = 1, 2, 4

TAGS = {
    "NULL": 0, "NEEDED": 1, "PLTRELSZ": 2, "PLTGOT": 3, "HASH": 4, "STRTAB": 5, "SYMTAB": 6,
    "RELA": 7, "RELASZ": 8, "RELAENT": 9, "STRSZ": 10, "SYMENT": 11, "INIT": 12, "FINI": 13,
    "SONAME": 14, "RPATH": 15, "SYMBOLIC": 16, "REL": 17, "RELSZ": 18, "PLTREL": 20,
    "TEXTREL": 22, "JMPREL": 23, "BIND_NOW": 24, "INIT_ARRAY": 25, "FINI_ARRAY": 26,
    "INIT_ARRAYSZ": 27, "FINI_ARRAYSZ": 28, "RUNPATH": 29, "FLAGS": 30, "RELRSZ": 35, "RELR": 36,
    "RELRENT": 37, "GNU_HASH": 0x6FFFFEF5, "VERSYM": 0x6FFFFFF0, "RELACOUNT": 0x6FFFFFF9,
    "FLAGS_1": 0x6FFFFFFB, "VERDEF": 0x6FFFFFFC, "VERDEFNUM": 0x6FFFFFFD, "VERNEED": 0x6FFFFFFE,
    "VERNEEDNUM": 0x6FFFFFFF,
}  # fmt: skip
TAG_NAMES = {tag: name for name, tag in TAGS.items()}


class Field(NamedTuple):
    """Where one integer of the file is: `offset` and `size` in bytes."""

    name: str
    offset: int
    size: int


class Elf:
    """An ELF file; `data` is its content, changed in place by `put`."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def get(self, field: Field) -> int:
        return int.from_bytes(self.data[field.offset : field.offset + field.size], "little")

    def put(self, field: Field, value: int) -> None:
        """Store the low bits of `value`; a field past the end of the file is the rule's error."""
        if field.offset + field.size > len(self.data):
            raise ValueError(f"{field} is not in the file")
        low = value & ((1 << 8 * field.size) - 1)
        self.data[field.offset : field.offset + field.size] = low.to_bytes(field.size, "little")

    def changed(self, *changes: tuple[Field, int]) -> bytes:
        """The content with some fields set; this object stays as it is."""
        copy = Elf(bytes(self.data))
        for field, value in changes:
            copy.put(field, value)
        return bytes(copy.data)

    # Structures: each gives the fields of one record.

    def record(
        self, layout: Mapping[str, tuple[int, int]], offset: int, label: str = ""
    ) -> dict[str, Field]:
        return {name: Field(label + name, offset + at, size) for name, (at, size) in layout.items()}

    def words(self, offset: int, count: int, size: int, label: str) -> list[Field]:
        return [Field(f"{label}[{i}]", offset + i * size, size) for i in range(count)]

    @property
    def header(self) -> dict[str, Field]:
        return self.record(EHDR, 0)

    def program_headers(self) -> list[dict[str, Field]]:
        start, count = self.get(self.header["e_phoff"]), self.get(self.header["e_phnum"])
        return [self.record(PHDR, start + 56 * i, f"phdr[{i}].") for i in range(count)]

    def segments(self, kind: int) -> list[dict[str, Field]]:
        return [ph for ph in self.program_headers() if self.get(ph["p_type"]) == kind]

    def dynamic(self) -> Iterator[tuple[str, dict[str, Field]]]:
        """Each entry up to and with DT_NULL: its tag's name without DT_, its fields."""
        offset = self.get(self.segments(PT_DYNAMIC)[0]["p_offset"])
        while True:
            entry = self.record(DYN, offset)
            tag = self.get(entry["d_tag"])
            name = TAG_NAMES.get(tag, hex(tag))
            yield name, self.record(DYN, offset, f"DT_{name}.")
            if tag == 0:
                return
            offset += 16

    def tag(self, name: str) -> Field | None:
        """The d_val field of the first entry of that name."""
        return next((entry["d_val"] for found, entry in self.dynamic() if found == name), None)

    def value(self, name: str, default: int = 0) -> int:
        field = self.tag(name)
        return default if field is None else self.get(field)

    def offset_of(self, address: int) -> int:
        """The file offset of an address (p_vaddr) that has bytes in the file."""
        for ph in self.segments(PT_LOAD):
            start, size = self.get(ph["p_vaddr"]), self.get(ph["p_filesz"])
            if start <= address < start + size:
                return address - start + self.get(ph["p_offset"])
        raise ValueError(f"no file content at {address:#x}")

    def table(self, tag: str) -> int | None:
        """The file offset of the table that a DT_ pointer names, if there is one."""
        field = self.tag(tag)
        return None if field is None else self.offset_of(self.get(field))

    def relocations(self, tag: str = "RELA", size: str = "RELASZ") -> list[dict[str, Field]]:
        start = self.table(tag)
        if start is None:
            return []
        return [
            self.record(RELA, start + 24 * i, f"{tag}[{i}].") for i in range(self.value(size) // 24)
        ]

    def symbol_count(self) -> int:
        """DT_HASH's nchain, or the end of the last chain of DT_GNU_HASH."""
        if (start := self.table("HASH")) is not None:
            return self.get(Field("nchain", start + 4, 4))
        gnu = self.gnu_hash()
        last = max(self.get(bucket) for bucket in gnu.buckets)
        if last == 0:
            return self.get(gnu.symoffset)
        while not self.get(Field("", gnu.chain + 4 * (last - self.get(gnu.symoffset)), 4)) & 1:
            last += 1
        return last + 1

    def symbols(self) -> list[dict[str, Field]]:
        start = self.table("SYMTAB")
        assert start is not None
        return [
            self.record(SYM, start + 24 * i, f"symbol[{i}].") for i in range(self.symbol_count())
        ]

    def string(self, field: Field) -> str:
        """What an index into the dynamic string table means."""
        start = self.table("STRTAB")
        assert start is not None
        start += self.get(field)
        return self.data[start : self.data.index(0, start)].decode()

    def symbol_named(self, name: str) -> dict[str, Field]:
        return next(one for one in self.symbols() if self.string(one["st_name"]) == name)

    def gnu_hash(self) -> GnuHash:
        start = self.table("GNU_HASH")
        assert start is not None
        nbuckets, symoffset, bloom_size, shift = self.words(start, 4, 4, "GNU_HASH.header")
        bloom = start + 16
        buckets = bloom + 8 * self.get(bloom_size)
        return GnuHash(
            nbuckets._replace(name="GNU_HASH.nbuckets"),
            symoffset._replace(name="GNU_HASH.symoffset"),
            bloom_size._replace(name="GNU_HASH.bloom_size"),
            shift._replace(name="GNU_HASH.bloom_shift"),
            self.words(bloom, self.get(bloom_size), 8, "GNU_HASH.bloom"),
            self.words(buckets, self.get(nbuckets), 4, "GNU_HASH.bucket"),
            buckets + 4 * self.get(nbuckets),
        )

    def version_records(self) -> Iterator[dict[str, Field]]:
        """The records of verneed and verdef, each followed by its auxiliary ones."""
        for tag, layout, aux_layout, prefix, aux_prefix in (
            ("VERNEED", VERNEED, VERNAUX, "vn", "vna"),
            ("VERDEF", VERDEF, VERDAUX, "vd", "vda"),
        ):
            offset = self.table(tag)
            for i in range(self.value(tag + "NUM")):
                assert offset is not None
                record = self.record(layout, offset, f"{tag}[{i}].")
                yield record
                aux_offset = offset + self.get(record[prefix + "_aux"])
                for j in range(self.get(record[prefix + "_cnt"])):
                    aux = self.record(aux_layout, aux_offset, f"{tag}[{i}].aux[{j}].")
                    yield aux
                    aux_offset += self.get(aux[aux_prefix + "_next"])
                offset += self.get(record[prefix + "_next"])

    @property
    def memory_end(self) -> int:
        return max(
            self.get(ph["p_vaddr"]) + self.get(ph["p_memsz"]) for ph in self.segments(PT_LOAD)
        )

    @property
    def file_end(self) -> int:
        """The end of the last byte that any PT_LOAD needs: what follows is never loaded."""
        return max(
            self.get(ph["p_offset"]) + self.get(ph["p_filesz"]) for ph in self.segments(PT_LOAD)
        )

    def has_segment(self, address: int, flags: int) -> bool:
        return any(
            self.get(ph["p_flags"]) & flags == flags
            and self.get(ph["p_vaddr"])
            <= address
            < self.get(ph["p_vaddr"]) + self.get(ph["p_memsz"])
            for ph in self.segments(PT_LOAD)
        )


class GnuHash(NamedTuple):
    """DT_GNU_HASH: four header words, bloom filter, buckets, and the chain's file offset."""

    nbuckets: Field
    symoffset: Field
    bloom_size: Field
    bloom_shift: Field
    bloom: Sequence[Field]
    buckets: Sequence[Field]
    chain: int


# What `Mover` moves, by how it must lie: the linker fills the second kind.
READ_ONLY = (
    "HASH", "GNU_HASH", "SYMTAB", "STRTAB", "VERSYM", "VERNEED", "VERDEF", "RELA", "JMPREL", "RELR",
)  # fmt: skip
RELOCATED = ("INIT_ARRAY", "FINI_ARRAY")
OTHERS = ("DYNAMIC", "program headers", "notes")


class Mover:
    """Moves tables of a file, which a linker has written, to other addresses in it."""

    def __init__(self, elf: Elf, room: int, writable_room: int) -> None:
        self.elf = elf
        self._room = {False: room + 64, True: writable_room + 64}

    def move(self, what: str, odd: int) -> None:
        """One of the tables, to `odd` bytes above a multiple of eight."""
        elf = self.elf
        if what == "program headers":
            start, size = elf.get(elf.header["e_phoff"]), 56 * elf.get(elf.header["e_phnum"])
            address = self._take_room(size, odd)
            self._copy(start, size, address)
            elf.put(elf.header["e_phoff"], elf.offset_of(address))
        elif what in ("DYNAMIC", "notes"):
            for segment in elf.segments(PT_DYNAMIC if what == "DYNAMIC" else PT_NOTE):
                start, size = elf.get(segment["p_offset"]), elf.get(segment["p_filesz"])
                address = self._take_room(size, odd, writable=what == "DYNAMIC")
                self._copy(start, size, address)
                elf.put(segment["p_offset"], elf.offset_of(address))
                elf.put(segment["p_vaddr"], address)
        else:
            if what in ("RELA", "JMPREL"):
                self._part_relocations()
            field = elf.tag(what)
            assert field
            old = elf.get(field)
            size = self._size_of_section(old)
            address = self._take_room(size, odd, writable=what in RELOCATED)
            self._copy(elf.offset_of(old), size, address)
            for record in elf.relocations() if what in RELOCATED else ():
                place = elf.get(record["r_offset"])
                if old <= place < old + size:
                    elf.put(record["r_offset"], place + address - old)
            elf.put(field, address)

    def _part_relocations(self) -> None:
        """RISC-V's linker counts those of the PLT in DT_RELASZ, too."""
        elf = self.elf
        table, size = elf.value("RELA"), elf.tag("RELASZ")
        own, plt = elf.value("JMPREL"), elf.value("PLTRELSZ")
        if size and table + elf.get(size) == own + plt:
            elf.put(size, elf.get(size) - plt)

    def _size_of_section(self, address: int) -> int:
        elf = self.elf
        start, size, count = (
            elf.get(elf.header[name]) for name in ("e_shoff", "e_shentsize", "e_shnum")
        )
        sections = (elf.record(SHDR, start + size * i) for i in range(1, count))
        return next(
            elf.get(one["sh_size"]) for one in sections if elf.get(one["sh_addr"]) == address
        )

    def _take_room(self, size: int, odd: int, *, writable: bool = False) -> int:
        start = (self._room[writable] + 7 & ~7) + odd
        self._room[writable] = start + size
        return start

    def _copy(self, start: int, size: int, address: int) -> None:
        to = self.elf.offset_of(address)
        self.elf.data[to : to + size] = self.elf.data[start : start + size]
