/* void through(const uint64_t in[256], uint64_t out[256], uint64_t *distance)
 *
 * Fills what a TLS descriptor has to preserve from `in`, asks where `variable` is, and writes the
 * same registers to `out`. RISC-V: by the pair that __tls_get_addr is given, which the test makes a
 * descriptor. */

        .text
        .globl  through

#if defined(__aarch64__)
        .type   through, %function
through:
        stp     x29, x30, [sp, #-48]!
        stp     x19, x20, [sp, #16]
        str     x21, [sp, #32]
        mov     x19, x0
        mov     x20, x1
        mov     x21, x2
        .irp    n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18
        ldr     x\n, [x19, #\n * 8]
        .endr
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        ldr     q\n, [x19, #256 + \n * 16]
        .endr
        adrp    x0, :tlsdesc:variable
        ldr     x1, [x0, #:tlsdesc_lo12:variable]
        add     x0, x0, #:tlsdesc_lo12:variable
        .tlsdesccall variable
        blr     x1
        str     x0, [x21]
        .irp    n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18
        str     x\n, [x20, #\n * 8]
        .endr
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        str     q\n, [x20, #256 + \n * 16]
        .endr
        ldp     x19, x20, [sp, #16]
        ldr     x21, [sp, #32]
        ldp     x29, x30, [sp], #48
        ret
#elif defined(__riscv)
        .type   through, @function
through:
        addi    sp, sp, -48
        sd      ra, 0(sp)
        sd      s1, 8(sp)
        sd      s2, 16(sp)
        sd      s3, 24(sp)
        mv      s1, a0
        mv      s2, a1
        mv      s3, a2
        .macro  all load, float_load, base
        .irp    n, 1, 2, 3, 4, 5, 6, 7
        \load   a\n, \n * 8(\base)
        \float_load fa\n, 128 + \n * 8(\base)
        .endr
        .irp    n, 2, 3, 4, 5, 6
        \load   t\n, 64 + \n * 8(\base)
        .endr
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
        \float_load ft\n, 256 + \n * 8(\base)
        .endr
        .endm
#ifdef VECTORS                          /* of 16 bytes each, and their settings */
        .option arch, +v
        .macro  all_vectors load, base
        addi    t0, \base, 1024
        .irp    n, 0, 8, 16, 24
        \load   v\n, (t0)
        addi    t0, t0, 128
        .endr
        .endm
        all_vectors vl8re8.v, s1
        vsetivli t0, 3, e32, m2, ta, mu
        csrr    t0, vl
        csrr    t1, vtype
        sd      t0, 64(s1)
        sd      t1, 72(s1)
#endif
        all     ld, fld, s1
        la.tls.gd a0, variable
        ld      t1, 0(a0)
        jalr    t0, t1
        sd      a0, 0(s3)
        all     sd, fsd, s2
#ifdef VECTORS
        csrr    t0, vl
        csrr    t1, vtype
        sd      t0, 64(s2)
        sd      t1, 72(s2)
        all_vectors vs8r.v, s2
#endif
        ld      ra, 0(sp)
        ld      s1, 8(sp)
        ld      s2, 16(sp)
        ld      s3, 24(sp)
        addi    sp, sp, 48
        ret
#elif defined(__loongarch_lp64)
        .type   through, @function
through:
        addi.d  $sp, $sp, -48
        st.d    $ra, $sp, 0
        st.d    $s1, $sp, 8
        st.d    $s2, $sp, 16
        st.d    $s3, $sp, 24
        move    $s1, $a0
        move    $s2, $a1
        move    $s3, $a2
        .macro  all load, vector_load, base
        .irp    n, 1, 2, 3, 4, 5, 6, 7
        \load   $a\n, \base, \n * 8
        .endr
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8
        \load   $t\n, \base, 64 + \n * 8
        .endr
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        \vector_load $vr\n, \base, 256 + \n * 16
        .endr
        .endm
        all     ld.d, vld, $s1
        la.tls.desc $a0, variable
        st.d    $a0, $s3, 0
        all     st.d, vst, $s2
        ld.d    $ra, $sp, 0
        ld.d    $s1, $sp, 8
        ld.d    $s2, $sp, 16
        ld.d    $s3, $sp, 24
        addi.d  $sp, $sp, 48
        ret
#endif
        .size   through, . - through
        .section .note.GNU-stack, "", %progbits
