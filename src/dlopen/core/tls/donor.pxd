"""Static TLS for images of ours that ask for it with initial-exec relocations.

Only the host's loader can give room at a fixed distance from every thread's pointer, in
threads that run already too. So it is given a library to open: a donor, an ELF file made
here, whose PT_TLS is the image's own and which two relocations tell where that went.
The same two, with a symbol, ask where the storage of a library of the host's is.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.kernel cimport kernel_descriptors_folder
from dlopen.core.base.strings cimport strlen
from dlopen.core.base.words cimport align_up
from dlopen.core.elf.constants cimport (
    DF_STATIC_TLS, DT_FLAGS, DT_INIT_ARRAY, DT_INIT_ARRAYSZ, DT_NEEDED, DT_NULL, DT_RELA,
    DT_RELAENT, DT_RELASZ, DT_STRSZ, DT_STRTAB, DT_SYMENT, DT_SYMTAB, EI_CLASS, EI_DATA, EI_VERSION,
    ELFCLASS64, ELFDATA2LSB, ET_DYN, EV_CURRENT, PF_R, PF_W, PT_DYNAMIC, PT_GNU_STACK, PT_LOAD,
    PT_TLS, STB_GLOBAL, STT_TLS,
)
from dlopen.core.elf.structures cimport Dyn, Ehdr, Phdr, Rela, Sym


cdef enum:
    DONOR_SEGMENTS = 4
    DONOR_ENTRIES = 10
    DONOR_ALIGNMENT = 0x10000    # the largest page of any machine


cdef struct DonorFile:           # the file's first bytes, mapped at its own offsets
    Ehdr header
    Phdr segments[DONOR_SEGMENTS]
    Dyn dynamic[DONOR_ENTRIES]
    Rela relocations[2]
    Sym symbols[2]               # the null symbol, and one to ask for
    char strings[8]
    # What the host's loader writes: the distance of the block, or of the symbol, from the
    # thread pointer, and the module id.
    uint64_t offset
    uint64_t module


cdef inline void fill_donor(
    DonorFile* file, uint64_t content, uint64_t content_size, uint64_t size, uint64_t alignment
) noexcept nogil:
    """`content` is where in the file the `content_size` bytes begin."""
    cdef uint64_t whole = content + content_size
    file.header.e_ident[0] = 0x7f
    file.header.e_ident[1] = 0x45
    file.header.e_ident[2] = 0x4c
    file.header.e_ident[3] = 0x46
    file.header.e_ident[EI_CLASS] = ELFCLASS64
    file.header.e_ident[EI_DATA] = ELFDATA2LSB
    file.header.e_ident[EI_VERSION] = EV_CURRENT
    file.header.e_type = ET_DYN
    file.header.e_machine = THIS_MACHINE.number
    file.header.e_flags = THIS_MACHINE.flags
    file.header.e_version = EV_CURRENT
    file.header.e_phoff = sizeof(Ehdr)
    file.header.e_ehsize = sizeof(Ehdr)
    file.header.e_phentsize = sizeof(Phdr)
    file.header.e_phnum = DONOR_SEGMENTS
    file.segments[0].p_type = PT_LOAD
    file.segments[0].p_flags = PF_R | PF_W
    file.segments[0].p_filesz = whole
    file.segments[0].p_memsz = whole
    file.segments[0].p_align = DONOR_ALIGNMENT
    file.segments[1].p_type = PT_DYNAMIC
    file.segments[1].p_flags = PF_R | PF_W
    file.segments[1].p_offset = <uint64_t>&file.dynamic[0] - <uint64_t>file
    file.segments[1].p_vaddr = file.segments[1].p_offset
    file.segments[1].p_filesz = sizeof(file.dynamic)
    file.segments[1].p_memsz = sizeof(file.dynamic)
    file.segments[1].p_align = 8
    file.segments[2].p_type = PT_TLS
    file.segments[2].p_flags = PF_R
    file.segments[2].p_offset = content
    file.segments[2].p_vaddr = content
    file.segments[2].p_filesz = content_size
    file.segments[2].p_memsz = size
    file.segments[2].p_align = alignment
    # Without it the host would make the stack executable.
    file.segments[3].p_type = PT_GNU_STACK
    file.segments[3].p_flags = PF_R | PF_W
    file.segments[3].p_align = 16
    file.dynamic[0].d_tag = DT_STRTAB
    file.dynamic[0].d_val = <uint64_t>&file.strings[0] - <uint64_t>file
    file.dynamic[1].d_tag = DT_STRSZ
    file.dynamic[1].d_val = sizeof(file.strings)
    file.dynamic[2].d_tag = DT_SYMTAB
    file.dynamic[2].d_val = <uint64_t>&file.symbols[0] - <uint64_t>file
    file.dynamic[3].d_tag = DT_SYMENT
    file.dynamic[3].d_val = sizeof(Sym)
    file.dynamic[4].d_tag = DT_RELA
    file.dynamic[4].d_val = <uint64_t>&file.relocations[0] - <uint64_t>file
    file.dynamic[5].d_tag = DT_RELASZ
    file.dynamic[5].d_val = sizeof(file.relocations)
    file.dynamic[6].d_tag = DT_RELAENT
    file.dynamic[6].d_val = sizeof(Rela)
    file.dynamic[7].d_tag = DT_FLAGS
    file.dynamic[7].d_val = DF_STATIC_TLS
    file.relocations[0].r_offset = <uint64_t>&file.offset - <uint64_t>file
    file.relocations[0].r_info = THIS_MACHINE.tpoff
    file.relocations[1].r_offset = <uint64_t>&file.module - <uint64_t>file
    file.relocations[1].r_info = THIS_MACHINE.dtpmod


cdef inline char* make_donor(
    const void* content, uint64_t content_size, uint64_t size,
    uint64_t alignment, uint64_t first_byte, uint64_t* file_size
) noexcept nogil:
    """A file, to be released; NULL without memory. `first_byte` is the p_vaddr of the image's
    PT_TLS modulo the alignment, which its offsets count on."""
    cdef uint64_t start = align_up(sizeof(DonorFile), alignment) + first_byte
    cdef char* file = <char*>allocate(start + content_size)
    file_size[0] = start + content_size
    if file == NULL:
        return NULL
    fill_donor(<DonorFile*>file, start, content_size, size, alignment)
    if content_size != 0:
        memcpy(file + start, content, content_size)
    return file


cdef inline char* make_question(
    const char* symbol, const char* library, uint64_t* file_size
) noexcept nogil:
    """A file, to be released, that has no storage of its own and refers to a thread-local symbol of
    a library of the host's; NULL without memory."""
    cdef size_t symbol_size = strlen(symbol) + 1
    cdef size_t library_size = strlen(library) + 1
    cdef size_t size = sizeof(DonorFile) + 1 + symbol_size + library_size
    cdef DonorFile* file = <DonorFile*>allocate(size)
    cdef char* strings = <char*>file + sizeof(DonorFile)
    file_size[0] = size
    if file == NULL:
        return NULL
    fill_donor(file, size, 0, 0, 1)
    memcpy(strings + 1, symbol, symbol_size)
    memcpy(strings + 1 + symbol_size, library, library_size)
    file.dynamic[0].d_val = sizeof(DonorFile)
    file.dynamic[1].d_val = size - sizeof(DonorFile)
    file.dynamic[8].d_tag = DT_NEEDED
    file.dynamic[8].d_val = 1 + symbol_size
    file.symbols[1].st_name = 1
    file.symbols[1].st_info = STB_GLOBAL << 4 | STT_TLS
    file.relocations[0].r_info |= <uint64_t>1 << 32
    file.relocations[1].r_info |= <uint64_t>1 << 32
    return <char*>file


