"""Thread-local storage: every way to refer to it, in threads that ran before and came later.

Ulrich Drepper, "ELF Handling For Thread-Local Storage", names the models.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from core.steps import Steps
from support.elf64 import DT_RELA, DT_RELASZ, PT_TLS, Elf
from support.fixtures import run_python
from support.machines import machine

REGISTERS = Path(__file__).with_name("registers.c")

# model -> flags, and the relocations that it makes of an exported variable
_DYNAMIC = ["-ftls-model=global-dynamic", *machine().tls_traditional]
MODELS = {
    "global-dynamic": (_DYNAMIC, {"DTPMOD64", "DTPOFF64"}),
    "local-dynamic": ([*_DYNAMIC, "-DSTORAGE=static"], {"DTPMOD64"}),
    "initial-exec": (["-ftls-model=initial-exec"], {"TPOFF64"}),
    "descriptors": (list(machine().tls_descriptors), {"TLSDESC"}),
}
if not machine().tls_descriptors:
    del MODELS["descriptors"]
DYNAMIC = [model for model in MODELS if model != "initial-exec"]
MOST = [model for model in DYNAMIC if model != "local-dynamic"]
# Those that refer to another library's.
REFERRING = [model for model in MODELS if model != "local-dynamic"]
models = pytest.mark.parametrize("model", MODELS)
languages = pytest.mark.parametrize("language", ["c", pytest.param("c++", marks=pytest.mark.cxx)])

COUNTER = """
#include <stdint.h>
#include "machines.h"
#ifndef STORAGE
#define STORAGE
#endif
#ifdef __cplusplus
extern "C" {
#endif
STORAGE __thread int counter = 40;
STORAGE __thread int zero;
STORAGE __thread char line[3] __attribute__((aligned(STATIC_STORAGE_ALIGNMENT))) = {7};
int count(void) { return ++counter; }
int count_zero(void) { return ++zero; }
int aligned(void) { return (uintptr_t)line % STATIC_STORAGE_ALIGNMENT == 0 ? line[0] : -1; }
void *counter_at(void) { return &counter; }
#ifdef __cplusplus
}
#endif
"""


def tls_relocations(path: Path) -> set[str]:
    return Elf(path).relocation_names & {"DTPMOD64", "DTPOFF64", "TPOFF64", "TLSDESC"}


def with_model(
    steps: Steps,
    name: str,
    model: str,
    source: str = COUNTER,
    *more: str,
    language: str = "c",
    needs: tuple[Path, ...] = (),
    trace: bool = False,
) -> Path:
    flags, relocations = MODELS[model]
    path = steps.library(name, source, *flags, *more, language=language, needs=needs, trace=trace)
    assert tls_relocations(path) == relocations, f"{model}: {tls_relocations(path)}"
    return path


def in_threads(*some: str, workers: int = 2) -> list[str]:
    """The steps, in the main thread and in each worker."""
    return [*some, *(f"in:{worker}:{step}" for worker in range(workers) for step in some)]


@languages
@models
def test_each_thread_has_its_own(steps: Steps, model: str, language: str) -> None:
    with_model(steps, "a", model, language=language)
    with_model(steps, "b", model, language=language)
    look = in_threads("call:0:count", "call:0:count_zero", "call:0:aligned", "at:0:counter_at")
    lines = steps.both(
        *("worker", "open:./liba.so", "worker"),
        *look,
        *look,
        *("open:./libb.so", *in_threads("call:1:count"), "close:1", *look),
        *("join", "close:0", "mapped:/liba.so"),
    )
    first = ["41", "1", "7", "0", "41", "1", "7", "1", "41", "1", "7", "2"]
    assert lines[: 2 + len(first)] == ["opened", *first, "42"]
    assert lines[-14:-2] == ["43", "3", "7", "0", "43", "3", "7", "1", "43", "3", "7", "2"]
    assert lines[-2:] == ["closed", "0"]


@models
def test_each_private_copy_has_its_own(steps: Steps, model: str) -> None:
    with_model(steps, "a", model)
    opens = ["open:./liba.so:np"] * 3
    look = [step for k in range(3) for step in in_threads(f"call:{k}:count", f"at:{k}:counter_at")]
    lines = steps.ours("worker", *opens, "worker", *look, *look, "call:1:aligned")
    first = [line for number in range(9) for line in ("41", str(number))]
    assert lines == [*["opened"] * 3, *first, *(line.replace("41", "42") for line in first), "7"]


@models
def test_a_symbols_address_is_the_calling_threads(steps: Steps, model: str) -> None:
    if model == "local-dynamic":
        with_model(steps, "a", model, COUNTER + "__thread int shown = 3;")
        name = "shown"
    else:
        with_model(steps, "a", model)
        name = "counter"
    # Before anything has touched it, too.
    lines = steps.both("worker", "open:./liba.so", *in_threads(f"where:0:{name}", workers=1))
    assert lines == ["opened", "0", "1"]
    if model != "local-dynamic":
        look = in_threads("where:0:counter", "at:0:counter_at", "value:0:counter", workers=1)
        lines = steps.both("worker", "open:./liba.so", *look, "call:0:count", *look)
        first = ["0", "0", "40", "1", "1", "40"]
        assert lines == ["opened", *first, "41", "0", "0", "41", "1", "1", "40"]


@models
def test_what_the_dl_functions_say(steps: Steps, model: str) -> None:
    with_model(steps, "a", model, COUNTER + "__thread int shown = 3;")
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <link.h>
    #include <stdint.h>
    #include <string.h>
    static void *a, *seen;
    int start(void) { return !(a = dlopen("./liba.so", RTLD_NOW | RTLD_GLOBAL)); }
    void *by_handle(void) { return dlsym(a, "shown"); }
    void *by_default(void) { return dlsym(RTLD_DEFAULT, "shown"); }
    static int visit(struct dl_phdr_info *info, size_t size, void *module) {
      if (!strstr(info->dlpi_name, "/liba.so")) return 0;
      *(size_t *)module = info->dlpi_tls_modid;
      seen = info->dlpi_tls_data;
      return 1;
    }
    /* 1: dlinfo and dl_iterate_phdr agree, and the block holds the variable. */
    int block(void) {
      size_t module = 0, other = 0;
      uintptr_t data, shown = (uintptr_t)by_handle();
      if (dlinfo(a, RTLD_DI_TLS_MODID, &module) || dlinfo(a, RTLD_DI_TLS_DATA, &data)) return -1;
      if (!dl_iterate_phdr(visit, &other) || !module || module != other) return -2;
      return data == (uintptr_t)seen && data <= shown && shown < data + 256;
    }
    """
    steps.library("b", source)
    look = in_threads("at:0:by_handle", "at:0:by_default", "call:0:block", "where:1:shown")
    walk = ["worker", "open:./libb.so", "call:0:start", "open:./liba.so", "worker", *look]
    lines = steps.both(*walk)
    assert lines[3:] == [text for n in range(3) for text in (str(n), str(n), "1", str(n))]


