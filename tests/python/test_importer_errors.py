"""What the importer says of archives and modules that cannot be used, and what is left then."""

from __future__ import annotations

import importlib
import importlib.util
import os
import struct
import sys
import sysconfig
import tracemalloc
import zipfile
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import dlopen
from dlopen import _tags, importer
from support.fixtures import compile_library, run_python
from support.package_archives import pack, tags

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
INCLUDE = f"-I{sysconfig.get_paths()['include']}"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
CP = f"cp{VERSION.replace('.', '')}"
MACHINE = os.uname().machine
OTHER = "s390x"
NAMES = ("thing", "other", "pack", "native")

MODULE = """
#include <Python.h>
#ifdef NEEDS
int needed(void);
int use(void) { return needed(); }
#endif
static int execute(PyObject *module) { BODY }
static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "native", NULL, 0, NULL, slots, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_native(void) { return PyModuleDef_Init(&definition); }
"""


def native(folder: Path, body: str = "return 0;", *, needs: Path | None = None) -> bytes:
    """The content of an extension module."""
    flags = [INCLUDE, *(["-DNEEDS"] if needs else [])]
    source = MODULE.replace("BODY", body)
    libraries = [needs] if needs else []
    return compile_library(
        folder, "native.so", source, flags=flags, libraries=libraries
    ).read_bytes()


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The importer is installed, and nothing of a test is left: of none did it fail half."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    importer.install()
    yield
    importer.uninstall()
    for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
        del sys.modules[name]


def refused(*places: Path, name: str = "thing") -> ImportError:
    """The error of an import, with these first on the path; nothing of the module is left."""
    images = dlopen.libraries()
    sys.path[:0] = map(str, places)
    try:
        with pytest.raises(ImportError) as caught:
            importlib.import_module(name)
    finally:
        del sys.path[: len(places)]
    assert name not in sys.modules
    parent, _, last = name.rpartition(".")
    assert not hasattr(sys.modules.get(parent), last)
    assert caught.value.name == name
    assert [info.path for info in dlopen.libraries()] == [info.path for info in images]
    return caught.value


def wheel(folder: Path, files: dict[str, bytes], **keywords: str) -> Path:
    """A wheel with these tags."""
    folder.mkdir(exist_ok=True)
    files = {**files, "pack-1.0.dist-info/WHEEL": tags(**keywords)}
    return pack(folder / "pack-1.0.whl", files)


def test_a_wheel_for_another_python(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"pack/__init__.py": b"value = 1"}, python="cp399", abi="cp399")
    error = refused(path, name="pack")
    assert str(error) == (
        f"No module named 'pack' that can be used here; {path}: wrong Python: the wheel is for "
        f"cp399-cp399, and this is CPython {VERSION}"
    )
    assert error.path == str(path)
    assert isinstance(error.__cause__, dlopen.LoadError)
    assert error.__cause__.library == str(path)
    # One that can be used may come later on the path.
    good = wheel(tmp_path / "good", {"pack/__init__.py": b"value = 2"})
    sys.path[:0] = [str(path), str(good)]
    assert importlib.import_module("pack").value == 2


def test_a_wheel_for_another_machine(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"pack/__init__.py": b"value = 1"}, machine=OTHER)
    error = refused(path, name="pack")
    assert str(error) == (
        f"No module named 'pack' that can be used here; {path}: wrong machine: the wheel is for "
        f"manylinux_2_17_{OTHER}, and this is linux_{MACHINE}"
    )
    # What it does not have is not there, as ever.
    assert str(refused(path)) == "No module named 'thing'"


def test_a_wheel_for_another_libc() -> None:
    kind = f"musllinux_1_2_{MACHINE}"
    assert _tags.refusal(f"Tag: {CP}-{CP}-{kind}\n") == (
        f"wrong libc: the wheel is for musl ({kind}), and this is glibc"
    )
    assert _tags.refusal(f"Tag: {CP}-{CP}-musllinux_1_2_{OTHER}\n").startswith("wrong machine")


