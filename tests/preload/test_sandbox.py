"""Where the kernel gives less: no /proc, no memfd_create(2), filtered system calls (seccomp(2)).

libc's loader needs none of these once the process has started: it is the reference.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, missing, run

pytestmark = pytest.mark.emulated(reason="qemu-user has no filters of system calls, seccomp(2)")

HEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "sandbox.h"
static void *open_library(const char *name) {
  void *handle = dlopen(name, RTLD_NOW);
  if (!handle) printf("%s\\n", dlerror());
  return handle;
}
static int call(void *handle, const char *name) {
  return ((int (*)(void))dlsym(handle, name))();
}
"""
NO_MEMFD = "sandbox_forbid(SYS_memfd_create, {error});"
NO_PROC = "sandbox_hide_proc();"


@pytest.fixture
def says(tmp_path: Path, preloads: Callable[..., dict[str, str]]) -> Callable[..., str]:
    """What a program says whose `main` is this, under libc's loader (`ours=False`) or ours."""

    def say(
        body: str,
        *,
        ours: bool,
        libraries: tuple[Path, ...] = (),
        before: str = "",
        paths: str = "",
        **env: str,
    ) -> str:
        source = f"{HEAD}{before}\nint main(void) {{\n{body}\nreturn 0;\n}}\n"
        program = compile_program(
            tmp_path, "program", source, libraries=libraries, flags=["-Wl,--no-as-needed"]
        )
        more = preloads()
        more["LD_LIBRARY_PATH"] += f":{paths}" if paths else ""
        if not ours:
            del more["LD_PRELOAD"]
        done = run([program], cwd=tmp_path, env={**more, **env}, check=False)
        if done.returncode == 77:
            missing("the kernel has no seccomp filters for this user")
        assert done.returncode == 0, done
        return done.stdout

    return say


@pytest.fixture
def both(says: Callable[..., str]) -> Callable[..., str]:
    """The same, which both must say."""

    def compare(body: str, **more: object) -> str:
        libcs, ours = says(body, ours=False, **more), says(body, ours=True, **more)
        assert ours == libcs, f"{libcs} under libc, {ours} here"
        return libcs

    return compare


COUNT = "static int count; int next(void) { return ++count; }"
OPEN_AGAIN = """
  void *start = open_library("libstart.so"), *again = open_library("./again/libother.so");
  printf("%d", call(start, "next"));
  if (again) printf(" %d", call(again, "next")), printf(" %d", start == again);
"""


@pytest.mark.parametrize("what", ["link", "hard link", "copy", "renamed over", "another"])
def test_a_library_of_the_start_by_another_path(
    tmp_path: Path, both: Callable[..., str], what: str
) -> None:
    """Without /proc/self/maps: the same file is the same image, and no other file is."""
    start = compile_library(tmp_path, "libstart.so", COUNT)
    again = tmp_path / "again/libother.so"
    again.parent.mkdir()
    deed = ""
    if what == "link":
        again.symlink_to(start)
    elif what == "hard link":
        again.hardlink_to(start)
    elif what == "copy":
        shutil.copy(start, again)
    else:  # of the same headers, and of other code
        source = COUNT.replace("++count", "10 + ++count")
        other = compile_library(tmp_path / "other", "libother.so", source, soname="libstart.so")
        other.rename(again)
    if what == "renamed over":  # when it was loaded already; put back for the next run
        deed = """
        rename("libstart.so", "kept");
        rename("again/libother.so", "libstart.so");
        symlink("../libstart.so", "again/libother.so");
        """
    undo = """
    if (!access("kept", F_OK))
      rename("libstart.so", "again/libother.so"), rename("kept", "libstart.so");
    """
    expected = {"link": "1 2 1", "hard link": "1 2 1", "copy": "1 1 0"}.get(what, "1 11 0")
    assert both(deed + NO_PROC + OPEN_AGAIN + undo, libraries=(start,)) == expected


