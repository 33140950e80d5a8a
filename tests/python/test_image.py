"""What is known of an image; images that are only mapped."""

from __future__ import annotations

import ctypes
import gc
from mmap import PAGESIZE
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import dlopen
from support.elf64 import PT_GNU_RELRO, Elf
from support.fixtures import compile_library, maps


def drop(objects: list[dlopen.Image]) -> None:
    objects.clear()
    gc.collect()


def test_each_field_of_an_info_is_filled_in(example: Path) -> None:
    public = [name for name in dlopen.Info.__annotations__ if not name.startswith("_")]
    assert len(public) > 20
    with dlopen.Library(example) as library:
        for info in (library.info, dlopen.libraries()[0]):
            assert [name for name in public if not hasattr(info, name)] == []


def test_info_of_a_library(example: Path) -> None:
    with dlopen.Library(example) as library:
        info = library.info
        assert info.path == str(example)
        assert info.soname == "libexample.so"
        assert "libc.so.6" in info.needed
        assert [Path(image.path).name for image in info.dependencies] == list(info.needed)
        assert all(image.is_host for image in info.dependencies)
        assert not info.is_host
        assert info.state == "ready"
        assert info.open_count == 1
        assert info.tls is None
        assert (info.rpath, info.interpreter) == (None, None)
        assert (info.device, info.inode) == (example.stat().st_dev, example.stat().st_ino)
        own = [mapping for mapping in maps() if mapping.path == str(example)]
        assert info.map_start == min(mapping.start for mapping in own)
        assert info.map_end >= max(mapping.end for mapping in own)
        with pytest.raises(AttributeError):
            info.path = "other"


