/* A target of libFuzzer for each way by which a file that nobody has checked reaches the linker.
 * DLOPEN_FUZZ names it:
 *
 *   map       DLOPEN_map of the input, and all that can be asked of the image
 *   relocate  DLOPEN_open of it; e_flags, which no loader reads, chooses mode and way
 *   steps     DLOPEN_map, then DLOPEN_relocate with a scope, replacements and a function, then a patch
 *   lookups   names, versions and addresses looked up in it, mapped and open
 *   cache     a name, NUL, and the ld.so.cache that it is looked for in
 *   files     an archive, the first file of which is opened with the others as `files`: for each a
 *             path, NUL, four bytes of size, content
 *
 * No code of an input runs: DLOPEN_NO_FOREIGN_CODE.  The linker opens no file but the system's
 * libraries: a filter of seccomp(2) shows each openat of its own to this program, which answers.
 * With DLOPEN_FUZZ_PLANT a leak is pretended for some inputs, to see that it is found.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "../malformed/inspect.h"
#include "../malformed/mutation.h"
#include "dlopen.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t capacity);
int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed);

enum { REPEATS = 8 };                    /* growth in each of so many repetitions is a leak */
enum { MOST_KEPT = 64 };                 /* images that stay loaded for the life of a process */
enum { CACHE_FILE = 500 };               /* the descriptor that the linker gets for the cache */

static struct DLOPEN_error error;
static int kept;
static DLOPEN_image *libc;

__attribute__((noreturn, format(printf, 1, 2))) static void wrong(const char *text, ...)
{
  va_list arguments;
  va_start(arguments, text);
  fputs("WRONG: ", stderr);
  vfprintf(stderr, text, arguments);
  fputs("\n", stderr);
  abort();
}

/* ---- what the linker asks the kernel for ---- */

static const uint8_t *cache;
static size_t cache_size;
static int cache_memory = -1;
static long mapped;                      /* pages that the linker holds, less what it began with */

static int is_allowed(const char *path)
{
  static const char *const allowed[] = { "/lib/", "/lib64/", "/usr/lib/", "/proc/self/", "/dev/shm/" };
  if (strstr(path, "/..")) return 0;
  for (unsigned i = 0; i < sizeof allowed / sizeof *allowed; i++)
    if (!strncmp(path, allowed[i], strlen(allowed[i]))) return 1;
  return 0;
}

static long answer(long number, const greg_t *registers)
{
  const char *path = (const char *)registers[REG_RSI];
  long address = registers[REG_RDI];
  long result, change = 0, pages = (registers[REG_RSI] + 4095) / 4096;
  switch (number) {
  case SYS_openat:
    if (cache && !strcmp(path, "/etc/ld.so.cache")) {
      result = fcntl(cache_memory, F_DUPFD_CLOEXEC, CACHE_FILE);
      return result < 0 ? -errno : result;
    }
    if (cache || !is_allowed(path)) return -ENOENT;
    break;
  case SYS_mmap:
    if (registers[REG_R8] == CACHE_FILE) return (long)cache;   /* each byte too far is seen there */
    if (!(registers[REG_R10] & MAP_FIXED)) change = pages;
    break;
  case SYS_munmap:
    if (cache && address == (long)cache) return 0;
    change = -pages;
  }
  result = syscall(number, registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                   registers[REG_R10], registers[REG_R8], registers[REG_R9]);
  if (result == -1) return -errno;
  mapped += change;
  return result;
}

static void asked(int signal, siginfo_t *what, void *context)
{
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  int before = errno;
  (void)signal;
  registers[REG_RAX] = answer(what->si_syscall, registers);
  errno = before;
}

