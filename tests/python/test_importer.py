"""Modules from archives, compared with those of the same tree as a folder, and with zipimport."""

from __future__ import annotations

import json
import sys
import sysconfig
from pathlib import Path

import pytest

from support.fixtures import compile_library, run_python
from support.package_archives import contents, pack, tags

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
INCLUDE = f"-I{sysconfig.get_paths()['include']}"
TAG = sys.implementation.cache_tag

# A module of two phases, and one of one phase; both need a library that is bundled.
SOURCE = """
#include <Python.h>
int level(void);
static int count;
static PyObject *next_count(PyObject *module, PyObject *none) { return PyLong_FromLong(++count); }
static PyObject *get_level(PyObject *module, PyObject *none) { return PyLong_FromLong(level()); }
static PyMethodDef methods[] = {
    {"next_count", next_count, METH_NOARGS, "Counts."}, {"get_level", get_level, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL}};
"""
MULTI = (
    SOURCE
    + """
static int execute(PyObject *module) { return PyModule_AddIntConstant(module, "phases", 2); }
static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "whatever", "Of two phases.", 0, methods, slots, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_NAME(void) { return PyModuleDef_Init(&definition); }
"""
)
SINGLE = (
    SOURCE
    + """
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "NAME", "Of one phase.", -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_NAME(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddIntConstant(module, "phases", 1) < 0) Py_CLEAR(module);
    return module;
}
"""
)

PURE = '''"""A pure module."""

import linecache


class Thing:
    """Something."""

    def fail(self):
        raise RuntimeError("here")  # this line


def pick(first, second=2):
    return first, second
'''
METADATA = """Metadata-Version: 2.1
Name: tree
Version: 1.5
Summary: A tree

Text.
"""


def extension(folder: Path, name: str, source: str, level: Path, *, rpath: str) -> None:
    """An extension module `name`, which may have folders, of a package."""
    *above, last = name.split("/")
    function = above[-1] if last == "__init__" else last
    compile_library(
        folder.joinpath(*above),
        f"{last}{SUFFIX}",
        source.replace("NAME", function),
        flags=[INCLUDE],
        libraries=[level],
        rpath=rpath,
    )


def make_tree(folder: Path) -> Path:
    """What a wheel of a big package has, as it is installed."""
    texts = {
        "pack/__init__.py": "from . import multi, single\nfrom .pure import Thing\n",
        "pack/pure.py": PURE,
        "pack/data.txt": "some text\n",
        "pack/sub/__init__.py": "",
        "pack/sub/deep/__init__.py": "from ...pure import pick\n",
        "pack/sub/deep/leaf.py": "name = __name__\n",
        "pack/sub/deep/bytes.bin": "\x00\x01",
        "pack/native/inner.py": "from . import phases\n",
        "pack/native/table.txt": "1 2 3\n",
        "pack/both.py": "phases = 0\n",
        "pack/first.py": "kind = 'module'\n",
        "pack/first/__init__.py": "kind = 'package'\n",
        "circle/__init__.py": "from . import one\n",
        "circle/one.py": "from . import two\nvalue = 1\n",
        "circle/two.py": "from . import one\nvalue = getattr(one, 'value', 'not yet')\n",
        "space/part.py": "value = 'part'\n",
        "space/more/leaf.py": "value = 'leaf'\n",
        "top.py": "# -*- coding: latin-1 -*-\nvalue = 'é'\n",
        "tree-1.5.dist-info/METADATA": METADATA,
        "tree-1.5.dist-info/entry_points.txt": "[console_scripts]\nrun = pack.pure:pick\n",
        "tree-1.5.dist-info/top_level.txt": "pack\ntop\n",
        "tree-1.5.dist-info/RECORD": "pack/__init__.py,,\npack/data.txt,,\n",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="latin-1")
    level = compile_library(folder / "tree.libs", "liblevel.so.1", "int level(void) { return 7; }")
    for name, source in [("multi", MULTI), ("single", SINGLE), ("both", MULTI)]:
        extension(folder, f"pack/{name}", source, level, rpath="$ORIGIN/../tree.libs")
    extension(folder, "pack/native/__init__", MULTI, level, rpath="$ORIGIN/../../tree.libs")
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a folder."""
    return make_tree(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def archive(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as an archive, its libraries stored and aligned."""
    return pack(tmp_path_factory.mktemp("packed") / "tree.zip", contents(tree))


