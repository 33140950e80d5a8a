"""What host/assumptions.pxd takes for granted of libc: where it does not hold, a message says so.

unknown.c makes the process's libc another one, in memory.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from core.steps import Steps

UNKNOWN = Path(__file__).with_name("unknown.c").read_text()
NOT_KNOWN = "this libc is not known to dlopen: "

FUNCTIONS = (
    *("dlopen", "dlclose", "dlsym", "dlvsym", "dlinfo", "dladdr", "dladdr1", "dlerror"),
    *("dlmopen", "dl_iterate_phdr", "__tls_get_addr"),
)
AT_THE_START = {
    **{f"no {name}": f"it does not define {name}" for name in FUNCTIONS},
    "short": "dl_iterate_phdr gives no whole struct dl_phdr_info",
    "uncounted": "dlpi_adds and dlpi_subs do not count its images",
    "top bit": "it has a module id with the top bit",
    "errno": "errno is not where __tls_get_addr says that its storage is",
}


@pytest.fixture
def other_libc(steps: Steps) -> Steps:
    steps.library("a", "int call(void) { return 3; }")
    steps.make_program(UNKNOWN, "-Wl,-z,now")
    return steps


def test_all_hold_here(other_libc: Steps) -> None:
    done = other_libc.run(
        str(other_libc.libdlopen), "open:./liba.so", "call:0:call", env={"DLOPEN_LOG": "warn"}
    )
    assert (done.stdout.splitlines(), done.stderr) == (["opened", "3"], "")


@pytest.mark.parametrize(("assumption", "text"), AT_THE_START.items())
def test_what_is_seen_at_the_start(other_libc: Steps, assumption: str, text: str) -> None:
    env = {"OTHER_LIBC": assumption, "DLOPEN_LOG": "error"}
    done = other_libc.run(
        str(other_libc.libdlopen), "open:./liba.so", "open:libm.so.6", "mapped:/liba.so", env=env
    )
    assert done.stdout.splitlines() == ["not opened", "not opened", "0"]
    assert (
        re.findall(r"^open: (.*) \(needed by \)$", done.stderr, re.MULTILINE)
        == [NOT_KNOWN + text] * 2
    )
    assert re.findall(r"^dlopen\[\d+\]: error: (.*)$", done.stderr, re.MULTILINE) == [
        NOT_KNOWN + text
    ]


@pytest.mark.parametrize("assumption", AT_THE_START)
def test_a_program_under_the_preload_is_told(other_libc: Steps, assumption: str) -> None:
    """By dlerror; what it asks of libc's own libraries it is still given, where libc has it."""
    env = {"OTHER_LIBC": assumption, "LD_PRELOAD": str(other_libc.libdlopen)}
    done = other_libc.run("glibc", "open:./liba.so", "linkmap:/libc.so.6", env=env)
    assert done.stdout.splitlines() == ["not opened", "1"]
    assert NOT_KNOWN + AT_THE_START[assumption] in done.stderr


LATER = {
    "handle": "a handle of its is not the struct link_map",
    "prepended": "it does not append what it loads to its list",
    "donor": "it has given a library no static thread-local storage",
}


@pytest.mark.parametrize(("assumption", "text"), LATER.items())
def test_what_is_seen_later(other_libc: Steps, assumption: str, text: str) -> None:
    """At the first open that relies on it: that one fails, and all that follow."""
    other_libc.library(
        "b",
        '__attribute__((tls_model("initial-exec"))) __thread int x = 4;'
        "int call(void) { return x; }",
    )
    other_libc.library("c", "int call(void) { return 3; }", "-Wl,-l:libresolv.so.2")
    env = {"OTHER_LIBC": assumption, "DLOPEN_LOG": "error"}
    steps = ("open:./libb.so", "open:./libc.so", "open:./liba.so")
    done = other_libc.run(str(other_libc.libdlopen), *steps, "mapped:/liba.so", env=env)
    assert done.stdout.splitlines()[-2:] == ["not opened", "0"]
    assert NOT_KNOWN + text in done.stderr.splitlines()[-1]
    assert re.findall(r"^dlopen\[\d+\]: error: (this .*)$", done.stderr, re.MULTILINE) == [
        NOT_KNOWN + text
    ]


def test_debuggers_are_told_nothing_where_they_would_read_beyond(other_libc: Steps) -> None:
    steps = ("open:./liba.so", "call:0:call", "chain:/liba.so")
    linker = str(other_libc.libdlopen)
    assert other_libc.run(linker, *steps).stdout.splitlines()[:2] == ["opened", "3"]
    env = {"OTHER_LIBC": "link map", "DLOPEN_LOG": "warn"}
    done = other_libc.run(linker, *steps, env=env)
    assert done.stdout.splitlines() == ["opened", "3", "0"]
    assert "libc's struct link_map is larger than is known" in done.stderr


def test_nothing_is_unloaded_while_the_host_calls_back(steps: Steps) -> None:
    """What cannot be checked at run time: dl_iterate_phdr holds the lock that dlclose takes."""
    source = r"""
    #include <stdatomic.h>
    static atomic_int inside, closing, closed, seen_closed = -1;
    static void *closes(void *handle) {
      while (!inside) sched_yield();
      closing = 1;
      dlclose(handle);
      closed = 1;
      return NULL;
    }
    static int waits(struct dl_phdr_info *info, size_t size, void *data) {
      (void)info, (void)size, (void)data;
      inside = 1;
      while (!closing) sched_yield();
      /* Were it free to go, it would have gone: its destructor runs, and then it waits. */
      struct timespec pause = {0, 300000000};
      nanosleep(&pause, NULL);
      seen_closed = closed;
      return 1;
    }
    __attribute__((constructor)) static void try_it(void) {
      pthread_t thread;
      void *handle = dlopen("./liba.so", RTLD_NOW);
      pthread_create(&thread, NULL, closes, handle);
      dl_iterate_phdr(waits, NULL);
      pthread_join(thread, NULL);
      dprintf(1, "%d %d\n", seen_closed, closed);
    }
    """
    steps.library("a", "int call(void) { return 3; }")
    steps.make_program(source)
    assert steps.run("glibc").stdout.split() == ["0", "1"]


def test_in_a_namespace_of_its_own(steps: Steps) -> None:
    """Where the host has a second libc, whose errno is another."""
    source = r"""
    __attribute__((constructor)) static void open_there(void) {
      void *linker = dlmopen(LM_ID_NEWLM, getenv("LIBDLOPEN"), RTLD_NOW);
      void *(*open)(const char *, int) = linker ? dlsym(linker, "dlopen") : NULL;
      char *(*why)(void) = linker ? dlsym(linker, "dlerror") : dlerror;
      dprintf(1, "%s\n", open && open("./liba.so", RTLD_NOW) ? "opened" : why());
    }
    """
    steps.library("a", "int call(void) { return 3; }")
    steps.make_program(source)
    done = steps.run("glibc", env={"LIBDLOPEN": str(steps.libdlopen)})
    assert done.stdout.splitlines() == ["opened"]
