"""Small libraries in the arena: as if mapped, in memory that is used again."""

from __future__ import annotations

import ctypes
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

import dlopen
from support.elf64 import PF_W, PT_LOAD, Elf
from support.fixtures import compile_library, maps, run_python

pytestmark = pytest.mark.in_process

PAGE = resource.getpagesize()
LARGEST = 256 << 10
KEPT = 2 << 20
# Each resolver, constructor and destructor writes down what the map says of the page of its own
# code, of a constant, of RELRO and of a variable, and how many pages are writable and executable.
WATCHING = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int variable = 1;
static int nothing[3];
static int *const sealed[600] = { &variable, [599] = &variable };
static const char constant[] = "constant";
static const char *of(const void *at)
{
  static char found[5];
  char line[512], *end;
  FILE *file = fopen("/proc/self/maps", "r");
  strcpy(found, "none");
  while (fgets(line, sizeof line, file)) {
    unsigned long start = strtoul(line, &end, 16), stop = strtoul(end + 1, &end, 16);
    if ((unsigned long)at - start < stop - start) memcpy(found, end + 1, 4);
  }
  fclose(file);
  return found;
}
static int both(void)
{
  char line[512];
  int count = 0;
  FILE *file = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, file))
    if (strchr(line, ' ')[2] == 'w' && strchr(line, ' ')[3] == 'x') count++;
  fclose(file);
  return count;
}
static void say(const char *when)
{
  FILE *file = fopen(getenv("WATCHED"), "a");
  fprintf(file, "%s %d", when, both());
  fprintf(file, " %s", of((const void *)&say));
  fprintf(file, " %s", of(constant));
  fprintf(file, " %s", of(&sealed[300]));
  fprintf(file, " %s\n", of(&variable));
  fclose(file);
}
__attribute__((constructor)) static void begin(void) { say("constructor"); variable += nothing[1]; }
__attribute__((destructor)) static void end(void) { say("destructor"); }
int watched(void) { return *sealed[0]; }
"""
RESOLVER = r"""
#include <sys/syscall.h>
static int two(void) { return 2; }
static int (*resolve(void))(void) { return two; }
int chosen(void) __attribute__((ifunc("resolve")));
int choice(void) { return chosen(); }
"""
COUNTING = """
int counter = %d, zeroes[%d], *place = &counter;
int add(int n) { return *place += n + zeroes[9]++; }
"""


def of_arena(library: dlopen.Library) -> int:
    return library.info.arena_size


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    return compile_library(tmp_path, "libcounting.so", COUNTING % (7, 2000))


def test_memory_is_used_again_as_if_it_were_new(counting: Path, tmp_path: Path) -> None:
    other = compile_library(tmp_path, "libother.so", COUNTING % (8, 2000))
    places = set()
    for _ in range(3):
        for path, first in ((counting, 7), (other, 8)):
            with dlopen.Library(path, arena=True) as library:
                info = library.info
                assert info.arena_size == info.map_end - info.map_start
                places.add(info.map_start)
                assert [library.add(1), library.add(1)] == [first + 1, first + 3]
    assert len(places) == 1


def test_what_is_open_shares_nothing(counting: Path) -> None:
    libraries = [dlopen.Library(counting, dlopen.PRIVATE, arena=True) for _ in range(5)]
    assert len({library.info.map_start for library in libraries}) == 5
    for number, library in enumerate(libraries):
        library.add(number)
    assert [library.add(0) for library in libraries] == [7 + 1 + n for n in range(5)]
    for library in libraries:
        library.close()


def test_it_is_the_file_for_all_who_ask(counting: Path) -> None:
    plain = dlopen.Library(counting)
    expected = plain.info
    plain.close()
    with dlopen.Library(counting, arena=True) as library:
        info, status = library.info, counting.stat()
        assert (info.path, info.name) == (expected.path, expected.name)
        assert (info.device, info.inode) == (status.st_dev, status.st_ino)
        assert info.segments[0].address == info.map_start
        found = dlopen.dladdr(library.symbols["add"].address)
        assert found is not None
        assert (found.library.path, found.symbol.name) == (str(counting), "add")  # type: ignore[union-attr]
        names = [one.name for one in dlopen.libraries() if one.load_bias == info.load_bias]
        assert names == [str(counting)]
        # The second open finds the first, in whatever memory it is.
        with dlopen.Library(counting) as again:
            assert again.info.map_start == info.map_start
        with pytest.raises(dlopen.Error), dlopen.Library(counting, replace={"x": info.map_start}):
            pass


@pytest.mark.parametrize("lazy", [False, True])
def test_no_page_is_ever_writable_and_executable(tmp_path: Path, lazy: bool) -> None:
    flags = ["-Wl,-z,now" if not lazy else "-Wl,-z,lazy", "-Wl,-z,separate-code"]
    library = compile_library(tmp_path, "libwatching.so", WATCHING + RESOLVER, flags=flags)
    said = tmp_path / "said"
    code = f"""
