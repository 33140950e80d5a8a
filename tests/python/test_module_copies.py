"""Extension modules from bytes, copies of them side by side, and new versions of them."""

from __future__ import annotations

import importlib
import importlib.machinery
import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import dlopen
from dlopen._modules import ExtensionLoader
from dlopen.importer import install, load_module, reload_module, uninstall
from support.extensions import (
    CREATED,
    FAILS,
    IMPORTS_LATE,
    INCLUDE,
    KNOWS,
    MULTI,
    SINGLE,
    SUFFIX,
    extension,
)
from support.fixtures import compile_library, run_python

ONE = SINGLE.replace("SIZE", "-1")


@pytest.fixture(autouse=True)
def imported() -> Iterator[None]:
    """Modules that a test imports leave `sys.modules`."""
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if name.partition(".")[0] not in {"dlopen", *sys.stdlib_module_names}:
            del sys.modules[name]


def images(path: str | Path) -> int:
    """How many there are of this path."""
    return sum(info.path == str(path) for info in dlopen.libraries())


@pytest.mark.parametrize("source", [MULTI, ONE, SINGLE.replace("SIZE", "0"), CREATED])
def test_copies_side_by_side(tmp_path: Path, source: str) -> None:
    path = extension(tmp_path, "built", source)
    data = path.read_bytes()
    path.unlink()
    # PEP 489: a name that is not ASCII has a module of two phases.
    names = ("built", "second", "größe" if source in (MULTI, CREATED) else "third")
    before = [images(f"<{name}>") for name in names]
    modules = [
        load_module("built", data),
        load_module("second", memoryview(data)),
        load_module(names[2], bytearray(data)),
    ]
    assert [images(f"<{name}>") for name in names] == [count + 1 for count in before]
    assert [module.next_count() for module in modules] == [1, 1, 1]
    assert modules[0].next_count() == 2
    for name, module in zip(names, modules, strict=True):
        assert sys.modules[name] is module
        spec = module.__spec__
        assert spec is not None
        assert module.__name__ == spec.name == name
        assert module.__file__ == spec.origin == f"<{name}>"
    first = modules[0]
    assert pickle.loads(pickle.dumps(first.next_count)) == first.next_count


def test_a_path_is_read(tmp_path: Path) -> None:
    """So the file may be overwritten, which a mapped one may not."""
    path = extension(tmp_path, "built", MULTI)
    module = load_module("copy_of_path", path)
    other = load_module("copy_of_text", str(path))
    path.write_bytes(b"\0" * 100_000)
    assert [module.next_count(), module.next_count(), other.next_count()] == [1, 2, 1]
    assert module.__file__ == other.__file__ == str(path)
    assert images(path) == 2


def test_what_it_needs_is_found_beside_it(tmp_path: Path) -> None:
    level = compile_library(tmp_path, "liblevel.so.1", "int level(void) { return 7; }\n")
    source = MULTI.replace("static int execute", "int level(void);\nstatic int execute").replace(
        "DURING", 'if (PyModule_AddIntConstant(module, "level", level()) < 0) return -1;'
    )
    path = compile_library(
        tmp_path / "built",
        f"built{SUFFIX}",
        source.replace("FUNCTION", "PyInit_built"),
        flags=[INCLUDE],
        libraries=[level],
        rpath="$ORIGIN/..",
    )
    one, two = (load_module(name, path) for name in ("needs_level", "needs_it_too"))
    assert one.level == two.level == 7
    paths = [Path(info.path).resolve() for info in dlopen.libraries()]
    assert paths.count(level) == 1


