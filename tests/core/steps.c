/* steps LOADER STEP...: carries out the steps one by one and says on standard output what came of
 * each.  LOADER is "glibc", or the path of libdlopen.so; STEP is one of
 *     open:NAME:MODE...    letters of MODE: n(ow) l(azy) g(lobal) o(noload) k(nodelete) d(eepbind)
 *                          p(rivate) a(rena, with libdlopen.so)
 *     bytes:NAME:MODE...   the same from the file's bytes (libdlopen.so only)
 *     close:K              the K-th opened library, from 0
 *     call:K:SYMBOL        int SYMBOL(void)
 *     value:K:SYMBOL       the int there
 *     find:K:SYMBOL[@VERSION]   whether there is one
 *     page:K:SYMBOL        the permissions of its page
 *     mapped:TEXT          how many mappings of files whose path holds TEXT there are
 *     loads:TEXT           … and how many of them are a file's beginning: one for each time that it is
 *                          loaded, whatever became of its segments
 *     linkmap:TEXT         how many images of glibc's own list have a path that holds TEXT
 *     start:K:SYMBOL       as call, in a thread of its own, which lives until
 *     join                 ends all of them, the last one first
 *     pause                says so and waits for a line of standard input
 *     host:NAME            opens NAME with glibc's own functions, in its main namespace and in a
 *                          new one, calls its answer(), and closes both again
 *     chain:TEXT           for each list of the debugger's chain (<link.h>), glibc's first, how many
 *                          entries have a path that holds TEXT
 *     watch:TEXT           says the same at each call of r_brk from now on, after r_state, and
 *                          whether another thread could call glibc's dlopen meanwhile
 *     descriptors          how many are open
 *     atexit               registers a handler that says so
 *     worker               one more thread, which waits for steps; `join` ends these too
 *     in:W:STEP            the step in the W-th worker, from 0
 *     where:K:SYMBOL       the number of the address, from 0: the same one each time it is met
 *     at:K:SYMBOL          the same of what void *SYMBOL(void) returns
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "dlopen.h"

static int use_glibc;
static void *handles[64];
static unsigned count;
static struct DLOPEN_error error;
static __typeof__(DLOPEN_open) *our_open;
static __typeof__(DLOPEN_close) *our_close;
static __typeof__(DLOPEN_symbol_find) *our_find;
static __typeof__(DLOPEN_message) *our_message;

static void say_error(const char *step) {
  char message[4096];
  if (use_glibc)
    snprintf(message, sizeof message, "%s", dlerror());
  else
    our_message(&error, message, sizeof message);
  /* Texts differ: they go where the tests that want them look. */
  const char *needed_by = use_glibc ? "" : error.needed_by;
  dprintf(2, "%s: %s (needed by %s)\n", step, message, needed_by);
}

static void *find(void *handle, const char *name, const char *version) {
  if (use_glibc) return version ? dlvsym(handle, name, version) : dlsym(handle, name);
  struct DLOPEN_symbol symbol;
  if (our_find(handle, name, version, 0, &symbol, &error)) return NULL;
  return (void *)symbol.address;
}

static void say_page(const void *address) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[8192], permissions[8] = "none";
  unsigned long start, end;
  while (fgets(line, sizeof line, maps)) {
    char found[8];
    if (sscanf(line, "%lx-%lx %7s", &start, &end, found) == 3 &&
        start <= (unsigned long)address && (unsigned long)address < end)
      strcpy(permissions, found);
  }
  fclose(maps);
  dprintf(1, "%s\n", permissions);
}

static int count_mapped(const char *text, int only_beginnings) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[8192];
  int mapped = 0;
  while (fgets(line, sizeof line, maps)) {
    unsigned long offset;
    if (strstr(line, text) && sscanf(line, "%*s %*s %lx", &offset) == 1)
      mapped += !only_beginnings || offset == 0;
  }
  fclose(maps);
  return mapped;
}

/* dl_iterate_phdr is ours in this program once libdlopen.so is there: glibc's own list. */
static int count_linkmap(const char *text) {
  int found = 0;
  for (struct link_map *map = _r_debug.r_map; map; map = map->l_next)
    found += strstr(map->l_name, text) != NULL;
  return found;
}

/* struct r_debug_extended, which older headers have not. */
struct debug {
  struct r_debug base;
  struct debug *next;
};

static struct debug *first_debug(void) {
  for (const ElfW(Dyn) *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++)
    if (entry->d_tag == DT_DEBUG) return (struct debug *)entry->d_un.d_ptr;
  exit(4);
}

static void say_chain(const char *text) {
  struct debug *debug = first_debug();
  const char *between = "";
  for (int more = 1; more; debug = debug->next, between = " ") {
    int found = 0;
    struct link_map *before = NULL;
    for (struct link_map *map = debug->base.r_map; map; before = map, map = map->l_next) {
      if (map->l_prev != before) dprintf(1, "(inconsistent)");
      found += strstr(map->l_name, text) != NULL;
    }
    dprintf(1, "%s%d", between, found);
    more = debug->base.r_version >= 2 && debug->next != NULL;
  }
  dprintf(1, "\n");
}

