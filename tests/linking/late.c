/* late LOADER LIBRARY LOOK: an unwinder that is not there when the program starts.  libpass.so, which
 * has frames only, is opened first; then glibc opens LIBRARY, whose int through(pass) throws through
 * pass(callback) and catches; LOOK is "look" for a lookup in between.  LIBRARY is "" for what libc
 * itself brings in: cancellation and backtrace(3). */
#define _GNU_SOURCE
#include <execinfo.h>
#include <pthread.h>
#include <stdlib.h>

#include "loader.h"

typedef void callback(void);
typedef void pass(callback *);

static pass *pass_on;
static volatile int started, cleaned;

static int is_mapped(const char *text, const char *permissions) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[8192];
  int mapped = 0;
  while (fgets(line, sizeof line, maps)) mapped += strstr(line, text) && strstr(line, permissions);
  fclose(maps);
  return mapped;
}

static void clean(void *unused) {
  (void)unused;
  cleaned = 1;
}

static void wait_for_ever(void) {
  started = 1;
  for (;;) pause();
}

static void *run(void *unused) {
  pthread_cleanup_push(clean, NULL);
  pass_on(wait_for_ever);
  pthread_cleanup_pop(0);
  return unused;
}

static void cancel(void) {
  pthread_t thread;
  void *result;
  pthread_create(&thread, NULL, run, NULL);
  while (!started) usleep(100);
  pthread_cancel(thread);
  pthread_join(thread, &result);
  printf("%s %d\n", result == PTHREAD_CANCELED ? "cancelled" : "returned", cleaned);
}

static void trace(void) {
  void *frames[32];
  int count = backtrace(frames, 32);
  for (int i = 0; i < count; i++) {
    const char *name = name_at(frames[i]);
    if (!name) continue;
    printf("%s ", name);
    if (strcmp(name, "main") == 0) break;
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  alarm(120);
  if (is_mapped("/libgcc_s", "")) failed("libgcc_s", "is there already");
  use_loader(argv[1]);
  pass_on = (pass *)library_find(library_open("./libpass.so"), "pass");
  if (argv[2][0] == 0) {
    cancel();
    pass_on(trace);
    return 0;
  }
  void *host = dlopen(argv[2], RTLD_NOW);
  if (!host) failed(argv[2], dlerror());
  int (*through)(pass *) = (int (*)(pass *))dlsym(host, "through");
  /* The data of a library, and what RELRO has closed of it. */
  int open_pages = is_mapped(argv[2], "rw-p"), closed_pages = is_mapped(argv[2], "r--p");
  if (strcmp(argv[3], "look") == 0) name_at((void *)through);
  if (is_mapped(argv[2], "rw-p") != open_pages || is_mapped(argv[2], "r--p") != closed_pages)
    failed(argv[2], "has other permissions than before");
  printf("%d\n", through(pass_on));
  return 0;
}
