"""Hot swap: an image takes the place of an older version of it.

What other images of ours were bound to in the old one, and what patches of any image let
lead to it, is looked up in the successor, all of it before anything is changed. A call
that is not bound yet, but would be to the old one, is bound now: a thread that is just
doing so cannot undo it then (running/calls.pxd).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport release
from dlopen.core.base.atomics cimport full_fence, load_pointer, load_u32, store_pointer, store_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_HANDLE, DLOPEN_E_PROTECT, DLOPEN_E_STATE, DLOPEN_STATE_READY, Error,
)
from dlopen.core.base.errors cimport fail, fail_handle, fail_memory
from dlopen.core.base.growable cimport Pointers, pointers_hold, pointers_remove
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport close_place, open_place, patched_place, store_place
from dlopen.core.image.image cimport (
    Image, PatchedPlace, PlaceValue, SearchList, image_name, is_being_linked,
)
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, make_snapshot, publish_snapshot, reader_enter,
    reader_leave, snapshot_holds,
)
from dlopen.core.running.moves cimport Move, Swap, find_moves, free_moves


cdef inline void move_patch(
    const Move* move, PatchedPlace* patched, uint64_t word, Image* leads_to
) noexcept nogil:
    """Under the lock. Whoever has patched may have taken it back since."""
    cdef PlaceValue* value = patched.top if patched != NULL else <PlaceValue*>NULL
    while value != NULL and value.number != move.patch:
        value = value.below
    if value == NULL:
        return
    if value == patched.top:
        store_place(move.place, word)
    value.address += word - value.word
    value.word = word
    if value.leads_to != NULL:
        value.leads_to.patch_uses -= 1
    value.leads_to = leads_to if leads_to != move.image else NULL
    if value.leads_to != NULL:
        value.leads_to.patch_uses += 1


cdef inline void make_move(const Swap* swap, const Move* move) noexcept nogil:
    """Under the lock; the place is open."""
    cdef PatchedPlace* patched
    if move.image == NULL:
        store_place(move.place, move.value)
        return
    patched = patched_place(move.image, move.place)
    if move.patch != 0:
        move_patch(move, patched, move.value, swap.successor)
    elif patched != NULL:        # this is for when the patch has gone
        patched.original = move.value
    else:
        store_place(move.place, move.value)


cdef inline void close_places_of_moves(const Swap* swap) noexcept nogil:
    cdef size_t i
    cdef const Move* move
    for i in range(swap.moves.count):
        move = <const Move*>swap.moves.items[i]
        if move.image != NULL:
            close_place(swap.linker, move.image, move.place)


cdef inline int open_places_of_moves(const Swap* swap) noexcept nogil:
    """Under the lock: all, or none."""
    cdef size_t i
    cdef const Move* move
    for i in range(swap.moves.count):
        move = <const Move*>swap.moves.items[i]
        if move.image != NULL and not open_place(move.image, move.place):
            close_places_of_moves(swap)
            return fail(
                swap.error, DLOPEN_E_PROTECT, image_name(move.image),
                b"the kernel does not let RELRO be opened for the new version"
            )
    return 0


cdef inline void exchange(Pointers* array, const Swap* swap) noexcept nogil:
    """Readers have no lock: each pointer by one store."""
    cdef size_t i
    for i in range(array.count):
        if array.items[i] == swap.old:
            store_pointer(&array.items[i], swap.successor)


cdef inline void exchange_in_scope(Image* image, const Swap* swap) noexcept nogil:
    """What both versions need sees what the new one has brought, in the place of the old one's.
    What only the old one needs is not in that list, and stays with it."""
    cdef SearchList** scope = image.scope
    cdef size_t i = 0
    if not pointers_hold(&swap.successor.search_list.images, image):
        return
    while scope != NULL and scope[i] != NULL:
        if scope[i] == &swap.old.search_list:
            store_pointer(&scope[i], &swap.successor.search_list)
        i += 1


cdef inline void take_place(Swap* swap, Snapshot* snapshot) noexcept nogil:
    """Under the lock: in all lists of other images, and in the global scope."""
    cdef Registry* registry = &swap.linker.registry
    cdef Image* old = swap.old
    cdef Image* successor = swap.successor
    cdef Image* image
    cdef size_t i
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        if image == old or is_being_linked(image):
            continue
        exchange(&image.search_list.images, swap)
        exchange(&image.sorted, swap)
        exchange_in_scope(image, swap)
        if image.loader == old:
            store_pointer(&image.loader, successor)
        if image == successor:
            pointers_remove(&image.bindings, old)
        else:
            exchange(&image.dependencies, swap)
            exchange(&image.bindings, swap)
            exchange(&image.filtees, swap)
    if load_u32(&old.is_global):
        pointers_remove(&registry.globals, successor)
        exchange(&registry.globals, swap)
        store_u32(&successor.is_global, 1)
        store_u32(&old.is_global, 0)
    if load_u32(&old.is_visible):
        store_u32(&successor.is_visible, 1)
        store_u32(&old.is_visible, 0)
    publish_snapshot(registry, snapshot)
    # Now that no call finds the old one: whoever does not see this has written down before it
    # what it has found (running/calls.pxd).
    store_u32(&successor.is_replaced, 0)
    store_u32(&old.is_replaced, 1)
    full_fence()
    exchange_lazy_bindings(swap)


cdef inline void exchange_lazy_bindings(const Swap* swap) noexcept nogil:
    cdef const Registry* registry = &swap.linker.registry
    cdef const Image* image
    cdef size_t i
    cdef uint64_t j
    for i in range(registry.images.count):
        image = <const Image*>registry.images.items[i]
        if image == swap.old or is_being_linked(image) or image.lazy_bindings == NULL:
            continue
        for j in range(image.jmprel_count):
            if load_pointer(&image.lazy_bindings[j]) == swap.old:
                store_pointer(&image.lazy_bindings[j], swap.successor)


cdef inline int commit(Swap* swap, bint* stale) noexcept nogil:
    """All or nothing; `stale` if images came or went since the moves were looked for, or a patch
    may have come that leads to the old one."""
    cdef Registry* registry = &swap.linker.registry
    cdef Snapshot* snapshot
    cdef size_t i
    cdef int code = 0
    lock_acquire(&registry.lock)
    stale[0] = registry.generation != swap.generation \
        or swap.linker.reloadable_uses != swap.uses
    snapshot = NULL if stale[0] else make_snapshot(registry, 0, registry.hosts.count)
    if snapshot == NULL and not stale[0]:
        code = fail_memory(swap.error, image_name(swap.successor))
    if snapshot != NULL:
        code = open_places_of_moves(swap)
        if code:
            release(&registry.allocator, snapshot)
        else:
            for i in range(swap.moves.count):
                make_move(swap, <const Move*>swap.moves.items[i])
            close_places_of_moves(swap)
            take_place(swap, snapshot)
    lock_release(&registry.lock)
    return code


cdef inline int swap_once(
    Linker* linker, Image* old, Image* successor, uint64_t* places, bint* stale, Error* error
) noexcept nogil:
    cdef Swap swap
    cdef uint32_t phase = reader_enter(&linker.registry)
    cdef int code
    memset(&swap, 0, sizeof(swap))
    swap.linker = linker
    swap.old = old
    swap.successor = successor
    swap.error = error
    lock_acquire(&linker.registry.lock)
    swap.snapshot = current_snapshot(&linker.registry)
    swap.generation = linker.registry.generation
    swap.uses = linker.reloadable_uses
    lock_release(&linker.registry.lock)
    stale[0] = False
    if not is_usable(swap.snapshot, old) or not is_usable(swap.snapshot, successor):
        code = fail_handle(error)
    elif old == successor or not old.is_reloadable or not successor.is_reloadable:
        code = fail(
            error, DLOPEN_E_STATE, image_name(old),
            b"only a reloadable image can take the place of another"
        )
    else:
        code = find_moves(&swap)
    if code == 0:
        code = commit(&swap, stale)
    places[0] = swap.moves.count
    free_moves(&swap)
    reader_leave(&linker.registry, phase)
    return code


cdef inline bint is_usable(const Snapshot* snapshot, const Image* image) noexcept nogil:
    return snapshot_holds(snapshot, image) and not image.is_host \
        and load_u32(&image.state) == DLOPEN_STATE_READY


cdef inline int swap_images(
    Linker* linker, Image* old, Image* successor, uint64_t* places, Error* error
) noexcept nogil:
    cdef bint stale = True
    cdef int code = 0
    cdef int _round
    for _round in range(1000):
        code = swap_once(linker, old, successor, places, &stale, error)
        if code or not stale:
            return code
    return fail(
        error, DLOPEN_E_STATE, image_name(old),
        b"other threads kept opening libraries, or patching"
    )


cdef inline int retain(Linker* linker, Image* image, bint retained, Error* error) noexcept nogil:
    """Each success is undone by one with `retained` False."""
    cdef int code = 0
    lock_acquire(&linker.registry.lock)
    if not snapshot_holds(current_snapshot(&linker.registry), image) or image.is_host:
        code = fail(error, DLOPEN_E_HANDLE, b"", b"not an image of ours")
    elif retained:
        image.retain_count += 1
    elif image.retain_count == 0:
        code = fail(error, DLOPEN_E_STATE, image_name(image), b"it is not retained")
    else:
        image.retain_count -= 1
    lock_release(&linker.registry.lock)
    return code
