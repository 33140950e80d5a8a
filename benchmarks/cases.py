"""What is loaded: compiled fixtures, and libraries of the system that every distribution has."""

from __future__ import annotations

import importlib.resources
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support.elf64 import PF_W, PT_LOAD, PT_TLS, Elf  # noqa: E402
from support.fixtures import compile_library, compile_program  # noqa: E402

BUILD = ROOT / "build" / "benchmarks"

TINY = """
#include <string.h>
int counter = 42;
static int *pointers[] = { &counter, &counter, &counter };
int answer(void) { return *pointers[1]; }
size_t length(const char *text) { return strlen(text); }
"""
BASE = "int base_counter = 40;\nint base(int x) { return x + base_counter; }\n"
MIDDLE = "int base(int);\nint middle(int x) { return base(x) + 1; }\n"
LEAF = "int middle(int);\nint answer(void) { return middle(1); }\n"
CXX = """
#include <memory>
#include <stdexcept>
#include <string>
struct Shape { virtual ~Shape() {} virtual int area() const = 0; };
struct Square : Shape {
  explicit Square(int n) : side(n) { if (n < 0) throw std::invalid_argument("side"); }
  int area() const override { return side * side; }
  int side;
};
static std::string name("square");
extern "C" int answer() {
  std::unique_ptr<Shape> shape(new Square(6));
  return shape->area() + (int)name.size();
}
"""


@dataclass(frozen=True)
class Case:
    """One library to load; `function` takes nothing; `loaded` are loaded before by libc."""

    name: str
    path: Path
    function: str
    rounds: int
    loaded: tuple[str, ...] = ()


def fixture(name: str, source: str, *libraries: Path, language: str = "c") -> Path:
    """Compile a library whose PLT is bound when it is opened."""
    flags = ["-O2", "-Wl,-z,now"]
    return compile_library(
        BUILD / "libraries",
        f"lib{name}.so",
        source,
        language=language,
        flags=flags,
        libraries=libraries,
    )


def tiny() -> Case:
    """A C library of about 15 KB."""
    return Case("tiny", fixture("tiny", TINY), "answer", 500)


def chain() -> Case:
    """Three libraries: leaf needs middle, middle needs base."""
    base = fixture("base", BASE)
    middle = fixture("middle", MIDDLE, base)
    return Case("chain", fixture("leaf", LEAF, middle), "answer", 300)


def cxx() -> Case:
    """A C++ library; the process has libstdc++ already."""
    path = fixture("cxx", CXX, language="c++")
    return Case("c++", path, "answer", 500, ("libstdc++.so.6",))


def system(name: str, soname: str, function: str, *loaded: str) -> Case:
    """A library of the system, by the path that libc's loader finds."""
    code = (
        "import ctypes, sys\n"
        "ctypes.CDLL(sys.argv[1])\n"
        "paths = [line.split(None, 5)[-1].strip() for line in open('/proc/self/maps')]\n"
        "print(next(path for path in paths if '/' + sys.argv[1] in path))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, soname], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{soname} is not installed; choose other cases with --case")
    path = Path(done.stdout.strip())
    if Elf(path).segment(PT_TLS):
        raise SystemExit(f"{path} has thread-local storage; choose other cases with --case")
    return Case(name, path, function, 200, loaded)


CASES: dict[str, Callable[[], Case]] = {
    "tiny": tiny,
    "chain": chain,
    "c++": cxx,
    "zlib": lambda: system("zlib", "libz.so.1", "zlibVersion"),
    "sqlite3": lambda: system(
        "sqlite3", "libsqlite3.so.0", "sqlite3_libversion_number", "libm.so.6"
    ),
}


def exports(path: Path, most: int = 256) -> list[str]:
    """Names that dlsym finds in this file: default versions of defined symbols."""
    names = [
        symbol.name
        for symbol in Elf(path).symbols
        if symbol.section not in (0, 0xFFF1)
        and symbol.binding
        and symbol.type in (1, 2)
        and symbol.value
        and not symbol.hidden
    ]
    return names[:most]


def copies(count: int) -> list[Path]:
    """So many libraries without dependencies of their own."""
    return [fixture(f"copy{i}", f"int copy{i}(void) {{ return {i}; }}\n") for i in range(count)]


def libdlopen() -> Path:
    """The libdlopen.so of the package that this interpreter imports."""
    return Path(str(importlib.resources.files("dlopen")), "_lib", "libdlopen.so")


def native() -> Path:
    """The compiled native.c."""
    source = Path(__file__).with_name("native.c")
    return compile_program(BUILD, "native", source, flags=["-std=gnu17", "-O2"])


def throws() -> Path:
    """The compiled throws.cc."""
    source = Path(__file__).with_name("throws.cc")
    return compile_program(BUILD, "throws", source, language="c++", flags=["-std=c++17", "-O2"])


def preloads() -> Path:
    """A folder with libdlopen.so and libempty.so, which is as large and does nothing."""
    folder = BUILD / "preloads"
    folder.mkdir(parents=True, exist_ok=True)
    loads = [s for s in Elf(libdlopen()).segments if s.type == PT_LOAD]
    constant = sum(s.memory_size for s in loads if not s.flags & PF_W)
    variable = sum(s.memory_size for s in loads if s.flags & PF_W)
    compile_library(
        folder,
        "libempty.so",
        f"const char constant[{constant}] = {{1}};\nchar variable[{variable}] = {{1}};\n",
        flags=["-O2", "-Wl,-z,now"],
    )
    link = folder / "libdlopen.so"
    link.unlink(missing_ok=True)
    link.symlink_to(libdlopen().resolve())
    return folder


def startup() -> Path:
    """The compiled startup.c."""
    source = Path(__file__).with_name("startup.c")
    return compile_program(BUILD, "startup", source, flags=["-std=gnu17", "-O2"])


def loaded_first(case: Case) -> Sequence[str]:
    """The arguments that have native.c load the case's `loaded`."""
    return [word for name in case.loaded for word in ("--with", name)]
