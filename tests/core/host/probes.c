/* probes LIBDLOPEN ADDRESS: a debugger's breakpoint lies at ADDRESS of ld.so, or "none" does; what
 * glibc loads for itself while a library is opened by libdlopen.so. */
#define _GNU_SOURCE
#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "loader.h"
#include "machines.h"

static int say_loads(struct dl_phdr_info *info, size_t size, void *loads) {
  (void)size;
  *(unsigned long long *)loads = info->dlpi_adds;
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  /* glibc's: it is read now, before the slot is rebound. */
  __typeof__(dl_iterate_phdr) *volatile iterate = dl_iterate_phdr;
  unsigned long long before = 0, after = 0;
  alarm(120);
  use_loader(argv[1]);
  if (strcmp(argv[2], "none") != 0) {
    char *place = (char *)_r_debug.r_ldbase + strtoul(argv[2], NULL, 16);
    long size = sysconf(_SC_PAGESIZE);
    char *page = (char *)((unsigned long)place & -size);
    if (mprotect(page, size, PROT_READ | PROT_WRITE)) failed("mprotect", "not writable");
    memcpy(place, BREAKPOINT, sizeof BREAKPOINT - 1);
    mprotect(page, size, PROT_READ | PROT_EXEC);
  }
  iterate(say_loads, &before);
  library_open("./libanswer.so");
  iterate(say_loads, &after);
  printf("%llu\n", after - before);
  return 0;
}
