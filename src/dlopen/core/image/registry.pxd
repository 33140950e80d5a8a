"""All images of ours in one place, and the readers who need no lock.

Writers change `images` under `lock` and publish an immutable Snapshot. Readers (dlsym,
dladdr, dl_iterate_phdr, _dl_find_object) count themselves into one of two generations
while they look at the newest snapshot. What was unpublished is retired; it is unmapped
and freed when both generations were seen empty after that, by whoever notices: the
writer as a rule, the last reader where the writer may not wait (it is a reader itself).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport allocate, allocator_acquire, allocator_release, release
from dlopen.core.base.atomics cimport (
    add_u32, full_fence, load_pointer, load_u32, load_u32_seq, store_pointer, store_u32, sub_u32,
)
from dlopen.core.base.contract cimport DLOPEN_STATE_INITIALISING, DLOPEN_STATE_READY
from dlopen.core.base.growable cimport Pointers, pointers_add
from dlopen.core.base.kernel cimport kernel_yield
from dlopen.core.base.lock cimport (
    Lock, is_forking, lock_acquire, lock_release, lock_try, locks_held,
)
from dlopen.core.image.image cimport (
    Image, Retired, SearchList, bytes_end, bytes_start, image_free_records, is_being_linked,
)
from dlopen.core.memory.memory cimport memory_release


cdef extern from *:
    """
    /* The ABI's thread state: how many reader sections of each generation this thread is
       in. Its address names the thread. Initial-exec, so that touching it never allocates. */
    static __thread uint32_t dlopen_reading[2];
    #define dlopen_this_thread() ((uint64_t)(uintptr_t)dlopen_reading)
    """
    uint32_t* reading "dlopen_reading"
    uint64_t this_thread "dlopen_this_thread"() noexcept nogil


cdef struct Snapshot:            # immutable once published
    Retired retired              # first: `reclaim_alone` tells a snapshot by that
    size_t count
    size_t closing_count
    # In load order, then those whose destructors run: these are found by address only, by who
    # unwinds through them or is called by them. Lies behind this struct, in the same block.
    Image** images
    Image** by_address           # all of them by map_start
    size_t host_count
    Image** hosts                # in the host's order
    uint64_t host_adds, host_subs        # glibc's counters when they were read
    uint64_t host_generation     # counts how often they were
    size_t global_count
    Image** globals              # the global scope: the process's start, then as they joined
    size_t handle_mask
    Image** handles              # ours and the host's: a hash table, linear probing


cdef struct Waiter:              # on the waiting thread's stack; in Registry.waiters under the lock
    uint64_t thread
    Image* image
    Waiter* next


ctypedef void (*ObjectDestructor)(void* object) noexcept nogil


cdef struct LiveObject:          # a thread_local object of an image, until it is destroyed
    LiveObject* next
    LiveObject** link            # what points to this one
    void* linker
    uint64_t thread
    Image* image
    ObjectDestructor destructor
    void* object


cdef struct Registry:
    Lock lock                    # guards all below, and the fields of Image that say so
    Pointers images              # Image*, ours, in load order
    Pointers hosts               # Image*, the host's, in its order
    # Image*: taken out of `images`, but destructors or thread_local objects still need them.
    Pointers closing
    uint64_t closer              # atomic: the thread that decides what is to go, and has the lock
    bint sweep_again             # `closing` held something in the last sweep: one more is due
    LiveObject* live_objects
    uint64_t host_adds, host_subs  # as Snapshot's
    uint64_t host_generation
    # Image*, the host's and ours, in the order in which they joined the global scope after
    # the process's start.
    Pointers globals
    uint64_t generation          # counts changes of `images`
    Waiter* waiters
    Snapshot* snapshot           # written under the lock, read with load_pointer
    uint32_t readers[2]          # atomic
    uint32_t phase               # atomic: the generation that new readers join
    Retired* retired             # under the lock
    uint32_t has_retired         # atomic: `retired` may hold something
    Lock reclaiming              # taken before `lock`: one thread at a time flips `phase`
    # dl_iterate_phdr's counters for our images; written under the lock, read with load_u64.
    uint64_t adds, subs


cdef inline uint32_t reader_enter(Registry* registry) noexcept nogil:
    """Begins a reader section: what the newest snapshot holds stays until `reader_leave`, which is
    given the returned phase. May be nested, and in a signal handler."""
    cdef uint32_t phase = load_u32(&registry.phase) & 1U
    add_u32(&registry.readers[phase], 1)
    reading[phase] += 1
    return phase


cdef inline bint is_reading() noexcept nogil:
    """This thread, of whatever generation."""
    return reading[0] + reading[1] != 0


cdef inline void reader_leave(Registry* registry, uint32_t phase) noexcept nogil:
    """Ends a reader section. The last reader frees what waits for it, if nobody else does."""
    reading[phase & 1U] -= 1
    # Not in a signal handler that has interrupted this thread while it holds a lock.
    if sub_u32(&registry.readers[phase & 1U], 1) == 1 and not is_reading() \
            and locks_held == 0 and load_u32_seq(&registry.has_retired):
        reclaim(registry, False)


cdef inline const Snapshot* current_snapshot(const Registry* registry) noexcept nogil:
    """Inside a reader section, or under the lock."""
    return <const Snapshot*>load_pointer(&registry.snapshot)


cdef inline bint generation_is_empty(Registry* registry, uint32_t phase, bint wait) noexcept nogil:
    """No reader is in it; with `wait` after some time for them to leave."""
    cdef int _round
    for _round in range(1000 if wait else 1):
        if load_u32_seq(&registry.readers[phase]) == 0:
            return True
        if wait:
            kernel_yield()
    return False


cdef inline void reclaim(Registry* registry, bint wait) noexcept nogil:
    """Frees what was retired if no reader can still see it. Never waits for ever: what
    cannot be freed now is freed by the last reader, or by the thread that is at it."""
    cdef bint again = not is_reading()
    # Not in handlers of fork: in the child, readers in threads that are gone never leave.
    wait = wait and not is_forking()
    while again:
        if wait:
            lock_acquire(&registry.reclaiming)
        elif not lock_try(&registry.reclaiming):
            return
        reclaim_alone(registry, wait)
        lock_release(&registry.reclaiming)
        # A last reader that left meanwhile found nothing to do, or the lock taken.
        wait = False
        again = load_u32_seq(&registry.has_retired) and not (
            load_u32_seq(&registry.readers[0]) or load_u32_seq(&registry.readers[1])
        )


cdef inline void reclaim_alone(Registry* registry, bint wait) noexcept nogil:
    cdef Retired* mine
    cdef Retired* last
    cdef Retired* next
    cdef uint64_t start = 0
    cdef uint64_t end = 0
    cdef uint32_t phase
    cdef int _turn
    cdef bint empty = True
    lock_acquire(&registry.lock)
    mine = registry.retired
    registry.retired = NULL
    store_u32(&registry.has_retired, 0)
    lock_release(&registry.lock)
    if mine == NULL:
        return
    full_fence()
    # Both generations, one after the other: a reader that read `phase` before a flip may
    # join the old one late, but then it sees the newest snapshot.
    for _turn in range(2):
        phase = load_u32_seq(&registry.phase) & 1U
        add_u32(&registry.phase, 1)
        if not generation_is_empty(registry, phase, wait):
            empty = False
            break
    if not empty:
        lock_acquire(&registry.lock)
        last = mine
        while last.next != NULL:
            last = last.next
        last.next = registry.retired
        registry.retired = mine
        store_u32(&registry.has_retired, 1)
        lock_release(&registry.lock)
        return
    while mine != NULL:
        next = mine.next
        if mine.image != NULL:   # which holds the entry
            if not mine.image.is_host:
                unmap_with_neighbours(mine.image, &start, &end)
            image_free_records(mine.image)
        elif mine.block == mine:         # a snapshot, which begins with it
            release(mine)
        else:
            release(mine.block)
            release(mine)
        mine = next
    if end != start:
        memory_release(start, end - start)


cdef inline void unmap_with_neighbours(
    const Image* image, uint64_t* start, uint64_t* end
) noexcept nogil:
    """[start, end) is still to be unmapped. The images of one open lie side by side as a
    rule, and one call is a good deal cheaper than one for each."""
    if bytes_end(image) == start[0]:
        start[0] = bytes_start(image)
    elif bytes_start(image) == end[0]:
        end[0] = bytes_end(image)
    else:
        if end[0] != start[0]:
            memory_release(start[0], end[0] - start[0])
        start[0] = bytes_start(image)
        end[0] = bytes_end(image)


cdef inline void retire_image(Registry* registry, Image* image) noexcept nogil:
    """Under the lock."""
    image.life.retired.image = image
    retire(registry, &image.life.retired)


cdef inline void retire(Registry* registry, Retired* entry) noexcept nogil:
    """Under the lock. Needs no memory: what cannot be retired could never be freed."""
    entry.next = registry.retired
    registry.retired = entry
    store_u32(&registry.has_retired, 1)


cdef inline bint join_globals(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: as the last of the global scope, once; False without memory. Readers
    see it from the next snapshot on."""
    if not load_u32(&image.life.is_global):
        if not pointers_add(&registry.globals, image):
            return False
        store_u32(&image.life.is_global, 1)
    return True