static const char *watched;

static void *try_glibc(void *tried) {
  dlclose(dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD));
  sem_post(tried);
  return NULL;
}

static void changing(void) {
  static const char *const states[] = {"consistent", "add", "delete"};
  struct debug *debug = first_debug();
  int state = debug->base.r_state;
  if (state == RT_CONSISTENT && debug->next) state = debug->next->base.r_state;
  struct timespec until;
  pthread_t thread;
  sem_t *tried = malloc(sizeof *tried); /* for a thread that comes late */
  sem_init(tried, 0, 0);
  pthread_create(&thread, NULL, try_glibc, tried);
  pthread_detach(thread);
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 200000000;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  int alone = sem_timedwait(tried, &until) == -1 && errno == ETIMEDOUT;
  dprintf(1, "%s%s ", states[state], alone ? " alone" : "");
  say_chain(watched);
}

static void watch(const char *text) {
  watched = text;
  first_debug()->base.r_brk = (ElfW(Addr))changing;
}

static void use_host(const char *name) {
  void *handles[] = {dlopen(name, RTLD_NOW), dlmopen(LM_ID_NEWLM, name, RTLD_NOW)};
  for (int i = 0; i < 2; i++) {
    if (!handles[i]) dprintf(1, "%s\n", dlerror()), exit(5);
    int (*answer)(void) = (int (*)(void))dlsym(handles[i], "answer");
    Dl_info info;
    if (!answer || !dladdr((void *)answer, &info)) dprintf(1, "%s\n", dlerror()), exit(5);
    const char *base = strrchr(info.dli_fname, '/');
    dprintf(1, "%s: %d\n", base ? base + 1 : info.dli_fname, answer());
  }
  dlclose(handles[0]);
  dlclose(handles[1]);
}

static int count_descriptors(void) {
  DIR *folder = opendir("/proc/self/fd");
  int found = -3; /* itself, "." and ".." */
  while (readdir(folder)) found++;
  closedir(folder);
  return found;
}

struct thread {
  pthread_t thread;
  int (*function)(void);
  sem_t called, end;
};
static struct thread threads[64];
static unsigned thread_count;

static void *run_thread(void *argument) {
  struct thread *thread = argument;
  dprintf(1, "%d\n", thread->function());
  sem_post(&thread->called);
  sem_wait(&thread->end);
  return NULL;
}

static void start_thread(void *function) {
  struct thread *thread = &threads[thread_count++];
  thread->function = (int (*)(void))function;
  sem_init(&thread->called, 0, 0);
  sem_init(&thread->end, 0, 0);
  pthread_create(&thread->thread, NULL, run_thread, thread);
  sem_wait(&thread->called);
}

static void carry_out(char *step);

struct worker {
  pthread_t thread;
  char *step; /* NULL: end */
  sem_t due, done;
};
static struct worker workers[64];
static unsigned worker_count;

static void *work(void *argument) {
  struct worker *worker = argument;
  for (;;) {
    sem_wait(&worker->due);
    if (!worker->step) return NULL;
    carry_out(worker->step);
    sem_post(&worker->done);
  }
}

static void start_worker(void) {
  struct worker *worker = &workers[worker_count++];
  sem_init(&worker->due, 0, 0);
  sem_init(&worker->done, 0, 0);
  pthread_create(&worker->thread, NULL, work, worker);
}

static void carry_out_in(struct worker *worker, char *step) {
  worker->step = step;
  sem_post(&worker->due);
  sem_wait(&worker->done);
}

static void join_threads(void) {
  while (worker_count) {
    struct worker *worker = &workers[--worker_count];
    worker->step = NULL;
    sem_post(&worker->due);
    pthread_join(worker->thread, NULL);
  }
  while (thread_count) {
    struct thread *thread = &threads[--thread_count];
    sem_post(&thread->end);
    pthread_join(thread->thread, NULL);
  }
}

static int number_of(const void *address) {
  static const void *seen[256];
  static int met;
  for (int i = 0; i < met; i++)
    if (seen[i] == address) return i;
  seen[met] = address;
  return met++;
}

static void at_exit(void) { dprintf(1, "atexit handler\n"); }

static void *read_file(const char *name, size_t *size) {
  FILE *file = fopen(name, "rb");
  char *bytes = malloc(1 << 20);
  *size = fread(bytes, 1, 1 << 20, file);
  fclose(file);
  return bytes;
}

