/* LoongArch of 64 bits: what cannot be said in Cython.  "Procedure Call Standard for the LoongArch
 * Architecture" and "ELF for the LoongArch Architecture". */

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
 *   the kernel takes the number in a7 and a0 to a5, and clobbers a0 and the temporaries */
function dlopen_system_call
        move    $a7, $a0
        move    $a0, $a1
        move    $a1, $a2
        move    $a2, $a3
        move    $a3, $a4
        move    $a4, $a5
        move    $a5, $a6
        syscall 0
        ret
end_function dlopen_system_call

/* void dlopen_code_written(uint64_t start, uint64_t size)
 *
 * The caches are coherent: what was fetched ahead is dropped. */
function dlopen_code_written
        ibar    0
        ret
end_function dlopen_code_written

/* uint64_t dlopen_thread_pointer(void): what TPREL relocations count from */
function dlopen_thread_pointer
        move    $a0, $tp
        ret
end_function dlopen_thread_pointer

/* void *dlopen_make_block_aligned(uint64_t module)
 *
 * The standard has the stack aligned at every call. */
function dlopen_make_block_aligned
        b       dlopen_make_block
end_function dlopen_make_block_aligned

/* TLS descriptors: called with
 *   a0   the descriptor: this function, and its argument
 *   ra   the return address
 *   out  a0, the variable's distance from the thread pointer
 * Every other register is preserved but ra and the condition flags. */

/* The argument is the distance. */
function dlopen_tlsdesc_static
        ld.d    $a0, $a0, 8
        ret
end_function dlopen_tlsdesc_static

/* An undefined weak symbol: the argument is the addend, and the address shall be that. */
function dlopen_tlsdesc_undefined
        ld.d    $a0, $a0, 8
        sub.d   $a0, $a0, $tp
        ret
end_function dlopen_tlsdesc_undefined

/* To or from the stack, by `operation`: the arguments but the first … */
        .macro  arguments operation
        \operation $a1, $sp, 16
        \operation $a2, $sp, 24
        \operation $a3, $sp, 32
        \operation $a4, $sp, 40
        \operation $a5, $sp, 48
        \operation $a6, $sp, 56
        \operation $a7, $sp, 64
        .endm

/* … the temporaries but t0 to t2 … */
        .macro  temporaries operation
        \operation $t3, $sp, 72
        \operation $t4, $sp, 80
        \operation $t5, $sp, 88
        \operation $t6, $sp, 96
        \operation $t7, $sp, 104
        \operation $t8, $sp, 112
        .endm

/* … and registers of floating point or of vectors, of `size` bytes each: `kind`0 to `kind`7, which
 * hold arguments, … */
        .macro  argument_registers operation kind size
        \operation $\kind\()0, $sp, 0 * \size
        \operation $\kind\()1, $sp, 1 * \size
        \operation $\kind\()2, $sp, 2 * \size
        \operation $\kind\()3, $sp, 3 * \size
        \operation $\kind\()4, $sp, 4 * \size
        \operation $\kind\()5, $sp, 5 * \size
        \operation $\kind\()6, $sp, 6 * \size
        \operation $\kind\()7, $sp, 7 * \size
        .endm

/* … or all: a vector's upper part is never preserved by a call. */
        .macro  all_registers operation kind size
        argument_registers \operation, \kind, \size
        \operation $\kind\()8, $sp, 8 * \size
        \operation $\kind\()9, $sp, 9 * \size
        \operation $\kind\()10, $sp, 10 * \size
        \operation $\kind\()11, $sp, 11 * \size
        \operation $\kind\()12, $sp, 12 * \size
        \operation $\kind\()13, $sp, 13 * \size
        \operation $\kind\()14, $sp, 14 * \size
        \operation $\kind\()15, $sp, 15 * \size
        \operation $\kind\()16, $sp, 16 * \size
        \operation $\kind\()17, $sp, 17 * \size
        \operation $\kind\()18, $sp, 18 * \size
        \operation $\kind\()19, $sp, 19 * \size
        \operation $\kind\()20, $sp, 20 * \size
        \operation $\kind\()21, $sp, 21 * \size
        \operation $\kind\()22, $sp, 22 * \size
        \operation $\kind\()23, $sp, 23 * \size
        \operation $\kind\()24, $sp, 24 * \size
        \operation $\kind\()25, $sp, 25 * \size
        \operation $\kind\()26, $sp, 26 * \size
        \operation $\kind\()27, $sp, 27 * \size
        \operation $\kind\()28, $sp, 28 * \size
        \operation $\kind\()29, $sp, 29 * \size
        \operation $\kind\()30, $sp, 30 * \size
        \operation $\kind\()31, $sp, 31 * \size
        .endm

/* One of these two macros for what the processor has: vectors of 32 (LASX) or 16 bytes (LSX), or
 * floating point alone.  `access` is st or ld; clobbers `scratch`. */
        .macro  vectors registers access scratch
        la.local \scratch, dlopen_vector_size
        ld.wu   \scratch, \scratch, 0
        beqz    \scratch, .Lfloats\@
        addi.d  \scratch, \scratch, -16
        beqz    \scratch, .Lhalves\@
        \registers xv\access, xr, 32
        b       .Ldone\@
.Lhalves\@:
        \registers v\access, vr, 16
        b       .Ldone\@
.Lfloats\@:
        \registers f\access\().d, f, 8
.Ldone\@:
        .endm

/* The argument points to a TlsIndex: module id and offset.  The table of this thread is
 * that of tls/modules.pxd: blocks, count; a block is id, address, allocation. */
