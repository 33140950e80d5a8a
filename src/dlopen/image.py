"""Images that are mapped for inspection."""

from __future__ import annotations

import os
import sys
from os import RTLD_NOW

from dlopen import _linker
from dlopen._files import reader
from dlopen._mapped import Mapped, content
from dlopen._records import or_log
from dlopen._replacing import finder, keep, kept_of, replacements_for
from dlopen.functions import function_type
from dlopen.library import Library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from typing_extensions import Buffer

    from dlopen._files import Files
    from dlopen._replacing import Find, Replacement


class Image(Mapped):
    """One file, mapped and checked, without its dependencies and not relocated.

    Nothing of it runs: look at `info` and `symbols`, then `close` it, or link it with `relocate`.
    It may be for another machine (x86-64, AArch64, RISC-V or LoongArch), and then not be linked.
    `path` and `files` are as for `Library`.  Raises `LoadError` when it cannot be loaded.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        files: Files | None = None,
    ) -> None:
        name = _linker.encode_name(path)
        sys.audit("dlopen.open", os.fsdecode(name), 0)
        path = os.fsdecode(name)
        image = or_log(_linker.map, path, name, None, files=reader(files))
        self._adopt(image, path, None, True)

    @classmethod
    def from_bytes(cls, data: Buffer, *, name: str = "<bytes>") -> Self:
        """An image of the content of a file.  `name` stands in for its path.

        The content is copied first; later changes of `data` have no effect.
        """
        self = cls.__new__(cls)
        sys.audit("dlopen.open", name, 0)
        image = or_log(_linker.map, name, _linker.encode_name(name), content(data))
        self._adopt(image, name, None, True)
        return self

    def relocate(
        self,
        scope: Iterable[Library] = (),
        find: Find | None = None,
        *,
        mode: int = RTLD_NOW,
        replace: Mapping[str, Replacement] | None = None,
        gil: bool = False,
        use_errno: bool = False,
    ) -> Library:
        """Link it by hand and run its constructors: a `Library`; the Image is closed then.

        Its references are bound to what `replace` or `find` says, then to its own definitions,
        then to those of the libraries in `scope` and of no other.  What it needs (DT_NEEDED) is
        not loaded.

        Args:
            scope: Open libraries, in the order in which they are searched; it keeps them loaded.
            find: Called with the name and the version (or None) of each symbol that it refers to,
                once, before any is bound; returns an address, a `Symbol`, a ctypes function, or
                None to leave it to the scope.  An exception ends the linking and is raised here.
            mode: `RTLD_NOW`, or `RTLD_LAZY` to bind functions when they are called first.
            replace: As for `Library`; goes before `find`.
            gil: As for `Library`.
            use_errno: As for `Library`.

        Raises:
            LoadError: It cannot be linked, or is for another machine.  The Image is closed then,
                too.
            SymbolError: Nobody in the scope defines a symbol.
            ValueError: It, or a library of the scope, is closed; or an argument that cannot be.
            TypeError: A replacement that has no address.
        """
        images = []
        for library in scope:
            if not isinstance(library, Library):
                raise TypeError(f"a scope consists of libraries, not of {library!r}")
            images.append(library._open_image())
        flags = _linker.flags_of(mode)
        replacements = replacements_for(replace)
        kept = kept_of(replace)
        with self._lock:
            image = self._open_image()
            self._image = None
        ask = finder(find, kept)
        or_log(_linker.relocate, self._path, image, images, flags, replacements, ask)
        keep(image, kept)
        linked = Library.__new__(Library)
        linked._adopt(image, self._path, function_type(gil, use_errno), True)
        return linked
