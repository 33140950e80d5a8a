"""The snapshot: the host's images, and the global scope. It is made anew when one of these changes;
an image joins and leaves the global scope here and nowhere else.

The list of the global scope is longer-lived than a snapshot, so that what changes as a rule costs
the same however many there are: who joins is put behind all that the snapshot counts, and when the
last ones leave, the next snapshot counts fewer. When others leave, and where the place behind the
last one must not be used again, the list is copied.
"""

from libc.stddef cimport size_t
from libc.string cimport memcpy

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport (
    load_pointer, load_u32, store_pointer, store_u32, store_u64,
)
from dlopen.core.base.growable cimport Pointers
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport GlobalList, Registry, Snapshot, SymbolIndex
from dlopen.core.image.retirement cimport retire


cdef enum:                       # Life.is_global
    NOT_GLOBAL = 0
    GLOBAL = 1
    LEAVES_GLOBALS = 2           # under Registry.lock, and only meanwhile


cdef inline Image* global_at(const Snapshot* snapshot, size_t place) noexcept nogil:
    """Where the last one has left, another may stand by now."""
    return <Image*>load_pointer(&snapshot.globals[place])


cdef inline bint is_lasting(const Image* image) noexcept nogil:
    """Of the program's namespace, and not to be unloaded by the host alone."""
    return image.namespace_id == 0 and (not image.is_host or image.host.is_startup)


# Changes, under the lock: a list and a snapshot are made, images join and leave, then it is
# published or dropped --------------------------------------------------------------------


cdef inline GlobalList* copy_globals(const Registry* registry, size_t more) noexcept nogil:
    """The list, with room for so many more and as much again; NULL without memory."""
    cdef size_t count = 0 if registry.snapshot == NULL else registry.snapshot.global_count
    cdef size_t capacity = 2 * (count + more)
    cdef GlobalList* list = <GlobalList*>allocate(sizeof(GlobalList) + capacity * sizeof(Image*))
    if list != NULL:
        list.capacity = capacity
        list.used = count
        if count != 0:
            memcpy(&list.items[0], registry.snapshot.globals, count * sizeof(Image*))
    return list


cdef inline GlobalList* list_to_join(
    const Registry* registry, size_t more, bint lasting
) noexcept nogil:
    """With room for so many more, all of them `lasting`; or a list for any. NULL without memory."""
    cdef GlobalList* list = registry.globals
    cdef size_t count = registry.snapshot.global_count
    # A reader may count who was there before, as one that stays, or have an index of it.
    cdef bint is_next = count == list.used or (lasting and count >= list.indexed)
    return list if is_next and count + more <= list.capacity else copy_globals(registry, more)


cdef inline Snapshot* make_snapshot(
    Registry* registry, size_t hosts, GlobalList* list
) noexcept nogil:
    """With room for so many of the host's images; the global scope is as it was, in `list`, which
    may be a copy. NULL without memory, or without list."""
    cdef Snapshot* snapshot = NULL
    if list != NULL:
        snapshot = <Snapshot*>allocate(sizeof(Snapshot) + hosts * sizeof(Image*))
    if snapshot == NULL:
        if list != registry.globals:
            release(list)
        return NULL
    snapshot.hosts = <Image**>(<char*>snapshot + sizeof(Snapshot))
    snapshot.list = list
    snapshot.globals = &list.items[0]
    if registry.snapshot != NULL:
        snapshot.global_count = registry.snapshot.global_count
        snapshot.lasting_count = registry.snapshot.lasting_count
    return snapshot


cdef inline void drop_snapshot(const Registry* registry, Snapshot* snapshot) noexcept nogil:
    """It is not needed after all. NULL does no harm."""
    if snapshot != NULL:
        if snapshot.list != registry.globals:
            release(snapshot.list)
        release(snapshot)


cdef inline void join_globals(Snapshot* snapshot, Image* image) noexcept nogil:
    """As the last of the global scope, which it is not in; there is room."""
    store_pointer(&snapshot.globals[snapshot.global_count], image)
    if snapshot.lasting_count == snapshot.global_count and is_lasting(image):
        snapshot.lasting_count += 1
    snapshot.global_count += 1
    if snapshot.list.used < snapshot.global_count:
        snapshot.list.used = snapshot.global_count
    store_u32(&image.life.is_global, GLOBAL)


cdef inline void count_lasting(Snapshot* snapshot) noexcept nogil:
    """Of a copy."""
    snapshot.lasting_count = 0
    while snapshot.lasting_count < snapshot.global_count \
            and is_lasting(snapshot.globals[snapshot.lasting_count]):
        snapshot.lasting_count += 1