@pytest.mark.parametrize("size", [1, 5000, 300_000])
@pytest.mark.parametrize("alignment", [64, 128, 4096])
@pytest.mark.parametrize("model", DYNAMIC)
def test_alignment(steps: Steps, model: str, alignment: int, size: int) -> None:
    source = f"""
    #include <stdint.h>
    #ifndef STORAGE
    #define STORAGE
    #endif
    STORAGE __thread char before = 1;
    STORAGE __thread char block[{size}] __attribute__((aligned({alignment}))) = {{2}};
    STORAGE __thread char after[{size}];
    static char *volatile last;
    int aligned(void) {{
      for (int i = 1; i < {size}; i++) if (block[i] || after[i]) return -1;
      last = &after[{size} - 1];
      *last = 1;
      return before == 1 && *block == 2 ? (uintptr_t)block % {alignment} : -1;
    }}
    """
    with_model(steps, "a", model, source)
    look = in_threads("call:0:aligned")
    lines = steps.both("worker", "open:./liba.so", "worker", *look)
    assert lines == ["opened", "0", "0", "0"]


def test_storage_that_does_not_begin_aligned(steps: Steps) -> None:
    """p_vaddr modulo p_align is not 0 where the linker put .tdata after odd data."""
    script = steps.directory / "odd.ld"
    script.write_text(
        "SECTIONS { .tdata (ALIGN(4096) + 8) : SUBALIGN(8) { *(.tdata) } } INSERT AFTER .eh_frame"
    )
    source = """
    #include "machines.h"
    __thread long words[3] = {1, 2, 3};
    __thread long big[64] __attribute__((aligned(STATIC_STORAGE_ALIGNMENT)));
    #include <stdint.h>
    int sum(void) { return words[0] + words[1] + words[2] + big[0]; }
    int aligned(void) { return (uintptr_t)big % STATIC_STORAGE_ALIGNMENT; }
    """
    path = steps.library("a", source, f"-Wl,-T,{script}", "-Wl,-z,separate-code")
    segment = Elf(path).segment(PT_TLS)
    assert segment is not None
    assert segment.address % segment.align
    look = in_threads("call:0:sum", "call:0:aligned", workers=1)
    assert steps.both("worker", "open:./liba.so", *look) == ["opened", "6", "0", "6", "0"]


# References from one image to another -------------------------------------------------------------

DEFINES = """
__thread int shared = 3;
__thread int other = 5;
int count_home(void) { return ++shared; }
void *home_at(void) { return &shared; }
"""
REFERS = """
extern __thread int shared, other;
int count_%(name)s(void) { return (shared += 10) + other; }
void *%(name)s_at(void) { return &shared; }
"""


@pytest.mark.parametrize("home", REFERRING)
@pytest.mark.parametrize("user", REFERRING)
def test_a_reference_to_another_library(steps: Steps, home: str, user: str) -> None:
    b = with_model(steps, "b", home, DEFINES)
    with_model(steps, "a", user, REFERS % {"name": "a"}, needs=(b,))
    look = in_threads("call:0:count_a", "call:0:count_home", "at:0:a_at", "at:0:home_at")
    lines = steps.both(
        "worker", "open:./liba.so", "worker", *look, *look, "join", "close:0", "mapped:/libb.so"
    )
    assert lines[:9] == ["opened", "18", "14", "0", "0", "18", "14", "1", "1"]
    assert lines[-2:] == ["closed", "0"]


