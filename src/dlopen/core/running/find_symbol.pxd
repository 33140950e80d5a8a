"""Looking for a symbol as dlsym(3) does: from a handle, in the global scope, from a place.

All of it runs in a reader section, without our lock.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

from dlopen.core.arch.processor cimport call_resolver
from dlopen.core.base.atomics cimport load_pointer, load_u64, store_u64
from dlopen.core.base.growable cimport pointer_at
from dlopen.core.elf.constants cimport SHN_UNDEF, STT_GNU_IFUNC, STT_TLS
from dlopen.core.elf.structures cimport Sym, symbol_type
from dlopen.core.host.abi cimport host_block
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.host_lock cimport enter_host, leave_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport Image, is_linked, symbol_count
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.image.snapshot cimport global_at
from dlopen.core.running.scopes cimport (
    Borrowed, borrow_scopes, give_back_scopes, take_lasting_scopes,
)
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, definition_address, is_export, lookup_in_image, lookup_in_list,
)
from dlopen.core.symbols.scopes cimport is_global_in, find_in_scopes
from dlopen.core.tls.modules cimport is_own_module, known_block, make_block


cdef inline uint64_t thread_address(
    Linker* linker, const Definition* definition
) noexcept nogil:
    """Of a thread-local symbol, for the calling thread; 0 when it has no storage."""
    cdef const Image* image = definition.image
    cdef uint64_t module = image.thread_local.module_id
    cdef char* block
    if module == 0:
        return 0
    if is_own_module(module):
        block = known_block(module)
        if block == NULL:
            block = make_block(&linker.tls, module)
    else:
        block = host_block(&linker.host, module)
    return <uint64_t>block + definition.symbol.st_value if block != NULL else 0


cdef inline uint64_t resolved_address(
    Linker* linker, const Definition* definition
) noexcept nogil:
    """With the IFUNC's resolver called; a TLS symbol's is the calling thread's. 0 where a resolver
    may not be called, or is no code."""
    cdef uint64_t address
    if symbol_type(definition.symbol) == STT_TLS:
        return thread_address(linker, definition)
    address = definition_address(definition)
    if symbol_type(definition.symbol) == STT_GNU_IFUNC and definition.symbol.st_shndx != SHN_UNDEF:
        # In this order: DLOPEN_relocate sets the one before it says the other.
        if not is_linked(definition.image) or definition.image.no_foreign_code or (
            not definition.image.is_host
            and not is_code(definition.image, definition.symbol.st_value)
        ):
            return 0
        return call_resolver(address)
    return address


cdef inline bint lookup_in_tree(
    Image* image, Reference* reference, Definition* definition
) noexcept nogil:
    """As dlsym on a handle: the image, then its dependencies breadth first. A host image
    has no list of ours: itself only. Nor has one that is not linked yet, or not by its thread."""
    cdef const Sym* symbol
    if is_linked(image) and image.scope.search_list.images.count:
        return lookup_in_list(&image.scope.search_list.images, reference, NULL, definition)
    symbol = lookup_in_image(image, reference, &definition.index)
    definition.image = image
    definition.symbol = symbol
    return symbol != NULL and is_export(symbol)


cdef inline uint64_t symbol_count_of(Image* image) noexcept nogil:
    """Kept after the first count: the hash tables are walked for it."""
    cdef uint64_t known = load_u64(&image.host.counted_symbols)
    if known == 0:
        known = symbol_count(image) + 1
        store_u64(&image.host.counted_symbols, known)
    return known - 1


cdef inline void* host_symbol(
    Linker* linker, void* handle, const char* name, const char* version
) noexcept nogil:
    """dlsym of the host's, or dlvsym: NULL leaves a message with its dlerror."""
    cdef void* found
    enter_host(&linker.host_use)
    if version != NULL:
        found = linker.host.dlvsym(handle, name, version)
    else:
        found = linker.host.dlsym(handle, name)
    leave_host(&linker.host_use)
    return found


cdef inline bint export_of(
    Linker* linker, Image* image, Reference* reference, Definition* definition
) noexcept nogil:
    """What this image, which may go if it is the host's, exports under the name."""
    cdef void* borrowed = borrow_host_image(linker, image)
    cdef const Sym* symbol
    if borrowed == NULL:
        return False
    symbol = lookup_in_image(image, reference, &definition.index)
    if symbol != NULL and not is_export(symbol):
        symbol = NULL
    definition.image = image
    definition.symbol = symbol
    give_back_host_image(linker, image, borrowed)
    return symbol != NULL


cdef inline bint lookup_everywhere(
    Linker* linker, const Snapshot* snapshot, int64_t namespace_id, Reference* reference,
    Definition* definition
) noexcept nogil:
    """The global scope of a namespace."""
    cdef Image* image
    cdef size_t i
    for i in range(snapshot.global_count):
        image = global_at(snapshot, i)
        if is_global_in(image, namespace_id) and export_of(
            linker, image, reference, definition
        ):
            return True
    return False


cdef inline bint lookup_default(
    Linker* linker, const Snapshot* snapshot, Image* caller, Reference* reference,
    Definition* definition
) noexcept nogil:
    """RTLD_DEFAULT: as a reference in the caller would be bound."""
    cdef Borrowed borrowed
    cdef bint found
    if caller == NULL:
        return lookup_everywhere(linker, snapshot, 0, reference, definition)
    take_lasting_scopes(linker, snapshot, caller, &borrowed)
    found = find_in_scopes(&borrowed.scopes, caller, reference, NULL, definition)
    if not found and borrowed.scopes.is_part:
        borrow_scopes(caller, &borrowed)
        found = find_in_scopes(&borrowed.scopes, caller, reference, NULL, definition)
    give_back_scopes(&borrowed)
    return found


cdef inline bint lookup_next(
    Linker* linker, const Snapshot* snapshot, Image* caller, Reference* reference,
    Definition* definition
) noexcept nogil:
    """RTLD_NEXT: what follows the caller in the search list of what was opened to bring it
    in. For what the process started with, that is the global scope."""
    cdef size_t i
    cdef bint seen = False
    cdef Image* image
    cdef Image* root = caller
    cdef Image* loader
    if caller.is_host:
        for i in range(snapshot.global_count):
            image = global_at(snapshot, i)
            if seen and is_global_in(image, 0) and export_of(
                linker, image, reference, definition
            ):
                return True
            seen = seen or image == caller
        return False
    # Once each: who closes takes it away.
    loader = <Image*>load_pointer(&root.life.loader)
    while loader != NULL and not loader.is_host:
        root = loader
        loader = <Image*>load_pointer(&root.life.loader)
    for i in range(root.scope.search_list.images.count):
        image = <Image*>pointer_at(&root.scope.search_list.images, i)
        if seen and export_of(linker, image, reference, definition):
            return True
        seen = seen or image == caller
    return False
