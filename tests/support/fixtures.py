"""Fixtures compiled on demand, tests in a process of their own, and the process's memory map.

Only the standard library is imported here, so that a child started by `run_python` may use it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingType
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
# For every C, C++ and assembly fixture.
INCLUDES = (REPOSITORY / "src" / "dlopen" / "include", Path(__file__).resolve().parent)
# Fixtures are mapped executable: a folder under /tmp will not do where /tmp is mounted noexec.
BUILD = REPOSITORY / "build" / "tests"
_CACHE = BUILD / "cache"

# language -> (environment variable that names the compiler, default names, suffix of its sources)
_COMPILERS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "c": ("CC", ("cc", "gcc"), ".c"),
    "c++": ("CXX", ("c++", "g++"), ".cc"),
    "rust": ("RUSTC", ("rustc",), ".rs"),
    "go": ("GO", ("go",), ".go"),
    "fortran": ("FC", ("gfortran",), ".f90"),
    "asm": ("CC", ("cc", "gcc"), ".S"),
}
# Of another machine: what follows its triplet.
_CROSS_COMPILERS = {"c": "gcc", "c++": "g++", "asm": "gcc"}
_SLOWER = 5  # at most, is what an emulator runs
# pytest mark -> language
LANGUAGE_MARKS = {"cxx": "c++", "rust": "rust", "go": "go", "fortran": "fortran"}


def missing(what: str) -> NoReturn:
    """Skip the test because this machine lacks something; fail in CI, which must have it."""
    import pytest  # noqa: PLC0415  (not in children)

    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def _skip(why: str) -> NoReturn:
    """The test means nothing on the machine that is tested."""
    import pytest  # noqa: PLC0415  (not in children)

    pytest.skip(why)


def need_tool(name: str) -> str:
    """The path of the program `name`; without it, see `missing`."""
    return shutil.which(name) or missing(f"{name} is not installed")


def make_secure(program: Path) -> None:
    """Started from now on, it runs in secure execution (AT_SECURE of getauxval(3)).

    It is set-group-ID of another group then; see `missing` where this user may not do that.
    """
    for group in (*os.getgroups(), 65534):
        with contextlib.suppress(PermissionError):
            if group != os.getgid():
                os.chown(program, -1, group)
                program.chmod(0o2755)
                return
    missing("this user may not make a set-group-ID program of another group")


def compiler(language: str) -> str:
    """The path of the compiler for `language`, under the same rule as `need_tool`.

    The first on PATH that runs: rustup's rustc, for one, does not before it has a toolchain.
    """
    variable, names, _ = _COMPILERS[language]
    chosen = os.environ.get(variable)
    if machine().emulator:
        if language not in _CROSS_COMPILERS:
            _skip(f"there is no compiler of {language} for {machine().name}")
        chosen = f"{machine().triplet}-{_CROSS_COMPILERS[language]}"
    for name in [chosen] if chosen else names:
        for folder in os.get_exec_path():
            path = shutil.which(name, path=folder)
            if path and _compiler_version(path):
                return path
    missing(f"{chosen or names[0]} is not installed, or does not run")


@cache
def _folder_of_lld() -> Path:
    """For -B: a compiler of another machine looks for ld.lld among its own programs only."""
    folder = BUILD / "lld"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "ld.lld").symlink_to(need_tool("ld.lld"))
    return folder


@cache
def _compiler_version(path: str) -> bytes:
    """Nothing where it does not run."""
    argument = "version" if Path(path).name == "go" else "--version"
    done = subprocess.run([path, argument], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""


def _compile(
    directory: Path,
    name: str,
    source: str | Path,
    language: str,
    mode: Sequence[str],
    flags: Sequence[str],
    libraries: Sequence[Path],
) -> Path:
    """Compile through a cache whose key is everything that the result depends on."""
    path = compiler(language)
    suffix = _COMPILERS[language][2]
    text = source.read_bytes() if isinstance(source, Path) else source.encode()
    headers = [file for folder in INCLUDES for file in sorted(folder.glob("*.h"))]
    if isinstance(source, Path):
        headers += source.parent.glob("*.h")
    include = [f"-I{source.parent}"] if isinstance(source, Path) else []
    if "-fuse-ld=lld" in flags:
        flags = [f"-B{_folder_of_lld()}", *flags]
    link: list[str] = []
    for library in libraries:
        # By -l, not by path: a path would become the DT_NEEDED of a library without a soname.
        link += [f"-L{library.parent}", f"-l:{library.name}"]

    key = hashlib.sha256(_compiler_version(path))
    for part in (
        *(language, name, *machine().always, *mode, *flags),
        *(library.name for library in libraries),
    ):
        key.update(part.encode() + b"\0")
    for content in (text, *(file.read_bytes() for file in (*headers, *libraries))):
        key.update(hashlib.sha256(content).digest())
    _CACHE.mkdir(parents=True, exist_ok=True)
    cached = _CACHE / key.hexdigest()
    result = directory / name
    directory.mkdir(parents=True, exist_ok=True)
    if not cached.exists():
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            file = Path(scratch, "fixture" + suffix)
            file.write_bytes(text)
            output = Path(scratch, "output")
            environment = dict(os.environ)
            if language == "go":
                command = [path, "build", *mode, *flags, "-o", str(output), str(file)]
                environment |= {"CGO_ENABLED": "1", "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
            elif language == "rust":
                arguments = [f"-Clink-arg={argument}" for argument in link]
                command = [path, *mode, *flags, "-o", str(output), str(file), *arguments]
            else:
                command = [
                    path,
                    "-O1",
                    *machine().always,
                    *(f"-I{folder}" for folder in INCLUDES),
                    *include,
                    *mode,
                    str(file),
                ]
                command += ["-o", str(output), *flags, *link]
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
            output.replace(cached)  # atomic: several test processes share the cache
    # A copy, not a link: some tests change their fixture, and identity goes by inode.
    partial = directory / f".{name}.{os.getpid()}"
    shutil.copy(cached, partial)
    partial.replace(result)
    return result


def compile_library(
    directory: Path,
    name: str,
    source: str | Path,
    *,
    language: str = "c",
    flags: Sequence[str] = (),
    libraries: Sequence[Path] = (),
    soname: str | None = None,
    rpath: str = "$ORIGIN",
) -> Path:
    """Compile `source` (text, or a file) into the shared library `directory`/`name`.

    `libraries` become its DT_NEEDED.  Its soname is `soname`, by default `name`; "" for none.
    With `libraries` it has the DT_RUNPATH `rpath`, "" for none.
    """
    mode = {
        "rust": ["--crate-type=cdylib", "-Copt-level=1"],
        "go": ["-buildmode=c-shared"],
    }.get(language, ["-shared", "-fPIC"])
    if language in ("c", "c++", "asm", "fortran"):
        if soname != "":
            mode.append(f"-Wl,-soname,{soname or name}")
        if libraries and rpath:
            mode.append(f"-Wl,--enable-new-dtags,-rpath,{rpath}")
    return _compile(directory, name, source, language, mode, flags, libraries)


def compile_program(
    directory: Path,
    name: str,
    source: str | Path,
    *,
    language: str = "c",
    flags: Sequence[str] = (),
    libraries: Sequence[Path] = (),
    rpath: str = "$ORIGIN",
) -> Path:
    """Compile `source` (text, or a file) into the program `directory`/`name`.

    With `libraries` it has the DT_RUNPATH `rpath`, "" for none.
    """
    mode = [f"-Wl,--enable-new-dtags,-rpath,{rpath}"] if libraries and rpath else []
    if language in ("rust", "go"):
        mode = []
    return _compile(directory, name, source, language, mode, flags, libraries)


def run(
    command: Sequence[str | Path],
    *,
    timeout: float = 180,
    env: MappingType[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program with `env` added to the environment; its output is text, and captured."""
    words, environment = machine().run(str(command[0]), os.environ, env or {})
    done = subprocess.run(
        [*words, *(str(part) for part in command)],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout * (_SLOWER if machine().emulator else 1),
        env=environment,
        cwd=cwd,
        check=False,
    )
    if check and done.returncode != 0:
        status = str(done.returncode)
        if done.returncode < 0:
            status = signal.Signals(-done.returncode).name
        raise AssertionError(
            f"{Path(command[0]).name} ended with {status}\n"
            f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        )
    return done


