"""Whether libc finds an image of the host's in the global scope, which it says of none.

dlsym is asked for a name that the image exports, a *probe*, by the program's handle: that searches
the global scope, and unlike RTLD_DEFAULT it does not make libdlopen.so a user of what is found,
which would keep it. Found in the image, it is global; not found at all, it is not. Where another
one stands before it the next name is asked for; if that is so for all of its names, nobody would
find anything in it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport copy_text
from dlopen.core.base.strings cimport strlen
from dlopen.core.elf.constants cimport SHN_UNDEF, STT_FUNC, STT_OBJECT, VERSYM_HIDDEN
from dlopen.core.elf.structures cimport Sym, symbol_type
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.host_lock cimport enter_host, leave_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, Tables, symbol_count
from dlopen.core.symbols.lookup cimport is_export, symbol_name


cdef inline const char* probe_at(const Image* image, uint64_t index) noexcept nogil:
    """The name of this symbol, if dlsym would give its address; or NULL."""
    cdef const Sym* symbol = &image.tables.symtab[index]
    if symbol.st_shndx == SHN_UNDEF or symbol.st_value == 0 or not is_export(symbol) or (
        symbol_type(symbol) != STT_FUNC and symbol_type(symbol) != STT_OBJECT
    ) or (image.tables.versym != NULL and image.tables.versym[index] & VERSYM_HIDDEN):
        return NULL
    return symbol_name(image, symbol)


cdef inline const char* pick_probe(const Image* image) noexcept nogil:
    """Any. By the buckets of DT_GNU_HASH: to count its symbols all of these would be read."""
    cdef const Tables* tables = &image.tables
    cdef const char* name = NULL
    cdef uint64_t i
    cdef uint32_t bucket
    for bucket in range(tables.bucket_count if tables.buckets != NULL else 0):
        i = tables.buckets[bucket]
        while name == NULL and tables.symbol_offset <= i < tables.chain_limit:
            name = probe_at(image, i)
            if tables.chains[i - tables.symbol_offset] & 1U:
                break
            i += 1
        if name != NULL:
            return name
    for i in range(symbol_count(image) if tables.buckets == NULL else 0):
        name = probe_at(image, i)
        if name != NULL:
            return name
    return NULL


cdef inline bint keep_probe(Image* image) noexcept nogil:
    """Of one that comes late and is new. Under the host's lock; False without memory."""
    cdef const char* probe = pick_probe(image)
    if probe == NULL:
        return True
    image.host.probe = copy_text(probe, strlen(probe))
    return image.host.probe != NULL


cdef enum Finding:
    IN_THE_IMAGE
    IN_ANOTHER
    NOWHERE


cdef inline Finding find_in_scope(
    Linker* linker, void* program, const Image* image, const char* name
) noexcept nogil:
    """Where the program's handle finds the name."""
    cdef uint64_t address
    enter_host(&linker.host_use)
    address = <uint64_t>linker.host.dlsym(program, name)
    if address == 0:
        linker.host.dlerror()
    leave_host(&linker.host_use)
    if address == 0:
        return NOWHERE
    return IN_THE_IMAGE if image.map_start <= address < image.map_end else IN_ANOTHER


cdef inline bint is_in_scope(Linker* linker, void* program, Image* image) noexcept nogil:
    """With no lock held; False, too, if it has gone."""
    cdef const char* probe = image.host.probe
    cdef Finding finding = NOWHERE
    cdef void* borrowed
    cdef uint64_t i
    if probe != NULL:
        finding = find_in_scope(linker, program, image, probe)
    if finding != IN_ANOTHER:
        return finding == IN_THE_IMAGE
    borrowed = borrow_host_image(linker, image)
    if borrowed == NULL:
        return False
    for i in range(symbol_count(image)):
        probe = probe_at(image, i)
        if probe != NULL:
            finding = find_in_scope(linker, program, image, probe)
        if finding != IN_ANOTHER:
            break
    give_back_host_image(linker, image, borrowed)
    return finding == IN_THE_IMAGE
