/* Each operation of the C face with the n-th allocation or kernel call of the linker failing, n from
 * 1 until it succeeds without: a clear error or success each time; then the same operation without a
 * failure succeeds, and mappings, descriptors, images and blocks are as where nothing failed.
 *
 *   driver [--only NAME] [--point N] [--stride N] [--explain] FOLDER
 *
 * FOLDER holds the libraries of libraries.py.  Each point is a process of its own.  Ends with status 1
 * if one went wrong.  --stride N tries each N-th point only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dlopen.h"
#include "faults.h"

enum { STATE = 1 << 16, LIMIT = 40 };

struct operation {
  const char *name;
  void (*prepare)(void);     /* before it, with nothing failing */
  int (*run)(void);          /* 0, or -1 with `message` */
  void (*finish)(void);      /* after it has succeeded: all is as before `prepare` */
  const char *ends_with;     /* it may end the process with status 127 and these words instead */
  int allowed;               /* what a failure may lead to: */
};

enum {
  STAYS = 1,                 /* without memory for the record of a thread_local object its library stays */
  MAPPED = 2                 /* what there is no memory for in the arena is mapped, or not kept there */
};

static struct result {
  int done, hit, succeeded;
  long points;
  char text[4096], message[4096];
  char open_state[STATE], final_state[STATE];
} *shared;

static char message[4096];
static void *handle, *second;
static DLOPEN_image *image;
static const char *folder;

/* What went wrong ---------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2), noreturn)) static void wrong(const char *format, ...) {
  va_list arguments;
  faults_disarm();
  va_start(arguments, format);
  vsnprintf(shared->text, sizeof shared->text, format, arguments);
  va_end(arguments);
  _exit(3);
}

static int explains(void) { return getenv("FAULTS_EXPLAIN") != NULL; }

/* The C face under libc's names; with AddressSanitizer they are hidden, but images of ours have them. */
static struct {
  void *(*open)(const char *, int);
  void *(*mopen)(Lmid_t, const char *, int);
  int (*close)(void *);
  void *(*sym)(void *, const char *);
  void *(*vsym)(void *, const char *, const char *);
  char *(*error)(void);
  int (*addr)(const void *, Dl_info *);
  int (*info)(void *, int, void *);
  int (*iterate)(int (*)(struct dl_phdr_info *, size_t, void *), void *);
} dl;

static int say(const char *text) {
  snprintf(message, sizeof message, "%s", text ? text : "");
  return -1;
}

/* It shall fail, and for this reason. */
static int expect(const char *words) {
  const char *text = dl.error();
  say(text);
  return text && strstr(text, words) ? 0 : -1;
}

static int say_error(const struct DLOPEN_error *error) {
  DLOPEN_message(error, message, sizeof message);
  return -1;
}

static const char *path(const char *name) {
  static char text[8][512];
  static int turn;
  char *one = text[turn++ % 8];
  snprintf(one, sizeof *text, "%s/%s", folder, name);
  return one;
}

/* Files read before, so that nothing of it is the linker's. */
static struct content { const char *name; void *bytes; size_t size; } contents[16];

static struct content *content(const char *name) {
  struct content *one = contents;
  while (one->name && strcmp(one->name, name)) one++;
  if (!one->name) {
    int file = open(path(name), O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status)) wrong("%s: %s", name, strerror(errno));
    one->name = name;
    one->size = status.st_size;
    one->bytes = malloc(one->size);
    if (read(file, one->bytes, one->size) != (ssize_t)one->size) wrong("%s: short", name);
    close(file);
  }
  return one;
}

static struct DLOPEN_error problem;

static int open_request(const char *name, uint32_t mode, uint32_t flags, DLOPEN_image **result) {
  struct DLOPEN_request request = {.size = sizeof request, .name = name, .mode = mode, .flags = flags};
  return DLOPEN_open(&request, result, &problem) ? say_error(&problem) : 0;
}

static int open_bytes(const char *name, uint32_t mode, uint32_t flags, DLOPEN_image **result) {
  struct content *one = content(name);
  struct DLOPEN_request request = {
    .size = sizeof request, .name = name, .bytes = one->bytes, .bytes_size = one->size, .mode = mode,
    .flags = flags};
  return DLOPEN_open(&request, result, &problem) ? say_error(&problem) : 0;
}

static int give_file(const char *name, const void **bytes, size_t *size, void *data) {
  (void)data;
  const char *base = strrchr(name, '/');
  base = base ? base + 1 : name;
  for (struct content *one = contents; one->name; one++)
    if (strcmp(one->name, base) == 0) {
      *bytes = one->bytes;
      *size = one->size;
    }
  return 0;
}

static int open_files(const char *name, DLOPEN_image **result) {
  struct DLOPEN_request request = {
    .size = sizeof request, .name = name, .mode = RTLD_NOW, .files = give_file};
  return DLOPEN_open(&request, result, &problem) ? say_error(&problem) : 0;
}

static void close_image(void) {
  if (DLOPEN_close(image, &problem)) wrong("close: %d", problem.code);
}

static void nothing(void) {}

