"""Names of functions for perf(1), where it finds no file to read them from.

perf knows code by the file that is mapped there.  A library inside of an archive is mapped from the
archive, one from bytes from no file: their functions are told to it as those of a JIT compiler are,
by a file of which tools/perf/Documentation/jitdump-specification.txt in the source of Linux says
what is in it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from _thread import get_native_id
from contextlib import suppress
from time import monotonic_ns

from dlopen._archives import locate
from dlopen._lifecycle import at_end, in_child, new_lock
from dlopen.errors import Error, LoadError
from dlopen.process import existing, libraries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from dlopen.info import Info
    from dlopen.library import Library

    _Function: TypeAlias = tuple[int, str, bytes]
    """Its address, name and code."""

_MAGIC = 0x4A695444
_VERSION = 1
# Magic, version, own size, e_machine, padding, process, time, flags.
_HEADER = struct.Struct("=IIIIIIQQ")
_RECORD = struct.Struct("=IIQ")  # type, size of it all, time
_LOAD = struct.Struct("=IIQQQQ")  # process, thread, address, address of the code, its size, index
_CODE_LOAD, _CODE_CLOSE = 0, 3
_MACHINE = struct.Struct("<18xH")  # e_machine of an ELF header, elf(5)
_SECTION = struct.Struct("<4xI16xQQI20x")  # sh_type, sh_offset, sh_size, sh_link
_SYMBOL = struct.Struct("<IBxHQQ")  # st_name, st_info, st_shndx, st_value, st_size
_SHT_SYMTAB = 2
_STT_FUNC = 2

_lock = new_lock()  # guards what follows, and is held while the file is written


class _Dump:
    """The file of this process, and what is in it."""

    def __init__(self, folder: str, machine: int) -> None:
        """Make the file.  One of that name is of an earlier process with this one's number."""
        self.path = os.path.join(folder, f"jit-{os.getpid()}.dump")  # noqa: PTH118
        self._written: dict[int, tuple[str, int]] = {}  # name, and the hash of the code
        self._count = 0
        header = _HEADER.pack(
            _MAGIC, _VERSION, _HEADER.size, machine, 0, os.getpid(), monotonic_ns(), 0
        )
        with suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108
        with open(self.path, "x+b") as file:  # noqa: PTH123
            try:
                file.write(header)
                file.flush()
                # By this mapping perf finds the file; nothing is read there.
                self._mark = mmap.mmap(
                    file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC
                )
            except BaseException:
                os.unlink(self.path)  # noqa: PTH108
                raise
            self._identity = os.fstat(file.fileno())

    def append(self, records: bytes) -> None:
        """All of them or, if that fails, none.

        The file is opened each time: a program that becomes a daemon closes what is open, and the
        number of the descriptor is another file's then.
        """
        with open(self.path, "r+b", buffering=0) as file:  # noqa: PTH123
            if not os.path.samestat(os.fstat(file.fileno()), self._identity):
                raise FileExistsError(f"{self.path} is not the file that was written before")
            end = file.seek(0, os.SEEK_END)
            left = memoryview(records)
            try:
                while left:
                    left = left[file.write(left) :]
            except BaseException:
                file.truncate(end)
                raise

    def add(self, functions: list[_Function]) -> None:
        """Write those that are not in the file as they are by now."""
        records = []
        written = {}
        count = self._count
        for address, name, code in functions:
            written[address] = name, hash(code)
            if self._written.get(address) == written[address]:
                continue
            content = os.fsencode(name) + b"\0" + code
            load = _LOAD.pack(os.getpid(), get_native_id(), address, address, len(code), count)
            size = _RECORD.size + len(load) + len(content)
            records.append(_RECORD.pack(_CODE_LOAD, size, monotonic_ns()) + load + content)
            count += 1
        self.append(b"".join(records))
        self._count = count
        self._written = written

    def close(self) -> None:
        """The program ends."""
        self.append(_RECORD.pack(_CODE_CLOSE, _RECORD.size, monotonic_ns()))


_dump: _Dump | None = None


def _forget() -> None:
    """In a child, which has a file of its own."""
    global _dump  # noqa: PLW0603
    _dump = None


in_child(_forget)


@at_end
def _end() -> None:
    with _lock:
        if _dump:
            with suppress(OSError):  # the file was removed; the record may be missing
                _dump.close()


def _machine(images: list[Info]) -> int:
    """The number of the process's machine: what is mapped begins with its ELF header, mostly."""
    headers = (
        segment.address
        for info in images
        for segment in info.segments
        if info.is_host and segment.type == "LOAD" and "r" in segment.flags and not segment.offset
    )
    (machine,) = _MACHINE.unpack(ctypes.string_at(next(headers), _MACHINE.size))
    return int(machine)


