"""The images of the process, addresses, and where names come from."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import dlopen
from support.fixtures import compile_library, maps, run_python


class LinkMap(ctypes.Structure):
    """<link.h>."""


LinkMap._fields_ = (
    ("l_addr", ctypes.c_uint64),
    ("l_name", ctypes.c_char_p),
    ("l_ld", ctypes.c_void_p),
    ("l_next", ctypes.POINTER(LinkMap)),
)


class Debug(ctypes.Structure):
    """Struct r_debug of <link.h>: its beginning."""

    _fields_ = (("r_version", ctypes.c_int), ("r_map", ctypes.POINTER(LinkMap)))


def host_images() -> list[tuple[int, str]]:
    """(load bias, name) of the system loader's own list."""
    found = []
    entry = Debug.in_dll(ctypes.CDLL(None), "_r_debug").r_map
    while entry:
        found.append((entry.contents.l_addr, os.fsdecode(entry.contents.l_name or b"")))
        entry = entry.contents.l_next
    return found


def test_libraries_are_the_hosts_and_ours(example: Path) -> None:
    with dlopen.Library(example) as library:
        images = dlopen.libraries()
        assert library.info in images
        host = [info for info in images if info.is_host]
        named = {(bias, name) for bias, name in host_images() if name and "vdso" not in name}
        assert named <= {(info.load_bias, info.name) for info in host}
        assert images.index(library.info) >= len(host)
    assert all(info.path != str(example) for info in dlopen.libraries())


def test_dl_iterate_phdr(example: Path) -> None:
    with dlopen.Library(example) as library:
        seen: list[dlopen.Info] = []
        assert dlopen.dl_iterate_phdr(seen.append) == 0
        assert seen == dlopen.libraries()
        names = []

        def stop(info: dlopen.Info) -> str | None:
            names.append(info.name)
            return info.path if info == library.info else None

        assert dlopen.dl_iterate_phdr(stop) == str(example)
        assert names[-1] == library.info.name


def test_the_system_never_saw_our_libraries(example: Path) -> None:
    """Its link map does not hold them, and it cannot find them by name."""
    memory = dlopen.Library.from_bytes(example.read_bytes(), name="libfrommemory.so")
    with dlopen.Library(example) as library, memory:
        ours = {library.info.load_bias, memory.info.load_bias}
        host = host_images()
        assert len(host) > 2
        assert not ours & {bias for bias, _ in host}
        assert not {name for _, name in host} & {str(example), "libfrommemory.so"}
        for name in (str(example), "libexample.so", "libfrommemory.so"):
            with pytest.raises(OSError, match=r"dlopen|cannot open"):
                ctypes.CDLL(name, os.RTLD_NOLOAD | os.RTLD_NOW)
    ctypes.CDLL("libc.so.6", os.RTLD_NOLOAD | os.RTLD_NOW)  # what is there, it finds


def test_existing(example: Path) -> None:
    with pytest.raises(dlopen.LoadError):
        dlopen.existing("libexample.so")
    library = dlopen.Library(example)
    for name in (str(example), "libexample.so"):
        with dlopen.existing(name) as again:
            assert again.info == library.info
            assert again.info.open_count == 2
            assert again.add(1, 2) == 3
    with dlopen.existing("libexample.so") as again:
        library.close()
        assert again.add(1, 2) == 3  # counted
    assert not any(mapping.path == str(example) for mapping in maps())


def test_existing_finds_the_hosts() -> None:
    with dlopen.existing("libc.so.6") as libc:
        assert libc.info.is_host
        assert libc.getpid() == os.getpid()
        assert Path(libc.info.path).name == "libc.so.6"
    assert ctypes.CDLL(None).getpid() == os.getpid()


def test_dladdr(example: Path) -> None:
    with dlopen.Library(example) as library:
        add = library.symbols["add"]
        found = dlopen.dladdr(add.address + 1)
        assert found is not None
        assert found.library == library.info
        assert found.symbol is not None
        assert (found.symbol.name, found.offset) == ("add", 1)
        assert found.symbol.address == add.address
        for address in (add, library.add, ctypes.c_void_p(add.address)):
            assert dlopen.dladdr(address).symbol.name == "add"  # type: ignore[union-attr]
    assert dlopen.dladdr(add_address := found.symbol.address) is None, hex(add_address)


def test_dladdr_elsewhere() -> None:
    assert dlopen.dladdr(0) is None
    assert dlopen.dladdr(16) is None
    found = dlopen.dladdr(ctypes.CDLL(None).getpid)
    assert found is not None
    assert Path(found.library.path).name == "libc.so.6"
    assert found.symbol is not None
    assert found.symbol.name in ("getpid", "__getpid")
    assert found.offset == 0


def test_dladdr_of_a_closed_function(example: Path) -> None:
    library = dlopen.Library(example)
    add = library.add
    library.close()
    with pytest.raises(ValueError, match="no address"):
        dlopen.dladdr(add)