# In a child: what one sees of modules.  The place of the tree is written as PLACE, and of loaders
# only whether they are one for sources or for extensions.
LOOK = r"""
import importlib, inspect, json, linecache, os, pkgutil, sys, traceback
from importlib import metadata, resources

place, way = sys.argv[1:3]
if way != "folder":
    from dlopen import importer
    if way == "importer":
        importer.install()
sys.path.insert(0, place)
sys.dont_write_bytecode = True

def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, str):
        return value.replace(place, "PLACE")
    return value if isinstance(value, (int, type(None))) else list(map(plain, value))

def describe(name):
    module = importlib.import_module(name)
    spec = module.__spec__
    facts = {key: plain(getattr(module, key, "none")) for key in
             ("__name__", "__package__", "__file__", "__path__", "__cached__", "__doc__")}
    facts |= {f"spec.{key}": plain(getattr(spec, key)) for key in
              ("name", "origin", "cached", "has_location", "submodule_search_locations", "parent")}
    facts["loader is its own"] = module.__loader__ is spec.loader
    facts["names"] = sorted(name for name in vars(module) if not name.startswith("__"))
    loader = spec.loader
    if getattr(loader, "is_package", None) and spec.origin:
        facts["is_package"] = loader.is_package(name)
        facts["get_filename"] = plain(loader.get_filename(name))
        facts["get_source"] = loader.get_source(name)
        code = loader.get_code(name)
        facts["code"] = code and plain(code.co_filename)
        facts["data"] = len(loader.get_data(spec.origin))
    return facts
"""
MODULES = [
    "pack",
    "pack.multi",
    "pack.single",
    "pack.both",
    "pack.pure",
    "pack.first",
    "pack.sub",
    "pack.sub.deep",
    "pack.sub.deep.leaf",
    "pack.native",
    "pack.native.inner",
    "circle",
    "circle.two",
    "space.part",
    "space.more.leaf",
    "top",
]


def look(place: Path, code: str, *, way: str = "importer") -> object:
    """What `code` has put into `seen`, of modules at that place."""
    script = f"{LOOK}\nseen = {{}}\n{code}\nprint(json.dumps(seen))\n"
    return json.loads(run_python(script, str(place), way).stdout)


def same(tree: Path, archive: Path, code: str) -> None:
    """Of the archive it is what it is of the folder."""
    assert look(archive, code) == look(tree, code, way="folder")


def test_modules_are_as_of_a_folder(tree: Path, archive: Path) -> None:
    code = f"for name in {MODULES}:\n    seen[name] = describe(name)"
    facts = look(archive, code)
    assert facts == look(tree, code, way="folder")
    assert isinstance(facts, dict)
    assert facts["pack.both"]["__file__"] == f"PLACE/pack/both{SUFFIX}"
    assert facts["pack.native"]["__path__"] == ["PLACE/pack/native"]
    assert facts["pack.first"]["__file__"] == "PLACE/pack/first/__init__.py"
    assert facts["circle.two"]["names"] == ["one", "value"]


def test_bytecode_beside_its_source_changes_nothing(tree: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "tree.zip", contents(tree), bytecode=True)
    code = f"for name in {MODULES}:\n    seen[name] = describe(name)"
    same(tree, path, code)


@pytest.mark.parametrize(
    ("how", "keywords"),
    [
        ("compressed", {"compressed": True}),
        ("unaligned", {"aligned": False}),
        ("a program", {"before": b"#!/usr/bin/env python3\n"}),
        ("folders", {"folders": True}),
        ("zip64", {"zip64": True}),
    ],
)
def test_other_archives(tree: Path, tmp_path: Path, how: str, keywords: dict[str, bool]) -> None:
    path = pack(tmp_path / "tree.zip", contents(tree), **keywords)  # type: ignore[arg-type]
    code = f"for name in {MODULES}:\n    seen[name] = describe(name)"
    same(tree, path, code)


def test_pure_modules_are_as_zipimport_has_them(tree: Path, tmp_path: Path) -> None:
    files = {name: data for name, data in contents(tree).items() if ".so" not in name}
    files["pack/__init__.py"] = b""
    path = pack(tmp_path / "tree.zip", files, folders=True)
    code = """
for name in ["pack", "pack.pure", "pack.first", "pack.sub.deep.leaf", "circle.two", "space.part"]:
    seen[name] = describe(name)
seen["modules"] = [[one.name, one.ispkg] for one in pkgutil.walk_packages([place])]
seen["version"] = metadata.version("tree")
loader = sys.modules["pack.pure"].__loader__
seen["loader"] = plain([loader.archive, loader.prefix])
seen["files"] = plain(loader._files["pack/pure.py"]) if hasattr(loader, "_files") else \\
    plain(loader._get_files()["pack/pure.py"])
"""

    assert look(path, code) == look(path, code, way="zipimport")


