"""A record of an image of the host's, made while it cannot be unloaded (host/iterate.pxd).

The record may outlive the image, if the process was not started with it. So what is read of such
a one without a count (path, names, needs, versions) is a copy; tables stay where they are, for who
has counted the image.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.contract cimport DLOPEN_E_FORMAT, DLOPEN_E_MEMORY, DLOPEN_STATE_READY
from dlopen.core.base.growable cimport pointers_add
from dlopen.core.base.strings cimport strlen
from dlopen.core.base.words cimport align_down, align_up
from dlopen.core.elf.constants cimport (
    PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_INTERP, PT_LOAD, PT_TLS,
)
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.host.abi cimport HostInfo
from dlopen.core.host.assumptions cimport note_unmet
from dlopen.core.host.iterate cimport Collection
from dlopen.core.host.libraries cimport is_c_library_name, is_cxx_runtime_name, must_be_hosts
from dlopen.core.host.unwinder cimport asks_for_frames
from dlopen.core.image.dynamic cimport read_dynamic
from dlopen.core.image.image cimport Image, Tables, image_free_records
from dlopen.core.image.registry cimport Registry
from dlopen.core.tls.modules cimport is_own_module


cdef struct Block:               # of one image's texts; counted first, then filled
    char* next                   # NULL: they are counted
    size_t size


cdef inline void move_text(Block* block, const char** text) noexcept nogil:
    """Its copy takes its place."""
    cdef size_t size
    if text[0] == NULL:
        return
    size = strlen(text[0]) + 1
    if block.next == NULL:
        block.size += size
        return
    memcpy(block.next, text[0], size)
    text[0] = block.next
    block.next += size


cdef inline void move_texts(Block* block, Image* image) noexcept nogil:
    """Those that are read without a count on the image."""
    cdef Tables* tables = &image.tables
    cdef const char* library = NULL
    cdef const char* moved = NULL
    cdef size_t i
    move_text(block, <const char**>&image.link_map.l_name)
    move_text(block, &tables.soname)
    move_text(block, &tables.rpath)
    move_text(block, &tables.runpath)
    move_text(block, &tables.interpreter)
    for i in range(tables.needed.count):
        move_text(block, <const char**>&tables.needed.items[i])
    for i in range(tables.version_count):
        move_text(block, &tables.versions[i].name)
        if tables.versions[i].library != library:    # as a rule it is that of the version before
            library = tables.versions[i].library
            moved = library
            move_text(block, &moved)
        tables.versions[i].library = moved


cdef inline bint keep_what_can_go(Image* image) noexcept nogil:
    """Of one that the process was not started with: it may be unloaded at any time, and its record
    outlive it. Under the host's lock; False without memory."""
    cdef Block block
    cdef size_t size = image.layout.phnum * sizeof(Phdr)
    cdef char* memory
    block.next = NULL
    block.size = 0
    move_texts(&block, image)
    memory = <char*>allocate(size + block.size)
    if memory == NULL or not pointers_add(&image.host.copied, memory):
        release(memory)
        return False
    memcpy(memory, image.layout.phdrs, size)
    image.layout.phdrs = <Phdr*>memory
    find_segments(image)
    block.next = memory + size
    move_texts(&block, image)
    take_names(image)
    return True


cdef inline void take_names(Image* image) noexcept nogil:
    """From the link map's, which is the one that the host's dlopen finds the image by."""
    image.names.items[0] = image.link_map.l_name
    if not image.host.is_program:
        image.path = image.link_map.l_name


cdef inline void find_segments(Image* image) noexcept nogil:
    """In its program headers."""
    cdef uint32_t i
    cdef const Phdr* segment
    cdef uint64_t end = 0
    cdef uint64_t start = ~<uint64_t>0
    for i in range(image.layout.phnum):
        segment = &image.layout.phdrs[i]
        if segment.p_type == PT_LOAD:
            if align_down(segment.p_vaddr, image.layout.page) < start:
                start = align_down(segment.p_vaddr, image.layout.page)
            if segment.p_vaddr + segment.p_memsz > end:
                end = segment.p_vaddr + segment.p_memsz
        elif segment.p_type == PT_DYNAMIC:
            image.layout.dynamic = segment
        elif segment.p_type == PT_TLS:
            image.layout.tls = segment
        elif segment.p_type == PT_GNU_EH_FRAME:
            image.layout.eh_frame_header = segment
        elif segment.p_type == PT_INTERP:
            image.layout.interpreter = segment
        elif segment.p_type == PT_GNU_RELRO and segment.p_memsz != 0:
            image.layout.relro = segment
    image.layout.start = start
    image.layout.end = align_up(end, image.layout.page)


cdef inline Image* read_host_image(Collection* collection, const HostInfo* info) noexcept nogil:
    """Under the host's lock; NULL for what has no dynamic section, or with Collection.failed. What
    it holds of the image's own memory is good as long as that lock: `keep_what_can_go`."""
    cdef Image* image = <Image*>allocate(sizeof(Image))
    cdef int code = DLOPEN_E_FORMAT
    if image == NULL:
        collection.failed = True
        return NULL
    image.is_host = True
    image.machine = THIS_MACHINE
    image.life.state = DLOPEN_STATE_READY
    image.life.is_visible = True
    image.load_bias = info.dlpi_addr
    image.bytes_bias = info.dlpi_addr
    image.host.phdrs = info.dlpi_phdr
    image.layout.phdrs = <Phdr*>info.dlpi_phdr
    image.layout.phnum = info.dlpi_phnum
    image.layout.page = collection.linker.process.page
    image.thread_local.module_id = info.dlpi_tls_modid
    image.host.is_program = info.dlpi_name[0] == 0 and collection.images.count == 0
    if is_own_module(image.thread_local.module_id):
        note_unmet(&collection.linker.preparation, b"it has a module id with the top bit", b"")
        collection.failed = True
        image_free_records(image)
        return NULL
    find_segments(image)
    image.map_start = image.load_bias + image.layout.start
    image.map_end = image.load_bias + image.layout.end
    image.link_map.l_addr = image.load_bias
    image.link_map.l_name = <char*>info.dlpi_name
    if image.layout.dynamic != NULL:
        code = read_dynamic(image, NULL)
    if code == 0 and not pointers_add(&image.names, image.link_map.l_name):
        code = DLOPEN_E_MEMORY
    if code:
        collection.failed = collection.failed or code == DLOPEN_E_MEMORY
        image_free_records(image)
        return NULL
    image.link_map.l_ld = <void*>image.tables.dynamic
    take_names(image)
    image.host.is_c_library = is_c_library_name(image.tables.soname)
    image.host.is_cxx_runtime = is_cxx_runtime_name(image.tables.soname)
    image.host.is_family = must_be_hosts(image)
    image.host.asks_for_frames = asks_for_frames(collection.linker, image)
    return image


cdef inline Image* pinned_record(const Registry* registry, const Image* image) noexcept nogil:
    """Under the lock: of the same load, if it is counted; or NULL."""
    cdef size_t i
    cdef Image* old
    for i in range(registry.hosts.count):
        old = <Image*>registry.hosts.items[i]
        if old.host.phdrs == image.host.phdrs and old.load_bias == image.load_bias \
                and (old.life.pins != 0 or old.life.open_count != 0):
            return old
    return NULL
