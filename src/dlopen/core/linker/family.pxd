"""dlopen(3) and its family, as programs and images of ours call them.

What libc's own loader has opened is asked of libc's functions, by their handles; all
else is ours. A handle that is neither's gives an error. `caller` is an address in who
calls: its namespace, its RUNPATH and its scope count.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport thread_pointer
from dlopen.core.base.allocator cimport Allocator, allocate, release
from dlopen.core.base.atomics cimport exchange_pointer
from dlopen.core.base.contract cimport (
    DLOPEN_E_HANDLE, DLOPEN_E_INVALID, DLOPEN_E_NOT_FOUND, DLOPEN_E_NOT_LOADED,
    DLOPEN_E_UNSUPPORTED, DLOPEN_KEEP_AS_LIBC, Error, Request,
)
from dlopen.core.base.errors cimport error_clear, fail, fail_memory, fail_system
from dlopen.core.base.growable cimport Text, pointers_add_once, pointers_hold, text_free
from dlopen.core.base.kernel cimport EINVAL, ENOENT
from dlopen.core.base.lock cimport lock_acquire, lock_release, locks_held
from dlopen.core.base.log cimport LOG_TRACE, logs
from dlopen.core.base.message cimport write_message, write_undefined
from dlopen.core.base.registrations cimport call_at_thread_end
from dlopen.core.base.strings cimport has_prefix, strlen
from dlopen.core.closing.close cimport close_image, closed_if_failed
from dlopen.core.elf.constants cimport STT_TLS
from dlopen.core.elf.structures cimport symbol_type
from dlopen.core.host.abi cimport (
    RTLD_DEEPBIND, RTLD_DI_SERINFO, RTLD_DI_SERINFOSIZE, RTLD_GLOBAL, RTLD_LAZY, RTLD_NODELETE,
    RTLD_NOLOAD, RTLD_NOW,
)
from dlopen.core.host.counts cimport host_knows
from dlopen.core.host.host_lock cimport close_host, enter_host, leave_host
from dlopen.core.host.linker cimport Linker, program_name
from dlopen.core.host.refresh cimport HOSTS_CHANGED, refresh_hosts
from dlopen.core.host.uniques cimport share_unique_of_lookup
from dlopen.core.image.image cimport Image, image_asked_name
from dlopen.core.image.registry cimport (
    Snapshot, current_snapshot, reader_enter, reader_leave, snapshot_holds, snapshot_image_at,
)
from dlopen.core.opening.open cimport open_image
from dlopen.core.opening.root cimport image_of_caller
from dlopen.core.relocation.binding cimport address_of_own_name, own_address
from dlopen.core.running.find_symbol cimport (
    host_symbol, lookup_default, lookup_everywhere, lookup_in_tree, lookup_next, resolved_address,
    symbol_count_of,
)
from dlopen.core.search.folders cimport Dl_serinfo
from dlopen.core.search.listing cimport list_folders
from dlopen.core.search.tokens cimport add_origin
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, definition_address, nearest_symbol, refer, symbol_name,
)
from dlopen.core.symbols.report cimport log_lookup
from dlopen.core.tls.modules cimport known_block
cdef extern from *:
    """
    #include <dlfcn.h>
    #include <link.h>
    /* What dlerror(3) has to say in this thread: our message, or libc's. */
    static __thread char *dlopen_pending_message;
    static __thread char *dlopen_shown_message;
    static __thread int dlopen_host_was_asked;
    static __thread int dlopen_frees_messages;   /* when it ends: the key is set */
    /* Where there is none for another: libc's words, and ours. Never freed. */
    static const char dlopen_no_memory[] = "out of memory";
    static const char dlopen_no_libc[] =
        "libc.so.6 was not found in this process: glibc is needed";
    static const char dlopen_in_handler[] =
        "not possible in a signal handler that has interrupted the linker";
    /* Of dlsym: in two registers. */
    struct dlopen_answer { void *result, *forward; };
    """
    ctypedef struct Answer "struct dlopen_answer":
        void* result
        void* forward            # not NULL: jump there instead, with the same arguments
    char* pending_message "dlopen_pending_message"
    char* shown_message "dlopen_shown_message"
    bint host_was_asked "dlopen_host_was_asked"
    bint frees_messages "dlopen_frees_messages"
    const char* no_memory_text "dlopen_no_memory"
    const char* no_libc_text "dlopen_no_libc"
    const char* in_handler_text "dlopen_in_handler"
    enum:
        RTLD_DI_LMID, RTLD_DI_LINKMAP, RTLD_DI_ORIGIN, RTLD_DI_TLS_MODID, RTLD_DI_TLS_DATA
        RTLD_DL_SYMENT, RTLD_DL_LINKMAP
        LM_ID_BASE, LM_ID_NEWLM


cdef extern from "<dlfcn.h>" nogil:
    ctypedef struct AddressInfo "Dl_info":
        const char* dli_fname
        void* dli_fbase
        const char* dli_sname
        void* dli_saddr


cdef enum:
    HOST_NAMESPACES = 16         # libc has these ids; ours are above
    LM_ID_CALLER = -2            # __LM_ID_CALLER of glibc
    RTLD_DI_PHDR_REQUEST = 11    # RTLD_DI_PHDR of glibc 2.36
    NO_MEMORY = -2               # of answer_information


# Errors -------------------------------------------------------------------------------------


cdef inline void free_message(Linker* linker, void* message) noexcept nogil:
    if message != <void*>no_memory_text and message != <void*>no_libc_text \
            and message != <void*>in_handler_text:
        release(&linker.registry.allocator, message)


cdef inline void clear_message(Linker* linker) noexcept nogil:
    """Each call forgets the error of the one before, as under glibc."""
    if pending_message != NULL and locks_held == 0:
        free_message(linker, exchange_pointer(&pending_message, NULL))
    if host_was_asked:
        linker.host.dlerror()
        (&host_was_asked)[0] = False


cdef inline Error* new_error(Linker* linker) noexcept nogil:
    """Not on the stack, which may be a signal handler's or a small thread's. NULL without
    memory, as for a handler that has interrupted the linker; every user of it allows that."""
    cdef Error* error = NULL
    if locks_held == 0:
        error = <Error*>allocate(&linker.registry.allocator, sizeof(Error))
    error_clear(error)
    return error


cdef inline void drop_error(Linker* linker, Error* error) noexcept nogil:
    if error != NULL:
        release(&linker.registry.allocator, error)


cdef inline void say_as_libc(Error* error) noexcept nogil:
    """Where we know more of what is wrong with a file, or say it better."""
    cdef const char* detail = error.detail
    if has_prefix(detail, b"invalid ELF header"):
        error.detail = b"invalid ELF header"
    elif has_prefix(detail, b"file too short"):
        error.detail = b"file too short"
    elif has_prefix(detail, b"program headers lie outside the file"):
        error.detail = b"cannot read file data"
    elif has_prefix(detail, b"shared object cannot be dlopen()ed"):
        error.detail = b"shared object cannot be dlopen()ed"
    elif has_prefix(detail, b"a relocatable object file") or has_prefix(detail, b"a core dump") \
            or has_prefix(detail, b"only ET_DYN can be loaded"):
        error.detail = b"only ET_DYN and ET_EXEC can be loaded"
    elif has_prefix(detail, b"for another machine"):
        error.detail = b"cannot open shared object file"
        error.errnum = ENOENT


cdef inline void store_message(Linker* linker, char* message) noexcept nogil:
    """For this thread's next dlerror; owned from now on. NULL: there was no memory for it."""
    # At once: a signal handler may be here meanwhile.
    free_message(linker, exchange_pointer(
        &pending_message, message if message != NULL else <char*>no_memory_text
    ))
    if message != NULL and not frees_messages:
        # Without memory for it the message of a thread that ends is not freed.
        (&frees_messages)[0] = call_at_thread_end(linker.message_key, linker) == 0


