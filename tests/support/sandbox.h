/* A process that gives up some system calls, or answers them itself: seccomp(2), which needs no
   privilege.  A call that is trapped comes to `answer`, in a signal handler; what that passes on
   is made again with a sixth argument that the filter knows.  Not for calls of six arguments. */
#ifndef SANDBOX_H
#define SANDBOX_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SANDBOX_PASS (-4096L) /* no errno */
#define SANDBOX_KNOWN 0x7a5b

typedef long sandbox_answer(long number, const long *arguments);
static sandbox_answer *sandbox_answers;

/* Where a signal's frame has the system call's number, and its arguments in turn; the result goes
 * where the first number says. */
#if defined(__x86_64__)
#define SANDBOX_REGISTERS gregs
#define SANDBOX_NUMBERS REG_RAX, REG_RAX, REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8
#elif defined(__aarch64__)
#define SANDBOX_REGISTERS regs
#define SANDBOX_NUMBERS 0, 8, 0, 1, 2, 3, 4
#elif defined(__riscv)
#define SANDBOX_REGISTERS __gregs
#define SANDBOX_NUMBERS 10, 17, 10, 11, 12, 13, 14
#elif defined(__loongarch__)
#define SANDBOX_REGISTERS __gregs
#define SANDBOX_NUMBERS 4, 11, 4, 5, 6, 7, 8
#endif

static void sandbox_trapped(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)info;
  static const int at[] = {SANDBOX_NUMBERS};
  ucontext_t *frame = context;
  long number = (long)frame->uc_mcontext.SANDBOX_REGISTERS[at[1]], a[5];
  for (int i = 0; i < 5; i++) a[i] = (long)frame->uc_mcontext.SANDBOX_REGISTERS[at[2 + i]];
  int saved = errno;
  long result = sandbox_answers(number, a);
  if (result == SANDBOX_PASS) {
    result = syscall(number, a[0], a[1], a[2], a[3], a[4], SANDBOX_KNOWN);
    if (result == -1) result = -errno;
  }
  errno = saved;
  frame->uc_mcontext.SANDBOX_REGISTERS[at[0]] = (unsigned long)result;
}

/* From now on, in all threads that come: each of the `count` calls is trapped. */
static void sandbox_trap(sandbox_answer *answer, const long *numbers, int count) {
  struct sigaction action = {.sa_sigaction = sandbox_trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
  struct sock_filter code[64], *next = code;
  sandbox_answers = answer;
  sigaction(SIGSYS, &action, NULL);
  for (int i = 0; i < count; i++) {
    *next++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    *next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)numbers[i], 0, 3);
    *next++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5]));
    *next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SANDBOX_KNOWN, 1, 0);
    *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
  }
  *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {(unsigned short)(next - code), code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
    exit(77); /* the test is skipped */
}

/* From now on this call fails. */
static inline void sandbox_forbid(long number, int error) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {4, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
    exit(77);
}

static long sandbox_no_proc(long number, const long *arguments) {
  (void)number;
  const char *path = (const char *)arguments[1];
  return path && strncmp(path, "/proc", 5) == 0 ? -ENOENT : SANDBOX_PASS;
}

/* From now on there is no /proc. */
static inline void sandbox_hide_proc(void) {
  const long numbers[] = {SYS_openat, SYS_statx, SYS_readlinkat, SYS_faccessat, SYS_faccessat2,
#ifdef SYS_newfstatat
                          SYS_newfstatat,
#endif
  };
  sandbox_trap(sandbox_no_proc, numbers, sizeof numbers / sizeof *numbers);
}
#endif
