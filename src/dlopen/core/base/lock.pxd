"""A mutual exclusion lock on a futex word: 0 free, 1 held, 2 held and waited for.

Not recursive. Held for short, bounded stretches only and never while foreign code
runs; so a waiter spins a little and then sleeps.

Who holds one may take only those of a higher rank: the ranks below are the order, of which
fork takes them all. A build that checks (debug, and all with a sanitizer: DLOPEN_CHECKED)
ends the process where it is broken, whether or not two threads meet; others hold no ranks.

While the process has one thread (base/single_thread.pxd), the word is loaded and stored without a
locked instruction. Only this thread could make another one: it does not while it holds the lock,
and a signal handler must not (signal-safety(7)).

A thread that forks holds all of them from the linker's handler on (pthread_atfork(3)):
what other handlers call in it finds everything at rest, and passes.
"""

from libc.stdint cimport uint32_t

from dlopen.core.base.atomics cimport compare_and_swap_u32, exchange_u32, load_u32
from dlopen.core.base.kernel cimport kernel_wait, kernel_wake, kernel_write_line
from dlopen.core.base.single_thread cimport is_alone, store_alone


cdef extern from *:
    """
    /* How many locks this thread holds or is about to: what a signal handler finds. */
    static __thread uint32_t dlopen_locks_held;
    static __thread uint32_t dlopen_forks_now;
    #ifdef DLOPEN_CHECKED
    #define DLOPEN_CHECKS 1
    struct dlopen_lock { uint32_t word, rank; };
    #define dlopen_rank(lock) ((lock)->rank)
    #define dlopen_give_rank(lock, given) ((lock)->rank = (given))
    static __thread uint32_t dlopen_ranks_held;  /* a bit for each */
    #else
    #define DLOPEN_CHECKS 0
    struct dlopen_lock { uint32_t word; };
    #define dlopen_rank(lock) 0U
    #define dlopen_give_rank(lock, given) ((void)0)
    static uint32_t dlopen_ranks_held;           /* of nobody */
    #endif
    """
    enum:
        DLOPEN_CHECKS
    cdef struct Lock "dlopen_lock":
        uint32_t word
    uint32_t locks_held "dlopen_locks_held"
    uint32_t forks_now "dlopen_forks_now"
    uint32_t ranks_held "dlopen_ranks_held"
    uint32_t rank_of "dlopen_rank"(const Lock* lock) nogil
    void give_rank "dlopen_give_rank"(Lock* lock, uint32_t rank) nogil
    void trap "__builtin_trap"() nogil


cdef enum:                       # a lock may be taken while those of lower ranks are held
    RANK_LEAF = 0                # of a lock that was given none, and the highest: Allocator.lock
    RANK_DEBUGGER = 1            # Debugger.lock
    RANK_TLS = 2                 # Tls.lock
    RANK_RECLAIMING = 3          # Registry.reclaiming
    RANK_REGISTRY = 4            # Registry.lock
    RANK_ARENA = 5               # Arena.lock
    LEAF_BIT = 31


cdef inline const char* rank_name(uint32_t bit) noexcept nogil:
    if bit == RANK_DEBUGGER:
        return b"Debugger.lock"
    if bit == RANK_TLS:
        return b"Tls.lock"
    if bit == RANK_RECLAIMING:
        return b"Registry.reclaiming"
    if bit == RANK_REGISTRY:
        return b"Registry.lock"
    if bit == RANK_ARENA:
        return b"Arena.lock"
    return b"a leaf"


cdef inline uint32_t rank_bit(const Lock* lock) noexcept nogil:
    return rank_of(lock) if rank_of(lock) != RANK_LEAF else <uint32_t>LEAF_BIT


cdef inline void note_rank(const Lock* lock, bint held) noexcept nogil:
    if held:
        (&ranks_held)[0] |= 1U << rank_bit(lock)     # trap: below 32
    else:
        (&ranks_held)[0] &= ~(1U << rank_bit(lock))  # trap: of 32 bits


cdef inline void check_rank(const Lock* lock) noexcept nogil:
    """Ends the process if this thread holds one that comes after the lock, or has its rank."""
    cdef const char* texts[4]
    cdef uint32_t bit = rank_bit(lock)
    cdef uint32_t held = LEAF_BIT
    if ranks_held >> bit == 0:
        return
    while not ranks_held >> held & 1U:
        held -= 1
    texts[0] = b"dlopen: the order of locks is broken: "
    texts[1] = rank_name(bit)
    texts[2] = b" is taken by who holds "
    texts[3] = rank_name(held)
    kernel_write_line(2, &texts[0], 4)
    trap()


cdef inline bint is_forking() noexcept nogil:
    """This thread, and it holds all locks for that."""
    return forks_now != 0


cdef inline void set_forking(bint forking) noexcept nogil:
    """This thread forks: it has all locks, and passes each."""
    (&forks_now)[0] = forking


cdef inline void lock_acquire(Lock* lock) noexcept nogil:
    cdef int _spin
    if is_forking():
        return
    # First: a signal handler that comes here takes no lock then, whose rank would be wrong.
    (&locks_held)[0] += 1
    if DLOPEN_CHECKS:
        check_rank(lock)
        note_rank(lock, True)
    if is_alone() and load_u32(&lock.word) == 0:
        store_alone(&lock.word, 1)
        return
    for _spin in range(64):
        if compare_and_swap_u32(&lock.word, 0, 1):
            return
    while exchange_u32(&lock.word, 2) != 0:
        kernel_wait(&lock.word, 2)


cdef inline bint lock_try(Lock* lock) noexcept nogil:
    """Who does not wait may ask for a lock of any rank."""
    if is_forking():
        return True
    (&locks_held)[0] += 1
    if compare_and_swap_u32(&lock.word, 0, 1):
        if DLOPEN_CHECKS:
            note_rank(lock, True)
        return True
    (&locks_held)[0] -= 1
    return False


cdef inline void lock_release(Lock* lock) noexcept nogil:
    if is_forking():
        return
    if is_alone():
        store_alone(&lock.word, 0)
    elif exchange_u32(&lock.word, 0) == 2:
        kernel_wake(&lock.word, 1)
    if DLOPEN_CHECKS:
        note_rank(lock, False)
    (&locks_held)[0] -= 1
