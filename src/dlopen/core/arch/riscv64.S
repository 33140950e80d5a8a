/* RISC-V of 64 bits: what cannot be said in Cython.  The RISC-V ELF psABI, "Integer Calling
 * Convention" and "Procedure Linkage Table". */

        .text

        .macro  function name
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 2
\name:
        .cfi_startproc
        .endm

        .macro  end_function name
        .cfi_endproc
        .size   \name, . - \name
        .endm

/* long dlopen_system_call(long number, long a, long b, long c, long d, long e, long f)
 *
 *   the kernel takes the number in a7 and a0 to a5, and clobbers a0 only */
function dlopen_system_call
        mv      a7, a0
        mv      a0, a1
        mv      a1, a2
        mv      a2, a3
        mv      a3, a4
        mv      a4, a5
        mv      a5, a6
        ecall
        ret
end_function dlopen_system_call

/* void dlopen_code_written(uint64_t start, uint64_t size)
 *
 * fence.i is of this hart alone; riscv_flush_icache(start, end, 0), of all that run this process. */
function dlopen_code_written
        add     a1, a0, a1
        li      a2, 0
        li      a7, 259
        ecall
        ret
end_function dlopen_code_written

/* uint64_t dlopen_thread_pointer(void): what TPREL relocations count from */
function dlopen_thread_pointer
        mv      a0, tp
        ret
end_function dlopen_thread_pointer

/* void *dlopen_make_block_aligned(uint64_t module)
 *
 * The psABI has the stack aligned at every instruction that calls. */
function dlopen_make_block_aligned
        tail    dlopen_make_block
end_function dlopen_make_block_aligned

/* TLS descriptors ("TLS Descriptors"): called with
 *   a0   the descriptor: this function, and its argument
 *   t0   the return address
 *   out  a0, the variable's distance from the thread pointer
 * Every other register is preserved. */

/* The argument is the distance. */
function dlopen_tlsdesc_static
        .cfi_return_column t0
        ld      a0, 8(a0)
        jr      t0
end_function dlopen_tlsdesc_static

/* An undefined weak symbol: the argument is the addend, and the address shall be that. */
function dlopen_tlsdesc_undefined
        .cfi_return_column t0
        ld      a0, 8(a0)
        sub     a0, a0, tp
        jr      t0
end_function dlopen_tlsdesc_undefined

/* To or from the stack, by `operation`, what a call may clobber: the arguments but the first … */
        .macro  arguments operation
        \operation a1, 16(sp)
        \operation a2, 24(sp)
        \operation a3, 32(sp)
        \operation a4, 40(sp)
        \operation a5, 48(sp)
        \operation a6, 56(sp)
        \operation a7, 64(sp)
        .endm

/* … those of floating point … */
        .macro  argument_floats operation
        \operation fa0, 72(sp)
        \operation fa1, 80(sp)
        \operation fa2, 88(sp)
        \operation fa3, 96(sp)
        \operation fa4, 104(sp)
        \operation fa5, 112(sp)
        \operation fa6, 120(sp)
        \operation fa7, 128(sp)
        .endm

/* … and what is left, but for t1 and t2. */
        .macro  temporaries operation float_operation
        \operation t3, 136(sp)
        \operation t4, 144(sp)
        \operation t5, 152(sp)
        \operation t6, 160(sp)
        \float_operation ft0, 168(sp)
        \float_operation ft1, 176(sp)
        \float_operation ft2, 184(sp)
        \float_operation ft3, 192(sp)
        \float_operation ft4, 200(sp)
        \float_operation ft5, 208(sp)
        \float_operation ft6, 216(sp)
        \float_operation ft7, 224(sp)
        \float_operation ft8, 232(sp)
        \float_operation ft9, 240(sp)
        \float_operation ft10, 248(sp)
        \float_operation ft11, 256(sp)
        .endm

