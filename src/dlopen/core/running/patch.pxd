"""Patches: what an image refers to is exchanged while the process runs, and put back.

Each place of the image that a relocation bound to the symbol gets one aligned store.
Patches of one place stack up; they may be taken back in any order, and with the last one
the very word returns that stood there. A library of ours that a patch leads into stays
while it is in force; so does a patched image of the host's.

A call of ours that is not bound yet stays so until the patches of its image are gone
(running/calls.pxd). One of the host's that another thread is just binding for the first
time may win over the patch: nothing tells us of it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.arch.machine cimport THIS_MACHINE, relocation_kind
from dlopen.core.base.allocator cimport Allocator, allocate, release
from dlopen.core.base.atomics cimport load_pointer, load_u32, store_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_INVALID, DLOPEN_E_MEMORY, DLOPEN_E_PROTECT, DLOPEN_E_STATE, DLOPEN_R_SYMBOLIC,
    DLOPEN_STATE_CLOSING, DLOPEN_STATE_LOADING, DLOPEN_STATE_MAPPED, Error, Patched,
    PublicReplacement,
)
from dlopen.core.base.errors cimport fail, fail_handle, fail_memory
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.elf.constants cimport SHN_UNDEF
from dlopen.core.elf.structures cimport Rela, Sym, relocation_type
from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.iterate cimport holds_linker
from dlopen.core.host.linker cimport Linker, Patch
from dlopen.core.host.rebind cimport close_place, open_place, patched_place, store_place
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport (
    Image, PatchedPlace, PlaceValue, Version, free_patched_place, image_name,
)
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, reader_enter, reader_leave, snapshot_holds,
    snapshot_image_at,
)
from dlopen.core.relocation.replace cimport find_in_list
from dlopen.core.relocation.words cimport (
    NOT_A_CALL, Word, WordWalk, is_one_store, next_word, words_of,
)
from dlopen.core.running.calls cimport CALL_AGAIN, find_callee, resolve_call
from dlopen.core.running.find_symbol cimport host_symbol, resolved_address
from dlopen.core.running.scopes cimport Borrowed, give_back_scopes
from dlopen.core.symbols.binding cimport own_address
from dlopen.core.symbols.lookup cimport Definition, symbol_name, symbol_version
cdef struct Match:               # a place that a patch is about
    Word word
    size_t replacement
    uint64_t address             # what it shall lead to


cdef inline uint64_t addend_of(const Rela* relocation) noexcept nogil:
    """The psABI gives GLOB_DAT and JUMP_SLOT none."""
    if relocation_kind(THIS_MACHINE, relocation_type(relocation)) == DLOPEN_R_SYMBOLIC:
        return <uint64_t>relocation.r_addend
    return 0


cdef inline size_t find_matches(
    const Image* image, const PublicReplacement* replacements, size_t replacement_count,
    Match* matches
) noexcept nogil:
    """How many places match, calls first; filled into `matches` unless that is NULL."""
    cdef WordWalk walk = words_of(image, True)
    cdef Word word
    cdef size_t found = 0
    cdef size_t number
    cdef const Version* version
    while next_word(&walk, &word):
        if not is_one_store(image, &word):
            continue
        version = symbol_version(image, word.symbol)
        number = find_in_list(
            replacements, replacement_count, symbol_name(image, &image.symtab[word.symbol]),
            version.name if version != NULL else <const char*>NULL
        )
        if number == replacement_count:
            continue
        if matches != NULL:
            matches[found].word = word
            matches[found].replacement = number
        found += 1
    return found


cdef inline uint64_t word_at(const Image* image, const Rela* relocation) noexcept nogil:
    return <uint64_t>load_pointer(<void*>(image.load_bias + relocation.r_offset))


cdef inline uint64_t resolve_for_host(
    Linker* linker, void* handle, const char* name, const char* version
) noexcept nogil:
    """In the host's order: the global scope, then the image's own. Without RTLD_DEFAULT, which
    would make libdlopen.so a user of what is found."""
    cdef void* program = open_host(linker, NULL, RTLD_LAZY | RTLD_NOLOAD)
    cdef void* found = NULL
    if program != NULL:
        found = host_symbol(linker, program, name, version)
        close_host(linker, program)
    if found == NULL and handle != NULL:
        found = host_symbol(linker, handle, name, version)
    if found == NULL:
        linker.host.dlerror()
    return <uint64_t>found


cdef inline bint bound_function(
    Linker* linker, Image* image, void* handle, const Match* match, uint64_t* result
) noexcept nogil:
    """What the place leads to without any patch. A call that is not bound yet leads back into
    the PLT: it is asked for then, which may run a resolver, so with no lock held, and images may
    go meanwhile. *result is 0: nothing. False without memory."""
    cdef uint32_t symbol = match.word.symbol
    cdef const Sym* entry = &image.symtab[symbol]
    cdef const Version* version = symbol_version(image, symbol)
    cdef const PatchedPlace* patched
    cdef uint64_t word
    cdef int code = CALL_AGAIN
    lock_acquire(&linker.registry.lock)
    patched = patched_place(image, image.load_bias + match.word.relocation.r_offset)
    word = patched.original if patched != NULL else word_at(image, match.word.relocation)
    lock_release(&linker.registry.lock)
    if match.word.call == NOT_A_CALL or not is_code(image, word - image.load_bias) or (
        entry.st_shndx != SHN_UNDEF and image.load_bias + entry.st_value == word
    ):
        result[0] = word - addend_of(match.word.relocation) if word != 0 else 0
        return True
    if image.is_host:
        result[0] = resolve_for_host(
            linker, handle, symbol_name(image, entry),
            version.name if version != NULL else <const char*>NULL
        )
        return True
    if image.lazy_bindings == NULL:
        result[0] = word
        return True
    while code == CALL_AGAIN:
        code = find_callee(
            linker, current_snapshot(&linker.registry), image, match.word.call, False, result
        )
    return code != DLOPEN_E_MEMORY


cdef inline bint defined_function(
    Linker* linker, Image* image, uint32_t symbol, uint64_t* address
) noexcept nogil:
    """What a reference of an image of ours would be bound to if nothing were replaced; 0:
    nothing. A resolver may run: with no lock held. False without memory."""
    cdef Borrowed borrowed
    cdef Definition definition
    cdef int code = resolve_call(
        linker, current_snapshot(&linker.registry), image, symbol, &borrowed, &definition
    )
    address[0] = 0
    if definition.image != NULL:
        address[0] = own_address(linker.own_names, &definition)
        if address[0] == 0:
            address[0] = resolved_address(linker, &definition)
    give_back_scopes(&borrowed)
    return code != DLOPEN_E_MEMORY


cdef inline bint decide(
    Linker* linker, Image* image, Match* matches, size_t* count,
    const PublicReplacement* replacements
) noexcept nogil:
    """Fills in Match.address; *count is how many of the matches are left. False without memory."""
    cdef size_t kept = 0
    cdef size_t i
    for i in range(count[0]):
        matches[kept] = matches[i]
        matches[kept].address = <uint64_t>replacements[matches[i].replacement].address
        if matches[kept].address == 0 and not image.is_host and not defined_function(
            linker, image, matches[i].word.symbol, &matches[kept].address
        ):
            return False
        kept += matches[kept].address != 0
    count[0] = kept
    return True


cdef inline bint push_value(
    Linker* linker, Image* image, const Match* match, uint64_t number
) noexcept nogil:
    """Under the lock: what is to be stored. False without memory."""
    cdef uint64_t address = match.address
    cdef Allocator* allocator = &linker.registry.allocator
    cdef uint64_t place = image.load_bias + match.word.relocation.r_offset
    cdef PatchedPlace* patched = patched_place(image, place)
    cdef PlaceValue* value
    if patched == NULL:
        patched = <PatchedPlace*>allocate(allocator, sizeof(PatchedPlace))
        if patched == NULL:
            return False
        patched.place = place
        patched.original = word_at(image, match.word.relocation)
        patched.next = image.patched
        image.patched = patched
    value = <PlaceValue*>allocate(allocator, sizeof(PlaceValue))
    if value == NULL:
        return False
    value.number = number
    value.word = address + addend_of(match.word.relocation)
    value.address = address
    value.leads_to = snapshot_image_at(current_snapshot(&linker.registry), address)
    if value.leads_to == image or (value.leads_to != NULL and load_u32(
        &value.leads_to.state
    ) == DLOPEN_STATE_CLOSING):
        value.leads_to = NULL
    if value.leads_to != NULL:
        value.leads_to.patch_uses += 1
        linker.reloadable_uses += value.leads_to.is_reloadable
    value.below = patched.top
    patched.top = value
    return True


cdef inline bint is_of_patch(const PatchedPlace* patched, uint64_t number) noexcept nogil:
    cdef const PlaceValue* value = patched.top
    while value != NULL and value.number != number:
        value = value.below
    return value != NULL


cdef inline bint open_places_of(Linker* linker, const Image* image, uint64_t number) noexcept nogil:
    """Under the lock: of a patch. False where the kernel does not permit it: none is open then."""
    cdef const PatchedPlace* patched = image.patched
    while patched != NULL:
        if is_of_patch(patched, number) and not open_place(image, patched.place):
            close_places_of(linker, image, number)
            return False
        patched = patched.next
    return True


cdef inline void close_places_of(
    Linker* linker, const Image* image, uint64_t number
) noexcept nogil:
    cdef const PatchedPlace* patched = image.patched
    while patched != NULL:
        if is_of_patch(patched, number):
            close_place(linker, image, patched.place)
        patched = patched.next


cdef inline void store_values(const Image* image, uint64_t number) noexcept nogil:
    """Under the lock: those of a new patch; the places are open."""
    cdef const PatchedPlace* patched = image.patched
    while patched != NULL:
        if patched.top != NULL and patched.top.number == number:
            store_place(patched.place, patched.top.word)
        patched = patched.next


cdef inline void store_what_was(const Image* image, uint64_t number) noexcept nogil:
    """Under the lock: in places that have values of this patch; they are open."""
    cdef const PatchedPlace* patched = image.patched
    cdef const PlaceValue* value
    while patched != NULL:
        value = patched.top
        if value != NULL and value.number == number:
            store_place(
                patched.place, value.below.word if value.below != NULL else patched.original
            )
        patched = patched.next


cdef inline bint pop_values(Linker* linker, Image* image, uint64_t number) noexcept nogil:
    """Under the lock: the records of what the patch has stored in the image. True if it has kept an
    image."""
    cdef PatchedPlace** link = &image.patched
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
                value.leads_to.patch_uses -= 1
                has_kept = True
            release(&linker.registry.allocator, value)
        if patched.top == NULL:
            link[0] = patched.next
            release(&linker.registry.allocator, patched)
        else:
            link = &patched.next
    return has_kept


cdef inline bint is_patchable(const Snapshot* snapshot, const Image* image) noexcept nogil:
    return snapshot_holds(snapshot, image) and load_u32(&image.state) != DLOPEN_STATE_CLOSING


cdef inline int check_patchable(
    const Linker* linker, const Image* image, const PublicReplacement* replacements, size_t count,
    Error* error
) noexcept nogil:
    cdef uint32_t state = load_u32(&image.state)
    cdef size_t i
    if holds_linker(linker, image):
        return fail(
            error, DLOPEN_E_INVALID, image_name(image), b"the linker does not patch itself"
        )
    if not image.is_host and (state == DLOPEN_STATE_MAPPED or state == DLOPEN_STATE_LOADING):
        return fail(
            error, DLOPEN_E_STATE, image_name(image), b"it is not linked yet: relocate it first"
        )
    for i in range(count):
        if replacements[i].name == NULL:
            return fail(error, DLOPEN_E_INVALID, image_name(image), b"a patch without a name")
    return 0


cdef inline int apply_patch(
    Linker* linker, Image* image, Patch* patch, const Match* matches, size_t count, Error* error
) noexcept nogil:
    """All its stores, or none."""
    cdef Registry* registry = &linker.registry
    cdef size_t i
    cdef int code = 0
    lock_acquire(&registry.lock)
    # A resolver, or another thread, may have closed it since.
    if not is_patchable(current_snapshot(registry), image):
        lock_release(&registry.lock)
        return fail_handle(error)
    linker.patches_made += 1
    patch.number = linker.patches_made
    # Before the first store: a call that is being bound looks at it.
    store_u32(&image.patch_count, image.patch_count + 1)
    for i in range(count):
        if code == 0 and not push_value(linker, image, &matches[i], patch.number):
            code = fail_memory(error, image_name(image))
    if code == 0 and not open_places_of(linker, image, patch.number):
        code = fail(
            error, DLOPEN_E_PROTECT, image_name(image),
            b"the kernel does not let RELRO be opened for a patch"
        )
    if code:
        pop_values(linker, image, patch.number)
        store_u32(&image.patch_count, image.patch_count - 1)
    else:
        store_values(image, patch.number)
        close_places_of(linker, image, patch.number)
        image.pins += image.is_host
        patch.next = linker.patches
        linker.patches = patch
    lock_release(&registry.lock)
    return code


cdef inline int patch_borrowed(
    Linker* linker, Image* image, void* borrowed, const PublicReplacement* replacements,
    size_t count, Patched* results, uint64_t* number, Error* error
) noexcept nogil:
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Match* matches
    cdef Patch* patch
    cdef size_t total, i
    cdef Patched* result
    cdef bint complete
    cdef int code = check_patchable(linker, image, replacements, count, error)
    if code:
        return code
    total = find_matches(image, replacements, count, NULL)
    matches = <Match*>allocate(allocator, (total + 1) * sizeof(Match))
    patch = <Patch*>allocate(allocator, sizeof(Patch))
    if matches == NULL or patch == NULL:
        code = fail_memory(error, image_name(image))
    else:
        find_matches(image, replacements, count, matches)
        complete = decide(linker, image, matches, &total, replacements)
        for i in range(total if complete else 0):
            result = &results[matches[i].replacement]
            result.places += 1
            if result.original == 0:
                complete = complete and bound_function(
                    linker, image, NULL if borrowed == image else borrowed, &matches[i],
                    &result.original
                )
        patch.image = image
        patch.borrowed = borrowed
        code = apply_patch(linker, image, patch, matches, total, error) if complete \
            else fail_memory(error, image_name(image))
    release(allocator, matches)
    if code:
        release(allocator, patch)
    else:
        number[0] = patch.number
    return code


cdef inline int patch_image(
    Linker* linker, Image* image, const PublicReplacement* replacements, size_t count,
    Patched* results, uint64_t* number, Error* error
) noexcept nogil:
    """`results` has room for `count`."""
    cdef uint32_t phase = reader_enter(&linker.registry)
    cdef void* borrowed = NULL
    cdef int code
    memset(results, 0, count * sizeof(Patched))
    if is_patchable(current_snapshot(&linker.registry), image):
        borrowed = borrow_host_image(linker, image)
    if borrowed == NULL:
        code = fail_handle(error)
    else:
        code = patch_borrowed(
            linker, image, borrowed, replacements, count, results, number, error
        )
        if code:
            give_back_host_image(linker, image, borrowed)
    reader_leave(&linker.registry, phase)
    return code


cdef inline int unpatch(
    Linker* linker, uint64_t number, bint* has_kept, Error* error
) noexcept nogil:
    """Once, or again if it fails, and then the patch is in force still; what has gone with its
    image is no error to take back. `has_kept`: if an image may
    have been open for the patch alone, for collect()."""
    cdef Registry* registry = &linker.registry
    cdef Patch** link
    cdef Patch* patch
    cdef int code
    lock_acquire(&registry.lock)
    if number == 0 or number > linker.patches_made:
        lock_release(&registry.lock)
        return fail(error, DLOPEN_E_INVALID, b"", b"the number of no patch")
    link = &linker.patches
    while link[0] != NULL and link[0].number != number:
        link = &link[0].next
    patch = link[0]
    if patch != NULL and not open_places_of(linker, patch.image, number):
        code = fail(
            error, DLOPEN_E_PROTECT, image_name(patch.image),
            b"the kernel does not let RELRO be opened to take a patch back"
        )
        lock_release(&registry.lock)
        return code
    if patch != NULL:
        link[0] = patch.next
        # All stores while the pages are open: several places may be in one.
        store_what_was(patch.image, number)
        close_places_of(linker, patch.image, number)
        has_kept[0] = pop_values(linker, patch.image, number)
        store_u32(&patch.image.patch_count, patch.image.patch_count - 1)
        patch.image.pins -= patch.image.is_host
    lock_release(&registry.lock)
    if patch != NULL:
        give_back_host_image(linker, patch.image, patch.borrowed)
        release(&registry.allocator, patch)
    return 0


cdef inline bint forget_patches(Linker* linker, Image* image) noexcept nogil:
    """Under the lock: of an image of ours whose code will never run again. True if they have
    kept another one."""
    cdef Patch** link = &linker.patches
    cdef Patch* patch
    cdef const PlaceValue* value
    cdef PatchedPlace* patched
    cdef bint kept = False
    while image.patched != NULL:
        patched = image.patched
        image.patched = patched.next
        value = patched.top
        while value != NULL:
            if value.leads_to != NULL:
                value.leads_to.patch_uses -= 1
                kept = True
            value = value.below
        free_patched_place(&linker.registry.allocator, patched)
    while link[0] != NULL:
        patch = link[0]
        if patch.image == image:
            link[0] = patch.next
            release(&linker.registry.allocator, patch)
        else:
            link = &patch.next
    return kept
