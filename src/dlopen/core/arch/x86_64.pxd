"""x86-64: the relocation table of the System V psABI, AMD64 supplement."""

from libc.stdint cimport uint32_t

from dlopen.core.base.contract cimport (
    DLOPEN_R_COPY, DLOPEN_R_DTPMOD, DLOPEN_R_DTPOFF, DLOPEN_R_GLOB_DAT, DLOPEN_R_IRELATIVE,
    DLOPEN_R_JUMP_SLOT, DLOPEN_R_NONE, DLOPEN_R_PC_RELATIVE, DLOPEN_R_RELATIVE, DLOPEN_R_SIZE,
    DLOPEN_R_SYMBOLIC, DLOPEN_R_TLSDESC, DLOPEN_R_TPOFF, DLOPEN_R_UNKNOWN,
)


cdef enum:
    R_X86_64_NONE = 0
    R_X86_64_64 = 1
    R_X86_64_PC32 = 2
    R_X86_64_COPY = 5
    R_X86_64_GLOB_DAT = 6
    R_X86_64_JUMP_SLOT = 7
    R_X86_64_RELATIVE = 8
    R_X86_64_32 = 10
    R_X86_64_DTPMOD64 = 16
    R_X86_64_DTPOFF64 = 17
    R_X86_64_TPOFF64 = 18
    R_X86_64_PC64 = 24
    R_X86_64_SIZE32 = 32
    R_X86_64_SIZE64 = 33
    R_X86_64_TLSDESC = 36
    R_X86_64_IRELATIVE = 37
    R_X86_64_RELATIVE64 = 38


cdef enum:
    X86_64_INT3 = 0xcc
    # glibc adds the load bias to addresses in the dynamic section (its DL_RO_DYN_SECTION is 0);
    # so it does on aarch64 and loongarch64. On riscv64, and under musl, the section stays as it is.
    X86_64_MOVES_DYNAMIC_POINTERS = 1


cdef inline uint32_t relocation_kind(uint32_t number) noexcept nogil:
    if number == R_X86_64_RELATIVE or number == R_X86_64_RELATIVE64:
        return DLOPEN_R_RELATIVE
    elif number == R_X86_64_64 or number == R_X86_64_32:
        return DLOPEN_R_SYMBOLIC
    elif number == R_X86_64_GLOB_DAT:
        return DLOPEN_R_GLOB_DAT
    elif number == R_X86_64_JUMP_SLOT:
        return DLOPEN_R_JUMP_SLOT
    elif number == R_X86_64_PC32 or number == R_X86_64_PC64:
        return DLOPEN_R_PC_RELATIVE
    elif number == R_X86_64_COPY:
        return DLOPEN_R_COPY
    elif number == R_X86_64_IRELATIVE:
        return DLOPEN_R_IRELATIVE
    elif number == R_X86_64_DTPMOD64:
        return DLOPEN_R_DTPMOD
    elif number == R_X86_64_DTPOFF64:
        return DLOPEN_R_DTPOFF
    elif number == R_X86_64_TPOFF64:
        return DLOPEN_R_TPOFF
    elif number == R_X86_64_TLSDESC:
        return DLOPEN_R_TLSDESC
    elif number == R_X86_64_SIZE32 or number == R_X86_64_SIZE64:
        return DLOPEN_R_SIZE
    elif number == R_X86_64_NONE:
        return DLOPEN_R_NONE
    return DLOPEN_R_UNKNOWN


cdef inline uint32_t relocation_width(uint32_t number) noexcept nogil:
    """Bytes at the place; a COPY's is its symbol's size, 0 here."""
    if number == R_X86_64_PC32 or number == R_X86_64_32 or number == R_X86_64_SIZE32:
        return 4
    elif number == R_X86_64_TLSDESC:
        return 16
    elif number == R_X86_64_NONE or number == R_X86_64_COPY:
        return 0
    return 8