def run_python(
    code: str,
    *args: str,
    timeout: float = 180,
    env: MappingType[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter of its own, `args` in its `sys.argv[1:]`.

    The child can import `support`.  With `check` its exit status must be 0.
    """
    if machine().is_foreign:
        _skip(f"there is no Python of {machine().name} here")
    path = os.pathsep.join(filter(None, [str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH")]))
    return run(
        # -u: os._exit does not lose what was printed.
        [sys.executable, "-u", "-X", "faulthandler", "-c", code, *args],
        timeout=timeout,
        env={"PYTHONPATH": path, **(env or {})},
        check=check,
    )


def libdlopen() -> Path:
    """The installed libdlopen.so, or the one that the environment variable LIBDLOPEN names."""
    chosen = os.environ.get("LIBDLOPEN")
    if chosen:
        return Path(chosen).resolve()
    return Path(str(importlib.resources.files("dlopen") / "_lib" / "libdlopen.so")).resolve()


def machine_library(soname: str) -> Path | None:
    """Where programs of the machine that is tested find that library of the system."""
    import dlopen  # noqa: PLC0415  (not in children)

    if machine().is_foreign:
        return next(iter(sorted(machine().sysroot.rglob(soname))), None)
    path = dlopen.find(soname).path
    return Path(path) if path else None


@dataclass(frozen=True)
class Mapping:
    """One line of /proc/PID/maps; see proc(5)."""

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    path: str


def maps(pid: int | str = "self") -> list[Mapping]:
    """The mappings of a process, in address order."""
    found: list[Mapping] = []
    for line in Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines():
        range_, permissions, offset, device, inode, *path = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in range_.split("-"))
        mapping = Mapping(
            start, end, permissions, int(offset, 16), device, int(inode), "".join(path)
        )
        if found and machine().emulator and _continues(found[-1], mapping):
            found[-1] = replace(found[-1], end=end)
        else:
            found.append(mapping)
    return found


def _continues(one: Mapping, other: Mapping) -> bool:
    """Two that are one to a kernel: an emulator leaves apart what it was once told apart."""
    inside = one.end - one.start if one.inode else 0
    return other == replace(one, start=one.end, end=other.end, offset=one.offset + inside)
