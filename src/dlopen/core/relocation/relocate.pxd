"""Relocation of one image: what each place of it becomes.

The images of one open form a batch. Everything that needs no foreign code comes first,
for all of them; then the IFUNC resolvers run, in dependency order, when every word that
they may read is final: IRELATIVE last, as the psABI wants, and across images too.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from dlopen.core.arch.machine cimport (
    THIS_MACHINE, relocation_kind, relocation_width, tlsdesc_dynamic, tlsdesc_static,
    tlsdesc_undefined,
)
from dlopen.core.base.allocator cimport Allocator, allocate, release
from dlopen.core.base.contract cimport (
    DLOPEN_E_RELOCATION, DLOPEN_E_SYMBOL, DLOPEN_E_UNSUPPORTED, DLOPEN_E_VERSION, DLOPEN_R_COPY,
    DLOPEN_R_DTPMOD, DLOPEN_R_DTPOFF, DLOPEN_R_GLOB_DAT, DLOPEN_R_IRELATIVE, DLOPEN_R_JUMP_SLOT,
    DLOPEN_R_NONE, DLOPEN_R_PC_RELATIVE, DLOPEN_R_RELATIVE, DLOPEN_R_SIZE, DLOPEN_R_SYMBOLIC,
    DLOPEN_R_TLSDESC, DLOPEN_R_TPOFF, DLOPEN_STATE_LOADING, Error,
)
from dlopen.core.base.errors cimport error_name_symbol, error_needed_by, fail, fail_at, fail_memory
from dlopen.core.base.growable cimport pointers_add, pointers_add_once, pointers_hold
from dlopen.core.base.log cimport LOG_TRACE, logs
from dlopen.core.base.strings cimport strcmp, strrchr
from dlopen.core.base.words cimport ranges_overlap
from dlopen.core.elf.constants cimport (
    PF_W, SHN_UNDEF, STB_GNU_UNIQUE, STB_LOCAL, STB_WEAK, STT_GNU_IFUNC, STT_TLS, STV_HIDDEN,
    STV_INTERNAL, STV_PROTECTED, VERSYM_HIDDEN,
)
from dlopen.core.elf.hash cimport gnu_hash
from dlopen.core.elf.layout cimport segment_holding
from dlopen.core.elf.structures cimport (
    Phdr, Rela, Sym, relocation_symbol, relocation_type, symbol_binding, symbol_type,
    symbol_visibility,
)
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport (
    Image, Table, Version, image_name, load_word, replacement_of, store_word,
)
from dlopen.core.relocation.lazy cimport (
    RESERVED_SIZE, can_bind_lazily, leave_lazy, prepare_lazy_calls,
)
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, definition_address, is_defined, is_export, symbol_name, symbol_version,
)
from dlopen.core.symbols.report cimport log_binding, report_relocation, report_resolver
from dlopen.core.symbols.scopes cimport Scopes, search
from dlopen.core.tls.modules cimport TlsIndex
ctypedef uint64_t (*Resolver)() noexcept nogil
ctypedef int (*ShareUnique)(
    void* context, const Reference* reference, Definition* definition
) noexcept nogil


# Tells where the storage of an image of the host's is, for initial-exec references.
ctypedef bint (*AskForStaticTls)(void* context, const Definition* definition) noexcept nogil


cdef struct OwnName:             # a name that is always ours, whoever else defines it
    const char* name
    uint64_t address


cdef struct Deferred:            # a place whose value an IFUNC resolver gives
    Deferred* next
    Image* image
    uint64_t place               # p_vaddr terms
    uint64_t resolver            # run address
    int64_t addend


cdef struct DeferredTls:         # a place that waits for where its module's storage will be
    DeferredTls* next
    Image* image
    Image* owner                 # an image of the batch
    uint64_t place
    uint64_t offset              # in the owner's PT_TLS
    uint32_t kind


cdef struct Batch:
    Allocator* allocator
    Scopes scopes
    const OwnName* own_names     # ends with a NULL name
    # Replaces an STB_GNU_UNIQUE definition by the process's; a code.
    ShareUnique share_unique
    AskForStaticTls ask_for_static_tls
    void* context                # of these two
    bint no_foreign_code
    bint refuses_unversioned     # a definition without version table in the file that verneed names
    bint lazy                    # RTLD_LAZY: functions are bound when they are called first
    Deferred* first_deferred
    Deferred* last_deferred
    DeferredTls* deferred_tls
    Error* error


cdef struct Place:               # the range free of tables that the last place lay in
    uint64_t start, end


cdef struct Cache:               # the last symbol that was resolved
    uint32_t symbol
    bint for_call
    bint valid
    Definition definition
    Image* bound                 # the last image that was recorded


cdef inline int bad_relocation(
    Batch* batch, const Image* image, const char* reason, uint64_t place, uint64_t value
) noexcept nogil:
    return fail_at(batch.error, DLOPEN_E_RELOCATION, image_name(image), reason, place, value)


cdef inline bint can_write(
    const Image* image, Place* writable, uint64_t place, uint64_t size
) noexcept nogil:
    """A place lies whole in a writable segment (any, with text relocations) and not in a
    table that later steps trust."""
    cdef const Phdr* segment
    cdef const Table* table
    cdef uint32_t i
    if place >= writable.start and place < writable.end and size <= writable.end - place:
        return True
    segment = segment_holding(&image.layout, place, size)
    if segment == NULL or not (segment.p_flags & PF_W or image.has_textrel):
        return False
    writable.start = segment.p_vaddr
    writable.end = segment.p_vaddr + segment.p_memsz
    if image.has_tables_in_writable_memory or image.has_textrel:
        for i in range(image.table_count):
            table = &image.tables[i]
            if ranges_overlap(place, size, table.start, table.size):
                writable.end = writable.start
                return False
            if table.start >= place + size:
                writable.end = min_u64(writable.end, table.start)
            elif table.start + table.size > writable.start:
                writable.start = table.start + table.size
    return True


cdef inline bint stays_writable(const Image* image, uint64_t place) noexcept nogil:
    """Until RELRO: not only while text relocations are applied. The place was checked."""
    return not image.has_textrel \
        or segment_holding(&image.layout, place, 8).p_flags & PF_W != 0


cdef inline uint64_t min_u64(uint64_t one, uint64_t other) noexcept nogil:
    return one if one < other else other


cdef inline bint same_file_name(const Image* image, const char* name) noexcept nogil:
    """The image is the one that a verneed entry names."""
    cdef const char* slash
    if image.soname != NULL and strcmp(image.soname, name) == 0:
        return True
    if image.path == NULL:
        return False
    slash = strrchr(image.path, 0x2f)
    return strcmp(slash + 1 if slash != NULL else image.path, name) == 0


cdef inline void describe_reference(
    const Image* image, uint32_t index, const char* name, Reference* reference
) noexcept nogil:
    cdef const Version* version = symbol_version(image, index)
    reference.name = name
    reference.hash = gnu_hash(name)
    reference.has_sysv = False
    reference.newest = False
    reference.version = NULL
    reference.version_library = NULL
    reference.version_hash = 0
    reference.version_hidden = False
    reference.home = NULL
    if version != NULL:
        reference.version = version.name
        reference.version_hash = version.hash
        reference.version_library = version.library
        reference.version_hidden = version.library != NULL and version.index & VERSYM_HIDDEN != 0


cdef inline bint finds_itself(
    const Image* image, uint32_t index, const Sym* symbol, const Reference* reference
) noexcept nogil:
    """A search of the image for a definition's own name and version ends at the definition:
    it is in the hash table, and no other one of the name can match."""
    return image.buckets != NULL and index >= image.symbol_offset and index < image.chain_limit \
        and (reference.version != NULL or not image.has_verdef) \
        and symbol.st_shndx != SHN_UNDEF and is_defined(symbol, False) and is_export(symbol)


cdef inline int resolve(
    Batch* batch, Image* image, uint32_t index, bint for_call, const Image* skip,
    Definition* definition
) noexcept nogil:
    """What a reference binds to; definition.image is NULL for an undefined weak one."""
    cdef const Sym* symbol
    cdef const char* name
    cdef Reference reference
    cdef uint32_t visibility
    cdef bint found
    cdef Definition called
    definition.image = NULL
    definition.symbol = NULL
    definition.index = 0
    if index >= image.symbol_limit:
        return bad_relocation(
            batch, image, b"a relocation's symbol index is out of range", 0, index
        )
    if index == 0:
        return 0
    symbol = &image.symtab[index]
    visibility = symbol_visibility(symbol)
    if symbol_binding(symbol) == STB_LOCAL or visibility == STV_HIDDEN \
            or visibility == STV_INTERNAL:
        definition.image = image
        definition.symbol = symbol
        definition.index = index
        return 0
    name = symbol_name(image, symbol)
    if name == NULL:
        return bad_relocation(
            batch, image, b"a symbol's name lies outside the string table", 0, symbol.st_name
        )
    describe_reference(image, index, name, &reference)
    reference.for_call = for_call
    if finds_itself(image, index, symbol, &reference):
        reference.home = image
        reference.home_index = index
    found = search(&batch.scopes, image, &reference, skip, definition)
    if found and visibility == STV_PROTECTED and definition.image != image:
        # Its own definition, unless the program's copy of it stands for it everywhere
        # (a canonical PLT address or a COPY of data): glibc's rule.
        called.image = NULL
        if not for_call:
            reference.for_call = True
            search(&batch.scopes, image, &reference, skip, &called)
        if for_call or (called.image != NULL and called.image != image):
            definition.image = image
            definition.symbol = symbol
            definition.index = index
    if not found:
        if symbol_binding(symbol) == STB_WEAK:
            definition.image = NULL
            return 0
        fail(batch.error, DLOPEN_E_SYMBOL, image_name(image), b"undefined symbol")
        error_name_symbol(batch.error, name, reference.version)
        return DLOPEN_E_SYMBOL
    if batch.refuses_unversioned and definition.image.versym == NULL \
            and reference.version_library != NULL \
            and same_file_name(definition.image, reference.version_library):
        fail(
            batch.error, DLOPEN_E_VERSION, image_name(definition.image),
            b"it has no version information, but its symbol is needed with a version"
        )
        error_name_symbol(batch.error, name, reference.version)
        error_needed_by(batch.error, image_name(image))
        return DLOPEN_E_VERSION
    # A COPY's place is a definition of its own.
    if symbol_binding(definition.symbol) == STB_GNU_UNIQUE and visibility != STV_PROTECTED \
            and skip == NULL:
        return batch.share_unique(batch.context, &reference, definition)
    return 0


cdef inline uint64_t address_of_own_name(const OwnName* own, const char* name) noexcept nogil:
    """Our function for a name that is always ours; 0 for other names."""
    if name[0] != 0x64 and name[0] != 0x5f:      # 'd', '_'
        return 0
    while own.name != NULL:
        if strcmp(own.name, name) == 0:
            return own.address
        own += 1
    return 0


cdef inline uint64_t own_address(
    const OwnName* own, const Definition* definition
) noexcept nogil:
    """The same for what was found, if it is one of those that ours stand for."""
    cdef const char* name
    if own == NULL or definition.image == NULL:
        return 0
    name = symbol_name(definition.image, definition.symbol)
    # Who stands before libc keeps its place, but our module ids are known to nobody else: a
    # sanitizer's runtime would hand them on to the host.
    if name == NULL or (
        not definition.image.is_c_library and not definition.image.is_cxx_runtime
        and strcmp(name, b"__tls_get_addr") != 0
    ):
        return 0
    return address_of_own_name(own, name)


cdef inline int defer(
    Batch* batch, Image* image, uint64_t place, uint64_t resolver, int64_t addend
) noexcept nogil:
    cdef Deferred* deferred
    if not stays_writable(image, place):
        return bad_relocation(
            batch, image, b"a text relocation that a resolver decides", place, 0
        )
    deferred = <Deferred*>allocate(batch.allocator, sizeof(Deferred))
    if deferred == NULL:
        return fail_memory(batch.error, image_name(image))
    deferred.image = image
    deferred.place = place
    deferred.resolver = resolver
    deferred.addend = addend
    if batch.last_deferred == NULL:
        batch.first_deferred = deferred
    else:
        batch.last_deferred.next = deferred
    batch.last_deferred = deferred
    return 0


cdef inline int bind(
    Batch* batch, Image* image, Cache* cache, uint32_t index, bint for_call, const Image* skip
) noexcept nogil:
    """Resolves into the cache, and records the image that it depends on from now on."""
    cdef int code
    cdef Image* definer
    if cache.valid and cache.symbol == index and cache.for_call == for_call:
        return 0
    cache.valid = False
    code = resolve(batch, image, index, for_call, skip, &cache.definition)
    if code:
        return code
    cache.symbol = index
    cache.for_call = for_call
    cache.valid = skip == NULL
    if logs(LOG_TRACE):
        log_binding(
            image, index, &cache.definition, own_address(batch.own_names, &cache.definition)
        )
    definer = cache.definition.image
    if definer != NULL and definer != image and definer != cache.bound:
        cache.bound = definer
        if not definer.is_startup and not pointers_hold(&image.dependencies, definer) \
                and not pointers_add_once(batch.allocator, &image.bindings, definer):
            return fail_memory(batch.error, image_name(image))
    return 0


cdef inline int narrow(
    Batch* batch, Image* image, uint64_t place, uint64_t value, bint is_signed
) noexcept nogil:
    """A 32-bit place."""
    cdef uint32_t word = <uint32_t>(value & 0xffffffffU)
    if is_signed and <int64_t>value != <int64_t><int32_t>word:
        return bad_relocation(
            batch, image, b"a 32-bit relative relocation does not reach", place, value
        )
    if not is_signed and value > 0xffffffffU:
        return bad_relocation(batch, image, b"a 32-bit relocation overflows", place, value)
    memcpy(<void*>(image.bytes_bias + place), &word, 4)
    return 0


cdef inline int copy_data(
    Batch* batch, Image* image, Place* writable, Cache* cache, const Rela* relocation
) noexcept nogil:
    cdef const Sym* own = &image.symtab[relocation_symbol(relocation)]
    cdef const Sym* source = cache.definition.symbol
    cdef uint64_t size
    # Of its own there is one only if the symbol is local: it would be copied over itself.
    if cache.definition.image == NULL or cache.definition.image == image:
        return bad_relocation(
            batch, image, b"a COPY relocation without a definition", relocation.r_offset, 0
        )
    size = own.st_size if own.st_size < source.st_size else source.st_size
    if size == 0:
        return 0
    if not can_write(image, writable, relocation.r_offset, size) or (
        not cache.definition.image.is_host
        and segment_holding(&cache.definition.image.layout, source.st_value, size) == NULL
    ):
        return bad_relocation(
            batch, image, b"a COPY relocation is out of range", relocation.r_offset, size
        )
    memcpy(
        <void*>(image.bytes_bias + relocation.r_offset),
        <const void*>(cache.definition.image.bytes_bias + source.st_value), size
    )
    return 0


cdef inline int store_tls(
    Batch* batch, Image* image, const Image* owner, uint64_t place, uint64_t offset, uint32_t kind
) noexcept nogil:
    """The owner's storage has its place."""
    cdef TlsIndex* index
    if kind == DLOPEN_R_DTPMOD:
        store_word(image, place, owner.tls_module_id)
    elif kind == DLOPEN_R_TPOFF:
        store_word(image, place, <uint64_t>owner.tls_offset + offset)
    elif owner.has_static_tls:
        store_word(image, place, <uint64_t>tlsdesc_static)
        store_word(image, place + 8, <uint64_t>owner.tls_offset + offset)
    else:
        index = <TlsIndex*>allocate(batch.allocator, sizeof(TlsIndex))
        if index == NULL or not pointers_add(batch.allocator, &image.tls_descriptors, index):
            release(batch.allocator, index)
            return fail_memory(batch.error, image_name(image))
        index.module = owner.tls_module_id
        index.offset = offset
        store_word(image, place, <uint64_t>tlsdesc_dynamic)
        store_word(image, place + 8, <uint64_t>index)
    return 0


