"""The environment is that of the start (ld.so(8)), whatever a program has made of it since."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, run
from support.machines import machine

# What a program does before it opens libx.so: named by its first argument.
PROGRAM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
extern char **environ;
/* As setproctitle of BSD, nginx and postgres do: the environment moves, and the title goes over
   all that the kernel put there. */
static void title(char **argv, int with) {
  char *end = argv[0];
  for (char **one = argv; *one; one++) if (*one >= end) end = *one + strlen(*one) + 1;
  for (char **one = environ; *one; one++) if (*one == end) end = *one + strlen(*one) + 1;
  int count = 0;
  while (environ[count]) count++;
  char **copy = calloc(count + 1, sizeof *copy);
  for (int i = 0; i < count; i++) copy[i] = strdup(environ[i]);
  environ = copy;
  memset(argv[0], with, end - argv[0] - 1);
  memcpy(argv[0], "worker: idle", sizeof "worker: idle");
}
#ifdef LATE
#include "dlopen.h"
static void open_library(char *linker, const char *name) {
  void *handle = dlopen(linker, RTLD_NOW);
  if (!handle) { puts(dlerror()); exit(3); }
  __typeof__(DLOPEN_open) *open = (__typeof__(open))dlsym(handle, "DLOPEN_open");
  struct DLOPEN_request request = {.size = sizeof request, .name = name, .mode = RTLD_LAZY};
  DLOPEN_image *image;
  struct DLOPEN_error error;
  if (open(&request, &image, &error)) puts(error.detail);
  else puts("opened");
}
#else
static void open_library(char *linker, const char *name) {
  (void)linker;
  puts(dlopen(name, RTLD_LAZY) ? "opened" : dlerror());
}
#endif
int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  char *linker = argc > 2 ? strdup(argv[2]) : NULL;
  if (!strcmp(what, "title")) title(argv, 0);
  if (!strcmp(what, "spaces")) title(argv, ' ');
  if (!strcmp(what, "change")) {
    setenv("LD_LIBRARY_PATH", "/nowhere", 1);
    setenv("LD_BIND_NOW", "1", 1);
  }
  if (!strcmp(what, "put")) putenv(strdup("LD_LIBRARY_PATH=/nowhere"));
  if (!strcmp(what, "unset")) unsetenv("LD_LIBRARY_PATH"), unsetenv("LD_BIND_NOW");
  if (!strcmp(what, "clear")) clearenv();
  open_library(linker, "libx.so");
  return 0;
}
"""
DEEDS = ["", "title", "spaces", "change", "put", "unset", "clear"]
# Opens lazily, and not with LD_BIND_NOW.
LIBRARY = "int nowhere(void); int call(void) { return nowhere(); }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where libx.so is, and nothing else."""
    compile_library(tmp_path / "libraries", "libx.so", LIBRARY)
    return tmp_path / "libraries"


@pytest.fixture
def both(preloads: Callable[..., dict[str, str]]) -> Callable[..., str]:
    """What a command says, which must be the same under libc's loader and the preload."""

    def compare(*command: str | Path, paths: str = "", **more: str) -> str:
        env = preloads()
        path = f"{env['LD_LIBRARY_PATH']}:{paths}" if paths else env["LD_LIBRARY_PATH"]
        env |= {"LD_LIBRARY_PATH": path, **more}
        ours = run(command, env=env)
        del env["LD_PRELOAD"]
        libcs = run(command, env=env)
        assert ours.stdout == libcs.stdout, f"{libcs.stdout} under libc, {ours.stdout} here"
        return libcs.stdout

    return compare


@pytest.mark.parametrize("now", ["", "1"], ids=["lazy", "LD_BIND_NOW"])
@pytest.mark.parametrize("deed", DEEDS)
def test_what_the_program_does_to_it(
    tmp_path: Path, folder: Path, both: Callable[..., str], deed: str, now: str
) -> None:
    program = compile_program(tmp_path, "program", PROGRAM)
    said = both(program, deed, paths=str(folder), LD_BIND_NOW=now)
    assert said == f"{folder}/libx.so: undefined symbol: nowhere\n" if now else "opened\n"


def test_a_path_of_many_folders(tmp_path: Path, folder: Path, both: Callable[..., str]) -> None:
    program = compile_program(tmp_path, "program", PROGRAM)
    many = ":".join([*(f"/nowhere/{number:0200}" for number in range(100)), str(folder)])
    assert both(program, "title", paths=many) == "opened\n"


