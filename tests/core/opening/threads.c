/* threads LIBDLOPEN SCENARIO: libraries opened, used and closed by several threads; the
 * libraries are beside it, and call back through the `hook_*` functions exported here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dlopen.h"

static __typeof__(DLOPEN_open) *our_open;
static __typeof__(DLOPEN_existing) *our_existing;
static __typeof__(DLOPEN_close) *our_close;
static __typeof__(DLOPEN_symbol_find) *our_find;
static __typeof__(DLOPEN_address) *our_address;
static __typeof__(DLOPEN_images) *our_images;
static __typeof__(DLOPEN_info) *our_info;
static __typeof__(DLOPEN_read_enter) *our_enter;
static __typeof__(DLOPEN_read_leave) *our_leave;
static __typeof__(DLOPEN_message) *our_message;

static void check_child(pid_t child) {
  int status;
  waitpid(child, &status, 0);
  if (status) {
    dprintf(1, "failed: a child ended with status %#x\n", status);
    _exit(1);
  }
}

static void fail(const char *what) {
  dprintf(1, "failed: %s\n", what);
  _exit(1);
}

static DLOPEN_image *open_library(const char *name) {
  struct DLOPEN_error *error = calloc(1, sizeof *error);
  struct DLOPEN_request request = {.size = sizeof request, .name = name, .mode = RTLD_NOW};
  DLOPEN_image *image = NULL;
  if (our_open(&request, &image, error) != DLOPEN_OK) {
    char message[1024];
    our_message(error, message, sizeof message);
    fail(message);
  }
  free(error);
  return image;
}

static void close_library(DLOPEN_image *image) {
  if (our_close(image, NULL)) fail("close");
}

static int call(DLOPEN_image *image, const char *name) {
  struct DLOPEN_symbol symbol;
  if (our_find(image, name, NULL, 0, &symbol, NULL)) fail(name);
  return ((int (*)(void))symbol.address)();
}

static void *open_in_thread(void *name) { return open_library(name); }

static void *run_thread(void *(*function)(void *), void *argument) {
  pthread_t thread;
  void *result;
  if (pthread_create(&thread, NULL, function, argument)) fail("pthread_create");
  pthread_join(thread, &result);
  return result;
}

/* For constructors: each is called by the library of its name. */
static atomic_int slow_started, slow_finished;

void hook_slow(void) {
  slow_started++;
  usleep(200000);
  slow_finished++;
}

void hook_open_in_thread(void) { run_thread(open_in_thread, "./libplain.so"); }

static void *host_open(void *name) {
  void *handle = dlopen(name, RTLD_NOW);
  if (!handle) fail(dlerror());
  return handle;
}

/* The library needs one that is left to glibc's loader: our open calls glibc's. */
static void *open_with_host_library(void *name) {
  for (int i = 0; i < 200; i++) close_library(open_library(name));
  return NULL;
}

/* glibc's lock is held while the constructor of the library calls ours. */
void hook_plain(void) { close_library(open_library("./libplain.so")); }

static void *host_open_and_close(void *name) {
  for (int i = 0; i < 200; i++) dlclose(host_open(name));
  return NULL;
}

static void two_linkers(void) {
  pthread_t ours, glibcs;
  pthread_create(&ours, NULL, open_with_host_library, "./libresolving.so");
  pthread_create(&glibcs, NULL, host_open_and_close, "./libcalling.so");
  pthread_join(ours, NULL);
  pthread_join(glibcs, NULL);
}

/* Nobody has called the linker before: these make it ready. */
static pthread_barrier_t first_barrier;

static void *call_first(void *unused) {
  pthread_barrier_wait(&first_barrier);
  DLOPEN_image *image = open_library("./libplain.so");
  if (call(image, "answer") != 42) fail("answer");
  return unused;
}

static void first_call(void) {
  pthread_t threads[8];
  pthread_barrier_init(&first_barrier, NULL, 8);
  for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, call_first, NULL);
  for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
}

