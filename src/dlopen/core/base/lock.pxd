"""A mutual exclusion lock on a futex word: 0 free, 1 held, 2 held and waited for.

Not recursive. Held for short, bounded stretches only and never while foreign code
runs; so a waiter spins a little and then sleeps.

A thread that forks holds all of them from the linker's handler on (pthread_atfork(3)):
what other handlers call in it finds everything at rest, and passes.
"""

from libc.stdint cimport uint32_t

from dlopen.core.base.atomics cimport compare_and_swap_u32, exchange_u32
from dlopen.core.base.kernel cimport kernel_wait, kernel_wake


cdef extern from *:
    """
    /* How many locks this thread holds or is about to: what a signal handler finds. */
    static __thread uint32_t dlopen_locks_held;
    static __thread uint32_t dlopen_forks_now;
    """
    uint32_t locks_held "dlopen_locks_held"
    uint32_t forks_now "dlopen_forks_now"


cdef struct Lock:
    uint32_t word


cdef inline bint is_forking() noexcept nogil:
    """This thread, and it holds all locks for that."""
    return forks_now != 0


cdef inline void set_forking(bint forking) noexcept nogil:
    (&forks_now)[0] = forking


cdef inline void lock_acquire(Lock* lock) noexcept nogil:
    cdef int _spin
    if is_forking():
        return
    (&locks_held)[0] += 1
    for _spin in range(64):
        if compare_and_swap_u32(&lock.word, 0, 1):
            return
    while exchange_u32(&lock.word, 2) != 0:
        kernel_wait(&lock.word, 2)


cdef inline bint lock_try(Lock* lock) noexcept nogil:
    if is_forking():
        return True
    (&locks_held)[0] += 1
    if compare_and_swap_u32(&lock.word, 0, 1):
        return True
    (&locks_held)[0] -= 1
    return False


cdef inline void lock_release(Lock* lock) noexcept nogil:
    if is_forking():
        return
    if exchange_u32(&lock.word, 0) == 2:
        kernel_wake(&lock.word, 1)
    (&locks_held)[0] -= 1
