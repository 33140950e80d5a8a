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


cdef enum:                       # Visit.stage: what is to be given back
    VISITS_NONE = 0
    VISITS_HOSTS = 1
    VISITS_OWN = 2


cdef struct Visit:
    Linker* linker
    PhdrVisitor visit
    void* data
    uint64_t our_adds, our_subs
    uint64_t adds, subs          # the host's and ours, as the visitor is told
    uint32_t stage               # VISITS_*
    uint32_t phase               # of our readers
    bint stopped


cdef inline int pass_host_info(HostInfo* info, size_t size, void* data) noexcept nogil:
    """The host makes `info` anew for each image: it may be written."""
    cdef Visit* visit = <Visit*>data
    cdef int result
    info.dlpi_adds += visit.our_adds
    info.dlpi_subs += visit.our_subs
    visit.adds = info.dlpi_adds
    visit.subs = info.dlpi_subs
    result = visit.visit(info, size, visit.data)
    visit.stopped = result != 0
    return result


cdef inline int visit_own(const Visit* visit) noexcept nogil:
    """Our images, in a reader section."""
    cdef const ShownTable* table = current_shown(&visit.linker.registry.shown)
    cdef const ShownEntry* entry
    cdef const ShownEntry* end
    cdef const Image* image
    cdef HostInfo info
    cdef PhdrVisitor function = visit.visit
    cdef void* data = visit.data
    cdef uint64_t adds = visit.adds
    cdef uint64_t subs = visit.subs
    cdef int result = 0
    if table == NULL:
        return 0
    entry = &table.entries[0]
    end = entry + shown_count(table)
    while entry != end and not result:
        image = shown_image(entry)
        if image != NULL:
            # All of it each time: what the visitor was given it may write into.
            info.dlpi_addr = entry.load_bias
            info.dlpi_name = entry.name
            info.dlpi_phdr = entry.phdrs
            info.dlpi_phnum = <uint16_t>entry.phnum
            info.dlpi_tls_modid = entry.module_id
            info.dlpi_tls_data = block_of_thread(image) if entry.module_id else NULL
            info.dlpi_adds = adds
            info.dlpi_subs = subs
            result = function(&info, sizeof(info), data)
        entry += 1
    return result


cdef inline int visit_all(void* data) noexcept nogil:
    """The guarded part of `iterate`: the host's images, then ours."""
    cdef Visit* visit = <Visit*>data
    cdef Linker* linker = visit.linker
    cdef int result
    enter_host(&linker.host_use)
    visit.stage = VISITS_HOSTS
    result = linker.host.dl_iterate_phdr(pass_host_info, data)
    end_visit(data)
    if visit.stopped:
        return result
    visit.phase = reader_enter(&linker.registry)
    visit.stage = VISITS_OWN
    return visit_own(visit)


cdef inline void end_visit(void* data) noexcept nogil:
    """However it has ended."""
    cdef Visit* visit = <Visit*>data
    cdef uint32_t stage = visit.stage
    visit.stage = VISITS_NONE
    if stage == VISITS_HOSTS:
        leave_host(&visit.linker.host_use)
    elif stage == VISITS_OWN:
        reader_leave(&visit.linker.registry, visit.phase)


cdef inline int iterate(Linker* linker, PhdrVisitor function, void* data) noexcept nogil:
    """The host's images, then ours. The visitor is foreign code: it runs without our lock,
    in a reader section, so that what it looks at stays mapped. It may throw."""
    cdef Visit visit
    if load_u64(&linker.registry.adds) == 0:     # none of ours, ever
        return linker.host.dl_iterate_phdr(function, data)
    visit.linker = linker
    visit.visit = function
    visit.data = data
    # Read before the images are: a reader that keeps what it saw must see a change later.
    visit.our_adds = load_u64(&linker.registry.adds)
    visit.our_subs = load_u64(&linker.registry.subs)
    visit.stage = VISITS_NONE
    visit.stopped = False
    return in_section(visit_all, end_visit, &visit)


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
    if image != NULL:
        result.flags = 0
        result.map_start = <void*>image.map_start
        result.map_end = <void*>image.map_end
        result.link_map = &image.link_map
        result.eh_frame = NULL
        if image.layout.eh_frame_header != NULL:
            result.eh_frame = <void*>(image.load_bias + image.layout.eh_frame_header.p_vaddr)
        code = 0
    reader_leave(&linker.registry, phase)
    return code
