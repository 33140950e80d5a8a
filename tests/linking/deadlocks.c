/* deadlocks LIBDLOPEN SCENARIO: foreign code that the linker runs waits for what other threads do with
 * the linker.  With a lock held over that code it would wait for ever, and an alarm ends it.  The
 * libraries beside it call back through the `hook` functions exported here. */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "loader.h"

static LOADER_TYPE(DLOPEN_find) *our_find;
static LOADER_TYPE(DLOPEN_relocations) *our_relocations;
static LOADER_TYPE(DLOPEN_holders) *our_holders;
static volatile int visits; /* of foreign code */

static int call(const char *library, const char *function) {
  void *handle = library_open(library);
  int result = ((int (*)(void))library_find(handle, function))();
  library_close(handle);
  return result;
}

static void use_plain(void) {
  if (call("./libplain.so", "answer") != 42) failed("answer", "another one");
}

static void fork_here(void) {
  int status;
  pid_t child = fork();
  if (child == 0) {
    alarm(120); /* not inherited */
    use_plain();
    _exit(0);
  }
  waitpid(child, &status, 0);
  if (status) failed("fork", "the child failed");
}

void hook(void);

static void look(void) {
  static DLOPEN_image *images[1024];
  loader_images(images, 1024);
  if (call("./libprobe.so", "probe_all") != 4) failed("probe", "another answer");
  if (strcmp(name_at((void *)hook), "hook")) failed("name_at", "another name");
}

static void *in_thread(void *function) {
  ((void (*)(void))function)();
  return NULL;
}

/* Each in a thread of its own, and in this one. */
static void meanwhile(void) {
  void (*const steps[])(void) = {use_plain, look, fork_here};
  visits++;
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    pthread_create(&thread, NULL, in_thread, (void *)steps[i]);
    pthread_join(thread, NULL);
    steps[i]();
  }
}

static void meanwhile_once(void) {
  if (visits == 0) meanwhile();
}

void hook(void) { meanwhile(); }

static void constructor(void) { library_close(library_open("./libconstructor.so")); }
static void destructor(void) { library_close(library_open("./libdestructor.so")); }

static void resolver(void) {
  if (call("./libresolver.so", "chosen") != 42) failed("chosen", "another one");
}

/* The last object of a closed library: its thread unloads it. */
static void end_thread(void) {
  void *handle = library_open("./libthreadlocal.so");
  ((int (*)(void))library_find(handle, "touch"))();
  library_close(handle);
}

static void thread_exit(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, in_thread, (void *)end_thread);
  pthread_join(thread, NULL);
}

void hook_visit(const char *name) {
  if (strstr(name, "libvisitor.so")) meanwhile_once(); /* past the host's, which are under its lock */
}

static void visitor(void) { call("./libvisitor.so", "visit"); }

static void visit_candidate(const char *path, const char *origin, int result, void *data) {
  (void)path, (void)origin, (void)result, (void)data;
  meanwhile_once();
}

static void finding(void) { our_find("libnonesuch.so", NULL, visit_candidate, NULL, NULL); }

static void visit_relocation(const struct DLOPEN_relocation *relocation, void *data) {
  (void)relocation, (void)data;
  meanwhile_once();
}

static void relocations(void) {
  void *handle = library_open("./libvisitor.so");
  our_relocations(handle, visit_relocation, NULL);
  library_close(handle);
}

static void visit_holder(int kind, DLOPEN_image *holder, void *data) {
  (void)kind, (void)holder, (void)data;
  meanwhile_once();
}

static void holders(void) {
  void *handle = library_open("./libvisitor.so");
  our_holders(handle, visit_holder, NULL);
  library_close(handle);
}

/* Two linkers: the host's runs a constructor, under its lock, that uses ours; meanwhile a thread is in
 * ours and waits for the host's lock. */
static atomic_int other_thread;

static int waits_for_a_lock(int thread) {
  char path[64], text[64] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread);
  FILE *file = fopen(path, "r");
  if (!file || !fgets(text, sizeof text, file)) failed(path, strerror(errno));
  fclose(file);
  return atoi(text) == SYS_futex;
}

