/* The C side of the benchmarks: libc's loader and libdlopen.so in turn, in one process.
 *
 *   native LIBDLOPEN [--with LIBRARY]... TASK
 *
 *   open ROUNDS PATH            opening and closing
 *   special ROUNDS PATH         from bytes and PRIVATE: libc has no such thing
 *   lookup ROUNDS PATH NAME...  nanoseconds a symbol
 *   iterate ROUNDS PATH...      nanoseconds an image of the process, these among them
 *   alone SIDE ROUNDS PATH      open and close by "libc" or "dlopen" only
 *
 * --with has libc load a library before.  Output: "METRIC LIBC DLOPEN" a round, nanoseconds, "-"
 * where there is no such thing; alone: totals.  libdlopen.so is not linked to but loaded, so that
 * the names of <dlfcn.h> below are libc's; where it exports the same name, that is what is
 * measured, else the DLOPEN_ function.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "dlopen.h"

enum { WARM_UP = 10 };

static void *linker;
static uint32_t (*abi)(void);
static int (*request_open)(const struct DLOPEN_request *, DLOPEN_image **, struct DLOPEN_error *);
static int (*image_close)(DLOPEN_image *, struct DLOPEN_error *);
static int (*symbol_find)(DLOPEN_image *, const char *, const char *, uint32_t,
                          struct DLOPEN_symbol *, struct DLOPEN_error *);
static size_t (*images)(DLOPEN_image **, size_t);
static int (*image_info)(DLOPEN_image *, struct DLOPEN_info *);
static size_t (*message)(const struct DLOPEN_error *, char *, size_t);
/* NULL while libdlopen.so does not export them */
static void *(*our_dlopen)(const char *, int);
static int (*our_dlclose)(void *);
static void *(*our_dlsym)(void *, const char *);
/* By address: libdlopen.so binds the name to its own in this program. */
static int (*libc_iterate)(int (*)(struct dl_phdr_info *, size_t, void *), void *);
static int (*our_iterate)(int (*)(struct dl_phdr_info *, size_t, void *), void *);

static struct DLOPEN_error error;

static void fail(const char *what, const char *reason)
{
  fprintf(stderr, "%s: %s\n", what, reason);
  exit(1);
}

/* A symbol of libdlopen.so itself: not of libc, which it depends on. */
static void *own(const char *name, int needed)
{
  void *address = dlsym(linker, name);
  Dl_info of_linker, of_address;
  if (address &&
      (!dladdr(dlsym(linker, "DLOPEN_abi"), &of_linker) || !dladdr(address, &of_address) ||
       of_linker.dli_fbase != of_address.dli_fbase))
    address = NULL;
  if (!address && needed) fail(name, "not exported by libdlopen.so");
  return address;
}

static uint64_t now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void *libc_open(const char *path)
{
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) fail(path, dlerror());
  return handle;
}

static void *ours_open_as(const char *path, const void *bytes, size_t size, uint32_t mode)
{
  DLOPEN_image *image = NULL;
  char text[1024];
  struct DLOPEN_request request = { .size = sizeof request, .name = path, .bytes = bytes,
                                    .bytes_size = size, .mode = mode };
  if (request_open(&request, &image, &error) != DLOPEN_OK) {
    message(&error, text, sizeof text);
    fail(path, text);
  }
  return image;
}

static void *ours_open(const char *path)
{
  if (!our_dlopen) return ours_open_as(path, NULL, 0, RTLD_NOW | RTLD_LOCAL);
  void *handle = our_dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) fail(path, "our dlopen fails");
  return handle;
}

static void ours_close(void *handle)
{
  if (our_dlclose ? our_dlclose(handle) : image_close(handle, &error)) fail("close", "fails");
}

static void libc_close(void *handle)
{
  if (dlclose(handle)) fail("dlclose", dlerror());
}

static const struct side { void *(*open)(const char *); void (*close)(void *); } sides[2] = {
  { libc_open, libc_close }, { ours_open, ours_close } };

/* A library that stays would make the second open a lookup. */
static void need_unloaded(const char *path)
{
  char line[4096], *real = realpath(path, NULL);
  FILE *maps = fopen("/proc/self/maps", "r");
  while (real && maps && fgets(line, sizeof line, maps))
    if (strstr(line, real))
      fail(path, "is loaded, before or after it was closed: not a measure of loading");
  fclose(maps);
  free(real);
}