@pytest.mark.parametrize("deed", ["change", "put", "unset", "clear"])
def test_what_a_constructor_does_to_it(
    tmp_path: Path, folder: Path, both: Callable[..., str], deed: str
) -> None:
    """Of a library that the program needs: before our own constructor runs."""
    source = PROGRAM.replace(
        "int main(int argc", "__attribute__((constructor)) static void start(int argc"
    ).replace("argc > 1 ? argv[1]", "argc > 1 ? argv[1] + 1")
    source = source.replace('open_library(linker, "libx.so");\n  return 0;', "")
    # For the main of the program there is nothing to do.
    start = compile_library(tmp_path, "libstart.so", source)
    program = compile_program(
        tmp_path, "program", PROGRAM, libraries=[start], flags=["-Wl,--no-as-needed"]
    )
    assert both(program, f"-{deed}", paths=str(folder)) == "opened\n"


EARLY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void start(void) {
  if (getenv("UNSET")) unsetenv("LD_LIBRARY_PATH");
  if (getenv("SET")) setenv("ANOTHER", "1", 1);      /* the array is a new one */
  puts(dlopen("libsays.so", RTLD_LAZY) ? "opened" : dlerror());
}
"""
SAYS = """
#include <stdio.h>
#include <string.h>
__attribute__((constructor)) static void start(int argc, char **argv, char **envp) {
  printf("%d", argc);
  for (int i = 0; argv && argv[i]; i++) printf(" %s", argv[i]);
  for (; envp && *envp; envp++)
    if (!strncmp(*envp, "LD_LIB", 6) || !strncmp(*envp, "ANOTHER=", 8)) printf(" %s", *envp);
  puts("");
}
"""


@pytest.mark.parametrize("more", [{}, {"UNSET": "1"}, {"SET": "1"}], ids=["", "unset", "set"])
def test_an_open_before_our_constructor(
    tmp_path: Path, folder: Path, both: Callable[..., str], more: dict[str, str]
) -> None:
    """And what the constructor of what it opens is given."""
    compile_library(folder, "libsays.so", SAYS)
    early = compile_library(tmp_path, "libearly.so", EARLY)
    program = compile_program(
        tmp_path, "program", PROGRAM, libraries=[early], flags=["-Wl,--no-as-needed"]
    )
    said = both(program, "title", "x", paths=str(folder), **more)
    assert f"3 {program} title x" in said
    assert ("LD_LIBRARY_PATH=" in said) == ("UNSET" not in more)
    assert ("ANOTHER=1" in said) == ("SET" in more)
    assert said.endswith("opened\nopened\n")


def test_constructors_are_given_the_environment_of_now(
    tmp_path: Path, folder: Path, both: Callable[..., str]
) -> None:
    compile_library(folder, "libsays.so", SAYS)
    source = PROGRAM.replace('"libx.so"', '"libsays.so"')
    program = compile_program(tmp_path, "program", source)
    assert "LD_LIBRARY_PATH=/nowhere" in both(program, "change", paths=str(folder))


def test_the_loader_as_a_command(
    tmp_path: Path, folder: Path, preloads: Callable[..., dict[str, str]]
) -> None:
    """Its --library-path stands in for the variable."""
    program = compile_program(tmp_path, "program", PROGRAM)
    interpreter = re.search(rb"/lib[^\0]*/ld-[^\0]*", program.read_bytes())
    assert interpreter
    loader = interpreter[0].decode()
    if machine().is_foreign:
        loader = f"{machine().sysroot}{loader}"
    env = preloads()
    path = f"{env['LD_LIBRARY_PATH']}:{folder}"
    for deed in ("", "title"):
        for preloaded in ([], ["--preload", env["LD_PRELOAD"]]):
            command = [loader, "--library-path", path, *preloaded, program, deed]
            assert run(command, env={"LD_LIBRARY_PATH": "/nowhere"}).stdout == "opened\n", command


@pytest.mark.parametrize("own", ["", "-Wl,--disable-new-dtags,-rpath,", "-Wl,-rpath,"])
@pytest.mark.parametrize("deed", [deed for deed in DEEDS if deed != ""])
def test_a_linker_that_comes_late(
    tmp_path: Path, folder: Path, libdlopen: Path, deed: str, own: str
) -> None:
    """The folders are known all the same, and are not mistaken for the program's own."""
    flags = [f"{own}{tmp_path}/own:{tmp_path}"] if own else []
    program = compile_program(tmp_path, "program", PROGRAM, flags=["-DLATE", *flags])
    env = {"LD_LIBRARY_PATH": f"/nowhere:{folder}:relative:$ORIGIN"}
    assert run([program, deed, libdlopen], env=env).stdout == "opened\n"
