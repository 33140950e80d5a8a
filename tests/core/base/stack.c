/* stack LOADER OPERATION: how many bytes of stack an operation takes: a thread's stack is painted,
 * and looked at afterwards.  LOADER is "glibc", or the path of libdlopen.so, whose dlopen, dlsym and
 * dlclose are called.  Says "OPERATION BYTES", and for `state` what x86-64's XSAVE area takes (Intel
 * SDM 1, 13.5). */
#define _GNU_SOURCE
#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 1 << 18, PAINT = 0xa5 };

static __typeof__(dlopen) *open_it = dlopen;
static __typeof__(dlsym) *find_it = dlsym;
static __typeof__(dlclose) *close_it = dlclose;
static __typeof__(dlerror) *say_it = dlerror;
static unsigned char *stack;
static const char *name = "./libplain.so";
static int mode = RTLD_LAZY;
static void *handle;
static int (*call)(void);

static void do_open(void) { handle = open_it(name, mode); }
static void do_close(void) { close_it(handle); }
static void do_call(void) { call(); }
static void do_find(void) { find_it(handle, "nonesuch"); }

static void (*volatile operation)(void);
static size_t used;

enum { FRAME = 256 };                /* more than that of this function */

static void *run(void *unused) {
  (void)unused;
  unsigned char *here = __builtin_frame_address(0);
  volatile unsigned char *at;
  for (at = stack; at < here - FRAME; at++) *at = PAINT;
  operation();
  for (at = stack; at < here - FRAME && *at == PAINT;) at++;
  used = (size_t)(here - at);
  return NULL;
}

static size_t measure(void (*what)(void)) {
  pthread_attr_t attributes;
  pthread_t thread;
  operation = what;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, SIZE);
  if (pthread_create(&thread, &attributes, run, NULL)) exit(3);
  pthread_join(thread, NULL);
  return used;
}

static void say(const char *what, size_t bytes) { printf("%s %zu\n", what, bytes); }

static void need(int holds, const char *what) {
  if (holds) return;
  const char *message = say_it();
  printf("failed: %s: %s\n", what, message ? message : "");
  exit(1);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  if (strcmp(argv[1], "glibc")) {
    void *linker = dlopen(argv[1], RTLD_NOW);
    if (!linker) return 2;
    open_it = (__typeof__(open_it))dlsym(linker, "dlopen");
    find_it = (__typeof__(find_it))dlsym(linker, "dlsym");
    close_it = (__typeof__(close_it))dlsym(linker, "dlclose");
    say_it = (__typeof__(say_it))dlsym(linker, "dlerror");
  }
  stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const char *what = argv[2];
  if (strcmp(what, "state") == 0) {
#ifndef __x86_64__
    return printf("state 0\n"), 0;
#else
    unsigned size = 0, a, b, c, d, low, high;
    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE)) return printf("state 512\n"), 0;
    __asm__ volatile ("xgetbv" : "=a" (low), "=d" (high) : "c" (0));
    size = 576;
    for (unsigned i = 2; i < 8; i++) {
      if (!(low >> i & 1)) continue;
      __cpuid_count(13, i, a, b, c, d);
      if (a + b > size) size = a + b;
    }
    printf("state %u\n", (size + 63) / 64 * 64);
    return 0;
#endif
  }
  if (strncmp(what, "first-", 6)) {    /* not the first of the process */
    name = "./libother.so";
    do_open();
    need(handle != NULL, name);
    do_close();
  }
  name = argc > 3 ? argv[3] : "./libplain.so";
  if (argc > 4) mode = atoi(argv[4]);
  if (strstr(what, "open")) {
    say(what, measure(do_open));
    need(strstr(what, "failed") ? !handle : handle != NULL, name);
    return 0;
  }
  do_open();
  need(handle != NULL, name);
  if (strstr(what, "close")) say(what, measure(do_close));
  else if (strstr(what, "find")) say(what, measure(do_find));
  else {
    call = (int (*)(void))find_it(handle, "call");
    need(call != NULL, "call");
    say(what, measure(do_call));
    need(call() == 7, "the call");
  }
  return 0;
}
