"""Namespaces: images that see those of their own only, and the family that all share.

dlmopen(3) makes one that is there as long as it has images. One that is made by itself
(DLOPEN_namespace_new) is there until it is ended, and after that as long as it has images;
it has a search path, and what its images find nowhere else is the process's family's, or
the program's. The record of such a one is kept for who uses it.
"""

from libc.stdint cimport int64_t

from dlopen.core.base.allocator cimport allocate, copy_text, release
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strlen
from dlopen.core.host.linker cimport Linker, Namespace, Namespaces
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Registry, first_listed, next_listed
cdef enum:
    NEW_NAMESPACE = -1           # LM_ID_NEWLM
    FIRST_NAMESPACE = 15


cdef inline int64_t new_namespace_id(Namespaces* namespaces) noexcept nogil:
    """Under the lock: one that was never used, nor can be the host's, which has sixteen."""
    namespaces.made += 1
    return FIRST_NAMESPACE + <int64_t>namespaces.made


cdef inline int64_t new_namespace(Linker* linker) noexcept nogil:
    """As dlmopen makes it: without a record."""
    cdef int64_t id
    lock_acquire(&linker.registry.lock)
    id = new_namespace_id(&linker.namespaces)
    lock_release(&linker.registry.lock)
    return id


cdef inline bint has_images(const Registry* registry, int64_t id) noexcept nogil:
    """Under the lock."""
    cdef const Image* image = first_listed(registry)
    while image != NULL and image.namespace_id != id:
        image = next_listed(image)
    return image != NULL


cdef inline Namespace* namespace_record(const Namespaces* namespaces, int64_t id) noexcept nogil:
    """Under the lock; NULL: it has none."""
    cdef Namespace* space = namespaces.records
    while space != NULL and space.id != id:
        space = space.next
    return space


cdef inline const Namespace* namespace_of_image(Linker* linker, const Image* image) noexcept nogil:
    """Stays as long as the image; NULL: none with a record."""
    cdef const Namespace* space
    if image == NULL or not image.shares_family:
        return NULL
    lock_acquire(&linker.registry.lock)
    space = namespace_record(&linker.namespaces, image.namespace_id)
    lock_release(&linker.registry.lock)
    return space


cdef inline bint enter_namespace(Linker* linker, int64_t id, Namespace** space) noexcept nogil:
    """For an open: False if there is no such namespace. A record that it has stays until
    `leave_namespace`."""
    cdef bint exists
    space[0] = NULL
    if id < FIRST_NAMESPACE:
        return True
    lock_acquire(&linker.registry.lock)
    space[0] = namespace_record(&linker.namespaces, id)
    exists = (space[0] != NULL and not space[0].has_ended) or has_images(&linker.registry, id)
    if not exists:
        space[0] = NULL
    elif space[0] != NULL:
        space[0].users += 1
    lock_release(&linker.registry.lock)
    return exists


cdef inline void leave_namespace(Registry* registry, Namespace* space) noexcept nogil:
    """Ends what enter_namespace began; NULL: nothing was."""
    if space != NULL:
        lock_acquire(&registry.lock)
        space.users -= 1
        lock_release(&registry.lock)


cdef inline void forget_namespaces(Linker* linker) noexcept nogil:
    """Under the lock: records of those that have ended, and that nothing is left of."""
    cdef Namespace** link = &linker.namespaces.records
    cdef Namespace* space
    while link[0] != NULL:
        space = link[0]
        if space.has_ended and space.users == 0 and not has_images(&linker.registry, space.id):
            link[0] = space.next
            release(space.search_path)
            release(space)
        else:
            link = &space.next


cdef inline int64_t make_namespace(Linker* linker, const char* search_path) noexcept nogil:
    """Its id; 0 without memory."""
    cdef Namespace* space = <Namespace*>allocate(sizeof(Namespace))
    cdef int64_t id
    if space == NULL:
        return 0
    if search_path != NULL:
        space.search_path = copy_text(search_path, strlen(search_path))
        if space.search_path == NULL:
            release(space)
            return 0
    lock_acquire(&linker.registry.lock)
    forget_namespaces(linker)
    id = new_namespace_id(&linker.namespaces)
    space.id = id
    space.next = linker.namespaces.records
    linker.namespaces.records = space
    lock_release(&linker.registry.lock)
    return id


cdef inline bint end_namespace(Linker* linker, int64_t id) noexcept nogil:
    """Nothing is opened into it once its last image has gone; False: there is no such."""
    cdef Namespace* space
    cdef bint exists
    lock_acquire(&linker.registry.lock)
    space = namespace_record(&linker.namespaces, id)
    exists = space != NULL and not space.has_ended
    if exists:
        space.has_ended = True
        forget_namespaces(linker)
    lock_release(&linker.registry.lock)
    return exists
