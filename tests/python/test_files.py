"""`files=`: libraries and their dependencies from what is no file on disk."""

from __future__ import annotations

import ctypes
import gc
import importlib.resources
import io
import threading
import warnings
import zipfile
from collections import ChainMap, UserDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dlopen
from support.fixtures import compile_library, maps, missing, run_python
from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = "static int counter; int base(void) { return ++counter; }"
DEP = "int base(void); int dep(void) { return 10 + base(); }"
PLUG = "int base(void); int dep(void); int plug(void) { return 100 + dep() + base(); }"
PATHS = ("plugins/plug.so", "lib/libdep.so", "lib/deeper/libbase.so")


@pytest.fixture(autouse=True, scope="module")
def warm(example: Path) -> None:
    """The first open of a process prepares the linker."""
    dlopen.Library(example).close()


def build(folder: Path, plug: str, dep: str) -> dict[str, bytes]:
    """The content of plug, of dep, which it needs, and of base, which both need: by name.

    The arguments are the RUNPATHs of the two.
    """
    base = compile_library(folder, "libbase.so", BASE)
    middle = compile_library(folder, "libdep.so", DEP, libraries=[base], rpath=dep)
    top = compile_library(folder, "plug.so", PLUG, libraries=[middle, base], rpath=plug)
    found = {file.name: file.read_bytes() for file in (top, middle, base)}
    for file in (top, middle, base):
        file.unlink()
    return found


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, bytes]:
    """By path: `$ORIGIN` leads from one to the other."""
    found = build(tmp_path, "$ORIGIN/../lib:$ORIGIN/../lib/deeper", "${ORIGIN}/deeper")
    return dict(zip(PATHS, found.values(), strict=True))


@pytest.fixture
def flat(tmp_path: Path) -> dict[str, bytes]:
    """By name, without any RUNPATH."""
    return build(tmp_path, "", "")


