# cython: cdivision=True
"""All images of ours in one place, and the readers who need no lock.

Writers change `images` under `lock` and publish an immutable Snapshot. Readers (dlsym,
dladdr, dl_iterate_phdr, _dl_find_object) count themselves into one of two generations
while they look at the newest snapshot. What was unpublished is retired; it is unmapped
and freed when both generations were seen empty after that, by whoever notices: the
writer as a rule, the last reader where the writer may not wait (it is a reader itself).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport Allocator, allocate, release
from dlopen.core.base.atomics cimport (
    add_u32, full_fence, load_pointer, load_u32, load_u32_seq, store_pointer, store_u32, sub_u32,
)
from dlopen.core.base.growable cimport Pointers, pointers_add
from dlopen.core.base.kernel cimport kernel_unmap, kernel_yield
from dlopen.core.base.lock cimport Lock, lock_acquire, lock_release
from dlopen.core.image.image cimport Image, image_free_records


cdef extern from *:
    """
    /* The ABI's thread state: how deep this thread is inside reader sections. Its
       address names the thread. Initial-exec, so that touching it never allocates. */
    static __thread uint32_t dlopen_reader_depth;
    #define dlopen_this_thread() ((uint64_t)(uintptr_t)&dlopen_reader_depth)
    """
    uint32_t reader_depth "dlopen_reader_depth"
    uint64_t this_thread "dlopen_this_thread"() noexcept nogil


cdef struct Snapshot:            # immutable once published
    size_t count
    Image** images               # in load order; follows the struct
    Image** by_address           # the same by map_start
    size_t host_count
    Image** hosts                # in the host's order


cdef struct Waiter:              # on the waiting thread's stack; in Registry.waiters under the lock
    uint64_t thread
    Image* image
    Waiter* next


cdef struct Retired:
    Retired* next
    Image* image                 # or NULL
    void* block                  # a snapshot to free, or NULL


cdef struct Registry:
    Allocator allocator
    Lock lock                    # guards all below, and the fields of Image that say so
    Pointers images              # Image*, ours, in load order
    Pointers hosts               # Image*, the host's, in its order
    uint64_t host_adds, host_subs  # glibc's counters when `hosts` was read
    uint64_t host_generation
    Pointers globals             # SearchList members opened RTLD_GLOBAL (ours), in order
    uint64_t generation          # counts changes of `images`
    Waiter* waiters
    Snapshot* snapshot           # written under the lock, read with load_pointer
    uint32_t readers[2]          # atomic
    uint32_t phase               # atomic: the generation that new readers join
    Retired* retired             # under the lock
    uint32_t has_retired         # atomic: `retired` may hold something
    uint64_t adds, subs          # dl_iterate_phdr's counters for our images


cdef inline uint32_t reader_enter(Registry* registry) noexcept nogil:
    cdef uint32_t phase = load_u32(&registry.phase) & 1U
    add_u32(&registry.readers[phase], 1)
    (&reader_depth)[0] += 1
    return phase


cdef inline void reader_leave(Registry* registry, uint32_t phase) noexcept nogil:
    (&reader_depth)[0] -= 1
    if sub_u32(&registry.readers[phase & 1U], 1) == 1 and reader_depth == 0 \
            and load_u32_seq(&registry.has_retired):
        reclaim(registry, False)


cdef inline const Snapshot* current_snapshot(const Registry* registry) noexcept nogil:
    """Inside a reader section, or under the lock."""
    return <const Snapshot*>load_pointer(&registry.snapshot)


cdef inline bint generation_is_empty(Registry* registry, uint32_t phase, bint wait) noexcept nogil:
    cdef int _round
    for _round in range(1000 if wait else 1):
        if load_u32_seq(&registry.readers[phase]) == 0:
            return True
        if wait:
            kernel_yield()
    return False


cdef inline void reclaim(Registry* registry, bint wait) noexcept nogil:
    """Frees what was retired if no reader can still see it. Never waits for ever: what
    cannot be freed now is freed by the last reader."""
    cdef Retired* mine
    cdef Retired* last
    cdef Retired* next
    cdef uint32_t phase
    cdef int _turn
    cdef bint empty = True
    if reader_depth != 0:
        return
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
        if mine.image != NULL:
            if not mine.image.is_host:
                kernel_unmap(mine.image.map_start, mine.image.map_end - mine.image.map_start)
            image_free_records(&registry.allocator, mine.image)
        release(&registry.allocator, mine.block)
        release(&registry.allocator, mine)
        mine = next


cdef inline void retire(Registry* registry, Image* image, void* block) noexcept nogil:
    """Under the lock. Without memory it stays for ever: a leak, not a crash."""
    cdef Retired* entry = <Retired*>allocate(&registry.allocator, sizeof(Retired))
    if entry == NULL:
        return
    entry.image = image
    entry.block = block
    entry.next = registry.retired
    registry.retired = entry
    store_u32(&registry.has_retired, 1)


cdef inline Snapshot* make_snapshot(Registry* registry, size_t extra, size_t hosts) noexcept nogil:
    """Room for `extra` images more than now and for `hosts` of the host's; NULL without
    memory. Under the lock."""
    cdef size_t count = registry.images.count + extra
    cdef Snapshot* snapshot = <Snapshot*>allocate(
        &registry.allocator, sizeof(Snapshot) + (2 * count + hosts) * sizeof(Image*)
    )
    if snapshot != NULL:
        snapshot.images = <Image**>(<char*>snapshot + sizeof(Snapshot))
        snapshot.by_address = snapshot.images + count
        snapshot.hosts = snapshot.by_address + count
    return snapshot


cdef inline void publish_snapshot(Registry* registry, Snapshot* snapshot) noexcept nogil:
    """Under the lock: fills it from `images` and makes it the current one."""
    cdef Snapshot* old = registry.snapshot
    cdef size_t i, place
    cdef Image* image
    for i in range(registry.images.count):
        image = <Image*>registry.images.items[i]
        snapshot.images[i] = image
        place = i
        while place > 0 and snapshot.by_address[place - 1].map_start > image.map_start:
            snapshot.by_address[place] = snapshot.by_address[place - 1]
            place -= 1
        snapshot.by_address[place] = image
    snapshot.count = registry.images.count
    for i in range(registry.hosts.count):
        snapshot.hosts[i] = <Image*>registry.hosts.items[i]
    snapshot.host_count = registry.hosts.count
    registry.generation += 1
    store_pointer(&registry.snapshot, snapshot)
    if old != NULL:
        retire(registry, NULL, old)


cdef inline Image* snapshot_image_at(const Snapshot* snapshot, uint64_t address) noexcept nogil:
    """The image whose mapping holds `address`."""
    cdef size_t low = 0
    cdef size_t high = 0 if snapshot == NULL else snapshot.count
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


cdef inline bint snapshot_holds(const Snapshot* snapshot, const void* handle) noexcept nogil:
    """`handle` is an image of ours or of the host's."""
    cdef size_t i
    if snapshot == NULL:
        return False
    for i in range(snapshot.count):
        if <const void*>snapshot.images[i] == handle:
            return True
    for i in range(snapshot.host_count):
        if <const void*>snapshot.hosts[i] == handle:
            return True
    return False
