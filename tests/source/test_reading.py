"""docs/reading.md leads to files and functions that exist; its picture is the real imports."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "dlopen"
PAGE = (ROOT / "docs" / "reading.md").read_text()
ROW = re.compile(r"^\| `([\w./]+)` \| `(\w+)` \| \S", re.MULTILINE)
# How each kind of file begins a function, a class or a label of that name.
DEFINES = {
    ".py": r"^\s*(?:class|def) {}\b",
    ".pyx": r"^cdef [^:=#\n]*?\b{}\(",
    ".pxd": r"^cdef [^:=#\n]*?\b{0}\(|^    (?:__attribute__\S+ )?static [^;=#\n]*?\b{0}\(",
    ".pxi": r"^(?:c?p?def) [^:=#\n]*?\b{}\(",
    ".S": r"^function {0}\b|^\s+symbol_entry {0}$",
}
SVG = "{http://www.w3.org/2000/svg}"


def load_tool() -> ModuleType:
    path = ROOT / "tools" / "draw_rooms.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()


def defines(path: Path, name: str) -> bool:
    pattern = DEFINES[path.suffix].format(name)
    return re.search(pattern, path.read_text(), re.MULTILINE) is not None


def test_it_walks_ten_ways() -> None:
    ways = re.findall(r"^## (\d+)\. ", PAGE, re.MULTILINE)
    assert [*map(int, ways)] == [*range(1, 11)]
    for way in re.split(r"^## ", PAGE, flags=re.MULTILINE):
        assert not re.match(r"\d", way) or len(ROW.findall(way)) > 4
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(ROW.findall(PAGE))


@pytest.mark.parametrize(("file", "function"), ROW.findall(PAGE))
def test_each_step_is_where_it_says(file: str, function: str) -> None:
    assert defines(PACKAGE / file, function)


def test_other_names_in_it_exist() -> None:
    """Files by their path from the top, functions in backquotes, wherever they are."""
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.p[xy]*"))
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE):
        assert re.search(rf"\b{name}\b", sources), name
    for path in re.findall(r"`((?:docs|tools|tests|src)/[\w./]*)`", PAGE):
        assert (ROOT / path).exists(), path


def test_a_function_that_has_gone_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pxd"
    path.write_text(
        'cdef inline int here(int a) noexcept nogil:\n    """there()"""\n    there(1)\n'
    )
    assert defines(path, "here")
    assert not defines(path, "gone")


def test_the_picture_is_what_is_imported() -> None:
    """Made anew by tools/draw_rooms.py where it differs."""
    assert TOOL.DRAWING.read_text() == TOOL.draw()


def test_the_picture_shows_each_room_and_each_use() -> None:
    drawing = ET.fromstring(TOOL.draw())
    words = [element.text for element in drawing.iter(f"{SVG}text")]
    names = [name for name, _ in TOOL.rooms()]
    assert set(names) == {path.name for path in (PACKAGE / "core").iterdir() if path.is_dir()} - {
        "__pycache__"
    }
    assert all(words.count(name) == 2 for name in names)
    uses = sum(len(TOOL.used(name)) for name in ("libdlopen.pyx", *names))
    assert uses > 60
    assert len(list(drawing.iter(f"{SVG}circle"))) == uses


def test_no_arrow_of_the_picture_goes_up() -> None:
    names = [name for name, _ in TOOL.rooms()]
    for index, name in enumerate(names):
        assert TOOL.used(name) <= set(names[index + 1 :])


@pytest.mark.parametrize("path", ["docs/reading.md", "CONTRIBUTING.md"])
def test_the_picture_is_shown(path: str) -> None:
    shown = re.findall(r"!\[[^\]]+\]\(([\w./]*rooms\.svg)\)", (ROOT / path).read_text())
    assert [((ROOT / path).parent / target).resolve() for target in shown] == [TOOL.DRAWING]