def test_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is imported first, and has the module afterwards, as by `import`."""
    data = extension(tmp_path, "last", ONE).read_bytes()
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = load_module("a_package.last", data)
    import a_package  # type: ignore[import-not-found]  # noqa: PLC0415

    assert a_package.last is module
    assert module.early == module.__name__ == "a_package.last"
    assert module.__package__ == "a_package"
    new = reload_module(module, data)
    assert a_package.last is new is not module
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_module("no_such_package.last", data)
    package = load_module("an_extension", extension(tmp_path / "an_extension", "__init__", ONE))
    assert package.__path__ == [str(tmp_path / "an_extension")]
    assert package.__package__ == "an_extension"


def test_in_a_namespace(tmp_path: Path) -> None:
    path = extension(tmp_path, "built", MULTI)
    with dlopen.Namespace("a") as namespace:
        module = load_module("in_space", path.read_bytes(), namespace=namespace)
        assert "in_space" not in sys.modules
        assert namespace.modules == {"in_space": module}
        assert [info.path for info in namespace.libraries] == ["<in_space>"]
        with namespace.imports():
            assert importlib.import_module("in_space") is module
            with pytest.raises(ImportError, match="imported already"):
                load_module("in_space", path, namespace=namespace)
        assert module.next_count() == 1
        new = reload_module(module, path)
        assert new.next_count() == 1
        assert module.next_count() == 2
        assert namespace.modules == {"in_space": new}
        assert len(namespace.libraries) == 2
        again = reload_module(new)
        assert namespace.modules == {"in_space": again}
    assert "in_space" not in sys.modules
    with pytest.raises(ValueError, match="is closed"):
        load_module("another", path, namespace=namespace)


def test_what_binding_libraries_know_is_of_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter's dictionary is apart in each namespace, and for each copy."""
    second = "PyMODINIT_FUNC PyInit_second(void) { return PyModuleDef_Init(&definition); }\n"
    paths = {
        name: extension(tmp_path, name, KNOWS + (second if name == "knows" else ""))
        for name in ("knows", "other")
    }
    monkeypatch.syspath_prepend(str(tmp_path))
    theirs = importlib.import_module("knows").dictionary()
    assert theirs is importlib.import_module("other").dictionary()
    found = [theirs]
    for name in ("a", "b"):
        with dlopen.Namespace(name) as namespace, namespace.imports("knows", "other"):
            import knows  # type: ignore[import-not-found]  # noqa: PLC0415
            import other  # type: ignore[import-not-found]  # noqa: PLC0415

            # Of the same file, which is bound already.
            path = str(paths["knows"])
            again = ExtensionLoader("second", path)
            again.namespace = namespace
            spec = importlib.machinery.ModuleSpec("second", again, origin=path)
            of_same_file = again.create_module(spec)
            assert knows.dictionary() is other.dictionary() is of_same_file.dictionary()
            assert len(namespace.libraries) == 2
            found.append(knows.dictionary())
            knows.dictionary()["kept"] = name
    for name in ("knows_copy", "knows_too"):
        copy = load_module(name, paths["other"])
        assert copy.dictionary() is copy.dictionary()
        found.append(copy.dictionary())
        found.append(reload_module(copy).dictionary())
    assert len({*map(id, found)}) == len(found) == 7
    assert [one.get("kept") for one in found[:3]] == [None, "a", "b"]


