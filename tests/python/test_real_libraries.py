"""Real libraries from their bytes, compared with Python's own; nothing is left after close."""

from __future__ import annotations

import ctypes
import random
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import dlopen
from support.fixtures import Mapping, compile_library, maps, run_python


def mappings(library: dlopen.Library) -> set[Mapping]:
    info = library.info
    found = {m for m in maps() if info.map_start <= m.start and m.end <= info.map_end}
    assert found
    return found


def test_zlib_compresses_ten_megabytes(need_library: Callable[[str], Path]) -> None:
    path = need_library("libz.so.1")
    generator = random.Random(1)
    text = generator.randbytes(5 << 20) + bytes(generator.choices(b"abcdef", k=5 << 20))
    library = dlopen.Library.from_bytes(path.read_bytes(), name="libz.so.1")
    mapped = mappings(library)
    ulong = ctypes.c_ulong
    bound = library.function("compressBound", ulong, ulong)(len(text))
    packed, size = ctypes.create_string_buffer(bound), ulong(bound)
    assert library.compress2(packed, ctypes.byref(size), text, ulong(len(text)), 6) == 0
    ours = packed.raw[: size.value]
    theirs = zlib.compress(text, 6)
    assert zlib.decompress(ours) == text
    version = library.function("zlibVersion", ctypes.c_char_p)().decode()
    if version == zlib.ZLIB_RUNTIME_VERSION:
        assert ours == theirs
    unpacked, length = ctypes.create_string_buffer(len(text)), ulong(len(text))
    assert library.uncompress(unpacked, ctypes.byref(length), theirs, ulong(len(theirs))) == 0
    assert unpacked.raw == text
    crc32 = library.function("crc32", ulong, ulong, ctypes.c_char_p, ctypes.c_uint)
    assert crc32(0, text, len(text)) == zlib.crc32(text)
    library.close()
    assert not mapped & set(maps())


SQL = """
create table t(name text, value real);
insert into t values('one', 1.5), ('two', 2.25), ('three', null), ('ä', 4);
create index i on t(name);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
insert into t select printf('%05d', i * 7919 % 1000), i / 7.0 from n;
"""
QUERY = """
select group_concat(name || '=' || ifnull(value, '-'), ';') from
(select * from t where name >= '005' or value is null order by name, value limit 300)
"""


def test_sqlite_answers_on_a_database_in_memory(need_library: Callable[[str], Path]) -> None:
    path = need_library("libsqlite3.so.0")
    theirs = sqlite3.connect(":memory:")
    theirs.executescript(SQL)
    wanted = theirs.execute(QUERY).fetchone()[0]
    theirs.close()
    library = dlopen.Library.from_bytes(path.read_bytes(), name="libsqlite3.so.0")
    mapped = mappings(library)
    pointer = ctypes.c_void_p
    database, statement = pointer(), pointer()
    assert library.sqlite3_open(b":memory:", ctypes.byref(database)) == 0
    assert library.sqlite3_exec(database, SQL.encode(), None, None, None) == 0
    library.sqlite3_prepare_v2(database, QUERY.encode(), -1, ctypes.byref(statement), None)
    assert library.sqlite3_step(statement) == 100  # SQLITE_ROW
    text = library.function("sqlite3_column_text", ctypes.c_char_p, pointer, ctypes.c_int)
    assert text(statement, 0).decode() == wanted
    library.sqlite3_finalize(statement)
    assert library.sqlite3_close(database) == 0
    library.close()
    assert not mapped & set(maps())


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG file of 8-bit RGBA pixels; see the PNG specification, sections 5 and 11."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(
        b"\0" + pixels[row * width * 4 : (row + 1) * width * 4] for row in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


class PngImage(ctypes.Structure):
    """png_image of png.h."""

    _fields_ = (
        ("opaque", ctypes.c_void_p),
        ("version", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("format", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("colormap_entries", ctypes.c_uint32),
        ("warning_or_error", ctypes.c_uint32),
        ("message", ctypes.c_char * 64),
    )


def test_libpng_decodes_a_picture(need_library: Callable[[str], Path]) -> None:
    path = need_library("libpng16.so.16")
    width, height = 61, 43
    pixels = bytes(
        value
        for y in range(height)
        for x in range(width)
        for value in (x * 4, y * 5, x ^ y, 255 - x)
    )
    data = png(width, height, pixels)
    library = dlopen.Library.from_bytes(path.read_bytes(), name="libpng16.so.16")
    mapped = mappings(library)
    image = PngImage(version=1)
    begin = library.png_image_begin_read_from_memory
    assert begin(ctypes.byref(image), data, ctypes.c_size_t(len(data))), image.message
    assert (image.width, image.height) == (width, height)
    image.format = 3  # PNG_FORMAT_RGBA
    buffer = ctypes.create_string_buffer(width * height * 4)
    finish = library.png_image_finish_read
    assert finish(ctypes.byref(image), None, buffer, 0, None), image.message
    assert buffer.raw == pixels
    library.close()
    assert not mapped & set(maps())


ROUNDS = """
import gc, os, sys
from pathlib import Path
import dlopen

path, way = sys.argv[1:]
data = Path(path).read_bytes()
opens = {
    "path": lambda: dlopen.Library(path),
    "private": lambda: dlopen.Library(path, dlopen.PRIVATE),
    "bytes": lambda: dlopen.Library.from_bytes(data, name="librounds.so"),
}

def rounds(count):
    for _ in range(count):
        with opens[way]() as library:
            assert library.one() == 1

def state():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    mappings = [line.split(maxsplit=5)[0:2] for line in Path("/proc/self/maps").open()]
    return mappings, len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE")

rounds(1000)  # then there is an index of the global scope, which has been searched so often
state()
before = state()
rounds(10_000)
after = state()
assert before[0] == after[0], (before[0], after[0])
assert before[1] == after[1], (before[1], after[1])
print(after[2] - before[2])
"""


@pytest.mark.emulated(reason="the emulator's own memory grows with each mapping, libc's, too")
@pytest.mark.parametrize("way", ["path", "private", "bytes"])
def test_ten_thousand_rounds_leave_nothing(tmp_path: Path, way: str) -> None:
    source = "int one(void) { return 1; } int zeroes[5000]; void *self = &self;"
    path = compile_library(tmp_path, "librounds.so", source)
    growth = int(run_python(ROUNDS, str(path), way, timeout=300).stdout)
    assert growth < 256 * 1024
