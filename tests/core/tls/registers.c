/* A TLS descriptor is called with every register full: all but rax must come back.  int check(void)
 * is 0 if they did; else a bit for each kind that did not: 1 general, 2 vector, 4 mask, 8 MXCSR,
 * 16 x87. */
#include <stdint.h>
#include <string.h>

__thread char variable[70000] = {1}; /* its first touch copies, and zeroes */
#ifdef STATIC
/* The linker makes any reference to `variable` what the strongest one is: another name. */
extern __thread char other_name[70000] __attribute__((alias("variable"), tls_model("initial-exec")));
void *static_at(void) { return other_name; }
#endif

struct state {
  uint64_t general[15];    /*    0: rax rbx rcx rdx rsi rdi rbp r8 … r15 */
  uint32_t mxcsr;          /*  120 */
  uint16_t control, pad;   /*  124: of the x87 */
  uint8_t vectors[32][64]; /*  128 */
  uint64_t masks[8];       /* 2176 */
  uint8_t x87[2][16];      /* 2240 */
};

/* level: 0 SSE, 1 AVX, 2 AVX-512 */
void touch(const struct state *before, struct state *after, int level);

__asm__(
    "        .text\n"
    "        .type   touch, @function\n"
    "touch:\n"
    "        pushq   %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
    "        pushq   %rsi\n"
    "        pushq   %rdx\n"
    "        subq    $24, %rsp\n" /* aligned, as a compiler's call is; 16: before */
    "        movq    %rdi, 16(%rsp)\n"
    "        stmxcsr 8(%rsp)\n"
    "        fnstcw  12(%rsp)\n"
    "        cmpl    $1, %edx\n"
    "        ja      2f\n"
    "        je      1f\n"
    "        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "        movups  128+64*\\n(%rdi), %xmm\\n\n"
    "        .endr\n"
    "        jmp     3f\n"
    "1:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "        vmovups 128+64*\\n(%rdi), %ymm\\n\n"
    "        .endr\n"
    "        jmp     3f\n"
    "2:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "        vmovups 128+64*\\n(%rdi), %zmm\\n\n"
    "        .endr\n"
    "        .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "        vmovups 128+64*\\n(%rdi), %zmm\\n\n"
    "        .endr\n"
    "        .irp n, 0,1,2,3,4,5,6,7\n"
    "        kmovq   2176+8*\\n(%rdi), %k\\n\n"
    "        .endr\n"
    "3:      fldt    2240(%rdi)\n"
    "        fldt    2256(%rdi)\n"
    "        ldmxcsr 120(%rdi)\n"
    "        fldcw   124(%rdi)\n"
    "        movq    8(%rdi), %rbx\n"
    "        movq    16(%rdi), %rcx\n"
    "        movq    24(%rdi), %rdx\n"
    "        movq    32(%rdi), %rsi\n"
    "        movq    48(%rdi), %rbp\n"
    "        .irp n, 8,9,10,11,12,13,14,15\n"
    "        movq    56+8*(\\n-8)(%rdi), %r\\n\n"
    "        .endr\n"
    "        movq    40(%rdi), %rdi\n"
    "        leaq    variable@tlsdesc(%rip), %rax\n"
    "        call    *variable@tlscall(%rax)\n"
    "        addq    %fs:0, %rax\n"
    "        pushq   %rdi\n"
    "        movq    40(%rsp), %rdi\n" /* after */
    "        movq    %rax, 0(%rdi)\n"
    "        movq    %rbx, 8(%rdi)\n"
    "        movq    %rcx, 16(%rdi)\n"
    "        movq    %rdx, 24(%rdi)\n"
    "        movq    %rsi, 32(%rdi)\n"
    "        movq    %rbp, 48(%rdi)\n"
    "        .irp n, 8,9,10,11,12,13,14,15\n"
    "        movq    %r\\n, 56+8*(\\n-8)(%rdi)\n"
    "        .endr\n"
    "        popq    40(%rdi)\n"
    "        stmxcsr 120(%rdi)\n"
    "        fnstcw  124(%rdi)\n"
    "        ldmxcsr 8(%rsp)\n"
    "        fldcw   12(%rsp)\n"
    "        fstpt   2256(%rdi)\n"
    "        fstpt   2240(%rdi)\n"
    "        movq    24(%rsp), %rdx\n"
    "        cmpl    $1, %edx\n"
    "        ja      2f\n"
    "        je      1f\n"
    "        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "        movups  %xmm\\n, 128+64*\\n(%rdi)\n"
    "        .endr\n"
    "        jmp     3f\n"
    "1:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "        vmovups %ymm\\n, 128+64*\\n(%rdi)\n"
    "        .endr\n"
    "        vzeroupper\n"
    "        jmp     3f\n"
    "2:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "        vmovups %zmm\\n, 128+64*\\n(%rdi)\n"
    "        .endr\n"
    "        .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "        vmovups %zmm\\n, 128+64*\\n(%rdi)\n"
    "        .endr\n"
    "        .irp n, 0,1,2,3,4,5,6,7\n"
    "        kmovq   %k\\n, 2176+8*\\n(%rdi)\n"
    "        .endr\n"
    "        vzeroupper\n"
    "3:      addq    $40, %rsp\n"
    "        popq    %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx\n"
    "        ret\n"
    "        .size   touch, . - touch\n");

int level(void) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return 2;
  return __builtin_cpu_supports("avx") ? 1 : 0;
}

int check(void) {
  static struct state before, after;
  static const size_t sizes[] = {16, 32, 64};
  int result = 0, which = level();
  uint8_t *bytes = (uint8_t *)&before;
  for (size_t i = 0; i < sizeof before; i++) bytes[i] = (uint8_t)(i * 73 + i / 256 + 5);
  before.mxcsr = 0x1f80 | 0x6000;     /* rounds towards zero */
  before.control = 0x037f | 0x0c00;   /* the same */
  long double one = 1.0L / 3, two = -7.25e300L;
  memcpy(before.x87[0], &one, 10);
  memcpy(before.x87[1], &two, 10);
  memset(&after, 0, sizeof after);
  touch(&before, &after, which);
  if (*(char *)after.general[0] != 1) return -1;
#ifdef STATIC
  if ((void *)after.general[0] != static_at()) return -2;
#endif
  if (memcmp(&before.general[1], &after.general[1], sizeof before.general - 8)) result |= 1;
  for (int i = 0; i < (which == 2 ? 32 : 16); i++)
    if (memcmp(before.vectors[i], after.vectors[i], sizes[which])) result |= 2;
  if (which == 2 && memcmp(before.masks, after.masks, sizeof before.masks)) result |= 4;
  if (before.mxcsr != after.mxcsr) result |= 8;
  if (before.control != after.control) result |= 16;
  for (int i = 0; i < 2; i++)
    if (memcmp(before.x87[i], after.x87[i], 10)) result |= 16;
  return result;
}
