"""The host's own counts: what keeps an image of the host's from being unloaded.

An image that one of ours uses may be closed by whoever has opened it. So it is opened once more, by
the name that the host has for it and with RTLD_NOLOAD, and the handle kept; dlclose gives it back.
To *borrow* one is the same for a moment, while its memory is read. What the process was started
with is never unloaded, and needs no count.

By such a handle, of the program, libc also tells whether an image that came late is in the global
scope: dlsym finds the one name that only this image defines (host/probes.pxd).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.growable cimport pointers_reserve
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD, HostDebug, HostInfo
from dlopen.core.host.functions cimport find_host_debug
from dlopen.core.host.host_lock cimport close_host, enter_host, leave_host, open_host
from dlopen.core.host.iterate cimport holds_linker, iterate_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, LinkMap
from dlopen.core.image.listing cimport is_present
from dlopen.core.image.registry cimport Registry, Snapshot
from dlopen.core.image.snapshot cimport join_globals, make_snapshot, publish_snapshot


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


cdef inline bint look_for_globals(Linker* linker, const Snapshot* known) noexcept nogil:
    """Asks libc for each image that came late, by a name that only this image defines. Once
    global, always global. The program's handle searches the global scope, and unlike
    RTLD_DEFAULT it does not make libdlopen.so a user of what is found, which would keep it.
    False without memory."""
    cdef Registry* registry = &linker.registry
    cdef Snapshot* snapshot
    cdef Image* image
    cdef void* program = NULL
    cdef uint64_t address = 1
    cdef size_t i
    cdef bint complete = True
    for i in range(known.host_count):
        image = known.hosts[i]
        # dlsym searches the caller's own scope too: libdlopen.so's would always be found.
        if load_u32(&image.life.is_global) or image.host.probe == NULL \
                or holds_linker(linker, image):
            continue
        enter_host(&linker.host_use)
        if program == NULL:
            program = linker.host.dlopen(NULL, RTLD_LAZY | RTLD_NOLOAD)
        address = <uint64_t>linker.host.dlsym(program, image.host.probe)
        leave_host(&linker.host_use)
        if not image.map_start <= address < image.map_end:
            continue
        lock_acquire(&registry.lock)
        if is_present(registry, image) and not load_u32(&image.life.is_global):
            snapshot = NULL
            if pointers_reserve(&registry.globals, 1):
                snapshot = make_snapshot(registry, registry.hosts.count)
            if snapshot != NULL:
                join_globals(registry, image)
                publish_snapshot(registry, snapshot)
            else:
                complete = False
        lock_release(&registry.lock)
    if address == 0:
        linker.host.dlerror()    # each call has cleared the message of the one before
    if program != NULL:
        close_host(linker, program)
    return complete
