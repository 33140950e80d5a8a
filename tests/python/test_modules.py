"""Extension modules that our linker opens, compared with those of the interpreter's own import."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from support.extensions import CREATED, FAILS, MULTI, SINGLE, SUFFIX, extension
from support.fixtures import missing, run_python

FAILING = {
    # name: what PyInit_NAME does
    "silent": "return NULL;",
    "raises": 'PyErr_SetString(PyExc_LookupError, "by itself"); return NULL;',
    "reports": "PyErr_SetNone(PyExc_LookupError); return Py_NewRef(Py_None);",
    "other_thing": "return PyLong_FromLong(1);",
    "bad_slots": """
        static PyModuleDef_Slot slots[] = {{77, NULL}, {0, NULL}};
        static struct PyModuleDef definition = {
            PyModuleDef_HEAD_INIT, "bad_slots", NULL, 0, NULL, slots, NULL, NULL, NULL};
        return PyModuleDef_Init(&definition);""",
    "late": """
        static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute_late}, {0, NULL}};
        static struct PyModuleDef definition = {
            PyModuleDef_HEAD_INIT, "late", NULL, 0, NULL, slots, NULL, NULL, NULL};
        return PyModuleDef_Init(&definition);""",
}
# What a child begins with: `opens` lists what was opened, `ways` is how modules are imported.
BEGIN = """
import importlib, importlib.machinery, sys, threading
import dlopen
from dlopen import _linker, _modules, importer, process  # what this imports is the interpreter's
way, site = sys.argv[1:3]
sys.path.insert(0, site)
opened = []

def opener(path, mode):
    name, text, flags = _linker.asked(path, mode)
    opened.append(_linker.open(name, None, flags, keeps_gil=True))
    return opened[-1]

class Loader(_modules.ExtensionLoader):
    open_image = staticmethod(opener)

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, *arguments):
        spec = super().find_spec(*arguments)
        if spec and isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec

if way == "without":
    _modules._led.append(False)
if way != "interpreter":
    sys.meta_path.insert(0, Finder)

def ours():
    return [info.path for info in dlopen.libraries() if not info.is_host]
"""
SHOW = """
def show(name):
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        known = getattr(error, "name", None), getattr(error, "path", None)
        print(name, type(error), error, known, name in sys.modules)
        return None
    print(name, sorted(vars(module)), module.__name__, module.__doc__, module.__file__)
    print(module.__package__, module.__spec__.name, module.__spec__.origin, repr(module))
    print(getattr(module, "early", None), module.next_count.__module__)
    print(module.next_count.__doc__, [module.next_count(), module.next_count()])
    return module
"""


def by_each_way(code: str, site: Path) -> dict[str, str]:
    """What a child prints, by the way in which it imports."""
    return {
        way: run_python(BEGIN + SHOW + code, way, str(site)).stdout
        for way in ("interpreter", "ours", "without")
    }


def test_modules_are_as_by_the_interpreter(tmp_path: Path) -> None:
    package = tmp_path / "pack" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    names = []
    for folder, prefix in ((tmp_path, ""), (package, "pack.inner.")):
        extension(folder, "one", SINGLE.replace("SIZE", "-1"))
        extension(folder, "sized", SINGLE.replace("SIZE", "0"))
        extension(folder, "multi", MULTI)
        extension(folder, "created", CREATED)
        limited = ("-DPy_LIMITED_API=0x030b0000",)
        extension(folder, "limited", MULTI, flags=limited, suffix=".abi3.so")
        text = MULTI.replace("FUNCTION", "PyInitU_gre_6ka8i")
        extension(folder, "größe", text)
        names += [
            prefix + name for name in ("one", "sized", "multi", "created", "limited", "größe")
        ]
    code = f"""
for name in {names!r}:
    assert show(name)
own = [path for path in ours() if path.startswith(site)]
assert len(own) == (0 if way == "interpreter" else {len(names)}), own
"""
    shown = by_each_way(code, tmp_path)
    assert shown["ours"] == shown["without"] == shown["interpreter"]
    assert "pack.inner.one pack.inner.one" in shown["ours"]


def test_what_the_interpreter_remembers(tmp_path: Path) -> None:
    """A single-phase module is made of it when it is imported again, and no file is opened."""
    extension(tmp_path, "one", SINGLE.replace("SIZE", "-1"))
    extension(tmp_path, "sized", SINGLE.replace("SIZE", "0"))
    extension(tmp_path, "multi", MULTI)
    code = """
