// A process that lacks memory or descriptors for a while, under libc's loader or with libdlopen.so
// preloaded:
//
//   short memory LIBRARY       the first dlopen without memory; once more with it
//   short descriptors NAME     the same without descriptors, of a name that is searched for
//   short touch LIBRARY        the first touch of its thread-local storage without memory
//   short throw                an exception without memory
//   short unknown              dlclose and dlsym of no handle without memory
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <new>

static rlimit before;
static int lacking;

static void lack(int resource, rlim_t limit) {
  lacking = resource;
  getrlimit(static_cast<__rlimit_resource>(resource), &before);
  rlimit now = {limit, before.rlim_max};
  setrlimit(static_cast<__rlimit_resource>(resource), &now);
}

static void lack_memory() {
  char text[256] = "";
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || !fgets(text, sizeof text, file)) abort();
  fclose(file);
  lack(RLIMIT_AS, strtoul(text, nullptr, 10) * 4096);
  // What the heap has left; a block that nobody sees need not be asked for, as compilers read it.
  static void *volatile block;
  for (size_t size = 1 << 20; size >= 16; size /= 2)
    while ((block = malloc(size))) continue;
}

static void lack_descriptors() {
  int next = dup(0);
  close(next);
  lack(RLIMIT_NOFILE, next);
}

static void restore() { setrlimit(static_cast<__rlimit_resource>(lacking), &before); }

static int open_twice(const char *name, void (*lack_it)()) {
  char message[1024] = "(none)";
  lack_it();
  void *handle = dlopen(name, RTLD_NOW);
  const char *text = handle ? nullptr : dlerror();
  if (text) snprintf(message, sizeof message, "%s", text);
  restore();
  printf("%s, %s\n", handle ? "opened" : "refused", strcmp(message, "(none)") ? "with a reason" : message);
  if (!handle) fprintf(stderr, "%s\n", message);
  handle = dlopen(name, RTLD_NOW);
  printf("%s\n", handle ? "opened" : dlerror());
  if (!handle) return 1;
  printf("%d\n", reinterpret_cast<int (*)(int)>(dlsym(handle, "leaf"))(1));
  printf("closed: %d\n", dlclose(handle));
  return 0;
}

int main(int, char **arguments) {
  const char *wish = arguments[1];
  setvbuf(stdout, nullptr, _IONBF, 0);
  if (strcmp(wish, "memory") == 0) return open_twice(arguments[2], lack_memory);
  if (strcmp(wish, "descriptors") == 0) return open_twice(arguments[2], lack_descriptors);
  if (strcmp(wish, "touch") == 0) {
    void *handle = dlopen(arguments[2], RTLD_NOW);
    if (!handle) return 1;
    auto touch = reinterpret_cast<int (*)()>(dlsym(handle, "touch"));
    lack_memory();
    return touch();
  }
  if (strcmp(wish, "throw") == 0) {
    lack_memory();
    try {
      throw std::bad_alloc();
    } catch (const std::bad_alloc &) {
      puts("caught");
    }
  }
  if (strcmp(wish, "unknown") == 0) {
    lack_memory();
    printf("%d ", dlclose(reinterpret_cast<void *>(&before)));
    printf("%d ", dlerror() != nullptr);
    printf("%d\n", dlsym(RTLD_DEFAULT, "malloc") != nullptr);
  }
  return 0;
}
