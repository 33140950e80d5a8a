"""The programs of examples/, built as a user would: with the flags that pkg-config gives."""

from __future__ import annotations

import shlex
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from support.fixtures import (
    REPOSITORY,
    compile_library,
    compile_program,
    libdlopen,
    need_tool,
    run,
)
from support.machines import machine

LIBRARY = """
#include <stdio.h>
#include <stdlib.h>
#ifdef REFERS_TO_SYSTEM
int run(void) { return system("false"); }
#endif
int work(void) {
  void *blocks[] = {malloc(10), malloc(20), malloc(30)};
  for (int i = 0; i < 3; i++) free(blocks[i]);
  return puts("hello");
}
"""


def build(directory: Path, name: str) -> Path:
    source = REPOSITORY / "examples" / f"{name}.c"
    if machine().is_foreign:  # for which nothing is installed
        library = libdlopen()
        return compile_program(
            directory, name, source, libraries=[library], rpath=str(library.parent)
        )
    folder = Path(str(files("dlopen") / "_lib" / "pkgconfig"))
    output = run(
        [need_tool("pkg-config"), "--cflags", "--libs", "dlopen"],
        env={"PKG_CONFIG_PATH": str(folder)},
    ).stdout
    return compile_program(directory, name, source, flags=shlex.split(output))


def call(program: Path, *libraries: Path) -> subprocess.CompletedProcess[str]:
    return run([program, *libraries], check=False)


@pytest.mark.parametrize("binding", ["lazy", "now"])
def test_replace(tmp_path: Path, binding: str) -> None:
    flags = ["-fno-builtin", f"-Wl,-z,{binding}"]
    library = compile_library(tmp_path, "libexample.so", LIBRARY, flags=flags)
    done = call(build(tmp_path, "replace"), library)
    # puts returns how much it wrote, as far as glibc goes: "hello" and a new line.
    assert done.stdout == "hello\nwork() = 6\nmalloc was called 3 times\n", done


@pytest.mark.parametrize("binding", ["lazy", "now"])
def test_two_steps(tmp_path: Path, binding: str) -> None:
    flags = ["-fno-builtin", f"-Wl,-z,{binding}"]
    library = compile_library(tmp_path, "libexample.so", LIBRARY, flags=flags)
    done = call(build(tmp_path, "two_steps"), library)
    assert done.stdout.splitlines() == [
        "it needs libc.so.6",
        "work() = 5",
        "we were asked: yes",
    ], done


@pytest.mark.parametrize("binding", ["lazy", "now"])
def test_patch(tmp_path: Path, binding: str) -> None:
    flags = ["-fno-builtin", f"-Wl,-z,{binding}"]
    library = compile_library(tmp_path, "libexample.so", LIBRARY, flags=flags)
    done = call(build(tmp_path, "patch"), library)
    assert done.stdout.splitlines() == [
        "hello",
        "malloc: 1 place, called 3 times",
        "hello",
        "afterwards: called 3 times",
    ], done


@pytest.mark.parametrize("binding", ["lazy", "now"])
def test_swap(tmp_path: Path, binding: str) -> None:
    source = "int number(void) { return %d; }"
    first = compile_library(tmp_path, "libnumber.so", source % 1)
    second = compile_library(tmp_path, "libsecond.so", source % 2, soname="libnumber.so")
    source = (
        "int number(void); int (*pointer)(void) = number;"
        "int work(void) { return number() * 10 + pointer(); }"
    )
    flags = [f"-Wl,-z,{binding}"]
    compile_library(tmp_path, "libuser.so", source, libraries=[first], flags=flags)
    done = run([build(tmp_path, "swap"), "./libnumber.so", second], cwd=tmp_path)
    assert done.stdout.splitlines() == ["before: 11", "bound anew: 2", "after: 22"], done
    lacking = compile_library(tmp_path, "liblacking.so", "int other(void) { return 3; }")
    done = run([build(tmp_path, "swap"), "./libnumber.so", lacking], cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "undefined symbol: number" in done.stderr
    assert "./libuser.so" in done.stderr


def test_two_steps_ended_by_find(tmp_path: Path) -> None:
    library = compile_library(tmp_path, "libexample.so", LIBRARY, flags=["-DREFERS_TO_SYSTEM"])
    done = call(build(tmp_path, "two_steps"), library)
    assert done.returncode == 1
    assert "relocate: from memory: the search for a symbol was ended" in done.stderr


def two_libraries(directory: Path) -> tuple[Path, Path]:
    needed = compile_library(directory, "libneeded.so", "int six(void) { return 6; }")
    source = "int six(void); int work(void) { return 7 * six(); }"
    rpath = "$ORIGIN/../in"
    library = compile_library(directory, "libmine.so", source, libraries=[needed], rpath=rpath)
    return library, needed


def test_files(tmp_path: Path) -> None:
    done = call(build(tmp_path, "files"), *two_libraries(tmp_path / "elsewhere"))
    assert done.stdout.splitlines() == [
        "asked for libmine.so",
        "asked for ../in/libneeded.so",
        "asked for libneeded.so",
        "work() = 42",
    ], done


def test_files_that_are_not_there(tmp_path: Path) -> None:
    program = build(tmp_path, "files")
    library, needed = two_libraries(tmp_path / "elsewhere")
    done = call(program, library)
    assert done.returncode == 1
    assert done.stderr.startswith("libneeded.so: cannot open shared object file: No such file")
    assert "(needed by libmine.so)" in done.stderr
    # And one that is promised, but cannot be read: that is an end.
    needed.unlink()
    done = call(program, library, needed)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "asked for libneeded.so"
    assert done.stderr.startswith("libneeded.so: the search among the caller's files was ended")


def test_a_missing_library(tmp_path: Path) -> None:
    done = call(build(tmp_path, "replace"), tmp_path / "libnone.so")
    assert done.returncode == 1
    assert "libnone.so: cannot open shared object file" in done.stderr
