"""What patches have stored: a stack of values for each place, the newest on top.

Patches of one place end in any order; with the last one the very word returns that stood there. A
library of ours that a value leads into stays while that is there. All of it under Registry.lock.
"""

from libc.stdint cimport uint64_t

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport DLOPEN_STATE_CLOSING
from dlopen.core.host.linker cimport Linker, Patch, Patches, Rebinding
from dlopen.core.host.rebind cimport close_place, open_place, patched_place, store_place
from dlopen.core.image.image cimport Image, PatchedPlace, PlaceValue, free_patched_place
from dlopen.core.image.listing cimport image_at
from dlopen.core.relocation.places cimport addend_of
from dlopen.core.running.matches cimport Match, word_at


cdef inline bint push_value(
    Linker* linker, Image* image, const Match* match, uint64_t number
) noexcept nogil:
    """Under the lock: what is to be stored. False without memory."""
    cdef uint64_t address = match.address
    cdef uint64_t place = image.load_bias + match.word.relocation.r_offset
    cdef PatchedPlace* patched = patched_place(image, place)
    cdef PlaceValue* value
    if patched == NULL:
        patched = <PatchedPlace*>allocate(sizeof(PatchedPlace))
        if patched == NULL:
            return False
        patched.place = place
        patched.original = word_at(image, match.word.relocation)
        patched.next = image.changes.patched
        image.changes.patched = patched
    value = <PlaceValue*>allocate(sizeof(PlaceValue))
    if value == NULL:
        return False
    value.number = number
    value.word = address + addend_of(match.word.relocation, match.word.kind)
    value.address = address
    value.leads_to = image_at(&linker.registry, address)
    if value.leads_to == image or (value.leads_to != NULL and load_u32(
        &value.leads_to.life.state
    ) == DLOPEN_STATE_CLOSING):
        value.leads_to = NULL
    if value.leads_to != NULL:
        value.leads_to.changes.patch_uses += 1
        linker.patches.reloadable_uses += value.leads_to.is_reloadable
    value.below = patched.top
    patched.top = value
    return True


cdef inline bint is_of_patch(const PatchedPlace* patched, uint64_t number) noexcept nogil:
    """The patch with this number has stored something in the place."""
    cdef const PlaceValue* value = patched.top
    while value != NULL and value.number != number:
        value = value.below
    return value != NULL


cdef inline bint open_places_of(
    Rebinding* rebinding, const Image* image, uint64_t number
) noexcept nogil:
    """Under the lock: of a patch. False where the kernel does not permit it: none is open then."""
    cdef const PatchedPlace* patched = image.changes.patched
    while patched != NULL:
        if is_of_patch(patched, number) and not open_place(image, patched.place):
            close_places_of(rebinding, image, number)
            return False
        patched = patched.next
    return True


cdef inline void close_places_of(
    Rebinding* rebinding, const Image* image, uint64_t number
) noexcept nogil:
    """Ends what open_places_of began."""
    cdef const PatchedPlace* patched = image.changes.patched
    while patched != NULL:
        if is_of_patch(patched, number):
            close_place(rebinding, image, patched.place)
        patched = patched.next


cdef inline void store_values(const Image* image, uint64_t number) noexcept nogil:
    """Under the lock: those of a new patch; the places are open."""
    cdef const PatchedPlace* patched = image.changes.patched
    while patched != NULL:
        if patched.top != NULL and patched.top.number == number:
            store_place(image, patched.place, patched.top.word)
        patched = patched.next


cdef inline void store_what_was(const Image* image, uint64_t number) noexcept nogil:
    """Under the lock: in places that have values of this patch; they are open."""
    cdef const PatchedPlace* patched = image.changes.patched
    cdef const PlaceValue* value
    while patched != NULL:
        value = patched.top
        if value != NULL and value.number == number:
            store_place(
                image, patched.place, value.below.word if value.below != NULL else patched.original
            )
        patched = patched.next


cdef inline bint pop_values(Image* image, uint64_t number) noexcept nogil:
    """Under the lock: the records of what the patch has stored in the image. True if it has kept an
    image."""
    cdef PatchedPlace** link = &image.changes.patched
    cdef PatchedPlace* patched
    cdef PlaceValue** inner
    cdef PlaceValue* value
    cdef bint has_kept = False
    while link[0] != NULL:
        patched = link[0]
        inner = &patched.top
        while inner[0] != NULL and inner[0].number != number:
            inner = &inner[0].below
        value = inner[0]
        if value != NULL:
            inner[0] = value.below
            if value.leads_to != NULL:
                value.leads_to.changes.patch_uses -= 1
                has_kept = True
            release(value)
        if patched.top == NULL:
            link[0] = patched.next
            release(patched)
        else:
            link = &patched.next
    return has_kept


cdef inline bint forget_patches(Patches* patches, Image* image) noexcept nogil:
    """Under the lock: of an image of ours whose code will never run again. True if they have
    kept another one."""
    cdef Patch** link = &patches.in_force
    cdef Patch* patch
    cdef const PlaceValue* value
    cdef PatchedPlace* patched
    cdef bint kept = False
    while image.changes.patched != NULL:
        patched = image.changes.patched
        image.changes.patched = patched.next
        value = patched.top
        while value != NULL:
            if value.leads_to != NULL:
                value.leads_to.changes.patch_uses -= 1
                kept = True
            value = value.below
        free_patched_place(patched)
    while link[0] != NULL:
        patch = link[0]
        if patch.image == image:
            link[0] = patch.next
            release(patch)
        else:
            link = &patch.next
    return kept
