"""Extension modules as binding generators make them: imported, copied, reloaded, in namespaces."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from support.extensions import INCLUDE, SUFFIX
from support.fixtures import compile_library, missing, run, run_python

CYTHON = """
cdef class Thing:
    cdef int n
    def __init__(self, n): self.n = n
    cpdef int twice(self): return self.n * 2

cdef int counter = 0
def count():
    global counter
    counter += 1
    return counter
def fails(): raise KeyError("from Cython")
"""
THING = """
static int counter;
struct Thing { int n; Thing(int n) : n(n) {} int twice() const { return n * 2; } };
"""
PYBIND11 = f"""
#include <pybind11/pybind11.h>
{THING}
PYBIND11_MODULE(made, m) {{
    pybind11::class_<Thing>(m, "Thing").def(pybind11::init<int>()).def("twice", &Thing::twice);
    m.def("count", [] {{ return ++counter; }});
    m.def("fails", [] {{ throw pybind11::key_error("from pybind11"); }});
}}
"""
NANOBIND = f"""
#include <nanobind/nanobind.h>
{THING}
NB_MODULE(made, m) {{
    nanobind::class_<Thing>(m, "Thing").def(nanobind::init<int>()).def("twice", &Thing::twice);
    m.def("count", [] {{ return ++counter; }});
    m.def("fails", [] {{ throw nanobind::key_error("from nanobind"); }});
}}
"""
CFFI = """
static int counter;
static int count(void) { return ++counter; }
static int twice(int n) { return n * 2; }
"""


def generator(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"{name} is not installed")


def of_cython(folder: Path) -> Path:
    generator("Cython")
    (folder / "made.pyx").write_text(CYTHON)
    run([sys.executable, "-m", "cython", "-3", folder / "made.pyx"])
    return compile_library(folder, f"made{SUFFIX}", folder / "made.c", flags=[INCLUDE])


def of_cffi(folder: Path) -> Path:
    ffi = generator("cffi").FFI()
    ffi.cdef("int count(void); int twice(int);")
    ffi.set_source("made", CFFI)
    ffi.emit_c_code(str(folder / "made.c"))
    return compile_library(folder, f"made{SUFFIX}", folder / "made.c", flags=[INCLUDE])


def of_pybind11(folder: Path) -> Path:
    flags = [INCLUDE, f"-I{generator('pybind11').get_include()}", "-fvisibility=hidden"]
    return compile_library(folder, f"made{SUFFIX}", PYBIND11, language="c++", flags=flags)


def of_nanobind(folder: Path) -> Path:
    nanobind = generator("nanobind")
    sources = Path(nanobind.source_dir())
    folders = [nanobind.include_dir(), sources.parent / "ext" / "robin_map" / "include"]
    flags = [INCLUDE, *(f"-I{one}" for one in folders), "-fvisibility=hidden", "-std=c++17"]
    text = f'#include "{sources / "nb_combined.cpp"}"\n{NANOBIND}'
    flags.append("-fno-strict-aliasing")
    return compile_library(folder, f"made{SUFFIX}", text, language="c++", flags=flags)


CODE = """
import importlib, sys
import dlopen
from dlopen.importer import install, load_module, reload_module

def use(module, before=0):
    module = getattr(module, "lib", module)
    assert [module.count(), module.count()] == [before + 1, before + 2]
    if hasattr(module, "twice"):
        assert module.twice(21) == 42
        return
    assert module.Thing(21).twice() == 42
    try:
        module.fails()
    except KeyError:
        return
    sys.exit("it did not fail")

path = sys.argv[1]
sys.path.insert(0, path.rpartition("/")[0])
install(everything=True)
import made
use(made)
assert [info.is_host for info in dlopen.libraries() if info.path == path] == [False]
with open(path, "rb") as file:
    copies = [load_module("one", file.read()), load_module("two", path)]
for copy in copies:
    use(copy)
new = reload_module(made)
assert new is not made and sys.modules["made"] is new
use(new)
for number in range(2):
    namespace = dlopen.Namespace(f"{number}")
    with namespace.imports("made"):
        module = importlib.import_module("made")
        assert module not in (made, new)
        use(module)
    use(reload_module(module))
    use(module, 2)
    namespace.close()
for module in (made, *copies, new):
    use(module, 2)
"""


@pytest.mark.parametrize("make", [of_cython, of_cffi])
def test_in_c(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    run_python(CODE, str(make(tmp_path)))


@pytest.mark.cxx
@pytest.mark.parametrize("make", [of_pybind11, of_nanobind])
def test_in_cxx(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """They know types by the name that C++ has for them: each image has types of its own."""
    run_python(CODE, str(make(tmp_path)))