@pytest.mark.parametrize("model", MOST)
def test_a_reference_to_a_library_that_is_open(steps: Steps, model: str) -> None:
    with_model(steps, "b", model, DEFINES)
    path = with_model(steps, "a", model, REFERS % {"name": "a"})
    assert "libb.so" not in Elf(path).needed
    look = in_threads("call:1:count_a", "call:0:count_home", "at:1:a_at", "at:0:home_at")
    lines = steps.both(
        *("worker", "open:./libb.so:ng", "call:0:count_home", "open:./liba.so", "worker", *look),
        *("close:0", *in_threads("call:1:count_a")),
        *("close:1", "mapped:/liba.so", "mapped:/libb.so"),
    )
    assert lines[:8] == ["opened", "4", "opened", "19", "15", "0", "0", "18"]
    assert lines[-3:] == ["closed", "0", "0"]


def test_static_storage_of_a_library_that_is_open(steps: Steps) -> None:
    with_model(steps, "b", "initial-exec", DEFINES)
    with_model(steps, "a", "initial-exec", REFERS % {"name": "a"})
    look = in_threads("call:1:count_a", "call:0:count_home", "at:1:a_at", "at:0:home_at")
    lines = steps.both("worker", "open:./libb.so:ng", "open:./liba.so", "worker", *look)
    assert lines[2:6] == ["18", "14", "0", "0"]


def test_static_storage_too_late(steps: Steps) -> None:
    with_model(steps, "b", "global-dynamic", DEFINES)
    with_model(steps, "a", "initial-exec", REFERS % {"name": "a"})
    before = ["open:./libb.so:ng", "call:0:count_home"]
    # glibc cannot either, once it was touched.
    glibc = steps.run("glibc", *before, "open:./liba.so").stdout.splitlines()
    assert glibc == ["opened", "4", "not opened"]
    steps.refused(*before, "open:./liba.so", detail="load it before that one")


@pytest.mark.parametrize("model", REFERRING)
def test_private_copies_of_two_libraries(steps: Steps, model: str) -> None:
    b = with_model(steps, "b", model, DEFINES)
    with_model(steps, "a", model, REFERS % {"name": "a"}, needs=(b,))
    look = [
        step
        for k in range(2)
        for step in in_threads(f"call:{k}:count_a", f"at:{k}:a_at", f"at:{k}:home_at", workers=1)
    ]
    lines = steps.ours("worker", "open:./liba.so:np", "open:./liba.so:np", *look)
    assert lines[2:] == [text for n in range(4) for text in ("18", str(n), str(n))]


HOST = "__thread int of_host = 9; int *host_at(void) { return &of_host; }"
REFERS_TO_HOST = """
extern __thread int of_host;
int count(void) { return ++of_host; }
void *seen_at(void) { return &of_host; }
extern void *host_at(void);
void *there_at(void) { return host_at(); }
"""


@pytest.mark.parametrize("user", REFERRING)
def test_a_reference_to_what_the_program_started_with(steps: Steps, user: str) -> None:
    host = steps.library("host", HOST)
    with_model(steps, "a", user, REFERS_TO_HOST)
    steps.make_program("int *host_at(void); int *use(void) { return host_at(); }", needs=[host])
    look = in_threads("call:0:count", "at:0:seen_at", "at:0:there_at")
    lines = steps.both("worker", "open:./liba.so", "worker", *look, *look)
    assert lines[:7] == ["opened", "10", "0", "0", "10", "1", "1"]


@pytest.mark.parametrize("user", REFERRING)
def test_a_reference_to_what_the_host_opened_later(steps: Steps, user: str) -> None:
    steps.library("host", HOST)
    with_model(steps, "a", user, REFERS_TO_HOST)
    steps.make_program("""
    __attribute__((constructor)) static void start(void) {
      if (!dlopen("./libhost.so", RTLD_NOW | RTLD_GLOBAL)) exit(4);
    }
    """)
    look = in_threads("call:0:count", "at:0:seen_at", "at:0:there_at")
    lines = steps.both("worker", "open:./liba.so", "worker", *look, *look)
    assert lines[:7] == ["opened", "10", "0", "0", "10", "1", "1"]


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("host", ["global-dynamic", "initial-exec"])
def test_static_storage_of_what_the_host_opened_later(
    steps: Steps, host: str, touched: bool
) -> None:
    with_model(steps, "host", host, HOST)
    with_model(steps, "other", "global-dynamic", REFERS_TO_HOST)
    with_model(steps, "a", "initial-exec", REFERS_TO_HOST)
    steps.make_program("""
    __attribute__((constructor)) static void start(void) {
      if (!dlopen("./libhost.so", RTLD_NOW | RTLD_GLOBAL)) exit(4);
    }
    """)
    look = in_threads("call:1:count", "at:1:seen_at", "at:1:there_at")
    before = ["worker", "open:./libother.so", *(["in:0:call:0:count"] if touched else [])]
    if host == "global-dynamic" and touched:
        glibc = steps.run("glibc", *before, "open:./liba.so").stdout.splitlines()
        assert glibc == ["opened", "10", "not opened"]
        steps.refused(*before, "open:./liba.so", detail="load it before that one")
        return
    lines = steps.both(*before, "open:./liba.so", "worker", *look, "call:0:count")
    assert lines[-10:-7] == ["10", "0", "0"]
    assert lines[-1] == "11"


@pytest.mark.parametrize("user", REFERRING)
def test_errno_itself(steps: Steps, user: str) -> None:
    # libc's headers hide it behind a function.
    source = """
    extern __thread int errno;
    int *__errno_location(void);
    int set(void) { *__errno_location() = 33; return errno; }
    void *seen_at(void) { return &errno; }
    void *there_at(void) { return __errno_location(); }
    """
    path = steps.library("a", source, *MODELS[user][0], "-nostdlib", "-fno-builtin")
    assert tls_relocations(path) == MODELS[user][1]
    look = in_threads("call:0:set", "at:0:seen_at", "at:0:there_at")
    lines = steps.both("worker", "open:./liba.so", "worker", *look)
    assert lines == ["opened", *("33", "0", "0"), *("33", "1", "1"), *("33", "2", "2")]