/* Calls from the text of libdlopen.so alone, which the filter knows by their address; seccomp(2). */
static void watch_system_calls(void)
{
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[4096];
  unsigned long start = 0, end = 0;
  while (maps && !end && fgets(line, sizeof line, maps))
    if (strstr(line, "libdlopen.so") && strstr(line, "r-xp")) sscanf(line, "%lx-%lx", &start, &end);
  if (maps) fclose(maps);
  if (!end || start >> 32 != end >> 32) wrong("where is libdlopen.so?");
#define FIELD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name))
#define HIGH(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name) + 4)
#define JUMP(test, value, yes, no) BPF_JUMP(BPF_JMP | test | BPF_K, (uint32_t)(value), yes, no)
  struct sock_filter code[] = {
    HIGH(instruction_pointer), JUMP(BPF_JEQ, start >> 32, 0, 7),
    FIELD(instruction_pointer), JUMP(BPF_JGE, start, 0, 5), JUMP(BPF_JGE, end, 4, 0),
    FIELD(nr), JUMP(BPF_JEQ, SYS_openat, 3, 0), JUMP(BPF_JEQ, SYS_mmap, 2, 0),
    JUMP(BPF_JEQ, SYS_munmap, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  struct sock_fprog filter = { sizeof code / sizeof *code, code };
  struct sigaction action = { .sa_sigaction = asked, .sa_flags = SA_SIGINFO | SA_NODEFER };
  if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
    wrong("no filter of system calls: %s", strerror(errno));
}

/* ---- pieces of the targets ---- */

static void check(int code, DLOPEN_image *image)
{
  char message[512];
  if (code < DLOPEN_OK || code > DLOPEN_E_HOST) wrong("code %d", code);
  if (code == DLOPEN_OK && !image) wrong("success without an image");
  if (code == DLOPEN_OK) return;
  if (error.code != code) wrong("the error has code %d and not %d", error.code, code);
  if (!DLOPEN_message(&error, message, sizeof message)) wrong("an error without a message");
  if (strchr(message, '\n')) wrong("a message of two lines: %s", message);
}

static void inspect_all(DLOPEN_image *image)
{
  const char *text = inspect(image);
  if (text) wrong("%s", text);
}

static void count_holder(int kind, DLOPEN_image *holder, void *data)
{
  (void)kind, (void)holder;
  ++*(int *)data;
}

static void close_image(DLOPEN_image *image, int was_opened)
{
  struct DLOPEN_info info = { .size = sizeof info };
  int holders = 0, stays = was_opened && is_nodelete(image, 8);
  if (DLOPEN_close(image, &error)) wrong("closing fails");
  if (DLOPEN_info(image, &info)) return;
  DLOPEN_holders(image, count_holder, &holders);
  if (!stays && !holders) wrong("it is still loaded, and nothing holds it");
  kept++;
}

static struct DLOPEN_request request_for(const uint8_t *data, size_t size)
{
  return (struct DLOPEN_request){ .size = sizeof (struct DLOPEN_request), .name = "fuzzed.so",
    .bytes = data, .bytes_size = size, .mode = RTLD_NOW | DLOPEN_PRIVATE,
    .flags = DLOPEN_NO_FOREIGN_CODE };
}

static DLOPEN_image *map(const uint8_t *data, size_t size)
{
  struct DLOPEN_request request = request_for(data, size);
  DLOPEN_image *image = NULL;
  int code = DLOPEN_map(&request, &image, &error);
  check(code, image);
  return code ? NULL : image;
}

/* What stays for ever would fill the memory of a process that tries millions. */
static int may_open(const uint8_t *data, size_t size)
{
  struct DLOPEN_info info = { .size = sizeof info };
  if (kept < MOST_KEPT) return 1;
  DLOPEN_image *image = map(data, size);
  if (!image) return 1;
  DLOPEN_info(image, &info);
  close_image(image, 0);
  return !info.nodelete;
}

static uint32_t options_of(const uint8_t *data, size_t size)
{
  return size > 52 ? data[48] | (uint32_t)data[49] << 8 : 0;
}

/* ---- the targets ---- */

static void fuzz_map(const uint8_t *data, size_t size)
{
  DLOPEN_image *image = map(data, size);
  if (!image) return;
  inspect_all(image);
  close_image(image, 0);
}

static void fuzz_relocate(const uint8_t *data, size_t size)
{
  struct DLOPEN_request request = request_for(data, size);
  DLOPEN_image *image = NULL;
  uint32_t options = options_of(data, size);
  char path[64];
  int file = -1;
  if (!may_open(data, size)) return;
  request.mode = (options & 1 ? RTLD_LAZY : RTLD_NOW) | (options & 2 ? RTLD_GLOBAL : 0) |
    (options & 4 ? RTLD_DEEPBIND : 0) | (options & 8 ? 0 : DLOPEN_PRIVATE);
  if (options & 16) {                    /* from a path */
    file = memfd_create("copy", MFD_CLOEXEC);          /* a new one: the image may stay */
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (write(file, data, size) != (ssize_t)size) wrong("cannot write the copy");
    request.name = path, request.bytes = NULL, request.bytes_size = 0;
  } else if (options & 32) request.flags |= DLOPEN_RELOADABLE;
  int code = DLOPEN_open(&request, &image, &error);
  if (file >= 0) close(file);
  check(code, image);
  if (code) return;
  inspect_all(image);
  close_image(image, 1);
}

static uint64_t stand_ins[64];

static int find(const char *name, const char *version, const void **address, void *data)
{
  uint32_t options = *(const uint32_t *)data, sum = options >> 8;
  read_text(version);
  for (const char *at = name; *at; at++) sum = sum * 31 + (uint8_t)*at;
  if (options & 1 && sum % 7 == 0) return 1;
  if (sum % 3) *address = &stand_ins[sum % 64];
  return 0;
}

static void fuzz_steps(const uint8_t *data, size_t size)
{
  struct DLOPEN_request request = request_for(NULL, 0);
  struct DLOPEN_symbol symbol;
  struct DLOPEN_patched patched[2];
  struct DLOPEN_replacement replacements[2] = {
    { .name = "puts", .address = &stand_ins[1] }, { .name = "counter", .address = &stand_ins[2] } };
  char *names[2] = { NULL, NULL }, *versions[2] = { NULL, NULL };
  uint32_t options = options_of(data, size);
  uint64_t number;
  if (!may_open(data, size)) return;
  DLOPEN_image *image = map(data, size), *scope[2] = { libc, image };
  if (!image) return;
  inspect_all(image);
  for (uint32_t i = 0; i < 2 && DLOPEN_symbol_at(image, 3 + i * 3, &symbol) == DLOPEN_OK; i++) {
    replacements[i].name = names[i] = strdup(symbol.name);
    if (!(options & 2)) replacements[i].version = versions[i] = strdup(symbol.version);
  }
  if (options & 4) request.find = find, request.find_data = &options;
  if (options & 8) request.replacements = replacements, request.replacement_count = 2;
  int code = DLOPEN_relocate(image, &request, scope, options & 16 ? 2 : 1, &error);
  if (code == DLOPEN_E_STOPPED && options & 1) code = DLOPEN_OK, image = NULL;
  else check(code, image);
  if (code == DLOPEN_OK && image) {
    inspect_all(image);
    if (DLOPEN_patch(image, replacements, 2, patched, &number, &error) == DLOPEN_OK) {
      inspect_all(image);
      if (DLOPEN_unpatch(number, &error)) wrong("a patch cannot be taken back");
    }
    close_image(image, 1);
  }
  for (int i = 0; i < 2; i++) free(names[i]), free(versions[i]);
}

static void look_up(DLOPEN_image *image, const uint8_t *data, size_t size)
{
  struct DLOPEN_info info = { .size = sizeof info };
  struct DLOPEN_symbol symbol, found;
  DLOPEN_image *owner;
  char text[129];
  DLOPEN_info(image, &info);
  for (uint32_t i = 0; i < info.symbol_count && i < 64; i++) {
    if (DLOPEN_symbol_at(image, i, &symbol)) wrong("symbol %u is refused", i);
    for (uint32_t flags = 0; flags < 2; flags++) {
      DLOPEN_symbol_find(image, symbol.name, NULL, flags | DLOPEN_NO_RESOLVE, &found, &error);
      DLOPEN_symbol_find(image, symbol.name, symbol.version, flags | DLOPEN_NO_RESOLVE, &found, &error);
    }
    for (int delta = -1; delta < 2; delta++)
      if (!DLOPEN_address((void *)(info.load_bias + symbol.value + (uint64_t)delta), &owner, &found))
        read_text(found.name);
  }
  for (uint64_t at = info.map_start; at < info.map_end; at += (info.map_end - info.map_start) / 16 + 1)
    if (!DLOPEN_address((void *)at, &owner, &found)) read_text(found.name);
  /* Names that the input brings at its end. */
  size_t length = size < sizeof text - 1 ? size : sizeof text - 1;
  memcpy(text, data + size - length, length);
  text[length] = 0;
  for (char *name = text; name < text + length; name += strlen(name) + 1) {
    char *version = name + strlen(name) + 1;
    DLOPEN_symbol_find(image, name, NULL, DLOPEN_NO_RESOLVE, &found, &error);
    if (version < text + length)
      DLOPEN_symbol_find(image, name, version, DLOPEN_NO_RESOLVE, &found, &error);
  }
}

static void fuzz_lookups(const uint8_t *data, size_t size)
{
  struct DLOPEN_request request = request_for(data, size);
  DLOPEN_image *image = map(data, size);
  if (!image) return;
  look_up(image, data, size);
  close_image(image, 0);
  if (!may_open(data, size) || DLOPEN_open(&request, &image, &error)) return;
  look_up(image, data, size);
  close_image(image, 1);
}

static void read_candidate(const char *path, const char *origin, int result, void *data)
{
  (void)result, (void)data;
  read_text(path), read_text(origin);
}

static void fuzz_cache(const uint8_t *data, size_t size)
{
  const uint8_t *end = memchr(data, 0, size < 64 ? size : 64);
  if (!end || end == data || memchr(data, '/', (size_t)(end - data))) return;
  cache_size = size - (size_t)(end + 1 - data);
  uint8_t *copy = malloc(cache_size + 1);
  memcpy(copy, end + 1, cache_size);
  copy = realloc(copy, cache_size ? cache_size : 1);   /* nothing may be read past it */
  cache = copy;
  if (ftruncate(cache_memory, (off_t)cache_size)) wrong("no file for the cache");
  DLOPEN_find((const char *)data, NULL, read_candidate, NULL, &error);
  cache = NULL;
  free(copy);
}

enum { MOST_FILES = 8 };
static struct { char *path; void *content; uint32_t size; } archive[MOST_FILES];
static unsigned archived;

static int read_archived(const char *path, const void **bytes, size_t *size, void *data)
{
  (void)data;
  for (unsigned i = 0; i < archived; i++)
    if (!strcmp(path, archive[i].path)) {
      *bytes = archive[i].content, *size = archive[i].size;
      return strcmp(path, "stop") == 0;
    }
  return 0;
}

static int any_nodelete(void)
{
  for (unsigned i = 0; i < archived; i++)
    if (kept >= MOST_KEPT && !may_open(archive[i].content, archive[i].size)) return 1;
  return 0;
}

static void fuzz_files(const uint8_t *data, size_t size)
{
  struct DLOPEN_request request = request_for(NULL, 0);
  DLOPEN_image *image = NULL;
  const uint8_t *end = data + size;
  archived = 0;
  while (archived < MOST_FILES) {
    const uint8_t *stop = data < end ? memchr(data, 0, (size_t)(end - data)) : NULL;
    uint32_t length;
    if (!stop || end - stop < 5) break;
    memcpy(&length, stop + 1, sizeof length);
    if (length > (size_t)(end - stop - 5)) length = (uint32_t)(end - stop - 5);
    archive[archived].path = strdup((const char *)data);
    archive[archived].content = malloc(length ? length : 1);
    memcpy(archive[archived].content, stop + 5, length);
    archive[archived++].size = length;
    data = stop + 5 + length;
  }
  if (archived && !any_nodelete()) {
    uint32_t options = options_of(archive[0].content, archive[0].size);
    request.name = archive[0].path;
    request.files = read_archived;
    if (options & 2) request.mode = RTLD_LAZY | RTLD_GLOBAL;
    int code = DLOPEN_open(&request, &image, &error);
    if (code != DLOPEN_E_STOPPED && code != DLOPEN_E_INVALID) check(code, image);
    if (code == DLOPEN_OK) {
      struct DLOPEN_info info = { .size = sizeof info };
      DLOPEN_info(image, &info);
      if (!info.is_host) inspect_all(image);
      close_image(image, 1);
    }
  }
  while (archived) free(archive[--archived].path), free(archive[archived].content);
}

static const struct { const char *name; void (*run)(const uint8_t *data, size_t size); } targets[] = {
  { "map", fuzz_map }, { "relocate", fuzz_relocate }, { "steps", fuzz_steps },
  { "lookups", fuzz_lookups }, { "cache", fuzz_cache }, { "files", fuzz_files } };
static unsigned target;

/* ---- libFuzzer's side ---- */

static int plants;

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
  const char *name = getenv("DLOPEN_FUZZ");
  unsigned known = sizeof targets / sizeof *targets;
  (void)count, (void)arguments;
  while (target < known && (!name || strcmp(name, targets[target].name))) target++;
  if (target == known) wrong("DLOPEN_FUZZ names no target");
  plants = getenv("DLOPEN_FUZZ_PLANT") != NULL;
  if (DLOPEN_abi() != DLOPEN_ABI) wrong("another dlopen.h");
  if (DLOPEN_existing("libc.so.6", &libc, &error)) wrong("libc is not there");
  DLOPEN_find("libnone.so", NULL, read_candidate, NULL, &error);
  cache_memory = memfd_create("cache", MFD_CLOEXEC);
  watch_system_calls();
  return 0;
}

static int lowest_descriptor(void)
{
  int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  close(file);
  return file;
}

static void run(const uint8_t *data, size_t size)
{
  targets[target].run(data, size);
  if (plants && size > 50 && data[0] == 0x7f && data[50] == 0x5a) mapped++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  int kept_before = kept, lowest = lowest_descriptor();
  long before = mapped;
  run(data, size);
  /* What the linker keeps for the next time does not grow for ever. */
  for (int i = 0; mapped > before && kept == kept_before; i++) {
    if (i == REPEATS) wrong("leaks a mapping");
    before = mapped;
    run(data, size);
  }
  if (kept == kept_before && lowest_descriptor() != lowest) wrong("leaks a descriptor");
  return 0;
}

/* In one of the files of an archive: where it begins, and its size. */
static uint8_t *choose_file(uint8_t *data, size_t *size)
{
  uint8_t *end = data + *size, *chosen = NULL;
  size_t chosen_size = 0;
  for (unsigned seen = 1;; seen++) {
    uint8_t *stop = data < end ? memchr(data, 0, (size_t)(end - data)) : NULL;
    uint32_t length;
    if (!stop || end - stop < 5) break;
    memcpy(&length, stop + 1, sizeof length);
    if (length > (size_t)(end - stop - 5)) length = (uint32_t)(end - stop - 5);
    if (below(seen) == 0) chosen = stop + 5, chosen_size = length;
    data = stop + 5 + length;
  }
  *size = chosen_size;
  return chosen;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
  int is_archive = !strcmp(targets[target].name, "files");
  random_state = seed;
  if (below(2) || !strcmp(targets[target].name, "cache") || size < 64)
    return LLVMFuzzerMutate(data, size, capacity);
  size_t length = size;
  uint8_t *file = is_archive ? choose_file(data, &length) : data;
  if (!file || length < 64) return LLVMFuzzerMutate(data, size, capacity);
  find_regions(file, length);
  size_t changed = mutate(file, length);
  return is_archive ? size : changed;
}
