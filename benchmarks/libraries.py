"""What is loaded: compiled fixtures, thousands of copies, and libraries of the system."""

from __future__ import annotations

import importlib.resources
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support.elf64 import DT_GNU_HASH, PF_W, PT_LOAD, PT_TLS, Elf  # noqa: E402
from support.fixtures import compile_library, compile_program  # noqa: E402

BUILD = ROOT / "build" / "benchmarks"
WORKERS = Path(__file__).with_name("workers")
BOUND_NOW = ["-O2", "-Wl,-z,now"]

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
THROWER = """
static volatile int depth = 4;
__attribute__((noinline)) static void pass(int n)
{
  if (n == 0) throw n;
  pass(n - 1);
  depth = depth;
}
extern "C" void throw_many(int count)
{
  for (int i = 0; i < count; i++) { try { pass(depth); } catch (int) {} }
}
"""
COUNTER = """
extern _Atomic long constructor_runs;
__attribute__((constructor)) static void count(void) { constructor_runs++; }
"""


class MissingError(Exception):
    """This machine lacks what a measurement needs."""


def fixture(name: str, source: str, *libraries: Path, language: str = "c") -> Path:
    """Compile a library whose PLT is bound when it is opened."""
    return compile_library(
        BUILD / "libraries",
        f"lib{name}.so",
        source,
        language=language,
        flags=BOUND_NOW,
        libraries=libraries,
    )


@cache
def tiny() -> Path:
    """A C library of about 15 KB."""
    return fixture("tiny", TINY)


@cache
def chain() -> Path:
    """The first of three libraries: leaf needs middle, middle needs base."""
    return fixture("leaf", LEAF, fixture("middle", MIDDLE, fixture("base", BASE)))


@cache
def cxx() -> Path:
    """A C++ library."""
    return fixture("cxx", CXX, language="c++")


@cache
def thrower() -> Path:
    """A C++ library that throws and catches."""
    return fixture("thrower", THROWER, language="c++")


def counters(count: int) -> list[Path]:
    """Libraries whose constructors are counted by the program."""
    return [fixture(f"counter{i}", COUNTER) for i in range(count)]


def large(size: int) -> Path:
    """A library of so many bytes, nearly all of them constant."""
    return fixture(f"large{size}", f"const char constant[{size}] = {{1}};\n")


