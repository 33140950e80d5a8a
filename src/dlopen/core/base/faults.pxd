"""Failures on demand, for the build that `make faults` tests; nothing in any other.

There, whoever starts the process decides: a program or a preloaded library that defines
`dlopen_fault` is asked before each allocation, each kernel call and each registration with
libc. It answers 0, or with the negative errno that this one ends with. `dlopen_block` hears
of each block of the allocator, so that a leaked one is seen.
"""


cdef extern from *:
    """
    #ifdef DLOPEN_FAULTS
    __attribute__((weak, visibility("default"))) long dlopen_fault(long point);
    __attribute__((weak, visibility("default"))) void dlopen_block(const void *block, int live);
    #define dlopen_fault_at(point) (dlopen_fault ? dlopen_fault(point) : 0L)
    #define dlopen_note_block(block, live) \\
        ((void)(dlopen_block && (block) ? (dlopen_block(block, live), 0) : 0))
    #else
    #define dlopen_fault_at(point) 0L
    #define dlopen_note_block(block, live) ((void)0)
    #endif
    """
    # 0, or the negative errno that `point` fails with: a system call's number, or one of these.
    long fault_at "dlopen_fault_at"(long point) noexcept nogil
    void note_block "dlopen_note_block"(const void* block, bint live) noexcept nogil


cdef enum:
    FAULT_ALLOCATION = -1
    FAULT_REGISTRATION = -2      # libc keeps a pthread key's value, a handler of fork
