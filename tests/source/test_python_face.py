"""The rooms of the Python face: imports go downwards, and a keyword of an open is in few places."""

import ast
import graphlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dlopen

PACKAGE = Path(__file__).parents[2] / "src" / "dlopen"
# Each may import from those before it, and from itself.
ROOMS = {
    "ground": {"_platform", "errors", "_linker", "_lifecycle", "_records"},
    "known": {"info", "symbols"},
    "given": {"modes", "callbacks", "members", "_files", "_replacing", "_requests"},
    "handed out": {"_gate", "functions"},
    "changing": {"patching", "reloading"},
    "open": {"_mapped", "library", "image", "_modules", "_importing", "namespaces"},
    "imported from": {"_tags", "_archives", "_archive_paths", "_resources", "importer"},
    "face": {"process", "watching", "adopting", "ctypes_libraries", "jitdump", "__init__"},
    "command": {"_zip_writer", "_zipapp", "_command_line", "__main__"},
    "archive": {"_zipapp_start"},
}
MODULES = set().union(*ROOMS.values())


def imports(source: str) -> Iterator[str]:
    """The modules of the package that a source imports: also late, and for its types alone.

    What is imported for types is an arrow like any other: who reads the one must know the other.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "dlopen":
                for alias in node.names:
                    yield alias.name if alias.name in MODULES else "__init__"
            elif module.startswith(("dlopen.", ".")):
                yield module.removeprefix("dlopen.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "dlopen":
                    # It binds the package, whatever else it imports.
                    yield "__init__"


def sources() -> dict[str, str]:
    """The text of each module.  Of the extension, what it imports, and its stub."""
    found = {path.stem: path.read_text() for path in sorted(PACKAGE.glob("*.py"))}
    parts = [PACKAGE / "_linker.pyx", *sorted((PACKAGE / "binding").glob("*.pxi"))]
    extension = "\n".join(part.read_text() for part in parts)
    statements = re.findall(r"^\s*((?:from dlopen\S* )?import .*)$", extension, re.MULTILINE)
    found["_linker"] = "\n".join([*statements, (PACKAGE / "_linker.pyi").read_text()])
    return found


def upward(module: str, source: str) -> list[str]:
    """The imports of a source that the room of its module does not allow."""
    rooms = list(ROOMS.values())
    own = next(number for number, room in enumerate(rooms) if module in room)
    allowed = set().union(*rooms[: own + 1]) - {"__init__"}
    return [name for name in imports(source) if name not in allowed]


def test_what_is_imported_late_is_what_types_are_read_from() -> None:
    """Who reads `dlopen/__init__.py` for types sees imports, and the interpreter a table."""
    tree = ast.parse(sources()["__init__"])
    (choice,) = (node for node in tree.body if isinstance(node, ast.If))
    (table,) = (node.value for node in choice.orelse if isinstance(node, ast.Assign))
    late = {f"dlopen.{module}": set(names) for module, names in ast.literal_eval(table).items()}
    assert late == {
        node.module: {alias.name for alias in node.names}
        for node in choice.body
        if isinstance(node, ast.ImportFrom)
    }


def test_every_module_is_in_one_room() -> None:
    assert set(sources()) == MODULES
    assert sum(map(len, ROOMS.values())) == len(MODULES)


def test_imports_go_downwards() -> None:
    print(" < ".join(ROOMS))
    found = {name: bad for name, text in sources().items() if (bad := upward(name, text))}
    assert not found


def test_there_is_no_circle() -> None:
    graph = {name: set(imports(text)) for name, text in sources().items()}
    assert graph["_linker"] == {"errors", "_records"}
    assert len(graph["__init__"]) > 10
    graphlib.TopologicalSorter(graph).prepare()  # names the circle


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("from dlopen.library import Library", ["library"]),
        ("from dlopen import library", ["library"]),
        ("def later():\n    from dlopen.library import Library", ["library"]),
        ("if TYPE_CHECKING:\n    from dlopen.library import Library", ["library"]),
        ("from dlopen import Library", ["__init__"]),
        ("import dlopen", ["__init__"]),
        ("import dlopen.errors", ["__init__"]),
        ("from . import errors", ["."]),
        ("from dlopen import _linker, errors", []),
        ("from dlopen.info import Info\nimport os", []),
    ],
)
def test_an_upward_import_is_found(statement: str, found: list[str]) -> None:
    assert upward("symbols", statement) == found


def test_a_module_can_be_read_at_once() -> None:
    sizes = {path.name: path.read_text().count("\n") for path in PACKAGE.glob("*.py")}
    assert {name: size for name, size in sizes.items() if size > 600} == {}


# What opens; elsewhere the names are those of other things.
OPENING = ("_requests", "reloading", "library", "namespaces")
PLACES = 4


def places(keyword: str, tree: ast.AST, scope: str = "") -> Iterator[str]:
    """Where a keyword is written: the scope, and what is done with it there."""
    for node in ast.iter_child_nodes(tree):
        inner = scope
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                inner = f"{scope}.{node.name}".lstrip(".")
                # "NAME:" below "Args:".
                if re.search(rf"^ *{keyword}: ", ast.get_docstring(node) or "", re.MULTILINE):
                    yield f"{inner}, explained"
            case ast.arg(arg=name) | ast.AnnAssign(target=ast.Name(id=name)) if name == keyword:
                yield f"{scope}, stated"
            # Who says what it is for an open of theirs (True, self) is a user.
            case ast.keyword(arg=name, value=value) if name == keyword in ast.unparse(value):
                yield f"{scope}, handed on"
            case ast.Name(id=name, ctx=ast.Load()) if name == keyword:
                yield f"{scope}, used"
        yield from places(keyword, node, inner)


def test_a_keyword_of_an_open_is_written_in_four_places() -> None:
    keywords = [
        name
        for name, parameter in inspect.signature(dlopen.Library).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert {"gil", "reload", "files"} <= set(keywords)
    texts = sources()
    trees = {name: ast.parse(texts[name]) for name in OPENING}
    # A namespace's own keyword, of the same name, is stated, explained and kept there.
    own = {"arena": r"namespaces: Namespace(\.__init__)?,"}
    assert own.keys() < inspect.signature(dlopen.Namespace).parameters.keys()
    for keyword in keywords:
        found = {f"{name}: {place}" for name in OPENING for place in places(keyword, trees[name])}
        found = {place for place in found if not re.match(own.get(keyword, "$"), place)}
        assert len(found) <= PLACES, (keyword, sorted(found))
        assert len(found) >= 3, keyword


def test_the_places_of_a_keyword_are_counted() -> None:
    source = """
class Keywords(TypedDict):
    files: object

class Library:
    '''A library.

    Args:
        files: Those in memory.
    '''
    def __init__(self, files=None):
        self.load(files=files)
        print(files)
"""
    assert sorted(set(places("files", ast.parse(source)))) == [
        "Keywords, stated",
        "Library, explained",
        "Library.__init__, handed on",
        "Library.__init__, stated",
        "Library.__init__, used",
    ]
