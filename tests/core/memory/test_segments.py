"""How segments get into memory: alignment, bss, offsets, protection.

gABI, "Program Loading"; psABI x86-64, "Program Loading".
"""

from __future__ import annotations

import pytest

from core.steps import Steps
from support import elf64
from support.elf64 import Elf
from support.machines import machine

_DATA = """
char text[] = "initialised";
long zeroes[3000];
const char constant[] = "constant";
int call(void) {
  for (int i = 0; i < 3000; i++) if (zeroes[i]) return -1;
  zeroes[2999] = 1;
  return text[10] == 'd' && constant[7] == 't';
}
"""


@pytest.mark.parametrize("size", [0x1000, 0x4000, 0x10000, 0x200000])
def test_page_sizes_of_the_linker(steps: Steps, size: int) -> None:
    flags = [f"-Wl,-z,max-page-size={size}", f"-Wl,-z,common-page-size={min(size, 0x10000)}"]
    library = steps.library("a", _DATA, *flags)
    loads = [one for one in Elf(library).segments if one.type == elf64.PT_LOAD]
    assert {load.align for load in loads} == {size}
    if size >= machine().page:
        assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]
        return
    said = [steps.run(loader, "open:./liba.so") for loader in ("glibc", str(steps.libdlopen))]
    assert [done.stdout for done in said] == ["not opened\n"] * 2
    assert said[0].stderr == said[1].stderr
    assert "not page-aligned" in said[0].stderr


def test_the_arena(steps: Steps) -> None:
    """What is left there is taken by the next image, and nothing of it is to be seen."""
    source = """
    extern int other;
    int *const relro[2] = {&other, &other};
    int variable = VALUE, zero[5000];
    int code(void) { return VALUE; }
    int call(void) {
      for (int i = 0; i < 5000; i++) if (zero[i]++) return -1;
      return code() + variable++ + *relro[1];
    }
    """
    b = steps.library("b", "int other = 100;")
    for name, value in (("a", 1), ("d", 3)):
        steps.library(name, source, f"-DVALUE={value}", "-Wl,-z,now", needs=[b], soname="")
    names, pages = ["relro", "variable", "code"], ["r--p", "rw-p", "r-xp"]
    if not machine().shows_pages:
        names, pages = [], []
    steps_of = [
        [f"call:{number}:call", *(f"page:{number}:{name}" for name in names)] for number in range(3)
    ]
    said = steps.ours(
        *("open:./liba.so:na", *steps_of[0], "close:0"),
        *("open:./libd.so:na", *steps_of[1], "close:1"),
        *("open:./liba.so:na", *steps_of[2], "mapped:/liba.so"),
    )
    assert said == [
        *("opened", "102", *pages, "closed", "opened", "106", *pages, "closed"),
        *("opened", "102", *pages, "0"),
    ]


@pytest.mark.parametrize("alignment", [0x2000, 0x10000, 0x200000])
def test_alignment_above_a_page_is_kept(steps: Steps, alignment: int) -> None:
    source = f"""
    __attribute__((aligned({alignment}))) char aligned[16] = "x";
    int call(void) {{ return (unsigned long)aligned % {alignment}; }}
    """
    steps.library("a", source, f"-Wl,-z,max-page-size={max(alignment, machine().page)}")
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "0"]


@pytest.mark.parametrize("alignment", [0, 1, 8])
def test_alignment_below_a_page(steps: Steps, alignment: int) -> None:
    # Linkers write it with --omagic.  Offset and address are congruent modulo a page all the same.
    library = steps.library("a", _DATA)
    data = bytearray(library.read_bytes())
    for index, one in enumerate(Elf(library).segments):
        if one.type == elf64.PT_LOAD:
            data[64 + 56 * index + 48 : 64 + 56 * index + 56] = alignment.to_bytes(8, "little")
    library.write_bytes(data)
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]


@pytest.mark.parametrize("flag", ["-z,noseparate-code", "-z,separate-code", "-z,norelro"])
def test_layouts_of_the_linker(steps: Steps, flag: str) -> None:
    steps.library("a", _DATA, f"-Wl,{flag}")
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]


def test_a_segment_that_is_writable_and_executable_is_refused(steps: Steps) -> None:
    library = steps.library("a", _DATA)
    index = next(i for i, one in enumerate(Elf(library).segments) if one.flags & elf64.PF_X)
    data = bytearray(library.read_bytes())
    data[64 + 56 * index + 4] |= elf64.PF_W
    library.write_bytes(data)
    steps.refused("open:./liba.so", detail="writable and executable")


def test_a_segment_whose_offset_differs_from_its_address(steps: Steps) -> None:
    library = steps.library("a", _DATA, "-Wl,-z,max-page-size=0x10000")
    loads = [one for one in Elf(library).segments if one.type == elf64.PT_LOAD]
    assert any(load.offset != load.address for load in loads)
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]


def test_a_large_bss(steps: Steps) -> None:
    size = 256 << 20
    source = f"""
    char large[{size}]; int first = 1;
    int call(void) {{
      large[{size} - 1]++;
      return large[0] + large[4095] + large[4096] + large[{size} / 2] + large[{size} - 1] * 10;
    }}
    """
    steps.library("a", source)
    assert steps.both("open:./liba.so", "call:0:call", "call:0:call") == ["opened", "10", "20"]


