"""What nothing holds is taken out of sight: marked as closing, sorted for its destructors, and
missing in the next snapshot.

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
from dlopen.core.closing.destructors cimport closed_first, first_of_namespace
from dlopen.core.closing.mark cimport clear_marks, is_held_for_now, is_root, mark_held, mark_patched
from dlopen.core.host.linker cimport Linker, Patch
from dlopen.core.image.image cimport Image, Unique, is_being_linked
from dlopen.core.image.listing cimport hide_image, is_image, remove_image
from dlopen.core.image.order cimport sort_for_destructors
from dlopen.core.image.registry cimport (
    Registry, Snapshot, first_image, first_listed, next_image, next_listed,
)
from dlopen.core.image.scope_lists cimport leave_scope
from dlopen.core.image.snapshot cimport leave_globals, make_snapshot, publish_snapshot
from dlopen.core.symbols.unique cimport UniqueTable, remove_unique


cdef inline void remove_uniques(UniqueTable* uniques, const Image* image) noexcept nogil:
    """Under the lock. Nobody is bound to them: who is would hold the image."""
    cdef const Unique* entry = image.uniques
    while entry != NULL:
        remove_unique(uniques, entry)
        entry = entry.sibling


cdef inline bint absorb_lazy_bindings(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: what its calls were bound to lately joins `bindings`. Not a definer that has
    gone: a call that came too late has still to clear its entry. False without memory: it is done
    another time."""
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
            store_u32(&image.calls.has_definers, 1)
            return False
    return True


cdef inline bint find_dead(Linker* linker, Pointers* dead) noexcept nogil:
    """What nothing holds, also added to `closing`: all of it, or without memory nothing, and then
    False."""
    cdef Registry* registry = &linker.registry
    cdef const Patch* patch = linker.patches.in_force
    cdef size_t i
    cdef size_t count = 0
    cdef Image* image
    cdef bint complete = True
    image = first_listed(registry)
    while image != NULL:
        complete = absorb_lazy_bindings(registry, image) and complete
        image = next_listed(image)
    if not complete:
        return False
    registry.is_sweep_due = False
    image = first_image(registry)
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
    registry.sweep_again = registry.closing.count != 0
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
    image = first_image(registry)
    while image != NULL:
        count += image.visit.mark == 0
        image = next_image(image)
    complete = pointers_reserve(&registry.closing, count) \
        and pointers_reserve(dead, count)
    image = first_image(registry)
    while image != NULL:
        if complete and not image.visit.mark:
            pointers_add(&registry.closing, image)
            pointers_add(dead, image)
        image = next_image(image)
    clear_marks(registry)
    return complete


cdef inline bint bound_meanwhile(Registry* registry, const Pointers* dead) noexcept nogil:
    """A lazy call has found one of the dead before it could see that it goes; or may have, if
    there is no memory to look."""
    cdef size_t j
    cdef Image* image = first_image(registry)
    full_fence()
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


cdef inline void outlive(Image* image, const Pointers* gone) noexcept nogil:
    """Under the lock: an image stays without these, whose dependency it may have been."""
    if image.life.loader != NULL and pointers_hold(gone, image.life.loader):
        store_pointer(&image.life.loader, NULL)
    leave_scope(image, gone)


cdef inline bint sweep(
    Linker* linker, const Image* closed, Pointers* dead, Pointers* order
) noexcept nogil:
    """Under the lock: what nothing holds is from now on closing; `order` is that of its
    destructors. Without memory it stays until the next close."""
    cdef Registry* registry = &linker.registry
    cdef size_t i
    cdef Image* image
    cdef const Image* oldest = NULL
    cdef Snapshot* snapshot = NULL
    if closed != NULL:
        oldest = first_of_namespace(registry, closed)
    while True:
        order.count = 0
        if not find_dead(linker, dead):
            return False
        if dead.count == 0:
            return True
        if not sort_for_destructors(dead, closed_first(dead, closed, oldest), order):
            order.count = 0
            give_back_dead(registry, dead)
            return False
        for i in range(dead.count):
            store_u32(&(<Image*>dead.items[i]).life.state, DLOPEN_STATE_CLOSING)
        if not bound_meanwhile(registry, dead):
            break
        give_back_dead(registry, dead)
    if have_globals(dead):
        snapshot = make_snapshot(registry, registry.hosts.count)
        if snapshot == NULL:
            order.count = 0
            give_back_dead(registry, dead)
            return False
    for i in range(dead.count):
        image = <Image*>dead.items[i]
        image.life.is_deferred = True       # a destructor may make a thread_local object
        remove_uniques(&linker.uniques, image)
        leave_globals(registry, image)
        hide_image(registry, image)
    image = first_image(registry)
    while image != NULL:
        if not is_being_linked(image):
            outlive(image, dead)
        image = next_image(image)
    if snapshot != NULL:
        publish_snapshot(registry, snapshot)
    return True


cdef inline bint have_globals(const Pointers* images) noexcept nogil:
    """The global scope changes with them."""
    cdef size_t i
    for i in range(images.count):
        if load_u32(&(<const Image*>images.items[i]).life.is_global):
            return True
    return False


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


cdef inline void uncount_bound_hosts(Image* image) noexcept nogil:
    """Under the lock."""
    cdef size_t i
    for i in range(image.needs.dependencies.count):
        if (<Image*>image.needs.dependencies.items[i]).is_host:
            (<Image*>image.needs.dependencies.items[i]).life.pins -= 1
    for i in range(image.needs.bindings.count):
        if (<Image*>image.needs.bindings.items[i]).is_host:
            (<Image*>image.needs.bindings.items[i]).life.pins -= 1


cdef inline void take_gone(Registry* registry, Pointers* gone) noexcept nogil:
    """Under the lock: images whose code will never run again leave the registry; without memory at
    the next close."""
    cdef size_t i
    cdef size_t kept = 0
    cdef size_t count = 0
    cdef Image* image
    cdef bint complete
    if registry.closing.count == 0:
        return
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if not image.life.is_finished or image.life.live_objects != 0 \
                or image.life.retain_count != 0:
            mark_held(image)
    for i in range(registry.closing.count):
        count += (<const Image*>registry.closing.items[i]).visit.mark == 0
    # All, or without memory none: what stays would still name what it depends on.
    complete = pointers_reserve(gone, count)
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if not image.visit.mark and complete:
            pointers_add(gone, image)
        else:
            image.visit.mark = 1
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if image.visit.mark:
            registry.closing.items[kept] = image
            kept += 1
    registry.closing.count = kept
    clear_marks(registry)
    # A thread_local object of theirs may be destroyed much later.
    for i in range(kept):
        outlive(<Image*>registry.closing.items[i], gone)
    # Now: another thread may free what one of these depends on as soon as the lock is released.
    for i in range(gone.count):
        uncount_bound_hosts(<Image*>gone.items[i])
        remove_image(registry, <Image*>gone.items[i])
    store_u64(&registry.subs, registry.subs + gone.count)