def test_what_lists_modules(tree: Path, archive: Path) -> None:
    same(
        tree,
        archive,
        """
import pack.sub

def listed(found):  # pkgutil takes first.py for the module of that name in each archive
    return [[one.name, one.ispkg] for one in found if not one.name.endswith("first")]

seen["top"] = listed(pkgutil.iter_modules([place]))
seen["pack"] = listed(pkgutil.iter_modules(pack.__path__, "x."))
seen["all"] = listed(pkgutil.walk_packages([place]))
seen["data"] = pkgutil.get_data("pack", "data.txt").decode()
seen["name"] = pkgutil.resolve_name("pack.pure:Thing").__qualname__
""",
    )


def test_metadata(tree: Path, archive: Path) -> None:
    same(
        tree,
        archive,
        """
seen["version"] = metadata.version("tree")
seen["summary"] = metadata.metadata("tree")["Summary"]
points = metadata.entry_points(group="console_scripts", name="run")
seen["points"] = [[one.value, one.load()(1)] for one in points]
seen["all"] = [one.name for one in metadata.distributions(path=[place])]
seen["files"] = sorted(map(str, metadata.files("tree")))
seen["tops"] = metadata.distribution("tree").read_text("top_level.txt").split()
seen["packages"] = metadata.packages_distributions()["top"]
""",
    )


def test_resources(tree: Path, archive: Path) -> None:
    same(
        tree,
        archive,
        """
import pack.native
for package in ("pack", "pack.sub.deep", "pack.native", pack.native):
    top = resources.files(package)
    names = sorted((one.name, one.is_dir(), one.is_file()) for one in top.iterdir())
    names = [name for name in names if name[0] != "__pycache__"]
    seen[getattr(package, "__name__", package) + " names"] = plain(names), plain(str(top)), top.name
files = resources.files("pack")
seen["text"] = files.joinpath("data.txt").read_text()
seen["divided"] = (files / "sub" / "deep" / "bytes.bin").read_bytes().hex()
seen["at once"] = files.joinpath("sub", "deep/bytes.bin").read_bytes().hex()
seen["up"] = (files / "sub" / ".." / "data.txt").read_text()
with (files / "data.txt").open() as stream:
    seen["lines"] = [*stream]
with (files / "data.txt").open("rb") as stream:
    seen["bytes"] = stream.read().decode()
for name in ("data.txt", "sub", "a.tar.gz", ".hidden"):
    there = files / name
    seen["parts of " + name] = there.stem, there.suffix, there.suffixes, there.parent.name
for name in ("absent", "sub"):
    there = files / name
    seen[name] = [there.is_file(), there.is_dir(), there.exists()]
    try:
        there.read_bytes()
    except OSError as error:
        seen[name].append(type(error).__name__)
try:
    [*(files / "data.txt").iterdir()]
except OSError as error:
    seen["no folder"] = type(error).__name__
with resources.as_file(resources.files("pack.native") / "table.txt") as path:
    seen["file"] = path.read_text(), path.suffix
if sys.version_info >= (3, 12):
    with resources.as_file(files / "sub") as path:
        seen["folder"] = sorted(str(one.relative_to(path)) for one in path.rglob("*.*")
                                if "__pycache__" not in one.parts)
if hasattr(resources, "open_text"):
    seen["old"] = resources.read_text("pack", "data.txt"), resources.is_resource("pack", "sub")
""",
    )


def test_inspect_and_tracebacks(tree: Path, archive: Path) -> None:
    same(
        tree,
        archive,
        """
import pack, pack.native
seen["class"] = inspect.getsource(pack.Thing)
seen["module"] = inspect.getsource(pack.pure)
seen["files"] = plain([inspect.getfile(pack.Thing), inspect.getsourcefile(pack.Thing)])
seen["native"] = plain(inspect.getfile(pack.native))
seen["lines"] = inspect.getsourcelines(pack.Thing.fail)[1]
seen["doc"] = inspect.getdoc(pack.Thing)
try:
    pack.Thing().fail()
except RuntimeError:
    seen["traceback"] = plain(traceback.format_exc())
assert "# this line" in seen["traceback"]
try:
    inspect.getsource(pack.multi)
except (TypeError, OSError) as error:
    seen["of an extension"] = type(error).__name__
""",
    )


