"""The form of a file: the size of its words and the order of their bytes (gABI, "ELF
Identification").

All of the core knows the structs of structures.pxd, of 64 bits and little-endian. A file of another
form is refused here; this is the one place where its header, its program headers and its tables
could be widened into those structs instead.
"""

from dlopen.core.base.contract cimport DLOPEN_E_FORMAT, DLOPEN_E_UNSUPPORTED, Error
from dlopen.core.base.details cimport DETAIL_CLASS, DETAIL_CLASS_32, DETAIL_DATA
from dlopen.core.base.errors cimport fail, fail_at
from dlopen.core.elf.constants cimport EI_CLASS, EI_DATA, ELFCLASS32, ELFCLASS64, ELFDATA2LSB
from dlopen.core.elf.structures cimport Ehdr


cdef inline int check_form(const Ehdr* header, const char* name, Error* error) noexcept nogil:
    if header.e_ident[EI_CLASS] != ELFCLASS64:
        if header.e_ident[EI_CLASS] == ELFCLASS32:
            return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_CLASS_32)
        return fail_at(
            error, DLOPEN_E_FORMAT, name, DETAIL_CLASS, EI_CLASS, header.e_ident[EI_CLASS]
        )
    if header.e_ident[EI_DATA] != ELFDATA2LSB:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_DATA)
    return 0
