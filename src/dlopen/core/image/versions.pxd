"""Symbol versions: what the image defines (DT_VERDEF) and needs (DT_VERNEED), in one table by the
index that DT_VERSYM has for each symbol.

Two passes over both chains: the first checks them and finds the highest index, the second fills the
table.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.contract cimport Error
from dlopen.core.base.details cimport (
    DETAIL_VERDEF_ENTRIES, DETAIL_VERDEF_NAME, DETAIL_VERDEF_OUTSIDE, DETAIL_VERDEF_VERSION,
    DETAIL_VERNEED_ENTRIES, DETAIL_VERNEED_FILE, DETAIL_VERNEED_MANY, DETAIL_VERNEED_NAME,
    DETAIL_VERNEED_OUTSIDE, DETAIL_VERNEED_VERSION, DETAIL_VERSIONS_LARGE, DETAIL_VERSYM_OUTSIDE,
)
from dlopen.core.base.errors cimport fail_memory
from dlopen.core.elf.constants cimport VERSYM_INDEX, VER_FLG_BASE
from dlopen.core.elf.structures cimport Half, Verdaux, Verdef, Vernaux, Verneed
from dlopen.core.image.checked cimport entry_at, malformed, room_after, table_at
from dlopen.core.image.image cimport Image, Tables, Version, image_name, string_at


cdef struct VersionWalk:
    bint store
    uint32_t highest
    uint16_t* end                # of the list of verneed: where the next place goes


cdef inline void note_version(
    Image* image, VersionWalk* visit, uint16_t index, uint32_t hash, const char* name,
    const char* library, uint16_t flags
) noexcept nogil:
    """In the first pass the highest index, in the second the entry."""
    cdef Tables* tables = &image.tables
    cdef uint32_t slot = index & VERSYM_INDEX
    if not visit.store:
        if slot > visit.highest:
            visit.highest = slot
    else:
        tables.versions[slot].name = name
        tables.versions[slot].library = library
        tables.versions[slot].hash = hash
        tables.versions[slot].flags = flags
        tables.versions[slot].index = index
        # Once: of an index that a malformed file gives twice the last counts.
        if library != NULL and tables.versions[slot].next == 0 \
                and visit.end != &tables.versions[slot].next:
            visit.end[0] = <uint16_t>(slot + 1)
            visit.end = &tables.versions[slot].next


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
            return malformed(image, error, DETAIL_VERNEED_OUTSIDE, address)
        if need.vn_version != 1:
            return malformed(image, error, DETAIL_VERNEED_VERSION, need.vn_version)
        entries += need.vn_cnt
        if entries > MAX_VERSION_INDEX:
            return malformed(image, error, DETAIL_VERNEED_MANY, entries)
        file = string_at(image, need.vn_file)
        if file == NULL:
            return malformed(image, error, DETAIL_VERNEED_FILE, need.vn_file)
        aux = address + need.vn_aux
        for _j in range(need.vn_cnt):
            need_aux = <const Vernaux*>entry_at(image, aux, sizeof(Vernaux))
            if need_aux == NULL:
                return malformed(image, error, DETAIL_VERNEED_ENTRIES, aux)
            name = string_at(image, need_aux.vna_name)
            if name == NULL:
                return malformed(image, error, DETAIL_VERNEED_NAME, need_aux.vna_name)
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
            return malformed(image, error, DETAIL_VERDEF_OUTSIDE, address)
        if definition.vd_version != 1:
            return malformed(image, error, DETAIL_VERDEF_VERSION, definition.vd_version)
        aux = address + definition.vd_aux
        definition_aux = <const Verdaux*>entry_at(image, aux, sizeof(Verdaux))
        if definition_aux == NULL:
            return malformed(image, error, DETAIL_VERDEF_ENTRIES, aux)
        name = string_at(image, definition_aux.vda_name)
        if name == NULL:
            return malformed(image, error, DETAIL_VERDEF_NAME, definition_aux.vda_name)
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
    Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    """From the values of the dynamic section; an error where a chain is broken."""
    cdef Tables* tables = &image.tables
    cdef VersionWalk visit
    cdef uint64_t need_count = values[EXTRA_VERNEEDNUM] if present[EXTRA_VERNEED] else 0
    cdef uint64_t definition_count = values[EXTRA_VERDEFNUM] if present[EXTRA_VERDEF] else 0
    cdef int code
    visit.store = False
    visit.highest = 0
    visit.end = &tables.first_needed
    tables.has_verdef = definition_count != 0
    if need_count > MAX_VERSION_INDEX or definition_count > MAX_VERSION_INDEX:
        return malformed(image, error, DETAIL_VERSIONS_LARGE, need_count)
    code = walk_versions(
        image, values[EXTRA_VERNEED], need_count, values[EXTRA_VERDEF], definition_count,
        &visit, error
    )
    if code:
        return code
    tables.version_count = visit.highest + 1
    tables.versions = <Version*>allocate(tables.version_count * sizeof(Version))
    if tables.versions == NULL:
        return fail_memory(error, image_name(image))
    visit.store = True
    code = walk_versions(
        image, values[EXTRA_VERNEED], need_count, values[EXTRA_VERDEF], definition_count,
        &visit, error
    )
    if code:
        return code
    if present[EXTRA_VERSYM]:
        tables.versym = <const Half*>table_at(
            image, values[EXTRA_VERSYM], 2 if image.is_host else tables.symbol_limit * 2
        )
        if tables.versym == NULL and not image.is_host:
            # As many as there are room for; indices beyond are not symbols.
            tables.symbol_limit = room_after(image, values[EXTRA_VERSYM]) // 2
            tables.versym = <const Half*>table_at(
                image, values[EXTRA_VERSYM], tables.symbol_limit * 2
            )
            if tables.symbol_limit < tables.chain_limit:
                tables.chain_limit = tables.symbol_limit
        if tables.versym == NULL:
            return malformed(image, error, DETAIL_VERSYM_OUTSIDE, values[EXTRA_VERSYM])
    return 0


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