static int open_path(const char *name, int mode) {
  handle = dl.open(name, mode);
  return handle ? 0 : say(dl.error());
}

static void close_handle(void) {
  if (dl.close(handle)) wrong("dlclose: %s", dl.error());
}

static void *function_of(void *of, const char *name) {
  void *found = dl.sym(of, name);
  if (!found) wrong("%s: %s", name, dl.error());
  return found;
}

static uint64_t address_of(DLOPEN_image *of, const char *name) {
  struct DLOPEN_symbol symbol;
  if (DLOPEN_symbol_find(of, name, NULL, 0, &symbol, &problem)) wrong("%s: not found", name);
  return symbol.address;
}

static void must(int code) {
  if (code) wrong("prepare: %s", message);
}

/* And the kernel says that it has ended: then its storage is freed. */
static void join(pthread_t thread) {
  struct stat status;
  pthread_join(thread, NULL);
  do
    if (stat("/proc/self/task", &status)) return;
  while (status.st_nlink != 3 && usleep(1000) == 0);
}

/* Operations --------------------------------------------------------------------------------- */

#define OPEN(name, expression) \
  static int name(void) { return expression; }

/* Members of an archive, which has some libraries at multiples of the largest page, and again behind them. */
static const char *const packed[] = {"libleaf.so", "libmiddle.so", "libpacked.so"};
enum { PACKED = sizeof packed / sizeof *packed, ROOM = 0x20000, UNALIGNED = PACKED * ROOM + 24 };
static int archive, given_back;