@pytest.mark.only_on(
    "x86_64", "aarch64", "riscv64", reason="on LoongArch glibc 2.43 ends with SIGSEGV"
)
@pytest.mark.parametrize("model", REFERRING)
def test_an_undefined_weak_one(steps: Steps, model: str) -> None:
    source = """
    extern __thread int nowhere __attribute__((weak));
    void *nowhere_at(void) { return &nowhere; }
    int is_there(void) { return nowhere_at() != 0; }
    """
    with_model(steps, "a", model, source)
    if model == "descriptors":  # the only one whose address is defined to be none
        assert steps.both("open:./liba.so", "call:0:is_there") == ["opened", "0"]
    else:
        assert steps.both("open:./liba.so") == ["opened"]


@pytest.mark.cxx
@models
def test_call_once(steps: Steps, model: str) -> None:
    """std::call_once refers to storage of libstdc++'s."""
    source = """
    #include <mutex>
    static std::once_flag once;
    static int ran;
    static thread_local int mine;
    extern "C" int run() {
      std::call_once(once, [] { mine = ++ran; });
      return ran * 10 + mine;
    }
    """
    flags = MODELS[model][0]
    path = steps.library("a", source, *flags, "-fno-gnu-unique", language="c++")
    undefined = {symbol.name for symbol in Elf(path).symbols if not symbol.section}
    assert "_ZSt15__once_callable" in undefined
    look = in_threads("call:0:run")
    assert steps.both("worker", "open:./liba.so", "worker", *look) == ["opened", "11", "10", "10"]


# Objects with constructors and destructors --------------------------------------------------------

OBJECT = """
#include <cstdio>
struct Object {
  int value = 40;
  Object() { dprintf(1, "made\\n"); }
  ~Object() { dprintf(1, "destroyed %d\\n", value); }
};
"""


@pytest.mark.cxx
@pytest.mark.parametrize("model", REFERRING)
def test_objects_across_two_libraries(steps: Steps, model: str) -> None:
    flags = MODELS[model][0]
    b = steps.library(
        "b", OBJECT + "thread_local Object object;", *flags, "-fno-gnu-unique", language="c++"
    )
    source = (
        OBJECT
        + """
    extern thread_local Object object;
    static thread_local Object own;
    extern "C" int count() { return ++object.value; }
    extern "C" int count_own() { return own.value += 2; }
    """
    )
    steps.library("a", source, *flags, "-fno-gnu-unique", language="c++", needs=[b])
    look = in_threads("call:0:count", "call:0:count_own")
    lines = steps.both("worker", "open:./liba.so", "worker", *look, *look, "join")
    first = ["made", "41", "made", "42"] * 3
    assert lines[: 1 + len(first)] == ["opened", *first]
    # Both workers' at `join`, the main thread's at exit.
    assert lines[-6:] == ["destroyed 44", "destroyed 42"] * 3


@pytest.mark.cxx
@models
def test_objects_of_private_copies(steps: Steps, model: str) -> None:
    source = (
        OBJECT
        + """
    static thread_local Object object;
    extern "C" int count() { return ++object.value; }
    """
    )
    flags = MODELS[model][0]
    steps.library("a", source, *flags, language="c++")
    look = [step for k in range(2) for step in in_threads(f"call:{k}:count", workers=1)]
    copies = ["open:./liba.so:np"] * 2
    lines = steps.ours("worker", *copies, *look, *look, "join", "close:1", "close:0")
    first = ["made", "41"] * 4
    assert lines[: 2 + len(first)] == ["opened", "opened", *first]
    assert lines[2 + len(first) :] == [
        *["42"] * 4,
        *["destroyed 42"] * 2,  # the worker's
        *["closed"] * 2,
        *["destroyed 42"] * 2,
    ]


# Initial values that are addresses ----------------------------------------------------------------

ADDRESSES = """
#include <stdlib.h>
#include <string.h>
#ifndef STORAGE
#define STORAGE
#endif
static int target = 11;
int exported = 13;
static int own_function(void) { return 17; }
STORAGE __thread int *volatile to_static = &target;
STORAGE __thread int *volatile to_exported = &exported;
STORAGE __thread int (*volatile to_function)(void) = own_function;
STORAGE __thread int (*volatile to_imported)(const char *) = atoi;
STORAGE __thread const char *volatile text = "19";
int sum(void) { return *to_static + *to_exported + to_function() + to_imported(text); }
"""
IFUNCS = """
static int answer(void) { return 23; }
static void *choose(void) { return answer; }
int chosen(void) __attribute__((ifunc("choose")));
static int local(void) __attribute__((ifunc("choose")));
STORAGE __thread int (*volatile to_chosen)(void) = chosen;
STORAGE __thread int (*volatile to_local)(void) = local;
STORAGE __thread size_t (*volatile to_libc)(const char *) = strlen;  /* IFUNC in libc */
int ifuncs(void) { return to_chosen() + to_local() + to_libc(text); }
"""


