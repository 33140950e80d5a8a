"""Archives with libraries in them, and who knows where in them each one is."""

from __future__ import annotations

import os
import struct
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A record of the extra field of a local header, of Android's zipalign: padding.
ALIGNMENT_RECORD = 0xD935
# The largest page of a machine that this linker knows.
LARGEST_PAGE = 0x10000


def pack(
    path: Path, members: Mapping[str, bytes], align: int = LARGEST_PAGE, *, compress: bool = False
) -> Path:
    """A zip file whose members begin at multiples of `align`, or are compressed."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as made:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = kind
            start = made.fp.tell() + 30 + len(name.encode())  # type: ignore[union-attr]
            missing = -(start + 6) % align
            while missing > 0xFFF0:  # one field holds no more: a member that is padding
                made.writestr(f"padding{start}", bytes(missing // 2))
                start = made.fp.tell() + 30 + len(name.encode())  # type: ignore[union-attr]
                missing = -(start + 6) % align
            if not compress and align > 1:
                info.extra = struct.pack("<HHH", ALIGNMENT_RECORD, missing + 2, align & 0xFFFF)
                info.extra += bytes(missing)
            made.writestr(info, data)
    return path


def begins(path: Path, name: str) -> int:
    """Where the content of a member begins, as its local header says."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        file.seek(archive.getinfo(name).header_offset)
        header = file.read(30)
        name_size, extra_size = struct.unpack("<HH", header[26:30])
        return file.tell() + int(name_size) + int(extra_size)


class Located:
    """Some archives, and their members by path: what `set_archives` is given."""

    def __init__(self, *paths: Path, flags: int = 0) -> None:
        self.members: dict[str, tuple[str, int, int, int, bytes | None, int]] = {}
        self.asked: list[str] = []
        self.descriptors = []
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            self.descriptors.append(descriptor)
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    data = archive.read(info) if info.compress_type else None
                    self.members[f"{path}/{info.filename}"] = (
                        str(path),
                        descriptor,
                        begins(path, info.filename),
                        info.compress_size,
                        data,
                        flags,
                    )

    def __call__(self, path: str) -> tuple[str, int, int, int, bytes | None, int] | None:
        self.asked.append(path)
        return self.members.get(path)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
