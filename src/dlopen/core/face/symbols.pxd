"""DLOPEN_symbol_find, DLOPEN_symbol_at, DLOPEN_address: symbols by name, by number, by address,
each described by a struct DLOPEN_symbol."""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from dlopen.core.base.contract cimport (
    DLOPEN_E_HANDLE, DLOPEN_E_INVALID, DLOPEN_E_MEMORY, DLOPEN_E_SYMBOL, DLOPEN_NO_RESOLVE,
    DLOPEN_OWN_ONLY, Error, PublicImage, PublicSymbol,
)
from dlopen.core.base.details cimport DETAIL_UNDEFINED
from dlopen.core.base.errors cimport error_name_symbol, fail, fail_handle, fail_memory
from dlopen.core.base.log cimport LOG_TRACE, logs
from dlopen.core.elf.constants cimport SHN_UNDEF, STT_GNU_IFUNC, STT_TLS, VERSYM_HIDDEN
from dlopen.core.elf.structures cimport Sym, symbol_binding, symbol_type, symbol_visibility
from dlopen.core.face.visiting cimport Visit, visit_begin, visit_end
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.refresh cimport HOSTS_CHANGED, HOSTS_UNKNOWN, refresh_hosts
from dlopen.core.host.uniques cimport share_unique_of_lookup
from dlopen.core.image.image cimport Image, Version, image_name
from dlopen.core.image.listing cimport image_of_caller
from dlopen.core.image.registry cimport Snapshot, current_snapshot, reader_enter, reader_leave
from dlopen.core.running.find_symbol cimport (
    host_symbol, lookup_everywhere, lookup_in_tree, resolved_address, symbol_count_of,
)
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, definition_address, is_export, lookup_in_image, nearest_symbol, refer,
    symbol_name, symbol_version,
)
from dlopen.core.symbols.report cimport log_lookup


cdef inline void describe(
    Linker* linker, const Definition* definition, PublicSymbol* symbol, bint resolve
) noexcept nogil:
    """Fills the struct; the address of an IFUNC or a thread-local symbol only with `resolve`."""
    cdef const Image* image = definition.image
    cdef const Sym* entry = definition.symbol
    cdef const Version* version = symbol_version(image, definition.index)
    cdef const char* name = symbol_name(image, entry)
    symbol.name = b""
    symbol.version = b""
    if name != NULL:
        symbol.name = name
    if version != NULL:
        symbol.version = version.name
    symbol.image = <PublicImage*>image
    symbol.value = entry.st_value
    symbol.size = entry.st_size
    symbol.index = definition.index
    symbol.type = <uint8_t>symbol_type(entry)
    symbol.binding = <uint8_t>symbol_binding(entry)
    symbol.visibility = <uint8_t>symbol_visibility(entry)
    symbol.is_default = image.tables.versym == NULL \
        or definition.index >= image.tables.symbol_limit \
        or not image.tables.versym[definition.index] & VERSYM_HIDDEN
    symbol.section = entry.st_shndx
    symbol.address = 0
    if (symbol_type(entry) == STT_GNU_IFUNC or symbol_type(entry) == STT_TLS) and not resolve:
        return
    if entry.st_shndx == SHN_UNDEF and entry.st_value == 0:
        return
    symbol.address = resolved_address(linker, definition)


cdef inline Image* define_by_host(
    Linker* linker, Image* image, const char* name, const char* version, uint64_t* address
) noexcept nogil:
    """A host image's dependencies are the host's to search. No reader section needed."""
    cdef void* found
    if image.host.handle == NULL:
        return NULL
    found = host_symbol(linker, image.host.handle, name, version)
    if found == NULL:
        linker.host.dlerror()
        return NULL
    address[0] = <uint64_t>found
    return image_of_caller(&linker.registry, found)


