# cython: cdivision=True
"""Exceptions, cancellation and backtraces through our images.

An unwinder finds the frame of an address with _dl_find_object (libgcc since 12, LLVM's
since 16) or with dl_iterate_phdr (older ones, libunwind, Rust): both know the host's
images only. Ours answer for all. Images of ours are bound to ours by name; in the
host's, each slot for one of the two is *rebound*: not in libgcc_s alone, since an
unwinder may be linked into any program or library, and nothing tells it from others
that ask. Those then see our images too, as they would with a preloaded libdlopen.so.

A slot is rebound once the host has relocated it, or it would be written again: first
the image is counted, which waits for the dlopen that is loading it. A thread that is
just binding a lazy slot may still win; the slot is looked at again at each change of
the host's images that we see (an open, a lookup of an address). An unwinder that the
host loads later knows nothing of us until then; libgcc_s is brought in before our
first image, so that the one that nearly all share is never among these.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE, relocation_kind
from dlopen.core.base.atomics cimport load_pointer, store_pointer
from dlopen.core.base.contract cimport (
    DLOPEN_R_GLOB_DAT, DLOPEN_R_JUMP_SLOT, DLOPEN_R_SYMBOLIC,
)
from dlopen.core.base.kernel cimport PROT_READ, PROT_WRITE, kernel_protect
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strcmp
from dlopen.core.base.words cimport align_down
from dlopen.core.elf.constants cimport (
    DT_JMPREL, DT_PLTREL, DT_PLTRELSZ, DT_RELA, DT_RELACOUNT, DT_RELASZ, PT_GNU_RELRO, SHN_UNDEF,
)
from dlopen.core.elf.structures cimport Phdr, Rela, Sym, relocation_symbol, relocation_type
from dlopen.core.image.image cimport Image
from dlopen.core.linker.state cimport Linker
from dlopen.core.symbols.lookup cimport symbol_name


ctypedef bint (*SlotStep)(Linker* linker, const Image* image, uint64_t place, uint64_t function) \
    noexcept nogil


cdef inline uint64_t own_unwinder_function(const Linker* linker, const char* name) noexcept nogil:
    """0 for other names."""
    cdef int i = 0
    if name == NULL or (
        strcmp(name, b"_dl_find_object") != 0 and strcmp(name, b"dl_iterate_phdr") != 0
    ):
        return 0
    while linker.own_names[i].name != NULL:
        if strcmp(linker.own_names[i].name, name) == 0:
            return linker.own_names[i].address
        i += 1
    return 0


cdef inline bint walk_slots(
    Linker* linker, const Image* image, const Rela* table, uint64_t count, SlotStep step
) noexcept nogil:
    """Each slot for one of the two functions, until `step` says stop: False then."""
    cdef uint64_t i, function
    cdef uint32_t kind
    cdef const Sym* symbol
    for i in range(count):
        if relocation_symbol(&table[i]) == 0:
            continue
        symbol = &image.symtab[relocation_symbol(&table[i])]
        # One that defines the name itself stands between others and libc: it stays there.
        if symbol.st_shndx != SHN_UNDEF:
            continue
        function = own_unwinder_function(linker, symbol_name(image, symbol))
        if function == 0:
            continue
        kind = relocation_kind(THIS_MACHINE, relocation_type(&table[i]))
        if (
            kind == DLOPEN_R_JUMP_SLOT or kind == DLOPEN_R_GLOB_DAT or kind == DLOPEN_R_SYMBOLIC
        ) and not step(linker, image, image.load_bias + table[i].r_offset, function):
            return False
    return True


cdef inline bint walk_unwinder_slots(
    Linker* linker, const Image* image, SlotStep step
) noexcept nogil:
    """Of a host image that cannot go meanwhile."""
    cdef uint64_t rela = 0
    cdef uint64_t rela_size = 0
    cdef uint64_t relative = 0   # so many come first, and have no symbol
    cdef uint64_t jmprel = 0
    cdef uint64_t jmprel_size = 0
    cdef uint64_t jmprel_kind = DT_RELA
    cdef uint32_t i
    for i in range(image.dynamic_count):
        if image.dynamic[i].d_tag == DT_RELA:
            rela = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_RELASZ:
            rela_size = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_RELACOUNT:
            relative = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_JMPREL:
            jmprel = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_PLTRELSZ:
            jmprel_size = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_PLTREL:
            jmprel_kind = image.dynamic[i].d_val
    # Where the dynamic section is writable, the host has made addresses absolute.
    if rela != 0 and rela < image.load_bias:
        rela += image.load_bias
    if jmprel != 0 and jmprel < image.load_bias:
        jmprel += image.load_bias
    if rela != 0 and relative * sizeof(Rela) < rela_size and not walk_slots(
        linker, image, <const Rela*>rela + relative, rela_size // sizeof(Rela) - relative, step
    ):
        return False
    return jmprel == 0 or jmprel_kind != DT_RELA or walk_slots(
        linker, image, <const Rela*>jmprel, jmprel_size // sizeof(Rela), step
    )


cdef inline bint stop_at_first(
    Linker* linker, const Image* image, uint64_t place, uint64_t function
) noexcept nogil:
    return False


cdef inline bint asks_for_frames(Linker* linker, const Image* image) noexcept nogil:
    """It has such slots. Under the host's lock."""
    return not image.is_c_library and not walk_unwinder_slots(linker, image, stop_at_first)


cdef inline uint64_t sealed_page(
    const Linker* linker, const Image* image, uint64_t place
) noexcept nogil:
    """The page of `place`, if RELRO has closed it: it ends at the last whole page; else 0."""
    cdef uint32_t i
    cdef const Phdr* relro
    cdef uint64_t page = align_down(place, linker.page)
    for i in range(image.layout.phnum):
        relro = &image.layout.phdrs[i]
        if relro.p_type == PT_GNU_RELRO \
                and page >= align_down(image.load_bias + relro.p_vaddr, linker.page) \
                and page < align_down(
                    image.load_bias + relro.p_vaddr + relro.p_memsz, linker.page
                ):
            return page
    return 0


cdef inline bint rebind_slot(
    Linker* linker, const Image* image, uint64_t place, uint64_t function
) noexcept nogil:
    cdef uint64_t bound = <uint64_t>load_pointer(<void*>place)
    cdef uint64_t page
    cdef bint writable = True
    # An address in the file's terms: not relocated yet, as far as a resolver that opens
    # something can see while the host relocates.
    if bound == function or (image.load_bias != 0 and bound < image.layout.end):
        return True
    page = sealed_page(linker, image, place)
    # Two threads at one page: the first would close it before the second has stored.
    lock_acquire(&linker.registry.lock)
    if page != 0:
        writable = kernel_protect(page, linker.page, PROT_READ | PROT_WRITE) == 0
    if writable:
        store_pointer(<void*>place, <const void*>function)
        if page != 0:
            kernel_protect(page, linker.page, PROT_READ)
    lock_release(&linker.registry.lock)
    return True


cdef inline void rebind_unwinder(Linker* linker, const Image* image) noexcept nogil:
    """Of an image that the caller has counted, with no lock held; again does no harm."""
    walk_unwinder_slots(linker, image, rebind_slot)
