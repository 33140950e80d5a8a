"""A handle that a caller has given may be anything. Here it is looked up, never dereferenced
before, and what it means is kept from being unmapped while the caller works on it."""

from libc.stdint cimport uint32_t

from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.registry cimport reader_enter, reader_leave


cdef struct Visit:               # of a handle that may be anything, by a reader
    Image* image
    uint32_t phase
    void* borrowed               # NULL: not an image, or it has gone


cdef inline bint visit_begin(Linker* linker, Visit* visit, const void* handle) noexcept nogil:
    """Ends with visit_end, also when it fails."""
    visit.phase = reader_enter(&linker.registry)
    visit.image = <Image*>handle
    visit.borrowed = NULL
    if is_image(&linker.registry, handle):
        visit.borrowed = borrow_host_image(linker, visit.image)
    return visit.borrowed != NULL


cdef inline void visit_end(Linker* linker, Visit* visit) noexcept nogil:
    """Also where visit_begin has failed."""
    if visit.borrowed != NULL:
        give_back_host_image(linker, visit.image, visit.borrowed)
    reader_leave(&linker.registry, visit.phase)
