"""Beside glibc's loader: what stays the host's, and what it never sees."""

from __future__ import annotations

import pytest

from core.steps import Steps
from support.elf64 import Elf
from support.fixtures import compile_library
from support.machines import machine


def test_libc_is_there_once(steps: Steps) -> None:
    steps.library("a", "#include <stdlib.h>\nint call(void) { return abs(-3); }")
    assert steps.ours(
        "open:./liba.so", "call:0:call", "loads:/libc.so.6", "linkmap:/libc.so.6"
    ) == ["opened", "3", "1", "1"]


def test_the_hosts_loader_never_sees_our_libraries(steps: Steps) -> None:
    b = steps.library("b", "int value(void) { return 3; }")
    steps.library("a", "int value(void); int call(void) { return value(); }", needs=[b])
    here = f"{steps.directory}/lib"
    assert steps.ours("open:./liba.so:g", "call:0:call", f"linkmap:{here}")[1:] == ["3", "0"]
    assert steps.run("glibc", "open:./liba.so", "linkmap:/lib").stdout.split()[-1] != "0"


@pytest.mark.parametrize(
    "name", ["libresolv.so.2", "libm.so.6", "libpthread.so.0", "libgcc_s.so.1"]
)
def test_what_is_left_to_the_hosts_loader(steps: Steps, name: str) -> None:
    steps.library("a", "int value;", f"-Wl,-l:{name}" if name != "libpthread.so.0" else "-pthread")
    if name != "libpthread.so.0":
        assert name in Elf(steps.directory / "liba.so").needed
    target = name if name != "libpthread.so.0" else "libc.so.6"
    assert steps.ours("open:./liba.so", f"linkmap:/{target}") == ["opened", "1"]


@pytest.mark.parametrize("name", ["libresolv.so.2", "libnss_compat.so.2"])
def test_a_library_of_libcs_own_can_be_opened(steps: Steps, name: str) -> None:
    assert steps.both(f"open:{name}", f"linkmap:/{name}", "close:0") == ["opened", "1", "closed"]


def test_a_path_that_only_the_host_has_opened_it_by(steps: Steps) -> None:
    """As glibc, which remembers each: known by it when the file has gone."""
    source = r"""
    #include <unistd.h>
    static void *opened;
    static void *glibcs(const char *name) {
      return ((__typeof__(dlopen) *)dlsym(RTLD_NEXT, "dlopen"))(name, RTLD_NOW);
    }
    __attribute__((constructor)) static void open_by_two_names(void) {
      unlink("libalias.so");
      opened = glibcs("./liba.so");
      if (!opened || symlink("liba.so", "libalias.so") || glibcs("./libalias.so") != opened)
        _exit(99);
      unlink("libalias.so");
    }
    """
    steps.library("a", "int call(void) { return 3; }")
    steps.make_program(source)
    assert steps.both("open:./libalias.so", "call:0:call", "mapped:/liba.so") == steps.both(
        "open:./liba.so", "call:0:call", "mapped:/liba.so"
    )
    assert steps.both("open:./libalias.so:o", "call:0:call") == ["opened", "3"]
    steps.refused("open:./libother.so", detail="No such file")


@pytest.mark.parametrize("how", ["started with", "opened"])
def test_what_the_host_needs_by_origin(steps: Steps, how: str) -> None:
    """Found through who needs it, as under glibc, which has expanded the name for itself."""
    inner = compile_library(
        steps.directory, "libb.so", "int value(void) { return 4; }", soname="$ORIGIN/libb.so"
    )
    needs = steps.library("a", needs=[inner], rpath="")
    steps.library("b", "int value(void) { return 4; }")  # whose soname does not say it
    steps.library("c", "int value(void); int call(void) { return value(); }", needs=[needs])
    opens = r"""
    __attribute__((constructor)) static void open_it(void) {
      ((__typeof__(dlopen) *)dlsym(RTLD_NEXT, "dlopen"))("./liba.so", RTLD_NOW);
    }
    """
    env: dict[str, str] = {}
    if how == "opened":
        steps.make_program(opens)
    elif not machine().shows_pages:
        pytest.skip(
            "the emulator refuses libc's loader a path behind 4 KiB of its last page: EFAULT"
        )
    else:
        # LD_PRELOAD cannot hold a path with a space.
        env = {"LD_PRELOAD": needs.name, "LD_LIBRARY_PATH": str(steps.directory)}
    assert steps.both("open:./libc.so", "call:0:call", env=env) == ["opened", "4"]


def test_opening_a_library_that_the_host_has_loaded(steps: Steps) -> None:
    assert steps.both("open:libc.so.6", "find:0:getpid", "linkmap:/libc.so.6", "close:0") == [
        *("opened", "found", "1", "closed"),
    ]


@pytest.mark.cxx
def test_one_libstdcxx(steps: Steps) -> None:
    source = """
    #include <stdexcept>
    #include <typeinfo>
    extern "C" int call() {
      try { throw std::runtime_error("x"); } catch (const std::exception &e) { return e.what()[0]; }
    }
    """
    steps.library("a", source, language="c++")
    assert steps.both("open:./liba.so", "call:0:call", "linkmap:/libstdc++.so.6") == [
        *("opened", str(ord("x")), "1"),
    ]


@pytest.mark.cxx
def test_an_exception_crosses_two_libraries(steps: Steps) -> None:
    b = steps.library("b", "void fail() { throw 42; }", language="c++")
    source = """
    void fail();
    extern "C" int call() { try { fail(); } catch (int value) { return value; } return -1; }
    """
    steps.library("a", source, language="c++", needs=[b])
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "42"]


def test_dladdr_and_dl_iterate_phdr_of_a_library_find_it(steps: Steps) -> None:
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <link.h>
    #include <string.h>
    int value = 1;
    static int look(struct dl_phdr_info *info, size_t size, void *found) {
      if (strstr(info->dlpi_name, "/liba.so")) ++*(int *)found;
      return 0;
    }
    int call(void) {
      Dl_info info;
      int found = 0;
      dl_iterate_phdr(look, &found);
      return 100 * found + 10 * (dladdr(&value, &info) != 0) +
             (info.dli_saddr == &value && !strcmp(info.dli_sname, "value"));
    }
    """
    steps.library("a", source)
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "111"]


def test_dlsym_next_and_default_of_a_library(steps: Steps) -> None:
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    int value(void) { return 1; }
    int call(void) {
      int (*next)(void) = (int (*)(void))dlsym(RTLD_NEXT, "value");
      int (*first)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "value");
      return 10 * (next ? next() : 0) + (first ? first() : 0);
    }
    """
    b = steps.library("b", "int value(void) { return 2; }")
    steps.library("a", source, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "21"]


def test_a_host_library_in_the_global_scope_goes_when_it_is_closed(steps: Steps) -> None:
    # libpython is always the host's; whether it is global, its loader is asked.
    steps.library("host", "int value(void) { return 5; }", soname="libpython3-host.so")
    steps.library("a", "int value(void); int call(void) { return value(); }")
    assert steps.both(
        *("open:./libhost.so:g", "open:./liba.so", "call:1:call"),
        *("close:1", "close:0", "mapped:/libhost.so"),
    ) == ["opened", "opened", "5", "closed", "closed", "0"]
    assert steps.ours("open:./libhost.so:g", "linkmap:/libhost.so") == ["opened", "1"]
