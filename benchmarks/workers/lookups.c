/* What is asked of libraries that are open, in nanoseconds for each question; see side.h.
 *
 *   symbols PATH NAME...    dlsym of names that are there, and of some that are not
 *   default FOLDER COUNT    a name of the last of so many copies, all of them RTLD_GLOBAL
 *   iterate FOLDER COUNT    a whole dl_iterate_phdr beside so many copies
 *   address FOLDER COUNT    dladdr of functions of so many copies
 */
#include "side.h"

enum { PASSES = 200 };

static struct work work;
static void *handle;
static char **missing;
static char last[64];
static void **functions;
static long copies;
static volatile uintptr_t sink;

static void begin_symbols(void)
{
  need(loader.symbol != NULL, "dlsym");
  handle = hold(work.arguments[0], RTLD_NOW);
  missing = malloc((size_t)work.count * sizeof *missing);
  for (int i = 1; i < work.count; i++)
    if (asprintf(&missing[i], "%s_missing", work.arguments[i]) < 0) fail("memory", "none");
}

static double find_all(char **names, int there)
{
  uint64_t start = now();
  for (int i = 1; i < work.count; i++) {
    sink = (uintptr_t)loader.symbol(handle, names[i]);
    if ((sink != 0) != there) fail(names[i], there ? "not found" : "found");
  }
  return (double)(now() - start) / (work.count - 1);
}

static void round_symbols(long request)
{
  double hit[BATCH], miss[BATCH];
  (void)request;
  for (int i = 0; i < BATCH; i++) hit[i] = find_all(work.arguments, 1);
  for (int i = 0; i < BATCH; i++) miss[i] = find_all(missing, 0);
  report("hit", median_of(hit, BATCH));
  report("miss", median_of(miss, BATCH));
}

static void begin_copies(int mode)
{
  copies = atol(work.arguments[1]);
  hold_copies(work.arguments[0], copies, RTLD_NOW | mode);
  snprintf(last, sizeof last, "copy%05ld", copies - 1);
}

static void begin_default(void)
{
  need(loader.symbol != NULL, "dlsym");
  begin_copies(RTLD_GLOBAL);
  need(loader.symbol(RTLD_DEFAULT, last) != NULL, "RTLD_DEFAULT that finds what is global");
}

static void round_default(long request)
{
  double took[BATCH];
  (void)request;
  for (int i = 0; i < BATCH; i++) {
    uint64_t start = now();
    for (int pass = 0; pass < PASSES; pass++) sink = (uintptr_t)loader.symbol(RTLD_DEFAULT, last);
    took[i] = (double)(now() - start) / PASSES;
  }
  report("lookup", median_of(took, BATCH));
}

static int count_header(struct dl_phdr_info *info, size_t size, void *data)
{
  sink = (uintptr_t)info->dlpi_phdr + size;
  ++*(long *)data;
  return 0;
}

static void begin_iterate(void)
{
  need(loader.iterate != NULL, "dl_iterate_phdr");
  begin_copies(RTLD_LOCAL);
}

static void round_iterate(long request)
{
  double took[BATCH];
  (void)request;
  for (int i = 0; i < BATCH; i++) {
    long seen = 0;
    uint64_t start = now();
    for (int pass = 0; pass < PASSES; pass++) loader.iterate(count_header, &seen);
    took[i] = (double)(now() - start) / PASSES;
    if (seen < copies * PASSES) fail("dl_iterate_phdr", "does not show what is loaded");
  }
  report("iteration", median_of(took, BATCH));
}

static void begin_address(void)
{
  need(loader.address != NULL && loader.symbol != NULL, "dladdr");
  copies = atol(work.arguments[1]);
  functions = malloc((size_t)copies * sizeof *functions);
  for (long i = 0; i < copies; i++) {
    char name[64];
    snprintf(name, sizeof name, "copy%05ld", i);
    functions[i] = loader.symbol(hold(copy_path(work.arguments[0], i), RTLD_NOW), name);
    if (!functions[i]) fail(name, "not found");
  }
}

static void round_address(long request)
{
  double took[BATCH];
  long next = 0;
  (void)request;
  for (int i = 0; i < BATCH; i++) {
    uint64_t start = now();
    for (int pass = 0; pass < PASSES; pass++) {
      Dl_info info;
      next = (next + 7) % copies;
      if (!loader.address(functions[next], &info)) fail("dladdr", "does not find a function");
      sink = (uintptr_t)info.dli_saddr;
    }
    took[i] = (double)(now() - start) / PASSES;
  }
  report("dladdr", median_of(took, BATCH));
}

int main(int count, char **arguments)
{
  work = begin(count, arguments);
  if (work.count < 2) fail(work.task, "too few arguments");
  if (!strcmp(work.task, "symbols")) {
    begin_symbols();
    serve(round_symbols);
  } else if (!strcmp(work.task, "default")) {
    begin_default();
    serve(round_default);
  } else if (!strcmp(work.task, "iterate")) {
    begin_iterate();
    serve(round_iterate);
  } else if (!strcmp(work.task, "address")) {
    begin_address();
    serve(round_address);
  }
  fail(work.task, "no such task");
}
