"""dladdr(3) and dlinfo(3), for images of ours; of the host's they are the host's affair."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport thread_pointer
from dlopen.core.base.allocator cimport is_in_first_chunk
from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport DLOPEN_E_UNSUPPORTED, Error
from dlopen.core.base.details cimport DETAIL_DLINFO_REQUEST
from dlopen.core.base.errors cimport fail, fail_memory
from dlopen.core.base.growable cimport Text, text_free
from dlopen.core.family.errors cimport (
    NO_MEMORY, RTLD_DI_LINKMAP, RTLD_DI_LMID, RTLD_DI_ORIGIN, RTLD_DI_PHDR_REQUEST,
    RTLD_DI_TLS_DATA, RTLD_DI_TLS_MODID, RTLD_DL_LINKMAP, RTLD_DL_SYMENT, AddressInfo, bad_handle,
    clear_message, host_was_asked, keep_message, new_error,
)
from dlopen.core.family.opening cimport image_of_handle
from dlopen.core.host.abi cimport RTLD_DI_SERINFO, RTLD_DI_SERINFOSIZE
from dlopen.core.host.counts cimport host_knows
from dlopen.core.host.host_lock cimport enter_host, leave_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, image_asked_name
from dlopen.core.image.listing cimport image_at
from dlopen.core.image.registry cimport (
    Snapshot, current_snapshot, reader_enter, reader_leave,
)
from dlopen.core.running.find_symbol cimport symbol_count_of
from dlopen.core.search.folders cimport Dl_serinfo
from dlopen.core.search.listing cimport list_folders
from dlopen.core.search.tokens cimport add_origin
from dlopen.core.symbols.lookup cimport Definition, definition_address, nearest_symbol, symbol_name
from dlopen.core.tls.modules cimport known_block


cdef inline int family_dladdr(
    Linker* linker, const void* address, AddressInfo* info, void** extra, int flags
) noexcept nogil:
    """dladdr1; dladdr with flags 0."""
    cdef uint32_t phase = reader_enter(&linker.registry)
    cdef Image* image = image_at(&linker.registry, <uint64_t>address)
    cdef Definition definition
    cdef int code
    if image == NULL:
        reader_leave(&linker.registry, phase)
        # A thread's storage, say: no object's, as under libc.
        if is_in_first_chunk(address):
            return 0
        enter_host(&linker.host_use)
        if flags:
            code = linker.host.dladdr1(address, info, extra, flags)
        else:
            code = linker.host.dladdr(address, info)
        leave_host(&linker.host_use)
        return code
    info.dli_fname = image_asked_name(image)
    info.dli_fbase = <void*>image.map_start
    info.dli_sname = NULL
    info.dli_saddr = NULL
    if flags == RTLD_DL_LINKMAP:
        extra[0] = image
    elif flags == RTLD_DL_SYMENT:
        extra[0] = NULL
    if nearest_symbol(image, <uint64_t>address, symbol_count_of(image), &definition):
        info.dli_sname = symbol_name(image, definition.symbol)
        info.dli_saddr = <void*>definition_address(&definition)
        if flags == RTLD_DL_SYMENT:
            extra[0] = <void*>definition.symbol
    reader_leave(&linker.registry, phase)
    return 1


# Information --------------------------------------------------------------------------------


cdef inline void* block_of_thread(const Image* image) noexcept nogil:
    """NULL if this thread has not touched it, as glibc answers too."""
    if load_u32(&image.thread_local.is_static):
        return <void*>(thread_pointer() + <uint64_t>image.thread_local.offset)
    return known_block(image.thread_local.module_id) if image.thread_local.module_id else NULL


cdef inline int answer_origin(const Image* image, char* result) noexcept nogil:
    """-1: it is not known."""
    cdef Text text
    cdef int answer = -1
    memset(&text, 0, sizeof(text))
    if add_origin(image, &text) and not text.failed:
        memcpy(result, text.data, text.length + 1)
        answer = 0
    elif text.failed:
        answer = NO_MEMORY
    text_free(&text)
    return answer


cdef inline int answer_information(
    Linker* linker, const Snapshot* snapshot, const Image* image, int request, void* result
) noexcept nogil:
    """In a reader section; 0, the number of program headers, -1 or NO_MEMORY."""
    if request == RTLD_DI_ORIGIN:
        return answer_origin(image, <char*>result)
    elif request == RTLD_DI_SERINFO or request == RTLD_DI_SERINFOSIZE:
        if not list_folders(
            linker, snapshot, image, request == RTLD_DI_SERINFOSIZE, <Dl_serinfo*>result
        ):
            return NO_MEMORY
    elif request == RTLD_DI_LMID:
        (<long*>result)[0] = image.namespace_id
    elif request == RTLD_DI_LINKMAP:
        (<const void**>result)[0] = image
    elif request == RTLD_DI_TLS_MODID:
        (<size_t*>result)[0] = image.thread_local.module_id
    elif request == RTLD_DI_TLS_DATA:
        (<void**>result)[0] = block_of_thread(image)
    elif request == RTLD_DI_PHDR_REQUEST:
        (<const void**>result)[0] = image.layout.phdrs
        return <int>image.layout.phnum
    else:
        return -1
    return 0


cdef inline int family_dlinfo(
    Linker* linker, void* handle, int request, void* result
) noexcept nogil:
    """dlinfo(3): 0, or -1 with a message."""
    cdef const Snapshot* snapshot
    cdef Error* error
    cdef uint32_t phase
    cdef Image* image
    cdef int answer = -1
    cdef bint is_ours
    clear_message(&linker.host)
    phase = reader_enter(&linker.registry)
    snapshot = current_snapshot(&linker.registry)
    image = image_of_handle(&linker.registry, handle)
    is_ours = image != NULL and not image.is_host
    if is_ours:
        answer = answer_information(linker, snapshot, image, request, result)
    reader_leave(&linker.registry, phase)
    if is_ours:
        if answer < 0:
            error = new_error()
            if answer == NO_MEMORY:
                fail_memory(error, b"")
            else:
                fail(error, DLOPEN_E_UNSUPPORTED, b"", DETAIL_DLINFO_REQUEST)
            keep_message(linker, error)
            return -1
        return answer
    if image == NULL and not host_knows(linker, handle):
        bad_handle(linker, b"")
        return -1
    (&host_was_asked)[0] = True
    enter_host(&linker.host_use)
    answer = linker.host.dlinfo(handle, request, result)
    leave_host(&linker.host_use)
    return answer
