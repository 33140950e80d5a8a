"""What is held, and all that it holds: of all images. Most closes count instead
(closing/candidates.pxd).

Held is what is open, NODELETE, pinned by an open that is under way, or being
initialised; and whatever such an image depends on, bound to, or leads to by a patch.
"""

from libc.stddef cimport size_t

from dlopen.core.base.atomics cimport load_flag
from dlopen.core.base.contract cimport DLOPEN_STATE_INITIALISING
from dlopen.core.image.image cimport Image, PatchedPlace, PlaceValue, is_being_linked
from dlopen.core.image.registry cimport Registry, first_listed, next_listed


cdef inline void hold(Image** held, Image* image) noexcept nogil:
    """`held` are those that are marked and not looked at yet, linked by `visited_from`."""
    if image.visit.mark or image.is_host:
        return
    image.visit.mark = 1
    image.visit.visited_from = held[0]
    held[0] = image


cdef inline void hold_patched(Image** held, const Image* image) noexcept nogil:
    """What the patches of an image that stays lead to."""
    cdef const PatchedPlace* patched = image.changes.patched
    cdef const PlaceValue* value
    while patched != NULL:
        value = patched.top
        while value != NULL:
            if value.leads_to != NULL:
                hold(held, value.leads_to)
            value = value.below
        patched = patched.next


cdef inline void mark_all(Image* held) noexcept nogil:
    """All that `held` lead to."""
    cdef Image* image
    cdef size_t i
    while held != NULL:
        image = held
        held = image.visit.visited_from
        if is_being_linked(image):
            continue
        for i in range(image.needs.dependencies.count):
            hold(&held, <Image*>image.needs.dependencies.items[i])
        for i in range(image.needs.bindings.count):
            hold(&held, <Image*>image.needs.bindings.items[i])
        hold_patched(&held, image)


cdef inline void mark_held(Image* image) noexcept nogil:
    """The image and all that it holds."""
    cdef Image* held = NULL
    hold(&held, image)
    mark_all(held)


cdef inline void mark_patched(const Image* image) noexcept nogil:
    """All that the image's patches lead to."""
    cdef Image* held = NULL
    hold_patched(&held, image)
    mark_all(held)


cdef inline bint is_root(const Image* image) noexcept nogil:
    """Held, whatever else refers to it."""
    return image.life.open_count != 0 or load_flag(&image.life.nodelete) or image.life.pins != 0 \
        or image.life.is_claimed or image.life.state == DLOPEN_STATE_INITIALISING


cdef inline bint is_held_for_now(const Image* image) noexcept nogil:
    """Of a root: nobody closes it who would look at it then."""
    return image.life.open_count == 0 and not load_flag(&image.life.nodelete)


cdef inline void clear_marks(Registry* registry) noexcept nogil:
    cdef Image* image = first_listed(registry)
    while image != NULL:
        image.visit.mark = 0
        image = next_listed(image)
