"""STB_GNU_UNIQUE: what C++ has once in a program, whatever file it is compiled into.

Compilers give this binding to inline variables, static members of templates and local
statics of inline functions. Where the scopes lead a reference to such a definition, it
binds to the first one of that name that anything bound to, RTLD_LOCAL or not; versions
are not compared (glibc's do_lookup_unique). The host keeps its own table of that: it
is asked; this one holds definitions of our images, which each namespace has its own of.
Private images take no part.

Written under Registry.lock, read in a reader section without it: an entry that was
taken out still leads on to the next, and is freed with the image that it lies in.
"""

from libc.stdint cimport int64_t, uint32_t

from dlopen.core.base.atomics cimport load_pointer, store_pointer
from dlopen.core.base.strings cimport strcmp
from dlopen.core.image.image cimport Unique
from dlopen.core.symbols.lookup cimport Definition, Reference, symbol_name


cdef enum:
    UNIQUE_CHAINS = 2048         # a power of two


cdef struct UniqueTable:
    Unique* chains[UNIQUE_CHAINS]
    uint32_t additions           # how many there were: whether a reader's look is still good


cdef inline Unique* find_unique(
    const UniqueTable* table, int64_t namespace_id, const Reference* reference
) noexcept nogil:
    """The definition of this name in the namespace, or NULL. In a reader section or under the
    lock."""
    cdef Unique* entry = <Unique*>load_pointer(
        &table.chains[reference.hash & (UNIQUE_CHAINS - 1)]
    )
    while entry != NULL and not (
        entry.hash == reference.hash and entry.image.namespace_id == namespace_id
        and strcmp(symbol_name(entry.image, entry.symbol), reference.name) == 0
    ):
        entry = <Unique*>load_pointer(&entry.next)
    return entry


cdef inline void add_unique(UniqueTable* table, Unique* entry) noexcept nogil:
    """Of a name that the table does not have for this namespace."""
    cdef Unique** chain = &table.chains[entry.hash & (UNIQUE_CHAINS - 1)]
    entry.next = chain[0]
    store_pointer(chain, entry)
    table.additions += 1


cdef inline void remove_unique(UniqueTable* table, const Unique* entry) noexcept nogil:
    """Under the lock. Readers may be at it: it still leads on."""
    cdef Unique** link = &table.chains[entry.hash & (UNIQUE_CHAINS - 1)]
    while link[0] != NULL and link[0] != entry:
        link = &link[0].next
    if link[0] != NULL:
        store_pointer(link, entry.next)


cdef inline void take_unique(const Unique* entry, Definition* definition) noexcept nogil:
    """The definition becomes the table's."""
    definition.image = entry.image
    definition.symbol = entry.symbol
    definition.index = entry.index


cdef inline void fill_unique(
    Unique* entry, const Reference* reference, const Definition* definition
) noexcept nogil:
    """An entry that is in no table yet."""
    entry.hash = reference.hash
    entry.image = definition.image
    entry.symbol = definition.symbol
    entry.index = definition.index
