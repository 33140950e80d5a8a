"""What an open and a close ask of the kernel: counts, which docs/how-it-works.md has reasons for.

Times are for the benchmarks. What is counted is a second open: the first one learns of the process.
"""

from __future__ import annotations

import re
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, missing, need_tool, run

pytestmark = pytest.mark.emulated(
    reason="strace(1) and getrusage(2) count the emulator's system calls and page faults"
)

# A write to no file is a mark in the list of system calls.
PROGRAM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/resource.h>
#include "loader.h"
static long faults(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}
static void mark(const char *text) { if (write(-1, text, strlen(text)) == 0) abort(); }
static int into_arena;
static void *open_bytes(const char *path) {
  static char bytes[1 << 25];
  static size_t size;
  static struct DLOPEN_error error;
  DLOPEN_image *image = NULL;
  if (!size) size = read(open(path, O_RDONLY), bytes, sizeof bytes);
  struct DLOPEN_request request = {
    .size = sizeof request, .name = path, .bytes = bytes, .bytes_size = size, .mode = RTLD_NOW
  };
  if (into_arena) request.bytes = NULL, request.flags = DLOPEN_ARENA;
  mark("opens");
  if (loader_open(&request, &image, &error)) failed("from bytes", "no");
  return image;
}
/* From bytes: twice, and each byte of what it has is looked at. */
static int from_bytes(const char *linker, const char *path) {
  use_loader(linker);
  for (int round = 0; round < 2; round++) {
    void *handle = open_bytes(path);
    mark("closes");
    int (*check)(void) = library_find(handle, "check");
    printf("%d\\n", check ? check() : 0);
    library_close(handle);
    mark("ends");
  }
  return 0;
}
int main(int argc, char **argv) {
  long before = 0, opened = 0;
  into_arena = argc > 3;
  if (argc > 2) return from_bytes(argv[2], argv[1]);
  for (int round = 0; round < 8; round++) {
    mark("opens");
    before = faults();
    void *handle = dlopen(argv[1], RTLD_NOW);
    if (!handle) { fprintf(stderr, "%s\\n", dlerror()); return 1; }
    opened = faults() - before;
    mark("closes");
    if (dlclose(handle)) return 1;
    mark("ends");
  }
  printf("%ld\\n", opened);
}
"""
SMALL = """
int counter = 42, zeroes[4];
static int *pointers[] = { &counter, &counter };
int answer(void) { return *pointers[1]; }
"""
# Of KIB kilobytes in the file, twice as many zeroes and one page far from all.
CONTENT = """
static const unsigned char many[KIB << 10] = { 1, [1000] = 2, [(KIB << 10) - 1] = 3 };
static unsigned char data[4096] = { 4 }, zeroes[KIB << 11];
int check(void) {
  int sum = 0;
  for (int i = 0; i < KIB << 10; i++) sum += many[i];
  for (int i = 0; i < 4096; i++) sum += data[i];
  for (int i = 0; i < KIB << 11; i++) sum += zeroes[i];
  return sum;
}
"""
LARGE_DATA = """
#ifndef COUNT
#define COUNT 20000
#endif
int more[3000]; int *many[COUNT] = { [0 ... COUNT - 1] = &more[7] };
"""


@dataclass
class Costs:
    """Of one side: the names of the system calls, in their order, and the page faults."""

    opening: list[str]
    closing: list[str]
    faults: int
    arguments: str


def costs(folder: Path, library: Path | str, libdlopen: Path | None) -> Costs:
    program = compile_program(folder, "costs", PROGRAM)
    trace = folder / "trace"
    preload = [f"-ELD_PRELOAD={libdlopen}"] if libdlopen else []
    run([need_tool("strace"), *preload, "-o", trace, program, library])
    text = trace.read_text()
    last = text[text.rindex('"opens"') : text.rindex('"ends"')].splitlines()[1:]
    last = [line for line in last if not line.startswith("getrusage")]
    names = [re.split(r"\W", line)[0] for line in last]
    cut = next(number for number, line in enumerate(last) if '"closes"' in line)
    # Not under strace, whose stops are no faults, but would be in the program's own time.
    environment = {"LD_PRELOAD": str(libdlopen)} if libdlopen else {}
    faults = int(run([program, library], env=environment).stdout)
    return Costs(names[:cut], names[cut + 1 : -1], faults, "\n".join(last))


FILE = ["openat", "pread64", "fstat"]
# All segments at once, to be read; text; data.
MAPPING = ["mmap", "mprotect", "mmap"]
# Where the last image was: data beside the rest; text.
MAPPING_AGAIN = ["mmap", "mmap", "mprotect"]
ZEROES = ["mmap"]
RELRO = ["mprotect"]


@pytest.mark.parametrize(
    ("source", "mappings"),
    [
        (SMALL, MAPPING_AGAIN),
        (SMALL + LARGE_DATA, [*MAPPING, *ZEROES]),
    ],
    ids=["small", "with zeroes"],
)
def test_each_system_call_of_an_open_has_its_reason(
    tmp_path: Path, libdlopen: Path, source: str, mappings: list[str]
) -> None:
    library = compile_library(tmp_path, "libcosts.so", source, flags=["-Wl,-z,now"])
    ours = costs(tmp_path, library, libdlopen)
    assert ours.opening == [*FILE, *mappings, "close", *RELRO], ours.arguments
    assert ours.closing == ["munmap"], ours.arguments
    theirs = costs(tmp_path, library, None)
    assert len(ours.opening) < len(theirs.opening)
    assert len(ours.closing) <= len(theirs.closing)


def test_what_the_cache_names_costs_one_call_more(tmp_path: Path, libdlopen: Path) -> None:
    """/etc/ld.so.cache stays mapped: its identity and time are asked for."""
    name = find_library("z") or missing("zlib is not installed")
    ours = costs(tmp_path, name, libdlopen)
    assert ours.opening[: len(FILE) + 1] == ["newfstatat", *FILE], ours.arguments
    assert ours.arguments.startswith('newfstatat(AT_FDCWD, "/etc/ld.so.cache"')


def test_a_small_library_has_no_more_page_faults_than_under_libc(
    tmp_path: Path, libdlopen: Path
) -> None:
    library = compile_library(tmp_path, "libcosts.so", SMALL, flags=["-Wl,-z,now"])
    ours = costs(tmp_path, library, libdlopen)
    assert "MAP_POPULATE" not in ours.arguments
    assert ours.faults <= costs(tmp_path, library, None).faults


def test_large_data_is_populated_at_once(tmp_path: Path, libdlopen: Path) -> None:
    library = compile_library(tmp_path, "libcosts.so", SMALL + LARGE_DATA, flags=["-Wl,-z,now"])
    ours = costs(tmp_path, library, libdlopen)
    assert ours.arguments.count("MAP_POPULATE") == 1


def test_what_the_host_opens_is_not_mapped_before(tmp_path: Path, libdlopen: Path) -> None:
    """It is known by what its file says, and as no file of ours by its program headers.

    The cache of ldconfig(8) is mapped once for both, and stays.
    """
    flags = ["-Wl,--no-as-needed", "-lm", "-l:libdl.so.2"]
    library = compile_library(tmp_path, "libcosts.so", SMALL, flags=flags)
    program = compile_program(tmp_path, "costs", PROGRAM)
    trace = tmp_path / "trace"
    run([need_tool("strace"), f"-ELD_PRELOAD={libdlopen}", "-o", trace, program, library])
    text = trace.read_text()
    first = text[text.index('"opens"') : text.index('"closes"')]
    assert len(re.findall(r"^openat.*libm\.so\.6.* = \d+$", first, re.MULTILINE)) == 2  # and libc's
    assert first.count("/etc/ld.so.cache") == 1
    assert "munmap" not in first
    assert "/proc/self/maps" not in first


@pytest.mark.parametrize("alignment", ["0x1000", "0x200000"])
def test_half_a_megabyte_that_is_written_lies_in_huge_pages(
    tmp_path: Path, libdlopen: Path, alignment: str
) -> None:
    """The file is copied into them. An image with an alignment of its own has a part below."""
    flags = ["-DCOUNT=400000", "-Wl,-z,now", f"-Wl,-z,max-page-size={alignment}"]
    library = compile_library(tmp_path, "libcosts.so", SMALL + LARGE_DATA, flags=flags)
    ours = costs(tmp_path, library, libdlopen)
    advice = re.findall(r"^madvise\(0x(\w+), (\d+), MADV_HUGEPAGE\)", ours.arguments, re.MULTILINE)
    (start, size), *others = [(int(start, 16), int(size)) for start, size in advice]
    assert not others
    assert start % (2 << 20) == 0
    assert size == (4 << 20)
    if Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text().find("[never]") < 0:
        assert ours.faults < 200  # and not one for each of 800 pages


@pytest.mark.parametrize(
    ("size", "far", "advice"),
    [
        (16, False, []),
        (200, False, ["0x17"]),
        (1500, False, ["MADV_HUGEPAGE"]),
        (1500, True, []),
    ],
    ids=["small", "medium", "large", "far apart"],
)
def test_bytes_are_copied_into_pages_that_cost_least(
    tmp_path: Path, libdlopen: Path, size: int, far: bool, advice: list[str]
) -> None:
    """Not so where segments lie far from each other: each would have huge pages of its own."""
    flags = [f"-DKIB={size}", "-Wl,-z,now"]
    source = CONTENT
    if far:
        source += '__attribute__((section(".far"))) int far = 5;'
        flags.append("-Wl,--section-start=.far=0x40000000")
    library = compile_library(tmp_path, "libcosts.so", source, flags=flags)
    program = compile_program(tmp_path, "costs", PROGRAM)
    trace = tmp_path / "trace"
    done = run([need_tool("strace"), "-o", trace, program, library, libdlopen])
    assert done.stdout == "10\n10\n"
    text = trace.read_text()
    last = text[text.rindex('"opens"') : text.rindex('"closes"')]
    given = re.findall(r"^madvise\(0x\w+, \d+, (\w+)", last, re.MULTILINE)
    assert [one.replace("MADV_POPULATE_WRITE", "0x17") for one in given] == advice, last


def test_nothing_is_mapped_where_a_slot_of_the_arena_is_left(
    tmp_path: Path, libdlopen: Path
) -> None:
    source = SMALL + "int check(void) { return answer(); }"
    library = compile_library(tmp_path, "libcosts.so", source, flags=["-Wl,-z,now"])
    program = compile_program(tmp_path, "costs", PROGRAM)
    trace = tmp_path / "trace"
    done = run([need_tool("strace"), "-o", trace, program, library, libdlopen, "arena"])
    assert done.stdout == "42\n42\n"
    text = trace.read_text()
    last = text[text.rindex('"opens"') : text.rindex('"ends"')]
    opening, closing = (
        [re.split(r"\W", line)[0] for line in part.splitlines()[1:-1]]
        for part in last.split('"closes"')
    )
    read = ["pread64", "pread64"]
    protected = ["mprotect", "mprotect"]
    assert opening == [*FILE, *read, *protected, "close", *RELRO], last
    assert [name for name in closing if name != "write"] == ["mprotect"], last


def test_an_image_from_bytes_has_its_name_in_the_list_of_mappings(
    tmp_path: Path, libdlopen: Path
) -> None:
    """Where the kernel can (CONFIG_ANON_VMA_NAME): what it is asked is looked at."""
    source = "int check(void) { return 1; }"
    library = compile_library(tmp_path, "lib[x] $1.so", source)
    program = compile_program(tmp_path, "costs", PROGRAM)
    trace = tmp_path / "trace"
    run([need_tool("strace"), "-e", "prctl", "-o", trace, program, library, libdlopen])
    asked = re.findall(r'^prctl\(.*, (0x\w+), (\d+), "(.*)"\)', trace.read_text(), re.MULTILINE)
    assert [name for _, _, name in asked] == ["dlopen: lib?x? ?1.so"] * 2