def test_one_image_for_each_library(archive: Path) -> None:
    """Four modules need the bundled one, and each is one itself."""
    code = """
import sys
import dlopen
from dlopen import importer
importer.install()
sys.path.insert(0, sys.argv[1])
import pack.native, pack.both
assert pack.multi.get_level() == pack.native.get_level() == 7
assert [pack.multi.next_count(), pack.multi.next_count(), pack.single.next_count()] == [1, 2, 1]
ours = [info.path for info in dlopen.libraries() if info.path.startswith(sys.argv[1])]
print(*sorted(path.removeprefix(sys.argv[1]) for path in ours))
"""
    assert run_python(code, str(archive)).stdout.split() == sorted(
        [
            f"/pack/both{SUFFIX}",
            f"/pack/multi{SUFFIX}",
            f"/pack/native/__init__{SUFFIX}",
            f"/pack/single{SUFFIX}",
            "/tree.libs/liblevel.so.1",
        ]
    )


# In a child: which images there are of the archive, and what of it is mapped.
IMAGES = """
import os, sys
import dlopen
from dlopen import importer
from support.fixtures import maps
place = sys.argv[1]

def ours():
    return [info for info in dlopen.libraries() if info.path.startswith(place)]

def is_mapped():
    return any(mapping.path == place and "x" in mapping.permissions for mapping in maps())
"""


def test_images_are_mapped_from_the_archive(archive: Path) -> None:
    code = """
importer.install(mapped_only=True)
sys.path.insert(0, place)
import pack
assert {info.archive for info in ours()} == {place} and is_mapped()
for info in ours():
    name = info.path.removeprefix(f"{place}/")
    with open(place, "rb") as file:
        file.seek(info.offset)
        assert file.read(4) == b"\\x7fELF"
    assert info.offset % os.sysconf("SC_PAGESIZE") == 0
    with dlopen.existing(info.path) as image:
        assert image.info.path == info.path
    with dlopen.Library(info.path, dlopen.RTLD_NOW | dlopen.RTLD_NOLOAD) as library:
        assert library.info.map_start == info.map_start
bundled = f"{place}/tree.libs/liblevel.so.1"
with dlopen.Library(bundled) as library:
    assert library.level() == 7
    assert dlopen.dladdr(library.level).library.path == bundled
with dlopen.Library(bundled, dlopen.PRIVATE) as another:
    assert another.info.map_start != dlopen.existing(bundled).info.map_start
print(len(ours()))
importer.uninstall()
try:
    dlopen.Library(f"{place}/pack/both{sys.argv[2]}")
except dlopen.LoadError as error:
    print(error.strerror)
assert pack.multi.get_level() == 7
"""
    lines = run_python(IMAGES + code, str(archive), SUFFIX).stdout.splitlines()
    assert lines == ["3", "Not a directory"]


@pytest.mark.parametrize("keywords", [{"compressed": True}, {"aligned": False}])
def test_images_that_are_copied(tree: Path, tmp_path: Path, keywords: dict[str, bool]) -> None:
    """Compressed, or at no page; where that is refused it says so, and nothing is left."""
    path = pack(tmp_path / "tree.zip", contents(tree), **keywords)  # type: ignore[arg-type]
    code = """
importer.install()
importer.install(mapped_only=True)
importer.install()  # changes no setting
importer.install(everything=False)
sys.path.insert(0, place)
try:
    import pack
except ImportError as error:
    print(error)
    assert error.name == "pack.multi" and isinstance(error.__cause__, dlopen.LoadError)
assert not ours() and not [name for name in sys.modules if name.startswith("pack")]
importer.install(mapped_only=False)
import pack
print(pack.multi.get_level(), len(ours()), is_mapped())
"""
    refused, imported = run_python(IMAGES + code, str(path)).stdout.splitlines()
    assert f"{path}/pack/multi{SUFFIX}" in refused
    assert "it may only be mapped" in refused
    assert imported == "7 3 False"


