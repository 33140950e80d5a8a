"""Archives under the importer: paths, bytecode, replacement, threads, fork, system calls."""

from __future__ import annotations

import _queue
import contextlib
import importlib
import importlib.util
import marshal
import pkgutil
import sys
import threading
import time
import zipfile
import zipimport
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import FunctionType

import pytest

from dlopen import importer
from support.fixtures import need_tool, run, run_python
from support.package_archives import MADE, pack, tags, timed_bytecode, unchecked_bytecode

TAG = sys.implementation.cache_tag
NAMES = ("thing", "other", "space", "first", "second", "große", "pack")


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The importer is installed, and no module of a test is left."""
    before = [*sys.path_hooks], [*sys.meta_path]
    monkeypatch.setattr(sys, "path", [*sys.path])
    importer.install()
    yield
    importer.uninstall()
    for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
        del sys.modules[name]
    assert (sys.path_hooks, sys.meta_path) == before
    assert not [
        one for one in sys.path_importer_cache.values() if isinstance(one, importer.Importer)
    ]


def value_of(*places: Path | str, name: str = "thing") -> object:
    """What `value` is of a module that is imported anew, with these first on the path."""
    sys.path[:0] = map(str, places)
    sys.modules.pop(name, None)
    try:
        return importlib.import_module(name).value
    finally:
        del sys.path[: len(places)]


# Bytecode


def test_unchecked_bytecode_is_taken_as_it_is(tmp_path: Path) -> None:
    files = {"thing.py": b"value = 1", "thing.pyc": unchecked_bytecode("thing.py", b"value = 2")}
    assert value_of(pack(tmp_path / "a.zip", files)) == 2
    thing = sys.modules["thing"]
    assert thing.__file__ == f"{tmp_path}/a.zip/thing.py"
    assert thing.__spec__ is not None
    assert thing.__spec__.cached == importlib.util.cache_from_source(thing.__file__)


def test_bytecode_of_functions_says_where_the_source_is(tmp_path: Path) -> None:
    source = b"def value():\n    return (lambda: 0).__code__.co_filename\n"
    files = {"thing.py": source, "thing.pyc": unchecked_bytecode("thing.py", source)}
    value = value_of(pack(tmp_path / "a.zip", files))
    assert isinstance(value, FunctionType)
    assert value() == value.__code__.co_filename == f"{tmp_path}/a.zip/thing.py"


@pytest.mark.parametrize("where", ["thing.pyc", f"__pycache__/thing.{TAG}.pyc"])
@pytest.mark.parametrize(
    ("later", "longer", "expected"), [(0, b"", 2), (1, b"", 2), (3600, b"", 1), (0, b"#", 1)]
)
def test_bytecode_with_a_time(
    tmp_path: Path, where: str, later: int, longer: bytes, expected: int
) -> None:
    """Of the source's age and size; times in archives are even, and local."""
    made = time.mktime((*MADE, 0, 0, -1)) + later
    bytecode = timed_bytecode(b"value = 1" + longer, made, b"value = 2")
    assert (
        value_of(pack(tmp_path / "a.zip", {"thing.py": b"value = 1", where: bytecode})) == expected
    )


def test_checked_bytecode(tmp_path: Path) -> None:
    checked = bytearray(unchecked_bytecode("thing.py", b"value = 1"))
    checked[4] = 3
    for number, source in enumerate([b"value = 1", b"value = 2"]):
        path = pack(tmp_path / f"{number}.zip", {"thing.py": source, "thing.pyc": bytes(checked)})
        assert value_of(path) == number + 1


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x10\x0d\r\n" + bytes(20),
        importlib.util.MAGIC_NUMBER,
        importlib.util.MAGIC_NUMBER + b"\4" + bytes(20),
        importlib.util.MAGIC_NUMBER + b"\1" + bytes(11) + marshal.dumps([1]),
    ],
)
def test_bytecode_of_another_version(tmp_path: Path, bad: bytes) -> None:
    with_source = pack(tmp_path / "a.zip", {"thing.py": b"value = 1", "thing.pyc": bad})
    assert value_of(with_source) == 1
    alone = pack(tmp_path / "b.zip", {"thing.pyc": bad})
    with pytest.raises(
        (ImportError, EOFError), match=r"magic number|reached EOF|flags 4 in|Non-code"
    ):
        value_of(alone)
    with pytest.raises((zipimport.ZipImportError, EOFError)):
        importer.Importer(str(alone)).get_code("thing")
    assert "thing" not in sys.modules


