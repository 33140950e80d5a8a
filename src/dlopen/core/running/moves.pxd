"""What a hot swap changes: each word of the process that leads to the old version, and what it
becomes in the new one.

All of it is looked up before anything is changed, with no lock held; running/swap.pxd makes the
changes, if nothing came in between.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_pointer
from dlopen.core.base.contract cimport (
    DLOPEN_E_MEMORY, DLOPEN_E_RELOCATION, DLOPEN_E_STATE, DLOPEN_E_SYMBOL, DLOPEN_R_DTPMOD,
    DLOPEN_R_JUMP_SLOT, DLOPEN_R_TLSDESC, DLOPEN_R_TPOFF, Error,
)
from dlopen.core.base.details cimport (
    DETAIL_SWAP_ADDRESS, DETAIL_SWAP_PLACE, DETAIL_SWAP_SYMBOL, DETAIL_SWAP_TLS,
)
from dlopen.core.base.errors cimport error_name_symbol, error_needed_by, fail, fail_at, fail_memory
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.elf.constants cimport SHN_UNDEF
from dlopen.core.elf.structures cimport Sym
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport patched_place
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport Image, PatchedPlace, PlaceValue, image_name, is_linked
from dlopen.core.image.registry cimport Snapshot, first_image, next_image
from dlopen.core.relocation.places cimport addend_of
from dlopen.core.relocation.words cimport (
    Word, WordWalk, is_one_store, leads_to_symbol, next_word, words_of,
)
from dlopen.core.running.calls cimport resolve_call
from dlopen.core.running.find_symbol cimport resolved_address
from dlopen.core.running.scopes cimport Borrowed, give_back_scopes
from dlopen.core.running.matches cimport word_at
from dlopen.core.symbols.binding cimport describe_reference
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
    uint64_t uses                # Patches.reloadable_uses, when the moves were looked for
    Pointers moves               # Move*, owned
    Error* error


cdef inline bint leads_to(const Image* image, uint64_t address) noexcept nogil:
    """The address lies in the image."""
    return image.map_start <= address < image.map_end


cdef inline int find_in_successor(
    Swap* swap, const Image* image, uint32_t index, const Image* user, uint64_t* address
) noexcept nogil:
    """What the image's symbol is from now on, for its user. A resolver may run: with no lock."""
    cdef Reference reference
    cdef Definition definition
    describe_reference(image, index, symbol_name(image, &image.tables.symtab[index]), &reference)
    definition.image = swap.successor
    definition.symbol = lookup_in_image(swap.successor, &reference, &definition.index)
    if definition.symbol == NULL or not is_export(definition.symbol):
        fail(swap.error, DLOPEN_E_SYMBOL, image_name(swap.successor), DETAIL_SWAP_SYMBOL)
        error_name_symbol(swap.error, reference.name, reference.version)
        error_needed_by(swap.error, image_name(user))
        return DLOPEN_E_SYMBOL
    address[0] = resolved_address(swap.linker, &definition)
    return 0


cdef inline int find_counterpart(
    Swap* swap, const Image* user, uint64_t* address
) noexcept nogil:
    """*address, that of a symbol of the old image, becomes the new image's of the same symbol; an
    error where it is no symbol's, or the new image has none."""
    cdef const Image* old = swap.old
    cdef const Sym* symbol
    cdef uint64_t i
    for i in range(old.tables.symbol_limit):
        if i >= old.tables.chain_limit and old.tables.buckets != NULL:
            break
        symbol = &old.tables.symtab[i]
        if symbol.st_shndx == SHN_UNDEF or not is_export(symbol) \
                or old.load_bias + symbol.st_value != address[0] \
                or symbol_name(old, symbol) == NULL:
            continue
        return find_in_successor(swap, old, <uint32_t>i, user, address)
    return fail_at(
        swap.error, DLOPEN_E_STATE, image_name(user), DETAIL_SWAP_ADDRESS, ~<uint64_t>0, address[0]
    )


cdef inline int add_move(
    Swap* swap, Image* image, uint64_t place, uint64_t expected, uint64_t value, uint64_t patch
) noexcept nogil:
    """One word that is to change from `expected` to `value`; `patch` is the number of the patch
    that it belongs to, or 0."""
    cdef Move* move = <Move*>allocate(sizeof(Move))
    if move == NULL or not pointers_add(&swap.moves, move):
        release(move)
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
    cdef Borrowed borrowed
    cdef Definition definition
    cdef Reference reference
    cdef uint32_t index = 0
    cdef bint found
    describe_reference(image, symbol, symbol_name(image, &image.tables.symtab[symbol]), &reference)
    if lookup_in_image(definer, &reference, &index) == NULL:
        return False             # as nearly all
    if resolve_call(
        swap.linker, swap.snapshot, image, symbol, &borrowed, &definition
    ) == DLOPEN_E_MEMORY:
        code[0] = fail_memory(swap.error, image_name(image))
    found = definition.image == definer
    give_back_scopes(&borrowed)
    return found


