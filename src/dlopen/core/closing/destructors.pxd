"""Destructors of what goes, in dependency order, the dependents first. No lock is held while they
run.

One may throw, end its thread or never return: the rest of a close is done then by who closes next.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.growable cimport Pointers, pointers_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.elf.structures cimport Xword
from dlopen.core.image.image cimport Image, Tables
from dlopen.core.image.listing cimport is_present
from dlopen.core.image.registry cimport Registry, first_image, next_image
from dlopen.core.symbols.report cimport report_call


ctypedef void (*Destructor)() noexcept nogil


cdef inline void run_destructors(const Image* image) noexcept nogil:
    """DT_FINI_ARRAY backwards, then DT_FINI (gABI)."""
    cdef const Tables* tables = &image.tables
    cdef const Xword* entries = <const Xword*>(image.bytes_bias + tables.fini_array)
    cdef uint64_t i
    if image.no_foreign_code:
        return
    for i in reversed(range(tables.fini_array_count)):
        if entries[i] != 0 and entries[i] != ~<uint64_t>0:
            report_call(b"fini ", image, entries[i])
            (<Destructor>entries[i])()
    if tables.fini != 0:
        report_call(b"fini ", image, image.load_bias + tables.fini)
        (<Destructor>(image.load_bias + tables.fini))()


cdef extern from *:
    """
    /* 1: this thread is in `collect`; 2: and somebody closed something meanwhile. */
    static __thread uint32_t dlopen_collecting;
    """
    uint32_t collecting "dlopen_collecting"


cdef struct Finishing:           # of what a close has taken out
    Registry* registry
    Pointers dead                # Image*
    Pointers order               # the same, dependencies first
    bint is_complete


cdef inline int run_all_destructors(void* data) noexcept nogil:
    """The guarded part: an exception or a cancellation may end it in between."""
    cdef Finishing* finishing = <Finishing*>data
    cdef size_t i
    cdef Image* image
    for i in reversed(range(finishing.order.count)):
        image = <Image*>finishing.order.items[i]
        if image.life.fini_due:
            image.life.fini_due = False
            run_destructors(image)
    finishing.is_complete = True
    return 0


cdef inline void end_destructors(void* data) noexcept nogil:
    """They have run; or one has thrown an exception, which goes on to who closes. Then the next
    close runs what is left, and unmaps, as the exception may be one of
    the library's own."""
    cdef Finishing* finishing = <Finishing*>data
    cdef Registry* registry = finishing.registry
    cdef size_t i
    cdef Image* image
    lock_acquire(&registry.lock)
    for i in range(finishing.dead.count):
        image = <Image*>finishing.dead.items[i]
        image.life.is_finished = not image.life.fini_due
        image.life.is_abandoned = image.life.fini_due
    lock_release(&registry.lock)
    pointers_free(&finishing.dead)
    pointers_free(&finishing.order)
    if not finishing.is_complete:
        (&collecting)[0] = 0


cdef inline Image* first_of_namespace(const Registry* registry, const Image* image) noexcept nogil:
    """The oldest image of the one that this image is in; NULL if it is gone, and in the base one,
    which begins with the program. Under the lock."""
    cdef Image* oldest = first_image(registry)
    if not is_present(registry, image) or image.namespace_id == 0:
        return NULL
    while oldest != NULL and oldest.namespace_id != image.namespace_id:
        oldest = next_image(oldest)
    return oldest


cdef inline Image* closed_first(
    Pointers* dead, const Image* closed, const Image* oldest
) noexcept nogil:
    """Moves what was closed to the front of the list: in exchange with the oldest of its namespace
    if that goes, too, since glibc sorts the whole namespace. NULL where it stays."""
    cdef size_t place = 0
    cdef size_t i
    while place < dead.count and dead.items[place] != closed:
        place += 1
    if place == dead.count:
        return NULL
    if dead.items[0] == oldest:
        dead.items[place] = dead.items[0]
    else:
        for i in reversed(range(place)):
            dead.items[i + 1] = dead.items[i]
    dead.items[0] = <void*>closed
    return <Image*>closed
