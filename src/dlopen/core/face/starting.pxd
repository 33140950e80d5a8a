"""How the linker is made usable: by the first call that needs it, once.

Most processes with libdlopen.so preloaded never call it; the constructor only keeps what the loader
gives it, and what of the environment counts. The first call may come before that, from another
library's constructor, and may be any function. One thread does the work (`begin_preparing`), and
others wait.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.atomics cimport compare_and_swap_u32, load_u32, load_u64, store_u32, store_u64
from dlopen.core.base.contract cimport DLOPEN_E_STATE, Error
from dlopen.core.base.environment cimport (
    Environment, environment_value, keep_environment, process_environment, read_environment,
)
from dlopen.core.base.errors cimport fail_memory, fail_text
from dlopen.core.base.kernel cimport kernel_process_id, kernel_wait, kernel_wake
from dlopen.core.base.log cimport start_log
from dlopen.core.base.strings cimport strlen
from dlopen.core.host.abi cimport AT_EXECFN, AT_SECURE, getauxval
from dlopen.core.host.assumptions cimport unmet_text
from dlopen.core.host.debugger cimport read_debugger_wish
from dlopen.core.host.linker cimport NO_LIBC, READY, UNPREPARED, Linker, Preparation
from dlopen.core.host.refresh cimport refresh_hosts
from dlopen.core.image.registry cimport this_thread


cdef extern from *:
    """
    #define DLOPEN_AT_START __attribute__((section(".text.startup")))
    void dlopen_finish(void);
    DLOPEN_AT_START void dlopen_keep_environment(void);
    DLOPEN_AT_START int dlopen_expect_fork(void);
    #ifndef DLOPEN_SANITIZE
    /* Linked without the compiler's start files, whose code would look up four symbols and write to
       a page, in each process, for nothing: what names this library to libc is its address. */
    __attribute__((visibility("hidden"))) void *__dso_handle;
    #endif
    /* Most processes with libdlopen.so preloaded never call it, and shall not pay for it: each
       page that is touched here costs more than all the code. So there is no variable with a value
       of its own (tests/source/test_binary.py): the loader would copy its page of the file. What
       the host's loader gives to constructors is in the one page of zeroes that is written, and
       all code that runs in each process lies together. */
    __attribute__((aligned(2048))) static struct dlopen_startup {      /* in one page */
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
    __attribute__((destructor)) DLOPEN_AT_START static void dlopen_destructor(void) {
        if (dlopen_startup.in_use) dlopen_finish();
    }
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


cdef inline bint is_argument_count(const uint64_t* stack) noexcept nogil:
    """There is argc, and argv with its NULL follows, below the strings (psABI, "Process
    Initialization")."""
    cdef uint64_t end = getauxval(AT_EXECFN)
    return <uint64_t>stack < end and stack[0] < (end - <uint64_t>stack) // sizeof(uint64_t) - 1 \
        and stack[stack[0] + 1] == 0


cdef inline void read_arguments(Linker* linker) noexcept nogil:
    """As the host's loader gives them to constructors. Before ours has run they are read where the
    kernel has put them: __libc_stack_end of ld.so."""
    cdef uint64_t* stack = <uint64_t*>linker.host.stack_end[0] \
        if linker.host.stack_end != NULL else NULL
    if startup.argv != NULL:
        linker.process.argc = startup.argc
        linker.process.argv = startup.argv
    elif stack != NULL and is_argument_count(stack):
        linker.process.argc = <int>stack[0]
        linker.process.argv = <char**>(stack + 1)


cdef inline bint read_settings(Linker* linker) noexcept nogil:
    """Once, under Registry.lock; False without memory. DLOPEN_* variables do not count in secure
    execution (ld.so(8))."""
    cdef Environment* environment = &linker.process.environment
    if environment.is_complete:
        return True
    linker.process.is_secure = getauxval(AT_SECURE) != 0
    if load_u32(&startup.is_kept):
        environment.data = &startup.text[0]
        environment.length = startup.kept
        environment.is_of_start = startup.is_of_start
        environment.is_complete = True
    else:
        read_arguments(linker)
        read_environment(linker.process.argc, linker.process.argv, process_environment, environment)
    if not environment.is_complete:
        return False
    linker.process.bind_now = environment_value(environment, b"LD_BIND_NOW=") != NULL
    linker.process.bind_not = environment_value(environment, b"LD_BIND_NOT=") != NULL
    if not linker.process.is_secure:
        start_log(environment)
        read_debugger_wish(linker)
    return True


cdef inline bint keep_settings_of_start() noexcept nogil:
    """True: there is a DLOPEN_* variable, or more than there is room for."""
    cdef Startup* mine = &startup
    cdef bint of_start = False
    cdef size_t i
    mine.kept = keep_environment(
        mine.argc, mine.argv, mine.envp, &mine.text[0], STARTUP_TEXT, &of_start
    )
    if mine.kept > STARTUP_TEXT:
        return True
    mine.is_of_start = of_start
    store_u32(&mine.is_kept, 1)
    i = 0
    while i < mine.kept:
        if mine.text[i] == 0x44:         # 'D'
            return True
        i += strlen(&mine.text[i]) + 1
    return False


cdef inline void end_preparing(Preparation* preparation, uint32_t outcome) noexcept nogil:
    """Says READY, UNPREPARED or NO_LIBC, gives the claim up and wakes who waits for it."""
    store_u32(&preparation.ready, outcome)
    # Before the claim is given up: another thread would take this one's name for its own.
    store_u64(&preparation.thread, 0)
    store_u32(&preparation.process, 0)
    kernel_wake(&preparation.process, 0x7fffffff)


cdef inline bint has_no_libc(const Preparation* preparation) noexcept nogil:
    """None, or none that is known: host/assumptions.pxd."""
    return load_u32(&preparation.ready) == NO_LIBC


cdef inline int not_usable(const Preparation* preparation, Error* error) noexcept nogil:
    """The error of a call that cannot be begun."""
    return fail_text(error, DLOPEN_E_STATE, b"", unmet_text) if has_no_libc(preparation) \
        else fail_memory(error, b"")


cdef inline int outcome(const Linker* linker, int code, Error* error) noexcept nogil:
    """Of an open: that this libc is not known may have come out only now."""
    if code != 0 and has_no_libc(&linker.preparation):
        return not_usable(&linker.preparation, error)
    return code


cdef inline bint look_first(Linker* linker) noexcept nogil:
    """The first snapshot is there, or False without memory: it is made from the host's list."""
    if linker.registry.snapshot == NULL:
        refresh_hosts(linker, NULL)
    return linker.registry.snapshot != NULL


cdef inline bint begin_preparing(Linker* linker, bint* usable) noexcept nogil:
    """False: somebody else has made it usable or not, or this thread is at it: what it calls
    may call us again, a wrapper of malloc for one. Without a lock, which a thread that forks
    meanwhile would leave taken in the child. Who finds no memory gives up the claim, and the
    next one tries again."""
    cdef uint32_t process = kernel_process_id()
    cdef uint32_t claimed
    usable[0] = False
    while load_u32(&linker.preparation.ready) == UNPREPARED:
        claimed = load_u32(&linker.preparation.process)
        if claimed != process:       # nobody, or a thread that is in the parent
            if compare_and_swap_u32(&linker.preparation.process, claimed, process):
                store_u64(&linker.preparation.thread, this_thread())
                return True
        elif load_u64(&linker.preparation.thread) == this_thread():
            if linker.host.dl_iterate_phdr != NULL:
                look_first(linker)   # it goes on from there
            usable[0] = linker.registry.snapshot != NULL
            return False
        else:
            kernel_wait(&linker.preparation.process, process)
    usable[0] = load_u32(&linker.preparation.ready) == READY
    return False