def test_bytecode_without_source(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"thing.pyc": unchecked_bytecode("thing.py", b"value = 3")})
    assert value_of(path) == 3
    thing = sys.modules["thing"]
    assert thing.__file__ == f"{path}/thing.pyc"
    assert isinstance(thing.__loader__, importer.Importer)
    assert thing.__loader__.get_source("thing") is None


# Paths


def test_a_folder_in_an_archive_is_a_place(tmp_path: Path) -> None:
    path = pack(tmp_path / "app.zip", {"lib/deep/thing.py": b"value = __file__", "other.py": b""})
    assert value_of(f"{path}/lib/deep") == f"{path}/lib/deep/thing.py"
    with pytest.raises(ModuleNotFoundError):
        value_of(f"{path}/lib", name="other")
    found = pkgutil.get_importer(f"{path}/lib/deep")
    assert isinstance(found, importer.Importer)
    assert (found.archive, found.prefix) == (str(path), "lib/deep/")


def test_distributions_of_places_in_archives(tmp_path: Path) -> None:
    """Each is found once, where zipimport's would not be."""
    text = "Metadata-Version: 2.1\nName: {}\nVersion: 1.{}\n"
    names = ("", "lib/", "lib/deep/")
    path = pack(
        tmp_path / "app.zip",
        {
            f"{folder}d{number}-1.{number}.dist-info/METADATA": text.format(
                f"d{number}", number
            ).encode()
            for number, folder in enumerate(names)
        },
    )
    places = [f"{path}/{folder}".rstrip("/") for folder in names]
    sys.path[:0] = places
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("thing")  # each place of the path was asked once
    assert [metadata.version(f"d{number}") for number in range(3)] == ["1.0", "1.1", "1.2"]
    found = [one.name for one in metadata.distributions() if one.name.startswith("d")]
    assert [name for name in found if name in ("d0", "d1", "d2")] == ["d0", "d1", "d2"]
    located = metadata.distribution("d2").locate_file("thing.py")
    assert str(located) == f"{places[2]}/thing.py"
    assert [one.name for one in metadata.distributions(path=[places[1]])] == ["d1"]


def test_relative_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of folders, `__file__` is absolute, and the working directory may be left."""
    pack(tmp_path / "app.zip", {"thing.py": b"value = __file__", "pack/__init__.py": b"value = 1"})
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    sys.path.insert(0, "./folder/../app.zip")
    assert importlib.import_module("thing").value == f"{tmp_path}/app.zip/thing.py"
    monkeypatch.chdir("/")
    assert importlib.import_module("pack").__path__ == [f"{tmp_path}/app.zip/pack"]


def test_places_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pack(tmp_path / "a.zip", {"thing.py": b"value = 1"})
    places: list[object] = [b"a.zip", Path("a.zip"), ["a.zip"], None, "", "/", "a.zip/"]
    sys.path[:0] = places[:-1]  # type: ignore[assignment]
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'thing'$"):
        importlib.import_module("thing")
    sys.path[:0] = places  # type: ignore[assignment]
    assert importlib.import_module("thing").value == 1


def test_the_parent_of_what_a_link_leads_to(tmp_path: Path) -> None:
    """As the kernel follows a path, not as it is written."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to("../b/c")
    for folder in "ab":
        pack(tmp_path / folder / "a.zip", {"lib/thing.py": b"value = __file__"})
    for rest in ("a.zip/lib", "a.zip/lib/pack/.."):
        assert value_of(f"{tmp_path}/a/link/../{rest}") == f"{tmp_path}/b/a.zip/lib/thing.py"


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """That the process is in: there are no relative places, and others go on."""
    code = """
import os, sys
from dlopen import importer
importer.install()
folder = sys.argv[1] + "/gone"
os.mkdir(folder)
os.chdir(folder)
os.rmdir(folder)
sys.path[:0] = ["lib", "a/../b.zip"]
import colorsys
try:
    import absent
except ModuleNotFoundError as error:
    print(error)
"""
    assert run_python(code, str(tmp_path)).stdout == "No module named 'absent'\n"


