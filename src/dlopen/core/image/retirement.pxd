"""What readers may still look at, and nobody finds any more: it waits until image/registry.pxd
frees it."""

from libc.stdint cimport uint32_t

from dlopen.core.base.atomics cimport store_u32
from dlopen.core.image.image cimport Retired


cdef struct Retirement:          # guarded by Registry.lock
    Retired* first
    uint32_t is_due              # atomic: `first` may hold something


cdef inline void retire(Retirement* retirement, Retired* entry) noexcept nogil:
    """Under the lock. Needs no memory: what cannot be retired could never be freed."""
    entry.next = retirement.first
    retirement.first = entry
    store_u32(&retirement.is_due, 1)
