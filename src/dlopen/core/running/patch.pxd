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

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_INVALID, DLOPEN_E_PROTECT, DLOPEN_E_STATE, DLOPEN_STATE_CLOSING, DLOPEN_STATE_LOADING,
    DLOPEN_STATE_MAPPED, Error, Patched, PublicReplacement,
)
from dlopen.core.base.details cimport (
    DETAIL_NOT_LINKED, DETAIL_NO_PATCH, DETAIL_PATCH_ITSELF, DETAIL_PATCH_NAME,
    DETAIL_PATCH_RELRO, DETAIL_UNPATCH_RELRO,
)
from dlopen.core.base.errors cimport fail, fail_handle, fail_memory
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.iterate cimport holds_linker
from dlopen.core.host.linker cimport Linker, Patch
from dlopen.core.image.image cimport Image, image_name
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.registry cimport Registry, reader_enter, reader_leave
from dlopen.core.running.matches cimport Match, bound_function, defined_function, find_matches
from dlopen.core.running.values cimport (
    close_places_of, open_places_of, pop_values, push_value, store_values, store_what_was,
)


cdef struct Patching:            # a patch that is being made
    Linker* linker
    Image* image
    void* borrowed               # the count that keeps one of the host's; else `image`
    const PublicReplacement* replacements
    size_t count                 # of them, and of `results`
    Patched* results
    Match* matches               # owned, like the next, until it is in force
    size_t match_count
    Patch* patch
    Error* error


cdef inline bint is_patchable(const Registry* registry, const Image* image) noexcept nogil:
    """It is loaded, and is not going."""
    return is_image(registry, image) and load_u32(&image.life.state) != DLOPEN_STATE_CLOSING


cdef inline int check_patchable(Patching* patching) noexcept nogil:
    """The error of an image or a replacement for which there can be no patch, or 0."""
    cdef const Image* image = patching.image
    cdef uint32_t state = load_u32(&image.life.state)
    cdef size_t i
    if holds_linker(patching.linker, image):
        return fail(patching.error, DLOPEN_E_INVALID, image_name(image), DETAIL_PATCH_ITSELF)
    if not image.is_host and (state == DLOPEN_STATE_MAPPED or state == DLOPEN_STATE_LOADING):
        return fail(patching.error, DLOPEN_E_STATE, image_name(image), DETAIL_NOT_LINKED)
    for i in range(patching.count):
        if patching.replacements[i].name == NULL:
            return fail(patching.error, DLOPEN_E_INVALID, image_name(image), DETAIL_PATCH_NAME)
    return 0


cdef inline int find_places(Patching* patching) noexcept nogil:
    """Which words of the image stand for a symbol that is to be replaced."""
    patching.match_count = find_matches(patching.image, patching.replacements, patching.count, NULL)
    patching.matches = <Match*>allocate((patching.match_count + 1) * sizeof(Match))
    patching.patch = <Patch*>allocate(sizeof(Patch))
    if patching.matches == NULL or patching.patch == NULL:
        return fail_memory(patching.error, image_name(patching.image))
    patching.patch.image = patching.image
    patching.patch.borrowed = patching.borrowed
    find_matches(patching.image, patching.replacements, patching.count, patching.matches)
    return 0


cdef inline int decide(Patching* patching) noexcept nogil:
    """Match.address. A resolver may run: with no lock held. A place that nothing is for drops
    out."""
    cdef Image* image = patching.image
    cdef Match* match
    cdef size_t kept = 0
    cdef size_t i
    for i in range(patching.match_count):
        match = &patching.matches[kept]
        match[0] = patching.matches[i]
        match.address = <uint64_t>patching.replacements[match.replacement].address
        if match.address == 0 and not image.is_host and not defined_function(
            patching.linker, image, match.word.symbol, &match.address
        ):
            return fail_memory(patching.error, image_name(image))
        kept += match.address != 0
    patching.match_count = kept
    return 0


cdef inline int find_originals(Patching* patching) noexcept nogil:
    """Of the first place of each symbol that leads anywhere; calls come first. A resolver may run:
    with no lock held."""
    cdef Patched* result
    cdef size_t i
    for i in range(patching.match_count):
        result = &patching.results[patching.matches[i].replacement]
        result.places += 1
        if result.original == 0 and not bound_function(
            patching.linker, patching.image,
            NULL if patching.borrowed == patching.image else patching.borrowed,
            &patching.matches[i], &result.original
        ):
            return fail_memory(patching.error, image_name(patching.image))
    return 0


