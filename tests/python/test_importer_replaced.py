"""Archives that others take the place of: who sees which."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import zipimport
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlopen import importer
from support.fixtures import compile_library, missing, need_tool, run, run_python
from support.package_archives import pack

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
INCLUDE = f"-I{sysconfig.get_paths()['include']}"

MODULE = """
#include <Python.h>
int needed(void);
static PyObject *level(PyObject *self, PyObject *none) { return PyLong_FromLong(LEVEL + needed()); }
static PyMethodDef functions[] = {{"level", level, METH_NOARGS, NULL}, {NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "pack", NULL, 0, functions, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_pack(void) { return PyModuleDef_Init(&definition); }
"""


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The importer is installed, and no module of a test is left."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    importer.install()
    yield
    importer.uninstall()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pack", "thing")]:
        del sys.modules[name]


def _by_install(path: str) -> None:
    importer.uninstall()
    importer.install()


def _by_caches(path: str) -> None:
    sys.path_importer_cache.clear()


def _by_entry(path: str) -> None:
    sys.path.remove(path)
    sys.path_importer_cache.pop(path)
    sys.path.insert(0, path)


@pytest.mark.parametrize("how", [_by_install, _by_caches, _by_entry])
@pytest.mark.parametrize("place", ["absolute", "relative"])
@pytest.mark.parametrize("in_place", [False, True])
def test_who_comes_new_sees_what_is_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[str], None],
    place: str,
    in_place: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = pack(tmp_path / "a.zip", {"pack/__init__.py": b"", "pack/thing.py": b"value = 1"})
    entry = str(path) if place == "absolute" else "a.zip"
    sys.path.insert(0, entry)
    assert importlib.import_module("pack.thing").value == 1
    old = importer.Importer(str(path))
    new = pack(tmp_path / "b.zip", {"pack/__init__.py": b"", "pack/thing.py": b"value = 22"})
    if in_place:
        path.write_bytes(new.read_bytes())
    else:
        new.replace(path)
    how(entry)
    for name in ("pack", "pack.thing"):
        del sys.modules[name]
    assert importlib.import_module("pack.thing").value == 22
    if in_place:
        with pytest.raises(OSError, match="it was changed since it was opened"):
            old.get_data("pack/thing.py")
    else:
        assert old.get_data("pack/thing.py") == b"value = 1"
    path.unlink()
    with pytest.raises(ImportError, match="not a Zip file"):
        importer.Importer(str(path))


def test_a_package_goes_on_with_the_archive_that_it_is_from(tmp_path: Path) -> None:
    """Though others find the new one at its path, or none."""
    files = {f"pack/{name}.py": b"value = 1" for name in ("__init__", "one", "two", "three")}
    path = pack(tmp_path / "a.zip", {**files, "pack/space/four.py": b"value = 1"})
    sys.path.insert(0, str(path))
    importlib.import_module("pack")
    pack(tmp_path / "b.zip", {**files, "pack/one.py": b"value = 2"}).replace(path)
    sys.path_importer_cache.clear()
    assert importlib.import_module("pack.one").value == 1
    path.unlink()
    assert importlib.import_module("pack.two").value == 1
    sys.path_importer_cache.clear()
    assert importlib.import_module("pack.three").value == 1
    assert importlib.import_module("pack.space.four").value == 1
    path.mkdir()
    (path / "thing.py").write_text("value = 3")
    sys.path_importer_cache.clear()
    assert importlib.import_module("thing").value == 3


def test_a_place_that_a_package_had_before(tmp_path: Path) -> None:
    """The folder of a package that is gone, or is zipimport's, is one like any other."""
    path = pack(tmp_path / "a.zip", {"pack/__init__.py": b"", "pack/thing.py": b"value = 1"})
    sys.path.insert(0, str(path))
    old = importer.Importer(str(path))
    importlib.import_module("pack")
    new = {"pack/__init__.py": b"", "pack/thing.py": b"value = 2"}
    pack(tmp_path / "b.zip", new).replace(path)
    del sys.modules["pack"]
    sys.path.insert(0, f"{path}/pack")
    assert importlib.import_module("thing").value == 2
    sys.path_importer_cache.clear()
    del sys.path[0]
    loader = zipimport.zipimporter(str(path))
    spec = loader.find_spec("pack")
    assert spec is not None
    sys.modules["pack"] = importlib.util.module_from_spec(spec)
    assert importlib.import_module("pack.thing").value == 2
    assert old.get_data("pack/thing.py") == b"value = 1"


def archive_of(path: Path, level: int) -> Path:
    """It has a module that needs a library of it."""
    folder = path.with_suffix(f".{level}")
    folder.mkdir()
    source = f"int needed(void) {{ return {level}; }}"
    needed = compile_library(folder, "libneeded.so", source)
    module = compile_library(
        folder,
        "pack.so",
        MODULE.replace("LEVEL", f"{level}0"),
        flags=[INCLUDE],
        libraries=[needed],
        rpath="$ORIGIN/libs",
    )
    files = {f"pack{SUFFIX}": module.read_bytes(), "libs/libneeded.so": needed.read_bytes()}
    return pack(path, files)


def test_libraries_of_an_archive_that_is_replaced(tmp_path: Path) -> None:
    """A path leads into the new one; a module of the old takes what it needs from there."""
    code = """
import dlopen, importlib.util, os, sys
from dlopen import importer
importer.install()
place, new = sys.argv[1:]
def look():
    with dlopen.Library(f"{place}/libs/libneeded.so") as opened:
        return opened.needed()
sys.path.insert(0, place)
spec = importlib.util.find_spec("pack")
found = [look()]
os.replace(new, place)
found.append(look())
importer.uninstall()
importer.install()
found.append(look())
module = importlib.util.module_from_spec(spec)
print(found, module.level())
"""
    old, new = archive_of(tmp_path / "a.zip", 1), archive_of(tmp_path / "b.zip", 2)
    assert run_python(code, str(old), str(new)).stdout == "[1, 2, 2] 11\n"


def test_the_interpreters_own_tests_of_zipimport(tmp_path: Path) -> None:
    """They write one archive after the other to the same path, and ask anew."""
    code = """
import unittest
try:
    from test import test_zipimport
except ImportError:
    print("[] none")
    raise SystemExit
from dlopen import importer
importer.install()
with open("/dev/null", "w") as stream:
    suite = unittest.defaultTestLoader.loadTestsFromModule(test_zipimport)
    result = unittest.TextTestRunner(stream).run(suite)
failed = {test._testMethodName for test, _ in result.failures + result.errors}
print(sorted(failed), result.testsRun)
"""
    shown = run([sys.executable, "-c", code], cwd=tmp_path).stdout.splitlines()[-1]
    failed, _, count = shown.rpartition(" ")
    if count == "none":
        missing("this Python has no test package")
    # docs/importing.md says why, of each.
    assert failed == "['testAFakeZlib', 'testBoth', 'testGetCompiledSource']"
    assert int(count) > 70


def test_how_often_an_archive_is_looked_at(tmp_path: Path) -> None:
    """Once for each place of the path, and for each library; not for packages and modules."""
    strace = need_tool("strace")
    files = {f"pack/p{number}/__init__.py": b"" for number in range(20)}
    library = compile_library(tmp_path, "libx.so", "int x;").read_bytes()
    path = pack(tmp_path / "looked-at.zip", {"pack/__init__.py": b"", "libx.so": library, **files})
    code = """
import sys
import dlopen
from dlopen import importer
importer.install()
sys.path.insert(0, sys.argv[1])
for number in range(20):
    __import__(f"pack.p{number}")
for number in range(10):
    dlopen.Library(f"{sys.argv[1]}/libx.so", dlopen.PRIVATE)
"""
    trace = tmp_path / "trace"
    calls = "trace=stat,newfstatat,statx"
    run([strace, "-f", "-qq", "-o", trace, "-e", calls, sys.executable, "-c", code, path])
    lines = [line for line in trace.read_text().splitlines() if f'"{path}"' in line]
    assert len(lines) <= 1 + 10
