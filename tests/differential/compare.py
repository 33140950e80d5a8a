"""Every relocated place of a library and its dependencies, under glibc and under this linker.

And every word of their dynamic sections. Both processes run driver.c, which shows memory and knows
nothing of relocations; the places come from the files. A word is compared by what it means: the
file that it points into and the offset there, which for a symbol is its definition. In
thread-local storage that is the file whose storage it is, and the offset in its PT_TLS: module
ids, distances from the thread pointer and what descriptors give are looked up in what the driver
says of this thread's blocks.
"""

from __future__ import annotations

import bisect
import os
import re
import struct
import subprocess
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from support import elf64
from support.elf64 import Elf, Relocation
from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# One of each in a process, always the host's: their words are not this linker's work.
HOST_FAMILY = frozenset({
    "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "ld-linux-riscv64-lp64d.so.1",
    "ld-linux-loongarch-lp64d.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6",
    "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libresolv.so.2",
})  # fmt: skip

# What differs by nature: symbols that are this linker's own in every image that it loads, because
# glibc's answer would know nothing of those images.
OURS_BY_NATURE = {
    **dict.fromkeys(
        ("dlopen", "dlmopen", "dlclose", "dlsym", "dlvsym", "dlerror", "dlinfo"),
        "handles of the two linkers are not interchangeable",
    ),
    **dict.fromkeys(
        ("dladdr", "dladdr1", "dl_iterate_phdr", "_dl_find_object"),
        "glibc's would not find images that glibc did not load",
    ),
    "__tls_get_addr": "module ids of this linker's images are not glibc's",
    **dict.fromkeys(
        ("__cxa_thread_atexit", "__cxa_thread_atexit_impl"),
        "glibc's would not keep an image loaded for its thread_local objects",
    ),
}

# An image that is there under this linker only (core/tls/donor.pxd).
DONOR = re.compile(r"/proc/\d+/fd/")
DONOR_REASON = "static TLS is had from glibc, which is given a library made for that"
ALLOCATED_REASON = "the library's own constructors have put an address of their memory there"
# As what was on the stack: UCX keeps the sa_restorer of a sigaction(2), which RISC-V does not have.
OVERWRITTEN_REASON = "the library's own constructors have put something else there, in both"
LAZY_REASON = "a plugin's call, which is bound when a constructor or its thread comes to make it"
# glibc does not know its own file again when that is opened by path.
ONCE_REASON = "libc's own libraries are never loaded a second time"

# Types that glibc resolves when it loads a library.
TLS_TYPES = frozenset({"DTPMOD64", "DTPOFF64", "TPOFF64", "TLSDESC"})
_OF_A_MACHINE = {
    "x86_64": {"GLOB_DAT", "TLSDESC", "PC32", "32", "SIZE32", "SIZE64"},
    "aarch64": {"GLOB_DAT", "TLSDESC"},
    "riscv64": set(),
    "loongarch64": {"TLSDESC"},
}
COMPARED_TYPES = frozenset({
    "64", "JUMP_SLOT", "RELATIVE", "IRELATIVE", "DTPMOD64", "DTPOFF64", "TPOFF64",
    *_OF_A_MACHINE[machine().name],
})  # fmt: skip
HUGE_LEAST = 0x80000  # src/dlopen/core/base/allocator.pxd
RELR = "RELR"
RELATIVE_TYPES = ("RELATIVE", RELR)
DYNAMIC = "DYNAMIC"  # a word of the dynamic section: no relocation's, but glibc changes some
OTHER = "a number"  # a size
IN_A_BLOCK = ", copied for a thread"
REPORTED_TYPES = sorted(
    [RELR, DYNAMIC, *COMPARED_TYPES, *(f"{name}{IN_A_BLOCK}" for name in ("64", "RELATIVE"))]
)
_MASK = (1 << 64) - 1
# An emulator takes longer; big libraries have the most of it.
TIMEOUT = 600 if machine().is_foreign else 60


# Of all of a system's libraries only so many are kept open and in memory.
@lru_cache(maxsize=400)
def open_elf(path: str) -> Elf:
    return Elf(Path(path))


