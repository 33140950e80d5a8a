"""The address range of an image, and which of its pages are huge.

What is written costs pages: zeroing, accounting and mapping one takes several times as long as
filling it, and a private page of a file that is written to is such a page, too. So where half a
megabyte or more of them is to be filled, they are huge pages of zeroes, each of which the kernel
gives for 512 small ones, and the file is copied into them:

- of a file its *writable end*: the segments that are written to, as far as none follows that is
  not. It is aligned to huge pages, and with it the image. What is behind it of the last
  huge page is given back;
- of bytes all.

The data of a small library is mapped beside what is read, and not over a part of it, which would
cost as much as another mapping. For that it is tried whether there is room below what was mapped
last, or where it was if it has gone since: as a rule that is the place which the kernel
would take, and who asks it learns it too late. If there is not, the kernel finds one.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport HUGE_LEAST, HUGE_PAGE
from dlopen.core.base.atomics cimport load_u64
from dlopen.core.base.contract cimport DLOPEN_E_MAP, Error
from dlopen.core.base.details cimport DETAIL_CANNOT_MAP
from dlopen.core.base.errors cimport fail_system
from dlopen.core.base.kernel cimport EACCES, ENODEV, EPERM, PROT_READ, PROT_WRITE
from dlopen.core.base.words cimport align_down, align_up, smaller
from dlopen.core.elf.constants cimport PF_R, PF_W, PT_LOAD
from dlopen.core.elf.layout cimport Layout
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.memory.file cimport File
from dlopen.core.memory.memory cimport (
    is_memory_error, memory_map, memory_map_if_free, memory_release, memory_reserve,
    memory_reserve_file,
)


cdef enum:
    # Of bytes: from here on one call for all pages costs less than a fault for each.
    COPY_POPULATE_LEAST = 0x10000
    # Above this, pages of a file that nothing may ever touch cost more than the faults they save.
    WRITTEN_LIMIT = 0x1000000
    # Of data: from here to WRITTEN_LIMIT one call for all pages costs less than a fault for each.
    POPULATE_LEAST = 0x10000


cdef struct Room:
    uint64_t size
    uint64_t alignment           # of the load bias, when `phase` is taken from it
    uint64_t phase
    uint64_t content             # from bytes: up to the last that comes from the file
    bint is_huge                 # from bytes: in huge pages
    # Of a file, as p_vaddr: what is copied into huge pages; empty if nothing is.
    uint64_t huge_start
    uint64_t huge_end
    const Phdr* data             # of a file: small, mapped beside the rest if that can be; or NULL


cdef inline void measure_bytes(Room* room, const Layout* layout) noexcept nogil:
    """A file whose segments lie far apart gets small pages: few of the others' would be filled."""
    cdef uint32_t i
    cdef const Phdr* segment
    cdef uint64_t end = layout.start
    cdef uint64_t copied = 0
    for i in range(layout.phnum):
        segment = &layout.phdrs[i]
        if segment.p_type == PT_LOAD and segment.p_filesz != 0:
            end = segment.p_vaddr + segment.p_filesz
            copied += segment.p_filesz
    if copied < COPY_POPULATE_LEAST or end - layout.start > 2 * copied:
        return
    room.content = end - layout.start
    if copied < HUGE_LEAST:
        return
    room.is_huge = True
    if room.alignment < HUGE_PAGE:
        room.alignment = HUGE_PAGE
    if layout.end < align_up(end, HUGE_PAGE):
        room.size = align_up(end, HUGE_PAGE) - layout.start


cdef inline bint is_small_data(
    const Layout* layout, const Phdr* segment, uint64_t before
) noexcept nogil:
    """Few pages, of the file only, directly behind those `before`, and mapped by themselves."""
    cdef uint64_t start = align_down(segment.p_vaddr, layout.page)
    return segment.p_flags == PF_R | PF_W and segment.p_filesz != 0 and start == before \
        and layout.end == align_up(segment.p_vaddr + segment.p_filesz, layout.page) \
        and layout.end - start < POPULATE_LEAST \
        and segment.p_offset - segment.p_vaddr \
        != layout.first_load.p_offset - layout.first_load.p_vaddr


