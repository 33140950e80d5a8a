/* members LIBDLOPEN SCENARIO FILE OFFSET LENGTH: libraries that are members of FILE, which has one at
 * OFFSET: int answer(void), that says 42. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "loader.h"

static LOADER_TYPE(DLOPEN_set_archives) *our_set_archives;
static LOADER_TYPE(DLOPEN_info) *our_info;
static LOADER_TYPE(DLOPEN_map) *our_map;
static LOADER_TYPE(DLOPEN_existing) *our_existing;
static LOADER_TYPE(DLOPEN_relocate) *our_relocate;

static struct DLOPEN_member given;
static struct DLOPEN_error error;
static char path[4096];
static int asked, done, data_is_whole = 1;

static void check(int holds, const char *what) {
  char message[4096] = "";
  if (holds) return;
  if (error.code) loader_message(&error, message, sizeof message);
  failed(what, message);
}

static void count_done(void *data) {
  check(data == &done, "its own data");
  done++;
}

static int locate(const char *name, struct DLOPEN_member *member, void *data) {
  asked++;
  check(data == &data_is_whole, "the data that was set");
  check(member->size == sizeof *member && member->descriptor == -1, "an empty member");
  if (strcmp(name, path)) return 1;
  *member = given;
  member->done = count_done;
  member->done_data = &done;
  return 0;
}

static int open_as(const char *name, int mode, const struct DLOPEN_member *member, DLOPEN_image **image) {
  struct DLOPEN_request request = {.size = sizeof request, .name = name, .mode = mode, .member = member};
  return loader_open(&request, image, &error);
}

static int answer_of(DLOPEN_image *image) { return ((int (*)(void))library_find(image, "answer"))(); }

static int listed(struct dl_phdr_info *info, size_t size, void *count) {
  (void)size;
  *(int *)count += strcmp(info->dlpi_name, path) == 0;
  return 0;
}

/* The request's own member: one image, by its file and by its path. */
static void stored(void) {
  DLOPEN_image *image, *again, *own;
  struct DLOPEN_info info = {.size = sizeof info};
  struct stat status;
  struct DLOPEN_symbol symbol;
  given.done = count_done; /* of answers only */
  check(open_as("inner/liba.so", RTLD_NOW | RTLD_NOLOAD, &given, &image) == DLOPEN_E_NOT_LOADED, "not yet");
  check(!open_as("inner/liba.so", RTLD_NOW, &given, &image) && answer_of(image) == 42, "open");
  check(!our_info(image, &info) && !strcmp(info.path, path) && !strcmp(info.name, path), "its path");
  fstat(given.descriptor, &status);
  check(info.device == status.st_dev && info.inode == status.st_ino && info.offset == given.offset &&
        !strcmp(info.archive, given.archive), "where it is");
  check(!strcmp(((struct link_map *)image)->l_name, path), "its link map");
  check(!open_as("other/./name", RTLD_NOW, &given, &again) && again == image, "again by another name");
  check(!open_as(path, RTLD_NOW | RTLD_NOLOAD, NULL, &again) && again == image, "by its path");
  check(!our_existing(path, &again, &error) && again == image, "existing");
  check(!open_as("inner/liba.so", RTLD_NOW | DLOPEN_PRIVATE, &given, &own) && own != image, "of its own");
  check(!loader_address((void *)library_find(image, "answer"), &again, &symbol) && again == image, "dladdr");
  int count = 0;
  ((int (*)(__typeof__(listed) *, void *))library_find(image, "visit"))(listed, &count);
  check(count == 2, "dl_iterate_phdr");
  for (int i = 0; i < 4; i++) library_close(image);
  library_close(own);
  check(our_info(image, &info) == DLOPEN_E_HANDLE && done == 0, "closed");
}

/* What may only be mapped is, or is an error: by the page of this machine. */
static void mapped_only(void) {
  DLOPEN_image *image;
  given.flags = DLOPEN_MEMBER_MAPPED_ONLY;
  int code = open_as(path, RTLD_NOW, &given, &image);
  if (given.offset % sysconf(_SC_PAGESIZE)) {
    check(code == DLOPEN_E_UNSUPPORTED && strstr(error.detail, "only be mapped"), "why not");
  } else {
    check(!code && answer_of(image) == 42, "mapped");
    library_close(image);
  }
}

/* In two steps, and what is wrong with a request. */
static void by_hand(void) {
  DLOPEN_image *image;
  struct DLOPEN_request request = {.size = sizeof request, .name = path, .member = &given};
  struct DLOPEN_request none = {.size = sizeof none, .mode = RTLD_NOW};
  check(!our_map(&request, &image, &error) && !our_relocate(image, &none, NULL, 0, &error), "by hand");
  check(answer_of(image) == 42, "its answer");
  library_close(image);
  request.bytes = "", request.bytes_size = 0;
  check(our_map(&request, &image, &error) == DLOPEN_E_INVALID, "bytes, too");
  check(loader_open(&request, &image, &error) == DLOPEN_E_INVALID, "bytes, too");
  check(open_as(NULL, RTLD_NOW, &given, &image) == DLOPEN_E_INVALID, "no name");
  given.size = 8;
  check(open_as(path, RTLD_NOW, &given, &image) == DLOPEN_E_INVALID, "its size");
}

