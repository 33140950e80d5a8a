"""x86-64: the System V psABI, AMD64 supplement."""

from dlopen.core.arch.table cimport Machine


cdef extern from *:
    """
    static const struct dlopen_machine dlopen_x86_64 = {
      .number = 62,
      .name = "x86-64",
      .last_address = 0x7fffffffffff,
      .rows = {
        [1] = {DLOPEN_R_SYMBOLIC, 8},       /* R_X86_64_64 */
        [2] = {DLOPEN_R_PC_RELATIVE, 4},    /* PC32 */
        [5] = {DLOPEN_R_COPY, 0},
        [6] = {DLOPEN_R_GLOB_DAT, 8},
        [7] = {DLOPEN_R_JUMP_SLOT, 8},
        [8] = {DLOPEN_R_RELATIVE, 8},
        [10] = {DLOPEN_R_SYMBOLIC, 4},      /* 32 */
        [16] = {DLOPEN_R_DTPMOD, 8},
        [17] = {DLOPEN_R_DTPOFF, 8},
        [18] = {DLOPEN_R_TPOFF, 8},
        [24] = {DLOPEN_R_PC_RELATIVE, 8},   /* PC64 */
        [32] = {DLOPEN_R_SIZE, 4},          /* SIZE32 */
        [33] = {DLOPEN_R_SIZE, 8},          /* SIZE64 */
        [36] = {DLOPEN_R_TLSDESC, 16},
        [37] = {DLOPEN_R_IRELATIVE, 8},
        [38] = {DLOPEN_R_RELATIVE, 8},      /* RELATIVE64 */
      },
      .relative = 8,
      .relative_wide = 38,
      .dtpmod = 16,
      .tpoff = 18,
      .got_image = 1,
      .got_resolver = 2,
      .got_reserved = 3,
      .tls_variant = 2,
      .moves_dynamic_pointers = 1,
      .runs_init = 1,
      .cache_flags = 0x0303,
      .lib = "lib64",
      .hwcaps = {"x86-64-v4", "x86-64-v3", "x86-64-v2"},   /* levels 4 to 2 */
      .breakpoint = 0xcc,                 /* int3 */
      .breakpoint_size = 1,
    };

    /* Where this is the machine: processor.pxd. */
    #if defined(__x86_64__)
    #define DLOPEN_THIS_MACHINE (&dlopen_x86_64)
    #include <cpuid.h>
    /* libc's function, and what it gives. */
    #define DLOPEN_FEATURES_FUNCTION "__x86_get_cpuid_feature_leaf"
    #define DLOPEN_NEEDS_FEATURES 1
    typedef struct { unsigned present[4], usable[4]; } dlopen_leaf;      /* eax ebx ecx edx */
    typedef const dlopen_leaf *dlopen_features(unsigned leaf);
    enum { DLOPEN_LEAF_1, DLOPEN_LEAF_7, DLOPEN_LEAF_80000001 };
    /* The x86-64-vN level (psABI, "Micro-Architecture Levels"). */
    #define dlopen_isa_level dlopen_isa_level
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
    #define dlopen_platform dlopen_platform
    static const char *dlopen_platform(void *function) {
        return dlopen_is_haswell(function) ? "haswell" : "x86_64";
    }
    #define dlopen_platform_parts dlopen_platform_parts
    static int dlopen_platform_parts(void *function, const char **parts, uint64_t *hwcap) {
        int haswell = dlopen_is_haswell(function), count = 0;
        *hwcap = 0xf000000000001;        /* and whatever platform the file is for */
        parts[count++] = "x86_64/";
        if (haswell && dlopen_isa_level(function) >= 4) {
            parts[count++] = "avx512_1/";
            *hwcap |= 4;
        }
        parts[count++] = haswell ? "haswell/" : "x86_64/";
        parts[count++] = "tls/";
        return count;
    }
    /* For x86_64.S: XSAVE, enabled by the kernel, and how much of the stack the state of the
       processor takes that it saves: FXSAVE's 512 bytes, or what the components that the kernel
       has enabled (XCR0) take in XSAVE's standard format. */
    __attribute__((visibility("hidden"))) int dlopen_has_xsave;
    __attribute__((visibility("hidden"))) uint64_t dlopen_state_size;
    #define dlopen_prepare_processor dlopen_prepare_processor
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
    /* Intel's manual: "Loads and Stores Are Not Reordered with Locked Instructions". */
    #define DLOPEN_EXCHANGE_IS_FENCE 1
    /* One instruction, without the processor's lock. */
    #define dlopen_exchange_in_thread dlopen_exchange_in_thread
    static inline void *dlopen_exchange_in_thread(void **p, void *v) {
        void *before = __atomic_load_n(p, __ATOMIC_RELAXED);
        int done;
        do
            __asm__ volatile ("cmpxchgq %3, %1"
                              : "+a" (before), "+m" (*p), "=@ccz" (done) : "r" (v) : "memory");
        while (!done);
        return before;
    }
    #endif
    """
    const Machine x86_64 "dlopen_x86_64"
