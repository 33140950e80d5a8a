"""Images that are mapped for inspection, and what all that is open has in common."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress

from dlopen import _linker
from dlopen._files import reader
from dlopen._locks import new_lock
from dlopen._records import log, or_log
from dlopen._replacing import finder, keep, kept_of, replacements_for
from dlopen.errors import one_line
from dlopen.info import Info
from dlopen.modes import RTLD_NOW, flags_of
from dlopen.symbols import Symbols

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Any, NoReturn, Self
    from weakref import ref

    from typing_extensions import Buffer

    from dlopen._files import Files
    from dlopen._replacing import Find, Replacement
    from dlopen.errors import SymbolError
    from dlopen.library import Library


class Mapped:
    """What `Library` and `Image` have in common: something open that can be closed."""

    _image: int | None = None
    _path = ""
    _lock: Any
    _warns = False
    _keys: tuple[str, ...] | None = None
    """Of its exports, once they were listed."""
    _last_error: ref[SymbolError] | None = None
    """It lists them when it is shown."""

    def _opened(self, image: int, path: str, warns: bool) -> None:
        self._image = image
        self._path = path
        self._warns = warns
        self._lock = new_lock()
        log("dlopen.library", "opened %r", self)

    def _open_image(self) -> int:
        image = self._image
        if image is None:
            raise ValueError(one_line(f"{self._path or 'the program'} is closed"))
        return image

    def _describe(self) -> Info:
        return Info(self._open_image(), self)

    def _forget(self) -> None:
        """Turn off what was handed out; again does no harm."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._image is None

    @property
    def info(self) -> Info:
        """What is known of the image.  Raises `ValueError` when closed."""
        return self._describe()

    @property
    def symbols(self) -> Symbols:
        """Its exports, by name.  Raises `ValueError` when closed."""
        self._open_image()
        return Symbols(self)  # not kept: what is closed is freed without the garbage collector

    def close(self) -> None:
        """Give it up; further calls do nothing.

        What can be unloaded is unloaded before this returns: destructors run, in this thread.
        No other thread may be inside one of its functions; see dlclose(3).
        """
        if self._last_error and self._last_error():
            with suppress(ValueError):
                self.symbols._all_keys()
        with self._lock:
            image, self._image = self._image, None
            if image is None:
                return
            self._forget()
        # Without the lock: a destructor may come back here.
        self._closed(image, _linker.close(image))
        log("dlopen.library", "closed %r", self)

    def _closed(self, image: int, is_held: bool) -> None:
        """Called once, when the core has closed the image."""

    def __enter__(self) -> Self:
        self._open_image()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled")

    def __repr__(self) -> str:
        name = f"dlopen.{type(self).__name__}"
        try:
            info = self._describe()
        except ValueError:
            return f"<{name} {self._path!r} closed>"
        return f"<{name} {info.path or self._path!r} at {info.map_start:#x}>"

    def __del__(self) -> None:
        # Nothing is unloaded here: code of the image may be in use from anywhere.
        if self._warns and self._image is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)


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


class Image(Mapped):
    """One file, mapped and checked, without its dependencies and not relocated.

    Nothing of it runs: look at `info` and `symbols`, then `close` it, or link it with `relocate`.
    `path` and `files` are as for `Library`.  Raises `LoadError` when it cannot be loaded.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        files: Files | None = None,
    ) -> None:
        name = encode_name(path)
        sys.audit("dlopen.open", os.fsdecode(name), 0)
        path = os.fsdecode(name)
        image = or_log(_linker.map, path, name, None, files=reader(files))
        self._opened(image, path, True)

    @classmethod
    def from_bytes(cls, data: Buffer, *, name: str = "<bytes>") -> Self:
        """An image of the content of a file.  `name` stands in for its path.

        The content is copied first; later changes of `data` have no effect.
        """
        self = cls.__new__(cls)
        sys.audit("dlopen.open", name, 0)
        self._opened(or_log(_linker.map, name, encode_name(name), content(data)), name, True)
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
            LoadError: It cannot be linked.  The Image is closed then, too.
            SymbolError: Nobody in the scope defines a symbol.
            ValueError: It, or a library of the scope, is closed; or an argument that cannot be.
            TypeError: A replacement that has no address.
        """
        from dlopen.library import Library  # noqa: PLC0415  (which is built on this module)

        images = []
        for library in scope:
            if not isinstance(library, Library):
                raise TypeError(f"a scope consists of libraries, not of {library!r}")
            images.append(library._open_image())
        flags = flags_of(mode)
        replacements = replacements_for(replace)
        kept = kept_of(replace)
        with self._lock:
            image = self._open_image()
            self._image = None
        ask = finder(find, kept)
        or_log(_linker.relocate, self._path, image, images, flags, replacements, ask)
        keep(image, kept)
        linked = Library.__new__(Library)
        linked._adopt(image, self._path, gil, use_errno, True)
        return linked
