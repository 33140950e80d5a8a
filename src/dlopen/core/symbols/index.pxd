"""An index of what the images of a list define: which of them is the first to have a chain word.

A search of a list asks one image after the other, and few of them define the name. The index leads
to the first that has the word of DT_GNU_HASH (the name's hash without its lowest bit), and to its
symbol. That one is asked as any other is, and if it is not meant, because the names or versions
differ or others may not see it, the search goes on behind it one by one. So the answer
is always that of the search without an index, and a name that hundreds define takes one entry.

It is made where a list has been searched so often that it would have paid already: what is searched
rarely costs no memory, and no more than twice the time is ever lost. For the search list of an open
it is made at once where the relocations that are to come are enough for that. No name is read for
it, but of images that have DT_HASH only.

An entry has 8 bytes, and there is room for two for each symbol in the list, in huge pages where
that is half a megabyte or more: with 12,000 libraries of twenty symbols each in the global scope
4 MB. Symbols are numbered through the list.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport allocate_table, release
from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.growable cimport Pointers, pointer_at
from dlopen.core.base.words cimport smaller
from dlopen.core.elf.constants cimport DT_RELACOUNT
from dlopen.core.elf.hash cimport gnu_hash
from dlopen.core.elf.structures cimport Sym
from dlopen.core.image.image cimport (
    Image, Tables, chains_end, is_being_linked, symbol_count,
)
from dlopen.core.image.registry cimport SymbolEntry, SymbolIndex
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, is_export, lookup_from, lookup_in_chain, symbol_name,
)


cdef extern from *:
    void prefetch "__builtin_prefetch"(const void* address) noexcept nogil


cdef enum:
    WORD_USED = 0x80000000       # SymbolEntry.word: not empty
    AHEAD = 12                   # so many words before it is looked at, a slot is asked for
    # The least a list must have been searched for each of its symbols: that many images asked
    # cost as much as an entry.
    STEPS_FOR_SYMBOL = 2
    MOST_WORDS = 0x40000000
    SHORT_LIST = 8               # to ask so few costs less than the pages of an index


cdef inline uint64_t word_count(const Image* image) noexcept nogil:
    """How many entries the image may take."""
    cdef uint64_t end
    if image.tables.buckets == NULL:
        return symbol_count(image)
    end = chains_end(image)
    return end - image.tables.symbol_offset if end > image.tables.symbol_offset else 0


cdef inline bint is_left_out(const Image* image, bint after_start) noexcept nogil:
    """Of a list that is searched after what the process was started with: a name that comes so far
    is none of libc's, which nearly every list holds."""
    return after_start and image.host.is_startup and load_u32(&image.life.is_global)


cdef inline uint64_t words_of(
    const Pointers* images, size_t count, bint after_start
) noexcept nogil:
    """How many entries an index of the first so many may take."""
    cdef const Image* image
    cdef uint64_t total = 0
    cdef size_t i
    for i in range(count):
        image = <const Image*>pointer_at(images, i)
        if not is_left_out(image, after_start):
            total += word_count(image)
    return total


cdef inline SymbolEntry* first_slot(const SymbolIndex* index, uint32_t word) noexcept nogil:
    # The multiplier is 2**32 over the golden ratio (Knuth, 6.4).
    cdef uint64_t slots = <uint64_t>(index.end - index.entries)
    return &index.entries[<uint64_t><uint32_t>(word * 0x9e3779b1U) * slots >> 32]


cdef inline void prefetch_word(const SymbolIndex* index, uint32_t hash) noexcept nogil:
    """Where `find_word` will begin."""
    prefetch(first_slot(index, (hash >> 1) | WORD_USED))


cdef inline size_t place_of(const SymbolIndex* index, uint32_t number) noexcept nogil:
    """In the list, of the image that has the symbol: the last whose first one is not above it."""
    cdef size_t low = 0
    cdef size_t high = index.count
    cdef size_t middle
    while high - low > 1:
        middle = (low + high) // 2
        if index.numbers[middle] <= number:
            low = middle
        else:
            high = middle
    return low


cdef inline const SymbolEntry* find_word(const SymbolIndex* index, uint32_t hash) noexcept nogil:
    """Of the first image that has it; NULL: none."""
    cdef uint32_t word = (hash >> 1) | WORD_USED
    cdef SymbolEntry* entry = first_slot(index, word)
    # At least half of them are empty.
    while entry.word != word:
        if entry.word == 0:
            return NULL
        entry += 1
        if entry == index.end:
            entry = index.entries
    return entry


cdef inline void add_word(SymbolIndex* index, uint32_t hash, uint32_t number) noexcept nogil:
    """Unless an earlier image, or an earlier symbol of this one, has it."""
    cdef uint32_t word = (hash >> 1) | WORD_USED
    cdef SymbolEntry* entry = first_slot(index, word)
    while entry.word != word:
        if entry.word == 0:
            entry.word = word
            entry.number = number
            return
        entry += 1
        if entry == index.end:
            entry = index.entries


cdef inline void add_words(SymbolIndex* index, const Image* image, size_t place) noexcept nogil:
    """Of all that the image's hash table leads to."""
    cdef const Tables* tables = &image.tables
    cdef uint32_t first = index.numbers[place]
    cdef uint32_t count = index.numbers[place + 1] - first
    cdef const char* name
    cdef uint32_t i
    if tables.buckets == NULL:
        for i in range(count):
            name = symbol_name(image, &tables.symtab[i])
            if name != NULL and is_export(&tables.symtab[i]):
                add_word(index, gnu_hash(name), first + i)
        return
    for i in range(count):
        if i + AHEAD < count:
            prefetch_word(index, tables.chains[i + AHEAD])
        add_word(index, tables.chains[i], first + i)


