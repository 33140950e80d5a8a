"""Beside other libraries in LD_PRELOAD, in each order."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, run

# As many tools do: looks for what follows it while it starts, and on the first malloc, which may
# come from anybody's start; says at the end how often it was called.
WRAPPER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
static void *(*next_malloc)(size_t), *(*next_dlopen)(const char *, int), (*next_free)(void *);
static unsigned long mallocs, opens;
static char early[65536] __attribute__((aligned(16)));
static size_t early_used;
static int looking;
void *malloc(size_t size) {
  if (!next_malloc) {
    if (looking) { /* dlsym itself wants memory */
      void *block = early + early_used;
      early_used += (size + 15) & ~15ul;
      return block;
    }
    looking = 1;
    next_malloc = dlsym(RTLD_NEXT, "malloc");
    looking = 0;
  }
  __atomic_add_fetch(&mallocs, 1, __ATOMIC_RELAXED);
  return next_malloc(size);
}
void free(void *block) {
  if ((char *)block >= early && (char *)block < early + sizeof early) return;
  if (!next_free) next_free = dlsym(RTLD_NEXT, "free");
  next_free(block);
}
void *dlopen(const char *name, int mode) {
  opens++;
  if (!next_dlopen) next_dlopen = dlsym(RTLD_NEXT, "dlopen");
  return next_dlopen(name, mode);
}
extern __typeof__(malloc) own_malloc __attribute__((alias("malloc"), visibility("hidden")));
extern __typeof__(dlopen) own_dlopen __attribute__((alias("dlopen"), visibility("hidden")));
__attribute__((constructor)) static void start(void) {
  if (!next_malloc) next_malloc = dlsym(RTLD_NEXT, "malloc");
  next_dlopen = dlsym(RTLD_NEXT, "dlopen");
}
__attribute__((destructor)) static void stop(void) {
  if (next_malloc == own_malloc || next_dlopen == own_dlopen) dprintf(2, "found itself\\n");
  dprintf(2, "wrapped %d %d\\n", mallocs > 0, opens > 0);
}
"""

PLUGIN = """
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>
thread_local std::string text = "a text that is longer than fits into the object";
extern "C" int work(int n) {
  std::vector<std::string> all;
  for (int i = 0; i < n; i++) all.push_back(text + std::to_string(i));
  try { throw std::runtime_error(all.back()); }
  catch (const std::exception &error) { return (int)std::string(error.what()).size(); }
}
"""

PROGRAM = """
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static int (*work)(int);
static void *run(void *unused) { printf("%d\\n", work(1000)); return unused; }
int main(int argc, char **argv) {
  (void)argc;
  for (int round = 0; round < 3; round++) {
    void *plugin = dlopen(argv[1], RTLD_NOW);
    if (!plugin) return printf("%s\\n", dlerror()), 1;
    work = (int (*)(int))dlsym(plugin, "work");
    pthread_t thread;
    pthread_create(&thread, NULL, run, NULL);
    pthread_join(thread, NULL);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(work(10) == 48 ? 7 : 8);
    int status;
    waitpid(child, &status, 0);
    printf("%d\\n", WEXITSTATUS(status));
    dlclose(plugin);
  }
  fsync(1);
  return 0;
}
"""
PYTHON = """
import ctypes, hashlib, sqlite3, ssl, sys
database = sqlite3.connect(sys.argv[1])
database.execute("create table if not exists t (x)")
database.execute("insert into t values (?)", (hashlib.sha256(b"x").hexdigest(),))
database.commit()
print(database.execute("select x from t").fetchone())
"""


@pytest.mark.emulated(reason="neither these libraries nor Python are there for the machine")
@pytest.mark.cxx
def test_four_preloads_in_each_order(
    tmp_path: Path,
    libdlopen: Path,
    preloads: Callable[..., dict[str, str]],
    need_library: Callable[[str], Path],
) -> None:
    wrapper = compile_library(tmp_path, "libwrapper.so", WRAPPER)
    plugin = compile_library(tmp_path, "libplugin.so", PLUGIN, language="c++")
    program = compile_program(tmp_path, "program", PROGRAM, flags=["-pthread"])
    allocator, eatmydata = need_library("libjemalloc.so.2"), need_library("libeatmydata.so.1")
    commands: list[list[str | Path]] = [
        [program, plugin],
        [sys.executable, "-c", PYTHON, str(tmp_path / "database")],
    ]
    for command in commands:
        alone = run(command)
        for order in itertools.permutations((libdlopen, allocator, eatmydata, wrapper)):
            names = [library.name for library in order]
            log = tmp_path / "log"
            environment = preloads(*order)
            environment |= {"DLOPEN_LOG": "info", "DLOPEN_LOG_FILE": str(log)}
            done = run(command, env=environment)
            assert done.stdout == alone.stdout, names
            # The wrapper is called where it stands first; what it calls leads to us in any order.
            place = names.index("libwrapper.so")
            first = [
                int(place < names.index(other)) for other in ("libjemalloc.so.2", "libdlopen.so")
            ]
            assert "wrapped {} {}\n".format(*first) in done.stderr, (names, done.stderr)
            assert "found itself" not in done.stderr, names
            assert ": open " in log.read_text(), names
            log.unlink()
