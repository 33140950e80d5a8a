"""What nothing holds is taken out of sight: marked as closing, sorted for its destructors, and
present no more.

A lazy call in another thread may bind to such an image at the same moment. Each side first writes
what the other looks at: then either the call sees that the image goes, or the sweep sees the
binding, and gives the image back.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport (
    exchange_u32, full_fence, load_pointer, load_u32, store_pointer, store_u32, store_u64,
)
from dlopen.core.base.contract cimport DLOPEN_STATE_CLOSING, DLOPEN_STATE_MAPPED, DLOPEN_STATE_READY
from dlopen.core.base.growable cimport (
    Pointers, pointers_add, pointers_hold, pointers_reserve,
)
from dlopen.core.base.lock cimport DLOPEN_CHECKS, trap
from dlopen.core.closing.candidates cimport count_afresh, find_let_go
from dlopen.core.closing.destructors cimport closed_first, first_of_namespace
from dlopen.core.closing.mark cimport clear_marks, is_held_for_now, is_root, mark_held, mark_patched
from dlopen.core.host.linker cimport Linker, Patch
from dlopen.core.image.image cimport Image, Unique, is_being_linked
from dlopen.core.image.listing cimport hide_image, is_image, remove_image
from dlopen.core.image.order cimport sort_by_number, sort_for_destructors
from dlopen.core.image.registry cimport (
    Registry, Snapshot, first_image, first_listed, next_image, next_listed,
)
from dlopen.core.image.scope_lists cimport leave_scope
from dlopen.core.image.snapshot cimport (
    begin_leaving, leave_globals, list_to_leave, make_snapshot, publish_snapshot, stay_global,
)
from dlopen.core.symbols.unique cimport UniqueTable, remove_unique


cdef inline void remove_uniques(UniqueTable* uniques, const Image* image) noexcept nogil:
    """Under the lock. Nobody is bound to them: who is would hold the image."""
    cdef const Unique* entry = image.uniques
    while entry != NULL:
        remove_unique(uniques, entry)
        entry = entry.sibling


cdef inline bint absorb_lazy_bindings(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: what its calls were bound to lately joins `bindings`. The mark is taken away
    before these are read: what is written later sets it again. Not a definer that has gone: a call
    that came too late has still to clear its entry. False without memory: it is done another
    time."""
    cdef uint64_t i
    cdef Image* definer
    if is_being_linked(image) or image.calls.definers == NULL \
            or not exchange_u32(&image.calls.has_definers, 0):
        return True
    for i in range(image.tables.jmprel_count):
        definer = <Image*>load_pointer(&image.calls.definers[i])
        if definer == NULL or pointers_hold(&image.needs.bindings, definer):
            continue
        if not is_image(registry, definer) or not definer.listing.is_present \
                and load_u32(&image.life.state) != DLOPEN_STATE_CLOSING:
            continue
        if not pointers_add(&image.needs.bindings, definer):
            exchange_u32(&image.calls.has_definers, 1)
            return False
        definer.life.references += 1
    return True


cdef inline bint absorb_all_lazy_bindings(Registry* registry) noexcept nogil:
    """Under the lock, if there were any since the last time. False without memory."""
    cdef Image* image
    cdef bint complete = True
    if not exchange_u32(&registry.has_lazy_bindings, 0):
        return True
    image = first_listed(registry)
    while image != NULL:
        complete = absorb_lazy_bindings(registry, image) and complete
        image = next_listed(image)
    if not complete:
        exchange_u32(&registry.has_lazy_bindings, 1)
    return complete


cdef inline void mark_what_is_held(Linker* linker) noexcept nogil:
    """Of all images."""
    cdef Registry* registry = &linker.registry
    cdef const Patch* patch = linker.patches.in_force
    cdef size_t i
    cdef Image* image = first_image(registry)
    while image != NULL:
        if is_root(image):
            registry.is_sweep_due = registry.is_sweep_due or is_held_for_now(image)
            mark_held(image)
        image = next_image(image)
    while patch != NULL:
        if patch.image.is_host:
            mark_patched(patch.image)
        patch = patch.next
    # What another thread is unloading may still call what it depends on.
    for i in range(registry.closing.count):
        mark_held(<Image*>registry.closing.items[i])
    image = first_image(registry)
    while image != NULL:
        image.life.is_deferred = not image.visit.mark and image.life.live_objects != 0
        image = next_image(image)
    image = first_image(registry)
    while image != NULL:
        if image.life.is_deferred:
            mark_held(image)
        image = next_image(image)