def test_who_asks_for_what_is_not_there(tmp_path: Path) -> None:
    """None, as ever; and finders that come later are asked: only an import tells the fault."""
    broken = tmp_path / "broken.zip"
    broken.write_text("no archive")
    path = wheel(tmp_path, {"thing.py": b"value = 1"}, machine=OTHER)
    found: list[str] = []

    class Later:
        @staticmethod
        def find_spec(name: str, _path: object, _target: object = None) -> ModuleSpec | None:
            found.append(name)
            return ModuleSpec(name, None, is_package=True) if name == "pack" else None

    for place in (broken, path):
        error = refused(place)
        assert str(place) in str(error)
        sys.path.insert(0, str(place))
        assert importlib.util.find_spec("thing") is None
        assert importlib.util.find_spec("absent") is None
        sys.meta_path.append(Later)
        try:
            assert importlib.util.find_spec("pack") is not None
            importlib.import_module("pack")
            assert str(refused(place)) == str(error)
        finally:
            sys.meta_path.remove(Later)
        importer.install(everything=True)
        assert str(refused(place)) == str(error)
        assert importlib.util.find_spec("thing") is None
        importer.install(everything=False)
        del sys.path[0], sys.modules["pack"]
    assert {"pack", "thing"} <= {*found}


def test_parts_of_a_namespace_in_a_wheel_for_another_python(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"pack/thing.py": b"value = 1"}, python="cp399", abi="cp399")
    assert "wrong Python" in str(refused(path, name="pack"))


def test_a_wheel_whose_tags_cannot_be_read(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"pack/__init__.py": b"value = 1"})
    path.write_bytes(path.read_bytes().replace(b"-1.0.dist-info/WHEEL", b"-2.0.dist-info/WHEEL", 1))
    assert str(refused(path, name="pack")) == (
        f"No module named 'pack' that can be used here; {path}/pack-1.0.dist-info/WHEEL: the file "
        "and its directory disagree about it"
    )


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py2-none-any", False),
        (f"{CP}-{CP}-linux_{MACHINE}", True),
        (f"{CP}-{CP}-manylinux_2_17_{MACHINE}.manylinux2014_{MACHINE}", True),
        (f"{CP}-{CP}-musllinux_1_2_{MACHINE}", False),
        (f"{CP}-{CP}-macosx_11_0_{MACHINE}", False),
        (f"{CP}-{CP}-win_amd64", False),
        (f"cp37-abi3-manylinux_2_17_{MACHINE}", "t" not in sys.abiflags),
        (f"cp36.cp37.cp38.cp39-abi3-manylinux_2_17_{MACHINE}", "t" not in sys.abiflags),
        (f"cp399-abi3-manylinux_2_17_{MACHINE}", False),
        (f"{CP}-none-manylinux_2_17_{MACHINE}", True),
        (f"cp37-none-manylinux_2_17_{MACHINE}", False),
        (f"py37-none-manylinux_2_17_{MACHINE}", True),
        (f"{CP}-{CP}d-linux_{MACHINE}", False),
        (f"pp310-pypy310_pp73-manylinux_2_17_{MACHINE}", False),
        (f"cp37-cp37m-manylinux1_{MACHINE}", False),
        ("no tag", True),
    ],
)
def test_tags(tag: str, fits: bool) -> None:
    assert (_tags.refusal(f"Wheel-Version: 1.0\nTag: {tag}\n") == "") is fits
    if fits and "-" in tag:
        assert _tags.refusal(f"Tag: cp399-cp399-any\nTag: {tag}\n") == ""


def test_extensions_for_another_python(tmp_path: Path) -> None:
    """No wheel, which could say so first."""
    member = f"pack/native.cpython-399-{OTHER}-linux-gnu.so"
    path = pack(tmp_path / "a.zip", {"pack/__init__.py": b"", member: native(tmp_path)})
    error = refused(path, name="pack.native")
    assert str(error) == (
        f"No module named 'pack.native' that can be used here; {path}/{member}: wrong Python or "
        f"machine: this is {sys.implementation.cache_tag} on {MACHINE}"
    )
    assert error.path == f"{path}/{member}"
    assert isinstance(error, ModuleNotFoundError)  # as programs expect it of what is optional


def test_an_extension_for_another_machine(tmp_path: Path) -> None:
    """Though its name says that it is for this one."""
    content = bytearray(native(tmp_path))
    content[18:20] = struct.pack("<H", 22)  # EM_S390
    path = pack(tmp_path / "a.zip", {f"native{SUFFIX}": bytes(content)})
    error = refused(path, name="native")
    assert f"{path}/native{SUFFIX}" in str(error)
    assert "machine" in str(error)
    assert error.path == f"{path}/native{SUFFIX}"
    assert isinstance(error.__cause__, dlopen.LoadError)


