/* interrupted LIBDLOPEN SCENARIO: a signal handler runs at every single instruction of the linker
 * (the processor's trap flag), and uses the linker in it.  It must wait for nobody: what it has
 * interrupted goes on only when it returns.  What hangs is ended by an alarm.  Not at those of libc,
 * whose own locks do not stand it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "loader.h"

static LOADER_TYPE(DLOPEN_info) *our_info;
static LOADER_TYPE(dl_iterate_phdr) *our_iterate;
static LOADER_TYPE(dlsym) *our_dlsym;
static LOADER_TYPE(dladdr) *our_dladdr;
static int (*call_target)(void);
static DLOPEN_image *first, *user;
static volatile long traps, seen_closing, answers[3], slept;
static void (*volatile in_trap)(void);
static volatile int is_child;
static uintptr_t *volatile stack;    /* of what was interrupted */

#define TRAP_FLAG 0x100

static void check(int holds, const char *what) {
  if (!holds) failed(what, "");
}

static uintptr_t start, end; /* of libdlopen.so */

static void trapped(int number, siginfo_t *information, void *data) {
  (void)number, (void)information;
  uintptr_t at = (uintptr_t)((ucontext_t *)data)->uc_mcontext.gregs[REG_RIP];
  if (at < start || at >= end) return;
  traps++;
  stack = (uintptr_t *)((ucontext_t *)data)->uc_mcontext.gregs[REG_RSP];
  if (in_trap) in_trap();
  if (is_child) ((ucontext_t *)data)->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

static int find_linker(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    uintptr_t from = info->dlpi_addr + segment->p_vaddr;
    if (segment->p_type == PT_LOAD && (uintptr_t)data - from < segment->p_memsz)
      start = from, end = from + segment->p_memsz;
  }
  return start != 0;
}

static inline void step(void) {
  __asm__ volatile ("pushfq; orq %0, (%%rsp); popfq" : : "i" (TRAP_FLAG) : "memory", "cc");
}
static inline void step_no_more(void) {
  __asm__ volatile ("pushfq; andq %0, (%%rsp); popfq" : : "i" (~TRAP_FLAG) : "memory", "cc");
}

static DLOPEN_image *open_one(const char *name, unsigned mode) {
  static struct DLOPEN_error error;
  struct DLOPEN_request request;
  DLOPEN_image *image;
  char message[1000];
  memset(&request, 0, sizeof request);
  request.size = sizeof request;
  request.name = name;
  request.mode = mode;
  if (loader_open(&request, &image, &error)) {
    loader_message(&error, message, sizeof message);
    failed(name, message);
  }
  return image;
}

static int count_image(struct dl_phdr_info *info, size_t size, void *data) {
  (void)info, (void)size;
  ++*(int *)data;
  return 0;
}

static void read_all(void) {
  DLOPEN_image *image;
  struct DLOPEN_symbol symbol;
  Dl_info info;
  int images = 0;
  check(our_iterate(count_image, &images) == 0 && images > 3, "dl_iterate_phdr");
  check(our_dladdr((void *)call_target, &info) && info.dli_sname, "dladdr");
  check(loader_address((void *)call_target, &image, &symbol) == 0 && image == user, "address");
  check(loader_find(user, "call_target", NULL, 0, &symbol, NULL) == 0, "find");
  check(loader_find(user, "nonesuch", NULL, 0, &symbol, NULL) == DLOPEN_E_SYMBOL, "nonesuch");
  check(our_dlsym(RTLD_DEFAULT, "target") != NULL, "dlsym");
}

/* LD_BIND_NOT: each call is looked up. */
static void call_while_closing(void) {
  struct DLOPEN_info info = {.size = sizeof info};
  int code = our_info(first, &info);
  if (code == 0 && info.state != DLOPEN_STATE_CLOSING && !seen_closing) return;
  seen_closing++;
  int answer = call_target();
  check(answer == 1 || answer == 2, "another function");
  answers[answer]++;
}

static void closing(void) {
  open_one("./libsecond.so", RTLD_LAZY | RTLD_GLOBAL);
  user = open_one("./libuser.so", RTLD_LAZY);
  call_target = (int (*)(void))library_find(user, "call_target");
  for (int turn = 0; turn < 2; turn++) {
    seen_closing = 0;
    in_trap = call_while_closing;
    step();
    int code = loader_close(first, NULL);
    step_no_more();
    in_trap = NULL;
    check(code == 0 && seen_closing > 10, "close");
    check(call_target() == 2, "afterwards");
    library_close(user);
    library_close(open_one("./libuser.so", RTLD_NOW)); /* nothing that has gone is written down */
    first = open_one("./libfirst.so", RTLD_LAZY | RTLD_GLOBAL);
    user = open_one("./libuser.so", RTLD_LAZY);
    call_target = (int (*)(void))library_find(user, "call_target");
    check(call_target() == 2, "the order of the global scope");
    /* The first is closed first again. */
    library_close(user);
    DLOPEN_image *second = open_one("./libsecond.so", RTLD_LAZY | RTLD_NOLOAD);
    library_close(second), library_close(second);
    check(open_one("./libsecond.so", RTLD_LAZY | RTLD_GLOBAL) != NULL, "second");
    user = open_one("./libuser.so", RTLD_LAZY);
    call_target = (int (*)(void))library_find(user, "call_target");
  }
  check(answers[1] && answers[2], "before and after it has gone");
}

/* Every reader, at every instruction of an open, a close, and of readers. */
static void read_and_call(void) {
  read_all();
  check(call_target() == 1, "a call");
}