static void make_archive(void) {
  archive = open(path("archive"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  for (int i = 0; i < PACKED; i++) {
    struct content *one = content(packed[i]);
    if (one->size > ROOM || pwrite(archive, one->bytes, one->size, i * ROOM) < 0 ||
        pwrite(archive, one->bytes, one->size, UNALIGNED + i * ROOM) < 0)
      wrong("archive: %s", strerror(errno));
  }
}

enum { STORED, MOVED, COMPRESSED };

static void describe_member(int which, int kind, struct DLOPEN_member *member) {
  struct content *one = content(packed[which]);
  member->size = sizeof *member;
  member->archive = path("archive");
  member->descriptor = archive;
  member->offset = which * ROOM + (kind == MOVED ? UNALIGNED : 0);
  member->length = one->size;
  if (kind == COMPRESSED) member->bytes = one->bytes, member->bytes_size = one->size;
}

static void is_done(void *asked) { given_back++, free(asked); }

static int locate_member(const char *name, struct DLOPEN_member *member, void *kind) {
  const char *base = strrchr(name, '/');
  base = base ? base + 1 : name;
  for (int i = 0; i < PACKED; i++)
    if (strcmp(packed[i], base) == 0) {
      describe_member(i, *(int *)kind, member);
      member->done = is_done;
      member->done_data = malloc(1);
      given_back--;
      return 0;
    }
  return 1;
}

static int open_member(int kind) {
  struct DLOPEN_member member = {0};
  struct DLOPEN_request request = {
    .size = sizeof request, .name = "libleaf.so", .mode = RTLD_NOW, .member = &member};
  describe_member(0, kind, &member);
  return DLOPEN_open(&request, &image, &problem) ? say_error(&problem) : 0;
}

static int open_members(int kind) {
  struct DLOPEN_request request = {
    .size = sizeof request, .name = "libpacked.so", .mode = RTLD_NOW, .members = locate_member,
    .members_data = &kind};
  int code = DLOPEN_open(&request, &image, &problem);
  if (given_back) wrong("members that were not given back: %d", -given_back);
  return code ? say_error(&problem) : 0;
}

static int open_archived(int kind) {
  char name[4096];
  snprintf(name, sizeof name, "%s/libpacked.so", path("archive"));
  DLOPEN_set_archives(locate_member, &kind);
  int code = open_request(name, RTLD_NOW, 0, &image);
  DLOPEN_set_archives(NULL, NULL);
  if (given_back) wrong("members that were not given back: %d", -given_back);
  return code;
}

OPEN(member_stored, open_member(STORED))
OPEN(member_moved, open_member(MOVED))
OPEN(members_stored, open_members(STORED))
OPEN(members_compressed, open_members(COMPRESSED))
OPEN(archived_stored, open_archived(STORED))
OPEN(archived_moved, open_archived(MOVED))
OPEN(open_leaf, open_path(path("libleaf.so"), RTLD_NOW))
OPEN(open_leaf_global, open_path(path("libleaf.so"), RTLD_NOW | RTLD_GLOBAL))
OPEN(open_leaf_deepbind, open_path(path("libleaf.so"), RTLD_NOW | RTLD_DEEPBIND))
OPEN(open_by_search, open_path("libchain.so", RTLD_NOW))
OPEN(open_by_cache, open_path("libm.so.6", RTLD_NOW))
OPEN(open_chain, open_path(path("libchain.so"), RTLD_NOW))
OPEN(open_lazy, open_path(path("liblazy.so"), RTLD_LAZY))
OPEN(open_cxx, open_path(path("libcxx.so"), RTLD_NOW))
OPEN(open_tls, open_path(path("libtls.so"), RTLD_NOW))
OPEN(open_tlsdesc, open_path(path("libtlsdesc.so"), RTLD_NOW))
OPEN(open_initial, open_path(path("libinitial.so"), RTLD_NOW))
OPEN(open_aligned, open_path(path("libaligned.so"), RTLD_NOW))
OPEN(open_textrel, open_path(path("libtextrel.so"), RTLD_NOW))
OPEN(open_segments, open_path(path("libsegments.so"), RTLD_NOW))
OPEN(open_filter, open_path(path("libfilter.so"), RTLD_NOW))
OPEN(open_main, open_path(NULL, RTLD_NOW))
OPEN(open_host, open_path("libc.so.6", RTLD_NOW))
OPEN(bytes_leaf, open_bytes("libleaf.so", RTLD_NOW, 0, &image))
OPEN(bytes_chain, open_bytes("libchain.so", RTLD_NOW, 0, &image))
OPEN(bytes_initial, open_bytes("libinitial.so", RTLD_NOW, 0, &image))
OPEN(files_chain, open_files("libchain.so", &image))
OPEN(private_chain, open_request(path("libchain.so"), RTLD_NOW | DLOPEN_PRIVATE, 0, &image))
OPEN(request_chain, open_request(path("libchain.so"), RTLD_NOW, 0, &image))
OPEN(arena_chain, open_request(path("libchain.so"), RTLD_NOW, DLOPEN_ARENA, &image))

static int open_again(void) {
  second = dl.open(path("libleaf.so"), RTLD_NOW);
  return second ? 0 : say(dl.error());
}
static void prepare_leaf(void) { must(open_leaf()); }
static void close_twice(void) { if (dl.close(second)) wrong("dlclose"); close_handle(); }

static int open_known(void) {
  second = dl.open(path("libleaf.so"), RTLD_NOW | RTLD_NOLOAD);
  return second ? 0 : say(dl.error());
}

static int open_dependency(void) {
  second = dl.open(path("libmiddle.so"), RTLD_NOW | RTLD_GLOBAL);
  return second ? 0 : say(dl.error());
}
static void prepare_chain(void) { must(open_chain()); }

static int open_alias(void) {
  second = dl.open(path("libalias.so"), RTLD_NOW);
  return second ? 0 : say(dl.error());
}

static int open_missing(void) {
  if (dl.open("libmissing.so", RTLD_NOW)) wrong("found");
  return expect("No such file or directory");
}

static int open_new_namespace(void) {
  handle = dl.mopen(LM_ID_NEWLM, path("libchain.so"), RTLD_NOW);
  return handle ? 0 : say(dl.error());
}

static int close_run(void) { return dl.close(handle) ? say(dl.error()) : 0; }
static int close_image_run(void) { return DLOPEN_close(image, &problem) ? say_error(&problem) : 0; }
static void prepare_cxx(void) {
  must(open_cxx());
  int (*work)(void) = (int (*)(void))(uintptr_t)function_of(handle, "work");
  if (work() != 42) wrong("work");
}
static void prepare_bytes_chain(void) { must(bytes_chain()); }
static void prepare_global(void) { must(open_leaf_global()); }
static void prepare_initial(void) { must(open_initial()); }
static void prepare_request_chain(void) { must(request_chain()); }
static void prepare_private(void) { must(private_chain()); }
static void prepare_arena(void) { must(arena_chain()); }

static int cxx_work(void) {
  int (*work)(void) = (int (*)(void))(uintptr_t)dl.sym(handle, "work");
  if (!work) return say(dl.error());
  if (work() != 42) wrong("work");
  return 0;
}
static void prepare_cxx_open(void) { must(open_cxx()); }
static void *cxx_thread(void *unused) {
  cxx_work();
  return unused;
}
static int cxx_work_there(void) {
  pthread_t thread;
  message[0] = 0;
  if (pthread_create(&thread, NULL, cxx_thread, NULL)) wrong("thread");
  join(thread);
  return message[0] ? -1 : 0;
}

/* Calls and storage */

static int (*lazy_call)(int), (*touch)(void);

static void prepare_lazy(void) {
  must(open_lazy());
  lazy_call = (int (*)(int))(uintptr_t)function_of(handle, "lazy");
}
static int call_lazily(void) {
  if (lazy_call(1) != 3) wrong("lazy");
  return 0;
}


static void prepare_touch(const char *name) {
  must(open_path(path(name), RTLD_NOW));
  touch = (int (*)(void))(uintptr_t)function_of(handle, "touch");
}
static void prepare_tls(void) { prepare_touch("libtls.so"); }
static void prepare_tlsdesc(void) { prepare_touch("libtlsdesc.so"); }
static int touch_here(void) {
  if (touch() != 7) wrong("touch");
  return 0;
}
static void *touch_there_body(void *unused) {
  (void)unused;
  if (touch() != 7) wrong("touch");
  return NULL;
}
static int touch_there(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, touch_there_body, NULL)) wrong("thread");
  join(thread);
  return 0;
}

/* Looking */

