"""Imports that are directed into a namespace."""

from __future__ import annotations

import gc
import importlib
import importlib.machinery
import importlib.util
import sys
import sysconfig
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

import dlopen
from support.fixtures import compile_library, maps, missing, run_python

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
INCLUDE = f"-I{sysconfig.get_paths()['include']}"

COMMON = """
#include <Python.h>
int level(void);
static int count;
static PyObject *next_count(PyObject *module, PyObject *none) { return PyLong_FromLong(++count); }
static PyObject *get_level(PyObject *module, PyObject *none) { return PyLong_FromLong(level()); }
static PyMethodDef methods[] = {
    {"next_count", next_count, METH_NOARGS, NULL},
    {"get_level", get_level, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
"""
MULTI = (
    COMMON
    + """
static int execute(PyObject *module) {
    if (PyModule_AddStringConstant(module, "during", PyModule_GetName(module)) < 0) return -1;
    return PyModule_AddIntConstant(module, "phases", 2);
}
static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "whatever", "Of two phases.", 0, methods, slots, NULL, NULL, NULL};
PyMODINIT_FUNC %s(void) { return PyModuleDef_Init(&definition); }
"""
)
SINGLE = (
    COMMON
    + """
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "single", "Of one phase.", -1, methods, NULL, NULL, NULL, NULL};
static PyObject *found(PyObject *module, PyObject *none) {
    PyObject *self = PyState_FindModule(&definition);
    return PyBool_FromLong(self == module);
}
static PyMethodDef more[] = {{"found", found, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
PyMODINIT_FUNC %s(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddFunctions(module, more) < 0) Py_CLEAR(module);
    if (module && PyModule_AddIntConstant(module, "phases", 1) < 0) Py_CLEAR(module);
    return module;
}
"""
)


def level_library(directory: Path, number: int) -> Path:
    return compile_library(directory, "liblevel.so.1", f"int level(void) {{ return {number}; }}\n")