@models
def test_values_that_are_addresses(steps: Steps, model: str) -> None:
    with_model(steps, "a", model, ADDRESSES)
    look = in_threads("call:0:sum")
    assert steps.both("worker", "open:./liba.so", "worker", *look) == ["opened", *["60"] * 3]


@pytest.mark.only_on(
    "x86_64", "aarch64", "riscv64",
    reason="GNU ld 2.44 does not link it for LoongArch: an assertion of its own fails",
)  # fmt: skip
@models
def test_values_that_resolvers_give(steps: Steps, model: str) -> None:
    with_model(steps, "a", model, ADDRESSES + IFUNCS, "-fno-builtin")
    look = in_threads("call:0:ifuncs")
    assert steps.both("worker", "open:./liba.so", "worker", *look) == ["opened", *["48"] * 3]


# Ends ---------------------------------------------------------------------------------------------


@models
def test_nothing_of_an_unloaded_library_is_seen(steps: Steps, model: str) -> None:
    for name in "abc":
        with_model(steps, name, model)
    walk = ["worker"]
    for k, name in enumerate("abcab"):
        walk += [f"open:./lib{name}.so"]
        walk += in_threads(f"call:{k}:count", f"call:{k}:count_zero", workers=1)
        walk += [f"close:{k}"]
    assert steps.both(*walk) == ["opened", "41", "1", "41", "1", "closed"] * 5


def test_two_that_take_turns(steps: Steps) -> None:
    for name in "abc":
        with_model(steps, name, "global-dynamic")
    lines = steps.both(
        *("worker", "open:./liba.so", "open:./libb.so", *in_threads("call:1:count", workers=1)),
        *("close:0", "open:./libc.so", *in_threads("call:2:count", "call:1:count", workers=1)),
    )
    assert lines == [*["opened"] * 2, "41", "41", "closed", "opened", "41", "42", "41", "42"]


@models
def test_destructors_of_later_keys_see_the_values(steps: Steps, model: str) -> None:
    source = (
        COUNTER
        + """
    #include <pthread.h>
    #include <stdio.h>
    static pthread_key_t key;
    static __thread int rounds;
    static void at_end(void *value) {
      dprintf(1, "counter %d zero %d\\n", counter, zero);
      if (++rounds < 4) pthread_setspecific(key, value);
    }
    int start(void) { return pthread_key_create(&key, at_end); }
    int use(void) { counter++; zero++; return pthread_setspecific(key, &key); }
    """
    )
    with_model(steps, "a", model, source)
    walk = ["worker", "open:./liba.so", "call:0:start", "in:0:call:0:use", "in:0:call:0:use"]
    assert steps.both(*walk, "join", "call:0:count") == [
        *("opened", "0", "0", "0"),
        *["counter 42 zero 2"] * 4,
        "41",
    ]


def test_touched_first_when_the_thread_ends(steps: Steps) -> None:
    source = (
        COUNTER
        + """
    #include <pthread.h>
    #include <stdio.h>
    static pthread_key_t key;
    static void at_end(void *value) { dprintf(1, "%d\\n", ++counter); }
    int start(void) { return pthread_key_create(&key, at_end); }
    int use(void) { return pthread_setspecific(key, &key); }
    """
    )
    with_model(steps, "a", "global-dynamic", source)
    walk = ["worker", "worker", "open:./liba.so", "call:0:start"]
    walk += ["in:0:call:0:use", "in:1:call:0:use", "join", "call:0:count", "close:0"]
    assert steps.both(*walk) == ["opened", *["0"] * 3, "41", "41", "41", "closed"]


@pytest.mark.parametrize("model", MOST)
def test_errno_is_kept(steps: Steps, model: str) -> None:
    source = """
    #include <errno.h>
    __thread char block[400000];
    int touch(void) { errno = 77; block[9] = 1; return errno; }
    """
    with_model(steps, "a", model, source)
    look = in_threads("call:0:touch")
    assert steps.both("worker", "open:./liba.so", "worker", *look) == ["opened", *["77"] * 3]


# Local-exec ---------------------------------------------------------------------------------------


def test_local_exec_of_the_program(steps: Steps) -> None:
    """The program's own block, beside static storage that libraries are given later."""
    steps.make_program("""
    static __thread long own[3] __attribute__((tls_model("local-exec"))) = {40, 41, 42};
    int own_now(void) { own[0]++; return own[0] * 10000 + own[1] * 100 + own[2]; }
    __thread int shared __attribute__((tls_model("local-exec"))) = 7;
    """, "-rdynamic", "-fno-pic", "-no-pie")  # fmt: skip
    with_model(
        steps,
        "a",
        "initial-exec",
        COUNTER
        + """
    extern __thread int shared;
    int own_now(void);
    int own(void) { return own_now(); }
    int see(void) { return ++shared; }
    """,
    )
    look = in_threads("call:0:own", "call:0:see", "call:0:count", "call:0:own")
    lines = steps.both("worker", "open:./liba.so", "worker", *look, "call:0:own")
    each = ["414142", "8", "41", "424142"]
    assert lines == ["opened", *each * 3, "434142"]


# Descriptors --------------------------------------------------------------------------------------


