"""Hot swap: an image takes the place of an older version of it.

What other images of ours were bound to in the old one, and what patches of any image let
lead to it, is looked up in the successor, all of it before anything is changed. A call
that is not bound yet, but would be to the old one, is bound now: a thread that is just
doing so cannot undo it then (linker/calls.pxd).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.arch.machine cimport THIS_MACHINE, relocation_kind
from dlopen.core.base.allocator cimport Allocator, allocate, release
from dlopen.core.base.atomics cimport full_fence, load_pointer, load_u32, store_pointer, store_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_HANDLE, DLOPEN_E_MEMORY, DLOPEN_E_PROTECT, DLOPEN_E_RELOCATION, DLOPEN_E_STATE,
    DLOPEN_E_SYMBOL, DLOPEN_R_DTPMOD, DLOPEN_R_JUMP_SLOT, DLOPEN_R_PC_RELATIVE, DLOPEN_R_TLSDESC,
    DLOPEN_R_TPOFF, DLOPEN_STATE_READY, Error,
)
from dlopen.core.base.errors cimport (
    error_name_symbol, error_needed_by, fail, fail_at, fail_handle, fail_memory,
)
from dlopen.core.base.growable cimport (
    Pointers, pointers_add, pointers_free, pointers_hold, pointers_remove,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.elf.constants cimport SHN_UNDEF
from dlopen.core.elf.structures cimport Rela, Sym, relocation_symbol, relocation_type
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport close_place, open_place, patched_place, store_place
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport (
    Image, PatchedPlace, PlaceValue, SearchList, image_name, is_being_linked, is_linked,
)
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, make_snapshot, publish_snapshot, reader_enter,
    reader_leave, snapshot_holds,
)
from dlopen.core.linker.calls cimport Globals, give_back_globals, resolve_call
from dlopen.core.linker.find_symbol cimport resolved_address
from dlopen.core.linker.patch cimport addend_of, can_be_patched, word_at
from dlopen.core.relocation.binding cimport describe_reference
from dlopen.core.relocation.replace cimport can_be_replaced
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, is_export, lookup_in_image, symbol_name,
)


cdef struct Move:                # a word that leads to the old image, and where it shall lead
    Image* image
    uint64_t place               # run address
    uint64_t expected            # what stands there now
    uint64_t value
    uint64_t patch               # the number of the patch that has stored it, or 0


cdef struct Swap:
    Linker* linker
    const Snapshot* snapshot
    Image* old
    Image* successor
    uint64_t generation          # of the registry, and
    uint64_t uses                # Linker.reloadable_uses, when the moves were looked for
    Pointers moves               # Move*, owned
    Error* error


cdef inline bint leads_to(const Image* image, uint64_t address) noexcept nogil:
    return image.map_start <= address < image.map_end


cdef inline int find_in_successor(
    Swap* swap, const Image* image, uint32_t index, const Image* user, uint64_t* address
) noexcept nogil:
    """What the image's symbol is from now on, for its user. A resolver may run: with no lock."""
    cdef Reference reference
    cdef Definition definition
    describe_reference(image, index, symbol_name(image, &image.symtab[index]), &reference)
    definition.image = swap.successor
    definition.symbol = lookup_in_image(swap.successor, &reference, &definition.index)
    if definition.symbol == NULL or not is_export(definition.symbol):
        fail(
            swap.error, DLOPEN_E_SYMBOL, image_name(swap.successor),
            b"the new version lacks a symbol that is in use"
        )
        error_name_symbol(swap.error, reference.name, reference.version)
        error_needed_by(swap.error, image_name(user))
        return DLOPEN_E_SYMBOL
    address[0] = resolved_address(swap.linker, &definition)
    return 0


