"""The stores of a hot swap: each move is one, in a place that is open for it. All under
Registry.lock.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport store_pointer
from dlopen.core.base.contract cimport DLOPEN_E_PROTECT
from dlopen.core.base.details cimport DETAIL_SWAP_RELRO
from dlopen.core.base.errors cimport fail
from dlopen.core.host.rebind cimport close_place, open_place, patched_place, store_place
from dlopen.core.image.image cimport Image, PatchedPlace, PlaceValue, image_name
from dlopen.core.running.moves cimport Move, Swap


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
        store_place(move.image, move.place, word)
    value.address += word - value.word
    value.word = word
    if value.leads_to != NULL:
        value.leads_to.changes.patch_uses -= 1
    value.leads_to = leads_to if leads_to != move.image else NULL
    if value.leads_to != NULL:
        value.leads_to.changes.patch_uses += 1


cdef inline void make_move(const Swap* swap, const Move* move) noexcept nogil:
    """Under the lock; the place is open."""
    cdef PatchedPlace* patched
    if move.image == NULL:       # in a record of ours
        store_pointer(<void*>move.place, <const void*>move.value)
        return
    patched = patched_place(move.image, move.place)
    if move.patch != 0:
        move_patch(move, patched, move.value, swap.successor)
    elif patched != NULL:        # this is for when the patch has gone
        patched.original = move.value
    else:
        store_place(move.image, move.place, move.value)


cdef inline void close_places_of_moves(const Swap* swap) noexcept nogil:
    """Ends what open_places_of_moves began."""
    cdef size_t i
    cdef const Move* move
    for i in range(swap.moves.count):
        move = <const Move*>swap.moves.items[i]
        if move.image != NULL:
            close_place(&swap.linker.rebinding, move.image, move.place)


cdef inline int open_places_of_moves(const Swap* swap) noexcept nogil:
    """Under the lock: all, or none."""
    cdef size_t i
    cdef const Move* move
    for i in range(swap.moves.count):
        move = <const Move*>swap.moves.items[i]
        if move.image != NULL and not open_place(move.image, move.place):
            close_places_of_moves(swap)
            return fail(swap.error, DLOPEN_E_PROTECT, image_name(move.image), DETAIL_SWAP_RELRO)
    return 0