def test_find(tmp_path: Path) -> None:
    with pytest.raises(dlopen.LoadError):
        dlopen.existing("libnowhere.so")
    nowhere = dlopen.find("libnowhere.so")
    assert nowhere.path is None
    assert nowhere.candidates
    assert all(candidate.reason for candidate in nowhere.candidates)
    assert all(Path(candidate.path).name == "libnowhere.so" for candidate in nowhere.candidates)

    path = compile_library(tmp_path, "libfound.so", "int one(void) { return 1; }")
    found = dlopen.find(path)
    assert found.path == str(path)
    assert found.candidates[-1].reason == ""
    assert not any(mapping.path == str(path) for mapping in maps())


def test_find_agrees_with_what_is_opened() -> None:
    found = dlopen.find("libc.so.6")
    with dlopen.existing("libc.so.6") as libc:
        assert found.path is not None
        assert Path(found.path).samefile(libc.info.path)


def test_host_libraries_are_known_as_files_are() -> None:
    """Needs, relocations and counts of the host's are those that its file has."""
    import ssl  # noqa: F401, PLC0415  (brings libraries that came late)

    seen = 0
    for info in dlopen.libraries():
        if not info.is_host or not info.path.startswith("/") or info.path == sys_executable():
            continue
        with dlopen.Image(info.path) as image:
            file = image.info
            assert info.relocation_count == len(info.relocations) == len(file.relocations)
            assert [(one.place - info.load_bias, *tuple(one)[1:]) for one in info.relocations] == [
                (one.place - file.load_bias, *tuple(one)[1:]) for one in file.relocations
            ]
            for name in ("needed", "soname", "interpreter", "symbol_count", "versions", "runpath"):
                assert getattr(info, name) == getattr(file, name), (info.path, name)
        assert [one.soname for one in info.dependencies] == list(info.needed)
        assert all(one.is_host for one in info.dependencies)
        seen += 1
    assert seen > 4


def sys_executable() -> str:
    return str(Path("/proc/self/exe").readlink())


def test_relocations_of_the_host_agree_with_readelf() -> None:
    """By kind of table, as pyelftools counts them in the file."""
    with dlopen.existing("libc.so.6") as libc, Path(libc.info.path).open("rb") as file:
        elf = ELFFile(file)
        tables = {section.name: section for section in elf.iter_sections()}
        of_kind = {
            "RELA": tables[".rela.dyn"].num_relocations(),
            "JMPREL": tables[".rela.plt"].num_relocations(),
        }
        found = [one.table for one in libc.info.relocations]
        assert {kind: found.count(kind) for kind in of_kind} == of_kind


def test_the_programs_path_is_its_files() -> None:
    with dlopen.Library(None) as program:
        assert program.info.path == sys_executable()


EXISTING = """
import os, shutil, ssl, sys
from pathlib import Path
import dlopen
example, folder = sys.argv[1:]
data = Path(example).read_bytes()
copies = [shutil.copy(example, f"{folder}/lib{name}.so") for name in ("private", "space", "hand")]
space = dlopen.Namespace("existing")
with dlopen.Image(copies[2]) as image:
    hand = image.relocate([dlopen.existing("libc.so.6")])
opened = [
    hand,
    dlopen.Library(example),
    dlopen.Library.from_bytes(data, name="libfrommemory.so"),
    dlopen.Library(copies[0], dlopen.PRIVATE),
    dlopen.Library("inside/libexample.so", files={"inside/libexample.so": data}),
    space.load(copies[1]),
]
images = dlopen.libraries()
assert {library.info for library in opened} <= set(images)
paths = [info.path for info in images]
assert os.readlink("/proc/self/exe") in paths and len(set(paths)) == len(paths)
for info in images:
    with dlopen.existing(info) as by_info, dlopen.existing(info.path) as by_path:
        assert by_info.info == by_path.info == info, info
        assert by_info.info.open_count == info.open_count + 2
assert [info.open_count for info in dlopen.libraries()] == [info.open_count for info in images]
for library in opened:
    library.close()
"""


def test_existing_takes_what_libraries_gives(tmp_path: Path, example: Path) -> None:
    """Each image, whoever loaded it and how, by its `Info` and by its path."""
    run_python(EXISTING, str(example), str(tmp_path))


def test_an_info_is_that_very_image(example: Path) -> None:
    """Of copies with one path, the one that it is of; and none after it has gone."""
    with dlopen.Library(example, dlopen.PRIVATE), dlopen.Library(example, dlopen.PRIVATE) as two:
        info = two.info
        with dlopen.existing(info) as again:
            assert again.info == info
            assert two.count() == 6
            assert again.variable("counter", ctypes.c_int).value == 6
            two.close()
            assert again.count() == 7  # counted
    with dlopen.Library(example) as library:
        gone = library.info
    with pytest.raises(ValueError, match="not loaded any more"):
        dlopen.existing(gone)
    with dlopen.Image(example) as image, pytest.raises(dlopen.Error, match="not linked"):
        dlopen.existing(image.info)