cdef inline int find_symbol(
    Linker* linker, PublicImage* handle, const char* name, const char* version, uint32_t flags,
    PublicSymbol* symbol, Error* error
) noexcept nogil:
    """DLOPEN_symbol_find."""
    cdef Image* image = <Image*>handle
    cdef Reference reference
    cdef Definition definition
    cdef const Snapshot* snapshot
    cdef Visit visit
    cdef uint64_t address = 0
    cdef int code = 0
    cdef bint found = False
    refer(&reference, name, version)
    if not visit_begin(linker, &visit, image):
        code = fail_handle(error)
    else:
        snapshot = current_snapshot(&linker.registry)
        definition.index = 0
        if flags & DLOPEN_OWN_ONLY:
            definition.image = image
            definition.symbol = lookup_in_image(image, &reference, &definition.index)
            found = definition.symbol != NULL and is_export(definition.symbol)
        elif image.host.is_program:
            found = lookup_everywhere(
                linker, snapshot, image.namespace_id, &reference, &definition
            )
        else:
            found = lookup_in_tree(image, &reference, &definition)
        if found and not flags & DLOPEN_OWN_ONLY \
                and not share_unique_of_lookup(linker, snapshot, &reference, &definition):
            found = False
            code = fail_memory(error, image_name(image))
        elif found:
            describe(linker, &definition, symbol, not flags & DLOPEN_NO_RESOLVE)
            if symbol_type(definition.symbol) == STT_TLS and symbol.address == 0 \
                    and not flags & DLOPEN_NO_RESOLVE \
                    and definition.image.thread_local.module_id != 0:
                found = False
                code = fail_memory(error, image_name(image))
        elif not flags & DLOPEN_OWN_ONLY and image.is_host:
            definition.image = define_by_host(linker, image, name, version, &address)
            if definition.image != NULL:
                memset(symbol, 0, sizeof(PublicSymbol))
                definition.symbol = lookup_in_image(definition.image, &reference, &definition.index)
                if definition.symbol != NULL:
                    describe(linker, &definition, symbol, False)
                else:
                    symbol.name = b""
                    symbol.version = b""
                symbol.image = <PublicImage*>definition.image
                symbol.address = address
                found = True
        if logs(LOG_TRACE):
            log_lookup(
                image, name, version, definition.image if found else NULL,
                symbol.address if found else 0
            )
        if not found and code == 0:
            code = fail(error, DLOPEN_E_SYMBOL, image_name(image), DETAIL_UNDEFINED)
            error_name_symbol(error, name, version)
    visit_end(linker, &visit)
    return code


cdef inline int symbol_at(
    Linker* linker, PublicImage* handle, uint32_t index, PublicSymbol* symbol
) noexcept nogil:
    """DLOPEN_symbol_at; no resolver is called."""
    cdef Image* image = <Image*>handle
    cdef Definition definition
    cdef Visit visit
    cdef int code = 0
    if not visit_begin(linker, &visit, image):
        code = DLOPEN_E_HANDLE
    elif index >= symbol_count_of(image):
        code = DLOPEN_E_INVALID
    else:
        definition.image = image
        definition.symbol = &image.tables.symtab[index]
        definition.index = index
        describe(linker, &definition, symbol, False)
    visit_end(linker, &visit)
    return code


cdef inline int symbol_at_address(
    Linker* linker, const void* address, PublicImage** image, PublicSymbol* symbol
) noexcept nogil:
    """DLOPEN_address: the image that an address is in, and its nearest symbol."""
    cdef Definition definition
    cdef Image* found
    cdef void* borrowed = NULL
    cdef uint32_t phase
    cdef int hosts
    phase = reader_enter(&linker.registry)
    hosts = refresh_hosts(linker, current_snapshot(&linker.registry))
    if hosts == HOSTS_CHANGED:
        reader_leave(&linker.registry, phase)
        phase = reader_enter(&linker.registry)
    found = image_of_caller(&linker.registry, address)
    image[0] = <PublicImage*>found
    if found != NULL and symbol != NULL:
        borrowed = borrow_host_image(linker, found)
    if borrowed != NULL:
        memset(symbol, 0, sizeof(PublicSymbol))
        if nearest_symbol(found, <uint64_t>address, symbol_count_of(found), &definition):
            describe(linker, &definition, symbol, False)
            symbol.address = definition_address(&definition)
        give_back_host_image(linker, found, borrowed)
    reader_leave(&linker.registry, phase)
    if found == NULL:
        return DLOPEN_E_MEMORY if hosts == HOSTS_UNKNOWN else DLOPEN_E_INVALID
    return 0
