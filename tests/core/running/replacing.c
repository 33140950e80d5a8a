/* replacing LIBDLOPEN SCENARIO: patches, swaps and images from bytes, as a program in C asks for them.
 * What hangs is ended by an alarm. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "exchanges.h"

enum { THREADS = 4, TURNS = 100, WORDS = 64 };

static LOADER_TYPE(DLOPEN_relocations) *our_relocations;

static int ten(void) { return 10; }
static int twenty(void) { return 20; }
static int thirty(void) { return 30; }
static int forty(void) { return 40; }
static char letters[] = "abcdefgh";

static int patch_one(DLOPEN_image *image, const char *name, const char *version, int (*to)(void),
                     uint64_t *number) {
  struct DLOPEN_replacement one = {name, version, (const void *)to};
  return our_patch(image, &one, 1, patched, number, &error);
}

/* What stands in the places that refer to a symbol. */
struct words {
  uint64_t word[WORDS];
  size_t count;
};

static void add_word(const struct DLOPEN_relocation *relocation, void *data) {
  struct words *words = data;
  if (relocation->symbol && relocation->width == 8 && words->count < WORDS)
    words->word[words->count++] = *(uint64_t *)relocation->place;
}

static struct words look(DLOPEN_image *image) {
  struct words words = {.count = 0};
  check(our_relocations(image, add_word, &words) == 0, "relocations");
  return words;
}

static int is_as_before(DLOPEN_image *image, const struct words *before) {
  struct words now = look(image);
  return now.count == before->count && memcmp(now.word, before->word, sizeof now.word) == 0;
}

/* A call, two pointers in a constant table, one in a variable; and one with an addend. */
static void check_every_place(DLOPEN_image *image, int (*const functions[4])(void),
                              char *const *third) {
  const struct DLOPEN_replacement replacements[] = {
      {"value", NULL, (const void *)ten}, {"numbers", NULL, letters}, {"nothing", NULL, letters}};
  struct words before = look(image);
  check(before.count >= 5, "there are places");
  check(our_patch(image, replacements, 3, patched, &patch, &error) == 0, "patch");
  check(patched[0].places == 4 && patched[1].places == 1 && patched[2].places == 0, "the places");
  check(((int (*)(void))patched[0].original)() == 1 && patched[2].original == 0, "the originals");
  for (int i = 0; i < 4; i++) check(functions[i]() == 10, "a place is not patched");
  check(*third == letters + 3, "the addend");
  check(our_unpatch(patch, &error) == 0 && our_unpatch(patch, &error) == 0, "unpatch");
  check(is_as_before(image, &before), "another word is left");
  for (int i = 0; i < 4; i++) check(functions[i]() == 1, "a call afterwards");
  check(**third == 4, "what is pointed to afterwards");
}

static const char *const callers[] = {"call_value", "from_table", "from_its_end", "from_writable"};

static void patch_every_place_of(const char *file) {
  int (*functions[4])(void);
  DLOPEN_image *image = open_one(file, RTLD_LAZY);
  for (int i = 0; i < 4; i++) functions[i] = (int (*)(void))library_find(image, callers[i]);
  check_every_place(image, functions, library_find(image, "third"));
  library_close(image);
  check(!is_loaded("value"), "a library is left");
}

static void patch_every_place(void) { patch_every_place_of("./libplaceslazy.so"); }

static void patch_every_place_bound_now(void) { patch_every_place_of("./libplacesnow.so"); }

static void patch_every_place_of_the_host(void) {
  int (*functions[4])(void);
  DLOPEN_image *image = NULL;
  void *handle = dlopen("./libplaceslazy.so", RTLD_LAZY);
  check(handle && our_existing("./libplaceslazy.so", &image, &error) == 0, "existing");
  for (int i = 0; i < 4; i++) functions[i] = (int (*)(void))loader_function(handle, callers[i]);
  check_every_place(image, functions, loader_function(handle, "third"));
}

