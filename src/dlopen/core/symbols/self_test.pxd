"""The self test: most references of a library to a name that it defines mean its own definition,
and that can be known without the name.

The chain word of DT_GNU_HASH beside a definition is the hash of its name, but for the lowest bit.
Whoever comes earlier in the scope and defines the name has a word in a chain of his own that is the
same; mostly his Bloom filter says that he has none. If nobody has, the search ends at the image
itself: nothing is hashed, and no name is read. Where somebody has, or the order is not the plain
one, the search itself decides.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.atomics cimport load_pointer
from dlopen.core.base.growable cimport Pointers, pointer_at
from dlopen.core.elf.constants cimport SHN_UNDEF, STB_GNU_UNIQUE
from dlopen.core.elf.structures cimport Sym, symbol_binding
from dlopen.core.image.image cimport Image, SearchList, Tables
from dlopen.core.symbols.lookup cimport is_defined, is_export, list_in_scope, symbol_version
from dlopen.core.symbols.scopes cimport Scopes


cdef inline bint finds_itself(
    const Image* image, uint32_t index, const Sym* symbol, bint has_version
) noexcept nogil:
    """A search of the image for a definition's own name and version ends at the definition:
    it is in the hash table, and no other one of the name can match."""
    return image.tables.buckets != NULL \
        and index >= image.tables.symbol_offset and index < image.tables.chain_limit \
        and (has_version or not image.tables.has_verdef) \
        and symbol.st_shndx != SHN_UNDEF and is_defined(symbol, False) and is_export(symbol)


cdef inline bint is_in_chain(const Tables* tables, uint32_t hash) noexcept nogil:
    """A word of the chain for it is the same, but for the lowest bit."""
    cdef uint64_t i = tables.buckets[hash % tables.bucket_count]
    cdef uint32_t word
    if i < tables.symbol_offset:
        return False
    while i < tables.chain_limit:
        word = tables.chains[i - tables.symbol_offset]
        if (word ^ hash) >> 1 == 0:
            return True
        if word & 1U:
            return False
        i += 1
    return False


cdef inline bint may_define_like(const Image* image, uint32_t word) noexcept nogil:
    """It may define a name whose chain word this is: of both hashes that the word stands for, which
    differ in the lowest bit, the filter and then the chains are asked."""
    cdef const Tables* tables = &image.tables
    cdef uint64_t bits
    cdef uint64_t pair = <uint64_t>3 << (word & 62U)
    if tables.buckets == NULL:
        return tables.sysv_bucket_count != 0
    bits = tables.bloom[(word >> 6) & tables.bloom_mask]
    # Shifted by none, the filter's second bit is the first one again.
    if bits & pair == 0:
        return False
    if tables.bloom_shift != 0 and (
        (bits >> ((<uint64_t>word >> tables.bloom_shift) & 63U)) & 1U
    ) == 0:
        return False
    return is_in_chain(tables, word) or is_in_chain(tables, word ^ 1U)


cdef inline bint may_come_first(
    const Pointers* images, const Image* image, uint32_t word, bint* reached
) noexcept nogil:
    """One of them may define such a name, up to the image itself: `reached`, if it is there."""
    cdef const Image* other
    cdef size_t i
    for i in range(images.count):
        other = <const Image*>pointer_at(images, i)
        if other == image:
            reached[0] = True
            return False
        if may_define_like(other, word):
            return True
    return False


cdef inline bint binds_to_itself(
    const Scopes* scopes, const Image* image, uint32_t index, const Sym* symbol
) noexcept nogil:
    """What is found for the image's own symbol is that symbol, whatever its name is. False: it is
    to be looked for. One that is unique in the process is looked for in any case."""
    cdef const SearchList* list
    cdef bint reached = False
    cdef uint32_t word
    if image.scope.is_own_first or image.scope.is_exact or scopes.is_part \
            or scopes.process.count != 0 or symbol_binding(symbol) == STB_GNU_UNIQUE \
            or not finds_itself(image, index, symbol, True) \
            or (image.tables.has_verdef and symbol_version(image, index) == NULL):
        return False
    if image.tables.is_symbolic and not image.scope.deepbind:
        return True
    word = image.tables.chains[index - image.tables.symbol_offset]
    if not image.scope.deepbind and may_come_first(&scopes.globals, image, word, &reached):
        return False
    if reached:
        return True
    list = list_in_scope(<SearchList**>load_pointer(&image.scope.lists), 0)
    return list != NULL and not may_come_first(&list.images, image, word, &reached) and reached
