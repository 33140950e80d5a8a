"""The gate: each call from Python into a library that can be reloaded passes it.

It is closed for the moment of the switch, which first waits for the calls that are inside, so that
the state that is moved is exact.
"""

from __future__ import annotations

from threading import Condition, get_ident
from time import monotonic
from weakref import WeakSet

from dlopen import _linker
from dlopen._lifecycle import in_child, new_lock
from dlopen._records import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any


class _Version:
    """One of the versions of a library that are mapped."""

    def __init__(self, number: int, image: int) -> None:
        self.number = number
        self.image = image
        self.inside = 0  # calls from Python that entered while this was the current one
        self.is_finished = False  # its destructors have run
        self.is_released = False  # as far as C callers are concerned


_gates: WeakSet[Gate] = WeakSet()


def _after_fork() -> None:
    for gate in list(_gates):
        gate.forget_other_threads()


in_child(_after_fork)


class Gate:
    """What calls from Python pass.  All of it is guarded by its lock.

    A call is counted for the version that is current when it enters.  By the time that it reads the
    function's address that may be a later one.  So a version is in use as long as calls are inside
    that entered while it, or an earlier one, was current.
    """

    def __init__(self, image: int) -> None:
        self._lock = new_lock()
        self._opened = Condition(self._lock)  # what calls wait for: none is woken in vain
        self._left = Condition(self._lock)  # a call has left: who closed the gate waits
        self._current = _Version(0, image)
        self._old: list[_Version] = []
        self._depths: dict[int, int] = {}  # of the threads that are inside
        self._is_closed = False
        self._reloader: int | None = None  # the thread that reloads, in which foreign code runs
        _gates.add(self)

    def forget_other_threads(self) -> None:
        """In a forked child, which has none: nobody would open it, or leave it.

        What they were inside of stays mapped.
        """
        me = get_ident()
        # Their lock is free: see `in_child`.
        with self._lock:
            self._depths = {me: self._depths[me]} if me in self._depths else {}
            self._is_closed = False
            if self._reloader != me:
                self._reloader = None
            # This thread may wait for one that is not here: a signal handler has forked.
            self._opened.notify_all()
            self._left.notify_all()

    def begin_reload(self) -> bool:
        """One reload at a time, which nobody waits for; ends with `end_reload`."""
        with self._lock:
            if self._reloader is not None:
                return False
            self._reloader = get_ident()
            return True

    def end_reload(self) -> None:
        """What `begin_reload` has begun."""
        with self._lock:
            self._reloader = None

    def enter(self) -> _Version:
        """Before a call; waits while the gate is closed.  Returns what `leave` must be given."""
        me = get_ident()
        with self._lock:
            # Who is inside must get out for the gate to open again.
            while self._is_closed and me not in self._depths:
                self._opened.wait()
            self._depths[me] = self._depths.get(me, 0) + 1
            version = self._current
            version.inside += 1
        return version

    def leave(self, version: _Version) -> None:
        """After a call."""
        me = get_ident()
        with self._lock:
            version.inside -= 1
            self._depths[me] -= 1
            if not self._depths[me]:
                del self._depths[me]
            if self._is_closed and len(self._depths) < 2:  # who closed it may be inside itself
                self._left.notify_all()
            was_last = not version.inside and version is not self._current
        if was_last:
            self.clear()

    def close(self, timeout: float) -> int:
        """Hold new calls; returns how many threads are inside still, after `timeout` seconds."""
        me = get_ident()
        end = monotonic() + timeout
        with self._lock:
            self._is_closed = True
            while others := len(self._depths.keys() - {me}):
                if (left := end - monotonic()) <= 0 or not self._left.wait(left):
                    break
            return others

    def open(self) -> None:
        """Let calls in again."""
        with self._lock:
            self._is_closed = False
            self._opened.notify_all()

    def succeed(self, image: int) -> int:
        """While it is closed: the image is the current version; returns its number."""
        with self._lock:
            self._old.append(self._current)
            self._current = _Version(self._current.number + 1, image)
            return self._current.number

    def release(self) -> None:
        """No C caller needs a version that is old by now."""
        with self._lock:
            for version in self._old:
                version.is_released = True
        self.clear()

    def clear(self) -> None:
        """Finish old versions that no call is inside of, and unmap those that were released."""
        while step := self._next_step():
            step[0](step[1])

    def _next_step(self) -> tuple[Any, int] | None:
        # Destructors run without the lock.
        with self._lock:
            for version in self._old:
                if version.inside:
                    return None  # nor is a later one out of use
                if not version.is_finished:
                    version.is_finished = True
                    return _linker.close, version.image
                if version.is_released:
                    self._old.remove(version)
                    return release_image, version.image
        return None


def release_image(image: int) -> None:
    """An old version is unmapped, when nothing else holds it."""
    try:
        _linker.release(image)
    except ValueError:  # it has gone with the last of what held it
        log("dlopen.reload", "an old version has gone already")
    _linker.was_closed()


class Passage:
    """For `with`: inside counts as a call; without a gate it does nothing."""

    def __init__(self, gate: Gate | None) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        if self._gate:
            self._version = self._gate.enter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._gate:
            self._gate.leave(self._version)