cdef inline void store_text(Linker* linker, const char* text) noexcept nogil:
    """One of those that are never freed; also where the linker is not usable, or this is a
    signal handler that has interrupted it: a message that is there already stays then."""
    if locks_held == 0:
        free_message(linker, exchange_pointer(&pending_message, <char*>text))
    elif pending_message == NULL:
        (&pending_message)[0] = <char*>text


cdef inline void keep_message(Linker* linker, Error* error) noexcept nogil:
    """For this thread's next dlerror, in glibc's words: who needed it and what more we know
    of a file are not among them. Frees the error. There is always something to say."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef size_t length
    cdef char* message
    if error == NULL:
        store_text(linker, no_memory_text if locks_held == 0 else in_handler_text)
        return
    if error.code == DLOPEN_E_NOT_FOUND:
        error.needed_by = b""
    say_as_libc(error)
    length = write_message(error, NULL, 0)
    message = <char*>allocate(allocator, length + 1)
    if message != NULL:
        write_message(error, message, length + 1)
    store_message(linker, message)
    release(allocator, error)


cdef inline char* last_message(Linker* linker) noexcept nogil:
    """dlerror: ours if there is one, else the host's; cleared when read."""
    free_message(
        linker, exchange_pointer(&shown_message, exchange_pointer(&pending_message, NULL))
    )
    if shown_message != NULL:
        return shown_message
    if linker.host.dlerror == NULL:      # nothing could be asked of it yet
        return NULL
    (&host_was_asked)[0] = False
    return linker.host.dlerror()


