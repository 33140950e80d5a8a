"""The snapshot: the host's images, and the global scope. It is made anew when one of these changes;
an image joins and leaves the global scope here and nowhere else.

Who keeps something that was made from the global scope compares Snapshot.global_generation.
"""

from libc.stddef cimport size_t

from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.atomics cimport load_u32, store_pointer, store_u32, store_u64
from dlopen.core.base.growable cimport pointers_add, pointers_remove
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Registry, Snapshot, SymbolIndex
from dlopen.core.image.retirement cimport retire


cdef inline bint join_globals(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: as the last of the global scope, once; False without memory. Readers
    see it from the next snapshot on."""
    if not load_u32(&image.life.is_global):
        if not pointers_add(&registry.globals, image):
            return False
        store_u32(&image.life.is_global, 1)
        registry.global_generation += 1
    return True


cdef inline void drop_global_index(Registry* registry) noexcept nogil:
    """Under the lock: it is of a global scope that has gone."""
    cdef SymbolIndex* index = registry.global_index
    registry.global_departures += 1
    store_u64(&registry.global_steps, 0)
    store_u64(&registry.global_steps_due, 0)
    if index != NULL:
        store_pointer(&registry.global_index, NULL)
        index.retired.block = index
        retire(&registry.retirement, &index.retired)


cdef inline void leave_globals(Registry* registry, Image* image) noexcept nogil:
    """Under the lock, if it is there: it goes. Not from the snapshot that is made already."""
    if load_u32(&image.life.is_global):
        pointers_remove(&registry.globals, image)
        registry.global_generation += 1
        drop_global_index(registry)


cdef inline void replace_global(Registry* registry, Image* image, Image* successor) noexcept nogil:
    """Under the lock: it stands where `image` stood, and nowhere else."""
    cdef size_t i
    leave_globals(registry, successor)
    for i in range(registry.globals.count):
        if registry.globals.items[i] == image:
            registry.globals.items[i] = successor
    store_u32(&successor.life.is_global, 1)
    store_u32(&image.life.is_global, 0)
    registry.global_generation += 1
    drop_global_index(registry)


cdef inline Snapshot* make_snapshot(Registry* registry, size_t hosts) noexcept nogil:
    """With room for so many of the host's images, and for as many globals as there is room for in
    their list; NULL without memory. Under the lock."""
    cdef Snapshot* snapshot = <Snapshot*>allocate(
        sizeof(Snapshot) + (2 * hosts + registry.globals.capacity) * sizeof(Image*)
    )
    if snapshot != NULL:
        snapshot.hosts = <Image**>(<char*>snapshot + sizeof(Snapshot))
        snapshot.globals = snapshot.hosts + hosts
    return snapshot


cdef inline bint is_lasting(const Image* image) noexcept nogil:
    """Of the program's namespace, and not to be unloaded by the host alone."""
    return image.namespace_id == 0 and (not image.is_host or image.host.is_startup)


cdef inline void publish_snapshot(Registry* registry, Snapshot* snapshot) noexcept nogil:
    """Under the lock: fills it from the lists and makes it the current one."""
    cdef Snapshot* old = registry.snapshot
    cdef size_t i
    cdef Image* image
    for i in range(registry.hosts.count):
        image = <Image*>registry.hosts.items[i]
        snapshot.hosts[i] = image
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
    while snapshot.lasting_count < snapshot.global_count \
            and is_lasting(snapshot.globals[snapshot.lasting_count]):
        snapshot.lasting_count += 1
    snapshot.global_generation = registry.global_generation
    snapshot.global_departures = registry.global_departures
    registry.generation += 1
    store_pointer(&registry.snapshot, snapshot)
    if old != NULL:
        old.retired.block = old
        retire(&registry.retirement, &old.retired)