def test_a_library_that_opens_its_neighbour_later(tree: Path, tmp_path: Path) -> None:
    """In C, by a path beside its own: it is in the archive as well."""
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdio.h>
    #include <string.h>
    int later(void) {
        Dl_info info;
        char path[4096];
        if (!dladdr(&later, &info)) return -1;
        snprintf(path, sizeof path, "%s", info.dli_fname);
        strcpy(strrchr(path, '/') + 1, "liblevel.so.1");
        void *found = dlopen(path, RTLD_NOW);
        return found ? ((int (*)(void)) dlsym(found, "level"))() : -2;
    }
    """
    library = compile_library(tmp_path, "liblater.so", source).read_bytes()
    files = contents(tree) | {"tree.libs/liblater.so": library}
    code = """
importer.install()
with dlopen.Library(f"{place}/tree.libs/liblater.so") as library:  # on no path of Python's
    print(library.later(), len(ours()))
"""
    path = pack(tmp_path / "tree.zip", files)
    assert run_python(IMAGES + code, str(path)).stdout == "7 2\n"


def test_imports_into_a_namespace(archive: Path) -> None:
    code = """
importer.install()
sys.path.insert(0, place)
import pack
outer = pack
first, second = dlopen.Namespace("first"), dlopen.Namespace("second")
found = []
for namespace in (first, second):
    with namespace.imports("pack"):
        import pack as another
        found.append(another)
        assert another.multi.get_level() == 7
        from importlib import resources
        import pack.native
        assert (resources.files(pack.native) / "table.txt").read_text() == "1 2 3\\n"
assert sys.modules["pack"] is outer
print([one.multi.next_count() for one in (outer, *found, *found)], len(ours()))
"""
    # Of the namespaces, `pack.native` is one more each.
    assert run_python(IMAGES + code, str(archive)).stdout == "[1, 1, 1, 2, 2] 11\n"


def test_everything(tree: Path, archive: Path) -> None:
    """Extension modules of folders, too, until another `install` or the end."""
    code = """
importer.install(everything=True)
tree = sys.argv[2]
sys.path[:0] = [place, tree]
import pack.native
del sys.path[0]
for name in [name for name in sys.modules if name.startswith("pack")]:
    del sys.modules[name]

def is_host():
    import pack.native
    path = sys.modules.pop("pack.native").__file__
    assert path.startswith(tree)
    return [info.is_host for info in dlopen.libraries() if info.path == path]

print(is_host(), len(ours()))
importer.install(everything=False)
print(type(sys.meta_path[0]).__module__.startswith("dlopen"))
importer.install(everything=True)
importer.install()
importer.install(mapped_only=False)
print(type(sys.meta_path[0]).__module__.startswith("dlopen"))
importer.uninstall()
print(type(sys.meta_path[0]).__module__.startswith("dlopen"))
"""
    shown = run_python(IMAGES + code, str(archive), str(tree)).stdout
    assert shown.splitlines() == ["[False] 4", "False", "True", "False"]


def test_copies_of_a_module_in_an_archive(archive: Path) -> None:
    """Their images are their own, what they need is what the archive's modules share."""
    code = """
importer.install()
sys.path.insert(0, place)
import pack
first = pack.single
copy = importer.load_module("copied", first.__loader__.get_data(first.__file__))
second = importer.reload_module(first)
assert second is pack.single is sys.modules["pack.single"] is not first
assert second.__file__ == first.__file__ and second.__loader__.is_package("pack.single") is False
print([one.next_count() for one in (first, copy, second, first, copy, second)])
print([one.get_level() for one in (first, copy, second)])
print(sum("liblevel" in info.path for info in dlopen.libraries()))
"""
    shown = run_python(IMAGES + code, str(archive)).stdout.splitlines()
    assert shown == ["[1, 1, 1, 2, 2, 2]", "[7, 7, 7]", "1"]


def test_a_wheel_with_libraries_in_its_data(tree: Path, tmp_path: Path) -> None:
    """They are where pip would put them, also for what they need."""
    moved = {
        f"tree-1.5.data/platlib/{name}" if name.startswith(("pack/", "tree.libs/")) else name: data
        for name, data in contents(tree).items()
    }
    wheel = pack(tmp_path / "tree-1.5.whl", moved | {"tree-1.5.dist-info/WHEEL": tags()})
    same(tree, wheel, f"for name in {MODULES}:\n    seen[name] = describe(name)")