import dlopen
for _ in range(3):
    library = dlopen.Library({str(library)!r}, {dlopen.RTLD_LAZY if lazy else dlopen.RTLD_NOW},
                             arena=True)
    assert library.info.arena_size
    assert library.watched() == 1 and library.choice() == 2
    library.close()
"""
    run_python(code, env={"WATCHED": str(said)})
    assert (
        said.read_text().splitlines()
        == [
            "constructor 0 r-xp r--p r--p rw-p",
            "destructor 0 r-xp r--p r--p rw-p",
        ]
        * 3
    )


def test_nothing_of_a_closed_library_can_be_executed(counting: Path) -> None:
    code = f"""
import ctypes, dlopen
library = dlopen.Library({str(counting)!r}, arena=True)
address = library.symbols["add"].address
library.close()
print("closed", flush=True)
ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(address)(1)
"""
    done = run_python(code, check=False)
    assert (done.stdout, done.returncode) == ("closed\n", -11)


def test_no_more_is_kept_than_promised(tmp_path: Path) -> None:
    sizes = [1000 * number for number in range(2, 52)]
    paths = [compile_library(tmp_path, f"lib{size}.so", COUNTING % (1, size)) for size in sizes]
    code = """
import json, sys
import dlopen
from support.fixtures import maps
paths = json.loads(sys.argv[1])
opened = [dlopen.Library(path, dlopen.PRIVATE, arena=True) for path in paths * 2]
places = [(library.info.map_start, library.info.map_end) for library in opened]
for library in opened:
    library.close()
kept = [
    min(one.end, end) - max(one.start, start)
    for one in maps() for start, end in places if one.start < end and start < one.end
]
print(sum(end - start for start, end in places), sum(kept))
"""
    size, kept = map(int, run_python(code, json.dumps([str(one) for one in paths])).stdout.split())
    assert size > KEPT + LARGEST
    assert KEPT - LARGEST < kept <= KEPT


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        (f"char much[{LARGEST}];", []),
        ("int x;", ["-Wl,-z,max-page-size=0x10000", "-Wl,-z,common-page-size=0x10000"]),
    ],
    ids=["large", "aligned"],
)
def test_what_does_not_fit_is_mapped(tmp_path: Path, source: str, flags: list[str]) -> None:
    path = compile_library(tmp_path, "libmapped.so", source + COUNTING % (1, 10), flags=flags)
    with dlopen.Library(path, arena=True) as library:
        assert of_arena(library) == 0
        assert library.add(1) == 2
        assert any(one.path == str(path) for one in maps())


def test_where_written_memory_may_not_be_executed_it_is_mapped(counting: Path) -> None:
    """PR_SET_MDWE(2const), since Linux 6.3."""
    code = f"""
import ctypes, sys
import dlopen
from support.fixtures import maps
path = {str(counting)!r}
before = dlopen.Library(path, dlopen.PRIVATE, arena=True)
assert before.info.arena_size
if ctypes.CDLL(None, use_errno=True).prctl(65, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3):
    sys.exit("not here")
for _ in range(2):
    library = dlopen.Library(path, dlopen.PRIVATE, arena=True)
    assert library.info.arena_size == 0 and library.add(1) == 8
    assert any(one.path == path for one in maps())
    library.close()
