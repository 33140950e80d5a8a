"""Which of the host's late globals define anything that the new images ask for.

One that the host may unload is counted before it is searched, and libc finds it by comparing names:
with many of them that is most of a small open. So the hashes of all names are looked for under the
host's lock, where nothing is unloaded, and who has none of them is left out of the scope: nothing
would be found there.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_hold
from dlopen.core.base.log cimport LOG_DEBUG, logs
from dlopen.core.base.words cimport smaller
from dlopen.core.elf.hash cimport gnu_hash
from dlopen.core.host.abi cimport HostInfo
from dlopen.core.host.iterate cimport iterate_hosts
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.image.snapshot cimport global_at
from dlopen.core.opening.transaction cimport Transaction
from dlopen.core.relocation.words cimport Word, WordWalk, next_word, words_of
from dlopen.core.symbols.lookup cimport may_have_hash, symbol_name


cdef enum:
    NAMES_FOR_IMAGE = 32         # to hash and look for so many costs as much as one count
    MOST_NAMES = 512


cdef struct Sought:
    const Snapshot* snapshot
    uint32_t* hashes             # owned
    size_t count
    size_t limit
    Pointers* definers           # Image*: who may define one of them
    bint is_current              # `snapshot` is what the host has
    bint failed


cdef inline bint is_late(const Image* image) noexcept nogil:
    """It may go when the host likes."""
    return image.is_host and not image.host.is_startup


cdef inline bint add_names_of(Sought* sought, const Image* image) noexcept nogil:
    """Of its relocations; False: they are too many."""
    cdef WordWalk walk = words_of(image, True)
    cdef Word word
    cdef uint32_t last = 0       # of several words for one symbol, most stand together
    while next_word(&walk, &word):
        if word.symbol == last:
            continue
        if sought.count == sought.limit:
            return False
        last = word.symbol
        sought.hashes[sought.count] = gnu_hash(symbol_name(image, &image.tables.symtab[last]))
        sought.count += 1
    return True


cdef inline bint may_define_any(const Sought* sought, const Image* image) noexcept nogil:
    cdef size_t i
    for i in range(sought.count):
        if may_have_hash(image, sought.hashes[i]):
            return True
    return False


cdef inline int ask_late_globals(HostInfo* info, size_t size, void* data) noexcept nogil:
    """A PhdrVisitor, for one call: while it lasts all of the snapshot are there."""
    cdef Sought* sought = <Sought*>data
    cdef Image* image
    cdef size_t i
    sought.is_current = info.dlpi_adds == sought.snapshot.host_adds \
        and info.dlpi_subs == sought.snapshot.host_subs
    for i in range(sought.snapshot.global_count if sought.is_current else 0):
        image = global_at(sought.snapshot, i)
        if is_late(image) and may_define_any(sought, image) \
                and not pointers_add(sought.definers, image):
            sought.failed = True
    return 1


cdef inline bint find_definers(Transaction* transaction, const Snapshot* snapshot) noexcept nogil:
    """Transaction.definers, if that costs less than to count all late globals. They are all counted
    for the log, which shows the scope. False without memory."""
    cdef Sought sought
    cdef size_t i
    cdef bint pays
    memset(&sought, 0, sizeof(sought))
    for i in range(snapshot.global_count):
        sought.limit += is_late(global_at(snapshot, i))
    if sought.limit == 0 or logs(LOG_DEBUG):
        return True
    sought.limit = smaller(sought.limit * NAMES_FOR_IMAGE, MOST_NAMES)
    sought.hashes = <uint32_t*>allocate(sought.limit * sizeof(uint32_t))
    sought.snapshot = snapshot
    sought.definers = &transaction.definers
    pays = sought.hashes != NULL
    for i in range(transaction.loaded.count):
        pays = pays and add_names_of(&sought, <const Image*>transaction.loaded.items[i])
    if pays:
        iterate_hosts(transaction.linker, ask_late_globals, &sought)
        transaction.knows_definers = sought.is_current
    release(sought.hashes)
    return not sought.failed


cdef inline bint defines_nothing(const Transaction* transaction, const Image* image) noexcept nogil:
    """One that need not be searched."""
    return transaction.knows_definers and is_late(image) \
        and not pointers_hold(&transaction.definers, image)