def test_a_bundled_library_that_is_missing(tmp_path: Path) -> None:
    needs = compile_library(tmp_path, "libneeded.so", "int needed(void) { return 1; }")
    content = native(tmp_path, needs=needs)
    path = pack(tmp_path / "a.zip", {f"pack/native{SUFFIX}": content, "pack/__init__.py": b""})
    error = refused(path, name="pack.native")
    assert str(error).startswith("libneeded.so: ")
    assert f"needed by {path}/pack/native{SUFFIX}" in str(error)
    assert isinstance(error.__cause__, dlopen.LoadError)
    assert error.__cause__.library == "libneeded.so"
    assert error.__cause__.needed_by == f"{path}/pack/native{SUFFIX}"


@pytest.mark.parametrize("kind", ["whl", "zip", "of no kind"])
def test_a_truncated_archive(tmp_path: Path, kind: str) -> None:
    """Wherever it was cut."""
    whole = pack(tmp_path / "whole", {"thing.py": b"value = 1", "pack/text": bytes(3000)})
    content = whole.read_bytes()
    for size in [*range(4, len(content), 211), *range(len(content) - 200, len(content), 9)]:
        path = tmp_path / f"{size}.{kind}"
        path.write_bytes(content[:size])
        error = refused(path)
        assert str(error) == (
            f"No module named 'thing'; {path}: truncated, or no zip archive: it has no directory "
            "at its end"
        )
        assert isinstance(error.__cause__, dlopen.LoadError)
        assert error.path == error.__cause__.library == str(path)
    for size in (1, 100, 1000):  # the beginning is missing
        path = tmp_path / f"begin{size}.{kind}"
        path.write_bytes(content[size:])
        error = refused(path)
        assert f"{path}: truncated: parts of it are missing" in str(error)


def test_what_is_no_archive_is_none(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for content in (b"", b"PK", b"some text" * 1000):
        path.write_bytes(content)
        assert str(refused(path)) == "No module named 'thing'"
    assert str(refused(tmp_path / "absent.zip")) == "No module named 'thing'"
    with pytest.raises(ImportError, match="not a Zip file"):
        importer.Importer(str(tmp_path))
    with pytest.raises(ImportError, match="archive path is empty"):
        importer.Importer("")


def test_an_archive_that_cannot_be_opened(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"thing.py": b"value = 1"})
    code = """
import os, resource, sys
from dlopen import importer
importer.install()
sys.path.append(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for entry in sys.path:  # as folders were listed before
    sys.path_importer_cache.setdefault(entry, None)
del sys.path_importer_cache[sys.argv[1]]
try:
    import thing
except ImportError as error:
    print(error, "-", error.__cause__.errno)
    for descriptor in held:
        os.close(descriptor)
import importlib
importlib.invalidate_caches()
import thing
print(thing.value)
"""
    assert run_python(code, str(path)).stdout.splitlines() == [
        f"No module named 'thing'; {path}: Too many open files - 24",
        "1",
    ]


