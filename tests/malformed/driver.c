/* Gives libdlopen.so files that are not what they should be and holds it to its word: an error of
 * loading, or success; never a crash, a hang, or anything left behind.
 *
 *   driver [OPTION]... files PATH...
 *       Each file as it is; one line a file on standard output: PATH, the codes of map, open from
 *       bytes and open from a path, message.  What can be mapped is then relocated by hand, too.
 *   driver [OPTION]... mutate FIRST COUNT BASE
 *       BASE with the edits that the seeds FIRST... stand for; those with an odd seed are opened as
 *       well as mapped.
 *   --limit SECONDS     what one case may take (2)
 *   --batch CASES       how many share a process (200)
 *   --write PATH        mutate: write the file that FIRST stands for, and stop
 *   --plant BUG CASE    do that wrong at the case of this number, to show that it is seen:
 *                       crash, overflow, hang, mapping, descriptor, memory, code
 *
 * Ends with a summary, and with status 1 if a case failed; its line holds the command that repeats
 * it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dlopen.h"
#include "inspect.h"
#include "mutation.h"

/* Of the sanitizers' runtime, when there is one. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));
void __sanitizer_purge_allocator(void) __attribute__((weak));

enum { LEAKED = 100, UNUSABLE = 101 };   /* exit statuses of a batch that no sanitizer uses */
enum { REPEATS = 8 };                    /* growth in each of so many repetitions is a leak */

static double limit = 2;
static uint64_t batch = 200, plant_case = UINT64_MAX;
static const char *plant = "", *program;
static char **paths;                     /* files: one a case; mutate: the base alone */
static int mutating;

/* Written by the process of a batch, read by the one that waits for it. */
static struct {
  uint64_t current, mapped, opened, refused, failed, slowest_case;
  double started, slowest;
} *shared;

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

/* As one word of the shell. */
static void print_quoted(const char *text)
{
  putchar('\'');
  for (; *text; text++)
    if (*text == '\'') fputs("'\\''", stdout);
    else putchar(*text);
  putchar('\'');
}

static void failure(uint64_t number, const char *reason)
{
  shared->failed++;
  const char *path = mutating ? paths[0] : paths[number];
  printf("FAIL %s: %s; again: ", path, reason);
  print_quoted(program);
  printf(" --limit %g ", limit);
  if (*plant && mutating) printf("--plant %s %" PRIu64 " ", plant, plant_case);
  if (mutating) printf("mutate %" PRIu64 " 1 ", number);
  else printf("files ");
  print_quoted(path);
  putchar('\n');
  fflush(stdout);
}

/* ---- the content of a case, at the very end of its pages: one byte too far is a fault ---- */

static unsigned char *pages, *base;
static size_t capacity, base_size;

static void reserve(size_t size)
{
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  capacity = (size + page - 1) / page * page;
  pages = mmap(NULL, capacity + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages + capacity, page, PROT_NONE)) {
    perror("mmap");
    _exit(UNUSABLE);
  }
}

static size_t read_file(const char *path, unsigned char **content)
{
  struct stat status;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0 || fstat(file, &status)) {
    perror(path);
    _exit(UNUSABLE);
  }
  *content = malloc((size_t)status.st_size + 1);
  if (!*content || read(file, *content, (size_t)status.st_size) != status.st_size) _exit(UNUSABLE);
  close(file);
  return (size_t)status.st_size;
}

static size_t content(uint64_t number, unsigned char **data)
{
  unsigned char *file;
  size_t size;
  if (mutating) {
    random_state = number;
    unsigned char *copy = malloc(base_size);
    if (!copy) _exit(UNUSABLE);
    memcpy(copy, base, base_size);
    size = mutate(copy, base_size);
    *data = pages + capacity - size;
    memcpy(*data, copy, size);
    free(copy);
  } else {
    size = read_file(paths[number], &file);
    if (size > capacity) _exit(UNUSABLE);
    *data = pages + capacity - size;
    memcpy(*data, file, size);
    free(file);
  }
  return size;
}

static void misbehave(void);

/* ---- one case ---- */

struct outcome { int map, open, open_path; char message[512]; };

static int stays;                        /* something that was open is DF_1_NODELETE */

