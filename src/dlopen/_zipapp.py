"""`dlopen zipapp`: one file with an application, its extension modules and dlopen itself.

All that goes into the archive is put together in a folder first: what pip installs, then SOURCE
over it, then dlopen below `_dlopen`, whose `__init__` is `_zipapp_start`.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path

from dlopen import _linker
from dlopen._zip_writer import (
    TooLargeError,
    Writer,
    can_be_mapped,
    date_of_members,
    library_machine,
)
from dlopen.image import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.metadata import EntryPoint
    from importlib.resources.abc import Traversable
    from typing import BinaryIO, NoReturn

_INSIDE = "_dlopen"  # the folder of the archive for what is not the application's
_OURS = frozenset(
    ("dlopen", "dlopen.py", _INSIDE, f"{_INSIDE}.py")
)  # names that SOURCE cannot have
_OLDEST = 11  # the minor version of Python that dlopen needs
# Its text has to be understood by every Python there is; `dlopen zipapp --info` reads SETTINGS.
_MAIN = """\
# Made by dlopen zipapp.
import sys

SETTINGS = {settings!r}
if sys.version_info[:2] {wrong} (3, {minor}):
    found = (sys.argv[0],) + sys.version_info[:2]
    sys.exit("%s: made for CPython {python}, and this is %d.%d" % found)
from _dlopen import start

