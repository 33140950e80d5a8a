"""libdlopen.so: the exported functions, and the dl* family as images of ours see it.

The one translation unit of the core. Nothing in it needs an interpreter: the linker
drops all that Cython's module initialisation alone would reach.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.arch.machine cimport (
    THIS_MACHINE, make_block_aligned, relocation_kind, relocation_width,
)
from dlopen.core.base.atomics cimport (
    compare_and_swap_u32, load_pointer, load_u32, load_u64, store_u32, store_u64, sub_u32,
)
from dlopen.core.base.contract cimport (
    DLOPEN_ABI, DLOPEN_E_HANDLE, DLOPEN_E_INVALID, DLOPEN_E_MEMORY, DLOPEN_E_NOT_FOUND,
    DLOPEN_E_OPEN, DLOPEN_E_STATE, DLOPEN_E_SYMBOL, DLOPEN_NO_RESOLVE, DLOPEN_OWN_ONLY,
    DLOPEN_REJECTED_LOADED, Error, Info, Patched, PublicImage, PublicRelocation, PublicReplacement,
    PublicSymbol, PublicVersion, Request, VisitCandidate, VisitHolder, VisitRelocation,
)
from dlopen.core.base.environment cimport (
    Environment, environment_value, keep_environment, process_environment, read_environment,
)
from dlopen.core.base.errors cimport (
    error_clear, error_name_symbol, fail, fail_handle, fail_memory, fail_system,
)
from dlopen.core.base.growable cimport Text, text_free
from dlopen.core.base.kernel cimport (
    is_shortage, kernel_end_process, kernel_process_id, kernel_wait, kernel_wake, kernel_write,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release, set_forking
from dlopen.core.base.log cimport LOG_TRACE, logs, start_log
from dlopen.core.base.message cimport write_message
from dlopen.core.base.registrations cimport call_at_fork, make_key
from dlopen.core.base.section cimport in_section
from dlopen.core.base.strings cimport strlen
from dlopen.core.closing.close cimport close_image, closed_if_failed, collect
from dlopen.core.closing.holders cimport visit_holders
from dlopen.core.closing.process_end cimport finish_at_exit
from dlopen.core.closing.thread_exit cimport at_thread_exit, forget_other_objects
from dlopen.core.elf.constants cimport SHN_UNDEF, STT_GNU_IFUNC, STT_TLS, VERSYM_HIDDEN
from dlopen.core.elf.structures cimport (
    Rela, Sym, relocation_symbol, relocation_type, symbol_binding, symbol_type, symbol_visibility,
)
from dlopen.core.family.errors cimport (
    AddressInfo, Answer, free_messages, last_message, no_libc_text, no_memory_text, store_text,
)
from dlopen.core.family.information cimport block_of_thread, family_dladdr, family_dlinfo
from dlopen.core.family.opening cimport family_dlclose, family_dlmopen, family_dlopen
from dlopen.core.family.symbols cimport family_dlsym, forward
from dlopen.core.host.abi cimport AT_PAGESZ, AT_SECURE, RTLD_LAZY, HostInfo, PhdrVisitor, getauxval
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image, host_knows
from dlopen.core.host.debugger cimport read_debugger_wish
from dlopen.core.host.functions cimport bind_host_functions
from dlopen.core.host.host_lock cimport (
    await_hosts_before_fork, close_host, enter_host, has_forked, in_host, leave_host,
)
from dlopen.core.host.identity cimport identify_hosts
from dlopen.core.host.linker cimport NO_LIBC, READY, UNPREPARED, Linker
from dlopen.core.host.namespaces cimport end_namespace, make_namespace
from dlopen.core.host.refresh cimport HOSTS_AS_BEFORE, HOSTS_CHANGED, HOSTS_UNKNOWN, refresh_hosts
from dlopen.core.host.uniques cimport share_unique_of_lookup
from dlopen.core.image.image cimport Image, Version, image_asked_name, image_name, is_linked
from dlopen.core.image.registry cimport (
    ObjectDestructor, Snapshot, after_fork, after_fork_in_child, before_fork, current_snapshot,
    reader_enter, reader_leave, snapshot_holds, snapshot_image_at, this_thread,
)
from dlopen.core.memory.file cimport file_close, file_init
from dlopen.core.opening.by_hand cimport map_only, relocate_mapped
from dlopen.core.opening.known cimport loaded_by_name
from dlopen.core.opening.open cimport open_existing, open_image
from dlopen.core.opening.root cimport image_of_caller
from dlopen.core.opening.transaction cimport Transaction, begin, end
from dlopen.core.running.calls cimport EXIT_LOOKUP, bind_call
from dlopen.core.running.find_symbol cimport (
    host_symbol, lookup_everywhere, lookup_in_tree, resolved_address, symbol_count_of,
)
from dlopen.core.running.patch cimport patch_image, unpatch
from dlopen.core.running.swap cimport retain, swap_images
from dlopen.core.search.find cimport find_file
from dlopen.core.search.trail cimport Trail, trail_free
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, definition_address, is_defined, is_export, lookup_in_image,
    nearest_symbol, refer, symbol_name, symbol_version,
)
from dlopen.core.symbols.report cimport log_lookup
from dlopen.core.tls.modules cimport (
    TlsIndex, forget_other_threads, is_own_module, known_block, make_block, thread_ends,
)


cdef extern from *:
    """
    #include <dlfcn.h>
    #include <link.h>
    #include <string.h>
    void dlopen_finish(void);
    void dlopen_keep_environment(void);
    int dlopen_expect_fork(void);
    /* Most processes with libdlopen.so preloaded never call it, and shall not pay for it: each
       page that is touched here costs more than all the code. What the host's loader gives to
       constructors is kept in .data, whose page is written anyhow; the constructor and the
       destructor lie together. */
    __attribute__((section(".data"))) static struct dlopen_startup {
        char **argv, **envp;
        int argc, in_use, expects_fork;
        /* What of the environment counts: base/environment.pxd. */
        uint32_t is_kept;                /* atomic: the rest is there */
        int is_of_start;
        size_t kept;
        char text[1024];
    } dlopen_startup;
    __attribute__((constructor)) static void dlopen_constructor(
        int argc, char **argv, char **envp
    ) {
        dlopen_startup.argc = argc;
        dlopen_startup.argv = argv;
        dlopen_startup.envp = envp;
        /* Now, while there is one thread: one that forks while another makes the first call
           would have passed by the handlers. */
        dlopen_expect_fork();
        dlopen_keep_environment();
    }
    /* In DT_FINI_ARRAY: after every atexit handler, as the host's own destructors run. */
    __attribute__((destructor)) static void dlopen_destructor(void) {
        if (dlopen_startup.in_use) dlopen_finish();
    }
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
    /* For arch/<machine>.S: XSAVE, enabled by the kernel, and how much of the stack the state of
       the processor takes that it saves: FXSAVE's 512 bytes, or what the components that the
       kernel has enabled (XCR0) take in XSAVE's standard format. */
    __attribute__((visibility("hidden"))) int dlopen_has_xsave;
    __attribute__((visibility("hidden"))) uint64_t dlopen_state_size = 2688;
    #if defined(__x86_64__)
    #include <cpuid.h>
    static void dlopen_find_xsave(void) {
        unsigned a, b, c = 0, d, enabled = 0;
        dlopen_state_size = 512;
        if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
        __asm__ ("xgetbv" : "=a" (enabled), "=d" (d) : "c" (0));
        dlopen_state_size = enabled & 0xe0 ? 2688 : enabled & 0x18 ? 1088 : 832;
        dlopen_has_xsave = 1;
    }
    #else
    static void dlopen_find_xsave(void) { }
    #endif
    """
    enum:
        STARTUP_TEXT "sizeof(dlopen_startup.text)"
    cdef struct Startup "dlopen_startup":
        char** argv
        char** envp
        int argc, in_use, expects_fork, is_of_start
        uint32_t is_kept
        size_t kept
        char text[1024]
    Startup startup "dlopen_startup"
    void find_xsave "dlopen_find_xsave"() noexcept nogil
    const char* entry_dlsym "dlopen_entry_dlsym"
    const char* entry_dlvsym "dlopen_entry_dlvsym"
    const void* caller_address "DLOPEN_CALLER"


cdef struct FindResult:          # struct dl_find_object of <dlfcn.h>
    unsigned long long flags
    void* map_start
    void* map_end
    void* link_map
    void* eh_frame


# The one instance. Guarded as host/linker.pxd says.
cdef Linker the_linker


cdef void read_arguments(Linker* linker) noexcept nogil:
    """As the host's loader gives them to constructors. Before ours has run they are read where the
    kernel has put them: __libc_stack_end of ld.so."""
    cdef uint64_t* stack = <uint64_t*>linker.host.stack_end[0] \
        if linker.host.stack_end != NULL else NULL
    if startup.argv != NULL:
        linker.argc = startup.argc
        linker.argv = startup.argv
    elif stack != NULL:
        linker.argc = <int>stack[0]
        linker.argv = <char**>(stack + 1)


cdef bint read_settings(Linker* linker) noexcept nogil:
    """Once, under Registry.lock; False without memory. DLOPEN_* variables do not count in secure
    execution (ld.so(8))."""
    cdef Environment* environment = &linker.environment
    if environment.is_complete:
        return True
    linker.secure = getauxval(AT_SECURE) != 0
    if load_u32(&startup.is_kept):
        environment.data = &startup.text[0]
        environment.length = startup.kept
        environment.is_of_start = startup.is_of_start
        environment.is_complete = True
    else:
        read_arguments(linker)
        read_environment(
            &linker.registry.allocator, linker.argc, linker.argv, process_environment, environment
        )
    if not environment.is_complete:
        return False
    linker.bind_now = environment_value(environment, b"LD_BIND_NOW=") != NULL
    linker.bind_not = environment_value(environment, b"LD_BIND_NOT=") != NULL
    if not linker.secure:
        start_log(environment)
        read_debugger_wish(linker)
    return True


cdef bint begin_preparing(Linker* linker, bint* usable) noexcept nogil:
    """False: somebody else has made it usable or not, or this thread is at it: what it calls
    may call us again, a wrapper of malloc for one. Without a lock, which a thread that forks
    meanwhile would leave taken in the child. Who finds no memory gives up the claim, and the
    next one tries again."""
    cdef uint32_t process = kernel_process_id()
    cdef uint32_t claimed
    usable[0] = False
    while load_u32(&linker.ready) == UNPREPARED:
        claimed = load_u32(&linker.preparing_process)
        if claimed != process:       # nobody, or a thread that is in the parent
            if compare_and_swap_u32(&linker.preparing_process, claimed, process):
                store_u64(&linker.preparer, this_thread())
                return True
        elif load_u64(&linker.preparer) == this_thread():
            if linker.host.dl_iterate_phdr != NULL:
                look_first(linker)   # it goes on from there
            usable[0] = linker.registry.snapshot != NULL
            return False
        else:
            kernel_wait(&linker.preparing_process, process)
    usable[0] = load_u32(&linker.ready) == READY
    return False


cdef void end_preparing(Linker* linker, uint32_t outcome) noexcept nogil:
    store_u32(&linker.ready, outcome)
    # Before the claim is given up: another thread would take this one's name for its own.
    store_u64(&linker.preparer, 0)
    store_u32(&linker.preparing_process, 0)
    kernel_wake(&linker.preparing_process, 0x7fffffff)


cdef bint look_first(Linker* linker) noexcept nogil:
    if linker.registry.snapshot == NULL:
        refresh_hosts(linker, NULL)
    return linker.registry.snapshot != NULL


cdef bint make_keys(Linker* linker) noexcept nogil:
    if not linker.has_tls_key:
        linker.has_tls_key = make_key(&linker.tls.key, end_of_thread) == 0
    if not linker.has_message_key:
        linker.has_message_key = make_key(&linker.message_key, forget_messages) == 0
    return linker.has_tls_key and linker.has_message_key


cdef bint prepare(Linker* linker) noexcept nogil:
    """Makes the linker usable, once: by the first call, which may come before the constructor
    has run (from another library's), and in most processes never comes. False where there is
    no libc that we know, or no memory: then the next call tries again."""
    cdef bint usable = False
    if load_u32(&linker.ready) == READY:
        return True
    if not begin_preparing(linker, &usable):
        return usable
    find_xsave()
    linker.page = getauxval(AT_PAGESZ)
    (&startup).in_use = 1
    name_own_functions(linker)
    if not bind_host_functions(linker):
        end_preparing(linker, NO_LIBC)
        return False
    read_arguments(linker)
    # The handlers of fork come before a lock of ours or of the host's loader is taken.
    usable = dlopen_expect_fork() and dlopen_begin() and make_keys(linker) and look_first(linker)
    end_preparing(linker, READY if usable else UNPREPARED)
    return usable


cdef public bint dlopen_expect_fork() noexcept nogil:
    """By the constructor, or by a call that comes before it; False without memory."""
    if not startup.expects_fork:
        (&startup).expects_fork = call_at_fork(
            before_fork_here, after_fork_here, after_fork_in_child_here
        ) == 0
    return startup.expects_fork


cdef void before_fork_here() noexcept nogil:
    await_hosts_before_fork(&the_linker)
    lock_acquire(&the_linker.debugger.lock)
    lock_acquire(&the_linker.tls.lock)
    before_fork(&the_linker.registry)
    set_forking(True)


cdef void after_fork_here() noexcept nogil:
    set_forking(False)
    after_fork(&the_linker.registry)
    lock_release(&the_linker.tls.lock)
    lock_release(&the_linker.debugger.lock)
    sub_u32(&the_linker.forking, 1)
    has_forked()


cdef void after_fork_in_child_here() noexcept nogil:
    set_forking(False)
    the_linker.donors_change = False
    the_linker.in_host = in_host
    the_linker.forking = 0
    has_forked()
    after_fork_in_child(&the_linker.registry)
    forget_other_threads(&the_linker.tls, &the_linker.registry.allocator)
    lock_release(&the_linker.tls.lock)
    lock_release(&the_linker.debugger.lock)
    forget_other_objects(&the_linker)


# Thread-local storage: what arch/<machine>.S and images of ours call. -------------------------


cdef public void* dlopen_make_block(uint64_t module) noexcept nogil:
    """The first touch in a thread, or a descriptor of the host's. There is no way to report a
    failure: the process ends, with glibc's words and status."""
    cdef const char* message = b"cannot allocate memory for thread-local data: ABORT\n"
    cdef TlsIndex index
    cdef char* block
    if not is_own_module(module):
        index.module = module
        index.offset = 0
        return the_linker.host.tls_get_addr(&index)
    block = make_block(&the_linker.tls, &the_linker.registry.allocator, module)
    if block == NULL:
        kernel_write(2, message, strlen(message))
        kernel_end_process(EXIT_LOOKUP)
    return block


cdef void* family_tls_get_addr(TlsIndex* index) noexcept nogil:
    cdef char* block
    if not is_own_module(index.module):
        return the_linker.host.tls_get_addr(index)
    block = known_block(index.module)
    if block == NULL:
        block = make_block_aligned(index.module)
    return block + index.offset


cdef void end_of_thread(void* table) noexcept nogil:
    thread_ends(&the_linker.tls, &the_linker.registry.allocator, table)


cdef void forget_messages(void* linker) noexcept nogil:
    free_messages(<Linker*>linker)


cdef inline Linker* ready_linker() noexcept nogil:
    """NULL where there is no libc that we know, or no memory."""
    return &the_linker if prepare(&the_linker) else NULL


cdef inline bint has_no_libc() noexcept nogil:
    return load_u32(&the_linker.ready) == NO_LIBC


cdef int not_ready(Error* error) noexcept nogil:
    return fail(error, DLOPEN_E_STATE, b"", no_libc_text) if has_no_libc() \
        else fail_memory(error, b"")


cdef void* no_handle() noexcept nogil:
    """And for dlerror, why."""
    store_text(&the_linker, no_libc_text if has_no_libc() else no_memory_text)
    return NULL


cdef bint knows_handle(const void* handle) noexcept nogil:
    """It is the host's; where there is no memory to make the linker usable."""
    return the_linker.host.dl_iterate_phdr != NULL and host_knows(&the_linker, handle)


cdef bint dlopen_begin() noexcept nogil:
    cdef bint read
    lock_acquire(&the_linker.registry.lock)
    read = read_settings(&the_linker)
    lock_release(&the_linker.registry.lock)
    return read


cdef public void dlopen_keep_environment() noexcept nogil:
    """By the constructor. A process that sets nothing for us does no more than read; one with a
    DLOPEN_* variable begins now, as long as its folder is the one of the start."""
    cdef Startup* mine = &startup
    cdef bint of_start = False
    cdef size_t i
    mine.kept = keep_environment(
        mine.argc, mine.argv, mine.envp, &mine.text[0], STARTUP_TEXT, &of_start
    )
    if mine.kept > STARTUP_TEXT:
        dlopen_begin()
        return
    mine.is_of_start = of_start
    store_u32(&mine.is_kept, 1)
    i = 0
    while i < mine.kept:
        if mine.text[i] == 0x44:         # 'D'
            dlopen_begin()
            return
        i += strlen(&mine.text[i]) + 1


cdef public void dlopen_finish() noexcept nogil:
    if the_linker.ready == READY:
        finish_at_exit(&the_linker)


# Exported: opening --------------------------------------------------------------------


cdef public uint32_t DLOPEN_abi() noexcept nogil:
    return DLOPEN_ABI


cdef public int DLOPEN_namespace_new(
    const char* search_path, int64_t* namespace_id, Error* error
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    namespace_id[0] = make_namespace(linker, search_path)
    return 0 if namespace_id[0] != 0 else fail_memory(error, b"")


cdef public int DLOPEN_namespace_end(int64_t namespace_id, Error* error) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    if not end_namespace(linker, namespace_id):
        return fail(error, DLOPEN_E_INVALID, b"", b"not a namespace, or ended already")
    return 0


cdef public int DLOPEN_open(
    const Request* request, PublicImage** image, Error* error
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    if request.size < sizeof(Request):
        return fail(error, DLOPEN_E_INVALID, b"", b"the request's size")
    return closed_if_failed(
        linker, open_image(linker, request, <Image**>image, error), <Image**>image
    )


cdef public int DLOPEN_map(
    const Request* request, PublicImage** image, Error* error
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    if request.size < sizeof(Request):
        return fail(error, DLOPEN_E_INVALID, b"", b"the request's size")
    return map_only(linker, request, <Image**>image, error)


cdef public int DLOPEN_relocate(
    PublicImage* image, const Request* request, PublicImage** scope, size_t scope_count,
    Error* error
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    cdef bint is_closed = False
    cdef int code
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    if request.size < sizeof(Request):
        return fail(error, DLOPEN_E_INVALID, b"", b"the request's size")
    code = relocate_mapped(
        linker, <Image*>image, request, <Image**>scope, scope_count, &is_closed, error
    )
    if is_closed:
        collect(linker, <Image*>image)
    return code


cdef public int DLOPEN_existing(const char* name, PublicImage** image, Error* error) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    return closed_if_failed(
        linker, open_existing(linker, name, <Image**>image, error), <Image**>image
    )


cdef public int DLOPEN_close(PublicImage* image, Error* error) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    return close_image(linker, <Image*>image, error)


cdef public int DLOPEN_find(
    const char* name, const void* caller, VisitCandidate* visit, void* data, Error* error
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    cdef Transaction* transaction
    cdef Trail* trail
    cdef Text path
    cdef Image* asker
    cdef Image* loaded
    cdef size_t i
    cdef const char* candidate
    cdef const char* origin
    cdef bint found, no_memory
    cdef long last = 0           # how the last candidate ended
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    memset(&path, 0, sizeof(path))
    transaction = begin(linker, RTLD_LAZY, 0, error)
    if transaction == NULL:
        return fail_memory(error, name)
    trail = &transaction.trail
    file_init(&transaction.file)
    asker = image_of_caller(transaction.snapshot, caller)
    loaded = loaded_by_name(transaction, name, asker, False)
    if transaction.no_memory:
        end(transaction)
        return fail_memory(error, name)
    if loaded != NULL:
        visit(image_name(loaded), b"loaded", DLOPEN_REJECTED_LOADED, data)
    found = find_file(
        linker, transaction.snapshot, name, asker, NULL, &path, trail, &transaction.file, NULL
    )
    file_close(&transaction.file)
    candidate = trail.paths.data
    origin = trail.origins.data
    for i in range(trail.count):
        last = -trail.results[i]
        visit(candidate, origin, trail.results[i], data)
        candidate += strlen(candidate) + 1
        origin += strlen(origin) + 1
    no_memory = path.failed or trail.paths.failed or trail.origins.failed
    if found and trail.count == 0 and not no_memory:
        visit(path.data, b"path", 0, data)
    text_free(&linker.registry.allocator, &path)
    trail_free(&linker.registry.allocator, trail)
    end(transaction)
    if no_memory:
        return fail_memory(error, name)
    if not found and loaded == NULL:
        if is_shortage(last):    # the search has ended there
            return fail_system(
                error, DLOPEN_E_OPEN, name, b"cannot open shared object file", last
            )
        return fail(error, DLOPEN_E_NOT_FOUND, name, b"cannot open shared object file")
    return 0


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


cdef struct Visit:               # of a handle that may be anything, by a reader
    Image* image
    uint32_t phase
    void* borrowed               # NULL: not an image, or it has gone


cdef inline bint visit_begin(Visit* visit, const void* handle) noexcept nogil:
    """Ends with visit_end, also when it fails."""
    visit.phase = DLOPEN_read_enter()
    visit.image = <Image*>handle
    visit.borrowed = NULL
    if snapshot_holds(current_snapshot(&the_linker.registry), handle):
        visit.borrowed = borrow_host_image(&the_linker, visit.image)
    return visit.borrowed != NULL


cdef inline void visit_end(Visit* visit) noexcept nogil:
    if visit.borrowed != NULL:
        give_back_host_image(&the_linker, visit.image, visit.borrowed)
    DLOPEN_read_leave(visit.phase)


cdef void describe(const Definition* definition, PublicSymbol* symbol, bint resolve) noexcept nogil:
    cdef const Image* image = definition.image
    cdef const Sym* entry = definition.symbol
    cdef const Version* version = symbol_version(image, definition.index)
    cdef const char* name = symbol_name(image, entry)
    symbol.name = b""
    symbol.version = b""
    if name != NULL:
        symbol.name = name
    if version != NULL:
        symbol.version = version.name
    symbol.image = <PublicImage*>image
    symbol.value = entry.st_value
    symbol.size = entry.st_size
    symbol.index = definition.index
    symbol.type = <uint8_t>symbol_type(entry)
    symbol.binding = <uint8_t>symbol_binding(entry)
    symbol.visibility = <uint8_t>symbol_visibility(entry)
    symbol.is_default = image.versym == NULL or definition.index >= image.symbol_limit \
        or not image.versym[definition.index] & VERSYM_HIDDEN
    symbol.section = entry.st_shndx
    symbol.address = 0
    if (symbol_type(entry) == STT_GNU_IFUNC or symbol_type(entry) == STT_TLS) and not resolve:
        return
    if entry.st_shndx == SHN_UNDEF and entry.st_value == 0:
        return
    symbol.address = resolved_address(&the_linker, definition)


cdef inline Image* define_by_host(
    Linker* linker, const Snapshot* snapshot, Image* image, const char* name, const char* version,
    uint64_t* address
) noexcept nogil:
    """A host image's dependencies are the host's to search. No reader section needed."""
    cdef void* found
    if image.host_handle == NULL:
        return NULL
    found = host_symbol(linker, image.host_handle, name, version)
    if found == NULL:
        linker.host.dlerror()
        return NULL
    address[0] = <uint64_t>found
    return image_of_caller(snapshot, found)


cdef public int DLOPEN_symbol_find(
    PublicImage* handle, const char* name, const char* version, uint32_t flags,
    PublicSymbol* symbol,
    Error* error
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    cdef Image* image = <Image*>handle
    cdef Reference reference
    cdef Definition definition
    cdef const Snapshot* snapshot
    cdef Visit visit
    cdef uint64_t address = 0
    cdef int code = 0
    cdef bint found = False
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    refer(&reference, name, version)
    if not visit_begin(&visit, image):
        code = fail_handle(error)
    else:
        snapshot = current_snapshot(&linker.registry)
        definition.index = 0
        if flags & DLOPEN_OWN_ONLY:
            definition.image = image
            definition.symbol = lookup_in_image(image, &reference, &definition.index)
            found = definition.symbol != NULL and is_export(definition.symbol)
        elif image.from_main:
            found = lookup_everywhere(
                linker, snapshot, image.namespace_id, &reference, &definition
            )
        else:
            found = lookup_in_tree(image, &reference, &definition)
        if found and not flags & DLOPEN_OWN_ONLY \
                and not share_unique_of_lookup(linker, snapshot, &reference, &definition):
            found = False
            code = fail_memory(error, image_name(image))
        elif found:
            describe(&definition, symbol, not flags & DLOPEN_NO_RESOLVE)
            if symbol_type(definition.symbol) == STT_TLS and symbol.address == 0 \
                    and not flags & DLOPEN_NO_RESOLVE and definition.image.tls_module_id != 0:
                found = False
                code = fail_memory(error, image_name(image))
        elif not flags & DLOPEN_OWN_ONLY and image.is_host:
            definition.image = define_by_host(linker, snapshot, image, name, version, &address)
            if definition.image != NULL:
                memset(symbol, 0, sizeof(PublicSymbol))
                definition.symbol = lookup_in_image(definition.image, &reference, &definition.index)
                if definition.symbol != NULL:
                    describe(&definition, symbol, False)
                else:
                    symbol.name = b""
                    symbol.version = b""
                symbol.image = <PublicImage*>definition.image
                symbol.address = address
                found = True
        if logs(LOG_TRACE):
            log_lookup(
                image, name, version, definition.image if found else NULL,
                symbol.address if found else 0
            )
        if not found and code == 0:
            code = fail(error, DLOPEN_E_SYMBOL, image_name(image), b"undefined symbol")
            error_name_symbol(error, name, version)
    visit_end(&visit)
    return code


cdef public int DLOPEN_symbol_at(
    PublicImage* handle, uint32_t index, PublicSymbol* symbol
) noexcept nogil:
    cdef Image* image = <Image*>handle
    cdef Definition definition
    cdef Visit visit
    cdef int code = 0
    if not visit_begin(&visit, image):
        code = DLOPEN_E_HANDLE
    elif index >= symbol_count_of(image):
        code = DLOPEN_E_INVALID
    else:
        definition.image = image
        definition.symbol = &image.symtab[index]
        definition.index = index
        describe(&definition, symbol, False)
    visit_end(&visit)
    return code


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
    cdef Linker* linker = ready_linker()
    cdef Definition definition
    cdef Image* found
    cdef void* borrowed = NULL
    cdef uint32_t phase
    cdef int hosts
    if linker == NULL:
        return not_ready(NULL)
    phase = reader_enter(&linker.registry)
    hosts = refresh_hosts(linker, current_snapshot(&linker.registry))
    if hosts == HOSTS_CHANGED:
        reader_leave(&linker.registry, phase)
        phase = reader_enter(&linker.registry)
    found = image_of_caller(current_snapshot(&linker.registry), address)
    image[0] = <PublicImage*>found
    if found != NULL and symbol != NULL:
        borrowed = borrow_host_image(linker, found)
    if borrowed != NULL:
        memset(symbol, 0, sizeof(PublicSymbol))
        if nearest_symbol(found, <uint64_t>address, symbol_count_of(found), &definition):
            describe(&definition, symbol, False)
            symbol.address = definition_address(&definition)
        give_back_host_image(linker, found, borrowed)
    reader_leave(&linker.registry, phase)
    if found == NULL:
        return DLOPEN_E_MEMORY if hosts == HOSTS_UNKNOWN else DLOPEN_E_INVALID
    return 0


cdef bint count_symbols_once(Image* image) noexcept nogil:
    """All else that is known of a host image is a copy. In a reader section; False: the
    image has gone."""
    cdef void* borrowed
    if load_u64(&image.counted_symbols) == 0:
        borrowed = borrow_host_image(&the_linker, image)
        if borrowed == NULL:
            return False
        symbol_count_of(image)
        give_back_host_image(&the_linker, image, borrowed)
    return True


cdef public int DLOPEN_info(PublicImage* handle, Info* info) noexcept nogil:
    cdef Image* image = <Image*>handle
    cdef uint32_t phase
    cdef size_t size = info.size
    if size < sizeof(Info):
        return DLOPEN_E_INVALID
    phase = DLOPEN_read_enter()
    if not snapshot_holds(current_snapshot(&the_linker.registry), image) \
            or not count_symbols_once(image):
        DLOPEN_read_leave(phase)
        return DLOPEN_E_HANDLE
    if image.is_host and not load_u32(&image.is_identified):
        identify_hosts(&the_linker, current_snapshot(&the_linker.registry))
    memset(info, 0, sizeof(Info))
    info.size = size
    info.path = image.path
    info.name = image_asked_name(image)
    info.soname = image.soname
    info.rpath = image.rpath
    info.runpath = image.runpath
    if image.layout.interpreter != NULL and image.is_startup:
        info.interpreter = <const char*>(image.bytes_bias + image.layout.interpreter.p_vaddr)
    info.load_bias = image.load_bias
    info.map_start = image.map_start
    info.map_end = image.map_end
    info.dynamic = <uint64_t>image.dynamic
    info.phdr = <uint64_t>image.layout.phdrs
    info.phnum = image.layout.phnum
    info.device = load_u64(&image.device)
    info.inode = load_u64(&image.inode)
    info.flags = image.flags
    info.flags_1 = image.flags_1
    if image.layout.tls != NULL:
        info.tls_size = image.layout.tls.p_memsz
        info.tls_align = image.layout.tls.p_align
    info.tls_module_id = image.tls_module_id
    info.state = image.state
    info.is_host = image.is_host
    info.is_global = image.is_global
    info.is_private = image.is_private
    info.namespace_id = image.namespace_id
    info.open_count = image.open_count
    info.symbol_count = <uint32_t>symbol_count_of(image)
    info.relocation_count = count_relocations(image)
    info.needed_count = <uint32_t>image.needed.count
    if is_linked(image):
        info.dependency_count = <uint32_t>image.dependencies.count
    info.version_count = count_versions(image)
    info.has_textrel = image.has_textrel
    info.nodelete = image.nodelete
    DLOPEN_read_leave(phase)
    return 0


cdef public const char* DLOPEN_needed_at(PublicImage* handle, uint32_t index) noexcept nogil:
    cdef Image* image = <Image*>handle
    cdef uint32_t phase = DLOPEN_read_enter()
    cdef const char* needed = NULL
    if snapshot_holds(current_snapshot(&the_linker.registry), image) \
            and index < image.needed.count:
        needed = <const char*>image.needed.items[index]
    DLOPEN_read_leave(phase)
    return needed


cdef public PublicImage* DLOPEN_dependency_at(PublicImage* handle, uint32_t index) noexcept nogil:
    cdef Image* image = <Image*>handle
    cdef uint32_t phase = DLOPEN_read_enter()
    cdef PublicImage* dependency = NULL
    if snapshot_holds(current_snapshot(&the_linker.registry), image) and is_linked(image) \
            and index < image.dependencies.count:
        dependency = <PublicImage*>image.dependencies.items[index]
    DLOPEN_read_leave(phase)
    return dependency


cdef uint32_t relr_places(const Image* image) noexcept nogil:
    cdef uint64_t i, entry
    cdef uint32_t count = 0
    for i in range(image.relr_count):
        entry = image.relr[i]
        if entry & 1 == 0:
            count += 1
        else:
            entry >>= 1
            while entry != 0:
                count += <uint32_t>(entry & 1)
                entry >>= 1
    return count


cdef uint32_t count_relocations(const Image* image) noexcept nogil:
    return relr_places(image) + <uint32_t>image.rela_count + <uint32_t>image.jmprel_count


cdef void describe_relocation(
    const Image* image, const Rela* entry, uint32_t table, PublicRelocation* relocation
) noexcept nogil:
    relocation.place = image.load_bias + entry.r_offset
    relocation.addend = entry.r_addend
    relocation.type = relocation_type(entry)
    relocation.kind = relocation_kind(THIS_MACHINE, relocation.type)
    relocation.symbol = relocation_symbol(entry)
    relocation.width = relocation_width(THIS_MACHINE, relocation.type)
    relocation.table = table


cdef enum:
    R_X86_64_RELATIVE_NUMBER = 8


cdef inline void describe_relr(
    const Image* image, uint64_t place, PublicRelocation* relocation
) noexcept nogil:
    cdef Rela entry
    entry.r_offset = place
    entry.r_info = R_X86_64_RELATIVE_NUMBER
    entry.r_addend = 0
    describe_relocation(image, &entry, 0, relocation)


ctypedef bint (*RelocationStep)(const PublicRelocation* relocation, void* data) noexcept nogil


cdef void walk_relocations(const Image* image, RelocationStep step, void* data) noexcept nogil:
    """Until `step` says stop."""
    cdef PublicRelocation relocation
    cdef uint64_t i, entry, bit
    cdef uint64_t where = 0
    for i in range(image.relr_count):
        entry = image.relr[i]
        if entry & 1 == 0:
            describe_relr(image, entry, &relocation)
            where = entry + 8
            if not step(&relocation, data):
                return
            continue
        bit = 0
        entry >>= 1
        while entry != 0:
            if entry & 1:
                describe_relr(image, where + bit * 8, &relocation)
                if not step(&relocation, data):
                    return
            bit += 1
            entry >>= 1
        where += 63 * 8
    for i in range(image.rela_count):
        describe_relocation(image, &image.rela[i], 1, &relocation)
        if not step(&relocation, data):
            return
    for i in range(image.jmprel_count):
        describe_relocation(image, &image.jmprel[i], 2, &relocation)
        if not step(&relocation, data):
            return


cdef struct RelocationVisit:
    VisitRelocation* visit
    void* data


cdef bint pass_relocation(const PublicRelocation* relocation, void* data) noexcept nogil:
    cdef RelocationVisit* visit = <RelocationVisit*>data
    visit.visit(relocation, visit.data)
    return True


cdef public int DLOPEN_relocations(
    PublicImage* handle, VisitRelocation* visit, void* data
) noexcept nogil:
    cdef RelocationVisit state
    cdef Visit at
    cdef int code = DLOPEN_E_HANDLE
    if visit_begin(&at, handle):
        state.visit = visit
        state.data = data
        walk_relocations(at.image, pass_relocation, &state)
        code = 0
    visit_end(&at)
    return code


cdef struct RelocationWanted:
    uint32_t left
    bint found
    PublicRelocation* relocation


cdef bint take_relocation(const PublicRelocation* relocation, void* data) noexcept nogil:
    cdef RelocationWanted* wanted = <RelocationWanted*>data
    if wanted.left == 0:
        wanted.relocation[0] = relocation[0]
        wanted.found = True
        return False
    wanted.left -= 1
    return True


cdef public int DLOPEN_relocation_at(
    PublicImage* handle, uint32_t index, PublicRelocation* relocation
) noexcept nogil:
    cdef RelocationWanted wanted
    cdef Visit visit
    cdef int code = DLOPEN_E_HANDLE
    if visit_begin(&visit, handle):
        wanted.left = index
        wanted.found = False
        wanted.relocation = relocation
        walk_relocations(visit.image, take_relocation, &wanted)
        code = 0 if wanted.found else DLOPEN_E_INVALID
    visit_end(&visit)
    return code


cdef uint32_t count_versions(const Image* image) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t count = 0
    for i in range(image.version_count):
        if image.versions[i].name != NULL:
            count += 1
    return count


cdef public int DLOPEN_version_at(
    PublicImage* handle, uint32_t index, PublicVersion* version
) noexcept nogil:
    cdef Image* image = <Image*>handle
    cdef uint32_t phase = DLOPEN_read_enter()
    cdef uint32_t i
    cdef int turn
    cdef int code = DLOPEN_E_INVALID
    cdef const Version* entry
    if not snapshot_holds(current_snapshot(&the_linker.registry), image):
        DLOPEN_read_leave(phase)
        return DLOPEN_E_HANDLE
    for turn in range(2):        # definitions, then needs
        for i in range(image.version_count):
            entry = &image.versions[i]
            if code == 0 or entry.name == NULL or (entry.library != NULL) != (turn == 1):
                continue
            if index != 0:
                index -= 1
                continue
            version.name = entry.name
            version.library = entry.library
            version.hash = entry.hash
            version.flags = entry.flags
            version.index = <uint16_t>i
            code = 0
    DLOPEN_read_leave(phase)
    return code


cdef public size_t DLOPEN_images(PublicImage** images, size_t capacity) noexcept nogil:
    cdef Linker* linker = ready_linker()
    cdef const Snapshot* snapshot
    cdef uint32_t phase
    cdef size_t i
    cdef size_t total
    cdef int hosts
    if linker == NULL:
        return 0
    phase = reader_enter(&linker.registry)
    hosts = refresh_hosts(linker, current_snapshot(&linker.registry))
    if hosts != HOSTS_AS_BEFORE:
        reader_leave(&linker.registry, phase)
        if hosts == HOSTS_UNKNOWN:
            return 0
        phase = reader_enter(&linker.registry)
    snapshot = current_snapshot(&linker.registry)
    total = snapshot.host_count + snapshot.count
    for i in range(total):
        if i >= capacity:
            break
        images[i] = <PublicImage*>(
            snapshot.hosts[i] if i < snapshot.host_count
            else snapshot.images[i - snapshot.host_count]
        )
    reader_leave(&linker.registry, phase)
    return total


cdef public int DLOPEN_patch(
    PublicImage* image, const PublicReplacement* replacements, size_t count, Patched* patched,
    uint64_t* number, Error* error
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    return patch_image(linker, <Image*>image, replacements, count, patched, number, error)


cdef public int DLOPEN_unpatch(uint64_t number, Error* error) noexcept nogil:
    cdef Linker* linker = ready_linker()
    cdef bint has_kept = False
    cdef int code
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    code = unpatch(linker, number, &has_kept, error)
    if has_kept:
        collect(linker, NULL)
    return code


cdef public int DLOPEN_swap(
    PublicImage* old, PublicImage* successor, uint64_t* places, Error* error
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    return swap_images(linker, <Image*>old, <Image*>successor, places, error)


cdef public int DLOPEN_retain(PublicImage* image, Error* error) noexcept nogil:
    cdef Linker* linker = ready_linker()
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    return retain(linker, <Image*>image, True, error)


cdef public int DLOPEN_release(PublicImage* image, Error* error) noexcept nogil:
    cdef Linker* linker = ready_linker()
    cdef int code
    error_clear(error)
    if linker == NULL:
        return not_ready(error)
    code = retain(linker, <Image*>image, False, error)
    if code == 0:
        collect(linker, NULL)
    return code


cdef public size_t DLOPEN_holders(
    PublicImage* image, VisitHolder* visit, void* data
) noexcept nogil:
    cdef Linker* linker = ready_linker()
    if linker == NULL:
        return 0
    return visit_holders(linker, <Image*>image, visit, data)


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
    cdef Linker* linker = ready_linker()
    cdef Answer answer
    if linker != NULL:
        return family_dlsym(linker, handle, name, version, caller)
    if the_linker.host.dlsym != NULL \
            and (handle == NULL or handle == <void*>(-1) or knows_handle(handle)):
        return forward(&the_linker, version)
    answer.result = no_handle()
    answer.forward = NULL
    return answer


cdef public char* dlopen_entry_dlerror() noexcept nogil:
    ready_linker()
    return last_message(&the_linker)


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


cdef struct HostVisit:
    PhdrVisitor visit
    void* data
    uint64_t our_adds, our_subs
    uint64_t adds, subs          # the host's and ours, as the visitor is told
    uint32_t phase               # of our readers
    bint stopped


cdef int pass_host_info(HostInfo* info, size_t size, void* data) noexcept nogil:
    """The host makes `info` anew for each image: it may be written."""
    cdef HostVisit* visit = <HostVisit*>data
    cdef int result
    info.dlpi_adds += visit.our_adds
    info.dlpi_subs += visit.our_subs
    visit.adds = info.dlpi_adds
    visit.subs = info.dlpi_subs
    result = visit.visit(info, size, visit.data)
    visit.stopped = result != 0
    return result


cdef int visit_hosts(void* data) noexcept nogil:
    return the_linker.host.dl_iterate_phdr(pass_host_info, data)


cdef void end_visit_of_hosts(void* data) noexcept nogil:
    leave_host(&the_linker)


cdef int visit_own(void* data) noexcept nogil:
    cdef const HostVisit* host = <const HostVisit*>data
    cdef const Snapshot* snapshot = current_snapshot(&the_linker.registry)
    cdef const Image* image
    cdef HostInfo info
    cdef size_t i
    cdef int result = 0
    for i in range(snapshot.count + snapshot.closing_count):
        image = snapshot.images[i]
        # Mapped only, or being relocated.
        if not is_linked(image) or load_pointer(&image.scope) == NULL:
            continue
        info.dlpi_addr = image.load_bias
        info.dlpi_name = image_asked_name(image)
        info.dlpi_phdr = image.layout.phdrs
        info.dlpi_phnum = <uint16_t>image.layout.phnum
        info.dlpi_tls_modid = image.tls_module_id
        info.dlpi_tls_data = block_of_thread(image) if image.tls_module_id else NULL
        info.dlpi_adds = host.adds
        info.dlpi_subs = host.subs
        result = host.visit(&info, sizeof(info), host.data)
        if result:
            break
    return result


cdef void end_visit_of_own(void* data) noexcept nogil:
    reader_leave(&the_linker.registry, (<const HostVisit*>data).phase)


cdef public int dlopen_entry_dl_iterate_phdr(void* visit, void* data) noexcept nogil:
    """The host's images, then ours. The visitor is foreign code: it runs without our lock,
    in a reader section, so that what it looks at stays mapped. It may throw."""
    cdef Linker* linker = ready_linker()
    cdef HostVisit host
    cdef int result
    if linker == NULL and the_linker.host.dl_iterate_phdr != NULL:
        return the_linker.host.dl_iterate_phdr(<PhdrVisitor>visit, data)
    if linker == NULL:
        return 0
    host.visit = <PhdrVisitor>visit
    host.data = data
    if load_u64(&linker.registry.adds) == 0:     # none of ours, ever
        return linker.host.dl_iterate_phdr(host.visit, data)
    # Read before the images are: a reader that keeps what it saw must see a change later.
    host.our_adds = load_u64(&linker.registry.adds)
    host.our_subs = load_u64(&linker.registry.subs)
    host.stopped = False
    enter_host(linker)
    result = in_section(visit_hosts, end_visit_of_hosts, &host)
    if host.stopped:
        return result
    host.phase = reader_enter(&linker.registry)
    return in_section(visit_own, end_visit_of_own, &host)


cdef public int dlopen_entry_find_object(void* address, void* answer) noexcept nogil:
    """_dl_find_object(3), for unwinders. The host's first: its own throws pay for a call."""
    cdef Linker* linker = ready_linker()
    cdef FindResult* result = <FindResult*>answer
    cdef uint32_t phase
    cdef Image* image
    cdef int code = -1
    if linker == NULL:           # an exception for want of memory may be the first call
        return the_linker.host.dl_find_object(address, result) \
            if the_linker.host.dl_find_object != NULL else -1
    if linker.host.dl_find_object != NULL \
            and linker.host.dl_find_object(address, result) == 0:
        return 0
    phase = reader_enter(&linker.registry)
    image = snapshot_image_at(current_snapshot(&linker.registry), <uint64_t>address)
    if image != NULL and image.layout.eh_frame_header != NULL:
        result.flags = 0
        result.map_start = <void*>image.map_start
        result.map_end = <void*>image.map_end
        result.link_map = &image.link_map
        result.eh_frame = <void*>(image.load_bias + image.layout.eh_frame_header.p_vaddr)
        code = 0
    reader_leave(&linker.registry, phase)
    return code


cdef public uint64_t dlopen_bind_call(void* image, uint64_t number) noexcept nogil:
    """dlopen_lazy_call of arch/<machine>.S."""
    return bind_call(&the_linker, <Image*>image, number)


cdef int family_thread_atexit(
    ObjectDestructor destructor, void* object, void* dso_handle
) noexcept nogil:
    return at_thread_exit(&the_linker, destructor, object, dso_handle)


cdef void name_own_functions(Linker* linker) noexcept nogil:
    cdef int count = 0
    count = own(linker, count, b"dlopen", <void*>dlopen_entry_dlopen)
    count = own(linker, count, b"dlmopen", <void*>dlopen_entry_dlmopen)
    count = own(linker, count, b"dlclose", <void*>dlopen_entry_dlclose)
    count = own(linker, count, b"dlsym", <void*>entry_dlsym)
    count = own(linker, count, b"dlvsym", <void*>entry_dlvsym)
    count = own(linker, count, b"dlerror", <void*>dlopen_entry_dlerror)
    count = own(linker, count, b"dladdr", <void*>dlopen_entry_dladdr)
    count = own(linker, count, b"dladdr1", <void*>dlopen_entry_dladdr1)
    count = own(linker, count, b"dlinfo", <void*>dlopen_entry_dlinfo)
    count = own(linker, count, b"dl_iterate_phdr", <void*>dlopen_entry_dl_iterate_phdr)
    count = own(linker, count, b"__tls_get_addr", <void*>family_tls_get_addr)
    count = own(linker, count, b"_dl_find_object", <void*>dlopen_entry_find_object)
    count = own(linker, count, b"__cxa_thread_atexit", <void*>family_thread_atexit)
    own(linker, count, b"__cxa_thread_atexit_impl", <void*>family_thread_atexit)


cdef int own(Linker* linker, int count, const char* name, void* function) noexcept nogil:
    linker.own_names[count].name = name
    linker.own_names[count].address = <uint64_t>function
    return count + 1
