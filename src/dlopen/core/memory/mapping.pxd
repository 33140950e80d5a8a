"""Segments into memory.

One read-only mapping of the file covers every segment whose distance to the file is
the first one's; text is then made executable, and writable segments are mapped over
it. That is three kernel calls for a common library. No page is ever writable and executable.

A large writable segment is populated at once, since relocation is about to touch most of its
pages; a small one costs less by its page faults, and keeps none that nothing touches.

Bytes are copied into anonymous memory, each segment once. What that costs is pages: zeroing,
accounting and mapping one takes several times as long as filling it. So a larger image is aligned
to huge pages, which the kernel gives for 512 small ones.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.contract cimport DLOPEN_E_MAP, DLOPEN_E_PROTECT, Error
from dlopen.core.base.details cimport (
    DETAIL_CANNOT_MAP, DETAIL_CANNOT_MAP_ZEROES, DETAIL_CANNOT_PROTECT,
    DETAIL_CANNOT_PROTECT_RELRO, DETAIL_CANNOT_PROTECT_TEXT,
)
from dlopen.core.base.errors cimport fail_system
from dlopen.core.base.kernel cimport PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE
from dlopen.core.base.words cimport align_down, align_up
from dlopen.core.elf.constants cimport PF_R, PF_W, PF_X, PT_LOAD
from dlopen.core.elf.layout cimport Layout, relro_size, relro_start
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.memory.file cimport File, file_read
from dlopen.core.memory.memory cimport (
    is_memory_error, memory_clear, memory_map, memory_map_zeroes, memory_name, memory_protect,
    memory_release, memory_reserve, memory_reserve_file, memory_take_huge_pages, memory_take_pages,
)


cdef enum:
    # In between, one call for all pages costs less than a fault for each.
    POPULATE_LEAST = 0x10000
    # Above this, pages that relocation may never touch cost more than the faults they save.
    POPULATE_LIMIT = 0x1000000
    # Of bytes: from here on one call for all pages costs less than a fault for each; from here on a
    # huge page does, though only a quarter of it may be filled.
    COPY_POPULATE_LEAST = 0x10000
    COPY_HUGE_LEAST = 0x80000
    HUGE_PAGE = 0x200000


cdef inline int protection_of(const Phdr* segment) noexcept nogil:
    cdef int protection = PROT_NONE
    if segment.p_flags & PF_R:
        protection |= PROT_READ
    if segment.p_flags & PF_W:
        protection |= PROT_WRITE
    if segment.p_flags & PF_X:
        protection |= PROT_EXEC
    return protection


cdef struct Room:                # what is reserved for an image
    uint64_t size
    uint64_t alignment           # of the load bias
    uint64_t content             # from bytes: up to the last that comes from the file
    bint is_huge                 # from bytes: in huge pages


cdef inline void measure(Room* room, const Layout* layout, const File* file) noexcept nogil:
    """A file whose segments lie far apart gets small pages: few of the others' would be filled."""
    cdef uint32_t i
    cdef const Phdr* segment
    cdef uint64_t end = layout.start
    cdef uint64_t copied = 0
    room.size = layout.end - layout.start
    room.alignment = layout.alignment
    room.content = 0
    room.is_huge = False
    for i in range(layout.phnum):
        segment = &layout.phdrs[i]
        if segment.p_type == PT_LOAD and segment.p_filesz != 0:
            end = segment.p_vaddr + segment.p_filesz
            copied += segment.p_filesz
    if file.descriptor >= 0 or copied < COPY_POPULATE_LEAST or end - layout.start > 2 * copied:
        return
    room.content = end - layout.start
    if copied < COPY_HUGE_LEAST:
        return
    room.is_huge = True
    if room.alignment < HUGE_PAGE:
        room.alignment = HUGE_PAGE
    if layout.end < align_up(end, HUGE_PAGE):
        room.size = align_up(end, HUGE_PAGE) - layout.start


cdef inline int reserve(
    const Layout* layout, const File* file, const Room* room, uint64_t* base, const char* name,
    Error* error
) noexcept nogil:
    """The address range of all segments, aligned; of a file, with the file mapped into it."""
    cdef bint aligned = room.alignment > layout.page
    cdef uint64_t size = room.size + room.alignment if aligned else room.size
    cdef uint64_t wanted
    cdef long result
    if file.descriptor >= 0 and not aligned:
        result = memory_reserve_file(
            size, file.descriptor, align_down(layout.first_load.p_offset, layout.page)
        )
    else:
        result = memory_reserve(size, file.descriptor < 0)
    if is_memory_error(result):
        return fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP, result)
    base[0] = <uint64_t>result
    if not aligned:
        return 0
    # The load bias must be a multiple of the alignment.
    wanted = align_up(base[0] - layout.start, room.alignment) + layout.start
    if wanted != base[0]:
        memory_release(base[0], wanted - base[0])
    if wanted + room.size != base[0] + size:
        memory_release(wanted + room.size, base[0] + size - (wanted + room.size))
    base[0] = wanted
    if file.descriptor >= 0:
        result = memory_map(
            wanted, room.size, PROT_READ, file.descriptor,
            align_down(layout.first_load.p_offset, layout.page), False
        )
        if is_memory_error(result):
            memory_release(wanted, room.size)
            return fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP, result)
    return 0


