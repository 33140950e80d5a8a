"""/etc/ld.so.cache, which another process may replace while this one runs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, need_tool, run
from support.machines import machine

# In a mount namespace of its own, where each argument is the cache once.
_PROGRAM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
int main(int argc, char **argv) {
  if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) return 77;
  for (int i = 1; i < argc; i++) {
    if (mount(argv[i], "/etc/ld.so.cache", NULL, MS_BIND, NULL)) return 77;
    for (int round = 0; round < 2; round++) {
      void *handle = dlopen("libcached.so", RTLD_NOW);
      int (*number)(void) = handle ? (int (*)(void))dlsym(handle, "number") : NULL;
      printf("%d\\n", number ? number() : 0);
      if (handle) dlclose(handle);
    }
  }
}
"""


# <dl-cache.h> of glibc: the flags of its machines' libraries.
_FLAGS = {"aarch64": 0x0A03, "riscv64": 0x1003, "loongarch64": 0x1203}


def write_cache(path: Path, library: Path) -> None:
    """As ldconfig(8) does, which knows this system's machine only."""
    name, start = library.name.encode() + b"\0", 48 + 24
    strings = name + bytes(library) + b"\0"
    head = struct.pack("<20sII20x", b"glibc-ld.so.cache1.1", 1, len(strings))
    entry = struct.pack("<iIIIQ", _FLAGS[machine().name], start, start + len(name), 0, 0)
    path.write_bytes(head + entry + strings)


def make_cache(path: Path, settings: Path, library: Path) -> None:
    if machine().is_foreign:
        write_cache(path, library)
        return
    places = [Path("/sbin/ldconfig"), Path("/usr/sbin/ldconfig")]
    ldconfig = next((path for path in places if path.exists()), None)
    run([ldconfig or need_tool("ldconfig"), "-X", "-f", settings, "-C", path])


@pytest.fixture
def caches(tmp_path: Path) -> list[Path]:
    """Two that name different files for one soname, and one without it."""
    made = []
    for number in (1, 2, 0):
        folder = tmp_path / str(number)
        folder.mkdir()
        library = folder / "libother.so"
        if number:
            source = f"int number(void) {{ return {number}; }}"
            library = compile_library(folder, "libcached.so", source)
        settings = folder / "ld.so.conf"
        settings.write_text(f"{folder}\n")
        made.append(folder / "cache")
        make_cache(made[-1], settings, library)
    return made


def test_a_cache_that_is_replaced_is_read_anew(
    tmp_path: Path, libdlopen: Path, caches: list[Path]
) -> None:
    program = compile_program(tmp_path, "replaces", _PROGRAM)
    first, second, without = caches
    order = [first, second, first, without, second]
    seen = []
    for environment in ({}, {"LD_PRELOAD": str(libdlopen)}):
        done = run([program, *order], env=environment, check=False)
        if done.returncode == 77:
            pytest.skip("this user may not mount: root may, and who may make namespaces")
        seen.append(done.stdout.split())
    assert seen[0] == seen[1] == ["1", "1", "2", "2", "1", "1", "0", "0", "2", "2"]