def test_what_zipimport_has_found_before(tmp_path: Path) -> None:
    """And what it has not: it is asked for again."""
    first = pack(tmp_path / "first.zip", {"first.py": b"value = 1", "thing.py": b"value = 2"})
    second = tmp_path / "second.zip"
    importer.uninstall()
    sys.path[:0] = [str(first), str(second)]
    assert importlib.import_module("first").value == 1
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("second")
    assert sys.path_importer_cache[str(second)] is None
    pack(second, {"second.py": b"value = 3"})
    importer.install()
    importer.install()
    assert type(sys.modules["first"].__loader__) is zipimport.zipimporter
    assert isinstance(importlib.import_module("thing").__loader__, importer.Importer)
    assert importlib.import_module("second").value == 3
    assert sys.path_hooks.count(importer.Importer) == 1
    assert sys.path_hooks.index(importer.Importer) < sys.path_hooks.index(zipimport.zipimporter)
    importer.uninstall()
    importer.uninstall()
    sys.modules.pop("thing")
    assert type(importlib.import_module("thing").__loader__) is zipimport.zipimporter


def test_after_the_end_loaders_go_on(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"pack/__init__.py": b"value = 1", "pack/text": b"some"})
    assert value_of(path, name="pack") == 1
    importer.uninstall()
    assert pkgutil.get_data("pack", "text") == b"some"
    with pytest.raises(ModuleNotFoundError):  # zipimport has no such folder in its own list
        importlib.import_module("pack.absent")


def test_a_namespace_of_archives_and_a_folder(tmp_path: Path) -> None:
    first = pack(tmp_path / "first.zip", {"space/a.py": b"value = 1"})
    second = pack(tmp_path / "second.zip", {"space/b.py": b"value = 2"}, folders=True)
    folder = tmp_path / "folder"
    (folder / "space").mkdir(parents=True)
    (folder / "space" / "c.py").write_text("value = 3")
    sys.path[:0] = map(str, (first, folder, second))
    found = [importlib.import_module(f"space.{name}").value for name in "abc"]
    assert found == [1, 2, 3]
    space = sys.modules["space"]
    assert [*space.__path__] == [f"{place}/space" for place in (first, folder, second)]
    later = pack(tmp_path / "later.zip", {"space/d.py": b"value = 4"})
    sys.path.append(str(later))
    assert importlib.import_module("space.d").value == 4
    listed = {one.name for one in pkgutil.iter_modules(space.__path__)}
    assert listed == {"a", "b", "c", "d"}


def test_names_that_are_not_ascii(tmp_path: Path) -> None:
    """In UTF-8, and in the code page of DOS."""
    path = pack(tmp_path / "ärchive.zip", {"große.py": b"value = __file__"})
    assert value_of(path, name="große") == f"{tmp_path}/ärchive.zip/große.py"
    content = path.read_bytes().replace("große".encode(), b"gro\xe1e!")
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        begin = content.index(signature) + at
        flags = int.from_bytes(content[begin : begin + 2], "little") & ~0x800
        content = content[:begin] + flags.to_bytes(2, "little") + content[begin + 2 :]
    old = tmp_path / "old.zip"
    old.write_bytes(content)
    assert zipfile.ZipFile(old).namelist() == ["große!.py"]
    found = pkgutil.get_importer(str(old))
    assert isinstance(found, importer.Importer)
    assert found.get_data(f"{old}/große!.py") == b"value = __file__"


def test_wheels_with_data(tmp_path: Path) -> None:
    """NAME.data/purelib and platlib are where pip would have put them; others are not."""
    files = {
        "pack/__init__.py": b"",
        "pack-1.0.data/platlib/pack/thing.py": b"value = __file__",
        "pack-1.0.data/purelib/other.py": b"value = 2",
        "pack-1.0.data/scripts/first.py": b"",
        "other-1.0.data/purelib/second.py": b"",
        "pack-1.0.dist-info/WHEEL": tags(),
    }
    wheel = pack(tmp_path / "pack-1.0-py3-none-any.whl", files)
    assert value_of(wheel, name="pack.thing") == f"{wheel}/pack/thing.py"
    assert value_of(wheel, name="other") == 2
    for name in ("first", "second"):
        with pytest.raises(ModuleNotFoundError):
            value_of(wheel, name=name)
    found = pkgutil.get_importer(str(wheel))
    assert [one.name for one in pkgutil.iter_modules([str(wheel)])] == ["other", "pack"]
    assert found is not None
    with pytest.raises(FileNotFoundError, match="absent"):
        found.get_data(f"{wheel}/absent")  # type: ignore[attr-defined]


