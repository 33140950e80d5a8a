"""Where a file says that a debugger may stop: SystemTap's probes, notes in sections that
are not loaded (its UserSpaceProbeImplementation)."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from dlopen.core.base.strings cimport memcmp, strcmp, strlen
from dlopen.core.base.words cimport align_up, range_within
from dlopen.core.elf.constants cimport NT_STAPSDT, SHT_NOTE
from dlopen.core.elf.structures cimport Ehdr, Nhdr, Shdr


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


cdef inline uint64_t find_probe(
    const char* file, uint64_t size, const char* provider, const char* name
) noexcept nogil:
    """The first one of that name, in p_vaddr terms; 0 if there is none."""
    cdef const Ehdr* header = <const Ehdr*>file
    cdef const Shdr* section
    cdef Nhdr note
    cdef uint64_t start, end, content
    cdef uint64_t address = 0
    cdef uint32_t i
    if size < sizeof(Ehdr) or header.e_shentsize != sizeof(Shdr) \
            or not range_within(header.e_shoff, header.e_shnum * sizeof(Shdr), 0, size):
        return 0
    for i in range(header.e_shnum):
        section = <const Shdr*>(file + header.e_shoff) + i
        if section.sh_type != SHT_NOTE \
                or not range_within(section.sh_offset, section.sh_size, 0, size):
            continue
        start = section.sh_offset
        end = start + section.sh_size
        while address == 0 and end - start >= sizeof(Nhdr):
            memcpy(&note, file + start, sizeof(note))
            start += sizeof(Nhdr)
            content = start + align_up(note.n_namesz, 4)
            if content > end or note.n_descsz > end - content:
                break
            if note.n_type == NT_STAPSDT and note.n_namesz == 8 \
                    and memcmp(file + start, b"stapsdt", 8) == 0:
                address = probe_address(file + content, note.n_descsz, provider, name)
            start = content + align_up(note.n_descsz, 4)
            if start > end:
                break
    return address
