"""RISC-V of 64 bits, floating point in registers (lp64d): the RISC-V ELF psABI."""

from dlopen.core.arch.table cimport Machine


cdef extern from *:
    """
    static const struct dlopen_machine dlopen_riscv64 = {
      .number = 243,
      .name = "RISC-V",
      .flags_mask = 0xe,                  /* EF_RISCV_FLOAT_ABI, EF_RISCV_RVE */
      .flags = 0x4,                       /* EF_RISCV_FLOAT_ABI_DOUBLE */
      .flags_shift = 1,
      .abis = {"lp64 (soft float)", "lp64f (single)", "lp64d (double)", "lp64q (quad)",
               "lp64e (RVE)"},
      .last_address = 0x7fffffffffff,     /* sv48; sv39 has 38 bits */
      .rows = {
        [1] = {DLOPEN_R_SYMBOLIC, 4},       /* R_RISCV_32 */
        [2] = {DLOPEN_R_SYMBOLIC, 8},       /* 64; there is no GLOB_DAT */
        [3] = {DLOPEN_R_RELATIVE, 8},
        [4] = {DLOPEN_R_COPY, 0},
        [5] = {DLOPEN_R_JUMP_SLOT, 8},
        [7] = {DLOPEN_R_DTPMOD, 8},         /* those with 32 in their names are of rv32 */
        [9] = {DLOPEN_R_DTPOFF, 8},
        [11] = {DLOPEN_R_TPOFF, 8},
        [12] = {DLOPEN_R_TLSDESC, 16},
      },
      .second_first = 57,
      .second_rows = {
        [57 - 57] = {DLOPEN_R_PC_RELATIVE, 4},   /* 32_PCREL */
        [58 - 57] = {DLOPEN_R_IRELATIVE, 8},
      },
      .relative = 3,
      .dtpmod = 7,
      .tpoff = 11,
      .slots_have_addend = 1,             /* the psABI has none, libc adds it */
      .got_resolver = 0,
      .got_image = 1,
      .got_reserved = 2,
      .variant_call = 0x80,               /* STO_RISCV_VARIANT_CC */
      .tls_variant = 1,
      .dtv_offset = 0x800,
      .cache_flags = 0x1003,              /* FLAG_RISCV_FLOAT_ABI_DOUBLE */
      .lib = "lib64/lp64d",
      .breakpoint = 0x9002,               /* c.ebreak */
      .breakpoint_size = 2,
    };

    /* Where this is the machine: processor.pxd. */
    #if defined(__riscv) && __riscv_xlen == 64
    #define DLOPEN_THIS_MACHINE (&dlopen_riscv64)
    #include <sys/auxv.h>
    #define DLOPEN_FEATURES_FUNCTION "__riscv_hwprobe"   /* not before glibc 2.40 */
    #define dlopen_platform_parts dlopen_platform_parts
    static int dlopen_platform_parts(void *function, const char **parts, uint64_t *hwcap) {
        (void)function;
        *hwcap = 0;
        parts[0] = "tls/";
        return 1;
    }
    static void *dlopen_hwprobe;
    /* For riscv64.S: the processor has vector registers. */
    __attribute__((visibility("hidden"))) int dlopen_has_vectors;
    #define dlopen_prepare_processor dlopen_prepare_processor
    static void dlopen_prepare_processor(void *function) {
        dlopen_hwprobe = function;
        dlopen_has_vectors = getauxval(AT_HWCAP) >> ('V' - 'A') & 1;     /* COMPAT_HWCAP_ISA_V */
    }
    static uint64_t dlopen_call_resolver(uint64_t resolver) {
        return ((uint64_t (*)(uint64_t, void *, void *))resolver)(
            getauxval(AT_HWCAP), dlopen_hwprobe, 0);
    }
    #endif
    """
    const Machine riscv64 "dlopen_riscv64"