def extension(
    directory: Path, name: str, source: str, *, symbol: str | None = None, level: Path | None
) -> Path:
    text = source % (symbol or f"PyInit_{name}") if "%s" in source else source
    return compile_library(
        directory,
        f"{name}{SUFFIX}",
        text,
        flags=[INCLUDE],
        libraries=[level] if level else [],
        rpath="",
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of `sys.path`; its extension modules need the liblevel.so.1 of v1 or of v2."""
    site = tmp_path / "site"
    pack = site / "pack"
    pack.mkdir(parents=True)
    level = level_library(tmp_path / "v1", 1)
    level_library(tmp_path / "v2", 2)
    extension(pack, "multi", MULTI, level=level)
    extension(pack, "single", SINGLE, level=level)
    (pack / "__init__.py").write_text("from pack import multi, single\nfrom . import pure\n")
    (pack / "pure.py").write_text(
        "import sys\nfrom .multi import get_level\nstate = []\n"
        "class Thing: pass\nassert sys.modules[__name__].state is state\n"
    )
    (site / "plain.py").write_text("import pack\nvalue = []\n")
    monkeypatch.syspath_prepend(str(site))
    before = {*sys.modules}
    yield site
    others = {"dlopen", *sys.stdlib_module_names}
    left = {name for name in {*sys.modules} - before if name.partition(".")[0] not in others}
    for name in left:
        del sys.modules[name]
    assert not {name for name in left if name.partition(".")[0] in ("pack", "plain")}
    assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("dlopen")]


def test_a_package_twice_side_by_side(tmp_path: Path, site: Path) -> None:
    modules = []
    spaces = [dlopen.Namespace(name, [tmp_path / name]) for name in ("v1", "v2")]
    for namespace in spaces:
        with namespace.imports():
            import pack.pure  # type: ignore[import-not-found]  # noqa: PLC0415
            import plain  # type: ignore[import-not-found]  # noqa: PLC0415

            assert plain.pack is pack
            assert namespace.modules["pack"] is pack is sys.modules["pack"]
            modules.append(pack)
        assert "pack" not in sys.modules
        assert {*namespace.modules} == {"pack", "pack.multi", "pack.single", "pack.pure", "plain"}
    first, second = modules
    assert first is not second
    assert first.pure.Thing is not second.pure.Thing
    for name in ("multi", "single"):
        one, two = getattr(first, name), getattr(second, name)
        assert [one.next_count(), one.next_count(), two.next_count()] == [1, 2, 1]
        assert [one.get_level(), two.get_level()] == [1, 2]
        for module in (one, two):
            path = str(site / "pack" / f"{name}{SUFFIX}")
            assert module.__name__ == module.__spec__.name == f"pack.{name}"
            assert module.__file__ == path
            assert module.__package__ == "pack"
            assert isinstance(module.__loader__, importlib.machinery.ExtensionFileLoader)
            assert module.phases == {"multi": 2, "single": 1}[name]
    assert first.single.found() is second.single.found() is True
    assert first.multi.during == "pack.multi"
    assert first.pure.get_level() == 1
    for namespace, folder in zip(spaces, ("v1", "v2"), strict=True):
        paths = [Path(info.path) for info in namespace.libraries]
        assert tmp_path / folder / "liblevel.so.1" in paths
        assert len(paths) == 3
    assert not any(
        info.is_host for info in dlopen.libraries() if info.path.startswith(str(tmp_path))
    )
    with pytest.raises(ImportError, match=r"liblevel\.so\.1"):
        import pack.multi  # type: ignore[import-not-found]  # noqa: PLC0415  (by the interpreter, which has no such path)


NAMED = """
#include <Python.h>
static char during[200];
static PyObject *saved(PyObject *module, PyObject *none) { return PyUnicode_FromString(during); }
static PyMethodDef methods[] = {{"saved", saved, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "NAME", NULL, -1, methods, NULL, NULL, NULL, NULL};
static struct PyModuleDef inner = {
    PyModuleDef_HEAD_INIT, "last", NULL, -1, NULL, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_last(void) {
    if (IMPORTS) Py_XDECREF(PyImport_ImportModule("IMPORTED"));
    PyObject *module = PyModule_Create(&definition);
    PyObject *second = PyModule_Create(&inner);  /* has no package any more */
    if (!module || !second) return NULL;
    strcat(strcat(strcpy(during, PyModule_GetName(module)), " "), PyModule_GetName(second));
    Py_DECREF(second);
    return module;
}
"""
SHOW = """
import importlib, pickle, sys
sys.path.insert(0, sys.argv[1])
def show():
    for name in ("top.sub.last", "top.other.last", "last"):
        module = importlib.import_module(name)
        saved = module.saved
        print(name, module.__name__, saved.__module__, saved(), module.__package__, module.__file__)
        if name == module.__name__: print(pickle.loads(pickle.dumps(saved)) is saved)
"""


def test_single_phase_modules_are_named_as_by_the_interpreter(tmp_path: Path) -> None:
    """`__name__` has the package from the first moment, and so has `__module__` of functions."""
    for folder, name, imported in [
        ("top/sub", "last", "top.other.last"),
        ("top/other", "another", ""),
        ("", "last", ""),
    ]:
        source = NAMED.replace("NAME", name).replace("IMPORTED", imported)
        source = source.replace("IMPORTS", str(int(bool(imported))))
        place = tmp_path / folder
        extension(place, "last", source, level=None)
        if folder:
            (place / "__init__.py").write_text("")
    (tmp_path / "top/__init__.py").write_text("")
    own = "import dlopen\nwith dlopen.Namespace('a').imports('top', 'last'):"
    interpreters = run_python(f"{SHOW}\nshow()", str(tmp_path)).stdout
    ours = run_python(f"{SHOW}\n{own} show()", str(tmp_path)).stdout
    assert "top.sub.last top.sub.last top.sub.last top.sub.last last" in interpreters
    assert ours == interpreters


def test_on_entering_again_they_are_back(tmp_path: Path, site: Path) -> None:
    namespace = dlopen.Namespace("a", [tmp_path / "v1"])
    with namespace.imports():
        import plain  # noqa: PLC0415
    with namespace.imports():
        import plain as again  # noqa: PLC0415

        assert sys.modules["pack.multi"] is plain.pack.multi
    assert again is plain
    with namespace.imports("plain"):
        assert importlib.import_module("plain") is plain
    namespace.close()
    assert namespace.modules["plain"] is plain


def test_closing_keeps_extension_modules(tmp_path: Path, site: Path) -> None:
    """Python objects of theirs may be anywhere."""
    foo = compile_library(tmp_path, "libfoo.so", "int foo;\n")
    namespace = dlopen.Namespace("a", [tmp_path / "v1"])
    other = namespace.load(foo)
    with namespace.imports():
        import pack  # noqa: PLC0415
    namespace.close()
    assert other.closed
    assert pack.multi.get_level() == 1
    assert pack.single.next_count() == 1
    names = {str(site / "pack" / f"{name}{SUFFIX}") for name in ("multi", "single")}
    assert {*namespace.unload_blockers} == {dlopen.Blocker("open", name) for name in names}
    level = str(tmp_path / "v1" / "liblevel.so.1")
    assert {info.path for info in namespace.libraries} == {*names, level}
    assert str(foo) not in {mapping.path for mapping in maps()}
    with pytest.raises(ValueError, match="is closed"):
        namespace.imports()
    del pack
    gc.collect()


def test_what_was_imported_before_is_used_as_it_is(site: Path, tmp_path: Path) -> None:
    (site / "known").mkdir()
    (site / "known" / "__init__.py").write_text("")
    (site / "known" / "part.py").write_text("")
    (site / "uses.py").write_text("import known.part\n")
    import known  # type: ignore[import-not-found]  # noqa: PLC0415

    namespace = dlopen.Namespace("a")
    with namespace.imports():
        import uses  # type: ignore[import-not-found]  # noqa: PLC0415

        assert uses.known is known
    # A package is one, with the parts that are imported later.
    assert {*namespace.modules} == {"uses"}
    assert sys.modules["known.part"] is known.part
    with namespace.imports("known"):
        assert "known" not in sys.modules
        assert "known.part" not in sys.modules
        import known as anew  # noqa: PLC0415

        assert anew is not known
        assert not hasattr(anew, "part")
        assert {*namespace.modules} == {"uses", "known"}
    assert sys.modules["known"] is known
    assert sys.modules["known.part"] is known.part
    namespace.close()


def need_extensions(*names: str) -> None:
    """Not in every Python are these files of their own."""
    for name in names:
        spec = importlib.util.find_spec(name)
        if not spec or not isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
            missing(f"{name} is no file in this Python")


def test_the_standard_library_stays() -> None:
    need_extensions("_decimal", "_queue")
    code = """
import sys
import dlopen
assert "decimal" not in sys.modules and "_decimal" not in sys.modules
namespace = dlopen.Namespace("a")
with namespace.imports():
    import decimal, fractions
assert sys.modules["decimal"] is decimal
assert namespace.modules == {} and namespace.libraries == ()

with namespace.imports("decimal", "_decimal"):
    import decimal as own
assert own is not decimal and own.Decimal is not decimal.Decimal
assert own.Decimal(1) / 8 == own.Decimal("0.125")
assert sys.modules["_decimal"].__file__ in [info.path for info in namespace.libraries]
assert sys.modules["decimal"] is decimal and {*namespace.modules} == {"decimal", "_decimal"}
# Contexts apart: a precision that is set in the one does not hold in the other.
own.getcontext().prec = 3
assert str(own.Decimal(1) / 3) == "0.333" and len(str(decimal.Decimal(1) / 3)) == 30

others = [dlopen.Namespace(f"{number}") for number in range(3)]
made = []
for other in others:
    with other.imports("_queue", "queue"):
        import queue, _queue
        held = queue.SimpleQueue()
        held.put("a")
        assert held.get() == "a"
        assert queue.SimpleQueue is _queue.SimpleQueue
        made.append((_queue, _queue.SimpleQueue))
assert len({id(module) for module, _ in made}) == len({kind for _, kind in made}) == 3
for other in others:
    assert len(other.libraries) == 1
    other.close()
namespace.close()
assert str(own.Decimal(2) / 3) == "0.667"
print("done")
"""
    assert run_python(code).stdout == "done\n"


def test_sqlite3_of_python_twice() -> None:
    """The real one, with a sqlite of its own in each namespace."""
    need_extensions("_sqlite3")
    code = """
import sqlite3, sys
import dlopen
names = ("sqlite3", "_sqlite3")
kept = []
for number in range(2):
    namespace = dlopen.Namespace(f"{number}")
    with namespace.imports(*names):
        import sqlite3 as own, _sqlite3
        assert own.Row is not sqlite3.Row
        own.register_adapter(complex, lambda value: f"{number}: {value.real}")
        database = own.connect(":memory:")
        database.execute("create table t (x)")
        database.execute("insert into t values (?)", [1j + number])
        kept.append((own, database, namespace))
for number, (own, database, namespace) in enumerate(kept):
    assert database.execute("select x from t").fetchall() == [(f"{number}: {number}.0",)]
    assert any("sqlite3" in info.path for info in namespace.libraries)
    database.close()
    namespace.close()
assert sys.modules["sqlite3"] is sqlite3
print("done")
"""
    assert run_python(code).stdout == "done\n"


def test_exceptions_restore_what_was_there(site: Path, tmp_path: Path) -> None:
    (site / "breaks.py").write_text("import helper\nraise KeyError('broken')\n")
    (site / "helper.py").write_text("")
    namespace = dlopen.Namespace("a")
    block = namespace.imports("json")
    before = sys.modules.copy()
    finders = [*sys.meta_path]
    with pytest.raises(KeyError, match="broken"), block:
        import breaks  # type: ignore[import-not-found]  # noqa: PLC0415, F401
    assert sys.modules == before
    assert sys.meta_path == finders
    assert {*namespace.modules} == {"helper"}
    with namespace.imports():
        assert "helper" in sys.modules
        namespace.close()  # inside of its own block
    assert sys.modules == before


def test_nested_blocks(site: Path, tmp_path: Path) -> None:
    first, second = (dlopen.Namespace(name, [tmp_path / name]) for name in ("v1", "v2"))
    with first.imports():
        import pack  # noqa: PLC0415

        outer = pack
        with second.imports():
            assert "pack" not in sys.modules
            import pack  # noqa: PLC0415

            assert pack.multi.get_level() == 2
            with first.imports():
                import pack as third  # noqa: PLC0415

                assert third is outer
                import plain  # noqa: PLC0415
            assert sys.modules["pack"] is pack
            assert "plain" not in sys.modules
        assert sys.modules["pack"] is outer
        assert sys.modules["plain"] is plain
        block = second.imports()
        with block, pytest.raises(ValueError, match="entered already"), block:
            pass
    assert "plain" in first.modules
    assert "plain" not in second.modules
    for namespace in (first, second):
        namespace.close()


def test_other_threads_import_as_ever(site: Path, tmp_path: Path) -> None:
    (site / "theirs.py").write_text("")
    (site / "waiting.py").write_text("import other_thread\n")
    namespace = dlopen.Namespace("a")
    imported: list[ModuleType] = []
    with namespace.imports():
        thread = threading.Thread(target=lambda: imported.append(importlib.import_module("theirs")))
        thread.start()
        thread.join()
    assert imported == [sys.modules["theirs"]]
    assert namespace.modules == {}
    namespace.close()


def test_blocks_of_threads_take_turns(site: Path, tmp_path: Path) -> None:
    spaces = [dlopen.Namespace(f"{i}", [tmp_path / f"v{1 + i % 2}"]) for i in range(8)]
    found: dict[int, ModuleType] = {}
    start = threading.Barrier(len(spaces))

    def work(number: int) -> None:
        start.wait()
        with spaces[number].imports():
            found[number] = importlib.import_module("pack.multi")

    threads = [threading.Thread(target=work, args=[number]) for number in range(len(spaces))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number].get_level() for number in range(len(spaces))] == [1, 2] * 4
    assert len({*map(id, found.values())}) == len(spaces)
    for namespace in spaces:
        namespace.close()


BAD = {
    "nothing": ("int nothing;\n", r"does not define module export function \(PyInit_nothing\)"),
    "silent": (
        "void *PyInit_silent(void) { return 0; }\n",
        "initialization of silent failed without raising an exception",
    ),
    "raises": (
        """
        #include <Python.h>
        PyMODINIT_FUNC PyInit_raises(void) {
            PyErr_SetString(PyExc_LookupError, "by itself");
            return NULL;
        }
        """,
        "by itself",
    ),
    "undefined": (
        "void absent(void);\nvoid *PyInit_undefined(void) { absent(); return 0; }\n",
        "absent",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_extension_modules_that_fail(site: Path, tmp_path: Path, name: str) -> None:
    source, message = BAD[name]
    path = extension(site, name, source, level=None)
    kind = {"silent": SystemError, "raises": LookupError}.get(name, ImportError)
    with dlopen.Namespace("a") as namespace:
        with pytest.raises(kind, match=message) as caught, namespace.imports():
            importlib.import_module(name)
        if isinstance(caught.value, ImportError):
            assert caught.value.name == name
            assert caught.value.path == str(path)
            assert namespace.libraries == ()
        if name == "undefined":
            assert isinstance(caught.value.__cause__, dlopen.SymbolError)
        assert name not in sys.modules
        assert namespace.modules == {}


def test_a_missing_dependency_is_an_import_error(site: Path) -> None:
    with dlopen.Namespace("a") as namespace:
        with pytest.raises(ImportError, match=r"liblevel\.so\.1") as caught, namespace.imports():
            importlib.import_module("pack")
        assert isinstance(caught.value.__cause__, dlopen.LoadError)
        assert caught.value.name == "pack.multi"


def test_names_that_are_not_ascii(site: Path) -> None:
    """PEP 489: their function has the name in punycode.  The interpreter finds it, too."""
    source = """
    #include <Python.h>
    static struct PyModuleDef definition = {
        PyModuleDef_HEAD_INIT, "any", NULL, 0, NULL, NULL, NULL, NULL, NULL};
    PyMODINIT_FUNC PyInitU_gre_6ka8i(void) { return PyModuleDef_Init(&definition); }
    """
    extension(site, "größe", source, level=None)
    with dlopen.Namespace("a") as namespace, namespace.imports():
        ours = importlib.import_module("größe")
    theirs = importlib.import_module("größe")
    assert ours is not theirs
    assert ours.__name__ == theirs.__name__ == "größe"


def test_constructors_may_use_python(site: Path) -> None:
    """As under the interpreter's own import, which holds the GIL."""
    source = """
    #include <Python.h>
    static PyObject *made;
    __attribute__((constructor)) static void make(void) {
        if (PyGILState_Check()) made = PyUnicode_FromString("made early");
    }
    static PyObject *get(PyObject *module, PyObject *none) { return Py_NewRef(made); }
    static PyMethodDef methods[] = {{"get", get, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
    static struct PyModuleDef definition = {
        PyModuleDef_HEAD_INIT, "early", NULL, 0, methods, NULL, NULL, NULL, NULL};
    PyMODINIT_FUNC PyInit_early(void) { return PyModule_Create(&definition); }
    """
    extension(site, "early", source, level=None)
    with dlopen.Namespace("a") as namespace, namespace.imports():
        assert importlib.import_module("early").get() == "made early"


def test_the_flags_are_those_of_imports(site: Path, tmp_path: Path) -> None:
    """`sys.setdlopenflags`: global is global in the namespace."""
    level = tmp_path / "v1" / "liblevel.so.1"
    namespace = dlopen.Namespace("a", [level.parent])
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | dlopen.RTLD_GLOBAL)
    try:
        with namespace.imports():
            importlib.import_module("pack")
    finally:
        sys.setdlopenflags(flags)
    assert {info.is_global for info in namespace.libraries} == {True}
    namespace.close()


@pytest.mark.parametrize("name", ["", "a.b", "sys", "builtins", "dlopen"])
def test_names_that_cannot_be(name: str) -> None:
    with (
        dlopen.Namespace("a") as namespace,
        pytest.raises(ValueError, match=r"names of top-level modules|second time"),
    ):
        namespace.imports(name)


def test_planted_modules_belong_to_their_package(site: Path) -> None:
    """As six and others do it: no finder sees them."""
    (site / "plants.py").write_text(
        "import sys, types\nsys.modules['plants.moves'] = types.ModuleType('plants.moves')\n"
    )
    namespace = dlopen.Namespace("a")
    with namespace.imports():
        importlib.import_module("plants")
    assert {*namespace.modules} == {"plants", "plants.moves"}
    assert "plants.moves" not in sys.modules
    namespace.close()


LATE = """
import sys
def top():
    import late
    import late.part
    return late, late.part
def parts():
    from . import part, later
    from late.part import Thing
    from late import part as again
    assert again is part
    return part, later, Thing
def others():
    import json, sys as same, helper, outsider
    return json, same, helper, outsider
def everything():
    exec("from late.part import *", globals())
    return Thing
def absent():
    import late.absent
def lazily():
    import importlib, importlib.abc
    from importlib import import_module, util
    assert importlib.util is util and importlib.import_module is import_module
    assert importlib.abc.Loader and importlib.import_module("json") is sys.modules["json"]
    return import_module("late.part"), importlib.import_module(".lazy", __name__)
"""


def test_functions_import_from_their_namespace(site: Path) -> None:
    """Outside of any block, in threads, and after the end of it what is imported already."""
    (site / "late").mkdir()
    (site / "late" / "__init__.py").write_text(LATE)
    for name in ("part", "later", "after", "lazy"):
        (site / "late" / f"{name}.py").write_text("class Thing: pass\nThing.place = __name__\n")
    for name in ("helper", "outsider"):
        (site / f"{name}.py").write_text("def new():\n import late.after\n return late.after\n")
    outsider = importlib.import_module("outsider")
    made = []
    for name in ("a", "b"):
        namespace = dlopen.Namespace(name)
        with namespace.imports():
            late = importlib.import_module("late")
        made.append((namespace, late))
    assert "late" not in sys.modules
    for namespace, late in made:
        assert late.__builtins__["__import__"] is not __import__
        assert late.__spec__ is not None
        assert late.__spec__.loader is late.__loader__
        assert isinstance(late.__loader__, importlib.machinery.SourceFileLoader)
        package, part = late.top()
        assert package is late
        assert late.part is part is namespace.modules["late.part"]
        assert late.parts() == (part, namespace.modules["late.later"], part.Thing)
        assert late.everything() is part.Thing
        json, same, helper, found = late.others()
        assert [json, same, found] == [sys.modules["json"], sys, outsider]
        assert helper is namespace.modules["helper"]
        with pytest.raises(ModuleNotFoundError, match=r"late\.absent"):
            late.absent()
        assert late.lazily() == (part, namespace.modules["late.lazy"])
        with namespace.imports():
            assert late.lazily() == (part, sys.modules["late.lazy"])
        with ThreadPoolExecutor(4) as pool:
            results = [*pool.map(lambda new: new(), [helper.new] * 4)]
        assert results == [namespace.modules["late.after"]] * 4
        namespace.close()
        assert late.top() == (late, part)
        assert late.lazily() == (part, namespace.modules["late.lazy"])
        assert late.others() == (json, sys, helper, outsider)
        with pytest.raises(ModuleNotFoundError, match="the namespace is closed"):
            late.absent()
    (_, first), (_, second) = made
    assert first.part.Thing is not second.part.Thing
    assert not {"late", "helper"} & sys.modules.keys()


def test_a_function_of_one_namespace_in_the_block_of_another(site: Path) -> None:
    (site / "late").mkdir()
    (site / "late" / "__init__.py").write_text(LATE)
    (site / "late" / "part.py").write_text("")
    first, second = dlopen.Namespace("a"), dlopen.Namespace("b")
    with first.imports():
        late = importlib.import_module("late")
    with second.imports():
        other = importlib.import_module("late")
        assert late.top() == (late, first.modules["late.part"])
        assert sys.modules["late"] is other
        with first.imports():
            assert other.top() == (other, second.modules["late.part"])
            assert sys.modules["late"] is late
    assert late.part is not other.part
    for namespace in (first, second):
        namespace.close()


def test_the_machinery_is_not_imported_before_it_is_used() -> None:
    code = """
import sys
for name in [name for name in sys.modules if name == "importlib.machinery"]:
    del sys.modules[name]
import dlopen
with dlopen.Namespace("a") as namespace:
    print("importlib.machinery" in sys.modules, "dlopen._importing" in sys.modules)
    namespace.imports()
    print("importlib.machinery" in sys.modules, "dlopen._importing" in sys.modules)
"""
    assert run_python(code).stdout == "False False\nTrue True\n"