cdef inline int relocate_tls(
    Batch* batch, Image* image, const Definition* definition, const Rela* relocation, uint32_t kind
) noexcept nogil:
    """Ulrich Drepper, "ELF Handling For Thread-Local Storage"; Alexandre Oliva, "Thread-Local
    Storage Descriptors". A symbol of index 0 is the image's own storage."""
    cdef Image* owner = image if relocation_symbol(relocation) == 0 else definition.image
    cdef uint64_t place = relocation.r_offset
    cdef uint64_t offset = <uint64_t>relocation.r_addend
    cdef DeferredTls* deferred
    if owner == NULL:            # weak and undefined
        if kind == DLOPEN_R_TLSDESC:
            store_word(image, place, <uint64_t>tlsdesc_undefined)
            store_word(image, place + 8, offset)
        elif kind != DLOPEN_R_TPOFF:
            store_word(image, place, 0)
        return 0
    if relocation_symbol(relocation) != 0:
        if symbol_type(definition.symbol) != STT_TLS:
            return bad_relocation(
                batch, image, b"a thread-local reference to a symbol that is not", place, kind
            )
        offset += definition.symbol.st_value
    if kind == DLOPEN_R_DTPOFF:
        store_word(image, place, offset)
        return 0
    if owner == image and image.layout.tls == NULL and kind == DLOPEN_R_DTPMOD:
        store_word(image, place, 0)          # as the host does; nothing can use it
        return 0
    if owner.layout.tls == NULL:
        return bad_relocation(
            batch, image, b"a thread-local reference to an image without PT_TLS", place, kind
        )
    if owner.state == DLOPEN_STATE_LOADING:
        if kind == DLOPEN_R_TPOFF:
            owner.needs_static_tls = True
        if not stays_writable(image, place):
            return bad_relocation(
                batch, image, b"a text relocation of thread-local storage", place, kind
            )
        deferred = <DeferredTls*>allocate(batch.allocator, sizeof(DeferredTls))
        if deferred == NULL:
            return fail_memory(batch.error, image_name(image))
        deferred.image = image
        deferred.owner = owner
        deferred.place = place
        deferred.offset = offset
        deferred.kind = kind
        deferred.next = batch.deferred_tls
        batch.deferred_tls = deferred
        return 0
    if kind == DLOPEN_R_TPOFF and not owner.has_static_tls and not (
        owner.is_host and not batch.no_foreign_code
        and batch.ask_for_static_tls(batch.context, definition)
    ):
        fail(
            batch.error, DLOPEN_E_UNSUPPORTED, image_name(image),
            b"it needs static TLS (initial-exec) of a library of which the storage was placed "
            b"when it was loaded: load it before that one"
        )
        error_name_symbol(batch.error, symbol_name(image, &image.symtab[relocation_symbol(
            relocation
        )]), NULL)
        error_needed_by(batch.error, image_name(owner))
        return DLOPEN_E_UNSUPPORTED
    return store_tls(batch, image, owner, place, offset, kind)