/* The newest of those that are left counts, in whatever order they end: all 24 orders. */
static void patches_end_in_any_order(void) {
  static int (*const to[])(void) = {ten, twenty, thirty, forty};
  DLOPEN_image *image = open_one("./libplaceslazy.so", RTLD_LAZY);
  struct words before = look(image);
  for (unsigned code = 0; code < 256; code++) {
    unsigned order[4], seen = 0;
    for (int i = 0; i < 4; i++) seen |= 1u << (order[i] = code >> 2 * i & 3);
    if (seen != 15) continue;
    uint64_t numbers[4];
    int is_left[4] = {1, 1, 1, 1};
    for (int i = 0; i < 4; i++) {
      check(patch_one(image, "value", NULL, to[i], &numbers[i]) == 0, "patch");
      check(call(image, "call_value") == to[i](), "a call of the newest");
    }
    for (int i = 0; i < 3; i++) {
      check(our_unpatch(numbers[order[i]], &error) == 0, "unpatch");
      is_left[order[i]] = 0;
      int newest = 3;
      while (!is_left[newest]) newest--;
      check(call(image, "call_value") == to[newest](), "a call of one that is left");
    }
    check(our_unpatch(numbers[order[3]], &error) == 0, "the last");
    check(is_as_before(image, &before), "another word is left");
  }
  check(call(image, "call_value") == 1, "a call afterwards");
}

static void patch_of_one_version(void) {
  DLOPEN_image *image = open_one("./liboldandnew.so", RTLD_NOW);
  check(call(image, "call_old") == 1 && call(image, "call_new") == 2, "before");
  check(patch_one(image, "versioned", "V1", ten, &patch) == 0 && patched[0].places == 1, "patch");
  check(call(image, "call_old") == 10 && call(image, "call_new") == 2, "the old one only");
  check(our_unpatch(patch, &error) == 0, "unpatch");
  check(patch_one(image, "versioned", "V3", ten, &patch) == 0 && patched[0].places == 0, "no such");
  check(patch_one(image, "versioned", NULL, ten, &patch) == 0 && patched[0].places == 2, "both");
  check(call(image, "call_old") == 10 && call(image, "call_new") == 10, "both of them");
  library_close(image);
}

/* A place that no single store can change stays as it is. */
static void patch_of_pieces(void) {
  open_version("./libhot1.so", "./libhot.so", NULL);
  DLOPEN_image *image = open_one("./libpacked.so", RTLD_LAZY);
  check(patch_one(image, "version", NULL, ten, &patch) == 0 && patched[0].places, "patch");
  check(call(image, "by_whole") == 10 && call(image, "by_packed") == 1, "the other one only");
  check(our_unpatch(patch, &error) == 0, "unpatch");
  check(call(image, "by_whole") == 1 && call(image, "by_packed") == 1, "a call afterwards");
}

static void patch_of_all_or_none(void) {
  const struct DLOPEN_replacement replacements[] = {{"value", NULL, (const void *)ten},
                                                    {NULL, NULL, (const void *)ten}};
  DLOPEN_image *image = open_one("./libplaceslazy.so", RTLD_NOW);
  struct words before = look(image);
  check(our_patch(image, replacements, 2, patched, &patch, &error) == DLOPEN_E_INVALID, "it was");
  check(is_as_before(image, &before) && call(image, "from_table") == 1, "something was changed");
  library_close(image);
  check(patch_one(image, "value", NULL, ten, &patch) == DLOPEN_E_HANDLE, "what was closed");
}

/* Threads that call meanwhile get one or the other. */
struct caller {
  pthread_t thread;
  int (*functions[2])(void);
  int either, other; /* what the functions may return */
  unsigned long seen[2];
};
static atomic_int stop;
/* Held while somebody is inside of what may be closed. */
static pthread_rwlock_t inside = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static atomic_ulong calls;