assert before.add(1) == 8
before.close()
"""
    done = run_python(code, check=False)
    if "not here" in done.stderr:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr


def test_a_dependency_is_there_too_and_a_namespace_gives_it_to_all(tmp_path: Path) -> None:
    base = compile_library(tmp_path, "libbase.so", "int base(void) { return 40; }")
    leaf = "int base(void); int answer(void) { return base() + 2; }"
    path = compile_library(tmp_path, "libleaf.so", leaf, libraries=[base])
    with dlopen.Library(path, arena=True) as library:
        assert library.answer() == 42
        assert all(one.arena_size for one in library.info.dependencies if "libbase" in one.path)
    with dlopen.Namespace("here", arena=True) as namespace:
        assert namespace.load(path).answer() == 42
        assert [one.arena_size != 0 for one in namespace.libraries] == [True, True]
    with dlopen.Namespace("here") as namespace:
        assert namespace.load(path).info.arena_size == 0
        assert namespace.load(base, arena=True).info.arena_size == 0, "it was there already"


def test_bytes_are_copied_there(counting: Path) -> None:
    for _ in range(2):
        with dlopen.Library.from_bytes(counting.read_bytes(), arena=True) as library:
            assert of_arena(library)
            assert library.info.inode == 0
            assert library.add(1) == 8


def test_a_version_that_takes_another_s_place(counting: Path) -> None:
    library = dlopen.Library(counting, reload=True, arena=True)
    assert of_arena(library)
    assert library.add(1) == 8
    library.reload(keep=["counter"])
    assert of_arena(library)
    assert library.add(1) == 9
    library.release_old()
    library.close()


def test_thread_local_storage_patches_and_exceptions(tmp_path: Path) -> None:
    source = """
#include <stdexcept>
#include <string>
#include <time.h>
thread_local int number = 5;
extern "C" int caught(int n)
{
  try { if (n) throw std::runtime_error("no"); }
  catch (std::exception &error) { return number++ + std::string(error.what()).size(); }
  return 0;
}
extern "C" long now(void) { return time(nullptr); }
"""
    path = compile_library(tmp_path, "libmuch.so", source, language="c++")
    fake = dlopen.callback(ctypes.c_long, ctypes.c_void_p)(lambda _: 99)
    for _ in range(2):
        with dlopen.Library(path, arena=True) as library:
            assert of_arena(library)
            assert [library.caught(1), library.caught(1)] == [7, 8]
            with library.patch(time=fake):
                assert library.now() == 99
            assert library.now() != 99


def test_text_relocations(tmp_path: Path) -> None:
    source = """
    .globl word, value
    .text
    word: .quad value
    .data
    value: .quad 9
    """
    flags = ["-nostdlib", "-Wl,-z,notext"]
    path = compile_library(tmp_path, "libtext.so", source, language="asm", flags=flags)
    for _ in range(2):
        with dlopen.Library(path, arena=True) as library:
            assert library.info.has_textrel
            assert of_arena(library)
            text = library.symbols["word"].address
            value = library.symbols["value"].address
            assert ctypes.c_uint64.from_address(text).value == value
            (found,) = [one for one in maps() if one.start <= text < one.end]
            assert found.permissions[:3] == "r-x"


def test_what_a_library_makes_of_its_own_pages_ends_with_it(tmp_path: Path) -> None:
    source = """
#include <sys/mman.h>
__attribute__((aligned(4096))) static char one[4096] = { 1 }, two[4096] = { 2 }, three[4096];
int change(void)
{
  return mprotect(one, 4096, PROT_NONE) | mprotect(two, 4096, PROT_READ)
    | mprotect(three, 4096, PROT_READ | PROT_EXEC);
}
int check(void) { return one[0] + two[0] + three[0]++; }
"""
    path = compile_library(tmp_path, "libchange.so", source)
    for _ in range(3):
        with dlopen.Library(path, arena=True) as library:
            info = library.info
            assert info.arena_size
            assert library.check() == 3
            assert library.change() == 0
        inside = [m for m in maps() if m.start < info.map_end and info.map_start < m.end]
        assert {m.permissions for m in inside} == {"rw-p"}


def test_what_lies_between_segments_cannot_be_touched(tmp_path: Path) -> None:
    source = COUNTING % (1, 3000) + '__attribute__((section(".far"))) int far_away = 5;'
    flags = ["-Wl,--section-start=.far=0x20000"]
    path = compile_library(tmp_path, "libgap.so", source, flags=flags)
    for _ in range(2):
        with dlopen.Library(path, arena=True) as library:
            info = library.info
            assert info.arena_size == info.map_end - info.map_start
            assert [library.add(1), library.add(1)] == [2, 4]
            assert library.variable("far_away", ctypes.c_int).value == 5
            inside = [m for m in maps() if m.start < info.map_end and info.map_start < m.end]
        again = [m for m in maps() if m.start < info.map_end and info.map_start < m.end]
        for found in (inside, again):
            (gap,) = [m for m in found if m.permissions == "---p"]
            assert gap.end == info.load_bias + 0x20000
        assert {m.permissions for m in again} == {"rw-p", "---p"}


def test_a_child_has_an_arena_of_its_own(counting: Path) -> None:
    code = f"""