cdef inline bint refers_to_storage(
    const Swap* swap, const Image* image, const Word* word
) noexcept nogil:
    """A thread-local reference to the old image, which is of several words."""
    cdef const Image* old = swap.old
    cdef Reference reference
    cdef uint32_t index = 0
    if old.thread_local.module_id == 0 or image == old:
        return False
    if word.kind == DLOPEN_R_DTPMOD:
        return word_at(image, word.relocation) == old.thread_local.module_id
    if word.kind != DLOPEN_R_TPOFF and word.kind != DLOPEN_R_TLSDESC:
        return False
    describe_reference(
        image, word.symbol, symbol_name(image, &image.tables.symtab[word.symbol]), &reference
    )
    return image.tables.symtab[word.symbol].st_shndx == SHN_UNDEF \
        and lookup_in_image(old, &reference, &index) != NULL


cdef inline int find_moves_of_words(Swap* swap, Image* image) noexcept nogil:
    """Words of the image that were bound to the old one."""
    cdef WordWalk walk = words_of(image, False)
    cdef Word word
    cdef const PatchedPlace* patched
    cdef uint64_t now, value, place
    cdef int code = 0
    while next_word(&walk, &word):
        place = image.load_bias + word.relocation.r_offset
        if refers_to_storage(swap, image, &word):
            return fail_at(
                swap.error, DLOPEN_E_RELOCATION, image_name(image), DETAIL_SWAP_TLS, place,
                word.kind
            )
        if not leads_to_symbol(&word):
            continue
        if not is_one_store(image, &word):
            if would_be_bound_to(swap, image, word.symbol, swap.old, &code):
                return fail_at(
                    swap.error, DLOPEN_E_RELOCATION, image_name(image), DETAIL_SWAP_PLACE, place,
                    word.kind
                )
            if code:
                return code
            continue
        lock_acquire(&swap.linker.registry.lock)
        patched = patched_place(image, place)
        now = patched.original if patched != NULL else word_at(image, word.relocation)
        lock_release(&swap.linker.registry.lock)
        if leads_to(swap.old, now - addend_of(word.relocation, word.kind)):
            code = find_in_successor(swap, image, word.symbol, image, &value)
        elif word.kind == DLOPEN_R_JUMP_SLOT and image.calls.definers != NULL \
                and is_code(image, now - image.load_bias) \
                and would_be_bound_to(swap, image, word.symbol, swap.old, &code):
            code = find_in_successor(swap, image, word.symbol, image, &value)
        elif code == 0:
            continue
        if code == 0:
            value += addend_of(word.relocation, word.kind)
            code = add_move(swap, image, place, now, value, 0)
        if code:
            return code
    return 0


cdef inline int find_moves_of_patches(Swap* swap, Image* image) noexcept nogil:
    """What patches of the image have let lead to the old one."""
    cdef size_t first = swap.moves.count
    cdef const PatchedPlace* patched
    cdef const PlaceValue* value
    cdef Move* move
    cdef uint64_t address
    cdef size_t i
    cdef int code = 0
    lock_acquire(&swap.linker.registry.lock)
    patched = image.changes.patched
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
    """What calls that are not bound yet would be bound to, by a replacement."""
    cdef uint64_t address
    cdef uint32_t i
    cdef int code = 0
    for i in range(image.changes.replacement_count):
        address = image.changes.replacements[i].address
        if code == 0 and leads_to(swap.old, address):
            code = find_counterpart(swap, image, &address)
            if code == 0:
                code = add_move(
                    swap, NULL, <uint64_t>&image.changes.replacements[i].address,
                    image.changes.replacements[i].address, address, 0
                )
    return code


cdef inline int find_moves(Swap* swap) noexcept nogil:
    """All of them: 0, or an error where the new image has no counterpart."""
    cdef Image* image
    cdef size_t i
    cdef int code = 0
    image = first_image(&swap.linker.registry)
    while image != NULL:
        # Without a scope: mapped only, and going.
        if image != swap.old and is_linked(image) and load_pointer(&image.scope.lists) != NULL:
            code = find_moves_of_words(swap, image)
            if code == 0:
                code = find_moves_of_replacements(swap, image)
            if code == 0:
                code = find_moves_of_patches(swap, image)
            if code:
                return code
        image = next_image(image)
    for i in range(swap.snapshot.host_count):
        code = find_moves_of_patches(swap, swap.snapshot.hosts[i])
        if code:
            return code
    return 0


cdef inline void free_moves(Swap* swap) noexcept nogil:
    cdef size_t i
    for i in range(swap.moves.count):
        release(swap.moves.items[i])
    pointers_free(&swap.moves)
