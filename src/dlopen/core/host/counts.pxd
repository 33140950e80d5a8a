"""The host's own counts: what keeps an image of the host's from being unloaded.

An image that one of ours uses may be closed by whoever has opened it. So it is opened once more, by
the name that the host has for it and with RTLD_NOLOAD, and the handle kept; dlclose gives it back.
To *borrow* one is the same for a moment, while its memory is read. What the process was started
with is never unloaded, and needs no count.
"""

from libc.stddef cimport size_t

from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD, HostDebug, HostInfo
from dlopen.core.host.functions cimport find_host_debug
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.iterate cimport iterate_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, LinkMap


cdef inline void* count_host_image(Linker* linker, Image* image, int mode) noexcept nogil:
    """One more count of the host's on one of its images, so that it stays; give it back
    with the host's dlclose. NULL: it has gone. No lock may be held."""
    cdef void* handle
    handle = open_host(
        linker, NULL if image.host.is_program else image.link_map.l_name,
        RTLD_LAZY | RTLD_NOLOAD | mode
    )
    if handle == NULL:
        linker.host.dlerror()
    elif (<LinkMap*>handle).l_ld != image.link_map.l_ld:
        close_host(linker, handle)      # another one, under the name of one that has gone
        handle = NULL
    return handle


cdef struct HandleSearch:
    const void* handle
    bint found


cdef inline int search_for_handle(HostInfo* info, size_t size, void* data) noexcept nogil:
    """Once, under the host's lock: through its lists of all namespaces."""
    cdef HandleSearch* search = <HandleSearch*>data
    cdef const HostDebug* debug = find_host_debug()
    cdef bint has_more = debug != NULL and debug.r_version > 1
    cdef const LinkMap* map
    while debug != NULL:
        map = debug.r_map
        while map != NULL:
            search.found = search.found or map == search.handle
            map = map.l_next
        debug = debug.r_next if has_more else NULL
    return 1


cdef inline bint host_knows(Linker* linker, const void* handle) noexcept nogil:
    """It is a handle of the host's, however it was come by."""
    cdef HandleSearch search
    search.handle = handle
    search.found = False
    iterate_hosts(linker, search_for_handle, &search)
    return search.found


cdef inline void* borrow_host_image(Linker* linker, Image* image) noexcept nogil:
    """Before the memory of an image that the caller may not have counted is read; NULL: it
    has gone. No lock may be held. For ours, the caller's reader section is enough. That
    somebody has it open does not help: it may be closed meanwhile."""
    if not image.is_host or image.host.is_startup:
        return image
    return count_host_image(linker, image, 0)


cdef inline void give_back_host_image(Linker* linker, Image* image, void* borrowed) noexcept nogil:
    """What borrow_host_image has returned, not NULL. No lock may be held."""
    if borrowed != image:
        close_host(linker, borrowed)