cdef inline bint find_all_dead(Linker* linker, Pointers* dead) noexcept nogil:
    """What nothing holds, of all images; False without memory."""
    cdef Registry* registry = &linker.registry
    cdef Image* image
    cdef bint complete = True
    registry.is_sweep_due = False
    if registry.counts_are_stale:
        count_afresh(registry)
    mark_what_is_held(linker)
    image = first_image(registry)
    while image != NULL:
        complete = complete and (image.visit.mark or pointers_add(dead, image))
        image = next_image(image)
    clear_marks(registry)
    return complete


cdef inline void check_dead(Linker* linker, const Pointers* dead) noexcept nogil:
    """Ends the process if counts and marks do not agree. It leaves `is_deferred` as a look at all
    does, and so also what that makes due."""
    cdef Registry* registry = &linker.registry
    cdef Image* image = first_image(registry)
    mark_what_is_held(linker)
    while image != NULL:
        if <bint>image.visit.mark == pointers_hold(dead, image):
            trap()
        image = next_image(image)
    clear_marks(registry)


cdef inline bint find_dead(Linker* linker, Image* closed, Pointers* dead) noexcept nogil:
    """What nothing holds, in load order, also added to `closing`: all of it, or without memory
    nothing, and then False. `closed` is all that has been let go since the last time; NULL: it is
    not known what has."""
    cdef Registry* registry = &linker.registry
    cdef size_t i
    cdef bint complete = absorb_all_lazy_bindings(registry)
    registry.sweep_again = registry.closing.count != 0
    if complete and (closed == NULL or registry.is_sweep_due or registry.counts_are_stale):
        complete = find_all_dead(linker, dead)
    elif complete:
        complete = find_let_go(registry, closed, dead)
        sort_by_number(dead)
        if DLOPEN_CHECKS and complete:
            check_dead(linker, dead)
    complete = complete and pointers_reserve(&registry.closing, dead.count)
    if not complete:
        dead.count = 0
    for i in range(dead.count):
        pointers_add(&registry.closing, dead.items[i])
    return complete


cdef inline bint bound_meanwhile(Registry* registry, const Pointers* dead) noexcept nogil:
    """A lazy call has found one of the dead before it could see that it goes; or may have, if
    there is no memory to look."""
    cdef size_t j
    cdef Image* image = first_image(registry)
    full_fence()                 # after the states, with that of running/calls.pxd
    if not load_u32(&registry.has_lazy_bindings):
        return False
    while image != NULL:
        if load_u32(&image.calls.has_definers) and not pointers_hold(dead, image) \
                and not is_being_linked(image):
            if not absorb_lazy_bindings(registry, image):
                return True
            for j in range(image.needs.bindings.count):
                if pointers_hold(dead, image.needs.bindings.items[j]):
                    return True
        image = next_image(image)
    return False


cdef inline void outlive(Image* image) noexcept nogil:
    """Under the lock: an image stays without those that are leaving, whose dependency it may have
    been."""
    if image.life.loader != NULL and image.life.loader.scope.search_list.is_leaving:
        store_pointer(&image.life.loader, NULL)
    leave_scope(image)


cdef inline void set_leaving(const Pointers* images, bint leaving) noexcept nogil:
    cdef size_t i
    for i in range(images.count):
        (<Image*>images.items[i]).scope.search_list.is_leaving = leaving


cdef inline void outlive_all(const Pointers* images) noexcept nogil:
    """Under the lock: of these, what is present, and is known to have its lists."""
    cdef size_t i
    cdef Image* image
    for i in range(images.count):
        image = <Image*>images.items[i]
        if not image.is_host and image.listing.is_present and not is_being_linked(image):
            outlive(image)


