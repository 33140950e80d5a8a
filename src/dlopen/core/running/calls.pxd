"""What a lazily bound call leads to, found while the process runs (relocation/lazy.pxd).

In any thread, in signal handlers, while other threads open and close: no lock is taken,
no memory allocated, errno kept. What is bound is written down first, in the slot of
Image.calls.definers that belongs to the call. Who closes reads these under the lock, and
again when it has marked what goes (closing/sweep.pxd): so either it sees the new one, or
the caller here sees that the image goes, and looks again. Not where who closes could not go
on meanwhile: a signal handler has interrupted it, or a thread that holds what it waits for.
What goes is there until then, for this one call, of which nothing is kept.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.arch.machine cimport fence_after_exchange
from dlopen.core.arch.processor cimport call_resolver
from dlopen.core.base.allocator cimport is_allocating
from dlopen.core.base.atomics cimport (
    compare_and_swap_pointer, exchange_u32, load_pointer, load_u32, load_u64, store_pointer,
)
from dlopen.core.base.contract cimport DLOPEN_E_MEMORY, DLOPEN_STATE_CLOSING
from dlopen.core.base.growable cimport pointers_add, pointers_hold, pointers_reserve
from dlopen.core.base.kernel cimport kernel_end_process, kernel_write_line
from dlopen.core.base.lock cimport lock_acquire, lock_release, locks_held
from dlopen.core.base.log cimport LOG_TRACE, logs
from dlopen.core.base.message cimport UNDEFINED_PIECES, undefined_pieces
from dlopen.core.elf.constants cimport SHN_UNDEF, STT_GNU_IFUNC
from dlopen.core.elf.structures cimport relocation_symbol, symbol_type
from dlopen.core.host.counts cimport count_host_image
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport Linker, Process, program_name
from dlopen.core.image.image cimport Image, Version, image_asked_name, replacement_of
from dlopen.core.image.listing cimport is_present
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, reader_enter, reader_leave, this_thread,
)
from dlopen.core.running.scopes cimport (
    Borrowed, borrow_scopes, give_back_scopes, take_lasting_scopes,
)
from dlopen.core.symbols.binding cimport own_address, resolve
from dlopen.core.symbols.lookup cimport (
    Definition, definition_address, symbol_name, symbol_version,
)
from dlopen.core.symbols.report cimport log_binding


cdef extern from "<errno.h>" nogil:
    int errno


cdef enum:
    EXIT_LOOKUP = 127            # as glibc ends a process for a function that is missing


cdef inline void end_for_missing(
    const Process* process, const Image* image, uint32_t symbol, int code
) noexcept nogil:
    """There is nothing to return to: glibc's message, and the process ends. In pieces: the stack
    may be a signal handler's, and the allocator's lock be taken."""
    cdef const Version* version = symbol_version(image, symbol)
    cdef const char* pieces[UNDEFINED_PIECES + 2]
    cdef size_t count = 2
    pieces[0] = program_name(process)
    pieces[1] = b": symbol lookup error: "
    if code == DLOPEN_E_MEMORY:
        pieces[2] = image_asked_name(image)
        pieces[3] = b": out of memory while binding "
        pieces[4] = symbol_name(image, &image.tables.symtab[symbol])
        count += 3
    else:
        count += undefined_pieces(
            image_asked_name(image), symbol_name(image, &image.tables.symtab[symbol]),
            version.name if version != NULL else <const char*>b"", &pieces[2]
        )
    kernel_write_line(2, &pieces[0], count)
    kernel_end_process(EXIT_LOOKUP)


cdef enum:                       # how a search of a call ends, but for DLOPEN_E_*
    CALL_FOUND = 0
    CALL_AGAIN = -1              # it was going, or another one has taken its place
    CALL_ONCE = -2               # found for this one call, of which nothing is kept


cdef inline int keep_host_for_call(Linker* linker, Image* image, Image* definer) noexcept nogil:
    """A late image of the host's, rare enough for a lock."""
    cdef void* handle
    cdef int code = CALL_AGAIN
    cdef bint known
    if locks_held != 0:
        return CALL_ONCE         # a handler, which may have interrupted who has the lock
    lock_acquire(&linker.registry.lock)
    known = pointers_hold(&image.needs.bindings, definer)
    lock_release(&linker.registry.lock)
    if known:
        return CALL_FOUND
    handle = count_host_image(linker, definer, 0)
    if handle == NULL:
        return CALL_AGAIN
    lock_acquire(&linker.registry.lock)
    if is_present(&linker.registry, definer):
        code = DLOPEN_E_MEMORY
        if pointers_reserve(&image.needs.host_handles, 1) \
                and pointers_add(&image.needs.bindings, definer):
            pointers_add(&image.needs.host_handles, handle)
            definer.life.pins += 1
            code = CALL_FOUND
    lock_release(&linker.registry.lock)
    if code != CALL_FOUND:
        close_host(linker, handle)
    return code


cdef inline bint keeps_closer_waiting(const Registry* registry) noexcept nogil:
    """This thread is in a signal handler, and who closes goes on only when that has ended."""
    return load_u64(&registry.closer) == this_thread() or is_allocating()