@lru_cache(maxsize=400)
def definitions(path: str) -> dict[str, list[elf64.Symbol]]:
    found: dict[str, list[elf64.Symbol]] = defaultdict(list)
    for symbol in open_elf(path).symbols:
        if symbol.section:
            found[symbol.name].append(symbol)
    return found


@cache
def descriptors(path: str) -> list[int]:
    """Where a library has descriptors of thread-local storage."""
    elf = open_elf(path)
    return [one.place for one in elf.relocations if elf.relocation_name(one) == "TLSDESC"]


@cache
def is_host(path: str) -> bool:
    """Whether a library is left to glibc's loader by design."""
    elf = open_elf(path)
    return not HOST_FAMILY.isdisjoint((elf.path.name, elf.soname)) or elf.needs_private_libc


@dataclass
class Image:
    """One loaded file, as one driver process saw it."""

    bias: int
    path: str  # real path; a name without a slash for what is no file
    is_new: bool
    shown: str = ""  # the path as the driver has it
    memory: list[tuple[int, bytes]] = field(default_factory=list)
    module: int = 0  # of its thread-local storage; 0: none
    block: int = 0  # where this thread has it
    content: bytes = b""  # of that, as far as the file gives it
    descriptors: dict[int, int] = field(default_factory=dict)  # place: distance it resolves to

    @cached_property
    def tls(self) -> elf64.Segment | None:
        return open_elf(self.path).segment(elf64.PT_TLS)

    def bytes_at(self, address: int, size: int) -> bytes | None:
        for start, content in self.memory:
            if start <= address and address + size <= start + len(content):
                return content[address - start : address - start + size]
        return None