cdef inline bint sweep(
    Linker* linker, Image* closed, bint goes_first, Pointers* dead, Pointers* order
) noexcept nogil:
    """Under the lock: what nothing holds is from now on closing; `order` is that of its
    destructors, where `closed` goes first if that is asked for. Without memory it stays until the
    next close."""
    cdef Registry* registry = &linker.registry
    cdef size_t i
    cdef Image* image
    cdef const Image* oldest = NULL
    cdef Snapshot* snapshot = NULL
    cdef size_t leaving
    cdef Image* first = closed if goes_first else NULL
    if first != NULL:
        oldest = first_of_namespace(registry, first)
    while True:
        order.count = 0
        if not find_dead(linker, closed, dead):
            return False
        if dead.count == 0:
            return True
        if not sort_for_destructors(dead, closed_first(dead, first, oldest), order):
            order.count = 0
            give_back_dead(registry, dead)
            return False
        for i in range(dead.count):
            store_u32(&(<Image*>dead.items[i]).life.state, DLOPEN_STATE_CLOSING)
        if not bound_meanwhile(registry, dead):
            break
        give_back_dead(registry, dead)
    leaving = begin_leaving(dead)
    if leaving != 0:
        snapshot = make_snapshot(
            registry, registry.hosts.count, list_to_leave(registry, leaving)
        )
        if snapshot == NULL:
            stay_global(dead)
            order.count = 0
            give_back_dead(registry, dead)
            return False
    for i in range(dead.count):
        image = <Image*>dead.items[i]
        image.life.is_deferred = True       # a destructor may make a thread_local object
        remove_uniques(&linker.uniques, image)
        hide_image(registry, image)
    # Only what these need can have been theirs, unless a swap has put others in their place.
    set_leaving(dead, True)
    for i in range(dead.count):
        outlive_all(&(<const Image*>dead.items[i]).scope.search_list.images)
        outlive_all(&(<const Image*>dead.items[i]).needs.dependencies)
    if registry.has_swapped:
        image = first_image(registry)
        while image != NULL:
            if not is_being_linked(image):
                outlive(image)
            image = next_image(image)
    set_leaving(dead, False)
    if snapshot != NULL:
        leave_globals(registry, snapshot)
        publish_snapshot(registry, snapshot)
    return True


cdef inline void give_back_dead(Registry* registry, Pointers* dead) noexcept nogil:
    """They stay after all: open for new references, as before."""
    cdef size_t i
    cdef Image* image
    registry.closing.count -= dead.count
    for i in range(dead.count):
        image = <Image*>dead.items[i]
        store_u32(
            &image.life.state,
            DLOPEN_STATE_MAPPED if image.scope.lists == NULL else DLOPEN_STATE_READY,
        )
    dead.count = 0


cdef inline void uncount_needs(const Pointers* needs) noexcept nogil:
    """Under the lock: the opposite of `count_needs`."""
    cdef Image* image
    cdef size_t i
    for i in range(needs.count):
        image = <Image*>needs.items[i]
        if image.is_host:
            image.life.pins -= 1
        else:
            image.life.references -= 1


cdef inline bint mark_needed_by_closing(const Registry* registry) noexcept nogil:
    """Under the lock: what is finished, but not to go yet, and all that it holds; False: there is
    none."""
    cdef size_t i
    cdef Image* image
    cdef bint marked = False
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if not image.life.is_finished or image.life.live_objects != 0 \
                or image.life.retain_count != 0:
            mark_held(image)
            marked = True
    return marked


cdef inline void take_gone(Registry* registry, Pointers* gone) noexcept nogil:
    """Under the lock: images whose code will never run again leave the registry; without memory at
    the next close."""
    cdef size_t i
    cdef size_t kept = 0
    cdef Image* image
    cdef bint marked
    # All, or without memory none: what stays would still name what it depends on.
    if registry.closing.count == 0 or not pointers_reserve(gone, registry.closing.count):
        return
    marked = mark_needed_by_closing(registry)
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if not image.visit.mark:
            pointers_add(gone, image)
        else:
            registry.closing.items[kept] = image
            kept += 1
    registry.closing.count = kept
    if marked:
        clear_marks(registry)
    # A thread_local object of theirs may be destroyed much later.
    set_leaving(gone, True)
    for i in range(kept):
        outlive(<Image*>registry.closing.items[i])
    set_leaving(gone, False)
    # Now: another thread may free what one of these depends on as soon as the lock is released.
    for i in range(gone.count):
        image = <Image*>gone.items[i]
        uncount_needs(&image.needs.dependencies)
        uncount_needs(&image.needs.bindings)
        remove_image(registry, image)
    store_u64(&registry.subs, registry.subs + gone.count)
