"""dlsym(3) and dlvsym(3): whose handle it is, what RTLD_DEFAULT and RTLD_NEXT mean to the caller.

What only the host can know is asked by a jump to its function, with the caller's frame as it was
(arch/<machine>.S).
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.atomics cimport load_flag, store_flag
from dlopen.core.base.growable cimport pointers_add, pointers_hold
from dlopen.core.base.lock cimport lock_acquire, lock_release, locks_held
from dlopen.core.base.log cimport LOG_TRACE, logs
from dlopen.core.elf.constants cimport STT_TLS
from dlopen.core.elf.structures cimport symbol_type
from dlopen.core.family.errors cimport (
    Answer, bad_handle, clear_message, host_was_asked, no_memory_text, no_symbol, store_text,
)
from dlopen.core.family.opening cimport image_of_handle
from dlopen.core.host.counts cimport host_knows
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.refresh cimport HOSTS_CHANGED, refresh_hosts
from dlopen.core.host.uniques cimport share_unique_of_lookup
from dlopen.core.image.image cimport Image
from dlopen.core.image.listing cimport image_of_caller
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, reader_enter, reader_leave,
)
from dlopen.core.running.find_symbol cimport (
    host_symbol, lookup_default, lookup_everywhere, lookup_in_tree, lookup_next, resolved_address,
)
from dlopen.core.symbols.binding cimport address_of_own_name, may_be_own, own_address
from dlopen.core.symbols.lookup cimport Definition, Reference, refer
from dlopen.core.symbols.report cimport log_lookup


# Symbols ------------------------------------------------------------------------------------


cdef inline bint keep_for_caller(Registry* registry, Image* caller, Image* definer) noexcept nogil:
    """What RTLD_DEFAULT hands out stays as long as who asked, as under glibc. False without
    memory."""
    cdef bint kept = True
    if definer.is_host or definer == caller or load_flag(&definer.life.nodelete):
        return True
    if locks_held != 0:
        # A handler, which may have interrupted who has the lock.
        store_flag(&definer.life.nodelete, True)
        return True
    lock_acquire(&registry.lock)
    if caller == NULL or caller.is_host or load_flag(&caller.life.nodelete):
        store_flag(&definer.life.nodelete, True)
    elif not pointers_hold(&caller.needs.dependencies, definer) \
            and not pointers_hold(&caller.needs.bindings, definer):
        kept = pointers_add(&caller.needs.bindings, definer)
        definer.life.references += kept
    lock_release(&registry.lock)
    return kept


cdef inline uint64_t address_for_program(
    Linker* linker, const Reference* reference, const Definition* definition
) noexcept nogil:
    """Names that are always ours stay ours."""
    cdef uint64_t address = 0
    if may_be_own(reference.hash, definition.image):
        address = own_address(linker.own_names, definition)
    return address if address != 0 else resolved_address(linker, definition)


cdef inline Answer forward(Linker* linker, const char* version) noexcept nogil:
    """libc's own function is to answer, with the caller's arguments."""
    cdef Answer answer
    (&host_was_asked)[0] = True
    answer.result = NULL
    answer.forward = <void*>linker.host.dlvsym if version != NULL else <void*>linker.host.dlsym
    return answer


cdef inline Answer ask_host(
    Linker* linker, void* handle, const char* name, const char* version
) noexcept nogil:
    """A handle of the host's: it searches its own, but names of ours are not libc's."""
    cdef Answer answer = forward(linker, version)
    cdef uint64_t own = address_of_own_name(linker.own_names, name)
    cdef uint32_t phase
    cdef Image* image
    if own == 0:
        return answer
    answer.result = host_symbol(linker, handle, name, version)
    answer.forward = NULL
    phase = reader_enter(&linker.registry)
    image = image_of_caller(&linker.registry, answer.result)
    if image != NULL and (image.host.is_c_library or image.host.is_cxx_runtime):
        answer.result = <void*>own
    reader_leave(&linker.registry, phase)
    return answer


cdef inline Answer family_dlsym(
    Linker* linker, void* handle, const char* name, const char* version, const void* caller
) noexcept nogil:
    """dlsym, or dlvsym if there is a version."""
    cdef Answer answer
    cdef Reference reference
    cdef Definition definition
    cdef const Snapshot* snapshot
    cdef Image* image
    cdef uint32_t phase
    cdef bint is_default = handle == NULL
    cdef bint is_next = handle == <void*>(-1)
    cdef bint found
    cdef bint no_memory = False
    cdef bint is_hosts = False   # the handle, or nobody's
    clear_message(&linker.host)
    answer.result = NULL
    answer.forward = NULL
    refer(&reference, name, version)
    phase = reader_enter(&linker.registry)
    snapshot = current_snapshot(&linker.registry)
    if is_default or is_next:
        image = image_of_caller(&linker.registry, caller)
        # What cannot be found out for want of memory, libc is asked below.
        if image == NULL and refresh_hosts(linker, snapshot) == HOSTS_CHANGED:
            reader_leave(&linker.registry, phase)
            phase = reader_enter(&linker.registry)
            snapshot = current_snapshot(&linker.registry)
            image = image_of_caller(&linker.registry, caller)
    else:
        image = image_of_handle(&linker.registry, handle)
    if is_default:
        found = lookup_default(linker, snapshot, image, &reference, &definition)
        no_memory = found and not keep_for_caller(&linker.registry, image, definition.image)
    elif image == NULL:
        found = False
    elif is_next:
        found = lookup_next(linker, snapshot, image, &reference, &definition)
    elif image.host.is_program:
        found = lookup_everywhere(linker, snapshot, 0, &reference, &definition)
    else:
        found = not image.is_host and lookup_in_tree(image, &reference, &definition)
    if found and not no_memory:
        no_memory = not share_unique_of_lookup(linker, snapshot, &reference, &definition)
    if no_memory:
        store_text(no_memory_text)
    elif found:
        answer.result = <void*>address_for_program(linker, &reference, &definition)
        if answer.result == NULL and symbol_type(definition.symbol) == STT_TLS:
            store_text(no_memory_text)   # no storage in this thread
        if logs(LOG_TRACE):
            log_lookup(
                NULL if is_default or is_next else image, name, version, definition.image,
                <uint64_t>answer.result
            )
    elif is_default or is_next:
        # What the host has brought in late, it knows the scope of.
        if image == NULL or (image.is_host and not image.host.is_startup):
            answer = forward(linker, version)
        else:
            no_symbol(linker, image, name, reference.length, version)
    elif image != NULL and (not image.is_host or image.host.is_program):
        no_symbol(linker, image, name, reference.length, version)
    else:
        is_hosts = True
    reader_leave(&linker.registry, phase)
    if not is_hosts:
        return answer
    if image == NULL and not host_knows(linker, handle):
        bad_handle(linker, b"")
        return answer
    return ask_host(linker, handle, name, version)