static void *call_on(void *data) {
  struct caller *caller = data;
  while (!stop) {
    pthread_rwlock_rdlock(&inside);
    for (int i = 0; i < 2; i++) {
      int value = caller->functions[i]();
      check(value == caller->either || value == caller->other, "a third value");
      caller->seen[value == caller->other]++;
    }
    pthread_rwlock_unlock(&inside);
    calls++;
  }
  return NULL;
}

static void wait_for_calls(void) {
  for (unsigned long before = calls; calls < before + THREADS; usleep(100)) continue;
}

static void call_meanwhile(DLOPEN_image *image, const char *one, const char *another, int other,
                           void (*change)(void)) {
  struct caller callers[THREADS];
  unsigned long seen[2] = {0, 0};
  for (int i = 0; i < THREADS; i++) {
    callers[i] = (struct caller){.either = 1, .other = other};
    callers[i].functions[0] = (int (*)(void))library_find(image, one);
    callers[i].functions[1] = (int (*)(void))library_find(image, another);
    check(pthread_create(&callers[i].thread, NULL, call_on, &callers[i]) == 0, "a thread");
  }
  for (int turn = 0; turn < TURNS; turn++) {
    wait_for_calls();
    change();
  }
  stop = 1;
  for (int i = 0; i < THREADS; i++) {
    pthread_join(callers[i].thread, NULL);
    for (int kind = 0; kind < 2; kind++) seen[kind] += callers[i].seen[kind];
  }
  check(seen[0] && seen[1], "both were called");
}

static DLOPEN_image *user, *old;

static void patch_and_back(void) {
  check(patch_one(user, "value", NULL, ten, &patch) == 0, "patch");
  wait_for_calls();
  check(our_unpatch(patch, &error) == 0, "unpatch");
}

static void patch_while_threads_call(void) {
  user = open_one("./libplaceslazy.so", RTLD_LAZY);
  call_meanwhile(user, "call_value", "from_table", 10, patch_and_back);
  library_close(user);
  check(!is_loaded("value"), "a library is left");
}

static void next_version(void) {
  static int number = 1;
  uint64_t places;
  number = 3 - number;
  DLOPEN_image *successor =
      open_version(number == 1 ? "./libhot1.so" : "./libhot2.so", "./libhot.so", old);
  check(our_swap(old, successor, &places, &error) == 0 && places, "swap");
  check(our_retain(old, &error) == 0, "retain");
  library_close(old);
  pthread_rwlock_wrlock(&inside);
  pthread_rwlock_unlock(&inside);
  check(our_release(old, &error) == 0, "release");
  old = successor;
}

static void swap_while_threads_call(void) {
  old = open_version("./libhot1.so", "./libhot.so", NULL);
  user = open_one("./libhotuser.so", RTLD_LAZY);
  call_meanwhile(user, "by_call", "by_pointer", 2, next_version);
  check(is_loaded("version") == 1, "an old version is left");
  library_close(user);
  library_close(old);
  check(is_loaded("version") == 0, "a version is left");
}

static void swap_without_a_symbol(void) {
  uint64_t places;
  DLOPEN_image *found = NULL;
  old = open_version("./libhot1.so", "./libhot.so", NULL);
  user = open_one("./libhotuser.so", RTLD_LAZY);
  DLOPEN_image *successor = open_version("./libempty.so", "./libhot.so", old);
  check(our_swap(old, successor, &places, &error) == DLOPEN_E_SYMBOL, "it was swapped");
  check(strcmp(error.symbol, "version") == 0, error.symbol);
  library_close(successor);
  check(call(user, "by_call") == 1 && call(user, "by_pointer") == 1, "something was changed");
  check(our_existing("./libhot.so", &found, &error) == 0 && found == old, "it is found no more");
}

static void swap_under_a_patch(void) {
  uint64_t places;
  old = open_version("./libhot1.so", "./libhot.so", NULL);
  user = open_one("./libhotuser.so", RTLD_LAZY);
  check(patch_one(user, "version", NULL, ten, &patch) == 0, "patch");
  DLOPEN_image *successor = open_version("./libhot2.so", "./libhot.so", old);
  check(our_swap(old, successor, &places, &error) == 0, "swap");
  library_close(old);
  check(call(user, "by_call") == 10 && call(user, "by_pointer") == 10, "the patch is in force");
  check(our_unpatch(patch, &error) == 0, "unpatch");
  check(call(user, "by_call") == 2 && call(user, "by_pointer") == 2, "the new version");
}