cdef inline bint widen_scope(
    Registry* registry, Image* image, const SearchList* list, Retired** wider
) noexcept nogil:
    """Under the lock: a scope with a search list more, as the last, unless it is there. It waits in
    `wider` until it is taken, so that several images get theirs, or none. False without memory."""
    cdef size_t count = 0
    cdef size_t kept = 0
    cdef size_t i
    cdef SearchList** old = image.scope.lists
    cdef SearchList** new
    cdef Retired* entry
    while old != NULL and old[count] != NULL:
        if old[count] == list:
            return True
        count += 1
    entry = <Retired*>allocate(sizeof(Retired))
    new = <SearchList**>allocate((count + 2) * sizeof(SearchList*))
    if entry == NULL or new == NULL:
        release(entry)
        release(new)
        return False
    for i in range(count):
        # What `leave_scope` has doubled.
        if i == 0 or old[i] != old[i - 1]:
            new[kept] = old[i]
            kept += 1
    new[kept] = <SearchList*>list
    entry.image = image
    entry.block = new
    entry.next = wider[0]
    wider[0] = entry
    return True


cdef inline void take_wider_scopes(Registry* registry, Retired* wider) noexcept nogil:
    """Under the same hold of the lock as `widen_scope`."""
    cdef Retired* entry
    cdef void* old
    while wider != NULL:
        entry = wider
        wider = entry.next
        old = entry.image.scope.lists
        store_pointer(&entry.image.scope.lists, entry.block)
        entry.image = NULL
        entry.block = old
        retire(registry, entry)


