"""Which of the host's images are in the global scope.

Those that the process was started with are; what the host opened later may be, from the start or
by a later open of it, and once global is always global. How many there are stands in libc's link
map of the program, whose search list is the global scope. While that number is what we know of,
nobody is asked; else, and where it was not found, each is that came late (host/probes.pxd).

libdlopen.so itself may be in the global scope, too, but not for us: its names are ours anyhow.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32, load_u64, store_u64
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.abi cimport (
    AT_ENTRY, AT_PHDR, AT_PHNUM, RTLD_LAZY, RTLD_NOLOAD, HostDebug, HostInfo, getauxval,
)
from dlopen.core.host.functions cimport find_host_debug
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.iterate cimport holds_linker, iterate_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.probes cimport IN_THE_IMAGE, find_in_scope, is_in_scope, pick_probes
from dlopen.core.image.image cimport Image
from dlopen.core.image.listing cimport is_present
from dlopen.core.image.registry cimport Registry, Snapshot
from dlopen.core.image.snapshot cimport (
    join_globals, list_to_join, make_snapshot, publish_snapshot,
)


cdef enum:
    # Of libc's own link map, which has more: l_phdr is among them.
    FIRST_PRIVATE_WORD = 5
    L_PHDR_LIMIT = 116


cdef inline bint is_counted(const Image* image) noexcept nogil:
    """Known to be in the global scope."""
    return load_u32(&image.life.is_global) != 0


cdef inline const uint32_t* find_global_count(const Pointers* images) noexcept nogil:
    """The r_nlist of the program's l_searchlist, which follows l_phdr, l_entry and l_phnum in its
    link map: these are known from the auxiliary vector (getauxval(3)). NULL: it is not there.
    Under the host's lock; `images` are all of the host's, and those of the start are marked."""
    cdef const HostDebug* debug = find_host_debug()
    cdef const Image* program = <const Image*>images.items[0] if images.count else NULL
    cdef uint64_t phdrs = getauxval(AT_PHDR)
    cdef uint64_t entry = getauxval(AT_ENTRY)
    cdef uint64_t phnum = getauxval(AT_PHNUM)
    cdef const uint64_t* words
    cdef const uint32_t* count
    cdef size_t least = 0
    cdef size_t i
    # In a namespace of the host's the list is another one.
    if debug == NULL or program == NULL or not program.host.is_program \
            or <uint64_t>program.host.phdrs != phdrs:
        return NULL
    for i in range(images.count):
        least += is_counted(<const Image*>images.items[i])
    words = <const uint64_t*>debug.r_map
    for i in range(<size_t>FIRST_PRIVATE_WORD, <size_t>L_PHDR_LIMIT):
        if words[i] == phdrs and words[i + 1] == entry and words[i + 2] & 0xffff == phnum:
            count = <const uint32_t*>&words[i + 4]
            return count if least <= load_u32(count) <= images.count else NULL
    return NULL


cdef struct GlobalSearch:
    Linker* linker
    const Snapshot* known
    Pointers found               # Image*: known to be global now
    size_t counted               # of `known`: in the global scope, as far as we know
    size_t most                  # of `known`: that could be
    uint32_t count               # that libc has there; 0: not known
    bint is_current              # `known` is what the host has
    bint needs_probes
    bint failed


cdef inline int look_at_scope(HostInfo* info, size_t size, void* data) noexcept nogil:
    """A PhdrVisitor, for one call: while it lasts nothing is loaded or unloaded."""
    cdef GlobalSearch* search = <GlobalSearch*>data
    search.is_current = info.dlpi_adds == search.known.host_adds \
        and info.dlpi_subs == search.known.host_subs
    if search.linker.habits.global_count != NULL:
        search.count = load_u32(search.linker.habits.global_count)
    if search.is_current and search.needs_probes:
        search.failed = not pick_probes(search.known)
    return 1


cdef inline bint may_be_new(const GlobalSearch* search, const Image* image) noexcept nogil:
    """Came late, and is not known to be global."""
    return not image.host.is_startup and not is_counted(image) \
        and not holds_linker(search.linker, image)


cdef inline void count_known(GlobalSearch* search) noexcept nogil:
    cdef size_t i
    for i in range(search.known.host_count):
        search.counted += is_counted(search.known.hosts[i])
        search.most += is_counted(search.known.hosts[i]) \
            or may_be_new(search, search.known.hosts[i])


cdef inline size_t linker_counts(GlobalSearch* search, void* program) noexcept nogil:
    """1: libdlopen.so came late, and is in libc's global scope."""
    cdef const Image* image
    cdef size_t i
    for i in range(search.known.host_count):
        image = search.known.hosts[i]
        if holds_linker(search.linker, image):
            return not image.host.is_startup \
                and find_in_scope(search.linker, program, image, b"DLOPEN_open") == IN_THE_IMAGE
    return 0


