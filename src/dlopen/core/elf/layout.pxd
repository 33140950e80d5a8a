"""What the ELF header and the program headers of a file say, checked before anything is mapped.

The rules are the gABI's for a shared object, the words for breaking one glibc's. The result is a
Layout: which segments there are, in ascending order, and which of the special ones. Later code
relies on it.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from dlopen.core.base.contract cimport (
    DLOPEN_E_FORMAT, DLOPEN_E_NOT_ELF, DLOPEN_E_UNSUPPORTED, Error,
)
from dlopen.core.base.details cimport (
    DETAIL_ABI_VERSION, DETAIL_ALIGNMENT_LARGE, DETAIL_ALIGNMENT_OFFSET, DETAIL_ALIGNMENT_PAGE,
    DETAIL_ALIGNMENT_POWER, DETAIL_ARCHIVE, DETAIL_CORE_DUMP, DETAIL_EMPTY, DETAIL_EXECUTABLE,
    DETAIL_EXECUTABLE_STACK, DETAIL_IDENT_VERSION, DETAIL_NO_DYNAMIC, DETAIL_NO_ELF,
    DETAIL_NO_SEGMENTS, DETAIL_OS_ABI, DETAIL_PHDRS_OUTSIDE, DETAIL_PHENTSIZE, DETAIL_PHNUM,
    DETAIL_RELOCATABLE, DETAIL_SEGMENT_ADDRESS, DETAIL_SEGMENT_BEYOND, DETAIL_SEGMENT_FILESZ,
    DETAIL_SEGMENT_ORDER, DETAIL_SEGMENT_WX, DETAIL_SHORT, DETAIL_SHORT_ARCHIVE, DETAIL_SHORT_TEXT,
    DETAIL_TEXT, DETAIL_TLS_SIZE, DETAIL_TYPE, DETAIL_VERSION,
)
from dlopen.core.base.errors cimport fail, fail_at
from dlopen.core.base.strings cimport memcmp
from dlopen.core.base.words cimport align_down, align_up, is_power_of_two
from dlopen.core.elf.constants cimport (
    EI_ABIVERSION, EI_OSABI, EI_VERSION, ELFOSABI_GNU, ELFOSABI_SYSV, ET_CORE, ET_DYN, ET_EXEC,
    ET_REL, EV_CURRENT, PF_W, PF_X, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_GNU_STACK,
    PT_INTERP, PT_LOAD, PT_TLS,
)
from dlopen.core.elf.form cimport check_form
from dlopen.core.elf.structures cimport Ehdr, Phdr


cdef enum:
    # Far above what any linker writes; bounds the work on a hostile file.
    MAX_PHNUM = 4096
    # Each thread that touches it needs as much: what is above would end the process later.
    MAX_TLS_SIZE = 0x40000000
    MAX_TLS_ALIGNMENT = 0x100000


cdef struct Layout:
    Phdr* phdrs                  # a copy, owned by the image
    uint32_t phnum
    uint32_t load_count
    uint64_t page                # the page size that the rest was computed with
    uint64_t last_address        # that a process of the file's machine can have
    uint64_t start               # of the first segment's first page, as p_vaddr
    uint64_t end                 # of the last segment's last page
    uint64_t alignment           # the largest p_align, at least a page
    uint64_t headers_offset      # e_phoff
    const Phdr* first_load
    const Phdr* dynamic
    const Phdr* tls              # NULL when absent or empty, as are the following
    const Phdr* relro
    const Phdr* eh_frame_header
    const Phdr* interpreter
    uint32_t flags               # e_flags
    uint8_t wants_executable_stack
    uint8_t code_protection      # PROT_…, of pages that are executed


cdef inline bint looks_like_archive(const Ehdr* header, uint64_t file_size) noexcept nogil:
    """Of ar(1), or a thin one; it may hold nothing."""
    return file_size >= 8 and (
        memcmp(&header.e_ident[0], b"!<arch>\n", 8) == 0
        or memcmp(&header.e_ident[0], b"!<thin>\n", 8) == 0
    )


cdef inline int check_header(
    const Ehdr* header, uint64_t file_size, const char* name, Error* error
) noexcept nogil:
    """That it is one: up to what the machine decides."""
    cdef int code
    if file_size < 4 or header.e_ident[0] != 0x7f or header.e_ident[1] != 0x45 \
            or header.e_ident[2] != 0x4c or header.e_ident[3] != 0x46:
        if file_size == 0:
            return fail(error, DLOPEN_E_NOT_ELF, name, DETAIL_EMPTY)
        if file_size < sizeof(Ehdr):         # as glibc: before what it holds
            if looks_like_archive(header, file_size):
                return fail(error, DLOPEN_E_NOT_ELF, name, DETAIL_SHORT_ARCHIVE)
            if looks_like_text(header, file_size):
                return fail(error, DLOPEN_E_NOT_ELF, name, DETAIL_SHORT_TEXT)
            return fail(error, DLOPEN_E_NOT_ELF, name, DETAIL_SHORT)
        if looks_like_archive(header, file_size):
            return fail(error, DLOPEN_E_NOT_ELF, name, DETAIL_ARCHIVE)
        if looks_like_text(header, file_size):
            return fail(error, DLOPEN_E_NOT_ELF, name, DETAIL_TEXT)
        return fail(error, DLOPEN_E_NOT_ELF, name, DETAIL_NO_ELF)
    if file_size < sizeof(Ehdr):
        return fail(error, DLOPEN_E_FORMAT, name, DETAIL_SHORT)
    code = check_form(header, name, error)
    if code:
        return code
    if header.e_ident[EI_VERSION] != EV_CURRENT:
        return fail(error, DLOPEN_E_FORMAT, name, DETAIL_IDENT_VERSION)
    if header.e_ident[EI_OSABI] != ELFOSABI_SYSV and header.e_ident[EI_OSABI] != ELFOSABI_GNU:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_OS_ABI)
    if header.e_ident[EI_ABIVERSION] > 4:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_ABI_VERSION)
    if header.e_version != EV_CURRENT:
        return fail(error, DLOPEN_E_FORMAT, name, DETAIL_VERSION)
    return 0


cdef inline int check_object(
    const Ehdr* header, uint64_t file_size, const char* name, Error* error
) noexcept nogil:
    """What the header says besides: that this is a shared object, and where its segments are."""
    if header.e_type == ET_EXEC:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_EXECUTABLE)
    if header.e_type == ET_REL:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_RELOCATABLE)
    if header.e_type == ET_CORE:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_CORE_DUMP)
    if header.e_type != ET_DYN:
        return fail_at(error, DLOPEN_E_FORMAT, name, DETAIL_TYPE, 16, header.e_type)
    if header.e_phentsize != sizeof(Phdr):
        return fail_at(error, DLOPEN_E_FORMAT, name, DETAIL_PHENTSIZE, 54, header.e_phentsize)
    if header.e_phnum == 0:
        return fail(error, DLOPEN_E_FORMAT, name, DETAIL_NO_SEGMENTS)
    if header.e_phnum > MAX_PHNUM:
        return fail_at(error, DLOPEN_E_FORMAT, name, DETAIL_PHNUM, 56, header.e_phnum)
    if header.e_phoff > file_size or header.e_phnum * sizeof(Phdr) > file_size - header.e_phoff:
        return fail_at(error, DLOPEN_E_FORMAT, name, DETAIL_PHDRS_OUTSIDE, 32, header.e_phoff)
    return 0


cdef inline bint looks_like_text(const Ehdr* header, uint64_t file_size) noexcept nogil:
    """A linker script, as a rule: its first bytes are printable."""
    cdef size_t i
    cdef size_t length = 16 if file_size > 16 else <size_t>file_size
    for i in range(length):
        if header.e_ident[i] > 126 or (header.e_ident[i] < 32 and not 9 <= header.e_ident[i] <= 13):
            return False
    return True


cdef inline int check_segment(
    const Phdr* segment, uint64_t file_size, uint64_t limit, const char* name, Error* error
) noexcept nogil:
    """A PT_LOAD by itself. `limit`: the last address that there can be."""
    if segment.p_memsz < segment.p_filesz:
        return fail_at(
            error, DLOPEN_E_FORMAT, name, DETAIL_SEGMENT_FILESZ, segment.p_offset, segment.p_filesz
        )
    if segment.p_offset > file_size or segment.p_filesz > file_size - segment.p_offset:
        return fail_at(
            error, DLOPEN_E_FORMAT, name, DETAIL_SEGMENT_BEYOND, segment.p_offset, segment.p_filesz
        )
    if segment.p_vaddr > limit or segment.p_memsz > limit - segment.p_vaddr:
        return fail_at(
            error, DLOPEN_E_FORMAT, name, DETAIL_SEGMENT_ADDRESS, segment.p_offset, segment.p_vaddr
        )
    if segment.p_flags & PF_W and segment.p_flags & PF_X:
        return fail_at(
            error, DLOPEN_E_UNSUPPORTED, name, DETAIL_SEGMENT_WX, segment.p_offset, segment.p_flags
        )
    if segment.p_align > 1 and not is_power_of_two(segment.p_align):
        return fail_at(
            error, DLOPEN_E_FORMAT, name, DETAIL_ALIGNMENT_POWER, segment.p_offset, segment.p_align
        )
    if segment.p_align > (<uint64_t>1 << 40):
        return fail_at(
            error, DLOPEN_E_UNSUPPORTED, name, DETAIL_ALIGNMENT_LARGE, segment.p_offset,
            segment.p_align
        )
    # congruence modulo the page is what mapping needs; modulo p_align, what glibc asks
    if segment.p_align > 1 and (segment.p_vaddr - segment.p_offset) & (segment.p_align - 1):
        return fail_at(
            error, DLOPEN_E_FORMAT, name, DETAIL_ALIGNMENT_OFFSET, segment.p_offset, segment.p_vaddr
        )
    return 0


cdef inline int add_segment(
    Layout* layout, const Phdr* segment, const char* name, Error* error
) noexcept nogil:
    """The next PT_LOAD of the layout."""
    if segment.p_memsz == 0:
        return 0
    if (segment.p_vaddr - segment.p_offset) & (layout.page - 1):
        return fail_at(
            error, DLOPEN_E_FORMAT, name, DETAIL_ALIGNMENT_PAGE, segment.p_offset, segment.p_vaddr
        )
    if layout.first_load == NULL:
        layout.first_load = segment
        layout.start = align_down(segment.p_vaddr, layout.page)
    elif align_down(segment.p_vaddr, layout.page) < layout.end:
        return fail_at(
            error, DLOPEN_E_FORMAT, name, DETAIL_SEGMENT_ORDER, segment.p_offset, segment.p_vaddr
        )
    layout.end = align_up(segment.p_vaddr + segment.p_memsz, layout.page)
    layout.load_count += 1
    if segment.p_align > layout.alignment:
        layout.alignment = segment.p_align
    return 0


cdef inline int check_layout(
    Layout* layout, uint64_t file_size, const char* name, Error* error
) noexcept nogil:
    """Fills the layout from its `phdrs`, `phnum`, `page` and `last_address`."""
    cdef uint32_t i
    cdef const Phdr* segment
    cdef int code
    layout.alignment = layout.page
    for i in range(layout.phnum):
        segment = &layout.phdrs[i]
        if segment.p_type == PT_LOAD:
            code = check_segment(segment, file_size, layout.last_address, name, error)
            if code == 0:
                code = add_segment(layout, segment, name, error)
            if code:
                return code
        elif segment.p_type == PT_DYNAMIC:
            layout.dynamic = segment
        elif segment.p_type == PT_TLS:
            if segment.p_memsz < segment.p_filesz or segment.p_memsz > MAX_TLS_SIZE \
                    or segment.p_align > MAX_TLS_ALIGNMENT \
                    or (segment.p_align > 1 and not is_power_of_two(segment.p_align)):
                return fail_at(
                    error, DLOPEN_E_FORMAT, name, DETAIL_TLS_SIZE, segment.p_offset, segment.p_memsz
                )
            layout.tls = segment if segment.p_memsz != 0 else NULL
        elif segment.p_type == PT_GNU_RELRO:
            layout.relro = segment
        elif segment.p_type == PT_GNU_EH_FRAME:
            layout.eh_frame_header = segment
        elif segment.p_type == PT_INTERP:
            layout.interpreter = segment
        elif segment.p_type == PT_GNU_STACK and segment.p_flags & PF_X:
            # A file without the header does not ask: all that makes code for the stack writes it.
            layout.wants_executable_stack = True
    if layout.first_load == NULL:
        return fail(error, DLOPEN_E_FORMAT, name, DETAIL_NO_SEGMENTS)
    if layout.dynamic == NULL:
        return fail(error, DLOPEN_E_FORMAT, name, DETAIL_NO_DYNAMIC)
    return 0


cdef inline int refuse_executable_stack(
    const Layout* layout, const char* name, Error* error
) noexcept nogil:
    """Of a file that shall run."""
    if not layout.wants_executable_stack:
        return 0
    return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_EXECUTABLE_STACK)


cdef inline uint64_t relro_start(const Layout* layout) noexcept nogil:
    """Of what RELRO makes read-only, as p_vaddr: whole pages, as glibc rounds. There is RELRO."""
    return align_down(layout.relro.p_vaddr, layout.page)


cdef inline uint64_t relro_size(const Layout* layout) noexcept nogil:
    """Of what RELRO makes read-only; 0 without RELRO, and if it ends in the page it begins in."""
    cdef uint64_t end
    if layout.relro == NULL:
        return 0
    end = align_down(layout.relro.p_vaddr + layout.relro.p_memsz, layout.page)
    return end - relro_start(layout) if end > relro_start(layout) else 0


cdef inline bint is_sealed(
    const Layout* layout, uint64_t address, uint64_t size
) noexcept nogil:
    """RELRO makes [address, address + size), or a part of it, read-only."""
    cdef uint64_t sealed = relro_size(layout)
    return sealed != 0 and address + size > relro_start(layout) \
        and address < relro_start(layout) + sealed


cdef inline const Phdr* segment_holding(
    const Layout* layout, uint64_t address, uint64_t size
) noexcept nogil:
    """The PT_LOAD whose memory holds [address, address + size), or NULL."""
    cdef uint32_t i
    cdef const Phdr* segment
    for i in range(layout.phnum):
        segment = &layout.phdrs[i]
        if segment.p_type == PT_LOAD and address >= segment.p_vaddr \
                and address - segment.p_vaddr <= segment.p_memsz \
                and size <= segment.p_memsz - (address - segment.p_vaddr):
            return segment
    return NULL
