"""What each relocation type writes: the psABIs, tables of relocation types.

Widths, addends and unaligned places; what types are met in real libraries, and how often, is in the
report of the comparison with glibc.
"""

from __future__ import annotations

import pytest

from core.steps import Steps
from differential.built import retype
from support.elf64 import Elf, relocation_numbers
from support.machines import machine

NUMBERS = relocation_numbers(machine().number)
# Types that only what is linked into a program or library may have, and one that there is not.
STRANGE = {
    "x86_64": [4, 9, 99, 200],
    "aarch64": [9, 99, 274, 2000],
    "riscv64": [16, 18, 99, 200],
    "loongarch64": [20, 66, 200, 250],
}[machine().name]

# The place is at an odd address; what `call` returns is expected of the word there.
_SOURCE = """
#include <string.h>
__asm__(".data\\n.balign 8\\n.globl target\\n.type target, @object\\ntarget: .quad 11, 22, 33\\n"
        ".size target, 24\\n.weak nowhere\\n.byte 0\\n.globl place, guard\\n.hidden place, guard\\n"
        "place: %s\\nguard: .byte 0x5a\\n.text\\n");
extern char place[], guard[] __attribute__((visibility("hidden")));
static int number(void) { int there; memcpy(&there, place, sizeof there); return there; }
static long word(void) { long there; memcpy(&there, place, sizeof there); return there; }
int call(void) { return guard[0] != 0x5a ? -1 : (int)%s; }
"""
_SIZES = pytest.mark.only_on("x86_64", reason="the size of a symbol is x86-64's alone")
_LEADS_TO = "*(long *)word()"


@pytest.mark.parametrize(
    ("directive", "code", "type_", "answer"),
    [
        (".quad target + 8", _LEADS_TO, "64", 22),
        (".quad target - 8", "((long *)word())[2]", "64", 22),
        (".quad nowhere", "number()", "64", 0),
        (".quad 1f; .data 1; 1: .quad 44; .data", _LEADS_TO, "RELATIVE", 44),
        pytest.param(".quad target@SIZE", "number()", "SIZE64", 24, marks=_SIZES),
        pytest.param(".long target@SIZE + 3", "number()", "SIZE32", 27, marks=_SIZES),
    ],
    ids=["64", "64 negative addend", "64 weak", "RELATIVE", "SIZE64", "SIZE32"],
)
def test_what_a_type_writes(
    steps: Steps, directive: str, code: str, type_: str, answer: int
) -> None:
    # The byte after it must not change.
    library = steps.library("a", _SOURCE % (directive, code))
    here = [one for one in Elf(library).relocations if one.type == NUMBERS[type_] and one.place % 2]
    assert len(here) == 1
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", str(answer)]


@pytest.mark.parametrize(
    ("type_", "directive", "symbol", "code", "answer"),
    [
        ("PC32", ".quad target + 8", "target", "*(long *)(place + number())", 22),
        ("PC64", ".quad target + 8", "target", "*(long *)(place + word())", 22),
        ("32", ".quad nowhere + 0x7fffffff", "nowhere", "number()", 0x7FFFFFFF),
        ("NONE", ".quad 7; .quad nowhere", "nowhere", "number()", 7),
    ],
    ids=lambda given: given if isinstance(given, str) and given.isalnum() else "",
)
def test_what_a_type_writes_that_linkers_do_not_use(
    steps: Steps, type_: str, directive: str, symbol: str, code: str, answer: int
) -> None:
    """Of these glibc knows NONE, and two of x86-64's."""
    if type_ not in NUMBERS:
        pytest.skip(f"{machine().name} has no such type for a library")
    library = steps.library("a", _SOURCE % (directive, code))
    retype(library, symbol, NUMBERS[type_])
    known = type_ == "NONE" or (machine().name == "x86_64" and type_ != "PC64")
    says = steps.both if known else steps.ours
    assert says("open:./liba.so", "call:0:call") == ["opened", str(answer)]


@pytest.mark.parametrize("type_", STRANGE)
def test_a_type_that_no_library_may_have(steps: Steps, type_: int) -> None:
    library = steps.library("a", _SOURCE % (".quad target", _LEADS_TO))
    retype(library, "target", type_)
    assert steps.both("open:./liba.so") == ["not opened"]
    steps.refused("open:./liba.so", detail="relocation type")


def test_a_value_that_does_not_fit(steps: Steps) -> None:
    # glibc says so and goes on with half an address.
    library = steps.library("a", _SOURCE % (".quad target", _LEADS_TO))
    retype(library, "target", NUMBERS["32"])
    steps.refused("open:./liba.so", detail="overflows")


@pytest.mark.parametrize("count", [1, 2, 63, 64, 127, 1000])
def test_relr(steps: Steps, count: int) -> None:
    source = f"""
    static int target[{count}];
    int *pointers[{count}] = {{ {",".join(f"&target[{i}]" for i in range(count))} }};
    int call(void) {{
      for (int i = 0; i < {count}; i++) if (pointers[i] != &target[i]) return i;
      return -1;
    }}
    """
    library = steps.library("a", source, "-nostartfiles", *machine().packed)
    assert len(Elf(library).relr) >= count
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "-1"]


def test_jump_slots_and_got_entries(steps: Steps) -> None:
    b = steps.library("b", "int value = 3; int next(int x) { return x + value; }")
    source = "extern int value; int next(int); int call(void) { return next(4) * 10 + value; }"
    library = steps.library("a", source, needs=[b])
    types = {one.type for one in Elf(library).relocations}
    assert {NUMBERS["JUMP_SLOT"], NUMBERS["GLOB_DAT"]} <= types
    assert steps.both("open:./liba.so", "call:0:call", "call:0:call")[1:] == ["73", "73"]


def test_lazy_binding_may_be_asked_for(steps: Steps) -> None:
    b = steps.library("b", "int next(int x) { return x + 1; }")
    steps.library(
        "a", "int next(int); int call(void) { return next(4); }", "-Wl,-z,lazy", needs=[b]
    )
    assert steps.both("open:./liba.so:l", "call:0:call", "call:0:call")[1:] == ["5", "5"]


def test_irelative_comes_last(steps: Steps) -> None:
    source = """
    #include <stdlib.h>
    static int yes(void) { return 1; }
    static int no(void) { return 0; }
    static int (*const table[])(void) = {no, yes};
    static void *resolve(void) { return (void *)table[abs(-1)]; }  /* through a JUMP_SLOT */
    static __attribute__((ifunc("resolve"))) int chosen(void);
    int call(void) { return chosen(); }
    """
    library = steps.library("a", source, "-fno-builtin")
    assert NUMBERS["IRELATIVE"] in {one.type for one in Elf(library).relocations}
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]