cdef inline int find_counterpart(
    Swap* swap, const Image* user, uint64_t* address
) noexcept nogil:
    """The same for an address of a symbol of the old image, as a replacement has it."""
    cdef const Image* old = swap.old
    cdef const Sym* symbol
    cdef uint64_t i
    for i in range(old.symbol_limit):
        if i >= old.chain_limit and old.buckets != NULL:
            break
        symbol = &old.symtab[i]
        if symbol.st_shndx == SHN_UNDEF or not is_export(symbol) \
                or old.load_bias + symbol.st_value != address[0] \
                or symbol_name(old, symbol) == NULL:
            continue
        return find_in_successor(swap, old, <uint32_t>i, user, address)
    return fail_at(
        swap.error, DLOPEN_E_STATE, image_name(user),
        b"it leads to an address of the old version that is no symbol's", ~<uint64_t>0, address[0]
    )


cdef inline int add_move(
    Swap* swap, Image* image, uint64_t place, uint64_t expected, uint64_t value, uint64_t patch
) noexcept nogil:
    cdef Allocator* allocator = &swap.linker.registry.allocator
    cdef Move* move = <Move*>allocate(allocator, sizeof(Move))
    if move == NULL or not pointers_add(allocator, &swap.moves, move):
        release(allocator, move)
        return fail_memory(swap.error, image_name(image))
    move.image = image
    move.place = place
    move.expected = expected
    move.value = value
    move.patch = patch
    return 0


cdef inline bint would_be_bound_to(
    Swap* swap, Image* image, uint32_t symbol, const Image* definer, int* code
) noexcept nogil:
    """Of a call that is not bound yet, or of a place that cannot be read as one word. *code is
    changed where that cannot be found out."""
    cdef Globals globals
    cdef Definition definition
    cdef Reference reference
    cdef uint32_t index = 0
    cdef bint found
    describe_reference(image, symbol, symbol_name(image, &image.symtab[symbol]), &reference)
    if lookup_in_image(definer, &reference, &index) == NULL:
        return False             # as nearly all
    if resolve_call(
        swap.linker, swap.snapshot, image, symbol, &globals, &definition
    ) == DLOPEN_E_MEMORY:
        code[0] = fail_memory(swap.error, image_name(image))
    found = definition.image == definer
    give_back_globals(swap.linker, &globals)
    return found


cdef inline bint refers_to_storage(
    const Swap* swap, const Image* image, const Rela* relocation, uint32_t kind
) noexcept nogil:
    """A thread-local reference to the old image, which is of several words."""
    cdef const Image* old = swap.old
    cdef Reference reference
    cdef uint32_t index = 0
    cdef uint32_t symbol = relocation_symbol(relocation)
    if old.tls_module_id == 0 or symbol == 0 or image == old:
        return False
    if kind == DLOPEN_R_DTPMOD:
        return word_at(image, relocation) == old.tls_module_id
    if kind != DLOPEN_R_TPOFF and kind != DLOPEN_R_TLSDESC:
        return False
    describe_reference(image, symbol, symbol_name(image, &image.symtab[symbol]), &reference)
    return image.symtab[symbol].st_shndx == SHN_UNDEF \
        and lookup_in_image(old, &reference, &index) != NULL


