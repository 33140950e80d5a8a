"""The processor: in the words of glibc-hwcaps (the levels of the x86-64 psABI), and how much of
its state is to be saved."""


cdef extern from *:
    """
    #if defined(__x86_64__)
    #include <cpuid.h>
    /* How glibc names this processor: the x86-64-vN level (psABI, "Micro-Architecture
       Levels"), and in older releases a platform. Not by __builtin_cpu_supports: that brings a
       constructor, which asks the processor in every process, and under a hypervisor each
       question costs microseconds. */
    static int dlopen_isa_level(void) {
        const unsigned v2 = bit_SSE3 | bit_SSSE3 | bit_CMPXCHG16B | bit_SSE4_1 | bit_SSE4_2
            | bit_POPCNT;
        const unsigned v3 = bit_FMA | bit_MOVBE | bit_OSXSAVE | bit_AVX | bit_F16C;
        const unsigned v3_of_7 = bit_BMI | bit_AVX2 | bit_BMI2;
        const unsigned v4_of_7 = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW
            | bit_AVX512VL;
        unsigned a, b, c = 0, d, of_7 = 0, extended = 0, enabled = 0;
        if (!__get_cpuid(1, &a, &b, &c, &d) || (c & v2) != v2) return 1;
        __get_cpuid_count(7, 0, &a, &of_7, &b, &d);
        __get_cpuid(0x80000001, &a, &b, &extended, &d);
        if ((c & v3) != v3 || (of_7 & v3_of_7) != v3_of_7 || !(extended & bit_LZCNT)) return 2;
        /* What the kernel saves: SSE and AVX are bits 1 and 2, AVX-512 has bits 5 to 7. */
        __asm__ ("xgetbv" : "=a" (enabled), "=d" (d) : "c" (0));
        if ((enabled & 6) != 6) return 2;
        return (of_7 & v4_of_7) == v4_of_7 && (enabled & 0xe6) == 0xe6 ? 4 : 3;
    }
    static int dlopen_is_intel(void) {
        unsigned a, b = 0, c = 0, d = 0;
        return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx;
    }
    #else
    static int dlopen_isa_level(void) { return 0; }
    static int dlopen_is_intel(void) { return 0; }
    #endif
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
    int isa_level "dlopen_isa_level"() noexcept nogil
    bint is_intel "dlopen_is_intel"() noexcept nogil
    void find_xsave "dlopen_find_xsave"() noexcept nogil