cdef inline int relocate_deferred_tls(Batch* batch) noexcept nogil:
    """Every image of the batch has its storage now."""
    cdef const DeferredTls* deferred = batch.deferred_tls
    cdef int code = 0
    while deferred != NULL and code == 0:
        code = store_tls(
            batch, deferred.image, deferred.owner, deferred.place, deferred.offset, deferred.kind
        )
        deferred = deferred.next
    return code


cdef inline int store_address(
    Batch* batch, Image* image, const Rela* relocation, uint32_t kind, uint32_t width,
    uint64_t value
) noexcept nogil:
    """`value` is the symbol's."""
    cdef uint64_t place = relocation.r_offset
    # The psABI gives GLOB_DAT and JUMP_SLOT no addend on this machine.
    if kind == DLOPEN_R_GLOB_DAT or kind == DLOPEN_R_JUMP_SLOT:
        store_word(image, place, value)
        return 0
    value += <uint64_t>relocation.r_addend
    if kind == DLOPEN_R_PC_RELATIVE:
        value -= image.load_bias + place
        if width == 4:
            return narrow(batch, image, place, value, True)
    elif width == 4:
        return narrow(batch, image, place, value, False)
    store_word(image, place, value)
    return 0


cdef inline int apply(
    Batch* batch, Image* image, Place* writable, Cache* cache, const Rela* relocation
) noexcept nogil:
    """One relocation that is not RELATIVE."""
    cdef uint32_t number = relocation_type(relocation)
    cdef uint32_t kind = relocation_kind(THIS_MACHINE, number)
    cdef uint32_t index = relocation_symbol(relocation)
    cdef uint32_t width = relocation_width(THIS_MACHINE, number)
    cdef uint64_t place = relocation.r_offset
    cdef uint64_t value
    cdef Definition* definition = &cache.definition
    cdef int code
    if kind == DLOPEN_R_NONE:
        return 0
    if not can_write(image, writable, place, width):
        return bad_relocation(
            batch, image, b"a relocation's place lies outside the writable segments", place, number
        )
    if kind == DLOPEN_R_IRELATIVE:
        value = <uint64_t>relocation.r_addend
        if not is_code(image, value):
            return bad_relocation(
                batch, image, b"an IFUNC resolver lies outside the executable segments",
                place, value
            )
        return defer(batch, image, place, image.load_bias + value, 0)
    if kind != DLOPEN_R_SYMBOLIC and kind != DLOPEN_R_GLOB_DAT and kind != DLOPEN_R_JUMP_SLOT \
            and kind != DLOPEN_R_PC_RELATIVE and kind != DLOPEN_R_SIZE and kind != DLOPEN_R_COPY \
            and kind != DLOPEN_R_DTPMOD and kind != DLOPEN_R_DTPOFF and kind != DLOPEN_R_TPOFF \
            and kind != DLOPEN_R_TLSDESC:
        return bad_relocation(batch, image, b"unexpected relocation type", place, number)
    if image.replacement_count != 0 and kind != DLOPEN_R_SIZE and kind != DLOPEN_R_COPY:
        value = replacement_of(image, index)
        if value != 0:
            return store_address(batch, image, relocation, kind, width, value)
    code = bind(
        batch, image, cache, index, kind == DLOPEN_R_JUMP_SLOT,
        image if kind == DLOPEN_R_COPY else NULL
    )
    if code:
        return code
    if kind == DLOPEN_R_COPY:
        return copy_data(batch, image, writable, cache, relocation)
    if kind == DLOPEN_R_DTPMOD or kind == DLOPEN_R_DTPOFF or kind == DLOPEN_R_TPOFF \
            or kind == DLOPEN_R_TLSDESC:
        return relocate_tls(batch, image, definition, relocation, kind)
    if kind == DLOPEN_R_SIZE:
        value = (definition.symbol.st_size if definition.image != NULL else 0) \
            + <uint64_t>relocation.r_addend
        if width == 4:
            return narrow(batch, image, place, value, False)
        store_word(image, place, value)
        return 0
    value = own_address(batch.own_names, definition)
    if value == 0:
        value = definition_address(definition)
        if definition.image != NULL and symbol_type(definition.symbol) == STT_GNU_IFUNC \
                and definition.symbol.st_shndx != SHN_UNDEF:
            if not definition.image.is_host and not is_code(
                definition.image, definition.symbol.st_value
            ):
                return bad_relocation(
                    batch, image, b"an IFUNC resolver lies outside the executable segments", place,
                    definition.symbol.st_value
                )
            if kind == DLOPEN_R_PC_RELATIVE or width != 8:
                return bad_relocation(
                    batch, image, b"a 32-bit or relative reference to an IFUNC", place, number
                )
            return defer(
                batch, image, place, value,
                0 if kind == DLOPEN_R_GLOB_DAT or kind == DLOPEN_R_JUMP_SLOT
                else relocation.r_addend
            )
    return store_address(batch, image, relocation, kind, width, value)


