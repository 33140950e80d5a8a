"""Segments into memory.

One read-only mapping of the file covers every segment whose distance to the file is
the first one's; text is then made executable, and writable segments are mapped over
it. That is three kernel calls for a common library. No page is ever writable and executable.

A large writable segment is populated at once, since relocation is about to touch most of its
pages; a small one costs less by its page faults, and keeps none that nothing touches. Of half a
megabyte or more, what is written is copied into huge pages (memory/room.pxd).

Bytes are copied into anonymous memory, each segment once. So is a member of an archive that cannot
be mapped from it: it is compressed there, it stands at no multiple of the page, or the file system
refuses (noexec is a policy; so whoever gives a member may forbid that). A small file may be
read instead, into memory that is used again and again: memory/arena.pxd.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.atomics cimport store_u64
from dlopen.core.base.contract cimport (
    DLOPEN_E_MAP, DLOPEN_E_PROTECT, DLOPEN_E_UNSUPPORTED, DLOPEN_MEMBER_MAPPED_ONLY, Error,
)
from dlopen.core.base.details cimport (
    DETAIL_CANNOT_MAP, DETAIL_CANNOT_MAP_ZEROES, DETAIL_CANNOT_PROTECT,
    DETAIL_CANNOT_PROTECT_RELRO, DETAIL_CANNOT_PROTECT_TEXT, DETAIL_MEMBER_COMPRESSED,
    DETAIL_MEMBER_NOEXEC, DETAIL_MEMBER_UNALIGNED,
)
from dlopen.core.base.errors cimport error_clear, fail, fail_system
from dlopen.core.base.kernel cimport PROT_NONE, PROT_READ, PROT_WRITE
from dlopen.core.base.words cimport align_down, align_up, larger, smaller
from dlopen.core.elf.constants cimport PF_W, PF_X, PT_LOAD
from dlopen.core.elf.layout cimport Layout, relro_size, relro_start
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.memory.arena cimport (
    Arena, Slot, give_back_slot, protect_constants, protect_sealed, take_slot,
)
from dlopen.core.memory.file cimport File, file_read
from dlopen.core.memory.memory cimport (
    MEMORY_NAME_SIZE, is_memory_error, memory_clear, memory_map, memory_map_zeroes, memory_name,
    memory_name_of, memory_protect, memory_protect_written, memory_release, memory_take_huge_pages,
    memory_take_pages, protection_of,
)
from dlopen.core.memory.room cimport (
    POPULATE_LEAST, WRITTEN_LIMIT, Room, fail_to_map, measure, reserve,
)


cdef inline int map_file_segment(
    const Layout* layout, const Phdr* segment, File* file, const Room* room, uint64_t bias,
    const char* name, Error* error
) noexcept nogil:
    """A segment whose distance to the file is its own: pages of the file, then zeroes."""
    cdef uint64_t start = align_down(segment.p_vaddr, layout.page)
    cdef uint64_t file_end = segment.p_vaddr + segment.p_filesz
    cdef uint64_t file_pages_end = align_up(file_end, layout.page) if segment.p_filesz else start
    cdef uint64_t end = align_up(segment.p_vaddr + segment.p_memsz, layout.page)
    cdef int protection = protection_of(layout, segment)
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
            and POPULATE_LEAST <= file_pages_end - start <= WRITTEN_LIMIT
        result = 0 if segment == room.data else memory_map(
            bias + start, file_pages_end - start,
            protection | PROT_WRITE if has_zeroes and not segment.p_flags & PF_X else protection,
            file.descriptor, file.identity.offset + align_down(segment.p_offset, layout.page),
            populated
        )
        if is_memory_error(result):
            return fail_to_map(file, name, result, error)
        if has_zeroes and file_end < file_pages_end:
            if segment.p_flags & PF_X:
                result = memory_protect(
                    bias + start, file_pages_end - start, PROT_READ | PROT_WRITE
                )
                if result < 0:
                    return fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT, result)
            memory_clear(
                bias + file_end,
                smaller(segment.p_vaddr + segment.p_memsz, file_pages_end) - file_end
            )
        if has_zeroes and not segment.p_flags & PF_W:
            result = memory_protect(bias + start, file_pages_end - start, protection)
            if result < 0:
                return fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT, result)
    if end > file_pages_end:
        result = memory_map_zeroes(bias + file_pages_end, end - file_pages_end, protection)
        if is_memory_error(result):
            return fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP_ZEROES, result)
    return 0


cdef inline int take_huge_pages(
    const Room* room, uint64_t bias, const char* name, Error* error
) noexcept nogil:
    """Of a file: for its writable end."""
    cdef uint64_t size = room.huge_end - room.huge_start
    cdef long result = memory_map_zeroes(bias + room.huge_start, size, PROT_READ | PROT_WRITE)
    if is_memory_error(result):
        return fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP, result)
    memory_take_huge_pages(bias + room.huge_start, size)
    return 0


cdef inline int fill_segment(
    const Layout* layout, const Phdr* segment, const File* file, const Room* room, uint64_t bias,
    const char* name, Error* error
) noexcept nogil:
    """A segment of the writable end: copied into the huge pages, and mapped as far as it lies below
    them. Behind them it has zeroes alone."""
    cdef uint64_t page = align_down(segment.p_vaddr, layout.page)
    cdef uint64_t start = larger(page, room.huge_start)
    cdef uint64_t offset = align_down(segment.p_offset, layout.page)
    cdef uint64_t file_end = segment.p_vaddr + segment.p_filesz
    cdef uint64_t end = align_up(segment.p_vaddr + segment.p_memsz, layout.page)
    cdef int code = 0
    cdef long result = 0
    if page < start:
        result = memory_map(
            bias + page, start - page, PROT_READ | PROT_WRITE, file.descriptor,
            file.identity.offset + offset, start - page >= POPULATE_LEAST
        )
    if not is_memory_error(result) and segment.p_filesz != 0:
        code = file_read(
            file, <void*>(bias + start), file_end - start, offset + start - page, name, error
        )
    start = larger(page, room.huge_end)
    if code == 0 and not is_memory_error(result) and end > start:
        result = memory_map_zeroes(bias + start, end - start, PROT_READ | PROT_WRITE)
    if is_memory_error(result):
        code = fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP, result)
    return code


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
    if code == 0 and protection_of(layout, segment) != PROT_READ | PROT_WRITE:
        result = memory_protect_written(
            bias + start, end - start, protection_of(layout, segment)
        )
        if result < 0:
            code = fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT, result)
    return code


cdef inline int map_all(
    const Layout* layout, File* file, uint64_t* place, uint64_t* bytes_bias,
    const char* name, Error* error
) noexcept nogil:
    """On failure nothing stays mapped. *place is that of Registry."""
    cdef char text[MEMORY_NAME_SIZE]
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
    code = reserve(layout, file, &room, place, &base, name, error)
    if code:
        return code
    bias = base - layout.start
    if file.is_copied:
        memory_name_of(name, &text[0])
        memory_name(base, room.size, &text[0])
    if room.is_huge:
        memory_take_huge_pages(base, room.size)
    elif room.content != 0:
        memory_take_pages(base, align_up(room.content, layout.page))
    elif room.huge_start != room.huge_end:
        code = take_huge_pages(&room, bias, name, error)
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
        elif previous_end > room.huge_start and room.huge_start != room.huge_end:
            code = fill_segment(layout, segment, file, &room, bias, name, error)
        elif not file.is_copied:
            code = map_file_segment(layout, segment, file, &room, bias, name, error)
        else:
            code = copy_segment(layout, segment, file, bias, name, error)
        if code:
            memory_release(base, room.size)
            return code
    if bias + layout.end != base + room.size:
        memory_release(bias + layout.end, base + room.size - (bias + layout.end))
    bytes_bias[0] = bias
    store_u64(place, base)
    return 0


cdef inline int read_run(
    const Layout* layout, const File* file, const Slot* slot, uint64_t start, uint64_t end,
    uint64_t zeroes_end, uint64_t offset, const char* name, Error* error
) noexcept nogil:
    """[start, end) of what the file has from `offset` on, as p_vaddr; and zeroes around it, from
    the page that it begins in to `zeroes_end`, where another image has been."""
    cdef uint64_t bias = slot.start - layout.start
    if slot.is_used:
        memory_clear(bias + align_down(start, layout.page), start & (layout.page - 1))
        memory_clear(bias + end, zeroes_end - end)
    return file_read(file, <void*>(bias + start), end - start, offset, name, error) \
        if end != start else 0


cdef inline int read_into_slot(
    const Layout* layout, const File* file, const Slot* slot, const char* name, Error* error
) noexcept nogil:
    """All segments. Those that follow each other in the file as in memory in one call, with what
    is between them, as a mapping would have it."""
    cdef const Phdr* first = NULL
    cdef const Phdr* last = NULL
    cdef const Phdr* segment = NULL
    cdef uint32_t i
    cdef int code = 0
    for i in range(layout.phnum + 1):
        if i < layout.phnum:
            segment = &layout.phdrs[i]
            if segment.p_type != PT_LOAD or segment.p_memsz == 0:
                continue
            if last != NULL and last.p_filesz == last.p_memsz and segment.p_filesz != 0 \
                    and segment.p_vaddr - last.p_vaddr == segment.p_offset - last.p_offset \
                    and align_down(segment.p_vaddr, layout.page) \
                    == align_up(last.p_vaddr + last.p_memsz, layout.page):
                last = segment
                continue
        if first != NULL and code == 0:
            code = read_run(
                layout, file, slot, first.p_vaddr, last.p_vaddr + last.p_filesz,
                align_up(last.p_vaddr + last.p_memsz, layout.page), first.p_offset, name, error
            )
        first = segment
        last = segment
    return code


cdef inline int copy_member(
    File* file, uint32_t why, const char* name, Error* error
) noexcept nogil:
    """It is to be copied, unless it may only be mapped."""
    if file.member.flags & DLOPEN_MEMBER_MAPPED_ONLY:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, why)
    file.is_copied = True
    file.copied_for = why
    error_clear(error)
    return 0


cdef inline int map_or_copy(
    const Layout* layout, File* file, uint64_t* place, uint64_t* bytes_bias, const char* name,
    Error* error
) noexcept nogil:
    """As `map_all`, and again where a member cannot be mapped."""
    cdef int code = 0
    if not file.is_member:
        return map_all(layout, file, place, bytes_bias, name, error)
    if file.bytes != NULL:
        code = copy_member(file, DETAIL_MEMBER_COMPRESSED, name, error)
    elif file.identity.offset & (layout.page - 1):
        code = copy_member(file, DETAIL_MEMBER_UNALIGNED, name, error)
    if code == 0:
        code = map_all(layout, file, place, bytes_bias, name, error)
    if code == 0 or not file.is_refused or file.is_copied:
        return code
    code = copy_member(file, DETAIL_MEMBER_NOEXEC, name, error)
    return code if code else map_all(layout, file, place, bytes_bias, name, error)


cdef inline int map_segments(
    const Layout* layout, File* file, uint64_t* place, Arena* arena, Slot** slot,
    uint64_t* bytes_bias, const char* name, Error* error
) noexcept nogil:
    """All of them: into a slot of the arena, if one is given (not NULL) and they fit there, else
    mapped, with *place of Registry. On failure nothing stays."""
    cdef int code
    if file.member.flags & DLOPEN_MEMBER_MAPPED_ONLY:
        arena = NULL
    slot[0] = take_slot(arena, layout, name) if arena != NULL else NULL
    if slot[0] == NULL:
        return map_or_copy(layout, file, place, bytes_bias, name, error)
    bytes_bias[0] = slot[0].start - layout.start
    code = read_into_slot(layout, file, slot[0], name, error)
    if code == 0 and protect_constants(slot[0], layout):
        return 0
    give_back_slot(slot[0])
    slot[0] = NULL
    return code if code else map_or_copy(layout, file, place, bytes_bias, name, error)


cdef inline int protect_text(
    const Layout* layout, uint64_t bias, bint writable, const char* name, Error* error
) noexcept nogil:
    """For DT_TEXTREL: segments that are not writable become so, without being executable
    meanwhile, and get their own protection back."""
    cdef uint32_t i
    cdef const Phdr* segment
    cdef uint64_t start, size
    cdef long result
    for i in range(layout.phnum):
        segment = &layout.phdrs[i]
        if segment.p_type != PT_LOAD or segment.p_memsz == 0 or segment.p_flags & PF_W:
            continue
        start = align_down(segment.p_vaddr, layout.page)
        size = align_up(segment.p_vaddr + segment.p_memsz, layout.page) - start
        if writable:
            result = memory_protect(bias + start, size, PROT_READ | PROT_WRITE)
        else:
            result = memory_protect_written(
                bias + start, size, protection_of(layout, segment)
            )
        if result < 0:
            return fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT_TEXT, result)
    return 0


cdef inline int protect_relro(
    const Layout* layout, uint64_t bias, const Slot* slot, const char* name, Error* error
) noexcept nogil:
    """PT_GNU_RELRO becomes read-only; in a slot with what is constant before it."""
    cdef uint64_t size = relro_size(layout)
    cdef long result
    if size == 0:
        return 0
    if slot != NULL:
        result = protect_sealed(slot, bias + relro_start(layout))
    else:
        result = memory_protect(bias + relro_start(layout), size, PROT_READ)
    if result < 0:
        return fail_system(error, DLOPEN_E_PROTECT, name, DETAIL_CANNOT_PROTECT_RELRO, result)
    return 0