cdef inline int apply_patch(Patching* patching) noexcept nogil:
    """All its stores, or none; under the lock."""
    cdef Linker* linker = patching.linker
    cdef Registry* registry = &linker.registry
    cdef Image* image = patching.image
    cdef Patch* patch = patching.patch
    cdef size_t i
    cdef int code = 0
    lock_acquire(&registry.lock)
    # A resolver, or another thread, may have closed it since.
    if not is_patchable(registry, image):
        lock_release(&registry.lock)
        return fail_handle(patching.error)
    linker.patches.made += 1
    patch.number = linker.patches.made
    # Before the first store: a call that is being bound looks at it.
    store_u32(&image.changes.patch_count, image.changes.patch_count + 1)
    # Remember what is to be stored, and what stands there.
    for i in range(patching.match_count):
        if code == 0 and not push_value(linker, image, &patching.matches[i], patch.number):
            code = fail_memory(patching.error, image_name(image))
    # Open all places: the kernel may refuse.
    if code == 0 and not open_places_of(&linker.rebinding, image, patch.number):
        code = fail(patching.error, DLOPEN_E_PROTECT, image_name(image), DETAIL_PATCH_RELRO)
    if code:
        pop_values(image, patch.number)
        store_u32(&image.changes.patch_count, image.changes.patch_count - 1)
    else:
        # Store, and close them.
        store_values(image, patch.number)
        close_places_of(&linker.rebinding, image, patch.number)
        image.life.pins += image.is_host
        patch.next = linker.patches.in_force
        linker.patches.in_force = patch
    lock_release(&registry.lock)
    return code


cdef inline int patch_borrowed(Patching* patching, uint64_t* number) noexcept nogil:
    """The steps of a patch."""
    cdef int code = (
        # Check: the image can be patched.
        check_patchable(patching)
        # Find: its words that stand for one of the symbols.
        or find_places(patching)
        # Decide: what each shall lead to.
        or decide(patching)
        # Originals: what each leads to without any patch, for who replaces it.
        or find_originals(patching)
        # Apply: one store each, all or none.
        or apply_patch(patching)
    )
    release(patching.matches)
    if code:
        release(patching.patch)
    else:
        number[0] = patching.patch.number
    return code


cdef inline int patch_image(
    Linker* linker, Image* image, const PublicReplacement* replacements, size_t count,
    Patched* results, uint64_t* number, Error* error
) noexcept nogil:
    """`results` has room for `count`."""
    cdef Patching patching
    cdef uint32_t phase = reader_enter(&linker.registry)
    cdef int code
    memset(results, 0, count * sizeof(Patched))
    memset(&patching, 0, sizeof(patching))
    patching.linker = linker
    patching.image = image
    patching.replacements = replacements
    patching.count = count
    patching.results = results
    patching.error = error
    if is_patchable(&linker.registry, image):
        patching.borrowed = borrow_host_image(linker, image)
    if patching.borrowed == NULL:
        code = fail_handle(error)
    else:
        code = patch_borrowed(&patching, number)
        if code:
            give_back_host_image(linker, image, patching.borrowed)
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
    if number == 0 or number > linker.patches.made:
        lock_release(&registry.lock)
        return fail(error, DLOPEN_E_INVALID, b"", DETAIL_NO_PATCH)
    link = &linker.patches.in_force
    while link[0] != NULL and link[0].number != number:
        link = &link[0].next
    patch = link[0]
    if patch != NULL and not open_places_of(&linker.rebinding, patch.image, number):
        code = fail(error, DLOPEN_E_PROTECT, image_name(patch.image), DETAIL_UNPATCH_RELRO)
        lock_release(&registry.lock)
        return code
    if patch != NULL:
        link[0] = patch.next
        # All stores while the pages are open: several places may be in one.
        store_what_was(patch.image, number)
        close_places_of(&linker.rebinding, patch.image, number)
        has_kept[0] = pop_values(patch.image, number)
        store_u32(&patch.image.changes.patch_count, patch.image.changes.patch_count - 1)
        patch.image.life.pins -= patch.image.is_host
        registry.is_sweep_due = registry.is_sweep_due or has_kept[0]
    lock_release(&registry.lock)
    if patch != NULL:
        give_back_host_image(linker, patch.image, patch.borrowed)
        release(patch)
    return 0