/* Without a constructor: of those that ask at once one loads it, as the log says. */
static pthread_barrier_t each_round;

static void *open_in_rounds(void *name) {
  for (int i = 0; i < 20; i++) {
    pthread_barrier_wait(&each_round);
    DLOPEN_image *image = open_library(name);
    pthread_barrier_wait(&each_round);
    close_library(image);
  }
  return NULL;
}

static void at_once(void) {
  pthread_t threads[8];
  pthread_barrier_init(&each_round, NULL, 8);
  for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, open_in_rounds, "./liblarge.so");
  for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
}

static void same_library(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, open_in_thread, "./libslow.so");
  for (int i = 0; i < 4; i++) {
    void *image;
    pthread_join(threads[i], &image);
    if (slow_finished != 1) fail("returned before the constructor had finished");
  }
  if (slow_started != 1) fail("the constructor ran more than once");
}

/* Both threads on one processor: the one that is woken runs when the other one sleeps. */
static pthread_t upper_thread;
static atomic_int upper_number;

static void *open_upper(void *name) {
  upper_number = (int)syscall(SYS_gettid);
  return open_library(name);
}

static int waits(int thread) {
  char path[64], text[64] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread);
  FILE *file = fopen(path, "r");
  if (!file || !fgets(text, sizeof text, file)) fail(path);
  fclose(file);
  return atoi(text) == SYS_futex;
}

void hook_lower(void) {
  pthread_create(&upper_thread, NULL, open_upper, "./libupper.so");
  while (!upper_number || !waits(upper_number)) usleep(1000);
}

static void waiter_not_awake(void) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  sched_setaffinity(0, sizeof one, &one);
  for (int i = 0; i < 20; i++) {
    upper_number = 0;
    DLOPEN_image *lower = open_library("./liblower.so"), *upper = open_library("./libupper.so");
    if (call(upper, "started") != 1) fail("returned before the constructor had finished");
    void *other;
    pthread_join(upper_thread, &other);
    close_library(other);
    close_library(upper);
    close_library(lower);
  }
}

static void existing_library(void) {
  pthread_t thread;
  DLOPEN_image *image;
  pthread_create(&thread, NULL, open_in_thread, "./libslow.so");
  while (!slow_started) usleep(1000);
  if (our_existing("./libslow.so", &image, NULL)) fail("it is loaded");
  if (slow_finished != 1) fail("returned before the constructor had finished");
  pthread_join(thread, NULL);
}

static void fork_in_constructor(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, open_in_thread, "./libslow.so");
  while (!slow_started) usleep(1000);
  pid_t child = fork();
  if (child == 0) {
    alarm(120);
    _exit(call(open_library("./libplain.so"), "answer") == 42 ? 0 : 1);
  }
  check_child(child);
  pthread_join(thread, NULL);
}

static atomic_int stop;

static void *read_all(void *unused) {
  static DLOPEN_image *images[1024];
  while (!stop) {
    uint32_t token = our_enter();
    size_t count = our_images(images, 1024);
    for (size_t i = 0; i < count && i < 1024; i++) {
      struct DLOPEN_info info = {.size = sizeof info};
      struct DLOPEN_symbol symbol;
      if (our_info(images[i], &info)) continue;
      our_find(images[i], "answer", NULL, DLOPEN_OWN_ONLY | DLOPEN_NO_RESOLVE, &symbol, NULL);
      if (info.path && strlen(info.path) > 100000) fail("a path");
    }
    DLOPEN_image *image;
    struct DLOPEN_symbol symbol;
    our_address((void *)fail, &image, &symbol);
    our_leave(token);
  }
  return unused;
}

static void *open_and_close(void *name) {
  for (int i = 0; i < 300; i++) {
    DLOPEN_image *image = open_library(name);
    if (call(image, "answer") != 42) fail("answer");
    close_library(image);
  }
  return NULL;
}