static void reading_in_steps(void) {
  user = open_one("./libuser.so", RTLD_LAZY);
  call_target = (int (*)(void))library_find(user, "call_target");
  library_close(open_one("./libother.so", RTLD_LAZY)); /* what is done once is done */
  step();
  DLOPEN_image *other = open_one("./libother.so", RTLD_LAZY);
  int code = loader_close(other, NULL);
  read_all();
  int answer = call_target();
  step_no_more();
  in_trap = NULL;
  check(code == 0 && answer == 1 && traps > 5000, "steps");
}

static void reading(void) {
  in_trap = read_and_call;
  reading_in_steps();
}

/* With a library in the global scope that the host's loader has brought in: calls of it are counted
 * there, and written down under a lock. */
static int (*call_late)(void);

static void read_and_call_late(void) {
  read_and_call();
  check(call_late() == 4, "a call of the host's");
}

static void reading_late(void) {
  check(dlopen("./liblate.so", RTLD_NOW | RTLD_GLOBAL) != NULL, "late");
  user = open_one("./liblateuser.so", RTLD_LAZY);
  call_late = (int (*)(void))library_find(user, "call_late");
  in_trap = read_and_call_late;
  reading_in_steps();
  check(call_late() == 4, "afterwards");
}

/* A thread that has announced that it forks: nobody sleeps until it has. */
static long sleeps(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

static void read_awake(void) {
  long before = sleeps();
  read_and_call_late();
  slept += sleeps() - before;
}

/* In fork(2) itself libc has all signals blocked (since 2.41): a trap there would end the process.
 * Registered before the linker's handlers: the last one before it, and the first one after it. */
static volatile int is_forking;
static void before_fork(void) { if (is_forking) step_no_more(); }
static void after_fork(void) { if (is_forking) step(); }

static void *idle(void *unused) {
  pause();
  return unused;
}

static void forking(void) {
  int status = 0;
  pthread_t thread;
  check(pthread_create(&thread, NULL, idle, NULL) == 0, "a second thread");
  check(dlopen("./liblate.so", RTLD_NOW | RTLD_GLOBAL) != NULL, "late");
  user = open_one("./liblateuser.so", RTLD_LAZY);
  call_late = (int (*)(void))library_find(user, "call_late");
  user = open_one("./libuser.so", RTLD_LAZY);
  call_target = (int (*)(void))library_find(user, "call_target");
  in_trap = read_awake;
  is_forking = 1;
  step();
  pid_t child = fork();
  step_no_more();
  if (child == 0) {
    in_trap = NULL;
    read_and_call_late();
    _exit(7);
  }
  in_trap = NULL;
  check(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "the child");
  check(traps > 100, "steps");
  check(slept < 100, "it sleeps in a handler"); /* a page may have to be read */
}

/* A handler that forks in the middle of an open or a close, of a process of one thread: what it has
 * interrupted goes on in the child too, from where it was. */
enum { FORK_EACH = 67 };              /* traps */
static volatile long forked, next_fork;

/* Libc's own lock would stay taken in the child: in a callback of its dl_iterate_phdr. */
static int is_called_back(void) {
  for (int i = 0; i < 256; i++)
    if (stack[i] - (uintptr_t)dl_iterate_phdr < 0x400) return 1;
  return 0;
}

static void fork_here(void) {
  int status = 0;
  if (traps < next_fork || is_called_back()) return;
  next_fork = traps + FORK_EACH;
  pid_t child = fork();
  if (child == 0) {
    in_trap = NULL;
    is_child = 1;
    alarm(20);
    return;
  }
  check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7,
        "a child");
  forked++;
}

static void forking_inside(void) {
  library_close(open_one("./libuser.so", RTLD_NOW)); /* what is done once is done */
  in_trap = fork_here;
  step();
  user = open_one("./libuser.so", RTLD_LAZY);
  call_target = (int (*)(void))library_find(user, "call_target");
  int answer = call_target();
  int code = loader_close(user, NULL);
  step_no_more();
  in_trap = NULL;
  check(code == 0 && answer == 1, "an open, a call and a close");
  user = open_one("./libuser.so", RTLD_NOW);
  call_target = (int (*)(void))library_find(user, "call_target");
  check(call_target() == 1, "once more");
  uintptr_t place = (uintptr_t)call_target;
  library_close(user);
  DLOPEN_image *image;
  struct DLOPEN_symbol symbol;
  check(loader_address((void *)place, &image, &symbol) != 0, "it has gone");
  if (is_child) _exit(7);
  check(forked > 50 && traps > 5000, "forks");
}

static const struct {
  const char *name;
  void (*run)(void);
} scenarios[] = {{"closing", closing}, {"reading", reading}, {"reading_late", reading_late}, {"forking", forking},
               {"forking_inside", forking_inside}};

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  pthread_atfork(before_fork, after_fork, after_fork);
  use_loader(argv[1]);
  void *linker = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
  LOADER_FUNCTION(our_info, "DLOPEN_info");
  LOADER_FUNCTION(our_iterate, "dl_iterate_phdr");
  LOADER_FUNCTION(our_dlsym, "dlsym");
  LOADER_FUNCTION(our_dladdr, "dladdr");
  dl_iterate_phdr(find_linker, (void *)loader_open);
  struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
  sigaction(SIGTRAP, &action, NULL);
  alarm(120);
  first = open_one("./libfirst.so", RTLD_LAZY | RTLD_GLOBAL);
  user = open_one("./libuser.so", RTLD_LAZY);
  call_target = (int (*)(void))library_find(user, "call_target");
  library_close(user);
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
    if (strcmp(scenarios[i].name, argv[2]) == 0) {
      scenarios[i].run();
      dprintf(1, "done\n");
      return 0;
    }
  return 2;
}
