"""A hash table of images that readers look into without a lock: open addressing, linear probing.

Written under Registry.lock. An image is under a key of 64 bits, of which several may have the same:
who looks compares what the key was made of, and that again under the lock if it matters. An entry
that is taken out becomes free where no search goes past it; else it is marked until the table is
made anew. Room is reserved before an open or a close has done anything that cannot be undone: then
adding and removing cannot fail. A table that was too small is retired.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.atomics cimport load_pointer, load_u64, store_pointer, store_u64
from dlopen.core.image.image cimport Image, Retired
from dlopen.core.image.retirement cimport Retirement, retire


cdef enum:
    SMALLEST_INDEX = 64          # entries


cdef struct IndexEntry:
    uint64_t key                 # atomic; of a former image where one is looked at meanwhile
    Image* image                 # atomic; NULL: free


cdef struct IndexTable:
    Retired retired              # first: `reclaim_alone` tells a block by that
    size_t mask                  # the count of entries, less 1
    IndexEntry entries[0]


cdef struct Index:
    IndexTable* table            # owned; read with load_pointer
    size_t count                 # of images that are in it
    size_t used                  # entries that are not free: at most half of them


cdef struct IndexSearch:         # for one key
    uint64_t key
    const IndexTable* table
    size_t slot                  # that is looked at next


cdef inline Image* removed_mark() noexcept nogil:
    """Stands where an image was taken out. No image is there."""
    return <Image*>1


cdef inline size_t first_slot(const IndexTable* table, uint64_t key) noexcept nogil:
    # 2**64 over the golden ratio (Knuth, 6.4).
    return <size_t>((key * <uint64_t>0x9e3779b97f4a7c15) >> 32) & table.mask


cdef inline void begin_search(const Index* index, uint64_t key, IndexSearch* search) noexcept nogil:
    """In a reader section, or under the lock."""
    search.key = key
    search.table = <const IndexTable*>load_pointer(&index.table)
    search.slot = 0 if search.table == NULL else first_slot(search.table, key)


cdef inline Image* next_found(IndexSearch* search) noexcept nogil:
    """An image that is, or was, under the key; NULL after the last one."""
    cdef const IndexEntry* entry
    cdef Image* image
    if search.table == NULL:
        return NULL
    while True:
        entry = &search.table.entries[search.slot]
        image = <Image*>load_pointer(&entry.image)
        if image == NULL:
            return NULL
        search.slot = (search.slot + 1) & search.table.mask
        if image != removed_mark() and load_u64(&entry.key) == search.key:
            return image


cdef inline void put_in_table(IndexTable* table, uint64_t key, Image* image) noexcept nogil:
    """In the free slot that ends the search for its key."""
    cdef size_t slot = first_slot(table, key)
    while table.entries[slot].image != NULL:
        slot = (slot + 1) & table.mask
    store_u64(&table.entries[slot].key, key)
    store_pointer(&table.entries[slot].image, image)


cdef inline bint index_reserve(Index* index, Retirement* retirement, size_t more) noexcept nogil:
    """Under the lock: so many can be added now. False without memory."""
    cdef IndexTable* old = index.table
    cdef IndexTable* table
    cdef size_t slots = SMALLEST_INDEX
    cdef size_t i
    if old != NULL and 2 * (index.used + more) <= old.mask:
        return True
    while slots < 3 * (index.count + more):
        slots *= 2
    table = <IndexTable*>allocate(sizeof(IndexTable) + slots * sizeof(IndexEntry))
    if table == NULL:
        return False
    table.mask = slots - 1
    for i in range(old.mask + 1 if old != NULL else 0):
        if old.entries[i].image != NULL and old.entries[i].image != removed_mark():
            put_in_table(table, old.entries[i].key, old.entries[i].image)
    index.used = index.count
    store_pointer(&index.table, table)
    if old != NULL:
        old.retired.block = old
        retire(retirement, &old.retired)
    return True


cdef inline void index_add(Index* index, uint64_t key, Image* image) noexcept nogil:
    """Under the lock; there is room."""
    put_in_table(index.table, key, image)
    index.count += 1
    index.used += 1


cdef inline void index_remove(Index* index, uint64_t key, const Image* image) noexcept nogil:
    """Under the lock: once, if it is there."""
    cdef IndexTable* table = index.table
    cdef size_t slot
    if table == NULL:
        return
    slot = first_slot(table, key)
    while <const Image*>table.entries[slot].image != image or table.entries[slot].key != key:
        if table.entries[slot].image == NULL:
            return
        slot = (slot + 1) & table.mask
    index.count -= 1
    if table.entries[(slot + 1) & table.mask].image != NULL:
        store_pointer(&table.entries[slot].image, removed_mark())
        return
    # The search for any key that came here would end at the next slot.
    while True:
        store_pointer(&table.entries[slot].image, NULL)
        index.used -= 1
        slot = (slot - 1) & table.mask
        if table.entries[slot].image != removed_mark():
            return
