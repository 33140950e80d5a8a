"""Locks that a forked child finds free.

The child has one thread.  What another one held in the parent nobody would ever release.  They are
recursive: such a lock knows whether it is held by this thread, which goes on in the child, and a
finalizer or a signal handler may come back to where its thread is.
"""

from __future__ import annotations

import os
from threading import RLock
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_locks: set[ref[Any]] = set()  # no WeakSet, which runs Python code for each lock that comes or goes


def new_lock() -> Any:
    """Held for short stretches, and not while foreign code runs; who does otherwise says so."""
    lock = RLock()
    _locks.add(ref(lock, _locks.discard))
    return lock


def _after_fork() -> None:
    for reference in _locks.copy():
        lock = reference()
        if lock is not None and not lock._is_owned():
            lock._at_fork_reinit()


os.register_at_fork(after_in_child=_after_fork)
