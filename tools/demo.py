"""Load a real library of this system from its bytes, call it, look into it, and unload it.

Exit status 1 if anything is not as it should be.
"""

from __future__ import annotations

import binascii
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import dlopen

TEXT = b"A dynamic linker, in Python."
FIXTURE = """
#include <string.h>
unsigned long demo_length(const char *text) { return strlen(text); }
"""


class MismatchError(Exception):
    """Something is not as it should be."""


def expect(what: str, got: object, wanted: object) -> None:
    """Show a result, and check it against one from elsewhere."""
    print(f"   {what} = {got!r}")
    if got != wanted:
        raise MismatchError(f"{what} gave {got!r}, but it should be {wanted!r}")


def check_zlib(library: dlopen.Library) -> None:
    """CRC-32, and the round trip of some text."""
    crc32 = library.function(
        "crc32", ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_uint
    )
    expect(f"crc32({TEXT.decode()!r})", crc32(0, TEXT, len(TEXT)), binascii.crc32(TEXT))
    packed, unpacked = ctypes.create_string_buffer(4096), ctypes.create_string_buffer(4096)
    size = ctypes.c_ulong(len(packed))
    data = TEXT * 100
    if library.compress(packed, ctypes.byref(size), data, ctypes.c_ulong(len(data))):
        raise MismatchError("compress failed")
    print(f"   compress: {len(data)} bytes become {size.value}")
    out = ctypes.c_ulong(len(unpacked))
    library.uncompress(unpacked, ctypes.byref(out), packed, size)
    expect("uncompress gives them back", unpacked.raw[: out.value] == data, True)


def check_lzma(library: dlopen.Library) -> None:
    """CRC-32."""
    crc32 = library.function(
        "lzma_crc32", ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32
    )
    expect(f"lzma_crc32({TEXT.decode()!r})", crc32(TEXT, len(TEXT), 0), binascii.crc32(TEXT))


def check_bzip2(library: dlopen.Library) -> None:
    """The round trip of some text."""
    packed, unpacked = ctypes.create_string_buffer(4096), ctypes.create_string_buffer(4096)
    size, out = ctypes.c_uint(len(packed)), ctypes.c_uint(len(unpacked))
    compress, decompress = (
        library.BZ2_bzBuffToBuffCompress,
        library.BZ2_bzBuffToBuffDecompress,
    )
    compress(packed, ctypes.byref(size), TEXT, len(TEXT), 9, 0, 0)
    decompress(unpacked, ctypes.byref(out), packed, size.value, 0, 0)
    expect("compressed, decompressed", unpacked.raw[: out.value], TEXT)


def check_sqlite(library: dlopen.Library) -> None:
    """An answer in SQL."""
    version = library.function("sqlite3_libversion", ctypes.c_char_p)()
    database, statement = ctypes.c_void_p(), ctypes.c_void_p()
    library.sqlite3_open(b":memory:", ctypes.byref(database))
    library.sqlite3_prepare_v2(database, b"select 6*7", -1, ctypes.byref(statement), None)
    library.sqlite3_step(statement)
    expect(f"select 6*7 in SQLite {version.decode()}", library.sqlite3_column_int(statement, 0), 42)
    library.sqlite3_finalize(statement)
    library.sqlite3_close(database)


def check_fixture(library: dlopen.Library) -> None:
    """The length of a text."""
    length = library.function("demo_length", ctypes.c_ulong, ctypes.c_char_p)
    expect(f"demo_length({TEXT.decode()!r})", length(TEXT), len(TEXT))


CANDIDATES: list[tuple[str, Callable[[dlopen.Library], None]]] = [
    ("libz.so.1", check_zlib),
    ("libsqlite3.so.0", check_sqlite),
    ("liblzma.so.5", check_lzma),
    ("libbz2.so.1.0", check_bzip2),
]


def unfit(path: str, seen: set[str]) -> str:
    """Why a file cannot be the example, "" if it can; with what it needs and is not loaded yet."""
    with dlopen.Image(Path(path)) as image:
        info = image.info
    if info.tls:
        return f"{path} has thread-local storage"
    for name in info.needed:
        if name in seen:
            continue
        seen.add(name)
        try:
            dlopen.existing(name).close()
        except dlopen.LoadError:
            found = dlopen.find(name).path
            if found is None:
                return f"{path} needs {name}, which is not installed"
            if reason := unfit(found, seen):
                return reason
    return ""


