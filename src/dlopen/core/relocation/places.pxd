"""The words that are relocated.

A place must lie in a writable segment, and apart from the tables that relocation itself reads: this
is what keeps a broken file from writing elsewhere. What does not fit into a narrow place is an
error.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.contract cimport DLOPEN_R_GLOB_DAT, DLOPEN_R_JUMP_SLOT, DLOPEN_R_PC_RELATIVE
from dlopen.core.base.details cimport (
    DETAIL_COPY_OUTSIDE, DETAIL_COPY_UNDEFINED, DETAIL_NARROW, DETAIL_NARROW_RELATIVE,
)
from dlopen.core.base.words cimport ranges_overlap, smaller
from dlopen.core.elf.constants cimport PF_W
from dlopen.core.elf.layout cimport segment_holding
from dlopen.core.elf.structures cimport Phdr, Rela, Sym, relocation_symbol
from dlopen.core.image.image cimport Image, Table, Tables, store_word
from dlopen.core.memory.memory cimport memory_write
from dlopen.core.relocation.batch cimport Batch, Cache, Place, bad_relocation


cdef inline bint lies_in(const Place* writable, uint64_t place, uint64_t size) noexcept nogil:
    """All of it."""
    return place >= writable.start and place < writable.end and size <= writable.end - place


cdef inline bint can_write(
    const Image* image, Place* writable, uint64_t place, uint64_t size
) noexcept nogil:
    """A place lies whole in a writable segment (any, with text relocations) and not in a
    table that later steps trust. Nearly always where the last one lay."""
    return lies_in(writable, place, size) or find_writable(image, writable, place, size)


cdef inline bint find_writable(
    const Image* image, Place* writable, uint64_t place, uint64_t size
) noexcept nogil:
    """And how far it is so around it."""
    cdef const Tables* tables = &image.tables
    cdef const Phdr* segment
    cdef const Table* table
    cdef uint32_t i
    segment = segment_holding(&image.layout, place, size)
    if segment == NULL or not (segment.p_flags & PF_W or tables.has_textrel):
        return False
    writable.start = segment.p_vaddr
    writable.end = segment.p_vaddr + segment.p_memsz
    if tables.has_tables_in_writable_memory or tables.has_textrel:
        for i in range(tables.range_count):
            table = &tables.ranges[i]
            if ranges_overlap(place, size, table.start, table.size):
                writable.end = writable.start
                return False
            if table.start >= place + size:
                writable.end = smaller(writable.end, table.start)
            elif table.start + table.size > writable.start:
                writable.start = table.start + table.size
    return True


cdef inline bint stays_writable(const Image* image, uint64_t place) noexcept nogil:
    """Until RELRO: not only while text relocations are applied. The place was checked."""
    return not image.tables.has_textrel \
        or segment_holding(&image.layout, place, 8).p_flags & PF_W != 0


cdef inline int narrow(
    Batch* batch, Image* image, uint64_t place, uint64_t value, bint is_signed
) noexcept nogil:
    """A 32-bit place."""
    cdef uint32_t word = <uint32_t>(value & 0xffffffffU)
    if is_signed and <int64_t>value != <int64_t><int32_t>word:
        return bad_relocation(batch, image, DETAIL_NARROW_RELATIVE, place, value)
    if not is_signed and value > 0xffffffffU:
        return bad_relocation(batch, image, DETAIL_NARROW, place, value)
    memory_write(image.bytes_bias + place, &word, 4)
    return 0


cdef inline int copy_data(
    Batch* batch, Image* image, Place* writable, Cache* cache, const Rela* relocation
) noexcept nogil:
    """A COPY relocation: the variable's content, from the definition that it hides."""
    cdef const Sym* own = &image.tables.symtab[relocation_symbol(relocation)]
    cdef const Sym* source = cache.definition.symbol
    cdef uint64_t size
    # Of its own there is one only if the symbol is local: it would be copied over itself.
    if cache.definition.image == NULL or cache.definition.image == image:
        return bad_relocation(batch, image, DETAIL_COPY_UNDEFINED, relocation.r_offset, 0)
    size = own.st_size if own.st_size < source.st_size else source.st_size
    if size == 0:
        return 0
    if not can_write(image, writable, relocation.r_offset, size) or (
        not cache.definition.image.is_host
        and segment_holding(&cache.definition.image.layout, source.st_value, size) == NULL
    ):
        return bad_relocation(batch, image, DETAIL_COPY_OUTSIDE, relocation.r_offset, size)
    memory_write(
        image.bytes_bias + relocation.r_offset,
        <const void*>(cache.definition.image.bytes_bias + source.st_value), size
    )
    return 0


cdef inline bint is_distance(uint32_t kind) noexcept nogil:
    """Not the symbol's address is stored, but how far it is from somewhere."""
    return kind == DLOPEN_R_PC_RELATIVE


cdef inline uint64_t addend_of(const Rela* relocation, uint32_t kind) noexcept nogil:
    """What is added to a symbol's address."""
    if not THIS_MACHINE.slots_have_addend \
            and (kind == DLOPEN_R_GLOB_DAT or kind == DLOPEN_R_JUMP_SLOT):
        return 0
    return <uint64_t>relocation.r_addend


cdef inline int store_address(
    Batch* batch, Image* image, const Rela* relocation, uint32_t kind, uint32_t width,
    uint64_t value
) noexcept nogil:
    """`value`: the symbol's address; what the kind makes of it is written."""
    cdef uint64_t place = relocation.r_offset
    value += addend_of(relocation, kind)
    if kind == DLOPEN_R_PC_RELATIVE:
        value -= image.load_bias + place
        if width == 4:
            return narrow(batch, image, place, value, True)
    elif width == 4:
        return narrow(batch, image, place, value, False)
    store_word(image, place, value)
    return 0
