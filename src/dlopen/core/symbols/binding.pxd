"""Which definition a reference is bound to, and which names are always ours.

The scopes decide (symbols/scopes.pxd); then what they led to is looked at: is it the process's
unique one, is it a name of the dl* family, which every image of ours finds here, may a missing one
be missing?
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.atomics cimport load_pointer
from dlopen.core.base.contract cimport DLOPEN_E_RELOCATION, DLOPEN_E_SYMBOL, DLOPEN_E_VERSION
from dlopen.core.base.details cimport (
    DETAIL_SYMBOL_INDEX, DETAIL_SYMBOL_NAME, DETAIL_UNDEFINED, DETAIL_UNVERSIONED,
)
from dlopen.core.base.errors cimport error_name_symbol, error_needed_by, fail, fail_at
from dlopen.core.base.strings cimport strcmp
from dlopen.core.elf.constants cimport (
    STB_GNU_UNIQUE, STB_LOCAL, STB_WEAK, STV_HIDDEN, STV_INTERNAL, STV_PROTECTED,
    VERSYM_HIDDEN,
)
from dlopen.core.elf.hash cimport gnu_hash_of
from dlopen.core.elf.structures cimport Sym, symbol_binding, symbol_visibility
from dlopen.core.image.image cimport Image, Version, image_name
from dlopen.core.image.naming cimport same_file_name
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, may_define, symbol_name, symbol_version,
)
from dlopen.core.symbols.scopes cimport OwnName, Scopes, find_in_scopes
from dlopen.core.symbols.self_test cimport binds_to_itself, finds_itself


cdef enum:
    HASH_OF_TLS_GET_ADDR = 0x7c8ad2ef    # gnu_hash of "__tls_get_addr"


cdef inline void describe_reference(
    const Image* image, uint32_t index, const char* name, Reference* reference
) noexcept nogil:
    """What a symbol of the image's own table refers to: its name, and the version that is
    wanted."""
    cdef const Version* version = symbol_version(image, index)
    reference.name = name
    reference.hash = gnu_hash_of(name, &reference.length)
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


cdef inline int resolve(
    const Scopes* scopes, Image* image, uint32_t index, bint for_call, const Image* skip,
    Definition* definition
) noexcept nogil:
    """What a reference binds to; definition.image is NULL for an undefined weak one."""
    cdef const Sym* symbol
    cdef const char* name
    cdef Reference reference
    cdef uint32_t visibility
    cdef bint found
    cdef const Image* loader
    cdef Definition called
    definition.image = NULL
    definition.symbol = NULL
    definition.index = 0
    if index >= image.tables.symbol_limit:
        return fail_at(
            scopes.error, DLOPEN_E_RELOCATION, image_name(image), DETAIL_SYMBOL_INDEX, 0, index
        )
    if index == 0:
        return 0
    symbol = &image.tables.symtab[index]
    visibility = symbol_visibility(symbol)
    if symbol_binding(symbol) == STB_LOCAL or visibility == STV_HIDDEN \
            or visibility == STV_INTERNAL \
            or (skip == NULL and binds_to_itself(scopes, image, index, symbol)):
        definition.image = image
        definition.symbol = symbol
        definition.index = index
        return 0
    name = symbol_name(image, symbol)
    if name == NULL:
        return fail_at(
            scopes.error, DLOPEN_E_RELOCATION, image_name(image), DETAIL_SYMBOL_NAME, 0,
            symbol.st_name
        )
    describe_reference(image, index, name, &reference)
    reference.for_call = for_call
    if finds_itself(image, index, symbol, reference.version != NULL):
        reference.home = image
        reference.home_index = index
    found = find_in_scopes(scopes, image, &reference, skip, definition)
    if found and visibility == STV_PROTECTED and definition.image != image:
        # Its own definition, unless the program's copy of it stands for it everywhere
        # (a canonical PLT address or a COPY of data): glibc's rule.
        called.image = NULL
        if not for_call:
            reference.for_call = True
            find_in_scopes(scopes, image, &reference, skip, &called)
        if for_call or (called.image != NULL and called.image != image):
            definition.image = image
            definition.symbol = symbol
            definition.index = index
    if not found:
        if symbol_binding(symbol) == STB_WEAK:
            definition.image = NULL
            return 0
        fail(scopes.error, DLOPEN_E_SYMBOL, image_name(image), DETAIL_UNDEFINED)
        error_name_symbol(scopes.error, name, reference.version)
        # Read as its readers do: of a call that is bound late it may have gone.
        loader = <const Image*>load_pointer(&image.life.loader)
        if loader != NULL:
            error_needed_by(scopes.error, image_name(loader))
        return DLOPEN_E_SYMBOL
    if scopes.refuses_unversioned and definition.image.tables.versym == NULL \
            and reference.version_library != NULL \
            and same_file_name(definition.image, reference.version_library):
        fail(scopes.error, DLOPEN_E_VERSION, image_name(definition.image), DETAIL_UNVERSIONED)
        error_name_symbol(scopes.error, name, reference.version)
        error_needed_by(scopes.error, image_name(image))
        return DLOPEN_E_VERSION
    # A COPY's place is a definition of its own.
    if symbol_binding(definition.symbol) == STB_GNU_UNIQUE and visibility != STV_PROTECTED \
            and skip == NULL:
        return scopes.share_unique(scopes.context, &reference, definition)
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


cdef inline bint may_be_own(uint32_t hash, const Image* image) noexcept nogil:
    """The name with this hash, which this image defines, can have an `own_address`."""
    return image.host.is_c_library or image.host.is_cxx_runtime or hash == HASH_OF_TLS_GET_ADDR


cdef inline uint64_t own_address(
    const OwnName* own, const Definition* definition
) noexcept nogil:
    """Our function for a definition that ours stand for, libc's dl* functions; 0 for any other."""
    cdef const Image* image = definition.image
    cdef const char* name
    cdef bint is_system
    if own == NULL or image == NULL:
        return 0
    is_system = image.host.is_c_library or image.host.is_cxx_runtime
    # Who stands before libc keeps its place, but our module ids are known to nobody else: a
    # sanitizer's runtime would hand them on to the host. Few have that name, so few names are read.
    if not is_system and not may_define(image, HASH_OF_TLS_GET_ADDR):
        return 0
    name = symbol_name(image, definition.symbol)
    if name == NULL or (not is_system and strcmp(name, b"__tls_get_addr") != 0):
        return 0
    return address_of_own_name(own, name)