cdef inline void free_messages(Linker* linker) noexcept nogil:
    """At the end of a thread; what a later destructor leaves is freed in the next round."""
    (&frees_messages)[0] = False
    free_message(linker, pending_message)
    free_message(linker, shown_message)
    (&pending_message)[0] = NULL
    (&shown_message)[0] = NULL


# Handles ------------------------------------------------------------------------------------


cdef inline Image* image_of_handle(const Snapshot* snapshot, const void* handle) noexcept nogil:
    """Ours, or what is known of the host's; NULL for neither."""
    cdef size_t i
    if snapshot_holds(snapshot, handle) and not (<const Image*>handle).is_host:
        return <Image*>handle
    for i in range(snapshot.host_count):
        if handle != NULL and snapshot.hosts[i].host_handle == handle:
            return snapshot.hosts[i]
    return NULL


cdef inline void bad_handle(Linker* linker, const char* name) noexcept nogil:
    cdef Error* error = new_error(linker)
    fail(error, DLOPEN_E_HANDLE, name, b"shared object not open")
    keep_message(linker, error)


# Opening and closing ------------------------------------------------------------------------


cdef inline void* open_for_caller(
    Linker* linker, int64_t namespace_id, const char* name, int mode, const void* caller
) noexcept nogil:
    cdef Request request
    cdef Error* error = new_error(linker)
    cdef Image* image = NULL
    cdef int code
    memset(&request, 0, sizeof(request))
    request.size = sizeof(request)
    request.name = name if name != NULL and name[0] != 0 else NULL
    request.caller = caller
    request.mode = <uint32_t>mode
    request.flags = DLOPEN_KEEP_AS_LIBC
    request.namespace_id = namespace_id
    if mode & ~(
        RTLD_LAZY | RTLD_NOW | RTLD_NOLOAD | RTLD_DEEPBIND | RTLD_GLOBAL | RTLD_NODELETE
    ):
        code = fail(error, DLOPEN_E_INVALID, b"", b"invalid mode parameter")
    elif not mode & (RTLD_LAZY | RTLD_NOW):
        code = fail_system(error, DLOPEN_E_INVALID, name, b"invalid mode for dlopen()", -EINVAL)
    else:
        code = closed_if_failed(
            linker, open_image(linker, &request, &image, error), &image
        )
    if code == 0:
        drop_error(linker, error)
        return image.host_handle if image.is_host else image
    if code == DLOPEN_E_NOT_LOADED:
        drop_error(linker, error)    # RTLD_NOLOAD only asks
    else:
        keep_message(linker, error)
    return NULL


cdef inline int64_t namespace_of_caller(Linker* linker, const void* caller) noexcept nogil:
    cdef uint32_t phase = reader_enter(&linker.registry)
    cdef Image* image = snapshot_image_at(current_snapshot(&linker.registry), <uint64_t>caller)
    cdef int64_t namespace_id = image.namespace_id if image != NULL else 0
    reader_leave(&linker.registry, phase)
    return namespace_id


cdef inline void* family_dlopen(
    Linker* linker, const char* name, int mode, const void* caller
) noexcept nogil:
    clear_message(linker)
    return open_for_caller(linker, namespace_of_caller(linker, caller), name, mode, caller)


cdef inline void* family_dlmopen(
    Linker* linker, int64_t namespace_id, const char* name, int mode, const void* caller
) noexcept nogil:
    cdef Error* error
    cdef void* handle
    clear_message(linker)
    if namespace_id == LM_ID_CALLER:
        namespace_id = namespace_of_caller(linker, caller)
    if namespace_id > 0 and namespace_id < HOST_NAMESPACES:
        (&host_was_asked)[0] = True
        enter_host(linker)
        handle = linker.host.dlmopen(namespace_id, name, mode)
        leave_host(linker)
        return handle
    error = new_error(linker)
    if namespace_id != LM_ID_BASE and name == NULL:
        fail_system(error, DLOPEN_E_INVALID, b"", b"invalid namespace", -EINVAL)
    elif namespace_id != LM_ID_BASE and mode & RTLD_GLOBAL:
        fail_system(error, DLOPEN_E_INVALID, b"", b"invalid mode", -EINVAL)
    elif namespace_id < LM_ID_NEWLM:
        fail_system(
            error, DLOPEN_E_INVALID, name, b"invalid target namespace in dlmopen()", -EINVAL
        )
    else:
        drop_error(linker, error)
        return open_for_caller(linker, namespace_id, name, mode, caller)
    keep_message(linker, error)
    return NULL