static int look_up(void) { return dl.sym(handle, "leaf") ? 0 : say(dl.error()); }
static int look_up_default(void) { return dl.sym(RTLD_DEFAULT, "leaf") ? 0 : say(dl.error()); }
static int look_up_version(void) {
  return dl.vsym(handle, "malloc", "GLIBC_2.2.5") ? 0 : say(dl.error());
}
static int look_up_missing(void) {
  if (dl.sym(handle, "missing")) wrong("found");
  return expect("undefined symbol: missing");
}
static int look_at_address(void) {
  Dl_info info;
  return dl.addr(function_of(handle, "leaf"), &info) ? 0 : say("");
}
static int visit_one(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  if (info->dlpi_name && strstr(info->dlpi_name, "libleaf")) ++*(int *)data;
  return 0;
}
static int iterate(void) {
  int count = 0;
  dl.iterate(visit_one, &count);
  return count == 1 ? 0 : say("");
}
static int iterate_first(void) {
  int count = 0;
  dl.iterate(visit_one, &count);
  return 0;
}
static int information(void) {
  Dl_serinfo size, *info;
  char origin[4096];
  struct link_map *map;
  if (dl.info(handle, RTLD_DI_LINKMAP, &map)) return say(dl.error());
  if (dl.info(handle, RTLD_DI_ORIGIN, origin)) return say(dl.error());
  if (strcmp(origin, folder)) wrong("origin: %s", origin);
  if (dl.info(handle, RTLD_DI_SERINFOSIZE, &size)) return say(dl.error());
  info = calloc(1, size.dls_size);
  info->dls_size = size.dls_size;
  info->dls_cnt = size.dls_cnt;
  int code = dl.info(handle, RTLD_DI_SERINFO, info) ? say(dl.error()) : 0;
  if (code == 0 && size.dls_cnt < 5) wrong("%u folders", size.dls_cnt);
  free(info);
  return code;
}
static int close_nothing(void) {
  if (dl.close((void *)16) == 0) wrong("closed");
  return expect("shared object not open");
}

static int count_images(void) {
  DLOPEN_image *found[256];
  size_t count = DLOPEN_images(found, 256);
  return count > 3 ? 0 : say(count ? "" : "no memory for the list");
}
static int existing_leaf(void) {
  return DLOPEN_existing("libleaf.so", &image, &problem) ? say_error(&problem) : 0;
}
static int existing_host(void) {
  return DLOPEN_existing("libc.so.6", &image, &problem) ? say_error(&problem) : 0;
}
static int existing_image(void) {
  image = handle;
  return DLOPEN_existing(NULL, &image, &problem) ? say_error(&problem) : 0;
}
static void close_existing(void) { close_image(); close_handle(); }
static void see_candidate(const char *name, const char *origin, int result, void *data) {
  (void)origin;
  if (result == 0) snprintf(data, 512, "%s", name);
}
static int find(void) {
  char found[512] = "";
  if (DLOPEN_find("libchain.so", NULL, see_candidate, found, &problem)) return say_error(&problem);
  if (strcmp(found, path("libchain.so"))) wrong("found %s", found);
  return 0;
}
static void see_holder(int kind, DLOPEN_image *holder, void *data) {
  (void)kind, (void)holder;
  ++*(int *)data;
}
static int holders(void) {
  int count = 0;
  if (DLOPEN_holders(image, see_holder, &count) != 1 || count != 1) wrong("%d holders", count);
  return 0;
}

/* Two steps, patches, swaps, namespaces */

static int map_leaf(void) {
  struct DLOPEN_request request = {.size = sizeof request, .name = path("libleaf.so"), .mode = RTLD_NOW};
  return DLOPEN_map(&request, &image, &problem) ? say_error(&problem) : 0;
}
static DLOPEN_image *libc;
static void map_and_libc(void) {
  must(map_leaf());
  if (DLOPEN_existing("libc.so.6", &libc, &problem)) wrong("libc");
}
static int relocate_leaf(void) {
  struct DLOPEN_request request = {.size = sizeof request, .mode = RTLD_NOW};
  if (!image) must(map_leaf());    /* it was closed by the failure */
  if (DLOPEN_relocate(image, &request, &libc, 1, &problem)) {
    image = NULL;
    return say_error(&problem);
  }
  return 0;
}
static void close_libc(void) {
  close_image();
  if (DLOPEN_close(libc, &problem)) wrong("close");
}

static int replacement(int value) { return value + 100; }
static uint64_t patch_number;
static struct DLOPEN_patched patched;
static int patch(const char *name) {
  struct DLOPEN_replacement one = {.name = name, .address = (void *)(uintptr_t)replacement};
  memset(&patched, 0, sizeof patched);
  if (DLOPEN_patch(image, &one, 1, &patched, &patch_number, &problem)) return say_error(&problem);
  if (patched.places == 0) wrong("no places");
  return 0;
}
static int patch_chain(void) { return patch("leaf"); }
static int unpatch(void) { return DLOPEN_unpatch(patch_number, &problem) ? say_error(&problem) : 0; }
static void check_patched(void) {
  int (*chain)(int) = (int (*)(int))(uintptr_t)address_of(image, "middle");
  if (chain(1) != 101) wrong("patched: %d", chain(1));
}
static void unpatch_and_close(void) {
  check_patched();
  must(unpatch());
  close_image();
}