cdef inline void ask_for_each(GlobalSearch* search, void* program, size_t wanted) noexcept nogil:
    """GlobalSearch.found: until so many are known, if that many are there."""
    cdef Image* image
    cdef size_t i
    for i in range(search.known.host_count):
        image = search.known.hosts[i]
        if search.counted + search.found.count == wanted or search.failed:
            break
        if may_be_new(search, image) and is_in_scope(search.linker, program, image):
            search.failed = not pointers_add(&search.found, image)


cdef inline void take_all(GlobalSearch* search) noexcept nogil:
    """GlobalSearch.found: each that could be."""
    cdef size_t i
    for i in range(search.known.host_count):
        if may_be_new(search, search.known.hosts[i]) and not search.failed:
            search.failed = not pointers_add(&search.found, search.known.hosts[i])


cdef inline void find_new(GlobalSearch* search, void* program) noexcept nogil:
    """GlobalSearch.found, or not with `is_current` or `failed`. No lock may be held."""
    cdef size_t wanted = 0       # of `known`; 0: not known
    iterate_hosts(search.linker, look_at_scope, search)
    if search.count != 0:
        wanted = search.count - linker_counts(search, program)
    if not search.is_current or wanted == search.counted:
        return
    if wanted == search.most:
        take_all(search)
        return
    search.needs_probes = True
    iterate_hosts(search.linker, look_at_scope, search)
    if search.is_current:
        ask_for_each(search, program, wanted)


cdef inline bint join_found(Registry* registry, const Pointers* found) noexcept nogil:
    """What is there still joins the global scope; False without memory, and nothing has."""
    cdef Snapshot* snapshot
    cdef size_t i
    lock_acquire(&registry.lock)
    snapshot = make_snapshot(
        registry, registry.hosts.count, list_to_join(registry, found.count, False)
    )
    if snapshot != NULL:
        for i in range(found.count):
            if is_present(registry, <const Image*>found.items[i]) \
                    and not is_counted(<const Image*>found.items[i]):
                join_globals(snapshot, <Image*>found.items[i])
        publish_snapshot(registry, snapshot)
    lock_release(&registry.lock)
    return snapshot != NULL


cdef enum:                       # of look_for_globals
    GLOBALS_FOUND = 0
    GLOBALS_CHANGE = 1           # the host's images are others by now
    GLOBALS_UNKNOWN = 2          # for want of memory


cdef inline int look_for_globals(Linker* linker, const Snapshot* known) noexcept nogil:
    """The host's images of `known` that are in the global scope are there for us, too, from the
    next snapshot on. No lock may be held."""
    cdef GlobalSearch search
    cdef void* program
    cdef uint64_t asked = 0
    cdef uint32_t count = 0      # as libc has it; 0: not known
    memset(&search, 0, sizeof(search))
    search.linker = linker
    search.known = known
    search.is_current = True
    if linker.habits.global_count != NULL:
        count = load_u32(linker.habits.global_count)
        # What leaves the scope is unloaded, and makes another generation.
        asked = known.host_generation << 32 | count
        if load_u64(&linker.host_use.asked_globals) == asked:
            return GLOBALS_FOUND
    count_known(&search)
    if count == 0 or count != search.counted:
        program = open_host(linker, NULL, RTLD_LAZY | RTLD_NOLOAD)
        if program == NULL:
            return GLOBALS_UNKNOWN
        find_new(&search, program)
        close_host(linker, program)
    search.failed = search.failed \
        or search.found.count != 0 and not join_found(&linker.registry, &search.found)
    pointers_free(&search.found)
    if search.failed:
        return GLOBALS_UNKNOWN
    if not search.is_current:
        return GLOBALS_CHANGE
    store_u64(&linker.host_use.asked_globals, asked)
    return GLOBALS_FOUND
