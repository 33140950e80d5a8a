/* x86-64: what cannot be said in Cython.  System V psABI, AMD64 supplement. */

        .text

/* `pushed`: so many bytes are on the stack above the return address when it begins. */
        .macro  function name pushed=0
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 4
\name:
        .cfi_startproc
        .if \pushed
        .cfi_adjust_cfa_offset \pushed
        .endif
        endbr64
        .endm

        .macro  end_function name
        .cfi_endproc
        .size   \name, . - \name
        .endm

/* long dlopen_system_call(long number, long a, long b, long c, long d, long e, long f)
 *
 *   in   rdi number, rsi rdx rcx r8 r9 and the first stack word the arguments
 *   out  rax what the kernel returned
 *   the kernel takes rdi rsi rdx r10 r8 r9 and clobbers rcx and r11 only */
function dlopen_system_call
        movq    %rdi, %rax
        movq    %rsi, %rdi
        movq    %rdx, %rsi
        movq    %rcx, %rdx
        movq    %r8, %r10
        movq    %r9, %r8
        movq    8(%rsp), %r9
        syscall
        ret
end_function dlopen_system_call

/* void dlopen_code_written(uint64_t start, uint64_t size): the processor sees it by itself */
function dlopen_code_written
        ret
end_function dlopen_code_written

/* uint64_t dlopen_thread_pointer(void): what TPOFF relocations count from */
function dlopen_thread_pointer
        movq    %fs:0, %rax
        ret
end_function dlopen_thread_pointer

/* void *dlopen_make_block_aligned(uint64_t module)
 *
 * Old compilers call __tls_get_addr with a stack that is not aligned. */
function dlopen_make_block_aligned
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        andq    $-16, %rsp
        call    dlopen_make_block
        leave
        .cfi_def_cfa %rsp, 8
        ret
end_function dlopen_make_block_aligned

/* TLS descriptors (RFC TLSDESC-x86): called with
 *   rax  the descriptor: this function, and its argument
 *   out  rax  the variable's distance from the thread pointer
 * Every other register is preserved; the flags are not. */

/* XSAVE of these components at the stack's end, where dlopen_state_size bytes aligned to 64 are
 * free: in its standard format SSE and AVX end at 832, MPX at 1,088, the 32 vector registers of
 * AVX-512 at 2,688 or before.  Only the header of 64 bytes at 512 must be cleared before.
 * Clobbers rax and rdx. */
        .macro  save_state components
        xorl    %eax, %eax
        movq    %rax, 512(%rsp)
        movq    %rax, 520(%rsp)
        movq    %rax, 528(%rsp)
        movq    %rax, 536(%rsp)
        movq    %rax, 544(%rsp)
        movq    %rax, 552(%rsp)
        movq    %rax, 560(%rsp)
        movq    %rax, 568(%rsp)
        xorl    %edx, %edx
        movl    \components, %eax
        xsave64 (%rsp)
        .endm

/* The argument is the distance. */
function dlopen_tlsdesc_static
        movq    8(%rax), %rax
        ret
end_function dlopen_tlsdesc_static

/* An undefined weak symbol: the argument is the addend, and the address shall be that. */
function dlopen_tlsdesc_undefined
        movq    8(%rax), %rax
        subq    %fs:0, %rax
        ret
end_function dlopen_tlsdesc_undefined

/* The argument points to a TlsIndex: module id and offset.  The table of this thread is
 * that of tls/modules.pxd: blocks, count; a block is id, address, allocation. */
function dlopen_tlsdesc_dynamic
        pushq   %rcx
        .cfi_adjust_cfa_offset 8
        pushq   %rdx
        .cfi_adjust_cfa_offset 8
        movq    8(%rax), %rax
        movq    dlopen_thread_blocks@gottpoff(%rip), %rcx
        movq    %fs:(%rcx), %rcx
        testq   %rcx, %rcx
        jz      1f
        movl    (%rax), %edx            /* the slot: the id's lower half */
        cmpq    8(%rcx), %rdx
        jae     1f
        leaq    (%rdx, %rdx, 2), %rdx
        movq    (%rcx), %rcx
        leaq    (%rcx, %rdx, 8), %rcx
        movq    (%rax), %rdx
        cmpq    (%rcx), %rdx
        jne     1f
        movq    8(%rcx), %rcx
        addq    8(%rax), %rcx
        subq    %fs:0, %rcx
        movq    %rcx, %rax
        popq    %rdx
        .cfi_adjust_cfa_offset -8
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        ret

/* The first touch in this thread: a C function is called. */
1:      .cfi_adjust_cfa_offset 16
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        pushq   %rdi
        pushq   %rsi
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        pushq   %rax
        subq    dlopen_state_size(%rip), %rsp
        andq    $-64, %rsp
        movq    %rax, %rdi
        cmpl    $0, dlopen_has_xsave(%rip)
        je      2f
        save_state $0xff                /* x87, SSE, AVX, MPX, AVX-512 */
        movq    (%rdi), %rdi
        call    dlopen_make_block
        movq    %rax, %rcx
        xorl    %edx, %edx
        movl    $0xff, %eax
        xrstor64 (%rsp)
        jmp     3f
