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
      .hwcaps = {"x86-64-v4", "x86-64-v3", "x86-64-v2"},   /* levels 4 to 2: processor.pxd */
      .breakpoint = 0xcc,                 /* int3 */
      .breakpoint_size = 1,
    };
    """
    const Machine x86_64 "dlopen_x86_64"
