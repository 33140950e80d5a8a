"""The layers of the core import downwards only, and nothing below the package knows Python."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "dlopen"
# Each layer may import from those before it, and from itself.
LAYERS = (
    "base",
    "elf",
    "memory",
    "arch",
    "image",
    "symbols",
    "tls",
    "relocation",
    "host",
    "search",
    "running",
    "opening",
    "closing",
    "family",
    "face",
)
CIMPORT = re.compile(r"^\s*from\s+([\w.]+)\s+cimport\b|^\s*cimport\s+([\w.]+)", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:from\s+[\w.]+\s+)?import\b", re.MULTILINE)


def cimports(source: str) -> Iterator[str]:
    """The names of the modules that a Cython source cimports."""
    for match in CIMPORT.finditer(source):
        yield match[1] or match[2]


def upward(layer: str, source: str) -> list[str]:
    """The cimports of a source in `layer` that its place does not allow."""
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    return [
        name
        for name in cimports(source)
        if not name.startswith(("libc.", *(f"dlopen.core.{below}." for below in allowed)))
    ]


def core_sources() -> list[Path]:
    return sorted(
        path
        for path in (PACKAGE / "core").rglob("*.p[xy][dx]")
        if path.name != "__init__.pxd" or path.stat().st_size
    )


def test_every_folder_of_the_core_is_a_layer() -> None:
    folders = {path.name for path in (PACKAGE / "core").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(LAYERS)


def test_cimports_go_downwards() -> None:
    sources = core_sources()
    assert sources
    found = {
        str(path.relative_to(PACKAGE)): bad
        for path in sources
        if path.parent != PACKAGE / "core"
        and (bad := upward(path.relative_to(PACKAGE / "core").parts[0], path.read_text()))
    }
    assert not found


def test_the_core_imports_no_python() -> None:
    sources = [*core_sources(), PACKAGE / "libdlopen.pyx"]
    assert not [str(path) for path in sources if IMPORT.search(path.read_text())]


def test_the_c_face_stands_on_the_core_alone() -> None:
    names = list(cimports((PACKAGE / "libdlopen.pyx").read_text()))
    assert names
    assert not [name for name in names if not name.startswith(("libc.", "dlopen.core."))]


def test_the_extension_uses_the_c_interface_only() -> None:
    source = (PACKAGE / "_linker.pyx").read_text()
    assert "DLOPEN_abi" in source
    assert not [name for name in cimports(source) if name.startswith("dlopen")]
    headers = re.findall(r'cdef extern from "(\w+\.h)"', source)
    assert headers.count("dlopen.h") >= 1


@pytest.mark.parametrize(
    "statement",
    [
        "from dlopen.core.opening.open cimport open_library",
        "cimport dlopen.core.relocation.apply",
        "    from dlopen.core.image.image cimport Image",
        "from dlopen.library cimport Library",
        "from .image cimport Image",
    ],
)
def test_an_upward_cimport_is_found(statement: str) -> None:
    source = f"from libc.stdint cimport uint64_t\n{statement}\n"
    assert len(upward("elf", source)) == 1


def test_a_downward_cimport_is_allowed() -> None:
    assert not upward("image", "from dlopen.core.elf.header cimport (\n    Header,\n)\n")
