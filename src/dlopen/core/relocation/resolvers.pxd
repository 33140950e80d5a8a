"""IFUNC resolvers: functions of an image that say which of several functions is meant.

They are foreign code, and may read what is relocated; so they are kept for later and run when all
else is final, in dependency order.
"""

from libc.stdint cimport int64_t, uint64_t

from dlopen.core.arch.processor cimport call_resolver
from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.details cimport DETAIL_TEXT_RESOLVER
from dlopen.core.base.errors cimport fail_memory
from dlopen.core.base.words cimport ranges_overlap
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.image.image cimport Image, image_name, store_word
from dlopen.core.relocation.batch cimport Batch, Deferred, DeferredTls, bad_relocation
from dlopen.core.relocation.places cimport stays_writable
from dlopen.core.symbols.report cimport report_resolver


cdef inline int defer(
    Batch* batch, Image* image, uint64_t place, uint64_t resolver, int64_t addend
) noexcept nogil:
    """Keeps a resolver, for the place that is to get its answer and `addend`."""
    cdef Deferred* deferred
    if not stays_writable(image, place):
        return bad_relocation(batch, image, DETAIL_TEXT_RESOLVER, place, 0)
    deferred = <Deferred*>allocate(sizeof(Deferred))
    if deferred == NULL:
        return fail_memory(batch.error, image_name(image))
    deferred.image = image
    deferred.place = place
    deferred.resolver = resolver
    deferred.addend = addend
    if batch.last_deferred == NULL:
        batch.first_deferred = deferred
    else:
        batch.last_deferred.next = deferred
    batch.last_deferred = deferred
    return 0


cdef inline void run_resolvers(Batch* batch) noexcept nogil:
    """The deferred places, in the order in which they were deferred: dependencies first.
    Foreign code runs: no lock is held."""
    cdef Deferred* deferred = batch.first_deferred
    batch.is_resolved = True
    while deferred != NULL:
        if batch.no_foreign_code:
            store_word(deferred.image, deferred.place, deferred.resolver)
        else:
            report_resolver(deferred.image, deferred.place, deferred.resolver)
            store_word(
                deferred.image, deferred.place,
                call_resolver(deferred.resolver) + <uint64_t>deferred.addend
            )
        deferred = deferred.next


cdef inline bint resolvers_fill_static_tls(const Batch* batch) noexcept nogil:
    """They must run before the host copies that into all threads, then."""
    cdef const Deferred* deferred = batch.first_deferred
    cdef const Phdr* segment
    while deferred != NULL:
        segment = deferred.image.layout.tls
        if deferred.image.thread_local.needs_static and segment != NULL and ranges_overlap(
            deferred.place, 8, segment.p_vaddr, segment.p_filesz
        ):
            return True
        deferred = deferred.next
    return False


cdef inline void free_deferred(Batch* batch) noexcept nogil:
    """What was run, or never will be."""
    cdef Deferred* next
    cdef DeferredTls* next_tls
    while batch.first_deferred != NULL:
        next = batch.first_deferred.next
        release(batch.first_deferred)
        batch.first_deferred = next
    batch.last_deferred = NULL
    while batch.deferred_tls != NULL:
        next_tls = batch.deferred_tls.next
        release(batch.deferred_tls)
        batch.deferred_tls = next_tls
