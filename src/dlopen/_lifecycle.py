"""What is done in a forked child and at the interpreter's end, and locks that a child finds free.

Modules of this package are imported when they are used first, and `import dlopen` registers for all
of them: at the end, handlers that a program registers after that import run before any of ours; in
a child, after them.
"""

from __future__ import annotations

import atexit
import os
from _thread import RLock
from _thread import _local as local
from _weakref import ref
from time import monotonic

from dlopen import _linker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Act = TypeVar("Act", bound=Callable[[], object])

_locks: set[ref[Any]] = set()  # no WeakSet, which runs Python code for each lock that comes or goes
_in_child: list[Callable[[], object]] = []
_at_end: list[Callable[[], object]] = []


def new_lock() -> Any:
    """Held for short stretches, and not while foreign code runs; who does otherwise says so.

    A child has one thread, and what another one held in the parent nobody would ever release.  The
    lock is recursive: it knows whether it is held by this thread, which goes on in the child, and a
    finalizer or a signal handler may come back to where its thread is.
    """
    lock = RLock()
    _locks.add(ref(lock, _locks.discard))
    return lock


class _Importing(local):
    lock: Any = None


_importing = _Importing()
_imports: set[ref[Any]] = set()  # the locks in it, of all threads
_gate = new_lock()  # before another one is made
_held: list[Any] = []  # by the thread that forks
_LONGEST_IMPORT = 5.0  # seconds: one may be waiting for what the thread has that forks


def late() -> Any:
    """Give a lock for `with`, around imports that are not made by `import dlopen`.

    A child that is forked while another thread imports a module would wait for ever when it imports
    that one, too: so a fork waits for such threads, and they for a fork.  They do not wait for each
    other, and each has a lock of its own: what imports modules (`sys.meta_path`) may have one,
    and import from here while it is held.
    """
    if _importing.lock is None:
        with _gate:
            lock = new_lock()
            _imports.add(ref(lock, _imports.discard))
            _importing.lock = lock
    return _importing.lock


def _before_fork() -> None:
    limit = monotonic() + _LONGEST_IMPORT
    if not _gate.acquire(timeout=_LONGEST_IMPORT):
        return
    _held.append(_gate)
    for reference in _imports.copy():
        lock: Any = reference()
        if lock is not None and lock.acquire(timeout=max(0, limit - monotonic())):
            _held.append(lock)


def _after_fork() -> None:
    if _gate._is_owned():
        while _held:
            _held.pop().release()


def in_child(act: Callable[[], object]) -> None:
    """Have it called in each forked child, where the locks are free; in the order of the calls."""
    _in_child.append(act)


def at_end(act: Act) -> Act:
    """Decorate what is called at the interpreter's end, the last first, as `atexit` does."""
    _at_end.append(act)
    return act


def _begin_child() -> None:
    for reference in _locks.copy():
        lock: Any = reference()
        if lock is not None and not lock._is_owned():
            lock._at_fork_reinit()
    _after_fork()
    _held.clear()  # of another thread that was forking, too
    for act in _in_child:
        act()


@atexit.register
def _end() -> None:
    while _at_end:
        act = _at_end.pop()
        try:
            act()
        except BaseException as error:  # noqa: BLE001  (told; the others are called)
            _linker.tell_unraisable(act, error)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_begin_child)
