"""`dlopen zipapp`: what is packed, and how it starts where dlopen is not installed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from zipimport import zipimporter

import pytest

from dlopen._zip_writer import (
    TooLargeError,
    Writer,
    can_be_mapped,
    date_of_members,
    library_machine,
)
from support.extensions import INCLUDE, SUFFIX
from support.fixtures import compile_library, compile_program, missing, need_tool, run

# By uname(1)'s names: e_machine of the ELF header, and the largest page that the machine may have.
MACHINES = {
    "x86_64": (62, 4096),
    "aarch64": (183, 65536),
    "riscv64": (243, 4096),
    "loongarch64": (258, 65536),
}
# Without the packages of the environment: dlopen is not installed.
BARE = [sys.executable, "-I", "-S"]
VERSION = version("dlopen")

APP = '''
"""Reports what it finds."""

import json
import multiprocessing
import sys


def report():
    """Of this process."""
    import dlopen
    main = sys.modules["__main__"]
    with dlopen.Library("libz.so.1", dlopen.PRIVATE) as zlib:
        crc = zlib.crc32(0, b"hello", 5)
    print(json.dumps({
        "argv": sys.argv, "path": sys.path[0], "file": __file__, "crc": crc,
        "dlopen": dlopen.__file__, "version": dlopen.__version__,
        "main": sorted(vars(main)), "main.__file__": main.__file__, "spec": main.__spec__ is None,
    }))
    return 7


def square(number):
    import dlopen
    return dlopen.__version__ and number * number


def processes():
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(method, pool.map(square, [2, 3]))


def fail():
    raise SystemExit(5)


class Told:
    @staticmethod
    def deep():
        return "told"
'''


def pack(
    *arguments: str | Path, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "dlopen", "zipapp", *arguments], check=check, env=env)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "app.py").write_text(APP)
    (folder / "data.txt").write_text("some data")
    return folder


@pytest.fixture(scope="session")
def archive(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "app.pyz"
    done = pack(source, "-o", path, "-m", "app:report")
    assert (done.stdout, done.stderr) == ("", "")
    return path


def changed(archive: Path, path: Path, old: str, new: str) -> Path:
    """A copy with another `__main__.py`, which is not compiled."""
    with zipfile.ZipFile(archive) as given, zipfile.ZipFile(path, "w") as made:
        for name in given.namelist():
            data = given.read(name)
            if name == "__main__.py":
                assert old in data.decode()
                data = data.decode().replace(old, new).encode()
            if name != "__main__.pyc":
                made.writestr(name, data)
    return path


def report(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.stderr == ""
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_it_runs_where_dlopen_is_not_installed(archive: Path) -> None:
    found = report(run([*BARE, archive, "-x", "y"]))
    assert found["argv"] == [str(archive), "-x", "y"]
    assert found["path"] == str(archive)
    assert found["file"] == f"{archive}/app.py"
    assert found["dlopen"] == f"{archive}/_dlopen/dlopen/__init__.pyc"
    assert found["version"] == VERSION
    assert found["crc"] == 907060870


def test_its_main_is_that_of_a_script(archive: Path) -> None:
    found = report(run([*BARE, archive]))
    assert (found["main.__file__"], found["spec"]) == (str(archive), True)
    names = ["builtins", "cached", "doc", "file", "loader", "name", "package", "spec"]
    assert found["main"] == [f"__{name}__" for name in names]


def test_no_file_is_written(archive: Path, tmp_path: Path) -> None:
    command = [need_tool("strace"), "-f", "-e", "trace=openat,open,creat,mkdir", "-o", "trace"]
    run([*command, *BARE, archive], cwd=tmp_path)
    trace = (tmp_path / "trace").read_text()
    assert not re.findall(r"O_CREAT|O_WRONLY|O_RDWR|creat\(|mkdir\(", trace)
    assert re.search(r'"/proc/\d+/fd/../fd/\d+"', trace)


def test_descriptors_may_be_closed(source: Path, tmp_path: Path) -> None:
    """As a daemon does; their numbers come again."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(
        "import ctypes, dlopen, os\n"
        "os.closerange(3, 100)\n"
        "with open(dlopen.find('libz.so.1').path, 'rb') as file:\n"
        "    data = file.read()\n"
        "for _ in range(3):\n"
        "    os.write(descriptor := os.memfd_create('z'), data)\n"
        "    path = f'/proc/{os.getpid()}/fd/{descriptor}'\n"
        "    print(ctypes.CDLL(path).crc32(0, b'hello', 5), dlopen.Library(path).crc32.__name__)\n"
    )
    pack(tmp_path / "app")
    assert run([*BARE, tmp_path / "app.pyz"]).stdout == "907060870 crc32\n" * 3


