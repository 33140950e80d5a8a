"""Where a file says that a debugger may stop: SystemTap's probes, notes in sections that
are not loaded (its UserSpaceProbeImplementation). Most files have none: so the headers of the
sections are read, and nothing is mapped."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.kernel cimport kernel_read_at
from dlopen.core.base.strings cimport memcmp, strcmp, strlen
from dlopen.core.elf.constants cimport NT_STAPSDT, SHF_ALLOC, SHT_NOTE
from dlopen.core.elf.notes cimport Notes, next_note
from dlopen.core.elf.structures cimport Ehdr, Shdr


cdef enum:
    MAX_PROBE_NOTES = 1 << 20    # bytes; ld.so's are below a thousand


cdef inline void* read_part(long descriptor, uint64_t offset, uint64_t size) noexcept nogil:
    """Of a file, to be released; NULL without memory, or where the file has not that much."""
    cdef void* part = allocate(size)
    if part != NULL and kernel_read_at(descriptor, part, size, offset) != <long>size:
        release(part)
        part = NULL
    return part


cdef inline uint64_t probe_address(
    const char* note, uint32_t size, const char* provider, const char* name
) noexcept nogil:
    """Three addresses (the place's comes first) and three strings; 0: another probe."""
    cdef uint64_t address = 0
    cdef uint64_t start = 3 * sizeof(uint64_t)
    if size <= start or note[size - 1] != 0 or strcmp(note + start, provider) != 0:
        return 0
    start += strlen(provider) + 1
    if start >= size or strcmp(note + start, name) != 0:
        return 0
    memcpy(&address, note, sizeof(address))
    return address


cdef inline uint64_t find_in_notes(
    const char* notes, uint64_t end, const char* provider, const char* name
) noexcept nogil:
    """The first probe of that name, in p_vaddr terms; 0 if there is none."""
    cdef Notes found
    cdef uint64_t address = 0
    memset(&found, 0, sizeof(found))
    found.content = notes
    found.size = end
    found.alignment = 4
    while address == 0 and next_note(&found):
        if found.header.n_type == NT_STAPSDT and found.header.n_namesz == 8 \
                and memcmp(found.name, b"stapsdt", 8) == 0:
            address = probe_address(found.description, found.header.n_descsz, provider, name)
    return address


cdef inline uint64_t find_probe(
    long descriptor, const char* provider, const char* name
) noexcept nogil:
    """The first one of that name in the file, in p_vaddr terms; 0 if there is none."""
    cdef Ehdr header
    cdef Shdr* sections
    cdef char* notes
    cdef uint64_t address = 0
    cdef uint32_t i
    if kernel_read_at(descriptor, &header, sizeof(header), 0) != <long>sizeof(header) \
            or header.e_shentsize != sizeof(Shdr) or header.e_shnum == 0:
        return 0
    sections = <Shdr*>read_part(descriptor, header.e_shoff, header.e_shnum * sizeof(Shdr))
    if sections == NULL:
        return 0
    for i in range(header.e_shnum):
        if address != 0 or sections[i].sh_type != SHT_NOTE or sections[i].sh_flags & SHF_ALLOC \
                or sections[i].sh_size > MAX_PROBE_NOTES:
            continue
        notes = <char*>read_part(descriptor, sections[i].sh_offset, sections[i].sh_size)
        if notes != NULL:
            address = find_in_notes(notes, sections[i].sh_size, provider, name)
        release(notes)
    release(sections)
    return address
