"""DT_GNU_HASH and DT_HASH: where their parts lie, and that they lie in the image.

An image may have both. How many symbols there are nothing else says (`symbol_count` of
image/image.pxd).
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.contract cimport Error
from dlopen.core.base.details cimport (
    DETAIL_BLOOM_SIZE, DETAIL_GNU_HASH_BEYOND, DETAIL_GNU_HASH_OUTSIDE, DETAIL_HASH_BEYOND,
    DETAIL_HASH_OUTSIDE,
)
from dlopen.core.base.words cimport is_power_of_two
from dlopen.core.elf.constants cimport DT_HASH, DT_SYMTAB, PF_W
from dlopen.core.elf.layout cimport segment_holding
from dlopen.core.elf.structures cimport Phdr, Sym, Word, Xword
from dlopen.core.image.checked cimport malformed, note_table, room_after, table_at
from dlopen.core.image.image cimport Image, Tables, symbol_count
from dlopen.core.image.versions cimport EXTRA_GNU_HASH


cdef inline int read_gnu_hash(Image* image, uint64_t address, Error* error) noexcept nogil:
    """Checks the table at this address and fills the fields of it."""
    cdef Tables* tables = &image.tables
    cdef const Word* header = <const Word*>table_at(image, address, 16)
    cdef uint64_t room = room_after(image, address)
    cdef uint64_t bloom_count
    cdef uint64_t used
    if header == NULL:
        return malformed(image, error, DETAIL_GNU_HASH_OUTSIDE, address)
    bloom_count = header[2]
    if not is_power_of_two(bloom_count):
        return malformed(image, error, DETAIL_BLOOM_SIZE, bloom_count)
    used = 16 + bloom_count * 8 + <uint64_t>header[0] * 4
    if used > room:
        return malformed(image, error, DETAIL_GNU_HASH_BEYOND, header[0])
    if header[0] == 0:
        return 0                 # defines nothing; DT_HASH may stand beside it
    tables.bucket_count = header[0]
    tables.symbol_offset = header[1]
    tables.bloom_mask = <uint32_t>bloom_count - 1
    tables.bloom_shift = header[3] & 63U
    tables.bloom = <const Xword*>(header + 4)
    tables.buckets = <const Word*>(tables.bloom + bloom_count)
    tables.chains = tables.buckets + tables.bucket_count
    if image.is_host:
        tables.chain_limit = <uint64_t>1 << 32
    else:
        tables.chain_limit = tables.symbol_offset + (room - used) // 4
        if tables.chain_limit > tables.symbol_limit:
            tables.chain_limit = tables.symbol_limit
        note_table(image, address, used)
    return 0


cdef inline void protect_symbols(Image* image, const uint64_t* values) noexcept nogil:
    """Symbols in writable memory (patchelf moves them there): exactly counted, so that
    what follows them may be relocated and they may not."""
    cdef Tables* tables = &image.tables
    cdef const Phdr* segment = segment_holding(&image.layout, values[DT_SYMTAB], sizeof(Sym))
    if segment == NULL or not (segment.p_flags & PF_W or tables.has_textrel):
        return
    tables.symbol_limit = symbol_count(image)
    note_table(image, values[DT_SYMTAB], tables.symbol_limit * sizeof(Sym))
    if tables.chain_limit > tables.symbol_limit:
        tables.chain_limit = tables.symbol_limit
    if tables.chain_limit > tables.symbol_offset:
        note_table(
            image, <uint64_t>tables.chains - image.bytes_bias,
            (tables.chain_limit - tables.symbol_offset) * 4
        )


cdef inline int read_sysv_hash(Image* image, uint64_t address, Error* error) noexcept nogil:
    """Checks the table at this address and fills the fields of it."""
    cdef const Word* header = <const Word*>table_at(image, address, 8)
    if header == NULL:
        return malformed(image, error, DETAIL_HASH_OUTSIDE, address)
    if table_at(image, address, 8 + (<uint64_t>header[0] + header[1]) * 4) == NULL:
        return malformed(image, error, DETAIL_HASH_BEYOND, header[1])
    image.tables.sysv_chain_count = header[1]
    image.tables.sysv_chains = header + 2 + header[0]
    image.tables.sysv_buckets = header + 2
    image.tables.sysv_bucket_count = header[0]
    return 0


cdef inline int read_hash_tables(
    Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    cdef int code = 0
    if present[DT_HASH]:
        code = read_sysv_hash(image, values[DT_HASH], error)
    if code == 0 and present[EXTRA_GNU_HASH]:
        code = read_gnu_hash(image, values[EXTRA_GNU_HASH], error)
    return code
