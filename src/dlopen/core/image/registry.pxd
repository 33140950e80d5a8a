"""All images of ours in one place, and the readers who need no lock.

Writers change lists and tables under `lock`, by single stores of pointers: image/listing.pxd; what
seldom changes is an immutable Snapshot, which another one takes the place of. Readers (dlsym,
dladdr, dl_iterate_phdr, _dl_find_object) count themselves into one of two generations while they
look. What is not found any more is retired; it is unmapped and freed when both generations were
seen empty after that, by whoever notices: the writer as a rule, the last reader of a generation
where the writer may not wait (it is a reader itself), or not for so long. Until then it leads to
what followed it, so that a reader who is there misses nothing that stays.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from dlopen.core.arch.machine cimport fence_after_exchange
from dlopen.core.base.allocator cimport allocator_acquire, allocator_release, release
from dlopen.core.base.atomics cimport (
    add_u32, compare_and_swap_u32, load_pointer, load_u32, load_u32_seq, store_u32,
    store_u64,
)
from dlopen.core.base.contract cimport DLOPEN_STATE_INITIALISING, DLOPEN_STATE_READY
from dlopen.core.base.growable cimport Pointers
from dlopen.core.base.kernel cimport kernel_yield
from dlopen.core.base.lock cimport (
    Lock, is_forking, lock_acquire, lock_release, lock_try, locks_held,
)
from dlopen.core.base.single_thread cimport count_one, uncount_one
from dlopen.core.image.addresses cimport Addresses
from dlopen.core.image.image cimport (
    Image, Retired, bytes_end, bytes_start, image_free_records, is_being_linked,
)
from dlopen.core.image.index cimport Index
from dlopen.core.image.retirement cimport (
    NOTHING_RETIRED, RETIRED_SINCE, RETIRED_WAITING, Retirement, retire,
)
from dlopen.core.image.shown cimport Shown
from dlopen.core.memory.arena cimport Arena, give_back_slot
from dlopen.core.memory.file cimport FileIdentity
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
    bint unlikely(bint condition) noexcept nogil         # Cython's name of __builtin_expect


cdef struct GlobalList:          # image/snapshot.pxd: places are written under the lock
    Retired retired              # first, as Snapshot's
    size_t capacity
    size_t used                  # so many places were ever written
    size_t indexed               # so many of the first an index was made of: written once
    Image* items[0]              # atomic


cdef struct Snapshot:            # immutable once published: what seldom changes, for readers
    Retired retired              # first: `reclaim_alone` tells a block by that
    size_t host_count
    Image** hosts                # in the host's order; behind this struct, in the same block
    uint64_t host_adds, host_subs        # glibc's counters when they were read
    uint64_t host_generation     # counts how often they were
    # The global scope, to be read with `global_at`: the process's start, then as they joined.
    size_t global_count
    Image** globals
    GlobalList* list             # that holds them
    # How many of the first globals are the program's, and go only when we say so: the process's
    # start, and ours that came before any of the host's and any of another namespace.
    size_t lasting_count


cdef struct SymbolEntry:         # of SymbolIndex
    uint32_t word                # of a chain of DT_GNU_HASH, and a bit that is set; 0: empty
    uint32_t number              # of the first symbol of the list that has it


cdef struct SymbolIndex:         # of a list of images, immutable: symbols/index.pxd
    Retired retired              # first, as Snapshot's
    SymbolEntry* entries         # a hash table, linear probing; in the same block as this struct
    SymbolEntry* end
    # By image: the number of the first symbol in its hash table; and that behind all.
    uint32_t* numbers
    size_t count                 # images
    const void* list             # GlobalList, of that of the global scope


cdef struct Waiter:              # on the waiting thread's stack; in Registry.waiters under the lock
    uint64_t thread
    Image* image
    Waiter* next


cdef struct Claim:               # in a transaction; in Registry.claims under the lock
    uint64_t thread
    FileIdentity file            # that its root is loaded from
    int64_t namespace_id
    Claim* next
    bint is_made
    bint is_awaited              # by other threads


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
    # Ours, in load order, linked by Listing: also those whose destructors run, which are found by
    # handle and address only, by who unwinds through them or is called by them.
    Image* first                 # read with load_pointer
    Image* last
    uint64_t listed              # numbers them
    Index handles                # Image*, all of them and the host's, by their own address
    Index names                  # those that are present, and the host's: image/known_by.pxd
    Index files                  # those that are present
    Addresses addresses          # all of them, by map_start
    Shown shown                  # those that are linked, as dl_iterate_phdr tells of them
    Pointers hosts               # Image*, the host's, in its order
    # Image*, listed, but not present: destructors or thread_local objects still need them.
    Pointers closing
    uint64_t closer              # atomic: the thread that decides what is to go, and has the lock
    bint sweep_again             # `closing` held something in the last sweep: one more is due
    # closing/candidates.pxd: something may be held no more that no close has looked at; the needs
    # of published images have changed, and Life.references has not.
    bint is_sweep_due
    bint counts_are_stale
    bint has_swapped             # an image has taken another's place, ever
    uint32_t has_lazy_bindings   # atomic: Calls.has_definers is set in some image
    LiveObject* live_objects
    uint64_t host_adds, host_subs  # as Snapshot's
    uint64_t host_generation
    GlobalList* globals          # owned; the snapshot's: image/snapshot.pxd
    # Of the first of the global scope, made when it was searched enough: symbols/global_index.pxd.
    # Written under the lock, read with load_pointer; NULL: none.
    SymbolIndex* global_index
    uint64_t global_steps        # atomic: images of the scope that were asked one by one since then
    uint64_t global_steps_due    # atomic: with so many the next one pays; 0: not counted yet
    uint64_t generation          # counts changes of what is present, and of the snapshot
    Waiter* waiters
    Claim* claims                # opening/claims.pxd
    uint32_t claims_ended        # atomic: counts those that were awaited; a futex word
    Snapshot* snapshot           # written under the lock, read with load_pointer
    uint32_t readers[2]          # atomic: base/single_thread.pxd
    uint32_t phase               # atomic: the generation that new readers join
    Retirement retirement
    Arena arena                  # has a lock of its own
    # Taken before `lock`: one thread at a time changes `phase`, and frees what is retired. Not held
    # while it waits for readers.
    Lock reclaiming
    # Atomic: below it there may be room for the next image: memory/room.pxd.
    uint64_t place
    # dl_iterate_phdr's counters for our images; written under the lock, read with load_u64.
    uint64_t adds, subs


cdef inline uint32_t reader_enter(Registry* registry) noexcept nogil:
    """Begins a reader section: what is found in it stays until `reader_leave`, which is
    given the returned phase. May be nested, and in a signal handler.

    It is counted, and then reads; who frees has taken out, and then looks at the counts
    (`begin_waiting`). Each has a fence in between: so either the reader is seen, or it does not
    find what was taken out."""
    cdef uint32_t phase = load_u32(&registry.phase) & 1U
    count_one(&registry.readers[phase])
    reading[phase] += 1
    return phase


cdef inline bint is_reading() noexcept nogil:
    """This thread, of whatever generation."""
    return reading[0] + reading[1] != 0


cdef inline void reader_leave(Registry* registry, uint32_t phase) noexcept nogil:
    """Ends a reader section. The last reader frees what waits for it, if nobody else does."""
    reading[phase & 1U] -= 1
    # Not in a signal handler that has interrupted this thread while it holds a lock.
    if uncount_one(&registry.readers[phase & 1U]) == 1 \
            and unlikely(load_u32_seq(&registry.retirement.is_due)) \
            and not is_reading() and locks_held == 0:
        reclaim(registry, False)


cdef inline const Snapshot* current_snapshot(const Registry* registry) noexcept nogil:
    """Inside a reader section, or under the lock."""
    return <const Snapshot*>load_pointer(&registry.snapshot)


cdef inline bint is_drained(Registry* registry) noexcept nogil:
    """No reader is in the generation that new ones do not join."""
    return load_u32_seq(&registry.readers[load_u32_seq(&registry.phase) + 1 & 1U]) == 0


cdef enum:
    # Turns. With few, closes beside others' opens leave more to these, and both lose: threads that
    # map and unmap at once cost each other more than the wait.
    READERS_PATIENCE = 100


cdef inline void reclaim(Registry* registry, bint wait) noexcept nogil:
    """Frees what was retired if no reader can still see it; with `wait` after some time for them
    to leave. Never waits for ever, and for readers with no lock held, which a fork would wait for:
    what cannot be freed now is freed by the last reader, or by the thread that is at it."""
    # Not in handlers of fork: in the child, readers in threads that are gone never leave.
    cdef int turns = READERS_PATIENCE if wait and not is_forking() else 0
    cdef bint again = not is_reading()
    while again:
        if wait:
            lock_acquire(&registry.reclaiming)
        elif not lock_try(&registry.reclaiming):
            return
        reclaim_alone(registry)
        lock_release(&registry.reclaiming)
        # A last reader that left meanwhile found the lock taken.
        again = load_u32_seq(&registry.retirement.is_due) != 0
        if again and not is_drained(registry):
            again = turns != 0
            turns -= again
            if again:
                kernel_yield()


cdef inline void begin_waiting(Registry* registry) noexcept nogil:
    """What is retired by now, if nothing waits already."""
    cdef Retirement* retirement = &registry.retirement
    if retirement.waiting != NULL or load_u32(&retirement.is_due) != RETIRED_SINCE:
        return
    lock_acquire(&registry.lock)
    retirement.waiting = retirement.first
    retirement.first = NULL
    store_u32(&retirement.is_due, RETIRED_WAITING)
    lock_release(&registry.lock)
    retirement.seen_empty = 0
    add_u32(&registry.phase, 1)
    fence_after_exchange()       # with that of `reader_enter`


cdef inline void reclaim_alone(Registry* registry) noexcept nogil:
    """As far as it goes without waiting. Both generations are seen empty, one after the other: a
    reader that read `phase` before a change of it may join the old one late, but then it sees what
    is there by now."""
    cdef Retirement* retirement = &registry.retirement
    begin_waiting(registry)
    while retirement.waiting != NULL and is_drained(registry):
        add_u32(&registry.phase, 1)
        retirement.seen_empty += 1
        if retirement.seen_empty == 2:
            free_retired(registry, retirement.waiting)
            retirement.waiting = NULL
            compare_and_swap_u32(&retirement.is_due, RETIRED_WAITING, NOTHING_RETIRED)
            begin_waiting(registry)


cdef inline void free_retired(Registry* registry, Retired* entry) noexcept nogil:
    """With all that follow it."""
    cdef Retired* next
    cdef uint64_t start = 0
    cdef uint64_t end = 0
    while entry != NULL:
        next = entry.next
        if entry.image != NULL:  # which holds the entry
            if entry.image.slot != NULL:
                give_back_slot(entry.image.slot)
            elif not entry.image.is_host:
                unmap_with_neighbours(entry.image, &start, &end)
            image_free_records(entry.image)
        elif entry.block == entry:       # a block that begins with it
            release(entry)
        else:
            release(entry.block)
            release(entry)
        entry = next
    if end != start:
        memory_release(start, end - start)
        store_u64(&registry.place, end)


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
    retire(&registry.retirement, &image.life.retired)


# The images, in load order: in a reader section, or under the lock -----------------------


cdef inline Image* next_listed(const Image* image) noexcept nogil:
    """Also those whose destructors run; NULL after the last one."""
    return <Image*>load_pointer(&image.listing.next)


cdef inline Image* first_listed(const Registry* registry) noexcept nogil:
    return <Image*>load_pointer(&registry.first)


cdef inline Image* first_present_from(Image* image) noexcept nogil:
    while image != NULL and not load_u32(&image.listing.is_present):
        image = next_listed(image)
    return image


cdef inline Image* first_image(const Registry* registry) noexcept nogil:
    """NULL: there is none."""
    return first_present_from(first_listed(registry))


cdef inline Image* next_image(const Image* image) noexcept nogil:
    """NULL after the last one."""
    return first_present_from(next_listed(image))


# fork: the child has one thread, and everything as it was at that moment -----------------


cdef inline void before_fork(Registry* registry) noexcept nogil:
    """Takes all locks of the registry, in their order."""
    lock_acquire(&registry.reclaiming)
    lock_acquire(&registry.lock)
    lock_acquire(&registry.arena.lock)
    allocator_acquire()


cdef inline void after_fork(Registry* registry) noexcept nogil:
    """In the parent, and at the end in the child."""
    allocator_release()
    lock_release(&registry.arena.lock)
    lock_release(&registry.lock)
    lock_release(&registry.reclaiming)


cdef inline void after_fork_in_child(Registry* registry) noexcept nogil:
    """What the other threads had begun will never end: they read nothing, wait for nothing
    and rely on nothing. What they were initialising counts as initialised, as for glibc."""
    cdef Image* image = first_image(registry)
    cdef Waiter** waiter = &registry.waiters
    cdef Claim** claim = &registry.claims
    registry.readers[0] = reading[0]
    registry.readers[1] = reading[1]
    registry.is_sweep_due = True
    # A handler of a signal may have forked: what this thread was about goes on.
    while claim[0] != NULL:
        if claim[0].thread == this_thread():
            claim = &claim[0].next
        else:
            claim[0] = claim[0].next
    while image != NULL:
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
        image = next_image(image)
    while waiter[0] != NULL:
        if waiter[0].thread == this_thread():
            waiter[0].image.life.pins += not is_reading()
            waiter = &waiter[0].next
        else:
            waiter[0] = waiter[0].next
    after_fork(registry)