cdef inline void measure_written(Room* room, const Layout* layout) noexcept nogil:
    """Of a file: its writable end, or its small data."""
    cdef uint32_t i
    cdef const Phdr* segment
    cdef const Phdr* last = layout.first_load
    cdef uint64_t before = 0
    cdef uint64_t start = 0
    cdef uint64_t first_end = 0
    cdef uint64_t end = 0
    cdef uint64_t copied = 0
    for i in range(layout.phnum):
        segment = &layout.phdrs[i]
        if segment.p_type != PT_LOAD or segment.p_memsz == 0:
            continue
        before = align_up(last.p_vaddr + last.p_memsz, layout.page)
        last = segment
        if segment.p_flags != PF_R | PF_W:
            copied = 0
        elif segment.p_filesz != 0:
            if copied == 0:
                start = align_down(segment.p_vaddr, layout.page)
                first_end = segment.p_vaddr + segment.p_filesz
            end = segment.p_vaddr + segment.p_filesz
            copied += segment.p_filesz
    if is_small_data(layout, last, before):
        room.data = last
    if copied < HUGE_LEAST or copied > WRITTEN_LIMIT:
        return
    # The load bias is a multiple of the image's own alignment, too.
    start = align_up(start, smaller(layout.alignment, HUGE_PAGE))
    if first_end <= start or end < start + HUGE_LEAST or end - start > 2 * copied:
        return
    room.huge_start = start
    room.huge_end = start + align_up(end - start, HUGE_PAGE)
    if room.alignment < HUGE_PAGE:
        room.alignment = HUGE_PAGE
        room.phase = start & (HUGE_PAGE - 1)
    if layout.end < room.huge_end:
        room.size = room.huge_end - layout.start


cdef inline void measure(Room* room, const Layout* layout, const File* file) noexcept nogil:
    room.size = layout.end - layout.start
    room.alignment = layout.alignment
    room.phase = 0
    room.content = 0
    room.is_huge = False
    room.huge_start = 0
    room.huge_end = 0
    room.data = NULL
    if file.is_copied:
        measure_bytes(room, layout)
    else:
        measure_written(room, layout)


cdef inline bint map_side_by_side(
    const Layout* layout, const File* file, const Room* room, uint64_t end, uint64_t* base
) noexcept nogil:
    """Up to `end`, if there is room below it."""
    cdef uint64_t size = align_down(room.data.p_vaddr, layout.page) - layout.start
    if end <= room.size:
        return False
    base[0] = end - room.size
    if not memory_map_if_free(
        base[0], size, PROT_READ, file.descriptor,
        file.identity.offset + align_down(layout.first_load.p_offset, layout.page)
    ):
        return False
    if memory_map_if_free(
        base[0] + size, room.size - size, PROT_READ | PROT_WRITE, file.descriptor,
        file.identity.offset + align_down(room.data.p_offset, layout.page)
    ):
        return True
    memory_release(base[0], size)
    return False


cdef inline int fail_to_map(
    File* file, const char* name, long result, Error* error
) noexcept nogil:
    """Notes whether that is the rule for all files of its file system (mount(8): noexec)."""
    file.is_refused = result == -EPERM or result == -EACCES or result == -ENODEV
    return fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP, result)


cdef inline int reserve(
    const Layout* layout, File* file, Room* room, const uint64_t* place, uint64_t* base,
    const char* name, Error* error
) noexcept nogil:
    """The address range of all segments, aligned; of a file, with the file mapped into it."""
    cdef bint aligned = room.alignment > layout.page
    cdef uint64_t size = room.size + room.alignment if aligned else room.size
    cdef uint64_t wanted
    cdef long result
    if room.data != NULL and not aligned \
            and map_side_by_side(layout, file, room, load_u64(place), base):
        return 0
    room.data = NULL
    if not file.is_copied and not aligned:
        result = memory_reserve_file(
            size, file.descriptor,
            file.identity.offset + align_down(layout.first_load.p_offset, layout.page)
        )
    else:
        result = memory_reserve(size, file.is_copied)
    if is_memory_error(result):
        return fail_to_map(file, name, result, error)
    base[0] = <uint64_t>result
    if not aligned:
        return 0
    wanted = align_up(base[0] - layout.start + room.phase, room.alignment) \
        - room.phase + layout.start
    if wanted != base[0]:
        memory_release(base[0], wanted - base[0])
    if wanted + room.size != base[0] + size:
        memory_release(wanted + room.size, base[0] + size - (wanted + room.size))
    base[0] = wanted
    if not file.is_copied:
        result = memory_map(
            wanted, room.size, PROT_READ, file.descriptor,
            file.identity.offset + align_down(layout.first_load.p_offset, layout.page), False
        )
        if is_memory_error(result):
            memory_release(wanted, room.size)
            return fail_system(error, DLOPEN_E_MAP, name, DETAIL_CANNOT_MAP, result)
    return 0
