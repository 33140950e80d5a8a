"""DLOPEN_info, the lists that belong to it, DLOPEN_images: what is known of an image, as numbers
and strings of its own.

All of it is read in a reader section. A host image may have gone: what is asked of its memory, the
number of its symbols, is counted first.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.base.atomics cimport load_flag, load_u32, load_u64
from dlopen.core.base.contract cimport (
    DLOPEN_E_HANDLE, DLOPEN_E_INVALID, Info, PublicImage, PublicVersion,
)
from dlopen.core.base.words cimport smaller
from dlopen.core.elf.layout cimport relro_size
from dlopen.core.face.relocations cimport count_relocations
from dlopen.core.face.sizes cimport OLDEST_INFO, can_serve
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.identity cimport identify_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.refresh cimport HOSTS_AS_BEFORE, HOSTS_UNKNOWN, refresh_hosts
from dlopen.core.image.image cimport (
    Image, Version, image_asked_name, image_handle, is_linked,
)
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.path cimport image_path
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, first_image, next_image, reader_enter, reader_leave,
)
from dlopen.core.opening.known cimport host_by_name
from dlopen.core.running.find_symbol cimport symbol_count_of


cdef inline bint count_entries_once(Linker* linker, Image* image) noexcept nogil:
    """Symbols and relocations: all else that is known of a host image is a copy. In a reader
    section; False: the image has gone."""
    cdef void* borrowed
    if load_u64(&image.host.counted_symbols) == 0 or load_u64(&image.host.counted_relocations) == 0:
        borrowed = borrow_host_image(linker, image)
        if borrowed == NULL:
            return False
        symbol_count_of(image)
        count_relocations(image)
        give_back_host_image(linker, image, borrowed)
    return True


cdef inline uint32_t count_versions(const Image* image) noexcept nogil:
    """Those that the image defines and needs: indices of its table may be unused."""
    cdef uint32_t i
    cdef uint32_t count = 0
    for i in range(image.tables.version_count):
        if image.tables.versions[i].name != NULL:
            count += 1
    return count


cdef inline uint32_t dependency_count(const Image* image) noexcept nogil:
    """Of a linked one."""
    if image.is_host:
        return <uint32_t>image.tables.needed.count
    return <uint32_t>image.needs.dependencies.count


cdef inline int fill_info(
    Linker* linker, PublicImage* handle, Info* info, size_t size
) noexcept nogil:
    cdef Image* image = <Image*>handle
    cdef uint32_t phase = reader_enter(&linker.registry)
    if not is_image(&linker.registry, image) \
            or not count_entries_once(linker, image):
        reader_leave(&linker.registry, phase)
        return DLOPEN_E_HANDLE
    if image.is_host and not load_u32(&image.host.is_identified):
        identify_hosts(linker, current_snapshot(&linker.registry))
    memset(info, 0, sizeof(Info))
    info.size = size
    info.path = image_path(image)
    info.name = image_asked_name(image)
    info.soname = image.tables.soname
    info.rpath = image.tables.rpath
    info.runpath = image.tables.runpath
    info.interpreter = image.tables.interpreter
    info.load_bias = image.load_bias
    info.map_start = image.map_start
    info.map_end = image.map_end
    info.dynamic = <uint64_t>image.link_map.l_ld
    info.phdr = <uint64_t>image.layout.phdrs
    info.phnum = image.layout.phnum
    info.device = load_u64(&image.device)
    info.inode = load_u64(&image.inode)
    info.flags = image.tables.flags
    info.flags_1 = image.tables.flags_1
    if image.layout.tls != NULL:
        info.tls_size = image.layout.tls.p_memsz
        info.tls_align = image.layout.tls.p_align
    info.tls_module_id = image.thread_local.module_id
    info.state = load_u32(&image.life.state)
    info.is_host = image.is_host
    info.is_global = load_u32(&image.life.is_global)
    info.is_private = image.is_private
    info.namespace_id = image.namespace_id
    info.open_count = load_u32(&image.life.open_count)
    info.symbol_count = <uint32_t>symbol_count_of(image)
    info.relocation_count = count_relocations(image)
    info.needed_count = <uint32_t>image.tables.needed.count
    if is_linked(image):
        info.dependency_count = dependency_count(image)
    info.version_count = count_versions(image)
    info.has_textrel = image.tables.has_textrel
    info.nodelete = load_flag(&image.life.nodelete)
    info.machine = &image.machine.name[0]
    info.relro_size = relro_size(&image.layout)
    if image.slot != NULL:
        info.arena_size = image.slot.size
    info.handle = image_handle(image)
    info.archive = image.archive
    info.offset = image.offset
    reader_leave(&linker.registry, phase)
    return 0


cdef inline int inform(Linker* linker, PublicImage* handle, Info* info) noexcept nogil:
    """As much as the client's struct has room for; its `size` stays."""
    cdef Info whole
    cdef int code
    if info.size == sizeof(Info):
        return fill_info(linker, handle, info, info.size)
    if not can_serve(info, info.size, OLDEST_INFO, sizeof(Info)):
        return DLOPEN_E_INVALID
    code = fill_info(linker, handle, &whole, info.size)
    if code == 0:
        memcpy(info, &whole, info.size if info.size < sizeof(Info) else sizeof(Info))
    return code


