"""The rooms of the core: imports go downwards, files can be read at once, none knows Python."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "dlopen"
# Each may import from those before it, and from itself.
ROOMS = (
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
CONTRACT = "dlopen.core.base.contract"
CIMPORT = re.compile(r"^\s*from\s+([\w.]+)\s+cimport\b|^\s*cimport\s+([\w.]+)", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:from\s+[\w.]+\s+)?import\b", re.MULTILINE)


def cimports(source: str) -> Iterator[str]:
    """The names of the modules that a Cython source cimports."""
    for match in CIMPORT.finditer(source):
        yield match[1] or match[2]


def upward(room: str, source: str) -> list[str]:
    """The cimports of a source in `room` that its place does not allow."""
    allowed = ROOMS[: ROOMS.index(room) + 1]
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


def test_every_folder_of_the_core_is_a_room() -> None:
    folders = {path.name for path in (PACKAGE / "core").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(ROOMS)


def test_cimports_go_downwards() -> None:
    print(" < ".join((*ROOMS, "libdlopen.pyx")))
    sources = core_sources()
    assert sources
    found = {
        str(path.relative_to(PACKAGE)): bad
        for path in sources
        if path.parent != PACKAGE / "core"
        and (bad := upward(path.relative_to(PACKAGE / "core").parts[0], path.read_text()))
    }
    assert not found


def circles(imports: dict[str, list[str]]) -> list[str]:
    """The modules that import themselves, by way of others or not."""
    left = {name: set(others) & imports.keys() for name, others in imports.items()}
    while done := {name for name, others in left.items() if not others}:
        left = {name: others - done for name, others in left.items() if name not in done}
    return sorted(left)


def test_there_is_no_circle() -> None:
    imports = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): list(
            cimports(path.read_text())
        )
        for path in core_sources()
    }
    assert len(imports) > 100
    assert circles(imports) == []


@pytest.mark.parametrize(
    ("imports", "found"),
    [
        ({"a": ["b"], "b": ["libc.stdint"]}, []),
        ({"a": ["a"]}, ["a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"], "d": []}, ["a", "b", "c"]),
    ],
)
def test_a_circle_is_found(imports: dict[str, list[str]], found: list[str]) -> None:
    assert circles(imports) == found


MOST_LINES, MOST_LINES_OF_A_FUNCTION = 600, 100


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Each function with the number of its lines, from its name to its last statement."""
    # What begins at the margin; the lines of a signature may end with a parenthesis there.
    for part in re.split(r"\n(?=[^\s)])", source):
        if match := re.match(r"cdef [^:=\n]*?(\w+)\(", part):
            yield match[1], part.rstrip().count("\n") + 1


def test_files_and_functions_can_be_read_at_once() -> None:
    sources = [*core_sources(), PACKAGE / "libdlopen.pyx"]
    sizes = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in sources}
    assert {path: size for path, size in sizes.items() if size > MOST_LINES} == {}
    found = [pair for path in sources for pair in functions(path.read_text())]
    assert len(found) > 600
    assert [pair for pair in found if pair[1] > MOST_LINES_OF_A_FUNCTION] == []


def test_the_lines_of_a_function_are_counted() -> None:
    source = "cdef int one(\n    int a\n) noexcept nogil:\n    return a\n\n\ncdef struct B:\n"
    assert list(functions(source)) == [("one", 4)]


def test_the_order_of_an_open_is_on_one_page() -> None:
    sources = {path.stem: path.read_text() for path in (PACKAGE / "core" / "opening").glob("*.pxd")}
    page = sources.pop("open")
    steps = {
        name
        for source in sources.values()
        for name in re.findall(
            r"^cdef inline Outcome (\w+)\(Transaction\* transaction\)", source, re.MULTILINE
        )
        if re.search(rf"\b{name}\(transaction\)", page)
    }
    assert len(steps) >= 15, sorted(steps)
    # What is linked by hand begins with steps of its own.
    del sources["by_hand"]
    calls = {
        (name, step)
        for name, source in sources.items()
        for step in steps
        if re.search(rf"(?<!Outcome )\b{step}\(", source)
    }
    assert not calls


def test_the_core_imports_no_python() -> None:
    sources = [*core_sources(), PACKAGE / "libdlopen.pyx"]
    assert not [str(path) for path in sources if IMPORT.search(path.read_text())]


def test_the_c_face_stands_on_the_core_alone() -> None:
    names = list(cimports((PACKAGE / "libdlopen.pyx").read_text()))
    assert names
    assert not [name for name in names if not name.startswith(("libc.", "dlopen.core."))]


def test_the_extension_uses_the_c_interface_only() -> None:
    """What it shares with the core is the statement of dlopen.h, which holds no code."""
    sources = [PACKAGE / "_linker.pyx", *sorted((PACKAGE / "binding").glob("*.pxi"))]
    includes = re.findall(r'^include "(.*)"$', sources[0].read_text(), re.MULTILINE)
    assert sorted(PACKAGE / name for name in includes) == sources[1:]
    names = {name for path in sources for name in cimports(path.read_text())}
    assert {name for name in names if name.startswith("dlopen")} == {CONTRACT}
    text = (PACKAGE.parent / f"{CONTRACT.replace('.', '/')}.pxd").read_text()
    assert [name for name in cimports(text) if not name.startswith("libc.")] == []
    assert re.findall(r"^\S.*", text.split('"""')[2], re.MULTILINE)[-1].startswith("cdef extern")
    assert not re.search(r"\) (?:noexcept )?(?:nogil)?:$", text, re.MULTILINE)


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