for name in ("one", "sized", "multi"):
    first = show(name)
    first.planted = 1
    del sys.modules[name]
    second = show(name)
    print(first is second, hasattr(second, "planted"))
print(len(opened), len({*opened}))
"""
    ours = run_python(BEGIN + SHOW + code, "ours", str(tmp_path)).stdout
    theirs = run_python(BEGIN + SHOW + code, "interpreter", str(tmp_path)).stdout
    assert ours.splitlines()[:-1] == theirs.splitlines()[:-1]
    assert ours.splitlines()[-1] == "4 3"


def test_failures_are_as_by_the_interpreter(tmp_path: Path) -> None:
    """Nothing half imported is left; nor is an image, if nothing of the module was called."""
    for name, does in FAILING.items():
        extension(tmp_path, name, FAILS.replace("DOES", does))
    extension(tmp_path, "nameless", MULTI.replace("FUNCTION", "PyInit_another"))
    code = f"""
before = {{*sys.modules}}
for name in {[*FAILING, "nameless"]!r}:
    show(name)
    show(name)
assert {{*sys.modules}} == before
left = sorted(path for path in ours() if path.startswith(site))
assert len(left) == (0 if way == "interpreter" else {len(FAILING)}), left
assert not any("nameless" in path for path in left)
assert not way.startswith("o") or _linker.images().count(opened[-1]) == 0
"""
    shown = by_each_way(code, tmp_path)
    assert shown["ours"] == shown["without"] == shown["interpreter"]


def test_why_a_file_cannot_be_opened(tmp_path: Path) -> None:
    name = "n" * 1000
    source = f"void {name}(void);\nvoid PyInit_undefined(void) {{ {name}(); }}"
    extension(tmp_path, "undefined", source)
    (tmp_path / f"text{SUFFIX}").write_text("no library")
    code = """
for name in ("undefined", "text"):
    try:
        importlib.import_module(name)
    except ImportError as error:
        assert (error.name, error.path) == (name, f"{site}/{name}SUFFIX"), vars(error)
        assert str(error) == str(error.__cause__)
        print(type(error.__cause__).__name__, error)
    assert name not in sys.modules
assert not [path for path in ours() if path.startswith(site)]
"""
    for way in ("ours", "without"):
        shown = run_python(BEGIN + code.replace("SUFFIX", SUFFIX), way, str(tmp_path)).stdout
        first, second = shown.splitlines()
        assert first.startswith("SymbolError ")
        assert name in first
        assert second.startswith("LoadError ")


def test_a_relative_path_is_ours_too(tmp_path: Path) -> None:
    """The interpreter asks for "./x.so" then."""
    path = extension(tmp_path, "multi", MULTI)
    code = f"""
import os
from importlib.machinery import ModuleSpec
os.chdir(site)
spec = ModuleSpec("multi", None, origin={path.name!r})
def here(path, mode):
    return opener("./" + path, mode)
module = _modules.create(spec, here)
assert len(opened) == 1 and spec.origin == {path.name!r}
assert not any(info.is_host for info in dlopen.libraries() if info.path.startswith(site))
"""
    for way in ("ours", "without"):
        run_python(BEGIN + code, way, str(tmp_path))


def test_what_an_opener_raises_comes_out() -> None:
    code = """
from importlib.machinery import ModuleSpec
import gc
class Wrong(Exception): pass
def wrong(path, mode):
    raise Wrong(path, mode)
for error in (Wrong, KeyboardInterrupt):
    def opener(path, mode):
        raise error(path, mode)
    try:
        _modules.create(ModuleSpec("x", None, origin="/nowhere/x.so"), opener, anew=True)
    except error as caught:
        print(caught, caught.__context__ is None)
print(sys.getdlopenflags())
"""
    for way in ("ours", "without"):
        *lines, flags = run_python(BEGIN + code, way, "").stdout.splitlines()
        assert lines == [f"('/nowhere/x.so', {flags}) True"] * 2


def test_two_modules_in_one_file(tmp_path: Path) -> None:
    """As Cython packs them: the second by a spec of its own, from the same file."""
    both = MULTI.replace("FUNCTION", "PyInit_first") + (
        "PyMODINIT_FUNC PyInit_second(void) { return PyModuleDef_Init(&definition); }\n"
    )
    path = extension(tmp_path, "first", both)
    code = f"""
from importlib.util import module_from_spec, spec_from_file_location
first = importlib.import_module("first")
spec = spec_from_file_location("pack.second", {str(path)!r})
if way != "interpreter":
    spec.loader = Loader("pack.second", spec.loader.path)
