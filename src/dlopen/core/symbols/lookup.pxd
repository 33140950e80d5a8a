"""Symbols: in one image, in a scope, and which definition a reference binds to.

The rules are glibc's: a verneed version decides; a definition without version
information binds to any; a reference without a version takes the base version or, from
dlsym, the default one; failing that, the only version there is.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from dlopen.core.base.atomics cimport load_pointer
from dlopen.core.base.growable cimport Pointers, pointer_at
from dlopen.core.base.strings cimport is_same, strcmp
from dlopen.core.elf.constants cimport (
    SHN_ABS, SHN_UNDEF, STB_GLOBAL, STB_GNU_UNIQUE, STB_LOCAL, STB_WEAK, STT_COMMON, STT_FUNC,
    STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT, STT_TLS, STV_HIDDEN, STV_INTERNAL, VERSYM_HIDDEN,
    VERSYM_INDEX,
)
from dlopen.core.elf.hash cimport gnu_hash_of, sysv_hash
from dlopen.core.elf.structures cimport Sym, symbol_binding, symbol_type, symbol_visibility
from dlopen.core.image.image cimport Image, SearchList, Tables, Version


cdef struct Reference:
    const char* name
    size_t length                # of the name
    const char* version          # NULL: none
    const char* version_library  # the file that verneed names for it, or NULL
    uint32_t version_hash
    bint version_hidden          # the verneed entry has the hidden bit
    bint newest                  # dlsym: the default version rather than the base one
    bint for_call                # PLT class: an undefined symbol with a value does not count
    bint has_sysv
    uint32_t hash                # gnu
    uint32_t sysv                # computed on first use
    # The image whose own definition asks, where a search of it can only find that; or NULL.
    Image* home
    uint32_t home_index


cdef struct Definition:
    Image* image                 # NULL: none
    const Sym* symbol
    uint32_t index


cdef inline void refer(Reference* reference, const char* name, const char* version) noexcept nogil:
    """As dlsym and dlvsym ask."""
    reference.name = name
    reference.version = version
    reference.version_library = NULL
    reference.version_hash = sysv_hash(version) if version != NULL else 0
    reference.version_hidden = version != NULL   # dlvsym: exactly this one
    reference.newest = True
    reference.for_call = False
    reference.has_sysv = False
    reference.hash = gnu_hash_of(name, &reference.length)
    reference.home = NULL
    reference.home_index = 0


cdef inline const char* symbol_name(const Image* image, const Sym* symbol) noexcept nogil:
    """NULL when it lies outside the string table."""
    if symbol.st_name >= image.tables.strtab_size:
        return NULL
    return image.tables.strtab + symbol.st_name


cdef inline const Version* symbol_version(const Image* image, uint32_t index) noexcept nogil:
    """The version of a symbol, NULL when it has none of its own."""
    cdef const Tables* tables = &image.tables
    cdef uint32_t slot
    if tables.versym == NULL or index >= tables.symbol_limit:
        return NULL
    slot = tables.versym[index] & VERSYM_INDEX
    if slot >= tables.version_count or tables.versions[slot].hash == 0:
        return NULL
    return &tables.versions[slot]


cdef inline bint is_defined(const Sym* symbol, bint for_call) noexcept nogil:
    """It can be bound to: it has a value, and a type that means something to a linker."""
    cdef uint32_t kind = symbol_type(symbol)
    if symbol.st_value == 0 and symbol.st_shndx != SHN_ABS and kind != STT_TLS:
        return False
    if symbol.st_shndx == SHN_UNDEF and (for_call or symbol.st_value == 0 or kind == STT_TLS):
        return False
    return kind == STT_NOTYPE or kind == STT_OBJECT or kind == STT_FUNC or kind == STT_COMMON \
        or kind == STT_TLS or kind == STT_GNU_IFUNC


cdef inline bint is_export(const Sym* symbol) noexcept nogil:
    """Others can see it."""
    cdef uint32_t binding = symbol_binding(symbol)
    cdef uint32_t visibility = symbol_visibility(symbol)
    return visibility != STV_HIDDEN and visibility != STV_INTERNAL and (
        binding == STB_GLOBAL or binding == STB_WEAK or binding == STB_GNU_UNIQUE
    )


cdef struct Candidate:           # what one image offers while its chain is walked
    const Sym* only_versioned    # for a reference without version: the first that has one
    uint32_t only_index
    uint32_t versioned_count


cdef inline bint matches(
    const Image* image, Reference* reference, const Sym* symbol, uint32_t index,
    Candidate* candidate
) noexcept nogil:
    """The symbol is the definition that the reference means; or, in `candidate`, one to fall back
    on."""
    cdef uint16_t versym
    cdef uint32_t slot
    cdef const Version* version
    if not is_defined(symbol, reference.for_call):
        return False
    # The NUL, too. What does not fit into the string table is longer than the symbol's own name.
    if symbol.st_name + reference.length >= image.tables.strtab_size or not is_same(
        image.tables.strtab + symbol.st_name, reference.name, reference.length + 1
    ):
        return False
    if image.tables.versym == NULL:
        return True
    versym = image.tables.versym[index]
    slot = versym & VERSYM_INDEX
    if reference.version != NULL:
        version = &image.tables.versions[slot] if slot < image.tables.version_count else NULL
        if version != NULL and version.hash != 0 and version.hash == reference.version_hash \
                and strcmp(version.name, reference.version) == 0:
            return True
        return not reference.version_hidden and not versym & VERSYM_HIDDEN and (
            version == NULL or version.hash == 0
        )
    if slot >= (2U if reference.newest else 3U):
        if not versym & VERSYM_HIDDEN:
            if candidate.versioned_count == 0:
                candidate.only_versioned = symbol
                candidate.only_index = index
            candidate.versioned_count += 1
        return False
    return True


cdef inline bint may_define(const Image* image, uint32_t hash) noexcept nogil:
    """What the Bloom filter says, where there is one."""
    cdef uint64_t word
    if image.tables.buckets == NULL:
        return True
    word = image.tables.bloom[(hash >> 6) & image.tables.bloom_mask]
    return (word >> (hash & 63U)) & (
        word >> ((<uint64_t>hash >> image.tables.bloom_shift) & 63U)
    ) & 1U


cdef inline bint may_have_hash(const Image* image, uint32_t hash) noexcept nogil:
    """Some symbol of it has this hash, but for the last bit; or its table does not tell."""
    cdef const Tables* tables = &image.tables
    cdef uint64_t i
    cdef uint32_t chain
    if tables.buckets == NULL:
        return True
    i = tables.buckets[hash % tables.bucket_count] if may_define(image, hash) else 0
    while tables.symbol_offset <= i < tables.chain_limit:
        chain = tables.chains[i - tables.symbol_offset]
        if (chain ^ hash) >> 1 == 0:
            return True
        if chain & 1U:
            break
        i += 1
    return False


cdef inline const Sym* lookup_in_chain(
    const Image* image, uint64_t first, Reference* reference, uint32_t* index
) noexcept nogil:
    """The definition among those of the chain of DT_GNU_HASH that `first` is in, from there on."""
    cdef const Tables* tables = &image.tables
    cdef Candidate candidate
    cdef uint64_t i = first
    cdef uint32_t chain
    candidate.only_versioned = NULL
    candidate.only_index = 0
    candidate.versioned_count = 0
    if i < tables.symbol_offset:
        return NULL
    while i < tables.chain_limit:
        chain = tables.chains[i - tables.symbol_offset]
        if (chain ^ reference.hash) >> 1 == 0 and matches(
            image, reference, &tables.symtab[i], <uint32_t>i, &candidate
        ):
            index[0] = <uint32_t>i
            return &tables.symtab[i]
        if chain & 1U:
            break
        i += 1
    return only_candidate(&candidate, index)


cdef inline const Sym* only_candidate(const Candidate* candidate, uint32_t* index) noexcept nogil:
    """The only version that there is of the name; NULL if there are others, or none."""
    if candidate.versioned_count != 1:
        return NULL
    index[0] = candidate.only_index
    return candidate.only_versioned


cdef inline const Sym* lookup_in_image(
    const Image* image, Reference* reference, uint32_t* index
) noexcept nogil:
    """The definition that `image` has for it, whoever may see it; NULL when none."""
    return lookup_in_tables(image, reference, index) if may_define(image, reference.hash) else NULL


cdef inline const Sym* lookup_in_tables(
    const Image* image, Reference* reference, uint32_t* index
) noexcept nogil:
    """`lookup_in_image`, where `may_define` has said yes."""
    cdef const Tables* tables = &image.tables
    cdef Candidate candidate
    cdef uint64_t i
    cdef uint64_t steps
    if tables.buckets != NULL:
        return lookup_in_chain(
            image, tables.buckets[reference.hash % tables.bucket_count], reference, index
        )
    if tables.sysv_buckets == NULL or tables.sysv_bucket_count == 0:
        return NULL
    candidate.only_versioned = NULL
    candidate.only_index = 0
    candidate.versioned_count = 0
    if not reference.has_sysv:
        reference.sysv = sysv_hash(reference.name)
        reference.has_sysv = True
    i = tables.sysv_buckets[reference.sysv % tables.sysv_bucket_count]
    steps = tables.sysv_chain_count
    while i != 0 and i < tables.sysv_chain_count and i < tables.symbol_limit and steps != 0:
        if matches(image, reference, &tables.symtab[i], <uint32_t>i, &candidate):
            index[0] = <uint32_t>i
            return &tables.symtab[i]
        i = tables.sysv_chains[i]
        steps -= 1               # a cycle ends here
    return only_candidate(&candidate, index)


cdef inline bint lookup_export(
    Image* image, Reference* reference, Definition* definition
) noexcept nogil:
    """What this image exports; without it `definition` is as before."""
    cdef const Sym* symbol
    cdef uint32_t index = 0
    if image == reference.home:
        definition.image = image
        definition.symbol = &image.tables.symtab[reference.home_index]
        definition.index = reference.home_index
        return True
    if not may_define(image, reference.hash):
        return False
    symbol = lookup_in_tables(image, reference, &index)
    if symbol == NULL or not is_export(symbol):
        return False
    definition.image = image
    definition.symbol = symbol
    definition.index = index
    return True


cdef inline bint lookup_from(
    const Pointers* images, size_t* place, size_t end, Reference* reference, const Image* skip,
    Definition* definition
) noexcept nogil:
    """The first image of the list from `place` on, before `end`, that exports it; `skip` is passed
    over. `place` is where it was found, or `end`."""
    cdef Image* image
    while place[0] < end:
        image = <Image*>pointer_at(images, place[0])
        if image != skip and lookup_export(image, reference, definition):
            return True
        place[0] += 1
    return False


cdef inline bint lookup_in_list(
    const Pointers* images, Reference* reference, const Image* skip, Definition* definition
) noexcept nogil:
    """The first image of the list that exports it; `skip` is passed over."""
    cdef size_t place = 0
    return lookup_from(images, &place, images.count, reference, skip, definition)


cdef inline const SearchList* list_in_scope(SearchList** scope, size_t i) noexcept nogil:
    """NULL at its end. Another one may take its place just now: registry.pxd, `leave_scope`."""
    return <const SearchList*>load_pointer(&scope[i]) if scope != NULL else NULL


cdef inline bint lookup_in_scopes(
    const Image* image, size_t first, Reference* reference, const Image* skip,
    Definition* definition
) noexcept nogil:
    """In the search lists of an image's scope, in order, from number `first` on."""
    cdef SearchList** scope = <SearchList**>load_pointer(&image.scope.lists)
    cdef const SearchList* list = list_in_scope(scope, first)
    cdef size_t i = first
    while list != NULL:
        if lookup_in_list(&list.images, reference, skip, definition):
            return True
        i += 1
        list = list_in_scope(scope, i)
    definition.image = NULL
    return False