/* Each side opens twice in its turn: the first open finds what the other side's loader changed,
 * which is a price of taking turns and is given apart; the second one is the measure. */
static void run_open(long rounds, const char *path)
{
  need_unloaded(path);
  for (long round = -WARM_UP; round < rounds; round++) {
    uint64_t after_other[2], opened[2], closed[2];
    for (int turn = 0; turn < 2; turn++) {
      int side = turn ^ (int)(round & 1);
      for (int pass = 0; pass < 2; pass++) {
        uint64_t start = now();
        void *handle = sides[side].open(path);
        uint64_t middle = now();
        sides[side].close(handle);
        closed[side] = now() - middle;
        opened[side] = middle - start;
        if (pass == 0) after_other[side] = opened[side];
      }
      if (round == -WARM_UP) need_unloaded(path);
    }
    if (round < 0) continue;
    printf("open %" PRIu64 " %" PRIu64 "\n", opened[0], opened[1]);
    printf("close %" PRIu64 " %" PRIu64 "\n", closed[0], closed[1]);
    printf("open+close %" PRIu64 " %" PRIu64 "\n", opened[0] + closed[0], opened[1] + closed[1]);
    printf("open-after-other %" PRIu64 " %" PRIu64 "\n", after_other[0], after_other[1]);
  }
}

static void run_special(long rounds, const char *path)
{
  struct stat status;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &status)) fail(path, "cannot be read");
  size_t size = (size_t)status.st_size;
  void *content = malloc(size);
  if (!content || read(file, content, size) != status.st_size) fail(path, "cannot be read");
  close(file);
  for (long round = -WARM_UP; round < rounds; round++) {
    uint64_t start = now();
    image_close(ours_open_as(path, content, size, RTLD_NOW | DLOPEN_PRIVATE), &error);
    uint64_t middle = now();
    image_close(ours_open_as(path, NULL, 0, RTLD_NOW | DLOPEN_PRIVATE), &error);
    uint64_t end = now();
    if (round >= 0)
      printf("from-bytes - %" PRIu64 "\nprivate - %" PRIu64 "\n", middle - start, end - middle);
  }
}

static volatile uintptr_t sink;

static double find_all(int side, void *handle, char **names, int count, int there)
{
  struct DLOPEN_symbol symbol;
  uint64_t start = now();
  for (int i = 0; i < count; i++) {
    uintptr_t found;
    if (side == 0) found = (uintptr_t)dlsym(handle, names[i]);
    else if (our_dlsym) found = (uintptr_t)our_dlsym(handle, names[i]);
    else found = symbol_find(handle, names[i], NULL, 0, &symbol, &error) ? 0 : symbol.address;
    if ((found != 0) != there) fail(names[i], there ? "not found" : "found");
    sink = found;
  }
  return (double)(now() - start) / count;
}

static void run_lookup(long rounds, const char *path, char **names, int count)
{
  /* Ours first: what libc has loaded is what we would find. */
  void *handles[2] = { NULL, ours_open(path) };
  handles[0] = libc_open(path);
  char **missing = malloc((size_t)count * sizeof *missing);
  for (int i = 0; i < count; i++)
    if (asprintf(&missing[i], "%s_missing", names[i]) < 0) fail("memory", "none");
  for (long round = -WARM_UP; round < rounds; round++) {
    double hit[2], miss[2];
    for (int turn = 0; turn < 2; turn++) {
      int side = turn ^ (int)(round & 1);
      hit[side] = find_all(side, handles[side], names, count, 1);
      miss[side] = find_all(side, handles[side], missing, count, 0);
    }
    dlerror();
    if (round >= 0) printf("hit %.1f %.1f\nmiss %.1f %.1f\n", hit[0], hit[1], miss[0], miss[1]);
  }
}

static int count_header(struct dl_phdr_info *info, size_t size, void *data)
{
  sink = (uintptr_t)info->dlpi_phdr + size;
  ++*(size_t *)data;
  return 0;
}

enum { CAPACITY = 4096, PASSES = 100 };

