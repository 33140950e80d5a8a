/* Opening and closing; see side.h.
 *
 *   open PATH [HELD]...     open and close, while HELD are open
 *   arena PATH              the same; ours reads it into the arena
 *   first PATH              the first open of this process, once
 *   life PATH               the same, and its close
 *   fill FOLDER COUNT       so many copies opened one after the other, and closed
 *   scale FOLDER MODE SECONDS PROBE
 *                           each round says how many copies are held; open and close of PROBE
 *   bytes PATH              from bytes; libc's way is a file in memory
 *   counting PATH           open and close of what is held open
 *   memory FOLDER COUNT     anonymous memory and mappings for each of so many copies
 */
#include "side.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static struct work work;

static void shut(void *handle)
{
  if (loader.close(handle)) fail("close", "fails");
}

static void report_batch(double *opened, double *closed)
{
  double both[BATCH];
  for (int i = 0; i < BATCH; i++) both[i] = opened[i] + closed[i];
  report("open", median_of(opened, BATCH));
  report("close", median_of(closed, BATCH));
  report("open+close", median_of(both, BATCH));
}

static void open_and_close(const char *path, int mode, double *opened, double *closed)
{
  uint64_t start = now();
  void *handle = hold(path, mode);
  uint64_t middle = now();
  shut(handle);
  *closed = (double)(now() - middle);
  *opened = (double)(middle - start);
}

/* The first is not counted: it finds the caches as the other sides have left them. */
static void measure(const char *path, int mode)
{
  double opened[BATCH], closed[BATCH];
  for (int i = -1; i < BATCH; i++) {
    int at = i < 0 ? 0 : i;
    open_and_close(path, mode, &opened[at], &closed[at]);
  }
  report_batch(opened, closed);
}

static void round_open(long request)
{
  (void)request;
  measure(work.arguments[0], RTLD_NOW);
}

static void round_life(long request)
{
  (void)request;
  uint64_t start = cpu_time();
  void *handle = hold(work.arguments[0], RTLD_NOW);
  uint64_t middle = cpu_time();
  report("open", (double)(middle - start));
  if (!strcmp(work.task, "first")) return;
  shut(handle);
  report("close", (double)(cpu_time() - middle));
  need_unloaded(work.arguments[0]);
}

static void round_fill(long request)
{
  (void)request;
  long count = atol(work.arguments[1]);
  void **handles = malloc((size_t)count * sizeof *handles);
  uint64_t start = cpu_time();
  for (long i = 0; i < count; i++) handles[i] = hold(copy_path(work.arguments[0], i), RTLD_NOW);
  uint64_t middle = cpu_time();
  for (long i = count; i-- > 0;) shut(handles[i]);
  report("open", (double)(middle - start));
  report("close", (double)(cpu_time() - middle));
  need_unloaded(copy_path(work.arguments[0], 0));
  free(handles);
}

static void round_scale(long request)
{
  static long held;
  int mode = RTLD_NOW | (!strcmp(work.arguments[1], "global") ? RTLD_GLOBAL : RTLD_LOCAL);
  uint64_t limit = now() + (uint64_t)atol(work.arguments[2]) * 1000000000;
  while (held < request) {
    if (now() > limit) {
      fprintf(stderr, "only %ld libraries after %s seconds\n", held, work.arguments[2]);
      _exit(NOT_DONE);
    }
    hold(copy_path(work.arguments[0], held++), mode);
  }
  measure(work.arguments[3], mode);
}

static void *content;
static size_t content_size;

static void *open_in_memory(void)
{
  char path[64];
  if (loader.open_bytes) return loader.open_bytes(work.arguments[0], content, content_size);
  int file = memfd_create("library", MFD_CLOEXEC);
  for (size_t done = 0; done < content_size;) {
    ssize_t count = write(file, (char *)content + done, content_size - done);
    if (count <= 0) fail("memfd_create", "cannot be written");
    done += (size_t)count;
  }
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  void *handle = hold(path, RTLD_NOW);
  close(file);
  return handle;
}

static void round_bytes(long request)
{
  int count = content_size > (4 << 20) ? 2 : BATCH;
  double took[BATCH];
  (void)request;
  for (int i = -1; i < count; i++) {
    uint64_t start = cpu_time();
    void *handle = open_in_memory();
    if (!handle) fail(work.arguments[0], "cannot be opened from bytes");
    if (loader.open_bytes ? loader.close_bytes(handle) : loader.close(handle))
      fail("close", "fails");
    if (i >= 0) took[i] = (double)(cpu_time() - start);
  }
  report("open+close", median_of(took, count));
}

static void read_content(const char *path)
{
  struct stat status;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &status)) fail(path, "cannot be read");
  content_size = (size_t)status.st_size;
  content = malloc(content_size);
  for (size_t done = 0; done < content_size;) {
    ssize_t count = read(file, (char *)content + done, content_size - done);
    if (count <= 0) fail(path, "cannot be read");
    done += (size_t)count;
  }
  close(file);
}

static long anonymous_memory(void)
{
  char line[256];
  long found = 0;
  FILE *file = fopen("/proc/self/smaps_rollup", "r");
  if (!file) fail("/proc/self/smaps_rollup", "cannot be read");
  while (fgets(line, sizeof line, file)) sscanf(line, "Anonymous: %ld", &found);
  fclose(file);
  return found * 1024;
}

static long mappings(void)
{
  long found = 0;
  FILE *file = fopen("/proc/self/maps", "r");
  if (!file) fail("/proc/self/maps", "cannot be read");
  for (int byte; (byte = fgetc(file)) != EOF;) found += byte == '\n';
  fclose(file);
  return found;
}

/* The first few are not counted: with them comes what is there once. */
static void round_memory(long request)
{
  enum { FEW = 16 };
  long count = atol(work.arguments[1]);
  (void)request;
  hold_copies(work.arguments[0], FEW, RTLD_NOW);
  anonymous_memory();
  long before = anonymous_memory(), mapped = mappings();
  for (long i = FEW; i < FEW + count; i++) hold(copy_path(work.arguments[0], i), RTLD_NOW);
  report("anonymous", (double)(anonymous_memory() - before) / (double)count);
  report("mappings", (double)(mappings() - mapped) / (double)count);
}

static const struct task {
  const char *name;
  int least;
  void (*round)(long);
} tasks[] = {
  { "open", 1, round_open },     { "arena", 1, round_open },  { "first", 1, round_life },
  { "life", 1, round_life },     { "fill", 2, round_fill },   { "scale", 4, round_scale },
  { "bytes", 1, round_bytes },   { "counting", 1, round_open }, { "memory", 2, round_memory },
};

int main(int count, char **arguments)
{
  work = begin(count, arguments);
  for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
    if (strcmp(work.task, tasks[i].name) || work.count < tasks[i].least) continue;
    if (!strcmp(work.task, "arena") && request_open) loader.open = open_into_arena;
    if (!strcmp(work.task, "open") || !strcmp(work.task, "arena")) {
      double ignored;
      for (int held = 1; held < work.count; held++) hold(work.arguments[held], RTLD_NOW);
      need_unloaded(work.arguments[0]);
      open_and_close(work.arguments[0], RTLD_NOW, &ignored, &ignored);
      need_unloaded(work.arguments[0]);
    }
    if (!strcmp(work.task, "counting")) hold(work.arguments[0], RTLD_NOW);
    if (!strcmp(work.task, "bytes")) read_content(work.arguments[0]);
    serve(tasks[i].round);
  }
  fail(work.task, "no such task");
}
