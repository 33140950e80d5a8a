"""Whether the process has one thread; and counts that any thread changes, and that cost no locked
instruction then.

libc says so in __libc_single_threaded (glibc 2.32): of its own definition, which it clears before
it makes a second thread, and which stays clear where the program has a copy of it that an older
libc writes instead. Without that there are always many threads.

What a signal handler adds here it takes away again before it returns, so that a load and a store
are as good as one instruction.

Nor is more order wanted of these than the compiler's: there is nobody else to see it, and who makes
a second thread lets that see all that came before (pthread_create(3)).
"""

from libc.stdint cimport uint32_t


cdef extern from *:
    """
    /* Of the process, as the heap is. Atomic; written once, before the linker is ready, and some
       locks may be taken before; NULL: many. */
    static const char *dlopen_is_single_threaded;
    static inline int dlopen_is_alone(void) {
        const volatile char *single = __atomic_load_n(
            &dlopen_is_single_threaded, __ATOMIC_RELAXED);
        return single && *single;
    }
    /* In order for a signal handler, too. */
    static inline void dlopen_store_alone(uint32_t *word, uint32_t value) {
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        __atomic_store_n(word, value, __ATOMIC_RELAXED);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    }
    /* Of arch/machine.pxd. */
    static inline void dlopen_fence_after_exchange(void);
    static inline void dlopen_count_one(uint32_t *count) {
        if (dlopen_is_alone()) {
            dlopen_store_alone(count, __atomic_load_n(count, __ATOMIC_RELAXED) + 1);
        } else {
            __atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST);
            dlopen_fence_after_exchange();
        }
    }
    static inline uint32_t dlopen_uncount_one(uint32_t *count) {
        uint32_t before;
        if (!dlopen_is_alone())
            return __atomic_fetch_sub(count, 1, __ATOMIC_SEQ_CST);
        before = __atomic_load_n(count, __ATOMIC_RELAXED);
        dlopen_store_alone(count, before - 1);
        return before;
    }
    """
    const char* is_single_threaded "dlopen_is_single_threaded"
    bint is_alone "dlopen_is_alone"() noexcept nogil
    void store_alone "dlopen_store_alone"(uint32_t* word, uint32_t value) noexcept nogil
    # What follows is not done before others see the count: a fence.
    void count_one "dlopen_count_one"(uint32_t* count) noexcept nogil
    # What was there before. All that was done is seen by who sees the count.
    uint32_t uncount_one "dlopen_uncount_one"(uint32_t* count) noexcept nogil
