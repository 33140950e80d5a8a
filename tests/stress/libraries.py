"""The libraries that are opened, used and closed under stress.

Each exports `int work(int)`, which does what the library is for and returns its argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.fixtures import compile_library

if TYPE_CHECKING:
    from pathlib import Path

# In use only between its constructor and its destructor.
_COUNTED = """
static int state;
__attribute__((constructor)) static void start(void) { state = 1; }
__attribute__((destructor)) static void stop(void) { state = 0; }
"""
_LEAF = _COUNTED + "int leaf(int value) { return state == 1 ? value : -1; }"
_SIDE = "int leaf(int); int {0}(int value) {{ return leaf(value); }}"
_LEFT = _COUNTED + (
    "int leaf(int); int left(int value) { return state == 1 ? leaf(value) : -1; }"
    "int work(int value) { return left(value); }"
)
_TREE = _COUNTED + (
    "int left(int), right(int);"
    "int work(int value) { return state == 1 && left(value) == value ? right(value) : -1; }"
)
_THROWING = r"""
#include <stdexcept>
#include <string>
struct Guard { int &count; ~Guard() { count++; } };
static int descend(int depth, int &count)
{
  Guard guard{count};
  if (depth == 0) throw std::runtime_error("inside");
  return descend(depth - 1, count) + 1;
}
extern "C" void raise() { std::string text(100, 'x'); throw std::runtime_error("library"); }
extern "C" void call_back(void (*function)()) { std::string text(100, 'x'); function(); }
extern "C" int work(int value)
{
  int count = 0;
  try {
    descend(10, count);
  } catch (const std::exception &error) {
    return count == 11 && std::string(error.what()) == "inside" ? value : -1;
  }
  return -1;
}
"""
# A block of its own for each thread, and an object that ends with the thread.
_LOCAL = r"""
#include <pthread.h>
#include <string>
struct Object {
  std::string text = std::string(100, 'x');
  pthread_t owner = pthread_self();
  ~Object() { if (text.size() != 100 || owner != pthread_self()) __builtin_trap(); }
};
static thread_local Object object;
static __thread int first = 7, zeroes[300];
static __thread pthread_t owner;
extern "C" int work(int value)
{
  if (!owner) owner = pthread_self();
  zeroes[299]++;
  bool good = first == 7 && zeroes[0] == 0 && zeroes[299] > 0 && owner == pthread_self();
  return good && object.owner == owner && object.text.size() == 100 ? value : -1;
}
"""
# The calls of an unwinder and of a profiler, which are the linker's own in its images.
_WALKING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <string.h>
static int count(struct dl_phdr_info *info, size_t size, void *found)
{
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_LOAD &&
        (ElfW(Addr))count - info->dlpi_addr - info->dlpi_phdr[i].p_vaddr <
            info->dlpi_phdr[i].p_memsz)
      ++*(int *)found;
  return 0;
}
int work(int value)
{
  Dl_info info;
  int found = 0;
#ifdef INTERPOSED
  found = 1;
#else
  dl_iterate_phdr(count, &found);
#endif
  if (found != 1 || !dladdr((void *)work, &info) || !info.dli_sname ||
      strcmp(info.dli_sname, "work"))
    return -1;
#ifdef DLFO_STRUCT_HAS_EH_DBASE
  struct dl_find_object object;
  if (_dl_find_object((void *)work, &object)) return -1;
#endif
  return dlsym(RTLD_DEFAULT, "malloc") && !dlsym(RTLD_DEFAULT, "nonesuch") ? value : -1;
}
"""
_PLAIN = "int work(int value) { return value; }"
_HOT = "int hot(int value) { return value; }"
_USER = """
int hot(int);
int (*volatile pointer)(int) = hot;
int work(int value) { return pointer(hot(value)); }
"""


def make_libraries(directory: Path, *, interposed: bool = False) -> None:
    """Into the folder.

    `interposed`: for a program that puts a dl_iterate_phdr of its own before libc's, as a sanitizer
    does.  It knows nothing of these libraries, and nothing of forks.
    """
    flags = ["-Wl,--no-as-needed"]
    # Without the start files, whose __cxa_finalize takes a lock of libc that fork does not reset.
    compile_library(directory, "libplain.so", _PLAIN, flags=["-nostartfiles"])
    leaf = compile_library(directory, "libleaf.so", _LEAF)
    left = compile_library(directory, "libleft.so", _LEFT, libraries=[leaf], flags=flags)
    right = compile_library(
        directory, "libright.so", _SIDE.format("right"), libraries=[leaf], flags=flags
    )
    compile_library(directory, "libtree.so", _TREE, libraries=[left, right], flags=flags)
    hot = compile_library(directory, "libhot.so", _HOT, flags=["-Wl,-soname,libhot.so"])
    compile_library(directory, "libuser.so", _USER, libraries=[hot], flags=flags)
    for name, source in (("throwing", _THROWING), ("local", _LOCAL)):
        compile_library(directory, f"lib{name}.so", source, language="c++")
    defined = ["-DINTERPOSED"] if interposed else []
    compile_library(directory, "libwalking.so", _WALKING, flags=defined)
    compile_library(directory, "liblate.so", _PLAIN, flags=[*flags, "-l:libresolv.so.2"])
