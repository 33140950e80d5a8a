"""No lock is held over foreign code, and each open is whole for every thread that asks.

Each scenario ends by an alarm where it deadlocks.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from core.steps import Steps
from support.fixtures import compile_program, run, run_python

_ANSWER = "int answer(void) { return 42; }"
_STARTED = """
static int is_started;
__attribute__((constructor)) static void start(void) { is_started = 1; }
int started(void) { return is_started; }
"""
_HOOK = "void hook_%s(void); __attribute__((constructor)) static void start(void) { hook_%s(); }"


@pytest.fixture
def program(steps: Steps) -> Path:
    # Without the start files, whose __cxa_finalize takes a lock of libc that fork does not reset.
    other = steps.library("other", _ANSWER, "-nostartfiles")
    steps.library("plain", _ANSWER, "-nostartfiles")
    steps.library("user", "", "-nostartfiles", needs=[other])
    for name, hook in {
        "slow": "slow",
        "threaded": "open_in_thread",
        "calling": "plain",
    }.items():
        steps.library(name, _HOOK % (hook, hook))
    lower = steps.library("lower", _HOOK % ("lower", "lower"))
    steps.library("upper", _STARTED, needs=[lower])
    steps.library("resolving", "", "-Wl,-l:libresolv.so.2")
    source = Path(__file__).with_name("threads.c")
    return compile_program(steps.directory, "threads", source, flags=["-rdynamic", "-pthread"])


@pytest.mark.parametrize(
    "scenario",
    [
        "first call",
        "same library",
        "existing library",
        pytest.param(
            "waiter not awake",
            marks=pytest.mark.emulated(
                reason="/proc/self/task/N/syscall shows the emulator's system calls"
            ),
        ),
        "fork in constructor",
        "fork under load",
        "stress",
        "host libraries go",
        "two linkers",
        pytest.param("./libthreaded.so", id="a constructor waits for a thread that opens"),
    ],
)
def test_scenario(steps: Steps, program: Path, scenario: str) -> None:
    done = run([program, steps.libdlopen, scenario], cwd=steps.directory)
    assert done.stdout == "done\n"


@pytest.mark.emulated(reason="the emulator starts threads too slowly for the short wait")
def test_one_load_for_many_who_ask_at_once(steps: Steps, program: Path) -> None:
    """Eight threads, twenty times.

    The wait for the one that loads is short, and on a busy machine it may not be long enough:
    one run of five must do.
    """
    eight_times = "#define {0} {1} {1} {1} {1} {1} {1} {1} {1}\n"
    levels = ["&word,", *"ABCDEF"]
    source = "static int word;\n"
    for inner, outer in pairwise(levels):
        source += eight_times.format(outer, inner)
    steps.library("large", source + "int *words[] = { F };", "-nostartfiles")
    log = steps.directory / "log"
    maps: list[int] = []
    while 20 not in maps and len(maps) < 5:
        log.unlink(missing_ok=True)
        run(
            [program, steps.libdlopen, "at once"],
            cwd=steps.directory,
            env={"DLOPEN_LOG": "debug", "DLOPEN_LOG_FILE": str(log)},
        )
        maps.append(sum("map ./liblarge.so" in line for line in log.read_text().splitlines()))
    assert 20 in maps


def test_a_dependency_closed_while_a_destructor_uses_it(steps: Steps) -> None:
    b = steps.library("b", _ANSWER)
    source = """
    #include <unistd.h>
    int answer(void);
    __attribute__((destructor)) static void stop(void) { usleep(300000); answer(); }
    """
    steps.library("a", source, needs=[b])
    run_python(
        """
import sys, threading, time, dlopen
from support.fixtures import maps
a, b = (dlopen.Library(f"{sys.argv[1]}/lib{name}.so") for name in "ab")
closing = threading.Thread(target=a.close)
closing.start()
time.sleep(0.1)
b.close()
closing.join()
assert not any(part.path.endswith(("/liba.so", "/libb.so")) for part in maps())
""",
        str(steps.directory),
    )


@pytest.mark.emulated(reason="memory of the emulator would be counted, too")
@pytest.mark.parametrize("loader", ["glibc", "ours"])
def test_what_a_thread_does_not_ask_dlerror_for(tmp_path: Path, steps: Steps, loader: str) -> None:
    """It is freed when the thread ends: of 20,000 less than 512 KiB are left."""
    source = """
    #include <dlfcn.h>
    #include <pthread.h>
    #include <stdio.h>
    #include <unistd.h>
    static void *(*look)(void *, const char *) = dlsym;
    static void *fail(void *unused) { return look(RTLD_DEFAULT, "a_name_that_nothing_has"); }
    static void run_threads(int count) {
      for (pthread_t thread; count; count--)
        if (pthread_create(&thread, 0, fail, 0) || pthread_join(thread, 0)) _exit(2);
    }
    static long resident(void) {
      long size, pages = 0;
      FILE *file = fopen("/proc/self/statm", "r");
      if (fscanf(file, "%ld %ld", &size, &pages) != 2) _exit(3);
      fclose(file);
      return pages * sysconf(_SC_PAGESIZE);
    }
    int main(int argc, char **argv) {
      if (argc > 1) *(void **)&look = dlsym(dlopen(argv[1], RTLD_NOW), "dlsym");
      run_threads(1000);
      long before = resident();
      run_threads(20000);
      printf("%d\\n", resident() - before < 512 * 1024);
    }
    """
    program = compile_program(tmp_path, "asks", source, flags=["-pthread"])
    arguments = [] if loader == "glibc" else [steps.libdlopen]
    assert run([program, *arguments]).stdout == "1\n"
