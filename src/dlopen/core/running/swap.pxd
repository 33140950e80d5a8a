"""Hot swap: an image takes the place of an older version of it.

What other images of ours were bound to in the old one, and what patches of any image let
lead to it, is looked up in the successor, all of it before anything is changed. A call
that is not bound yet, but would be to the old one, is bound now: a thread that is just
doing so cannot undo it then (running/calls.pxd).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport DLOPEN_E_HANDLE, DLOPEN_E_STATE, DLOPEN_STATE_READY, Error
from dlopen.core.base.details cimport (
    DETAIL_KEPT_OPENING, DETAIL_NOT_OURS, DETAIL_NOT_RELOADABLE, DETAIL_NOT_RETAINED,
)
from dlopen.core.base.errors cimport fail, fail_handle, fail_memory
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, image_name
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, reader_enter, reader_leave,
)
from dlopen.core.image.snapshot cimport copy_globals, drop_snapshot, make_snapshot
from dlopen.core.running.exchange cimport take_place
from dlopen.core.running.make_moves cimport close_places_of_moves, make_move, open_places_of_moves
from dlopen.core.running.moves cimport Move, Swap, find_moves, free_moves


cdef inline int commit(Swap* swap, bint* stale) noexcept nogil:
    """All or nothing, under the lock; `stale` if images came or went since the moves were looked
    for, or a patch may have come that leads to the old one."""
    cdef Registry* registry = &swap.linker.registry
    cdef Snapshot* snapshot = NULL
    cdef size_t i
    cdef int code = 0
    lock_acquire(&registry.lock)
    stale[0] = registry.generation != swap.generation \
        or swap.linker.patches.reloadable_uses != swap.uses
    if not stale[0] and load_u32(&swap.old.life.is_global):
        snapshot = make_snapshot(registry, registry.hosts.count, copy_globals(registry, 0))
        if snapshot == NULL:
            code = fail_memory(swap.error, image_name(swap.successor))
    # Open all places: the kernel may refuse.
    if code == 0 and not stale[0]:
        code = open_places_of_moves(swap)
    if code == 0 and not stale[0]:
        # Move: one store each; and close them.
        for i in range(swap.moves.count):
            make_move(swap, <const Move*>swap.moves.items[i])
        close_places_of_moves(swap)
        # Take the place of the old one, in scopes, dependencies and searches by name.
        take_place(swap, snapshot)
        snapshot = NULL
    drop_snapshot(registry, snapshot)
    lock_release(&registry.lock)
    return code


cdef inline int swap_once(
    Linker* linker, Image* old, Image* successor, uint64_t* places, bint* stale, Error* error
) noexcept nogil:
    """One attempt; *stale: something came in between, and nothing has changed."""
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
    swap.uses = linker.patches.reloadable_uses
    lock_release(&linker.registry.lock)
    stale[0] = False
    if not is_usable(&linker.registry, old) or not is_usable(&linker.registry, successor):
        code = fail_handle(error)
    elif old == successor or not old.is_reloadable or not successor.is_reloadable:
        code = fail(error, DLOPEN_E_STATE, image_name(old), DETAIL_NOT_RELOADABLE)
    else:
        # Find: each word that leads to the old one, and what in the new one it shall lead to.
        code = find_moves(&swap)
    if code == 0:
        # Commit: all of it at once.
        code = commit(&swap, stale)
    places[0] = swap.moves.count
    free_moves(&swap)
    reader_leave(&linker.registry, phase)
    return code


cdef inline bint is_usable(const Registry* registry, const Image* image) noexcept nogil:
    """It is one of ours, and initialised."""
    return is_image(registry, image) and not image.is_host \
        and load_u32(&image.life.state) == DLOPEN_STATE_READY


cdef inline int swap_images(
    Linker* linker, Image* old, Image* successor, uint64_t* places, Error* error
) noexcept nogil:
    """What leads to the old image leads to the successor from now on; *places: how many words."""
    cdef bint stale = True
    cdef int code = 0
    cdef int _round
    for _round in range(1000):
        code = swap_once(linker, old, successor, places, &stale, error)
        if code or not stale:
            return code
    return fail(error, DLOPEN_E_STATE, image_name(old), DETAIL_KEPT_OPENING)


cdef inline int retain(
    Registry* registry, Image* image, bint retained, Error* error
) noexcept nogil:
    """Each success is undone by one with `retained` False."""
    cdef int code = 0
    lock_acquire(&registry.lock)
    if not is_image(registry, image) or image.is_host:
        code = fail(error, DLOPEN_E_HANDLE, b"", DETAIL_NOT_OURS)
    elif retained:
        image.life.retain_count += 1
    elif image.life.retain_count == 0:
        code = fail(error, DLOPEN_E_STATE, image_name(image), DETAIL_NOT_RETAINED)
    else:
        image.life.retain_count -= 1
    lock_release(&registry.lock)
    return code
