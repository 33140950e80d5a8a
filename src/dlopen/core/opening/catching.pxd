"""Constructors that throw.

glibc lets the process end then (dlopen(3) is declared not to throw). Who opens through
DLOPEN_open gets an error: what the constructor has thrown is caught here.

There is no language of exceptions in the core, so the frame that calls has a personality
routine of its own (Itanium C++ ABI, level I): it takes any exception, and in the second
phase, when all frames below have been cleaned up, jumps back into its frame.
"""

from libc.stdint cimport uint64_t

from dlopen.core.base.growable cimport Text, text_add
from dlopen.core.host.functions cimport function_in
from dlopen.core.image.image cimport Image
cdef extern from *:
    """
    struct dlopen_catch {
        void *frame[5];                  /* of __builtin_setjmp */
        struct dlopen_catch *outer;
        void *exception;
    };
    static __thread struct dlopen_catch *dlopen_innermost_catch;
    __attribute__((visibility("hidden"), used)) int dlopen_catch_personality(
        int version, int actions, uint64_t kind, void *exception, void *context
    ) {
        enum { SEARCH_PHASE = 1, FORCE_UNWIND = 8, HANDLER_FOUND = 6, CONTINUE_UNWIND = 8 };
        struct dlopen_catch *innermost = dlopen_innermost_catch;
        if (actions & FORCE_UNWIND) {    /* the thread is cancelled, or ends */
            if (!(actions & SEARCH_PHASE)) dlopen_innermost_catch = innermost->outer;
            return CONTINUE_UNWIND;
        }
        if (actions & SEARCH_PHASE) return HANDLER_FOUND;
        innermost->exception = exception;
        __builtin_longjmp(innermost->frame, 1);
    }
    /* What `function` has thrown (struct _Unwind_Exception *), or NULL. */
    __attribute__((noinline)) static void *dlopen_call_caught(
        void (*function)(void *), void *data
    ) {
        __asm__ volatile (".cfi_personality 0x1b, dlopen_catch_personality");
        /* What is known of it must not be in registers: they are not kept over the jump. */
        volatile struct dlopen_catch catch;
        catch.outer = dlopen_innermost_catch;
        catch.exception = (void *)0;
        dlopen_innermost_catch = (struct dlopen_catch *)&catch;
        if (!__builtin_setjmp((void **)catch.frame)) function(data);
        /* Not the innermost one, which may be of an open that was left by longjmp. */
        dlopen_innermost_catch = catch.outer;
        return catch.exception;
    }
    static int dlopen_is_catching(void) { return dlopen_innermost_catch != (void *)0; }
    """
    bint is_catching "dlopen_is_catching"() noexcept nogil
    void* call_caught "dlopen_call_caught"(
        void (*function)(void* data) noexcept nogil, void* data
    ) noexcept nogil


cdef struct Thrown:              # struct _Unwind_Exception, as far as we need it
    uint64_t kind
    void (*cleanup)(int reason, void* exception) noexcept nogil
    uint64_t private_1, private_2        # what was thrown follows


cdef enum:
    FOREIGN_EXCEPTION_CAUGHT = 1         # _Unwind_Reason_Code
    # "GNUCC++" and a zero, or a one for an exception that std::rethrow_exception has thrown.
    LIBSTDCXX = 0x474e5543432b2b00ULL


ctypedef void* (*BeginCatch)(void* exception) noexcept nogil
ctypedef void (*EndCatch)() noexcept nogil
ctypedef void* (*CurrentExceptionType)() noexcept nogil
# Of libstdc++'s std::type_info, and of std::exception.
ctypedef unsigned char (*DoCatch)(
    void* info, void* thrown, void** object, unsigned outer
) noexcept nogil
ctypedef const char* (*What)(void* object) noexcept nogil


cdef enum:
    DO_CATCH_SLOT = 4            # in their tables of functions, which libstdc++ keeps as they are
    WHAT_SLOT = 2


cdef inline const char* what_of(void* object, void* thrown, void* exception_type) noexcept nogil:
    """std::exception::what, or NULL if it is no std::exception."""
    if not (<DoCatch>(<void***>exception_type)[0][DO_CATCH_SLOT])(
        exception_type, thrown, &object, 1
    ):
        return NULL
    return (<What>(<void***>object)[0][WHAT_SLOT])(object)


cdef inline void describe_exception(
    const Image* runtime, Thrown* exception, Text* text
) noexcept nogil:
    """Adds what is known of it to the text, and gives it up. `runtime` is the image of the
    libstdc++ that has thrown it, or NULL."""
    cdef uint64_t begin_catch = 0
    cdef uint64_t exception_type = 0
    cdef void* thrown
    cdef const char* what = NULL
    if runtime != NULL and exception.kind & ~<uint64_t>1 == LIBSTDCXX:
        begin_catch = function_in(runtime, b"__cxa_begin_catch")
        exception_type = function_in(runtime, b"_ZTISt9exception")
    if begin_catch == 0:
        # As a language does with those of another.
        if exception.cleanup != NULL:
            exception.cleanup(FOREIGN_EXCEPTION_CAUGHT, exception)
        return
    # What it returns is set by the personality routine of C++ only.
    (<BeginCatch>begin_catch)(exception)
    thrown = (<CurrentExceptionType>function_in(runtime, b"__cxa_current_exception_type"))()
    # One that was thrown again refers to the object.
    if thrown != NULL and exception_type != 0 and exception.kind == LIBSTDCXX:
        what = what_of(exception + 1, thrown, <void*>exception_type)
    if what != NULL:
        text_add(text, b": ")
        text_add(text, what)
    elif thrown != NULL:         # std::type_info::name
        text_add(text, b" of type ")
        text_add(text, (<const char**>thrown)[1])
    (<EndCatch>function_in(runtime, b"__cxa_end_catch"))()
