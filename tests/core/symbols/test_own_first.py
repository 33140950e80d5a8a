"""Which definitions come first in an image of one's own: its own, but not all of them.

The references are dlopen(3) in the same program, where glibc's order is wanted, and the image
itself where it is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.steps import Steps
from support.fixtures import (
    compile_library,
    compile_program,
    machine_library,
    missing,
    need_tool,
    run,
)
from support.machines import machine

SOURCE = Path(__file__).with_name("own.c")
# Opened as an image of one's own, by each way there is.
OWN = ("private", "bytes", "files", "hand")


@dataclass
class Program:
    """A program that opens libraries in all ways."""

    folder: Path
    libdlopen: Path
    path: Path

    def run(
        self,
        how: str,
        library: Path,
        *symbols: str,
        mode: str = "n",
        before: tuple[Path, ...] = (),
        preload: str = "",
    ) -> list[str]:
        first = [f"+{path}" for path in before]
        env = {"LD_PRELOAD": preload} if preload else {}
        command: list[str | Path] = [self.path, self.libdlopen, *first, how, mode, library]
        command += symbols
        return run(command, cwd=self.folder, env=env).stdout.splitlines()


def make_program(folder: Path, libdlopen: Path, *flags: str) -> Program:
    include = libdlopen.parents[1] / "include"
    path = compile_program(
        folder, "own", SOURCE, flags=[f"-I{include}", "-rdynamic", "-Wl,--no-as-needed", *flags]
    )
    return Program(folder, libdlopen, path)


@pytest.fixture
def program(tmp_path: Path, libdlopen: Path) -> Program:
    return make_program(tmp_path, libdlopen)


COPIES = """
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>
void *program_environ(void);
void *program_stdout(void);
const char *same_environ(void) { return program_environ() == (void *)&environ ? "same" : "other"; }
const char *has_environ(void) { return environ && environ[0] ? "filled" : "empty"; }
const char *same_stdout(void) { return program_stdout() == (void *)&stdout ? "same" : "other"; }
const char *has_stdout(void) { return stdout ? "there" : "missing"; }
"""


@pytest.mark.only_on(
    *("x86_64", "aarch64", "riscv64"), reason="LoongArch's compiler makes programs without copies"
)
@pytest.mark.parametrize("how", OWN)
def test_copies_in_the_program_are_the_variables(tmp_path: Path, libdlopen: Path, how: str) -> None:
    program = make_program(tmp_path, libdlopen, "-no-pie", "-fno-pie")
    copied = run([need_tool("readelf"), "--relocs", "--wide", program.path]).stdout
    for name in ("environ", "stdout"):
        assert re.search(rf"R_\w+_COPY .*{name}@", copied)
    library = compile_library(tmp_path, "libcopies.so", COPIES)
    symbols = ("same_environ", "has_environ", "same_stdout", "has_stdout")
    expected = program.run("libc", library, *symbols)
    assert [line.split()[1] for line in expected] == ["same", "filled", "same", "there"]
    assert program.run(how, library, *symbols) == expected


# What it has allocated is its own, and it ends the process for what is not.
HEAP = r"""
#include <stddef.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>
static _Alignas(16) char arena[1 << 16];
static size_t used;
static void *take(size_t size) {
  void *block = arena + used;
  used += (size + 15) & ~15UL;
  return block;
}
static void give(void *block) {
  if (block && ((char *)block < arena || (char *)block >= arena + sizeof arena)) {
    (void)!write(1, "foreign block\n", 14);
    _exit(9);
  }
}
void *malloc(size_t size) { return take(size); }
void *calloc(size_t count, size_t size) { return take(count * size); }
void *realloc(void *block, size_t size) { give(block); return take(size); }
void free(void *block) { give(block); }
const char *mine(void *block) {
  return (char *)block >= arena && (char *)block < arena + sizeof arena ? "mine" : "not mine";
}
int getppid(void) { return 8; }
const char *freed(void) { char *copy = strdup("text"); free(copy); return "freed"; }
const char *got(void) {
  void *block = malloc(10);
  const char *whose = mine(block);
  free(block);
  return whose;
}
const char *grown(void) { return mine(realloc(strdup("text"), 100)); }
const char *parent(void) { return getppid() == 8 ? "own" : "libc's"; }
"""


@pytest.mark.parametrize("mode", ["n", "l"])
@pytest.mark.parametrize("how", OWN)
def test_an_image_that_defines_malloc(
    tmp_path: Path, program: Program, how: str, mode: str
) -> None:
    library = compile_library(tmp_path, "libheap.so", HEAP, flags=["-fno-builtin", "-Wl,-z,lazy"])
    heap = ("freed", "got", "grown")
    expected = program.run("libc", library, *heap, "parent", mode=mode)
    assert expected == ["freed: freed", "got: not mine", "grown: not mine", "parent: libc's"]
    found = program.run(how, library, *heap, "parent", mode=mode)
    assert found == [*expected[:-1], "parent: own"]


FUNCTIONS = (
    *("malloc", "calloc", "realloc", "free", "aligned_alloc", "memalign", "posix_memalign"),
    *("valloc", "pvalloc", "malloc_usable_size", "reallocarray", "__libc_malloc", "__libc_free"),
)


def allocation_family() -> list[str]:
    """As malloc(3) says, and all that libstdc++ has of operator new and delete."""
    runtime = machine_library("libstdc++.so.6")
    assert runtime
    symbols = run([need_tool("nm"), "--dynamic", "--defined-only", runtime]).stdout
    operators = re.findall(r" [TW] (_Z(?:nw|na|dl|da)\w+)@", symbols)
    assert len(operators) >= 20
    return [*FUNCTIONS, *operators]


@pytest.mark.cxx
@pytest.mark.parametrize("how", OWN)
def test_the_allocation_family_is_libcs(tmp_path: Path, libdlopen: Path, how: str) -> None:
    program = make_program(tmp_path, libdlopen, "-lstdc++", "-lm")
    names = allocation_family()
    functions = "".join(
        f'".globl {name}; .type {name}, @function; {name}: ret\\n"' for name in [*names, "getppid"]
    )
    rows = "".join(f'{{"{name}", &f{i}}},' for i, name in enumerate(names))
    source = f"""
    #include <stddef.h>
    __asm__(".text\\n" {functions});
    {"".join(f'extern char f{i} __asm__("{name}");' for i, name in enumerate(names))}
    extern char g __asm__("getppid");
    void *program_find(const char *name);
    static const struct {{ const char *name; char *address; }} rows[] = {{{rows}}};
    static char *const parent = &g;
    const char *others(void) {{
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            if (rows[i].address != program_find(rows[i].name)) return rows[i].name;
        return "none";
    }}
    const char *first(void) {{ return parent == program_find("getppid") ? "libc" : "own"; }}
    """
    library = compile_library(tmp_path, "libfamily.so", source, flags=["-fno-builtin"])
    assert program.run("libc", library, "others", "first") == ["others: none", "first: libc"]
    assert program.run("libc", library, "others", mode="nd") == ["others: malloc"]
    if how == "hand":  # its scope has no libstdc++: these are its own
        assert program.run(how, library, "others", "first") == [
            f"others: {names[len(FUNCTIONS)]}",
            "first: own",
        ]
    else:
        assert program.run(how, library, "others", "first") == ["others: none", "first: own"]


USES_HEAP = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
static const char *owner(void *address) {
  Dl_info info;
  return dladdr(address, &info) && info.dli_fname ? strrchr(info.dli_fname, '/') + 1 : "nobody";
}
const char *malloc_of(void) { return owner((void *)malloc); }
const char *free_of(void) { return owner((void *)free); }
const char *usable_of(void) { return owner((void *)malloc_usable_size); }
const char *found(void) { return owner(dlsym(RTLD_DEFAULT, "malloc")); }
const char *freed(void) { free(strdup("text")); return malloc(10) ? "freed" : "nothing"; }
"""


