"""Constructors and destructors: which, when, in what order, with what arguments.

gABI, "Initialization and Termination Functions"; dlopen(3), dlclose(3).
"""

from __future__ import annotations

import pytest

from core.steps import Steps
from support.machines import machine


def test_dependencies_come_first_and_go_last(steps: Steps) -> None:
    c = steps.library("c", trace=True)
    b = steps.library("b", trace=True, needs=[c])
    steps.library("a", trace=True, needs=[b])
    assert steps.both("open:./liba.so", "close:0") == [
        *("+c", "+b", "+a", "opened", "-a", "-b", "-c", "closed"),
    ]


def test_diamond(steps: Steps) -> None:
    d = steps.library("d", trace=True)
    b = steps.library("b", trace=True, needs=[d])
    c = steps.library("c", trace=True, needs=[d])
    steps.library("a", trace=True, needs=[b, c])
    lines = steps.both("open:./liba.so", "close:0")
    assert lines.index("+d") < min(lines.index("+b"), lines.index("+c"))
    assert max(lines.index("+b"), lines.index("+c")) < lines.index("+a")
    assert lines.index("-a") < min(lines.index("-b"), lines.index("-c"))
    assert max(lines.index("-b"), lines.index("-c")) < lines.index("-d")


def test_deep_dependency_of_a_later_sibling(steps: Steps) -> None:
    # Breadth first alone would run e's constructor after b's: b needs e through d.
    e = steps.library("e", trace=True)
    d = steps.library("d", trace=True, needs=[e])
    b = steps.library("b", trace=True, needs=[d])
    c = steps.library("c", trace=True, needs=[b])
    steps.library("a", trace=True, needs=[b, c, e])
    assert steps.both("open:./liba.so", "close:0")[:6] == ["+e", "+d", "+b", "+c", "+a", "opened"]


def test_cycle(steps: Steps) -> None:
    steps.library("a", trace=True)
    b = steps.library("b", trace=True, needs=[steps.directory / "liba.so"])
    c = steps.library("c", trace=True, needs=[b])
    steps.library("a", trace=True, needs=[b, c])
    # Constructors as glibc has them, the opened library last; no order is right for the others.
    glibc, ours = (
        steps.run(loader, "open:./liba.so", "close:0").stdout.split()
        for loader in ("glibc", str(steps.libdlopen))
    )
    assert ours[:4] == glibc[:4] == ["+b", "+c", "+a", "opened"]
    assert sorted(ours[4:7]) == ["-a", "-b", "-c"]
    assert ours[7:] == ["closed"]


def test_initfirst(steps: Steps) -> None:
    c = steps.library("c", trace=True)
    b = steps.library("b", "", "-Wl,-z,initfirst", trace=True, needs=[c])
    d = steps.library("d", trace=True)
    steps.library("a", trace=True, needs=[d, b])
    assert steps.both("open:./liba.so")[0] == "+b"


def test_order_within_one_library(steps: Steps) -> None:
    source = """
    #include <stdio.h>
    #define SAY(name) void name(void) { dprintf(1, #name "\\n"); }
    SAY(init) SAY(fini)
    __attribute__((constructor(200))) SAY(first)
    __attribute__((constructor(300))) SAY(second)
    __attribute__((destructor(200))) SAY(last)
    __attribute__((destructor(300))) SAY(last_but_one)
    """
    steps.library("a", source, "-Wl,-init,init,-fini,fini")
    # glibc calls DT_INIT on older machines only.
    begin = ["init"] if machine().name in ("x86_64", "aarch64") else []
    assert steps.both("open:./liba.so", "close:0") == [
        *(*begin, "first", "second", "opened", "last_but_one", "last", "fini", "closed"),
    ]


def test_arguments_and_environment(steps: Steps) -> None:
    source = """
    #include <stdio.h>
    #include <string.h>
    extern char **environ;
    static void start(int argc, char **argv, char **envp) {
      dprintf(1, "%d %s %d\\n", argc, argv[argc - 1], envp == environ);
      for (; *envp; envp++) if (!strncmp(*envp, "MARK=", 5)) dprintf(1, "%s\\n", *envp);
    }
    __attribute__((section(".init_array"), used)) static void *entry = start;
    """
    steps.library("a", source)
    assert steps.both("open:./liba.so:n", "mapped:/none/", env={"MARK": "here"})[:2] == [
        *("4 mapped:/none/ 1", "MARK=here"),
    ]


def test_all_is_relocated_before_the_first_constructor(steps: Steps) -> None:
    early = """
    #include <stdio.h>
    int late(void);  /* of the library that needs this one */
    __attribute__((constructor)) static void start(void) { dprintf(1, "%d\\n", late()); }
    """
    b = steps.library("b", early)
    steps.library("a", "static int x = 5; int *p = &x; int late(void) { return *p; }", needs=[b])
    assert steps.both("open:./liba.so") == ["5", "opened"]


def test_opening_twice_counts(steps: Steps) -> None:
    steps.library("a", trace=True)
    assert steps.both("open:./liba.so", "open:./liba.so", "close:0", "close:1") == [
        *("+a", "opened", "opened", "closed", "-a", "closed"),
    ]


def test_a_dependency_that_is_open_itself_stays(steps: Steps) -> None:
    b = steps.library("b", "int value(void) { return 3; }", trace=True)
    steps.library("a", trace=True, needs=[b])
    assert steps.both("open:./libb.so", "open:./liba.so", "close:1", "call:0:value", "close:0") == [
        *("+b", "opened", "+a", "opened", "-a", "closed", "3", "-b", "closed"),
    ]