def choose() -> tuple[str, bytes, Callable[[dlopen.Library], None]]:
    """The first library of the table that is installed and fits, else one made now."""
    for name, check in CANDIDATES:
        found = dlopen.find(name).path
        reason = "not installed"
        if found is not None:
            try:
                reason = unfit(found, set())
            except dlopen.LoadError as error:
                reason = str(error)
            if not reason:
                return found, Path(found).read_bytes(), check
        print(f"   {name}: {reason}")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise MismatchError("no library of the system fits, and there is no C compiler to make one")
    with tempfile.TemporaryDirectory() as scratch:
        source, library = Path(scratch, "demo.c"), Path(scratch, "libdemo.so")
        source.write_text(FIXTURE)
        command = [compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        return "libdemo.so, made now", library.read_bytes(), check_fixture


def mappings(start: int, end: int) -> list[str]:
    """The lines of /proc/self/maps inside an address range; see proc(5)."""
    lines = []
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
        low, high = (int(address, 16) for address in line.split()[0].split("-"))
        if start <= low and high <= end:
            lines.append(line)
    return lines


def show_bindings(library: dlopen.Library) -> None:
    """Some places that the linker filled in, and what they point to now."""
    bound = [place for place in library.info.relocations if place.symbol and place.width == 8]
    shown = 0
    for place in bound:
        value = ctypes.c_uint64.from_address(place.place).value
        target = dlopen.dladdr(value) if value else None
        if target is None:  # a weak reference to something that is not there
            continue
        # The process may have the same library too: bytes come first.
        own = library.symbols.get(place.symbol or "")
        if own is not None and target.library != library.info and own.binding != "UNIQUE":
            raise MismatchError(f"{place.symbol} is its own, but leads to {target.library.path}")
        shown += 1
        if shown > 6:
            continue
        name = f"{place.symbol}@{place.version}" if place.version else place.symbol
        where = os.path.basename(target.library.path) or "the program"  # noqa: PTH119
        offset = value - target.library.load_bias
        print(f"   {place.kind:<9} {name:<32} → {where} + {offset:#x}")
    if not shown:
        raise MismatchError("no symbol was bound")
    print(f"   … {len(bound)} places refer to symbols, of {library.info.relocation_count} in all")


def demo() -> None:
    """The whole story."""
    print("1. A library of this system:")
    origin, data, check = choose()
    print(f"   {origin}, {len(data):,} bytes")

    print("2. Loaded from these bytes:")
    library = dlopen.Library.from_bytes(data, name="from-memory.so")
    info = library.info
    print(f"   {library!r}: {info.soname or 'no soname'}, {len(library.symbols)} symbols,")
    print(f"   needs {', '.join(info.needed) or 'nothing'}")

    print("3. Mapped:")
    mapped = mappings(info.map_start, info.map_end)
    for line in mapped:
        address_range, permissions, *_ = line.split()
        low, high = (int(address, 16) for address in address_range.split("-"))
        print(f"   {address_range}  {permissions}  {(high - low) // 1024:>6} KiB")
    loads = [segment for segment in info.segments if segment.type == "LOAD"]
    for segment in loads:
        if not any(
            int(line.split("-")[0], 16) <= segment.address < int(line.split("-")[1].split()[0], 16)
            for line in mapped
        ):
            raise MismatchError(f"{segment} is not in /proc/self/maps")
    if any("w" in line.split()[1] and "x" in line.split()[1] for line in mapped):
        raise MismatchError("a page is both writable and executable")

    print("4. Bound:")
    show_bindings(library)

    print("5. Called:")
    function = library[next(key for key in library.symbols if library.symbols[key].type == "FUNC")]
    check(library)

    print("6. Unloaded:")
    library.close()
    left = set(mapped) & set(mappings(info.map_start, info.map_end))
    if left or library.unload_blockers:
        raise MismatchError(f"still mapped: {left or library.unload_blockers}")
    print(f"   nothing is left of {len(mapped)} mappings")
    try:
        function()
    except ValueError as error:
        print(f"   ValueError: {error}")
    else:
        raise MismatchError("a function of the closed library could be called")


def main() -> int:
    """Run the demo; return its exit status."""
    try:
        demo()
    except (MismatchError, dlopen.Error, OSError, subprocess.SubprocessError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    print("All as it should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