cdef inline int relocate_relr(Batch* batch, Image* image) noexcept nogil:
    """DT_RELR: an address, then bitmaps of the 63 words that follow it (gABI, RELR)."""
    cdef Place writable
    cdef uint64_t i, bit, entry
    cdef uint64_t where = 0
    cdef bint started = False
    writable.start = 0
    writable.end = 0
    for i in range(image.relr_count):
        entry = image.relr[i]
        if entry & 1 == 0:
            if not can_write(image, &writable, entry, 8):
                return bad_relocation(
                    batch, image, b"a RELR place lies outside the writable segments", entry, i
                )
            store_word(image, entry, load_word(image, entry) + image.load_bias)
            where = entry + 8
            started = True
            continue
        if not started:
            return bad_relocation(batch, image, b"DT_RELR begins with a bitmap", 0, entry)
        bit = 0
        entry >>= 1
        while entry != 0:
            if entry & 1:
                if not can_write(image, &writable, where + bit * 8, 8):
                    return bad_relocation(
                        batch, image, b"a RELR place lies outside the writable segments",
                        where + bit * 8, i
                    )
                store_word(
                    image, where + bit * 8, load_word(image, where + bit * 8) + image.load_bias
                )
            bit += 1
            entry >>= 1
        where += 63 * 8
    return 0