@cache
def system(soname: str) -> Path:
    """A library of the system, by the path that libc's loader finds."""
    code = (
        "import ctypes, sys\n"
        "ctypes.CDLL(sys.argv[1])\n"
        "paths = [line.split(None, 5)[-1].strip() for line in open('/proc/self/maps')]\n"
        # The file's own name may have another number.
        "stem = '/' + sys.argv[1].partition('.so')[0] + '.so'\n"
        "print(next(path for path in paths if stem in path))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, soname], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MissingError(f"{soname} is not installed")
    return Path(done.stdout.strip())


def small(soname: str) -> Path:
    """A library of the system that unloads: without thread-local storage."""
    path = system(soname)
    if Elf(path).segment(PT_TLS):
        raise MissingError(f"{soname} has thread-local storage here, and libc does not unload it")
    return path


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


def gnu_hash(name: bytes) -> int:
    """The hash function of DT_GNU_HASH."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def renamed(template: Path, names: dict[bytes, bytes], symbol: bytes) -> bytes:
    """The file with names of the same length in the place of others.

    `symbol` is the one that it exports, as it is named afterwards: its hash table is made anew.
    """
    elf = Elf(template)
    content = bytearray(elf.data)
    for old, new in names.items():
        if len(old) != len(new) or old not in content:
            raise ValueError(f"{old!r} cannot become {new!r}")
        content = content.replace(old, new)
    table = elf.offset(elf.tags[DT_GNU_HASH])
    buckets, first, words, shift = struct.unpack_from("<IIII", content, table)
    value, at = gnu_hash(symbol), table + 16
    bloom = [0] * words
    bloom[value // 64 % words] = 1 << value % 64 | 1 << (value >> shift) % 64
    struct.pack_into(f"<{words}Q", content, at, *bloom)
    chains = [0] * buckets
    chains[value % buckets] = first
    struct.pack_into(f"<{buckets}I", content, at + 8 * words, *chains)
    struct.pack_into("<I", content, at + 8 * words + 4 * buckets, value | 1)
    return bytes(content)


def numbered(count: int, folder: Path, template: Path, before: Path | None = None) -> Path:
    """Copies 0 … count - 1 of a library that exports copyNNNNN, each with its number as name.

    The template has number 99999.  With `before`, it needs number 88888, and each copy but the
    first, which is a copy of `before`, needs the one before it.  A compiler would take minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp, key = folder / ".template", template.read_bytes()
    made = 0
    if stamp.exists() and stamp.read_bytes() == key:
        made = len(list(folder.glob("libcopy*.so")))
    for number in range(made, count):
        new = b"%05d" % number
        names = {b"copy99999": b"copy" + new}
        source = template
        if before and number:
            names[b"copy88888"] = b"copy%05d" % (number - 1)
        elif before:
            names, source = {b"copy88888": b"copy" + new}, before
        path = folder / f"libcopy{number:05}.so"
        # Another run may have the file of that name mapped: that one stays as it is.
        made_now = path.with_suffix(".new")
        made_now.write_bytes(renamed(source, names, b"copy" + new))
        made_now.replace(path)
    stamp.write_bytes(key)
    return folder


def exporting_one(folder: Path, number: str, source: str, *libraries: Path) -> Path:
    """A template: copyNUMBER is all that it exports."""
    name = f"libcopy{number}.so"
    flags = [*BOUND_NOW, "-fvisibility=hidden", "-Wl,--build-id=none"]
    return compile_library(folder, name, source, flags=flags, libraries=libraries)


def template(folder: Path, number: str, *libraries: Path) -> Path:
    """A small library with a relocation of its own symbol; it calls what `libraries` has."""
    seen = '__attribute__((visibility("default")))'
    call = "copy88888() + " if libraries else ""
    source = (
        ("int copy88888(void);\n" if libraries else "")
        + f"{seen} int copy{number}(void);\n"
        + f"static int (*volatile pointer)(void) = copy{number};\n"
        + f"int copy{number}(void) {{ return {call}(pointer != 0); }}\n"
    )
    return exporting_one(folder, number, source, *libraries)


def copies(count: int) -> Path:
    """A folder with so many small libraries at least, independent of each other."""
    return numbered(count, BUILD / "copies", template(BUILD / "templates", "99999"))


def chained(count: int) -> Path:
    """A folder with so many libraries at least, each of which needs the one before it."""
    folder = BUILD / "templates" / "chained"
    before = template(folder, "88888")
    return numbered(count, BUILD / "chained", template(folder, "99999", before), before)


SYMBOLS = 1000  # that a binding library refers to


def binding(beside: int) -> tuple[Path, list[Path]]:
    """A library that binds SYMBOLS names, and what it needs; the last of those defines them all."""
    needed = [copies(beside) / f"libcopy{i:05}.so" for i in range(beside)]
    source = "".join(f"int bound{i}(void) {{ return {i}; }}\n" for i in range(SYMBOLS))
    defines = fixture("defines", source)
    users = "".join(f"int bound{i}(void);\n" for i in range(SYMBOLS))
    users += "int (*table[])(void) = {" + ",".join(f"bound{i}" for i in range(SYMBOLS)) + "};\n"
    # Found by their sonames: all of them are open when this one is.
    user = compile_library(
        BUILD / "libraries",
        f"libuses{beside}.so",
        users,
        flags=["-O2", "-Wl,-z,now", "-Wl,--no-as-needed"],
        libraries=[*needed, defines],
    )
    return user, [*needed, defines]


def libdlopen() -> Path:
    """The libdlopen.so of the package that this interpreter imports."""
    return Path(str(importlib.resources.files("dlopen")), "_lib", "libdlopen.so").resolve()


@cache
def worker(name: str) -> Path:
    """A compiled program of workers/."""
    source = WORKERS / name
    cxx = source.suffix == ".cc"
    # What a library refers to in its program is exported: -rdynamic.
    return compile_program(
        BUILD,
        source.stem,
        source,
        language="c++" if cxx else "c",
        flags=["-std=c++17" if cxx else "-std=gnu17", "-O2", "-pthread", "-rdynamic"],
    )


def empty() -> Path:
    """A library as large as libdlopen.so, which does nothing."""
    loads = [s for s in Elf(libdlopen()).segments if s.type == PT_LOAD]
    constant = sum(s.memory_size for s in loads if not s.flags & PF_W)
    variable = sum(s.memory_size for s in loads if s.flags & PF_W)
    source = f"const char constant[{constant}] = {{1}};\nchar variable[{variable}] = {{1}};\n"
    return fixture("empty", source)
