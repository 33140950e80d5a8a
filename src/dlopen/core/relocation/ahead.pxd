"""The memory that the next relocations of an image will need is asked for before they are done.

A reference leads from its symbol to its name, from there to a slot of the index of the search list,
to the symbol of another image and to the name of that: in a large library each of these is a
cache miss, and waits for the one before. Here a block of references takes each of these steps
together, so that their misses overlap. Nothing is decided: what is found is looked up again.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.growable cimport pointer_at
from dlopen.core.base.words cimport smaller
from dlopen.core.elf.constants cimport SHN_UNDEF
from dlopen.core.elf.hash cimport gnu_hash
from dlopen.core.elf.structures cimport Rela, Sym, relocation_symbol
from dlopen.core.image.image cimport Image, Tables
from dlopen.core.image.registry cimport SymbolEntry, SymbolIndex
from dlopen.core.symbols.index cimport (
    SearchedList, find_word, place_of, prefetch, prefetch_word,
)


cdef enum:
    BLOCK = 16                   # entries of a table: about as many misses are under way at once


cdef struct Ahead:               # of the symbols of a block
    uint32_t count
    uint32_t symbols[BLOCK]
    bint is_undefined[BLOCK]
    uint32_t hashes[BLOCK]       # of names of undefined ones
    const Sym* found[BLOCK]      # what the index leads to, and in which image
    const Image* images[BLOCK]


cdef inline void ask_for_symbols(
    Ahead* ahead, const Image* image, const Rela* relocation, uint64_t count
) noexcept nogil:
    """Each once: of several entries for one symbol most stand together."""
    cdef const Tables* tables = &image.tables
    cdef uint32_t last = 0
    cdef uint32_t symbol
    cdef uint64_t i
    ahead.count = 0
    for i in range(count):
        symbol = relocation_symbol(&relocation[i])
        if symbol == last or symbol >= tables.symbol_limit:
            continue
        last = symbol
        ahead.symbols[ahead.count] = symbol
        ahead.count += 1
        prefetch(&tables.symtab[symbol])
        if tables.versym != NULL:
            prefetch(&tables.versym[symbol])
        if is_in_chains(tables, symbol):
            prefetch(&tables.chains[symbol - tables.symbol_offset])


cdef inline bint is_in_chains(const Tables* tables, uint32_t symbol) noexcept nogil:
    return tables.buckets != NULL and symbol >= tables.symbol_offset \
        and symbol < tables.chain_limit


cdef inline void ask_for_names(
    Ahead* ahead, const Image* image, const SymbolIndex* index
) noexcept nogil:
    """Of what is undefined; of the others the chain word says the slot."""
    cdef const Tables* tables = &image.tables
    cdef const Sym* symbol
    cdef uint32_t number
    cdef uint32_t i
    for i in range(ahead.count):
        number = ahead.symbols[i]
        symbol = &tables.symtab[number]
        ahead.is_undefined[i] = symbol.st_shndx == SHN_UNDEF \
            and symbol.st_name < tables.strtab_size
        if ahead.is_undefined[i]:
            prefetch(tables.strtab + symbol.st_name)
        elif is_in_chains(tables, number):
            prefetch_word(index, tables.chains[number - tables.symbol_offset])


cdef inline void ask_for_slots(
    Ahead* ahead, const Image* image, const SymbolIndex* index
) noexcept nogil:
    cdef const Tables* tables = &image.tables
    cdef uint32_t i
    for i in range(ahead.count):
        if ahead.is_undefined[i]:
            ahead.hashes[i] = gnu_hash(tables.strtab + tables.symtab[ahead.symbols[i]].st_name)
            prefetch_word(index, ahead.hashes[i])


cdef inline void ask_for_definitions(
    Ahead* ahead, const SearchedList* list, const SymbolIndex* index
) noexcept nogil:
    """Of the first image that has the word."""
    cdef const Tables* tables
    cdef const SymbolEntry* entry
    cdef size_t place
    cdef uint64_t symbol
    cdef uint32_t i
    for i in range(ahead.count):
        ahead.found[i] = NULL
        if not ahead.is_undefined[i]:
            continue
        entry = find_word(index, ahead.hashes[i])
        if entry == NULL:
            continue
        place = place_of(index, entry.number)
        ahead.images[i] = <const Image*>pointer_at(list.images, place)
        tables = &ahead.images[i].tables
        symbol = entry.number - index.numbers[place]
        if tables.buckets != NULL:
            prefetch(&tables.chains[symbol])
            symbol += tables.symbol_offset
        if symbol < tables.symbol_limit:
            ahead.found[i] = &tables.symtab[symbol]
            prefetch(ahead.found[i])
            if tables.versym != NULL and not ahead.images[i].is_host:
                prefetch(&tables.versym[symbol])


cdef inline void ask_for_their_names(const Ahead* ahead) noexcept nogil:
    cdef uint32_t i
    for i in range(ahead.count):
        if ahead.found[i] != NULL and ahead.found[i].st_name < ahead.images[i].tables.strtab_size:
            prefetch(ahead.images[i].tables.strtab + ahead.found[i].st_name)


cdef inline void look_ahead(
    const SearchedList* list, const Image* image, const Rela* relocation, uint64_t left
) noexcept nogil:
    """At the next entries of a table, which are `left`; `list`: Scopes.searched. Without an index
    a processor overlaps them itself."""
    cdef Ahead ahead
    cdef const SymbolIndex* index = list.index if list != NULL else NULL
    if index == NULL:
        return
    ask_for_symbols(&ahead, image, relocation, smaller(left, BLOCK))
    ask_for_names(&ahead, image, index)
    ask_for_slots(&ahead, image, index)
    ask_for_definitions(&ahead, list, index)
    ask_for_their_names(&ahead)
