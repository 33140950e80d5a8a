"""Members of archives: content inside of files, as the linker can map it."""

from __future__ import annotations

import os
import struct
from io import BufferedReader, FileIO

from dlopen import _linker
from dlopen._records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias
    from zipfile import ZipFile, ZipInfo

    from typing_extensions import Buffer

    Answer: TypeAlias = tuple[str | None, int, int, int, Buffer | None, int, str]
    """What `_linker` is given of one."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # APPNOTE.TXT 4.3.7: signature, sizes of name and extra
_ENCRYPTED = 1  # of `ZipInfo.flag_bits`


class Member(Record):
    """A library inside of a file, which a function that is given as `files=` may return.

    It is what the file is: others find the image by its path, and each that opens it gets the same
    one, which is known by file and offset.  It is mapped from the file if it is stored there as it
    is, at a multiple of the page size (64 KiB is one on each machine), else copied into memory.
    """

    archive: str
    """The path of the file."""
    descriptor: int
    """Of the file, open until the library is."""
    offset: int
    """Where the member begins in the file."""
    length: int
    """Of what is stored there, in bytes."""
    data: Buffer | None
    """Its content, if the file has it in another form."""
    path: str | None
    """That the image goes by; None: what was asked for, below the archive's if that is relative."""
    mapped_only: bool
    """Whether to fail instead of copying it into memory."""

    def __init__(
        self,
        archive: str | os.PathLike[str],
        descriptor: int,
        offset: int,
        length: int,
        data: Buffer | None = None,
        *,
        path: str | None = None,
        mapped_only: bool = False,
    ) -> None:
        archive = os.path.abspath(archive)  # noqa: PTH100  (pathlib takes long to import)
        super().__init__(archive, descriptor, offset, length, data, path, mapped_only)

    def _answer(self) -> tuple[object, ...]:
        """What `_linker` takes."""
        flags = _linker.MAPPED_ONLY if self.mapped_only else 0
        known = (self.archive, self.descriptor, self.offset, self.length, self.data, flags)
        return known if self.path is None else (*known, self.path)


def content_offset(descriptor: int, header_offset: int) -> int:
    """Where the content of a zip's member begins, whose local header is there.

    Raises `ValueError` if none is.
    """
    header = os.pread(descriptor, _LOCAL_HEADER.size, header_offset)
    if len(header) == _LOCAL_HEADER.size:
        signature, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        if signature == b"PK\3\4":
            return header_offset + _LOCAL_HEADER.size + int(name_size) + int(extra_size)
    raise ValueError(
        f"no member of a zip file begins at {header_offset}: it is truncated, or was changed"
    )


def of_zip(archive: ZipFile, folder: str = "") -> Callable[[str], Member | None] | None:
    """A function that returns the member at a path below `folder`; None: it is in no file.

    Others may have it open for writing, or decompress what it reads.
    """
    file, name = archive.fp, archive.filename
    if (
        archive.mode != "r"
        or not isinstance(file, BufferedReader)
        or not isinstance(file.raw, FileIO)
        or not isinstance(name, str)
    ):
        return None
    path = os.path.abspath(name)  # noqa: PTH100
    start = f"{path}/"

    def find(asked: str) -> Member | None:
        inner = asked.removeprefix(start) if asked.startswith("/") else folder + asked
        try:
            info: ZipInfo = archive.getinfo(inner)
        except KeyError:
            return None
        stored = info.compress_type == 0 and not info.flag_bits & _ENCRYPTED
        descriptor = file.fileno()
        return Member(
            path,
            descriptor,
            content_offset(descriptor, info.header_offset),
            info.compress_size,
            None if stored else archive.read(info),
            path=start + inner,
        )

    return find
