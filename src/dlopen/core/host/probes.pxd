"""By which name an image of the host's is told from all others: one that it exports, and that none
before it defines.

The host says of no image whether it is in the global scope. It is, if a lookup there for such a
name, a *probe*, ends in it (host/counts.pxd).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport copy_text
from dlopen.core.base.growable cimport Pointers
from dlopen.core.base.strings cimport strlen
from dlopen.core.elf.constants cimport SHN_UNDEF, STT_FUNC, STT_OBJECT, VERSYM_HIDDEN
from dlopen.core.elf.structures cimport Sym, symbol_type
from dlopen.core.host.abi cimport HostInfo
from dlopen.core.host.iterate cimport Collection
from dlopen.core.image.image cimport Image, symbol_count
from dlopen.core.symbols.lookup cimport Reference, is_export, lookup_in_image, refer, symbol_name


cdef inline const char* pick_probe(Collection* collection, Image* image) noexcept nogil:
    """An exported name that no image before this one defines."""
    cdef uint64_t count = symbol_count(image)
    cdef uint64_t i
    cdef size_t other
    cdef const Sym* symbol
    cdef Reference reference
    cdef uint32_t index = 0
    cdef bint unique
    for i in range(count):
        symbol = &image.tables.symtab[i]
        if symbol.st_shndx == SHN_UNDEF or symbol.st_value == 0 or not is_export(symbol) or (
            symbol_type(symbol) != STT_FUNC and symbol_type(symbol) != STT_OBJECT
        ) or (image.tables.versym != NULL and image.tables.versym[i] & VERSYM_HIDDEN):
            continue
        refer(&reference, symbol_name(image, symbol), NULL)
        unique = True
        for other in range(collection.images.count):
            if lookup_in_image(<Image*>collection.images.items[other], &reference, &index) != NULL:
                unique = False
                break
        if unique:
            return reference.name
    return NULL


cdef inline void pick_missing_probes(Collection* collection) noexcept nogil:
    """On the first pass nobody knew yet which images came late. They cannot vanish while
    the caller holds the host's lock, which is why this runs in a last visit."""
    cdef size_t i
    cdef Image* image
    cdef const char* probe
    cdef Pointers before = collection.images
    for i in range(collection.images.count):
        image = <Image*>before.items[i]
        if image.host.is_startup or image.host.probe != NULL:
            continue
        collection.images.count = i
        probe = pick_probe(collection, image)
        collection.images.count = before.count
        if probe != NULL:
            image.host.probe = copy_text(probe, strlen(probe))
            collection.failed = collection.failed or image.host.probe == NULL


cdef inline int visit_for_probes(HostInfo* info, size_t size, void* data) noexcept nogil:
    """A PhdrVisitor, for one call: picks the missing ones if the list still is the one that was
    collected."""
    cdef Collection* collection = <Collection*>data
    if info.dlpi_adds == collection.adds and info.dlpi_subs == collection.subs:
        pick_missing_probes(collection)
    return 1
