"""DLOPEN_relocations: each relocation of an image, of all three tables, in generic words (enum
DLOPEN_relocation_kind); RELR is written out as single places."""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.arch.machine cimport relocation_kind, relocation_width
from dlopen.core.base.atomics cimport load_u64, store_u64
from dlopen.core.base.contract cimport (
    DLOPEN_E_HANDLE, PublicImage, PublicRelocation, VisitRelocation,
)
from dlopen.core.elf.structures cimport Rela, relocation_symbol, relocation_type
from dlopen.core.face.visiting cimport Visit, visit_begin, visit_end
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.checked cimport RelocationTables
from dlopen.core.image.dynamic cimport read_tables
from dlopen.core.image.image cimport Image
from dlopen.core.image.relr cimport RelrWalk, relr_in, relr_next


cdef inline uint32_t relr_places(const RelocationTables* tables) noexcept nogil:
    """How many places DT_RELR stands for."""
    cdef RelrWalk walk = relr_in(tables.relr, tables.relr_count)
    cdef uint64_t place = 0
    cdef uint32_t count = 0
    while relr_next(&walk, &place):
        count += 1
    return count


cdef inline uint32_t count_relocations(Image* image) noexcept nogil:
    """Of an image that cannot go meanwhile, or was counted before: kept after the first count,
    for which the tables of the host's are looked for."""
    cdef RelocationTables tables
    cdef uint64_t known = load_u64(&image.host.counted_relocations)
    if known == 0:
        read_tables(image, &tables)
        known = 1 + relr_places(&tables) + tables.relative_count + tables.rela_count \
            + tables.jmprel_count
        store_u64(&image.host.counted_relocations, known)
    return <uint32_t>(known - 1)


cdef inline void describe_relocation(
    const Image* image, const Rela* entry, uint32_t table, PublicRelocation* relocation
) noexcept nogil:
    """Fills the struct from an entry of `table` (0 RELR, 1 DT_RELA, 2 DT_JMPREL)."""
    relocation.place = image.load_bias + entry.r_offset
    relocation.addend = entry.r_addend
    relocation.type = relocation_type(entry)
    relocation.kind = relocation_kind(image.machine, relocation.type)
    relocation.symbol = relocation_symbol(entry)
    relocation.width = relocation_width(image.machine, relocation.type)
    relocation.table = table


cdef inline void describe_relr(
    const Image* image, uint64_t place, PublicRelocation* relocation
) noexcept nogil:
    """Fills the struct for one place of DT_RELR."""
    cdef Rela entry
    entry.r_offset = place
    entry.r_info = image.machine.relative
    entry.r_addend = 0
    describe_relocation(image, &entry, 0, relocation)


cdef inline void walk_relocations(
    const Image* image, VisitRelocation* visit, void* data
) noexcept nogil:
    """In order: DT_RELR, DT_RELA, DT_JMPREL. Of an image that cannot go meanwhile."""
    cdef PublicRelocation relocation
    cdef RelocationTables tables
    cdef RelrWalk walk
    cdef uint64_t place = 0
    cdef uint64_t i
    read_tables(image, &tables)
    walk = relr_in(tables.relr, tables.relr_count)
    while relr_next(&walk, &place):
        describe_relr(image, place, &relocation)
        visit(&relocation, data)
    for i in range(tables.relative_count + tables.rela_count):
        describe_relocation(
            image, tables.rela - tables.relative_count + i, 1, &relocation
        )
        visit(&relocation, data)
    for i in range(tables.jmprel_count):
        describe_relocation(image, &tables.jmprel[i], 2, &relocation)
        visit(&relocation, data)


cdef inline int visit_relocations(
    Linker* linker, PublicImage* handle, VisitRelocation* visit, void* data
) noexcept nogil:
    """DLOPEN_relocations."""
    cdef Visit at
    cdef int code = DLOPEN_E_HANDLE
    if visit_begin(linker, &at, handle):
        walk_relocations(at.image, visit, data)
        code = 0
    visit_end(linker, &at)
    return code