static size_t ours_iterate(void)
{
  static DLOPEN_image *found[CAPACITY];
  struct DLOPEN_info info = { .size = sizeof info };
  size_t count = 0;
  if (our_iterate) {
    our_iterate(count_header, &count);
    return count;
  }
  count = images(found, CAPACITY);
  for (size_t i = 0; i < count; i++) {
    image_info(found[i], &info);
    sink = info.phdr;
  }
  return count;
}

static void run_iterate(long rounds, char **paths, int count)
{
  for (int i = 0; i < count; i++) libc_open(paths[i]);
  for (long round = -WARM_UP; round < rounds; round++) {
    double took[2];
    size_t seen[2];
    for (int turn = 0; turn < 2; turn++) {
      int side = turn ^ (int)(round & 1);
      uint64_t start = now();
      for (int pass = 0; pass < PASSES; pass++) {
        seen[side] = 0;
        if (side == 0) libc_iterate(count_header, &seen[0]);
        else seen[1] = ours_iterate();
      }
      took[side] = (double)(now() - start) / PASSES / (double)seen[side];
    }
    /* The vDSO is an image for libc and may be none for us. */
    if (seen[0] != seen[1] && seen[0] != seen[1] + 1) {
      fprintf(stderr, "libc has %zu images, libdlopen %zu\n", seen[0], seen[1]);
      exit(1);
    }
    if (round >= 0) printf("an-image %.2f %.2f\n", took[0], took[1]);
  }
}

static double seconds(struct timeval time)
{
  return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void run_alone(const char *name, long rounds, const char *path)
{
  const struct side *side = &sides[!strcmp(name, "dlopen")];
  struct rusage before, after;
  for (int i = 0; i < WARM_UP; i++) side->close(side->open(path));
  getrusage(RUSAGE_SELF, &before);
  uint64_t start = now();
  for (long i = 0; i < rounds; i++) side->close(side->open(path));
  uint64_t took = now() - start;
  getrusage(RUSAGE_SELF, &after);
  if (!rounds) return;
  printf("wall_us %.2f\nuser_us %.2f\nsystem_us %.2f\nfaults %.2f\n",
         (double)took / 1e3 / (double)rounds,
         (seconds(after.ru_utime) - seconds(before.ru_utime)) * 1e6 / (double)rounds,
         (seconds(after.ru_stime) - seconds(before.ru_stime)) * 1e6 / (double)rounds,
         (double)(after.ru_minflt - before.ru_minflt) / (double)rounds);
}

int main(int count, char **arguments)
{
  char **next = arguments + 2, **end = arguments + count;
  if (count < 5) return 2;
  linker = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (!linker) fail(arguments[1], dlerror());
  abi = own("DLOPEN_abi", 1);
  request_open = own("DLOPEN_open", 1);
  image_close = own("DLOPEN_close", 1);
  symbol_find = own("DLOPEN_symbol_find", 1);
  images = own("DLOPEN_images", 1);
  image_info = own("DLOPEN_info", 1);
  message = own("DLOPEN_message", 1);
  our_dlopen = own("dlopen", 0);
  our_dlclose = own("dlclose", 0);
  our_dlsym = own("dlsym", 0);
  libc_iterate = (__typeof__(libc_iterate))dlsym(RTLD_NEXT, "dl_iterate_phdr");
  our_iterate = own("dl_iterate_phdr", 0);
  if (abi() != DLOPEN_ABI) fail(arguments[1], "has another ABI");
  while (next + 2 < end && !strcmp(*next, "--with")) {
    if (!dlopen(next[1], RTLD_NOW | RTLD_GLOBAL)) fail(next[1], dlerror());
    next += 2;
  }
  const char *task = *next++;
  if (!strcmp(task, "alone") && next + 3 == end) run_alone(next[0], atol(next[1]), next[2]);
  else if (!strcmp(task, "open") && next + 2 == end) run_open(atol(next[0]), next[1]);
  else if (!strcmp(task, "special") && next + 2 == end) run_special(atol(next[0]), next[1]);
  else if (!strcmp(task, "lookup") && next + 2 < end)
    run_lookup(atol(next[0]), next[1], next + 2, (int)(end - next - 2));
  else if (!strcmp(task, "iterate") && next + 1 < end)
    run_iterate(atol(next[0]), next + 1, (int)(end - next - 1));
  else return 2;
  return 0;
}
