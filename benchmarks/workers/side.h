/* What the workers share: the loader that is measured, the clocks, and the harness's protocol.
 *
 *   WORKER SIDE LIBRARY [--with LIBRARY]... TASK ARGUMENT...
 *
 * A worker measures one side: "libc", which is whatever the names of <dlfcn.h> mean here, so ours
 * under the preload; "dlopen", which is libdlopen.so, brought in by libc; or another loader, which
 * LIBRARY exports as peer_SIDE_open and so on.  No loader sees what another one has loaded, and
 * the harness lets workers of all sides take turns.  --with has libc load a library before.
 *
 * A worker says "ready", then makes a round for each line that comes, which holds a number, and
 * answers "METRIC VALUE ..." on one line.  It ends with status NOT_DONE where the side has no such
 * thing.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dlopen.h"

enum { NOT_DONE = 77, BATCH = 15 };

typedef int visit_header(struct dl_phdr_info *, size_t, void *);

static struct {
  void *(*open)(const char *, int);
  int (*close)(void *);
  void *(*symbol)(void *, const char *);
  int (*address)(const void *, Dl_info *);
  int (*iterate)(visit_header *, void *);
  void *(*open_bytes)(const char *, const void *, size_t);
  int (*close_bytes)(void *);
} loader;

static int (*request_open)(const struct DLOPEN_request *, DLOPEN_image **, struct DLOPEN_error *);
static int (*image_close)(DLOPEN_image *, struct DLOPEN_error *);
static size_t (*error_message)(const struct DLOPEN_error *, char *, size_t);
static struct DLOPEN_error error;

__attribute__((noreturn)) static void fail(const char *what, const char *reason)
{
  fprintf(stderr, "%s: %s\n", what, reason ? reason : "no reason given");
  _exit(1);
}

__attribute__((unused)) static void need(int has, const char *what)
{
  if (has) return;
  fprintf(stderr, "no %s\n", what);
  _exit(NOT_DONE);
}

static uint64_t read_clock(clockid_t clock)
{
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* For what takes microseconds, many times: the median of a batch sees no other process. */
__attribute__((unused)) static uint64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