@dataclass
class Dump:
    """What one driver process showed."""

    images: list[Image]
    maps: list[str]
    errors: dict[int, str]  # by the step's index
    thread: int = 0  # the thread pointer
    donors: list[Image] = field(default_factory=list)
    found: dict[int, str] = field(default_factory=dict)  # where DLOPEN_find says it comes from
    opened: dict[int, str] = field(default_factory=dict)  # what DLOPEN_open opened
    left: set[str] | None = None  # images that stayed when all was closed; None: it crashed
    trace: str = ""  # what the libraries wrote to standard error

    @classmethod
    def parse(cls, data: bytes) -> Dump:
        images: list[Image] = []
        maps: list[str] = []
        by_index: dict[str, dict[int, str]] = {"error": {}, "found": {}, "opened": {}}
        left: set[str] = set()
        thread = 0
        closed = False
        at = 0
        while at < len(data):
            end = data.index(b"\n", at)
            kind, _, rest = data[at:end].decode().partition(" ")
            at = end + 1
            if kind == "end":
                pass
            elif kind == "closed":
                closed = True
            elif kind == "left":
                left.add(machine().file(rest))
            elif kind in by_index:
                index, _, text = rest.partition(" ")
                by_index[kind][int(index)] = text if kind == "error" else machine().file(text)
            elif kind in ("host", "image"):
                bias, _, path = rest.partition(" ")
                images.append(Image(int(bias, 16), machine().file(path), kind == "image", path))
            elif kind == "thread":
                thread = int(rest, 16)
            elif kind == "tls":
                image = images[-1]
                image.module, image.block, size = (int(number, 16) for number in rest.split())
                image.content = data[at : at + size]
                at += size + 1
            elif kind == "descriptor":
                place, distance = (int(number, 16) for number in rest.split())
                images[-1].descriptors[place] = distance
            elif kind == "memory":
                address, size = (int(number, 16) for number in rest.split())
                images[-1].memory.append((address, data[at : at + size]))
                at += size + 1
            elif kind == "maps":
                size = int(rest, 16)
                maps = data[at : at + size].decode(errors="replace").splitlines()
                at += size + 1
            else:
                raise ValueError(f"driver said {kind} {rest}")
        error, found, opened = by_index.values()
        donors = [image for image in images if DONOR.match(image.path)]
        images = [image for image in images if not DONOR.match(image.path)]
        return cls(images, maps, error, thread, donors, found, opened, left if closed else None)

    @cached_property
    def error(self) -> str | None:
        return next(iter(self.errors.values()), None)

    @cached_property
    def new(self) -> dict[str, Image]:
        """What this open loaded and glibc need not have loaded, by real path."""
        return {image.path: image for image in self.images if image.is_new}

    @cached_property
    def hosts(self) -> set[str]:
        return {image.path for image in self.images if not image.is_new}

    @cached_property
    def _ranges(self) -> list[tuple[int, int, Image]]:
        found = []
        for image in self.images:
            if "/" not in image.path:
                continue
            loads = [s for s in open_elf(image.path).segments if s.type == elf64.PT_LOAD]
            start = min(load.address for load in loads)
            end = max(load.address + load.memory_size for load in loads)
            found.append((image.bias + start, image.bias + end, image))
        for line in self.maps:
            if line.endswith("[vdso]"):  # where time and gettimeofday resolve to
                start, end = (int(address, 16) for address in line.split()[0].split("-"))
                found.append((start, end, Image(start, "[vdso]", False)))
        return sorted(found, key=lambda item: item[:2])

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _, _ in self._ranges]

    def locate(self, word: int) -> tuple[str, int] | None:
        """The file that an address belongs to and the offset from its load bias.

        One past the end still belongs to it (`_end`, the end of an array).
        """
        index = bisect.bisect_right(self._starts, word) - 1
        if index >= 0:
            _, end, image = self._ranges[index]
            if word <= end:
                return image.path, word - image.bias
        return None

    def storage(self, module: int) -> Image | None:
        """The image that a module id stands for."""
        return next((one for one in self.images if module and one.module == module), None)

    def locate_variable(self, distance: int) -> tuple[Image, int] | None:
        """The image that what is so far from the thread pointer belongs to, and the offset.

        One past the end still belongs to it, unless it is another one's beginning.
        """
        address = (self.thread + distance) & _MASK
        at_end = None
        for image in self.images:
            if image.module and image.tls:
                offset = address - image.block
                if 0 <= offset < image.tls.memory_size:
                    return image, offset
                if offset == image.tls.memory_size:
                    at_end = image, offset
        return at_end

    def is_allocated(self, word: int) -> bool:
        """Whether an address lies in memory that no file is mapped to, nor a stack."""
        first = bisect.bisect_right(self._mappings, word, key=itemgetter(1))
        for low, _, permissions, inode, name in self._mappings[first : first + 1]:
            return (
                low <= word
                and permissions.startswith("rw")
                and inode == 0
                and name in ("", "[heap]")
                and self.locate(word) is None
            )
        return False

    def protection(self, image: Image) -> list[tuple[int, int, str, int]]:
        """(offset from the bias, end, permissions, inode) over the pages of PT_LOADs.

        Much data has no inode: this linker copies it into huge pages.
        """
        loads = [one for one in open_elf(image.path).segments if one.type == elf64.PT_LOAD]
        written = [one for one in loads if one.flags & elf64.PF_W]
        copied = written if sum(one.file_size for one in written) >= HUGE_LEAST else []
        spans = []
        for segment in loads:
            start = image.bias + segment.address
            end = (start + segment.memory_size + 4095) & -4096
            spans.append((start & -4096, end, segment not in copied))
        found: list[tuple[int, int, str, int]] = []
        first = bisect.bisect_right(self._mappings, spans[0][0], key=itemgetter(1))
        for low, high, permissions, inode, _ in self._mappings[first:]:
            if low >= spans[-1][1]:
                break
            for start, end, has_inode in spans:
                if low < end and start < high:
                    part = (max(low, start) - image.bias, min(high, end) - image.bias)
                    last = found[-1] if found else None
                    of_file = (permissions, inode if has_inode else 0)
                    if last and last[1:] == (part[0], *of_file):
                        found[-1] = (last[0], part[1], *of_file)
                    else:
                        found.append((*part, *of_file))
        return found

    @cached_property
    def _mappings(self) -> list[tuple[int, int, str, int, str]]:
        found = []
        for line in self.maps:
            span, permissions, _, _, inode, *name = line.split(maxsplit=5)
            low, high = (int(address, 16) for address in span.split("-"))
            found.append((low, high, permissions, int(inode), "".join(name)))
        return found


