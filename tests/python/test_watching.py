"""`dlopen.watch` and the command `dlopen watch`: a library is reloaded when its file is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.fixtures import compile_library, compiler, run, run_python

HOT = """
long counter;
int version(void) { return VERSION; }
long bump(void) { return ++counter; }
"""
HEAD = """
import ctypes, logging, os, shutil, subprocess, sys, threading, time
from pathlib import Path
import dlopen
folder, cc = sys.argv[1:3]
path = folder + "/libhot.so"
def build(version, output=path):
    subprocess.run([cc, "-shared", "-fPIC", f"-DVERSION={version}", folder + "/hot.c",
                    "-o", output], check=True)
def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hot.c").write_text(HOT)
    compile_library(tmp_path, "libhot.so", HOT, flags=["-DVERSION=1"])
    return tmp_path


def python(code: str, folder: Path) -> list[str]:
    return run_python(HEAD + code, str(folder), compiler("c")).stdout.splitlines()


def test_it_is_reloaded_when_it_is_written(folder: Path) -> None:
    code = """
lib = dlopen.Library(path, reload=True)
done, errors = [], []
with dlopen.watch(lib, ["counter"], on_reload=done.append, on_error=errors.append) as watcher:
    lib.bump()
    build(2)
    wait_for(lambda: lib.version() == 2)
    assert lib.bump() == 2
    # By another file in its place, as careful installers do.
    build(3, path + ".new")
    os.replace(path + ".new", path)
    wait_for(lambda: lib.version() == 3)
    assert lib.bump() == 3
    Path(path).write_bytes(b"\\x7fELF half a file")
    wait_for(lambda: errors)
    assert lib.version() == 3 and isinstance(errors[-1], dlopen.LoadError)
    build(4)
    wait_for(lambda: lib.version() == 4)
    assert not watcher.closed
assert watcher.closed and done[-1].kept == ("counter",)
build(5)
time.sleep(0.5)
print(lib.version())
# It ends with the library; what was written before it began is seen.
watcher = dlopen.watch(lib)
wait_for(lambda: lib.version() == 5)
lib.close()
wait_for(lambda: watcher.closed)
print(threading.active_count())
"""
    assert python(code, folder) == ["4", "1"]


def test_through_a_symbolic_link(folder: Path) -> None:
    code = """
os.makedirs(folder + "/elsewhere")
os.symlink(path, folder + "/elsewhere/liblink.so")
lib = dlopen.Library(folder + "/elsewhere/liblink.so", reload=True)
with dlopen.watch(lib):
    build(2)
    wait_for(lambda: lib.version() == 2)
    os.symlink(folder + "/other.so", folder + "/elsewhere/new")
    build(3, folder + "/other.so")
    os.replace(folder + "/elsewhere/new", folder + "/elsewhere/liblink.so")
    wait_for(lambda: lib.version() == 3)
"""
    python(code, folder)


def test_errors_are_logged(folder: Path) -> None:
    code = """
logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
lib = dlopen.Library(path, reload=True)
records = []
logging.getLogger("dlopen.reload").addFilter(lambda record: not records.append(record))
with dlopen.watch(lib):
    Path(path).write_bytes(b"x" * 100)
    wait_for(lambda: any(record.levelname == "WARNING" for record in records))
print(lib.version())
"""
    *lines, last = python(code, folder)
    assert last == "1"
    assert lines
    assert all(line.startswith("dlopen.reload WARNING ") for line in lines)
    assert "libhot.so: invalid ELF header" in lines[0]


def test_the_interpreter_ends(folder: Path) -> None:
    code = """
lib = dlopen.Library(path, reload=True)
watcher = dlopen.watch(lib)
time.sleep(0.3)
print(lib.version())
"""
    for _ in range(3):
        assert python(code, folder) == ["1"]


def test_what_is_raised_does_not_end_it(folder: Path) -> None:
    """By those who are told, and by a source of files."""
    code = """
logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
broken = []
def files(name):
    if broken:
        raise RuntimeError("no network")
lib = dlopen.Library(path, reload=True, files=files)
def tell(what):
    told.append(what)
    raise KeyError("of the user")
told = []
with dlopen.watch(lib, on_reload=tell, on_error=tell) as watcher:
    for number in (2, 3):
        build(number)
        wait_for(lambda: lib.version() == number and told)
    broken.append(True)
    told.clear()
    build(4)
    wait_for(lambda: any(isinstance(one, RuntimeError) for one in told))
    broken.clear()
    build(5)
    wait_for(lambda: lib.version() == 5)
"""
    lines = python(code, folder)
    assert "KeyError: 'of the user'" in lines
    assert any(line.startswith("dlopen.reload ERROR ") for line in lines)


def test_what_cannot_be_watched(folder: Path) -> None:
    code = """
plain = dlopen.Library(path)
data = dlopen.Library.from_bytes(Path(path).read_bytes(), name="hot", reload=True)
for lib in (plain, data):
    try:
        dlopen.watch(lib)
    except (dlopen.Error, ValueError) as error:
        print(type(error).__name__, str(error).rpartition("/")[2])
    lib.close()
try:
    dlopen.watch(data)
except ValueError as error:
    print(error)
sys.modules["watchfiles"] = None
try:
    dlopen.watch(plain)
except ImportError as error:
    print(error.name)
"""
    assert python(code, folder) == [
        "Error libhot.so was opened without reload=True",
        "ValueError hot is not from a file that can be watched",
        "hot is closed",
        "watchfiles",
    ]


@pytest.mark.parametrize("as_module", [True, False])
def test_the_command(folder: Path, as_module: bool) -> None:
    program = (
        HEAD
        + """
assert __name__ == "__main__" and sys.argv[3:] == ["--keep", "argument"], sys.argv
import beside_it
lib = dlopen.Library(path, reload=True)
lib.bump()
build(2)
wait_for(lambda: lib.version() == 2)
print(lib.bump(), sys.argv[0])
sys.exit(5)
"""
    )
    (folder / "program.py").write_text(program)
    (folder / "beside_it.py").write_text("")
    name = ["-m", "program"] if as_module else [str(folder / "program.py")]
    done = run(
        [
            *(sys.executable, "-m", "dlopen", "watch", "--keep", "counter"),
            *name,
            *(folder, compiler("c"), "--keep", "argument"),
        ],
        check=False,
        cwd=folder,
    )
    assert done.returncode == 5, done
    assert done.stdout == f"2 {folder / 'program.py'}\n"
    assert f"dlopen watch: {folder}/libhot.so: version 1, calls held for " in done.stderr
