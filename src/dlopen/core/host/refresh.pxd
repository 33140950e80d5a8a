"""The records of the host's images, kept true.

The host tells nobody when it loads or unloads something. So wherever it could matter, its two
counters are looked at; when they have changed, its list is read anew, without our lock. What has
stayed keeps its record, since others point to it; what is new gets one, what has gone is retired as
images of ours are. All of it is published in one snapshot, under Registry.lock.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport release
from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free, pointers_remove
from dlopen.core.base.lock cimport lock_acquire, lock_release, locks_held
from dlopen.core.base.strings cimport strcmp
from dlopen.core.host.abi cimport HostInfo
from dlopen.core.host.assumptions cimport learn_habits, note_unmet
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.globals cimport find_global_count
from dlopen.core.host.iterate cimport Collection, count_host_images, holds_linker, iterate_hosts
from dlopen.core.host.libraries cimport is_c_library
from dlopen.core.host.linker cimport Linker, Preparation
from dlopen.core.host.probes cimport keep_probe
from dlopen.core.host.read_image cimport keep_what_can_go, pinned_record, read_host_image
from dlopen.core.host.startup cimport add_needed_names, mark_startup
from dlopen.core.host.unwinder cimport rebind_unwinder
from dlopen.core.image.image cimport Image, image_free_records
from dlopen.core.image.listing cimport add_host_image, remove_host_image, reserve_images
from dlopen.core.image.registry cimport Registry, Snapshot, retire_image
from dlopen.core.image.snapshot cimport (
    LEAVES_GLOBALS, copy_globals, drop_snapshot, join_globals, leave_globals, make_snapshot,
    publish_snapshot,
)


cdef inline bint has_stayed(
    const Collection* collection, const Image* image, const HostInfo* info
) noexcept nogil:
    """An image of before that has the address and the name of `info` is still the same load.
    The host appends what it loads, so that all but the last ones, of which there are as many
    as it has added since, have stayed. Of those, what nobody could unload."""
    cdef uint64_t added = info.dlpi_adds - collection.known.host_adds
    cdef bint is_held
    if info.dlpi_adds == collection.adds and info.dlpi_subs == collection.subs \
            and added <= collection.count and collection.seen <= collection.count - added:
        return True
    if image.host.is_startup or holds_linker(collection.linker, image):
        return True
    lock_acquire(&collection.linker.registry.lock)
    is_held = image.life.open_count != 0 or image.life.pins != 0
    lock_release(&collection.linker.registry.lock)
    return is_held


cdef inline int visit_host_image(HostInfo* info, size_t size, void* data) noexcept nogil:
    """A PhdrVisitor: keeps the record of what has stayed, makes one of what is new."""
    cdef Collection* collection = <Collection*>data
    cdef Image* image
    cdef size_t i
    collection.seen += 1
    if collection.known != NULL:
        # What is kept is kept in order.
        for i in range(collection.cursor, collection.known.host_count):
            image = collection.known.hosts[i]
            if image.host.phdrs == info.dlpi_phdr and image.load_bias == info.dlpi_addr \
                    and has_stayed(collection, image, info) \
                    and strcmp(image.link_map.l_name, info.dlpi_name) == 0:
                collection.cursor = i + 1
                if not pointers_add(&collection.images, image):
                    collection.failed = True
                return collection.failed
    image = read_host_image(collection, info)
    if image == NULL:
        return collection.failed
    if not pointers_add(&collection.fresh, image):
        image_free_records(image)
        collection.failed = True
    elif not pointers_add(&collection.images, image):
        collection.failed = True
    return collection.failed


cdef inline void keep_pinned_records(Registry* registry, Collection* found) noexcept nogil:
    """Under the lock: what was counted while the collection was made cannot have gone; a
    second record of it gives way to the first."""
    cdef size_t i, j
    cdef Image* old
    cdef Image* new
    for i in reversed(range(found.fresh.count)):
        new = <Image*>found.fresh.items[i]
        old = pinned_record(registry, new)
        if old == NULL:
            continue
        for j in range(found.images.count):
            if found.images.items[j] == new:
                found.images.items[j] = old
        pointers_remove(&found.fresh, new)
        image_free_records(new)


cdef inline void retire_gone_hosts(Registry* registry, const Pointers* now) noexcept nogil:
    """Under the lock. Each is looked for behind the one before: what is kept is in order."""
    cdef size_t i, tried
    cdef size_t place = 0
    cdef Image* image
    for i in range(registry.hosts.count):
        image = <Image*>registry.hosts.items[i]
        tried = 0
        while tried < now.count and now.items[place] != image:
            place = (place + 1) % now.count
            tried += 1
        if tried == now.count:
            if load_u32(&image.life.is_global):
                store_u32(&image.life.is_global, LEAVES_GLOBALS)
            remove_host_image(registry, image)
            retire_image(registry, image)


cdef enum:                       # of refresh_hosts
    HOSTS_AS_BEFORE = 0
    HOSTS_CHANGED = 1
    HOSTS_UNKNOWN = 2            # no memory, or `note_unmet`: what is known may be old


cdef inline bint counts_images(Preparation* preparation, const Collection* found) noexcept nogil:
    """Of each image enough is told, and the counters, which say that there are others by now,
    count: those of all namespaces. False with `note_unmet`."""
    cdef bint is_whole = found.info_size >= sizeof(HostInfo)
    cdef bint counts = found.count != 0 and found.adds - found.subs >= found.count
    if not is_whole:
        note_unmet(preparation, b"dl_iterate_phdr gives no whole struct dl_phdr_info", b"")
    elif not counts:
        note_unmet(preparation, b"dlpi_adds and dlpi_subs do not count its images", b"")
    return is_whole and counts


cdef inline bint appends_images(Preparation* preparation, const Collection* found) noexcept nogil:
    """Those that the process was started with still are the first. False with `note_unmet`."""
    cdef size_t i
    for i in range(found.known.host_count):
        if not found.known.hosts[i].host.is_startup:
            break
        if i >= found.images.count or (<const Image*>found.images.items[i]).host.phdrs \
                != found.known.hosts[i].host.phdrs:
            note_unmet(preparation, b"it does not append what it loads to its list", b"")
            return False
    return True


cdef inline void learn_from_start(Linker* linker, const Pointers* images) noexcept nogil:
    """What only the first look is for."""
    cdef const Image* image
    cdef size_t i
    linker.habits.global_count = find_global_count(images)
    for i in range(images.count):
        image = <const Image*>images.items[i]
        if image.host.is_startup and is_c_library(image.tables.soname):
            learn_habits(&linker.habits, image)
            return


cdef inline int collect_hosts(HostInfo* info, size_t size, void* data) noexcept nogil:
    """A PhdrVisitor, for one call: the passes over the host's list, while nothing is unloaded."""
    cdef Collection* found = <Collection*>data
    cdef Linker* linker = found.linker
    cdef Image* image
    cdef size_t i
    linker.host.dl_iterate_phdr(count_host_images, found)
    if found.known == NULL and not counts_images(&linker.preparation, found):
        found.failed = True
        return 1
    linker.host.dl_iterate_phdr(visit_host_image, found)
    if found.failed:
        return 1
    if found.known == NULL:
        found.failed = not mark_startup(linker, &found.images)
        learn_from_start(linker, &found.images)
    else:
        found.failed = not appends_images(&linker.preparation, found)
    for i in range(found.fresh.count):
        image = <Image*>found.fresh.items[i]
        if not image.host.is_startup:
            found.failed = found.failed or not keep_what_can_go(image) or not keep_probe(image)
    found.failed = found.failed or not add_needed_names(found)
    return 1