static void prepare_middle(void) { must(open_request(path("libmiddle.so"), RTLD_NOW, 0, &image)); }
static void prepare_patched(void) { prepare_middle(); must(patch_chain()); }
static void close_unpatched(void) {
  int (*middle)(int) = (int (*)(int))(uintptr_t)address_of(image, "middle");
  if (middle(1) != 3) wrong("not unpatched: %d", middle(1));
  close_image();
}

static DLOPEN_image *old, *successor;
static void prepare_swap(void) {
  must(open_bytes("libleaf.so", RTLD_NOW, DLOPEN_RELOADABLE, &old));
  must(open_request(path("libmiddle.so"), RTLD_NOW, 0, &image));
  struct content *one = content("libleaf2.so");
  struct DLOPEN_request request = {
    .size = sizeof request, .name = "libleaf.so", .bytes = one->bytes, .bytes_size = one->size,
    .mode = RTLD_NOW, .flags = DLOPEN_RELOADABLE, .replaces = old};
  if (DLOPEN_open(&request, &successor, &problem)) { say_error(&problem); must(-1); }
}
static int swap(void) {
  uint64_t places = 0;
  if (DLOPEN_swap(old, successor, &places, &problem)) return say_error(&problem);
  if (places == 0) wrong("no places");
  return 0;
}
static void close_swapped(void) {
  int (*middle)(int) = (int (*)(int))(uintptr_t)address_of(image, "middle");
  if (middle(1) != 1002) wrong("swapped: %d", middle(1));
  if (DLOPEN_close(old, &problem) || DLOPEN_close(image, &problem) || DLOPEN_close(successor, &problem))
    wrong("close");
}
static int retain_and_close(void) {
  if (DLOPEN_retain(image, &problem)) return say_error(&problem);
  if (DLOPEN_close(image, &problem)) return say_error(&problem);
  return DLOPEN_release(image, &problem) ? say_error(&problem) : 0;
}

static int64_t space;
static int new_namespace(void) {
  return DLOPEN_namespace_new(folder, &space, &problem) ? say_error(&problem) : 0;
}
static void end_namespace(void) { if (DLOPEN_namespace_end(space, &problem)) wrong("end"); }
static void prepare_namespace(void) { must(new_namespace()); }
static int open_in_namespace(void) {
  struct DLOPEN_request request = {
    .size = sizeof request, .name = "libchain.so", .mode = RTLD_NOW, .namespace_id = space};
  return DLOPEN_open(&request, &image, &problem) ? say_error(&problem) : 0;
}
static void end_with_image(void) { close_image(); end_namespace(); }

static int replace_leaf(void) {
  struct DLOPEN_replacement one = {.name = "leaf", .address = (void *)(uintptr_t)replacement};
  struct DLOPEN_request request = {
    .size = sizeof request, .name = path("libmiddle.so"), .mode = RTLD_NOW, .replacements = &one,
    .replacement_count = 1};
  if (DLOPEN_open(&request, &image, &problem)) return say_error(&problem);
  check_patched();
  return 0;
}

