"""The structures of a 64-bit ELF file, field names as in the gABI, and its words.

The gABI aligns them, but libc takes tables at any address and editors of ELF files write such:
all have an alignment of 1 here, so that the compiler loads each field as the machine allows it
(a plain load on x86-64). A table is therefore never read through another type.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from *:
    """
    typedef uint16_t dlopen_half __attribute__((aligned(1), may_alias));
    typedef uint32_t dlopen_word __attribute__((aligned(1), may_alias));
    typedef uint64_t dlopen_xword __attribute__((aligned(1), may_alias));
    """
    # Elf64_Half, Elf64_Word and Elf64_Xword, where they stand in a file: for pointers only.
    ctypedef uint16_t Half "dlopen_half"
    ctypedef uint32_t Word "dlopen_word"
    ctypedef uint64_t Xword "dlopen_xword"


cdef packed struct Ehdr:
    uint8_t e_ident[16]
    uint16_t e_type
    uint16_t e_machine
    uint32_t e_version
    uint64_t e_entry
    uint64_t e_phoff
    uint64_t e_shoff
    uint32_t e_flags
    uint16_t e_ehsize
    uint16_t e_phentsize
    uint16_t e_phnum
    uint16_t e_shentsize
    uint16_t e_shnum
    uint16_t e_shstrndx


cdef packed struct Phdr:
    uint32_t p_type
    uint32_t p_flags
    uint64_t p_offset
    uint64_t p_vaddr
    uint64_t p_paddr
    uint64_t p_filesz
    uint64_t p_memsz
    uint64_t p_align


cdef packed struct Shdr:
    uint32_t sh_name
    uint32_t sh_type
    uint64_t sh_flags
    uint64_t sh_addr
    uint64_t sh_offset
    uint64_t sh_size
    uint32_t sh_link
    uint32_t sh_info
    uint64_t sh_addralign
    uint64_t sh_entsize


cdef packed struct Nhdr:
    uint32_t n_namesz
    uint32_t n_descsz
    uint32_t n_type


cdef packed struct Dyn:
    int64_t d_tag
    uint64_t d_val


cdef packed struct Sym:
    uint32_t st_name
    uint8_t st_info
    uint8_t st_other
    uint16_t st_shndx
    uint64_t st_value
    uint64_t st_size


cdef packed struct Rela:
    uint64_t r_offset
    uint64_t r_info
    int64_t r_addend


cdef packed struct Verdef:
    uint16_t vd_version
    uint16_t vd_flags
    uint16_t vd_ndx
    uint16_t vd_cnt
    uint32_t vd_hash
    uint32_t vd_aux
    uint32_t vd_next


cdef packed struct Verdaux:
    uint32_t vda_name
    uint32_t vda_next


cdef packed struct Verneed:
    uint16_t vn_version
    uint16_t vn_cnt
    uint32_t vn_file
    uint32_t vn_aux
    uint32_t vn_next


cdef packed struct Vernaux:
    uint32_t vna_hash
    uint16_t vna_flags
    uint16_t vna_other
    uint32_t vna_name
    uint32_t vna_next


cdef inline uint32_t symbol_type(const Sym* symbol) noexcept nogil:
    return symbol.st_info & 15U


cdef inline uint32_t symbol_binding(const Sym* symbol) noexcept nogil:
    return symbol.st_info >> 4


cdef inline uint32_t symbol_visibility(const Sym* symbol) noexcept nogil:
    return symbol.st_other & 3U


cdef inline uint32_t relocation_type(const Rela* relocation) noexcept nogil:
    return <uint32_t>(relocation.r_info & 0xffffffffU)


cdef inline uint32_t relocation_symbol(const Rela* relocation) noexcept nogil:
    return <uint32_t>(relocation.r_info >> 32)
