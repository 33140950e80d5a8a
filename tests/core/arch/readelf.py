"""What readelf(1) says of a library, and the same of an image that is mapped here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import dlopen
from support.elf64 import DT_GNU_HASH, DT_HASH, Elf
from support.fixtures import need_tool

# The psABIs' names of what a linker leaves to the loader, without the machine's. All others are
# types that only the linker knows, or of another word size.
KINDS = {
    "NONE": "NONE",
    "RELATIVE": "RELATIVE",
    "RELATIVE64": "RELATIVE",
    "64": "SYMBOLIC",
    "32": "SYMBOLIC",
    "ABS64": "SYMBOLIC",
    "ABS32": "SYMBOLIC",
    "GLOB_DAT": "GLOB_DAT",
    "JUMP_SLOT": "JUMP_SLOT",
    "COPY": "COPY",
    "IRELATIVE": "IRELATIVE",
    "DTPMOD64": "DTPMOD",
    "TLS_DTPMOD64": "DTPMOD",
    "DTPOFF64": "DTPOFF",
    "TLS_DTPREL64": "DTPOFF",
    "TPOFF64": "TPOFF",
    "TLS_TPREL64": "TPOFF",
    "TLSDESC": "TLSDESC",
    "TLS_DESC64": "TLSDESC",
    "SIZE32": "SIZE",
    "SIZE64": "SIZE",
    "PC32": "PC_RELATIVE",
    "PC64": "PC_RELATIVE",
    "PREL32": "PC_RELATIVE",
    "PREL64": "PC_RELATIVE",
    "32_PCREL": "PC_RELATIVE",
    "64_PCREL": "PC_RELATIVE",
}
_PREFIX = re.compile(r"R_(?:X86_64|AARCH64|RISCV|LARCH)_")
MACHINES = {62: "x86-64", 183: "AArch64", 243: "RISC-V", 258: "LoongArch"}


class Relocation(NamedTuple):
    place: int
    type: int
    kind: str
    symbol: str  # "name", "name@VERSION"
    addend: int


class Symbol(NamedTuple):
    key: str  # "name", "name@VERSION"; of the default version "name"
    version: str
    value: int | None  # None: what the address is, is decided when it is asked for
    size: int
    type: str
    binding: str


class Library(NamedTuple):
    machine: str
    needed: tuple[str, ...]
    soname: str | None
    runpath: str | None
    versions: frozenset[tuple[str, str | None, int]]  # name, library that it is needed from, index
    symbols: frozenset[Symbol]
    symbol_count: int
    relocations: tuple[Relocation, ...]


def ask(path: Path, *options: str) -> str:
    """Readelf's answer, in English; what it only warns of is no matter here."""
    command = [need_tool("readelf"), "-W", *options, str(path)]
    done = subprocess.run(
        command, capture_output=True, env={"LC_ALL": "C"}, encoding="utf-8", check=True
    )
    return done.stdout


def kind_of(name: str) -> str:
    """A type as readelf prints it, which cuts off what does not fit in."""
    short = _PREFIX.sub("", name)
    for whole, kind in KINDS.items():
        if short == whole or (len(name) >= 17 and whole.startswith(short)):
            return kind
    return "UNKNOWN"


def relocations(path: Path) -> tuple[Relocation, ...]:
    """RELR, DT_RELA and DT_JMPREL."""
    found: list[Relocation] = []
    in_relr = False
    for line in ask(path, "-r").splitlines():
        if "relocation section" in line.lower():
            in_relr = ".relr" in line
        elif in_relr and re.fullmatch(r"[0-9a-f]{16}", line.strip()):
            found.append(Relocation(int(line, 16), -1, "RELATIVE", "", 0))
        elif match := re.match(
            r"([0-9a-f]{16})  ([0-9a-f]{16}) (R_\w+|unrecognized: \w+)(.*)", line
        ):
            place, info, name, rest = match.groups()
            symbol, addend = "", 0
            # Of an IFUNC, which has no value yet, it prints the name of the resolver.
            if target := re.match(r"\s+(?:[0-9a-f]{16}|\S*\(\)) (.*) ([+-]) ([0-9a-f]+)$", rest):
                symbol = target[1].replace("@@", "@")
                addend = int(target[2] + target[3], 16)
            elif number := re.match(r"\s+(-?[0-9a-f]+)$", rest):
                addend = int(number[1], 16)
            type_ = int(info, 16) & 0xFFFFFFFF
            kind = kind_of(name) if name.startswith("R_") else "?"
            found.append(Relocation(int(place, 16), type_, kind, symbol, signed(addend)))
    return tuple(sorted(found, key=lambda one: one.type != -1))


def signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def symbols(path: Path) -> tuple[frozenset[Symbol], int]:
    """The exports, and how many symbols there are."""
    found = set()
    count = 0
    first = first_hashed(path)
    defined = {name for name, library, _ in versions(path) if library is None}
    # That of a file which does not say that it has GNU's bindings (EI_OSABI).
    text = ask(path, "--dyn-syms").replace("<OS specific>: 10", "UNIQUE")
    for line in text.splitlines():
        match = re.match(
            r"\s*(\d+): ([0-9a-f]+)\s+(\w+) (\S+)\s+(\S+)\s+(\S+)(?:\s+\[.*\])?\s+(\S+) ?(.*)$",
            line,
        )
        if not match:
            continue
        number, value, size, type_, binding, visibility, section, name = match.groups()
        count = int(number) + 1
        name = re.sub(r" \(\d+\)$", "", name)
        if section == "UND" or binding == "LOCAL" or visibility not in ("DEFAULT", "PROTECTED"):
            continue
        if type_ in ("SECTION", "FILE") or not name or int(number) < first:
            continue
        plain, at, version = name.partition("@")
        is_default = not at or version.startswith("@")
        # That which stands for a version itself it prints without.
        version = name if section == "ABS" and name in defined else version.removeprefix("@")
        address = None if type_ in ("TLS", "IFUNC") else int(value, 16)
        found.add(
            Symbol(
                plain if is_default else f"{plain}@{version}",
                version, address, int(size, 0), type_, binding,
            )
        )  # fmt: skip
    return frozenset(found), count


def first_hashed(path: Path) -> int:
    """Symbols before this one are in no hash table, and so found by nobody."""
    file = Elf(path)
    if DT_GNU_HASH not in file.tags or DT_HASH in file.tags:
        return 0
    start = file.offset(file.tags[DT_GNU_HASH]) + 4
    return int.from_bytes(file.data[start : start + 4], "little")


def versions(path: Path) -> frozenset[tuple[str, str | None, int]]:
    found: set[tuple[str, str | None, int]] = set()
    library = None
    for line in ask(path, "-V").splitlines():
        if match := re.search(r"Rev: \d+  Flags: .*  Index: (\d+)  Cnt: \d+  Name: (\S+)", line):
            found.add((match[2], None, int(match[1])))
        elif match := re.search(r"Version: \d+  File: (\S+)  Cnt:", line):
            library = match[1]
        elif match := re.search(r"Name: (\S+)  Flags: .*  Version: (\d+)", line):
            found.add((match[1], library, int(match[2])))
    return frozenset(found)


def as_readelf_says(path: Path) -> Library:
    def entries(tag: str) -> list[str]:
        return re.findall(rf"\({tag}\)\s+.*?: \[(.*)\]$", dynamic, re.MULTILINE)

    dynamic = ask(path, "-d")
    exports, count = symbols(path)
    return Library(
        MACHINES[int.from_bytes(path.read_bytes()[18:20], "little")],
        tuple(entries("NEEDED")),
        next(iter(entries("SONAME")), None),
        next(iter(entries("RUNPATH")), None),
        versions(path),
        exports,
        count,
        relocations(path),
    )


def relocations_of(info: dlopen.Info) -> tuple[Relocation, ...]:
    def name(relocation: dlopen.Relocation) -> str:
        version = f"@{relocation.version}" if relocation.version else ""
        return (relocation.symbol or "") + version

    return tuple(
        Relocation(
            one.place - info.load_bias, -1 if one.table == "RELR" else one.type, one.kind,
            name(one), one.addend,
        )
        for one in info.relocations
    )  # fmt: skip


def as_mapped(path: Path) -> Library:
    with dlopen.Image(path) as image:
        info = image.info
        exports = set()
        for key in image.symbols:
            # Those that are in no hash table are listed, and found by nobody.
            if key not in image.symbols:
                continue
            symbol = image.symbols[key]
            address = None
            if symbol.type not in ("TLS", "IFUNC"):
                # That of an absolute symbol (SHN_ABS) is not the process's.
                bias = info.load_bias if symbol.address >= info.map_start else 0
                address = symbol.address - bias
            exports.add(
                Symbol(key, symbol.version, address, symbol.size, symbol.type, symbol.binding)
            )
        return Library(
            info.machine,
            info.needed,
            info.soname,
            info.runpath,
            frozenset((one.name, one.library, one.index) for one in info.versions),
            frozenset(exports),
            info.symbol_count,
            relocations_of(info),
        )