2:      fxsave64 (%rsp)
        movq    (%rdi), %rdi
        call    dlopen_make_block
        movq    %rax, %rcx
        fxrstor64 (%rsp)
3:      movq    -56(%rbp), %rax         /* pushed last */
        addq    8(%rax), %rcx
        subq    %fs:0, %rcx
        movq    %rcx, %rax
        movq    -8(%rbp), %rdi
        movq    -16(%rbp), %rsi
        movq    -24(%rbp), %r8
        movq    -32(%rbp), %r9
        movq    -40(%rbp), %r10
        movq    -48(%rbp), %r11
        leave
        .cfi_def_cfa %rsp, 24
        .cfi_restore %rbp
        popq    %rdx
        .cfi_adjust_cfa_offset -8
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        ret
end_function dlopen_tlsdesc_dynamic

/* What a PLT's first entry jumps to, for a call that is not bound yet:
 *   (%rsp)    GOT[1], the Image
 *   8(%rsp)   the slot's number in DT_JMPREL
 *   16(%rsp)  the caller's return address; the arguments follow
 * It asks uint64_t dlopen_bind_call(Image *, uint64_t) and jumps to the answer with all
 * that may hold an argument as it was: rax (how many vector registers a variadic call uses),
 * rdi rsi rdx rcx r8 r9, r10 (the static chain), the vector registers.  r11 is free. */
function dlopen_lazy_call pushed=16
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        pushq   %rax
        pushq   %rcx
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %r8
        pushq   %r9
        pushq   %r10
        /* x87 holds no argument, and must not be reset. */
        subq    dlopen_state_size(%rip), %rsp
        andq    $-64, %rsp
        cmpl    $0, dlopen_has_xsave(%rip)
        je      1f
        save_state $0xee                /* SSE, AVX, MPX bounds, AVX-512 */
        movq    8(%rbp), %rdi
        movq    16(%rbp), %rsi
        call    dlopen_bind_call
        movq    %rax, %r11
        xorl    %edx, %edx
        movl    $0xee, %eax
        xrstor64 (%rsp)
        jmp     2f
1:      fxsave64 (%rsp)
        movq    8(%rbp), %rdi
        movq    16(%rbp), %rsi
        call    dlopen_bind_call
        movq    %rax, %r11
        fxrstor64 (%rsp)
2:      movq    -8(%rbp), %rax
        movq    -16(%rbp), %rcx
        movq    -24(%rbp), %rdx
        movq    -32(%rbp), %rsi
        movq    -40(%rbp), %rdi
        movq    -48(%rbp), %r8
        movq    -56(%rbp), %r9
        movq    -64(%rbp), %r10
        leave
        .cfi_def_cfa %rsp, 24
        .cfi_restore %rbp
        addq    $16, %rsp
        .cfi_adjust_cfa_offset -16
        jmp     *%r11
end_function dlopen_lazy_call

/* void *dlsym(void *handle, const char *name)
 * void *dlvsym(void *handle, const char *name, const char *version)
 *
 * What a caller of the host's means by RTLD_NEXT and RTLD_DEFAULT only the host knows, by
 * the return address: it is asked by a jump, with the caller's frame as it was.
 * dlopen_answer_symbol(handle, name, version, caller) answers in rax, or says in rdx where
 * to jump. */
        .macro  symbol_entry name
        .globl  \name, dlopen_entry_\name
        .hidden dlopen_entry_\name
#if defined(DLOPEN_SANITIZE) && !defined(DLOPEN_SANITIZE_THREAD)   /* see libdlopen.pyx */
        .hidden \name
#endif
        .type   \name, @function
        .type   dlopen_entry_\name, @function
        .p2align 4
dlopen_entry_\name:
\name:
        .cfi_startproc
        endbr64
        pushq   %rdi
        .cfi_adjust_cfa_offset 8
        pushq   %rsi
        .cfi_adjust_cfa_offset 8
        pushq   %rdx
        .cfi_adjust_cfa_offset 8
        .ifc \name, dlsym
        xorl    %edx, %edx
        .endif
        movq    24(%rsp), %rcx
        call    dlopen_answer_symbol
        movq    %rdx, %r11
        popq    %rdx
        .cfi_adjust_cfa_offset -8
        popq    %rsi
        .cfi_adjust_cfa_offset -8
        popq    %rdi
        .cfi_adjust_cfa_offset -8
        testq   %r11, %r11
        jnz     1f
        ret
1:      jmp     *%r11
        .cfi_endproc
        .size   \name, . - \name
        .endm

        symbol_entry dlsym
        symbol_entry dlvsym

        .section .note.GNU-stack, "", @progbits

/* IBT and SHSTK: the linker marks libdlopen.so with them only if every object does. */
        .section .note.gnu.property, "a", @note
        .p2align 3
        .long   4, 16, 5
        .asciz  "GNU"
        .long   0xc0000002, 4, 3, 0
