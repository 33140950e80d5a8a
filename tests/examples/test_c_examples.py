"""The programs of examples/, built as a user would: with the flags that pkg-config gives."""

from __future__ import annotations

import shlex
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from support.fixtures import REPOSITORY, compile_library, compile_program, need_tool, run

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
    folder = Path(str(files("dlopen") / "_lib" / "pkgconfig"))
    output = run(
        [need_tool("pkg-config"), "--cflags", "--libs", "dlopen"],
        env={"PKG_CONFIG_PATH": str(folder)},
    ).stdout
    return compile_program(
        directory, name, REPOSITORY / "examples" / f"{name}.c", flags=shlex.split(output)
    )


def call(program: Path, library: Path) -> subprocess.CompletedProcess[str]:
    return run([program, library], check=False)


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


def test_two_steps_ended_by_find(tmp_path: Path) -> None:
    library = compile_library(tmp_path, "libexample.so", LIBRARY, flags=["-DREFERS_TO_SYSTEM"])
    done = call(build(tmp_path, "two_steps"), library)
    assert done.returncode == 1
    assert "relocate: from memory: the search for a symbol was ended" in done.stderr


def test_a_missing_library(tmp_path: Path) -> None:
    done = call(build(tmp_path, "replace"), tmp_path / "libnone.so")
    assert done.returncode == 1
    assert "libnone.so: cannot open shared object file" in done.stderr