/* For what takes longer, or happens once. */
__attribute__((unused)) static uint64_t cpu_time(void)
{
  return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

static int compare_values(const void *one, const void *other)
{
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

/* The value that this share of the others is below; they are sorted. */
__attribute__((unused)) static double share_of(double *values, int count, double share)
{
  qsort(values, (size_t)count, sizeof *values, compare_values);
  return values[(int)(share * (count - 1) + 0.5)];
}

__attribute__((unused)) static double median_of(double *values, int count)
{
  return share_of(values, count, 0.5);
}

static void report(const char *metric, double value) { printf("%s %.2f ", metric, value); }

static void *open_of_ours(const char *name, const void *bytes, size_t size, int mode,
                          uint32_t flags)
{
  struct DLOPEN_request request;
  DLOPEN_image *image = NULL;
  memset(&request, 0, sizeof request);
  request.size = sizeof request;
  request.name = name;
  request.bytes = bytes;
  request.bytes_size = size;
  request.mode = (uint32_t)mode;
  request.flags = flags;
  if (request_open(&request, &image, &error) != DLOPEN_OK) {
    char text[1024];
    error_message(&error, text, sizeof text);
    fail(name, text);
  }
  return image;
}

static void *open_bytes_of_ours(const char *name, const void *bytes, size_t size)
{
  return open_of_ours(name, bytes, size, RTLD_NOW, 0);
}

static void *open_into_arena(const char *path, int mode)
{
  return open_of_ours(path, NULL, 0, mode, DLOPEN_ARENA);
}

static int close_bytes_of_ours(void *image)
{
  return image_close((DLOPEN_image *)image, &error);
}

/* A symbol of this library itself, and not of libc, which it depends on. */
static void *own(void *library, const char *name)
{
  void *address = dlsym(library, name);
  struct link_map *map;
  Dl_info info;
  if (address && (dlinfo(library, RTLD_DI_LINKMAP, &map) || !dladdr(address, &info) ||
                  (ElfW(Addr))info.dli_fbase != map->l_addr))
    return NULL;
  return address;
}

static void *peer(void *library, const char *side, const char *what)
{
  char name[256];
  snprintf(name, sizeof name, "peer_%s_%s", side, what);
  for (char *at = name; *at; at++)
    if (*at == '-') *at = '_';
  return own(library, name);
}

#define TAKE(function, address) ((function) = (__typeof__(function))(address))

static void take_loader(const char *side, const char *path)
{
  if (!strcmp(side, "libc")) {
    loader.open = dlopen;
    loader.close = dlclose;
    loader.symbol = dlsym;
    TAKE(loader.address, dladdr);
    loader.iterate = dl_iterate_phdr;
    return;
  }
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(path, dlerror());
  if (!strcmp(side, "dlopen")) {
    TAKE(loader.open, own(library, "dlopen"));
    TAKE(loader.close, own(library, "dlclose"));
    TAKE(loader.symbol, own(library, "dlsym"));
    TAKE(loader.address, own(library, "dladdr"));
    TAKE(loader.iterate, own(library, "dl_iterate_phdr"));
    TAKE(request_open, own(library, "DLOPEN_open"));
    TAKE(image_close, own(library, "DLOPEN_close"));
    TAKE(error_message, own(library, "DLOPEN_message"));
    loader.open_bytes = open_bytes_of_ours;
    loader.close_bytes = close_bytes_of_ours;
  } else {
    TAKE(loader.open, peer(library, side, "open"));
    TAKE(loader.close, peer(library, side, "close"));
    TAKE(loader.symbol, peer(library, side, "symbol"));
    TAKE(loader.address, peer(library, side, "address"));
    TAKE(loader.iterate, peer(library, side, "iterate"));
    TAKE(loader.open_bytes, peer(library, side, "open_bytes"));
    loader.close_bytes = loader.close;
  }
  if (!loader.open || !loader.close) fail(path, "exports no loader");
}

/* Stays for as long as the process unless it is closed. */
__attribute__((unused)) static void *hold(const char *path, int mode)
{
  void *handle = loader.open(path, mode);
  if (!handle) fail(path, loader.open == dlopen ? dlerror() : "cannot be opened");
  return handle;
}

/* One of the numbered copies of a library. */
__attribute__((unused)) static const char *copy_path(const char *folder, long number)
{
  static __thread char path[4096];
  snprintf(path, sizeof path, "%s/libcopy%05ld.so", folder, number);
  return path;
}

__attribute__((unused)) static void hold_copies(const char *folder, long count, int mode)
{
  for (long i = 0; i < count; i++) hold(copy_path(folder, i), mode);
}

static int has_name(struct dl_phdr_info *info, size_t size, void *name)
{
  return size && !strcmp(info->dlpi_name, (const char *)name);
}

/* A library that stays would make the second open a lookup. */
__attribute__((unused)) static void need_unloaded(const char *path)
{
  char line[4096], *real = realpath(path, NULL);
  FILE *maps = fopen("/proc/self/maps", "r");
  while (real && maps && fgets(line, sizeof line, maps))
    if (strstr(line, real))
      fail(path, "is loaded, before or after it was closed: not a measure of loading");
  fclose(maps);
  /* One in the arena is in no line of the map. */
  if (real && loader.open == open_into_arena && loader.iterate(has_name, real))
    fail(path, "stays");
  free(real);
}

/* What a worker is asked: the task's name and its arguments. */
struct work {
  const char *task;
  char **arguments;
  int count;
};

static struct work begin(int count, char **arguments)
{
  char **next = arguments + 3, **end = arguments + count;
  if (count < 4) fail(arguments[0], "SIDE LIBRARY [--with LIBRARY]... TASK ARGUMENT...");
  for (; next + 2 < end && !strcmp(*next, "--with"); next += 2)
    if (!dlopen(next[1], RTLD_NOW | RTLD_GLOBAL)) fail(next[1], dlerror());
  take_loader(arguments[1], arguments[2]);
  struct work work = { *next, next + 1, (int)(end - next - 1) };
  return work;
}

/* Where `make bench-check` counts: a function of its own, whatever the compiler makes of others. */
__attribute__((noinline)) static void one_round(void (*round)(long), const char *line)
{
  round(atol(line));
}

/* The rounds, until the harness has enough; then no destructor runs. */
static void serve(void (*round)(long request))
{
  char line[64];
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    one_round(round, line);
    puts("");
    fflush(stdout);
  }
  _exit(0);
}
