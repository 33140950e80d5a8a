/* exchanges LIBDLOPEN SCENARIO: patches and swaps while what they are about changes, in the middle
 * of their own work: a resolver, a search for symbols or a constructor calls back into here.  What
 * hangs is ended by an alarm. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>

#include "exchanges.h"

static LOADER_TYPE(DLOPEN_map) *our_map;
static LOADER_TYPE(DLOPEN_relocate) *our_relocate;
static LOADER_TYPE(DLOPEN_info) *our_info;
static LOADER_TYPE(DLOPEN_dependency_at) *our_dependency;
static LOADER_TYPE(DLOPEN_holders) *our_holders;
static void (*in_hook)(void); /* once */

__attribute__((visibility("default"))) void hook(void) {
  void (*function)(void) = in_hook;
  in_hook = NULL;
  if (function) function();
}

static int hundred(void) { return 100; }

/* The image that is patched goes while a resolver runs for the patch. */
static DLOPEN_image *user, *other;

static void close_user(void) { library_close(user); }

static void patched_image_goes(void) {
  struct DLOPEN_replacement one = {.name = "chosen", .address = (const void *)hundred};
  void *keep = open_one("./libchosen.so", RTLD_LAZY);
  for (int turn = 0; turn < 3; turn++) {
    user = open_one("./libuser.so", RTLD_LAZY);
    in_hook = close_user;
    int code = our_patch(user, &one, 1, patched, &patch, &error);
    check(in_hook == NULL, "the resolver was not asked");
    check(code == DLOPEN_E_HANDLE, "it was patched after it had gone");
  }
  library_close(keep);
}

/* What another of the patch's symbols leads to goes while the resolver of the first runs. */
static void close_other(void) { library_close(other); }

static void definition_goes(void) {
  struct DLOPEN_replacement both[] = {{.name = "chosen", .address = (const void *)hundred},
                                      {.name = "global", .address = (const void *)hundred}};
  other = open_one("./libglobal.so", RTLD_LAZY | RTLD_GLOBAL);
  user = open_one("./libuser.so", RTLD_LAZY);
  in_hook = close_other;
  check(our_patch(user, both, 2, patched, &patch, &error) == 0, "patch");
  check(in_hook == NULL && patched[0].places == 1 && patched[1].places == 1, "the places");
  check(patched[1].original == 0, "it leads to what has gone");
  check(call(user, "call_chosen") == 100 && call(user, "call_global") == 100, "a call");
  check(our_unpatch(patch, &error) == 0, "unpatch");
  check(call(user, "call_chosen") == 42, "a call afterwards");
  library_close(user);
}

/* A patch does not keep for ever what refers to each other through it. */
static void patch_in_a_cycle(void) {
  struct DLOPEN_symbol symbol;
  other = open_one("./libhelper.so", RTLD_LAZY); /* needs libuser.so */
  user = open_one("./libuser.so", RTLD_LAZY);
  check(loader_find(other, "instead", NULL, 0, &symbol, &error) == 0, "instead");
  struct DLOPEN_replacement one = {.name = "chosen", .address = (const void *)symbol.address};
  check(our_patch(user, &one, 1, patched, &patch, &error) == 0, "patch");
  library_close(other);
  check(call(user, "call_chosen") == 7, "the patch keeps what it leads to");
  library_close(user);
  check(!is_loaded("instead") && !is_loaded("call_chosen"), "a library is left");
  check(our_unpatch(patch, &error) == 0, "unpatch");
}

/* Of the host's image that stays, on the other hand, it keeps it. */
static void patch_of_the_host(void) {
  struct DLOPEN_symbol symbol;
  void *handle = dlopen("./libuser.so", RTLD_NOW);
  check(handle && our_existing("./libuser.so", &user, &error) == 0, "existing");
  other = open_one("./libhelper.so", RTLD_LAZY);
  check(loader_find(other, "instead", NULL, 0, &symbol, &error) == 0, "instead");
  struct DLOPEN_replacement one = {.name = "chosen", .address = (const void *)symbol.address};
  int (*call_chosen)(void) = (int (*)(void))loader_function(handle, "call_chosen");
  check(our_patch(user, &one, 1, patched, &patch, &error) == 0, "patch");
  library_close(other);
  library_close(user);
  dlclose(handle);
  check(is_loaded("instead") && call_chosen() == 7, "the patch keeps both");
  check(our_unpatch(patch, &error) == 0, "unpatch");
  check(!is_loaded("instead") && !dlopen("./libuser.so", RTLD_NOW | RTLD_NOLOAD), "one is left");
}