import os
import dlopen
path = {str(counting)!r}
held = dlopen.Library(path, dlopen.PRIVATE, arena=True)
dlopen.Library(path, dlopen.PRIVATE, arena=True).close()
child = os.fork()
for _ in range(20):
    library = dlopen.Library(path, dlopen.PRIVATE, arena=True)
    assert library.info.arena_size and library.add(1) == 8
    library.close()
assert held.add(1) == 8
held.close()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    run_python(code)


@pytest.mark.parametrize("damage", ["cut", "symbol", "segment"])
def test_what_cannot_be_opened_leaves_nothing(tmp_path: Path, damage: str) -> None:
    source = COUNTING % (1, 3000)
    if damage == "symbol":
        source += "int nowhere(void); int call(void) { return nowhere(); }"
    path = compile_library(tmp_path, "libbad.so", source)
    data = bytearray(path.read_bytes())
    loads = [(number, one) for number, one in enumerate(Elf(path).segments) if one.type == PT_LOAD]
    if damage == "cut":
        del data[loads[-1][1].offset :]
    elif damage == "segment":
        data[64 + 56 * loads[1][0] + 4] |= PF_W
    path.write_bytes(data)
    errors = []
    for arena in (False, True, True):
        with pytest.raises(dlopen.Error) as caught:
            dlopen.Library(path, arena=arena)
        errors.append(str(caught.value))
        assert not any(one.path == str(path) for one in maps())
    assert len(set(errors)) == 1
    assert not [one for one in dlopen.libraries() if one.path == str(path)]


COMPARED = """
import json, sys
import dlopen

def described(path, arena):
    library = dlopen.Library(path, dlopen.PRIVATE, arena=arena)
    info = library.info
    bias = info.load_bias
    symbols = sorted(
        (key, one.type, one.size, one.address - bias)
        for key, one in library.symbols.items()
        if info.map_start <= one.address < info.map_end    # not SHN_ABS
    )
    near = [
        (found.symbol.name, found.offset, found.library.path)
        for _, kind, size, value in symbols if kind == "FUNC"
        if (found := dlopen.dladdr(bias + value)) and found.symbol
    ]
    segments = [(one.type, one.address - bias, one.memsz) for one in info.segments]
    ctypes = sys.modules["ctypes"]
    constant = [
        ctypes.string_at(one.address, one.filesz)
        for one in info.segments
        if one.type == "LOAD" and "w" not in one.flags and not info.has_textrel
    ]
    size = info.arena_size
    library.close()
    return size, [symbols, near, segments, constant, info.relocation_count, info.inode]

import ctypes
for path in json.loads(sys.argv[1]):
    print(path, file=sys.stderr)
    try:
        _, plain = described(path, False)
    except dlopen.Error:
        continue
    for _ in range(2):
        size, read = described(path, True)
        assert plain == read, path
    print(int(size != 0))
"""


def test_small_libraries_of_the_system_are_as_if_mapped(
    need_library: Callable[[str], Path],
) -> None:
    folder = need_library("libz.so.1").parent
    paths = [
        str(path)
        for path in sorted(folder.glob("lib*.so.*"))
        if path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST
    ][:: 1 if os.environ.get("CI") else 4]
    found = ""
    for start in range(0, len(paths), 20):
        done = run_python(COMPARED, json.dumps(paths[start : start + 20]), check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found += done.stdout
    assert found.count("1") > len(paths) // 2