def test_the_first_line_starts_it(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "app.pyz"
    pack(source, "-o", path, "-m", "app:report", "-p", sys.executable)
    found = report(run([path, "a"], cwd=tmp_path))
    assert found["argv"] == [str(path), "a"]
    # From a folder, by a path that is relative: absolute all the same.
    found = report(run([sys.executable, "app.pyz"], cwd=tmp_path))
    assert (found["path"], found["main.__file__"]) == (str(path), str(path))


def test_an_installed_one_is_used(archive: Path, libdlopen: Path) -> None:
    found = report(run([sys.executable, archive]))
    assert found["dlopen"] == str(libdlopen.parents[1] / "__init__.py")


def test_one_of_another_version_is_not_used(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "dlopen").mkdir()
    (tmp_path / "dlopen" / "__init__.py").write_text("__version__ = '0'")
    (tmp_path / "dlopen-0.dist-info").mkdir()
    code = "import runpy, sys; sys.path.append(sys.argv[2]); "
    code += "runpy.run_path(sys.argv[1], run_name='__main__')"
    found = report(run([*BARE, "-c", code, archive, tmp_path]))
    assert found["version"] == VERSION


def test_what_is_left_of_one_is_not_used(archive: Path, tmp_path: Path) -> None:
    (tmp_path / f"dlopen-{VERSION}.dist-info").mkdir()
    code = "import runpy, sys; sys.path.append(sys.argv[2]); "
    code += "runpy.run_path(sys.argv[1], run_name='__main__')"
    found = report(run([*BARE, "-c", code, archive, tmp_path]))
    assert found["dlopen"] == f"{archive}/_dlopen/dlopen/__init__.pyc"


def test_one_that_is_preloaded_is_used(archive: Path, libdlopen: Path) -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')\n"
    code += "print(*(line for line in open('/proc/self/maps') if 'libdlopen' in line))"
    env = {"LD_PRELOAD": libdlopen.name, "LD_LIBRARY_PATH": str(libdlopen.parent)}
    maps = run([*BARE, "-c", code, archive], env=env).stdout
    assert str(libdlopen) in maps
    assert "memfd:libdlopen" not in maps


def test_python_m_dlopen_runs_it(archive: Path, libdlopen: Path) -> None:
    found = report(run([sys.executable, "-m", "dlopen", archive, "-m", "info"]))
    assert found["argv"] == [str(archive), "-m", "info"]
    assert found["path"] == str(archive)
    assert found["dlopen"] == str(libdlopen.parents[1] / "__init__.py")


def test_python_m_dlopen_runs_what_others_have_made(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pyz"
    run([sys.executable, "-m", "zipapp", source, "-o", path, "-m", "app:fail"])
    assert run([sys.executable, "-m", "dlopen", path], check=False).returncode == 5
    run([sys.executable, "-m", "zipapp", source, "-o", path, "-m", "app:report"])
    done = run([sys.executable, "-m", "dlopen", path, "a"])
    assert report(done)["argv"] == [str(path), "a"]


def test_processes(source: Path, tmp_path: Path) -> None:
    """However they are started, they have dlopen."""
    path = tmp_path / "app.pyz"
    pack(source, "-o", path, "-m", "app:processes")
    lines = run([*BARE, path]).stdout.splitlines()
    assert lines[0] == "fork [4, 9]"
    assert "spawn [4, 9]" in lines
    assert all(line.endswith("[4, 9]") for line in lines)


@pytest.mark.parametrize(
    ("entry", "status", "errors"), [("report", 0, ""), ("fail", 5, ""), ("Told.deep", 0, "")]
)
def test_functions(entry: str, status: int, errors: str, source: Path, tmp_path: Path) -> None:
    """As with zipapp, what it returns says nothing."""
    path = tmp_path / "app.pyz"
    pack(source, "-o", path, "-m", f"app:{entry}")
    done = run([*BARE, path], check=False)
    assert (done.returncode, done.stderr) == (status, errors)


def test_a_main_of_its_own(source: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "app.py").write_bytes((source / "app.py").read_bytes())
    (tmp_path / "app" / "__main__.py").write_text(
        "import app, pickle, sys, traceback\n"
        "def here(): pass\n"
        "assert pickle.loads(pickle.dumps(here)) is here\n"
        "assert __name__ == '__main__'\n"
        "try:\n"
        "    1 / 0\n"
        "except ZeroDivisionError:\n"
        "    traceback.print_exc()\n"
        "sys.exit(app.report())\n"
    )
    run([sys.executable, "-m", "dlopen", "zipapp", "."], cwd=tmp_path / "app")
    done = run([*BARE, tmp_path / "app.pyz"], check=False)
    assert done.returncode == 7
    assert f'File "{tmp_path}/app.pyz/_dlopen/main/__main__.py", line 6' in done.stderr
    assert "    1 / 0\n" in done.stderr  # its own source, not that of the archive's start


# A package whose wheel has a script, a tag, and a module that looks for a file.
WHEEL = {
    "told/__init__.py": "def main():\n    print('told')\n    return 3\n",
    "told/beside.py": "import os\nHERE = os.path.dirname(__file__)\n",
    "told/namespace/module.py": "value = 5\n",
    "told-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: told\nVersion: 1.5\n",
    "told-1.5.dist-info/entry_points.txt": "[console_scripts]\ntell = told:main\n",
    "told-1.5.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "told-1.5.dist-info/RECORD": "",
}


@pytest.fixture(scope="session")
def pip() -> list[str]:
    """The command."""
    if find_spec("pip") is None:
        missing("pip is not installed")
    return [sys.executable, "-m", "pip"]


@pytest.fixture(scope="session")
def requirements(pip: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    wheel = folder / "told-1.5-py3-none-any.whl"
    with wheel.open("wb") as stream, Writer(stream, *MACHINES["x86_64"], compress=False) as writer:
        for name, text in WHEEL.items():
            writer.add(name, text.encode())
    path = folder / "requirements.txt"
    path.write_text(f"{wheel}\n")
    return path


def test_what_pip_installs(pip: list[str], requirements: Path, tmp_path: Path) -> None:
    path = tmp_path / "told.pyz"
    done = pack("-r", requirements, "--script", "tell", "-o", path)
    assert done.stderr == (
        "dlopen zipapp: warning: told looks for files beside its modules, where there are none: "
        "told/beside.py\n"
    )
    done = run([*BARE, path], check=False)
    assert (done.stdout, done.returncode) == ("told\n", 3)
    names = zipfile.ZipFile(path).namelist()
    assert {"told-1.5.dist-info/METADATA", "told-1.5.dist-info/RECORD"} <= {*names}
    # zipimport knows a folder without __init__ by an entry of its own only.
    assert [name for name in names if name.endswith("/")] == ["told/namespace/"]
    assert not any(name.startswith("bin") or "__pycache__" in name for name in names)
    found = run([*pip, "list", "--path", path], env={"PYTHONPATH": str(path)})
    assert re.search(r"^told +1\.5$", found.stdout, re.MULTILINE)
    assert pack("--info", path).stdout.endswith("package      told 1.5\n")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import told.namespace.module as found; "
    code += "import importlib.metadata as m; print(found.value, m.version('told'))"
    assert run([*BARE, "-c", code, path]).stdout == "5 1.5\n"


def test_info(archive: Path) -> None:
    lines = pack("--info", archive).stdout.splitlines()
    pairs = dict(line.split(maxsplit=1) for line in lines)
    assert pairs["interpreter"] == "/usr/bin/env python3"
    assert pairs["entry"] == "app:report"
    assert pairs["python"] == "3.11 or newer"
    assert pairs["machine"] == os.uname().machine
    assert pairs["dlopen"] == VERSION
    assert re.fullmatch(r"2, of [\d,]+ bytes", pairs["libraries"])
    page = MACHINES[os.uname().machine][1]
    assert pairs["mapped"] == f"2 of them, with pages of up to {page} bytes"


def test_compiled(archive: Path) -> None:
    """For this version of Python; not compared with the source, which others take."""
    with zipfile.ZipFile(archive) as opened:
        names = {*opened.namelist()}
        assert {name + "c" for name in names if name.endswith(".py")} <= names
        magic, flags = struct.unpack_from("<4sI", opened.read("app.pyc"))
    from importlib.util import MAGIC_NUMBER  # noqa: PLC0415

    assert (magic, flags) == (MAGIC_NUMBER, 0b01)


@pytest.mark.parametrize("compress", [False, True])
def test_the_same_bytes(compress: bool, source: Path, tmp_path: Path) -> None:
    options = ["-m", "app:report", *(["-c"] if compress else [])]
    contents = set()
    for name in ("one", "two"):
        for file in source.iterdir():
            os.utime(file)
        pack(source, "-o", tmp_path / name, *options, env={"SOURCE_DATE_EPOCH": "1700000000"})
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1
    with zipfile.ZipFile(tmp_path / "one") as opened:
        members = opened.infolist()
    assert {member.date_time for member in members} == {(2023, 11, 14, 22, 13, 20)}
    stored = {one.filename for one in members if one.compress_type == zipfile.ZIP_STORED}
    assert ("app.py" in stored) is not compress
    assert {"_dlopen/libdlopen.so", "_dlopen/_linker.so"} <= stored


def test_a_folder_is_packed_without_what_was_made_of_it(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "app.pyc").write_text("old")
    (folder / "app.py").write_bytes((source / "app.py").read_bytes())
    for _ in range(2):
        pack(folder, "-o", folder / "app.pyz", "-m", "app:report")
    names = zipfile.ZipFile(folder / "app.pyz").namelist()
    assert not [name for name in names if "pycache" in name or "pyz" in name]
    assert sorted(path.name for path in folder.iterdir()) == ["__pycache__", "app.py", "app.pyz"]


REFUSED = [
    (["-m", "app:report", "{missing}"], "{missing} is not a folder"),
    (["{source}"], "what shall it run? --main, --script or a __main__.py in SOURCE"),
    (["{source}", "-m", "app"], "--main app: not as MODULE:FUNCTION"),
    (["{source}", "-m", "a b:c"], "--main a b:c: not as MODULE:FUNCTION"),
    (["{source}", "--script", "tell"], "--script tell: there are none"),
    (["{source}", "-r", "{requirements}", "--script", "sell"], "--script sell: there are tell"),
    (["{source}", "-m", "app:f", "--python-version", "3.10"], "--python-version 3.10: "),
    (["{source}", "-m", "app:f", "--platform", "win32"], "--platform win32: which machine?"),
    (["{source}", "-m", "a:f", "--platform", "linux_vax"], "--dlopen-wheel: where is the wheel"),
    (["{source}", "-m", "a:f", "--dlopen-wheel", "dlopen-1-a.whl"], "dlopen-1-a.whl is not for"),
    (["{source}", "-m", "a:f", "--dlopen-wheel", "{wheel}"], "{wheel}: dlopen 0.0 knows no zipapp"),
    (["{source}", "-m", "a:f", "--dlopen-wheel", "{nothing}"], "{nothing} is no wheel"),
    (["--info", "{requirements}"], "{requirements} is no archive"),
    (["--info"], "--info: of which archive?"),
    (["-m", "app:f"], "--output: where to?"),
    (["-m", "app:f", "-o", "{missing}"], "what shall be in it? SOURCE or --requirement"),
    (["{source}", "-m", "app:f", "-o", "{missing}/app"], "--output {missing}/app: No such file"),
    (["{source}", "-m", "app:f", "-o", "{source}"], "--output {source}: it is there, and no file"),
    (["{source}", "-m", "app:f", "-p", "one\ntwo"], "--python: it is one line"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_packed(
    arguments: list[str], message: str, source: Path, requirements: Path, tmp_path: Path
) -> None:
    wheel = tmp_path / f"dlopen-0.0-cp311-abi3-linux_{os.uname().machine}.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("dlopen/__init__.py", "")
    values = {"source": source, "requirements": requirements, "missing": tmp_path / "missing"}
    values |= {"wheel": wheel, "nothing": tmp_path / wheel.name.replace("-0.0-", "-0.1-")}
    done = pack(*(one.format(**values) for one in arguments), check=False)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dlopen zipapp: {message.format(**values)}")
    assert done.returncode == 1
    assert not [*source.parent.glob("*.pyz")]


def test_without_a_first_line(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "app.pyz"
    pack(source, "-o", path, "-m", "app:report", "-p", "")
    assert path.read_bytes().startswith(b"PK")
    assert not os.access(path, os.X_OK)
    assert report(run([*BARE, path]))["crc"] == 907060870


def test_links_are_followed(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").symlink_to(source / "app.py")
    (folder / "more").symlink_to(source)
    (folder / "still").symlink_to(folder / "more")
    path = tmp_path / "app.pyz"
    pack(folder, "-m", "app:report", "-o", path)
    names = {"app.py", "more/app.py", "more/data.txt", "still/data.txt"}
    assert names <= {*zipfile.ZipFile(path).namelist()}


def test_an_output_that_is_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "app.pyz").symlink_to(tmp_path / "to" / "app.pyz")
    for _ in range(2):
        pack(source, "-m", "app:report", "-o", tmp_path / "app.pyz")
    assert (tmp_path / "app.pyz").is_symlink()
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["app.pyz"]
    assert report(run([*BARE, tmp_path / "app.pyz"]))["path"] == f"{tmp_path}/app.pyz"


def test_a_name_that_no_member_can_have(tmp_path: Path) -> None:
    folder = tmp_path / "app" / os.fsdecode(b"a\xff")
    folder.mkdir(parents=True)
    (tmp_path / "app" / "ünï\xad.txt").touch()
    (folder / "x").touch()
    done = pack(tmp_path / "app", "-m", "x:y", check=False)
    expected = f"{tmp_path}/app: 'a\\udcff/x' is no name for a member"
    assert (done.returncode, done.stderr) == (1, f"dlopen zipapp: {expected}\n")


@pytest.mark.parametrize("name", ["dlopen/x.py", "dlopen.py", "_dlopen/x.py"])
def test_names_of_dlopen_itself(name: str, tmp_path: Path) -> None:
    path = tmp_path / "app" / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    done = pack(tmp_path / "app", "-m", "x:y", check=False)
    top = name.partition("/")[0]
    expected = f"{tmp_path}/app/{top}: the archive has that of dlopen itself"
    assert (done.returncode, done.stderr) == (1, f"dlopen zipapp: {expected}\n")


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("within/loop", "..", "within/loop leads to a folder that it is in"),
        ("loop", ".", "loop leads to a folder that it is in"),
        ("nowhere", "missing", "nowhere leads nowhere"),
        ("circle", "circle", "circle leads nowhere"),
        ("device", "/dev/null", "device is no file"),
    ],
)
def test_links_that_cannot_be_followed(
    link: str, target: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "app" / "within").mkdir(parents=True)
    (tmp_path / "app" / link).symlink_to(target)
    done = pack(tmp_path / "app", "-m", "app:report", check=False)
    assert (done.returncode, done.stderr) == (1, f"dlopen zipapp: {tmp_path}/app/{message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["app"]


def test_for_another_machine(source: Path, libdlopen: Path, tmp_path: Path) -> None:
    """From a wheel of dlopen for that: here our own, but for the number of the machine."""
    machine = "riscv64" if os.uname().machine == "aarch64" else "aarch64"
    wheel = tmp_path / f"dlopen-1.2-cp311-abi3-linux_{machine}.whl"
    package = libdlopen.parents[1]
    with zipfile.ZipFile(wheel, "w") as made:
        for path in (*package.glob("*.py"), libdlopen, *package.glob("*.so")):
            data = bytearray(path.read_bytes())
            if path.suffix == ".so":
                data[18:20] = MACHINES[machine][0].to_bytes(2, "little")
            made.writestr(f"dlopen/{path.relative_to(package).as_posix()}", data)
    path = tmp_path / "app.pyz"
    platform = f"manylinux_2_28_{machine}"
    options = ["--platform", platform, "--dlopen-wheel", str(wheel)]
    pack(source, "-o", path, "-m", "app:report", *options)
    info = dict(line.split(maxsplit=1) for line in pack("--info", path).stdout.splitlines())
    assert (info["machine"], info["dlopen"]) == (machine, "1.2")
    assert info["mapped"].startswith("2 of them")
    assert refusal(run([*BARE, path], check=False)).startswith(f"{path}: made for {machine}, and ")


@pytest.mark.usefixtures("pip")
def test_requirements_that_pip_cannot_install(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("./missing.whl")
    done = pack("-r", tmp_path / "r.txt", "-m", "a:b", "-o", tmp_path / "app.pyz", check=False)
    assert "missing.whl" in done.stderr
    assert done.stderr.endswith("dlopen zipapp: pip has not installed the requirements\n")
    assert [path.name for path in tmp_path.iterdir()] == ["r.txt"]


def test_a_terminal_sees_how_far_it_is(source: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "dlopen", "zipapp", "-m", "app:report"]
    child = subprocess.Popen([*command, source, "-o", tmp_path / "app.pyz"], stderr=slave)
    os.close(slave)
    text = ""
    with contextlib.suppress(OSError):  # EIO at its end
        while True:
            text += os.read(master, 1 << 16).decode()
    assert child.wait() == 0
    os.close(master)
    assert "packing      [#" in text
    assert text.endswith("\r\x1b[K")


# Where it cannot start, it says so: nothing of the application runs.


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stdout, done.returncode) == ("", 1)
    (line,) = done.stderr.splitlines()
    return line


def test_another_machine(archive: Path, tmp_path: Path) -> None:
    path = changed(archive, tmp_path / "app.pyz", os.uname().machine, "vax")
    expected = f"{path}: made for vax, and this machine is {os.uname().machine}"
    assert refusal(run([*BARE, path], check=False)) == expected


def test_another_python(archive: Path, tmp_path: Path) -> None:
    path = changed(archive, tmp_path / "app.pyz", "< (3, 11)", "< (3, 99)")
    version = "{}.{}".format(*sys.version_info[:2])
    expected = f"{path}: made for CPython 3.11 or newer, and this is {version}"
    assert refusal(run([*BARE, path], check=False)) == expected


def test_modules_for_one_version(source: Path, tmp_path: Path) -> None:
    """Others have other C structures."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "app.py").write_bytes((source / "app.py").read_bytes())
    (tmp_path / "app" / "fast.cpython-39-x86_64-linux-gnu.so").touch()
    pack(tmp_path / "app", "-m", "app:report", "--python-version", "3.99")
    found = refusal(run([*BARE, tmp_path / "app.pyz"], check=False))
    assert "made for CPython 3.99, and this is" in found


# A program that starts another one, which cannot make files in memory.
SANDBOX = """
#include "sandbox.h"
int main(int count, char **arguments) {
    (void)count, (void)sandbox_trap;
    sandbox_forbid(SYS_memfd_create, EPERM);
    execv(arguments[1], arguments + 1);
    return 127;
}
"""


@pytest.mark.emulated(reason="the filter is for the emulator's own calls")
def test_where_there_are_no_files_in_memory(archive: Path, tmp_path: Path) -> None:
    program = compile_program(tmp_path, "sandbox", SANDBOX)
    line = refusal(run([program, *BARE, archive], check=False))
    assert line == (
        f"{archive}: this system does not let dlopen be loaded from memory "
        "([Errno 1] Operation not permitted): pip install dlopen"
    )
    # Installed, it needs none.
    assert report(run([program, sys.executable, archive]))["crc"] == 907060870


NO_GIL = "sys.abiflags = 't'"
DENIED = "def denied(*_): raise PermissionError(1, 'Operation not permitted')"


@pytest.mark.parametrize(
    ("preparation", "message"),
    [
        ("import _ctypes; _ctypes.dlopen = denied", "Operation not permitted"),
        (NO_GIL, "dlopen needs CPython with the GIL; this is a free-threaded build"),
        ("sys.implementation.name = 'pypy'", "dlopen needs CPython, not pypy"),
    ],
)
def test_where_dlopen_cannot_be_loaded(preparation: str, message: str, archive: Path) -> None:
    code = f"import os, runpy, sys\n{DENIED}\n{preparation}\n"
    code += "runpy.run_path(sys.argv[1], run_name='__main__')"
    line = refusal(run([*BARE, "-c", code, archive], check=False))
    assert line.startswith(f"{archive}: ")
    assert message in line
    assert ("pip install dlopen" in line) is ("Operation" in message)


# An application with an extension module, which needs a library that came with it.

NATIVE = """
import json, multiprocessing, os, sys

from counted import fast


def report():
    import dlopen
    with open("/proc/self/maps") as maps:
        mapped = sorted({line.split(maxsplit=5)[5].strip() for line in maps if "r-x" in line})
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        there = pool.apply(counted)
    print(json.dumps({
        "count": [fast.next_count(), fast.next_count()], "there": there, "base": fast.base(),
        "name": fast.__name__, "file": fast.__file__, "spec": fast.__spec__.origin,
        "mapped": mapped, "images": [one.path for one in dlopen.libraries()],
    }))


def say():
    print(fast.base(), fast.__file__)


def counted():
    return fast.next_count(), fast.__file__
"""
BASE = "int base(void) { return 77; }"
FAST = """
#include <Python.h>
extern int base(void);
static int count;
static PyObject *next_count(PyObject *module, PyObject *none) { return PyLong_FromLong(++count); }
static PyObject *call_base(PyObject *module, PyObject *none) { return PyLong_FromLong(base()); }
static PyMethodDef methods[] = {
    {"next_count", next_count, METH_NOARGS, ""}, {"base", call_base, METH_NOARGS, ""},
    {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "fast", NULL, 0, methods, slots, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_fast(void) { return PyModuleDef_Init(&definition); }
"""


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the application."""
    folder = tmp_path_factory.mktemp("native")
    base = compile_library(folder / "counted.libs", "libbase-1.so", BASE)
    compile_library(
        folder / "counted",
        f"fast{SUFFIX}",
        FAST,
        flags=[INCLUDE],
        libraries=[base],
        rpath="$ORIGIN/../counted.libs",
        soname="",
    )
    (folder / "counted" / "__init__.py").write_text(NATIVE)
    return folder


@pytest.mark.parametrize("options", [[], ["-c"]], ids=["stored", "compressed"])
@pytest.mark.parametrize("start", [BARE, [sys.executable, "-m", "dlopen"]], ids=["bare", "by us"])
def test_extension_modules(
    start: list[str], options: list[str], native: Path, tmp_path: Path
) -> None:
    """Mapped from the archive, as are the libraries that came with them."""
    path = tmp_path / "app.pyz"
    pack(native, "-o", path, "-m", "counted:report", *options)
    found = report(run([*start, path]))
    module = f"{path}/counted/fast{SUFFIX}"
    assert (found["count"], found["base"]) == ([1, 2], 77)
    assert found["there"] == [1, module]
    assert (found["name"], found["file"], found["spec"]) == ("counted.fast", module, module)
    assert isinstance(found["images"], list)
    assert {module, f"{path}/counted.libs/libbase-1.so"} <= {*found["images"]}
    assert isinstance(found["mapped"], list)
    assert str(path) in found["mapped"]
    python = "{}.{}".format(*sys.version_info[:2])
    assert f"\npython       {python}\n" in pack("--info", path).stdout


def test_extension_modules_in_what_others_have_made(native: Path, tmp_path: Path) -> None:
    """Unaligned, they are read into memory."""
    path = tmp_path / "other.pyz"
    run([sys.executable, "-m", "zipapp", native, "-o", path, "-m", "counted:say"])
    assert run([sys.executable, path], check=False).returncode == 1
    done = run([sys.executable, "-m", "dlopen", path])
    assert done.stdout == f"77 {path}/counted/fast{SUFFIX}\n"


# The zip itself.


def library(machine: str, size: int) -> bytes:
    header = struct.pack("<4sBB10xHH", b"\x7fELF", 2, 1, 3, MACHINES[machine][0])
    return header + os.urandom(size)


@pytest.fixture(params=MACHINES)
def mixed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, dict[str, bytes]]:
    """An archive of libraries, at each distance from a page that matters, and of other files."""
    machine = request.param
    number, page = MACHINES[machine]
    members: dict[str, bytes] = {}
    path = tmp_path / "mixed.zip"
    with path.open("wb") as stream:
        stream.write(b"#!/usr/bin/env python3\n")
        with Writer(stream, number, page, compress=False) as writer:

            def add(name: str, data: bytes) -> None:
                members[name] = data
                writer.add(name, data)

            for index, missing in enumerate((0, 1, 5, 6, 7, page - 1, 0, 3, page // 2)):
                names = (f"before{index}", f"lib{index}.so")
                headers = sum(30 + len(name) for name in names)
                size = (-writer._zip.start_dir - headers - missing) % page
                for name, data in zip(names, (bytes(size), library(machine, 9)), strict=True):
                    add(name, data)
            add("lib/ünï.so", library(machine, 70000))
            add("text.py", b"answer = 42\n" * 1000)
            add("empty", b"")
            add("other.so", library("riscv64" if machine == "x86_64" else "x86_64", 1000))
    return path, machine, members


def test_libraries_can_be_mapped(mixed: tuple[Path, str, dict[str, bytes]]) -> None:
    path, machine, members = mixed
    content = path.read_bytes()
    number, page = MACHINES[machine]
    found = 0
    with path.open("rb") as stream, zipfile.ZipFile(stream) as opened:
        for member in opened.infolist():
            data = members[member.filename]
            assert opened.read(member) == data
            assert member.extra == b""
            name, extra = struct.unpack_from("<HH", content, member.header_offset + 26)
            start = member.header_offset + 30 + name + extra
            if library_machine(data) != number:
                assert extra == 0
                continue
            found += 1
            assert start % page == 0
            assert content[start : start + len(data)] == data
            assert can_be_mapped(stream, member, page)
            if extra:
                at = member.header_offset + 30 + name
                kind, size, alignment = struct.unpack_from("<HHH", content, at)
                assert (kind, size, alignment) == (0xD935, extra - 4, page & 0xFFFF)
                assert not any(content[at + 6 : start])
    assert found == 10


def test_all_who_read_zips_read_it(mixed: tuple[Path, str, dict[str, bytes]]) -> None:
    path, _, members = mixed
    assert "No errors detected" in run([need_tool("unzip"), "-t", path]).stdout
    importer = zipimporter(str(path))
    for name, data in members.items():
        assert importer.get_data(f"{path}/{name}") == data
    assert "answer = 42" in (importer.get_source("text") or "")


def test_pip_installs_a_wheel_that_is_aligned(pip: list[str], tmp_path: Path) -> None:
    wheel = tmp_path / "told-1.5-py3-none-any.whl"
    data = library("aarch64", 100)
    with wheel.open("wb") as stream, Writer(stream, *MACHINES["aarch64"], compress=True) as writer:
        writer.add("told/lib.so", data)
        for name, text in WHEEL.items():
            writer.add(name, text.encode())
    run([*pip, "install", "--no-index", "--target", tmp_path / "site", wheel])
    assert (tmp_path / "site" / "told" / "lib.so").read_bytes() == data


@pytest.mark.parametrize(
    ("limit", "value", "sizes", "where"),
    [
        ("ZIP64_LIMIT", 1000, [100, 2000], "1"),
        ("ZIP64_LIMIT", 1000, [100] * 11, "8"),
        ("ZIP_FILECOUNT_LIMIT", 3, [0] * 5, "3"),
    ],
)
def test_a_zip64_is_refused(
    limit: str, value: int, sizes: list[int], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, limit, value)

    def write() -> None:
        with Writer(io.BytesIO(), *MACHINES["x86_64"], compress=False) as writer:
            for number, size in enumerate(sizes):
                writer.add(f"{number}", bytes(size))

    with pytest.raises(TooLargeError, match=f"reached with {where}"):
        write()


@pytest.mark.parametrize(
    ("epoch", "date"),
    [
        ("0", (1980, 1, 1, 0, 0, 0)),
        ("1700000000", (2023, 11, 14, 22, 13, 20)),
        (None, (1980, 1, 1, 0, 0, 0)),
        ("", (1980, 1, 1, 0, 0, 0)),
    ],
)
def test_dates(epoch: str | None, date: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if epoch is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert date_of_members() == date


@pytest.mark.parametrize("epoch", ["abc", "1.5", "-1", "4354819200", "9" * 30])
def test_dates_that_no_member_can_have(epoch: str, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "app.pyz"
    env = {"SOURCE_DATE_EPOCH": epoch}
    done = pack(source, "-o", path, "-m", "app:report", check=False, env=env)
    expected = f"dlopen zipapp: SOURCE_DATE_EPOCH={epoch}: a number of seconds, until the year 2107"
    assert (done.returncode, done.stderr) == (1, f"{expected}\n")
    assert not [*tmp_path.iterdir()]