/* An unwinder's function in an image of the host's, which the linker binds to its own. */
static int walks;

static int walk_instead(int (*visit)(struct dl_phdr_info *, size_t, void *), void *data) {
  (void)visit, (void)data;
  return ++walks;
}

static void patch_of_the_unwinder(void) {
  struct DLOPEN_replacement one = {.name = "dl_iterate_phdr", .address = (const void *)walk_instead};
  void *handle = dlopen("./libwalks.so", RTLD_NOW);
  check(handle && our_existing("./libwalks.so", &user, &error) == 0, "existing");
  int (*walk)(void) = (int (*)(void))loader_function(handle, "walk");
  int before = walk();
  check(our_patch(user, &one, 1, patched, &patch, &error) == 0 && patched[0].places, "patch");
  check(walk() == 1, "a call");
  dlopen("./libchosen.so", RTLD_NOW);
  open_one("./libglobal.so", RTLD_LAZY); /* looks at the host's images again */
  check(walk() == 2, "the linker has written over the patch");
  check(our_unpatch(patch, &error) == 0, "unpatch");
  check(walk() >= before && walks == 2, "a call afterwards");
}

/* The swap happens while an image that needs the old one is opened. */
static DLOPEN_image *old, *successor;

static void swap_and_close(void) {
  uint64_t places;
  successor = open_version("./libhot2.so", "./libhot.so", old);
  check(our_swap(old, successor, &places, &error) == 0, "swap");
  library_close(old);
}

static int find_nothing(const char *name, const char *version, const void **address, void *data) {
  (void)name, (void)version, (void)address, (void)data;
  hook();
  return 0;
}

static void swap_while_opening(void) {
  old = open_version("./libhot1.so", "./libhot.so", NULL);
  in_hook = swap_and_close;
  check(try_open("./libhotuser.so", RTLD_LAZY, &user, find_nothing) == 0, "open");
  check(in_hook == NULL && call(successor, "version") == 2, "the swap");
  check(call(user, "by_pointer") == 2 && call(user, "by_call") == 2, "it has the old version");
  library_close(user);
  library_close(successor);
  check(is_loaded("version") == 0, "a version is left");
}

/* And back again. */
static void swap_back(void) {
  uint64_t places;
  DLOPEN_image *found = NULL;
  old = open_version("./libhot1.so", "./libhot.so", NULL);
  user = open_one("./libhotuser.so", RTLD_LAZY);
  check(call(user, "by_call") == 1, "before");
  successor = open_version("./libhot2.so", "./libhot.so", old);
  check(our_swap(old, successor, &places, &error) == 0, "swap");
  check(our_swap(old, successor, &places, &error) == 0 && places == 0, "swap once more");
  check(call(user, "by_call") == 2 && call(user, "by_pointer") == 2, "after the swap");
  check(our_existing("./libhot.so", &found, &error) == 0 && found == successor, "the new one");
  library_close(found);
  check(our_swap(successor, old, &places, &error) == 0 && places, "swap back");
  check(call(user, "by_call") == 1 && call(user, "by_pointer") == 1, "back");
  check(our_existing("./libhot.so", &found, &error) == 0 && found == old, "the old one is not found");
  library_close(found);
  library_close(successor);
  check(is_loaded("version") == 1 && call(user, "by_call") == 1, "one version");
  library_close(user);
  library_close(old);
  check(is_loaded("version") == 0, "a version is left");
}

/* A place that no single store can change. */
static void swap_of_pieces(void) {
  uint64_t places;
  old = open_version("./libhot1.so", "./libhot.so", NULL);
  user = open_one("./libpacked.so", RTLD_LAZY);
  check(call(user, "by_packed") == 1, "before");
  successor = open_version("./libhot2.so", "./libhot.so", old);
  check(our_swap(old, successor, &places, &error) == DLOPEN_E_RELOCATION, "it was swapped");
  check(call(user, "by_packed") == 1 && call(user, "by_whole") == 1, "something was changed");
}

