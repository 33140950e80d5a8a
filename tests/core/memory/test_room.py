"""Where an image is put: where the last one was if that has gone, and never over anything."""

from __future__ import annotations

from pathlib import Path

from support.fixtures import compile_library, compile_program, run
from support.machines import machine

_LIBRARY = "int counter = 42; int *place = &counter; int answer(void) { return *place; }"
# Each page of where the library was in turn is somebody else's when it is opened again.
_PROGRAM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
static uintptr_t start, end;
static int visit(struct dl_phdr_info *info, size_t size, void *data) {
  if (!info->dlpi_name || !strstr(info->dlpi_name, "libroom.so")) return 0;
  start = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *header = &info->dlpi_phdr[i];
    if (header->p_type == PT_LOAD) end = start + header->p_vaddr + header->p_memsz;
  }
  end = (end + PAGE - 1) & -(uintptr_t)PAGE;
  return 1;
}
static void *opened(const char *path) {
  void *handle = dlopen(path, RTLD_NOW);
  int (*answer)(void) = handle ? (int (*)(void))dlsym(handle, "answer") : NULL;
  if (!answer || answer() != 42) { printf("%s\\n", handle ? "wrong" : dlerror()); return NULL; }
  dl_iterate_phdr(visit, NULL);
  return handle;
}
int main(int argc, char **argv) {
  int again = 0, pages = 0;
  for (uintptr_t place = 0, first = 0, last = 1; place < last; place += PAGE) {
    void *handle = opened(argv[1]);
    if (!handle) return 1;
    if (!place) { place = first = start; last = end; }
    again += start == first;
    dlclose(handle);
    char *page = mmap((void *)place, PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page != (void *)place) return 2;
    memset(page, 0x5a, PAGE);
    if (!(handle = opened(argv[1]))) return 3;
    if (start < place + PAGE && place < end) return 4;
    for (int i = 0; i < PAGE; i++) if (page[i] != 0x5a) return 5;
    dlclose(handle);
    /* The next one finds this place taken, and is where the first one was. */
    munmap(page, PAGE);
    pages++;
    void *taken = mmap((void *)start, end - start, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (taken != (void *)start) return 6;
  }
  printf("%d %s\\n", pages, again ? "again" : "elsewhere");
}
"""


def test_nothing_that_is_there_is_covered(tmp_path: Path, libdlopen: Path) -> None:
    library = compile_library(
        tmp_path,
        "libroom.so",
        _LIBRARY,
        flags=[f"-Wl,-z,now,-z,separate-code,-z,max-page-size={machine().page}"],
    )
    program = compile_program(tmp_path, "room", _PROGRAM, flags=[f"-DPAGE={machine().page}ul"])
    done = run([program, library], env={"LD_PRELOAD": str(libdlopen)}, check=False)
    assert (done.returncode, done.stdout) == (0, "5 again\n")
