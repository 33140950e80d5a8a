"""Closing: mark from what is held, sweep the rest; destructors, then unmapping.

Held is what is open, NODELETE, pinned by an open that is under way, or being
initialised; and whatever such an image depends on, bound to, or leads to by a patch. One
that thread_local objects keep alive is only deferred: the thread that destroys the last
one unloads it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport Allocator, release
from dlopen.core.base.atomics cimport (
    exchange_u32, full_fence, load_pointer, load_u32, store_pointer, store_u32, store_u64,
)
from dlopen.core.base.contract cimport (
    DLOPEN_E_CONSTRUCTOR, DLOPEN_HELD_BINDING, DLOPEN_HELD_DEPENDENCY, DLOPEN_HELD_INITIALISING,
    DLOPEN_HELD_NODELETE, DLOPEN_HELD_OPEN, DLOPEN_HELD_PATCH, DLOPEN_HELD_RETAINED,
    DLOPEN_HELD_THREAD_LOCAL, DLOPEN_STATE_CLOSING, DLOPEN_STATE_INITIALISING, DLOPEN_STATE_MAPPED,
    DLOPEN_STATE_READY, Error, PublicImage, VisitHolder,
)
from dlopen.core.base.errors cimport fail_handle
from dlopen.core.base.growable cimport (
    Pointers, pointers_add, pointers_free, pointers_hold, pointers_remove, pointers_reserve,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.section cimport in_section
from dlopen.core.host.debugger cimport hide_from_debugger
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport Linker, Patch
from dlopen.core.host.rebind cimport forget_unsealed, seal_what_is_left
from dlopen.core.host.static_tls cimport take_back_tls
from dlopen.core.image.image cimport (
    Image, PatchedPlace, PlaceValue, Unique, is_being_linked, is_linked,
)
from dlopen.core.image.order cimport sort_for_destructors
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, leave_scope, make_snapshot, publish_snapshot,
    reader_enter, reader_leave, reclaim, retire_image, snapshot_holds, this_thread,
)
from dlopen.core.linker.order cimport run_destructors
from dlopen.core.opening.publish cimport give_back_hosts
from dlopen.core.running.patch cimport forget_patches
from dlopen.core.symbols.report cimport report_close, report_unload
from dlopen.core.symbols.unique cimport remove_unique
cdef extern from *:
    """
    /* 1: this thread is in `collect`; 2: and somebody closed something meanwhile. */
    static __thread uint32_t dlopen_collecting;
    """
    uint32_t collecting "dlopen_collecting"


cdef inline void hold(Image** held, Image* image) noexcept nogil:
    """`held` are those that are marked and not looked at yet, linked by `visited_from`."""
    if image.mark or image.is_host:
        return
    image.mark = 1
    image.visited_from = held[0]
    held[0] = image


cdef inline void hold_patched(Image** held, const Image* image) noexcept nogil:
    """What the patches of an image that stays lead to."""
    cdef const PatchedPlace* patched = image.patched
    cdef const PlaceValue* value
    while patched != NULL:
        value = patched.top
        while value != NULL:
            if value.leads_to != NULL:
                hold(held, value.leads_to)
            value = value.below
        patched = patched.next


cdef inline void mark_all(Image* held) noexcept nogil:
    """And what these need."""
    cdef Image* image
    cdef size_t i
    while held != NULL:
        image = held
        held = image.visited_from
        if is_being_linked(image):
            continue
        for i in range(image.dependencies.count):
            hold(&held, <Image*>image.dependencies.items[i])
        for i in range(image.bindings.count):
            hold(&held, <Image*>image.bindings.items[i])
        hold_patched(&held, image)


cdef inline void mark_held(Image* image) noexcept nogil:
    cdef Image* held = NULL
    hold(&held, image)
    mark_all(held)


cdef inline void mark_patched(const Image* image) noexcept nogil:
    cdef Image* held = NULL
    hold_patched(&held, image)
    mark_all(held)


cdef inline bint is_root(const Image* image) noexcept nogil:
    return image.open_count != 0 or image.nodelete or image.pins != 0 or image.is_claimed \
        or image.state == DLOPEN_STATE_INITIALISING


cdef inline void remove_uniques(Linker* linker, const Image* image) noexcept nogil:
    """Under the lock. Nobody is bound to them: who is would hold the image."""
    cdef const Unique* entry = image.uniques
    while entry != NULL:
        remove_unique(&linker.uniques, entry)
        entry = entry.sibling


cdef inline bint absorb_lazy_bindings(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: what its calls were bound to lately joins `bindings`. Not what has gone, and
    stands there until a call that came too late has taken it back. False without memory, and
    another time it is done."""
    cdef uint64_t i
    cdef Image* definer
    if is_being_linked(image) or image.lazy_bindings == NULL \
            or not exchange_u32(&image.has_lazy_bindings, 0):
        return True
    for i in range(image.jmprel_count):
        definer = <Image*>load_pointer(&image.lazy_bindings[i])
        if definer == NULL or pointers_hold(&image.bindings, definer):
            continue
        if not pointers_hold(&registry.images, definer) and not (
            load_u32(&image.state) == DLOPEN_STATE_CLOSING
            and pointers_hold(&registry.closing, definer)
        ):
            continue
        if not pointers_add(&registry.allocator, &image.bindings, definer):
            store_u32(&image.has_lazy_bindings, 1)
            return False
    return True