cdef inline void free_wider_scopes(Registry* registry, Retired* wider) noexcept nogil:
    cdef Retired* entry
    while wider != NULL:
        entry = wider
        wider = entry.next
        release(entry.block)
        release(entry)


cdef inline bint is_list_of(const SearchList* list, const Pointers* images) noexcept nogil:
    cdef size_t i
    for i in range(images.count):
        if list == &(<const Image*>images.items[i]).scope.search_list:
            return True
    return False


cdef inline void leave_scope(Image* image, const Pointers* gone) noexcept nogil:
    """Under the lock: the search lists of what goes leave the scope of an image that stays. Its
    own comes where the first one was, unless it is there anyhow: what outlives the open that
    brought it in still sees itself and what it needs, as under glibc. Any other gives its place
    to a neighbour: a reader in the middle of it misses nothing, and no memory is wanted."""
    cdef SearchList** scope = image.scope.lists
    cdef SearchList* neighbour = NULL
    cdef bint holds_own = False
    cdef size_t i, following
    i = 0
    while scope != NULL and scope[i] != NULL:
        holds_own = holds_own or scope[i] == &image.scope.search_list
        i += 1
    i = 0
    while scope != NULL and scope[i] != NULL:
        if is_list_of(scope[i], gone):
            if not holds_own:
                neighbour = &image.scope.search_list
                holds_own = True
            elif neighbour == NULL:
                following = i + 1            # its own is there
                while is_list_of(scope[following], gone):
                    following += 1
                neighbour = scope[following]
            store_pointer(&scope[i], neighbour)
        neighbour = scope[i]
        i += 1


cdef inline Snapshot* make_snapshot(Registry* registry, size_t extra, size_t hosts) noexcept nogil:
    """Room for `extra` images more than now, for `hosts` of the host's, and for as many globals
    as there is room for in their list; NULL without memory. Under the lock."""
    cdef size_t count = registry.images.count + registry.closing.count + extra
    cdef size_t slots = 16
    cdef Snapshot* snapshot
    while slots < 2 * (count + hosts):
        slots *= 2
    snapshot = <Snapshot*>allocate(
        sizeof(Snapshot)
        + (2 * count + 2 * hosts + registry.globals.capacity + slots) * sizeof(Image*)
    )
    if snapshot != NULL:
        snapshot.images = <Image**>(<char*>snapshot + sizeof(Snapshot))
        snapshot.by_address = snapshot.images + count
        snapshot.hosts = snapshot.by_address + count
        snapshot.globals = snapshot.hosts + hosts
        snapshot.handles = snapshot.globals + hosts + registry.globals.capacity
        snapshot.handle_mask = slots - 1
    return snapshot


cdef inline size_t handle_slot(const Snapshot* snapshot, const void* handle) noexcept nogil:
    """Where it is, or the empty slot that it would take. At most half of them are taken."""
    # Blocks are 16 bytes apart; the multiplier is 2**64 over the golden ratio (Knuth, 6.4).
    cdef size_t slot = <size_t>(
        ((<uint64_t>handle >> 4) * <uint64_t>0x9e3779b97f4a7c15) >> 32
    ) & snapshot.handle_mask
    while snapshot.handles[slot] != NULL and <const void*>snapshot.handles[slot] != handle:
        slot = (slot + 1) & snapshot.handle_mask
    return slot


cdef inline void add_handle(Snapshot* snapshot, Image* image) noexcept nogil:
    """To a snapshot that is not published yet."""
    snapshot.handles[handle_slot(snapshot, image)] = image