cdef inline int map_file_segment(
    const Layout* layout, const Phdr* segment, const File* file, uint64_t bias,
    const char* name, Error* error
) noexcept nogil:
    """A segment whose distance to the file is its own: pages of the file, then zeroes."""
    cdef uint64_t start = align_down(segment.p_vaddr, layout.page)
    cdef uint64_t file_end = segment.p_vaddr + segment.p_filesz
    cdef uint64_t file_pages_end = align_up(file_end, layout.page) if segment.p_filesz else start
    cdef uint64_t end = align_up(segment.p_vaddr + segment.p_memsz, layout.page)
    cdef int protection = protection_of(segment)
    cdef bint has_zeroes = segment.p_memsz > segment.p_filesz
    cdef bint populated
    cdef long result = 0
    if segment.p_filesz:
        if not (segment.p_flags & PF_W) and not has_zeroes \
                and segment.p_offset - segment.p_vaddr \
                == layout.first_load.p_offset - layout.first_load.p_vaddr:
            if protection == PROT_READ:
                return 0
            result = memory_protect(bias + start, end - start, protection)
            if result == 0:
                return 0
            # MDWE and some policies allow execution only from the first mmap on.
        populated = segment.p_flags & PF_W \
            and POPULATE_LEAST <= file_pages_end - start <= POPULATE_LIMIT
        result = memory_map(
            bias + start, file_pages_end - start,
            protection | PROT_WRITE if has_zeroes and not segment.p_flags & PF_X else protection,
            file.descriptor, align_down(segment.p_offset, layout.page), populated
        )
        if is_memory_error(result):
            return fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP, result)
        if has_zeroes and file_end < file_pages_end:
            if segment.p_flags & PF_X:
                result = memory_protect(
                    bias + start, file_pages_end - start, PROT_READ | PROT_WRITE
                )
                if result < 0:
                    return fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT, result)
            memory_clear(bias + file_end, file_pages_end - file_end)
        if has_zeroes and not segment.p_flags & PF_W:
            result = memory_protect(bias + start, file_pages_end - start, protection)
            if result < 0:
                return fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT, result)
    if end > file_pages_end:
        result = memory_map_zeroes(bias + file_pages_end, end - file_pages_end, protection)
        if is_memory_error(result):
            return fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP_ZEROES, result)
    return 0


cdef inline int copy_segment(
    const Layout* layout, const Phdr* segment, const File* file, uint64_t bias,
    const char* name, Error* error
) noexcept nogil:
    """Into zeroes, which can be written until then."""
    cdef uint64_t start = align_down(segment.p_vaddr, layout.page)
    cdef uint64_t end = align_up(segment.p_vaddr + segment.p_memsz, layout.page)
    cdef int code = 0
    cdef long result
    if segment.p_filesz:
        code = file_read(
            file, <void*>(bias + segment.p_vaddr), segment.p_filesz, segment.p_offset, name, error
        )
    if code == 0 and protection_of(segment) != PROT_READ | PROT_WRITE:
        result = memory_protect(bias + start, end - start, protection_of(segment))
        if result < 0:
            code = fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT, result)
    return code


cdef inline int map_segments(
    const Layout* layout, File* file, uint64_t* bytes_bias, const char* name, Error* error
) noexcept nogil:
    """Maps all of them; on failure nothing stays mapped."""
    cdef uint32_t i
    cdef uint64_t base = 0
    cdef uint64_t bias
    cdef uint64_t previous_end = layout.start
    cdef uint64_t start
    cdef const Phdr* segment
    cdef Room room
    cdef int code
    cdef long result
    measure(&room, layout, file)
    code = reserve(layout, file, &room, &base, name, error)
    if code:
        return code
    bias = base - layout.start
    if file.descriptor < 0:
        memory_name(base, room.size, name)
    if room.is_huge:
        memory_take_huge_pages(base, room.size)
    elif room.content != 0:
        memory_take_pages(base, align_up(room.content, layout.page))
    for i in range(layout.phnum):
        segment = &layout.phdrs[i]
        if segment.p_type != PT_LOAD or segment.p_memsz == 0:
            continue
        start = align_down(segment.p_vaddr, layout.page)
        if start > previous_end:
            result = memory_protect(bias + previous_end, start - previous_end, PROT_NONE)
            if result < 0:
                code = fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT, result)
        previous_end = align_up(segment.p_vaddr + segment.p_memsz, layout.page)
        if code:
            pass
        elif file.descriptor >= 0:
            code = map_file_segment(layout, segment, file, bias, name, error)
        else:
            code = copy_segment(layout, segment, file, bias, name, error)
        if code:
            memory_release(base, room.size)
            return code
    if bias + layout.end != base + room.size:
        memory_release(bias + layout.end, base + room.size - (bias + layout.end))
    bytes_bias[0] = bias
    return 0


cdef inline int protect_text(
    const Layout* layout, uint64_t bias, bint writable, const char* name, Error* error
) noexcept nogil:
    """For DT_TEXTREL: segments that are not writable become so, without being executable
    meanwhile, and get their own protection back."""
    cdef uint32_t i
    cdef const Phdr* segment
    cdef uint64_t start
    cdef long result
    for i in range(layout.phnum):
        segment = &layout.phdrs[i]
        if segment.p_type != PT_LOAD or segment.p_memsz == 0 or segment.p_flags & PF_W:
            continue
        start = align_down(segment.p_vaddr, layout.page)
        result = memory_protect(
            bias + start, align_up(segment.p_vaddr + segment.p_memsz, layout.page) - start,
            PROT_READ | PROT_WRITE if writable else protection_of(segment)
        )
        if result < 0:
            return fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT_TEXT, result)
    return 0


cdef inline int protect_relro(
    const Layout* layout, uint64_t bias, const char* name, Error* error
) noexcept nogil:
    """PT_GNU_RELRO becomes read-only."""
    cdef uint64_t size = relro_size(layout)
    cdef long result
    if size == 0:
        return 0
    result = memory_protect(bias + relro_start(layout), size, PROT_READ)
    if result < 0:
        return fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT_RELRO, result)
    return 0