cdef inline bint find_dead(Linker* linker, Pointers* dead) noexcept nogil:
    """What nothing holds, also added to `closing`: all of it, or without memory nothing, and then
    False. What goes may call what it depends on until its destructors have run."""
    cdef Registry* registry = &linker.registry
    cdef const Patch* patch = linker.patches
    cdef size_t i
    cdef size_t count = 0
    cdef Image* image
    cdef bint complete = True
    for i in range(registry.images.count):
        complete = absorb_lazy_bindings(registry, <Image*>registry.images.items[i]) and complete
    for i in range(registry.closing.count):
        complete = absorb_lazy_bindings(registry, <Image*>registry.closing.items[i]) and complete
    if not complete:
        return False
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        if is_root(image):
            mark_held(image)
    while patch != NULL:
        if patch.image.is_host:
            mark_patched(patch.image)
        patch = patch.next
    # What another thread is unloading may still call what it depends on.
    registry.sweep_again = registry.closing.count != 0
    for i in range(registry.closing.count):
        mark_held(<Image*>registry.closing.items[i])
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        image.is_deferred = not image.mark and image.live_objects != 0
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        if image.is_deferred:
            mark_held(image)
    for i in range(registry.images.count):
        count += (<const Image*>registry.images.items[i]).mark == 0
    complete = pointers_reserve(&registry.allocator, &registry.closing, count) \
        and pointers_reserve(&registry.allocator, dead, count)
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        if complete and not image.mark:
            pointers_add(&registry.allocator, &registry.closing, image)
            pointers_add(&registry.allocator, dead, image)
    clear_marks(registry)
    return complete


cdef inline bint bound_meanwhile(Registry* registry, const Pointers* dead) noexcept nogil:
    """A lazy call has found one of the dead before it could see that it goes; or may have, if
    there is no memory to look."""
    cdef size_t i, j
    cdef Image* image
    full_fence()
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        if load_u32(&image.has_lazy_bindings) == 0 or pointers_hold(dead, image) \
                or is_being_linked(image):
            continue
        if not absorb_lazy_bindings(registry, image):
            return True
        for j in range(image.bindings.count):
            if pointers_hold(dead, image.bindings.items[j]):
                return True
    return False


cdef inline void outlive(Image* image, const Pointers* gone) noexcept nogil:
    """Under the lock: an image stays without these, whose dependency it may have been."""
    if image.loader != NULL and pointers_hold(gone, image.loader):
        store_pointer(&image.loader, NULL)
    leave_scope(image, gone)