def archive(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipFile:
    made = zipfile.ZipFile(io.BytesIO(), "w", compression)
    made.mkdir("lib") if hasattr(made, "mkdir") else made.writestr("lib/", b"")
    for path, data in files.items():
        made.writestr(path, data)
    return made


def package(files: dict[str, bytes], folder: Path, name: str) -> Any:
    """The resources of a package: the package's own folder as importlib.resources gives it."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    for path, data in files.items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / path).write_bytes(data)
    return importlib.resources.files(name)


def resources(files: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(folder)
    return package(files, folder, "with_libraries")


def zipped_package(files: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with zipfile.ZipFile(folder / "packages.zip", "w") as made:
        made.writestr("zipped_libraries/__init__.py", "")
        for path, data in files.items():
            made.writestr(f"zipped_libraries/{path}", data)
    monkeypatch.syspath_prepend(folder / "packages.zip")
    return importlib.resources.files("zipped_libraries")


def namespace(files: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package of two folders without __init__.py, with some of the files each."""
    for path, data in files.items():
        file = folder / f"part{path.startswith('lib')}" / "portions" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    monkeypatch.syspath_prepend(folder / "partFalse")
    monkeypatch.syspath_prepend(folder / "partTrue")
    return importlib.resources.files("portions")


class Lazy(UserDict[str, bytes]):
    """A mapping of another kind, with buffers that are no bytes."""

    def __getitem__(self, path: str) -> Any:
        return bytearray(super().__getitem__(path))


SOURCES: dict[str, Callable[[dict[str, bytes], Path, pytest.MonkeyPatch], Any]] = {
    "dict": lambda files, *_: files,
    "chain": lambda files, *_: ChainMap({}, files),
    "lazy": lambda files, *_: Lazy(files),
    "callable": lambda files, *_: files.get,
    "zip": lambda files, *_: archive(files),
    "zip path": lambda files, *_: zipfile.Path(archive(files)),
    "folder in a zip": lambda files, *_: (
        zipfile.Path(archive({f"in/{path}": data for path, data in files.items()})) / "in"
    ),
    "package": resources,
    "package in a zip": zipped_package,
    "namespace package": namespace,
}


def paths_mapped() -> set[str]:
    return {mapping.path for mapping in maps() if mapping.path}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_tree_from(
    kind: str, tree: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SOURCES[kind](tree, tmp_path, monkeypatch)
    before = maps()
    with dlopen.Library("./plugins//plug.so", files=files) as lib:
        assert lib.plug() == 100 + 11 + 2
        dep, base = lib.info.dependencies[:2]
        # Of both, since each found it there by its own RUNPATH.
        assert dep.dependencies[0] == base
        # In an archive that is a file they are what files are.
        start = f"{tmp_path}/packages.zip/zipped_libraries/" if kind == "package in a zip" else ""
        assert [info.path for info in (lib.info, dep, base)] == [start + path for path in PATHS]
        assert lib.info.name == f"{start}plugins/plug.so"
        new = paths_mapped() - {mapping.path for mapping in before}
        assert not any("libbase" in path or "plug.so" in path for path in new)
    assert gone(before)
    assert not lib.unload_blockers


def gone(before: list[Any]) -> bool:
    """Nothing is mapped executable that was not before."""
    return code_of(maps()) == code_of(before)


def code_of(mappings: list[Any]) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in mappings if "x" in one.permissions]


def test_a_flat_mapping(flat: dict[str, bytes]) -> None:
    with dlopen.Library("plug.so", files=flat) as lib:
        assert lib.plug() == 113
        assert [info.path for info in lib.info.dependencies[:2]] == ["libdep.so", "libbase.so"]


def test_bytes_with_their_dependencies(tree: dict[str, bytes], flat: dict[str, bytes]) -> None:
    data = flat.pop("plug.so")
    with dlopen.Library.from_bytes(data, files=flat) as lib:
        assert lib.plug() == 113
    # Its name is its path among them.
    data = tree.pop("plugins/plug.so")
    with dlopen.Library.from_bytes(data, name="./plugins/mine.so", files=tree) as lib:
        assert lib.plug() == 113
        assert lib.info.path == "plugins/mine.so"


def test_a_library_on_disk_with_dependencies_from_files(tmp_path: Path) -> None:
    data = build(tmp_path, "$ORIGIN/nowhere", "$ORIGIN/deeper")
    path = tmp_path / "plug.so"
    path.write_bytes(data["plug.so"])
    asked = []

    def files(name: str) -> bytes | None:
        asked.append(name)
        return {
            "libdep.so": data["libdep.so"],
            str(tmp_path / "nowhere/libbase.so"): data["libbase.so"],
        }.get(name)

    with dlopen.Library(path, files=files) as lib:
        assert lib.plug() == 113
        assert lib.info.path == str(path)
        assert lib.info.inode == path.stat().st_ino
    assert asked[:3] == [str(path), str(tmp_path / "nowhere/libdep.so"), "libdep.so"]


def test_the_order(tmp_path: Path) -> None:
    """The folders that are asked for a needed name, and when."""
    name = "libnonesuch.so"
    needed = compile_library(tmp_path, name, BASE, soname=name)
    sources = {
        "run": ["-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib:/run/path"],
        "r": ["-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib:/r/path"],
    }
    for kind, flags in sources.items():
        file = tmp_path / f"{kind}.so"
        compile_library(tmp_path, file.name, DEP, flags=flags, libraries=[needed], rpath="")
    needed.unlink()
    code = """
import sys
import dlopen
asked = []
for kind in ("run", "r"):
    data = open(f"{sys.argv[1]}/{kind}.so", "rb").read()
    def files(path):
        asked.append(path)
        return data if path == "in/x.so" else None
    try:
        dlopen.Library("in/x.so", files=files)
    except dlopen.LoadError as error:
        print(*asked)
        print(*(path for path, why in error.searched if why == "not in files"))
        print(*(f"{path}:{why}" for path, why in error.searched if why != "not in files"))
    asked.clear()
"""
    done = run_python(code, str(tmp_path), env={"LD_LIBRARY_PATH": "/environment:relative"})
    run, run_tried, run_real, r, r_tried, r_real = done.stdout.splitlines()
    lists = {
        "run": f"in/lib/{name} /run/path/{name} {name} /environment/{name} relative/{name}",
        "r": f"in/lib/{name} /r/path/{name} {name} /environment/{name} relative/{name}",
    }
    for asked, tried, real, kind in ((run, run_tried, run_real, "run"), (r, r_tried, r_real, "r")):
        assert asked.startswith(f"in/x.so {lists[kind]} ")
        # What follows are the default folders; each path once.
        rest = asked.split()[6:]
        assert rest
        assert all(path.startswith(("/lib", "/usr/lib")) for path in rest)
        assert len(rest) < 10
        assert tried == asked.removeprefix("in/x.so ")
        # On disk nothing was tried but what may be there.
        where = [path.partition(":")[0] for path in real.split(" No such file or directory")]
        assert "in/lib" not in " ".join(where)
    assert f"/run/path/{name}:No such file" in run_real
    assert f"relative/{name}:No such file" in run_real
    assert f"./{name}" not in run_real


def test_files_lie_over_the_file_system(tmp_path: Path, tree: dict[str, bytes]) -> None:
    """A path that there is on disk, too."""
    paths = {}
    for path, data in tree.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no library")
        paths[str(file)] = data
    with dlopen.Library(tmp_path / "plugins" / "plug.so", files=paths) as lib:
        assert lib.plug() == 113
        assert lib.info.inode == 0
        assert not {str(tmp_path / path) for path in tree} & paths_mapped()
    # What they lack is on disk.
    (tmp_path / "lib/libdep.so").write_bytes(paths.pop(str(tmp_path / "lib/libdep.so")))
    with dlopen.Library(tmp_path / "plugins" / "plug.so", files=paths) as lib:
        assert lib.plug() == 113
        assert lib.info.dependencies[0].inode != 0


def test_origin_is_not_the_working_directory(
    tmp_path: Path, tree: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there is not what somebody has packed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libdep.so").write_bytes(tree.pop("lib/libdep.so"))
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("plugins/plug.so", files=tree)
    assert caught.value.library == "libdep.so"
    assert caught.value.needed_by == "plugins/plug.so"
    assert ("lib/libdep.so", "not in files") in caught.value.searched
    assert ("libdep.so", "not in files") in caught.value.searched


def test_a_needed_path(tmp_path: Path) -> None:
    """DT_NEEDED with a slash, which a library without a soname gives; found by two names."""
    base = compile_library(tmp_path, "libbase.so", BASE, soname="./in//libbase.so")
    dep = compile_library(
        tmp_path, "libdep.so", DEP, libraries=[base], rpath="", soname="in/libdep.so"
    )
    base = compile_library(tmp_path, "libbase.so", BASE, soname="in/x/../libbase.so")
    plug = compile_library(tmp_path, "plug.so", PLUG, libraries=[dep, base], rpath="")
    base = compile_library(tmp_path, "libbase.so", BASE, soname="other")
    files = {f"in/{file.name}": file.read_bytes() for file in (base, dep, plug)}
    with dlopen.Library("in/plug.so", files=files) as lib:
        assert lib.info.needed[:2] == ("in/libdep.so", "in/x/../libbase.so")
        assert lib.info.dependencies[0].needed[0] == "./in//libbase.so"
        assert lib.info.dependencies[0].dependencies[0] == lib.info.dependencies[1]
        assert lib.plug() == 113
    del files["in/libbase.so"]
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("in/plug.so", files=files)
    assert caught.value.searched == (("in/libbase.so", "not in files"),)


def test_each_open_has_its_own(flat: dict[str, bytes]) -> None:
    with (
        dlopen.Library("plug.so", files=flat) as one,
        dlopen.Library("plug.so", files=flat) as other,
    ):
        assert (one.plug(), one.plug(), other.plug()) == (113, 117, 113)
        assert not {one.info, *one.info.dependencies[:2]} & {
            other.info,
            *other.info.dependencies[:2],
        }
        for name in ("plug.so", "libdep.so", "libbase.so"):
            with pytest.raises(dlopen.LoadError):
                dlopen.Library(name)
            with pytest.raises(dlopen.LoadError):
                dlopen.Library(name, dlopen.RTLD_NOLOAD, files=flat)


def test_a_global_one_is_found(flat: dict[str, bytes], tmp_path: Path) -> None:
    code = """
import sys, zipfile
import dlopen
files = zipfile.ZipFile(sys.argv[1])
files = {name: files.read(name) for name in files.namelist()}
one = dlopen.Library("libdep.so", dlopen.RTLD_GLOBAL, files=files)
# Needed by name, it is there: the other file is not looked at.
lib = dlopen.Library("plug.so", files={"plug.so": files["plug.so"]})
assert lib.info.dependencies[0] == one.info
assert lib.plug() == 113 and one.base() == 3
# But what is opened itself is looked for in the files.
other = dlopen.Library("libdep.so", files=files)
assert other.info != one.info
for library in (one, lib, other):
    library.close()
"""
    path = tmp_path / "files.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name, data in flat.items():
            made.writestr(name, data)
    run_python(code, str(path))


def test_a_missing_dependency(tree: dict[str, bytes]) -> None:
    del tree["lib/deeper/libbase.so"]
    before = maps()
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("plugins/plug.so", files=tree)
    error = caught.value
    assert error.library == "libbase.so"
    assert error.needed_by == "plugins/plug.so"
    for path in ("lib/libbase.so", "lib/deeper/libbase.so", "libbase.so"):
        assert (path, "not in files") in error.searched
    assert len({path for path, why in error.searched if why == "not in files"}) == sum(
        why == "not in files" for _, why in error.searched
    )
    assert gone(before)


def test_a_missing_library(tmp_path: Path) -> None:
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("./in/./plug.so", files={})
    assert caught.value.searched == (
        ("in/plug.so", "not in files"),
        ("./in/./plug.so", "No such file or directory"),
    )
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("plugnonesuch.so", files={})
    assert caught.value.searched[0] == ("plugnonesuch.so", "not in files")
    with pytest.raises(dlopen.LoadError):
        dlopen.Image(tmp_path / "plug.so", files={})


@pytest.mark.parametrize("data", [b"", b"no ELF file at all", b"\x7fELF", bytearray(5000)])
@pytest.mark.parametrize("path", ["plugins/plug.so", "lib/libdep.so"])
def test_what_is_no_library(tree: dict[str, bytes], path: str, data: bytes) -> None:
    before = maps()
    with pytest.raises(dlopen.LoadError, match=path):
        dlopen.Library("plugins/plug.so", files={**tree, path: data})
    assert gone(before)


def test_a_file_for_another_machine_is_passed_over(flat: dict[str, bytes]) -> None:
    other = bytearray(flat["libdep.so"])
    other[18:20] = (8).to_bytes(2, "little")  # e_machine: MIPS
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("plug.so", files={**flat, "libdep.so": other})
    assert caught.value.searched[0] == ("libdep.so", "for another machine or word size")


@pytest.mark.parametrize("bad", ["text", 5, ["plug.so"]])
def test_what_is_no_content(tree: dict[str, bytes], bad: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        dlopen.Library("plugins/plug.so", files={**tree, "lib/libdep.so": bad})


@pytest.mark.parametrize("bad", ["text", 5, ["plug.so"], b"bytes"])
def test_what_is_no_source(bad: Any) -> None:
    with pytest.raises(TypeError, match="files is"):
        dlopen.Library("plugins/plug.so", files=bad)


@pytest.mark.parametrize("exception", [KeyError, FileNotFoundError, KeyboardInterrupt])
def test_an_exception_ends_the_open(tree: dict[str, bytes], exception: type[BaseException]) -> None:
    before = maps()
    for last in tree:

        def files(path: str, last: str = last) -> bytes | None:
            if path == last:
                raise exception(path)
            return tree.get(path)

        with pytest.raises(exception) as caught:
            dlopen.Library("plugins/plug.so", files=files)
        assert caught.value.args[0] == last
        assert gone(before)
    with dlopen.Library("plugins/plug.so", files=tree) as lib:
        assert lib.plug() == 113


def test_an_exception_while_an_auxiliary_filtee_is_looked_for(tmp_path: Path) -> None:
    """Which may be missing; but not so."""
    flags = ["-Wl,-f,libreal.so"]
    data = compile_library(tmp_path, "libfilter.so", BASE, flags=flags).read_bytes()

    def files(path: str) -> bytes | None:
        if path == "libreal.so":
            raise ZeroDivisionError
        return data if path == "x.so" else None

    with dlopen.Library("x.so", files={"x.so": data}) as lib:
        assert lib.base() == 1
    before = maps()
    with pytest.raises(ZeroDivisionError):
        dlopen.Library("x.so", files=files)
    assert gone(before)


def test_a_broken_archive(flat: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as made:
        for path, data in flat.items():
            made.writestr(path, data)
    raw = bytearray(buffer.getvalue())
    raw[raw.index(b"libdep.so") + 2000] ^= 0xFF
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        dlopen.Library("plug.so", files=zipfile.ZipFile(io.BytesIO(raw)))


def test_each_path_is_asked_for_once(tree: dict[str, bytes]) -> None:
    asked = []

    def files(path: str) -> bytes | None:
        asked.append(path)
        return tree.get(path)

    with dlopen.Library("plugins/plug.so", files=files):
        assert len(asked) == len(set(asked)) < 6, asked


def test_buffers_are_held_until_the_open_returns(flat: dict[str, bytes]) -> None:
    buffers = {path: bytearray(data) for path, data in flat.items()}

    def files(path: str) -> bytearray | None:
        for buffer in given:
            with pytest.raises(BufferError):
                buffer.clear()
        if path in buffers:
            given.append(buffers[path])
        return buffers.get(path)

    given: list[bytearray] = []
    with dlopen.Library("plug.so", files=files) as lib:
        for buffer in buffers.values():
            buffer[:] = bytes(len(buffer))
            buffer.clear()
        assert lib.plug() == 113
    assert len(given) == 3


SYSTEM = {
    "libsqlite3.so.0": """
database, statement = c_void_p(), c_void_p()
assert lib.function("sqlite3_open", c_int, c_char_p, c_void_p)(b":memory:", byref(database)) == 0
prepare = lib.function("sqlite3_prepare_v2", c_int, c_void_p, c_char_p, c_int, c_void_p, c_void_p)
assert prepare(database, b"select 6 * length('seventh')", -1, byref(statement), None) == 0
lib.function("sqlite3_step", c_int, c_void_p)(statement)
assert lib.function("sqlite3_column_int", c_int, c_void_p, c_int)(statement, 0) == 42
lib.function("sqlite3_finalize", c_int, c_void_p)(statement)
lib.function("sqlite3_close", c_int, c_void_p)(database)
""",
    "libxml2.so.2": """
read = lib.function("xmlReadMemory", c_void_p, c_char_p, c_int, c_char_p, c_char_p, c_int)
document = read(b"<a><b/><b/></a>", 15, b"x", None, 0)
root = lib.function("xmlDocGetRootElement", c_void_p, c_void_p)(document)
assert lib.function("xmlChildElementCount", c_size_t, c_void_p)(root) == 2
lib.function("xmlFreeDoc", None, c_void_p)(document)
""",
    "libz.so.1": """
import zlib
crc32 = lib.function("crc32", c_ulong, c_ulong, c_char_p, c_uint)
assert crc32(0, b"hello", 5) == zlib.crc32(b"hello")
""",
}


# The same functions under a later soname.
LATER = {"libxml2.so.2": ("libxml2.so.16",)}


@pytest.mark.parametrize("name", SYSTEM)
def test_libraries_of_the_system(name: str) -> None:
    """With all that they need; some interpreters have loaded some of it already."""
    here = [soname for soname in (name, *LATER.get(name, ())) if dlopen.find(soname).path]
    if not here:
        missing(f"{name} is not installed")
    code = """
import sys
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_ulong, c_void_p
from pathlib import Path
import dlopen

def maps():
    # Copies may be there under the same name, as [anon:dlopen: NAME].
    return "".join(line for line in Path("/proc/self/maps").open() if "[anon:" not in line)

left, files = [sys.argv[1]], {}
while left:
    name = left.pop()
    found = dlopen.find(name)
    # What is needed and loaded already is shared.
    if name in files or (found.candidates[0].origin == "loaded" and name != sys.argv[1]):
        continue
    files[name] = Path(found.path).read_bytes()
    with dlopen.Image(found.path) as image:
        left += image.info.needed
before = maps()
lib = dlopen.Library(sys.argv[1], files=files)
mine = [info for info in dlopen.libraries() if info.soname in files and not info.is_host]
assert all(info.path in files and info.inode == 0 for info in mine), mine
assert {info.soname for info in mine} == files.keys() - {"libstdc++.so.6", "libgcc_s.so.1"}
for info in mine:
    assert maps().count(info.soname) == before.count(info.soname)
exec(sys.argv[2])
lib.close()
assert not lib.unload_blockers
print(len(mine))
"""
    count = int(run_python(code, here[0], SYSTEM[name]).stdout)
    assert count >= 1  # how many more it needs is the release's affair


def test_what_must_be_the_hosts_is_not_taken(tmp_path: Path) -> None:
    """There is one libc in a process, and one of each of the others."""
    names = ("libc.so.6", "libstdc++.so.6", "libgcc_s.so.1", machine().loader)
    source = """
#include <string>
extern "C" int length(const char *text) { return std::string(text).size(); }
"""
    library = compile_library(tmp_path, "libcxx.so", source, language="c++")
    code = """
import sys
from pathlib import Path
import dlopen
path, *names = sys.argv[1:]
found = {name: dlopen.find(name).path for name in names}
files = {name: Path(path).read_bytes() for name, path in found.items() if path}
files["x.so"] = Path(path).read_bytes()
with dlopen.Library("x.so", files=files) as lib:
    assert lib.length(b"four") == 4
    for info in lib.info.dependencies:
        assert info.is_host or info.soname not in names, info
    for name in names:
        with dlopen.Library(name, files=files) as one:
            assert one.info.is_host, name
for name in names:
    assert sum(info.soname == name for info in dlopen.libraries()) <= 1, name
"""
    run_python(code, str(library), *names)


def test_one_that_must_be_the_hosts_and_is_nowhere(tmp_path: Path) -> None:
    needed = compile_library(tmp_path, "libpython3.nonesuch.so", BASE)
    plug = compile_library(tmp_path, "x.so", DEP, libraries=[needed], rpath="")
    files = {file.name: file.read_bytes() for file in (needed, plug)}
    needed.unlink()
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library("x.so", files=files)
    assert caught.value.searched[0] == ("libpython3.nonesuch.so", "it must be the host's own")


def test_a_function_that_opens_libraries(
    flat: dict[str, bytes], example: Path, tmp_path: Path
) -> None:
    """Ours, the host's, and one with files of its own."""
    of_host = compile_library(tmp_path, "libhost.so", BASE)
    seen = []

    def files(path: str) -> bytes | None:
        with dlopen.Library(example) as one, dlopen.Library("plug.so", files=flat) as other:
            seen.append((one.add(1, 2), other.plug()))
        ctypes.CDLL(str(of_host))
        return flat.get(path)

    with dlopen.Library("plug.so", files=files) as lib:
        assert lib.plug() == 113
    assert seen
    assert set(seen) == {(3, 113)}


def test_a_function_that_closes_what_the_open_found(tmp_path: Path) -> None:
    """The library that answers to the first needed name goes while the second is looked for."""
    base = compile_library(tmp_path, "libbase.so", BASE)
    other = compile_library(tmp_path, "libother.so", "int other(void) { return 5; }")
    source = "int base(void); int other(void); int both(void) { return base() + other(); }"
    both = compile_library(tmp_path, "both.so", source, libraries=[base, other], rpath="")
    held = dlopen.Library(base)

    def files(path: str) -> bytes | None:
        if path == "libother.so":
            held.close()
        return {"both.so": both, "libother.so": other}[path].read_bytes()

    with dlopen.Library("both.so", files=files) as lib:
        assert lib.both() == 6
        assert lib.info.dependencies[0].path == str(base)
    assert not lib.unload_blockers


def test_threads(flat: dict[str, bytes], example: Path) -> None:
    errors: list[BaseException] = []
    made = archive(flat)

    def work() -> None:
        try:
            for _ in range(30):
                with (
                    dlopen.Library("plug.so", files=made) as lib,
                    dlopen.Library(example) as other,
                ):
                    assert lib.plug() == 113
                    assert other.add(1, 1) == 2
        except BaseException as problem:  # noqa: BLE001  (to be raised where it is seen)
            errors.append(problem)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_dropped_one_warns(flat: dict[str, bytes]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lib = dlopen.Library("plug.so", files=flat)
        image = lib._image
        del lib
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert image is not None
    dlopen._linker.close(image)


def test_replacements_in_a_tree_from_files(flat: dict[str, bytes]) -> None:
    replacement = dlopen.callback(ctypes.c_int)(lambda: 7)
    with dlopen.Library(
        "plug.so", files=flat, replace={"base": replacement}, replace_in="tree"
    ) as lib:
        assert lib.plug() == 100 + 17 + 7


def test_a_private_tree(tree: dict[str, bytes]) -> None:
    with dlopen.Library("plugins/plug.so", dlopen.PRIVATE, files=tree) as lib:
        assert lib.plug() == 113
        assert lib.info.is_private
        assert lib.info.dependencies[0].is_private


def test_an_image(tree: dict[str, bytes]) -> None:
    asked = []

    def files(path: str) -> bytes | None:
        asked.append(path)
        return tree.get(path)

    with dlopen.Image("./lib/../lib/libdep.so", files=files) as image:
        assert image.info.path == "lib/libdep.so"
        assert image.info.needed[0] == "libbase.so"
    assert asked == ["lib/libdep.so"]
    with dlopen.Image("libz.so.1", files=tree) as image:
        assert image.info.soname == "libz.so.1"
    with pytest.raises(ZeroDivisionError):
        dlopen.Image("libz.so.1", files=lambda _: 1 / 0)  # type: ignore[arg-type]


def test_names_that_are_no_text(flat: dict[str, bytes]) -> None:
    """As everywhere in Python: surrogates stand for bytes that are not UTF-8."""
    path = b"in\xff/plug.so".decode("utf-8", "surrogateescape")
    with dlopen.Library(b"in\xff/plug.so", files={**flat, path: flat["plug.so"]}) as lib:
        assert lib.plug() == 113
        assert lib.info.path == path


def test_a_folder_gives_nothing_from_elsewhere(tmp_path: Path, tree: dict[str, bytes]) -> None:
    folder = tmp_path / "packed"
    folder.mkdir()
    (tmp_path / "outside.so").write_bytes(tree["lib/deeper/libbase.so"])
    with dlopen.Library(tmp_path / "outside.so", files=folder) as lib:
        assert lib.info.inode != 0
    for name in ("../outside.so", "in/../../outside.so"):
        with pytest.raises(dlopen.LoadError):
            dlopen.Library(name, files=folder)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("./a", "a"),
        ("a/./b/", "a/b"),
        ("a//b", "a/b"),
        ("a/../b", "b"),
        ("a/b/../../c", "c"),
        ("../a", "../a"),
        ("a/../../b", "../b"),
        ("../../a/../b", "../../b"),
        ("../a/../../b", "../../b"),
        ("/a", "/a"),
        ("/../a", "/a"),
        ("/a/b/../..//c", "/c"),
        ("./..", ".."),
        ("a/..", "."),
        ("/a/..", "/"),
        (".a/..b/...", ".a/..b/..."),
        ("/.", "/"),
    ],
)
def test_plain_paths(path: str, plain: str) -> None:
    """As posixpath.normpath has them."""
    import posixpath  # noqa: PLC0415

    assert posixpath.normpath(path) == plain
    asked: list[str] = []
    with pytest.raises(dlopen.LoadError):
        dlopen.Library(path, files=asked.append)
    assert asked == [plain]


def test_importing_does_not_import_what_files_may_be() -> None:
    code = "import sys, dlopen; print({'zipfile', 'importlib.resources'} & sys.modules.keys())"
    assert run_python(code).stdout == "set()\n"


def test_a_debugger_gets_a_file_of_each(flat: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in flat.items():
        (tmp_path / name).write_bytes(data)
    code = """
import sys
from pathlib import Path
import dlopen
folder = Path(sys.argv[1])
def kept():
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [link.read_bytes() for link in links if "memfd:" in str(link.readlink())]
lib = dlopen.Library("plug.so", files=folder)
assert sorted(kept()) == sorted(file.read_bytes() for file in folder.glob("*.so"))
lib.close()
try:
    dlopen.Library("plug.so", files={"plug.so": (folder / "plug.so").read_bytes()})
except dlopen.LoadError:
    pass
assert not kept()
"""
    run_python(code, str(tmp_path), env={"DLOPEN_DEBUGGER": "gdb"})


def test_an_open_that_begins_anew_asks_for_nothing_twice(tmp_path: Path) -> None:
    """Meanwhile somebody else has loaded a file that this open has loaded."""
    base = compile_library(tmp_path, "libbase.so", BASE)
    dep = compile_library(tmp_path, "libdep.so", "int dep(void) { return 1; }")
    plug = compile_library(tmp_path, "plug.so", PLUG, libraries=[base, dep], rpath=str(tmp_path))
    content = {file.name: file.read_bytes() for file in (dep, plug)}
    dep.unlink()
    asked = []
    opened = []

    def files(path: str) -> bytes | None:
        asked.append(path)
        if path == "libdep.so":
            opened.append(dlopen.Library(base))
            assert opened[0].base() == 1
        return content.get(path)

    with dlopen.Library("plug.so", files=files) as lib:
        assert lib.plug() == 100 + 1 + 2
        assert lib.info.dependencies[0] == opened[0].info
    assert len(asked) == len(set(asked))
    opened[0].close()
    assert not opened[0].unload_blockers


def test_what_a_library_opens_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later, from the file system: its relative paths are the working directory's then."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    compile_library(tmp_path / "in", "libbase.so", BASE)
    source = """
#include <dlfcn.h>
int opens(const char *name) {
  void *handle = dlopen(name, RTLD_NOW);
  return handle ? 1 + dlclose(handle) : 0;
}
"""
    file = compile_library(tmp_path, "x.so", source, flags=["-Wl,-rpath,$ORIGIN"])
    with dlopen.Library("in/x.so", files={"in/x.so": file.read_bytes()}) as lib:
        assert lib.opens(b"./in/libbase.so") == 1
        assert lib.opens(b"libz.so.1") == 1
        # Where it is packed there is nothing any more.
        assert lib.opens(b"$ORIGIN/libbase.so") == 0
        assert lib.opens(b"libbase.so") == 0


def test_the_log_names_what_is_asked_for(tree: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "files.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name, data in tree.items():
            made.writestr(name, data)
    code = """
import sys, zipfile
import dlopen
dlopen.Library("plugins/plug.so", files=zipfile.ZipFile(sys.argv[1])).close()
"""
    log = run_python(code, str(path), env={"DLOPEN_LOG": "debug"}).stderr
    for line in (
        "search plugins/plug.so: try plugins/plug.so (files): found",
        f"search libbase.so: try {path}/lib/libbase.so (files): not in files",
        f"search libbase.so: try {path}/lib/deeper/libbase.so (files): found",
        f"load {path}/lib/deeper/libbase.so",
    ):
        assert line in log
