"""Files that need not be on any disk: what `files=` may be, as one function."""

from __future__ import annotations

import sys
from _collections_abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.resources.abc import Traversable
    from typing import TypeAlias
    from zipfile import Path as ZipPath
    from zipfile import ZipFile

    from typing_extensions import Buffer

    Reader: TypeAlias = Callable[[str], Buffer | None]
    Files: TypeAlias = Mapping[str, Buffer] | Reader | ZipFile | ZipPath | Traversable
    """Content by path: see `Library`."""


def reader(files: Files | None) -> Reader | None:
    """A function that returns the content of the file at a plain path, None if there is none.

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
    if all(hasattr(files, name) for name in ("joinpath", "is_file", "read_bytes")):
        return _of_folder(files)  # type: ignore[arg-type]
    if callable(files):
        return files
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


def _of_archive(archive: ZipFile) -> Reader:
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
