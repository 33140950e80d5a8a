"""Exceptions, cancellation and backtraces through our images.

An unwinder finds the frame of an address with _dl_find_object (libgcc since 12, LLVM's
since 16) or with dl_iterate_phdr (older ones, libunwind, Rust): both know the host's
images only. Ours answer for all. Images of ours are bound to ours by name; in the
host's, each slot for one of the two is *rebound*: not in libgcc_s alone, since an
unwinder may be linked into any program or library, and nothing tells it from others
that ask. Those then see our images too, as they would with a preloaded libdlopen.so.

One more name is rebound in an image that has such slots: __tls_get_addr. Who takes a module's
id from what dl_iterate_phdr says of an image of ours (the runtime of D does) may ask for its
block, which ld.so's function would look for far outside of its tables. Ours passes on the ids
that are the host's.

A slot is rebound once the host has relocated it, or it would be written again: first
the image is counted, which waits for the dlopen that is loading it. A thread that is
just binding a lazy slot may still win; the slot is looked at again at each change of
the host's images that we see (an open, a lookup of an address). What the host loads after
our first image is bound to ours anyhow (host/redirect.pxd), but for __tls_get_addr.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strcmp
from dlopen.core.elf.constants cimport SHN_UNDEF
from dlopen.core.elf.structures cimport Sym
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport load_place, patched_place, store_bound
from dlopen.core.image.image cimport Image, PatchedPlace, Tables
from dlopen.core.relocation.words cimport Word, WordWalk, holds_address, next_word, words_of
from dlopen.core.symbols.lookup cimport symbol_name
from dlopen.core.symbols.scopes cimport OwnName


ctypedef bint (*SlotStep)(Linker* linker, const Image* image, uint64_t place, uint64_t function) \
    noexcept nogil


cdef inline uint64_t own_unwinder_function(
    const OwnName* own_names, const char* name, bint with_tls
) noexcept nogil:
    """0 for other names."""
    cdef int i = 0
    if name == NULL or (
        strcmp(name, b"_dl_find_object") != 0 and strcmp(name, b"dl_iterate_phdr") != 0
        and (not with_tls or strcmp(name, b"__tls_get_addr") != 0)
    ):
        return 0
    while own_names[i].name != NULL:
        if strcmp(own_names[i].name, name) == 0:
            return own_names[i].address
        i += 1
    return 0


cdef inline bint walk_unwinder_slots(
    Linker* linker, const Image* image, bint with_tls, SlotStep step
) noexcept nogil:
    """Each slot for one of the functions, of a host image that cannot go meanwhile, until `step`
    says stop: False then."""
    cdef WordWalk walk = words_of(image, False)
    cdef Word word
    cdef const Sym* symbol
    cdef uint64_t function
    while next_word(&walk, &word):
        symbol = &image.tables.symtab[word.symbol]
        # One that defines the name itself stands between others and libc: it stays there.
        if symbol.st_shndx != SHN_UNDEF or not holds_address(&word):
            continue
        function = own_unwinder_function(linker.own_names, symbol_name(image, symbol), with_tls)
        if function != 0 and not step(
            linker, image, image.load_bias + word.relocation.r_offset, function
        ):
            return False
    return True


cdef inline bint stop_at_first(
    Linker* linker, const Image* image, uint64_t place, uint64_t function
) noexcept nogil:
    """A SlotStep, for whether there is any."""
    return False


cdef inline bint asks_for_frames(Linker* linker, const Image* image) noexcept nogil:
    """It may have such slots, since it refers to one of the two. Under the host's lock."""
    cdef const Tables* tables = &image.tables
    cdef const char* name
    cdef uint32_t i
    if image.host.is_c_library:
        return False
    # What is not defined comes before what DT_GNU_HASH holds; without that, or with nothing in it,
    # the relocations tell.
    if tables.buckets == NULL or tables.symbol_offset <= 1:
        return not walk_unwinder_slots(linker, image, False, stop_at_first)
    for i in range(1, tables.symbol_offset):
        name = tables.strtab + tables.symtab[i].st_name
        if (name[0] == 0x64 or name[0] == 0x5f) and (name[1] == 0x6c or name[1] == 0x64) \
                and own_unwinder_function(linker.own_names, name, False) != 0:
            return True
    return False


cdef inline bint rebind_slot(
    Linker* linker, const Image* image, uint64_t place, uint64_t function
) noexcept nogil:
    """A SlotStep: lets the slot lead to `function`. False: the kernel has no memory for it."""
    cdef uint64_t bound = load_place(image, place)
    cdef PatchedPlace* patched
    cdef bint done = True
    # An address in the file's terms: not relocated yet, as far as a resolver that opens
    # something can see while the host relocates.
    if bound != function and (image.load_bias == 0 or bound >= image.layout.end):
        lock_acquire(&linker.registry.lock)
        patched = patched_place(image, place)
        if patched != NULL:      # it stays until its patches have gone
            patched.original = function
        else:
            done = store_bound(&linker.rebinding, image, place, function)
        lock_release(&linker.registry.lock)
    return done


cdef inline bint rebind_unwinder(Linker* linker, const Image* image) noexcept nogil:
    """Of an image that the caller has counted, with no lock held; again does no harm. False:
    the kernel has no memory for it now."""
    return walk_unwinder_slots(linker, image, True, rebind_slot)
