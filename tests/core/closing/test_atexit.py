"""Functions registered for the library's or the process's end, each called exactly once.

__cxa_atexit and __cxa_finalize (Itanium C++ ABI, 3.3.6.3), atexit(3), pthread_atfork(3).
"""

from __future__ import annotations

import pytest

from core.steps import Steps

HANDLERS = """
#include <stdio.h>
#include <stdlib.h>
static void first(void) { dprintf(1, "first\\n"); }
static void second(void) { dprintf(1, "second\\n"); }
static void third(void) { dprintf(1, "third\\n"); }
static void nested(void) { dprintf(1, "nested\\n"); atexit(third); }
__attribute__((constructor)) static void start(void) { atexit(first); }
int add(void) { return atexit(second); }
int add_nested(void) { return atexit(nested); }
"""

OBJECTS = """
#include <cstdio>
struct Said {
  const char *name;
  Said(const char *name) : name(name) { dprintf(1, "new %s\\n", name); }
  ~Said() { dprintf(1, "delete %s\\n", name); }
};
static Said one("one"), two("two");
extern "C" int touch() { static Said inner("inner"); return 0; }
struct Outer {
  ~Outer() { static Said late("late"); dprintf(1, "delete outer\\n"); }
};
extern "C" int touch_outer() { static Outer outer; return 0; }
__attribute__((destructor)) static void stop() { dprintf(1, "destructor\\n"); }
"""

# Only what a library without the start files can have.
BARE = """
#include <stdio.h>
void *__dso_handle __attribute__((visibility("hidden"))) = &__dso_handle;
int __cxa_atexit(void (*)(void *), void *, void *);
void __cxa_finalize(void *);
static void handler(void *name) { dprintf(1, "%s\\n", (char *)name); }
int add(void) { return __cxa_atexit(handler, "handler", &__dso_handle); }
int remove_all(void) { __cxa_finalize(&__dso_handle); return 0; }
static void stop(void) { dprintf(1, "stop\\n"); }
__attribute__((section(".fini_array"), used)) static void *entry = stop;
"""


@pytest.mark.parametrize("close", [["close:0", "mapped:/liba.so"], []], ids=["close", "exit"])
@pytest.mark.parametrize("calls", [["call:0:add", "call:0:add"], ["call:0:add_nested"]])
def test_atexit_of_a_library(steps: Steps, calls: list[str], close: list[str]) -> None:
    steps.library("a", HANDLERS, trace=True)
    lines = steps.both("atexit", "open:./liba.so", *calls, "atexit", *close)
    assert lines.count("first") == 1
    assert lines.count("second" if len(calls) == 2 else "third") == len(calls)
    assert lines.count("atexit handler") == 2


@pytest.mark.cxx
@pytest.mark.parametrize("close", [["close:0", "mapped:/liba.so"], []], ids=["close", "exit"])
@pytest.mark.parametrize("calls", [[], ["call:0:touch"], ["call:0:touch_outer", "call:0:touch"]])
def test_static_objects(steps: Steps, calls: list[str], close: list[str]) -> None:
    # Unique definitions would keep it under glibc.
    steps.library("a", OBJECTS, "-fno-gnu-unique", language="c++")
    lines = steps.both("atexit", "open:./liba.so", *calls, "atexit", *close)
    made = [line.removeprefix("new ") for line in lines if line.startswith("new")]
    assert {"one", "two"} <= set(made)
    assert [lines.count(f"delete {name}") for name in made] == [1] * len(made)


@pytest.mark.cxx
def test_static_objects_of_libraries_that_need_each_other(steps: Steps) -> None:
    flags = ["-fvisibility=hidden", "-fno-gnu-unique"]
    b = steps.library("b", OBJECTS, *flags, language="c++", trace=True)
    other = OBJECTS.replace('"one"', '"uno"')
    steps.library("a", other, "-fno-gnu-unique", language="c++", trace=True, needs=[b])
    calls = ["open:./liba.so", "call:0:touch"]
    steps.both(*calls, "close:0")
    lines = steps.both(*calls)
    assert lines.count("delete uno") == lines.count("delete one") == 1


def test_without_the_start_files(steps: Steps) -> None:
    # Nobody calls __cxa_finalize for it: what it has registered, it must take back itself.
    steps.library("a", BARE, "-nostartfiles")
    lines = steps.both("open:./liba.so", "call:0:add", "call:0:remove_all", "close:0")
    assert lines == ["opened", "0", "handler", "0", "stop", "closed"]
    assert steps.both("atexit", "open:./liba.so", "call:0:add") == [
        *("opened", "0", "handler", "atexit handler", "stop"),
    ]


def test_opened_again_after_its_handlers_ran(steps: Steps) -> None:
    steps.library("a", HANDLERS, trace=True)
    once = ["open:./liba.so", "call:%d:add", "close:%d"]
    walk = [step % turn if "%" in step else step for turn in range(3) for step in once]
    lines = steps.both(*walk)
    assert lines.count("first") == lines.count("second") == 3


def test_fork_handlers_go_with_the_library(steps: Steps) -> None:
    source = """
    #include <pthread.h>
    #include <stdio.h>
    static void prepare(void) { dprintf(1, "prepare\\n"); }
    static void parent(void) { dprintf(1, "parent\\n"); }
    __attribute__((constructor)) static void start(void) { pthread_atfork(prepare, parent, 0); }
    """
    steps.library("a", source)
    steps.library(
        "b",
        """
    #include <sys/wait.h>
    #include <unistd.h>
    int fork_once(void) {
      int child = fork(), status;
      if (child == 0) _exit(5);
      waitpid(child, &status, 0);
      return WEXITSTATUS(status);
    }
    """,
    )
    assert steps.both(
        *("open:./libb.so", "open:./liba.so", "call:0:fork_once", "close:1", "mapped:/liba.so"),
        "call:0:fork_once",
    ) == ["opened", "opened", "prepare", "parent", "5", "closed", "0", "5"]


def test_a_handler_closes_a_library(steps: Steps) -> None:
    steps.library("b", HANDLERS, trace=True)
    source = """
    #include <dlfcn.h>
    #include <stdio.h>
    #include <stdlib.h>
    static void *b;
    static void handler(void) { dprintf(1, "%d\\n", dlclose(b)); }
    int add(void) { b = dlopen("./libb.so", RTLD_NOW); return atexit(handler); }
    """
    steps.library("a", source, trace=True)
    lines = steps.both("open:./liba.so", "call:0:add")
    assert lines[:3] == ["+a", "opened", "+b"]
    lines = steps.ours("open:./liba.so", "call:0:add", "close:0", "mapped:/libb.so")
    assert lines[-1] == "0"
    assert lines.count("first") == lines.count("-b") == 1
