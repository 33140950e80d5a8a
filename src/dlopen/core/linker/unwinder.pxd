# cython: cdivision=True
"""C++ exceptions through our images.

The host's libgcc_s finds the frame of an address with _dl_find_object (dl_iterate_phdr in
older ones), which knows the host's images only. Its own slots for these two names are
bound to our functions instead, which answer for our images and pass all else on.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport strcmp

from dlopen.core.base.kernel cimport PROT_READ, PROT_WRITE, kernel_protect
from dlopen.core.base.words cimport align_down
from dlopen.core.elf.constants cimport (
    DT_JMPREL, DT_PLTRELSZ, DT_RELA, DT_RELASZ, PT_GNU_RELRO,
)
from dlopen.core.elf.structures cimport Rela, relocation_symbol
from dlopen.core.image.image cimport Image
from dlopen.core.linker.state cimport Linker
from dlopen.core.symbols.lookup cimport symbol_name


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


cdef inline void rebind_table(
    const Linker* linker, const Image* image, const Rela* table, uint64_t count
) noexcept nogil:
    cdef uint64_t i, place, address
    cdef uint64_t sealed         # the page that RELRO has closed, 0 where it has not
    cdef uint32_t j
    for i in range(count):
        if relocation_symbol(&table[i]) == 0:
            continue
        address = own_unwinder_function(
            linker, symbol_name(image, &image.symtab[relocation_symbol(&table[i])])
        )
        place = image.load_bias + table[i].r_offset
        if address == 0 or (<uint64_t*>place)[0] == address:
            continue
        sealed = 0
        for j in range(image.layout.phnum):
            if image.layout.phdrs[j].p_type == PT_GNU_RELRO \
                    and table[i].r_offset - image.layout.phdrs[j].p_vaddr \
                    < image.layout.phdrs[j].p_memsz:
                sealed = align_down(place, linker.page)
        if sealed and kernel_protect(sealed, linker.page, PROT_READ | PROT_WRITE) != 0:
            continue
        (<uint64_t*>place)[0] = address      # aligned: a thread that throws sees either
        if sealed:
            kernel_protect(sealed, linker.page, PROT_READ)


cdef inline void rebind_unwinder(const Linker* linker, const Image* image) noexcept nogil:
    """Nothing for other images than libgcc_s; again does no harm."""
    cdef const Rela* rela = NULL
    cdef const Rela* jmprel = NULL
    cdef uint64_t rela_size = 0
    cdef uint64_t jmprel_size = 0
    cdef uint32_t i
    if image.soname == NULL or strcmp(image.soname, b"libgcc_s.so.1") != 0:
        return
    for i in range(image.dynamic_count):     # the host has made these addresses absolute
        if image.dynamic[i].d_tag == DT_RELA:
            rela = <const Rela*>image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_RELASZ:
            rela_size = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_JMPREL:
            jmprel = <const Rela*>image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_PLTRELSZ:
            jmprel_size = image.dynamic[i].d_val
    if rela != NULL:
        rebind_table(linker, image, rela, rela_size // sizeof(Rela))
    if jmprel != NULL:
        rebind_table(linker, image, jmprel, jmprel_size // sizeof(Rela))