def test_the_dynamic_section_is_the_files_until_it_is_linked(example: Path) -> None:
    def held(info: dlopen.Info) -> bytes:
        return ctypes.string_at(info.dynamic, section.header.p_filesz)

    with example.open("rb") as file:
        section = next(
            one for one in ELFFile(file).iter_segments() if one.header.p_type == "PT_DYNAMIC"
        )
        content = section.data()
        names = {tag.entry.d_val: tag.needed for tag in section.iter_tags("DT_NEEDED")}
    for image in (dlopen.Image(example), dlopen.Image.from_bytes(example.read_bytes())):
        assert held(image.info) == content
        with image.relocate([dlopen.existing("libc.so.6")]) as library:
            # As libc leaves it: the address of the strings is one of the process.
            entries = (ctypes.c_uint64 * (len(content) // 8)).from_address(library.info.dynamic)
            strings = entries[list(entries[::2]).index(5) * 2 + 1]  # DT_STRTAB
            for offset, name in names.items():
                assert ctypes.string_at(strings + offset) == name.encode()


def test_segments_are_the_program_headers(example: Path) -> None:
    with example.open("rb") as file, dlopen.Library(example) as library:
        info = library.info
        headers = [segment.header for segment in ELFFile(file).iter_segments()]
        assert [
            (segment.offset, segment.vaddr, segment.filesz, segment.memsz, segment.align)
            for segment in info.segments
        ] == [
            (header.p_offset, header.p_vaddr, header.p_filesz, header.p_memsz, header.p_align)
            for header in headers
        ]
        for segment, header in zip(info.segments, headers, strict=True):
            assert f"PT_{segment.type}" == header.p_type
            assert segment.flags == "".join(
                letter if header.p_flags & bit else "-"
                for letter, bit in (("r", 4), ("w", 2), ("x", 1))
            )
            assert segment.address == info.load_bias + header.p_vaddr


def read_only_bytes(info: dlopen.Info) -> int:
    """How many bytes of the writable segment cannot be written, as the kernel says."""
    (data,) = (one for one in info.segments if one.type == "LOAD" and "w" in one.flags)
    start, end = data.address // PAGESIZE * PAGESIZE, data.address + data.memsz
    return sum(
        max(0, min(mapping.end, end) - max(mapping.start, start))
        for mapping in maps()
        if mapping.permissions.startswith("r--")
    )


@pytest.mark.parametrize("host", [False, True])
@pytest.mark.parametrize("shorter", [0, 100, -1], ids=["whole", "within a page", "in one page"])
def test_size_of_relro(tmp_path: Path, shorter: int, host: bool) -> None:
    source = "int there; int *const sealed[2000] = {[0 ... 1999] = &there}; int variable = 1;"
    path = compile_library(tmp_path, "libsealed.so", source, flags=["-Wl,-z,relro,-z,now"])
    segments = Elf(path).segments
    (index,) = (i for i, one in enumerate(segments) if one.type == PT_GNU_RELRO)
    size = segments[index].memory_size - shorter if shorter >= 0 else 1
    data = bytearray(path.read_bytes())
    data[64 + 56 * index + 40 : 64 + 56 * index + 48] = size.to_bytes(8, "little")
    path.write_bytes(data)
    with dlopen.Image(path) as image:
        before = image.info
        assert read_only_bytes(before) == 0
    if host:
        ctypes.CDLL(str(path))
    with dlopen.existing(path) if host else dlopen.Library(path) as library:
        assert library.info.is_host == host
        assert library.info.relro_size == before.relro_size == read_only_bytes(library.info)
        assert (before.relro_size >= 2 * PAGESIZE) == (shorter >= 0)


def test_size_of_relro_without_the_header(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libopen.so", "int variable;", flags=["-Wl,-z,norelro"])
    assert Elf(path).segment(PT_GNU_RELRO) is None
    with dlopen.Library(path) as library:
        assert library.info.relro_size == 0


def test_relocations(example: Path) -> None:
    with dlopen.Library(example) as library:
        relocations = library.info.relocations
        assert len(relocations) == library.info.relocation_count
        by_symbol = {relocation.symbol: relocation for relocation in relocations}
        puts = by_symbol["puts"]
        assert puts.kind in ("JUMP_SLOT", "GLOB_DAT")
        assert puts.version.startswith("GLIBC_")
        bound = ctypes.c_uint64.from_address(puts.place).value
        found = dlopen.dladdr(bound)
        assert found is not None
        assert Path(found.library.path).name == "libc.so.6"
        relative = [relocation for relocation in relocations if relocation.kind == "RELATIVE"]
        assert relative
        for relocation in relative:
            assert relocation.symbol is None
            value = ctypes.c_uint64.from_address(relocation.place).value
            assert info_holds(library.info, value)


def info_holds(info: dlopen.Info, address: int) -> bool:
    return info.map_start <= address < info.map_end


def test_versions(example: Path) -> None:
    with dlopen.Library(example) as library:
        versions = library.info.versions
        defined = [version.name for version in versions if version.library is None]
        assert defined == ["libexample.so", "EXAMPLE_1", "EXAMPLE_2"]
        assert any(
            version.library == "libc.so.6" and version.name.startswith("GLIBC_")
            for version in versions
        )


def test_runpath_and_dependencies(tmp_path: Path) -> None:
    inner = compile_library(tmp_path, "libinner.so", "int inner(void) { return 1; }")
    outer = compile_library(
        tmp_path,
        "libouter.so",
        "int inner(void); int outer(void) { return inner(); }",
        libraries=[inner],
    )
    with dlopen.Library(outer) as library:
        assert library.info.runpath == "$ORIGIN"
        assert library.outer() == 1
        first = library.info.dependencies[0]
        assert first.path == str(inner)
        assert not first.is_host
        assert any(mapping.path == str(inner) for mapping in maps())
    assert not any(mapping.path in (str(inner), str(outer)) for mapping in maps())


def test_info_is_a_snapshot(example: Path) -> None:
    library = dlopen.Library(example)
    info = library.info
    library.close()
    assert info.soname == "libexample.so"
    assert info.segments
    with pytest.raises(ValueError, match="closed"):
        info.relocations  # noqa: B018
    with pytest.raises(ValueError, match="closed"):
        info.dependencies  # noqa: B018
    with pytest.raises(ValueError, match="closed"):
        library.info  # noqa: B018


@pytest.mark.parametrize("from_bytes", [False, True])
def test_image_is_mapped_and_not_run(tmp_path: Path, from_bytes: bool) -> None:
    marker = tmp_path / "ran"
    source = f"""
    #include <stdio.h>
    int missing(void);
    int call_missing(void) {{ return missing(); }}
    __attribute__((constructor)) static void run(void) {{ fopen("{marker}", "w"); }}
    """
    path = compile_library(tmp_path, "libunready.so", source)
    if from_bytes:
        image = dlopen.Image.from_bytes(path.read_bytes(), name="libunready.so")
    else:
        image = dlopen.Image(path)
    with image:
        assert image.info.state == "mapped"
        assert image.info.soname == "libunready.so"
        assert "libc.so.6" in image.info.needed
        assert image.info.dependencies == ()
        assert {"missing", "fopen"} <= {place.symbol for place in image.info.relocations}
        assert "call_missing" in image.symbols
        assert image.symbols["call_missing"].type == "FUNC"
        start = image.info.map_start
        assert any(mapping.start == start for mapping in maps())
    assert image.closed
    assert not marker.exists()
    with pytest.raises(ValueError, match="closed"):
        image.info  # noqa: B018


def test_an_image_is_nothing_that_others_find(example: Path) -> None:
    with dlopen.Image(example), pytest.raises(dlopen.LoadError):
        dlopen.existing(str(example))


def test_a_dropped_image_warns(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libdropped.so", "int one(void) { return 1; }")
    images = [dlopen.Image(path)]
    with pytest.warns(ResourceWarning, match="unclosed"):
        drop(images)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 100, bytes(4096)])
def test_bad_bytes(data: bytes) -> None:
    for load in (dlopen.Image.from_bytes, dlopen.Library.from_bytes):
        with pytest.raises(dlopen.LoadError) as caught:
            load(data, name="libbad.so")
        assert caught.value.library == "libbad.so"
        assert caught.value.reason
        assert "libbad.so" in str(caught.value)


def test_repr_of_an_info_says_what_it_is(example: Path) -> None:
    """Whose it is, its state, where it lies, how often it is open and what it needs."""
    with dlopen.Library(example) as library, dlopen.Library(example) as again:
        info = library.info
        where = f"{info.map_start:#x}-{info.map_end:#x}"
        assert repr(again.info) == (
            f"<dlopen.Info {str(example)!r} at {where}: ours; ready; open count 2; needs libc.so.6>"
        )
    with dlopen.Library(example, dlopen.PRIVATE | dlopen.RTLD_GLOBAL) as library:
        assert ": private; global; ready; open count 1;" in repr(library.info)
    with dlopen.Image.from_bytes(example.read_bytes(), name="other.so") as image:
        text = repr(image.info)
        assert "'other.so'" in text
        assert "soname 'libexample.so'" in text
        assert "mapped" in text
    with dlopen.existing("libc.so.6") as libc:
        assert "the host's; global; ready" in repr(libc.info)
    with dlopen.Namespace("repr") as space:
        assert f"namespace {space.load(example).info.namespace_id};" in repr(space.libraries[0])
