"""/etc/ld.so.cache, which another process may replace while this one runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, need_tool, run

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


@pytest.fixture
def caches(tmp_path: Path) -> list[Path]:
    """Two that name different files for one soname, and one without it."""
    places = [Path("/sbin/ldconfig"), Path("/usr/sbin/ldconfig")]
    ldconfig = next((path for path in places if path.exists()), None)
    made = []
    for number in (1, 2, 0):
        folder = tmp_path / str(number)
        folder.mkdir()
        if number:
            source = f"int number(void) {{ return {number}; }}"
            compile_library(folder, "libcached.so", source, flags=["-Wl,-soname,libcached.so"])
        settings = folder / "ld.so.conf"
        settings.write_text(f"{folder}\n")
        made.append(folder / "cache")
        run([ldconfig or need_tool("ldconfig"), "-X", "-f", settings, "-C", made[-1]])
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
