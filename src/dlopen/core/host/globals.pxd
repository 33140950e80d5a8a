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

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.abi cimport (
    AT_ENTRY, AT_PHDR, AT_PHNUM, RTLD_LAZY, RTLD_NOLOAD, HostDebug, HostInfo, getauxval,
)
from dlopen.core.host.functions cimport find_host_debug
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.iterate cimport holds_linker, iterate_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.probes cimport IN_THE_IMAGE, find_in_scope, is_in_scope
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
    bint is_current              # `known` is what the host has
    bint failed


cdef inline int compare_counters(HostInfo* info, size_t size, void* data) noexcept nogil:
    """A PhdrVisitor, for one call."""
    cdef GlobalSearch* search = <GlobalSearch*>data
    search.is_current = info.dlpi_adds == search.known.host_adds \
        and info.dlpi_subs == search.known.host_subs
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


cdef inline void find_new(GlobalSearch* search, uint32_t count) noexcept nogil:
    """GlobalSearch.found; `count` is what libc had in its scope, 0: not known. No lock may be held.

    What is being closed has left the scope before the counters tell: another one in its stead would
    make the same number. So the number holds if the counters are still the same after a call that
    has waited for libc's lock."""
    cdef size_t wanted = 0       # of `known`; 0: not known
    cdef void* program = open_host(search.linker, NULL, RTLD_LAZY | RTLD_NOLOAD)
    if program == NULL:
        search.failed = True
        return
    if count != 0:
        iterate_hosts(search.linker, compare_counters, search)
    if search.is_current:
        wanted = count - linker_counts(search, program)
    if wanted == 0:
        ask_for_each(search, program, search.most)
    elif wanted == search.most:
        take_all(search)
    else:
        ask_for_each(search, program, wanted)
    close_host(search.linker, program)


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


cdef inline bint look_for_globals(Linker* linker, const Snapshot* known) noexcept nogil:
    """The host's images of `known` that are in the global scope are there for us, too, from the
    next snapshot on. No lock may be held. False without memory."""
    cdef GlobalSearch search
    memset(&search, 0, sizeof(search))
    search.linker = linker
    search.known = known
    count_known(&search)
    if search.most == search.counted:
        return True              # nobody is left to be asked
    find_new(
        &search,
        load_u32(linker.habits.global_count) if linker.habits.global_count != NULL else 0
    )
    search.failed = search.failed \
        or search.found.count != 0 and not join_found(&linker.registry, &search.found)
    pointers_free(&search.found)
    return not search.failed
