"""The words of an image that a patch is about, and what they lead to without it."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.contract cimport DLOPEN_E_MEMORY, PublicReplacement
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.elf.constants cimport SHN_UNDEF
from dlopen.core.elf.structures cimport Rela, Sym
from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport patched_place
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport Image, PatchedPlace, Version
from dlopen.core.image.registry cimport current_snapshot
from dlopen.core.memory.memory cimport memory_word
from dlopen.core.relocation.places cimport addend_of
from dlopen.core.relocation.replace cimport find_in_list
from dlopen.core.relocation.words cimport (
    NOT_A_CALL, Word, WordWalk, is_one_store, next_word, words_of,
)
from dlopen.core.running.calls cimport CALL_AGAIN, find_callee, resolve_call
from dlopen.core.running.find_symbol cimport host_symbol, resolved_address
from dlopen.core.running.scopes cimport Borrowed, give_back_scopes
from dlopen.core.symbols.binding cimport own_address
from dlopen.core.symbols.lookup cimport Definition, symbol_name, symbol_version


cdef struct Match:               # a place that a patch is about
    Word word
    size_t replacement
    uint64_t address             # what it shall lead to


cdef inline size_t find_matches(
    const Image* image, const PublicReplacement* replacements, size_t replacement_count,
    Match* matches
) noexcept nogil:
    """How many places match, calls first; filled into `matches` unless that is NULL."""
    cdef WordWalk walk = words_of(image, True)
    cdef Word word
    cdef size_t found = 0
    cdef size_t number
    cdef const Version* version
    while next_word(&walk, &word):
        if not is_one_store(image, &word):
            continue
        version = symbol_version(image, word.symbol)
        number = find_in_list(
            replacements, replacement_count, symbol_name(image, &image.tables.symtab[word.symbol]),
            version.name if version != NULL else <const char*>NULL
        )
        if number == replacement_count:
            continue
        if matches != NULL:
            matches[found].word = word
            matches[found].replacement = number
        found += 1
    return found


cdef inline uint64_t word_at(const Image* image, const Rela* relocation) noexcept nogil:
    """What stands there now."""
    return memory_word(image.bytes_bias + relocation.r_offset)


cdef inline uint64_t resolve_for_host(
    Linker* linker, void* handle, const char* name, const char* version
) noexcept nogil:
    """In the host's order: the global scope, then the image's own. Without RTLD_DEFAULT, which
    would make libdlopen.so a user of what is found."""
    cdef void* program = open_host(linker, NULL, RTLD_LAZY | RTLD_NOLOAD)
    cdef void* found = NULL
    if program != NULL:
        found = host_symbol(linker, program, name, version)
        close_host(linker, program)
    if found == NULL and handle != NULL:
        found = host_symbol(linker, handle, name, version)
    if found == NULL:
        linker.host.dlerror()
    return <uint64_t>found


cdef inline bint bound_function(
    Linker* linker, Image* image, void* handle, const Match* match, uint64_t* result
) noexcept nogil:
    """What the place leads to without any patch. A call that is not bound yet leads back into
    the PLT: it is asked for then, which may run a resolver, so with no lock held, and images may
    go meanwhile. *result is 0: nothing. False without memory."""
    cdef uint32_t symbol = match.word.symbol
    cdef const Sym* entry = &image.tables.symtab[symbol]
    cdef const Version* version = symbol_version(image, symbol)
    cdef const PatchedPlace* patched
    cdef uint64_t word
    cdef int code = CALL_AGAIN
    lock_acquire(&linker.registry.lock)
    patched = patched_place(image, image.load_bias + match.word.relocation.r_offset)
    word = patched.original if patched != NULL else word_at(image, match.word.relocation)
    lock_release(&linker.registry.lock)
    if match.word.call == NOT_A_CALL or not is_code(image, word - image.load_bias) or (
        entry.st_shndx != SHN_UNDEF and image.load_bias + entry.st_value == word
    ):
        result[0] = word - addend_of(match.word.relocation, match.word.kind) if word != 0 else 0
        return True
    if image.is_host:
        result[0] = resolve_for_host(
            linker, handle, symbol_name(image, entry),
            version.name if version != NULL else <const char*>NULL
        )
        return True
    if image.calls.definers == NULL:
        result[0] = word
        return True
    while code == CALL_AGAIN:
        code = find_callee(
            linker, current_snapshot(&linker.registry), image, match.word.call, False, result
        )
    return code != DLOPEN_E_MEMORY


cdef inline bint defined_function(
    Linker* linker, Image* image, uint32_t symbol, uint64_t* address
) noexcept nogil:
    """What a reference of an image of ours would be bound to if nothing were replaced; 0:
    nothing. A resolver may run: with no lock held. False without memory."""
    cdef Borrowed borrowed
    cdef Definition definition
    cdef int code = resolve_call(
        linker, current_snapshot(&linker.registry), image, symbol, &borrowed, &definition
    )
    address[0] = 0
    if definition.image != NULL:
        address[0] = own_address(linker.own_names, &definition)
        if address[0] == 0:
            address[0] = resolved_address(linker, &definition)
    give_back_scopes(&borrowed)
    return code != DLOPEN_E_MEMORY
