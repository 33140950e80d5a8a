"""Which image is at an address: a skip list (Pugh), ordered by where the images begin.

Its links lie in the images themselves, so that adding and removing need no memory and change what
is beside them only. Written under Registry.lock; read in a reader section without it. Each link is
one store: a new image's own are written before those that lead to it, and one that was removed
keeps its own, which lead whoever is just there on to what stays.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport load_pointer, store_pointer
from dlopen.core.image.image cimport ADDRESS_LEVELS, Image


cdef struct Addresses:
    Image* first[ADDRESS_LEVELS]


cdef inline bint lies_before(const Image* image, const Image* other) noexcept nogil:
    """Two that are linked for other processes may have the same address."""
    return image.map_start < other.map_start or (
        image.map_start == other.map_start and <uint64_t>image < <uint64_t>other
    )


cdef inline size_t levels_of(uint64_t number) noexcept nogil:
    """One more than 0 for one image in four, one more than 1 for one in sixteen, …: by chance,
    which is a hash of the number of the image."""
    cdef uint64_t chance = (number * <uint64_t>0x9e3779b97f4a7c15) >> 32
    cdef size_t levels = 1
    while levels < ADDRESS_LEVELS and chance & 3 == 0:
        levels += 1
        chance >>= 2
    return levels


cdef inline void find_links(
    Addresses* addresses, const Image* image, Image*** before
) noexcept nogil:
    """The links, of each level, that lead past where the image is or would be."""
    cdef Image** links = &addresses.first[0]
    cdef size_t level
    for level in reversed(range(ADDRESS_LEVELS)):
        while links[level] != NULL and lies_before(links[level], image):
            links = &links[level].listing.by_address[0]
        before[level] = links


cdef inline void add_address(Addresses* addresses, Image* image) noexcept nogil:
    """Under the lock."""
    cdef Image** before[ADDRESS_LEVELS]
    cdef size_t levels = levels_of(image.listing.number)
    cdef size_t level
    find_links(addresses, image, &before[0])
    for level in range(levels):
        image.listing.by_address[level] = before[level][level]
    for level in range(levels):
        store_pointer(&before[level][level], image)


cdef inline void remove_address(Addresses* addresses, const Image* image) noexcept nogil:
    """Under the lock."""
    cdef Image** before[ADDRESS_LEVELS]
    cdef size_t level
    find_links(addresses, image, &before[0])
    for level in reversed(range(ADDRESS_LEVELS)):
        if <const Image*>before[level][level] == image:
            store_pointer(&before[level][level], image.listing.by_address[level])


cdef inline Image* last_before(const Addresses* addresses, uint64_t address) noexcept nogil:
    """Of those that begin at the address or before it; NULL: none does."""
    cdef Image* const* links = &addresses.first[0]
    cdef Image* found = NULL
    cdef Image* image
    cdef size_t level
    for level in reversed(range(ADDRESS_LEVELS)):
        image = <Image*>load_pointer(&links[level])
        while image != NULL and image.map_start <= address:
            found = image
            links = &image.listing.by_address[0]
            image = <Image*>load_pointer(&links[level])
    return found
