/* AArch64: what cannot be said in Cython.  Arm's "Procedure Call Standard for the Arm 64-bit
 * Architecture" (AAPCS64) and "ELF for the Arm 64-bit Architecture" (AAELF64).
 *
 * An indirect jump lands on `bti c`; `br x16` and `br x17` may land there, too. */

        .text

/* `pushed`: so many bytes are on the stack when it begins. */
        .macro  function name pushed=0
        .globl  \name
        .hidden \name
        .type   \name, %function
        .p2align 4
\name:
        .cfi_startproc
        .if \pushed
        .cfi_adjust_cfa_offset \pushed
        .endif
        hint    #34                     /* bti c */
        .endm

        .macro  end_function name
        .cfi_endproc
        .size   \name, . - \name
        .endm

/* long dlopen_system_call(long number, long a, long b, long c, long d, long e, long f)
 *
 *   the kernel takes the number in x8 and x0 to x5, and clobbers x0 only */
function dlopen_system_call
        mov     x8, x0
        mov     x0, x1
        mov     x1, x2
        mov     x2, x3
        mov     x3, x4
        mov     x4, x5
        mov     x5, x6
        svc     #0
        ret
end_function dlopen_system_call

/* void dlopen_code_written(uint64_t start, uint64_t size)
 *
 * By the lines of both caches, where CTR_EL0 does not say that it is not needed: IDC, DIC (Arm ARM,
 * "Synchronization and coherency issues between data and instruction accesses"). */
function dlopen_code_written
        add     x1, x0, x1
        mrs     x2, ctr_el0
        mov     x3, #4
        tbnz    w2, #28, 2f             /* IDC */
        ubfx    w4, w2, #16, #4         /* DminLine: log2 of its words */
        lsl     x4, x3, x4
        neg     x5, x4
        and     x5, x5, x0
1:      dc      cvau, x5
        add     x5, x5, x4
        cmp     x5, x1
        b.lo    1b
2:      dsb     ish
        tbnz    w2, #29, 4f             /* DIC */
        and     w4, w2, #15             /* IminLine */
        lsl     x4, x3, x4
        neg     x5, x4
        and     x5, x5, x0
3:      ic      ivau, x5
        add     x5, x5, x4
        cmp     x5, x1
        b.lo    3b
        dsb     ish
4:      isb
        ret
end_function dlopen_code_written

/* uint64_t dlopen_thread_pointer(void): what TPREL relocations count from */
function dlopen_thread_pointer
        mrs     x0, tpidr_el0
        ret
end_function dlopen_thread_pointer

/* void *dlopen_make_block_aligned(uint64_t module)
 *
 * The stack is aligned: the processor sees to it. */
function dlopen_make_block_aligned
        b       dlopen_make_block
end_function dlopen_make_block_aligned

/* TLS descriptors (AAELF64, "Thread Local Storage"): called with
 *   x0   the descriptor: this function, and its argument
 *   out  x0, the variable's distance from the thread pointer
 * Every other register is preserved but x30, the flags, and of SVE's registers what is beyond the
 * low 128 bits of each. */

