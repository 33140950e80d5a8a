"""The libraries that the operations are tried with."""

from __future__ import annotations

from pathlib import Path

from support.fixtures import compile_library

LEAF = """
static int value = 1;
int *place = &value;
int leaf(int number) { return number + *place%s; }
__attribute__((constructor)) static void begin(void) { value += 1; }
__attribute__((destructor)) static void end(void) { value -= 1; }
"""
MIDDLE = (
    "int leaf(int); int (*pointer)(int) = leaf; int middle(int number) { return leaf(number); }"
)
CHAIN = "int middle(int); int leaf(int); int chain(int n) { return middle(n) + leaf(n); }"
LAZY = "int leaf(int); int lazy(int number) { return leaf(number); }"
TLS = """
__thread int counter = 7, zeroes[40];
int touch(void) { return counter + zeroes[3]; }
"""
ALIGNED = """
__thread int counter __attribute__((aligned(32))) = 7;
int touch(void) { return counter; }
"""
CXX = """
#include <stdexcept>
#include <string>
struct Object { std::string text; Object() : text(100, 'a') {} ~Object() { text.clear(); } };
thread_local Object object;
inline int &shared() { static int value = 40; return value; }
extern "C" int work() {
  try {
    throw std::runtime_error("two");
  } catch (const std::exception &) {
    return shared() + (object.text.size() == 100 ? 2 : 0);
  }
}
"""
TEXTREL = r"""
        .text
        .globl  function
        .type   function, @function
function:
        movabsq $function, %rax
        ret
        .size   function, . - function
        .section .note.GNU-stack, "", @progbits
"""
SEGMENTS = """
static const int constant = 1;
const int *const relro = &constant;
int data = 1, *pointer = &data;
static char zeroes[100000];
int function(void) { return *relro + *pointer + zeroes[data]; }
"""
CALLS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#define GET(name) void *get_##name(void) { return (void *)name; }
GET(dlopen) GET(dlmopen) GET(dlclose) GET(dlsym) GET(dlvsym) GET(dlerror)
GET(dladdr) GET(dlinfo) GET(dl_iterate_phdr)
"""


def make_libraries(folder: Path) -> None:
    leaf = compile_library(folder, "libleaf.so", LEAF % "")
    compile_library(folder, "libleaf2.so", LEAF % " + 999", soname="libleaf.so")
    middle = compile_library(folder, "libmiddle.so", MIDDLE, libraries=[leaf])
    compile_library(folder, "libchain.so", CHAIN, libraries=[middle, leaf])
    compile_library(folder, "libpacked.so", CHAIN, libraries=[middle, leaf], rpath="$ORIGIN")
    compile_library(folder, "liblazy.so", LAZY, libraries=[leaf], flags=["-Wl,-z,lazy"])
    compile_library(folder, "libcxx.so", CXX, language="c++")
    compile_library(folder, "libtls.so", TLS)
    compile_library(folder, "libtlsdesc.so", TLS, flags=["-mtls-dialect=gnu2"])
    compile_library(folder, "libinitial.so", TLS, flags=["-ftls-model=initial-exec"])
    compile_library(folder, "libaligned.so", ALIGNED, flags=["-ftls-model=initial-exec"])
    compile_library(folder, "libtextrel.so", TEXTREL, language="asm", flags=["-Wl,-z,notext"])
    compile_library(folder, "libsegments.so", SEGMENTS, flags=["-Wl,-z,now,-z,separate-code"])
    compile_library(folder, "libcalls.so", CALLS)
    compile_library(
        folder,
        "libfilter.so",
        "int leaf(int n) { return n; }",
        flags=["-Wl,-f,libleaf.so"],
        libraries=[middle],
    )
    alias = folder / "libalias.so"
    alias.unlink(missing_ok=True)
    alias.symlink_to(leaf.name)