cdef inline size_t begin_leaving(const Pointers* images) noexcept nogil:
    """How many of them are in the global scope, and are to leave it."""
    cdef Image* image
    cdef size_t count = 0
    cdef size_t i
    for i in range(images.count):
        image = <Image*>images.items[i]
        if load_u32(&image.life.is_global):
            store_u32(&image.life.is_global, LEAVES_GLOBALS)
            count += 1
    return count


cdef inline void stay_global(const Pointers* images) noexcept nogil:
    """After `begin_leaving`: they do not."""
    cdef Image* image
    cdef size_t i
    for i in range(images.count):
        image = <Image*>images.items[i]
        if load_u32(&image.life.is_global):
            store_u32(&image.life.is_global, GLOBAL)


cdef inline bint is_leaving(const Image* image) noexcept nogil:
    return load_u32(&image.life.is_global) == LEAVES_GLOBALS


cdef inline GlobalList* list_to_leave(const Registry* registry, size_t count) noexcept nogil:
    """For `leave_globals` of so many: a copy, unless they are the last. NULL without memory."""
    cdef size_t place = registry.snapshot.global_count
    while count != 0 and is_leaving(registry.snapshot.globals[place - 1]):
        place -= 1
        count -= 1
    return registry.globals if count == 0 else copy_globals(registry, 0)


cdef inline void leave_globals(const Registry* registry, Snapshot* snapshot) noexcept nogil:
    """Those that `begin_leaving` has found are there no more."""
    cdef Image* image
    cdef size_t kept = 0
    cdef size_t i
    for i in reversed(range(snapshot.global_count if snapshot.list == registry.globals else 0)):
        image = snapshot.globals[i]
        if not is_leaving(image):
            return
        store_u32(&image.life.is_global, NOT_GLOBAL)
        snapshot.global_count -= 1
        if snapshot.lasting_count > snapshot.global_count:
            snapshot.lasting_count = snapshot.global_count
    for i in range(snapshot.global_count):
        image = snapshot.globals[i]
        if is_leaving(image):
            store_u32(&image.life.is_global, NOT_GLOBAL)
        else:
            snapshot.globals[kept] = image
            kept += 1
    snapshot.global_count = kept
    snapshot.list.used = kept
    count_lasting(snapshot)


cdef inline void replace_global(
    const Registry* registry, Snapshot* snapshot, Image* image, Image* successor
) noexcept nogil:
    """It stands where `image` stood, and nowhere else. The snapshot has a copy of the list."""
    cdef size_t i
    if load_u32(&successor.life.is_global):
        store_u32(&successor.life.is_global, LEAVES_GLOBALS)
        leave_globals(registry, snapshot)
    for i in range(snapshot.global_count):
        if snapshot.globals[i] == image:
            snapshot.globals[i] = successor
    store_u32(&successor.life.is_global, GLOBAL)
    store_u32(&image.life.is_global, NOT_GLOBAL)
    count_lasting(snapshot)


cdef inline void take_list(Registry* registry, GlobalList* list) noexcept nogil:
    """In the place of the one that was; an index is of that."""
    cdef GlobalList* old = registry.globals
    cdef SymbolIndex* index = registry.global_index
    registry.globals = list
    store_u64(&registry.global_steps, 0)
    store_u64(&registry.global_steps_due, 0)
    if old != NULL:
        old.retired.block = old
        retire(&registry.retirement, &old.retired)
    if index != NULL:
        store_pointer(&registry.global_index, NULL)
        index.retired.block = index
        retire(&registry.retirement, &index.retired)


cdef inline void publish_snapshot(Registry* registry, Snapshot* snapshot) noexcept nogil:
    """Makes it the current one, with the host's images as they are in their list."""
    cdef Snapshot* old = registry.snapshot
    if registry.hosts.count != 0:
        memcpy(snapshot.hosts, registry.hosts.items, registry.hosts.count * sizeof(Image*))
    snapshot.host_count = registry.hosts.count
    snapshot.host_adds = registry.host_adds
    snapshot.host_subs = registry.host_subs
    snapshot.host_generation = registry.host_generation
    registry.generation += 1
    store_pointer(&registry.snapshot, snapshot)
    if snapshot.list != registry.globals:
        take_list(registry, snapshot.list)
    if old != NULL:
        old.retired.block = old
        retire(&registry.retirement, &old.retired)
