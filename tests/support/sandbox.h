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

static void sandbox_trapped(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)info;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  long a[] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
              registers[REG_R10], registers[REG_R8]};
  int saved = errno;
  long result = sandbox_answers(registers[REG_RAX], a);
  if (result == SANDBOX_PASS) {
    result = syscall(registers[REG_RAX], a[0], a[1], a[2], a[3], a[4], SANDBOX_KNOWN);
    if (result == -1) result = -errno;
  }
  errno = saved;
  registers[REG_RAX] = result;
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
  const long numbers[] = {SYS_openat, SYS_newfstatat, SYS_statx, SYS_readlinkat, SYS_faccessat,
                          SYS_faccessat2};
  sandbox_trap(sandbox_no_proc, numbers, sizeof numbers / sizeof *numbers);
}
#endif