second = module_from_spec(spec)
spec.loader.exec_module(second)
print(first, second, first.next_count(), second.next_count(), second.early)
"""
    shown = by_each_way(code, tmp_path)
    assert shown["ours"] == shown["without"] == shown["interpreter"]
    assert " 1 2 pack.second" in shown["ours"]


IMPORTS = """
#include <Python.h>
static PyObject *imported;
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "NAME", NULL, -1, NULL, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_NAME(void) {
    PyObject *other = PyImport_ImportModule("OTHER");
    PyObject *module = other ? PyModule_Create(&definition) : NULL;
    if (module) PyModule_AddObjectRef(module, "other", other);
    return module;
}
"""


def test_modules_that_import_others_while_they_are_made(tmp_path: Path) -> None:
    """One of ours, in a package; one of the interpreter's; one that cannot be imported."""
    for name in ("pack", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    extension(tmp_path / "pack", "outer", IMPORTS.replace("OTHER", "other.inner"))
    extension(tmp_path / "other", "inner", IMPORTS.replace("OTHER", "other.last"))
    extension(tmp_path / "other", "last", SINGLE.replace("SIZE", "-1"))
    extension(tmp_path, "hosts", IMPORTS.replace("OTHER", "other.of_host"))
    extension(tmp_path / "other", "of_host", SINGLE.replace("SIZE", "-1"))
    extension(tmp_path, "breaks", IMPORTS.replace("OTHER", "other.broken"))
    (tmp_path / "other" / f"broken{SUFFIX}").write_text("no library")
    code = """
import pack.outer, other.inner, other.last
print(pack.outer, pack.outer.other, other.inner.other, other.last.next_count.__module__)
find_spec = Finder.find_spec
def find_others(name, *arguments):
    return None if name == "other.of_host" else find_spec(name, *arguments)
Finder.find_spec = find_others
import hosts
print(hosts, hosts.other, hosts.other.next_count.__module__)
infos = {info.path: info.is_host for info in dlopen.libraries()}
assert infos[hosts.other.__file__]
assert infos[hosts.__file__] == (way == "interpreter")
Finder.find_spec = find_spec
try:
    import breaks
except ImportError as error:
    print(error.name if way != "interpreter" else "other.broken", "other.broken" in sys.modules)
"""
    shown = by_each_way(code, tmp_path)
    assert shown["ours"] == shown["without"] == shown["interpreter"]


def test_an_audit_hook_sees_the_same_and_may_import(tmp_path: Path) -> None:
    extension(tmp_path, "one", SINGLE.replace("SIZE", "-1"))
    extension(tmp_path, "multi", MULTI)
    extension(tmp_path, "in_hook", MULTI)
    code = """
seen = []
def hook(event, arguments):
    if event == "import" and arguments[1]:
        seen.append((event, arguments))
        if arguments[0] == "one":
            importlib.import_module("in_hook")
sys.addaudithook(hook)
show("one")
show("multi")
print(seen)
"""
    shown = by_each_way(code, tmp_path)
    assert shown["ours"] == shown["without"] == shown["interpreter"]
    assert shown["ours"].count("('import', ('in_hook'") == 1


def test_threads_import_at_once(tmp_path: Path) -> None:
    """The same modules, others of ours, and those of the interpreter's."""
    count = 12
    for number in range(count):
        extension(tmp_path, f"m{number}", MULTI if number % 2 else SINGLE.replace("SIZE", "-1"))
        extension(tmp_path, f"theirs{number}", MULTI)
    code = f"""
find_spec = Finder.find_spec
Finder.find_spec = lambda name, *rest: None if name[0] == "t" else find_spec(name, *rest)
start = threading.Barrier(4)
found = [[] for _ in range(4)]
def work(mine):
    start.wait()
    for number in range({count}):
        for name in (f"m{{number}}", f"theirs{{number}}"):
            mine.append(importlib.import_module(name))
threads = [threading.Thread(target=work, args=[mine]) for mine in found]
for thread in threads: thread.start()
for thread in threads: thread.join()
for modules in zip(*found):
    assert len({{*map(id, modules)}}) == 1
    assert modules[0].early == modules[0].__name__
hosts = {{info.path: info.is_host for info in dlopen.libraries()}}
for module in found[0]:
    assert hosts[module.__file__] == (module.__name__[0] == "t"), module
assert len(opened) == len({{*opened}}) == {count}
"""
    for way in ("ours", "without"):
        run_python(BEGIN + code, way, str(tmp_path))


@pytest.mark.parametrize("source", [MULTI, CREATED, SINGLE.replace("SIZE", "-1")])
def test_each_image_has_its_module(tmp_path: Path, source: str) -> None:
    """Of one name and path: what the interpreter remembers is that of another image."""
    path = extension(tmp_path, "created", source)
    code = f"""
from importlib.machinery import ModuleSpec
def opener(path, mode):
    return _linker.open(path.encode(), None, mode | _linker.PRIVATE, keeps_gil=True)
made = []
for number in range(5):
    spec = ModuleSpec("created", None, origin={str(path)!r})
    spec.has_location = True
    made.append(_modules.create(spec, opener, anew=True))
    assert spec.origin == {str(path)!r} == getattr(made[-1], "__file__", spec.origin)
assert [module.next_count() for module in made] == [1] * 5
assert len({{*map(id, made)}}) == 5
assert ours().count({str(path)!r}) == 5
"""
    for way in ("ours", "without"):
        run_python(BEGIN + code, way, str(tmp_path))


def test_the_interpreters_calls_are_led() -> None:
    """Of each that this project runs on; once."""
    code = """
from support.fixtures import maps
assert _modules.lead_places() and _modules._led == [True]
assert _modules.lead_places() and _modules._led == [True]
import _decimal, ctypes
assert ctypes.CDLL(_decimal.__file__).PyInit__decimal
"""
    run_python(BEGIN + code, "ours", "")


SUBINTERPRETER = """
_modules.lead_places()
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
code = "import sys; sys.path.insert(0, {site!r}); import multi; multi.count = multi.next_count()"
for _ in range(2):
    interpreters.run_string(other, code.format(site=site))
import multi
infos = [info for info in dlopen.libraries() if info.path == multi.__file__]
print(multi.next_count(), [info.is_host for info in infos])
"""


def test_subinterpreters_import_as_ever(tmp_path: Path) -> None:
    """By their own import, from the system's loader.  What it has loaded, ours takes as it is."""
    isolated = """, execute},
    #ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    #endif
    {0"""
    extension(tmp_path, "multi", MULTI.replace(", execute}, {0", isolated))
    shown = run_python(BEGIN + SUBINTERPRETER, "ours", str(tmp_path)).stdout
    assert shown == "3 [True]\n"


def test_all_extension_modules_of_python() -> None:
    """Of the standard library's folder, those that the interpreter itself can import."""
    code = """
import os
importer.install(everything=True)
importer.install(everything=True)
folder = site
count = 0
for file in sorted(os.listdir(folder)):
    name, path = file.partition(".")[0], os.path.join(folder, file)
    if name in sys.modules or name.startswith("xxlimited"):
        continue
    importlib.import_module(name)
    assert [info.is_host for info in dlopen.libraries() if info.path == path] == [False], path
    count += 1
assert count > 20, count
importer.install()
assert _modules._everything in sys.meta_path
importer.install(everything=False)
assert _modules._everything not in sys.meta_path
importer.install(everything=True)
importer.uninstall()
importer.uninstall()
assert _modules._everything not in sys.meta_path
"""
    folder = Path(sysconfig.get_config_var("DESTSHARED"))
    if not list(folder.glob("*.so")):
        missing("this Python has no extension modules in files")
    run_python(BEGIN + code, "interpreter", str(folder))


def test_everything_heeds_other_finders(tmp_path: Path) -> None:
    """An editable installation has one; a loader of another kind is not ours to replace."""
    for name in ("found", "special", "plain", "spaced"):
        extension(tmp_path, name, MULTI)
    code = """
import importlib.util
class Special(importlib.machinery.ExtensionFileLoader): pass
class Editable:
    @staticmethod
    def find_spec(name, path, target=None):
        if name not in ("found", "special"):
            return None
        file = f"{site}/{name}SUFFIX"
        loader = Special(name, file) if name == "special" else None
        return importlib.util.spec_from_file_location(name, file, loader=loader)
sys.path.remove(site)
sys.meta_path.insert(0, Editable)
importer.install(everything=True)
import found, special
sys.path.insert(0, site)
with dlopen.Namespace("a") as namespace:
    with namespace.imports():
        import spaced
    import plain
    assert len(namespace.libraries) == 1
hosts = {info.path: info.is_host for info in dlopen.libraries()}
print([hosts[module.__file__] for module in (found, special, plain, spaced)])
print(type(special.__loader__) is Special, plain.next_count(), spaced.next_count())
"""
    code = code.replace("SUFFIX", SUFFIX)
    shown = run_python(BEGIN + code, "interpreter", str(tmp_path)).stdout
    assert shown == "[False, True, False, False]\nTrue 1 1\n"
