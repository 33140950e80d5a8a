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
from dlopen.core.host.iterate cimport Collection
from dlopen.core.image.image cimport Image, Tables, symbol_count
from dlopen.core.symbols.lookup cimport Reference, is_export, lookup_in_image, refer, symbol_name


cdef inline const char* probe_at(
    const Pointers* images, size_t place, uint64_t index
) noexcept nogil:
    """The name of this symbol of the image there, if it is exported and none before the image
    defines it; or NULL."""
    cdef const Image* image = <const Image*>images.items[place]
    cdef const Sym* symbol = &image.tables.symtab[index]
    cdef size_t other
    cdef Reference reference
    cdef uint32_t found = 0
    if symbol.st_shndx == SHN_UNDEF or symbol.st_value == 0 or not is_export(symbol) or (
        symbol_type(symbol) != STT_FUNC and symbol_type(symbol) != STT_OBJECT
    ) or (image.tables.versym != NULL and image.tables.versym[index] & VERSYM_HIDDEN):
        return NULL
    refer(&reference, symbol_name(image, symbol), NULL)
    for other in range(place):
        if lookup_in_image(<Image*>images.items[other], &reference, &found) != NULL:
            return NULL
    return reference.name


cdef inline const char* pick_probe(const Pointers* images, size_t place) noexcept nogil:
    """An exported name of the image there that none before it defines. By the buckets of
    DT_GNU_HASH: to count its symbols all of these would be read."""
    cdef const Image* image = <const Image*>images.items[place]
    cdef const Tables* tables = &image.tables
    cdef const char* name = NULL
    cdef uint64_t i
    cdef uint32_t bucket
    for bucket in range(tables.bucket_count if tables.buckets != NULL else 0):
        i = tables.buckets[bucket]
        while name == NULL and tables.symbol_offset <= i < tables.chain_limit:
            name = probe_at(images, place, i)
            if tables.chains[i - tables.symbol_offset] & 1U:
                break
            i += 1
        if name != NULL:
            break
    for i in range(symbol_count(image) if tables.buckets == NULL else 0):
        name = probe_at(images, place, i)
        if name != NULL:
            break
    return name


cdef inline bint pick_probes(Collection* collection) noexcept nogil:
    """Of those that came late and are new. Under the host's lock, when all are collected. False
    without memory."""
    cdef size_t i
    cdef Image* image
    cdef const char* probe
    for i in range(collection.images.count):
        image = <Image*>collection.images.items[i]
        if image.host.is_startup or image.host.has_probe:
            continue
        probe = pick_probe(&collection.images, i)
        image.host.has_probe = True
        if probe != NULL:
            image.host.probe = copy_text(probe, strlen(probe))
            if image.host.probe == NULL:
                return False
    return True