/* All vector registers, to or from the 512 bytes at the stack's end. */
        .macro  vectors operation
        \operation q0, q1, [sp, #0]
        \operation q2, q3, [sp, #32]
        \operation q4, q5, [sp, #64]
        \operation q6, q7, [sp, #96]
        \operation q8, q9, [sp, #128]
        \operation q10, q11, [sp, #160]
        \operation q12, q13, [sp, #192]
        \operation q14, q15, [sp, #224]
        \operation q16, q17, [sp, #256]
        \operation q18, q19, [sp, #288]
        \operation q20, q21, [sp, #320]
        \operation q22, q23, [sp, #352]
        \operation q24, q25, [sp, #384]
        \operation q26, q27, [sp, #416]
        \operation q28, q29, [sp, #448]
        \operation q30, q31, [sp, #480]
        .endm

/* The argument is the distance. */
function dlopen_tlsdesc_static
        ldr     x0, [x0, #8]
        ret
end_function dlopen_tlsdesc_static

/* An undefined weak symbol: the argument is the addend, and the address shall be that. */
function dlopen_tlsdesc_undefined
        str     x1, [sp, #-16]!
        .cfi_adjust_cfa_offset 16
        ldr     x0, [x0, #8]
        mrs     x1, tpidr_el0
        sub     x0, x0, x1
        ldr     x1, [sp], #16
        .cfi_adjust_cfa_offset -16
        ret
end_function dlopen_tlsdesc_undefined

/* The argument points to a TlsIndex: module id and offset.  The table of this thread is
 * that of tls/modules.pxd: blocks, count; a block is id, address, allocation. */
function dlopen_tlsdesc_dynamic
        stp     x1, x2, [sp, #-32]!
        .cfi_adjust_cfa_offset 32
        stp     x3, x4, [sp, #16]
        ldr     x0, [x0, #8]
        adrp    x1, :gottprel:dlopen_thread_blocks
        ldr     x1, [x1, #:gottprel_lo12:dlopen_thread_blocks]
        mrs     x2, tpidr_el0
        ldr     x1, [x2, x1]
        cbz     x1, 1f
        ldr     w3, [x0]                /* the slot: the id's lower half */
        ldr     x4, [x1, #8]
        cmp     x3, x4
        b.hs    1f
        ldr     x1, [x1]
        add     x3, x3, x3, lsl #1
        add     x1, x1, x3, lsl #3
        ldr     x3, [x0]
        ldr     x4, [x1]
        cmp     x3, x4
        b.ne    1f
        ldr     x1, [x1, #8]
        ldr     x0, [x0, #8]
        add     x0, x0, x1
        sub     x0, x0, x2
        ldp     x3, x4, [sp, #16]
        ldp     x1, x2, [sp], #32
        .cfi_adjust_cfa_offset -32
        ret

/* The first touch in this thread: a C function is called. */
1:      .cfi_adjust_cfa_offset 32
        stp     x29, x30, [sp, #-144]!
        .cfi_adjust_cfa_offset 144
        .cfi_rel_offset x29, 0
        .cfi_rel_offset x30, 8
        mov     x29, sp
        .cfi_def_cfa x29, 176
        stp     x5, x6, [sp, #16]
        stp     x7, x8, [sp, #32]
        stp     x9, x10, [sp, #48]
        stp     x11, x12, [sp, #64]
        stp     x13, x14, [sp, #80]
        stp     x15, x16, [sp, #96]
        stp     x17, x18, [sp, #112]
        str     x0, [sp, #128]
        sub     sp, sp, #512
        vectors stp
        ldr     x0, [x0]
        bl      dlopen_make_block
        ldr     x1, [x29, #128]
        ldr     x1, [x1, #8]
        add     x0, x0, x1
        mrs     x1, tpidr_el0
        sub     x0, x0, x1
        vectors ldp
        add     sp, sp, #512
        ldp     x5, x6, [sp, #16]
        ldp     x7, x8, [sp, #32]
        ldp     x9, x10, [sp, #48]
        ldp     x11, x12, [sp, #64]
        ldp     x13, x14, [sp, #80]
        ldp     x15, x16, [sp, #96]
        ldp     x17, x18, [sp, #112]
        ldp     x29, x30, [sp], #144
        .cfi_def_cfa sp, 32
        .cfi_restore x29
        .cfi_restore x30
        ldp     x3, x4, [sp, #16]
        ldp     x1, x2, [sp], #32
        .cfi_adjust_cfa_offset -32
        ret
end_function dlopen_tlsdesc_dynamic

/* What a PLT's first entry jumps to, for a call that is not bound yet (AAELF64, "Procedure
 * Linkage Table"):
 *   x16       &GOT[2]; GOT[1] is the Image
 *   [sp]      the address of the call's slot: slots begin with GOT[3]
 *   [sp, 8]   the caller's return address
 * It asks uint64_t dlopen_bind_call(Image *, uint64_t) and jumps to the answer with all
 * that may hold an argument as it was: x0 to x7, x8 (where a result goes), x9 and x18 (static
 * chains of compilers), q0 to q7.  A function that takes arguments in SVE's registers has
 * STO_AARCH64_VARIANT_PCS, and is never called this way; under the base standard nothing of them
 * survives a call but the low 64 bits of z8 to z15, which C code preserves. */
function dlopen_lazy_call pushed=16
        .cfi_rel_offset x30, 8
        stp     x29, x30, [sp, #-240]!
        .cfi_adjust_cfa_offset 240
        .cfi_rel_offset x29, 0
        mov     x29, sp
        .cfi_def_cfa_register x29
        stp     x0, x1, [sp, #16]
        stp     x2, x3, [sp, #32]
        stp     x4, x5, [sp, #48]
        stp     x6, x7, [sp, #64]
        stp     x8, x9, [sp, #80]
        str     x18, [sp, #96]
        stp     q0, q1, [sp, #112]
        stp     q2, q3, [sp, #144]
        stp     q4, q5, [sp, #176]
        stp     q6, q7, [sp, #208]
        ldr     x0, [x16, #-8]
        ldr     x1, [sp, #240]
        sub     x1, x1, x16
        sub     x1, x1, #8
        lsr     x1, x1, #3
        bl      dlopen_bind_call
        mov     x16, x0
        ldp     x0, x1, [sp, #16]
        ldp     x2, x3, [sp, #32]
        ldp     x4, x5, [sp, #48]
        ldp     x6, x7, [sp, #64]
        ldp     x8, x9, [sp, #80]
        ldr     x18, [sp, #96]
        ldp     q0, q1, [sp, #112]
        ldp     q2, q3, [sp, #144]
        ldp     q4, q5, [sp, #176]
        ldp     q6, q7, [sp, #208]
        ldr     x29, [sp]
        ldr     x30, [sp, #248]
        add     sp, sp, #256
        .cfi_def_cfa sp, 0
        .cfi_restore x29
        .cfi_restore x30
        br      x16
end_function dlopen_lazy_call

/* void *dlsym(void *handle, const char *name)
 * void *dlvsym(void *handle, const char *name, const char *version)
 *
 * What a caller of the host's means by RTLD_NEXT and RTLD_DEFAULT only the host knows, by
 * the return address: it is asked by a jump, with the caller's frame as it was.
 * dlopen_answer_symbol(handle, name, version, caller) answers in x0, or says in x1 where
 * to jump. */
        .macro  symbol_entry name
        .globl  \name, dlopen_entry_\name
        .hidden dlopen_entry_\name
#if defined(DLOPEN_SANITIZE) && !defined(DLOPEN_SANITIZE_THREAD)   /* see libdlopen.pyx */
        .hidden \name
#endif
        .type   \name, %function
        .type   dlopen_entry_\name, %function
        .p2align 4
dlopen_entry_\name:
\name:
        .cfi_startproc
        hint    #34                     /* bti c */
        stp     x29, x30, [sp, #-48]!
        .cfi_adjust_cfa_offset 48
        .cfi_rel_offset x29, 0
        .cfi_rel_offset x30, 8
        mov     x29, sp
        stp     x0, x1, [sp, #16]
        str     x2, [sp, #32]
        .ifc \name, dlsym
        mov     x2, #0
        .endif
        mov     x3, x30
        bl      dlopen_answer_symbol
        cbnz    x1, 1f
        ldp     x29, x30, [sp], #48
        .cfi_remember_state
        .cfi_adjust_cfa_offset -48
        .cfi_restore x29
        .cfi_restore x30
        ret
1:      .cfi_restore_state
        mov     x16, x1
        ldp     x0, x1, [sp, #16]
        ldr     x2, [sp, #32]
        ldp     x29, x30, [sp], #48
        .cfi_adjust_cfa_offset -48
        .cfi_restore x29
        .cfi_restore x30
        br      x16
        .cfi_endproc
        .size   \name, . - \name
        .endm

        symbol_entry dlsym
        symbol_entry dlvsym

        .section .note.GNU-stack, "", %progbits

/* BTI: the linker marks libdlopen.so with it only if every object does. */
        .section .note.gnu.property, "a", %note
        .p2align 3
        .long   4, 16, 5
        .asciz  "GNU"
        .long   0xc0000000, 4, 1, 0