def _is_unnamed(info: Info) -> bool:
    """Whether perf finds no file of the library by what is mapped."""
    from_file = info.inode and info.archive is None and not info.arena_size
    return not info.is_host and not from_file


def _content(info: Info) -> bytes:
    """What the library was loaded from; empty where that is not to be had any more."""
    if not info.inode:  # bytes, which nobody has kept
        return b""
    if info.archive is None:  # it was read into an arena
        with open(info.path, "rb") as file:  # noqa: PTH123
            return file.read() if _is_file_of(info, file.fileno()) else b""
    found = locate(info.path)
    if found is None or found[2] != info.offset or not _is_file_of(info, found[1]):
        return b""
    _, descriptor, offset, length, data, *_ = found
    return os.pread(descriptor, length, offset) if data is None else bytes(data)


def _is_file_of(info: Info, descriptor: int) -> bool:
    """Whether it is still the file that was at the path when the library was loaded."""
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino) == (info.device, info.inode)


def _static_functions(content: bytes, bias: int) -> Iterator[tuple[int, int, str]]:
    """Address, size and name of those in the static symbol table, if there is one; see elf(5)."""
    (table,) = struct.unpack_from("<Q", content, 40)  # e_shoff
    size, count = struct.unpack_from("<HH", content, 58)  # e_shentsize, e_shnum
    sections = [_SECTION.unpack_from(content, table + size * n) for n in range(count)]
    for type_, offset, length, link in sections:
        if type_ != _SHT_SYMTAB:
            continue
        _, names, _, _ = sections[link]
        symbols = content[offset : offset + length // _SYMBOL.size * _SYMBOL.size]
        for name, info, section, value, code_size in _SYMBOL.iter_unpack(symbols):
            if info & 15 == _STT_FUNC and section:
                start = names + name
                text = content[start : content.index(b"\0", start)]
                yield bias + value, code_size, os.fsdecode(text)


def _exported_functions(library: Library) -> Iterator[tuple[int, int, str]]:
    """Address, size and name of those that others can call."""
    for key, symbol in library.symbols.items():
        if symbol.type == "FUNC":  # what an IFUNC leads to is not the code that it names
            yield symbol.address, symbol.size, key


def _functions(library: Library) -> Iterator[_Function]:
    """One of each address: the one with the most code, and first those that it exports."""
    info = library.info
    named = [*_exported_functions(library)]
    # Its file has changed, is damaged, or is none.
    with suppress(OSError, LoadError, struct.error, IndexError, ValueError):
        named.extend(_static_functions(_content(info), info.load_bias))
    segments = [
        (segment.address, segment.address + segment.filesz)
        for segment in info.segments
        if segment.type == "LOAD" and segment.flags in ("r-x", "rwx")
    ]
    found: dict[int, tuple[int, str]] = {}
    for address, size, name in named:
        is_code = any(start <= address < address + size <= end for start, end in segments)
        if is_code and size > found.get(address, (0, ""))[0]:
            found[address] = size, name
    for address, (size, name) in found.items():
        yield address, name, ctypes.string_at(address, size)


def _all_functions(images: list[Info]) -> list[_Function]:
    found: list[_Function] = []
    for info in filter(_is_unnamed, images):
        try:
            library = existing(info)
        except (Error, ValueError):  # an `Image` that is not linked; or closed since
            continue
        with library:
            found.extend(_functions(library))
    return found


def write(folder: str | os.PathLike[str] | None = None) -> str:
    """Write the functions of libraries that perf(1) finds no file of, and return the file's path.

    Those are the libraries that this package has loaded from inside of an archive, from bytes, by
    `files=` or `reload=True`, or into an arena.  Of each the functions that it exports are written,
    and those in its static symbol table, if it has one (it is not stripped) and what it was loaded
    from is in a file still.  Samples from before the call stay without names: call it when all is
    loaded, and again when more was.

    Args:
        folder: Where to write `jit-PID.dump`, by default the current folder; `perf inject` makes a
            file for each function beside it.  Later calls add to the first one's file, and need
            none.  A forked process writes one of its own.

    Raises:
        OSError: The file cannot be written, or not mapped as code (a file system that is mounted
            with noexec); what was in it stays.
        ValueError: There is a file in another folder already.
    """
    global _dump  # noqa: PLW0603
    chosen = None if folder is None else os.path.abspath(folder)  # noqa: PTH100
    images = libraries()
    functions = _all_functions(images)  # without the lock: it may close what others have closed
    with _lock:
        if _dump is None:
            dump = _Dump(chosen or os.getcwd(), _machine(images))  # noqa: PTH109
        else:
            dump = _dump
            if chosen not in (None, os.path.dirname(dump.path)):  # noqa: PTH120
                raise ValueError(f"the functions of this process are in {dump.path} already")
        _dump = dump
        dump.add(functions)
        return dump.path