cdef inline bint sweep(
    Linker* linker, const Image* closed, Pointers* dead, Pointers* order
) noexcept nogil:
    """Under the lock: what nothing holds is from now on closing; `order` is that of its
    destructors. Without memory it stays until the next close."""
    cdef Registry* registry = &linker.registry
    cdef size_t i
    cdef size_t kept = 0
    cdef Image* image
    cdef const Image* oldest = NULL
    cdef Snapshot* snapshot
    if closed != NULL:
        oldest = first_of_namespace(registry, closed)
    while True:
        order.count = 0
        if not find_dead(linker, dead):
            return False
        if dead.count == 0:
            return True
        if not sort_for_destructors(
            &registry.allocator, dead, closed_first(dead, closed, oldest), order
        ):
            order.count = 0
            give_back_dead(registry, dead)
            return False
        for i in range(dead.count):
            store_u32(&(<Image*>dead.items[i]).state, DLOPEN_STATE_CLOSING)
        if not bound_meanwhile(registry, dead):
            break
        give_back_dead(registry, dead)
    snapshot = make_snapshot(registry, 0, registry.hosts.count)
    if snapshot == NULL:
        order.count = 0
        give_back_dead(registry, dead)
        return False
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        if pointers_hold(dead, image):
            image.is_deferred = True       # a destructor may make a thread_local object
            remove_uniques(linker, image)
            pointers_remove(&registry.globals, image)
        else:
            registry.images.items[kept] = image
            kept += 1
    registry.images.count = kept
    for i in range(kept):
        image = <Image*>registry.images.items[i]
        if not is_being_linked(image):
            outlive(image, dead)
    publish_snapshot(registry, snapshot)
    return True


cdef inline void give_back_dead(Registry* registry, Pointers* dead) noexcept nogil:
    cdef size_t i
    cdef Image* image
    registry.closing.count -= dead.count
    for i in range(dead.count):
        image = <Image*>dead.items[i]
        store_u32(
            &image.state, DLOPEN_STATE_MAPPED if image.scope == NULL else DLOPEN_STATE_READY
        )
    dead.count = 0


cdef inline void clear_marks(Registry* registry) noexcept nogil:
    cdef size_t i
    for i in range(registry.images.count):
        (<Image*>registry.images.items[i]).mark = 0
    for i in range(registry.closing.count):
        (<Image*>registry.closing.items[i]).mark = 0


cdef inline void uncount_bound_hosts(Image* image) noexcept nogil:
    """Under the lock."""
    cdef size_t i
    for i in range(image.dependencies.count):
        if (<Image*>image.dependencies.items[i]).is_host:
            (<Image*>image.dependencies.items[i]).pins -= 1
    for i in range(image.bindings.count):
        if (<Image*>image.bindings.items[i]).is_host:
            (<Image*>image.bindings.items[i]).pins -= 1


cdef inline void take_gone(Registry* registry, Pointers* gone) noexcept nogil:
    """Under the lock: images whose code will never run again leave the registry. Without
    memory for a snapshot they stay until the next close."""
    cdef size_t i
    cdef size_t kept = 0
    cdef size_t count = 0
    cdef Image* image
    cdef Snapshot* snapshot
    cdef bint complete
    if registry.closing.count == 0:
        return
    snapshot = make_snapshot(registry, 0, registry.hosts.count)
    if snapshot == NULL:
        return
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if not image.is_finished or image.live_objects != 0 or image.retain_count != 0:
            mark_held(image)
    for i in range(registry.closing.count):
        count += (<const Image*>registry.closing.items[i]).mark == 0
    # All, or without memory none: what stays would still name what it depends on.
    complete = pointers_reserve(&registry.allocator, gone, count)
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if not image.mark and complete:
            pointers_add(&registry.allocator, gone, image)
        else:
            image.mark = 1
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if image.mark:
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
    if gone.count == 0:
        release(&registry.allocator, snapshot)
        return
    store_u64(&registry.subs, registry.subs + gone.count)
    publish_snapshot(registry, snapshot)