def test_a_damaged_directory(tmp_path: Path) -> None:
    """Each byte of it changed in turn: found, or a name or a member that is another."""
    whole = pack(tmp_path / "whole.zip", {"thing.py": b"value = 1", "other.py": b"value = 2"})
    content = whole.read_bytes()
    begin = content.index(b"PK\1\2")
    said = set()
    for at in range(begin, len(content)):
        path = tmp_path / f"{at}.zip"
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        sys.path.insert(0, str(path))
        try:
            assert importlib.import_module("thing").value == 1
        except ImportError as error:
            said.add(str(error).partition(f"{path}: ")[2] or str(error).partition("thing.py: ")[2])
        finally:
            sys.modules.pop("thing", None)
            del sys.path[0]
    assert {
        "its directory is damaged",
        "the file and its directory disagree about it",
        "it is encrypted",
        "it is compressed by method 85, not stored or deflated",
        "truncated: the file ends within it",
    } <= said


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_that_cannot_be(tmp_path: Path, compressed: bool) -> None:
    """Sizes and offsets: said before memory is taken for them."""
    whole = pack(tmp_path / "whole.zip", {"thing.py": b"value = 1"}, compressed=compressed)
    begin = (content := whole.read_bytes()).index(b"PK\1\2")
    record, end = content[begin:-22], bytearray(content[-22:])
    stored, size = struct.unpack_from("<II", record, 20)
    for at, start in ((20, 18), (24, 22)):
        damaged = bytearray(content)
        struct.pack_into("<I", damaged, begin + at, 0xFFFFFFFE)
        struct.pack_into("<I", damaged, start, 0xFFFFFFFE)
        (path := tmp_path / f"{at}.zip").write_bytes(damaged)
        check_numbers(path, may_be_right=not compressed and at == 24)
    for which in range(3):
        for number in (1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            fields = [size, stored, 0]
            fields[which] = number
            extra = struct.pack("<HHQQQ", 1, 24, *fields)
            central = bytearray(record)
            struct.pack_into("<II", central, 20, 0xFFFFFFFF, 0xFFFFFFFF)
            struct.pack_into("<H", central, 30, len(extra))
            struct.pack_into("<I", central, 42, 0xFFFFFFFF)
            local = bytearray(content[:begin])
            struct.pack_into("<II", local, 18, 0xFFFFFFFF, 0xFFFFFFFF)
            struct.pack_into("<I", end, 12, len(central) + len(extra))
            (path := tmp_path / f"{which}-{number}.zip").write_bytes(local + central + extra + end)
            check_numbers(path, may_be_right=not compressed and which == 0)


def check_numbers(path: Path, *, may_be_right: bool) -> None:
    """Of what is stored, only one of its two sizes is looked at."""
    if may_be_right:
        return
    tracemalloc.start()
    try:
        error = refused(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert str(error) in (
        f"{path}/thing.py: truncated: the file ends within it",
        f"{path}/thing.py: its record in the directory is damaged",
    )
    assert isinstance(error.__cause__, dlopen.LoadError)


def test_a_damaged_member(tmp_path: Path) -> None:
    """Each byte of its local header, and of what is deflated."""
    source = b"value = 'some text that is long enough to be compressed, is long enough'\n"
    whole = pack(tmp_path / "whole.zip", {"thing.py": source}, compressed=True)
    content = whole.read_bytes()
    end = content.index(b"PK\1\2")
    said, places = set(), set()
    for at in range(end):
        path = tmp_path / f"{at}.zip"
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        sys.path.insert(0, str(path))
        try:
            importlib.import_module("thing")
        except ImportError as error:
            said.add(str(error).partition("thing.py: ")[2].partition(":")[0])
            places.add(str(error.path).removeprefix(f"{path}/"))
        except SyntaxError:  # another text, of the same size
            pass
        finally:
            sys.modules.pop("thing", None)
            del sys.path[0]
    assert places == {"thing.py"}
    assert said - {""} == {
        "the file and its directory disagree about it",
        "its content is damaged",
        "truncated",
    }


def test_members_that_zlib_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("thing.py", "value = 1")
    assert str(refused(path)) == (
        f"{path}/thing.py: it is compressed by method 12, not stored or deflated"
    )


def test_what_fails_when_it_runs(tmp_path: Path) -> None:
    path = pack(
        tmp_path / "a.zip",
        {
            "pack/__init__.py": b"",
            "pack/broken.py": b"import pack.fine\nraise KeyError('broken')\n",
            "pack/fine.py": b"",
            f"pack/native{SUFFIX}": native(
                tmp_path, 'PyErr_SetString(PyExc_LookupError, "by itself"); return -1;'
            ),
        },
    )
    sys.path.insert(0, str(path))
    pack_ = importlib.import_module("pack")
    for _ in range(3):
        with pytest.raises(KeyError, match="broken"):
            importlib.import_module("pack.broken")
        with pytest.raises(LookupError, match="by itself"):
            importlib.import_module("pack.native")
    assert not {"pack.broken", "pack.native"} & {*sys.modules}
    assert not {"broken", "native"} & {*vars(pack_)}
    # Its code may be in use from anywhere: as with any extension, the image stays, and is one.
    ours = [info.path for info in dlopen.libraries() if info.path.startswith(str(path))]
    assert ours == [f"{path}/pack/native{SUFFIX}"]


def test_an_extension_without_its_function(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {f"thing{SUFFIX}": native(tmp_path)})
    error = refused(path)
    assert "PyInit_thing" in str(error)
    assert error.path == f"{path}/thing{SUFFIX}"


def test_the_traceback_is_of_the_users_code(tmp_path: Path) -> None:
    """As of a folder: no frame of the importer where a module has failed by itself."""
    files = {"pack/__init__.py": b"from . import one\n", "pack/one.py": b"1 / 0\n"}
    path = pack(tmp_path / "a.zip", files)
    code = "import sys\nfrom dlopen import importer\nimporter.install()\n"
    done = run_python(f"{code}sys.path.insert(0, sys.argv[1])\nimport pack", str(path), check=False)
    files_ = [line for line in done.stderr.splitlines() if line.startswith("  File")]
    assert files_ == [
        '  File "<string>", line 5, in <module>',
        f'  File "{path}/pack/__init__.py", line 1, in <module>',
        f'  File "{path}/pack/one.py", line 1, in <module>',
    ]
