"""Symbols that somebody else decides: asked for once, before any place is bound.

The answers are kept by symbol, so that lazily bound calls find them too, without asking.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE, relocation_kind
from dlopen.core.base.allocator cimport Allocator, allocate, release
from dlopen.core.base.contract cimport (
    DLOPEN_E_STOPPED, DLOPEN_R_GLOB_DAT, DLOPEN_R_JUMP_SLOT, DLOPEN_R_PC_RELATIVE,
    DLOPEN_R_SYMBOLIC, Error, PublicReplacement, Request,
)
from dlopen.core.base.errors cimport error_name_symbol, fail, fail_memory
from dlopen.core.base.strings cimport strcmp
from dlopen.core.elf.constants cimport STB_LOCAL, STV_HIDDEN, STV_INTERNAL
from dlopen.core.elf.structures cimport (
    Rela, Sym, relocation_symbol, relocation_type, symbol_binding, symbol_visibility,
)
from dlopen.core.image.image cimport Image, Replacement, Version, image_name
from dlopen.core.symbols.lookup cimport symbol_name, symbol_version


cdef inline bint can_be_replaced(const Image* image, const Rela* relocation) noexcept nogil:
    """A place gets the address of a symbol that others may define."""
    cdef uint32_t kind = relocation_kind(THIS_MACHINE, relocation_type(relocation))
    cdef uint32_t index = relocation_symbol(relocation)
    cdef const Sym* symbol
    if index == 0 or index >= image.symbol_limit or (
        kind != DLOPEN_R_SYMBOLIC and kind != DLOPEN_R_GLOB_DAT and kind != DLOPEN_R_JUMP_SLOT
        and kind != DLOPEN_R_PC_RELATIVE
    ):
        return False
    symbol = &image.symtab[index]
    return symbol_binding(symbol) != STB_LOCAL and symbol_visibility(symbol) != STV_HIDDEN \
        and symbol_visibility(symbol) != STV_INTERNAL and symbol_name(image, symbol) != NULL


cdef inline size_t find_in_list(
    const PublicReplacement* replacements, size_t count, const char* name, const char* version
) noexcept nogil:
    """Its index, or `count`. A replacement of just this version goes before one of any."""
    cdef size_t i
    cdef size_t of_any = count
    for i in range(count):
        if strcmp(replacements[i].name, name) != 0:
            continue
        if replacements[i].version == NULL:
            of_any = i
        elif version != NULL and strcmp(replacements[i].version, version) == 0:
            return i
    return of_any


cdef inline int ask_for_symbol(
    Image* image, uint32_t index, const Request* request, Error* error
) noexcept nogil:
    """Foreign code: with no lock held."""
    cdef const Version* version = symbol_version(image, index)
    cdef const char* name = symbol_name(image, &image.symtab[index])
    cdef const char* wanted = version.name if version != NULL else <const char*>NULL
    cdef size_t number = find_in_list(
        request.replacements, request.replacement_count, name, wanted
    )
    cdef const void* address = NULL
    if number != request.replacement_count:
        address = request.replacements[number].address
    if address == NULL and request.find != NULL \
            and request.find(name, wanted, &address, request.find_data) != 0:
        fail(error, DLOPEN_E_STOPPED, image_name(image), b"the search for a symbol was ended")
        error_name_symbol(error, name, wanted)
        return DLOPEN_E_STOPPED
    if address != NULL:
        image.replacements[image.replacement_count].symbol = index
        image.replacements[image.replacement_count].address = <uint64_t>address
        image.replacement_count += 1
    return 0


cdef inline void mark_references(
    const Image* image, const Rela* table, uint64_t count, char* wanted, uint32_t* highest
) noexcept nogil:
    cdef uint64_t i
    cdef uint32_t index
    for i in range(count):
        if can_be_replaced(image, &table[i]):
            index = relocation_symbol(&table[i])
            highest[0] = index if index > highest[0] else highest[0]
            if wanted != NULL:
                wanted[index] = 1


cdef inline int find_replacements(
    Allocator* allocator, Image* image, const Request* request, Error* error
) noexcept nogil:
    """Fills Image.replacements, in the order of the symbol table."""
    cdef uint32_t highest = 0
    cdef uint32_t index
    cdef uint32_t count = 0
    cdef char* wanted
    cdef int code = 0
    if request.replacement_count == 0 and request.find == NULL:
        return 0
    mark_references(image, image.rela, image.rela_count, NULL, &highest)
    mark_references(image, image.jmprel, image.jmprel_count, NULL, &highest)
    wanted = <char*>allocate(allocator, highest + 1)
    if wanted == NULL:
        return fail_memory(error, image_name(image))
    mark_references(image, image.rela, image.rela_count, wanted, &highest)
    mark_references(image, image.jmprel, image.jmprel_count, wanted, &highest)
    for index in range(highest + 1):
        count += wanted[index] != 0
    image.replacements = <Replacement*>allocate(allocator, count * sizeof(Replacement) + 1)
    if image.replacements == NULL:
        code = fail_memory(error, image_name(image))
    for index in range(highest + 1):
        if code == 0 and wanted[index]:
            code = ask_for_symbol(image, index, request, error)
    release(allocator, wanted)
    return code
