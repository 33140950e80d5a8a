"""Which definition a reference gets.

gABI, "Symbol Table" and "Shared Object Dependencies"; dlopen(3), dlsym(3).
"""

from __future__ import annotations

import pytest

from core.steps import Steps

_VALUE = "int value(void) { return %d; }"
_CALL = "int value(void); int call(void) { return value(); }"


def test_a_weak_reference_to_nothing_is_zero(steps: Steps) -> None:
    source = """
    __attribute__((weak)) extern int nothing, nothing_called(void);
    int call(void) { return !&nothing && !nothing_called; }
    """
    steps.library("a", source)
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]


def test_a_weak_reference_finds_a_definition(steps: Steps) -> None:
    b = steps.library("b", _VALUE % 3)
    source = "__attribute__((weak)) int value(void); int call(void) { return value(); }"
    steps.library("a", source, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "3"]


def test_the_first_definition_counts_weak_or_not(steps: Steps) -> None:
    b = steps.library("b", "__attribute__((weak)) " + _VALUE % 1)
    c = steps.library("c", _VALUE % 2)
    steps.library("a", _CALL, needs=[b, c])
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]


def test_a_program_that_stands_before_the_loader_s_tls_function(steps: Steps) -> None:
    """As the runtimes of sanitizers do: they know the host's module ids only."""
    source = """
    void *__tls_get_addr(void *index)
    {
      static void *(*next)(void *);
      if (!next) next = (void *(*)(void *))dlsym(RTLD_NEXT, "__tls_get_addr");
      return next(index);
    }
    """
    steps.make_program(source, "-rdynamic")
    steps.library("a", "__thread int kept = 42; int answer(void) { return kept; }")
    assert steps.both("open:./liba.so:n", "call:0:answer") == ["opened", "42"]


def test_a_dependency_is_interposed_by_what_needs_it(steps: Steps) -> None:
    b = steps.library("b", _VALUE % 1 + "int call(void) { return value(); }", "-fno-inline")
    steps.library("a", _VALUE % 2, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "2"]


@pytest.mark.parametrize("how", ["-Bsymbolic", "protected", "hidden"])
def test_what_keeps_a_library_from_being_interposed(steps: Steps, how: str) -> None:
    visibility = "" if how == "-Bsymbolic" else f'__attribute__((visibility("{how}"))) '
    flags = ["-Wl,-Bsymbolic"] if how == "-Bsymbolic" else []
    source = (
        visibility
        + _VALUE % 1
        + "int (*pointer)(void) = value; int call(void) { return pointer(); }"
    )
    b = steps.library("b", source, "-fno-inline", *flags)
    steps.library("a", _VALUE % 2, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "1"]


def test_a_hidden_symbol_is_not_found(steps: Steps) -> None:
    b = steps.library("b", '__attribute__((visibility("hidden"))) ' + _VALUE % 1)
    source = "__attribute__((weak)) int value(void); int call(void) { return !value; }"
    steps.library("a", source, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call", "find:0:value") == [
        *("opened", "1", "not found"),
    ]


