"""What an open is asked with, as one record."""

from __future__ import annotations

from dlopen import _linker
from dlopen._records import Record
from dlopen._replacing import keep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from typing_extensions import Buffer

    from dlopen._files import Reader
    from dlopen._replacing import Kept


class Request(Record):
    """An open, as the core is asked for it, for each version of a library that is reloaded."""

    name: bytes | None
    """None: the program."""
    mode: int
    """`RTLD_*` and `PRIVATE`."""
    flags: int
    """DLOPEN_REPLACE_IN_TREE, DLOPEN_RELOADABLE, DLOPEN_ARENA of dlopen.h."""
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
