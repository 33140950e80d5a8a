"""Files and folders of archives, as `pathlib.Path` has those of the file system.

An `ArchivePath` is an `importlib.resources.abc.Traversable` by what it has: to import that is slow.
"""

from __future__ import annotations

import errno
import io
import os
from pathlib import PurePosixPath
from posixpath import normpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    from dlopen._archives import Archive


class ArchivePath:
    """A file or a folder of an archive, or a path that leads to none."""

    def __init__(self, archive: Archive, path: str) -> None:
        """`path` has no slash at its end, and is "" for the archive itself."""
        self._archive = archive
        self._path = path

    @property
    def name(self) -> str:
        """The last part of its path."""
        return os.path.basename(str(self))  # noqa: PTH119

    @property
    def suffix(self) -> str:
        """Of its name, with the dot."""
        return PurePosixPath(self.name).suffix

    @property
    def suffixes(self) -> list[str]:
        """All of its name, each with its dot."""
        return PurePosixPath(self.name).suffixes

    @property
    def stem(self) -> str:
        """Its name without the suffix."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> ArchivePath:
        """The folder that it is in."""
        return ArchivePath(self._archive, self._path.rpartition("/")[0])

    def is_dir(self) -> bool:
        """Whether it is a folder: what others are in, or that the archive lists as such."""
        return self._path in self._archive.folders

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._path in self._archive.names

    def exists(self) -> bool:
        """Whether it is a file or a folder."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[ArchivePath]:
        """What is in the folder, in the archive's order."""
        if not self.is_dir():
            number = errno.ENOTDIR if self.is_file() else errno.ENOENT
            raise OSError(number, os.strerror(number), str(self))
        start = f"{self._path}/" if self._path else ""
        within = (name[len(start) :] for name in self._archive.names if name.startswith(start))
        for name in dict.fromkeys(rest.partition("/")[0] for rest in within if rest):
            yield ArchivePath(self._archive, start + name)

    def joinpath(self, *descendants: str | os.PathLike[str]) -> ArchivePath:
        """What a relative path leads to; it need not be there."""
        path = normpath(
            "/".join([self._path, *(os.fspath(one) for one in descendants)]).lstrip("/")
        )
        return ArchivePath(self._archive, "" if path == "." else path)

    __truediv__ = joinpath

    def open(self, mode: str = "r", *arguments: Any, **keywords: Any) -> IO[Any]:
        """As `pathlib.Path.open`, for reading."""
        if mode not in ("r", "rb", "rt"):
            raise ValueError(f"a member of an archive is opened for reading, not with {mode!r}")
        stream = io.BytesIO(self.read_bytes())
        return stream if mode == "rb" else io.TextIOWrapper(stream, *arguments, **keywords)

    def folders(self) -> list[str]:
        """The names of the folders in it."""
        start = f"{self._path}/" if self._path else ""
        below = (name[len(start) :] for name in self._archive.folders if name.startswith(start))
        return sorted(name for name in below if name and "/" not in name)

    def read_bytes(self) -> bytes:
        """The content of the file."""
        if not self.is_file():
            number = errno.EISDIR if self.is_dir() else errno.ENOENT
            raise OSError(number, os.strerror(number), str(self))
        return self._archive.data(self._path)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """The text of the file."""
        with self.open(encoding=encoding, errors=errors) as stream:
            return str(stream.read())

    def __str__(self) -> str:
        return f"{self._archive.path}/{self._path}" if self._path else self._archive.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchivePath) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))
