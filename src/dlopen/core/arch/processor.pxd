"""The processor: in the words of glibc-hwcaps (the levels of the x86-64 psABI), and how much of
its state is to be saved.

The loader has asked it already, and tells what may be used (<sys/platform/x86.h>): under a
hypervisor each CPUID costs microseconds.
"""


cdef extern from *:
    """
    #if defined(__x86_64__)
    #include <cpuid.h>
    /* libc's function, and what it gives. */
    #define DLOPEN_FEATURES_FUNCTION "__x86_get_cpuid_feature_leaf"
    typedef struct { unsigned present[4], usable[4]; } dlopen_leaf;      /* eax ebx ecx edx */
    typedef const dlopen_leaf *dlopen_features(unsigned leaf);
    enum { DLOPEN_LEAF_1, DLOPEN_LEAF_7, DLOPEN_LEAF_80000001 };
    /* How glibc names this processor: the x86-64-vN level (psABI, "Micro-Architecture
       Levels"), and in older releases a platform. */
    static int dlopen_isa_level(void *function) {
        dlopen_features *features = (dlopen_features *)function;
        const unsigned v2 = bit_SSE3 | bit_SSSE3 | bit_CMPXCHG16B | bit_SSE4_1 | bit_SSE4_2
            | bit_POPCNT;
        const unsigned v3 = bit_FMA | bit_MOVBE | bit_AVX | bit_F16C;
        const unsigned v3_of_7 = bit_BMI | bit_AVX2 | bit_BMI2;
        const unsigned v4_of_7 = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW
            | bit_AVX512VL;
        unsigned c = features(DLOPEN_LEAF_1)->usable[2];
        unsigned of_7 = features(DLOPEN_LEAF_7)->usable[1];
        if ((c & v2) != v2) return 1;
        if ((c & v3) != v3 || (of_7 & v3_of_7) != v3_of_7
            || !(features(DLOPEN_LEAF_80000001)->usable[2] & bit_LZCNT)) return 2;
        return (of_7 & v4_of_7) == v4_of_7 ? 4 : 3;
    }
    static int dlopen_is_intel(void) {
        unsigned a, b, c, d;
        __cpuid(0, a, b, c, d);
        return b == signature_INTEL_ebx;
    }
    #else
    #define DLOPEN_FEATURES_FUNCTION ""
    static int dlopen_isa_level(void *function) { (void)function; return 0; }
    static int dlopen_is_intel(void) { return 0; }
    #endif
    /* For arch/<machine>.S: XSAVE, enabled by the kernel, and how much of the stack the state of
       the processor takes that it saves: FXSAVE's 512 bytes, or what the components that the
       kernel has enabled (XCR0) take in XSAVE's standard format. */
    __attribute__((visibility("hidden"))) int dlopen_has_xsave;
    __attribute__((visibility("hidden"))) uint64_t dlopen_state_size;
    #if defined(__x86_64__)
    static void dlopen_find_xsave(void *function) {
        unsigned d, enabled = 0;
        dlopen_state_size = 512;
        if (!(((dlopen_features *)function)(DLOPEN_LEAF_1)->present[2] & bit_OSXSAVE)) return;
        __asm__ ("xgetbv" : "=a" (enabled), "=d" (d) : "c" (0));
        dlopen_state_size = enabled & 0xe0 ? 2688 : enabled & 0x18 ? 1088 : 832;
        dlopen_has_xsave = 1;
    }
    #else
    static void dlopen_find_xsave(void *function) { (void)function; }
    #endif
    """
    const char* FEATURES_FUNCTION "DLOPEN_FEATURES_FUNCTION"     # of libc's; "": none
    int isa_level "dlopen_isa_level"(void* features) noexcept nogil
    bint is_intel "dlopen_is_intel"() noexcept nogil
    void find_xsave "dlopen_find_xsave"(void* features) noexcept nogil
