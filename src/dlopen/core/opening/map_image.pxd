"""One file into memory, read and checked: its headers, its segments, its dynamic section. No code
of it runs."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.arch.machine cimport fail_for_machine, machine_of, runs_here
from dlopen.core.arch.processor cimport CODE_PROPERTY, code_protection
from dlopen.core.base.allocator cimport allocate, copy_text, release
from dlopen.core.base.contract cimport DLOPEN_STATE_LOADING, Error
from dlopen.core.base.details cimport DETAIL_NONE
from dlopen.core.base.errors cimport fail_memory
from dlopen.core.base.growable cimport Text, pointers_add, text_add, text_free
from dlopen.core.base.paths cimport add_working_directory
from dlopen.core.base.strings cimport strchr, strlen
from dlopen.core.elf.constants cimport PT_GNU_PROPERTY
from dlopen.core.elf.layout cimport (
    Layout, check_header, check_layout, check_object, refuse_executable_stack,
)
from dlopen.core.elf.properties cimport property_bits
from dlopen.core.elf.structures cimport Ehdr, Phdr
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.dynamic cimport read_dynamic
from dlopen.core.image.image cimport Image, bytes_end, bytes_start, image_free_records
from dlopen.core.memory.arena cimport Arena, give_back_slot
from dlopen.core.memory.file cimport File, file_read, is_from_bytes
from dlopen.core.memory.mapping cimport map_segments
from dlopen.core.memory.memory cimport memory_release
from dlopen.core.symbols.report cimport report_copied


cdef enum:
    PROPERTIES_SIZE = 1024       # what is longer says nothing to us


cdef inline Image* new_image(const char* name, bint in_files) noexcept nogil:
    """`in_files`: `name` is a path of the caller's files; else it is made absolute if it has a
    slash."""
    cdef Image* image = <Image*>allocate(sizeof(Image))
    cdef char* copy
    cdef Text text
    if image == NULL:
        return NULL
    memset(&text, 0, sizeof(text))
    copy = copy_text(name, strlen(name))
    if copy == NULL or not pointers_add(&image.names, copy):
        release(copy)
        image_free_records(image)
        return NULL
    image.link_map.l_name = copy
    if not in_files and name[0] != 0x2f and strchr(name, 0x2f) != NULL \
            and add_working_directory(&text):
        text_add(&text, b"/")
        text_add(&text, name + 2 if name[0] == 0x2e and name[1] == 0x2f else name)
        image.path = text.data
    elif not text.failed:
        image.path = copy
    image.life.state = DLOPEN_STATE_LOADING
    image.is_from_files = in_files
    if image.path == NULL or text.failed:
        if image.path == NULL:
            text_free(&text)
        image_free_records(image)
        return NULL
    return image


cdef inline int read_header(
    const File* file, Ehdr* header, bint to_look_at, const char* name, Error* error
) noexcept nogil:
    """`to_look_at`: of any machine that is known here; else one that runs here."""
    cdef uint64_t size = file.size if file.size < sizeof(Ehdr) else sizeof(Ehdr)
    cdef int code
    memset(header, 0, sizeof(Ehdr))
    code = file_read(file, header, size, 0, name, error)
    if code == 0:
        code = check_header(header, file.size, name, error)
    if code == 0 and not runs_here(header) and not (
        to_look_at and machine_of(header.e_machine) != NULL
    ):
        code = fail_for_machine(error, name, header.e_machine, header.e_flags)
    return code if code else check_object(header, file.size, name, error)


cdef inline int read_properties(
    const File* file, Layout* layout, const char* name, Error* error
) noexcept nogil:
    """Which protection the file asks for its code: before it is mapped, so that it is protected
    once."""
    cdef char notes[PROPERTIES_SIZE]
    cdef const Phdr* segment = NULL
    cdef int code
    cdef uint32_t i
    if CODE_PROPERTY == 0:
        return 0
    for i in range(layout.phnum):
        if layout.phdrs[i].p_type == PT_GNU_PROPERTY:
            segment = &layout.phdrs[i]
    if segment == NULL or segment.p_filesz > PROPERTIES_SIZE \
            or segment.p_offset > file.size or segment.p_filesz > file.size - segment.p_offset:
        return 0
    code = file_read(file, &notes[0], segment.p_filesz, segment.p_offset, name, error)
    if code == 0:
        layout.code_protection = <uint8_t>code_protection(
            property_bits(&notes[0], segment.p_filesz, CODE_PROPERTY)
        )
    return code


cdef inline int map_image(
    Linker* linker, Arena* arena, File* file, Image* image, bint to_look_at, Error* error
) noexcept nogil:
    """Header, segments, dynamic section: checked and mapped, or read into the arena, if that is
    not NULL. On failure the image is not mapped, and the caller frees its records. `to_look_at` is
    as for read_header."""
    cdef Ehdr header
    cdef const char* name = image.link_map.l_name
    cdef int code = read_header(file, &header, to_look_at, name, error)
    if code:
        return code
    image.layout.phnum = header.e_phnum
    image.machine = machine_of(header.e_machine)
    image.is_foreign = not runs_here(&header)
    image.layout.page = linker.process.page
    image.layout.last_address = image.machine.last_address
    image.layout.headers_offset = header.e_phoff
    image.layout.flags = header.e_flags
    image.layout.phdrs = <Phdr*>allocate(header.e_phnum * sizeof(Phdr))
    if file.member.archive != NULL:
        image.archive = copy_text(file.member.archive, strlen(file.member.archive))
    if image.layout.phdrs == NULL or image.archive == NULL and file.member.archive != NULL:
        return fail_memory(error, name)
    code = file_read(
        file, image.layout.phdrs, header.e_phnum * sizeof(Phdr), header.e_phoff, name, error
    )
    if code == 0:
        code = check_layout(&image.layout, file.size, name, error)
    if code == 0 and not image.is_foreign:
        code = read_properties(file, &image.layout, name, error)
    if code == 0 and not to_look_at:
        code = refuse_executable_stack(&image.layout, name, error)
    if code == 0:
        code = map_segments(
            &image.layout, file, &linker.registry.place, arena, &image.slot, &image.bytes_bias,
            name, error
        )
    if code:
        return code
    image.load_bias = image.bytes_bias   # it runs where it is
    image.map_start = image.load_bias + image.layout.start
    image.map_end = image.load_bias + image.layout.end
    image.device = file.identity.device
    image.inode = file.identity.inode
    image.offset = file.identity.offset
    image.is_from_bytes = is_from_bytes(file)
    if file.copied_for != DETAIL_NONE and image.slot == NULL:
        report_copied(image, file.copied_for)
    image.link_map.l_addr = image.load_bias
    code = read_dynamic(image, error)
    if code == 0:
        image.link_map.l_ld = <void*>(image.load_bias + image.layout.dynamic.p_vaddr)
        return 0
    unmap_image(image)
    return code


cdef inline void unmap_image(Image* image) noexcept nogil:
    """Again does no harm."""
    if image.slot != NULL:
        give_back_slot(image.slot)
    elif image.map_end != 0:
        memory_release(bytes_start(image), bytes_end(image) - bytes_start(image))
    image.slot = NULL
    image.map_end = 0
