"""Objects that are destroyed when a thread ends: their library stays until then.

The fixtures register them as a compiler does for a thread_local with a destructor
(Itanium C++ ABI, 3.3.5.3; its successor for threads in libc).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.steps import Steps
from support.fixtures import run_python

OBJECT = """
#include <stdio.h>
#ifdef __cplusplus
extern "C" {
#define REGISTER __cxa_thread_atexit
#else
#define REGISTER __cxa_thread_atexit_impl
#endif
extern void *__dso_handle __attribute__((visibility("hidden")));
int REGISTER(void (*)(void *), void *, void *);
static void destroy(void *name) { dprintf(1, "%%s destroyed\\n", (char *)name); }
int %(name)s(void) { return REGISTER(destroy, (void *)"%(name)s", &__dso_handle); }
int function_of_%(name)s(void) { return 7; }
#ifdef __cplusplus
}
#endif
"""
LANGUAGES = ["c", pytest.param("c++", marks=pytest.mark.cxx)]


def with_object(steps: Steps, name: str, needs: tuple[Path, ...] = (), language: str = "c") -> Path:
    source = OBJECT % {"name": name}
    return steps.library(name, source, trace=True, needs=needs, language=language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_closed_while_another_thread_has_one(steps: Steps, language: str) -> None:
    with_object(steps, "a", language=language)
    walk = ["open:./liba.so", "start:0:a", "start:0:a", "close:0", "mapped:/liba.so", "join"]
    ours = steps.ours(*walk, "mapped:/liba.so")
    glibc = steps.run("glibc", *walk, "mapped:/liba.so").stdout.splitlines()
    assert ours[:5] == glibc[:5] == ["+a", "opened", "0", "0", "closed"]
    assert int(ours[5]) > 0
    assert ours[6:] == ["a destroyed", "a destroyed", "-a", "0"]
    # glibc unloads nothing until the next dlclose.
    assert glibc[6:8] == ours[6:8]
    assert int(glibc[8]) > 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_main_threads_are_destroyed_when_the_process_ends(steps: Steps, language: str) -> None:
    with_object(steps, "a", language=language)
    lines = steps.both("atexit", "open:./liba.so", "call:0:a", "atexit", "close:0")
    assert lines[-4:] == ["a destroyed", "atexit handler", "atexit handler", "-a"]


@pytest.mark.cxx
@pytest.mark.parametrize("flags", [(), ("-static-libstdc++",)], ids=["shared", "static"])
@pytest.mark.parametrize("model", ["global-dynamic", "initial-exec"])
def test_a_thread_local_of_the_language(steps: Steps, model: str, flags: tuple[str, ...]) -> None:
    source = """
    #include <cstdio>
    #include <string>
    static thread_local std::string text = "a long string, not in the object itself: ";
    struct Said { int count = 0; ~Said() { dprintf(1, "%s%d\\n", text.c_str(), count); } };
    static thread_local Said said;
    extern "C" int count() { text += "x"; return ++said.count; }
    """
    flag = f"-ftls-model={model}"
    steps.library("a", source, flag, "-fno-gnu-unique", *flags, language="c++", trace=True)
    walk = ["open:./liba.so", "call:0:count", "start:0:count", "start:0:count", "close:0", "join"]
    lines = steps.both(*walk)
    assert lines[:6] == ["+a", "opened", "1", "1", "1", "closed"]
    walk.remove("call:0:count")
    assert steps.ours(*walk, "mapped:/liba.so") == [*lines[:2], *lines[3:8], "-a", "0"]


def test_open_while_the_thread_ends(steps: Steps) -> None:
    with_object(steps, "a")
    assert steps.both(
        *("open:./liba.so", "start:0:a", "join", "call:0:function_of_a", "start:0:a", "join"),
        *("close:0", "mapped:/liba.so"),
    ) == ["+a", "opened", "0", "a destroyed", "7", "0", "a destroyed", "-a", "closed", "0"]


def test_only_the_library_with_the_object_stays(steps: Steps) -> None:
    c = with_object(steps, "c")
    b = with_object(steps, "b", needs=(c,))
    with_object(steps, "a", needs=(b,))
    walk = ["open:./liba.so", "start:0:b", "close:0", "mapped:/liba.so", "join"]
    ours = steps.ours(*walk, "mapped:/libb.so", "mapped:/libc.so.", "mapped:/libc.so")
    glibc = steps.run("glibc", *walk).stdout.splitlines()
    assert ours[:8] == glibc[:8] == ["+c", "+b", "+a", "opened", "0", "-a", "closed", "0"]
    assert ours[8:12] == ["b destroyed", "-b", "-c", "0"]
    assert ours[12] == ours[13]  # libc.so.6 alone


def test_opened_again_before_the_thread_ends(steps: Steps) -> None:
    with_object(steps, "a")
    assert steps.both(
        *("open:./liba.so", "start:0:a", "close:0", "open:./liba.so", "join"),
        *("call:1:function_of_a", "close:1", "mapped:/liba.so"),
    ) == ["+a", "opened", "0", "closed", "opened", "a destroyed", "7", "-a", "closed", "0"]


def test_a_destructor_that_makes_another_and_closes_a_library(steps: Steps) -> None:
    with_object(steps, "b")
    source = """
    #include <dlfcn.h>
    #include <stdio.h>
    extern void *__dso_handle __attribute__((visibility("hidden")));
    int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
    static void second(void *b) { dprintf(1, "second\\n"); dlclose(b); dprintf(1, "closed b\\n"); }
    static void first(void *b) {
      dprintf(1, "first\\n");
      __cxa_thread_atexit_impl(second, b, &__dso_handle);
    }
    int a(void) {
      void *b = dlopen("./libb.so", RTLD_NOW);
      ((int (*)(void))dlsym(b, "b"))();
      return __cxa_thread_atexit_impl(first, b, &__dso_handle);
    }
    """
    steps.library("a", source, trace=True)
    walk = ["open:./liba.so", "start:0:a", "close:0", "join", "mapped:/liba.so", "mapped:/libb.so"]
    assert steps.ours(*walk) == [
        *("+a", "opened", "+b", "0", "closed", "first", "second", "closed b", "-a"),
        *("b destroyed", "-b", "0", "0"),
    ]


def test_an_object_without_a_library_handle(steps: Steps) -> None:
    # glibc counts it as the program's, and the thread's end jumps into what is gone.
    steps.library("a", (OBJECT % {"name": "a"}).replace("&__dso_handle)", "0)"), trace=True)
    assert steps.ours("open:./liba.so", "start:0:a", "close:0", "join", "mapped:/liba.so") == [
        *("+a", "opened", "0", "closed", "a destroyed", "-a", "0"),
    ]


def python(steps: Steps, code: str) -> None:
    head = """