cdef inline void make_caller(DonorFile* file, void* function) noexcept nogil:
    """A donor of nothing whose one constructor is a function of ours, if any, which the host's
    loader then runs under its own lock."""
    memset(file, 0, sizeof(DonorFile))
    fill_donor(file, sizeof(DonorFile), 0, 0, 1)
    # Instead of the relocations. The loader takes the array's entries as they are.
    file.offset = <uint64_t>function
    file.dynamic[4].d_tag = DT_INIT_ARRAY
    file.dynamic[4].d_val = <uint64_t>&file.offset - <uint64_t>file
    file.dynamic[5].d_tag = DT_INIT_ARRAYSZ
    file.dynamic[5].d_val = sizeof(file.offset) if function != NULL else 0
    file.dynamic[6].d_tag = DT_NULL


cdef inline void donor_path(long descriptor, uint64_t number, char* path) noexcept nogil:
    """/proc/PID/fd/N in a spelling of its own for each donor (`number`): a descriptor's
    number comes again, and the host's loader would take the name for the old file's. `path`
    has room for 160 bytes."""
    cdef char digits[24]
    cdef int count = 0
    cdef int bit
    path += kernel_descriptors_folder(path)
    for bit in range(40):
        if number >> bit == 0:
            break
        path[0] = 0x2e
        path[1] = 0x2f
        path += 2
        if number >> bit & 1:
            path[0] = 0x2f
            path += 1
    while True:
        digits[count] = <char>(0x30 + descriptor % 10)
        descriptor //= 10
        count += 1
        if descriptor == 0:
            break
    while count:
        count -= 1
        path[0] = digits[count]
        path += 1
    path[0] = 0