static void open_library(char *name, int from_bytes) {
  char *letters = strchr(name, ':');
  int mode = 0, arena = 0;
  if (letters) *letters++ = 0;
  for (; letters && *letters; letters++) switch (*letters) {
      case 'n': mode |= RTLD_NOW; break;
      case 'l': mode |= RTLD_LAZY; break;
      case 'g': mode |= RTLD_GLOBAL; break;
      case 'o': mode |= RTLD_NOLOAD; break;
      case 'k': mode |= RTLD_NODELETE; break;
      case 'd': mode |= RTLD_DEEPBIND; break;
      case 'p': mode |= DLOPEN_PRIVATE; break;
      case 'a': arena = 1; break;
      default: exit(2);
    }
  if (!(mode & (RTLD_NOW | RTLD_LAZY))) mode |= RTLD_NOW;
  void *handle = NULL;
  if (use_glibc) {
    handle = dlopen(*name ? name : NULL, mode);
  } else {
    struct DLOPEN_request request = {
        .size = sizeof request, .name = *name ? name : NULL, .mode = mode,
        .flags = arena ? DLOPEN_ARENA : 0};
    DLOPEN_image *image = NULL;
    void *bytes = from_bytes ? read_file(name, &request.bytes_size) : NULL;
    request.bytes = bytes;
    if (our_open(&request, &image, &error) == DLOPEN_OK) handle = image;
    free(bytes);
  }
  if (!handle) say_error("open");
  dprintf(1, "%s\n", handle ? "opened" : "not opened");
  handles[count++] = handle;
}

static void carry_out(char *step) {
  char *rest = strchr(step, ':'), *name;
  if (rest) *rest++ = 0;
  if (strcmp(step, "open") == 0 || strcmp(step, "bytes") == 0) {
    open_library(rest, strcmp(step, "bytes") == 0);
    return;
  }
  if (strcmp(step, "chain") == 0) {
    say_chain(rest);
    return;
  }
  if (strcmp(step, "watch") == 0) {
    watch(rest);
    return;
  }
  if (strcmp(step, "host") == 0) {
    use_host(rest);
    return;
  }
  if (strcmp(step, "descriptors") == 0) {
    dprintf(1, "%d\n", count_descriptors());
    return;
  }
  if (strcmp(step, "pause") == 0) {
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* for a debugger that is no parent */
    dprintf(1, "paused\n");
    getchar();
    return;
  }
  if (strcmp(step, "atexit") == 0) {
    atexit(at_exit);
    return;
  }
  if (strcmp(step, "worker") == 0) {
    start_worker();
    return;
  }
  if (strcmp(step, "in") == 0) {
    unsigned long worker = strtoul(rest, &name, 10);
    carry_out_in(&workers[worker], name + 1);
    return;
  }
  if (strcmp(step, "join") == 0) {
    join_threads();
    return;
  }
  if (strcmp(step, "mapped") == 0) {
    dprintf(1, "%d\n", count_mapped(rest, 0));
    return;
  }
  if (strcmp(step, "loads") == 0) {
    dprintf(1, "%d\n", count_mapped(rest, 1));
    return;
  }
  if (strcmp(step, "linkmap") == 0) {
    dprintf(1, "%d\n", count_linkmap(rest));
    return;
  }
  void *handle = handles[strtoul(rest, &name, 10)];
  if (strcmp(step, "close") == 0) {
    int failed = use_glibc ? dlclose(handle) : our_close(handle, &error);
    if (failed) say_error("close");
    dprintf(1, "%s\n", failed ? "not closed" : "closed");
    return;
  }
  name++;
  char *version = strchr(name, '@');
  if (version) *version++ = 0;
  void *address = find(handle, name, version);
  if (strcmp(step, "find") == 0)
    dprintf(1, "%s\n", address ? "found" : "not found");
  else if (!address)
    say_error("find"), dprintf(1, "no %s\n", name);
  else if (strcmp(step, "call") == 0)
    dprintf(1, "%d\n", ((int (*)(void))address)());
  else if (strcmp(step, "start") == 0)
    start_thread(address);
  else if (strcmp(step, "value") == 0)
    dprintf(1, "%d\n", *(int *)address);
  else if (strcmp(step, "where") == 0)
    dprintf(1, "%d\n", number_of(address));
  else if (strcmp(step, "at") == 0)
    dprintf(1, "%d\n", number_of(((void *(*)(void))address)()));
  else if (strcmp(step, "page") == 0)
    say_page(address);
  else
    exit(2);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  use_glibc = strcmp(argv[1], "glibc") == 0;
  if (!use_glibc) {
    void *linker = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!linker) return dprintf(2, "%s\n", dlerror()), 3;
    our_open = (__typeof__(our_open))dlsym(linker, "DLOPEN_open");
    our_close = (__typeof__(our_close))dlsym(linker, "DLOPEN_close");
    our_find = (__typeof__(our_find))dlsym(linker, "DLOPEN_symbol_find");
    our_message = (__typeof__(our_message))dlsym(linker, "DLOPEN_message");
  }
  for (int i = 2; i < argc; i++) carry_out(argv[i]);
  return 0;
}
