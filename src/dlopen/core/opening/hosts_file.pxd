"""A file that must be the host's, by what it says of itself: it is not mapped to learn that, as
the host's loader will map it.

Only a file whose name is that of such a library is looked at. Whatever is unusual about it is left
to the common way, which maps and checks it first, and then asks the same."""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.strings cimport strlen
from dlopen.core.base.words cimport smaller
from dlopen.core.elf.constants cimport DT_NULL, DT_SONAME, DT_STRTAB, PT_DYNAMIC, PT_LOAD
from dlopen.core.elf.structures cimport Dyn, Ehdr, Phdr
from dlopen.core.host.libraries cimport is_family_name
from dlopen.core.image.naming cimport base_name
from dlopen.core.memory.file cimport File, file_read
from dlopen.core.opening.map_image cimport read_header


cdef enum:
    SONAME_ROOM = 64
    DYNAMIC_ROOM = 64            # entries; those of libc's libraries have half as many


cdef struct FileSoname:
    char text[SONAME_ROOM]


cdef inline const Phdr* file_headers(const File* file, const Ehdr* header) noexcept nogil:
    """Where they are in what was read of it already; NULL: they are not."""
    cdef uint64_t size = header.e_phnum * sizeof(Phdr)
    if header.e_phoff & 7 or header.e_phoff > file.start_size \
            or size > file.start_size - header.e_phoff:
        return NULL
    return <const Phdr*>(&file.start[0] + header.e_phoff)


cdef inline bint read_soname(
    const File* file, const Phdr* phdrs, uint32_t count, FileSoname* soname
) noexcept nogil:
    """As the dynamic section has it. False: it cannot be told so."""
    cdef Dyn dynamic[DYNAMIC_ROOM]
    cdef const Phdr* segment
    cdef uint64_t strings = 0
    cdef uint64_t name = 0
    cdef uint64_t entries = 0
    cdef uint64_t offset = 0
    cdef uint64_t size
    cdef uint64_t i
    for i in range(count):
        segment = &phdrs[i]
        if segment.p_type == PT_DYNAMIC:
            entries = segment.p_filesz // sizeof(Dyn)
            offset = segment.p_offset
    if entries == 0 or entries > DYNAMIC_ROOM or offset > file.size \
            or entries * sizeof(Dyn) > file.size - offset \
            or file_read(file, &dynamic[0], entries * sizeof(Dyn), offset, b"", NULL) != 0:
        return False
    for i in range(entries):
        if dynamic[i].d_tag == DT_NULL:
            break
        if dynamic[i].d_tag == DT_STRTAB:
            strings = dynamic[i].d_val
        elif dynamic[i].d_tag == DT_SONAME:
            name = dynamic[i].d_val
    if strings == 0 or name == 0:
        return False
    offset = 0
    for i in range(count):
        segment = &phdrs[i]
        if segment.p_type == PT_LOAD and strings >= segment.p_vaddr \
                and strings - segment.p_vaddr < segment.p_filesz:
            offset = segment.p_offset + (strings - segment.p_vaddr)
    if offset == 0 or offset > file.size or name >= file.size - offset:
        return False
    offset += name
    size = smaller(file.size - offset, SONAME_ROOM - 1)
    soname.text[size] = 0
    return file_read(file, &soname.text[0], size, offset, b"", NULL) == 0 \
        and strlen(&soname.text[0]) < size


cdef inline bint is_hosts_file(
    const File* file, const char* name, FileSoname* soname
) noexcept nogil:
    """The file that was found for this name must be the host's: its soname. False for bytes, and
    for a member that is compressed."""
    cdef Ehdr header
    cdef const Phdr* phdrs
    if file.descriptor < 0 or not is_family_name(base_name(name)) \
            or read_header(file, &header, False, name, NULL) != 0:
        return False
    phdrs = file_headers(file, &header)
    return phdrs != NULL and read_soname(file, phdrs, header.e_phnum, soname) \
        and is_family_name(&soname.text[0])