cdef inline int keep_for_call(
    Linker* linker, Image* image, Image* definer, uint64_t number
) noexcept nogil:
    """`definer` stays as long as `image` does, unless it is going, or another one has taken its
    place."""
    cdef void** slot
    cdef void* before
    if definer == image or definer.host.is_startup \
            or pointers_hold(&image.needs.dependencies, definer):
        return CALL_FOUND
    if definer.is_host:
        return keep_host_for_call(linker, image, definer)
    slot = <void**>&image.calls.definers[number]
    before = load_pointer(slot)
    store_pointer(slot, definer)
    # Exchanges, not stores: who takes a mark away sees what all have written who have set it.
    exchange_u32(&image.calls.has_definers, 1)
    exchange_u32(&linker.registry.has_lazy_bindings, 1)
    fence_after_exchange()       # with those of who closes, or swaps
    # What goes together is destroyed in order of dependency.
    if load_u32(&image.life.state) == DLOPEN_STATE_CLOSING or (
        load_u32(&definer.life.state) != DLOPEN_STATE_CLOSING
        and not load_u32(&definer.changes.is_replaced)
    ):
        return CALL_FOUND
    # Nothing that has gone stays written down: the next may be none of ours. Nor does what another
    # thread's same call has written, and takes back.
    compare_and_swap_pointer(slot, definer, before if before != definer else NULL)
    if load_u32(&definer.life.state) == DLOPEN_STATE_CLOSING \
            and keeps_closer_waiting(&linker.registry):
        return CALL_ONCE
    return CALL_AGAIN


cdef inline int resolve_call(
    Linker* linker, const Snapshot* snapshot, Image* image, uint32_t symbol, Borrowed* borrowed,
    Definition* definition
) noexcept nogil:
    """What a call binds to; definition.image is NULL for an undefined weak one, and where a code
    says why there is none. In any case `borrowed` is the caller's to give back."""
    cdef int code
    definition.image = NULL
    take_lasting_scopes(linker, snapshot, image, borrowed)
    code = resolve(&borrowed.scopes, image, symbol, True, NULL, definition)
    if borrowed.scopes.is_part and code != DLOPEN_E_MEMORY and (
        code or definition.image == NULL
    ):
        borrow_scopes(image, borrowed)
        code = DLOPEN_E_MEMORY
        if not borrowed.failed:
            code = resolve(&borrowed.scopes, image, symbol, True, NULL, definition)
    if code:
        definition.image = NULL
    return code


cdef inline int find_callee(
    Linker* linker, const Snapshot* snapshot, Image* image, uint64_t number, bint must,
    uint64_t* address
) noexcept nogil:
    """CALL_AGAIN: look again, in a newer snapshot. *address is 0 if nothing defines it; without
    one that a call `must` have the process ends, as without memory. Else DLOPEN_E_MEMORY."""
    cdef uint32_t symbol = relocation_symbol(&image.tables.jmprel[number])
    cdef Borrowed borrowed
    cdef Definition definition
    cdef int code
    address[0] = replacement_of(image, symbol)
    if address[0] != 0:
        return CALL_FOUND
    code = resolve_call(linker, snapshot, image, symbol, &borrowed, &definition)
    # A weak one may be undefined.
    if definition.image != NULL:
        code = keep_for_call(linker, image, definition.image, number)
    if must and code > 0:
        end_for_missing(&linker.process, image, symbol, code)
    give_back_scopes(&borrowed)
    if code == DLOPEN_E_MEMORY or code == CALL_AGAIN:
        return code
    if definition.image == NULL:
        return CALL_FOUND
    address[0] = own_address(linker.own_names, &definition)
    if logs(LOG_TRACE):
        log_binding(image, symbol, &definition, address[0])
    if address[0] == 0:
        address[0] = definition_address(&definition)
        if symbol_type(definition.symbol) == STT_GNU_IFUNC \
                and definition.symbol.st_shndx != SHN_UNDEF:
            address[0] = call_resolver(address[0])
    return code


cdef inline uint64_t bind_call(Linker* linker, Image* image, uint64_t number) noexcept nogil:
    """The function that the call with this number in DT_JMPREL leads to from now on."""
    cdef int kept_errno = errno
    cdef uint64_t address = 0
    cdef uint64_t unbound
    cdef void* place
    cdef uint32_t phase
    cdef int code = CALL_AGAIN
    if number >= image.tables.jmprel_count:
        kernel_end_process(EXIT_LOOKUP)
    place = <void*>(image.bytes_bias + image.tables.jmprel[number].r_offset)
    unbound = <uint64_t>load_pointer(place)
    while code == CALL_AGAIN:
        phase = reader_enter(&linker.registry)
        code = find_callee(
            linker, current_snapshot(&linker.registry), image, number, True, &address
        )
        reader_leave(&linker.registry, phase)
    # A patch that came in between stays, and so does what it will put back: a call of a
    # patched image is looked up each time. Who put the patch there has counted it first.
    if code == CALL_FOUND and not linker.process.bind_not \
            and load_u32(&image.changes.patch_count) == 0 \
            and image.map_start <= unbound < image.map_end:
        compare_and_swap_pointer(<void**>place, <void*>unbound, <void*>address)
    (&errno)[0] = kept_errno
    return address