def test_bss_begins_in_the_middle_of_a_page_of_the_file(steps: Steps) -> None:
    # The file goes on after the segment: what follows there must not show.
    source = """
    char initialised[100] = "x", rest[20000];
    int call(void) { int sum = 0; for (int i = 0; i < 20000; i++) sum |= rest[i]; return sum; }
    """
    library = steps.library("a", source)
    assert library.stat().st_size % 4096
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "0"]


def test_two_libraries_do_not_share_what_they_write(steps: Steps) -> None:
    source = "int counter = 1; int call(void) { return ++counter; }"
    first = steps.library("a", source, soname="")
    steps.library("b", source, soname="")
    before = first.read_bytes()
    said = steps.both(
        "open:./liba.so", "open:./libb.so", "call:0:call", "call:0:call", "call:1:call"
    )
    assert said[2:] == ["2", "3", "2"]
    assert first.read_bytes() == before


# The emulator of RISC-V shows a file's text as if it could not be executed.
@pytest.mark.only_on("x86_64", "aarch64", "loongarch64")
def test_protection(steps: Steps) -> None:
    if not machine().shows_pages:
        pytest.skip("the emulator's /proc/self/maps goes by pages of 4 KiB")
    source = """
    extern int other;
    int *const relro[2] = {&other, &other};
    const int constant = 1; int variable = 2; int zero[5000]; int code(void) { return 1; }
    """
    b = steps.library("b", "int other;")
    steps.library("a", source, "-Wl,-z,now", needs=[b])
    names = ["relro", "constant", "variable", "zero", "code"]
    said = steps.both("open:./liba.so", *(f"page:0:{name}" for name in names))
    found = dict(zip(names, said[1:], strict=True))
    assert found.pop("constant") in ("r--p", "r-xp")  # beside the code with some linkers
    assert found == {
        "relro": "r--p",
        "variable": "rw-p",
        "zero": "rw-p",
        "code": "r-xp",
    }


def test_text_relocations(steps: Steps) -> None:
    source = """
    __asm__(".text\\n.balign 8\\n.globl place\\n.hidden place\\nplace: .8byte outside, place\\n");
    extern int *const place[2] __attribute__((visibility("hidden")));
    int call(void) { return place[1] == (int *)place ? *place[0] : -1; }
    """
    b = steps.library("b", "int outside = 6;")
    library = steps.library("a", source, "-Wl,-z,notext", needs=[b])
    assert Elf(library).has_textrel
    said = steps.both("open:./liba.so", "call:0:call", "page:0:call")
    assert said == ["opened", "6", "r-xp"]


def test_no_page_is_writable_and_executable(steps: Steps) -> None:
    steps.library("a", _DATA)
    source = """
    #include <stdio.h>
    #include <string.h>
    int call(void) {
      char line[4096]; int found = 0;
      FILE *maps = fopen("/proc/self/maps", "r");
      while (fgets(line, sizeof line, maps)) found += strstr(line, "rwx") != NULL;
      fclose(maps);
      return found;
    }
    """
    steps.library("look", source)
    said = steps.both("open:./liba.so", "open:./liblook.so", "call:1:call")
    assert said[-1] == "0"


_WRITTEN = """
#define COUNT (KIB << 7)
extern int first;
static long filler[100] = { 7 };
int first = 1, *pointers[COUNT] = { &first, [COUNT - 1] = &first };
long zeroes[70000];
#ifdef MORE
__attribute__((section(".more"))) int *more[MORE << 7] = { &first, [(MORE << 7) - 1] = &first };
#else
int *more[1] = { &first };
#endif
int call(void) {
  long last = sizeof more / sizeof *more - 1;
  for (long i = 0; i < 70000; i++) if (zeroes[i]++) return -1;
  for (long i = 1; i < COUNT - 1; i++) if (pointers[i]) return -2;
  for (long i = 1; i < last; i++) if (more[i]) return -3;
  return *pointers[0] + *pointers[COUNT - 1] + *more[0] * 10 + *more[last] + (int)filler[0] * 100;
}
"""


@pytest.mark.parametrize(
    "flags",
    [
        ["-DKIB=600"],
        ["-DKIB=2048"],
        ["-DKIB=3000", "-Wl,-z,norelro"],
        ["-DKIB=600", "-Wl,-z,max-page-size=0x10000"],
        ["-DKIB=900", "-Wl,-z,max-page-size=0x200000"],
        ["-DKIB=3000", "-Wl,-z,max-page-size=0x200000"],
        ["-DKIB=900", "-Wl,-z,max-page-size=0x800000"],
        ["-DKIB=300", "-DMORE=300", "-Wl,--section-start=.more=0x150000"],
        ["-DKIB=900", "-DMORE=4", "-Wl,--section-start=.more=0x300000"],
        ["-DKIB=10", "-DMORE=1700", "-Wl,--section-start=.more=0x300000"],
        ["-DKIB=10", "-DMORE=900", "-Wl,-z,max-page-size=0x200000"],
        ["-DKIB=20000"],
    ],
    ids=" ".join,
)
def test_what_is_written_is_copied_into_huge_pages(steps: Steps, flags: list[str]) -> None:
    """Whatever lies where in them: parts below the first, zeroes behind the last, and gaps."""
    steps.library("a", _WRITTEN, *flags)
    assert steps.both("open:./liba.so", "call:0:call")[1] == "713"
