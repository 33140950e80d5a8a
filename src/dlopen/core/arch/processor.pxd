"""The processor: how libc names it where it searches, how much of its state is to be saved, and
what a resolver of an IFUNC is told of it.

The loader has asked it already, and tells what may be used (<sys/platform/x86.h>, getauxval(3)):
under a hypervisor each CPUID costs microseconds.
"""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    #include <sys/auxv.h>

    enum { DLOPEN_PLATFORM_PARTS = 4 };

    #if defined(__x86_64__)
    #include <cpuid.h>
    /* libc's function, and what it gives. */
    #define DLOPEN_FEATURES_FUNCTION "__x86_get_cpuid_feature_leaf"
    #define DLOPEN_NEEDS_FEATURES 1
    typedef struct { unsigned present[4], usable[4]; } dlopen_leaf;      /* eax ebx ecx edx */
    typedef const dlopen_leaf *dlopen_features(unsigned leaf);
    enum { DLOPEN_LEAF_1, DLOPEN_LEAF_7, DLOPEN_LEAF_80000001 };
    /* The x86-64-vN level (psABI, "Micro-Architecture Levels"). */
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
    static int dlopen_is_haswell(void *function) {
        unsigned a, b, c, d;
        if (dlopen_isa_level(function) < 3) return 0;
        __cpuid(0, a, b, c, d);
        return b == signature_INTEL_ebx;
    }
    /* Older releases have another platform for one of Intel's of level 3. */
    static const char *dlopen_platform(void *function) {
        return dlopen_is_haswell(function) ? "haswell" : "x86_64";
    }
    static int dlopen_platform_parts(void *function, const char **parts, uint32_t *hwcap) {
        int haswell = dlopen_is_haswell(function), count = 0;
        *hwcap = 1;
        parts[count++] = "x86_64/";
        if (haswell && dlopen_isa_level(function) >= 4) {
            parts[count++] = "avx512_1/";
            *hwcap |= 4;
        }
        parts[count++] = haswell ? "haswell/" : "x86_64/";
        parts[count++] = "tls/";
        return count;
    }
    /* For arch/x86_64.S: XSAVE, enabled by the kernel, and how much of the stack the state of
       the processor takes that it saves: FXSAVE's 512 bytes, or what the components that the
       kernel has enabled (XCR0) take in XSAVE's standard format. */
    __attribute__((visibility("hidden"))) int dlopen_has_xsave;
    __attribute__((visibility("hidden"))) uint64_t dlopen_state_size;
    static void dlopen_prepare_processor(void *function) {
        unsigned d, enabled = 0;
        dlopen_state_size = 512;
        if (!(((dlopen_features *)function)(DLOPEN_LEAF_1)->present[2] & bit_OSXSAVE)) return;
        __asm__ ("xgetbv" : "=a" (enabled), "=d" (d) : "c" (0));
        dlopen_state_size = enabled & 0xe0 ? 2688 : enabled & 0x18 ? 1088 : 832;
        dlopen_has_xsave = 1;
    }
    static uint64_t dlopen_call_resolver(uint64_t resolver) {
        return ((uint64_t (*)(void))resolver)();
    }

    #elif defined(__aarch64__)
    #define DLOPEN_FEATURES_FUNCTION ""
    #define DLOPEN_NEEDS_FEATURES 0
    static int dlopen_isa_level(void *function) { (void)function; return 0; }
    static int dlopen_platform_parts(void *function, const char **parts, uint32_t *hwcap) {
        int count = 0;
        (void)function;
        *hwcap = 0;
        if (getauxval(AT_HWCAP) & 1 << 8) {              /* HWCAP_ATOMICS */
            parts[count++] = "atomics/";
            *hwcap = 1 << 8;
        }
        parts[count++] = "aarch64/";
        parts[count++] = "tls/";
        return count;
    }
    static void dlopen_prepare_processor(void *function) { (void)function; }
    /* <sys/ifunc.h>: what is there is told by `size`. */
    static uint64_t dlopen_call_resolver(uint64_t resolver) {
        const struct { uint64_t size, hwcap, hwcap2, hwcap3, hwcap4; } features = {
            sizeof features, getauxval(AT_HWCAP), getauxval(AT_HWCAP2), getauxval(29),
            getauxval(30)                                /* AT_HWCAP3, AT_HWCAP4 */
        };
        const uint64_t has_struct = (uint64_t)1 << 62;   /* _IFUNC_ARG_HWCAP */
        return ((uint64_t (*)(uint64_t, const void *))resolver)(
            features.hwcap | has_struct, &features);
    }

    #elif defined(__riscv)
    #define DLOPEN_FEATURES_FUNCTION "__riscv_hwprobe"   /* not before glibc 2.40 */
    #define DLOPEN_NEEDS_FEATURES 0
    static int dlopen_isa_level(void *function) { (void)function; return 0; }
    static int dlopen_platform_parts(void *function, const char **parts, uint32_t *hwcap) {
        (void)function;
        *hwcap = 0;
        parts[0] = "tls/";
        return 1;
    }
    static void *dlopen_hwprobe;
    /* For arch/riscv64.S: the processor has vector registers. */
    __attribute__((visibility("hidden"))) int dlopen_has_vectors;
    static void dlopen_prepare_processor(void *function) {
        dlopen_hwprobe = function;
        dlopen_has_vectors = getauxval(AT_HWCAP) >> ('V' - 'A') & 1;     /* COMPAT_HWCAP_ISA_V */
    }
    static uint64_t dlopen_call_resolver(uint64_t resolver) {
        return ((uint64_t (*)(uint64_t, void *, void *))resolver)(
            getauxval(AT_HWCAP), dlopen_hwprobe, 0);
    }

    #elif defined(__loongarch_lp64)
    #define DLOPEN_FEATURES_FUNCTION ""
    #define DLOPEN_NEEDS_FEATURES 0
    static int dlopen_isa_level(void *function) { (void)function; return 0; }
    static int dlopen_platform_parts(void *function, const char **parts, uint32_t *hwcap) {
        (void)function;
        (void)parts;
        *hwcap = 0;
        return 0;
    }
    /* For arch/loongarch64.S: bytes of a vector register (LASX, LSX), or 0. */
    __attribute__((visibility("hidden"))) uint32_t dlopen_vector_size;
    static void dlopen_prepare_processor(void *function) {
        uint64_t hwcap = getauxval(AT_HWCAP);
        (void)function;
        dlopen_vector_size = hwcap & 1 << 5 ? 32 : hwcap & 1 << 4 ? 16 : 0;
    }
    static uint64_t dlopen_call_resolver(uint64_t resolver) {
        const struct { uint64_t size, hwcap; } features = {sizeof features, getauxval(AT_HWCAP)};
        return ((uint64_t (*)(const void *))resolver)(&features);
    }
    #endif
    #if !defined(__x86_64__)
    static const char *dlopen_platform(void *function) {
        const char *platform = (const char *)getauxval(AT_PLATFORM);
        (void)function;
        return platform ? platform : "";
    }
    #endif
    """
    enum:
        PLATFORM_PARTS "DLOPEN_PLATFORM_PARTS"
    # A function of libc's that the others are given; "": none. NEEDS_FEATURES: they cannot be
    # called without.
    const char* FEATURES_FUNCTION "DLOPEN_FEATURES_FUNCTION"
    bint NEEDS_FEATURES "DLOPEN_NEEDS_FEATURES"
    # Of Machine.hwcaps, those up to this level are folders for this processor.
    int isa_level "dlopen_isa_level"(void* features) noexcept nogil
    # What $PLATFORM stands for; "": nothing is known.
    const char* platform_name "dlopen_platform"(void* features) noexcept nogil
    # Folders whose subsets glibc searched before 2.37, each with its slash, the least first; how
    # many, PLATFORM_PARTS at most. `hwcap`: the bits that an entry of ld.so.cache may ask for.
    int platform_parts "dlopen_platform_parts"(
        void* features, const char** parts, uint32_t* hwcap
    ) noexcept nogil
    # What its assembly and its resolvers are told; before the first of them runs.
    void prepare_processor "dlopen_prepare_processor"(void* features) noexcept nogil
    # Of an IFUNC: foreign code, which says where the function is.
    uint64_t call_resolver "dlopen_call_resolver"(uint64_t resolver) noexcept nogil