static void stress(void) {
  static char *names[] = {"./libplain.so", "./libuser.so", "./libplain.so", "./libother.so"};
  pthread_t readers[2], writers[4];
  for (int i = 0; i < 2; i++) pthread_create(&readers[i], NULL, read_all, NULL);
  for (int i = 0; i < 4; i++) pthread_create(&writers[i], NULL, open_and_close, names[i]);
  for (int i = 0; i < 4; i++) pthread_join(writers[i], NULL);
  stop = 1;
  for (int i = 0; i < 2; i++) pthread_join(readers[i], NULL);
  char line[4096];
  FILE *maps = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, maps))
    if (strstr(line, "/libplain.so") || strstr(line, "/libuser.so") || strstr(line, "/libother.so"))
      fail(line);
}

/* Images of glibc's may go at any time, except those that we count. */
static void host_libraries_go(void) {
  pthread_t readers[2], glibcs[2], ours;
  for (int i = 0; i < 2; i++) pthread_create(&readers[i], NULL, read_all, NULL);
  pthread_create(&glibcs[0], NULL, host_open_and_close, "./libplain.so");
  pthread_create(&glibcs[1], NULL, host_open_and_close, "./libuser.so");
  pthread_create(&ours, NULL, open_and_close, "./libother.so");
  for (int i = 0; i < 2; i++) pthread_join(glibcs[i], NULL);
  pthread_join(ours, NULL);
  stop = 1;
  for (int i = 0; i < 2; i++) pthread_join(readers[i], NULL);
}

static void fork_under_load(void) {
  pthread_t writers[2];
  pthread_create(&writers[0], NULL, open_and_close, "./libuser.so");
  pthread_create(&writers[1], NULL, open_and_close, "./libother.so");
  for (int i = 0; i < 50; i++) {
    pid_t child = fork();
    if (child == 0) {
      alarm(120);
      DLOPEN_image *image = open_library("./libplain.so");
      if (call(image, "answer") != 42) _exit(1);
      close_library(image);
      _exit(0);
    }
    check_child(child);
  }
  for (int i = 0; i < 2; i++) pthread_join(writers[i], NULL);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  void *linker = dlopen(argv[1], RTLD_NOW);
  if (!linker) fail(dlerror());
  our_open = (__typeof__(our_open))dlsym(linker, "DLOPEN_open");
  our_existing = (__typeof__(our_existing))dlsym(linker, "DLOPEN_existing");
  our_close = (__typeof__(our_close))dlsym(linker, "DLOPEN_close");
  our_find = (__typeof__(our_find))dlsym(linker, "DLOPEN_symbol_find");
  our_address = (__typeof__(our_address))dlsym(linker, "DLOPEN_address");
  our_images = (__typeof__(our_images))dlsym(linker, "DLOPEN_images");
  our_info = (__typeof__(our_info))dlsym(linker, "DLOPEN_info");
  our_enter = (__typeof__(our_enter))dlsym(linker, "DLOPEN_read_enter");
  our_leave = (__typeof__(our_leave))dlsym(linker, "DLOPEN_read_leave");
  our_message = (__typeof__(our_message))dlsym(linker, "DLOPEN_message");
  alarm(120); /* a deadlock ends here */
  if (strcmp(argv[2], "at once") == 0)
    at_once();
  else if (strcmp(argv[2], "same library") == 0)
    same_library();
  else if (strcmp(argv[2], "waiter not awake") == 0)
    waiter_not_awake();
  else if (strcmp(argv[2], "existing library") == 0)
    existing_library();
  else if (strcmp(argv[2], "first call") == 0)
    first_call();
  else if (strcmp(argv[2], "fork in constructor") == 0)
    fork_in_constructor();
  else if (strcmp(argv[2], "two linkers") == 0)
    two_linkers();
  else if (strcmp(argv[2], "stress") == 0)
    stress();
  else if (strcmp(argv[2], "host libraries go") == 0)
    host_libraries_go();
  else if (strcmp(argv[2], "fork under load") == 0)
    fork_under_load();
  else
    open_library(argv[2]);
  dprintf(1, "done\n");
  return 0;
}