@pytest.mark.parametrize("started", ["by its path", "by a relative one"])
def test_origin_of_the_program(
    tmp_path: Path, preloads: Callable[..., dict[str, str]], started: str
) -> None:
    """Of its RUNPATH. libc has asked for it at the start; we know what execve(2) was given.

    No other folder is taken for it.
    """
    start = compile_library(tmp_path, "libstart.so", COUNT)
    compile_library(tmp_path, "liblate.so", COUNT)
    other = tmp_path / "other"
    compile_library(other, "liblate.so", COUNT.replace("++count", "10 + ++count"))
    body = 'void *late = open_library("liblate.so"); if (late) printf("%d", call(late, "next"));'
    source = f"{HEAD}\nint main(void) {{ {NO_PROC} {body} return 0; }}\n"
    program = compile_program(
        tmp_path, "program", source, libraries=[start], flags=["-Wl,--no-as-needed"]
    )
    command = program if started == "by its path" else Path("../program")
    done = run([command], cwd=other, env=preloads(), check=False)
    if done.returncode == 77:
        missing("the kernel has no seccomp filters for this user")
    if started == "by its path":
        assert done.stdout == "1"
    else:
        assert done.stdout.startswith("liblate.so: cannot open shared object file")


STATIC = """
__attribute__((tls_model("initial-exec"))) __thread int counter = 40;
__attribute__((tls_model("initial-exec"))) __thread int zero;
int next(void) { return ++counter + ++zero; }
"""
IN_THREADS = """
static pthread_barrier_t barrier;
static void *handle;
static void *work(void *unused) {
  pthread_barrier_wait(&barrier);  /* it runs when the library is opened */
  pthread_barrier_wait(&barrier);
  if (handle) printf(" %d", call(handle, "next"));
  return unused;
}
"""
USE_STATIC = """
  pthread_t thread;
  pthread_barrier_init(&barrier, NULL, 2);
  pthread_create(&thread, NULL, work, NULL);
  pthread_barrier_wait(&barrier);
  for (int round = 0; round < 3; round++) {
    handle = open_library("./libstatic.so");
    if (!handle) break;
    printf(" %d", call(handle, "next"));
    if (round < 2) dlclose(handle);
  }
  pthread_barrier_wait(&barrier);
  pthread_join(thread, NULL);
"""
LESS = [
    pytest.param(NO_PROC, id="no /proc"),
    pytest.param(NO_MEMFD.format(error="EPERM"), id="memfd_create: EPERM"),
    pytest.param(NO_MEMFD.format(error="ENOSYS"), id="memfd_create: ENOSYS"),
    pytest.param(NO_MEMFD.format(error="EPERM") + NO_PROC, id="neither"),
]


@pytest.mark.parametrize("less", LESS)
def test_static_storage(tmp_path: Path, both: Callable[..., str], less: str) -> None:
    compile_library(tmp_path, "libstatic.so", STATIC)
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    said = both(less + USE_STATIC, before=IN_THREADS, XDG_RUNTIME_DIR=str(runtime))
    assert said == " 42 42 42 42"
    assert not list(runtime.iterdir())


FOLDERS = """
static const char *const forbidden[] = {%s, NULL};
static long answer(long number, const long *arguments) {
  const char *path = (const char *)arguments[1];
  if (number == SYS_memfd_create) return -EPERM;
  for (int i = 0; forbidden[i]; i++)
    if (!strncmp(path, forbidden[i], strlen(forbidden[i])) && arguments[2] & O_CREAT)
      return -EACCES;
  return SANDBOX_PASS;
}
static void no_files(void) {
  const long numbers[] = {SYS_openat, SYS_memfd_create};
  sandbox_trap(answer, numbers, 2);
}
"""


