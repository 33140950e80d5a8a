"""Files that need not be on any disk: what `files=` may be, as one function."""

from __future__ import annotations

import os
import sys
from _collections_abc import Mapping

from dlopen._lifecycle import late

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.resources.abc import Traversable
    from typing import Any, TypeAlias
    from zipfile import Path as ZipPath
    from zipfile import ZipFile

    from typing_extensions import Buffer

    from dlopen.members import Member

    Reader: TypeAlias = Callable[[str], Buffer | tuple[Any, ...] | None]
    Given: TypeAlias = Buffer | Member | None
    Files: TypeAlias = (
        Mapping[str, Buffer] | Callable[[str], Given] | ZipFile | ZipPath | Traversable
    )
    """Content by path: see `Library`."""


def reader(files: Files | None) -> Reader | None:
    """A function that returns what is at a plain path, None if there is nothing.

    That is content, or the member of an archive as `_linker` takes it.
    Raises `TypeError` for what is no source of files.
    """
    if files is None:
        return None
    if isinstance(files, Mapping):
        return _of_mapping(files)
    # Importing these would take longer than all else; who has one has imported them.
    zipfile = sys.modules.get("zipfile")
    if zipfile is not None and isinstance(files, zipfile.ZipFile):
        return _of_archive(files)
    if zipfile is not None and isinstance(files, zipfile.Path):
        return _of_members(files.root, files.at) or _of_folder(files)
    if all(hasattr(files, name) for name in ("joinpath", "is_file", "read_bytes")):
        return _of_folder(files)  # type: ignore[arg-type]
    if callable(files):
        return _of_function(files)
    raise TypeError(
        f"files is a mapping, a function, a ZipFile or a folder of resources, not {files!r}"
    )


def _of_mapping(files: Mapping[str, Buffer]) -> Reader:
    def read(path: str) -> Buffer | None:
        try:
            return files[path]
        except KeyError:
            return None

    return read


def content_of(given: Any) -> Buffer:
    """What such a function has returned, as bytes."""
    if not isinstance(given, tuple):
        return given  # type: ignore[no-any-return]
    _, descriptor, offset, length, data, *_ = given
    return os.pread(descriptor, length, offset) if data is None else data


def _of_function(files: Callable[[str], Given]) -> Reader:
    def read(path: str) -> Buffer | tuple[Any, ...] | None:
        found = files(path)
        members = sys.modules.get("dlopen.members")
        if members is not None and isinstance(found, members.Member):
            return found._answer()  # type: ignore[no-any-return]
        return found  # type: ignore[return-value]

    return read


def _of_members(archive: ZipFile, folder: str) -> Reader | None:
    """Of an archive that is a file, None if it is not."""
    with late():
        from dlopen.members import of_zip  # noqa: PLC0415  (seldom needed)

    find = of_zip(archive, folder)
    return None if find is None else _of_function(find)


def _of_archive(archive: ZipFile) -> Reader:
    if (members := _of_members(archive, "")) is not None:
        return members

    def read(path: str) -> Buffer | None:
        try:
            member = archive.getinfo(path)
        except KeyError:
            return None
        return archive.read(member)

    return read


def _of_folder(folder: Traversable | ZipPath) -> Reader:
    resources = sys.modules.get("importlib.resources.abc")
    missing = (
        FileNotFoundError,
        NotADirectoryError,
        getattr(resources, "TraversalError", FileNotFoundError),
    )

    def read(path: str) -> Buffer | None:
        if path.startswith(("/", "../")):  # not below it
            return None
        file: Traversable | ZipPath = folder
        try:
            for part in path.split("/"):  # a package of several folders takes one at a time
                file = file.joinpath(part)
            return file.read_bytes() if file.is_file() else None
        except missing:
            return None

    return read
