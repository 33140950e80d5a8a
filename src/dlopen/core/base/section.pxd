"""What must end however the foreign code within it ends: an exception, a cancellation.

There is no language of exceptions in the core, so the frame that calls has a personality
routine of its own (Itanium C++ ABI, level I), which cleans up by itself and has no landing pad.
"""


cdef extern from *:
    """
    struct dlopen_section {
        struct dlopen_section *outer;
        void (*leave)(void *);
        void *data;
    };
    static __thread struct dlopen_section *dlopen_innermost_section;
    static void dlopen_end_section(void) {
        struct dlopen_section *section = dlopen_innermost_section;
        dlopen_innermost_section = section->outer;
        section->leave(section->data);
    }
    __attribute__((visibility("hidden"), used)) int dlopen_section_personality(
        int version, int actions, uint64_t kind, void *exception, void *context
    ) {
        enum { CLEANUP_PHASE = 2, CONTINUE_UNWIND = 8 };
        if (actions & CLEANUP_PHASE) dlopen_end_section();
        return CONTINUE_UNWIND;
    }
    /* `leave` runs no foreign code. */
    __attribute__((noinline)) static int dlopen_in_section(
        int (*function)(void *), void (*leave)(void *), void *data
    ) {
        __asm__ volatile (".cfi_personality 0x1b, dlopen_section_personality");
        struct dlopen_section section = { dlopen_innermost_section, leave, data };
        dlopen_innermost_section = &section;
        int result = function(data);
        dlopen_end_section();
        return result;
    }
    """
    int in_section "dlopen_in_section"(
        int (*function)(void* data) noexcept nogil, void (*leave)(void* data) noexcept nogil,
        void* data
    ) noexcept nogil
