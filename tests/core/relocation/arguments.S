/* void give(const uint64_t *in)     fills the registers that arguments can be in, and calls
 * void receive(…)                   which writes them to `received`.
 *
 * With VARIANT they are all registers of vectors, of SVE's with its predicates, and `receive` is
 * marked as a function of a calling convention of its own. */

        .text
        .globl  FUNCTION
        .p2align 2

#define VECTORS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31

#if defined(__aarch64__)
        .type   FUNCTION, %function
#ifdef VARIANT
        .arch   armv8-a+sve
        .variant_pcs receive
        .macro  all operation, base
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        \operation p\n, [\base, #\n, mul vl]
        .endr
        addvl   \base, \base, #2
        .irp    n, VECTORS
        \operation z\n, [\base, #\n, mul vl]
        .endr
        .endm
#else
        .macro  all operation, base
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 18
        \operation x\n, [\base, #\n * 8]
        .endr
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7
        \operation q\n, [\base, #256 + \n * 16]
        .endr
        .endm
#endif
        .macro  give_all
        all     ldr, x19
        .endm
        .macro  receive_all
        all     str, x10
        .endm
#ifdef GIVES
give:
        stp     x29, x30, [sp, #-96]!
        str     x19, [sp, #16]
        stp     d8, d9, [sp, #32]
        stp     d10, d11, [sp, #48]
        stp     d12, d13, [sp, #64]
        stp     d14, d15, [sp, #80]
        mov     x19, x0
        give_all
        bl      receive
        ldr     x19, [sp, #16]
        ldp     d8, d9, [sp, #32]
        ldp     d10, d11, [sp, #48]
        ldp     d12, d13, [sp, #64]
        ldp     d14, d15, [sp, #80]
        ldp     x29, x30, [sp], #96
        ret
#else
receive:
        adrp    x10, :got:received
        ldr     x10, [x10, #:got_lo12:received]
        receive_all
        ret
#endif

#elif defined(__riscv)
        .type   FUNCTION, @function
#ifdef VARIANT
        .option arch, +v
        .variant_cc receive
        .macro  give_all base
        .irp    n, 0, 8, 16, 24
        vl8re8.v v\n, (\base)
        csrr    t0, vlenb
        slli    t0, t0, 3
        add     \base, \base, t0
        .endr
        .endm
        .macro  receive_all base
        .irp    n, 0, 8, 16, 24
        vs8r.v  v\n, (\base)
        csrr    t0, vlenb
        slli    t0, t0, 3
        add     \base, \base, t0
        .endr
        .endm
#else
        .macro  all operation, float_operation, base
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7
        \operation a\n, \n * 8(\base)
        \float_operation fa\n, 64 + \n * 8(\base)
        .endr
        .endm
        .macro  give_all base
        all     ld, fld, \base
        .endm
        .macro  receive_all base
        all     sd, fsd, \base
        .endm
#endif
#ifdef GIVES
give:
        addi    sp, sp, -16
        sd      ra, 0(sp)
        sd      s1, 8(sp)
        mv      s1, a0
        give_all s1
        call    receive@plt
        ld      ra, 0(sp)
        ld      s1, 8(sp)
        addi    sp, sp, 16
        ret
#else
receive:
        la      t1, received
        receive_all t1
        ret
#endif

#elif defined(__loongarch_lp64)
        .type   FUNCTION, @function
        .macro  all operation, vector_operation, base
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7
        \operation $a\n, \base, \n * 8
        \vector_operation $xr\n, \base, 256 + \n * 32
        .endr
        .irp    n, 7, 8
        \operation $t\n, \base, 64 + \n * 8
        .endr
        .endm
#ifdef GIVES
give:
        addi.d  $sp, $sp, -16
        st.d    $ra, $sp, 0
        st.d    $s1, $sp, 8
        move    $s1, $a0
        all     ld.d, xvld, $s1
        bl      %plt(receive)
        ld.d    $ra, $sp, 0
        ld.d    $s1, $sp, 8
        addi.d  $sp, $sp, 16
        ret
#else
receive:
        la.global $t5, received
        all     st.d, xvst, $t5
        ret
#endif
#endif
        .section .note.GNU-stack, "", %progbits
