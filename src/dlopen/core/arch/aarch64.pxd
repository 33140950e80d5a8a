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
    #endif
    """
    const Machine aarch64 "dlopen_aarch64"