cdef inline int find_moves_in_table(
    Swap* swap, Image* image, const Rela* table, uint64_t count
) noexcept nogil:
    cdef const PatchedPlace* patched
    cdef const Rela* relocation
    cdef uint64_t i, word, value
    cdef uint64_t place = 0
    cdef uint32_t kind, symbol
    cdef int code = 0
    for i in range(count):
        relocation = &table[i]
        symbol = relocation_symbol(relocation)
        kind = relocation_kind(THIS_MACHINE, relocation_type(relocation))
        if symbol == 0 or symbol >= image.symbol_limit \
                or symbol_name(image, &image.symtab[symbol]) == NULL:
            continue
        place = image.load_bias + relocation.r_offset
        if refers_to_storage(swap, image, relocation, kind):
            return fail_at(
                swap.error, DLOPEN_E_RELOCATION, image_name(image),
                b"it uses thread-local storage of the old version", place, kind
            )
        if not can_be_replaced(image, relocation):
            continue
        if kind == DLOPEN_R_PC_RELATIVE or not can_be_patched(image, relocation):
            if would_be_bound_to(swap, image, symbol, swap.old, &code):
                return fail_at(
                    swap.error, DLOPEN_E_RELOCATION, image_name(image),
                    b"no single store changes where it refers to the old version", place, kind
                )
            if code:
                return code
            continue
        lock_acquire(&swap.linker.registry.lock)
        patched = patched_place(image, place)
        word = patched.original if patched != NULL else word_at(image, relocation)
        lock_release(&swap.linker.registry.lock)
        if leads_to(swap.old, word - addend_of(relocation)):
            code = find_in_successor(swap, image, symbol, image, &value)
        elif kind == DLOPEN_R_JUMP_SLOT and image.lazy_bindings != NULL \
                and is_code(image, word - image.load_bias) \
                and would_be_bound_to(swap, image, symbol, swap.old, &code):
            code = find_in_successor(swap, image, symbol, image, &value)
        elif code == 0:
            continue
        if code == 0:
            code = add_move(swap, image, place, word, value + addend_of(relocation), 0)
        if code:
            return code
    return 0


cdef inline int find_moves_of_patches(Swap* swap, Image* image) noexcept nogil:
    cdef size_t first = swap.moves.count
    cdef const PatchedPlace* patched
    cdef const PlaceValue* value
    cdef Move* move
    cdef uint64_t address
    cdef size_t i
    cdef int code = 0
    lock_acquire(&swap.linker.registry.lock)
    patched = image.patched
    while patched != NULL and code == 0:
        value = patched.top
        while value != NULL and code == 0:
            if value.leads_to == swap.old:
                # The address for now: a resolver may run when it is looked up.
                code = add_move(
                    swap, image, patched.place, value.word, value.address, value.number
                )
            value = value.below
        patched = patched.next
    lock_release(&swap.linker.registry.lock)
    for i in range(first, swap.moves.count):
        move = <Move*>swap.moves.items[i]
        address = move.value
        if code == 0:
            code = find_counterpart(swap, image, &address)
        move.value = move.expected + (address - move.value)
    return code


cdef inline int find_moves_of_replacements(Swap* swap, Image* image) noexcept nogil:
    cdef uint64_t address
    cdef uint32_t i
    cdef int code = 0
    for i in range(image.replacement_count):
        address = image.replacements[i].address
        if code == 0 and leads_to(swap.old, address):
            code = find_counterpart(swap, image, &address)
            if code == 0:
                code = add_move(
                    swap, NULL, <uint64_t>&image.replacements[i].address,
                    image.replacements[i].address, address, 0
                )
    return code


cdef inline int find_moves(Swap* swap) noexcept nogil:
    cdef Image* image
    cdef size_t i
    cdef int code = 0
    for i in range(swap.snapshot.count):
        image = swap.snapshot.images[i]
        # Without a scope: mapped only, and going.
        if image == swap.old or not is_linked(image) or load_pointer(&image.scope) == NULL:
            continue
        code = find_moves_in_table(swap, image, image.rela, image.rela_count)
        if code == 0:
            code = find_moves_in_table(swap, image, image.jmprel, image.jmprel_count)
        if code == 0:
            code = find_moves_of_replacements(swap, image)
        if code == 0:
            code = find_moves_of_patches(swap, image)
        if code:
            return code
    for i in range(swap.snapshot.host_count):
        code = find_moves_of_patches(swap, swap.snapshot.hosts[i])
        if code:
            return code
    return 0


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
    # what it has found (linker/calls.pxd).
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


cdef inline void free_moves(Swap* swap) noexcept nogil:
    cdef size_t i
    for i in range(swap.moves.count):
        release(&swap.linker.registry.allocator, swap.moves.items[i])
    pointers_free(&swap.linker.registry.allocator, &swap.moves)


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
