"""Big libraries: those that this machine has, and those of two wheels."""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import libraries
from libraries import MissingError

from support.elf64 import PT_DYNAMIC, Elf

# There is one of each in a process.
OF_LIBC = re.compile(r"(?:ld-linux.*|lib(?:c|m|dl|pthread|rt|resolv|util|anl)\.so\..*)")
HOST_ONLY = ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1")
DT_INIT, DT_BIND_NOW, DT_INIT_ARRAYSZ = 12, 24, 27


@dataclass(frozen=True)
class Big:
    """A library, and whether what it refers to is in Python's own program."""

    name: str
    find: Callable[[], Path]
    of_python: bool = False


@cache
def cached() -> dict[str, Path]:
    """What ldconfig(8) knows, by name."""
    done = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False)
    found = re.findall(r"^\s*(\S+) \(libc6,[^)]*\) => (\S+)$", done.stdout, re.MULTILINE)
    return {name: Path(path) for name, path in reversed(found)}


def installed(name: str) -> Path:
    """The library of the newest name that matches."""
    matching = [key for key in cached() if re.fullmatch(name, key)]
    if not matching:
        raise MissingError("not installed")
    numbers = {key: [int(n) for n in re.findall(r"\d+", key)] for key in matching}
    return cached()[max(matching, key=numbers.__getitem__)].resolve()


def java() -> Path:
    """The virtual machine of the newest Java."""
    found = sorted(Path("/usr/lib/jvm").glob("*/lib/server/libjvm.so"))
    if not found:
        raise MissingError("not installed")
    return found[-1].resolve()


def of_wheel(module: str, file: str) -> Path:
    """A file beside the code of a package, which is not imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingError("not installed")
    found = sorted(Path(spec.origin).parent.glob(file))
    if not found:
        raise MissingError("not in its wheel")
    return found[0]


CASES = (
    Big("libLLVM", partial(installed, r"libLLVM-\d+\.so\.1|libLLVM\.so\.[\d.]+")),
    Big("libclang-cpp", partial(installed, r"libclang-cpp\.so\.[\d.]+")),
    Big("libjvm", java),
    Big("WebKitGTK", partial(installed, r"libwebkit2gtk-4\.[01]\.so\.\d+")),
    Big("GDAL", partial(installed, r"libgdal\.so\.\d+")),
    Big("Qt WebEngine", partial(installed, r"libQt[56]WebEngineCore\.so\.\d+")),
    Big("libclang's wheel", partial(of_wheel, "clang", "native/libclang.so"), of_python=True),
    Big("DuckDB's wheel", partial(of_wheel, "_duckdb", "_duckdb*.so"), of_python=True),
)


def needed(root: Path) -> dict[str, Path]:
    """The libraries that libc's loader brings in for this one, but for its own."""
    done = subprocess.run(["ldd", str(root)], capture_output=True, text=True, check=False)
    found = re.findall(r"^\t(\S+) => (/\S+) \(", done.stdout, re.MULTILINE)
    return {name: Path(path) for name, path in found if not OF_LIBC.fullmatch(name)}


def silenced(content: bytearray, path: Path) -> None:
    """Without constructors: as if there were no DT_INIT, and none in DT_INIT_ARRAY."""
    segment = Elf(path).segment(PT_DYNAMIC)
    assert segment
    for at in range(segment.offset, segment.offset + segment.file_size, 16):
        tag, _ = struct.unpack_from("<qQ", content, at)
        if tag == DT_INIT:
            struct.pack_into("<qQ", content, at, DT_BIND_NOW, 0)
        elif tag == DT_INIT_ARRAYSZ:
            struct.pack_into("<qQ", content, at, DT_INIT_ARRAYSZ, 0)


def without_constructors(root: Path) -> Path:
    """A copy of the library, beside copies of all that it needs; none has constructors."""
    folder = libraries.BUILD / "silenced" / root.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in {**needed(root), root.name: root}.items():
        copy = folder / name
        if copy.exists() and copy.stat().st_mtime > path.stat().st_mtime:
            continue
        content = bytearray(path.read_bytes())
        silenced(content, path)
        copy.write_bytes(content)
    return folder / root.name
