"""Reloading on change: the file of a library is watched, and loaded anew when it is written."""

from __future__ import annotations

from threading import Event, Thread, current_thread
from weakref import WeakSet

from dlopen._lifecycle import at_end
from dlopen.errors import Error, one_line
from dlopen.reloading import names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from logging import Logger
    from types import TracebackType
    from typing import Any, Self

    from dlopen.library import Library
    from dlopen.reloading import Reloaded, Reloading

_watching: WeakSet[Watcher] = WeakSet()
_DEBOUNCE = 100  # milliseconds: a linker writes a file in several steps
_STEP = 20


def _logger() -> Logger:
    from logging import getLogger  # noqa: PLC0415  (slow to import)

    return getLogger("dlopen.reload")


class Watcher:
    """What `watch` returns: it watches until it, or the library, is closed."""

    def __init__(
        self,
        library: Library,
        reloading: Reloading,
        path: str,
        keep: tuple[str, ...],
        on_reload: Callable[[Reloaded], object] | None,
        on_error: Callable[[Exception], object] | None,
    ) -> None:
        """See `watch`."""
        self._library = library
        self._reloading = reloading
        self._path = path
        self._keep = keep
        self._on_reload = on_reload
        self._on_error = on_error or self._log
        self._stop = Event()
        _watching.add(self)
        self._thread = Thread(target=self._run, name=f"dlopen.watch {path}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from pathlib import Path  # noqa: PLC0415  (slow to import)

        from watchfiles import watch  # noqa: PLC0415  (an extra)

        path = Path(self._path)
        folders = {path.parent, path.resolve().parent}  # of a link, and of what it leads to
        for _ in watch(
            *folders,
            debounce=_DEBOUNCE,
            step=_STEP,
            stop_event=self._stop,
            rust_timeout=500,
            yield_on_timeout=True,  # what changed before the watch began is seen, too
            recursive=False,
            raise_interrupt=False,
        ):
            if self._library.closed:
                return
            if self._reloading.has_changed():
                self._reload()

    def _reload(self) -> None:
        try:
            done = self._library.reload(keep=self._keep)
        except Exception as error:  # noqa: BLE001  (a source of files may raise any)
            if not self._library.closed:
                self._tell(self._on_error, error)
            return
        if self._on_reload:
            self._tell(self._on_reload, done)

    def _tell(self, function: Callable[[Any], object], what: object) -> None:
        """What it raises does not end the watch."""
        try:
            function(what)
        except Exception:  # noqa: BLE001  (told)
            _logger().exception("%r failed", function)

    def _log(self, error: Exception) -> None:
        _logger().warning("%s", error)

    def close(self) -> None:
        """Watch no longer; a reload that is under way is waited for."""
        self._stop.set()
        if self._thread is not current_thread():
            self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@at_end
def _end_all() -> None:
    """A thread that is in watchfiles when the interpreter ends would be killed there."""
    for watcher in list(_watching):
        watcher.close()


def watch(
    library: Library,
    keep: Iterable[str] = (),
    *,
    on_reload: Callable[[Reloaded], object] | None = None,
    on_error: Callable[[Exception], object] | None = None,
) -> Watcher:
    """Reload a library each time that its file is written, in a thread of its own.

    Needs the extra `dlopen[watch]` (the package watchfiles).

    Args:
        library: Opened with `reload=True` from a file.
        keep: As for `Library.reload`.
        on_reload: Called with what each reload has done.
        on_error: Called with why a reload has failed; the old version goes on, and the next change
            is another attempt.  By default it is logged to `dlopen.reload` as a warning.
            What the two raise themselves is logged there as an error.

    Raises:
        ImportError: watchfiles is not installed.
        Error: The library was opened without `reload=True`.
        ValueError: It is closed, or not from a file.
    """
    import watchfiles  # noqa: F401, PLC0415  (here, not in the thread: for the error)

    library._open_image()
    reloading = library._reloading
    if reloading is None:
        raise Error(f"{library._path} was opened without reload=True")
    if reloading.path is None:
        raise ValueError(one_line(f"{library._path} is not from a file that can be watched"))
    return Watcher(library, reloading, reloading.path, names_of(keep), on_reload, on_error)