@pytest.mark.only_on("x86_64")
@pytest.mark.parametrize("flags", [(), ("-DSTATIC",)], ids=["dynamic", "static"])
def test_a_descriptor_keeps_all_registers(steps: Steps, flags: tuple[str, ...]) -> None:
    source = REGISTERS.read_text()
    if flags:
        source = source.replace("70000", "700")  # what the host has room for
    path = steps.library("a", source, *flags)
    assert tls_relocations(path) == ({"TLSDESC", "TPOFF64"} if flags else {"TLSDESC"})
    # The first touch in the thread, then one that finds the block. glibc before 2.40 keeps
    # no vector register in the first.
    look = in_threads("call:0:check", "call:0:check")
    assert steps.ours("worker", "open:./liba.so", "worker", *look) == ["opened", *["0"] * 6]


@pytest.mark.only_on("x86_64")
def test_a_descriptor_of_the_hosts_storage_keeps_all_registers(steps: Steps) -> None:
    host = "__thread char variable[70000] = {1}; int size(void) { return sizeof variable; }"
    steps.library("host", host)
    source = REGISTERS.read_text().replace("__thread char variable[70000] = {1}", "")
    path = steps.library("a", source)
    assert tls_relocations(path) == {"TLSDESC"}
    steps.make_program("""
    __attribute__((constructor)) static void start(void) {
      if (!dlopen("./libhost.so", RTLD_NOW | RTLD_GLOBAL)) exit(4);
    }
    """)
    look = in_threads("call:0:check", "call:0:check")
    assert steps.ours("worker", "open:./liba.so", "worker", *look) == ["opened", *["0"] * 6]


@pytest.mark.only_on("aarch64", "riscv64", "loongarch64")
def test_a_descriptor_keeps_the_registers_of_its_machine(steps: Steps) -> None:
    here = Path(__file__).parent
    source = (
        (here / "through.c").read_text().replace("static __thread int round", "static int round")
    )
    path = steps.library("a", source, f"-I{here}", "-xassembler-with-cpp", str(here / "through.S"))
    if machine().name == "riscv64":
        make_descriptors(path)
    assert tls_relocations(path) == {"TLSDESC"}
    look = in_threads("call:0:check", "call:0:check")
    assert steps.ours("worker", "open:./liba.so", "worker", *look) == ["opened", *["0"] * 6]