static void open_late(void) {
  other_thread = (int)syscall(SYS_gettid);
  library_close(library_open("./liblate.so"));
}

static pthread_t late_thread;

void hook_in_host(void) {
  visits++;
  pthread_create(&late_thread, NULL, in_thread, (void *)open_late);
  while (!other_thread || !waits_for_a_lock(other_thread)) usleep(1000);
  /* Long enough not to be a short wait for one of ours. */
  usleep(100000);
  if (!waits_for_a_lock(other_thread)) failed("the other thread", "did not wait");
  use_plain();
  look();
}

static void two_linkers(void) {
  use_plain(); /* what the first open brings in is not what shall wait */
  void *handle = dlopen("./libinhost.so", RTLD_NOW);
  if (!handle) failed("libinhost.so", dlerror());
  pthread_join(late_thread, NULL);
  dlclose(handle);
}

/* fork's handlers: those registered before the linker's run while it holds all of its locks. */
static void *kept;

static void in_handler(void) {
  visits++;
  use_plain();
  look();
  if (((int (*)(void))library_find(kept, "answer"))() != 42) failed("kept", "another answer");
}

static atomic_int stop;

static void open_until_stopped(void) {
  while (!stop) use_plain();
}

static void fork_handlers(void) {
  pthread_t threads[2];
  kept = library_open("./libplain.so");
  for (int i = 0; i < 2; i++)
    pthread_create(&threads[i], NULL, in_thread, (void *)open_until_stopped);
  for (int i = 0; i < 20; i++) fork_here();
  stop = 1;
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

static void fork_handlers_late(void) {
  pthread_atfork(in_handler, in_handler, in_handler);
  fork_handlers();
}

/* Calls that take no lock, from a handler of a signal that comes while this thread holds them.  Not
 * those that ask the host's loader, whose own lock a handler may not take: dl_iterate_phdr, and what
 * looks whether the host's images have changed. */
static int (*probe)(void);

static void on_signal(int number) {
  (void)number;
  int saved = errno;
  visits++;
  if (probe() != 3) failed("probe", "another answer");
  struct DLOPEN_symbol symbol;
  static struct DLOPEN_error error;
  if (loader_find(kept, "answer", NULL, 0, &symbol, &error)) failed("answer", "not found");
  if (loader_find(kept, "nonesuch", NULL, 0, &symbol, &error) != DLOPEN_E_SYMBOL)
    failed("nonesuch", "found");
  errno = saved;
}

static void signals(void) {
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
  struct itimerspec often = {{0, 100000}, {0, 100000}};
  timer_t timer;
  kept = library_open("./libplain.so");
  probe = (int (*)(void))library_find(library_open("./libprobe.so"), "probe");
  signal(SIGPROF, on_signal);
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  timer_settime(timer, 0, &often, NULL);
  do {
    library_close(library_open("./libother.so"));
    call("./liblocal.so", "answer");
  } while (visits < 2000);
  signal(SIGPROF, SIG_IGN);
}

static const struct {
  const char *name;
  void (*run)(void);
} scenarios[] = {
    {"constructor", constructor},
    {"destructor", destructor},
    {"resolver", resolver},
    {"thread exit", thread_exit},
    {"visitor", visitor},
    {"finding", finding},
    {"relocations", relocations},
    {"holders", holders},
    {"two linkers", two_linkers},
    {"fork handlers", fork_handlers},
    {"fork handlers, late", fork_handlers_late},
    {"signals", signals},
};

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  alarm(120); /* a deadlock ends here */
  int early = strcmp(argv[2], "fork handlers") == 0;
  if (early) pthread_atfork(in_handler, in_handler, in_handler);
  use_loader(argv[1]);
  void *linker = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
  LOADER_FUNCTION(our_find, "DLOPEN_find");
  LOADER_FUNCTION(our_relocations, "DLOPEN_relocations");
  LOADER_FUNCTION(our_holders, "DLOPEN_holders");
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
    if (strcmp(scenarios[i].name, argv[2]) == 0) {
      scenarios[i].run();
      if (!visits) failed(argv[2], "nothing was called");
      dprintf(1, "done\n");
      _exit(0);
    }
  return 2;
}
