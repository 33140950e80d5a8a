"""The compiler's atomic builtins, one name for each type (the ABI has no generic ones)."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from *:
    """
    #define dlopen_load_pointer(p) __atomic_load_n((void *const *)(p), __ATOMIC_ACQUIRE)
    #define dlopen_store_pointer(p, v) __atomic_store_n((void **)(p), (void *)(v), __ATOMIC_RELEASE)
    #define dlopen_load_flag(p) __atomic_load_n((const _Bool *)(p), __ATOMIC_ACQUIRE)
    #define dlopen_store_flag(p, v) __atomic_store_n((_Bool *)(p), (v), __ATOMIC_RELEASE)
    #define dlopen_load_u32(p) __atomic_load_n((const uint32_t *)(p), __ATOMIC_ACQUIRE)
    #define dlopen_load_u64(p) __atomic_load_n((const uint64_t *)(p), __ATOMIC_ACQUIRE)
    #define dlopen_store_u64(p, v) __atomic_store_n((uint64_t *)(p), (v), __ATOMIC_RELEASE)
    #define dlopen_load_u32_seq(p) __atomic_load_n((const uint32_t *)(p), __ATOMIC_SEQ_CST)
    #define dlopen_store_u32(p, v) __atomic_store_n((uint32_t *)(p), (v), __ATOMIC_RELEASE)
    #define dlopen_add_u32(p, v) __atomic_fetch_add((uint32_t *)(p), (v), __ATOMIC_SEQ_CST)
    #define dlopen_sub_u32(p, v) __atomic_fetch_sub((uint32_t *)(p), (v), __ATOMIC_SEQ_CST)
    #define dlopen_exchange_u32(p, v) __atomic_exchange_n((uint32_t *)(p), (v), __ATOMIC_SEQ_CST)
    static inline int dlopen_swap_u32(uint32_t *p, uint32_t expected, uint32_t desired) {
        return __atomic_compare_exchange_n(
            p, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST
        );
    }
    static inline int dlopen_swap_pointer(void **p, void *expected, void *desired) {
        return __atomic_compare_exchange_n(
            p, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST
        );
    }
    #define dlopen_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    """
    void* load_pointer "dlopen_load_pointer"(const void* address) noexcept nogil
    void store_pointer "dlopen_store_pointer"(void* address, const void* value) noexcept nogil
    bint load_flag "dlopen_load_flag"(const void* address) noexcept nogil
    void store_flag "dlopen_store_flag"(void* address, bint value) noexcept nogil
    uint32_t load_u32 "dlopen_load_u32"(const uint32_t* address) noexcept nogil
    uint64_t load_u64 "dlopen_load_u64"(const uint64_t* address) noexcept nogil
    void store_u64 "dlopen_store_u64"(uint64_t* address, uint64_t value) noexcept nogil
    uint32_t load_u32_seq "dlopen_load_u32_seq"(const uint32_t* address) noexcept nogil
    void store_u32 "dlopen_store_u32"(uint32_t* address, uint32_t value) noexcept nogil
    uint32_t add_u32 "dlopen_add_u32"(uint32_t* address, uint32_t value) noexcept nogil
    uint32_t sub_u32 "dlopen_sub_u32"(uint32_t* address, uint32_t value) noexcept nogil
    uint32_t exchange_u32 "dlopen_exchange_u32"(uint32_t* address, uint32_t value) noexcept nogil
    bint compare_and_swap_u32 "dlopen_swap_u32"(
        uint32_t* address, uint32_t expected, uint32_t desired
    ) noexcept nogil
    bint compare_and_swap_pointer "dlopen_swap_pointer"(
        void** address, void* expected, void* desired
    ) noexcept nogil
    void full_fence "dlopen_fence"() noexcept nogil