def test_a_library_that_another_needs_stays(steps: Steps) -> None:
    b = steps.library("b", trace=True)
    steps.library("a", trace=True, needs=[b])
    assert steps.both("open:./libb.so", "open:./liba.so", "close:0", "close:1") == [
        *("+b", "opened", "+a", "opened", "closed", "-a", "-b", "closed"),
    ]


def test_a_library_that_another_bound_to_stays(steps: Steps) -> None:
    # Not a dependency: found in the global scope.
    steps.library("b", "int value(void) { return 3; }", trace=True)
    steps.library("a", "int value(void); int call(void) { return value(); }", trace=True)
    assert steps.both(
        "open:./libb.so:g", "open:./liba.so", "close:0", "call:1:call", "close:1"
    ) == [
        *("+b", "opened", "+a", "opened", "closed", "3", "-a", "-b", "closed"),
    ]


def test_at_exit_destructors_run_after_the_handlers(steps: Steps) -> None:
    b = steps.library("b", trace=True)
    steps.library("a", trace=True, needs=[b])
    assert steps.both("atexit", "open:./liba.so", "atexit") == [
        *("+b", "+a", "opened", "atexit handler", "atexit handler", "-a", "-b"),
    ]


def test_at_exit_libraries_that_know_nothing_of_each_other(steps: Steps) -> None:
    for name in "abc":
        steps.library(name, trace=True)
    # No specification gives an order; glibc's is kept.
    last = steps.both("open:./liba.so", "open:./libb.so", "open:./libc.so", "close:1")[-2:]
    assert sorted(last) == ["-a", "-c"]


def test_an_atexit_handler_of_the_library_runs_when_it_is_closed(steps: Steps) -> None:
    source = """
    #include <stdio.h>
    #include <stdlib.h>
    static void handler(void) { dprintf(1, "handler\\n"); }
    __attribute__((constructor)) static void start(void) { atexit(handler); }
    """
    steps.library("a", source, trace=True)
    lines = steps.both("open:./liba.so", "close:0")
    assert lines[-1] == "closed"
    assert "handler" in lines


@pytest.mark.cxx
def test_static_objects_are_destroyed_when_it_is_closed(steps: Steps) -> None:
    source = """
    #include <cstdio>
    struct Said { const char *name; Said(const char *n) : name(n) { dprintf(1, "new %s\\n", n); }
                  ~Said() { dprintf(1, "delete %s\\n", name); } };
    static Said one("one"), two("two");
    extern "C" int touch() { static Said inner("inner"); return 0; }
    """
    steps.library("a", source, language="c++")
    assert steps.both("open:./liba.so", "call:0:touch", "close:0") == [
        *("new one", "new two", "opened", "new inner", "0"),
        *("delete inner", "delete two", "delete one", "closed"),
    ]


def test_a_constructor_may_open_a_library(steps: Steps) -> None:
    steps.library("b", "int value(void) { return 4; }", trace=True)
    source = """
    #include <dlfcn.h>
    #include <stdio.h>
    static void *b;
    __attribute__((constructor)) static void start(void) {
      b = dlopen("./libb.so", RTLD_NOW);
      int (*value)(void) = (int (*)(void))dlsym(b, "value");
      dprintf(1, "%d\\n", value ? value() : -1);
    }
    __attribute__((destructor)) static void stop(void) { dprintf(1, "%d\\n", dlclose(b)); }
    """
    steps.library("a", source)
    # When the inner close takes effect is nobody's promise: glibc waits for the outer one.
    for loader in ("glibc", str(steps.libdlopen)):
        said = steps.run(loader, "open:./liba.so", "close:0").stdout.split()
        assert said[:3] == ["+b", "4", "opened"]
        assert sorted(said[3:5]) == ["-b", "0"]
        assert said[5:] == ["closed"]


def test_a_destructor_may_call_a_dependency(steps: Steps) -> None:
    b = steps.library("b", "int value(void) { return 6; }", trace=True)
    source = """
    #include <stdio.h>
    int value(void);
    __attribute__((destructor)) static void stop(void) { dprintf(1, "%d\\n", value()); }
    """
    steps.library("a", source, needs=[b])
    assert steps.both("open:./liba.so", "close:0") == ["+b", "opened", "6", "-b", "closed"]
    assert steps.both("open:./liba.so") == ["+b", "opened", "6", "-b"]


def test_a_library_opened_again_starts_anew(steps: Steps) -> None:
    steps.library("a", "int counter = 1; int count(void) { return counter++; }", trace=True)
    once = ["open:./liba.so", "call:0:count", "call:0:count", "close:0"]
    assert steps.both(*once, "open:./liba.so", "call:1:count") == [
        *("+a", "opened", "1", "2", "-a", "closed", "+a", "opened", "1", "-a"),
    ]


@pytest.mark.parametrize("how", ["flag of the file", "mode", "mode of a later open"])
def test_nodelete_stays_until_the_process_ends(steps: Steps, how: str) -> None:
    flags = ["-Wl,-z,nodelete"] if how == "flag of the file" else []
    steps.library("a", "int counter = 1; int count(void) { return counter++; }", *flags, trace=True)
    mode = {"flag of the file": "n", "mode": "nk", "mode of a later open": "n"}[how]
    again = ["open:./liba.so:nok", "close:1"] if how == "mode of a later open" else []
    said = steps.both(
        f"open:./liba.so:{mode}", *again, "call:0:count", "close:0", "mapped:/liba.so"
    )
    assert said.index("-a") == len(said) - 1
    assert int(said[-2]) > 0


def test_nodelete_of_a_dependency(steps: Steps) -> None:
    b = steps.library("b", "", "-Wl,-z,nodelete", trace=True)
    steps.library("a", trace=True, needs=[b])
    assert steps.both("open:./liba.so", "close:0") == ["+b", "+a", "opened", "-a", "closed", "-b"]
