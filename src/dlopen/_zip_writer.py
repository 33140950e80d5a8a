"""Writes a zip whose libraries can be mapped from it: stored, each at the start of a page.

What moves a library there is the extra field of its local header that Android's zipalign writes
(0xd935: the alignment, then as many zeros as it takes), or, where less is missing than a field has
bytes, zeros before the header.  To all who read zips it is a zip like any other.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zipfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import BinaryIO, Self

_ALIGNMENT = 0xD935
_LOCAL_HEADER = 30  # bytes, before the name
_FIELD = struct.Struct("<HHH")
_ELF = struct.Struct("<4sBB10xHH")  # magic, class, byte order, type, machine
_ET_DYN = 3


class TooLargeError(ValueError):
    """It would need zip64, which zipimport of Python 3.11 and 3.12 cannot read."""


def library_machine(data: bytes) -> int | None:
    """The e_machine of a shared library of 64 bits; None for all else."""
    if len(data) < _ELF.size:
        return None
    magic, bits, order, kind, machine = _ELF.unpack_from(data)
    is_library = (magic, bits, order, kind) == (b"\x7fELF", 2, 1, _ET_DYN)
    return machine if is_library else None


def date_of_members() -> tuple[int, int, int, int, int, int]:
    """That of SOURCE_DATE_EPOCH, else the first that a zip can hold: always the same bytes.

    Raises:
        ValueError: It is none that a zip can hold.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    try:
        when = time.gmtime(int(text))
    except (ValueError, OverflowError, OSError):
        when = None
    if when is None or not 1970 <= when.tm_year <= 2107:
        raise ValueError(f"SOURCE_DATE_EPOCH={text}: a number of seconds, until the year 2107")
    if when.tm_year < 1980:
        return 1980, 1, 1, 0, 0, 0
    return when.tm_year, when.tm_mon, when.tm_mday, when.tm_hour, when.tm_min, when.tm_sec


def can_be_mapped(stream: BinaryIO, member: zipfile.ZipInfo, page: int) -> bool:
    """Is this library stored, and at the start of a page?"""
    stream.seek(member.header_offset)
    lengths = struct.unpack_from("<HH", stream.read(_LOCAL_HEADER), 26)  # of name and extra fields
    start = member.header_offset + _LOCAL_HEADER + sum(lengths)
    return member.compress_type == zipfile.ZIP_STORED and start % page == 0


class Writer:
    """A context manager, at whose end the archive is complete.

    Mapped will be the libraries of one machine, by its e_machine and the largest page it may have.
    """

    def __init__(self, stream: BinaryIO, machine: int, page: int, *, compress: bool) -> None:
        self._zip = zipfile.ZipFile(stream, "w", allowZip64=False)
        self._machine, self._page = machine, page
        self._compression = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        self._date = date_of_members()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(zipfile.LargeZipFile):  # an error of before says so
            self._zip.close()

    def add(self, name: str, data: bytes, *, executable: bool = False) -> None:
        """A file; or, with a name that ends in a slash, a folder."""
        member = zipfile.ZipInfo(name, self._date)
        member.file_size = len(data)
        member.create_system = 3  # Unix
        mode = 0o755 if executable else 0o644
        member.external_attr = (0o040755 << 16) | 0x10 if name.endswith("/") else mode << 16
        if library_machine(data) == self._machine:
            self._align(member)
        elif data:
            member.compress_type = self._compression
        try:
            self._zip.writestr(member, data)
        except zipfile.LargeZipFile:
            raise TooLargeError(f"2 GiB, or 65,534 members, are reached with {name}") from None
        # The field says nothing to who reads the directory.
        member.extra = b""

    def _align(self, member: zipfile.ZipInfo) -> None:
        start = self._zip.start_dir + _LOCAL_HEADER + len(member.filename.encode())
        missing = -start % self._page
        if 0 < missing < _FIELD.size and missing + self._page > 0xFFFF:
            assert self._zip.fp is not None
            self._zip.fp.seek(self._zip.start_dir)
            self._zip.fp.write(bytes(missing))
            self._zip.start_dir += missing
        elif missing:
            length = missing if missing >= _FIELD.size else missing + self._page
            field = _FIELD.pack(_ALIGNMENT, length - 4, self._page & 0xFFFF)
            member.extra = field + bytes(length - _FIELD.size)
