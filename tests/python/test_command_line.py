"""The command `dlopen`, as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import entry_points, version
from mmap import PAGESIZE
from pathlib import Path

import pytest

from dlopen import _command_line
from support.archives import begins, pack
from support.elf64 import DT_RUNPATH, PT_GNU_RELRO, Elf
from support.fixtures import compile_library, run


def command(
    *arguments: str | Path, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "dlopen", *arguments], env=env, check=check)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Its error, which is nothing else than one line."""
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_the_version_is_the_packages() -> None:
    done = command("--version")
    assert (done.stdout, done.stderr) == (f"dlopen {version('dlopen')}\n", "")


def test_run_preloads_the_library(libdlopen: Path) -> None:
    for separator in ([], ["--"]):
        done = command("run", *separator, "cat", "/proc/self/maps")
        assert f" {libdlopen}\n" in done.stdout
        assert done.stderr == ""


def test_run_keeps_what_else_is_preloaded(tmp_path: Path) -> None:
    other = compile_library(tmp_path, "libother.so", "int other;")
    # By name: the path may hold what LD_PRELOAD splits on.
    env = {"LD_PRELOAD": other.name, "LD_LIBRARY_PATH": str(tmp_path)}
    done = command("run", "sh", "-c", 'echo "$LD_PRELOAD"; exec cat /proc/self/maps', env=env)
    first, _, maps = done.stdout.partition("\n")
    assert first == f"{_command_line.preload_path()}:{other.name}"
    assert f" {other}\n" in maps
    assert "libdlopen.so\n" in maps


def test_the_instance_that_is_preloaded_is_the_one_that_python_uses(libdlopen: Path) -> None:
    code = "import dlopen; print(sum(i.soname == 'libdlopen.so' for i in dlopen.libraries()))"
    assert command("run", sys.executable, "-c", code).stdout == "1\n"


def test_the_arguments_are_the_programs() -> None:
    code = "import sys; print(sys.argv[1:])"
    for given in (["--log", "info", "--", "-h"], ["-h", "run"], [], ["", " ", "--"]):
        for separator in ([], ["--"]):
            done = command("run", *separator, sys.executable, "-c", code, *given)
            assert done.stdout == f"{given}\n"


def test_the_exit_status_is_the_programs() -> None:
    assert command("run", "sh", "-c", "exit 5", check=False).returncode == 5
    done = command("run", "sh", "-c", "kill -TERM $$", check=False)
    assert done.returncode == -signal.SIGTERM


def test_the_signals_are_the_programs() -> None:
    """Python ignores some, which would last over exec."""
    asked = ["grep", "^Sig[BIC]", "/proc/self/status"]
    assert command("run", *asked).stdout == run(asked).stdout


