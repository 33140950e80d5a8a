"""Zip archives that modules and libraries are taken from while they stay as they are.

Each has one descriptor, by which all of it is read, and its directory is read once: so the archive
may be replaced by another of the same name (rename(2)), and what is open goes on.  What is written
into it in place is an error at the next member, not other content.  Who comes new to a path gets
the archive that is there then.

Of the directory only the names are taken apart, since most members are never asked for.  See
APPNOTE.TXT of PKWARE, sections 4.3 and 4.5.
"""

from __future__ import annotations

import os
from _collections_abc import Mapping
from _frozen_importlib_external import EXTENSION_SUFFIXES
from _io import open_code
from _thread import _local as local
from _weakref import ref
from struct import Struct
from zipimport import cp437_table  # type: ignore[attr-defined]

from dlopen import _linker
from dlopen._lifecycle import late, new_lock
from dlopen.errors import LoadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    from typing_extensions import Buffer

    Header: TypeAlias = tuple[int, int, int, int, int, int, int, int]
    """Flags, method, time, date, CRC-32, stored size, size, offset of the local header."""
    Identity: TypeAlias = tuple[int, int, int, int]
    Entry: TypeAlias = tuple[str, int, int, int, int, int, int, int]
    """As in the lists of `zipimport`."""
    Located: TypeAlias = tuple[str, int, int, int, Buffer | None, int]
    """An archive's path, its descriptor, where in it a member begins, its stored size, its content
    where it is not stored as it is, DLOPEN_MEMBER_* of dlopen.h."""

# ruff: noqa: PTH100, PTH116, PTH120  (pathlib is slow to import)

# What is read of each record, without its signature where that is a number of its own.
_END = Struct("<4s6xHIIH")
_END64 = Struct("<4s28xQQQ")
_CENTRAL = Struct("<8xHHHHIIIHH10xI")
_LOCAL = Struct("<4s2xHH4xIIIHH")
_EXTRA = Struct("<HH")
_NUMBER = Struct("<Q")

_CENTRAL_SIZE = 46
_LOCAL_SIZE = _LOCAL.size
_LONGEST_COMMENT = 0xFFFF
_ELSEWHERE = 0xFFFFFFFF  # the number is in the extra field of zip64
_ZIP64 = 1
_ENCRYPTED, _SIZES_FOLLOW, _IS_UTF8 = 0x1, 0x8, 0x800
_STORED, _DEFLATED = 0, 8
_MOST_DEFLATED = 1032  # bytes for each that is stored: RFC 1951 has 258 for two bits
_SUFFIXES = (".whl", ".zip", ".pyz", ".egg")  # of what is meant to be an archive

_lock = new_lock()  # held while an archive is opened, or opened again
_open: dict[str, Archive] = {}  # the newest of each plain absolute path; changed under the lock
packages: dict[str, tuple[str, ref[Archive]]] = {}
"""By a folder of `__path__`, the package that was found there, and in which archive."""
broken: dict[str, LoadError] = {}
"""Why what looks like an archive is none, by plain absolute path."""


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _descriptor_of(path: str) -> int:
    """As the interpreter opens code (PEP 578), without a file object that warns at the end."""
    with open_code(path) as file:
        return os.dup(file.fileno())