cdef inline SymbolIndex* make_index(
    const Pointers* images, size_t count, uint64_t words, bint after_start
) noexcept nogil:
    """Of the first `count` images, which have at most so many words (`words_of`); NULL without
    memory, and where they have 2**30."""
    cdef SymbolIndex* index
    cdef const Image* image
    cdef uint64_t slots = 2 * words + 1
    cdef size_t i
    if words >= MOST_WORDS:
        return NULL
    index = <SymbolIndex*>allocate_table(
        sizeof(SymbolIndex) + slots * sizeof(SymbolEntry) + (count + 1) * sizeof(uint32_t)
    )
    if index == NULL:
        return NULL
    index.entries = <SymbolEntry*>(<char*>index + sizeof(SymbolIndex))
    index.end = index.entries + slots
    index.numbers = <uint32_t*>index.end
    index.count = count
    for i in range(count):
        image = <const Image*>pointer_at(images, i)
        index.numbers[i + 1] = index.numbers[i]
        if not is_left_out(image, after_start):
            index.numbers[i + 1] += <uint32_t>word_count(image)
            if index.numbers[i + 1] > words:
                release(index)
                return NULL
            add_words(index, image, i)
    return index


cdef inline bint lookup_in_index(
    const SymbolIndex* index, const Pointers* images, Reference* reference, const Image* skip,
    Definition* definition
) noexcept nogil:
    """As lookup_in_list, of the images that the index was made of."""
    cdef const SymbolEntry* entry = find_word(index, reference.hash)
    cdef Image* image
    cdef const Sym* symbol
    cdef uint32_t number = 0
    cdef size_t place
    if entry == NULL:
        return False
    place = place_of(index, entry.number)
    image = <Image*>pointer_at(images, place)
    if image != skip and image != reference.home and image.tables.buckets != NULL:
        symbol = lookup_in_chain(
            image, <uint64_t>image.tables.symbol_offset + entry.number - index.numbers[place],
            reference, &number
        )
        if symbol != NULL and is_export(symbol):
            definition.image = image
            definition.symbol = symbol
            definition.index = number
            return True
    # Also in this image: the word stands for two hashes, each with a chain of its own.
    return lookup_from(images, &place, index.count, reference, skip, definition)


cdef struct SearchedList:        # one that is searched often, and its index once that pays
    const Pointers* images
    bint after_start             # what the process was started with was searched before it
    uint64_t steps               # how many of its images were asked one by one
    uint64_t words               # of all of them; 0: not counted yet
    SymbolIndex* index           # owned; NULL: none yet
    bint failed                  # no memory for it


cdef inline void note_steps(SearchedList* list, size_t steps) noexcept nogil:
    """It was searched without index: from now on with one, if that has cost as much by now."""
    list.steps += steps
    # Each image has a symbol or two.
    if list.images.count < SHORT_LIST or list.failed \
            or list.steps < STEPS_FOR_SYMBOL * list.images.count:
        return
    if list.words == 0:
        list.words = words_of(list.images, list.images.count, list.after_start) + 1
    if list.steps < STEPS_FOR_SYMBOL * list.words:
        return
    list.index = make_index(list.images, list.images.count, list.words, list.after_start)
    list.failed = list.index == NULL


cdef inline uint64_t lookups_of(const Image* image, bint lazy) noexcept nogil:
    """About how many its relocations make: of those of the PLT one for each, of others two in one,
    as they stand in order."""
    cdef uint64_t relative = 0   # it is believed: nothing but time depends on it
    cdef uint32_t i
    for i in range(image.tables.dynamic_count):
        if image.tables.dynamic[i].d_tag == DT_RELACOUNT:
            relative = smaller(image.tables.dynamic[i].d_val, image.tables.rela_count)
    return (image.tables.rela_count - relative) // 2 + (0 if lazy else image.tables.jmprel_count)


cdef inline void expect_lookups(SearchedList* list, bint lazy) noexcept nogil:
    """Those of new images. Most end at the image itself; the others at one that comes later in the
    list, or in the global scope before."""
    cdef const Image* image
    cdef uint64_t steps = 0
    cdef size_t i
    if list.images.count < SHORT_LIST:
        return
    for i in range(list.images.count):
        image = <const Image*>pointer_at(list.images, i)
        if not image.is_host and is_being_linked(image):
            steps += lookups_of(image, lazy) * (i + list.images.count // 4)
    note_steps(list, steps)
    list.steps = 0


cdef inline bint lookup_in_searched(
    SearchedList* list, Reference* reference, const Image* skip, Definition* definition
) noexcept nogil:
    """As lookup_in_list."""
    cdef bint found
    cdef size_t place = 0
    if list.index != NULL:
        return lookup_in_index(list.index, list.images, reference, skip, definition)
    found = lookup_from(list.images, &place, list.images.count, reference, skip, definition)
    note_steps(list, place)
    return found


cdef inline void free_searched(SearchedList* list) noexcept nogil:
    release(list.index)
    list.index = NULL
    list.images = NULL
