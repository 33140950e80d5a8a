"""What an image is known by: names, and the file that it is of; the keys of both in the hash tables
of image/index.pxd.

The keys of the names are kept, since a soname may lie in memory that the image itself changes.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.atomics cimport load_u64
from dlopen.core.elf.hash cimport gnu_hash
from dlopen.core.image.image cimport Image, Name
from dlopen.core.image.index cimport Index, index_add, index_remove
from dlopen.core.image.naming cimport base_name
from dlopen.core.memory.file cimport FileIdentity


cdef inline uint64_t name_key(const char* name) noexcept nogil:
    return gnu_hash(name)


cdef inline uint64_t file_key(const FileIdentity* file) noexcept nogil:
    # An archive has many members, at multiples of a page.
    return file.inode ^ file.device << 32 ^ file.offset * 0x9e3779b97f4a7c15U


cdef inline FileIdentity identity_of(const Image* image) noexcept nogil:
    """Of one of the host's it is found when it is asked for, the device first."""
    cdef FileIdentity file
    file.inode = load_u64(&image.inode)
    file.device = load_u64(&image.device)
    file.offset = image.offset
    return file


cdef inline bint is_same_file(const Image* image, const FileIdentity* file) noexcept nogil:
    # In this order, as `identity_of`.
    return load_u64(&image.inode) == file.inode and load_u64(&image.device) == file.device \
        and image.offset == file.offset


cdef inline uint64_t image_file_key(const Image* image) noexcept nogil:
    cdef FileIdentity file = identity_of(image)
    return file_key(&file)


cdef inline bint is_of_file(const Image* image) noexcept nogil:
    """Of one that others may find it by. Of the host's it is found out later."""
    return not image.is_host and not image.is_from_bytes and image.inode != 0


cdef inline void note_key(Image* image, const char* name) noexcept nogil:
    """Each once."""
    cdef uint32_t key
    cdef size_t i
    if name == NULL:
        return
    key = <uint32_t>name_key(name)
    for i in range(image.listing.key_count):
        if image.listing.keys[i] == key:
            return
    image.listing.keys[image.listing.key_count] = key
    image.listing.key_count += 1


cdef inline bint find_keys(Image* image) noexcept nogil:
    """Of the names that it has before others know it: those that it was loaded by, its soname, what
    its link map says, its path and the last part of that. False without memory."""
    cdef size_t i
    if image.listing.keys != NULL:
        return True
    image.listing.keys = <uint32_t*>allocate((image.names.count + 4) * sizeof(uint32_t))
    if image.listing.keys == NULL:
        return False
    for i in range(image.names.count):
        note_key(image, <const char*>image.names.items[i])
    note_key(image, image.tables.soname)
    # Of most these are the first of those names.
    if image.names.count == 0 or image.link_map.l_name != image.names.items[0]:
        note_key(image, image.link_map.l_name)
    if image.path != image.link_map.l_name:
        note_key(image, image.path)
    note_key(image, base_name(image.path) if image.path != NULL else NULL)
    return True


cdef inline void add_keys(Index* names, Index* files, Image* image) noexcept nogil:
    """Under the lock; there is room."""
    cdef size_t i
    for i in range(image.listing.key_count):
        index_add(names, image.listing.keys[i], image)
    if is_of_file(image):
        index_add(files, image_file_key(image), image)


cdef inline void remove_keys(Index* names, Index* files, const Image* image) noexcept nogil:
    """Under the lock: also those of its further names."""
    cdef const Name* further = image.further_names
    cdef size_t i
    for i in range(image.listing.key_count):
        index_remove(names, image.listing.keys[i], image)
    while further != NULL:
        index_remove(names, name_key(further.text), image)
        further = further.next
    if is_of_file(image):
        index_remove(files, image_file_key(image), image)