/* An error of loading with a text, or success; the image is inspected and closed. */
static const char *attempt(int relocate, const struct DLOPEN_request *request, int *code,
                           char *message, size_t size)
{
  static struct DLOPEN_error error;
  DLOPEN_image *image = NULL;
  error.code = 0;
  *code = (relocate ? DLOPEN_open : DLOPEN_map)(request, &image, &error);
  if (*code < DLOPEN_OK || *code > DLOPEN_E_HOST) return "neither success nor an error of loading";
  if (*code != DLOPEN_OK) {
    if (error.code != *code) return "the error's code is not the one that was returned";
    if (DLOPEN_message(&error, message, size) == 0) return "an error without a message";
    return NULL;
  }
  if (!image) return "success without an image";
  if (relocate && is_nodelete(image, 3)) stays = 1;
  const char *wrong = inspect(image);
  if (DLOPEN_close(image, &error)) return "closing fails";
  return wrong;
}

static int find_anything(const char *name, const char *version, const void **address, void *data)
{
  read_text(name), read_text(version);
  *address = data;
  return 0;
}

/* The two steps, with libc for a scope, or each symbol answered by the caller. */
static const char *relocate(const struct DLOPEN_request *mapped, int answers)
{
  static struct DLOPEN_error error;
  struct DLOPEN_request request = *mapped;
  struct DLOPEN_info info = { .size = sizeof info };
  DLOPEN_image *image = NULL, *libc = NULL;
  if (DLOPEN_existing("libc.so.6", &libc, &error)) return "libc is not there";
  if (DLOPEN_map(&request, &image, &error)) {
    DLOPEN_close(libc, NULL);            /* it does not fit into memory twice */
    return error.code == DLOPEN_E_MAP ? NULL : "it was mapped, and is not again";
  }
  if (answers) request.find = find_anything, request.find_data = (void *)(uintptr_t)misbehave;
  int code = DLOPEN_relocate(image, &request, &libc, 1, &error);
  const char *wrong = NULL;
  if (code < DLOPEN_OK || code > DLOPEN_E_HOST) wrong = "relocate: no error of loading";
  else if (code != error.code && code != DLOPEN_OK) wrong = "relocate: the error's code is another";
  else if (code == DLOPEN_OK) {
    if (is_nodelete(image, 0)) stays = 1;
    wrong = inspect(image);
    if (DLOPEN_relocate(image, &request, &libc, 1, &error) != DLOPEN_E_STATE)
      wrong = "it is relocated twice";
    if (DLOPEN_close(image, &error)) wrong = "closing fails";
  } else if (DLOPEN_info(image, &info) != DLOPEN_E_HANDLE) wrong = "relocate: it is not closed";
  DLOPEN_close(libc, NULL);
  return wrong;
}

static const char *run_case(uint64_t number, int copy, struct outcome *outcome)
{
  unsigned char *data;
  char path[64];
  size_t size = content(number, &data);
  struct DLOPEN_request request = { .size = sizeof request, .name = "malformed.so", .bytes = data,
    .bytes_size = size, .mode = RTLD_NOW | DLOPEN_PRIVATE, .flags = DLOPEN_NO_FOREIGN_CODE };
  memset(outcome, 0, sizeof *outcome);
  char *message = outcome->message;
  const char *wrong = attempt(0, &request, &outcome->map, message, sizeof outcome->message);
  if (!wrong && outcome->map == DLOPEN_OK) wrong = relocate(&request, number & 2);
  if (wrong || (mutating && number % 2 == 0)) return wrong;
  wrong = attempt(1, &request, &outcome->open, message, sizeof outcome->message);
  if (wrong || (mutating && number % 4 == 1)) return wrong;
  /* From a file: what is past its end faults, where a copy would have zeroes. */
  if (ftruncate(copy, 0) || pwrite(copy, data, size, 0) != (ssize_t)size)
    return "cannot write the copy";
  snprintf(path, sizeof path, "/proc/self/fd/%d", copy);
  request.name = path, request.bytes = NULL, request.bytes_size = 0;
  wrong = attempt(1, &request, &outcome->open_path, message, sizeof outcome->message);
  /* What does not fit into memory may fit in one of the two ways. */
  if (!wrong && !outcome->open != !outcome->open_path && outcome->open != DLOPEN_E_MAP &&
      outcome->open_path != DLOPEN_E_MAP)
    return "from bytes and from a path differ";
  return wrong;
}