@pytest.mark.parametrize("works", ["/dev/shm", "/tmp", None])
def test_static_storage_where_there_is_little_room(
    tmp_path: Path, says: Callable[..., str], works: str | None
) -> None:
    compile_library(tmp_path, "libstatic.so", STATIC)
    forbidden = [f'"{name}"' for name in ("/dev/shm/", "/tmp/", "/nowhere/") if name != f"{works}/"]
    before = "#include <fcntl.h>\n" + FOLDERS % ", ".join(forbidden) + IN_THREADS
    # The folder that is named first is not there.
    body = 'no_files(); printf("%d:", getpid());' + USE_STATIC
    said = says(body, before=before, ours=True, XDG_RUNTIME_DIR="/nowhere")
    process, _, said = said.partition(":")
    if works:
        assert not list(Path(works).glob(f".dlopen-{process}-*"))
        assert said == " 42 42 42 42"
    else:
        assert said.count("\n") == 1
        for part in ("libstatic.so: ", "memfd_create", "/proc", "XDG_RUNTIME_DIR", "/dev/shm"):
            assert part in said
        assert said.endswith(f": {os.strerror(13)}\n")


STAT = {"fstat": "SYS_fstat", "newfstatat": "SYS_newfstatat", "statx": "SYS_statx"}


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize(
    "allowed", ["newfstatat", "statx", "newfstatat statx", "fstat statx", "fstat newfstatat"]
)
def test_filtered_questions_for_a_files_status(
    tmp_path: Path, says: Callable[..., str], allowed: str, error: str
) -> None:
    """By path, and searched for; the second open is of the same file."""
    start = compile_library(tmp_path, "libstart.so", COUNT)
    library = compile_library(tmp_path / "folder", "libx.so", COUNT)
    (tmp_path / "liby.so").symlink_to(library)
    filters = [
        f"sandbox_forbid({call}, {error});"
        for name, call in STAT.items()
        if name not in allowed.split()
    ]
    body = "".join(filters)
    body += 'void *one = open_library("libx.so"), *two = open_library("./liby.so");'
    body += 'if (one && two) printf("%d", call(one, "next")), printf(" %d", call(two, "next"));'
    # libc asks for that of an open file in one way: newfstatat(2) until 2.38, then fstat(2).
    for ours in (False, True) if allowed == "fstat newfstatat" else (True,):
        said = says(body, ours=ours, libraries=(start,), paths=str(tmp_path / "folder"))
        assert said == "1 2", ours


ONCE = """
static long result;
static int opens;  /* the file, while the folder does not answer */
static long answer(long number, const long *arguments) {
  const char *path = (const char *)arguments[1];
  int is_file = path && strstr(path, "libx.so");
  if (!result || !path || !strstr(path, "/folder")) return SANDBOX_PASS;
  if (number == SYS_openat) return !is_file || opens ? SANDBOX_PASS : result;
  return is_file ? SANDBOX_PASS : result;
}
"""


@pytest.mark.parametrize(
    ("error", "opens", "expected"),
    [
        *((error, 0, ["not found", "found"]) for error in ("ENOMEM", "EIO", "EACCES")),
        *((error, 1, ["found", "found"]) for error in ("ENOMEM", "EIO", "EACCES")),
        *((error, 0, ["not found", "not found"]) for error in ("ENOENT", "ENOTDIR")),
    ],
)
def test_a_folder_that_could_not_be_looked_for(
    tmp_path: Path, says: Callable[..., str], error: str, opens: int, expected: list[str]
) -> None:
    """One failed stat(2) is no answer, and not remembered, other than by libc.

    That the folder is not there is remembered, as by libc.
    """
    library = compile_library(tmp_path / "folder", "libx.so", COUNT)
    # By a RUNPATH: libc looked for the folders of LD_LIBRARY_PATH when it searched for itself.
    compile_library(
        tmp_path,
        "libneeds.so",
        "",
        libraries=[library],
        rpath=f"{tmp_path}/folder",
        flags=["-Wl,--no-as-needed"],
    )
    body = f"""
      const long numbers[] = {{SYS_newfstatat, SYS_openat}};
      sandbox_trap(answer, numbers, 2);
      opens = {opens};
      for (int round = 0; round < 2; round++) {{
        result = round ? 0 : -{error};
        puts(dlopen("./libneeds.so", RTLD_NOW) ? "found" : "not found");
      }}
    """
    said = {}
    for ours in (False, True):
        said[ours] = says(body, ours=ours, before=ONCE).split("\n")
    assert said[True][:2] == expected
    if error in ("ENOENT", "ENOTDIR"):
        assert said[False] == said[True]
