"""What all that is open has in common, and `Place`, the namespace that it is opened in."""

from __future__ import annotations

from _warnings import warn

from dlopen import _linker
from dlopen._lifecycle import late, new_lock
from dlopen.symbols import Symbols

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn, Self

    from typing_extensions import Buffer

    from dlopen.info import Info


def content(data: Buffer | None) -> Buffer:
    """What is given as bytes.  To the core None is a file that it shall read."""
    if data is None:
        raise TypeError("a bytes-like object is required, not None")
    return data


class Mapped(_linker.Opened):
    """What `Library` and `Image` have in common: something open that can be closed."""

    _keys: tuple[str, ...] | None = None
    """Of its exports, once they were listed."""

    @property
    def _lock(self) -> Any:
        """Made when it is asked for first, which most never are."""
        return self._own_lock or self._guard_by(new_lock())

    def _describe(self) -> Info:
        with late():
            from dlopen.info import Info  # noqa: PLC0415  (seldom needed)

        return Info(self._open_image(), self)

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

    def _list_exports(self) -> None:
        """For the last error, which names those that are similar when it is shown: see `close`."""
        if self._last_error and self._last_error():
            try:  # noqa: SIM105  (contextlib is slow to import)
                self.symbols._all_keys()
            except ValueError:  # closed meanwhile
                pass

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
            known = _linker.info(self._open_image())
        except ValueError:
            return f"<{name} {self._path!r} closed>"
        return f"<{name} {known['path'] or self._path!r} at {known['map_start']:#x}>"

    def __del__(self) -> None:
        # Nothing is unloaded here: code of the image may be in use from anywhere.
        if self._warns and self._image is not None:
            warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)


class Place:
    """A `Namespace`, as far as what is opened in it needs to know it."""

    _number: int | None = None
    _arena = False

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = new_lock()  # guards the next two
        self._open: dict[Mapped, None] = {}  # in the order in which they were opened
        self._is_closed = False

    def _entered(self) -> int:
        """Its number; raises `ValueError` when it is closed."""
        if self._is_closed or self._number is None:
            raise ValueError(f"the namespace {self._name!r} is closed")
        return self._number

    def _add(self, library: Mapped) -> None:
        """One that was just opened into it."""
        with self._lock:
            if not self._is_closed:
                self._open[library] = None
                return
        library.close()  # it was loaded while another thread closed the namespace
        self._entered()

    def _remove(self, library: Mapped) -> None:
        """One that was closed."""
        with self._lock:
            self._open.pop(library, None)
