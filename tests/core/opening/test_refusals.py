"""What is not loaded, with which message, and that nothing is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import dlopen
from core.steps import Steps
from support import elf64
from support.elf64 import Elf
from support.fixtures import (
    compile_program,
    compiler,
    need_tool,
    run,
)
from support.machines import machine

_ANOTHER = 183 if machine().number != 183 else 62
_CALL = "int value(void); int call(void) { return value(); }"


def change(path: Path, offset: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "content", "detail"),
    [
        (0, b"\x7fELG", "ELF"),
        (4, b"\x01", "ELFCLASS32"),
        (4, b"\x07", "class"),
        (5, b"\x02", "little-endian"),
        (6, b"\x02", "version"),
        (18, _ANOTHER.to_bytes(2, "little"), "another machine"),
        (20, b"\x02", "version"),
        (16, b"\x01\x00", "relocatable"),
        (16, b"\x04\x00", "core"),
    ],
)
def test_headers(steps: Steps, offset: int, content: bytes, detail: str) -> None:
    change(steps.library("a", trace=True), offset, content)
    assert steps.both("open:./liba.so") == ["not opened"]
    steps.refused("open:./liba.so", detail=detail)


@pytest.mark.parametrize(
    ("flags", "detail"),
    [(["-no-pie"], "executable"), (["-pie", "-fPIE"], "executable")],
    ids=["ET_EXEC", "PIE"],
)
def test_executables(steps: Steps, flags: list[str], detail: str) -> None:
    compile_program(steps.directory, "program", "int main(void) { return 0; }", flags=flags)
    assert steps.both("open:./program") == ["not opened"]
    steps.refused("open:./program", detail=detail)


def test_a_relocatable_file(steps: Steps) -> None:
    source = steps.directory / "a.c"
    source.write_text("int value = 1;")
    run([compiler("c"), "-c", source, "-o", steps.directory / "a.o"])
    assert steps.both("open:./a.o") == ["not opened"]
    steps.refused("open:./a.o", detail="relocatable")


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "short"),
        (b"\x7fELF", "short"),
        (b"/* GNU ld script */\nGROUP ( libreal.so )\n", "linker script"),
        (b"INPUT(libreal.so)\n" + b"/* and more */" * 20, "linker script"),
        (b"#!/bin/sh\necho no library\n" * 10, "ELF"),
        (b"!<arch>\n" + bytes(200), "archive"),
        (b"!<arch>\n", "archive"),
        (b"!<thin>\n", "archive"),
        (b"!<html> is a text, too.\n" * 9, "text file"),
        (b"MZ" + bytes(200), "ELF"),
    ],
    ids=[
        "empty",
        "magic only",
        "GROUP",
        "INPUT",
        "shell script",
        "archive",
        "empty archive",
        "thin archive",
        "text like an archive",
        "PE",
    ],
)
def test_files_that_are_not_elf(steps: Steps, content: bytes, detail: str) -> None:
    (steps.directory / "liba.so").write_bytes(content)
    assert steps.both("open:./liba.so") == ["not opened"]
    steps.refused("open:./liba.so", detail=detail)


def test_a_folder(steps: Steps) -> None:
    (steps.directory / "liba.so").mkdir()
    assert steps.both("open:./liba.so") == ["not opened"]
    steps.refused("open:./liba.so", detail="directory")


@pytest.mark.parametrize("name", ["./libnone.so", "libnone.so"])
def test_a_file_that_is_not_there(steps: Steps, name: str) -> None:
    assert steps.both(f"open:{name}") == ["not opened"]
    steps.refused(f"open:{name}", detail="No such file")


def test_an_executable_stack(steps: Steps) -> None:
    # glibc before 2.41 would make the stack executable instead.
    steps.library("a", "", "-Wl,-z,execstack", trace=True)
    steps.refused("open:./liba.so", detail="executable stack")
    steps.refused("open:./liba.so", detail="patchelf --clear-execstack")


def test_an_executable_stack_of_a_dependency(steps: Steps) -> None:
    b = steps.library("b", "", "-Wl,-z,execstack", trace=True)
    steps.library("a", trace=True, needs=[b])
    message = steps.run(str(steps.libdlopen), "open:./liba.so", "mapped:liba.so")
    assert message.stdout.splitlines() == ["not opened", "0"]
    assert "libb.so: cannot enable executable stack" in message.stderr


_LOOK = r"""
#include <stdio.h>
#include <string.h>
/* The stacks of the main thread and of others are among what can be written. */
int executable(void) {
  char line[4096];
  int found = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, maps)) {
    const char *permissions = strchr(line, ' ') + 1;
    found += permissions[1] == 'w' && permissions[2] == 'x';
  }
  fclose(maps);
  return found;
}
"""


class TestNoWordOnTheStack:
    """A file without PT_GNU_STACK does not ask for an executable stack, and none is made."""

    def loads(self, steps: Steps, library: Path) -> None:
        assert Elf(library).segment(elf64.PT_GNU_STACK) is None
        look = steps.library("look", _LOOK)
        before, *said = steps.ours(
            *("worker", f"open:{look}", "call:0:executable"),
            *(f"open:{library}", "call:1:answer", "call:0:executable", "close:1"),
            *(f"bytes:{library}", "call:2:answer", "call:0:executable", "close:2", "join"),
        )[1:]
        there = ["opened", "42", before, "closed"]
        assert said == [*there, *there]

    def test_header_taken_away(self, steps: Steps) -> None:
        library = steps.library("a", "int answer(void) { return 42; }")
        elf = Elf(library)
        index = next(i for i, one in enumerate(elf.segments) if one.type == elf64.PT_GNU_STACK)
        change(library, 64 + 56 * index, bytes(4))  # PT_NULL
        del elf
        self.loads(steps, library)

    def test_assembler_sources_alone(self, steps: Steps) -> None:
        source = """
