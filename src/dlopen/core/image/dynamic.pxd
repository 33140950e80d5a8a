"""The dynamic section of an image into its fields, checking before trusting.

For an image of ours every address, size, index and string is checked here or where it
is used. A host image was checked by the host's loader, which also relocated most of
the addresses in place (but not in the vDSO): both forms are understood.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.arch.machine cimport MOVES_DYNAMIC_POINTERS
from dlopen.core.base.allocator cimport Allocator, allocate
from dlopen.core.base.contract cimport DLOPEN_E_FORMAT, DLOPEN_E_UNSUPPORTED, Error
from dlopen.core.base.errors cimport fail, fail_at, fail_memory
from dlopen.core.base.growable cimport pointers_add
from dlopen.core.base.words cimport align_up, is_power_of_two
from dlopen.core.elf.constants cimport (
    DF_1_NOOPEN, DF_1_PIE, DF_SYMBOLIC, DF_TEXTREL, DT_AUXILIARY, DT_FILTER, DT_FINI,
    DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_FLAGS, DT_FLAGS_1, DT_GNU_HASH, DT_HASH, DT_INIT,
    DT_INIT_ARRAY, DT_INIT_ARRAYSZ, DT_JMPREL, DT_NEEDED, DT_NULL, DT_PLTGOT, DT_PLTREL,
    DT_PLTRELSZ, DT_REL, DT_RELA, DT_RELACOUNT, DT_RELAENT, DT_RELASZ, DT_RELR, DT_RELRENT,
    DT_RELRSZ, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRSZ, DT_STRTAB, DT_SYMBOLIC, DT_SYMENT,
    DT_SYMTAB, DT_TEXTREL, DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM, DT_VERSYM, PF_W,
    PF_X, VER_FLG_BASE, VERSYM_INDEX,
)
from dlopen.core.elf.layout cimport segment_holding
from dlopen.core.elf.structures cimport (
    Dyn, Half, Phdr, Rela, Sym, Verdaux, Verdef, Vernaux, Verneed, Word, Xword,
)
from dlopen.core.image.image cimport (
    MAX_TABLES, Image, Version, bytes_at, image_name, string_at, symbol_count,
)


cdef enum:
    OLD_TAGS = 38                # tags below are indices, as in glibc's l_info
    EXTRA_GNU_HASH = 38
    EXTRA_VERSYM = 39
    EXTRA_VERDEF = 40
    EXTRA_VERDEFNUM = 41
    EXTRA_VERNEED = 42
    EXTRA_VERNEEDNUM = 43
    EXTRA_FLAGS_1 = 44
    TAG_COUNT = 45
    MAX_VERSION_INDEX = 0x7fff


cdef inline int tag_slot(uint64_t tag) noexcept nogil:
    if tag < OLD_TAGS:
        return <int>tag
    if tag == DT_GNU_HASH:
        return EXTRA_GNU_HASH
    if tag == DT_VERSYM:
        return EXTRA_VERSYM
    if tag == DT_VERDEF:
        return EXTRA_VERDEF
    if tag == DT_VERDEFNUM:
        return EXTRA_VERDEFNUM
    if tag == DT_VERNEED:
        return EXTRA_VERNEED
    if tag == DT_VERNEEDNUM:
        return EXTRA_VERNEEDNUM
    if tag == DT_FLAGS_1:
        return EXTRA_FLAGS_1
    return -1


cdef inline int malformed(
    const Image* image, Error* error, const char* rule, uint64_t value
) noexcept nogil:
    return fail_at(error, DLOPEN_E_FORMAT, image_name(image), rule, ~<uint64_t>0, value)


cdef inline void note_table(Image* image, uint64_t address, uint64_t size) noexcept nogil:
    """Remembers a table that later steps trust, so that no relocation overwrites it."""
    cdef const Phdr* segment = segment_holding(&image.layout, address, size)
    if segment != NULL and image.table_count < MAX_TABLES:
        image.tables[image.table_count].start = address
        image.tables[image.table_count].size = size
        image.table_count += 1
        if segment.p_flags & PF_W:
            image.has_tables_in_writable_memory = True


cdef inline const void* entry_at(
    const Image* image, uint64_t address, uint64_t size
) noexcept nogil:
    """Bytes of a table; NULL when an image of ours does not have them all."""
    if not image.is_host:
        return bytes_at(image, address, size)
    if address < image.load_bias:
        address += image.load_bias
    return <const void*>address


cdef inline const void* table_at(Image* image, uint64_t address, uint64_t size) noexcept nogil:
    """The same for a whole table, which no relocation may write from now on."""
    cdef const void* bytes = entry_at(image, address, size)
    if bytes != NULL and not image.is_host:
        note_table(image, address, size)
    return bytes


cdef inline uint64_t room_after(const Image* image, uint64_t address) noexcept nogil:
    """Bytes from `address` to the end of what the file gives of its segment."""
    cdef const Phdr* segment
    if image.is_host:
        return ~<uint64_t>0
    segment = segment_holding(&image.layout, address, 1)
    if segment == NULL or address - segment.p_vaddr >= segment.p_filesz:
        return 0
    return segment.p_vaddr + segment.p_filesz - address


cdef inline int read_gnu_hash(Image* image, uint64_t address, Error* error) noexcept nogil:
    cdef const Word* header = <const Word*>table_at(image, address, 16)
    cdef uint64_t room = room_after(image, address)
    cdef uint64_t bloom_count
    cdef uint64_t used
    if header == NULL:
        return malformed(image, error, b"DT_GNU_HASH lies outside the segments", address)
    bloom_count = header[2]
    if not is_power_of_two(bloom_count):
        return malformed(
            image, error, b"DT_GNU_HASH: the bloom filter's size is not a power of two", bloom_count
        )
    used = 16 + bloom_count * 8 + <uint64_t>header[0] * 4
    if used > room:
        return malformed(image, error, b"DT_GNU_HASH reaches beyond its segment", header[0])
    if header[0] == 0:
        return 0                 # defines nothing; DT_HASH may stand beside it
    image.bucket_count = header[0]
    image.symbol_offset = header[1]
    image.bloom_mask = <uint32_t>bloom_count - 1
    image.bloom_shift = header[3] & 63U
    image.bloom = <const Xword*>(header + 4)
    image.buckets = <const Word*>(image.bloom + bloom_count)
    image.chains = image.buckets + image.bucket_count
    if image.is_host:
        image.chain_limit = <uint64_t>1 << 32
    else:
        image.chain_limit = image.symbol_offset + (room - used) // 4
        if image.chain_limit > image.symbol_limit:
            image.chain_limit = image.symbol_limit
        note_table(image, address, used)
    return 0


cdef inline void protect_symbols(Image* image, const uint64_t* values) noexcept nogil:
    """Symbols in writable memory (patchelf moves them there): exactly counted, so that
    what follows them may be relocated and they may not."""
    cdef const Phdr* segment = segment_holding(&image.layout, values[DT_SYMTAB], sizeof(Sym))
    if segment == NULL or not (segment.p_flags & PF_W or image.has_textrel):
        return
    image.symbol_limit = symbol_count(image)
    note_table(image, values[DT_SYMTAB], image.symbol_limit * sizeof(Sym))
    if image.chain_limit > image.symbol_limit:
        image.chain_limit = image.symbol_limit
    if image.chain_limit > image.symbol_offset:
        note_table(
            image, <uint64_t>image.chains - image.bytes_bias,
            (image.chain_limit - image.symbol_offset) * 4
        )


cdef inline int read_sysv_hash(Image* image, uint64_t address, Error* error) noexcept nogil:
    cdef const Word* header = <const Word*>table_at(image, address, 8)
    if header == NULL:
        return malformed(image, error, b"DT_HASH lies outside the segments", address)
    if table_at(image, address, 8 + (<uint64_t>header[0] + header[1]) * 4) == NULL:
        return malformed(image, error, b"DT_HASH reaches beyond its segment", header[1])
    image.sysv_chain_count = header[1]
    image.sysv_chains = header + 2 + header[0]
    image.sysv_buckets = header + 2
    image.sysv_bucket_count = header[0]
    return 0


cdef struct VersionWalk:
    bint store
    uint32_t highest
    uint16_t* end                # of the list of verneed: where the next place goes


cdef inline void note_version(
    Image* image, VersionWalk* visit, uint16_t index, uint32_t hash, const char* name,
    const char* library, uint16_t flags
) noexcept nogil:
    cdef uint32_t slot = index & VERSYM_INDEX
    if not visit.store:
        if slot > visit.highest:
            visit.highest = slot
    else:
        image.versions[slot].name = name
        image.versions[slot].library = library
        image.versions[slot].hash = hash
        image.versions[slot].flags = flags
        image.versions[slot].index = index
        # Once: of an index that a malformed file gives twice the last counts.
        if library != NULL and image.versions[slot].next == 0 \
                and visit.end != &image.versions[slot].next:
            visit.end[0] = <uint16_t>(slot + 1)
            visit.end = &image.versions[slot].next


cdef inline int walk_versions(
    Image* image, uint64_t verneed, uint64_t verneed_count, uint64_t verdef,
    uint64_t verdef_count, VersionWalk* visit, Error* error
) noexcept nogil:
    """Walks verneed and verdef once, checking; with visit.store fills image.versions."""
    cdef const Verneed* need
    cdef const Vernaux* need_aux
    cdef const Verdef* definition
    cdef const Verdaux* definition_aux
    cdef uint64_t address = verneed
    cdef uint64_t aux
    cdef uint64_t _i, _j
    cdef uint64_t entries = 0
    cdef const char* file
    cdef const char* name
    for _i in range(verneed_count):
        need = <const Verneed*>entry_at(image, address, sizeof(Verneed))
        if need == NULL:
            return malformed(image, error, b"DT_VERNEED lies outside the segments", address)
        if need.vn_version != 1:
            return malformed(
                image, error, b"unsupported version of Verneed record", need.vn_version
            )
        entries += need.vn_cnt
        if entries > MAX_VERSION_INDEX:
            return malformed(image, error, b"DT_VERNEED has too many entries", entries)
        file = string_at(image, need.vn_file)
        if file == NULL:
            return malformed(
                image, error, b"DT_VERNEED names a file outside the string table", need.vn_file
            )
        aux = address + need.vn_aux
        for _j in range(need.vn_cnt):
            need_aux = <const Vernaux*>entry_at(image, aux, sizeof(Vernaux))
            if need_aux == NULL:
                return malformed(
                    image, error, b"DT_VERNEED's entries lie outside the segments", aux
                )
            name = string_at(image, need_aux.vna_name)
            if name == NULL:
                return malformed(
                    image, error, b"DT_VERNEED names a version outside the string table",
                    need_aux.vna_name
                )
            note_version(
                image, visit, need_aux.vna_other, need_aux.vna_hash, name, file, need_aux.vna_flags
            )
            if need_aux.vna_next == 0:
                break
            aux += need_aux.vna_next
        if need.vn_next == 0:
            break
        address += need.vn_next
    address = verdef
    for _i in range(verdef_count):
        definition = <const Verdef*>entry_at(image, address, sizeof(Verdef))
        if definition == NULL:
            return malformed(image, error, b"DT_VERDEF lies outside the segments", address)
        if definition.vd_version != 1:
            return malformed(
                image, error, b"unsupported version of Verdef record", definition.vd_version
            )
        aux = address + definition.vd_aux
        definition_aux = <const Verdaux*>entry_at(image, aux, sizeof(Verdaux))
        if definition_aux == NULL:
            return malformed(image, error, b"DT_VERDEF's entries lie outside the segments", aux)
        name = string_at(image, definition_aux.vda_name)
        if name == NULL:
            return malformed(
                image, error, b"DT_VERDEF names a version outside the string table",
                definition_aux.vda_name
            )
        # The base definition names the file and is not a version to ask for: hash 0.
        note_version(
            image, visit, definition.vd_ndx,
            0 if definition.vd_flags & VER_FLG_BASE else definition.vd_hash,
            name, NULL, definition.vd_flags
        )
        if definition.vd_next == 0:
            break
        address += definition.vd_next
    return 0


cdef inline int read_versions(
    Allocator* allocator, Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    cdef VersionWalk visit
    cdef uint64_t need_count = values[EXTRA_VERNEEDNUM] if present[EXTRA_VERNEED] else 0
    cdef uint64_t definition_count = values[EXTRA_VERDEFNUM] if present[EXTRA_VERDEF] else 0
    cdef int code
    visit.store = False
    visit.highest = 0
    visit.end = &image.first_needed
    image.has_verdef = definition_count != 0
    if need_count > MAX_VERSION_INDEX or definition_count > MAX_VERSION_INDEX:
        return malformed(image, error, b"DT_VERNEEDNUM or DT_VERDEFNUM is too large", need_count)
    code = walk_versions(
        image, values[EXTRA_VERNEED], need_count, values[EXTRA_VERDEF], definition_count,
        &visit, error
    )
    if code:
        return code
    image.version_count = visit.highest + 1
    image.versions = <Version*>allocate(allocator, image.version_count * sizeof(Version))
    if image.versions == NULL:
        return fail_memory(error, image_name(image))
    visit.store = True
    code = walk_versions(
        image, values[EXTRA_VERNEED], need_count, values[EXTRA_VERDEF], definition_count,
        &visit, error
    )
    if code:
        return code
    if present[EXTRA_VERSYM]:
        image.versym = <const Half*>table_at(
            image, values[EXTRA_VERSYM], 2 if image.is_host else image.symbol_limit * 2
        )
        if image.versym == NULL and not image.is_host:
            # As many as there are room for; indices beyond are not symbols.
            image.symbol_limit = room_after(image, values[EXTRA_VERSYM]) // 2
            image.versym = <const Half*>table_at(
                image, values[EXTRA_VERSYM], image.symbol_limit * 2
            )
            if image.symbol_limit < image.chain_limit:
                image.chain_limit = image.symbol_limit
        if image.versym == NULL:
            return malformed(
                image, error, b"DT_VERSYM lies outside the segments", values[EXTRA_VERSYM]
            )
    return 0


cdef inline int read_relocations(
    Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    if present[DT_REL]:
        return fail(
            error, DLOPEN_E_UNSUPPORTED, image_name(image),
            b"DT_REL relocations (this machine has DT_RELA)"
        )
    if present[DT_RELA] and values[DT_RELASZ] != 0:
        if present[DT_RELAENT] and values[DT_RELAENT] != sizeof(Rela):
            return malformed(
                image, error, b"DT_RELAENT is not the expected size", values[DT_RELAENT]
            )
        image.rela_count = values[DT_RELASZ] // sizeof(Rela)
        image.rela = <const Rela*>table_at(image, values[DT_RELA], values[DT_RELASZ])
        if image.rela == NULL or values[DT_RELASZ] % sizeof(Rela):
            return malformed(
                image, error, b"DT_RELA lies outside the segments or is not whole", values[DT_RELA]
            )
    if present[DT_JMPREL] and values[DT_PLTRELSZ] != 0:
        if present[DT_PLTREL] and values[DT_PLTREL] != DT_RELA:
            return malformed(image, error, b"DT_PLTREL is not DT_RELA", values[DT_PLTREL])
        image.jmprel_count = values[DT_PLTRELSZ] // sizeof(Rela)
        image.plt_got = values[DT_PLTGOT]
        image.jmprel = <const Rela*>table_at(image, values[DT_JMPREL], values[DT_PLTRELSZ])
        if image.jmprel == NULL or values[DT_PLTRELSZ] % sizeof(Rela):
            return malformed(
                image, error, b"DT_JMPREL lies outside the segments or is not whole",
                values[DT_JMPREL]
            )
        # Some linkers count DT_JMPREL's entries in DT_RELASZ too: apply each once.
        if image.rela != NULL and values[DT_RELA] + values[DT_RELASZ] \
                == values[DT_JMPREL] + values[DT_PLTRELSZ] and values[DT_JMPREL] >= values[DT_RELA]:
            image.rela_count -= image.jmprel_count
    if present[DT_RELR] and values[DT_RELRSZ] != 0:
        if present[DT_RELRENT] and values[DT_RELRENT] != 8:
            return malformed(
                image, error, b"DT_RELRENT is not the expected size", values[DT_RELRENT]
            )
        image.relr_count = values[DT_RELRSZ] // 8
        image.relr = <const Xword*>table_at(image, values[DT_RELR], values[DT_RELRSZ])
        if image.relr == NULL or values[DT_RELRSZ] & 7:
            return malformed(
                image, error, b"DT_RELR lies outside the segments or is not whole", values[DT_RELR]
            )
    return 0


cdef struct Tables:              # an image's relocations that have symbols, and others
    const Rela* rela
    uint64_t rela_count
    const Rela* jmprel
    uint64_t jmprel_count


cdef inline void read_tables(const Image* image, Tables* tables) noexcept nogil:
    """Of any image that cannot go meanwhile. The host's are not kept: most are never asked for."""
    cdef uint64_t rela = 0
    cdef uint64_t rela_size = 0
    cdef uint64_t relative = 0   # so many come first, and have no symbol
    cdef uint64_t jmprel = 0
    cdef uint64_t jmprel_size = 0
    cdef uint64_t jmprel_kind = DT_RELA
    cdef uint32_t i
    tables.rela = image.rela
    tables.rela_count = image.rela_count
    tables.jmprel = image.jmprel
    tables.jmprel_count = image.jmprel_count
    if not image.is_host:
        return
    for i in range(image.dynamic_count):
        if image.dynamic[i].d_tag == DT_RELA:
            rela = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_RELASZ:
            rela_size = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_RELACOUNT:
            relative = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_JMPREL:
            jmprel = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_PLTRELSZ:
            jmprel_size = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_PLTREL:
            jmprel_kind = image.dynamic[i].d_val
    if jmprel_kind != DT_RELA:
        jmprel = 0
    # Some linkers count DT_JMPREL's entries in DT_RELASZ too.
    if jmprel != 0 and rela <= jmprel and rela + rela_size == jmprel + jmprel_size:
        rela_size -= jmprel_size
    if rela != 0 and relative * sizeof(Rela) < rela_size:
        tables.rela = <const Rela*>entry_at(image, rela, rela_size) + relative
        tables.rela_count = rela_size // sizeof(Rela) - relative
    if jmprel != 0:
        tables.jmprel = <const Rela*>entry_at(image, jmprel, jmprel_size)
        tables.jmprel_count = jmprel_size // sizeof(Rela)


