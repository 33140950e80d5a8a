"""Why an image is still loaded, for who asks (DLOPEN_holders): an open handle, a dependent, a
binding, a patch, a thread with living objects."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from dlopen.core.base.atomics cimport load_flag
from dlopen.core.base.contract cimport (
    DLOPEN_HELD_BINDING, DLOPEN_HELD_DEPENDENCY, DLOPEN_HELD_INITIALISING, DLOPEN_HELD_NODELETE,
    DLOPEN_HELD_OPEN, DLOPEN_HELD_PATCH, DLOPEN_HELD_RETAINED, DLOPEN_HELD_THREAD_LOCAL,
    DLOPEN_STATE_INITIALISING, PublicImage, VisitHolder,
)
from dlopen.core.base.growable cimport pointers_hold
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.closing.sweep cimport absorb_lazy_bindings
from dlopen.core.image.image cimport Image, is_being_linked, is_linked
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.registry cimport (
    Registry, first_image, next_image, reader_enter, reader_leave,
)


cdef enum:
    OWN_HOLDERS = 6


cdef inline size_t own_holders(
    const Registry* registry, const Image* image, uint32_t* holders
) noexcept nogil:
    """Under the lock: DLOPEN_HELD_* of the image itself, OWN_HOLDERS at most; how many."""
    cdef size_t count = 0
    if not is_image(registry, image):
        return 0
    if not image.is_host and image.life.live_objects != 0:
        holders[count] = DLOPEN_HELD_THREAD_LOCAL
        count += 1
    if not image.is_host and image.life.retain_count != 0:
        holders[count] = DLOPEN_HELD_RETAINED
        count += 1
    if image.life.open_count != 0:
        holders[count] = DLOPEN_HELD_OPEN
        count += 1
    if load_flag(&image.life.nodelete):
        holders[count] = DLOPEN_HELD_NODELETE
        count += 1
    if image.changes.patch_uses != 0:
        holders[count] = DLOPEN_HELD_PATCH
        count += 1
    if image.life.state == DLOPEN_STATE_INITIALISING:
        holders[count] = DLOPEN_HELD_INITIALISING
        count += 1
    return count


cdef inline size_t visit_holders(
    Registry* registry, Image* image, VisitHolder* visit, void* data
) noexcept nogil:
    """What holds an image. The callback runs in a reader section, without the lock."""
    cdef uint32_t phase = reader_enter(registry)
    cdef size_t found = 0
    cdef Image* other
    cdef uint32_t holders[OWN_HOLDERS]
    cdef size_t i
    cdef size_t count
    cdef bint is_bound
    lock_acquire(&registry.lock)
    count = own_holders(registry, image, &holders[0])
    lock_release(&registry.lock)
    for i in range(count):
        found += 1
        visit(holders[i], <PublicImage*>image, data)
    if is_image(registry, image):
        other = first_image(registry)
        while other != NULL:
            if other == image:
                other = next_image(other)
                continue
            lock_acquire(&registry.lock)
            absorb_lazy_bindings(registry, other)
            is_bound = not is_being_linked(other) and pointers_hold(&other.needs.bindings, image)
            lock_release(&registry.lock)
            if is_linked(other) and pointers_hold(&other.needs.dependencies, image):
                found += 1
                visit(DLOPEN_HELD_DEPENDENCY, <PublicImage*>other, data)
            elif is_bound:
                found += 1
                visit(DLOPEN_HELD_BINDING, <PublicImage*>other, data)
            other = next_image(other)
    reader_leave(registry, phase)
    return found