#include "machines.h"
.globl answer
.type answer, @function
answer: RETURN_NUMBER(42)
.size answer, . - answer
"""
        self.loads(steps, steps.library("a", source, "-nostdlib", language="asm"))

    @pytest.mark.in_process
    def test_tinycc(self, steps: Steps) -> None:
        library, source = steps.directory / "liba.so", steps.directory / "a.c"
        source.write_text("int answer(void) { return 42; }")
        run([need_tool("tcc"), "-shared", "-o", library, source])
        self.loads(steps, library)

    @pytest.mark.only_on(*("x86_64", "aarch64", "riscv64"), reason="lld 14 does not know LoongArch")
    def test_lld(self, steps: Steps) -> None:
        need_tool("ld.lld")
        source = "int answer(void) { return 42; }"
        self.loads(steps, steps.library("a", source, "-fuse-ld=lld", "-Wl,-z,nognustack"))


def test_noopen(steps: Steps) -> None:
    steps.library("a", "", "-Wl,-z,nodlopen", trace=True)
    assert steps.both("open:./liba.so") == ["not opened"]
    steps.refused("open:./liba.so", detail="DF_1_NOOPEN")


def test_noopen_of_a_dependency(steps: Steps) -> None:
    b = steps.library("b", "", "-Wl,-z,nodlopen", trace=True)
    steps.library("a", trace=True, needs=[b])
    assert steps.both("open:./liba.so") == ["not opened"]


class TestNothingIsLeft:
    """An open that fails late leaves no mapping and has run no constructor."""

    def test_of_a_missing_dependency(self, steps: Steps) -> None:
        gone = steps.library("gone", trace=True)
        b = steps.library("b", trace=True, needs=[gone])
        d = steps.library("d", trace=True)
        steps.library("a", trace=True, needs=[d, b])
        gone.unlink()
        there = f"mapped:{steps.directory}/lib"
        assert steps.both("open:./liba.so", there) == ["not opened", "0"]
        done = steps.run(str(steps.libdlopen), "open:./liba.so")
        assert "libgone.so" in done.stderr
        assert "libb.so" in done.stderr

    def test_of_an_undefined_symbol(self, steps: Steps) -> None:
        b = steps.library("b", trace=True)
        steps.library("a", _CALL, trace=True, needs=[b])
        assert steps.both("open:./liba.so", f"mapped:{steps.directory}/lib") == ["not opened", "0"]
        message = steps.run(str(steps.libdlopen), "open:./liba.so").stderr
        assert "value" in message
        assert "liba.so" in message

    def test_of_an_undefined_symbol_in_a_dependency(self, steps: Steps) -> None:
        b = steps.library("b", _CALL, trace=True)
        steps.library("a", trace=True, needs=[b])
        assert steps.both("open:./liba.so", f"mapped:{steps.directory}/lib") == ["not opened", "0"]

    def test_and_what_was_loaded_before_stays(self, steps: Steps) -> None:
        b = steps.library("b", "int other(void) { return 4; }", trace=True)
        steps.library("a", _CALL, trace=True, needs=[b])
        assert steps.both("open:./libb.so", "open:./liba.so", "call:0:other", "close:0") == [
            *("+b", "opened", "not opened", "4", "-b", "closed"),
        ]

    def test_and_it_can_be_opened_once_the_reason_is_gone(self, steps: Steps) -> None:
        steps.library("a", _CALL, trace=True)
        steps.library("g", "int value(void) { return 3; }", trace=True)
        assert steps.both("open:./liba.so", "open:./libg.so:g", "open:./liba.so", "call:2:call")[
            -3:-2
        ] == ["3"]

    def test_of_a_malformed_dependency(self, steps: Steps) -> None:
        b = steps.library("b", trace=True)
        steps.library("a", trace=True, needs=[b])
        b.write_text("no library\n" * 100)
        assert steps.both("open:./liba.so", f"mapped:{steps.directory}/lib") == ["not opened", "0"]


def test_a_handle_that_is_none(steps: Steps) -> None:
    steps.library("a")
    done = steps.run(str(steps.libdlopen), "open:./liba.so", "close:0", "close:0", "close:5")
    assert done.stdout.splitlines() == ["opened", "closed", "not closed", "not closed"]


_NAMES = {
    "a symbol": ("nowhere", "int nowhere(void); int call(void) { return nowhere(); }"),
    "a library": ("libgone.so", "int call(void) { return 1; }"),
    "a version": ("VERS_2.0", "int value(void); int call(void) { return value(); }"),
}


def with_control_characters(steps: Steps, kind: str) -> Path:
    """A library that lacks a name with some."""
    name, source = _NAMES[kind]
    needs = []
    if kind == "a library":
        needs = [steps.library("gone")]
    elif kind == "a version":
        script = steps.directory / "map"
        script.write_text("VERS_2.0 { global: value; local: *; };")
        flag = f"-Wl,--version-script={script}"
        needs = [steps.library("b", "int value(void) { return 1; }", flag)]
    a = steps.library("a", source, needs=needs)
    content = a.read_bytes()
    assert name.encode() + b"\0" in content
    a.write_bytes(content.replace(name.encode(), name[:3].encode() + b"\n\x1b" + name[5:].encode()))
    return a


@pytest.mark.parametrize("kind", _NAMES)
def test_a_name_from_a_file_does_not_break_the_line(steps: Steps, kind: str) -> None:
    """Control characters of names are shown as the log shows them."""
    name, _ = _NAMES[kind]
    with_control_characters(steps, kind)
    done = steps.run(str(steps.libdlopen), "open:./liba.so")
    assert done.stdout == "not opened\n"
    assert done.stderr.count("\n") == 1
    assert f"{name[:3]}??{name[5:]}" in done.stderr


@pytest.mark.in_process
@pytest.mark.parametrize("kind", _NAMES)
def test_an_exception_has_the_name_as_it_is(steps: Steps, kind: str) -> None:
    name, _ = _NAMES[kind]
    a = with_control_characters(steps, kind)
    with pytest.raises(dlopen.LoadError if kind != "a symbol" else dlopen.SymbolError) as caught:
        dlopen.Library(a)
    assert f"{name[:3]}??{name[5:]}" in str(caught.value)
    # The attributes have it.
    assert f"{name[:3]}\n\x1b{name[5:]}" in vars(caught.value).values()


def test_nor_does_one_of_a_call_that_finds_nothing(steps: Steps) -> None:
    """It ends the process with libc's words; libc shows the name as it is."""
    name = "nowhere" + "_0" * 40
    source = f"int {name}(void); int call(void) {{ return {name}(); }}"
    a = steps.library("a", source, "-Wl,-z,lazy")
    broken = name.replace("_", "\n").replace("0\n0", "0\x1b0", 10)
    a.write_bytes(a.read_bytes().replace(name.encode(), broken.encode()))
    said = {}
    for loader in ("glibc", str(steps.libdlopen)):
        done = steps.run(loader, "open:./liba.so:l", "call:0:call", check=False)
        assert (done.returncode, done.stdout) == (127, "opened\n")
        said[loader] = done.stderr
    shown = "".join("?" if ord(one) < 32 else one for one in said["glibc"][:-1])
    assert shown.count("?") == 40
    assert said[str(steps.libdlopen)] == shown + "\n"
