"""Images come and go: in the list, by handle and by address, at a cost that does not depend on how
many there are. Written under Registry.lock, with single stores that readers may meet half way.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport store_pointer, store_u32
from dlopen.core.base.growable cimport Pointers
from dlopen.core.image.addresses cimport add_address, last_before, remove_address
from dlopen.core.image.image cimport Image
from dlopen.core.image.index cimport (
    IndexSearch, begin_search, index_add, index_remove, index_reserve, next_found,
)
from dlopen.core.image.known_by cimport add_keys, find_keys, name_key, remove_keys
from dlopen.core.image.registry cimport Registry, Snapshot, current_snapshot
from dlopen.core.image.shown cimport hide_shown


cdef inline uint64_t handle_key(const void* handle) noexcept nogil:
    return <uint64_t>handle >> 4         # blocks are 16 bytes apart


cdef inline bint reserve_images(Registry* registry, const Pointers* images) noexcept nogil:
    """Under the lock: these, of ours or of the host's, can be added now. False without memory."""
    cdef size_t keys = 0
    cdef size_t i
    for i in range(images.count):
        if not find_keys(<Image*>images.items[i]):
            return False
        keys += (<const Image*>images.items[i]).listing.key_count
    return index_reserve(&registry.handles, &registry.retirement, images.count) \
        and index_reserve(&registry.names, &registry.retirement, keys) \
        and index_reserve(&registry.files, &registry.retirement, images.count)


cdef inline void add_host_image(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: one of the host's is present, as the last one; there is room."""
    registry.listed += 1
    image.listing.number = registry.listed
    index_add(&registry.handles, handle_key(image), image)
    add_keys(&registry.names, &registry.files, image)
    store_u32(&image.listing.is_present, 1)


cdef inline void remove_host_image(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: one of the host's has gone, and is to be retired."""
    store_u32(&image.listing.is_present, 0)
    remove_keys(&registry.names, &registry.files, image)
    index_remove(&registry.handles, handle_key(image), image)


cdef inline bint add_name_key(
    Registry* registry, Image* image, const char* name
) noexcept nogil:
    """Under the lock: of a further name. False without memory."""
    if not index_reserve(&registry.names, &registry.retirement, 1):
        return False
    index_add(&registry.names, name_key(name), image)
    return True


cdef inline void add_image(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: it is present, as the last one; there is room."""
    registry.listed += 1
    registry.generation += 1
    image.listing.number = registry.listed
    image.listing.previous = registry.last
    index_add(&registry.handles, handle_key(image), image)
    add_keys(&registry.names, &registry.files, image)
    store_u32(&image.listing.is_present, 1)
    add_address(&registry.addresses, image)
    store_pointer(
        &registry.first if registry.last == NULL else &registry.last.listing.next, image
    )
    registry.last = image


cdef inline void hide_image(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: from now on it is closing."""
    registry.generation += 1
    store_u32(&image.listing.is_present, 0)
    remove_keys(&registry.names, &registry.files, image)


cdef inline void remove_image(Registry* registry, Image* image) noexcept nogil:
    """Under the lock: it is found no more, and to be retired. It still leads to the next one."""
    cdef Image* previous = image.listing.previous
    cdef Image* next = image.listing.next
    registry.generation += 1
    store_pointer(&registry.first if previous == NULL else &previous.listing.next, next)
    if next == NULL:
        registry.last = previous
    else:
        next.listing.previous = previous
    hide_shown(&registry.shown, &registry.retirement, image)
    remove_address(&registry.addresses, image)
    index_remove(&registry.handles, handle_key(image), image)


cdef inline bint comes_before(const Image* image, const Image* other) noexcept nogil:
    """In the order in which images are looked for: the host's first, each as they came."""
    if image.is_host != other.is_host:
        return image.is_host
    return image.listing.number < other.listing.number


# For readers, and under the lock ---------------------------------------------------------


cdef inline bint is_image(const Registry* registry, const void* handle) noexcept nogil:
    """`handle`, which may be anything, is an image of ours or of the host's."""
    cdef IndexSearch search
    cdef Image* image = NULL
    begin_search(&registry.handles, handle_key(handle), &search)
    if handle == NULL:
        return False
    while True:
        image = next_found(&search)
        if image == NULL or <const void*>image == handle:
            return image != NULL


cdef inline bint is_present(const Registry* registry, const Image* image) noexcept nogil:
    """Under the lock: what may have gone is one of those that can be found."""
    return is_image(registry, image) and image.listing.is_present


cdef inline Image* image_at(const Registry* registry, uint64_t address) noexcept nogil:
    """The image of ours whose mapping holds `address`."""
    cdef Image* image = last_before(&registry.addresses, address)
    return NULL if image == NULL or address >= image.map_end else image


cdef inline bint is_in(const Image* image, uint64_t address) noexcept nogil:
    return image.map_start <= address < image.map_end


cdef inline Image* image_of_caller(const Registry* registry, const void* caller) noexcept nogil:
    """The image that an address is in, ours or the host's; NULL: in none."""
    cdef size_t i
    cdef const Snapshot* snapshot = current_snapshot(registry)
    cdef Image* image
    if caller == NULL:
        return NULL
    # The program, which asks most, is the first of the host's, and no other is ever there.
    if snapshot.host_count != 0 and is_in(snapshot.hosts[0], <uint64_t>caller):
        return snapshot.hosts[0]
    image = image_at(registry, <uint64_t>caller)
    if image != NULL:
        return image
    for i in range(snapshot.host_count):
        if is_in(snapshot.hosts[i], <uint64_t>caller):
            return snapshot.hosts[i]
    return NULL