cdef inline bint nearest_symbol(
    const Image* image, uint64_t address, uint64_t count, Definition* definition
) noexcept nogil:
    """As glibc's dladdr: the highest symbol at or below the address that still covers it;
    one without size covers its own address only."""
    cdef const Tables* tables = &image.tables
    cdef uint64_t i
    cdef const Sym* symbol
    cdef const Sym* best = NULL
    cdef uint64_t at
    cdef uint32_t first = tables.symbol_offset if tables.buckets != NULL else 0
    for i in range(first, count):
        symbol = &tables.symtab[i]
        if symbol.st_value == 0 and symbol.st_shndx == SHN_UNDEF:
            continue
        if symbol_type(symbol) == STT_TLS or symbol.st_name >= tables.strtab_size:
            continue
        if symbol_binding(symbol) == STB_LOCAL and tables.buckets == NULL:
            continue
        at = image.load_bias + symbol.st_value
        if symbol.st_shndx == SHN_ABS and image.load_bias != 0:
            at = symbol.st_value
        if address < at:
            continue
        if (symbol.st_shndx == SHN_UNDEF or symbol.st_size == 0) and address != at:
            continue
        if symbol.st_size != 0 and symbol.st_shndx != SHN_UNDEF and address - at >= symbol.st_size:
            continue
        if best == NULL or best.st_value < symbol.st_value:
            best = symbol
            definition.index = <uint32_t>i
    definition.image = <Image*>image
    definition.symbol = best
    return best != NULL


cdef inline uint64_t definition_address(const Definition* definition) noexcept nogil:
    """Where it is; for an IFUNC, where its resolver is. SHN_ABS values are not relocated."""
    if definition.image == NULL:
        return 0
    if definition.symbol.st_shndx == SHN_ABS:
        return definition.symbol.st_value
    return definition.image.load_bias + definition.symbol.st_value
