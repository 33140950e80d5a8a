"""The host's images, one after another: dl_iterate_phdr(3).

While it calls back, nothing is unloaded: there, and only there, the memory of an image may be read
that nobody has counted. A Collection is what the passes over the list have found
(host/refresh.pxd).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.growable cimport Pointers
from dlopen.core.host.abi cimport HostInfo, PhdrVisitor
from dlopen.core.host.host_lock cimport enter_host, leave_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot


cdef struct Collection:          # what passes over the host's images find
    Linker* linker
    bint only_counters
    bint failed                  # for want of memory, or with `note_unmet`
    uint64_t adds, subs
    size_t count                 # how many there are
    size_t info_size             # the least that the host has said of one
    size_t seen
    size_t cursor                # in `known`: behind the last one that is kept
    Pointers images              # Image*: kept ones and new ones
    Pointers fresh               # Image*: the new ones
    const Snapshot* known        # the snapshot of before; NULL at first


cdef inline int count_host_images(HostInfo* info, size_t size, void* data) noexcept nogil:
    """A PhdrVisitor: the counters, and how many images there are, or the counters alone."""
    cdef Collection* collection = <Collection*>data
    collection.adds = info.dlpi_adds
    collection.subs = info.dlpi_subs
    collection.count += 1
    if collection.count == 1 or size < collection.info_size:
        collection.info_size = size
    return collection.only_counters


cdef inline bint holds_linker(const Linker* linker, const Image* image) noexcept nogil:
    """It is libdlopen.so itself."""
    return image.map_start <= <uint64_t>linker < image.map_end


cdef inline void iterate_hosts(Linker* linker, PhdrVisitor visit, void* data) noexcept nogil:
    """The host's dl_iterate_phdr, kept apart from a fork. No lock of ours may be held."""
    enter_host(&linker.host_use)
    linker.host.dl_iterate_phdr(visit, data)
    leave_host(&linker.host_use)
