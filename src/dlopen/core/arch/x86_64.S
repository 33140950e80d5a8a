/* x86-64: what cannot be said in Cython.  System V psABI, AMD64 supplement. */

        .text

/* long dlopen_system_call(long number, long a, long b, long c, long d, long e, long f)
 *
 *   in   rdi number, rsi rdx rcx r8 r9 and the first stack word the arguments
 *   out  rax what the kernel returned
 *   the kernel takes rdi rsi rdx r10 r8 r9 and clobbers rcx and r11 only */
        .globl  dlopen_system_call
        .hidden dlopen_system_call
        .type   dlopen_system_call, @function
        .p2align 4
dlopen_system_call:
        .cfi_startproc
        endbr64
        movq    %rdi, %rax
        movq    %rsi, %rdi
        movq    %rdx, %rsi
        movq    %rcx, %rdx
        movq    %r8, %r10
        movq    %r9, %r8
        movq    8(%rsp), %r9
        syscall
        ret
        .cfi_endproc
        .size   dlopen_system_call, . - dlopen_system_call

        .section .note.GNU-stack, "", @progbits

/* IBT and SHSTK: the linker marks libdlopen.so with them only if every object does. */
        .section .note.gnu.property, "a", @note
        .p2align 3
        .long   4, 16, 5
        .asciz  "GNU"
        .long   0xc0000002, 4, 3, 0