def test_compiled_code_imports_from_its_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is called, outside of the block: numpy's does."""
    path = extension(tmp_path, "imports_late", IMPORTS_LATE)
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart" / "__init__.py").write_text("")
    for name in ("part", "other"):
        (tmp_path / "apart" / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    apart = importlib.import_module("apart.part")
    for name in ("a", "b"):
        with dlopen.Namespace(name) as namespace:
            with namespace.imports("apart", "imports_late"):
                late = importlib.import_module("imports_late")
                own = importlib.import_module("apart.part")
            copy = load_module("copy_imports", path, namespace=namespace)
            assert own is not apart
            for module in (late, copy):
                for act in (module.by_name, module.by_object, module.from_list, module.known):
                    assert act("apart.part") is own
                    assert act("json.decoder") is importlib.import_module("json.decoder")
                assert module.known("apart.absent") is None
                assert module.by_name("apart.other") is namespace.modules["apart.other"]
                with pytest.raises(ModuleNotFoundError, match=r"apart\.absent"):
                    module.by_object("apart.absent")
                with namespace.imports():
                    assert module.by_object("apart.part") is module.known("apart.part") is own
        assert late.by_name("apart.part") is copy.by_name("apart.part") is own
        assert "apart.other" not in sys.modules


def test_a_module_of_a_block_is_reloaded_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension(tmp_path, "of_block", MULTI)
    monkeypatch.syspath_prepend(str(tmp_path))
    with dlopen.Namespace("a") as namespace:
        with namespace.imports():
            import of_block  # type: ignore[import-not-found]  # noqa: PLC0415
        new = reload_module(of_block)
        assert namespace.modules == {"of_block": new}
        assert len(namespace.libraries) == 2


def test_old_objects_keep_the_old_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had imported the first one."""
    versions = MULTI.replace("DURING", 'PyModule_AddIntConstant(module, "version", VERSION);')
    path = extension(tmp_path, "versioned", versions.replace("VERSION", "1"))
    monkeypatch.syspath_prepend(str(tmp_path))
    old = importlib.import_module("versioned")
    count = old.next_count
    assert [old.version, count(), count()] == [1, 1, 2]
    path.unlink()  # the system's loader has mapped it
    extension(tmp_path, "versioned", versions.replace("VERSION", "2"))
    new = reload_module(old)
    assert importlib.import_module("versioned") is new
    assert [new.version, new.next_count(), old.version, count()] == [2, 1, 1, 3]
    third = extension(tmp_path / "third", "versioned", versions.replace("VERSION", "3"))
    newest = reload_module(new, third.read_bytes())
    assert [newest.version, newest.__file__] == [3, "<versioned>"]
    with pytest.raises(ValueError, match="no file that could be read again"):
        reload_module(newest)
    with pytest.raises(ValueError, match="no file that could be read again"):
        reload_module(ModuleType("made_by_hand"))


def test_a_module_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its new version is read there, also that of the new version."""
    archive = tmp_path / "app.zip"
    member = f"in_archive{SUFFIX}"
    with zipfile.ZipFile(archive, "w") as made:
        made.write(extension(tmp_path / "built", "in_archive", MULTI), member)
    monkeypatch.syspath_prepend(str(archive))
    install()
    try:
        module = importlib.import_module("in_archive")
        for _ in range(3):
            module = reload_module(module)
            assert module.next_count() == 1
        assert module.__file__ == str(archive / member)
        assert reload_module(module, archive / member).next_count() == 1
        copy = load_module("copy_of_member", archive / member)
        assert reload_module(copy).__file__ == str(archive / member)
        compressed = tmp_path / "compressed.zip"
        with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as made:
            made.write(tmp_path / "built" / member, member)
        assert load_module("copy_of_compressed", compressed / member).next_count() == 1
        with pytest.raises(ImportError, match="Not a directory"):
            load_module("absent_in_archive", archive / "absent.so")
        module = sys.modules["in_archive"]
        archive.write_bytes(b"no archive any more")
        with pytest.raises(ImportError) as caught:
            reload_module(module)
        assert isinstance(caught.value.__cause__, OSError)
        assert sys.modules["in_archive"] is module
    finally:
        uninstall()


@pytest.mark.parametrize("name", ["raises", "late"])
def test_a_new_version_that_fails(tmp_path: Path, name: str) -> None:
    """The old one is in its place, then."""
    good = extension(tmp_path, name, MULTI)
    does = {
        "raises": "return PyErr_SetNone(PyExc_LookupError), NULL;",
        "late": """
            static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute_late}, {0, NULL}};
            static struct PyModuleDef definition = {
                PyModuleDef_HEAD_INIT, "late", NULL, 0, NULL, slots, NULL, NULL, NULL};
            return PyModuleDef_Init(&definition);""",
    }[name]
    bad = extension(tmp_path / "bad", name, FAILS.replace("DOES", does))
    with pytest.raises(LookupError):
        load_module(name, bad)
    assert name not in sys.modules
    module = load_module(name, good)
    with pytest.raises(LookupError):
        reload_module(module, bad)
    assert sys.modules[name] is module
    assert module.next_count() == 1


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    two = MULTI.replace("FUNCTION", "PyInit_one") + (
        "PyMODINIT_FUNC PyInit_two(void) { return PyModuleDef_Init(&definition); }\n"
    )
    several = extension(tmp_path, "several", two)
    before = len(dlopen.libraries())
    cases: list[tuple[bytes | Path, type[Exception] | None, str]] = [
        (b"no library", dlopen.LoadError, "file too short"),
        (b"", dlopen.LoadError, "file too short"),
        (tmp_path / "absent.so", FileNotFoundError, "No such file"),
        (several, None, r"does not define module export function \(PyInit_wrong\)"),
    ]
    for source, cause, message in cases:
        with pytest.raises(ImportError, match=message) as caught:
            load_module("wrong", source)
        assert caught.value.name == "wrong"
        path = "<wrong>" if isinstance(source, bytes) else str(source)
        assert caught.value.path == path
        assert cause is None or isinstance(caught.value.__cause__, cause)
        assert "wrong" not in sys.modules
    assert len(dlopen.libraries()) == before
    with pytest.raises(TypeError):
        load_module("wrong", 7)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match="imported already"):
        load_module("sys", several)
    assert load_module("two", several).__name__ == "two"


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    data = extension(tmp_path, "built", MULTI).read_bytes()
    for name in ("", ".built", "a..built", "built."):
        with pytest.raises(ValueError, match="no name of a module"):
            load_module(name, data)
        assert name not in sys.modules
    with pytest.raises(TypeError, match="is a str, not 5"):
        load_module(5, data)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes-like"):
        load_module("built", None)  # type: ignore[arg-type]


def test_what_fails_leaves_no_circle(tmp_path: Path) -> None:
    """Which would keep the content of the file until the garbage collector finds it."""
    (tmp_path / "text.abi3.so").write_text("no library" * 100)
    code = """
import gc, sys
import dlopen
from dlopen.importer import install, load_module
sys.path.insert(0, sys.argv[1])

def bytes_of_text():
    load_module("bytes_of_text", b"no library" * 100)

def by_import():
    import text

def in_namespace():
    with dlopen.Namespace("a") as namespace, namespace.imports():
        import text

install(everything=True)
for act in (bytes_of_text, by_import, in_namespace):
    for found in range(3):
        gc.collect()
        gc.disable()
        try:
            act()
        except ImportError:
            pass
    assert gc.collect() == 0, act
"""
    run_python(code, str(tmp_path))


def test_reloading_grows_by_the_image_alone(tmp_path: Path) -> None:
    path = extension(tmp_path, "grows", MULTI)
    code = """
import gc, os, sys
import dlopen
from dlopen._modules import ExtensionLoader
from dlopen.importer import install, load_module, reload_module, uninstall

def counts():
    gc.collect()
    return len(gc.get_objects()), len(os.listdir("/proc/self/fd")), len(dlopen.libraries())

module = load_module("grows", sys.argv[1])
for _ in range(20):
    module = reload_module(module)
    counts()
objects, descriptors, images = counts()
for _ in range(10):
    module = reload_module(module)
after = counts()
assert after[0] <= objects and after[1:] == (descriptors, images + 10), after
assert module.next_count() == 1
"""
    run_python(code, str(path))