static void misbehave(void)
{
  static char *volatile sink;
  if (!strcmp(plant, "crash")) *(volatile int *)8 = 1;
  else if (!strcmp(plant, "overflow")) sink = calloc(8, 1), seen += (uint64_t)sink[8], free(sink);
  else if (!strcmp(plant, "hang")) for (;;) seen++;
  else if (!strcmp(plant, "mapping"))
    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  else if (!strcmp(plant, "descriptor")) open("/dev/null", O_RDONLY);
  else if (!strcmp(plant, "memory")) sink = malloc(64), sink = NULL;
}

/* ---- what the process holds ---- */

struct held { uint64_t mappings, bytes, descriptors; };

/* Mappings but for the sanitizer's heap, whose addresses are fixed, and malloc's. */
static struct held held(void)
{
  static char text[1 << 20];
  struct held held = { 0, 0, 0 };
  if (__sanitizer_purge_allocator) __sanitizer_purge_allocator();
  int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  size_t length = 0;
  for (ssize_t got; (got = read(file, text + length, sizeof text - 1 - length)) > 0;)
    length += (size_t)got;
  text[length] = 0;
  close(file);
  for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
    uint64_t start = strtoull(line, &line, 16), stop = strtoull(line + 1, &line, 16);
    *end = 0;
    if ((start >= 0x600000000000 && start < 0x640000000000) || strstr(line, "[heap]")) continue;
    held.mappings++;
    held.bytes += stop - start;
  }
  DIR *directory = opendir("/proc/self/fd");
  while (readdir(directory)) held.descriptors++;
  closedir(directory);
  return held;
}

static const char *grown(struct held before, struct held after)
{
  if (after.descriptors > before.descriptors) return "leaks a descriptor";
  return after.mappings > before.mappings || after.bytes > before.bytes ? "leaks a mapping" : NULL;
}

static timer_t watchdog;

static void watch(double seconds)
{
  time_t whole = (time_t)seconds;
  struct itimerspec time = { .it_value = { whole, (long)((seconds - (double)whole) * 1e9) } };
  timer_settime(watchdog, 0, &time, NULL);
}

static void run_batch(uint64_t first, uint64_t count)
{
  static struct outcome outcome;
  /* SIGKILL: it comes through even if the linker blocks signals. */
  struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };
  if (timer_create(CLOCK_MONOTONIC, &event, &watchdog)) _exit(UNUSABLE);
  int copy = memfd_create("malformed", MFD_CLOEXEC);
  struct held before = held(), after;
  for (uint64_t number = first; number < first + count; number++) {
    shared->current = number;
    shared->started = now();
    watch(limit);
    stays = 0;
    if (number == plant_case) misbehave();
    const char *wrong = run_case(number, copy, &outcome);
    if (number == plant_case && !strcmp(plant, "code"))
      wrong = "neither success nor an error of loading";
    double took = now() - shared->started;
    if (took > shared->slowest) shared->slowest = took, shared->slowest_case = number;
    watch(10 * limit);
    /* Growth may be the allocator's own, which stops, or a leak, which goes on. */
    const char *leak = grown(before, after = held());
    for (int i = 0; leak && !wrong && !stays && i < REPEATS; i++) {
      before = after;
      if (number == plant_case) misbehave();
      wrong = run_case(number, copy, &outcome);
      leak = grown(before, after = held());
    }
    before = after;
    watch(0);
    if (stays) leak = NULL;
    if (wrong || leak) failure(number, wrong ? wrong : leak);
    if (outcome.map == DLOPEN_OK) shared->mapped++;
    if (outcome.map || outcome.open) shared->refused++;
    if ((!mutating || number % 2) && !outcome.map && !outcome.open) shared->opened++;
    if (!mutating)
      printf("%s\t%d\t%d\t%d\t%s\n", paths[number], outcome.map, outcome.open, outcome.open_path,
             outcome.message);
  }
  fflush(stdout);
  shared->started = now();
  if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check()) _exit(LEAKED);
  _exit(0);
}

/* ---- all cases, in batches: a crash ends its own, which goes on behind the case ---- */

