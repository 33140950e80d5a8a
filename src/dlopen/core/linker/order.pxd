"""Dependency order, and the running of constructors and destructors in it.

The order is glibc's (its dynamic_sort=2): depth first over the direct dependencies, from
the last image of the breadth-first list to the first; an image stands before all that
it depends on. Constructors run from the end of it, destructors from its beginning.
No lock is held while they run.
"""

from libc.stdint cimport uint64_t

from dlopen.core.elf.structures cimport Xword
from dlopen.core.image.image cimport Image
from dlopen.core.symbols.report cimport report_call


ctypedef void (*Destructor)() noexcept nogil


cdef inline void run_destructors(const Image* image) noexcept nogil:
    """DT_FINI_ARRAY backwards, then DT_FINI (gABI)."""
    cdef const Xword* entries = <const Xword*>(image.bytes_bias + image.fini_array)
    cdef uint64_t i
    if image.no_foreign_code:
        return
    for i in reversed(range(image.fini_array_count)):
        if entries[i] != 0 and entries[i] != ~<uint64_t>0:
            report_call(b"fini ", image, entries[i])
            (<Destructor>entries[i])()
    if image.fini != 0:
        report_call(b"fini ", image, image.load_bias + image.fini)
        (<Destructor>(image.load_bias + image.fini))()