/* first needs last; a constructor of the tree opens second, which needs throwing and last, too. */
static void open_second(void) {
  DLOPEN_image *image = NULL;
  check(try_open("./libsecond.so", RTLD_LAZY, &image, NULL) == DLOPEN_E_CONSTRUCTOR, "second");
}

static void nested_open_fails(void) {
  in_hook = open_second;
  user = open_one("./libfirst.so", RTLD_LAZY);
  check(in_hook == NULL, "the constructor");
  check(call(user, "last") == 5, "it is not initialised");
  library_close(user);
  check(!is_loaded("last") && !is_loaded("second"), "a library is left");
}

/* A constructor opens it under libc's name, which would not return. */
static void throw_through_dlopen(void) {
  user = open_one("./libopens.so", RTLD_LAZY);
  check(call(user, "result") == 0, "it was opened");
  check(!is_loaded("throwing"), "the library that has thrown is left");
}

/* Once it has thrown, libc's names fail, too, and count nothing. */
static void fails_under_libc_names(void) {
  check(try_open("./libthrowing.so", RTLD_LAZY | RTLD_NODELETE, &user, NULL) == DLOPEN_E_CONSTRUCTOR,
        "throwing");
  struct DLOPEN_info info = {.size = sizeof info};
  static DLOPEN_image *images[256];
  other = open_one("./libplainopen.so", RTLD_LAZY);
  for (int i = 0; i < 3; i++) check(call(other, "open_throwing") == 0, "it was opened");
  size_t count = loader_images(images, 256);
  int seen = 0;
  for (size_t i = 0; i < count; i++) {
    check(our_info(images[i], &info) == 0, "info");
    if (info.path && strstr(info.path, "/libthrowing.so")) {
      seen++;
      check(info.open_count == 0, "it is counted");
    }
  }
  check(seen == 1, "it is not there");
}

/* A constructor leaves an open within it by longjmp. */
static jmp_buf away;

static void leave(void) { longjmp(away, 1); }

static void open_leaving(void) {
  DLOPEN_image *image;
  in_hook = leave;
  if (setjmp(away) == 0) try_open("./libhooked.so", RTLD_LAZY, &image, NULL);
}

static void constructor_jumps(void) {
  in_hook = open_leaving;
  user = open_one("./libfirst.so", RTLD_LAZY);
  check(call(user, "last") == 5, "it is not initialised");
}

/* What a library with a C++ runtime of its own throws. */
static void other_runtime(void) {
  DLOPEN_image *image;
  user = open_one("./libuncaught.so", RTLD_LAZY);
  check(call(user, "uncaught") == 0, "before");
  check(try_open("./libstatic.so", RTLD_LAZY, &image, NULL) == DLOPEN_E_CONSTRUCTOR, "open");
  check(call(user, "uncaught") == 0, "an exception is left");
}

/* A destructor throws through the close; it goes on to who closes, and the next close does what
 * is left: the destructor of what it needs, and both are unmapped. */
static int ends, says_done;

__attribute__((visibility("default"))) void ended(void) {
  ends++;
  if (says_done) dprintf(1, "done\n");
}

static void destructor_throws(void) {
  void *catcher = open_one("./libcatches.so", RTLD_LAZY);
  int (*catches)(void (*)(void)) = (int (*)(void (*)(void)))library_find(catcher, "catches");
  for (int turn = 1; turn < 4; turn++) {
    user = open_one("./libthrowsatend.so", RTLD_LAZY);
    check(is_loaded("throws_at_end") == 1 && is_loaded("says_end") == 1, "before");
    check(catches(close_user) == 7, "the exception has not come through");
    library_close(open_one("./liblast.so", RTLD_LAZY));
    check(!is_loaded("last"), "nothing is unloaded any more");
    check(ends == turn, "the destructor of what it needs");
    check(!is_loaded("throws_at_end") && !is_loaded("says_end"), "a library is left");
  }
}

static void destructor_throws_before_the_end(void) {
  void *catcher = open_one("./libcatches.so", RTLD_LAZY);
  user = open_one("./libthrowsatend.so", RTLD_LAZY);
  check(((int (*)(void (*)(void)))library_find(catcher, "catches"))(close_user) == 7, "catches");
  check(ends == 0, "too early");
  says_done = 1; /* by the destructor that is left */
  exit(0);
}

