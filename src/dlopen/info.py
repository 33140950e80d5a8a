"""What is known of an image."""

from __future__ import annotations

import os
from functools import cached_property

from dlopen import _linker
from dlopen._records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Source(Protocol):
        """What an image is known from: something open, or an `Info`."""

        _path: str

        @property
        def _image(self) -> int | None: ...
        def _open_image(self) -> int: ...
        def _describe(self) -> Info: ...


# PT_* of elf(5), as readelf(1) prints them.
_SEGMENT_TYPES = {
    0: "NULL",
    1: "LOAD",
    2: "DYNAMIC",
    3: "INTERP",
    4: "NOTE",
    5: "SHLIB",
    6: "PHDR",
    7: "TLS",
    0x6474E550: "GNU_EH_FRAME",
    0x6474E551: "GNU_STACK",
    0x6474E552: "GNU_RELRO",
    0x6474E553: "GNU_PROPERTY",
}


class Segment(Record):
    """A program header; see elf(5).  Sizes, offsets and addresses are in bytes."""

    type: str
    """As readelf(1) prints it: LOAD, DYNAMIC, GNU_RELRO …"""
    flags: str
    """The protection that it asks for, "r-x"."""
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int
    address: int
    """Where it is in this process: load bias + vaddr."""


class Relocation(Record):
    """A place that the linker fills in; see the psABI of the machine."""

    place: int
    """Its address in this process."""
    kind: str
    """RELATIVE, SYMBOLIC, GLOB_DAT, JUMP_SLOT, IRELATIVE …"""
    type: int
    """The machine's number of its type."""
    symbol: str | None
    version: str
    """The version of the symbol that it asks for, "" for none."""
    addend: int
    width: int
    """Bytes at the place."""
    table: str
    """RELR, RELA or JMPREL."""


class Version(Record):
    """A symbol version that an image defines, or needs from another; see the LSB."""

    name: str
    library: str | None
    """The file that should define it; None for a definition."""
    index: int
    """Its number in the image's version symbol table."""
    flags: int
    """VER_FLG_BASE (1), VER_FLG_WEAK (2)."""
    hash: int


class ThreadLocal(Record):
    """The thread-local storage of an image (PT_TLS).  Sizes are in bytes."""

    size: int
    align: int
    module_id: int


class Info(Record):
    """A snapshot of what is known of an image.  Two are equal if they are of one image."""

    path: str
    """Absolute where it is known; the given name for an image from bytes, the path in `files` for
    one from there; for the program its file's, "" where there is no /proc."""
    name: str
    """As dl_iterate_phdr(3) gives it (`dlpi_name`)."""
    soname: str | None
    rpath: str | None
    runpath: str | None
    interpreter: str | None
    machine: str
    """That its code is for: x86-64, AArch64, RISC-V or LoongArch.  One of another machine than this
    process's can be looked at, and not run."""
    needed: tuple[str, ...]
    """Its DT_NEEDED entries."""
    segments: tuple[Segment, ...]
    """All program headers."""
    versions: tuple[Version, ...]
    """Those that it defines, then those that it needs."""
    tls: ThreadLocal | None
    relro_size: int
    """Bytes that are made read-only after relocation: whole pages of PT_GNU_RELRO; 0 for none."""
    arena_size: int
    """Bytes of the arena that it was read into (`arena=True`); 0: it is mapped, or was copied."""
    handle: int
    """What dlsym(3) and the others of this linker take for it, where a program calls them (see
    `adopt`); 0: one of the host's that was not opened here."""
    load_bias: int
    """Run address - p_vaddr (`dlpi_addr`)."""
    map_start: int
    map_end: int
    dynamic: int
    """Address of the dynamic section: the file's until the image is linked, then as libc leaves it,
    with addresses of the process."""
    phdr: int
    """Address of the program headers."""
    device: int
    inode: int
    """The file's, see stat(2); both 0 when unknown."""
    archive: str | None
    """Of a library inside of an archive, the path of that."""
    offset: int
    """Of such a library, where it begins in that file; 0 for others."""
    flags: int
    """DT_FLAGS."""
    flags_1: int
    """DT_FLAGS_1."""
    state: str
    """mapped (not relocated), loading, initialising, ready or closing."""
    is_host: bool
    """Whether the host's own loader mapped it."""
    is_global: bool
    """Whether it is in the global scope."""
    is_private: bool
    namespace_id: int
    """0: the program's; see dlmopen(3)."""
    open_count: int
    """How often it was opened and not closed yet."""
    symbol_count: int
    """Entries of its dynamic symbol table."""
    relocation_count: int
    has_textrel: bool
    nodelete: bool

    def __init__(self, image: int, owner: Source | None = None) -> None:
        """Describe an image; raises `ValueError` if it is gone."""
        known = _linker.info(image)
        bias = known["load_bias"]
        segments = []
        for type_, flags, offset, vaddr, filesz, memsz, align in known["segments"]:
            kind = _SEGMENT_TYPES.get(type_, f"{type_:#x}")
            letters = "".join(
                letter if flags & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
            )
            address = (bias + vaddr) % (1 << 64)
            segments.append(Segment(kind, letters, offset, vaddr, filesz, memsz, align, address))
        self.__dict__.update(
            known,
            segments=tuple(segments),
            versions=tuple(Version(*version) for version in known["versions"]),
            tls=ThreadLocal(*known["tls"]) if known["tls"][0] else None,
            _image=image,
            _owner=owner,
            _dependencies=known["dependencies"],
            _path=known["path"],
        )
        del self.__dict__["dependencies"]

    _image: int
    _owner: Source | None
    _path: str
    _dependencies: tuple[int, ...]

    @cached_property
    def dependencies(self) -> tuple[Info, ...]:
        """The images that its DT_NEEDED entries were resolved to, in that order.

        For libraries of the host's, too, whose loader does not say: found by the needed name.
        Empty before linking.  Raises `ValueError` when it is closed.
        """
        self._open_image()
        return tuple(Info(image) for image in self._dependencies if image)

    @cached_property
    def relocations(self) -> tuple[Relocation, ...]:
        """All its relocations: RELR, then DT_RELA, then DT_JMPREL.

        Raises `ValueError` when it is closed.
        """
        image = self._open_image()
        return tuple(Relocation(*found) for found in _linker.relocations(image))

    @property
    def member(self) -> str | None:
        """Of a library inside of an archive, its path there."""
        if self.archive is None:
            return None
        _, _, name = self.path.partition(f"{self.archive}/")
        return name or self.path

    def _open_image(self) -> int:
        return self._owner._open_image() if self._owner else self._image

    def _describe(self) -> Info:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Info) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[int, int, str]:
        return self._image, self.map_start, self.path

    def __repr__(self) -> str:
        name = self.path or self.soname or "(the program)"
        facts = ["the host's" if self.is_host else "private" if self.is_private else "ours"]
        if self.soname not in (None, os.path.basename(name)):  # noqa: PTH119
            facts.insert(0, f"soname {self.soname!r}")
        if self.namespace_id:
            facts.append(f"namespace {self.namespace_id}")
        if self.is_global:
            facts.append("global")
        facts.append(self.state)
        if self.open_count or not self.is_host:  # the host does not tell its own count
            facts.append(f"open count {self.open_count}")
        facts.append(f"needs {', '.join(self.needed) or 'nothing'}")
        where = f"at {self.map_start:#x}-{self.map_end:#x}"
        return f"<dlopen.Info {name!r} {where}: {'; '.join(facts)}>"