/* Archives of the process, and what each asking gives back. */
static void archives(void) {
  DLOPEN_image *image, *again;
  char roundabout[5000];
  check(open_as(path, RTLD_NOW, NULL, &image) == DLOPEN_E_OPEN && error.errnum == ENOTDIR, "nobody knows");
  our_set_archives(locate, &data_is_whole);
  check(!open_as(path, RTLD_NOW, NULL, &image) && asked == 1 && done == 1, "asked once");
  check(answer_of(image) == 42, "its answer");
  check(!open_as(path, RTLD_NOW, NULL, &again) && again == image && asked == 1, "known by name");
  snprintf(roundabout, sizeof roundabout, "%s/x/../inner/liba.so", given.archive);
  check(!open_as(roundabout, RTLD_NOW, NULL, &again) && again == image && asked == 2 && done == 2, "plain");
  snprintf(roundabout, sizeof roundabout, "%s/nothing.so", given.archive);
  check(open_as(roundabout, RTLD_NOW, NULL, &again) == DLOPEN_E_OPEN && asked == 3 && done == 2, "not there");
  check(open_as("./nothing.so", RTLD_NOW, NULL, &again) == DLOPEN_E_OPEN && asked == 3, "no archive");
  our_set_archives(NULL, NULL);
  for (int i = 0; i < 3; i++) library_close(image);
  check(open_as(path, RTLD_NOW, NULL, &image) == DLOPEN_E_OPEN && asked == 3, "taken away");
}

static sem_t inside, on;
static volatile int is_inside;

static int slow(const char *name, struct DLOPEN_member *member, void *data) {
  is_inside = 1;
  sem_post(&inside);
  sem_wait(&on);
  int result = locate(name, member, data);
  is_inside = 0;
  return result;
}

static int takes_itself_away(const char *name, struct DLOPEN_member *member, void *data) {
  our_set_archives(NULL, NULL);
  return locate(name, member, data);
}

static void *opens(void *unused) {
  DLOPEN_image *image;
  check(!open_as(path, RTLD_NOW, NULL, &image), "in a thread");
  library_close(image);
  return unused;
}

static void *lets_it_go_on(void *unused) {
  usleep(20000);
  sem_post(&on);
  return unused;
}

/* Who takes the function away waits for those who are in it: not for itself, and not in a child. */
static void taken_away(void) {
  pthread_t threads[2];
  int status;
  sem_init(&inside, 0, 0);
  sem_init(&on, 0, 0);
  our_set_archives(slow, &data_is_whole);
  pthread_create(&threads[0], NULL, opens, NULL);
  sem_wait(&inside);
  pid_t child = fork();
  if (child == 0) {
    alarm(60);
    our_set_archives(locate, &data_is_whole);
    opens(NULL);
    our_set_archives(NULL, NULL);
    _exit(0);
  }
  waitpid(child, &status, 0);
  check(status == 0, "the child");
  pthread_create(&threads[1], NULL, lets_it_go_on, NULL);
  our_set_archives(NULL, NULL);
  check(!is_inside, "waits");
  pthread_join(threads[0], NULL);
  pthread_join(threads[1], NULL);
  our_set_archives(takes_itself_away, &data_is_whole);
  opens(NULL);
  check(asked == 2 && done == 2, "all are given back");
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  alarm(120);
  use_loader(argv[1]);
  void *linker = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  LOADER_FUNCTION(our_set_archives, "DLOPEN_set_archives");
  LOADER_FUNCTION(our_info, "DLOPEN_info");
  LOADER_FUNCTION(our_map, "DLOPEN_map");
  LOADER_FUNCTION(our_existing, "DLOPEN_existing");
  LOADER_FUNCTION(our_relocate, "DLOPEN_relocate");
  given.size = sizeof given;
  given.archive = argv[3];
  given.descriptor = open(argv[3], O_RDONLY);
  given.offset = strtoul(argv[4], NULL, 10);
  given.length = strtoul(argv[5], NULL, 10);
  snprintf(path, sizeof path, "%s/inner/liba.so", argv[3]);
  static const struct {
    const char *name;
    void (*run)(void);
  } scenarios[] = {{"stored", stored}, {"mapped_only", mapped_only}, {"by_hand", by_hand},
                   {"archives", archives}, {"taken_away", taken_away}};
  for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
    if (strcmp(scenarios[i].name, argv[2]) == 0) {
      scenarios[i].run();
      return 0;
    }
  return 2;
}