class Archive:
    """A zip archive that is open as long as the process runs, or until it is read anew."""

    def __init__(self, path: str) -> None:
        """Raises `LoadError` for what cannot be read, `ValueError` for what is no archive."""
        self.path = path
        self.descriptor = _descriptor_of(path)
        try:
            self._identity = _identity(os.fstat(self.descriptor))
            self._read_directory()
        except BaseException:
            os.close(self.descriptor)
            self.descriptor = -1
            raise
        self._refusal: LoadError | None = None
        self._has_tags = path.endswith(".whl")  # that were not looked at

    def is_of(self, status: os.stat_result) -> bool:
        """Whether it is this file, unchanged."""
        return _identity(status) == self._identity

    def damaged(self, reason: str, member: str = "") -> LoadError:
        """The error for an archive, or for a member, that cannot be used."""
        path = f"{self.path}/{member}" if member else self.path
        return LoadError(f"{path}: {reason}", library=path, reason=reason)

    def _pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self.descriptor, size, offset)
        while len(data) < size:  # a signal, or more than the kernel reads at once
            more = os.pread(self.descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def _read_directory(self) -> None:
        """Find the directory from its end (4.3.16), and in it each name and where its record is."""
        size = self._identity[2]
        tail_at = max(size - _LONGEST_COMMENT - _END.size - 76, 0)
        tail = self._pread(size - tail_at, tail_at)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or at + 22 > len(tail):
            if self._pread(4, 0) == b"PK\3\4" or self.path.endswith(_SUFFIXES):
                raise self.damaged("truncated, or no zip archive: it has no directory at its end")
            raise ValueError(f"not a zip archive: {self.path}")
        _, count, length, offset, _ = _END.unpack_from(tail, at)
        end = tail_at + at
        if at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7":
            record = tail[at - 76 : at - 20] if at >= 76 else b""
            if record[:4] != b"PK\6\6":
                raise self.damaged("its end for zip64 is not where it must be")
            _, count, length, offset = _END64.unpack(record)
            end -= 76
        begin = end - length
        # What stands before the archive, such as a `#!` line, need not be counted in it.
        self._shift = begin - offset
        if begin < 0 or self._shift < 0:
            raise self.damaged("truncated: parts of it are missing before its directory")
        self._raw = raw = self._pread(length, begin)
        if len(raw) != length or not self._read_names(raw, count):
            raise self.damaged("its directory is damaged")

    def _read_names(self, raw: bytes, count: int) -> bool:
        found = _linker.names_in_directory(raw)
        if found is None or found[2] & 0xFFFF != count & 0xFFFF:
            return False
        names, folders, _ = found
        strange = [name for name in names if not name.isascii()]
        for name in strange:
            position = names.pop(name)
            names[_decoded(name, _CENTRAL.unpack_from(raw, position)[0])] = position
        if b".data/p" in raw:
            _install_data(names)
            strange.append("")
        if strange:
            folders = {name.rpartition("/")[0] for name in names}
        for folder in [*folders]:
            while folder := folder.rpartition("/")[0]:
                folders.add(folder)
        self.names = names
        self.folders = folders | {""}
        """Each folder that something is in, without a slash at its end."""
        return True

    def foreign(self, base: str) -> Iterator[str]:
        """Extension modules of a name that have the suffix of another interpreter or machine."""
        starts = f"{base}.", f"{base}/__init__."
        # Most names that are looked for are in no archive, and this is quick.
        if any(start.encode(errors="replace") in self._raw for start in starts):
            for name in self.names:
                if name.startswith(starts) and name.endswith((".so", ".pyd")):
                    yield name

    def header(self, name: str) -> Header:
        """What the directory says of a member; `KeyError` if there is none."""
        position = self.names[name]
        fields = _CENTRAL.unpack_from(self._raw, position)
        flags, method, time, date, crc, stored, size, name_size, extra_size, offset = fields
        if _ELSEWHERE in (stored, size, offset):
            begin = position + _CENTRAL_SIZE + name_size
            numbers = _zip64(self._raw[begin : begin + extra_size])
            try:  # in this order, those that are elsewhere
                size = next(numbers) if size == _ELSEWHERE else size
                stored = next(numbers) if stored == _ELSEWHERE else stored
                offset = next(numbers) if offset == _ELSEWHERE else offset
            except StopIteration:
                raise self.damaged("its record in the directory is damaged", name) from None
        return flags, method, time, date, crc, stored, size, offset + self._shift

    def data(self, name: str) -> bytes:
        """The content of a member; `KeyError` if there is none, `LoadError` if it is damaged."""
        return bytes(self.view(name))

    def view(self, name: str) -> Buffer:
        """The same, not copied once more."""
        header = self.header(name)
        _, method, _, _, _, stored, size, offset = header
        # Mostly the local header's extra field is as long as that of the directory.
        position = self.names[name]
        name_size, extra_size = _EXTRA.unpack_from(self._raw, position + 28)
        data = self._read_member(name, header, _LOCAL_SIZE + name_size + extra_size + stored)
        begin = self._content(name, header, data)
        content = memoryview(data)[begin : begin + stored]
        if len(content) < stored:
            content = memoryview(self._pread(stored, offset + begin))
        if len(content) < stored:
            raise self.damaged("truncated: the file ends within it", name)
        if method == _STORED:
            return content
        return self._inflated(name, content, size)

    def _inflated(self, name: str, content: Buffer, size: int) -> bytes:
        with late():
            import zlib  # noqa: PLC0415  (not needed for what is stored)

        try:
            data = zlib.decompress(content, -zlib.MAX_WBITS, size or 1)
        except zlib.error as error:
            raise self.damaged(f"its content is damaged: {error}", name) from error
        if len(data) != size:
            raise self.damaged("its content is damaged: it has another size", name)
        return data

    def place(self, name: str) -> tuple[int, int]:
        """Where the stored content of a member begins in the file, and how long it is."""
        header = self.header(name)
        stored, offset = header[5], header[7]
        name_size = _EXTRA.unpack_from(self._raw, self.names[name] + 28)[0]
        begin = self._content(name, header, self._read_member(name, header, 30 + name_size))
        if offset + begin + stored > self._identity[2]:
            raise self.damaged("truncated: the file ends within it", name)
        return offset + begin, stored

    def locate(self, name: str, flags: int) -> Located:
        """Where the core finds a member, as `_linker.set_archives` wants it."""
        if self.header(name)[1] == _STORED:
            return self.path, self.descriptor, *self.place(name), None, flags
        offset, length = self.place(name)
        return self.path, self.descriptor, offset, length, self.view(name), flags

    def _read_member(self, name: str, header: Header, size: int) -> bytes:
        """The file from a member's local header on, once it is sure that it is the same file."""
        flags, method, _, _, _, stored, full, offset = header
        if flags & _ENCRYPTED:
            raise self.damaged("it is encrypted", name)
        if method not in (_STORED, _DEFLATED):
            raise self.damaged(f"it is compressed by method {method}, not stored or deflated", name)
        # Before memory is taken for it.
        if offset + stored > self._identity[2]:
            raise self.damaged("truncated: the file ends within it", name)
        if method == _DEFLATED and full > _MOST_DEFLATED * (stored + 1):
            raise self.damaged("its record in the directory is damaged", name)
        self._check()
        return self._pread(size, offset)

    def _content(self, name: str, header: Header, data: bytes) -> int:
        """Where the content begins after the local header, which must say what the directory says.

        Else the archive was written anew in place, and not all of it.
        """
        _, method, _, _, crc, stored, size, _ = header
        position = self.names[name] + _CENTRAL_SIZE
        if len(data) < _LOCAL_SIZE:
            raise self.damaged("truncated: the file ends within it", name)
        signature, flags, own_method, own_crc, *sizes, name_size, extra_size = _LOCAL.unpack_from(
            data
        )
        begin = _LOCAL_SIZE + name_size
        end: int = begin + extra_size
        if (
            signature != b"PK\3\4"
            or own_method != method
            or data[_LOCAL_SIZE:begin] != self._raw[position : position + name_size]
            or not (
                flags & _SIZES_FOLLOW
                or (own_crc == crc and (sizes == [stored, size] or _ELSEWHERE in sizes))
            )
        ):
            raise self.damaged("the file and its directory disagree about it", name)
        return end

    def _check(self) -> None:
        """Before a member is read: is the file still what it was?"""
        try:
            now = _identity(os.fstat(self.descriptor))
        except OSError:
            now = None
        if now == self._identity:
            return
        if now is not None and now[:2] == self._identity[:2]:
            raise self.damaged("it was changed since it was opened")
        # A program that becomes a daemon closes all descriptors, and the number may be another's.
        with _lock:
            try:
                descriptor = _descriptor_of(self.path)
            except OSError as error:
                raise self.damaged(f"the program has closed it, and now: {error}") from error
            if _identity(os.fstat(descriptor)) != self._identity:
                os.close(descriptor)
                raise self.damaged("the program has closed it, and it was changed or replaced")
            self.descriptor = descriptor

    def refusal(self) -> LoadError | None:
        """Why this interpreter cannot use it, if it is a wheel, by its tags."""
        if self._has_tags:
            self._refusal = self._find_refusal()
            self._has_tags = False
        return self._refusal

    def _find_refusal(self) -> LoadError | None:
        for name in self.names:
            if name.endswith(".dist-info/WHEEL") and name.count("/") == 1:
                with late():
                    from dlopen._tags import refusal  # noqa: PLC0415  (of wheels only)

                try:
                    reason = refusal(self.data(name).decode(errors="replace"))
                except LoadError as error:
                    return error.with_traceback(None)
                return self.damaged(reason) if reason else None
        return None

    def __del__(self, status_of: Any = os.fstat, close: Any = os.close) -> None:
        # Replaced by what `read_anew` has found, and no loader has it any more.  At the end of the
        # interpreter the names of this module are gone before it.
        try:
            status = status_of(self.descriptor)
            if (status.st_dev, status.st_ino) == self._identity[:2]:
                close(self.descriptor)
        except (OSError, AttributeError):
            pass


def _decoded(name: str, flags: int) -> str:
    if flags & _IS_UTF8:
        return name.encode("latin-1").decode(errors="surrogateescape")
    return name.translate(cp437_table)


def _zip64(extra: bytes) -> Iterator[int]:
    """The numbers of the extra field of zip64 (4.5.3)."""
    position = 0
    while position + 4 <= len(extra):
        tag, size = _EXTRA.unpack_from(extra, position)
        position += 4
        if tag == _ZIP64:
            field = extra[position : position + size]
            for (number,) in _NUMBER.iter_unpack(field[: len(field) & ~7]):
                yield number
            return
        position += size


def _install_data(names: dict[str, int]) -> None:
    """What a wheel keeps for site-packages in NAME.data is found where pip would have put it."""
    for name in [*names]:
        folder, _, rest = name.partition("/")
        kind, _, target = rest.partition("/")
        stem = folder.removesuffix(".data")
        if (
            target
            and kind in ("purelib", "platlib")
            and stem != folder
            and f"{stem}.dist-info/WHEEL" in names
        ):
            names[target] = names[name]


class Files(Mapping[str, "Entry"]):
    """An archive's members as `zipimport` keeps them, for who looks there.

    pkgutil lists modules by it, and knows a package by its `__init__.py`: one whose `__init__` is
    an extension is listed with that name, which is no member.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def __getitem__(self, name: str) -> Entry:
        _, method, time, date, crc, stored, size, offset = self.archive.header(name)
        return f"{self.archive.path}/{name}", method, stored, size, offset, time, date, crc

    def __contains__(self, name: object) -> bool:
        return name in self.archive.names

    def __iter__(self) -> Iterator[str]:
        for name in self.archive.names:
            yield name
            folder, _, base = name.rpartition("/")
            if base.startswith("__init__.") and base[8:] in EXTENSION_SUFFIXES and folder:
                yield f"{folder}/__init__.py"

    def __len__(self) -> int:
        return sum(1 for _ in self)


def plain(path: str) -> str:
    """The absolute path without `.` and `..`, as the kernel follows it; `OSError` if there is none.

    What is behind a link is its parent, not that of the link.
    """
    parts = path.split("/")
    if ".." in parts:
        end = len(parts) - parts[::-1].index("..")
        path = "/".join([os.path.realpath("/".join(parts[:end])), *parts[end:]])
    return os.path.abspath(path)


def opened(path: str, status: os.stat_result) -> Archive | None:
    """The archive that is the file at a plain absolute path; None if it is none."""
    archive = _open.get(path)
    if archive is not None and archive.is_of(status):
        return archive
    with _lock:
        archive = _open.get(path)
        if archive is not None and archive.is_of(status):
            return archive
        try:
            archive = _open[path] = Archive(path)
        except LoadError as error:
            broken[path] = error.with_traceback(None)
            return None
        except OSError as error:
            broken[path] = LoadError(
                f"{path}: {error.strerror}", library=path, error_number=error.errno or 0
            )
            return None
        except ValueError:
            return None
        broken.pop(path, None)
        return archive


def split(path: str) -> tuple[Archive, str] | None:
    """The archive that a plain absolute path is, or leads into, and what follows in the path.

    It is the one that is there now.
    """
    above = path
    while above not in _open:
        above = os.path.dirname(above)
        if above in ("/", ""):
            above = path
            break
    while True:
        try:
            status = os.stat(above)
            break
        except (OSError, ValueError):
            if above in ("/", ""):
                return None
            above = os.path.dirname(above)
    mode = status.st_mode & 0o170000  # see inode(7)
    if mode == 0o040000 and len(above) < len(path) and above in _open:
        with _lock:  # a folder has taken its place
            _open.pop(above, None)
        return split(path)
    if mode != 0o100000:
        return None
    archive = opened(above, status)
    return (archive, path[len(above) + 1 :]) if archive else None


def read_anew(archive: Archive) -> Archive:
    """What is at the path of an archive now; itself if that is the same, or cannot be read."""
    try:
        current = opened(archive.path, os.stat(archive.path)) or archive
    except (OSError, ValueError):
        return archive  # gone: what is open goes on
    if current is not archive:
        for folder, known in [*packages.items()]:
            if known[1]() is archive:
                packages.pop(folder, None)
    return current


class Locator:
    """Answers the core, which asks where a path leads through a regular file."""

    flags = 0
    """DLOPEN_MEMBER_* of dlopen.h."""

    def __init__(self) -> None:
        self._thread = local()  # whose `archive` is that of the module it opens

    def open_from(self, archive: Archive, act: Callable[[str, int], int], *arguments: Any) -> int:
        """Open a module of an archive: it, and what it needs, is not from another at its path."""
        outer = getattr(self._thread, "archive", None)
        self._thread.archive = archive
        try:
            return act(*arguments)
        finally:
            self._thread.archive = outer

    def __call__(self, path: str) -> Located | None:
        """The member at a plain absolute path; None if there is none."""
        archive: Archive | None = getattr(self._thread, "archive", None)
        found: tuple[Archive, str] | None
        if archive is not None and path.startswith(f"{archive.path}/"):
            found = archive, path[len(archive.path) + 1 :]
        else:
            found = split(path)
        if found is None or found[1] not in found[0].names:
            return None
        return found[0].locate(found[1], self.flags)


locate = Locator()