cdef inline int family_dlclose(Linker* linker, void* handle) noexcept nogil:
    cdef uint32_t phase
    cdef Image* image
    cdef bint stays = False
    clear_message(linker)
    phase = reader_enter(&linker.registry)
    image = image_of_handle(current_snapshot(&linker.registry), handle)
    if image != NULL and image.is_host and image.open_count == 0:
        image = NULL             # not opened through us
    elif image != NULL and not image.is_host:
        stays = image.nodelete and image.open_count == 0
        if image.open_count == 0 and not stays:
            bad_handle(linker, image_asked_name(image))
    reader_leave(&linker.registry, phase)
    if stays:
        return 0                 # libc does not count what cannot go
    if image != NULL:
        if close_image(linker, image, NULL) == 0:
            return 0
        if pending_message == NULL:
            bad_handle(linker, b"")
        return -1
    if handle == NULL or not host_knows(linker, handle):
        bad_handle(linker, b"")
        return -1
    (&host_was_asked)[0] = True
    return close_host(linker, handle)


# Symbols ------------------------------------------------------------------------------------


cdef inline bint keep_for_caller(Linker* linker, Image* caller, Image* definer) noexcept nogil:
    """What RTLD_DEFAULT hands out stays as long as who asked, as under glibc. False without
    memory."""
    cdef bint kept = True
    if definer.is_host or definer == caller or definer.nodelete:
        return True
    if locks_held != 0:
        definer.nodelete = True  # a handler, which may have interrupted who has the lock
        return True
    lock_acquire(&linker.registry.lock)
    if caller == NULL or caller.is_host or caller.nodelete:
        definer.nodelete = True
    elif not pointers_hold(&caller.dependencies, definer):
        kept = pointers_add_once(&linker.registry.allocator, &caller.bindings, definer)
    lock_release(&linker.registry.lock)
    return kept