/* DLOPEN_retain counts. */
static void retained_twice(void) {
  user = open_one("./liblast.so", RTLD_LAZY);
  check(our_release(user, &error) == DLOPEN_E_STATE, "released, but not retained");
  check(our_retain(user, &error) == 0 && our_retain(user, &error) == 0, "retain");
  check(our_release(user, &error) == 0, "release");
  library_close(user);
  check(call(user, "last") == 5, "it has gone with the first release");
  check(our_release(user, &error) == 0, "release again");
  check(our_release(user, &error) == DLOPEN_E_HANDLE, "released, but gone");
}

static DLOPEN_image *map_one(const char *name) {
  struct DLOPEN_request request;
  DLOPEN_image *image;
  memset(&request, 0, sizeof request);
  request.size = sizeof request;
  request.name = name;
  check(our_map(&request, &image, &error) == 0, name);
  return image;
}

static int relocate_one(DLOPEN_image *image, unsigned flags, DLOPEN_find_symbol *find) {
  struct DLOPEN_request request;
  memset(&request, 0, sizeof request);
  request.size = sizeof request;
  request.mode = RTLD_NOW;
  request.flags = flags;
  request.find = find;
  return our_relocate(image, &request, NULL, 0, &error);
}

static int find_own(const char *name, const char *version, const void **address, void *data) {
  (void)version, (void)data;
  if (strcmp(name, "hook") == 0) *address = (const void *)hook;
  if (strcmp(name, "ended") == 0) *address = (const void *)ended;
  return 0;
}

static void count_end(void) { ends++; }

/* Neither constructor, resolver nor destructor runs; and libgcc_s is not brought in. */
static void relocate_without_foreign_code(void) {
  in_hook = count_end;
  user = map_one("./liballcode.so");
  check(relocate_one(user, DLOPEN_NO_FOREIGN_CODE, find_own) == 0, "relocate");
  check(in_hook == count_end && ends == 0, "a constructor or a resolver has run");
  check(!dlopen("libgcc_s.so.1", RTLD_LAZY | RTLD_NOLOAD), "an unwinder was brought in");
  library_close(user);
  check(in_hook == count_end && ends == 0, "a destructor has run");
  user = map_one("./liballcode.so");
  check(relocate_one(user, 0, find_own) == 0, "relocate");
  check(in_hook == NULL && ends == 1, "the constructor or the resolver has not run");
  library_close(user);
  check(ends == 2, "the destructor has not run");
}

/* It is closed by another thread while it is relocated, or while its constructor runs. */
static void *close_in_thread(void *data) {
  library_close(data);
  return NULL;
}

static void close_elsewhere(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, close_in_thread, user);
  pthread_join(thread, NULL);
}

static int find_and_close(const char *name, const char *version, const void **address, void *data) {
  if (ends++ == 0) close_elsewhere();
  return find_own(name, version, address, data);
}

static void closed_while_relocated(void) {
  user = map_one("./liballcode.so");
  check(relocate_one(user, 0, find_and_close) == DLOPEN_E_HANDLE, "it is open still");
  check(ends > 1 && !is_loaded("all_code"), "a library is left, or its destructor has not run");
  in_hook = close_elsewhere;
  user = map_one("./liballcode.so");
  check(relocate_one(user, 0, find_own) == DLOPEN_E_HANDLE, "it is open still");
  check(in_hook == NULL && !is_loaded("all_code"), "a library is left");
}

/* Others do not see the lists of one that is being linked, and it is linked once. */
static void count_holder(int kind, DLOPEN_image *holder, void *data) {
  (void)holder;
  if (kind == DLOPEN_HELD_DEPENDENCY) ++*(int *)data;
}