function dlopen_tlsdesc_dynamic
        addi.d  $sp, $sp, -32
        .cfi_adjust_cfa_offset 32
        st.d    $t0, $sp, 0
        st.d    $t1, $sp, 8
        st.d    $t2, $sp, 16
        ld.d    $a0, $a0, 8
        la.tls.ie $t0, dlopen_thread_blocks
        ldx.d   $t0, $t0, $tp
        beqz    $t0, 1f
        ld.wu   $t1, $a0, 0             # the slot: the id's lower half
        ld.d    $t2, $t0, 8
        bgeu    $t1, $t2, 1f
        ld.d    $t0, $t0, 0
        alsl.d  $t1, $t1, $t1, 1
        alsl.d  $t0, $t1, $t0, 3
        ld.d    $t1, $a0, 0
        ld.d    $t2, $t0, 0
        bne     $t1, $t2, 1f
        ld.d    $t0, $t0, 8
        ld.d    $a0, $a0, 8
        add.d   $a0, $a0, $t0
        sub.d   $a0, $a0, $tp
        ld.d    $t0, $sp, 0
        ld.d    $t1, $sp, 8
        ld.d    $t2, $sp, 16
        addi.d  $sp, $sp, 32
        .cfi_adjust_cfa_offset -32
        ret

/* The first touch in this thread: a C function is called, and what it may clobber is kept, the
 * vectors that the processor has too. */
1:      .cfi_adjust_cfa_offset 32
        addi.d  $sp, $sp, -144
        .cfi_adjust_cfa_offset 144
        st.d    $ra, $sp, 0
        .cfi_rel_offset $ra, 0
        st.d    $fp, $sp, 8
        .cfi_rel_offset $fp, 8
        arguments st.d
        temporaries st.d
        st.d    $a0, $sp, 120
        movfcsr2gr $t0, $fcsr0
        st.d    $t0, $sp, 128
        move    $fp, $sp
        .cfi_def_cfa $fp, 176
        addi.d  $sp, $sp, -1024
        vectors all_registers, st, $t0
        ld.d    $a0, $a0, 0
        bl      dlopen_make_block
        ld.d    $t0, $fp, 120
        ld.d    $t0, $t0, 8
        add.d   $a0, $a0, $t0
        sub.d   $a0, $a0, $tp
        vectors all_registers, ld, $t0
        move    $sp, $fp
        .cfi_def_cfa $sp, 176
        ld.d    $t0, $sp, 128
        movgr2fcsr $fcsr0, $t0
        arguments ld.d
        temporaries ld.d
        ld.d    $ra, $sp, 0
        .cfi_restore $ra
        ld.d    $fp, $sp, 8
        .cfi_restore $fp
        addi.d  $sp, $sp, 144
        .cfi_adjust_cfa_offset -144
        ld.d    $t0, $sp, 0
        ld.d    $t1, $sp, 8
        ld.d    $t2, $sp, 16
        addi.d  $sp, $sp, 32
        .cfi_adjust_cfa_offset -32
        ret
end_function dlopen_tlsdesc_dynamic

/* What a PLT's first entry jumps to, for a call that is not bound yet:
 *   t0   GOT[1], the Image
 *   t1   the distance of the call's slot from the first one, in bytes
 *   ra   the caller's return address
 * It asks uint64_t dlopen_bind_call(Image *, uint64_t) and jumps to the answer with all
 * that may hold an argument as it was: a0 to a7, and 0 to 7 of the registers of floating point or
 * the vectors that they are part of.  (The static chain is t8, or t7: both are kept.) */
function dlopen_lazy_call
        addi.d  $sp, $sp, -96
        .cfi_adjust_cfa_offset 96
        st.d    $ra, $sp, 0
        .cfi_rel_offset $ra, 0
        st.d    $fp, $sp, 8
        .cfi_rel_offset $fp, 8
        arguments st.d
        st.d    $a0, $sp, 72
        st.d    $t7, $sp, 80
        st.d    $t8, $sp, 88
        move    $fp, $sp
        .cfi_def_cfa_register $fp
        addi.d  $sp, $sp, -256
        vectors argument_registers, st, $t2
        move    $a0, $t0
        srli.d  $a1, $t1, 3
        bl      dlopen_bind_call
        move    $t1, $a0
        vectors argument_registers, ld, $t2
        move    $sp, $fp
        .cfi_def_cfa_register $sp
        arguments ld.d
        ld.d    $a0, $sp, 72
        ld.d    $t7, $sp, 80
        ld.d    $t8, $sp, 88
        ld.d    $ra, $sp, 0
        .cfi_restore $ra
        ld.d    $fp, $sp, 8
        .cfi_restore $fp
        addi.d  $sp, $sp, 96
        .cfi_adjust_cfa_offset -96
        jr      $t1
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
        addi.d  $sp, $sp, -32
        .cfi_adjust_cfa_offset 32
        st.d    $ra, $sp, 0
        .cfi_rel_offset $ra, 0
        st.d    $a0, $sp, 8
        st.d    $a1, $sp, 16
        st.d    $a2, $sp, 24
        .ifc \name, dlsym
        move    $a2, $zero
        .endif
        move    $a3, $ra
        bl      dlopen_answer_symbol
        ld.d    $ra, $sp, 0
        .cfi_restore $ra
        bnez    $a1, 1f
        addi.d  $sp, $sp, 32
        .cfi_remember_state
        .cfi_adjust_cfa_offset -32
        ret
1:      .cfi_restore_state
        move    $t0, $a1
        ld.d    $a0, $sp, 8
        ld.d    $a1, $sp, 16
        ld.d    $a2, $sp, 24
        addi.d  $sp, $sp, 32
        .cfi_adjust_cfa_offset -32
        jr      $t0
        .cfi_endproc
        .size   \name, . - \name
        .endm

        symbol_entry dlsym
        symbol_entry dlvsym

        .section .note.GNU-stack, "", @progbits
