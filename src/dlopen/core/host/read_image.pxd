"""A record of an image of the host's, made while it cannot be unloaded (host/iterate.pxd).

The record may outlive the image. So what is read of it without a count (path, names, needs,
versions) is a copy; tables stay where they are, for who has counted the image.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcpy

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.allocator cimport allocate, copy_text, release
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
from dlopen.core.host.probes cimport pick_probe
from dlopen.core.host.unwinder cimport asks_for_frames
from dlopen.core.image.dynamic cimport read_dynamic
from dlopen.core.image.image cimport Image, Tables, image_free_records
from dlopen.core.image.registry cimport Registry
from dlopen.core.tls.modules cimport is_own_module


cdef inline bint copy_string(Image* image, const char** text) noexcept nogil:
    """Puts a copy, which the image owns, in its place. False without memory."""
    cdef char* copy
    if text[0] == NULL:
        return True
    copy = copy_text(text[0], strlen(text[0]))
    text[0] = copy
    if copy != NULL and pointers_add(&image.host.copied, copy):
        return True
    release(copy)
    return False


cdef inline bint copy_strings(Image* image) noexcept nogil:
    """Those that are read without a count on the image; its own can go at any time."""
    cdef Tables* tables = &image.tables
    cdef size_t i
    cdef bint complete = copy_string(image, &tables.soname) \
        and copy_string(image, &tables.rpath) \
        and copy_string(image, &tables.runpath) \
        and copy_string(image, &tables.interpreter)
    for i in range(tables.needed.count):
        complete = complete and copy_string(image, <const char**>&tables.needed.items[i])
    for i in range(tables.version_count):
        complete = complete and copy_string(image, &tables.versions[i].name) \
            and copy_string(image, &tables.versions[i].library)
    return complete


cdef inline Image* read_host_image(Collection* collection, const HostInfo* info) noexcept nogil:
    """Under the host's lock; NULL for what has no dynamic section, or with Collection.failed."""
    cdef Image* image = <Image*>allocate(sizeof(Image))
    cdef uint16_t i
    cdef const Phdr* segment
    cdef uint64_t end = 0
    cdef uint64_t start = ~<uint64_t>0
    cdef const char* probe
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
    image.layout.phnum = info.dlpi_phnum
    image.layout.page = collection.linker.process.page
    image.thread_local.module_id = info.dlpi_tls_modid
    image.host.is_program = info.dlpi_name[0] == 0 and collection.images.count == 0
    image.layout.phdrs = <Phdr*>allocate(info.dlpi_phnum * sizeof(Phdr))
    if is_own_module(image.thread_local.module_id):
        note_unmet(&collection.linker.preparation, b"it has a module id with the top bit", b"")
        collection.failed = True
    if image.layout.phdrs == NULL or collection.failed:
        collection.failed = True
        image_free_records(image)
        return NULL
    memcpy(image.layout.phdrs, info.dlpi_phdr, info.dlpi_phnum * sizeof(Phdr))
    for i in range(info.dlpi_phnum):
        segment = &image.layout.phdrs[i]
        if segment.p_type == PT_LOAD:
            if align_down(segment.p_vaddr, collection.linker.process.page) < start:
                start = align_down(segment.p_vaddr, collection.linker.process.page)
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
    image.layout.end = align_up(end, collection.linker.process.page)
    image.map_start = image.load_bias + start
    image.map_end = image.load_bias + image.layout.end
    image.link_map.l_addr = image.load_bias
    if image.layout.dynamic != NULL:
        code = read_dynamic(image, NULL)
    if code:
        collection.failed = collection.failed or code == DLOPEN_E_MEMORY
        image_free_records(image)
        return NULL
    image.link_map.l_ld = <void*>image.tables.dynamic
    if not image.host.is_program:
        image.path = copy_text(info.dlpi_name, strlen(info.dlpi_name))
    # The name as the host has it: what its dlopen finds the image by.
    image.link_map.l_name = copy_text(info.dlpi_name, strlen(info.dlpi_name))
    if image.path == NULL and not image.host.is_program or image.link_map.l_name == NULL \
            or not copy_strings(image) \
            or not pointers_add(&image.names, image.link_map.l_name):
        collection.failed = True
        release(image.link_map.l_name)
        image_free_records(image)
        return NULL
    image.host.is_c_library = is_c_library_name(image.tables.soname)
    image.host.is_cxx_runtime = is_cxx_runtime_name(image.tables.soname)
    image.host.is_family = must_be_hosts(image)
    image.host.asks_for_frames = asks_for_frames(collection.linker, image)
    if collection.known != NULL:
        probe = pick_probe(collection, image)
        if probe != NULL:
            image.host.probe = copy_text(probe, strlen(probe))
            collection.failed = collection.failed or image.host.probe == NULL
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
