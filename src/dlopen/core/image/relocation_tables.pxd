"""Where the relocations of an image lie: DT_RELA, those of the PLT (DT_JMPREL), DT_RELR.

Checked here is that the tables lie in the image; the places that they name are checked when they
are written (relocation/places.pxd).
"""

from libc.stdint cimport uint64_t

from dlopen.core.base.contract cimport DLOPEN_E_UNSUPPORTED, Error
from dlopen.core.base.details cimport (
    DETAIL_JMPREL_OUTSIDE, DETAIL_PLTREL, DETAIL_REL, DETAIL_RELAENT, DETAIL_RELA_OUTSIDE,
    DETAIL_RELRENT, DETAIL_RELR_OUTSIDE,
)
from dlopen.core.base.errors cimport fail
from dlopen.core.elf.constants cimport (
    DT_JMPREL, DT_PLTGOT, DT_PLTREL, DT_PLTRELSZ, DT_REL, DT_RELA, DT_RELAENT, DT_RELASZ, DT_RELR,
    DT_RELRENT, DT_RELRSZ,
)
from dlopen.core.elf.structures cimport Rela, Xword
from dlopen.core.image.checked cimport malformed, table_at
from dlopen.core.image.image cimport Image, Tables, image_name


cdef inline int read_relocations(
    Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    """From the values of the dynamic section; an error where a table cannot be."""
    cdef Tables* tables = &image.tables
    if present[DT_REL]:
        return fail(error, DLOPEN_E_UNSUPPORTED, image_name(image), DETAIL_REL)
    if present[DT_RELA] and values[DT_RELASZ] != 0:
        if present[DT_RELAENT] and values[DT_RELAENT] != sizeof(Rela):
            return malformed(image, error, DETAIL_RELAENT, values[DT_RELAENT])
        tables.rela_count = values[DT_RELASZ] // sizeof(Rela)
        tables.rela = <const Rela*>table_at(image, values[DT_RELA], values[DT_RELASZ])
        if tables.rela == NULL or values[DT_RELASZ] % sizeof(Rela):
            return malformed(image, error, DETAIL_RELA_OUTSIDE, values[DT_RELA])
    if present[DT_JMPREL] and values[DT_PLTRELSZ] != 0:
        if present[DT_PLTREL] and values[DT_PLTREL] != DT_RELA:
            return malformed(image, error, DETAIL_PLTREL, values[DT_PLTREL])
        tables.jmprel_count = values[DT_PLTRELSZ] // sizeof(Rela)
        tables.plt_got = values[DT_PLTGOT]
        tables.jmprel = <const Rela*>table_at(image, values[DT_JMPREL], values[DT_PLTRELSZ])
        if tables.jmprel == NULL or values[DT_PLTRELSZ] % sizeof(Rela):
            return malformed(image, error, DETAIL_JMPREL_OUTSIDE, values[DT_JMPREL])
        # Some linkers count DT_JMPREL's entries in DT_RELASZ too: apply each once.
        if tables.rela != NULL and values[DT_RELA] + values[DT_RELASZ] \
                == values[DT_JMPREL] + values[DT_PLTRELSZ] and values[DT_JMPREL] >= values[DT_RELA]:
            tables.rela_count -= tables.jmprel_count
    if present[DT_RELR] and values[DT_RELRSZ] != 0:
        if present[DT_RELRENT] and values[DT_RELRENT] != 8:
            return malformed(image, error, DETAIL_RELRENT, values[DT_RELRENT])
        tables.relr_count = values[DT_RELRSZ] // 8
        tables.relr = <const Xword*>table_at(image, values[DT_RELR], values[DT_RELRSZ])
        if tables.relr == NULL or values[DT_RELRSZ] & 7:
            return malformed(image, error, DETAIL_RELR_OUTSIDE, values[DT_RELR])
    return 0
