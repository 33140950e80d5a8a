"""Libraries inside of archives, which are opened by paths that lead through the archive's file."""

from __future__ import annotations

import ctypes
import gc
import gzip
import os
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dlopen
from dlopen import _linker
from support.archives import Located, begins, pack
from support.fixtures import compile_library, maps, run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BASE = "static int counter; int bases_zeroes[3000]; int base(void) { return ++counter; }"
DEP = "int base(void); int dep(void) { return 10 + base(); }"
PLUG = """
#define _GNU_SOURCE
#include <dlfcn.h>
int base(void); int dep(void);
int plug(void) { return 100 + dep() + base(); }
const char *where(void) { Dl_info info; return dladdr((void *)plug, &info) ? info.dli_fname : ""; }
int opens(const char *path) {
  void *handle = dlopen(path, RTLD_NOW);
  return handle && !dlclose(handle);
}
const char *why(void) { return dlerror(); }
"""
LIBRARIES = "bundle.libs"


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A package with a library that needs another two of a folder beside it."""
    folder = tmp_path_factory.mktemp("members")
    base = compile_library(folder, "libbase.so", BASE)
    dep = compile_library(folder, "libdep.so", DEP, libraries=[base], rpath="$ORIGIN")
    plug = compile_library(
        folder, "plug.so", PLUG, libraries=[dep, base], rpath=f"$ORIGIN/../{LIBRARIES}"
    )
    return {
        "bundle/plug.so": plug.read_bytes(),
        f"{LIBRARIES}/libdep.so": dep.read_bytes(),
        f"{LIBRARIES}/libbase.so": base.read_bytes(),
        "bundle/__init__.py": b"",
    }


@pytest.fixture
def archives() -> Iterator[Callable[..., Located]]:
    """Has archives asked for, until the test's end."""
    made = []

    def known(*paths: Path, flags: int = 0) -> Located:
        made.append(Located(*paths, flags=flags))
        _linker.set_archives(made[-1])
        return made[-1]

    yield known
    _linker.set_archives(None)
    for located in made:
        located.close()


def is_open(path: str) -> bool:
    return any(info.path == path for info in dlopen.libraries())


def text(function: dlopen.Function) -> str:
    function.restype = ctypes.c_char_p
    return os.fsdecode(function())