cdef inline int relocate_table(
    Batch* batch, Image* image, Cache* cache, const Rela* table, uint64_t count, bint lazy
) noexcept nogil:
    cdef Place writable
    cdef uint64_t i
    cdef const Rela* relocation
    cdef int code
    writable.start = 0
    writable.end = 0
    for i in range(count):
        relocation = &table[i]
        if relocation_kind(THIS_MACHINE, relocation_type(relocation)) == DLOPEN_R_RELATIVE:
            if not can_write(image, &writable, relocation.r_offset, 8):
                return bad_relocation(
                    batch, image, b"a relocation's place lies outside the writable segments",
                    relocation.r_offset, DLOPEN_R_RELATIVE
                )
            store_word(image, relocation.r_offset, image.load_bias + <uint64_t>relocation.r_addend)
        elif lazy and can_write(image, &writable, relocation.r_offset, 8) and leave_lazy(
            image, relocation, relocation_kind(THIS_MACHINE, relocation_type(relocation))
        ):
            continue
        else:
            code = apply(batch, image, &writable, cache, relocation)
            if code:
                return code
    return 0


cdef inline int relocate_image(Batch* batch, Image* image) noexcept nogil:
    """All but what a resolver decides."""
    cdef Cache cache
    cdef int code = relocate_relr(batch, image)
    cdef Place writable
    cdef bint lazy
    writable.start = 0
    writable.end = 0
    lazy = batch.lazy and can_bind_lazily(image) \
        and can_write(image, &writable, image.plt_got, RESERVED_SIZE)
    cache.valid = False
    cache.symbol = 0
    cache.for_call = False
    cache.bound = NULL
    report_relocation(image)
    if code == 0:
        code = relocate_table(batch, image, &cache, image.rela, image.rela_count, False)
    if code == 0 and lazy:
        code = prepare_lazy_calls(batch.allocator, image, batch.error)
    if code == 0:
        code = relocate_table(batch, image, &cache, image.jmprel, image.jmprel_count, lazy)
    return code


