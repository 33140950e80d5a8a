"""No lock is held over foreign code: one test for each pair of locks that may meet.

Ours, the system's loader's, fork's and, in tests/python/test_lifetime.py, the interpreter's. Each
scenario would hang if the lock were held; an alarm ends it then.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.steps import Steps
from support.fixtures import compile_program, run

_ANSWER = "int answer(void) { return 42; }"
_HOOK = "void hook(void); __attribute__(({0})) static void run(void) {{ hook(); }}"
_RESOLVER = """
void hook(void);
static int answer(void) { return 42; }
static int (*resolve(void))(void) { hook(); return answer; }
int chosen(void) __attribute__((ifunc("resolve")));
int (*pointer)(void) = chosen;
"""
_LOCAL = "static __thread int kept = 42; int answer(void) { return kept; }"
_THREAD_LOCAL = """
void hook(void);
extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
extern void *__dso_handle;
static __thread int object;
static void destroy(void *unused) { hook(); }
int touch(void) { return __cxa_thread_atexit_impl(destroy, &object, &__dso_handle); }
__attribute__((destructor)) static void run(void) { hook(); }
"""
_VISITOR = """
#define _GNU_SOURCE
#include <link.h>
void hook_visit(const char *name);
static int each(struct dl_phdr_info *info, size_t size, void *data)
{
  hook_visit(info->dlpi_name);
  return 0;
}
int visit(void) { return dl_iterate_phdr(each, 0); }
"""
# What is said to take no lock: how many of the four answers are right.
_PROBE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <string.h>
static int each(struct dl_phdr_info *info, size_t size, void *found)
{
  return strstr(info->dlpi_name, "/libprobe.so") != 0;
}
int probe(void)
{
  Dl_info info;
  int right = dladdr((void *)probe, &info) && info.dli_sname && !strcmp(info.dli_sname, "probe");
  right += dlsym(RTLD_DEFAULT, "malloc") && !dlsym(RTLD_DEFAULT, "nonesuch");
#ifdef DLFO_STRUCT_HAS_EH_DBASE
  struct dl_find_object object;
  right += _dl_find_object((void *)probe, &object) == 0;
#else
  right++;
#endif
  return right;
}
int probe_all(void) { return probe() + dl_iterate_phdr(each, 0); }
"""


@pytest.fixture
def program(steps: Steps) -> Path:
    # Without the start files, whose __cxa_finalize takes a lock of libc that fork does not reset.
    for name, source in {
        "plain": _ANSWER,
        "other": _ANSWER,
        "local": _LOCAL,
        "probe": _PROBE,
    }.items():
        steps.library(name, source, "-nostartfiles")
    for name, source in {
        "constructor": _HOOK.format("constructor"),
        "destructor": _HOOK.format("destructor"),
        "resolver": _RESOLVER,
        "threadlocal": _THREAD_LOCAL,
        "visitor": _VISITOR,
        "inhost": _HOOK.format("constructor").replace("hook", "hook_in_host"),
    }.items():
        steps.library(name, source)
    steps.library("late", "", "-Wl,-l:libresolv.so.2")
    return compile_program(
        steps.directory,
        "deadlocks",
        Path(__file__).with_name("deadlocks.c"),
        flags=["-rdynamic", "-pthread"],
    )


@pytest.mark.parametrize(
    "scenario",
    [
        "constructor",
        "destructor",
        "resolver",
        "thread exit",
        "visitor",
        "finding",
        "relocations",
        "holders",
        pytest.param(
            "two linkers",
            marks=pytest.mark.emulated(
                reason="/proc/self/task/N/syscall shows the emulator's system calls"
            ),
        ),
        "fork handlers",
        "fork handlers, late",
        "signals",
    ],
)
def test_scenario(steps: Steps, program: Path, scenario: str) -> None:
    done = run([program, steps.libdlopen, scenario], cwd=steps.directory)
    assert done.stdout == "done\n"
