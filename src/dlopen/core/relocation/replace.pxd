"""Symbols that somebody else decides: asked for once, before any place is bound.

The answers are kept by symbol, so that lazily bound calls find them too, without asking.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.contract cimport DLOPEN_E_STOPPED, Error, PublicReplacement, Request
from dlopen.core.base.details cimport DETAIL_SYMBOL_STOPPED
from dlopen.core.base.errors cimport error_name_symbol, fail, fail_memory
from dlopen.core.base.strings cimport strcmp
from dlopen.core.image.image cimport Image, Replacement, Version, image_name
from dlopen.core.relocation.words cimport Word, WordWalk, leads_to_symbol, next_word, words_of
from dlopen.core.symbols.lookup cimport symbol_name, symbol_version


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
    cdef const char* name = symbol_name(image, &image.tables.symtab[index])
    cdef const char* wanted = version.name if version != NULL else <const char*>NULL
    cdef size_t number = find_in_list(
        request.replacements, request.replacement_count, name, wanted
    )
    cdef const void* address = NULL
    if number != request.replacement_count:
        address = request.replacements[number].address
    if address == NULL and request.find != NULL \
            and request.find(name, wanted, &address, request.find_data) != 0:
        fail(error, DLOPEN_E_STOPPED, image_name(image), DETAIL_SYMBOL_STOPPED)
        error_name_symbol(error, name, wanted)
        return DLOPEN_E_STOPPED
    if address != NULL:
        image.changes.replacements[image.changes.replacement_count].symbol = index
        image.changes.replacements[image.changes.replacement_count].address = <uint64_t>address
        image.changes.replacement_count += 1
    return 0


cdef inline uint32_t mark_references(const Image* image, char* wanted) noexcept nogil:
    """The symbols that words lead to, in `wanted` unless that is NULL; the highest index."""
    cdef WordWalk walk = words_of(image, False)
    cdef Word word
    cdef uint32_t highest = 0
    while next_word(&walk, &word):
        if leads_to_symbol(&word):
            highest = word.symbol if word.symbol > highest else highest
            if wanted != NULL:
                wanted[word.symbol] = 1
    return highest


cdef inline int find_replacements(
    Image* image, const Request* request, Error* error
) noexcept nogil:
    """Fills Image.changes.replacements, in the order of the symbol table."""
    cdef uint32_t highest, index
    cdef uint32_t count = 0
    cdef char* wanted
    cdef int code = 0
    if request.replacement_count == 0 and request.find == NULL:
        return 0
    highest = mark_references(image, NULL)
    wanted = <char*>allocate(highest + 1)
    if wanted == NULL:
        return fail_memory(error, image_name(image))
    mark_references(image, wanted)
    for index in range(highest + 1):
        count += wanted[index] != 0
    image.changes.replacements = <Replacement*>allocate(count * sizeof(Replacement) + 1)
    if image.changes.replacements == NULL:
        code = fail_memory(error, image_name(image))
    for index in range(highest + 1):
        if code == 0 and wanted[index]:
            code = ask_for_symbol(image, index, request, error)
    release(wanted)
    return code