static void *call_next(void *function) { return (void *)(long)((int (*)(void))function)(); }

/* Two images of the same bytes, which may be written over when they are there. */
static void from_bytes(void) {
  DLOPEN_image *images[2], *found = NULL;
  struct DLOPEN_symbol symbol;
  pthread_t thread;
  void *result;
  for (int i = 0; i < 2; i++) images[i] = open_version("./libmemory.so", "memory.so", NULL);
  open_version("./libempty.so", "other.so", NULL);
  for (int i = 0; i < 2; i++) {
    check(call(images[i], "started") == 1, "a constructor");
    check(call(images[i], "chosen") == 42, "a function that a resolver chose");
    check(call(images[i], "length") == 4, "a call of libc's");
    for (int turn = 1; turn < 4; turn++) check(call(images[i], "count") == turn, "its own data");
    check(call(images[i], "next") == 6 && call(images[i], "next") == 7, "thread-local storage");
    void *next = library_find(images[i], "next");
    pthread_create(&thread, NULL, call_next, next);
    pthread_join(thread, &result);
    check((long)result == 6, "another thread's storage");
    check(loader_address(next, &found, &symbol) == 0 && found == images[i], "the image of an address");
    check(strcmp(symbol.name, "next") == 0, "the name of an address");
  }
  check(is_loaded("count") == 2, "two images");
  library_close(images[0]);
  check(is_loaded("count") == 1 && call(images[1], "count") == 4, "the other one");
  library_close(images[1]);
  check(is_loaded("count") == 0, "one is left");
}

static int asked;

static int read_file(const char *path, const void **bytes, size_t *size, void *data) {
  static char content[2][1 << 20];
  if (strncmp(path, "/nowhere/", 9) != 0) return 0;
  FILE *stream = fopen(path + 9, "rb");
  if (!stream) return 0;
  check(asked < 2, path);
  *bytes = content[asked];
  *size = fread(content[asked++], 1, sizeof *content, stream);
  fclose(stream);
  return 0;
}

/* So is what it needs. */
static void from_bytes_with_what_it_needs(void) {
  struct DLOPEN_request request = {.size = sizeof request,
                                   .name = "/nowhere/libplaceslazy.so",
                                   .mode = RTLD_LAZY,
                                   .files = read_file};
  check(loader_open(&request, &user, &error) == 0, "open");
  check(asked == 2 && call(user, "call_value") == 1 && call(user, "from_table") == 1, "a call");
  library_close(user);
  check(!is_loaded("value") && !is_loaded("call_value"), "a library is left");
}

static const struct {
  const char *name;
  void (*run)(void);
} scenarios[] = {
#define SCENARIO(name) {#name, name}
  SCENARIO(patch_every_place), SCENARIO(patch_every_place_bound_now),
  SCENARIO(patch_every_place_of_the_host), SCENARIO(patches_end_in_any_order),
  SCENARIO(patch_of_one_version), SCENARIO(patch_of_pieces), SCENARIO(patch_of_all_or_none),
  SCENARIO(patch_while_threads_call),
  SCENARIO(swap_while_threads_call), SCENARIO(swap_without_a_symbol), SCENARIO(swap_under_a_patch),
  SCENARIO(from_bytes), SCENARIO(from_bytes_with_what_it_needs),
};

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  void *linker = use_exchanges(argv[1]);
  LOADER_FUNCTION(our_relocations, "DLOPEN_relocations");
  alarm(120);
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
    if (strcmp(scenarios[i].name, argv[2]) == 0) {
      scenarios[i].run();
      dprintf(1, "done\n");
      return 0;
    }
  return 2;
}
