"""An image of one's own that opens itself from inside, and what it was opened with."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dlopen
from support.fixtures import compile_library, run_python

# Bound to their own symbols: some are made global here.
FLAGS = ["-Wl,-Bsymbolic"]
# Each function says 1 if what it has opened is this very image, 0 if another one, -1 for nothing.
SELF = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

int marker;
static const char *own_name(void) {
  Dl_info info;
  return dladdr(&marker, &info) ? info.dli_fname : "";
}
int by(const char *name, int mode) {
  void *handle = dlopen(name, mode);
  int same = handle ? dlsym(handle, "marker") == &marker : -1;
  if (handle) dlclose(handle);
  return same;
}
int by_own_name(int mode) { return by(own_name(), mode); }
int by_copy(int mode) {
  char *copy = strdup(own_name());
  int same = by(copy, mode);
  free(copy);
  return same;
}
int by_real_path(int mode) {
  char *path = realpath(own_name(), NULL);
  int same = path ? by(path, mode) : -1;
  free(path);
  return same;
}
int by_link_map(int mode) {
  Dl_info info;
  struct link_map *map = NULL;
  dladdr1(&marker, &info, (void **)&map, RTLD_DL_LINKMAP);
  return by(map->l_name, mode);
}
static int visit(struct dl_phdr_info *info, size_t size, void *data) {
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    uintptr_t start = info->dlpi_addr + segment->p_vaddr;
    if (segment->p_type == PT_LOAD && (uintptr_t)&marker - start < segment->p_memsz)
      *(const char **)data = info->dlpi_name;
  }
  return 0;
}
int by_iterating(int mode) {
  const char *name = "";
  dl_iterate_phdr(visit, &name);
  return by(name, mode);
}
int constructed = -2;
__attribute__((constructor)) static void start(void) {
  constructed = by_own_name(RTLD_LAZY | RTLD_NOLOAD);
}
void *pin(void) { return dlopen(own_name(), RTLD_NOW); }
int unpin(void *handle) { return dlclose(handle); }
"""
RTLD_NOLOAD = dlopen.RTLD_NOLOAD | dlopen.RTLD_LAZY
WAYS = ["by_own_name", "by_copy", "by_link_map", "by_iterating"]


def from_bytes(path: Path) -> dlopen.Library:
    return dlopen.Library.from_bytes(path.read_bytes(), name=path.name)


def with_a_path(path: Path) -> dlopen.Library:
    return dlopen.Library.from_bytes(path.read_bytes(), name=str(path))


def from_files(path: Path) -> dlopen.Library:
    return dlopen.Library(path.name, files={path.name: path.read_bytes()})


