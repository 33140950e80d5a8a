"""Checking before trusting: each address, size, index and string of an image of ours is checked
where it is read from the dynamic section, or where it is used.

A host image was checked by the host's loader, which also relocated most of the addresses in
place (but not in the vDSO): both forms are understood.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.contract cimport DLOPEN_E_FORMAT, Error
from dlopen.core.base.errors cimport fail_at
from dlopen.core.elf.constants cimport PF_W, PF_X
from dlopen.core.elf.layout cimport segment_holding
from dlopen.core.elf.structures cimport Phdr, Rela, Xword
from dlopen.core.image.image cimport Image, MAX_TABLES, Tables, bytes_at, image_name


cdef inline int malformed(
    const Image* image, Error* error, uint32_t rule, uint64_t value
) noexcept nogil:
    """The error of a file that breaks `rule`, with the value that does."""
    return fail_at(error, DLOPEN_E_FORMAT, image_name(image), rule, ~<uint64_t>0, value)


cdef inline void note_table(Image* image, uint64_t address, uint64_t size) noexcept nogil:
    """Remembers a table that later steps trust, so that no relocation overwrites it."""
    cdef Tables* tables = &image.tables
    cdef const Phdr* segment = segment_holding(&image.layout, address, size)
    if segment != NULL and tables.range_count < MAX_TABLES:
        tables.ranges[tables.range_count].start = address
        tables.ranges[tables.range_count].size = size
        tables.range_count += 1
        if segment.p_flags & PF_W:
            tables.has_tables_in_writable_memory = True


cdef inline const void* entry_at(
    const Image* image, uint64_t address, uint64_t size
) noexcept nogil:
    """Bytes of a table; NULL when an image of ours does not have them all."""
    if not image.is_host:
        return bytes_at(image, address, size)
    if address < image.load_bias:
        address += image.load_bias
    return <const void*>address


cdef inline const void* table_at(Image* image, uint64_t address, uint64_t size) noexcept nogil:
    """The whole table at this address, or NULL where the image does not hold it; of an image of
    ours no relocation may write it from now on."""
    cdef const void* bytes = entry_at(image, address, size)
    if bytes != NULL and not image.is_host:
        note_table(image, address, size)
    return bytes


cdef inline uint64_t room_after(const Image* image, uint64_t address) noexcept nogil:
    """Bytes from `address` to the end of what the file gives of its segment."""
    cdef const Phdr* segment
    if image.is_host:
        return ~<uint64_t>0
    segment = segment_holding(&image.layout, address, 1)
    if segment == NULL or address - segment.p_vaddr >= segment.p_filesz:
        return 0
    return segment.p_vaddr + segment.p_filesz - address


cdef struct RelocationTables:   # an image's relocations
    const Xword* relr
    uint64_t relr_count
    uint64_t relative_count      # of a host image: they stand before `rela`, and have no symbol
    const Rela* rela
    uint64_t rela_count
    const Rela* jmprel
    uint64_t jmprel_count


cdef inline bint is_code(const Image* image, uint64_t address) noexcept nogil:
    """`address` (p_vaddr terms) lies in an executable segment."""
    cdef const Phdr* segment = segment_holding(&image.layout, address, 1)
    return segment != NULL and segment.p_flags & PF_X != 0