def test_a_protected_symbol_is_found_from_outside(steps: Steps) -> None:
    b = steps.library("b", '__attribute__((visibility("protected"))) ' + _VALUE % 1)
    steps.library("a", _CALL, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call", "call:0:value") == ["opened", "1", "1"]


def test_dlsym_is_breadth_first_over_the_dependencies(steps: Steps) -> None:
    d = steps.library("d", _VALUE % 4)
    b = steps.library("b", needs=[d])
    c = steps.library("c", _VALUE % 3)
    steps.library("a", needs=[b, c])
    assert steps.both("open:./liba.so", "call:0:value") == ["opened", "3"]


def test_dlsym_does_not_look_in_other_libraries(steps: Steps) -> None:
    steps.library("a")
    steps.library("b", _VALUE % 1)
    assert steps.both("open:./libb.so:g", "open:./liba.so", "find:1:value")[-1] == "not found"


def test_dlsym_of_the_program_sees_the_global_scope(steps: Steps) -> None:
    steps.library("a", _VALUE % 1)
    steps.library("b", "int other(void) { return 2; }")
    assert steps.both(
        "open::n",
        "open:./liba.so:g",
        "open:./libb.so",
        "find:0:value",
        "find:0:other",
        "find:0:exit",
    )[-3:] == ["found", "not found", "found"]


def test_local_is_not_seen_by_later_libraries(steps: Steps) -> None:
    steps.library("b", _VALUE % 1)
    steps.library("a", _CALL)
    assert steps.both("open:./libb.so", "open:./liba.so") == ["opened", "not opened"]


def test_global_is_seen_by_later_libraries_with_its_dependencies(steps: Steps) -> None:
    c = steps.library("c", _VALUE % 1)
    steps.library("b", needs=[c])
    steps.library("a", _CALL)
    assert steps.both("open:./libb.so:g", "open:./liba.so", "call:1:call")[-1] == "1"


@pytest.mark.parametrize("mode", ["g", "og"])
def test_local_becomes_global_when_it_is_opened_again_so(steps: Steps, mode: str) -> None:
    steps.library("b", _VALUE % 1)
    steps.library("a", _CALL)
    said = steps.both("open:./libb.so", f"open:./libb.so:{mode}", "open:./liba.so", "call:2:call")
    assert said[-1] == "1"


def test_global_ends_with_the_library(steps: Steps) -> None:
    steps.library("b", _VALUE % 1)
    steps.library("a", _CALL)
    assert steps.both("open:./libb.so:g", "close:0", "open:./liba.so")[-1] == "not opened"


def test_the_flag_global_of_a_file_means_nothing(steps: Steps) -> None:
    # glibc knows DF_1_GLOBAL by name only (DT_1_SUPPORTED_MASK in its include/link.h).
    steps.library("b", _VALUE % 1, "-Wl,-z,global")
    steps.library("a", _CALL)
    assert steps.both("open:./libb.so", "open:./liba.so") == ["opened", "not opened"]


def test_the_global_scope_comes_before_the_librarys_own(steps: Steps) -> None:
    steps.library("g", _VALUE % 1)
    steps.library("a", _VALUE % 2 + "int call(void) { return value(); }", "-fno-inline")
    assert steps.both("open:./libg.so:g", "open:./liba.so", "call:1:call", "call:1:value")[-2:] == [
        *("1", "2"),
    ]


def test_deepbind_puts_the_librarys_own_scope_first(steps: Steps) -> None:
    b = steps.library("b", "int other(void) { return 3; }")
    steps.library("g", _VALUE % 1 + "int other(void) { return 4; }")
    own = _VALUE % 2 + "int other(void); int call(void) { return value() * 10 + other(); }"
    steps.library("a", own, "-fno-inline", needs=[b])
    assert steps.both("open:./libg.so:g", "open:./liba.so:nd", "call:1:call")[-1] == "23"


def test_noload(steps: Steps) -> None:
    steps.library("a", trace=True)
    assert steps.both("open:./liba.so:no", "open:./liba.so", "open:./liba.so:no", "close:1") == [
        *("not opened", "+a", "opened", "opened", "closed", "-a"),
    ]


def test_the_programs_definition_comes_first(steps: Steps) -> None:
    steps.make_program(_VALUE % 9, "-rdynamic")
    steps.library("a", _VALUE % 2 + "int call(void) { return value(); }", "-fno-inline")
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "9"]


def test_a_library_of_the_program_is_shared(steps: Steps) -> None:
    b = steps.library("b", "int counter; int next(void) { return ++counter; }")
    steps.make_program("int next(void); int (*keep)(void) = next;", needs=[b])
    steps.library("a", "int next(void); int call(void) { return next(); }", needs=[b])
    said = steps.both(
        "open:./liba.so",
        "open:./libb.so",
        "call:0:call",
        "call:1:next",
        "mapped:/libb.so",
        "linkmap:/libb.so",
    )
    assert said[2:4] == ["1", "2"]
    assert said[-1] == "1"