cdef inline void collect(Linker* linker, const Image* closed) noexcept nogil:
    """Unloads all that nothing holds; and again, if a destructor closed something: as
    under glibc, that is unloaded after the image that closed it. And again, if what was
    unloaded meanwhile held something. `closed` is what the caller has closed, or NULL: it may
    be gone, and is only compared."""
    cdef bint again = True
    if collecting != 0:
        (&collecting)[0] = 2
        return
    while again:
        (&collecting)[0] = 1
        collect_once(linker, closed)
        closed = NULL
        again = collecting == 2
        (&collecting)[0] = 0


cdef inline Image* first_of_namespace(const Registry* registry, const Image* image) noexcept nogil:
    """The oldest image of the one that this image is in; NULL if it is gone, and in the base one,
    which begins with the program. Under the lock."""
    cdef size_t i
    if not pointers_hold(&registry.images, image) or image.namespace_id == 0:
        return NULL
    for i in range(registry.images.count):
        if (<const Image*>registry.images.items[i]).namespace_id == image.namespace_id:
            return <Image*>registry.images.items[i]
    return NULL


cdef inline Image* closed_first(
    Pointers* dead, const Image* closed, const Image* oldest
) noexcept nogil:
    """Where what was closed is finished first, it is the first in the list, in exchange with
    the oldest of its namespace if that goes, too: glibc sorts the whole namespace. NULL where
    it stays."""
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


cdef struct Finishing:           # of what a close has taken out
    Registry* registry
    Pointers dead                # Image*
    Pointers order               # the same, dependencies first
    bint is_complete


cdef inline int run_all_destructors(void* data) noexcept nogil:
    cdef Finishing* finishing = <Finishing*>data
    cdef size_t i
    cdef Image* image
    for i in reversed(range(finishing.order.count)):
        image = <Image*>finishing.order.items[i]
        if image.fini_due:
            image.fini_due = False
            run_destructors(image)
    finishing.is_complete = True
    return 0


cdef inline void end_destructors(void* data) noexcept nogil:
    """They have run; or one has thrown an exception, which goes on to who closes. Those that are
    left are for the next close then, and what is to be unmapped, as the exception may be one of
    the library's own."""
    cdef Finishing* finishing = <Finishing*>data
    cdef Registry* registry = finishing.registry
    cdef size_t i
    cdef Image* image
    lock_acquire(&registry.lock)
    for i in range(finishing.dead.count):
        image = <Image*>finishing.dead.items[i]
        image.is_finished = not image.fini_due
        image.is_abandoned = image.fini_due
    lock_release(&registry.lock)
    pointers_free(&registry.allocator, &finishing.dead)
    pointers_free(&registry.allocator, &finishing.order)
    if not finishing.is_complete:
        (&collecting)[0] = 0


cdef inline bint take_abandoned(Registry* registry, Pointers* images) noexcept nogil:
    """Under the lock: those that an earlier close has left, all of them; without memory none, and
    then False."""
    cdef size_t count = 0
    cdef size_t i
    cdef Image* image
    for i in range(registry.closing.count):
        count += (<const Image*>registry.closing.items[i]).is_abandoned
    if not pointers_reserve(&registry.allocator, images, count):
        return False
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if image.is_abandoned:
            image.is_abandoned = False
            pointers_add(&registry.allocator, images, image)
    return True


