"""dlerror(3): the last message of a thread, in libc's words.

Each thread has two: one that was not asked for yet, and one that dlerror has handed out, which
stays until the next. Where libc's function was called last, its own dlerror has the message.
"""

from libc.stddef cimport size_t

from dlopen.core.arch.machine cimport exchange_of_thread
from dlopen.core.base.allocator cimport allocate, allocate_unset, release, room_of
from dlopen.core.base.contract cimport DLOPEN_E_HANDLE, DLOPEN_E_NOT_FOUND, DLOPEN_E_SYMBOL, Error
from dlopen.core.base.details cimport DETAIL_NOT_OPEN, LIBCS, detail_text
from dlopen.core.base.errors cimport error_clear, fail
from dlopen.core.base.lock cimport locks_held
from dlopen.core.base.log cimport LOG_TRACE, logs
from dlopen.core.base.message cimport write_message, write_undefined
from dlopen.core.base.registrations cimport call_at_thread_end
from dlopen.core.base.strings cimport make_printable, strlen
from dlopen.core.host.abi cimport HostFunctions
from dlopen.core.host.assumptions cimport is_unmet, unmet_text
from dlopen.core.host.linker cimport Linker, program_name
from dlopen.core.image.image cimport Image, asked_name_length, image_asked_name
from dlopen.core.symbols.report cimport log_lookup


cdef extern from *:
    """
    #include <dlfcn.h>
    #include <link.h>
    /* What dlerror(3) has to say in this thread: our message, or libc's. */
    static __thread char *dlopen_pending_message;
    static __thread char *dlopen_shown_message;
    static __thread char *dlopen_spare_message;  /* no message: room for the next one, or NULL */
    static __thread int dlopen_host_was_asked;
    static __thread int dlopen_frees_messages;   /* when it ends: the key is set */
    /* Where there is none for another: libc's words, and ours. Never freed. */
    static const char dlopen_no_memory[] = "out of memory";
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
    char* spare_message "dlopen_spare_message"
    bint host_was_asked "dlopen_host_was_asked"
    bint frees_messages "dlopen_frees_messages"
    const char* no_memory_text "dlopen_no_memory"
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


cdef inline bint is_owned(const void* message) noexcept nogil:
    """Not NULL, and not one of the texts that are never freed."""
    return message != NULL and message != <void*>no_memory_text \
        and message != <void*>unmet_text and message != <void*>in_handler_text


cdef inline void free_message(void* message) noexcept nogil:
    if is_owned(message):
        release(message)


cdef inline void clear_message(const HostFunctions* host) noexcept nogil:
    """Each call forgets the error of the one before, as under glibc."""
    cdef char* message
    if pending_message != NULL and locks_held == 0:
        message = <char*>exchange_of_thread(&pending_message, NULL)
        if is_owned(message):
            message = <char*>exchange_of_thread(&spare_message, message)
        free_message(message)
    if host_was_asked:
        host.dlerror()
        (&host_was_asked)[0] = False


cdef inline Error* new_error() noexcept nogil:
    """Not on the stack, which may be a signal handler's or a small thread's. NULL without
    memory, as for a handler that has interrupted the linker; every user of it allows that."""
    cdef Error* error = NULL
    if locks_held == 0:
        error = <Error*>allocate_unset(sizeof(Error))
    error_clear(error)
    return error


cdef inline void drop_error(Error* error) noexcept nogil:
    if error != NULL:
        release(error)


cdef inline void say_as_libc(Error* error) noexcept nogil:
    cdef const char* text = detail_text(error.detail_number, LIBCS)
    if text[0] != 0:
        error.detail = text


cdef inline void store_message(Linker* linker, char* message) noexcept nogil:
    """For this thread's next dlerror; owned from now on. NULL: there was no memory for it."""
    # At once: a signal handler may be here meanwhile.
    free_message(exchange_of_thread(
        &pending_message, message if message != NULL else <char*>no_memory_text
    ))
    if message != NULL and not frees_messages:
        # Without memory for it the message of a thread that ends is not freed.
        (&frees_messages)[0] = call_at_thread_end(linker.keys.message, linker) == 0


cdef inline void store_text(const char* text) noexcept nogil:
    """One of those that are never freed; also where the linker is not usable, or this is a
    signal handler that has interrupted it: a message that is there already stays then."""
    if locks_held == 0:
        free_message(exchange_of_thread(&pending_message, <char*>text))
    elif pending_message == NULL:
        (&pending_message)[0] = <char*>text


cdef inline void keep_message(Linker* linker, Error* error) noexcept nogil:
    """For this thread's next dlerror, in glibc's words: who needed it and what more we know
    of a file are not among them. Frees the error. There is always something to say."""
    cdef size_t length
    cdef char* message
    if is_unmet():
        store_text(unmet_text)
        drop_error(error)
        return
    if error == NULL:
        store_text(no_memory_text if locks_held == 0 else in_handler_text)
        return
    if error.code == DLOPEN_E_NOT_FOUND or error.code == DLOPEN_E_SYMBOL:
        error.needed_by = b""
    say_as_libc(error)
    length = write_message(error, NULL, 0)
    message = <char*>allocate(length + 1)
    if message != NULL:
        write_message(error, message, length + 1)
    store_message(linker, message)
    release(error)


cdef inline char* last_message(const HostFunctions* host) noexcept nogil:
    """dlerror: ours if there is one, else the host's; cleared when read."""
    free_message(exchange_of_thread(&shown_message, exchange_of_thread(&pending_message, NULL)))
    if is_owned(shown_message):
        make_printable(shown_message)
    if shown_message != NULL:
        return shown_message
    if host.dlerror == NULL:     # nothing could be asked of it yet
        return NULL
    (&host_was_asked)[0] = False
    return host.dlerror()


cdef inline void free_messages(void* _value) noexcept nogil:
    """At the end of a thread; what a later destructor leaves is freed in the next round."""
    (&frees_messages)[0] = False
    free_message(pending_message)
    free_message(shown_message)
    free_message(spare_message)
    (&spare_message)[0] = NULL
    (&pending_message)[0] = NULL
    (&shown_message)[0] = NULL


cdef inline void no_symbol(
    Linker* linker, Image* image, const char* name, size_t length, const char* version
) noexcept nogil:
    """Programs ask for what may not be there all the time: no Error is made for it. `length` is
    the name's."""
    cdef const char* object = b""
    cdef size_t object_length = 0
    cdef const char* wanted = b""
    cdef char* message
    cdef size_t size
    if version != NULL:
        wanted = version
    if image != NULL:
        object = image_asked_name(image)
        object_length = asked_name_length(image)
    if object[0] == 0:
        object = program_name(&linker.process)
        object_length = strlen(object)
    if logs(LOG_TRACE):
        log_lookup(image, name, version, NULL, 0)
    if locks_held != 0:
        store_text(in_handler_text)
        return
    size = object_length + length + strlen(wanted) + 64      # what is between them
    message = <char*>exchange_of_thread(&spare_message, NULL)
    if message != NULL and room_of(message) < size:
        release(message)
        message = NULL
    if message == NULL:
        message = <char*>allocate_unset(size)
    if message != NULL:
        write_undefined(object, object_length, name, length, wanted, message, size)
    store_message(linker, message)


cdef inline void bad_handle(Linker* linker, const char* name) noexcept nogil:
    """For dlerror: not a handle, or closed; `name` may say whose it was."""
    cdef Error* error = new_error()
    fail(error, DLOPEN_E_HANDLE, name, DETAIL_NOT_OPEN)
    keep_message(linker, error)