@pytest.mark.parametrize("name", ["no such program", "./data", "/", "./data/below"])
def test_a_program_that_cannot_be_started(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As env(1)."""
    monkeypatch.chdir(tmp_path)
    Path("data").write_text("data")
    expected = run(["env", name], check=False).returncode
    assert expected in {126, 127}
    done = command("run", "--", name, check=False)
    assert one_line(done).startswith(f"dlopen run: {name}: ")
    assert done.returncode == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "--"],
        ["run", "--log", "loud", "true"],
        ["run", "--loud", "true"],
        ["find"],
        ["info", "a", "b"],
    ],
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    done = command(*arguments, check=False)
    assert one_line(done).startswith("dlopen")
    assert done.returncode == 2


def test_what_is_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("missing.pyz", check=False)
    assert (one_line(done), done.returncode) == (f"dlopen: missing.pyz: {os.strerror(2)}", 2)
    Path("text.pyz").write_text("text")
    with zipfile.ZipFile("empty.pyz", "w") as archive:
        archive.writestr("x.py", "")
    for name in ("text.pyz", "./empty.pyz", str(tmp_path)):
        done = command(name, check=False)
        expected = f"dlopen: {name}: is no archive with a __main__.py"
        assert (one_line(done), done.returncode) == (expected, 2)
    # What has a command's name is the command.
    with zipfile.ZipFile("find", "w") as archive:
        archive.writestr("__main__.py", "1 / 0")
    assert command("find", "libc.so.6").returncode == 0


def test_help() -> None:
    for arguments in ([], ["run"], ["preload"], ["find"], ["info"]):
        assert command(*arguments, "-h").stdout.startswith("usage: dlopen")


def test_the_log(tmp_path: Path) -> None:
    file = tmp_path / "log file"
    # A copy: Debian's Python has it already, and would not search for it.
    code = "import dlopen; dlopen.Library('libz.so.1', dlopen.PRIVATE)"
    program = ["--", sys.executable, "-c", code]
    done = command("run", "--log", "debug", *program)
    assert "]: debug: search libz.so.1: " in done.stderr
    # Where the file is does not depend on what the program's folder is by then.
    elsewhere = ["--", "sh", "-c", f"cd / && exec '{sys.executable}' -c \"{code}\""]
    name = os.path.relpath(file)
    assert command("run", "--log-file", name, *elsewhere).stderr == ""
    text = file.read_text()
    assert "]: info: load " in text
    assert "]: debug: " not in text
    assert command("run", "--log-file", name, *program, env={"DLOPEN_LOG": "debug"}).stderr == ""
    assert "]: debug: " in file.read_text()


AWKWARD = "a b:c"


@pytest.fixture
def moved(tmp_path: Path, libdlopen: Path) -> list[str]:
    """How to run a package that lies where LD_PRELOAD cannot say so."""
    site = tmp_path / AWKWARD
    shutil.copytree(libdlopen.parents[1], site / "dlopen")
    # PYTHONPATH is split on colons, too.
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n"
    code += "from dlopen._command_line import main\nsys.exit(main())"
    return [sys.executable, "-c", code]


def test_a_path_that_ld_preload_cannot_hold(moved: list[str], tmp_path: Path) -> None:
    real = tmp_path / AWKWARD / "dlopen" / "_lib" / "libdlopen.so"
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
    env["TMPDIR"] = str(tmp_path)
    done = run([*moved, "run", "cat", "/proc/self/maps"], env=env)
    assert f" {real}\n" in done.stdout
    assert done.stderr == ""
    # A program's own children, to which it hands no descriptor, find it as well.
    code = "import subprocess; subprocess.run(['cat', '/proc/self/maps'], check=True)"
    done = run([*moved, "run", sys.executable, "-c", code], env=env)
    assert f" {real}\n" in done.stdout
    assert done.stderr == ""

    alias = Path(run([*moved, "preload"], env=env).stdout.removesuffix("\n"))
    assert not set(str(alias)) & set(" :")
    assert alias.samefile(real)
    assert alias.parent.stat().st_mode & 0o777 == 0o700
    # One link, and nothing half made; others may be there from elsewhere where no folder of this
    # test can hold it.
    names = [entry.name for entry in alias.parent.iterdir()]
    assert alias.name in names
    assert not [name for name in names if name.startswith(".")]
    done = run(["cat", "/proc/self/maps"], env={"LD_PRELOAD": str(alias)})
    assert f" {real}\n" in done.stdout


def test_an_alias_is_not_put_where_others_can_change_it(tmp_path: Path, libdlopen: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError):
        _command_line._make_alias(folder, libdlopen)
    linked = tmp_path / "linked"
    (tmp_path / "own").mkdir(mode=0o700)
    linked.symlink_to(tmp_path / "own")
    with pytest.raises(PermissionError):
        _command_line._make_alias(linked, libdlopen)
    assert not [*folder.iterdir(), *linked.iterdir()]


def test_an_alias_that_leads_elsewhere_is_made_anew(tmp_path: Path, libdlopen: Path) -> None:
    alias = _command_line._make_alias(tmp_path / "folder", libdlopen)
    assert alias.readlink() == libdlopen
    alias.unlink()
    alias.symlink_to("/nowhere")
    assert _command_line._make_alias(tmp_path / "folder", libdlopen) == alias
    assert alias.readlink() == libdlopen


def test_preload(libdlopen: Path) -> None:
    path = command("preload").stdout.removesuffix("\n")
    assert Path(path).samefile(libdlopen)
    done = run(["cat", "/proc/self/maps"], env={"LD_PRELOAD": path})
    assert f" {libdlopen}\n" in done.stdout
    assert done.stderr == ""


def test_find(tmp_path: Path) -> None:
    library = compile_library(tmp_path, "libhere.so", "int x;")
    env = {"LD_LIBRARY_PATH": f"{tmp_path}/missing:{tmp_path}"}
    assert command("find", library.name, env=env).stdout == f"{library}\n"
    lines = command("find", "-v", library.name, env=env).stdout.splitlines()
    assert lines[-2:] == [
        f"{tmp_path}/missing/libhere.so (LD_LIBRARY_PATH): {os.strerror(2)}",
        f"{library} (LD_LIBRARY_PATH): found",
    ]
    done = command("find", "libnonesuch.so", check=False)
    assert one_line(done) == "dlopen find: libnonesuch.so: not found"
    assert done.returncode == 1


def test_info(tmp_path: Path) -> None:
    version = tmp_path / "map"
    version.write_text("V1 { global: mine; };")
    base = compile_library(tmp_path, "libbase.so", "int base(void) { return 1; }")
    library = compile_library(
        tmp_path,
        "libtop.so",
        "extern int base(void); __thread int storage; int mine(void) { return base() + storage; }",
        libraries=[base],
        flags=[f"-Wl,--version-script={version}", "-Wl,-z,relro"],
    )
    elf = Elf(library)
    pairs = [line.split(maxsplit=1) for line in command("info", library).stdout.splitlines()]

    def told(key: str) -> list[str]:
        return [value for name, value in pairs if name == key]

    assert told("path") == [str(library)]
    assert told("soname") == [elf.soname]
    assert told("needed") == elf.needed
    assert told("runpath") == [elf.string(elf.tags[DT_RUNPATH])]
    versions = told("defines") + [text.split()[0] for text in told("needs")]
    assert sorted(versions) == sorted(elf.versions.values())
    assert told("symbols") == [str(len(elf.symbols))]
    assert told("relocations") == [str(len(elf.relocations) + len(elf.relr))]
    assert len(told("segment")) == len(elf.segments)
    assert told("tls") == ["4 bytes, aligned to 4"]
    relro = elf.segment(PT_GNU_RELRO)
    assert relro is not None
    start, end = (
        address // PAGESIZE for address in (relro.address, relro.address + relro.memory_size)
    )
    assert told("relro") == [f"{(end - start) * PAGESIZE} bytes"]


def test_info_of_a_library_in_an_archive(tmp_path: Path) -> None:
    library = compile_library(tmp_path, "libin.so", "int answer(void) { return 42; }")
    archive = pack(tmp_path / "libraries.zip", {"in/libin.so": library.read_bytes()})
    said = command("info", f"{archive}/in/libin.so").stdout.splitlines()
    assert said[0].split() == ["path", f"{archive}/in/libin.so"]
    assert said[1].split(maxsplit=1) == [
        "archive",
        f"{archive}, from {begins(archive, 'in/libin.so'):#x} on",
    ]
    refused = command("info", f"{archive}/in/other.so", check=False)
    assert refused.returncode == 1
    assert "Not a directory" in refused.stderr


@pytest.mark.parametrize("name", ["libnonesuch.so", "data"])
def test_info_of_what_is_no_library(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").write_text("data")
    done = command("info", name, check=False)
    assert name in one_line(done)
    assert done.returncode == 1


def test_the_script_is_the_same() -> None:
    (script,) = entry_points(group="console_scripts", name="dlopen")
    assert script.load() is _command_line.main