static int fork_once(void) {
  pid_t child = fork();
  if (child == 0) {
    void *opened = dl.open(path("libleaf.so"), RTLD_NOW);
    _exit(opened ? 0 : dl.error() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  if (status) wrong("child: %d", status);
  return 0;
}

#define NO_STORAGE "cannot allocate memory for thread-local data: ABORT"
#define NO_CALL "symbol lookup error"

static const struct operation first_operations[] = {
  {"first dlopen", nothing, open_leaf, close_handle, NULL, 0},
  {"first dlopen by search", nothing, open_by_search, close_handle, NULL, 0},
  {"first dlopen of the program", nothing, open_main, close_handle, NULL, 0},
  {"first dlopen of what is missing", nothing, open_missing, nothing, NULL, 0},
  {"first dlmopen", nothing, open_new_namespace, close_handle, NULL, 0},
  {"first dlsym", nothing, look_up_version, nothing, NULL, 0},
  {"first dlsym of what is missing", nothing, look_up_missing, nothing, NULL, 0},
  {"first dlclose of nothing", nothing, close_nothing, nothing, NULL, 0},
  {"first dl_iterate_phdr", nothing, iterate_first, nothing, NULL, 0},
};
static const struct operation first_own_operations[] = {
  {"first DLOPEN_open", nothing, request_chain, close_image, NULL, 0},
  {"first open of bytes", nothing, bytes_chain, close_image, NULL, 0},
  {"first open from files", nothing, files_chain, close_image, NULL, 0},
  {"first open in an archive", nothing, archived_stored, close_image, NULL, 0},
  {"first initial-exec storage", nothing, bytes_initial, close_image, NULL, 0},
  {"first DLOPEN_map", nothing, map_leaf, close_image, NULL, 0},
  {"first DLOPEN_existing", nothing, existing_host, close_image, NULL, 0},
  {"first DLOPEN_images", nothing, count_images, nothing, NULL, 0},
  {"first DLOPEN_find", nothing, find, nothing, NULL, 0},
  {"first namespace", nothing, new_namespace, end_namespace, NULL, 0},
};
static const struct operation later_operations[] = {
  {"dlopen", nothing, open_leaf, close_handle, NULL, 0},
  {"dlopen by search", nothing, open_by_search, close_handle, NULL, 0},
  {"dlopen by cache, of the host's", nothing, open_by_cache, close_handle, NULL, 0},
  {"dlopen of a chain", nothing, open_chain, close_handle, NULL, 0},
  {"dlopen RTLD_GLOBAL", nothing, open_leaf_global, close_handle, NULL, 0},
  {"dlopen RTLD_DEEPBIND", nothing, open_leaf_deepbind, close_handle, NULL, 0},
  {"dlopen RTLD_LAZY", nothing, open_lazy, close_handle, NULL, 0},
  {"dlopen of C++", nothing, open_cxx, close_handle, NULL, 0},
  {"dlopen of dynamic storage", nothing, open_tls, close_handle, NULL, 0},
  {"dlopen of storage by descriptor", nothing, open_tlsdesc, close_handle, NULL, 0},
  {"dlopen of initial-exec storage", nothing, open_initial, close_handle, NULL, 0},
  {"dlopen of aligned initial-exec storage", nothing, open_aligned, close_handle, NULL, 0},
  {"dlopen of text relocations", nothing, open_textrel, close_handle, NULL, 0},
  {"dlopen of segments of all kinds", nothing, open_segments, close_handle, NULL, 0},
  {"dlopen of a filter", nothing, open_filter, close_handle, NULL, 0},
  {"dlopen of the program", nothing, open_main, close_handle, NULL, 0},
  {"dlopen of libc", nothing, open_host, close_handle, NULL, 0},
  {"dlopen again", prepare_leaf, open_again, close_twice, NULL, 0},
  {"dlopen RTLD_NOLOAD", prepare_leaf, open_known, close_twice, NULL, 0},
  {"dlopen of a dependency", prepare_chain, open_dependency, close_twice, NULL, 0},
  {"dlopen by another name", prepare_leaf, open_alias, close_twice, NULL, 0},
  {"dlopen of what is missing", nothing, open_missing, nothing, NULL, 0},
  {"dlmopen", nothing, open_new_namespace, close_handle, NULL, 0},
  {"dlclose", prepare_leaf, close_run, nothing, NULL, 0},
  {"dlclose of a chain", prepare_chain, close_run, nothing, NULL, 0},
  {"dlclose of C++", prepare_cxx, close_run, nothing, NULL, 0},
  {"dlclose of a global", prepare_global, close_run, nothing, NULL, 0},
  {"dlclose of initial-exec storage", prepare_initial, close_run, nothing, NULL, 0},
  {"dlclose of nothing", nothing, close_nothing, nothing, NULL, 0},
  {"C++ at work", prepare_cxx_open, cxx_work, close_handle, NO_STORAGE, STAYS},
  {"C++ at work in a thread", prepare_cxx_open, cxx_work_there, close_handle, NO_STORAGE, STAYS},
  {"lazy call", prepare_lazy, call_lazily, close_handle, NO_CALL, 0},
  {"storage touched", prepare_tls, touch_here, close_handle, NO_STORAGE, 0},
  {"storage touched in a thread", prepare_tls, touch_there, close_handle, NO_STORAGE, 0},
  {"storage touched by descriptor", prepare_tlsdesc, touch_here, close_handle, NO_STORAGE, 0},
  {"dlsym", prepare_leaf, look_up, close_handle, NULL, 0},
  {"dlsym RTLD_DEFAULT", prepare_global, look_up_default, close_handle, NULL, 0},
  {"dlsym of what is missing", prepare_leaf, look_up_missing, close_handle, NULL, 0},
  {"dladdr", prepare_leaf, look_at_address, close_handle, NULL, 0},
  {"dlinfo", prepare_leaf, information, close_handle, NULL, 0},
  {"dl_iterate_phdr", prepare_leaf, iterate, close_handle, NULL, 0},
  {"fork", nothing, fork_once, nothing, NULL, 0},
};
static const struct operation later_own_operations[] = {
  {"DLOPEN_open of bytes", nothing, bytes_leaf, close_image, NULL, 0},
  {"DLOPEN_open of bytes of a chain", nothing, bytes_chain, close_image, NULL, 0},
  {"DLOPEN_open of bytes with initial-exec storage", nothing, bytes_initial, close_image, NULL, 0},
  {"DLOPEN_open from files", nothing, files_chain, close_image, NULL, 0},
  {"DLOPEN_open of a member", nothing, member_stored, close_image, NULL, 0},
  {"DLOPEN_open of a member that is copied", nothing, member_moved, close_image, NULL, 0},
  {"DLOPEN_open of members", nothing, members_stored, close_image, NULL, 0},
  {"DLOPEN_open of compressed members", nothing, members_compressed, close_image, NULL, 0},
  {"DLOPEN_open in an archive", nothing, archived_stored, close_image, NULL, 0},
  {"DLOPEN_open in an archive, copied", nothing, archived_moved, close_image, NULL, 0},
  {"DLOPEN_open DLOPEN_PRIVATE", nothing, private_chain, close_image, NULL, 0},
  {"DLOPEN_open into the arena", nothing, arena_chain, close_image, NULL, MAPPED},
  {"DLOPEN_open with replacements", nothing, replace_leaf, close_image, NULL, 0},
  {"DLOPEN_close", prepare_request_chain, close_image_run, nothing, NULL, 0},
  {"DLOPEN_close of bytes", prepare_bytes_chain, close_image_run, nothing, NULL, 0},
  {"DLOPEN_close of a private one", prepare_private, close_image_run, nothing, NULL, 0},
  {"DLOPEN_close of one in the arena", prepare_arena, close_image_run, nothing, NULL, MAPPED},
  {"DLOPEN_existing", prepare_leaf, existing_leaf, close_existing, NULL, 0},
  {"DLOPEN_existing of an image", prepare_leaf, existing_image, close_existing, NULL, 0},
  {"DLOPEN_existing of the host's", nothing, existing_host, close_image, NULL, 0},
  {"DLOPEN_images", nothing, count_images, nothing, NULL, 0},
  {"DLOPEN_find", nothing, find, nothing, NULL, 0},
  {"DLOPEN_holders", prepare_request_chain, holders, close_image, NULL, 0},
  {"DLOPEN_map", nothing, map_leaf, close_image, NULL, 0},
  {"DLOPEN_relocate", map_and_libc, relocate_leaf, close_libc, NULL, 0},
  {"DLOPEN_patch", prepare_middle, patch_chain, unpatch_and_close, NULL, 0},
  {"DLOPEN_unpatch", prepare_patched, unpatch, close_unpatched, NULL, 0},
  {"DLOPEN_swap", prepare_swap, swap, close_swapped, NULL, 0},
  {"DLOPEN_retain and release", prepare_request_chain, retain_and_close, nothing, NULL, 0},
  {"DLOPEN_namespace_new", nothing, new_namespace, end_namespace, NULL, 0},
  {"open in a namespace", prepare_namespace, open_in_namespace, end_with_image, NULL, 0},
};

/* The harness -------------------------------------------------------------------------------- */

static struct result reference;
static const char *only;
static long only_point, stride = 1, tried, failures;

/* What a search has found out stays: blocks are counted at the end, when all of it is known. */
static void take_state(char *text, int blocks) {
  DLOPEN_image *found[512], *opened;
  /* What could not be closed then is, with the next close; and dlerror keeps its last message. */
  if (open_bytes("libleaf2.so", RTLD_NOW, 0, &opened)) wrong("cannot open: %s", message);
  if (DLOPEN_close(opened, &problem)) wrong("cannot close");
  if (dl.error) dl.error(), dl.error();
  size_t length = faults_state(text, STATE, blocks);
  snprintf(text + length, STATE - length, "images %zu\n", DLOPEN_images(found, 512));
}

static void clear_error(const struct operation *operation) {
  if (!message[0]) wrong("failed without a message");
  if (strstr(message, "was not found in this process")) wrong("misleading: %s", message);
  snprintf(shared->message, sizeof shared->message, "%s", message);
  (void)operation;
}

/* In a process of its own. */
__attribute__((noreturn)) static void try_point(const struct operation *operation, long number, int stays) {
  memset(shared, 0, sizeof *shared);
  alarm(LIMIT);
  operation->prepare();
  message[0] = 0;
  faults_arm(number, stays);
  int code = operation->run();
  shared->points = faults_disarm();
  shared->hit = faults_hit();
  shared->succeeded = code == 0;
  if (explains()) faults_explain();
  if (code) {
    clear_error(operation);
    if (operation->run()) wrong("fails again without a failure: %s", message);
  }
  take_state(shared->open_state, 0);
  operation->finish();
  operation->prepare();
  if (operation->run()) wrong("fails the next time: %s", message);
  operation->finish();
  take_state(shared->final_state, 1);
  if (explains()) faults_explain();
  shared->done = 1;
  _exit(0);
}

static void compare_states(char *text, size_t size, const char *what, const char *expected, const char *got) {
  char one[512];
  size_t length;
  if (strcmp(expected, got) == 0) return;
  length = snprintf(text, size, "%s differs:", what);
  for (int turn = 0; turn < 2; turn++)
    for (const char *line = turn ? expected : got, *next; *line && length < size; line = next) {
      next = strchr(line, '\n') + 1;
      snprintf(one, sizeof one, "%.*s", (int)(next - line), line);
      if (strstr(turn ? got : expected, one)) continue;
      length += snprintf(text + length, size - length, "  %c %.*s", turn ? '-' : '+',
                         (int)(next - line - 1), line);
    }
}

/* "": all is well. */
static int run_point(const struct operation *operation, long number, int stays, char *text, size_t size) {
  int errors = memfd_create("errors", 0), status;
  text[0] = 0;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (!explains()) dup2(errors, 2);
    close(errors);
    try_point(operation, number, stays);
  }
  waitpid(child, &status, 0);
  char said[1024];
  ssize_t length = pread(errors, said, sizeof said - 1, 0);
  said[length > 0 ? length : 0] = 0;
  close(errors);
  if (status == 0 && shared->done) {
    if (number && !(operation->allowed & MAPPED && shared->hit))
      compare_states(text, size, "with it done, the state", reference.open_state, shared->open_state);
    if (number && !text[0] && !(operation->allowed & STAYS && shared->hit))
      compare_states(text, size, "after it, the state", reference.final_state, shared->final_state);
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == 127 && operation->ends_with &&
             strstr(said, operation->ends_with)) {
    shared->hit = 1;
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
    snprintf(text, size, "%s", shared->text);
  } else if (WIFSIGNALED(status)) {
    snprintf(text, size, "%s %s", strsignal(WTERMSIG(status)), said);
  } else {
    snprintf(text, size, "ends with status %d: %s", WEXITSTATUS(status), said);
  }
  return shared->hit;
}

static void try_operation(const struct operation *operation) {
  char text[8192];
  if (only && strcmp(only, operation->name)) return;
  run_point(operation, 0, 0, text, sizeof text);
  if (text[0]) {
    printf("FAILED %s: without a failure: %s\n", operation->name, text);
    failures++;
    return;
  }
  reference = *shared;
  long here = 0, bad = 0;
  for (int stays = 0; stays <= 1; stays++)
    for (long number = only_point ? only_point : 1; number < 5000; number += stride) {
      int hit = run_point(operation, number, stays, text, sizeof text);
      if (text[0]) {
        printf("FAILED %s, point %ld%s: %s\n", operation->name, number, stays ? " and all after it" : "", text);
        bad++;
      }
      if (!hit) break;
      here++;
      if (only_point) break;
    }
  printf("%-50s %5ld points%s\n", operation->name, here, bad ? "  FAILED" : "");
  tried += here;
  failures += bad;
}

#define TRY_ALL(operations) \
  for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) try_operation(&operations[i])