def test_threads_import_extensions_at_once(archive: Path) -> None:
    """Each module and each image is made once, circular imports included."""
    code = f"""
import importlib, threading
from _frozen_importlib import _DeadlockError
importer.install()
sys.path.insert(0, place)
sys.setswitchinterval(1e-6)
names = {MODULES}
barrier, found = threading.Barrier(8), []

def work(number):
    barrier.wait()
    left = names[number:] + names[:number]
    while left:
        try:  # a package that waits for its module, and one for its package, are told so: again
            found.append((left[0], id(importlib.import_module(left[0]))))
            del left[0]
        except (_DeadlockError, KeyError):  # its package is gone again
            pass

threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), len({{*found}}), len(ours()))
"""
    count = len(MODULES)
    for _ in range(3):
        shown = run_python(IMAGES + code, str(archive)).stdout
        assert shown == f"{8 * count} {count} 5\n"


def test_programs_in_archives(tmp_path: Path) -> None:
    """As `python -m` and `python archive` run them, once the importer is there."""
    show = b"import sys\nprint(__name__, __file__, __package__, type(__loader__).__module__)\n"
    path = pack(
        tmp_path / "app.zip", {"__main__.py": show, "pack/__main__.py": show}, bytecode=True
    )
    code = """
import runpy, sys
from dlopen import importer
importer.install()
runpy.run_path(sys.argv[1], run_name="__main__")
sys.path.insert(0, sys.argv[1])
runpy.run_module("pack", run_name="__main__", alter_sys=True)
"""
    assert run_python(code, str(path)).stdout.splitlines() == [
        f"__main__ {path}/__main__.py  dlopen.importer",
        f"__main__ {path}/pack/__main__.py pack dlopen.importer",
    ]


@pytest.mark.parametrize("name", ["a b\n.zip", "umläut.zip"])
def test_paths_of_all_kinds(archive: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(archive.read_bytes())
    code = """
importer.install(mapped_only=True)
sys.path.insert(0, place)
import pack.native
print(pack.multi.get_level(), len(ours()), ascii(pack.multi.__file__.removeprefix(place)))
"""
    shown = run_python(IMAGES + code, str(path)).stdout
    assert shown == f"7 4 '/pack/multi{SUFFIX}'\n"


def test_what_an_import_brings_in(tmp_path: Path) -> None:
    """Nothing that is slow to import: what is read of an archive is read by this package."""
    path = pack(tmp_path / "a.zip", {"pack/__init__.py": b"", "pack/one.py": b""}, bytecode=True)
    code = """
import sys
before = {*sys.modules}
from dlopen import importer
importer.install()
sys.path.insert(0, sys.argv[1])
import pack.one
try:
    import pack.two
except ImportError:
    pass
print(*sorted({*sys.modules} - before))
"""
    names = run_python(code, str(path)).stdout.split()
    allowed = ["__future__", "_struct", "_types", "atexit", "errno", "itertools", "struct", "types"]
    allowed += ["dlopen", "pack"]
    tops = {name.partition(".")[0] for name in names if "cython" not in name}
    assert tops - {*allowed} == set()
    assert {name for name in names if name.startswith("dlopen")} == {
        "dlopen",
        *("dlopen." + name for name in ("_archives", "_lifecycle", "_linker", "_modules")),
        *("dlopen." + name for name in ("_platform", "_records", "errors", "importer")),
    }


def test_extensions_of_an_archive_that_is_changed(tree: Path, tmp_path: Path) -> None:
    """Before they are opened; what is open is not touched by a file of the same content.

    Who opens a library by its path takes the archive that is there.
    """
    path = pack(tmp_path / "tree.zip", contents(tree))
    code = """
importer.install()
sys.path.insert(0, place)
import pack
with open(place, "r+b") as file:
    start = file.read(1)
    os.utime(place, (1, 1))
for name in ("pack.both", "pack.native"):
    try:
        __import__(name)
    except ImportError as error:
        cause = error.__cause__
        assert isinstance(cause, dlopen.LoadError) and name not in sys.modules
        print(error.name, error.path.removeprefix(place), cause.library == place, cause.reason)
with dlopen.Library(f"{place}/pack/both{sys.argv[2]}") as library:
    print(library.info.archive == place)
print(len(ours()), pack.multi.get_level())
import importlib
importlib.invalidate_caches()
import pack.both, pack.native
print(pack.native.get_level(), len(ours()))
"""
    changed = "it was changed since it was opened"
    shown = run_python(IMAGES + code, str(path), SUFFIX).stdout.splitlines()
    assert shown == [
        f"pack.both /pack/both{SUFFIX} True {changed}",
        f"pack.native /pack/native/__init__{SUFFIX} True {changed}",
        "True",
        "3 7",
        "7 5",
    ]