@pytest.mark.only_on("riscv64")
def test_a_descriptor_keeps_vectors(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_CPU", "rv64,v=true,vlen=128")
    here = Path(__file__).parent
    source = (
        (here / "through.c").read_text().replace("static __thread int round", "static int round")
    )
    flags = (f"-I{here}", "-DVECTORS", "-xassembler-with-cpp", str(here / "through.S"))
    make_descriptors(steps.library("a", source, *flags))
    look = in_threads("call:0:check", "call:0:check")
    assert steps.ours("worker", "open:./liba.so", "worker", *look) == ["opened", *["0"] * 6]


def make_descriptors(path: Path) -> None:
    """Of each pair of words for __tls_get_addr, as no compiler of today makes them on RISC-V."""
    elf = Elf(path)
    data = bytearray(elf.data)
    start = elf.offset(elf.tags[DT_RELA])
    for at in range(start + 8, start + elf.tags[DT_RELASZ], 24):
        (info,) = struct.unpack_from("<Q", data, at)
        changed = {7: 12, 9: 0}.get(info & 0xFFFFFFFF)  # DTPMOD64, DTPREL64; TLSDESC, NONE
        if changed is not None:
            struct.pack_into("<Q", data, at, (info & ~0xFFFFFFFF | changed) if changed else 0)
    path.write_bytes(data)


# Static TLS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MOST)
def test_two_models_in_one_library_see_one_variable(steps: Steps, model: str) -> None:
    # As Mesa's drivers. A name of its own for each: the linker takes the strongest of a name.
    source = COUNTER.replace(
        "STORAGE __thread int zero;",
        """
    extern __thread int other __attribute__((alias("counter"), tls_model("initial-exec")));
    static __thread int zero;
    int count_static(void) { return ++other; }
    void *static_at(void) { return &other; }
    """,
    )
    flags, relocations = MODELS[model]
    path = steps.library("a", source, *flags)
    assert tls_relocations(path) == relocations | {"TPOFF64"}
    look = in_threads(
        *("call:0:count", "call:0:count_static", "at:0:counter_at", "at:0:static_at"),
        *("where:0:counter", "where:0:other"),
    )
    lines = steps.both("worker", "open:./liba.so", "worker", *look, *look)
    assert lines[:13] == ["opened", "41", "42", *["0"] * 4, "41", "42", *["1"] * 4]


@pytest.mark.parametrize("first", ["ours", "program"])
def test_openmp(steps: Steps, first: str) -> None:
    source = """
    #include <omp.h>
    static int mine = 5;
    #pragma omp threadprivate(mine)
    int sum(void) {
      int total = 0, threads = 0;
      #pragma omp parallel num_threads(2) reduction(+ : total) reduction(+ : threads)
      {
        threads += 1;
        mine = 5 + omp_get_thread_num();
        #pragma omp for
        for (int i = 0; i < 1000; i++) total += i;
        total += mine;
      }
      return total + 1000000 * threads;
    }
    """
    steps.library("a", source, "-fopenmp")
    steps.make_program("", *(["-fopenmp"] if first == "program" else []))
    walk = ["worker", "open:./liba.so", *in_threads("call:0:sum", workers=1)]
    assert steps.both(*walk) == ["opened", "2499511", "2499511"]
    assert steps.ours(*walk, "linkmap:/libgomp")[3] == ("1" if first == "program" else "0")


def static_library(steps: Steps, name: str, size: int, *, needs: tuple[Path, ...] = ()) -> Path:
    """With `size` bytes of static TLS, the first of them 7."""
    source = f"""
    static __thread char block[{size}] = {{7}};
    int first(void) {{ return block[0]; }}
    int last_up(void) {{ return ++block[{size} - 1]; }}
    """
    return with_model(steps, name, "initial-exec", source, needs=needs)


PYTHON = """
import os, random, re, sys, threading
from pathlib import Path
import dlopen
from support.fixtures import maps
folder = sys.argv[1]

def path(name): return f"{folder}/lib{name}.so"
def mapped(): return [m.path for m in maps() if folder in m.path or m.path.startswith("/memfd:dlopen-tls")]
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

def room():
    # How many libraries with 48 bytes of static TLS fit.
    opened = []
    try:
        while len(opened) < 2000:
            opened.append(dlopen.Library(path("room"), dlopen.PRIVATE))
    except dlopen.LoadError:
        pass
    random.shuffle(opened)
    for library in opened: library.close()
    assert not mapped(), mapped()
    return len(opened)
"""  # noqa: E501


def python(steps: Steps, code: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    done = run_python(PYTHON + code, str(steps.directory), *arguments, env=env, timeout=120)
    return done.stdout


def test_rounds_in_any_order_lose_no_static_tls(steps: Steps) -> None:
    static_library(steps, "room", 48)
    sizes = [1, 8, 40, 64, 100]
    for size in sizes:
        static_library(steps, f"s{size}", size)
    code = f"""
random.seed(3)
before = room()
assert 5 < before < 2000, before
opened, refused = [], 0
for _ in range(200):
    while len(opened) < 4:
        # One between others gives its room back when they have gone, too.
        try:
            library = dlopen.Library(path(f"s{{random.choice({sizes})}}"), dlopen.PRIVATE)
        except dlopen.LoadError:
            refused += 1
            break
        opened.append(library)
        assert library.first() == 7
        results = []
        thread = threading.Thread(target=lambda: results.append(library.first()))
        thread.start()
        thread.join()
        assert results == [7]
    random.shuffle(opened)
    for _ in range(min(len(opened), random.randrange(1, 4))):
        opened.pop().close()
for library in opened: library.close()
assert room() == before
assert refused < 20, refused
"""
    python(steps, code)


def test_threads_at_once_lose_no_static_tls(steps: Steps) -> None:
    static_library(steps, "room", 48)
    sizes = [1, 8, 40, 64, 100]
    for size in sizes:
        static_library(steps, f"s{size}", size)
    code = f"""
before = room()
def work(number):
    chosen = random.Random(number)
    for _ in range(80):
        library = dlopen.Library(path(f"s{{chosen.choice({sizes})}}"), dlopen.PRIVATE)
        assert library.first() == 7
        library.close()
    done.append(number)
done = []
threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(done) == 4
assert room() == before
"""
    python(steps, code)


def test_what_needs_more_static_tls_than_there_is(steps: Steps) -> None:
    static_library(steps, "room", 48)
    small = static_library(steps, "small", 48)
    large = static_library(steps, "large", 100_000, needs=(small,))
    static_library(steps, "top", 48, needs=(large,))
    code = """
before, files = room(), len(os.listdir("/proc/self/fd"))
for name in "large", "top", "large":
    try:
        dlopen.Library(path(name))
    except dlopen.LoadError as error:
        assert error.library == path("large"), error
        print(error)
    assert not mapped(), mapped()
assert len(os.listdir("/proc/self/fd")) == files
assert room() == before
"""
    texts = python(steps, code).splitlines()
    assert len(texts) == 3
    assert "100000 bytes are needed" in texts[0]
    found = re.search(r"(GLIBC_TUNABLES)=(glibc\.\S+=\d+)", texts[0])
    assert found, texts[0]
    # The advice is right: all three fit then.
    code = """
for _ in range(3):
    library = dlopen.Library(path("top"))
    assert [library.last_up() for _ in "ab"] == [1, 2]
    library.close()
    assert not mapped()
"""
    python(steps, code, env={found[1]: found[2]})


def test_how_much_static_tls_is_left(steps: Steps) -> None:
    static_library(steps, "large", 100_000)
    code = """
try:
    dlopen.Library(path(sys.argv[2]))
except dlopen.LoadError as error:
    print(error)
"""
    found = re.search(r"(\d+) are left", python(steps, code, "large"))
    assert found
    left = int(found[1])
    static_library(steps, "fits", left)
    static_library(steps, "not", left + 1)
    assert f"{left + 1} bytes are needed, {left} are left" in python(steps, code, "not")
    assert not python(steps, code, "fits")


def test_fork_while_another_thread_opens_and_closes(steps: Steps) -> None:
    static_library(steps, "a", 48)
    code = """
import signal
threading.excepthook = lambda problem: (sys.__excepthook__(*problem[:3]), os._exit(1))
def live():
    while True:
        dlopen.Library(path("a"), dlopen.PRIVATE).close()
threading.Thread(target=live, daemon=True).start()
for _ in range(60):
    child = os.fork()
    if child == 0:
        signal.alarm(120)  # where it deadlocks
        with dlopen.Library(path("a"), dlopen.PRIVATE) as library:
            os._exit(library.first() != 7)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
os._exit(0)
"""
    python(steps, code)


def test_more_alignment_than_static_tls_has(steps: Steps) -> None:
    source = "static __thread int b __attribute__((aligned(4096))); int *at(void) { return &b; }"
    with_model(steps, "a", "initial-exec", source)
    assert steps.run("glibc", "open:./liba.so").stdout == "not opened\n"
    steps.refused("open:./liba.so", detail="at a multiple of 4096")


JEMALLOC = """
from ctypes import *
lib = dlopen.Library.from_bytes(Path(sys.argv[2]).read_bytes(), name="libjemalloc.so.2")
mallctl = lib.function("mallctl", c_int, c_char_p, c_void_p, c_void_p, c_void_p, c_size_t)
malloc = lib.function("malloc", c_void_p, c_size_t)
free = lib.function("free", None, c_void_p)
usable = lib.function("malloc_usable_size", c_size_t, c_void_p)
def allocated():
    # By this thread: a number in its TLS.
    number = c_uint64()
    assert mallctl(b"thread.allocated", byref(number), byref(c_size_t(8)), None, 0) == 0
    return number.value
def work(number):
    chosen = random.Random(number)
    blocks, wanted, before = [], 0, allocated()
    for _ in range(2000):
        length = chosen.randrange(1, 5000)
        block = malloc(length)
        assert block and usable(block) >= length
        wanted += usable(block)
        memset(block, number, length)
        blocks.append((block, length))
        if len(blocks) > 50:
            block, length = blocks.pop(chosen.randrange(50))
            assert string_at(block, length) == bytes([number]) * length
            free(block)
    for block, length in blocks:
        assert string_at(block, length) == bytes([number]) * length
        free(block)
    assert allocated() - before == wanted
    done.append(number)
done = []
threads = [threading.Thread(target=work, args=[number]) for number in range(1, 5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
work(5)
assert sorted(done) == [1, 2, 3, 4, 5]
assert not any("jemalloc" in Path(m.path).name for m in maps())
"""


def test_jemalloc(steps: Steps, need_library: Callable[[str], Path]) -> None:
    path = str(need_library("libjemalloc.so.2"))
    tunables = {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=16384"}
    python(steps, JEMALLOC, path, env=tunables)


# Memory -------------------------------------------------------------------------------------------

BLOCK = """
static __thread char block[200000] = {1};
int touch(void) { block[199999]++; return block[0]; }
"""


def test_blocks_are_freed_when_threads_end_and_libraries_are_closed(steps: Steps) -> None:
    steps.library("a", BLOCK)
    code = """
import queue
def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    assert results == [1]

library = dlopen.Library(path("a"))
for _ in range(20): in_thread(library.touch)
before = resident()
for _ in range(500): in_thread(library.touch)
print(resident() - before)

# Threads that stay, while libraries come and go.
asked, answers = [queue.Queue() for _ in range(3)], queue.Queue()
def live(asked):
    while function := asked.get(): answers.put(function())
threads = [threading.Thread(target=live, args=[one]) for one in asked]
for thread in threads: thread.start()
def rounds(count):
    for _ in range(count):
        with dlopen.Library(path("a"), dlopen.PRIVATE) as library:
            for one in asked: one.put(library.touch)
            assert [answers.get() for _ in asked] == [1, 1, 1]
            assert library.touch() == 1
rounds(20)
before = resident()
rounds(200)
print(resident() - before)
for one in asked: one.put(None)
"""
    threads, opens = map(int, python(steps, code).split())
    # Kept blocks would be 100 MB and 160 MB.
    assert threads < 1 << 20, threads
    assert opens < 1 << 20, opens


LATE = """
#include <pthread.h>
#include <stdint.h>
static pthread_key_t key;
static intptr_t wanted, wrong;
static void at_end(void *round) {
  if ((intptr_t)round == wanted) wrong += touch() != 1;
  else pthread_setspecific(key, (char *)round + 1);
}
int start(int round) {
  wanted = round;
  return pthread_key_create(&key, at_end);
}
int use(void) { return pthread_setspecific(key, (void *)1); }
int failures(void) { return wrong; }
"""


@pytest.mark.parametrize("round_", [1, 2, 3])
def test_blocks_made_by_key_destructors_are_freed(steps: Steps, round_: int) -> None:
    steps.library("a", BLOCK + LATE)
    code = """
library = dlopen.Library(path("a"))
library.start(int(sys.argv[2]))
def turns(count):
    for _ in range(count):
        thread = threading.Thread(target=library.use)
        thread.start()
        thread.join()
turns(20)
before = resident()
turns(300)
assert library.failures() == 0
print(resident() - before)
"""
    assert int(python(steps, code, str(round_))) < 3 << 20  # of 60 MB


def test_in_the_child_of_fork(steps: Steps) -> None:
    for name in "ab":
        with_model(steps, name, "global-dynamic")
    code = """
a = dlopen.Library(path("a"))
touched, end = threading.Barrier(4), threading.Event()
def live():
    a.count()
    touched.wait()
    end.wait()
threads = [threading.Thread(target=live) for _ in range(3)]
for thread in threads: thread.start()
touched.wait()
assert [a.count(), a.count()] == [41, 42]
child = os.fork()
if child == 0:
    b = dlopen.Library(path("b"))
    results = [a.count(), b.count()]
    def work(): results.extend([a.count(), b.count()])
    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    b.close()
    results.append(a.count())
    print(*results, flush=True)
    a.close()
    os._exit(1 if mapped() else 0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert a.count() == 43
end.set()
"""
    assert python(steps, code).split() == ["43", "41", *["41"] * 6, "44"]