def test_a_member_is_opened_with_what_it_needs(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    app = pack(tmp_path / "app.pyz", members)
    located = archives(app)
    path = f"{app}/bundle/plug.so"
    with dlopen.Library(path) as plug:
        assert plug.plug() == 100 + 11 + 2
        assert text(plug.where) == path
        found = plug.info
        assert (found.path, found.name) == (path, path)
        assert (found.archive, found.offset) == (str(app), begins(app, "bundle/plug.so"))
        status = app.stat()
        assert (found.device, found.inode) == (status.st_dev, status.st_ino)
        assert [need.path for need in found.dependencies[:2]] == [
            f"{app}/{LIBRARIES}/libdep.so",
            f"{app}/{LIBRARIES}/libbase.so",
        ]
        assert sum(mapping.path == str(app) for mapping in maps()) >= 9  # three of each
        assert path in [info.path for info in dlopen.libraries()]
        asked = len(located.asked)
        with dlopen.existing(path) as again, dlopen.Library(path, os.RTLD_NOLOAD) as other:
            assert again.info == other.info == found
        with dlopen.Library(f"{app}/bundle/../bundle/plug.so") as again:
            assert again.info == found
        assert len(located.asked) == asked + 1  # by another text once
    assert not is_open(path)
    assert not any(mapping.path == str(app) for mapping in maps())


@pytest.mark.parametrize(("align", "compress"), [(1, False), (2048, False), (1, True)])
def test_what_cannot_be_mapped_is_copied(
    tmp_path: Path,
    members: dict[str, bytes],
    archives: Callable[..., Located],
    align: int,
    compress: bool,
) -> None:
    app = pack(tmp_path / "app.pyz", members, align, compress=compress)
    archives(app)
    with dlopen.Library(f"{app}/bundle/plug.so") as plug:
        assert plug.plug() == 113
        assert not any(mapping.path == str(app) for mapping in maps())
        assert plug.info.archive == str(app)
        assert len([info for info in dlopen.libraries() if info.archive == str(app)]) == 3
    archives(app, flags=_linker.MAPPED_ONLY)
    with pytest.raises(dlopen.LoadError, match=r"plug.so: it may only be mapped, and the archive"):
        dlopen.Library(f"{app}/bundle/plug.so")


def test_there_is_one_image_of_each_member(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    """Also by another path to it, and where two of them need it."""
    other = compile_library(
        tmp_path,
        "other.so",
        "int base(void); int other(void) { return base(); }",
        libraries=[],
        rpath=f"$ORIGIN/../{LIBRARIES}",
        flags=["-Wl,--no-as-needed"],
    )
    app = pack(tmp_path / "app.pyz", {**members, "deep/other.so": other.read_bytes()})
    link = tmp_path / "link.pyz"
    link.symlink_to(app)
    archives(app, link)
    with dlopen.Library(f"{app}/{LIBRARIES}/libbase.so") as base:
        base.base()
        with dlopen.Library(f"{app}/bundle/plug.so") as plug:
            assert plug.plug() == 100 + 12 + 3
        with dlopen.Library(f"{link}/{LIBRARIES}/libbase.so") as again:
            assert again.info == base.info
        with dlopen.Library(f"{app}/{LIBRARIES}/libbase.so", dlopen.PRIVATE) as own:
            assert own.info != base.info
            assert own.base() == 1
        with dlopen.Namespace("members") as space, space.load(f"{app}/bundle/plug.so") as plug:
            assert plug.plug() == 113


def test_the_zeroes_of_a_member_are_zeroes(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    """Behind its data another member is mapped with the same page."""
    filled = {"libbase.so": members[f"{LIBRARIES}/libbase.so"], "more": b"\xff" * 0x20000}
    app = pack(tmp_path / "app.pyz", filled, 4096)
    archives(app)
    with dlopen.Library(f"{app}/libbase.so") as base:
        assert not any(base.variable("bases_zeroes", ctypes.c_int * 3000).value)


def test_python_is_told_what_went_wrong(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    """From Python the exception itself, from C a text."""
    app = pack(tmp_path / "app.pyz", members)
    located = archives(app)
    plug = dlopen.Library(f"{app}/bundle/plug.so")

    def fails(path: str) -> None:
        raise ZeroDivisionError(path)

    _linker.set_archives(fails)
    with pytest.raises(ZeroDivisionError, match=r"nothing\.so"):
        dlopen.Library(f"{app}/nothing.so")
    with pytest.raises(ZeroDivisionError):
        dlopen.existing(f"{app}/nothing.so")
    plug.opens.argtypes = [ctypes.c_char_p]
    assert plug.opens(os.fsencode(f"{app}/nothing.so")) == 0
    assert "ZeroDivisionError: " in text(plug.why)
    _linker.set_archives(lambda _: (1, 2))  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="unpack"):
        dlopen.Library(f"{app}/nothing.so")
    _linker.set_archives(located)
    assert plug.opens(os.fsencode(f"{app}/{LIBRARIES}/libdep.so")) == 1
    plug.close()


def test_without_archives_a_path_through_a_file_is_none(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    app = pack(tmp_path / "app.pyz", members)
    with pytest.raises(dlopen.LoadError, match="Not a directory"):
        dlopen.Library(f"{app}/bundle/plug.so")
    archives(app)
    with pytest.raises(dlopen.LoadError, match="Not a directory"):
        dlopen.Library(f"{app}/bundle/missing.so")
    dlopen.Library(f"{app}/bundle/plug.so").close()


def test_a_folder_that_was_looked_for_before_is_asked_for(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    """That it is none is remembered; that it may be in an archive is not."""
    app = tmp_path / "app.pyz"
    beside = compile_library(
        tmp_path,
        "beside.so",
        DEP,
        rpath=f"{app}/{LIBRARIES}",
        libraries=[compile_library(tmp_path, "libbase.so", BASE)],
    )
    (tmp_path / "libbase.so").unlink()
    pack(app, members)
    with pytest.raises(dlopen.LoadError, match=r"libbase.so") as caught:
        dlopen.Library(beside)
    assert (f"{app}/{LIBRARIES}/libbase.so", "No such file or directory") in caught.value.searched
    archives(app)
    with dlopen.Library(beside) as library:
        assert library.dep() == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 1 << 40}, "a member ends after it"),
        ({"offset": 1 << 40}, "a member ends after it"),
        ({"length": 3}, "file too short|invalid ELF header"),
        ({"length": 4096}, "file too short|lies? outside"),
        ({"descriptor": 999}, "Bad file descriptor"),
        ({"offset": 7}, "invalid ELF header"),
        ({"data": b""}, "file too short: it is empty"),
        ({"data": b"\x7fELF"}, "file too short"),
    ],
)
def test_a_member_that_is_none(
    tmp_path: Path,
    members: dict[str, bytes],
    archives: Callable[..., Located],
    change: dict[str, object],
    message: str,
) -> None:
    app = pack(tmp_path / "app.pyz", members)
    names = ("archive", "descriptor", "offset", "length", "data", "flags")
    path = f"{app}/bundle/plug.so"
    located = archives(app)
    found = dict(zip(names, located.members[path], strict=True))
    located.members[path] = tuple((found | change).values())  # type: ignore[assignment]
    with pytest.raises(dlopen.LoadError, match=message):
        dlopen.Library(path)
    assert not is_open(path)


def test_an_archive_that_was_cut(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    app = pack(tmp_path / "app.pyz", members)
    archives(app)
    os.truncate(app, begins(app, "bundle/plug.so") + 5000)
    with pytest.raises(dlopen.LoadError, match="is the archive truncated"):
        dlopen.Library(f"{app}/bundle/plug.so")


def test_answers_live_as_long_as_the_open(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    """Content that nobody else has, and none of which stays."""
    app = pack(tmp_path / "app.pyz", members, compress=True)
    located = archives(app)

    class Data(bytearray):
        alive = 0

        def __init__(self, data: bytes) -> None:
            super().__init__(data)
            Data.alive += 1

        def __del__(self) -> None:
            Data.alive -= 1

    def fresh(path: str) -> tuple[str, int, int, int, bytearray, int] | None:
        if path not in located.members:
            return None
        name, descriptor, offset, length, data, flags = located.members[path]
        assert data is not None
        return name, descriptor, offset, length, Data(data), flags

    _linker.set_archives(fresh)
    with dlopen.Library(f"{app}/bundle/plug.so") as plug:
        assert plug.plug() == 113
    gc.collect()
    assert Data.alive == 0


def test_they_are_taken_away_while_others_ask(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    app = pack(tmp_path / "app.pyz", members)
    located = archives(app)
    ended = threading.Event()
    results: list[str] = []

    def opens() -> None:
        while not ended.is_set():
            try:
                with dlopen.Library(f"{app}/bundle/plug.so") as plug:
                    assert plug.plug() > 100
            except dlopen.LoadError as error:
                results.append(str(error))

    threads = [threading.Thread(target=opens) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        _linker.set_archives(None)
        _linker.set_archives(located)
    ended.set()
    for thread in threads:
        thread.join()
    assert all("Not a directory" in result or "No such file" in result for result in results)


def test_at_the_interpreters_end_and_in_a_child(tmp_path: Path, members: dict[str, bytes]) -> None:
    """A destructor of C's asks for a member when there is no Python any more."""
    late = compile_library(
        tmp_path,
        "late.so",
        """#include <dlfcn.h>
        #include <unistd.h>
        static const char *path;
        void keep(const char *given) { path = given; }
        __attribute__((destructor)) static void end(void) {
            void *handle = dlopen(path, RTLD_NOW);
            const char *said = handle ? "found\\n" : "none\\n";
            (void)!write(1, said, handle ? 6 : 5);
        }""",
    )
    app = pack(tmp_path / "app.pyz", members)
    done = run_python(
        f"""
import ctypes, os, dlopen
from dlopen import _linker
from support.archives import Located
from pathlib import Path
app = Path({str(app)!r})
_linker.set_archives(Located(app))
text = ctypes.c_char_p(f"{{app}}/bundle/plug.so".encode())
late = dlopen.Library({str(late)!r})
late.keep(text)
pid = os.fork()
with dlopen.Library(f"{{app}}/bundle/plug.so") as plug:
    assert plug.plug() == 113
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
ctypes.pythonapi.Py_IncRef(ctypes.py_object(text))
"""
    )
    assert done.stdout == "none\n"


@pytest.mark.parametrize("kind", ["zip", "path", "function"])
def test_files_of_an_archive_are_one_image_each(
    kind: str, tmp_path: Path, members: dict[str, bytes]
) -> None:
    """Nobody is asked for archives: the search asks `files` for the paths in it."""
    app = pack(tmp_path / "app.zip", members)
    path = f"{app}/bundle/plug.so"
    with zipfile.ZipFile(app) as archive:
        names = archive.namelist()

        def find(asked: str) -> dlopen.Member | None:
            inner = asked.removeprefix(f"{app}/")
            if inner not in names:
                return None
            assert archive.fp is not None
            length = archive.getinfo(inner).file_size
            return dlopen.Member(app, archive.fp.fileno(), begins(app, inner), length)

        files: Any = {
            "zip": archive,
            "path": zipfile.Path(archive) / "bundle",
            "function": find,
        }[kind]
        name = "plug.so" if kind == "path" else "bundle/plug.so"
        with (
            dlopen.Library(name, files=files) as plug,
            dlopen.Library(name, files=files) as again,
            dlopen.Library(path) as by_path,
            dlopen.Library(f"{LIBRARIES}/libbase.so", files=archive) as base,
        ):
            assert plug.info == again.info == by_path.info
            assert (plug.plug(), again.plug(), base.base()) == (113, 117, 5)
            assert (plug.info.path, plug.info.member) == (path, "bundle/plug.so")
            assert [need.path for need in plug.info.dependencies[:2]] == [
                f"{app}/{LIBRARIES}/libdep.so",
                f"{app}/{LIBRARIES}/libbase.so",
            ]
            assert sum(mapping.path == str(app) for mapping in maps()) >= 9
            with dlopen.Library(name, dlopen.PRIVATE, files=files) as own:
                assert own.info != plug.info
            data = {"bytes.so": archive.read("bundle/plug.so")}
            with dlopen.Library("bytes.so", files=data) as own:
                assert own.info != plug.info
                assert own.info.archive is None
                assert own.info.member is None
            for name in ("bundle/plug.so", "plug.so"):
                assert [found.path for found in dlopen.libraries() if found.name == name] == []
    assert not is_open(path)


def test_compressed_files_and_those_of_a_reloadable_library(
    tmp_path: Path, members: dict[str, bytes]
) -> None:
    app = pack(tmp_path / "app.zip", members, compress=True)
    with zipfile.ZipFile(app) as archive, dlopen.Library("bundle/plug.so", files=archive) as plug:
        assert plug.plug() == 113
        assert not any(mapping.path == str(app) for mapping in maps())
        with dlopen.Image("bundle/plug.so", files=archive) as image:
            assert image.info.member == "bundle/plug.so"
    pack(app, members)
    with (
        zipfile.ZipFile(app) as archive,
        dlopen.Library("bundle/plug.so", files=archive, reload=True) as plug,
    ):
        assert plug.plug() == 113
        plug.reload()
        assert plug.plug() == 117  # what it needs is the same


def test_what_is_not_in_a_file_is_bytes(tmp_path: Path, members: dict[str, bytes]) -> None:
    """An archive that is written, or comes out of something else than a file."""
    app = pack(tmp_path / "app.zip", members)
    squeezed = tmp_path / "app.zip.gz"
    squeezed.write_bytes(gzip.compress(app.read_bytes()))
    with (
        zipfile.ZipFile(app, "a") as appended,
        gzip.open(squeezed) as unpacked,
        zipfile.ZipFile(unpacked) as inner,
    ):
        for archive in (appended, inner):
            with dlopen.Library("bundle/plug.so", files=archive) as plug:
                assert plug.plug() == 113
                assert (plug.info.path, plug.info.archive) == ("bundle/plug.so", None)


def test_a_member_that_may_only_be_mapped(tmp_path: Path, members: dict[str, bytes]) -> None:
    app = pack(tmp_path / "app.zip", members, 1)
    with app.open("rb") as file:
        length = len(members["bundle/plug.so"])
        member = dlopen.Member(
            app, file.fileno(), begins(app, "bundle/plug.so"), length, mapped_only=True
        )
        with pytest.raises(dlopen.LoadError, match=r"at no multiple of the page size"):
            dlopen.Library("bundle/plug.so", files=lambda _: member)
        assert repr(member).startswith(f"Member(archive={str(app)!r}, ")


def test_a_zip_that_changed_under_its_directory(tmp_path: Path, members: dict[str, bytes]) -> None:
    app = pack(tmp_path / "app.zip", members)
    with zipfile.ZipFile(app) as archive:
        app.write_bytes(b"something else" * 1000)
        with pytest.raises(ValueError, match="no member of a zip file begins at"):
            dlopen.Library("bundle/plug.so", files=archive)


_ANSWER = """
int answer(void) {
  int sum = first[0];
  for (int i = 0; i < COUNT; i++) sum += zeroes[i];
  return sum;
}
"""
FLAVOURS = {
    "text relocations": (
        "extern int there; int there = 40; int *at = &there; int answer(void) { return *at + 2; }",
        ["-Wl,-z,notext", "-Wl,-z,norelro"],
    ),
    "RELRO": (
        "int there; int *const at = &there; int answer(void) { there = 42; return *at; }",
        ["-Wl,-z,relro,-z,now"],
    ),
    "thread-local storage": (
        "__thread int kept = 41; int answer(void) { int is = ++kept; --kept; return is; }",
        [],
    ),
    "large data": (
        f"int first[COUNT] = {{42, 1}}, zeroes[COUNT]; {_ANSWER}",
        ["-DCOUNT=300000"],
    ),
    "zeroes beside data": (
        f"int first[700] = {{42}}, zeroes[COUNT]; {_ANSWER}",
        ["-DCOUNT=100"],
    ),
    "two megabytes aligned": (
        "__attribute__((aligned(0x200000))) int there = 42; int answer(void) { return there; }",
        ["-Wl,-z,max-page-size=0x200000"],
    ),
    "one segment for all that is read": (
        "int answer(void) { return 42; }",
        ["-Wl,-z,noseparate-code"],
    ),
}


@pytest.mark.parametrize("arena", [False, True], ids=["mapped", "arena"])
@pytest.mark.parametrize("kind", ["aligned", "unaligned", "compressed"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_member_with(
    flavour: str, kind: str, arena: bool, tmp_path: Path, archives: Callable[..., Located]
) -> None:
    source, flags = FLAVOURS[flavour]
    library = compile_library(tmp_path, "flavoured.so", source, flags=flags)
    filled = {"first": b"\xff" * 0x3000, "x.so": library.read_bytes(), "last": b"\xff" * 0x30000}
    align = 4096 if kind == "aligned" else 1
    app = pack(tmp_path / "app.pyz", filled, align, compress=kind == "compressed")
    archives(app)
    with dlopen.Library(f"{app}/x.so", arena=arena) as opened:
        assert opened.answer() == 42
        assert opened.answer() == 42
        # Others of the process may be both: libffi's, for callbacks.
        begin, end = opened.info.map_start, opened.info.map_end
        own = {at.permissions for at in maps() if at.start < end and begin < at.end}
        assert own
        assert not {permissions for permissions in own if "wx" in permissions}


def test_on_a_file_system_without_execution(tmp_path: Path, members: dict[str, bytes]) -> None:
    """Mounted noexec and read-only: what would be mapped is copied, or refused."""
    app = pack(tmp_path / "app.pyz", members)
    (tmp_path / "mounted").mkdir()
    code = """
import ctypes, os, shutil, sys
from pathlib import Path
import dlopen
from dlopen import _linker
from support.archives import Located
libc = ctypes.CDLL(None, use_errno=True)
source, place = (os.fsencode(argument) for argument in sys.argv[1:])
def mount(kind, flags, data=None):
    if libc.mount(b"none", place if kind else b"/", kind, ctypes.c_ulong(flags), data):
        sys.exit(77)
NEW_NAMESPACE, RECURSIVE, PRIVATE, NOEXEC, READ_ONLY, REMOUNT = 0x20000, 1 << 14, 1 << 18, 8, 1, 32
if libc.unshare(NEW_NAMESPACE):
    sys.exit(77)
mount(None, RECURSIVE | PRIVATE)
mount(b"tmpfs", NOEXEC)
shutil.copy(source, place)
mount(b"tmpfs", NOEXEC | READ_ONLY | REMOUNT)
app = Path(os.fsdecode(place), "app.pyz")
try:
    dlopen.Library(app / "bundle/plug.so")
except dlopen.LoadError as error:
    print(error.strerror)
_linker.set_archives(Located(app))
with dlopen.Library(app / "bundle/plug.so") as plug:
    print(plug.plug(), plug.info.archive == str(app))
_linker.set_archives(Located(app, flags=_linker.MAPPED_ONLY))
try:
    dlopen.Library(app / "bundle/plug.so")
except dlopen.LoadError as error:
    print(error.reason)
"""
    done = run_python(
        code, str(app), str(tmp_path / "mounted"), env={"DLOPEN_LOG": "info"}, check=False
    )
    if done.returncode == 77:
        pytest.skip("this user may not mount: root may, and who may make namespaces")
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first == "Not a directory"
    assert second == "113 True"
    assert third == "it may only be mapped, which the archive's file system refuses for code"
    copied = "plug.so: the archive's file system does not let code be mapped"
    assert len([line for line in done.stderr.splitlines() if line.endswith(copied)]) == 1


def test_by_a_relative_path(
    tmp_path: Path,
    members: dict[str, bytes],
    archives: Callable[..., Located],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = pack(tmp_path / "app.pyz", members)
    located = archives(app)
    monkeypatch.chdir(tmp_path)
    with dlopen.Library("./app.pyz//bundle/./plug.so") as plug:
        assert plug.info.path == f"{app}/bundle/plug.so"
        assert located.asked[0] == f"{app}/bundle/plug.so"
        with dlopen.Library(Path("app.pyz/bundle/plug.so")) as again:
            assert again.info == plug.info


@pytest.mark.parametrize("way", ["RPATH", "LD_LIBRARY_PATH", "namespace"])
def test_a_folder_in_an_archive_is_searched(
    way: str, tmp_path: Path, members: dict[str, bytes]
) -> None:
    """In the place where any folder of that list is."""
    app = pack(tmp_path / "app.pyz", members)
    folder = f"{app}/{LIBRARIES}"
    base = compile_library(tmp_path, "libbase.so", BASE)
    flags = [f"-Wl,--disable-new-dtags,-rpath,{folder}"] if way == "RPATH" else []
    beside = compile_library(tmp_path, "beside.so", DEP, libraries=[base], rpath="", flags=flags)
    base.unlink()
    code = """
import sys
from pathlib import Path
import dlopen
from dlopen import _linker
from support.archives import Located
app, folder, beside, way = sys.argv[1:]
_linker.set_archives(located := Located(Path(app)))
if way == "namespace":
    opened = dlopen.Namespace("here", [folder]).load(beside)
else:
    opened = dlopen.Library(beside)
print(opened.dep(), opened.info.dependencies[0].path)
print([path for path in located.asked if "hwcaps" in path or "libbase" not in path])
print([found.path for found in dlopen.find("libbase.so").candidates if not found.reason])
"""
    env = {"LD_LIBRARY_PATH": folder} if way == "LD_LIBRARY_PATH" else {}
    done = run_python(code, str(app), folder, str(beside), way, env=env)
    found, others, by_find = done.stdout.splitlines()
    assert found == f"11 {folder}/libbase.so"
    assert others == "[]"
    if way == "LD_LIBRARY_PATH":
        assert by_find == f"['{folder}/libbase.so']"


def test_what_must_be_the_hosts_is(tmp_path: Path) -> None:
    """It is never taken from an archive, as it is never from bytes."""
    code = """
import sys
from pathlib import Path
import dlopen
from dlopen import _linker
from support.archives import Located, pack
host = next(info.path for info in dlopen.libraries() if info.soname == "libc.so.6")
for compress in (False, True):
    app = pack(Path(sys.argv[1], f"{compress}.pyz"), {"libc.so.6": Path(host).read_bytes()},
               compress=compress)
    _linker.set_archives(Located(app))
    with dlopen.Library(f"{app}/libc.so.6") as libc:
        print(libc.info.is_host, libc.info.path == host)
"""
    assert run_python(code, str(tmp_path)).stdout == "True True\n" * 2


def test_threads_get_one_image(
    tmp_path: Path, members: dict[str, bytes], archives: Callable[..., Located]
) -> None:
    app = pack(tmp_path / "app.pyz", members)
    archives(app)
    start = threading.Barrier(4)
    opened: list[dlopen.Library] = []

    def opens() -> None:
        start.wait()
        opened.append(dlopen.Library(f"{app}/bundle/plug.so"))

    threads = [threading.Thread(target=opens) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({library.info for library in opened}) == 1
    assert len([info for info in dlopen.libraries() if info.archive == str(app)]) == 3
    for library in opened:
        library.close()
