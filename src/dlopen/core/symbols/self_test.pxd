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
from dlopen.core.image.registry cimport SymbolEntry, SymbolIndex
from dlopen.core.symbols.index cimport find_word, note_steps, place_of
from dlopen.core.symbols.lookup cimport is_defined, is_export, list_in_scope, symbol_version
from dlopen.core.symbols.scopes cimport Scopes, add_steps


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
    const Pointers* images, const SymbolIndex* index, const Image* image, uint32_t word,
    size_t* asked, bint* reached
) noexcept nogil:
    """One of them may define such a name, up to the image itself: `reached`, if it is there. Those
    that the index covers are not asked."""
    cdef const SymbolEntry* entry
    cdef const Image* other
    cdef size_t i
    cdef size_t start = 0
    asked[0] = 0
    if index != NULL:
        start = index.count
        entry = find_word(index, word)
        if entry != NULL:
            reached[0] = pointer_at(images, place_of(index, entry.number)) == image
            return not reached[0]
    for i in range(start, images.count):
        other = <const Image*>pointer_at(images, i)
        if other == image:
            reached[0] = True
            return False
        asked[0] += 1
        if may_define_like(other, word):
            return True
    return False


cdef inline bint is_first_in_list(
    const Scopes* scopes, const Image* image, uint32_t word
) noexcept nogil:
    """Of its first search list."""
    cdef const SearchList* list = list_in_scope(
        <SearchList**>load_pointer(&image.scope.lists), 0
    )
    cdef bint reached = False
    cdef bint comes_first
    cdef bint is_searched
    cdef size_t asked
    if list == NULL:
        return False
    is_searched = scopes.searched != NULL and scopes.searched.images == &list.images
    comes_first = not may_come_first(
        &list.images, scopes.searched.index if is_searched else NULL, image, word, &asked, &reached
    ) and reached
    if is_searched and asked != 0:
        note_steps(scopes.searched, asked)
    return comes_first


cdef inline bint binds_to_itself(
    const Scopes* scopes, const Image* image, uint32_t index, const Sym* symbol
) noexcept nogil:
    """What is found for the image's own symbol is that symbol, whatever its name is. False: it is
    to be looked for. One that is unique in the process is looked for in any case."""
    cdef bint reached = False
    cdef bint comes_later
    cdef uint32_t word
    cdef size_t asked
    if image.scope.is_own_first or image.scope.is_exact or scopes.is_part \
            or scopes.process.count != 0 or symbol_binding(symbol) == STB_GNU_UNIQUE \
            or not finds_itself(image, index, symbol, True) \
            or (image.tables.has_verdef and symbol_version(image, index) == NULL):
        return False
    if image.tables.is_symbolic and not image.scope.deepbind:
        return True
    word = image.tables.chains[index - image.tables.symbol_offset]
    if image.scope.deepbind:
        return is_first_in_list(scopes, image, word)
    comes_later = may_come_first(
        &scopes.globals, scopes.global_index, image, word, &asked, &reached
    )
    add_steps(scopes.global_steps, asked)
    return not comes_later and (reached or is_first_in_list(scopes, image, word))