cdef inline bint snapshot_holds(const Snapshot* snapshot, const void* handle) noexcept nogil:
    """`handle`, which may be anything, is an image of ours or of the host's."""
    return snapshot != NULL and handle != NULL \
        and snapshot.handles[handle_slot(snapshot, handle)] != NULL


cdef inline void add_to_snapshot(Snapshot* snapshot, size_t number, Image* image) noexcept nogil:
    """An image of ours, also by its address."""
    cdef size_t place = number
    snapshot.images[number] = image
    while place > 0 and snapshot.by_address[place - 1].map_start > image.map_start:
        snapshot.by_address[place] = snapshot.by_address[place - 1]
        place -= 1
    snapshot.by_address[place] = image
    add_handle(snapshot, image)


cdef inline void publish_snapshot(Registry* registry, Snapshot* snapshot) noexcept nogil:
    """Under the lock: fills it from the lists and makes it the current one."""
    cdef Snapshot* old = registry.snapshot
    cdef size_t i
    cdef Image* image
    snapshot.count = registry.images.count
    snapshot.closing_count = registry.closing.count
    for i in range(snapshot.count):
        add_to_snapshot(snapshot, i, <Image*>registry.images.items[i])
    for i in range(snapshot.closing_count):
        add_to_snapshot(snapshot, snapshot.count + i, <Image*>registry.closing.items[i])
    for i in range(registry.hosts.count):
        image = <Image*>registry.hosts.items[i]
        snapshot.hosts[i] = image
        add_handle(snapshot, image)
        if image.host.is_startup and image.life.is_global:
            snapshot.globals[snapshot.global_count] = image
            snapshot.global_count += 1
    snapshot.host_count = registry.hosts.count
    snapshot.host_adds = registry.host_adds
    snapshot.host_subs = registry.host_subs
    snapshot.host_generation = registry.host_generation
    for i in range(registry.globals.count):
        snapshot.globals[snapshot.global_count] = <Image*>registry.globals.items[i]
        snapshot.global_count += 1
    registry.generation += 1
    store_pointer(&registry.snapshot, snapshot)
    if old != NULL:
        old.retired.block = old
        retire(registry, &old.retired)


cdef inline Image* snapshot_image_at(const Snapshot* snapshot, uint64_t address) noexcept nogil:
    """The image whose mapping holds `address`."""
    cdef size_t low = 0
    cdef size_t high = 0 if snapshot == NULL else snapshot.count + snapshot.closing_count
    cdef size_t middle
    while low < high:
        middle = (low + high) // 2
        if snapshot.by_address[middle].map_start <= address:
            low = middle + 1
        else:
            high = middle
    if low == 0 or address >= snapshot.by_address[low - 1].map_end:
        return NULL
    return snapshot.by_address[low - 1]


cdef inline Image* image_of_caller(const Snapshot* snapshot, const void* caller) noexcept nogil:
    """The image that an address is in, ours or the host's; NULL: in none."""
    cdef size_t i
    cdef uint64_t address = <uint64_t>caller
    cdef Image* image = snapshot_image_at(snapshot, address)
    if caller == NULL or image != NULL:
        return image
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].map_start <= address < snapshot.hosts[i].map_end:
            return snapshot.hosts[i]
    return NULL


# fork: the child has one thread, and everything as it was at that moment -----------------


cdef inline void before_fork(Registry* registry) noexcept nogil:
    """Takes all locks of the registry, in their order."""
    lock_acquire(&registry.reclaiming)
    lock_acquire(&registry.lock)
    allocator_acquire()


cdef inline void after_fork(Registry* registry) noexcept nogil:
    """In the parent, and at the end in the child."""
    allocator_release()
    lock_release(&registry.lock)
    lock_release(&registry.reclaiming)


cdef inline void after_fork_in_child(Registry* registry) noexcept nogil:
    """What the other threads had begun will never end: they read nothing, wait for nothing
    and rely on nothing. What they were initialising counts as initialised, as for glibc."""
    cdef size_t i
    cdef Image* image
    registry.readers[0] = reading[0]
    registry.readers[1] = reading[1]
    registry.waiters = NULL
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        if image.life.state == DLOPEN_STATE_INITIALISING \
                and image.life.initialiser != this_thread():
            image.life.state = DLOPEN_STATE_READY
        if image.life.is_claimed and image.life.initialiser != this_thread():
            image.life.is_claimed = False
            if is_being_linked(image):       # none of these is counted yet; it can only be closed
                image.needs.dependencies.count = 0
                image.needs.bindings.count = 0
                image.needs.sorted.count = 0
        if not is_reading():
            image.life.pins = 0       # a transaction of this thread's would be a reader
    after_fork(registry)