static void run(uint64_t first, uint64_t count)
{
  while (count) {
    uint64_t size = count < batch ? count : batch, done = size;
    char reason[100];
    int status;
    pid_t child = fork();
    if (child == 0) run_batch(first, size);
    if (child < 0 || waitpid(child, &status, 0) != child) {
      perror("fork");
      exit(2);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == UNUSABLE) {
      fprintf(stderr, "cannot use case %" PRIu64 "\n", shared->current);
      exit(2);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == LEAKED) {
      uint64_t failed = shared->failed, whole = batch;
      if (size > 1) {
        batch = (size + 1) / 2;
        run(first, size);
        batch = whole;
      }
      if (shared->failed == failed)
        failure(first, size > 1 ? "leaks memory, as the first of its batch" : "leaks memory");
    } else if (!WIFEXITED(status) || WEXITSTATUS(status)) {
      if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && now() - shared->started >= limit)
        snprintf(reason, sizeof reason, "takes more than %g s", limit);
      else if (WIFSIGNALED(status))
        snprintf(reason, sizeof reason, "ends with signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
      else
        snprintf(reason, sizeof reason, "ends with status %d (a sanitizer's report is above)",
                 WEXITSTATUS(status));
      failure(shared->current, reason);
      done = shared->current - first + 1;
    }
    first += done, count -= done;
  }
}

/* The unchanged base must open, or the mutations show nothing. */
static void need_base(void)
{
  static struct DLOPEN_error error;
  char message[512];
  DLOPEN_image *image;
  struct DLOPEN_request request = { .size = sizeof request, .name = "base.so", .bytes = base,
    .bytes_size = base_size, .mode = RTLD_NOW | DLOPEN_PRIVATE, .flags = DLOPEN_NO_FOREIGN_CODE };
  if (DLOPEN_open(&request, &image, &error) == DLOPEN_OK &&
      DLOPEN_close(image, &error) == DLOPEN_OK)
    return;
  DLOPEN_message(&error, message, sizeof message);
  fprintf(stderr, "%s does not open unchanged: %s\n", paths[0], message);
  exit(2);
}

static void usage(void)
{
  fprintf(stderr, "usage: %s [OPTION]... files PATH... | mutate FIRST COUNT BASE\n", program);
  exit(2);
}

int main(int count, char **arguments)
{
  uint64_t first = 0, cases;
  const char *write_to = NULL;
  size_t largest = 0;
  struct rusage usage_of_batches;
  struct stat status;
  int i = 1;
  program = arguments[0];
  setvbuf(stdout, NULL, _IOLBF, 0);      /* whole lines, also of a batch that ends early */
  for (; i + 1 < count && !strncmp(arguments[i], "--", 2); i += 2) {
    if (!strcmp(arguments[i], "--limit")) limit = atof(arguments[i + 1]);
    else if (!strcmp(arguments[i], "--batch")) batch = strtoull(arguments[i + 1], NULL, 0);
    else if (!strcmp(arguments[i], "--write")) write_to = arguments[i + 1];
    else if (!strcmp(arguments[i], "--plant") && i + 2 < count)
      plant = arguments[i + 1], plant_case = strtoull(arguments[i + 2], NULL, 0), i++;
    else usage();
  }
  if (i >= count || !batch) usage();
  mutating = !strcmp(arguments[i], "mutate");
  if (DLOPEN_abi() != DLOPEN_ABI) return 2;
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (mutating) {
    if (count != i + 4) usage();
    first = strtoull(arguments[i + 1], NULL, 0), cases = strtoull(arguments[i + 2], NULL, 0);
    paths = arguments + i + 3;
    base_size = read_file(paths[0], &base);
    find_regions(base, base_size);
    if (region_count < 6) _exit(UNUSABLE);
    need_base();
    reserve(largest = base_size);
  } else if (!strcmp(arguments[i], "files")) {
    paths = arguments + i + 1;
    cases = (uint64_t)(count - i - 1);
    for (uint64_t j = 0; j < cases; j++)
      if (!stat(paths[j], &status) && (size_t)status.st_size > largest)
        largest = (size_t)status.st_size;
    reserve(largest);
  } else usage();
  if (write_to && mutating) {
    unsigned char *data;
    size_t size = content(first, &data);
    int file = open(write_to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    return file < 0 || write(file, data, size) != (ssize_t)size;
  }
  run(first, cases);
  getrusage(RUSAGE_CHILDREN, &usage_of_batches);
  printf("cases %" PRIu64 " mapped %" PRIu64 " opened %" PRIu64 " refused %" PRIu64
         " failed %" PRIu64 " slowest_ms %.1f slowest_case %" PRIu64 " peak_mb %ld\n",
         cases, shared->mapped, shared->opened, shared->refused, shared->failed,
         shared->slowest * 1e3, shared->slowest_case, usage_of_batches.ru_maxrss / 1024);
  return shared->failed != 0;
}
