"""Archives of Python packages, as wheels and zipapps are."""

from __future__ import annotations

import marshal
import struct
import sys
import zipfile
from typing import TYPE_CHECKING

from support.archives import ALIGNMENT_RECORD, LARGEST_PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MADE = (2020, 2, 3, 4, 5, 6)


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their path in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pack(
    path: Path,
    files: Mapping[str, bytes],
    *,
    compressed: bool = False,
    aligned: bool = True,
    bytecode: bool = False,
    before: bytes = b"",
    folders: bool = False,
    zip64: bool = False,
) -> Path:
    """An archive of `files`.

    Args:
        path: Where it is written.
        files: The content of each member.
        compressed: Whether members are deflated; stored they are else.
        aligned: Whether stored libraries begin at a page.
        bytecode: Whether each source has its unchecked bytecode beside it.
        before: What stands before the archive, as a `#!` line.
        folders: Whether folders have records of their own.
        zip64: Whether all sizes are in extra fields of zip64.
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    members = dict(files)
    if bytecode:
        for name, content in files.items():
            if name.endswith(".py"):
                members[f"{name}c"] = unchecked_bytecode(name, content)
    with path.open("wb") as stream:
        stream.write(before)
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, content in members.items():
                folder = f"{name.rpartition('/')[0]}/"
                if folders and folder not in ("/", *archive.namelist()):
                    archive.writestr(zipfile.ZipInfo(folder, MADE), b"")
                info = zipfile.ZipInfo(name, MADE)
                info.compress_type = method
                if aligned and not compressed and ".so" in name:
                    info.extra = _alignment(stream.tell() + 30 + len(name.encode()))
                with archive.open(info, "w", force_zip64=zip64) as member:
                    member.write(content)
    return path


def _alignment(begin: int) -> bytes:
    padding = -(begin + 6) % LARGEST_PAGE
    if padding > 0xFF00:  # an extra field has no room for so much
        padding %= 4096
    return struct.pack("<HHH", ALIGNMENT_RECORD, padding + 2, LARGEST_PAGE - 1) + bytes(padding)


def unchecked_bytecode(name: str, source: bytes) -> bytes:
    """See PEP 552; as if compiled elsewhere."""
    from importlib.util import MAGIC_NUMBER, source_hash  # noqa: PLC0415  (slow to import)

    code = compile(source, f"/elsewhere/{name}", "exec", dont_inherit=True)
    return MAGIC_NUMBER + b"\1\0\0\0" + source_hash(source) + marshal.dumps(code)


def timed_bytecode(source: bytes, made: float, code: bytes | None = None) -> bytes:
    """Of a source of that age; `code` is what is in it instead of the source's own."""
    from importlib.util import MAGIC_NUMBER  # noqa: PLC0415  (slow to import)

    compiled = compile(source if code is None else code, "<elsewhere>", "exec", dont_inherit=True)
    header = struct.pack("<III", 0, int(made), len(source) & 0xFFFFFFFF)
    return MAGIC_NUMBER + header + marshal.dumps(compiled)


def tags(*, python: str = "", abi: str = "", machine: str = "") -> bytes:
    """The file WHEEL of a wheel for this interpreter, or for another."""
    import os  # noqa: PLC0415

    version = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    python, abi = python or version, abi or version
    platform = f"manylinux_2_17_{machine or os.uname().machine}"
    return f"Wheel-Version: 1.0\nTag: {python}-{abi}-{platform}\n".encode()