def test_data_that_the_program_copied_is_the_programs(steps: Steps) -> None:
    # R_X86_64_COPY: the one object is in the program, initialised from the library.
    b = steps.library("b", "int shared = 5; int read_shared(void) { return shared; }")
    steps.make_program(
        "extern int shared; int read_shared(void);"
        "__attribute__((constructor)) static void set(void) { shared += read_shared(); }",
        "-no-pie",
        "-fno-pie",
        needs=[b],
    )
    steps.library(
        "a", "extern int shared; int call(void) { return shared; } int *where = &shared;", needs=[b]
    )
    assert steps.both("open:./liba.so", "call:0:call", "value:0:shared")[1] == "10"


def test_a_name_of_libc_that_the_library_defines_too(steps: Steps) -> None:
    # libc is in the global scope, which comes first.
    steps.library(
        "a",
        "int abs(int x) { return 100; } int call(void) { return abs(-3); }",
        "-fno-builtin",
        "-fno-inline",
    )
    assert steps.both("open:./liba.so", "call:0:call")[-1] == "3"


def test_a_function_has_one_address(steps: Steps) -> None:
    b = steps.library(
        "b", _VALUE % 1 + "int (*of_b)(void) = value; int (*get_b(void))(void) { return of_b; }"
    )
    source = "int value(void), (*get_b(void))(void); int call(void) { return get_b() == value; }"
    steps.library("a", source, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call")[-1] == "1"


def test_an_ifunc_is_called_through_its_resolver(steps: Steps) -> None:
    source = """
    static int chosen_one(void) { return 7; }
    static int (*const table[1])(void) = {chosen_one};
    static void *resolve(void) { return (void *)table[0]; }
    __attribute__((ifunc("resolve"))) int value(void);
    static __attribute__((ifunc("resolve"))) int inner(void);
    int (*pointer)(void) = value;
    int call(void) { return value() + 10 * pointer() + 100 * inner(); }
    """
    b = steps.library("b", source)
    steps.library("a", "int value(void); int outer(void) { return value(); }", needs=[b])
    assert steps.both("open:./liba.so", "call:0:call", "call:0:outer", "call:0:value")[1:] == [
        *("777", "7", "7"),
    ]


def test_a_resolver_may_use_what_another_library_relocates(steps: Steps) -> None:
    b = steps.library("b", "static int one(void) { return 8; } int (*table[])(void) = {one};")
    source = """
    extern int (*table[])(void);
    static void *resolve(void) { return (void *)table[0]; }
    __attribute__((ifunc("resolve"))) int value(void);
    int call(void) { return value(); }
    """
    steps.library("a", source, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call")[-1] == "8"


def test_a_symbol_without_type_can_be_called(steps: Steps) -> None:
    source = """
    #include "machines.h"
    .globl untyped
    untyped: RETURN_NUMBER(3)
    .section .note.GNU-stack, "", @progbits
    """
    b = steps.library("b", source, language="asm")
    steps.library("a", "int untyped(void); int call(void) { return untyped(); }", needs=[b])
    assert steps.both("open:./liba.so", "call:0:call", "call:0:untyped")[1:] == ["3", "3"]


def test_an_absolute_symbol_is_not_moved(steps: Steps) -> None:
    source = """
    .globl fixed
    fixed = 0x1234
    .section .note.GNU-stack, "", @progbits
    """
    b = steps.library("b", source, language="asm")
    steps.library(
        "a", "extern char fixed; char *p = &fixed; int call(void) { return (long)p; }", needs=[b]
    )
    assert steps.both("open:./liba.so", "call:0:call")[-1] == str(0x1234)


@pytest.mark.parametrize("style", ["sysv", "gnu", "both"])
def test_hash_styles(steps: Steps, style: str) -> None:
    many = "".join(f"int name{i}(void) {{ return {i}; }}" for i in range(300))
    steps.library("a", many, f"-Wl,--hash-style={style}")
    wanted = [0, 1, 37, 150, 299]
    said = steps.both("open:./liba.so", *(f"call:0:name{i}" for i in wanted), "find:0:name300")
    assert said[1:] == [*map(str, wanted), "not found"]
