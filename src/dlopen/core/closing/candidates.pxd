"""What a close lets go, found from the image that was closed: by counts, not by a look at all.

Life.references says how many needs (dependencies, bindings) of other images lead to an image,
Changes.patch_uses how many places of patches. Trial deletion (Christopher): of what the closed
image reaches, an image that has more references than those from there is held from elsewhere, and
holds what it leads to; the rest goes, cycles too. A search ends at what is held anyhow.

So all that lets go of something is a close, or has to set Registry.is_sweep_due: then all images
are looked at (closing/sweep.pxd). Who changes the needs of a published image keeps the counts, or
sets Registry.counts_are_stale.
"""

from libc.stddef cimport size_t

from dlopen.core.base.growable cimport Pointers, pointers_add
from dlopen.core.closing.mark cimport is_held_for_now, is_root
from dlopen.core.image.image cimport Image, PatchedPlace, PlaceValue, is_being_linked
from dlopen.core.image.registry cimport Registry, first_listed, next_listed


cdef enum:                       # Traversal.mark, for the time of a search
    MARK_NOT_REACHED = 0
    MARK_CANDIDATE = 1
    MARK_HELD = 2


cdef struct Leads:               # all that an image leads to, one after the other
    const Image* image
    size_t number                # of the need that is next
    const PatchedPlace* patched
    const PlaceValue* value


cdef inline void begin_leads(const Image* image, Leads* leads) noexcept nogil:
    leads.image = image
    leads.number = 0
    leads.patched = image.changes.patched
    leads.value = NULL if leads.patched == NULL else leads.patched.top


cdef inline Image* next_need_of(Leads* leads) noexcept nogil:
    cdef const Image* image = leads.image
    cdef size_t number = leads.number
    if is_being_linked(image):
        return NULL
    leads.number += 1
    if number < image.needs.dependencies.count:
        return <Image*>image.needs.dependencies.items[number]
    number -= image.needs.dependencies.count
    if number < image.needs.bindings.count:
        return <Image*>image.needs.bindings.items[number]
    return NULL


cdef inline Image* next_patched(Leads* leads) noexcept nogil:
    cdef Image* image = NULL
    while image == NULL and leads.patched != NULL:
        if leads.value == NULL:
            leads.patched = leads.patched.next
            leads.value = NULL if leads.patched == NULL else leads.patched.top
        else:
            image = leads.value.leads_to
            leads.value = leads.value.below
    return image


cdef inline Image* next_led_to(Leads* leads) noexcept nogil:
    """One of ours, once for each reference; NULL after the last one."""
    cdef Image* image = next_need_of(leads)
    while image != NULL and image.is_host:
        image = next_need_of(leads)
    return image if image != NULL else next_patched(leads)


cdef inline void count_afresh(Registry* registry) noexcept nogil:
    """Under the lock: Life.references of all."""
    cdef Image* image = first_listed(registry)
    cdef Image* need
    cdef Leads leads
    while image != NULL:
        image.life.references = 0
        image = next_listed(image)
    image = first_listed(registry)
    while image != NULL:
        begin_leads(image, &leads)
        need = next_need_of(&leads)
        while need != NULL:
            need.life.references += not need.is_host
            need = next_need_of(&leads)
        image = next_listed(image)
    registry.counts_are_stale = False


cdef inline bint add_candidate(Image* image, Pointers* candidates) noexcept nogil:
    image.visit.mark = MARK_CANDIDATE
    image.visit.next = 0         # references from other candidates
    return pointers_add(candidates, image)


cdef inline bint reach(Registry* registry, Image* closed, Pointers* candidates) noexcept nogil:
    """Marks what may go with `closed`. False without memory."""
    cdef Image* need
    cdef Leads leads
    cdef size_t i = 0
    if not add_candidate(closed, candidates):
        closed.visit.mark = MARK_NOT_REACHED
        return False
    while i < candidates.count:
        begin_leads(<Image*>candidates.items[i], &leads)
        i += 1
        need = next_led_to(&leads)
        while need != NULL:
            if need.visit.mark == MARK_NOT_REACHED and need.listing.is_present:
                if is_root(need):
                    registry.is_sweep_due = registry.is_sweep_due or is_held_for_now(need)
                elif not add_candidate(need, candidates):
                    need.visit.mark = MARK_NOT_REACHED
                    return False
            need.visit.next += need.visit.mark == MARK_CANDIDATE
            need = next_led_to(&leads)
    return True


cdef inline void hold_candidate(Image** held, Image* image) noexcept nogil:
    """`held` are those that are held and not looked at yet, linked by `visited_from`."""
    if image.visit.mark == MARK_CANDIDATE:
        image.visit.mark = MARK_HELD
        image.visit.visited_from = held[0]
        held[0] = image


cdef inline void hold_all(Image* held) noexcept nogil:
    """Of the candidates, all that `held` lead to."""
    cdef Image* image
    cdef Image* need
    cdef Leads leads
    while held != NULL:
        image = held
        held = image.visit.visited_from
        begin_leads(image, &leads)
        need = next_led_to(&leads)
        while need != NULL:
            hold_candidate(&held, need)
            need = next_led_to(&leads)


cdef inline void hold_those_that_stay(const Pointers* candidates) noexcept nogil:
    cdef Image* held = NULL
    cdef Image* image
    cdef size_t i
    for i in range(candidates.count):
        image = <Image*>candidates.items[i]
        if image.life.references + image.changes.patch_uses > image.visit.next:
            hold_candidate(&held, image)
    hold_all(held)
    held = NULL
    for i in range(candidates.count):
        image = <Image*>candidates.items[i]
        # Threads have objects of it: it is unloaded when the last one has gone.
        image.life.is_deferred = image.visit.mark == MARK_CANDIDATE \
            and image.life.live_objects != 0
    for i in range(candidates.count):
        image = <Image*>candidates.items[i]
        if image.life.is_deferred:
            hold_candidate(&held, image)
    hold_all(held)


cdef inline bint find_let_go(Registry* registry, Image* closed, Pointers* dead) noexcept nogil:
    """Under the lock: what nothing holds since `closed` is open no more. False without memory."""
    cdef Image* image
    cdef size_t kept = 0
    cdef size_t i
    cdef bint complete
    if is_root(closed):
        registry.is_sweep_due = registry.is_sweep_due or is_held_for_now(closed)
        return True
    complete = reach(registry, closed, dead)
    if complete:
        hold_those_that_stay(dead)
    for i in range(dead.count):
        image = <Image*>dead.items[i]
        if complete and image.visit.mark == MARK_CANDIDATE:
            dead.items[kept] = image
            kept += 1
        image.visit.mark = MARK_NOT_REACHED
    dead.count = kept
    return complete
