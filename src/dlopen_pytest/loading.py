"""The fixture `load_library`."""

from __future__ import annotations

import warnings
from contextlib import ExitStack

import dlopen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from types import TracebackType
    from typing import Any, Self

    from typing_extensions import Buffer

# Why a library stays that was made to stay.
_BY_DESIGN = {"nodelete", "thread_local"}


class LoadLibrary:
    """Loads libraries for one test.

    They are closed at its end, the last one first.  A `ResourceWarning` says when an image of the
    test's own stays mapped, because something that the test has not closed needs it.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._own: list[dlopen.Library] = []

    def __call__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None,
        mode: int = dlopen.PRIVATE,
        **options: Any,
    ) -> dlopen.Library:
        """Open it as `dlopen.Library` does, but `PRIVATE` unless `mode` says otherwise.

        A private image has variables of its own: no test sees what another has left in them.  The
        libraries that it needs are loaded once, and shared.
        """
        library = self._stack.enter_context(dlopen.Library(path, mode, **options))
        if mode & dlopen.PRIVATE:
            self._own.append(library)
        return library

    def from_bytes(self, data: Buffer, **options: Any) -> dlopen.Library:
        """Open one from the content of a file: see `dlopen.Library.from_bytes`."""
        library = self._stack.enter_context(dlopen.Library.from_bytes(data, **options))
        self._own.append(library)
        return library

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        for library in self._own:
            left = [one for one in library.unload_blockers if one.kind not in _BY_DESIGN]
            if left:
                reasons = ", ".join(f"{one.kind} ({one.library or '?'})" for one in left)
                warnings.warn(
                    f"still mapped after its test: {library!r}: {reasons}",
                    ResourceWarning,
                    stacklevel=1,
                )