/* The argument points to a TlsIndex: module id and offset.  The table of this thread is
 * that of tls/modules.pxd: blocks, count; a block is id, address, allocation. */
function dlopen_tlsdesc_dynamic
        .cfi_return_column t0
        addi    sp, sp, -32
        .cfi_adjust_cfa_offset 32
        sd      t1, 0(sp)
        sd      t2, 8(sp)
        sd      t3, 16(sp)
        ld      a0, 8(a0)
        la.tls.ie t1, dlopen_thread_blocks
        add     t1, t1, tp
        ld      t1, 0(t1)
        beqz    t1, 1f
        lwu     t2, 0(a0)               /* the slot: the id's lower half */
        ld      t3, 8(t1)
        bgeu    t2, t3, 1f
        ld      t1, 0(t1)
        slli    t3, t2, 1
        add     t2, t2, t3
        slli    t2, t2, 3
        add     t1, t1, t2
        ld      t2, 0(a0)
        ld      t3, 0(t1)
        bne     t2, t3, 1f
        ld      t1, 8(t1)
        ld      a0, 8(a0)
        add     a0, a0, t1
        sub     a0, a0, tp
        ld      t1, 0(sp)
        ld      t2, 8(sp)
        ld      t3, 16(sp)
        addi    sp, sp, 32
        .cfi_adjust_cfa_offset -32
        jr      t0

/* The first touch in this thread: a C function is called, and what it may clobber is kept, the
 * vector registers and their settings too where the processor has them. */
1:      .cfi_adjust_cfa_offset 32
        ld      t3, 16(sp)
        addi    sp, sp, -304
        .cfi_adjust_cfa_offset 304
        sd      ra, 0(sp)
        .cfi_rel_offset ra, 0
        sd      t0, 8(sp)
        .cfi_rel_offset t0, 8
        arguments sd
        argument_floats fsd
        temporaries sd, fsd
        sd      s0, 272(sp)
        .cfi_rel_offset s0, 272
        sd      a0, 280(sp)
        mv      s0, sp
        .cfi_def_cfa s0, 336
        lw      t1, dlopen_has_vectors
        beqz    t1, 2f
        .option push
        .option arch, +v
        csrr    t1, vlenb
        slli    t1, t1, 5               /* 32 registers */
        addi    t1, t1, 32
        sub     sp, sp, t1
        csrr    t1, vl
        csrr    t2, vtype
        sd      t1, 0(sp)
        sd      t2, 8(sp)
        csrr    t1, vstart
        csrr    t2, vcsr
        sd      t1, 16(sp)
        sd      t2, 24(sp)
        addi    t1, sp, 32
        csrr    t2, vlenb
        slli    t2, t2, 3
        csrw    vstart, zero
        vs8r.v  v0, (t1)
        add     t1, t1, t2
        vs8r.v  v8, (t1)
        add     t1, t1, t2
        vs8r.v  v16, (t1)
        add     t1, t1, t2
        vs8r.v  v24, (t1)
        .option pop
2:      ld      a0, 0(a0)
        call    dlopen_make_block
        ld      t1, 280(s0)
        ld      t1, 8(t1)
        add     a0, a0, t1
        sub     a0, a0, tp
        lw      t1, dlopen_has_vectors
        beqz    t1, 3f
        .option push
        .option arch, +v
        addi    t1, sp, 32
        csrr    t2, vlenb
        slli    t2, t2, 3
        csrw    vstart, zero
        vl8re8.v v0, (t1)
        add     t1, t1, t2
        vl8re8.v v8, (t1)
        add     t1, t1, t2
        vl8re8.v v16, (t1)
        add     t1, t1, t2
        vl8re8.v v24, (t1)
        ld      t1, 0(sp)
        ld      t2, 8(sp)
        bltz    t2, 4f                  /* vill: no vector instruction came before */
        vsetvl  zero, t1, t2