cdef inline void run_resolvers(Batch* batch) noexcept nogil:
    """The deferred places, in the order in which they were deferred: dependencies first.
    Foreign code runs: no lock is held."""
    cdef Deferred* deferred = batch.first_deferred
    cdef Resolver resolver
    while deferred != NULL:
        if batch.no_foreign_code:
            store_word(deferred.image, deferred.place, deferred.resolver)
        else:
            report_resolver(deferred.image, deferred.place, deferred.resolver)
            resolver = <Resolver>deferred.resolver
            store_word(
                deferred.image, deferred.place, resolver() + <uint64_t>deferred.addend
            )
        deferred = deferred.next


cdef inline bint resolvers_fill_static_tls(const Batch* batch) noexcept nogil:
    """They must run before the host copies that into all threads, then."""
    cdef const Deferred* deferred = batch.first_deferred
    cdef const Phdr* segment
    while deferred != NULL:
        segment = deferred.image.layout.tls
        if deferred.image.needs_static_tls and segment != NULL and ranges_overlap(
            deferred.place, 8, segment.p_vaddr, segment.p_filesz
        ):
            return True
        deferred = deferred.next
    return False


cdef inline void free_deferred(Batch* batch) noexcept nogil:
    cdef Deferred* next
    cdef DeferredTls* next_tls
    while batch.first_deferred != NULL:
        next = batch.first_deferred.next
        release(batch.allocator, batch.first_deferred)
        batch.first_deferred = next
    batch.last_deferred = NULL
    while batch.deferred_tls != NULL:
        next_tls = batch.deferred_tls.next
        release(batch.allocator, batch.deferred_tls)
        batch.deferred_tls = next_tls