#if defined(__SANITIZE_ADDRESS__)
/* libdlopen.so hides libc's names there, and the runtime stands before libc: who refers to libc's own
 * is given ours, so a library that is bound to libc alone. */
static void bind_family(void) {
  static DLOPEN_image *calls, *scope;
  struct DLOPEN_request request = {
    .size = sizeof request, .name = path("libcalls.so"), .mode = RTLD_NOW};
  Dl_info info;
  if (DLOPEN_existing("libc.so.6", &scope, &problem) || DLOPEN_map(&request, &calls, &problem) ||
      DLOPEN_relocate(calls, &request, &scope, 1, &problem))
    must(say_error(&problem));
#define BIND(member, name) *(void **)&dl.member = (void *)(uintptr_t)((uint64_t (*)(void))(uintptr_t)address_of(calls, "get_" #name))()
  BIND(open, dlopen), BIND(mopen, dlmopen), BIND(close, dlclose), BIND(sym, dlsym), BIND(vsym, dlvsym);
  BIND(error, dlerror), BIND(addr, dladdr), BIND(info, dlinfo), BIND(iterate, dl_iterate_phdr);
  if (!dl.addr((void *)(uintptr_t)dl.open, &info) || !strstr(info.dli_fname, "libdlopen.so"))
    wrong("dlopen is not ours: %s", info.dli_fname);
}
enum { FAMILY_IS_HIDDEN = 1 };
#else
static void bind_family(void) {
  dl.open = dlopen, dl.mopen = dlmopen, dl.close = dlclose, dl.sym = dlsym, dl.vsym = dlvsym;
  dl.error = dlerror, dl.addr = dladdr, dl.info = dlinfo, dl.iterate = dl_iterate_phdr;
}
enum { FAMILY_IS_HIDDEN = 0 };
#endif

int main(int count, char **arguments) {
  for (int i = 1; i < count; i++) {
    if (strcmp(arguments[i], "--only") == 0) only = arguments[++i];
    else if (strcmp(arguments[i], "--point") == 0) only_point = atol(arguments[++i]);
    else if (strcmp(arguments[i], "--stride") == 0) stride = atol(arguments[++i]);
    else if (strcmp(arguments[i], "--explain") == 0) setenv("FAULTS_EXPLAIN", "1", 1);
    else folder = arguments[i];
  }
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  content("libleaf.so"), content("libleaf2.so"), content("libmiddle.so"), content("libchain.so");
  content("libinitial.so");
  make_archive();
  if (!FAMILY_IS_HIDDEN) {
    bind_family();
    TRY_ALL(first_operations);
  }
  TRY_ALL(first_own_operations);
  bind_family();
  /* All that is found out once. */
  must(request_chain());
  close_image();
  must(open_by_search());
  close_handle();
  TRY_ALL(later_operations);
  TRY_ALL(later_own_operations);
  printf("%ld points, %ld failures\n", tried, failures);
  return failures != 0;
}