cdef inline const char* needed_at(
    Registry* registry, PublicImage* handle, uint32_t index
) noexcept nogil:
    """DLOPEN_needed_at."""
    cdef Image* image = <Image*>handle
    cdef uint32_t phase = reader_enter(registry)
    cdef const char* needed = NULL
    if is_image(registry, image) \
            and index < image.tables.needed.count:
        needed = <const char*>image.tables.needed.items[index]
    reader_leave(registry, phase)
    return needed


cdef inline PublicImage* dependency_at(
    Registry* registry, PublicImage* handle, uint32_t index
) noexcept nogil:
    """DLOPEN_dependency_at: NULL also before the image is linked."""
    cdef Image* image = <Image*>handle
    cdef uint32_t phase = reader_enter(registry)
    cdef PublicImage* dependency = NULL
    if is_image(registry, image) and is_linked(image) and index < dependency_count(image):
        # The host does not say what it bound DT_NEEDED to: by name.
        dependency = <PublicImage*>(
            host_by_name(registry, <const char*>image.tables.needed.items[index]) if image.is_host
            else image.needs.dependencies.items[index]
        )
    reader_leave(registry, phase)
    return dependency


cdef inline int version_at(
    Registry* registry, PublicImage* handle, uint32_t index, PublicVersion* version
) noexcept nogil:
    """DLOPEN_version_at."""
    cdef Image* image = <Image*>handle
    cdef uint32_t phase = reader_enter(registry)
    cdef uint32_t i
    cdef int turn
    cdef int code = DLOPEN_E_INVALID
    cdef const Version* entry
    if not is_image(registry, image):
        reader_leave(registry, phase)
        return DLOPEN_E_HANDLE
    for turn in range(2):        # definitions, then needs
        for i in range(image.tables.version_count):
            entry = &image.tables.versions[i]
            if code == 0 or entry.name == NULL or (entry.library != NULL) != (turn == 1):
                continue
            if index != 0:
                index -= 1
                continue
            version.name = entry.name
            version.library = entry.library
            version.hash = entry.hash
            version.flags = entry.flags
            version.index = <uint16_t>i
            code = 0
    reader_leave(registry, phase)
    return code


cdef inline size_t list_images(
    Linker* linker, PublicImage** images, size_t capacity
) noexcept nogil:
    """DLOPEN_images: how many there are, the first `capacity` of which are stored; 0 without
    memory."""
    cdef const Snapshot* snapshot
    cdef uint32_t phase
    cdef size_t i
    cdef size_t total
    cdef Image* image
    cdef int hosts
    phase = reader_enter(&linker.registry)
    hosts = refresh_hosts(linker, current_snapshot(&linker.registry))
    if hosts != HOSTS_AS_BEFORE:
        reader_leave(&linker.registry, phase)
        if hosts == HOSTS_UNKNOWN:
            return 0
        phase = reader_enter(&linker.registry)
    snapshot = current_snapshot(&linker.registry)
    total = snapshot.host_count
    for i in range(smaller(total, capacity)):
        images[i] = <PublicImage*>snapshot.hosts[i]
    image = first_image(&linker.registry)
    while image != NULL:
        if total < capacity:
            images[total] = <PublicImage*>image
        total += 1
        image = next_image(image)
    reader_leave(&linker.registry, phase)
    return total
