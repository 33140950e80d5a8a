"""AArch64 of 64-bit pointers, little-endian: Arm's "ELF for the Arm 64-bit Architecture" (AAELF64)
and its supplements."""

from dlopen.core.arch.table cimport Machine


cdef extern from *:
    """
    static const struct dlopen_machine dlopen_aarch64 = {
      .number = 183,
      .name = "AArch64",
      .last_address = 0xffffffffffff,
      .first = 257,
      .rows = {
        [257 - 257] = {DLOPEN_R_SYMBOLIC, 8},        /* R_AARCH64_ABS64 */
        [258 - 257] = {DLOPEN_R_SYMBOLIC, 4},        /* ABS32 */
        [260 - 257] = {DLOPEN_R_PC_RELATIVE, 8},     /* PREL64 */
        [261 - 257] = {DLOPEN_R_PC_RELATIVE, 4},     /* PREL32 */
      },
      .second_first = 1024,
      .second_rows = {
        [1024 - 1024] = {DLOPEN_R_COPY, 0},
        [1025 - 1024] = {DLOPEN_R_GLOB_DAT, 8},
        [1026 - 1024] = {DLOPEN_R_JUMP_SLOT, 8},
        [1027 - 1024] = {DLOPEN_R_RELATIVE, 8},
        [1028 - 1024] = {DLOPEN_R_DTPMOD, 8},        /* AAELF64 leaves the order of … */
        [1029 - 1024] = {DLOPEN_R_DTPOFF, 8},        /* … these two to the system */
        [1030 - 1024] = {DLOPEN_R_TPOFF, 8},
        [1031 - 1024] = {DLOPEN_R_TLSDESC, 16},
        [1032 - 1024] = {DLOPEN_R_IRELATIVE, 8},
      },
      .relative = 1027,
      .dtpmod = 1028,
      .tpoff = 1030,
      .slots_have_addend = 1,
      .got_image = 1,
      .got_resolver = 2,
      .got_reserved = 3,
      .variant_call = 0x80,               /* STO_AARCH64_VARIANT_PCS */
      .tls_variant = 1,
      .moves_dynamic_pointers = 1,
      .runs_init = 1,
      .cache_flags = 0x0a03,
      .lib = "lib64",
      .breakpoint = 0xd4200000,           /* brk 0 */
      .breakpoint_size = 4,
    };

    /* Where this is the machine: processor.pxd. */
    #if defined(__aarch64__)
    #define DLOPEN_THIS_MACHINE (&dlopen_aarch64)
    #include <sys/auxv.h>
    #define dlopen_platform_parts dlopen_platform_parts
    static int dlopen_platform_parts(void *function, const char **parts, uint64_t *hwcap) {
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
    /* BTI: GNU_PROPERTY_AARCH64_FEATURE_1_BTI, HWCAP2_BTI and PROT_BTI. */
    #define DLOPEN_CODE_PROPERTY 0xc0000000U             /* GNU_PROPERTY_AARCH64_FEATURE_1_AND */
    #define dlopen_code_protection dlopen_code_protection
    static int dlopen_code_protection(uint32_t features) {
        return features & 1 && getauxval(AT_HWCAP2) & 1 << 17 ? 0x10 : 0;
    }
    /* How much there is of the struct of <sys/ifunc.h> depends on the release of libc; 0: nothing.
       It tells a resolver of this library's own, before anything of it runs. */
    static uint64_t dlopen_told_size;
    #ifdef __GLIBC__
    static void dlopen_nothing(void) { }
    static void (*dlopen_note_size(uint64_t hwcap, const uint64_t *features))(void) {
        if (hwcap >> 62 & 1) dlopen_told_size = features[0];       /* _IFUNC_ARG_HWCAP */
        return dlopen_nothing;
    }
    static void dlopen_ask_size(void) __attribute__((ifunc("dlopen_note_size")));
    #else
    static void dlopen_ask_size(void) { }
    #endif
    #define dlopen_prepare_processor dlopen_prepare_processor
    static void dlopen_prepare_processor(void *function) {
        (void)function;
        dlopen_ask_size();                               /* keeps the relocation */
    }
    static uint64_t dlopen_call_resolver(uint64_t resolver) {
        struct { uint64_t size, hwcap, hwcap2, hwcap3, hwcap4; } features = {
            sizeof features, getauxval(AT_HWCAP), getauxval(AT_HWCAP2), getauxval(29),
            getauxval(30)                                /* AT_HWCAP3, AT_HWCAP4 */
        };
        uint64_t has_struct = dlopen_told_size ? (uint64_t)1 << 62 : 0;
        if (dlopen_told_size < features.size) features.size = dlopen_told_size;
        return ((uint64_t (*)(uint64_t, const void *))resolver)(
            features.hwcap | has_struct, &features);
    }
    #endif
    """
    const Machine aarch64 "dlopen_aarch64"
