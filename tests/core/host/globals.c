/* globals LOADER STEP...: which of the libraries that glibc opens are in the scope of one that
 * LOADER opens.  STEP is one of
 *     host:K:MODE     glibc opens ./libhostK.so; letters of MODE: g(lobal), o(noload)
 *     close:K         one open less of it
 *     self            glibc makes LOADER global, if it is a library
 *     ask             LOADER opens ./libask.so, says for each libhost whether it sees its name,
 *                     and closes it
 *     hide            what libdlopen.so knows its way in libc's link map by holds no longer
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdlib.h>

#include "loader.h"

extern char **environ;

static void hide(void) {
  char **end = environ;
  while (*end) end++;
  for (ElfW(auxv_t) *entry = (ElfW(auxv_t) *)(end + 1); entry->a_type != AT_NULL; entry++)
    if (entry->a_type == AT_ENTRY) entry->a_un.a_val++;
}

static void ask(void) {
  void *library = library_open("./libask.so");
  unsigned (*seen)(void) = (unsigned (*)(void))library_find(library, "seen");
  printf("%x ", seen());
  library_close(library);
}

int main(int argc, char **argv) {
  void *handles[64] = {0};
  char name[64];
  alarm(120);
  use_loader(argv[1]);
  for (int i = 2; i < argc; i++) {
    const char *step = argv[i], *mode = strrchr(step, ':');
    int k = mode ? atoi(strchr(step, ':') + 1) : 0;
    snprintf(name, sizeof name, "./libhost%d.so", k);
    if (!strcmp(step, "hide")) {
      hide();
    } else if (!strcmp(step, "self")) {
      if (loader_open && !dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL)) failed(step, dlerror());
    } else if (!strcmp(step, "ask")) {
      ask();
    } else if (!strncmp(step, "close", 5)) {
      if (dlclose(handles[k])) failed(step, dlerror());
    } else {
      int flags = RTLD_NOW | (strchr(mode, 'g') ? RTLD_GLOBAL : 0) |
                  (strchr(mode, 'o') ? RTLD_NOLOAD : 0);
      handles[k] = dlopen(name, flags);
      if (!handles[k]) failed(step, dlerror());
    }
  }
  return 0;
}