4:      ld      t1, 16(sp)
        ld      t2, 24(sp)
        csrw    vcsr, t2
        csrw    vstart, t1
        .option pop
3:      mv      sp, s0
        .cfi_def_cfa sp, 336
        ld      ra, 0(sp)
        .cfi_restore ra
        ld      t0, 8(sp)
        .cfi_restore t0
        arguments ld
        argument_floats fld
        temporaries ld, fld
        ld      s0, 272(sp)
        .cfi_restore s0
        addi    sp, sp, 304
        .cfi_adjust_cfa_offset -304
        ld      t1, 0(sp)
        ld      t2, 8(sp)
        addi    sp, sp, 32
        .cfi_adjust_cfa_offset -32
        jr      t0
end_function dlopen_tlsdesc_dynamic

/* What a PLT's first entry jumps to, for a call that is not bound yet:
 *   t0   GOT[1], the Image
 *   t1   the distance of the call's slot from the first one, in bytes
 *   ra   the caller's return address
 * It asks uint64_t dlopen_bind_call(Image *, uint64_t) and jumps to the answer with all
 * that may hold an argument as it was: a0 to a7, fa0 to fa7.  (The static chain is t2, which a PLT
 * clobbers.)  A function that takes arguments in vector registers has STO_RISCV_VARIANT_CC, and is
 * never called this way; under the standard convention they do not survive a call. */
function dlopen_lazy_call
        addi    sp, sp, -144
        .cfi_adjust_cfa_offset 144
        sd      ra, 0(sp)
        .cfi_rel_offset ra, 0
        sd      a0, 8(sp)
        arguments sd
        argument_floats fsd
        mv      a0, t0
        srli    a1, t1, 3
        call    dlopen_bind_call
        mv      t1, a0
        ld      ra, 0(sp)
        .cfi_restore ra
        ld      a0, 8(sp)
        arguments ld
        argument_floats fld
        addi    sp, sp, 144
        .cfi_adjust_cfa_offset -144
        jr      t1
end_function dlopen_lazy_call

/* void *dlsym(void *handle, const char *name)
 * void *dlvsym(void *handle, const char *name, const char *version)
 *
 * What a caller of the host's means by RTLD_NEXT and RTLD_DEFAULT only the host knows, by
 * the return address: it is asked by a jump, with the caller's frame as it was.
 * dlopen_answer_symbol(handle, name, version, caller) answers in a0, or says in a1 where
 * to jump. */
        .macro  symbol_entry name
        .globl  \name, dlopen_entry_\name
        .hidden dlopen_entry_\name
#if defined(DLOPEN_SANITIZE) && !defined(DLOPEN_SANITIZE_THREAD)   /* see libdlopen.pyx */
        .hidden \name
#endif
        .type   \name, @function
        .type   dlopen_entry_\name, @function
        .p2align 2
dlopen_entry_\name:
\name:
        .cfi_startproc
        addi    sp, sp, -32
        .cfi_adjust_cfa_offset 32
        sd      ra, 0(sp)
        .cfi_rel_offset ra, 0
        sd      a0, 8(sp)
        sd      a1, 16(sp)
        sd      a2, 24(sp)
        .ifc \name, dlsym
        li      a2, 0
        .endif
        mv      a3, ra
        call    dlopen_answer_symbol
        ld      ra, 0(sp)
        .cfi_restore ra
        bnez    a1, 1f
        addi    sp, sp, 32
        .cfi_remember_state
        .cfi_adjust_cfa_offset -32
        ret
1:      .cfi_restore_state
        mv      t1, a1
        ld      a0, 8(sp)
        ld      a1, 16(sp)
        ld      a2, 24(sp)
        addi    sp, sp, 32
        .cfi_adjust_cfa_offset -32
        jr      t1
        .cfi_endproc
        .size   \name, . - \name
        .endm

        symbol_entry dlsym
        symbol_entry dlvsym

        .section .note.GNU-stack, "", @progbits
