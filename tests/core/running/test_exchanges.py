"""Patches, swaps, images from bytes; and while foreign code changes what they are about.

Each scenario of replacing.c and exchanges.c is a process of its own; an alarm ends one that hangs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, run

HERE = Path(__file__).parent
_CHOSEN = """
void hook(void);
static int answer(void) { return 42; }
static int (*resolve(void))(void) { hook(); return answer; }
int chosen(void) __attribute__((ifunc("resolve")));
"""
# Weak for the assembler only: RISC-V's compiler calls what is weak through the GOT, never lazily.
_USER = """
int chosen(void), global(void);
__asm__(".weak global");
int call_chosen(void) { return chosen(); }
int call_global(void) { return global(); }
"""
_HELPER = "int call_chosen(void); int instead(void) { return 7; } int (*used)(void) = call_chosen;"
_WALKS = """
#define _GNU_SOURCE
#include <link.h>
static int each(struct dl_phdr_info *info, size_t size, void *data) { return ++*(int *)data, 0; }
int walk(void) { int found = 0; int result = dl_iterate_phdr(each, &found); return result + found; }
"""
_HOT_USER = """
int version(void);
static int (*volatile pointer)(void) = version;
int by_pointer(void) { return pointer(); }
int by_call(void) { return version(); }
"""
_PACKED = """
int version(void);
int (*volatile whole)(void) = version;
struct __attribute__((packed)) packed { char tag; int (*function)(void); };
volatile struct packed packed = { 'x', version };
int by_packed(void) { int (*function)(void) = packed.function; return function(); }
int by_whole(void) { return whole(); }
"""
_PLACES = """
int value(void);
extern char numbers[];
struct entry { const char *name; int (*function)(void); };
const struct entry table[2] = { { "value", value }, { "again", value } };
int (*writable)(void) = value;
char *third = numbers + 3;
static volatile int last = 1;
int call_value(void) { return value(); }
int from_table(void) { return table[last - 1].function(); }
int from_its_end(void) { return table[last].function(); }
int from_writable(void) { return writable(); }
"""
_VERSIONED = """
int first(void) { return 1; }
int second(void) { return 2; }
__asm__(".symver first, versioned@V1");
__asm__(".symver second, versioned@@V2");
"""
_OLD_AND_NEW = """
int versioned(void), old(void);
__asm__(".symver old, versioned@V1");
int call_old(void) { return old(); }
int call_new(void) { return versioned(); }
"""
_MEMORY = """
#include <string.h>
static int state, counter;
static __thread int mine = 5;
static const char *const text = "four";
static int answer(void) { return 42; }
static int (*resolve(void))(void) { return answer; }
static int choose(void) __attribute__((ifunc("resolve")));
__attribute__((constructor)) static void start(void) { state = 1; }
int started(void) { return state; }
int chosen(void) { return choose(); }
int length(void) { return (int)strlen(text); }
int count(void) { return ++counter; }
int next(void) { return ++mine; }
"""
_LAST = """
static int state;
int last(void) { return state; }
__attribute__((constructor)) static void start(void) { state = 5; }
"""
_HOOKED = "void hook(void); __attribute__((constructor)) static void start(void) { hook(); }"
_THROWING = """
extern "C" int throwing(void) { return 1; }
static int start() { throw 1; return 1; }
static int started = start();
"""
_OPENS = """
#include <dlfcn.h>
static void *opened = &opened;
int result(void) { return opened != 0; }
__attribute__((constructor)) static void start(void)
{
  opened = dlopen("./libthrowing.so", RTLD_LAZY);
}
"""
_PLAIN_OPEN = """
#include <dlfcn.h>
int open_throwing(void) { return dlopen("./libthrowing.so", RTLD_LAZY) != 0; }
"""
_UNCAUGHT = """
#include <exception>
extern "C" int uncaught(void) { return std::uncaught_exceptions(); }
"""
_CATCHES = """
extern "C" int catches(void (*function)())
{
  try { function(); } catch (int number) { return number; }
  return 0;
}
"""
_SAYS_END = """
void ended(void);
int says_end(void) { return 0; }
__attribute__((destructor)) static void end(void) { ended(); }
"""
_THROWS_AT_END = """
extern "C" int says_end();
extern "C" int throws_at_end() { return says_end(); }
__attribute__((destructor)) static void end() { throw 7; }
"""
_ALL_CODE = """
void hook(void), ended(void);
static int answer(void) { return 42; }
static int (*resolve(void))(void) { hook(); return answer; }
int all_code(void) __attribute__((ifunc("resolve")));
int (*volatile pointer)(void) = all_code;
__attribute__((constructor)) static void start(void) { hook(); }
__attribute__((destructor)) static void end(void) { ended(); }
"""
_REPLACED = (
    "patch_every_place",
    "patch_every_place_bound_now",
    "patch_every_place_of_the_host",
    "patches_end_in_any_order",
    "patch_of_one_version",
    "patch_of_pieces",
    "patch_of_all_or_none",
    "patch_while_threads_call",
    "swap_while_threads_call",
    "swap_without_a_symbol",
    "swap_under_a_patch",
    "from_bytes",
    "from_bytes_with_what_it_needs",
)
_IN_C = (
    "patched_image_goes",
    "definition_goes",
    "patch_in_a_cycle",
    "patch_of_the_host",
    "patch_of_the_unwinder",
    "swap_while_opening",
    "swap_back",
    "swap_of_pieces",
    "constructor_jumps",
    "retained_twice",
    "relocate_without_foreign_code",
    "closed_while_relocated",
    "seen_while_relocated",
    "opened_while_relocated",
)
_IN_CXX = (
    "nested_open_fails",
    "throw_through_dlopen",
    "fails_under_libc_names",
    "other_runtime",
    "destructor_throws",
    "destructor_throws_before_the_end",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchanges")
    undefined = ["-Wl,--no-as-needed", "-fno-builtin"]
    lazy = [*undefined, "-Wl,-z,lazy"]

    def library(name: str, source: str, *needs: Path, flags: list[str] = undefined) -> Path:
        return compile_library(
            folder, f"lib{name}.so", source, libraries=needs, flags=flags, rpath="$ORIGIN"
        )

    chosen = library("chosen", _CHOSEN)
    user = library("user", _USER, chosen, flags=lazy)
    library("global", "int global(void) { return 3; }")
    library("helper", _HELPER, user)
    library("walks", _WALKS)
    for number in (1, 2):
        soname = ["-Wl,-soname,./libhot.so"]
        source = f"int version(void) {{ return {number}; }}"
        hot = library(f"hot{number}", source, flags=[*undefined, *soname])
    library("hotuser", _HOT_USER, hot, flags=lazy)
    library("packed", _PACKED, hot)
    library("empty", "int nothing(void) { return 0; }")
    library("memory", _MEMORY)
    values = library("values", "int value(void) { return 1; } char numbers[8] = {1, 2, 3, 4};")
    library("placeslazy", _PLACES, values, flags=lazy)
    library("placesnow", _PLACES, values, flags=[*undefined, "-Wl,-z,now,-z,relro"])
    script = folder / "versions"
    script.write_text("V1 {}; V2 { global: versioned; local: *; } V1;")
    flags = [*undefined, f"-Wl,--version-script={script}"]
    library("oldandnew", _OLD_AND_NEW, library("versioned", _VERSIONED, flags=flags))
    last = library("last", _LAST)
    hooked = library("hooked", _HOOKED)
    library("first", "int last(void); int first(void) { return last(); }", last, hooked)
    library("allcode", _ALL_CODE, flags=[*undefined, "-nostartfiles"])
    return folder


@pytest.fixture(scope="module")
def program(folder: Path) -> Path:
    flags = ["-rdynamic", "-pthread"]
    return compile_program(folder, "exchanges", HERE / "exchanges.c", flags=flags)


@pytest.fixture(scope="module")
def cxx_folder(folder: Path) -> Path:
    flags = ["-Wl,--no-as-needed", "-std=c++17"]
    throwing = compile_library(
        folder, "libthrowing.so", _THROWING, language="c++", flags=flags, rpath="$ORIGIN"
    )
    last = folder / "liblast.so"
    compile_library(
        folder,
        "libsecond.so",
        "int second(void) { return 2; }",
        libraries=[last, throwing],
        flags=["-Wl,--no-as-needed"],
        rpath="$ORIGIN",
    )
    compile_library(folder, "libopens.so", _OPENS)
    compile_library(folder, "libplainopen.so", _PLAIN_OPEN)
    compile_library(folder, "libcatches.so", _CATCHES, language="c++", flags=flags)
    says_end = compile_library(folder, "libsaysend.so", _SAYS_END)
    compile_library(
        folder,
        "libthrowsatend.so",
        _THROWS_AT_END,
        language="c++",
        libraries=[says_end],
        flags=flags,
        rpath="$ORIGIN",
    )
    compile_library(folder, "libuncaught.so", _UNCAUGHT, language="c++", flags=flags)
    compile_library(
        folder,
        "libstatic.so",
        _THROWING,
        language="c++",
        flags=["-static-libstdc++", "-Wl,--exclude-libs,ALL"],
    )
    return folder


@pytest.mark.parametrize("scenario", _REPLACED)
def test_from_c(folder: Path, libdlopen: Path, scenario: str) -> None:
    flags = ["-rdynamic", "-pthread"]
    program = compile_program(folder, "replacing", HERE / "replacing.c", flags=flags)
    done = run([program, libdlopen, scenario], cwd=folder, timeout=180, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0)


@pytest.mark.parametrize("scenario", _IN_C)
def test_in_the_middle(folder: Path, program: Path, libdlopen: Path, scenario: str) -> None:
    done = run([program, libdlopen, scenario], cwd=folder, timeout=180, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0)


@pytest.mark.cxx
@pytest.mark.parametrize("scenario", _IN_CXX)
def test_thrown(cxx_folder: Path, program: Path, libdlopen: Path, scenario: str) -> None:
    done = run([program, libdlopen, scenario], cwd=cxx_folder, timeout=180, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0)