cdef inline bint is_code(const Image* image, uint64_t address) noexcept nogil:
    """`address` (p_vaddr terms) lies in an executable segment."""
    cdef const Phdr* segment = segment_holding(&image.layout, address, 1)
    return segment != NULL and segment.p_flags & PF_X != 0


cdef inline int read_functions(
    Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    """Constructors and destructors; the arrays' entries are checked when they are called,
    for they are relocated first."""
    if present[DT_INIT] and values[DT_INIT] != 0:
        if not is_code(image, values[DT_INIT]):
            return malformed(
                image, error, b"DT_INIT lies outside the executable segments", values[DT_INIT]
            )
        image.init = values[DT_INIT]
    if present[DT_FINI] and values[DT_FINI] != 0:
        if not is_code(image, values[DT_FINI]):
            return malformed(
                image, error, b"DT_FINI lies outside the executable segments", values[DT_FINI]
            )
        image.fini = values[DT_FINI]
    if present[DT_INIT_ARRAY]:
        image.init_array = values[DT_INIT_ARRAY]
        image.init_array_count = values[DT_INIT_ARRAYSZ] // 8
        if image.init_array_count != 0 \
                and bytes_at(image, image.init_array, image.init_array_count * 8) == NULL:
            return malformed(
                image, error, b"DT_INIT_ARRAY lies outside the segments", image.init_array
            )
    if present[DT_FINI_ARRAY]:
        image.fini_array = values[DT_FINI_ARRAY]
        image.fini_array_count = values[DT_FINI_ARRAYSZ] // 8
        if image.fini_array_count != 0 \
                and bytes_at(image, image.fini_array, image.fini_array_count * 8) == NULL:
            return malformed(
                image, error, b"DT_FINI_ARRAY lies outside the segments", image.fini_array
            )
    return 0


cdef inline void read_entries(Image* image, uint64_t* values, bint* present) noexcept nogil:
    """The dynamic section's, up to DT_NULL, by slot."""
    cdef uint32_t i
    cdef int slot
    memset(values, 0, TAG_COUNT * sizeof(values[0]))
    memset(present, 0, TAG_COUNT * sizeof(present[0]))
    image.dynamic_count = <uint32_t>(image.layout.dynamic.p_memsz // sizeof(Dyn))
    for i in range(image.dynamic_count):
        if image.dynamic[i].d_tag == DT_NULL:
            image.dynamic_count = i
            break
        slot = tag_slot(<uint64_t>image.dynamic[i].d_tag)
        if slot >= 0:
            values[slot] = image.dynamic[i].d_val
            present[slot] = True


cdef inline int read_symbols(
    Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    """DT_STRTAB and DT_SYMTAB."""
    if not present[DT_STRTAB] or not present[DT_SYMTAB]:
        if image.is_host:
            return DLOPEN_E_FORMAT
        return malformed(image, error, b"the dynamic section has no DT_STRTAB or no DT_SYMTAB", 0)
    image.strtab = <const char*>table_at(image, values[DT_STRTAB], values[DT_STRSZ])
    if image.strtab == NULL:
        return malformed(image, error, b"DT_STRTAB lies outside the segments", values[DT_STRTAB])
    image.strtab_size = values[DT_STRSZ]
    if image.strtab_size == 0 or (not image.is_host and image.strtab[image.strtab_size - 1] != 0):
        return malformed(image, error, b"the string table has no end", image.strtab_size)
    if present[DT_SYMENT] and values[DT_SYMENT] != sizeof(Sym):
        return malformed(image, error, b"DT_SYMENT is not the expected size", values[DT_SYMENT])
    image.symtab = <const Sym*>table_at(image, values[DT_SYMTAB], sizeof(Sym))
    if image.symtab == NULL:
        return malformed(image, error, b"DT_SYMTAB lies outside the segments", values[DT_SYMTAB])
    if image.is_host:
        image.symbol_limit = <uint64_t>1 << 32
    else:
        image.symbol_limit = room_after(image, values[DT_SYMTAB]) // sizeof(Sym)
        if values[DT_STRTAB] > values[DT_SYMTAB] \
                and (values[DT_STRTAB] - values[DT_SYMTAB]) // sizeof(Sym) < image.symbol_limit:
            image.symbol_limit = (values[DT_STRTAB] - values[DT_SYMTAB]) // sizeof(Sym)
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


cdef inline int read_for_lookup(Image* image) noexcept nogil:
    """Of an image of the host's, as much as its soname and lookups without a version need: it
    asks for no memory."""
    cdef uint64_t values[TAG_COUNT]
    cdef bint present[TAG_COUNT]
    cdef int code
    image.dynamic = <const Dyn*>(image.load_bias + image.layout.dynamic.p_vaddr)
    read_entries(image, &values[0], &present[0])
    code = read_symbols(image, &values[0], &present[0], NULL)
    if code == 0:
        code = read_hash_tables(image, &values[0], &present[0], NULL)
    if code == 0 and present[DT_SONAME]:
        image.soname = string_at(image, values[DT_SONAME])
    if code == 0 and present[EXTRA_VERSYM]:
        image.versym = <const uint16_t*>table_at(image, values[EXTRA_VERSYM], 2)
    return code


cdef inline int read_dynamic(Allocator* allocator, Image* image, Error* error) noexcept nogil:
    """Everything but what `refuse` says of it."""
    cdef uint64_t values[TAG_COUNT]
    cdef bint present[TAG_COUNT]
    cdef uint64_t address = image.layout.dynamic.p_vaddr
    cdef uint64_t size = image.layout.dynamic.p_memsz
    cdef uint64_t i
    cdef int code
    cdef const char* text
    cdef const Phdr* relro = image.layout.relro
    cdef const Phdr* segment
    if image.is_host:
        image.dynamic = <const Dyn*>(image.load_bias + address)
    else:
        image.dynamic = <const Dyn*>table_at(image, address, size)
        if image.dynamic == NULL:
            return malformed(
                image, error, b"the dynamic section lies outside the segments", address
            )
        if relro != NULL:
            segment = segment_holding(&image.layout, relro.p_vaddr, 1)
            if segment == NULL or not segment.p_flags & PF_W or relro.p_memsz > align_up(
                segment.p_vaddr + segment.p_memsz, image.layout.page
            ) - relro.p_vaddr:
                return malformed(
                    image, error, b"PT_GNU_RELRO lies outside the writable segments", relro.p_vaddr
                )
    read_entries(image, &values[0], &present[0])
    code = read_symbols(image, &values[0], &present[0], error)
    if code:
        return code
    image.flags = values[DT_FLAGS]
    image.flags_1 = values[EXTRA_FLAGS_1]
    image.is_symbolic = present[DT_SYMBOLIC] or image.flags & DF_SYMBOLIC != 0
    image.has_textrel = present[DT_TEXTREL] or image.flags & DF_TEXTREL != 0
    for i in range(image.dynamic_count):
        if image.dynamic[i].d_tag != DT_NEEDED:
            continue
        text = string_at(image, image.dynamic[i].d_val)
        if text == NULL or text[0] == 0:
            return malformed(
                image, error, b"DT_NEEDED lies outside the string table", image.dynamic[i].d_val
            )
        if not pointers_add(allocator, &image.needed, text):
            return fail_memory(error, image_name(image))
    for i in range(image.dynamic_count):
        if image.is_host or (
            image.dynamic[i].d_tag != DT_FILTER and image.dynamic[i].d_tag != DT_AUXILIARY
        ):
            continue
        text = string_at(image, image.dynamic[i].d_val)
        if text == NULL or text[0] == 0:
            return malformed(
                image, error, b"DT_FILTER or DT_AUXILIARY lies outside the string table",
                image.dynamic[i].d_val
            )
        if not pointers_add(allocator, &image.filter_entries, &image.dynamic[i]):
            return fail_memory(error, image_name(image))
    if present[DT_SONAME]:
        image.soname = string_at(image, values[DT_SONAME])
        if image.soname == NULL:
            return malformed(
                image, error, b"DT_SONAME lies outside the string table", values[DT_SONAME]
            )
    if present[DT_RUNPATH]:
        image.runpath = string_at(image, values[DT_RUNPATH])
        if image.runpath == NULL:
            return malformed(
                image, error, b"DT_RUNPATH lies outside the string table", values[DT_RUNPATH]
            )
    if present[DT_RPATH]:
        image.rpath = string_at(image, values[DT_RPATH])
        if image.rpath == NULL:
            return malformed(
                image, error, b"DT_RPATH lies outside the string table", values[DT_RPATH]
            )
    code = read_hash_tables(image, &values[0], &present[0], error)
    if code:
        return code
    if not image.is_host:
        protect_symbols(image, values)
    code = read_versions(allocator, image, values, present, error)
    if code or image.is_host:
        return code
    if image.layout.tls != NULL and image.layout.tls.p_filesz != 0 and bytes_at(
        image, image.layout.tls.p_vaddr, image.layout.tls.p_filesz
    ) == NULL:
        return malformed(
            image, error, b"PT_TLS lies outside the segments", image.layout.tls.p_vaddr
        )
    code = read_relocations(image, values, present, error)
    if code:
        return code
    return read_functions(image, values, present, error)


cdef inline void move_dynamic_pointers(Image* image) noexcept nogil:
    """As libc's loader leaves the section in memory for those who walk it: runtimes that look for
    what their libraries need, hookers of the GOT. Once, when nothing of ours will read it again
    and before any foreign code; of a tag that stands there twice the last counts."""
    cdef Dyn* last[TAG_COUNT]
    cdef int[9] moved
    cdef const Phdr* section = image.layout.dynamic
    cdef const Phdr* segment = segment_holding(&image.layout, section.p_vaddr, section.p_memsz)
    cdef uint32_t i
    cdef int slot
    if not MOVES_DYNAMIC_POINTERS or not section.p_flags & PF_W or segment == NULL \
            or not segment.p_flags & PF_W:
        return
    memset(last, 0, sizeof(last))
    for i in range(image.dynamic_count):
        slot = tag_slot(<uint64_t>image.dynamic[i].d_tag)
        if slot >= 0:
            last[slot] = <Dyn*>&image.dynamic[i]
    moved = [
        DT_HASH, DT_PLTGOT, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL, DT_RELR, EXTRA_GNU_HASH,
        EXTRA_VERSYM,
    ]
    for slot in moved:
        if last[slot] != NULL and (slot != DT_RELA or last[slot].d_val != 0):
            last[slot].d_val += image.load_bias


cdef inline int refuse(const Image* image, const char* name, Error* error) noexcept nogil:
    """What is well-formed but cannot be opened, by the name that was asked for."""
    if image.flags_1 & DF_1_PIE:
        return fail(
            error, DLOPEN_E_UNSUPPORTED, name,
            b"cannot dynamically load position-independent executable"
        )
    if image.flags_1 & DF_1_NOOPEN:
        return fail(
            error, DLOPEN_E_UNSUPPORTED, name,
            b"shared object cannot be dlopen()ed (DF_1_NOOPEN)"
        )
    return 0