# What happens to the file


def test_an_archive_that_is_replaced(tmp_path: Path) -> None:
    """The open one goes on until the caches are invalidated."""
    path = pack(tmp_path / "a.zip", {"thing.py": b"value = 1", "other.py": b"value = 1"})
    sys.path.insert(0, str(path))
    assert importlib.import_module("thing").value == 1
    pack(tmp_path / "b.zip", {"thing.py": b"value = 2", "second.py": b"value = 2"}).replace(path)
    assert importlib.import_module("other").value == 1
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("second")
    importlib.invalidate_caches()
    assert importlib.import_module("second").value == 2
    assert importlib.reload(sys.modules["thing"]).value == 2
    path.unlink()
    importlib.invalidate_caches()
    assert importlib.reload(sys.modules["thing"]).value == 2


def test_an_archive_that_is_written_anew(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"thing.py": b"value = 1", "other.py": b"value = 1"})
    new = pack(tmp_path / "b.zip", {"thing.py": b"value = 22", "other.py": b"value = 22"})
    sys.path.insert(0, str(path))
    assert importlib.import_module("thing").value == 1
    path.write_bytes(new.read_bytes())
    with pytest.raises(ImportError, match="it was changed since it was opened") as caught:
        importlib.import_module("other")
    assert (caught.value.name, caught.value.path) == ("other", f"{path}/other.py")
    assert "other" not in sys.modules
    importlib.invalidate_caches()
    assert importlib.import_module("other").value == 22


def test_descriptors_that_the_program_closes(tmp_path: Path) -> None:
    """As daemons do; the number may be another file's then."""
    code = """
import os, sys
from dlopen import importer
importer.install()
sys.path.insert(0, sys.argv[1])
import one
os.closerange(3, 100)
import two
os.closerange(3, 100)
held = [open("/dev/null") for _ in range(20)]
import three
print(one.value, two.value, three.value, [os.fstat(file.fileno()).st_rdev for file in held][0] > 0)
os.closerange(3, 100)
os.utime(sys.argv[1], (1, 1))
try:
    import four
except ImportError as error:
    print(error)
"""
    names = ("one", "two", "three", "four")
    path = pack(tmp_path / "a.zip", {f"{name}.py": b"value = 1" for name in names})
    lines = run_python(code, str(path)).stdout.splitlines()
    assert lines[0] == "1 1 1 True"
    assert lines[1] == f"{path}: the program has closed it, and it was changed or replaced"


def test_a_child_goes_on(tmp_path: Path) -> None:
    """And so does the parent: no offset of a descriptor is shared."""
    code = """
import os, sys
from dlopen import importer
importer.install()
sys.path.insert(0, sys.argv[1])
import m0
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        for name in [f"m{i}" for i in range(200)]:
            __import__(name)
        os._exit(sys.modules["m199"].value != 199)
    children.append(child)
for name in [f"m{i}" for i in range(200)]:
    __import__(name)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
    files = {f"m{number}.py": f"value = {number}\n".encode() for number in range(200)}
    for compressed in (True, False):
        path = pack(tmp_path / f"{compressed}.zip", files, compressed=compressed)
        assert run_python(code, str(path)).stdout == "[0, 0, 0, 0]\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("way", ["main", "initializer"])
def test_processes_that_start_anew(tmp_path: Path, method: str, way: str) -> None:
    """They run what the main module has outside of its guard, and the pool's initializer."""
    code = """
import multiprocessing, sys
from dlopen import importer
if WAY == "main" or __name__ == "__main__":
    importer.install()
if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    import thing
    initializer = None if WAY == "main" else importer.install
    with multiprocessing.get_context(sys.argv[2]).Pool(1, initializer=initializer) as pool:
        print(pool.apply_async(thing.double, (2,)).get(60))
"""
    program = tmp_path / "program.py"
    program.write_text(f"WAY = {way!r}\n{code}")
    source = b"import pack._queue\ndef double(x): return x * 2\n"
    files = {"thing.py": source, "pack/_queue.so": Path(_queue.__file__).read_bytes()}
    path = pack(tmp_path / "a.zip", files)
    assert run([sys.executable, program, path, method]).stdout == "4\n"


