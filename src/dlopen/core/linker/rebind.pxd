# cython: cdivision=True
"""A place that was relocated gets another value while the process runs.

Other threads read it meanwhile, or call through it: it changes by one aligned store.
"""

from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport store_pointer
from dlopen.core.base.kernel cimport PROT_READ, PROT_WRITE, kernel_protect
from dlopen.core.base.words cimport align_down
from dlopen.core.elf.layout cimport is_sealed
from dlopen.core.image.image cimport Image, PatchedPlace


cdef inline PatchedPlace* patched_place(const Image* image, uint64_t place) noexcept nogil:
    """Under the lock."""
    cdef PatchedPlace* patched = image.patched
    while patched != NULL and patched.place != place:
        patched = patched.next
    return patched


cdef inline bint store_bound(const Image* image, uint64_t place, uint64_t value) noexcept nogil:
    """`place` is a run address, aligned. Under Registry.lock: of two threads at one page of
    RELRO the first would close it before the second has stored. False where the kernel does not
    permit it."""
    cdef uint64_t page = 0
    if is_sealed(&image.layout, place - image.load_bias, 8):
        page = align_down(place, image.layout.page)
        if kernel_protect(page, image.layout.page, PROT_READ | PROT_WRITE) != 0:
            return False
    store_pointer(<void*>place, <const void*>value)
    if page != 0:
        kernel_protect(page, image.layout.page, PROT_READ)
    return True
