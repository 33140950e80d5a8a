"""dl_iterate_phdr(3) and _dl_find_object(3): what unwinders and profilers ask.

Both answer for the host's images, by the host's own functions, and for ours. A callback may throw,
or end its thread: what is held for it is given back then, too (base/section.pxd).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from dlopen.core.base.atomics cimport load_u64
from dlopen.core.base.section cimport in_section
from dlopen.core.family.information cimport block_of_thread
from dlopen.core.host.abi cimport HostInfo, PhdrVisitor
from dlopen.core.host.host_lock cimport enter_host, leave_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.listing cimport image_at
from dlopen.core.image.registry cimport reader_enter, reader_leave
from dlopen.core.image.shown cimport (
    ShownEntry, ShownTable, current_shown, shown_count, shown_image,
)


cdef struct HostVisit:
    Linker* linker
    PhdrVisitor visit
    void* data
    uint64_t our_adds, our_subs
    uint64_t adds, subs          # the host's and ours, as the visitor is told
    uint32_t phase               # of our readers
    bint stopped


cdef inline int pass_host_info(HostInfo* info, size_t size, void* data) noexcept nogil:
    """The host makes `info` anew for each image: it may be written."""
    cdef HostVisit* visit = <HostVisit*>data
    cdef int result
    info.dlpi_adds += visit.our_adds
    info.dlpi_subs += visit.our_subs
    visit.adds = info.dlpi_adds
    visit.subs = info.dlpi_subs
    result = visit.visit(info, size, visit.data)
    visit.stopped = result != 0
    return result


cdef inline int visit_hosts(void* data) noexcept nogil:
    """The guarded part of `iterate`: the host's images."""
    return (<HostVisit*>data).linker.host.dl_iterate_phdr(pass_host_info, data)


cdef inline void end_visit_of_hosts(void* data) noexcept nogil:
    """However it has ended."""
    leave_host(&(<HostVisit*>data).linker.host_use)


cdef inline int visit_own(void* data) noexcept nogil:
    """The guarded part of `iterate`: our images, in a reader section."""
    cdef const HostVisit* host = <const HostVisit*>data
    cdef const ShownTable* table = current_shown(&host.linker.registry.shown)
    cdef const ShownEntry* entry
    cdef const Image* image
    cdef HostInfo info
    cdef int result = 0
    cdef size_t i
    for i in range(shown_count(table)):
        entry = &table.entries[i]
        image = shown_image(entry)
        if image == NULL:
            continue
        # All of it each time: what the visitor was given it may write into.
        info.dlpi_addr = entry.load_bias
        info.dlpi_name = entry.name
        info.dlpi_phdr = entry.phdrs
        info.dlpi_phnum = <uint16_t>entry.phnum
        info.dlpi_tls_modid = entry.module_id
        info.dlpi_tls_data = block_of_thread(image) if entry.module_id else NULL
        info.dlpi_adds = host.adds
        info.dlpi_subs = host.subs
        result = host.visit(&info, sizeof(info), host.data)
        if result:
            break
    return result


cdef inline void end_visit_of_own(void* data) noexcept nogil:
    """However it has ended."""
    reader_leave(
        &(<const HostVisit*>data).linker.registry, (<const HostVisit*>data).phase
    )


cdef inline int iterate(Linker* linker, PhdrVisitor visit, void* data) noexcept nogil:
    """The host's images, then ours. The visitor is foreign code: it runs without our lock,
    in a reader section, so that what it looks at stays mapped. It may throw."""
    cdef HostVisit host
    cdef int result
    host.linker = linker
    host.visit = visit
    host.data = data
    if load_u64(&linker.registry.adds) == 0:     # none of ours, ever
        return linker.host.dl_iterate_phdr(host.visit, data)
    # Read before the images are: a reader that keeps what it saw must see a change later.
    host.our_adds = load_u64(&linker.registry.adds)
    host.our_subs = load_u64(&linker.registry.subs)
    host.stopped = False
    enter_host(&linker.host_use)
    result = in_section(visit_hosts, end_visit_of_hosts, &host)
    if host.stopped:
        return result
    host.phase = reader_enter(&linker.registry)
    return in_section(visit_own, end_visit_of_own, &host)


cdef struct FindResult:          # struct dl_find_object of <dlfcn.h>
    unsigned long long flags
    void* map_start
    void* map_end
    void* link_map
    void* eh_frame


cdef inline int find_object(Linker* linker, void* address, void* answer) noexcept nogil:
    """_dl_find_object(3), for unwinders. The host's first: its own throws pay for a call."""
    cdef FindResult* result = <FindResult*>answer
    cdef uint32_t phase
    cdef Image* image
    cdef int code = -1
    if linker.host.dl_find_object != NULL \
            and linker.host.dl_find_object(address, result) == 0:
        return 0
    phase = reader_enter(&linker.registry)
    image = image_at(&linker.registry, <uint64_t>address)
    if image != NULL and image.layout.eh_frame_header != NULL:
        result.flags = 0
        result.map_start = <void*>image.map_start
        result.map_end = <void*>image.map_end
        result.link_map = &image.link_map
        result.eh_frame = <void*>(image.load_bias + image.layout.eh_frame_header.p_vaddr)
        code = 0
    reader_leave(&linker.registry, phase)
    return code