cdef inline int refresh_hosts(Linker* linker, const Snapshot* known) noexcept nogil:
    """Brings registry.hosts up to date with the host's list. Called in a reader section whose
    snapshot is `known` (NULL at first), with no lock held. A handler that has interrupted who
    holds one makes do with what is known."""
    cdef Collection collection
    cdef Registry* registry = &linker.registry
    cdef Snapshot* snapshot
    cdef Image* image
    cdef size_t i
    cdef bint published = False
    cdef bint rebound = True
    memset(&collection, 0, sizeof(collection))
    collection.linker = linker
    collection.known = known
    if known != NULL and locks_held != 0:
        return HOSTS_AS_BEFORE
    if known != NULL:
        collection.only_counters = True
        iterate_hosts(linker, count_host_images, &collection)
        if collection.adds == known.host_adds and collection.subs == known.host_subs:
            if load_u32(&linker.rebinding.is_due) and not rebind_unwinders(linker, known):
                return HOSTS_UNKNOWN
            return HOSTS_AS_BEFORE
        collection.only_counters = False
        collection.count = 0
    iterate_hosts(linker, collect_hosts, &collection)
    lock_acquire(&registry.lock)
    snapshot = make_snapshot(
        registry, collection.images.count,
        copy_globals(registry, collection.images.count if known == NULL else 0),
    )
    collection.failed = collection.failed or snapshot == NULL \
        or not reserve_images(registry, &collection.fresh)
    keep_pinned_records(registry, &collection)
    if not collection.failed \
            and registry.host_generation == (0 if known == NULL else known.host_generation):
        retire_gone_hosts(registry, &collection.images)
        leave_globals(registry, snapshot)
        for i in range(collection.fresh.count):
            image = <Image*>collection.fresh.items[i]
            add_host_image(registry, image)
            if load_u32(&image.life.is_global):      # what the process was started with
                join_globals(snapshot, image)
        pointers_free(&registry.hosts)
        registry.hosts = collection.images
        registry.host_adds = collection.adds
        registry.host_subs = collection.subs
        registry.host_generation += 1
        publish_snapshot(registry, snapshot)
        published = True
    else:
        drop_snapshot(registry, snapshot)
    lock_release(&registry.lock)
    if published:
        # Without the lock, but `known`'s reader section, or being the first, keeps them.
        rebound = rebind_unwinders(linker, snapshot)
    else:
        for i in range(collection.fresh.count):
            image_free_records(<Image*>collection.fresh.items[i])
        pointers_free(&collection.images)
    pointers_free(&collection.fresh)
    if collection.failed or not rebound:
        return HOSTS_UNKNOWN
    # Or another thread was first.
    return HOSTS_CHANGED if published else HOSTS_AS_BEFORE


cdef inline bint rebind_unwinders(Linker* linker, const Snapshot* snapshot) noexcept nogil:
    """Of all of the host's images. With no lock held. False: not all, and an exception through
    an image of ours might find no frame."""
    cdef size_t i
    cdef Image* image
    cdef void* borrowed
    cdef bint complete = True
    store_u32(&linker.rebinding.is_due, 0)
    for i in range(snapshot.host_count):
        image = snapshot.hosts[i]
        borrowed = borrow_host_image(linker, image) if image.host.asks_for_frames else NULL
        if borrowed != NULL:
            complete = rebind_unwinder(linker, image) and complete
            give_back_host_image(linker, image, borrowed)
    if not complete:
        store_u32(&linker.rebinding.is_due, 1)
    return complete
