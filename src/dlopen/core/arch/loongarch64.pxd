"""LoongArch of 64 bits, floating point in registers (lp64d): "ELF for the LoongArch
Architecture"."""

from dlopen.core.arch.table cimport Machine


cdef extern from *:
    """
    static const struct dlopen_machine dlopen_loongarch64 = {
      .number = 258,
      .name = "LoongArch",
      .flags_mask = 0x7,                  /* EF_LOONGARCH_ABI_MODIFIER_MASK */
      .flags = 0x3,                       /* EF_LOONGARCH_ABI_DOUBLE_FLOAT */
      .abis = {[1] = "lp64s (soft float)", "lp64f (single)", "lp64d (double)"},
      .last_address = 0x7fffffffffff,
      .rows = {
        [1] = {DLOPEN_R_SYMBOLIC, 4},       /* R_LARCH_32 */
        [2] = {DLOPEN_R_SYMBOLIC, 8},       /* 64; there is no GLOB_DAT */
        [3] = {DLOPEN_R_RELATIVE, 8},
        [4] = {DLOPEN_R_COPY, 0},
        [5] = {DLOPEN_R_JUMP_SLOT, 8},
        [7] = {DLOPEN_R_DTPMOD, 8},         /* those with 32 in their names are of la32 */
        [9] = {DLOPEN_R_DTPOFF, 8},
        [11] = {DLOPEN_R_TPOFF, 8},
        [12] = {DLOPEN_R_IRELATIVE, 8},
        [14] = {DLOPEN_R_TLSDESC, 16},
      },
      .second_first = 99,
      .second_rows = {
        [99 - 99] = {DLOPEN_R_PC_RELATIVE, 4},   /* 32_PCREL */
        [109 - 99] = {DLOPEN_R_PC_RELATIVE, 8},  /* 64_PCREL */
      },
      .relative = 3,
      .dtpmod = 7,
      .tpoff = 11,
      .slots_have_addend = 1,             /* as on RISC-V */
      .got_resolver = 0,
      .got_image = 1,
      .got_reserved = 2,
      .tls_variant = 1,
      .moves_dynamic_pointers = 1,
      .cache_flags = 0x1203,              /* FLAG_LARCH_FLOAT_ABI_DOUBLE */
      .lib = "lib64",
      .breakpoint = 0x002a0005,           /* break 5 */
      .breakpoint_size = 4,
    };

    /* Where this is the machine: processor.pxd. */
    #if defined(__loongarch_lp64)
    #define DLOPEN_THIS_MACHINE (&dlopen_loongarch64)
    #include <sys/auxv.h>
    /* For loongarch64.S: bytes of a vector register (LASX, LSX), or 0. */
    __attribute__((visibility("hidden"))) uint32_t dlopen_vector_size;
    #define dlopen_prepare_processor dlopen_prepare_processor
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
    """
    const Machine loongarch64 "dlopen_loongarch64"