start(globals(), SETTINGS)
"""
_SETTINGS = re.compile(r"^SETTINGS = (.*)$", re.MULTILINE)
# What finds a file by the place of a module.
_BESIDE = re.compile(rb"\b(?:Path|dirname|abspath|realpath|split|join)\s*\(\s*__file__")
_NOT_USED = re.compile(r"(?:^|/)(?:tests?|testing|conftest\.py|setup\.py|_dlopen)(?:/|$)")
_BOUND_NAME = re.compile(r"\.cpython-3\d+\w*-")
# A tag of a wheel, as pip takes it: what follows is the machine, by uname(1)'s name.
_PLATFORM = re.compile(r"(?:manylinux(?:\d+|_\d+_\d+)|linux)_(.+)")
_BOUND_TAG = re.compile(r"^Tag: [^-]+-cp3\d+", re.MULTILINE)
_COMPILED_AT_ONCE = 64  # files; the same on all systems: the bytes may depend on it


class PackError(ValueError):
    """It cannot be packed, for the reason that it says."""


@dataclass
class Wanted:
    """What the command line asks for."""

    source: Path | None
    output: Path
    python: str = "/usr/bin/env python3"
    main: str | None = None
    script: str | None = None
    requirements: Sequence[str] = ()
    compress: bool = False
    platforms: Sequence[str] = ()
    python_version: str | None = None
    dlopen_wheel: Path | None = None
    machine: str = field(init=False)  # by uname(1)'s name
    minor: int = field(init=False)

    def __post_init__(self) -> None:
        try:
            date_of_members()
        except ValueError as error:
            raise PackError(str(error)) from None
        if self.source is None and not self.requirements:
            raise PackError("what shall be in it? SOURCE or --requirement")
        if not self.python.isprintable():
            raise PackError("--python: it is one line")
        given = self.python_version or f"3.{sys.version_info.minor}"
        version = re.fullmatch(r"3\.?(\d+)(?:\.\d+)?", given)
        if not version or int(version[1]) < _OLDEST:
            raise PackError(f"--python-version {given}: dlopen needs CPython 3.{_OLDEST} or newer")
        self.minor = int(version[1])
        own = os.uname().machine
        machines = {found[1] if (found := _PLATFORM.match(one)) else "" for one in self.platforms}
        if len(machines) > 1 or "" in machines:
            raise PackError(f"--platform {' '.join(self.platforms)}: which machine?")
        self.machine = machines.pop() if machines else own
        if self.machine != own and self.dlopen_wheel is None:
            raise PackError(f"--dlopen-wheel: where is the wheel of dlopen for {self.machine}?")
        if self.dlopen_wheel and not self.dlopen_wheel.name.endswith(f"_{self.machine}.whl"):
            raise PackError(f"{self.dlopen_wheel} is not for {self.machine}")


@dataclass
class Inside:
    """The dlopen that is in the archive; its `libdlopen.so` says what its machine is like."""

    version: str
    machine: int  # e_machine
    page: int  # the largest that it may have


class Progress:
    """A bar on standard error, where that is a terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._last = ""

    def show(self, what: str, done: int, total: int) -> None:
        """So many are done of so many."""
        full = 30 * done // max(total, 1)
        line = f"\r{what:12} [{'#' * full}{'.' * (30 - full)}]\x1b[K"
        if self._is_shown and line != self._last:
            self._last = line
            print(line, end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing is left of it."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def pack(wanted: Wanted) -> list[str]:
    """Write the archive, in the place of one that is there only when complete.

    Returns the warnings.
    """
    output = Path(os.path.realpath(wanted.output))  # of a link, where it leads
    new = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        if output.exists() and not output.is_file():
            raise PackError(f"--output {wanted.output}: it is there, and no file")
        try:
            stream = new.open("xb")
        except OSError as error:
            raise PackError(f"--output {wanted.output}: {error.strerror}") from None
        with stream, tempfile.TemporaryDirectory(prefix="dlopen-zipapp-") as folder:
            warnings = _pack_into(stream, wanted, Path(folder))
        if wanted.python:
            new.chmod(0o777 & ~_umask())
        new.replace(output)
    finally:
        new.unlink(missing_ok=True)
    return warnings


def _pack_into(stream: BinaryIO, wanted: Wanted, folder: Path) -> list[str]:
    """Put all of it together in the folder, and then into the archive."""
    progress = Progress()
    try:
        progress.show("installing", 0, 1)
        if wanted.requirements:
            _install(wanted, folder)
            shutil.rmtree(folder / "dlopen", ignore_errors=True)  # ours is put below _dlopen
        if wanted.source is not None:
            _copy(wanted.source, folder, {Path(os.path.realpath(wanted.output)), Path(stream.name)})
        inside = _put_dlopen(wanted, folder / _INSIDE)
        settings = {"dlopen": inside.version, "machine": wanted.machine, **_entry(wanted, folder)}
        (folder / "__main__.py").write_text(_main_text(settings, wanted, folder))
        return [
            *_compile(wanted, folder, progress),
            *_write(stream, wanted, inside, folder, progress),
        ]
    finally:
        progress.end()


def _install(wanted: Wanted, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--target", str(folder), "--no-compile"]
    pip += ["--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
    for path in wanted.requirements:
        pip += ["--requirement", path]
    for platform in wanted.platforms:
        pip += ["--platform", platform]
    if wanted.python_version:
        pip += ["--python-version", f"3.{wanted.minor}"]
    if wanted.platforms or wanted.python_version:
        pip += ["--only-binary", ":all:", "--implementation", "cp"]
    if subprocess.run(pip, check=False, stdout=sys.stderr).returncode != 0:
        raise PackError("pip has not installed the requirements")
    # Scripts, which hold the path of this Python; and what is said of them.
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for record in folder.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not line.startswith("../")))


def _copy(source: Path, folder: Path, archives: set[Path]) -> None:
    """All of SOURCE, but what Python has cached there, the archive, and the one of before.

    Links are followed: what they lead to is packed.
    """
    if not source.is_dir():
        raise PackError(f"{source} is not a folder")
    for where, folders, names in os.walk(source, onerror=_stop, followlinks=True):
        place = Path(where)
        inside = place.relative_to(source)
        if any(place.samefile(source / outer) for outer in inside.parents if place != source):
            raise PackError(f"{place} leads to a folder that it is in")
        folders[:] = [name for name in folders if name != "__pycache__"]
        if place == source and (ours := _OURS & {*folders, *names}):
            raise PackError(f"{source}/{min(ours)}: the archive has that of dlopen itself")
        (folder / inside).mkdir(exist_ok=True)
        for path in (place / name for name in names):
            if not path.is_file():
                raise PackError(f"{path} {'is no file' if path.exists() else 'leads nowhere'}")
            if path.resolve() in archives:
                continue
            name = (inside / path.name).as_posix()
            try:
                name.encode()
            except UnicodeEncodeError:  # bytes that are not UTF-8
                raise PackError(f"{source}: {name!r} is no name for a member") from None
            shutil.copy(path, folder / inside / path.name)


def _stop(error: OSError) -> NoReturn:
    raise error


def _put_dlopen(wanted: Wanted, folder: Path) -> Inside:
    """Put dlopen there, the one that is installed or that of a wheel."""
    (folder / "dlopen").mkdir(parents=True)
    version, package = _linker.VERSION, files("dlopen")
    extension: Traversable = Path(_linker.__file__)
    if wanted.dlopen_wheel is not None:
        if not zipfile.is_zipfile(wanted.dlopen_wheel):
            raise PackError(f"{wanted.dlopen_wheel} is no wheel")
        version = wanted.dlopen_wheel.name.split("-")[1]
        package = zipfile.Path(str(wanted.dlopen_wheel)) / "dlopen"
        extension = package / "_linker.abi3.so"
    for module in package.iterdir():
        if module.name.endswith(".py"):
            (folder / "dlopen" / module.name).write_bytes(module.read_bytes())
    start = folder / "dlopen" / "_zipapp_start.py"
    if not start.exists():
        raise PackError(f"{wanted.dlopen_wheel}: dlopen {version} knows no zipapp")
    start.rename(folder / "__init__.py")
    (folder / "_linker.so").write_bytes(extension.read_bytes())
    data = (package / "_lib" / "libdlopen.so").read_bytes()
    (folder / "libdlopen.so").write_bytes(data)
    machine = library_machine(data)
    assert machine is not None
    return Inside(version, machine, _largest_page(data))


def _largest_page(libdlopen: bytes) -> int:
    """For such pages it was linked."""
    with Image.from_bytes(libdlopen, name="libdlopen.so") as image:
        return max(segment.align for segment in image.info.segments if segment.type == "LOAD")


def _entry(wanted: Wanted, folder: Path) -> dict[str, str]:
    """What runs: in SETTINGS."""
    own = folder / "__main__.py"
    if own.is_file():
        if wanted.main or wanted.script:
            raise PackError(f"{wanted.source} has a __main__.py: neither --main nor --script")
        (folder / _INSIDE / "main").mkdir()
        own.rename(folder / _INSIDE / "main" / "__main__.py")
        return {"entry": "", "kind": "main"}
    if wanted.script:
        scripts = {one.name: f"{one.module}:{one.attr}" for one in _scripts(folder)}
        if wanted.script not in scripts:
            known = ", ".join(sorted(scripts)) or "none"
            raise PackError(f"--script {wanted.script}: there are {known}")
        return {"entry": scripts[wanted.script], "kind": "script"}
    if wanted.main is None:
        raise PackError("what shall it run? --main, --script or a __main__.py in SOURCE")
    names = re.split(r"[.:]", wanted.main)
    if wanted.main.count(":") != 1 or not all(map(str.isidentifier, names)):
        raise PackError(f"--main {wanted.main}: not as MODULE:FUNCTION")
    return {"entry": wanted.main, "kind": "function"}


def _scripts(folder: Path) -> Iterator[EntryPoint]:
    for distribution in distributions(path=[str(folder)]):
        yield from distribution.entry_points.select(group="console_scripts")


def _main_text(settings: dict[str, str], wanted: Wanted, folder: Path) -> str:
    """The archive's `__main__.py`; modules of the C API of one version of Python need that one."""
    bound = any(_BOUND_NAME.search(path.name) for path in folder.rglob("*.so")) or any(
        _BOUND_TAG.search(path.read_text()) for path in folder.glob("*.dist-info/WHEEL")
    )
    minor = wanted.minor if bound else _OLDEST
    python = f"3.{minor}" if bound else f"3.{minor} or newer"
    wrong = "!=" if bound else "<"
    settings = {**settings, "python": python}
    return _MAIN.format(settings=settings, wrong=wrong, minor=minor, python=python)


def _compile(wanted: Wanted, folder: Path, progress: Progress) -> list[str]:
    """A .pyc beside each .py, where zipimport looks for it, which is never compared with that."""
    python = sys.executable
    if wanted.minor != sys.version_info.minor:
        found = shutil.which(f"python3.{wanted.minor}")
        if found is None:
            return [f"there is no python3.{wanted.minor} here: packed without .pyc files"]
        python = found
    command = [python, "-m", "compileall", "-qq", "-f", "-b", "-i", "-", "-s", str(folder)]
    command += ["--invalidation-mode", "unchecked-hash"]
    sources = [str(path) for path in _all_files(folder) if path.suffix == ".py"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}

    def compile_some(start: int) -> None:
        # What cannot be compiled (templates, tests of parsers) is none of ours.
        names = "\n".join(sources[start : start + _COMPILED_AT_ONCE])
        subprocess.run(command, input=names, text=True, check=False, env=environment)

    starts = range(0, len(sources), _COMPILED_AT_ONCE)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, _ in enumerate(pool.map(compile_some, starts)):
            progress.show("compiling", number * _COMPILED_AT_ONCE, len(sources))
    return []


def _all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write(
    stream: BinaryIO, wanted: Wanted, inside: Inside, folder: Path, progress: Progress
) -> list[str]:
    """Write the archive; return which packages look for files beside their modules."""
    beside: dict[str, list[str]] = {}
    paths = _all_files(folder)
    paths.sort(key=_is_library)  # the libraries last: the others are read together
    if wanted.python:
        stream.write(f"#!{wanted.python}\n".encode())
    try:
        with Writer(stream, inside.machine, inside.page, compress=wanted.compress) as writer:
            for name in _folders_to_import(folder, paths):
                writer.add(f"{name}/", b"")
            for number, path in enumerate(paths):
                progress.show("packing", number, len(paths))
                name, data = path.relative_to(folder).as_posix(), path.read_bytes()
                writer.add(name, data, executable=os.access(path, os.X_OK))
                if path.suffix == ".py" and _BESIDE.search(data) and not _NOT_USED.search(name):
                    beside.setdefault(name.partition("/")[0], []).append(name)
    except TooLargeError as error:
        message = f"{wanted.output} would need zip64, which zipimport cannot read: {error}"
        raise PackError(message) from None
    return [
        f"{top} looks for files beside its modules, where there are none: {names[0]}"
        + (f" and {len(names) - 1} more" if names[1:] else "")
        for top, names in sorted(beside.items())
    ]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _is_library(path: Path) -> bool:
    with path.open("rb") as file:
        return library_machine(file.read(64)) is not None


def _folders_to_import(folder: Path, paths: list[Path]) -> list[str]:
    """Packages without `__init__`: zipimport finds them by an entry of their own only."""
    found: set[Path] = set()
    for path in paths:
        if path.suffix in {".py", ".so"}:
            found.update(path.relative_to(folder).parents[:-1])
    return sorted(
        one.as_posix()
        for one in found
        if one.parts[0] != _INSIDE and not (folder / one / "__init__.py").exists()
    )


def describe(archive: Path) -> Iterator[tuple[str, str]]:
    """What `--info` prints: of any zip, and more of one that was made here."""
    if not zipfile.is_zipfile(archive):
        raise PackError(f"{archive} is no archive")
    with archive.open("rb") as stream, zipfile.ZipFile(stream) as opened:
        stream.seek(0)
        line = stream.readline()
        yield "interpreter", line[2:].decode().strip() if line.startswith(b"#!") else "<none>"
        members = opened.infolist()
        has_main = any(member.filename == "__main__.py" for member in members)
        if found := _SETTINGS.search(opened.read("__main__.py").decode() if has_main else ""):
            settings = ast.literal_eval(found[1])
            yield "entry", settings["entry"] or "__main__.py"
            yield from ((key, settings[key]) for key in ("python", "machine", "dlopen"))
        yield "members", f"{len(members)}, of {sum(one.file_size for one in members):,} bytes"
        libraries = []
        for member in members:
            with opened.open(member) as content:
                if library_machine(content.read(64)) is not None:
                    libraries.append(member)
        yield "libraries", f"{len(libraries)}, of {sum(one.file_size for one in libraries):,} bytes"
        if found:
            page = _largest_page(opened.read(f"{_INSIDE}/libdlopen.so"))
            mapped = sum(can_be_mapped(stream, member, page) for member in libraries)
            yield "mapped", f"{mapped} of them, with pages of up to {page} bytes"
    for distribution in distributions(path=[str(archive)]):
        yield "package", f"{distribution.name} {distribution.version}"
