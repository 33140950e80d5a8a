"""What readers may still look at, and nobody finds any more: it waits until image/registry.pxd
frees it."""

from libc.stdint cimport uint32_t

from dlopen.core.base.atomics cimport store_u32
from dlopen.core.image.image cimport Retired


cdef enum:                       # Retirement.is_due
    NOTHING_RETIRED = 0
    RETIRED_WAITING = 1          # in `waiting`
    RETIRED_SINCE = 2            # in `first`


cdef struct Retirement:          # guarded by Registry.lock, the last two by Registry.reclaiming
    Retired* first
    uint32_t is_due              # atomic: NOTHING_RETIRED …
    Retired* waiting             # taken from `first`: until both generations have been seen empty
    uint32_t seen_empty          # how many of them have been since then


cdef inline void retire(Retirement* retirement, Retired* entry) noexcept nogil:
    """Under the lock. Needs no memory: what cannot be retired could never be freed."""
    entry.next = retirement.first
    retirement.first = entry
    store_u32(&retirement.is_due, RETIRED_SINCE)