cdef inline void adopt_abandoned(Finishing* finishing) noexcept nogil:
    """Under the lock: they come first. What goes now neither needs them nor is needed by them.
    Without memory they wait for the next close."""
    cdef Allocator* allocator = &finishing.registry.allocator
    cdef Pointers abandoned      # Image*
    cdef size_t sorted_before = finishing.order.count
    cdef size_t i
    cdef bint complete
    memset(&abandoned, 0, sizeof(abandoned))
    if not take_abandoned(finishing.registry, &abandoned) or abandoned.count == 0:
        return
    complete = pointers_reserve(allocator, &finishing.dead, abandoned.count) \
        and sort_for_destructors(allocator, &abandoned, NULL, &finishing.order)
    if not complete:
        finishing.order.count = sorted_before
    for i in range(abandoned.count):
        if complete:
            pointers_add(allocator, &finishing.dead, abandoned.items[i])
        else:
            (<Image*>abandoned.items[i]).is_abandoned = True
    pointers_free(allocator, &abandoned)


cdef inline void collect_once(Linker* linker, const Image* closed) noexcept nogil:
    cdef Registry* registry = &linker.registry
    cdef Finishing finishing
    cdef Pointers gone
    cdef size_t i
    memset(&finishing, 0, sizeof(finishing))
    memset(&gone, 0, sizeof(gone))
    finishing.registry = registry
    lock_acquire(&registry.lock)
    if not linker.habits.finishes_closed_first:
        closed = NULL
    store_u64(&registry.closer, this_thread())
    sweep(linker, closed, &finishing.dead, &finishing.order)
    store_u64(&registry.closer, 0)
    adopt_abandoned(&finishing)
    lock_release(&registry.lock)
    in_section(run_all_destructors, end_destructors, &finishing)
    lock_acquire(&registry.lock)
    take_gone(registry, &gone)
    for i in range(gone.count):
        if forget_patches(linker, <Image*>gone.items[i]) or registry.sweep_again:
            (&collecting)[0] = 2     # they may have held something
    lock_release(&registry.lock)
    hide_from_debugger(linker, &gone)
    for i in range(gone.count):
        report_unload(<Image*>gone.items[i])
        give_back_hosts(linker, <Image*>gone.items[i])
        take_back_tls(linker, <Image*>gone.items[i])
    if gone.count:
        lock_acquire(&registry.lock)
        for i in range(gone.count):
            forget_unsealed(linker, <Image*>gone.items[i])
            retire_image(registry, <Image*>gone.items[i])
        lock_release(&registry.lock)
    pointers_free(&registry.allocator, &gone)
    reclaim(registry, True)


cdef inline int close_image(Linker* linker, Image* image, Error* error) noexcept nogil:
    """One open less; unloads what nothing holds any more."""
    cdef Registry* registry = &linker.registry
    cdef void* handle = NULL
    cdef bint valid
    seal_what_is_left(linker)
    lock_acquire(&registry.lock)
    valid = snapshot_holds(current_snapshot(registry), image) and image.open_count != 0
    if valid:
        image.open_count -= 1
        report_close(image)
        if image.is_host:
            handle = image.host_handle
    lock_release(&registry.lock)
    if not valid:
        return fail_handle(error)
    if handle != NULL:
        close_host(linker, handle)
    else:
        collect(linker, image)
    return 0


cdef inline int closed_if_failed(Linker* linker, int code, Image** image) noexcept nogil:
    """Of an open: what had constructors that threw was counted."""
    if code == DLOPEN_E_CONSTRUCTOR:
        close_image(linker, image[0], NULL)
        image[0] = NULL
    return code