cdef inline void no_symbol(
    Linker* linker, const Image* image, const char* name, const char* version
) noexcept nogil:
    """Programs ask for what may not be there all the time: no Error is made for it."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef const char* object = b""
    cdef const char* wanted = b""
    cdef char* message
    cdef size_t size
    if version != NULL:
        wanted = version
    if image != NULL:
        object = image_asked_name(image)
    if object[0] == 0:
        object = program_name(linker)
    if logs(LOG_TRACE):
        log_lookup(image, name, version, NULL, 0)
    if locks_held != 0:
        store_text(linker, in_handler_text)
        return
    size = strlen(object) + strlen(name) + strlen(wanted) + 64     # what is between them
    message = <char*>allocate(allocator, size)
    if message != NULL:
        write_undefined(object, name, wanted, message, size, 0)
    store_message(linker, message)


cdef inline uint64_t address_for_program(
    Linker* linker, const Definition* definition
) noexcept nogil:
    """Names that are always ours stay ours."""
    cdef uint64_t address = own_address(linker.own_names, definition)
    return address if address != 0 else resolved_address(linker, definition)


cdef inline Answer forward(Linker* linker, const char* version) noexcept nogil:
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
    image = image_of_caller(current_snapshot(&linker.registry), answer.result)
    if image != NULL and (image.is_c_library or image.is_cxx_runtime):
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
    clear_message(linker)
    answer.result = NULL
    answer.forward = NULL
    refer(&reference, name, version)
    phase = reader_enter(&linker.registry)
    snapshot = current_snapshot(&linker.registry)
    if is_default or is_next:
        image = image_of_caller(snapshot, caller)
        # What cannot be found out for want of memory, libc is asked below.
        if image == NULL and refresh_hosts(linker, snapshot) == HOSTS_CHANGED:
            reader_leave(&linker.registry, phase)
            phase = reader_enter(&linker.registry)
            snapshot = current_snapshot(&linker.registry)
            image = image_of_caller(snapshot, caller)
    else:
        image = image_of_handle(snapshot, handle)
    if is_default:
        found = lookup_default(linker, snapshot, image, &reference, &definition)
        no_memory = found and not keep_for_caller(linker, image, definition.image)
    elif image == NULL:
        found = False
    elif is_next:
        found = lookup_next(linker, snapshot, image, &reference, &definition)
    elif image.from_main:
        found = lookup_everywhere(linker, snapshot, 0, &reference, &definition)
    else:
        found = not image.is_host and lookup_in_tree(image, &reference, &definition)
    if found and not no_memory:
        no_memory = not share_unique_of_lookup(linker, snapshot, &reference, &definition)
    if no_memory:
        store_text(linker, no_memory_text)
    elif found:
        answer.result = <void*>address_for_program(linker, &definition)
        if answer.result == NULL and symbol_type(definition.symbol) == STT_TLS:
            store_text(linker, no_memory_text)   # no storage in this thread
        if logs(LOG_TRACE):
            log_lookup(
                NULL if is_default or is_next else image, name, version, definition.image,
                <uint64_t>answer.result
            )
    elif is_default or is_next:
        # What the host has brought in late, it knows the scope of.
        if image == NULL or (image.is_host and not image.is_startup):
            answer = forward(linker, version)
        else:
            no_symbol(linker, image, name, version)
    elif image != NULL and (not image.is_host or image.from_main):
        no_symbol(linker, image, name, version)
    else:
        is_hosts = True
    reader_leave(&linker.registry, phase)
    if not is_hosts:
        return answer
    if image == NULL and not host_knows(linker, handle):
        bad_handle(linker, b"")
        return answer
    return ask_host(linker, handle, name, version)


cdef inline int family_dladdr(
    Linker* linker, const void* address, AddressInfo* info, void** extra, int flags
) noexcept nogil:
    """dladdr1; dladdr with flags 0."""
    cdef uint32_t phase = reader_enter(&linker.registry)
    cdef Image* image = snapshot_image_at(current_snapshot(&linker.registry), <uint64_t>address)
    cdef Definition definition
    cdef int code
    if image == NULL:
        reader_leave(&linker.registry, phase)
        enter_host(linker)
        if flags:
            code = linker.host.dladdr1(address, info, extra, flags)
        else:
            code = linker.host.dladdr(address, info)
        leave_host(linker)
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
    if image.has_static_tls:
        return <void*>(thread_pointer() + <uint64_t>image.tls_offset)
    return known_block(image.tls_module_id) if image.tls_module_id else NULL


cdef inline int answer_origin(Linker* linker, const Image* image, char* result) noexcept nogil:
    """-1: it is not known."""
    cdef Text text
    cdef int answer = -1
    memset(&text, 0, sizeof(text))
    if add_origin(linker, image, &text) and not text.failed:
        memcpy(result, text.data, text.length + 1)
        answer = 0
    elif text.failed:
        answer = NO_MEMORY
    text_free(&linker.registry.allocator, &text)
    return answer


cdef inline int answer_information(
    Linker* linker, const Snapshot* snapshot, const Image* image, int request, void* result
) noexcept nogil:
    """In a reader section; 0, the number of program headers, -1 or NO_MEMORY."""
    if request == RTLD_DI_ORIGIN:
        return answer_origin(linker, image, <char*>result)
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
        (<size_t*>result)[0] = image.tls_module_id
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
    cdef const Snapshot* snapshot
    cdef Error* error
    cdef uint32_t phase
    cdef Image* image
    cdef int answer = -1
    cdef bint is_ours
    clear_message(linker)
    phase = reader_enter(&linker.registry)
    snapshot = current_snapshot(&linker.registry)
    image = image_of_handle(snapshot, handle)
    is_ours = image != NULL and not image.is_host
    if is_ours:
        answer = answer_information(linker, snapshot, image, request, result)
    reader_leave(&linker.registry, phase)
    if is_ours:
        if answer < 0:
            error = new_error(linker)
            if answer == NO_MEMORY:
                fail_memory(error, b"")
            else:
                fail(error, DLOPEN_E_UNSUPPORTED, b"", b"unsupported dlinfo request")
            keep_message(linker, error)
            return -1
        return answer
    if image == NULL and not host_knows(linker, handle):
        bad_handle(linker, b"")
        return -1
    (&host_was_asked)[0] = True
    enter_host(linker)
    answer = linker.host.dlinfo(handle, request, result)
    leave_host(linker)
    return answer