static int find_and_look(const char *name, const char *version, const void **address, void *data) {
  struct DLOPEN_symbol symbol;
  struct DLOPEN_info info = {.size = sizeof info};
  int dependents = 0;
  check(our_info(user, &info) == 0 && info.state == DLOPEN_STATE_LOADING, "info");
  check(info.dependency_count == 0 && our_dependency(user, 0) == NULL, "a dependency");
  our_holders(other, count_holder, &dependents);
  check(dependents == 0, "it holds what it may never need");
  check(relocate_one(user, 0, NULL) == DLOPEN_E_STATE, "twice");
  check(loader_find(user, "last", NULL, 0, &symbol, &error), "it is looked for in its scope");
  check(loader_find(user, "all_code", NULL, 0, &symbol, &error) == 0 && symbol.address == NULL,
        "a resolver is called that is not relocated");
  library_close(open_one("./libhelper.so", RTLD_LAZY));
  return find_own(name, version, address, data);
}

static void seen_while_relocated(void) {
  struct DLOPEN_request request;
  struct DLOPEN_symbol symbol;
  int dependents = 0;
  memset(&request, 0, sizeof request);
  request.size = sizeof request;
  request.mode = RTLD_NOW;
  request.find = find_and_look;
  other = open_one("./liblast.so", RTLD_LAZY);
  user = map_one("./liballcode.so");
  check(our_relocate(user, &request, &other, 1, &error) == 0, "relocate");
  check(our_dependency(user, 0) == other, "no dependency");
  check(loader_find(user, "last", NULL, 0, &symbol, &error) == 0, "it is not found");
  our_holders(other, count_holder, &dependents);
  check(dependents == 1, "it holds it not");
  library_close(other);
  check(is_loaded("last") == 1, "it has gone");
  library_close(user);
  check(!is_loaded("last") && !is_loaded("all_code"), "a library is left");
}

/* By its own text, which nobody else's name is, it is found when it is linked, and not before. */
static void *open_by_text(void *unused) {
  (void)unused;
  if (try_open(((struct link_map *)user)->l_name, RTLD_LAZY | RTLD_NOLOAD, &other, NULL) != 0)
    other = NULL;
  return NULL;
}

static void open_elsewhere(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, open_by_text, NULL);
  pthread_join(thread, NULL);
}

static int find_and_open(const char *name, const char *version, const void **address, void *data) {
  if (ends++ == 0) {
    open_elsewhere();
    check(other == NULL, "it is open before it is linked");
  }
  return find_own(name, version, address, data);
}

static void opened_while_relocated(void) {
  user = map_one("./liballcode.so");
  open_elsewhere();
  check(other == NULL, "it is open before it is linked");
  check(relocate_one(user, 0, find_and_open) == 0, "relocate");
  check(ends > 1, "nothing was looked for");
  open_elsewhere();
  check(other == user, "it is not found when it is linked");
  library_close(other);
  library_close(user);
  check(!is_loaded("all_code"), "a library is left");
}

static const struct {
  const char *name;
  void (*run)(void);
} scenarios[] = {
#define SCENARIO(name) {#name, name}
  SCENARIO(patched_image_goes), SCENARIO(definition_goes), SCENARIO(patch_in_a_cycle),
  SCENARIO(patch_of_the_host), SCENARIO(patch_of_the_unwinder), SCENARIO(swap_while_opening),
  SCENARIO(swap_back), SCENARIO(swap_of_pieces), SCENARIO(nested_open_fails),
  SCENARIO(throw_through_dlopen), SCENARIO(fails_under_libc_names), SCENARIO(constructor_jumps),
  SCENARIO(other_runtime), SCENARIO(destructor_throws), SCENARIO(destructor_throws_before_the_end),
  SCENARIO(retained_twice), SCENARIO(relocate_without_foreign_code),
  SCENARIO(closed_while_relocated), SCENARIO(seen_while_relocated),
  SCENARIO(opened_while_relocated),
};

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  void *linker = use_exchanges(argv[1]);
  LOADER_FUNCTION(our_map, "DLOPEN_map");
  LOADER_FUNCTION(our_relocate, "DLOPEN_relocate");
  LOADER_FUNCTION(our_info, "DLOPEN_info");
  LOADER_FUNCTION(our_dependency, "DLOPEN_dependency_at");
  LOADER_FUNCTION(our_holders, "DLOPEN_holders");
  alarm(120);
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
    if (strcmp(scenarios[i].name, argv[2]) == 0) {
      scenarios[i].run();
      dprintf(1, "done\n");
      return 0;
    }
  return 2;
}
