"""What an open is given: a name or the content of a file, and all the rest as one record."""

from __future__ import annotations

import os

from dlopen import _linker
from dlopen._records import Record
from dlopen._replacing import keep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from typing_extensions import Buffer

    from dlopen._files import Reader
    from dlopen._replacing import Kept


def encode_name(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bytes:
    """A library's name for the core.

    A str or bytes without a slash is a name to be searched, as dlopen(3) does; an `os.PathLike`
    is always a file (`Path("./x.so")` drops its "./").
    """
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    return b"./" + name if isinstance(path, os.PathLike) and b"/" not in name else name


def content(data: Buffer | None) -> Buffer:
    """What is given as bytes.  To the core None is a file that it shall read."""
    if data is None:
        raise TypeError("a bytes-like object is required, not None")
    return data


class Request(Record):
    """An open, as the core is asked for it, for each version of a library that is reloaded."""

    name: bytes | None
    """None: the program."""
    mode: int
    """`RTLD_*` and `PRIVATE`."""
    flags: int
    """DLOPEN_REPLACE_IN_TREE, DLOPEN_RELOADABLE of dlopen.h."""
    replacements: list[tuple[bytes, bytes | None, int]]
    kept: list[Kept]
    """What they lead to, alive as long as the image is mapped."""
    read: Reader | None
    """Of the files that need not be on any disk."""
    place: int
    """The number of the namespace."""

    def changed(self, **values: Any) -> Self:
        """This request with other values of some fields."""
        return type(self)(*(self.__dict__ | values).values())

    def open(self, data: Buffer | None, replaces: int = 0) -> int:
        """The image, of the file or of the content that is given; `replaces` is the old version."""
        image = _linker.open(
            self.name,
            data,
            self.mode,
            self.flags,
            self.replacements,
            self.read,
            self.place,
            replaces,
        )
        if self.kept:
            keep(image, self.kept, in_tree=self.flags & _linker.REPLACE_IN_TREE != 0)
        return image