def run_driver(
    driver: Path,
    loader: str,
    *steps: str,
    timeout: float = TIMEOUT,
    cwd: Path = Path("/"),
    env: Mapping[str, str] | None = None,
) -> Dump:
    """Carry out driver.c's steps in a process of its own; a crash is an error like any other."""
    words, environment = machine().run(str(driver), os.environ, env or {})
    try:
        done = subprocess.run(
            [*words, driver, loader, *steps],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
            cwd=cwd,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Dump([], [], {-1: f"no end after {timeout} s"})
    if b"\nend\n" not in done.stdout:
        return Dump([], [], {-1: f"driver ended with status {done.returncode}"})
    dump = Dump.parse(done.stdout)
    dump.trace = done.stderr.decode(errors="replace")
    return dump


@dataclass(frozen=True)
class Difference:
    library: str  # that was opened
    image: str  # that holds the place
    place: int  # 0: the image itself
    type: str
    symbol: str
    glibc: str
    ours: str

    def __str__(self) -> str:
        return (
            f"{self.library}: {self.image} +{self.place:#x} {self.type} {self.symbol}:"
            f" {self.glibc} under glibc, {self.ours} here"
        )


@dataclass
class Comparison:
    """The result for one library."""

    library: str
    images: int = 0
    places: Counter[str] = field(default_factory=Counter)  # by relocation type
    bound: Counter[str] = field(default_factory=Counter)  # places with a symbol, by what they got
    by_nature: Counter[str] = field(default_factory=Counter)  # by reason
    refused: str = ""  # why both linkers refuse it, or this one does by design
    differences: list[Difference] = field(default_factory=list)


def relocated_places(elf: Elf) -> Iterator[tuple[str, Relocation]]:
    """Each place with the name of its type, and each word of the dynamic section.

    Where no relocation has the place its type is 0. For DT_RELR the addend is what the file has
    there, in that section the tag of the entry.
    """
    section = elf.segment(elf64.PT_DYNAMIC)
    if section and elf.is_writable(section.address):
        for place in range(section.address, section.address + section.file_size - 15, 16):
            (tag,) = struct.unpack_from("<Q", elf.data, elf.offset(place))
            yield DYNAMIC, Relocation(place, 0, 0, tag)
            yield DYNAMIC, Relocation(place + 8, 0, 0, tag)
    for place in elf.relr:
        (addend,) = struct.unpack_from("<Q", elf.data, elf.offset(place))
        yield RELR, Relocation(place, 0, 0, addend)
    for relocation in elf.relocations:
        if relocation.type:
            yield elf.relocation_name(relocation), relocation


@dataclass
class Relatives:
    """The RELATIVE places of one segment that are looked at all at once: they are so many."""

    segment: elf64.Segment
    places: list[tuple[str, Relocation]] = field(default_factory=list)

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(name for name, _ in self.places)

    @cached_property
    def _indices(self) -> list[int]:
        return [(one.place - self.segment.address) // 8 for _, one in self.places]

    @cached_property
    def _addends(self) -> list[int]:
        return [one.addend for _, one in self.places]

    def all_as_told(self, image: Image) -> bool:
        """Whether each holds the load bias and its addend."""
        content = image.bytes_at(image.bias + self.segment.address, self.segment.file_size)
        if content is None:
            return False
        held = memoryview(content)[: len(content) // 8 * 8].cast("Q")
        expected = map(image.bias.__add__, self._addends)
        return list(map(held.__getitem__, self._indices)) == list(expected)


@lru_cache(maxsize=400)
def sorted_places(path: str) -> tuple[list[Relatives], list[tuple[str, Relocation]]]:
    """All places of a library: most of the RELATIVE ones by segment, and the others."""
    elf = open_elf(path)
    tls = elf.segment(elf64.PT_TLS)
    loads = [Relatives(one) for one in elf.segments if one.type == elf64.PT_LOAD]
    others = []
    for name, relocation in relocated_places(elf):
        place = relocation.place
        if name in RELATIVE_TYPES and not (
            tls and tls.address - 8 < place < tls.address + tls.file_size
        ):
            for load in loads:
                offset = place - load.segment.address
                if offset % 8 == 0 and 0 <= offset <= load.segment.file_size - 8:
                    load.places.append((name, relocation))
                    break
            else:
                others.append((name, relocation))
        else:
            others.append((name, relocation))
    return [load for load in loads if load.places], others


def words(
    places: Iterable[tuple[str, Relocation]], there: Image, here: Image
) -> Iterator[tuple[str, Relocation, bytes | None, bytes | None]]:
    """What each place holds; in the initial content of TLS also its copy in the thread's block."""
    tls = there.tls
    for name, relocation in places:
        place = relocation.place
        width = elf64.RELOCATION_WIDTHS.get(name, 8)
        held = there.bytes_at(there.bias + place, width), here.bytes_at(here.bias + place, width)
        yield name, relocation, *held
        if tls and 0 <= (at := place - tls.address) <= tls.file_size - width:
            held = there.content[at : at + width] or None, here.content[at : at + width] or None
            yield f"{name}{IN_A_BLOCK}", relocation, *held


def _target(image: Image, type_: str, relocation: Relocation, word: int) -> int:
    """What the word says of the symbol: its address, or a number for types that hold one."""
    if type_ == "64":
        return (word - relocation.addend) & _MASK
    if type_ == "PC32":
        distance = word - (word >> 31 << 32) - relocation.addend
        return (distance + image.bias + relocation.place) & _MASK
    return word


def _named(
    path: str, offset: int | None, reference: elf64.Symbol | None, *, in_tls: bool = False
) -> str:
    """The name that a reference has at its target, if it is a definition; None: anywhere."""
    if reference is None or "/" not in path:
        return ""
    versions = {
        symbol.version
        for symbol in definitions(path).get(reference.name, ())
        if offset in (symbol.value, None) and (symbol.type == elf64.STT_TLS) is in_tls
    }
    if reference.version in versions:
        versions = {reference.version}
    return f" {reference.name}@{'/'.join(sorted(versions))}" if versions else ""


def _describe(located: tuple[str, int] | None, word: int, reference: elf64.Symbol | None) -> str:
    """What an address means, in words that do not depend on where things were mapped."""
    if located is None:
        return f"{word:#x}"
    path, offset = located
    return f"{path}+{offset:#x}{_named(path, offset, reference)}"


def _describe_tls(
    dump: Dump,
    image: Image,
    type_: str,
    relocation: Relocation,
    word: int,
    reference: elf64.Symbol | None,
) -> str:
    """What a word of thread-local storage means: whose it is, and the offset there."""
    place, _, _, addend = relocation
    if type_ == "TLSDESC":
        word = image.descriptors[place]
    if type_ in ("TPOFF64", "TLSDESC"):
        located = dump.locate_variable(word)
        if located is None and type_ == "TLSDESC":  # of nothing: an address, not a distance
            return f"{(dump.thread + word) & _MASK:#x}"
    elif type_ == "DTPMOD64":
        owner = dump.storage(word)
        if owner is None:
            return f"{word:#x}"
        return f"{owner.path} TLS{_named(owner.path, None, reference, in_tls=True)}"
    else:
        # The other half of the pair that __tls_get_addr is given (psABI) says whose offset it is.
        pair = image.bytes_at(image.bias + place - 8, 8)
        owner = dump.storage(int.from_bytes(pair, "little")) if pair else None
        located = (owner, (word + machine().dtv_offset) & _MASK) if owner else None
    if located is None:
        return f"{word:#x}"
    owner, offset = located
    name = _named(owner.path, (offset - addend) & _MASK, reference, in_tls=True)
    return f"{owner.path} TLS+{offset:#x}{name}"


@cache
def _ifuncs(path: str) -> frozenset[str]:
    symbols = open_elf(path).symbols
    return frozenset(one.name for one in symbols if one.section and one.type == elf64.STT_GNU_IFUNC)


def _kind_of_binding(dump: Dump, text: str, reference: elf64.Symbol) -> str:
    """What glibc made of a reference, told from the definitions that the files have."""
    if f" {reference.name}@" in text:
        return "the definition"
    if text == "0x0" and reference.binding == elf64.STB_WEAK:
        return "nothing, being weak"
    paths = (image.path for image in dump.images if "/" in image.path)
    if any(reference.name in _ifuncs(path) for path in paths):
        return "what an IFUNC chose"
    return OTHER


def _is_plugin(dump: Dump, path: str, opened: Iterable[str]) -> bool:
    """Whether code has opened it, lazily perhaps: neither the driver nor what is needed is that."""
    elf = open_elf(path)
    return path not in opened and not any(
        {elf.path.name, elf.soname} & {*open_elf(image.path).needed}
        for image in dump.images
        if "/" in image.path
    )


def _explain(
    glibc: Dump, ours: Dump, path: str, type_: str, relocation: Relocation, found: tuple[int, int],
    opened: Iterable[str],
) -> str | None:  # fmt: skip
    """Why no linker is at fault when the words that were found differ."""
    there, here = glibc.new[path], ours.new[path]
    if glibc.is_allocated(found[0]) and ours.is_allocated(found[1]):
        # No relocation leads there: not glibc's, which are right.
        return ALLOCATED_REASON
    offsets = {(found[0] - there.bias) & _MASK, (found[1] - here.bias) & _MASK}
    if type_ in RELATIVE_TYPES and relocation.addend & _MASK not in offsets:
        return OVERWRITTEN_REASON
    if type_ == "JUMP_SLOT" and _is_plugin(glibc, path, opened):
        elf = open_elf(path)
        (unbound,) = struct.unpack_from("<Q", elf.data, elf.offset(relocation.place))
        return LAZY_REASON if unbound in offsets else None
    return None


def compare_image(
    result: Comparison,
    glibc: Dump,
    ours: Dump,
    path: str,
    libdlopen: str | None,
    opened: Iterable[str],
) -> None:
    elf = open_elf(path)
    there, here = glibc.new[path], ours.new[path]

    def differ(place: int, type_: str, symbol: str, glibc_word: str, our_word: str) -> None:
        result.differences.append(
            Difference(result.library, path, place, type_, symbol, glibc_word, our_word)
        )

    if (left := glibc.protection(there)) != (right := ours.protection(here)):
        only = [sorted({*a} - {*b}) for a, b in ((left, right), (right, left))]
        differ(0, "protection", "", *(str([(hex(s), hex(e), p) for s, e, p, _ in o]) for o in only))

    relatives, places = sorted_places(path)
    for some in relatives:
        if some.all_as_told(there) and some.all_as_told(here):
            result.places.update(some.counts)
        else:
            places = [*some.places, *places]
    for name, relocation, raw_there, raw_here in words(places, there, here):
        result.places[name] += 1
        place, _, index, addend = relocation
        type_ = name.removesuffix(IN_A_BLOCK)
        if raw_there is None or raw_here is None or type_ not in (*COMPARED_TYPES, RELR, DYNAMIC):
            differ(place, name, "", "a place that is not compared", "the same")
            continue
        word_there = int.from_bytes(raw_there, "little")
        word_here = int.from_bytes(raw_here, "little")
        if type_ in RELATIVE_TYPES and (
            (word_there - there.bias) & _MASK == (word_here - here.bias) & _MASK == addend & _MASK
        ):
            continue
        if name == DYNAMIC:
            if word_there != word_here and (
                (word_there - there.bias) & _MASK != (word_here - here.bias) & _MASK
            ):
                texts = f"{word_there:#x}", f"{word_here:#x}"
                differ(place, name, f"tag {addend:#x}", *texts)
            continue

        reference = elf.symbols[index] if index else None
        located = None
        if type_ in TLS_TYPES:
            text_there = _describe_tls(glibc, there, type_, relocation, word_there, reference)
            text_here = _describe_tls(ours, here, type_, relocation, word_here, reference)
        else:
            word_there = _target(there, type_, relocation, word_there)
            word_here = _target(here, type_, relocation, word_here)
            located_there, located = glibc.locate(word_there), ours.locate(word_here)
            text_there = _describe(located_there, word_there, reference)
            text_here = text_there
            if located is None or located != located_there:
                text_here = _describe(located, word_here, reference)
        if reference is not None:
            result.bound[_kind_of_binding(glibc, text_there, reference)] += 1
        if text_there == text_here:
            continue
        symbol = f"{reference.name}@{reference.version}" if reference else ""
        reason = None
        if reference and located and located[0] == libdlopen:
            reason = OURS_BY_NATURE.get(reference.name)
        if reason is None and type_ not in TLS_TYPES:
            both = word_there, word_here
            reason = _explain(glibc, ours, path, type_, relocation, both, opened)
        if reason:
            result.by_nature[reason] += 1
        else:
            differ(place, name, symbol, text_there, text_here)


# What both linkers say in words of their own, or what a process says by its end.
UNDEFINED = re.compile(r"undefined symbol: (\S+?),?(?= |$)")
NOT_FOUND = re.compile(r"(\S+): cannot open shared object file")
NO_ROOM = "cannot allocate memory in static TLS block"
_REFUSALS: list[tuple[str | re.Pattern[str], str]] = [
    (NOT_FOUND, r"not found: \1"),
    (UNDEFINED, r"undefined symbol: \1"),
    (NO_ROOM, NO_ROOM),
    ("cannot enable executable stack", "an executable stack"),
]

# Of the driver, and of `run_driver`: nobody has refused anything.
_FAILED = re.compile(r"no end after|driver ended with status [24]$")

# What this linker refuses by design and glibc does not: docs/known-limits.md.
_REFUSED_BY_DESIGN = [
    ("cannot enable executable stack", "it would undo the protection of the whole process"),
    ("a segment is both writable and executable", "no page is ever both"),
    ("of which the storage was placed", "storage that is in use cannot become static TLS"),
]


def _kind_of_refusal(error: str) -> str:
    for pattern, text in _REFUSALS:
        if found := re.search(pattern, error):
            return found.expand(text)
    return error


def _refused(glibc: str | None, ours: str | None) -> str:
    """Why a library is not compared; "" when that is a difference."""
    if glibc and ours:
        kind = _kind_of_refusal(glibc)
        return kind if kind == _kind_of_refusal(ours) and not _FAILED.match(kind) else ""
    for pattern, reason in _REFUSED_BY_DESIGN:
        if ours and re.search(pattern, ours):
            return f"by this linker only: {reason}"
    return ""


def compare(
    library: str, glibc: Dump, ours: Dump, libdlopen: str | None, before: Iterable[str] = ()
) -> Comparison:
    """Compare two dumps of processes that opened `library`, and others before it."""
    opened = {library, *before}
    result = Comparison(library)
    if glibc.error or ours.error:
        result.refused = _refused(glibc.error, ours.error)
        if not result.refused:
            texts = [error or "opened" for error in (glibc.error, ours.error)]
            result.differences.append(Difference(library, "", 0, "open", "", *texts))
        return result
    for donor in ours.donors:
        if any(image.module == donor.module for image in ours.new.values()):
            result.by_nature[DONOR_REASON] += 1
        else:
            result.differences.append(
                Difference(library, donor.path, 0, "image", "", "not there", "of no image")
            )
    for path in sorted(glibc.new.keys() | ours.new.keys()):
        if path not in ours.new and path in ours.hosts and is_host(path):
            result.by_nature[ONCE_REASON] += 1
        elif path not in ours.new or path not in glibc.new:
            where = ["loaded" if path in dump.new else "not loaded" for dump in (glibc, ours)]
            result.differences.append(Difference(library, path, 0, "image", "", *where))
        elif not is_host(path):
            result.images += 1
            compare_image(result, glibc, ours, path, libdlopen, opened)
    # glibc keeps more than it must: what it unloads, this linker unloads too.
    if glibc.left is not None and (ours.left is None or not ours.left <= glibc.left):
        here = "crashed" if ours.left is None else str(sorted(ours.left - glibc.left))
        result.differences.append(
            Difference(library, "", 0, "close", "", "unloaded", f"left: {here}")
        )
    return result