KINDS: dict[str, Callable[[Path], dlopen.Library]] = {
    "PRIVATE": lambda path: dlopen.Library(path, dlopen.PRIVATE),
    "bytes": from_bytes,
    "bytes with a path": with_a_path,
    "files": from_files,
    "PRIVATE files": lambda path: dlopen.Library(
        path.name, dlopen.PRIVATE, files={path.name: path.read_bytes()}
    ),
    "reload": lambda path: dlopen.Library(path, reload=True),
    "PRIVATE and global": lambda path: dlopen.Library(
        path, dlopen.PRIVATE | dlopen.RTLD_GLOBAL | dlopen.RTLD_NOW
    ),
    "linked by hand": lambda path: dlopen.Image(path).relocate([dlopen.existing("libc.so.6")]),
    "bytes linked by hand": lambda path: dlopen.Image.from_bytes(
        path.read_bytes(), name=path.name
    ).relocate([dlopen.existing("libc.so.6")]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return compile_library(tmp_path, "libself.so", SELF, flags=FLAGS)


def show(library: dlopen.Library, mode: int) -> dict[str, int]:
    return {way: getattr(library, way)(mode) for way in WAYS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside others"])
def test_it_gets_itself(kind: str, others: bool, path: Path) -> None:
    beside = []
    if others:
        beside = [dlopen.Library(path), *(opened(path) for opened in KINDS.values())]
    with KINDS[kind](path) as library:
        assert library.variable("constructed", ctypes.c_int).value == 1
        for mode in (RTLD_NOLOAD, dlopen.RTLD_NOW, dlopen.RTLD_LAZY):
            assert show(library, mode) == dict.fromkeys(WAYS, 1)
        count = library.info.open_count
        pinned = library.function("pin", ctypes.c_void_p)()
        assert library.info.open_count == count + 1
        assert library.unpin(ctypes.c_void_p(pinned)) == 0
        assert library.info.open_count == count
    assert not library.unload_blockers
    for one in beside:
        assert show(one, RTLD_NOLOAD) == dict.fromkeys(WAYS, 1)
        one.close()


@pytest.mark.parametrize("kind", ["PRIVATE", "PRIVATE and global", "linked by hand"])
def test_by_its_file(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with dlopen.Library(path), KINDS[kind](Path("libself.so")) as library:
        assert library.by_real_path(RTLD_NOLOAD) == 1
        link = path.with_name("liblink.so")
        link.symlink_to(path)
        with KINDS[kind](link) as linked:  # whose path nobody else has
            assert linked.by_real_path(RTLD_NOLOAD) == 1
        monkeypatch.chdir("/")
        assert library.by(bytes(path), RTLD_NOLOAD) == 1
        assert library.by(b"libself.so", RTLD_NOLOAD) == 1  # its soname
        # A removed one, by the names that it has.
        path.unlink()
        assert library.by(bytes(path), RTLD_NOLOAD) == 1
        assert show(library, dlopen.RTLD_NOW) == dict.fromkeys(WAYS, 1)


def test_one_that_has_pinned_itself_stays(path: Path) -> None:
    library = dlopen.Library(path, dlopen.PRIVATE)
    pinned = library.function("pin", ctypes.c_void_p)()
    library.close()
    assert library.unload_blockers
    with dlopen.Library(path) as other:  # none unloads the code that it runs
        assert other.unpin(ctypes.c_void_p(pinned)) == 0
    assert not library.unload_blockers


def test_others_do_not_get_it(path: Path) -> None:
    """Bytes answer to their name to nobody else who searches."""
    other = compile_library(path.parent, "libother.so", SELF, flags=FLAGS)
    with from_bytes(path) as one, dlopen.Library(other) as two:
        path.unlink()
        assert two.by(b"libself.so", RTLD_NOLOAD) == -1
        assert one.by(b"libself.so", RTLD_NOLOAD) == 1
        with pytest.raises(dlopen.LoadError):
            dlopen.Library("libself.so", dlopen.RTLD_NOLOAD)
        with dlopen.existing("libself.so") as found:  # which looks for nothing: one at this path
            assert found.info == one.info


# A runtime that asks for the library which calls it, as D's does.
RUNTIME = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
int same(void *address) {
  Dl_info info;
  if (!dladdr(address, &info)) return -2;
  void *handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (!handle) return -1;
  dlclose(handle);
  return dlsym(handle, "marker") == address;
}
int known(const char *name) {
  void *handle = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
  if (handle) dlclose(handle);
  return handle != 0;
}
void *whole(const char *name) {
  void *handle = dlopen(name, RTLD_LAZY | RTLD_NOLOAD), *address = dlsym(handle, "same");
  dlclose(handle);
  return address;
}
"""
USER = r"""
int same(void *), known(const char *);
int marker, constructed = -3, knows_runtime;
__attribute__((constructor)) static void start(void) {
  constructed = same(&marker);
  knows_runtime = known("libruntime.so");
}
int again(void) { return same(&marker); }
"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    runtime = compile_library(tmp_path, "libruntime.so", RUNTIME, flags=FLAGS)
    return compile_library(tmp_path, "libuser.so", USER, flags=FLAGS, libraries=[runtime])


USERS: dict[str, Callable[[Path], Any]] = {
    "path": dlopen.Library,
    "PRIVATE": KINDS["PRIVATE"],
    "bytes with a path": with_a_path,
    "files": lambda path: dlopen.Library(
        "libuser.so",
        files={name: (path.parent / name).read_bytes() for name in ("libuser.so", "libruntime.so")},
    ),
    "reload": KINDS["reload"],
}


@pytest.mark.parametrize("kind", USERS)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside others"])
def test_a_runtime_gets_who_calls_it(kind: str, others: bool, user: Path) -> None:
    beside = [opened(user) for opened in USERS.values()] if others else []
    with USERS[kind](user) as library:
        assert library.variable("constructed", ctypes.c_int).value == 1
        assert library.variable("knows_runtime", ctypes.c_int).value == 1
        assert library.again() == 1
    for one in beside:
        assert one.again() == 1
        one.close()


@pytest.mark.parametrize("kind", ["PRIVATE", "files"])
def test_what_was_opened_with_it_comes_first(kind: str, user: Path, tmp_path: Path) -> None:
    """By the name of a library that there is twice, each means its own."""
    # In this order: what is there already is shared.
    with USERS[kind](user) as library, dlopen.Library(user) as shared:
        addresses = []
        for one in (library, shared):
            runtime = next(info for info in one.info.dependencies if "runtime" in info.path)
            whole = one.function("whole", ctypes.c_void_p, ctypes.c_char_p)
            address = whole(b"libruntime.so")
            assert runtime.map_start <= address < runtime.map_end
            addresses.append(address)
        assert addresses[0] != addresses[1]


def test_a_new_version_gets_itself(path: Path, tmp_path: Path) -> None:
    with dlopen.Library(path, reload=True) as library:
        old = int(library.symbols["marker"])
        compile_library(tmp_path, "libself.so", SELF + "int newer;", flags=FLAGS)
        library.reload()
        assert int(library.symbols["marker"]) != old
        # In its constructor too, when it was not in force yet.
        assert library.variable("constructed", ctypes.c_int).value == 1
        assert show(library, RTLD_NOLOAD) == dict.fromkeys(WAYS, 1)
        pinned = library.function("pin", ctypes.c_void_p)()
        assert library.unpin(ctypes.c_void_p(pinned)) == 0


# Of which an old version stays, since it has opened itself.
PINNING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
void *pinned;
void pin(void) {
  Dl_info info;
  if (dladdr(&marker, &info)) pinned = dlopen(info.dli_fname, RTLD_LAZY);
}
"""


def test_a_runtime_gets_an_old_version_that_calls_it(tmp_path: Path) -> None:
    runtime = compile_library(tmp_path, "libruntime.so", RUNTIME, flags=FLAGS)
    path = compile_library(tmp_path, "libuser.so", USER + PINNING, flags=FLAGS, libraries=[runtime])
    with dlopen.Library(path, reload=True) as library:
        library.pin()
        old = ctypes.CFUNCTYPE(ctypes.c_int)(int(library.symbols["again"]))
        assert old() == 1
        newer = USER + PINNING + "int newer;"
        compile_library(tmp_path, "libuser.so", newer, flags=FLAGS, libraries=[runtime])
        library.reload()
        assert int(library.symbols["again"]) != ctypes.cast(old, ctypes.c_void_p).value
        assert library.again() == 1
        assert old() == 1


ELSEWHERE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
int marker;
/* 1: itself, 0: another one, in another namespace */
int elsewhere(void) {
  Dl_info info;
  Lmid_t space = LM_ID_BASE;
  void *handle = dladdr(&marker, &info) ? dlmopen(LM_ID_NEWLM, info.dli_fname, RTLD_NOW) : 0;
  if (!handle || dlinfo(handle, RTLD_DI_LMID, &space) || space == LM_ID_BASE) return -1;
  return dlsym(handle, "marker") == &marker;
}
"""


@pytest.mark.parametrize("kind", ["PRIVATE", "bytes with a path", "reload", "linked by hand"])
def test_in_another_namespace_it_is_another_one(kind: str, tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libelsewhere.so", ELSEWHERE)
    libc = ctypes.CDLL(str(shutil.copy(path, tmp_path / "libhost.so")))
    assert libc.elsewhere() == 0
    with KINDS[kind](path) as library:
        assert library.elsewhere() == 0


def test_in_a_namespace(path: Path, tmp_path: Path) -> None:
    copy = shutil.copy(path, tmp_path / "libcopy.so")
    with dlopen.Library(path), dlopen.Namespace("a") as one, dlopen.Namespace("b") as other:
        for namespace in (one, other):
            opened = [
                namespace.load(path),
                dlopen.Library(copy, dlopen.PRIVATE, namespace=namespace),
                dlopen.Library(copy, dlopen.PRIVATE, namespace=namespace),
            ]
            for library in opened:
                assert library.variable("constructed", ctypes.c_int).value == 1
                assert show(library, RTLD_NOLOAD) == dict.fromkeys(WAYS, 1)


def test_with_a_debuggers_file(path: Path) -> None:
    """The link map of an image from bytes then has another name."""
    code = """
import ctypes, sys
from pathlib import Path
import dlopen
data = Path(sys.argv[1]).read_bytes()
with (
    dlopen.Library.from_bytes(data, name="libself.so") as one,
    dlopen.Library.from_bytes(data, name="libself.so") as other,
):
    for library in (one, other):
        assert library.by_link_map(dlopen.RTLD_LAZY | dlopen.RTLD_NOLOAD) == 1
        assert library.by_own_name(dlopen.RTLD_LAZY) == 1
"""
    run_python(code, str(path), env={"DLOPEN_DEBUGGER": "gdb"})


def test_what_is_only_mapped_is_not_opened(path: Path) -> None:
    """Though the text of its name is handed out, too."""
    with dlopen.Image(path) as image, dlopen.Library(path) as library:
        assert library.by(bytes(path), RTLD_NOLOAD) == 1
        assert image.info.state == "mapped"
        assert library.by_own_name(RTLD_NOLOAD) == 1
