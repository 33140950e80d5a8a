"""libdlopen.so: the exported functions, and the dl* family as images of ours see it.

What each of them does is said in dlopen.h or its manual page, and done in face/ or family/; here
is the list, and what all of them begin with. The one translation unit of the core. Nothing in it
needs an interpreter: the linker drops all that Cython's module initialisation alone would reach.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from dlopen.core.arch.processor cimport prepare_processor
from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport (
    DLOPEN_ABI, DLOPEN_E_INVALID, Error, Info, LocateMember, Patched, PublicImage,
    PublicReplacement, PublicSymbol, PublicVersion, Request, VisitCandidate, VisitHolder,
    VisitRelocation,
)
from dlopen.core.base.details cimport DETAIL_NO_NAMESPACE
from dlopen.core.base.errors cimport error_clear, fail, fail_memory
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.message cimport write_message
from dlopen.core.base.registrations cimport call_at_fork, make_key
from dlopen.core.closing.close cimport close_image, closed_if_failed, collect
from dlopen.core.closing.holders cimport visit_holders
from dlopen.core.closing.process_end cimport finish_at_exit
from dlopen.core.closing.thread_exit cimport at_thread_exit
from dlopen.core.elf.structures cimport Sym
from dlopen.core.face.finding cimport show_search
from dlopen.core.face.forking cimport begin_fork, end_fork, end_fork_in_child
from dlopen.core.face.information cimport dependency_at, inform, list_images, needed_at, version_at
from dlopen.core.face.iterating cimport find_object, iterate
from dlopen.core.face.relocations cimport visit_relocations
from dlopen.core.face.sizes cimport whole_request, wrong_size
from dlopen.core.face.starting cimport (
    begin_preparing, end_preparing, has_no_libc, keep_settings_of_start, look_first, not_usable,
    outcome, read_arguments, read_settings, startup,
)
from dlopen.core.face.symbols cimport find_symbol, symbol_at, symbol_at_address
from dlopen.core.face.thread_local cimport block_at_first_touch, tls_address
from dlopen.core.family.errors cimport (
    AddressInfo, Answer, free_messages, last_message, no_memory_text, store_text,
)
from dlopen.core.family.information cimport family_dladdr, family_dlinfo
from dlopen.core.family.opening cimport family_dlclose, family_dlmopen, family_dlopen
from dlopen.core.family.symbols cimport family_dlsym, forward
from dlopen.core.host.abi cimport AT_PAGESZ, PhdrVisitor, getauxval
from dlopen.core.host.assumptions cimport is_unmet, say_habits, say_unmet, unmet_text
from dlopen.core.host.counts cimport host_knows
from dlopen.core.host.functions cimport bind_host_functions
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport NO_LIBC, READY, UNPREPARED, Linker, rank_locks
from dlopen.core.host.namespaces cimport end_namespace, make_namespace
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport ObjectDestructor, reader_enter, reader_leave
from dlopen.core.opening.by_hand cimport map_only, relocate_mapped
from dlopen.core.opening.existing cimport open_existing
from dlopen.core.opening.open cimport open_image
from dlopen.core.running.calls cimport bind_call
from dlopen.core.running.patch cimport patch_image, unpatch
from dlopen.core.running.swap cimport retain, swap_images
from dlopen.core.search.archives cimport set_archives
from dlopen.core.symbols.lookup cimport is_defined, is_export
from dlopen.core.symbols.scopes cimport OwnName
from dlopen.core.tls.modules cimport TlsIndex, thread_ends


cdef extern from *:
    """
    /* The names of libc that stand before libc's own: see the end of this file. dlsym and
       dlvsym are in arch/<machine>.S. Hidden with AddressSanitizer, whose runtime would call
       them before it can run code that it has instrumented. */
    #if defined(DLOPEN_SANITIZE) && !defined(DLOPEN_SANITIZE_THREAD)
    #define DLOPEN_VISIBILITY ".hidden "
    #else
    #define DLOPEN_VISIBILITY ".globl "
    #endif
    #define DLOPEN_EXPORT(name, entry) __asm__( \\
        DLOPEN_VISIBILITY #name "; .type " #name ", @function; .set " #name ", " #entry);
    DLOPEN_EXPORT(dlopen, dlopen_entry_dlopen)
    DLOPEN_EXPORT(dlmopen, dlopen_entry_dlmopen)
    DLOPEN_EXPORT(dlclose, dlopen_entry_dlclose)
    DLOPEN_EXPORT(dlerror, dlopen_entry_dlerror)
    DLOPEN_EXPORT(dladdr, dlopen_entry_dladdr)
    DLOPEN_EXPORT(dladdr1, dlopen_entry_dladdr1)
    DLOPEN_EXPORT(dlinfo, dlopen_entry_dlinfo)
    DLOPEN_EXPORT(dl_iterate_phdr, dlopen_entry_dl_iterate_phdr)
    DLOPEN_EXPORT(_dl_find_object, dlopen_entry_find_object)
    __attribute__((visibility("hidden")))
    extern const char dlopen_entry_dlsym[], dlopen_entry_dlvsym[];
    #define DLOPEN_CALLER __builtin_return_address(0)
    """
    const char* entry_dlsym "dlopen_entry_dlsym"
    const char* entry_dlvsym "dlopen_entry_dlvsym"
    const void* caller_address "DLOPEN_CALLER"


# The one instance. Guarded as host/linker.pxd says.
cdef Linker the_linker


cdef bint make_keys(Linker* linker) noexcept nogil:
    if not linker.keys.has_tls:
        linker.keys.has_tls = make_key(&linker.tls.key, end_of_thread) == 0
    if not linker.keys.has_message:
        linker.keys.has_message = make_key(&linker.keys.message, free_messages) == 0
    return linker.keys.has_tls and linker.keys.has_message


cdef bint prepare(Linker* linker) noexcept nogil:
    """Makes the linker usable, once: by the first call, which may come before the constructor
    has run (from another library's), and in most processes never comes. False where there is
    no libc that we know, or no memory: then the next call tries again."""
    cdef bint usable = False
    if not begin_preparing(linker, &usable):
        return usable
    linker.process.page = getauxval(AT_PAGESZ)
    (&startup).in_use = 1
    name_own_functions(linker.own_names)
    if bind_host_functions(linker):
        prepare_processor(linker.host.processor_features)
        read_arguments(linker)
        # The handlers of fork come before a lock of ours or of the host's loader is taken.
        usable = dlopen_expect_fork() and dlopen_begin() and make_keys(linker) \
            and look_first(linker)
        say_habits(linker)
    if is_unmet():
        dlopen_begin()           # the log's settings, if they can be had
        say_unmet()
        end_preparing(&linker.preparation, NO_LIBC)
        return False
    end_preparing(&linker.preparation, READY if usable else UNPREPARED)
    return usable


cdef public bint dlopen_expect_fork() noexcept nogil:
    """By the constructor, or by a call that comes before it; False without memory."""
    if not startup.expects_fork:
        rank_locks(&the_linker)
        (&startup).expects_fork = call_at_fork(
            before_fork_here, after_fork_here, after_fork_in_child_here
        ) == 0
    return startup.expects_fork


cdef void before_fork_here() noexcept nogil:
    begin_fork(&the_linker)


cdef void after_fork_here() noexcept nogil:
    end_fork(&the_linker)


cdef void after_fork_in_child_here() noexcept nogil:
    end_fork_in_child(&the_linker)


# Thread-local storage: what arch/<machine>.S and images of ours call. -------------------------


cdef public void* dlopen_make_block(uint64_t module) noexcept nogil:
    return block_at_first_touch(&the_linker, module)


cdef void* family_tls_get_addr(TlsIndex* index) noexcept nogil:
    return tls_address(&the_linker.host, index)


cdef void end_of_thread(void* table) noexcept nogil:
    thread_ends(&the_linker.tls, table)


cdef inline Linker* ready_linker() noexcept nogil:
    """NULL where there is no libc that we know, or no memory."""
    if load_u32(&the_linker.preparation.ready) == READY:
        return &the_linker      # here, and not by a call: dlsym is short
    return &the_linker if prepare(&the_linker) else NULL


cdef int not_ready(Error* error) noexcept nogil:
    return not_usable(&the_linker.preparation, error)


cdef Linker* enter(Error* error) noexcept nogil:
    """What each entry that may fail begins with; NULL: it returns `not_ready(error)`."""
    error_clear(error)
    return ready_linker()


cdef Linker* prepared_linker() noexcept nogil:
    """For readers: where it could not be made usable, it has no images."""
    ready_linker()
    return &the_linker


cdef void* no_handle() noexcept nogil:
    """And for dlerror, why."""
    store_text(unmet_text if has_no_libc(&the_linker.preparation) else no_memory_text)
    return NULL


cdef bint knows_handle(const void* handle) noexcept nogil:
    """It is the host's, which can be asked for all else; where the linker is not usable."""
    return load_u32(&the_linker.habits.has_functions) and host_knows(&the_linker, handle)


cdef bint dlopen_begin() noexcept nogil:
    cdef bint read
    lock_acquire(&the_linker.registry.lock)
    read = read_settings(&the_linker)
    lock_release(&the_linker.registry.lock)
    return read


cdef public void dlopen_keep_environment() noexcept nogil:
    """By the constructor. A process that sets nothing for us does no more than read; one with a
    DLOPEN_* variable begins now, as long as its folder is the one of the start."""
    if keep_settings_of_start():
        dlopen_begin()


cdef public void dlopen_finish() noexcept nogil:
    if load_u32(&the_linker.preparation.ready) == READY:
        finish_at_exit(&the_linker)


# Exported: opening --------------------------------------------------------------------


cdef public uint32_t DLOPEN_abi() noexcept nogil:
    return DLOPEN_ABI


cdef public void DLOPEN_set_archives(LocateMember* locate, void* data) noexcept nogil:
    set_archives(prepared_linker(), locate, data)


cdef public int DLOPEN_namespace_new(
    const char* search_path, int64_t* namespace_id, Error* error
) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    namespace_id[0] = make_namespace(linker, search_path)
    return 0 if namespace_id[0] != 0 else fail_memory(error, b"")


cdef public int DLOPEN_namespace_end(int64_t namespace_id, Error* error) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    if not end_namespace(linker, namespace_id):
        return fail(error, DLOPEN_E_INVALID, b"", DETAIL_NO_NAMESPACE)
    return 0


cdef public int DLOPEN_open(
    const Request* request, PublicImage** image, Error* error
) noexcept nogil:
    cdef Linker* linker = enter(error)
    cdef Request room
    if linker == NULL:
        return not_ready(error)
    request = whole_request(request, &room)
    if request == NULL:
        return wrong_size(error)
    return outcome(linker, closed_if_failed(
        linker, open_image(linker, request, <Image**>image, error), <Image**>image
    ), error)


cdef public int DLOPEN_map(
    const Request* request, PublicImage** image, Error* error
) noexcept nogil:
    cdef Linker* linker = enter(error)
    cdef Request room
    if linker == NULL:
        return not_ready(error)
    request = whole_request(request, &room)
    if request == NULL:
        return wrong_size(error)
    return map_only(linker, request, <Image**>image, error)


cdef public int DLOPEN_relocate(
    PublicImage* image, const Request* request, PublicImage** scope, size_t scope_count,
    Error* error
) noexcept nogil:
    cdef Linker* linker = enter(error)
    cdef Request room
    cdef bint is_closed = False
    cdef int code
    if linker == NULL:
        return not_ready(error)
    request = whole_request(request, &room)
    if request == NULL:
        return wrong_size(error)
    code = relocate_mapped(
        linker, <Image*>image, request, <Image**>scope, scope_count, &is_closed, error
    )
    if is_closed:
        collect(linker, <Image*>image)
    return outcome(linker, code, error)


cdef public int DLOPEN_existing(const char* name, PublicImage** image, Error* error) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    return outcome(linker, closed_if_failed(
        linker, open_existing(linker, name, <Image**>image, error), <Image**>image
    ), error)


cdef public int DLOPEN_close(PublicImage* image, Error* error) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    return close_image(linker, <Image*>image, error)


cdef public int DLOPEN_find(
    const char* name, const void* caller, VisitCandidate* visit, void* data, Error* error
) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    return show_search(linker, name, caller, visit, data, error)


cdef public long DLOPEN_closed_function() noexcept nogil:
    return 0


cdef public size_t DLOPEN_message(const Error* error, char* buffer, size_t size) noexcept nogil:
    return write_message(error, buffer, size)


# Exported: looking ----------------------------------------------------------------------


cdef public uint32_t DLOPEN_read_enter() noexcept nogil:
    prepare(&the_linker)
    return reader_enter(&the_linker.registry)


cdef public void DLOPEN_read_leave(uint32_t token) noexcept nogil:
    reader_leave(&the_linker.registry, token)


cdef public int DLOPEN_symbol_find(
    PublicImage* image, const char* name, const char* version, uint32_t flags,
    PublicSymbol* symbol, Error* error
) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    return find_symbol(linker, image, name, version, flags, symbol, error)


cdef public int DLOPEN_symbol_at(
    PublicImage* image, uint32_t index, PublicSymbol* symbol
) noexcept nogil:
    return symbol_at(prepared_linker(), image, index, symbol)


cdef public int DLOPEN_symbol_is_export(const PublicSymbol* symbol) noexcept nogil:
    cdef Sym entry
    entry.st_info = <uint8_t>(symbol.binding << 4 | symbol.type)
    entry.st_other = symbol.visibility
    entry.st_shndx = symbol.section
    entry.st_value = symbol.value
    return is_defined(&entry, True) and is_export(&entry)


cdef public int DLOPEN_address(
    const void* address, PublicImage** image, PublicSymbol* symbol
) noexcept nogil:
    cdef Linker* linker = enter(NULL)
    if linker == NULL:
        return not_ready(NULL)
    return symbol_at_address(linker, address, image, symbol)


cdef public int DLOPEN_info(PublicImage* image, Info* info) noexcept nogil:
    return inform(prepared_linker(), image, info)


cdef public const char* DLOPEN_needed_at(PublicImage* image, uint32_t index) noexcept nogil:
    return needed_at(&prepared_linker().registry, image, index)


cdef public PublicImage* DLOPEN_dependency_at(PublicImage* image, uint32_t index) noexcept nogil:
    return dependency_at(&prepared_linker().registry, image, index)


cdef public int DLOPEN_version_at(
    PublicImage* image, uint32_t index, PublicVersion* version
) noexcept nogil:
    return version_at(&prepared_linker().registry, image, index, version)


cdef public int DLOPEN_relocations(
    PublicImage* image, VisitRelocation* visit, void* data
) noexcept nogil:
    return visit_relocations(prepared_linker(), image, visit, data)


cdef public size_t DLOPEN_images(PublicImage** images, size_t capacity) noexcept nogil:
    cdef Linker* linker = ready_linker()
    return list_images(linker, images, capacity) if linker != NULL else 0


cdef public int DLOPEN_patch(
    PublicImage* image, const PublicReplacement* replacements, size_t count, Patched* patched,
    uint64_t* number, Error* error
) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    return patch_image(linker, <Image*>image, replacements, count, patched, number, error)


cdef public int DLOPEN_unpatch(uint64_t number, Error* error) noexcept nogil:
    cdef Linker* linker = enter(error)
    cdef bint has_kept = False
    cdef int code
    if linker == NULL:
        return not_ready(error)
    code = unpatch(linker, number, &has_kept, error)
    if has_kept:
        collect(linker, NULL)
    return code


cdef public int DLOPEN_swap(
    PublicImage* old, PublicImage* successor, uint64_t* places, Error* error
) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    return swap_images(linker, <Image*>old, <Image*>successor, places, error)


cdef public int DLOPEN_retain(PublicImage* image, Error* error) noexcept nogil:
    cdef Linker* linker = enter(error)
    if linker == NULL:
        return not_ready(error)
    return retain(&linker.registry, <Image*>image, True, error)


cdef public int DLOPEN_release(PublicImage* image, Error* error) noexcept nogil:
    cdef Linker* linker = enter(error)
    cdef int code
    if linker == NULL:
        return not_ready(error)
    code = retain(&linker.registry, <Image*>image, False, error)
    if code == 0:
        collect(linker, NULL)
    return code


cdef public size_t DLOPEN_holders(
    PublicImage* image, VisitHolder* visit, void* data
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    if linker == NULL:
        return 0
    return visit_holders(&linker.registry, <Image*>image, visit, data)


# Exported: the dl* family --------------------------------------------------------------------
#
# While there is no memory to make the linker usable, there is no image of ours: all but opening is
# the host's affair.


cdef public void* dlopen_entry_dlopen(const char* name, int mode) noexcept nogil:
    cdef const void* caller = caller_address
    cdef Linker* linker = ready_linker()
    return family_dlopen(linker, name, mode, caller) if linker != NULL else no_handle()


cdef public void* dlopen_entry_dlmopen(
    long namespace_id, const char* name, int mode
) noexcept nogil:
    cdef const void* caller = caller_address
    cdef Linker* linker = ready_linker()
    return family_dlmopen(linker, namespace_id, name, mode, caller) if linker != NULL \
        else no_handle()


cdef public int dlopen_entry_dlclose(void* handle) noexcept nogil:
    cdef Linker* linker = ready_linker()
    if linker == NULL and knows_handle(handle):
        return close_host(&the_linker, handle)
    if linker == NULL:
        no_handle()
    return family_dlclose(linker, handle) if linker != NULL else -1


cdef public Answer dlopen_answer_symbol(
    void* handle, const char* name, const char* version, const void* caller
) noexcept nogil:
    """dlsym and dlvsym of arch/<machine>.S."""
    cdef Answer answer
    if ready_linker() != NULL:
        return family_dlsym(&the_linker, handle, name, version, caller)
    if load_u32(&the_linker.habits.has_functions) \
            and (handle == NULL or handle == <void*>(-1) or knows_handle(handle)):
        return forward(&the_linker, version)
    answer.result = no_handle()
    answer.forward = NULL
    return answer


cdef public char* dlopen_entry_dlerror() noexcept nogil:
    ready_linker()
    return last_message(&the_linker.host)


cdef public int dlopen_entry_dladdr(const void* address, AddressInfo* info) noexcept nogil:
    cdef Linker* linker = ready_linker()
    if linker == NULL and the_linker.host.dladdr != NULL:
        return the_linker.host.dladdr(address, info)
    return family_dladdr(linker, address, info, NULL, 0) if linker != NULL else 0


cdef public int dlopen_entry_dladdr1(
    const void* address, AddressInfo* info, void** extra, int flags
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    if linker == NULL and the_linker.host.dladdr1 != NULL:
        return the_linker.host.dladdr1(address, info, extra, flags)
    return family_dladdr(linker, address, info, extra, flags) if linker != NULL else 0


cdef public int dlopen_entry_dlinfo(void* handle, int request, void* result) noexcept nogil:
    cdef Linker* linker = ready_linker()
    if linker == NULL and knows_handle(handle):
        return the_linker.host.dlinfo(handle, request, result)
    if linker == NULL:
        no_handle()
    return family_dlinfo(linker, handle, request, result) if linker != NULL else -1


cdef public int dlopen_entry_dl_iterate_phdr(void* visit, void* data) noexcept nogil:
    cdef Linker* linker = ready_linker()
    if linker == NULL and the_linker.host.dl_iterate_phdr != NULL:
        return the_linker.host.dl_iterate_phdr(<PhdrVisitor>visit, data)
    return iterate(linker, <PhdrVisitor>visit, data) if linker != NULL else 0


cdef public int dlopen_entry_find_object(void* address, void* answer) noexcept nogil:
    cdef Linker* linker = ready_linker()
    # An exception for want of memory may be the first call.
    if linker == NULL and the_linker.host.dl_find_object != NULL:
        return the_linker.host.dl_find_object(address, answer)
    return find_object(linker, address, answer) if linker != NULL else -1


cdef public uint64_t dlopen_bind_call(void* image, uint64_t number) noexcept nogil:
    """dlopen_lazy_call of arch/<machine>.S."""
    return bind_call(&the_linker, <Image*>image, number)


cdef int family_thread_atexit(
    ObjectDestructor destructor, void* object, void* dso_handle
) noexcept nogil:
    return at_thread_exit(&the_linker, destructor, object, dso_handle)


cdef void name_own_functions(OwnName* own_names) noexcept nogil:
    """What references of our images to these names are bound to, whatever else defines them."""
    cdef int count = 0
    count = add_own_name(own_names, count, b"dlopen", <void*>dlopen_entry_dlopen)
    count = add_own_name(own_names, count, b"dlmopen", <void*>dlopen_entry_dlmopen)
    count = add_own_name(own_names, count, b"dlclose", <void*>dlopen_entry_dlclose)
    count = add_own_name(own_names, count, b"dlsym", <void*>entry_dlsym)
    count = add_own_name(own_names, count, b"dlvsym", <void*>entry_dlvsym)
    count = add_own_name(own_names, count, b"dlerror", <void*>dlopen_entry_dlerror)
    count = add_own_name(own_names, count, b"dladdr", <void*>dlopen_entry_dladdr)
    count = add_own_name(own_names, count, b"dladdr1", <void*>dlopen_entry_dladdr1)
    count = add_own_name(own_names, count, b"dlinfo", <void*>dlopen_entry_dlinfo)
    count = add_own_name(own_names, count, b"dl_iterate_phdr", <void*>dlopen_entry_dl_iterate_phdr)
    count = add_own_name(own_names, count, b"__tls_get_addr", <void*>family_tls_get_addr)
    count = add_own_name(own_names, count, b"_dl_find_object", <void*>dlopen_entry_find_object)
    count = add_own_name(own_names, count, b"__cxa_thread_atexit", <void*>family_thread_atexit)
    add_own_name(own_names, count, b"__cxa_thread_atexit_impl", <void*>family_thread_atexit)


cdef int add_own_name(
    OwnName* own_names, int count, const char* name, void* function
) noexcept nogil:
    """To the `count` that there are; returns how many there are then."""
    own_names[count].name = name
    own_names[count].address = <uint64_t>function
    return count + 1