def test_threads_that_import_at_once(tmp_path: Path) -> None:
    """Each module is made once."""
    code = """
import importlib, sys, threading
from dlopen import importer
importer.install()
sys.path.insert(0, sys.argv[1])
sys.setswitchinterval(1e-6)
sys.made = []
barrier = threading.Barrier(8)
errors = []

def work(number):
    names = [f"pack.m{i}" for i in range(50)]
    barrier.wait()
    try:
        for name in names[number * 6:] + names[:number * 6]:
            importlib.import_module(name)
    except BaseException as error:
        errors.append(error)

threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(errors, len(sys.made), len({*sys.made}), sum(1 for one in importer._archives._open))
"""
    files = {
        f"pack/m{number}.py": b"import sys\nfrom . import m7\nsys.made.append(__name__)\n"
        for number in range(50)
    }
    path = pack(tmp_path / "a.zip", {"pack/__init__.py": b"", **files}, bytecode=True)
    assert run_python(code, str(path)).stdout == "[] 50 50 1\n"


def test_one_archive_however_many_threads_open_it(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"thing.py": b"value = 1"})
    barrier, found = threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        found.append(importer.Importer(str(path)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one._archive) for one in found}) == 1


def test_the_system_calls_of_an_import(tmp_path: Path) -> None:
    """One open of the archive, and nothing written, however many members are read."""
    strace = need_tool("strace")
    files = {f"pack/m{number}.py": f"value = {number}\n".encode() for number in range(50)}
    files["pack/__init__.py"] = b"from importlib import metadata, resources"
    files["pack-1.0.dist-info/METADATA"] = b"Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n"
    path = pack(tmp_path / "opened-once.zip", files, bytecode=True)
    code = """
import sys
from dlopen import importer
importer.install()
sys.path.insert(0, sys.argv[1])
for number in range(50):
    assert __import__(f"pack.m{number}", fromlist=["value"]).value == number
import pack
assert len([*pack.resources.files("pack").iterdir()]) == 102
assert pack.metadata.version("pack") == "1.0"
print("done")
"""
    trace = tmp_path / "trace"
    calls = "trace=open,openat,openat2,creat,rename,unlink,mkdir,memfd_create"
    done = run(
        [strace, "-f", "-qq", "-o", trace, "-e", calls, sys.executable, "-c", code, path],
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout == "done\n"
    lines = [line for line in trace.read_text().splitlines() if "ENOENT" not in line]
    assert sum("opened-once.zip" in line for line in lines) == 1
    assert {line.split()[1].partition("(")[0] for line in lines} <= {"open", "openat"}
    assert not [line for line in lines if "O_RDONLY" not in line or "O_CREAT" in line]


def test_more_members_than_a_plain_archive_has(tmp_path: Path) -> None:
    """Their number is of zip64 alone."""
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(0x10003):
            archive.writestr(zipfile.ZipInfo(f"m{number:x}.py"), b"")
        archive.writestr("thing.py", "value = 5")
    assert value_of(path) == 5
    found = pkgutil.get_importer(str(path))
    assert isinstance(found, importer.Importer)
    assert len(found._files) == 0x10004


def test_a_comment_at_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"thing.py": b"value = 6"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK" * 0x7FFF
    assert value_of(path) == 6


def test_descriptors_of_archives_that_were_replaced(tmp_path: Path) -> None:
    """Closed when no loader has the archive any more."""
    path = pack(tmp_path / "a.zip", {"thing.py": b"value = -1", "pack/__init__.py": b""})
    sys.path.insert(0, str(path))
    importlib.import_module("pack")
    for number in range(20):
        files = {"thing.py": f"value = {number}".encode(), "pack/__init__.py": b""}
        pack(tmp_path / "b.zip", files).replace(path)
        importlib.invalidate_caches()
        sys.modules.pop("thing", None)
        assert importlib.import_module("thing").value == number
        assert sum(one.startswith(str(path)) for one in open_files()) == 1


def open_files() -> list[str]:
    """Their paths, as far as they have one."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found.append(str(descriptor.readlink()))
    return found
