"""What each relocation type writes: psABI x86-64, "Relocation Types".

Widths, addends and unaligned places; what types are met in real libraries, and how often, is in the
report of the comparison with glibc.
"""

from __future__ import annotations

import pytest

from core.steps import Steps
from differential.built import retype
from support import elf64
from support.elf64 import Elf

pytestmark = pytest.mark.only_on("x86_64")

# `answer` is what the word at `place` is expected to satisfy.
_ASM = """
.data
.globl target
.type target, @object
target: .quad 11, 22, 33
.size target, 24
.weak nowhere
.byte 0
place: %s
guard: .byte 0x5a
.text
.globl call
.type call, @function
call:
  cmpb $0x5a, guard(%%rip)
  jne 1f
  %s
  ret
1: mov $-1, %%eax
  ret
.section .note.GNU-stack, "", @progbits
"""
_POINTER = "mov place(%rip), %rax; mov (%rax), %eax"


@pytest.mark.parametrize(
    ("directive", "code", "type_", "answer"),
    [
        (".quad target + 8", _POINTER, elf64.R_64, 22),
        (".quad target - 8", "mov place(%rip), %rax; mov 16(%rax), %eax", elf64.R_64, 22),
        (".quad nowhere", "mov place(%rip), %eax", elf64.R_64, 0),
        (".quad 1f; .data 1; 1: .quad 44; .data", _POINTER, elf64.R_RELATIVE, 44),
        (".quad target@SIZE", "mov place(%rip), %eax", elf64.R_SIZE64, 24),
        (".long target@SIZE + 3", "mov place(%rip), %eax", elf64.R_SIZE32, 27),
    ],
    ids=["64", "64 negative addend", "64 weak", "RELATIVE", "SIZE64", "SIZE32"],
)
def test_what_a_type_writes(
    steps: Steps, directive: str, code: str, type_: int, answer: int
) -> None:
    # The place is at an odd address, and the byte after it must not change.
    library = steps.library("a", _ASM % (directive, code), language="asm")
    here = [one for one in Elf(library).relocations if one.type == type_ and one.place % 2]
    assert len(here) == 1
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", str(answer)]


@pytest.mark.parametrize(
    ("directive", "symbol", "code", "type_", "answer"),
    [
        (
            ".quad target + 8",
            "target",
            "movslq place(%rip), %rax; lea place(%rip), %rcx; mov (%rax,%rcx), %eax",
            elf64.R_PC32,
            22,
        ),
        (".quad nowhere + 0x7fffffff", "nowhere", "mov place(%rip), %eax", elf64.R_32, 0x7FFFFFFF),
        (".quad 7; .quad nowhere", "nowhere", "mov place(%rip), %eax", 0, 7),
    ],
    ids=["PC32", "32", "NONE"],
)
def test_what_a_type_writes_that_linkers_do_not_use(
    steps: Steps, directive: str, symbol: str, code: str, type_: int, answer: int
) -> None:
    library = steps.library("a", _ASM % (directive, code), language="asm")
    retype(library, symbol, type_)
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", str(answer)]


@pytest.mark.parametrize("type_", [4, 9, 99, 200])
def test_a_type_that_no_library_may_have(steps: Steps, type_: int) -> None:
    library = steps.library("a", _ASM % (".quad target", _POINTER), language="asm")
    retype(library, "target", type_)
    assert steps.both("open:./liba.so") == ["not opened"]
    steps.refused("open:./liba.so", detail="relocation type")


def test_a_value_that_does_not_fit(steps: Steps) -> None:
    # glibc says so and goes on with half an address.
    library = steps.library("a", _ASM % (".quad target", _POINTER), language="asm")
    retype(library, "target", elf64.R_32)
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
    library = steps.library("a", source, "-Wl,-z,pack-relative-relocs")
    assert len(Elf(library).relr) >= count
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "-1"]


def test_jump_slots_and_got_entries(steps: Steps) -> None:
    b = steps.library("b", "int value = 3; int next(int x) { return x + value; }")
    source = "extern int value; int next(int); int call(void) { return next(4) * 10 + value; }"
    library = steps.library("a", source, needs=[b])
    types = {one.type for one in Elf(library).relocations}
    assert {elf64.R_JUMP_SLOT, elf64.R_GLOB_DAT} <= types
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
    assert elf64.R_IRELATIVE in {one.type for one in Elf(library).relocations}
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]