# In the place of jemalloc where that is not there: as little as there can be.
ALLOCATOR = r"""
#include <stddef.h>
#include <string.h>
static _Alignas(16) char arena[1 << 22];
static size_t used;
void *malloc(size_t size) {
  size_t *block = (size_t *)(arena + __atomic_fetch_add(&used, (size + 31) & ~15UL, 5));
  return *block = size, block + 2;
}
void *calloc(size_t count, size_t size) { return malloc(count * size); }
size_t malloc_usable_size(void *block) { return ((size_t *)block)[-2]; }
void free(void *block) { (void)block; }
void *realloc(void *block, size_t size) {
  size_t before = block ? malloc_usable_size(block) : 0;
  void *moved = malloc(size);
  return memcpy(moved, block, before < size ? before : size);
}
"""


def allocator(folder: Path) -> Path:
    name = "libjemalloc.so.2"
    if machine().is_foreign:
        return compile_library(folder, name, ALLOCATOR, flags=["-fno-builtin"])
    return machine_library(name) or missing(f"{name} is not installed")


@pytest.mark.parametrize("defines", ["", "void *malloc(unsigned long n) { return (void *)n; }"])
@pytest.mark.parametrize("how", OWN)
def test_a_preloaded_allocator_serves_all(
    tmp_path: Path, program: Program, how: str, defines: str
) -> None:
    preload = str(allocator(tmp_path / "allocator"))
    needs = []
    if defines:
        needs = [compile_library(tmp_path, "libdefines.so", defines, flags=["-fno-builtin"])]
    flags = ["-fno-builtin", "-Wl,--no-as-needed"]
    library = compile_library(tmp_path, "libuses.so", USES_HEAP, flags=flags, libraries=needs)
    symbols = ("malloc_of", "free_of", "usable_of", "found", "freed")
    expected = program.run("libc", library, *symbols, preload=preload)
    assert expected == [
        *(f"{name}: libjemalloc.so.2" for name in symbols[:-1]),
        "freed: freed",
    ]
    if how != "hand":  # whose scope is what it is given
        assert program.run(how, library, *symbols, preload=preload) == expected
        assert program.run(how, library, *symbols, mode="l", preload=preload) == expected