import os, sys, threading, dlopen
from support.fixtures import maps
path = sys.argv[1]
def mapped(): return any(part.path == path for part in maps())
"""
    run_python(head + code, str(steps.directory / "liba.so"))


def test_unload_blockers_name_it(steps: Steps) -> None:
    with_object(steps, "a")
    python(
        steps,
        """
lib = dlopen.Library(path)
touched, end = threading.Event(), threading.Event()
def work(touch):
    touch()
    touched.set()
    end.wait()
thread = threading.Thread(target=work, args=(lib.a,))
thread.start()
touched.wait()
lib.close()
assert mapped()
assert lib.unload_blockers == (dlopen.Blocker("thread_local", path),), lib.unload_blockers
end.set()
thread.join()
while mapped():  # a Python thread is joined before the system's has ended
    pass
assert lib.unload_blockers == ()
""",
    )


def test_in_the_child_of_fork_other_threads_have_none(steps: Steps) -> None:
    with_object(steps, "a")
    python(
        steps,
        """
lib = dlopen.Library(path)
touched, end = threading.Event(), threading.Event()
def work():
    lib.a()
    touched.set()
    end.wait()
thread = threading.Thread(target=work)
thread.start()
touched.wait()
for own in (False, True):
    child = os.fork()
    if child == 0:
        if own:
            lib.a()
        lib.close()
        os._exit(10 + mapped())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10 + own
lib.close()
assert mapped()
end.set()
thread.join()
while mapped():
    pass
""",
    )


def test_a_static_destructor_makes_one_while_it_is_unloaded(steps: Steps) -> None:
    source = OBJECT % {"name": "a"}
    source += "int other(void);"
    source += "__attribute__((destructor)) static void stop(void) { a(); }"
    # The object's destructor calls what the library depends on.
    b = with_object(steps, "b")
    source = source.replace("{ dprintf", "{ function_of_b(); dprintf")
    source = "int function_of_b(void);" + source
    steps.library("a", source, needs=[b])
    python(
        steps,
        """
def work():
    lib = dlopen.Library(path)
    lib.close()
    assert mapped()
    assert lib.unload_blockers == (dlopen.Blocker("thread_local", path),), lib.unload_blockers
    again = dlopen.Library(path)  # another one
    again.close()
    done.append(True)
done = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert done
while mapped() or any("libb.so" in part.path for part in maps()):
    pass
""",
    )


def test_threads_end_while_it_is_closed(steps: Steps) -> None:
    with_object(steps, "a")
    python(
        steps,
        """
def work(touch):
    assert touch() == 0
    touched.wait()
for turn in range(200):
    lib = dlopen.Library(path)
    touched = threading.Barrier(7)
    threads = [threading.Thread(target=work, args=(lib.a,)) for _ in range(6)]
    for thread in threads: thread.start()
    touched.wait()
    lib.close()
    if turn % 2:
        for thread in threads: thread.join()
while mapped():
    pass
""",
    )