cdef inline void finish_at_exit(Linker* linker) noexcept nogil:
    """The process's end: every destructor that is still due, dependents first; nothing is
    unmapped, since other threads may still run. As under glibc the last namespace goes
    first, an image whose constructor ended the process is finished too, and what a
    destructor closes stays, to be finished in its turn."""
    cdef Registry* registry = &linker.registry
    cdef Pointers left           # Image*
    cdef Pointers order
    cdef size_t i
    cdef Image* image
    memset(&left, 0, sizeof(left))
    memset(&order, 0, sizeof(order))
    linker.exiting = True
    lock_acquire(&registry.lock)
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        absorb_lazy_bindings(registry, image)
        image.pins += 1
        # Without memory the rest is not finished.
        if not pointers_add(&registry.allocator, &left, image):
            break
    take_abandoned(registry, &left)
    lock_release(&registry.lock)
    while left.count:
        take_last_namespace(registry, &left, &order)
        for i in reversed(range(order.count)):
            image = <Image*>order.items[i]
            if image.fini_due:
                image.fini_due = False
                run_destructors(image)
        order.count = 0
    pointers_free(&registry.allocator, &left)
    pointers_free(&registry.allocator, &order)


cdef inline void take_last_namespace(
    Registry* registry, Pointers* images, Pointers* order
) noexcept nogil:
    """Those with the highest id go from `images` to `order`, dependencies first."""
    cdef Pointers members
    cdef size_t i
    cdef size_t kept = 0
    cdef Image* image
    cdef int64_t last = 0
    memset(&members, 0, sizeof(members))
    for i in range(images.count):
        image = <Image*>images.items[i]
        if image.namespace_id > last:
            last = image.namespace_id
    for i in range(images.count):
        image = <Image*>images.items[i]
        if image.namespace_id != last:
            images.items[kept] = image
            kept += 1
        else:
            pointers_add(&registry.allocator, &members, image)
    images.count = kept
    lock_acquire(&registry.lock)
    sort_for_destructors(&registry.allocator, &members, NULL, order)
    lock_release(&registry.lock)
    pointers_free(&registry.allocator, &members)


cdef inline size_t visit_holders(
    Linker* linker, Image* image, VisitHolder* visit, void* data
) noexcept nogil:
    """What holds an image. The callback runs in a reader section, without the lock."""
    cdef Registry* registry = &linker.registry
    cdef uint32_t phase = reader_enter(registry)
    cdef const Snapshot* snapshot = current_snapshot(registry)
    cdef size_t found = 0
    cdef size_t i
    cdef Image* other
    cdef bint is_mapped, is_live, is_retained, is_bound
    lock_acquire(&registry.lock)
    is_mapped = pointers_hold(&registry.images, image) or pointers_hold(&registry.closing, image)
    is_live = is_mapped and image.live_objects != 0
    is_retained = is_mapped and image.retain_count != 0
    lock_release(&registry.lock)
    if is_live:
        found += 1
        visit(DLOPEN_HELD_THREAD_LOCAL, <PublicImage*>image, data)
    if is_retained:
        found += 1
        visit(DLOPEN_HELD_RETAINED, <PublicImage*>image, data)
    if snapshot_holds(snapshot, image):
        if image.open_count != 0:
            found += 1
            visit(DLOPEN_HELD_OPEN, <PublicImage*>image, data)
        if image.nodelete:
            found += 1
            visit(DLOPEN_HELD_NODELETE, <PublicImage*>image, data)
        if load_u32(&image.patch_uses) != 0:
            found += 1
            visit(DLOPEN_HELD_PATCH, <PublicImage*>image, data)
        if image.state == DLOPEN_STATE_INITIALISING:
            found += 1
            visit(DLOPEN_HELD_INITIALISING, <PublicImage*>image, data)
        for i in range(snapshot.count):
            other = snapshot.images[i]
            if other == image:
                continue
            lock_acquire(&registry.lock)
            absorb_lazy_bindings(registry, other)
            is_bound = not is_being_linked(other) and pointers_hold(&other.bindings, image)
            lock_release(&registry.lock)
            if is_linked(other) and pointers_hold(&other.dependencies, image):
                found += 1
                visit(DLOPEN_HELD_DEPENDENCY, <PublicImage*>other, data)
            elif is_bound:
                found += 1
                visit(DLOPEN_HELD_BINDING, <PublicImage*>other, data)
    reader_leave(registry, phase)
    return found