# Two libraries of which one needs the other; the process has an older one, global.
VERSION = """
const char *version(void) {{ return "{0}"; }}
const char *helper(void) {{ return "{0}"; }}
int number = {1};
"""
TOP = """
#define _GNU_SOURCE
#include <dlfcn.h>
const char *version(void);
const char *helper(void) { return "top"; }
extern int number;
const char *needed(void) { return version(); }
const char *own(void) { return helper(); }
const char *data(void) { return number == 2 ? "new" : "old"; }
const char *pointer(void) { static const char *(*const f)(void) = version; return f(); }
const char *found(void) {
  const char *(*f)(void) = (const char *(*)(void))dlsym(RTLD_DEFAULT, "version");
  return f ? f() : "none";
}
const char *found_own(void) {
  const char *(*f)(void) = (const char *(*)(void))dlsym(RTLD_DEFAULT, "helper");
  return f ? f() : "none";
}
"""
ASKED = ("needed", "own", "data", "pointer", "found", "found_own")


def versions(folder: Path) -> tuple[Path, Path]:
    """The older one, and the library that needs the new one."""
    old = compile_library(folder, "libversion.so.1", VERSION.format("old", 1))
    new = compile_library(folder, "libversion.so.2", VERSION.format("new", 2))
    top = compile_library(folder, "libtop.so", TOP, flags=["-Wl,-z,lazy"], libraries=[new])
    return old, top


@pytest.mark.parametrize("mode", ["n", "l"])
def test_the_set_comes_before_the_global_scope(tmp_path: Path, program: Program, mode: str) -> None:
    old, top = versions(tmp_path)
    as_libc = program.run("libc", top, *ASKED, mode=mode, before=(old,))
    assert as_libc == [f"{name}: old" for name in ASKED]
    for how in ("private", "files"):
        assert program.run(how, top, *ASKED, mode=mode, before=(old,)) == [
            *("needed: new", "own: top", "data: new", "pointer: new"),
            *("found: new", "found_own: top"),
        ]
    # Where they are as all others are, their order is, too.
    assert program.run("plain", top, *ASKED, mode=mode, before=(old,)) == as_libc
    assert program.run("private", top, *ASKED, mode=f"{mode}g", before=(old,)) == as_libc
    assert program.run("bytes", top, *ASKED, mode=f"{mode}g", before=(old,)) == as_libc
    deep = program.run("libc", top, *ASKED, mode=f"{mode}d", before=(old,))
    for how in ("plain", "private", "bytes"):
        assert program.run(how, top, *ASKED, mode=f"{mode}d", before=(old,)) == deep


def test_deepbind_stays_libcs_for_the_allocation_family(tmp_path: Path, program: Program) -> None:
    library = compile_library(tmp_path, "libheap.so", HEAP, flags=["-fno-builtin"])
    expected = program.run("libc", library, "got", "parent", mode="nd")
    assert expected == ["got: mine", "parent: own"]
    for how in ("plain", "private", "bytes", "files"):
        assert program.run(how, library, "got", "parent", mode="nd") == expected


def test_what_is_shared_comes_in_libcs_order(tmp_path: Path, program: Program) -> None:
    """A dependency that is there already, or that others can find, is none of the set."""
    old, top = versions(tmp_path)
    found = program.run("bytes", top, "needed", "own", before=(old,))
    assert found == ["needed: old", "own: top"]


def test_symbolic_images_find_themselves_with_dlsym(steps: Steps) -> None:
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    int which(void) { return 1; }
    int found(void) { return ((int (*)(void))dlsym(RTLD_DEFAULT, "which"))(); }
    """
    steps.library("first", "int which(void) { return 2; }")
    steps.library("symbolic", source, "-Wl,-Bsymbolic")
    steps.library("plain", source)
    assert steps.both(
        *("open:./libfirst.so:g", "open:./libsymbolic.so", "call:1:found"),
        *("open:./libplain.so", "call:2:found"),
    ) == ["opened", "opened", "1", "opened", "2"]
