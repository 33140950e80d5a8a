"""The files that are mapped for a name are the ones that glibc maps.

Libraries without code are enough here: each is a copy of one template whose DT_NEEDED, DT_SONAME,
DT_RPATH and DT_RUNPATH are written over, which makes a tree of them in a millisecond.  The program
that opens them is such a copy of the driver.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from differential.compare import Dump, run_driver
from differential.report import DRIVER
from support import elf64
from support.elf64 import Elf
from support.fixtures import compile_library, compile_program, make_secure
from support.machines import machine

# An unused number of the OS-specific range: both linkers must ignore it.
_IGNORED = 0x60000B0B
_NODEFLIB = 0x800
# Slot name -> length of the longest string that it holds.
_SLOTS = {"needed0": 400, "needed1": 400, "needed2": 400, "rpath": 1500, "runpath": 1500, "flag": 8}
TREES = 100 if machine().is_foreign else 500


@dataclass
class Template:
    """An ELF file whose dynamic entries can be chosen anew for each copy."""

    path: Path

    def __post_init__(self) -> None:
        elf = Elf(self.path)
        self._data = bytes(elf.data)
        dynamic = elf.segment(elf64.PT_DYNAMIC)
        assert dynamic is not None
        strings = elf.offset(elf.tags[elf64.DT_STRTAB])
        self._slots: dict[str, tuple[int, int]] = {}  # name -> (entry's, string's file offset)
        for index, (tag, value) in enumerate(elf.dynamic):
            if tag in (elf64.DT_NEEDED, elf64.DT_SONAME):
                name = elf.string(value).partition("_")[0]
                if name in (*_SLOTS, "soname"):
                    self._slots[name] = (dynamic.offset + 16 * index, strings + value)

    def write(
        self,
        path: Path,
        *,
        needed: list[str] | None = None,
        soname: str | None = None,
        rpath: str | None = None,
        runpath: str | None = None,
        nodeflib: bool = False,
        machine_number: int = machine().number,
        elf_class: int = 2,
    ) -> Path:
        data = bytearray(self._data)
        wanted: dict[str, tuple[int, str | None]] = {
            "soname": (elf64.DT_SONAME, soname),
            "rpath": (elf64.DT_RPATH, rpath),
            "runpath": (elf64.DT_RUNPATH, runpath),
        }
        for index in range(3):
            name = needed[index] if needed and index < len(needed) else None
            wanted[f"needed{index}"] = (elf64.DT_NEEDED, name)
        for slot, (entry, string) in self._slots.items():
            tag, text = wanted.get(slot, (_IGNORED, None))
            if slot == "flag" and nodeflib:
                struct.pack_into("<QQ", data, entry, elf64.DT_FLAGS_1, _NODEFLIB)
            elif text is None:
                struct.pack_into("<Q", data, entry, _IGNORED)
            else:
                encoded = text.encode() + b"\0"
                assert len(encoded) <= _SLOTS.get(slot, 400)
                struct.pack_into("<Q", data, entry, tag)
                data[string : string + len(encoded)] = encoded
        data[4] = elf_class
        struct.pack_into("<H", data, 18, machine_number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link
        path.write_bytes(data)
        return path


@dataclass(frozen=True)
class Templates:
    library: Template
    program: Template


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    directory = tmp_path_factory.mktemp("templates")
    dummies = [
        compile_library(
            directory, f"lib{slot}.so", "", soname=f"{slot}_{'x' * size}", flags=["-nostdlib"]
        )
        for slot, size in _SLOTS.items()
    ]
    flags = ["-nostdlib", "-Wl,--no-as-needed,--build-id=none", "-Wl,-z,noseparate-code"]
    library = compile_library(
        directory,
        "template.so",
        "",
        soname="soname_" + "x" * 400,
        flags=flags,
        libraries=dummies,
        rpath="",
    )
    program = compile_program(
        directory, "template", DRIVER, flags=["-Wl,--no-as-needed"], libraries=dummies, rpath=""
    )
    return Templates(Template(library), Template(program))


@dataclass
class Case:
    """A tree of files, and what is opened in it."""

    root: Path
    templates: Templates
    opened: list[str] = field(default_factory=list)
    library_path: str | None = None

    def library(self, path: str, *needed: str, **entries: str | bool) -> Path:
        file = self.root / path
        entries.setdefault("soname", file.name)
        return self.templates.library.write(file, needed=[*needed], **entries)  # type: ignore[arg-type]

    def program(self, *needed: str, **entries: str) -> Path:
        program = self.templates.program.write(
            self.root / "program",
            needed=[*needed],
            **entries,  # type: ignore[arg-type]
        )
        program.chmod(0o755)
        return program

    def run(self, loader: str) -> tuple[list[str], list[int], set[str]]:
        """(new images in load order, indices of opens that failed, files mapped)."""
        env = {} if self.library_path is None else {"LD_LIBRARY_PATH": self.library_path}
        dump = run_driver(self.root / "program", loader, *self.opened, cwd=self.root, env=env)
        return self.seen(dump)

    def seen(self, dump: Dump) -> tuple[list[str], list[int], set[str]]:
        prefix = f"{self.root}/"
        images = [image.path for image in dump.images if image.is_new]
        mapped = {path for line in dump.maps if (path := line[73:]).startswith(prefix)}
        assert {image for image in images if image.startswith(prefix)} <= mapped
        # Where it said, before opening, that each would come from; one file may have two names.
        for index in dump.found.keys() & dump.opened.keys():
            found, opened = dump.found[index], dump.opened[index]
            assert Path(found).samefile(opened), (self.opened[index], found, opened)
        shorten = str.removeprefix
        return (
            [shorten(image, prefix) for image in images],
            sorted(dump.errors),
            {shorten(path, prefix) for path in mapped} - {"program"},
        )

    def check(self, libdlopen: Path, expected: list[str] | None) -> None:
        """Open under both linkers; `expected` is what ld.so(8) says, None for a failure."""
        glibc = self.run(f"glibc:{libdlopen}")
        ours = self.run(str(libdlopen))
        assert glibc == ours, f"{glibc} under glibc, {ours} here: (images, failures, mapped)"
        images, failures, _ = glibc
        assert (None if failures else images) == expected, "the test expects what glibc does not do"


@pytest.fixture
def case(tmp_path: Path, templates: Templates) -> Case:
    made = Case(tmp_path, templates)
    made.program()
    return made


def test_rpath_of_the_library_that_needs(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", "libb.so", rpath=f"{case.root}/x:{case.root}/y")
    case.library("y/libb.so")
    case.opened = ["./liba.so"]
    case.check(libdlopen, ["liba.so", "y/libb.so"])


def test_rpath_is_inherited(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", "libb.so", rpath=f"{case.root}/y")
    case.library("y/libb.so", "libc1.so")
    case.library("y/libc1.so")
    case.opened = ["./liba.so"]
    case.check(libdlopen, ["liba.so", "y/libb.so", "y/libc1.so"])


def test_rpath_of_the_program_is_inherited(case: Case, libdlopen: Path) -> None:
    case.program(rpath="$ORIGIN/y")
    case.library("liba.so", "libb.so")
    case.library("y/libb.so")
    case.opened = ["./liba.so"]
    case.check(libdlopen, ["liba.so", "y/libb.so"])


def test_rpath_of_the_nearest_is_searched_first(case: Case, libdlopen: Path) -> None:
    case.program(rpath="$ORIGIN/z")
    case.library("liba.so", "libb.so", rpath="$ORIGIN/y")
    case.library("y/libb.so")
    case.library("z/libb.so")
    case.opened = ["./liba.so"]
    case.check(libdlopen, ["liba.so", "y/libb.so"])


def test_runpath_is_not_inherited(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", "libb.so", runpath=f"{case.root}/y")
    case.library("y/libb.so", "libc1.so")
    case.library("y/libc1.so")
    case.opened = ["./liba.so"]
    case.check(libdlopen, None)


def test_runpath_hides_rpath_of_the_same_library(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", "libb.so", rpath="$ORIGIN/x", runpath="$ORIGIN/y")
    case.library("x/libb.so")
    case.library("y/libb.so")
    case.opened = ["./liba.so"]
    case.check(libdlopen, ["liba.so", "y/libb.so"])


def test_runpath_hides_rpath_of_those_that_loaded_it(case: Case, libdlopen: Path) -> None:
    case.program(rpath="$ORIGIN/x")
    case.library("liba.so", "libb.so", runpath="$ORIGIN/y")
    case.library("x/libb.so")
    case.opened = ["./liba.so"]
    case.check(libdlopen, None)


def test_library_path_is_between_rpath_and_runpath(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", "libb.so", "libc1.so", rpath="$ORIGIN/x")
    case.library("libd.so", "libe.so", runpath="$ORIGIN/x")
    for name in ("libb.so", "libe.so"):
        case.library(f"x/{name}")
        case.library(f"env/{name}")
    case.library("env/libc1.so")
    case.library_path = f"{case.root}/env"
    case.opened = ["./liba.so", "./libd.so"]
    case.check(libdlopen, ["liba.so", "x/libb.so", "env/libc1.so", "libd.so", "env/libe.so"])


def test_library_path_separators_and_relative_and_empty_entries(
    case: Case, libdlopen: Path
) -> None:
    case.library("liba.so", "libb.so", "libc1.so")
    case.library("x/libb.so")
    case.library("y/libc1.so")
    case.library_path = f"/nonexistent;x::{case.root}/y/:"
    case.opened = ["liba.so"]
    case.check(libdlopen, ["liba.so", "x/libb.so", "y/libc1.so"])


@pytest.mark.parametrize("spelling", ["$ORIGIN", "${ORIGIN}"])
def test_origin(case: Case, libdlopen: Path, spelling: str) -> None:
    case.library("x/liba.so", "libb.so", runpath=f"{spelling}/../y/")
    case.library("y/libb.so")
    case.opened = ["x/liba.so"]
    case.check(libdlopen, ["x/liba.so", "y/libb.so"])


def test_origin_of_a_link_is_the_links_folder(case: Case, libdlopen: Path) -> None:
    case.library("real/liba.so", "libb.so", runpath="$ORIGIN")
    case.library("real/libb.so")
    (case.root / "link").mkdir()
    (case.root / "link/liba.so").symlink_to("../real/liba.so")
    case.library("link/libb.so")
    case.opened = ["link/liba.so"]
    case.check(libdlopen, ["real/liba.so", "link/libb.so"])


@pytest.mark.only_on("x86_64", "aarch64", reason="has no name of a platform, or another")
def test_lib_and_platform(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", "libb.so", "libc1.so", runpath="$ORIGIN/$LIB:$ORIGIN/${PLATFORM}/p")
    for folder in ("lib", "lib64", f"lib/{machine().triplet}"):
        case.library(f"{folder}/libb.so")
    for folder in (machine().name, "haswell", "xeon_phi"):
        case.library(f"{folder}/p/libc1.so")
    case.opened = ["./liba.so"]
    images, failures, _ = case.run(f"glibc:{libdlopen}")
    assert (len(images), failures) == (3, [])
    assert case.run(str(libdlopen))[0] == images


def test_origin_in_an_opened_name(case: Case, libdlopen: Path) -> None:
    case.library("x/liba.so")
    case.opened = ["$ORIGIN/x/liba.so"]
    case.check(libdlopen, ["x/liba.so"])


def test_needed_with_a_slash_is_a_path(case: Case, libdlopen: Path) -> None:
    case.library("x/liba.so", "./y/libb.so", "$ORIGIN/libc1.so", rpath="$ORIGIN")
    case.library("y/libb.so")
    case.library("x/y/libb.so")
    case.library("x/libc1.so")
    case.opened = ["x/liba.so"]
    case.check(libdlopen, ["x/liba.so", "y/libb.so", "x/libc1.so"])


def test_breadth_first(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", "libb.so", "libc1.so", rpath="$ORIGIN")
    case.library("libb.so", "libd.so")
    case.library("libc1.so", "libb.so", "libe.so")
    case.library("libd.so", "liba.so")
    case.library("libe.so")
    case.opened = ["./liba.so"]
    case.check(libdlopen, ["liba.so", "libb.so", "libc1.so", "libd.so", "libe.so"])


def test_a_soname_that_is_loaded_is_not_searched(case: Case, libdlopen: Path) -> None:
    case.library("x/libreal.so", soname="libb.so")
    case.library("y/libb.so")
    case.library("liba.so", "libb.so", rpath="$ORIGIN/y")
    case.opened = ["x/libreal.so", "./liba.so"]
    case.check(libdlopen, ["x/libreal.so", "liba.so"])


def test_the_soname_of_a_new_file_is_not_compared(case: Case, libdlopen: Path) -> None:
    case.library("x/libb.so", soname="libb.so")
    case.library("y/libb.so", soname="libb.so")
    case.opened = ["x/libb.so", "y/libb.so"]
    case.check(libdlopen, ["x/libb.so", "y/libb.so"])


def test_one_file_by_two_names_is_one_image(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", soname="libother.so")
    (case.root / "libsymbolic.so").symlink_to("liba.so")
    (case.root / "libhard.so").hardlink_to(case.root / "liba.so")
    case.opened = ["./liba.so", "./libsymbolic.so", "./libhard.so", f"{case.root}//liba.so"]
    images, failures, mapped = case.run(f"glibc:{libdlopen}")
    assert (images, failures) == (["liba.so"], [])
    assert case.run(str(libdlopen)) == (images, failures, mapped)


@pytest.mark.parametrize("count", [3, 40])
def test_a_name_by_which_a_file_was_found_again_is_not_searched(
    case: Case, libdlopen: Path, count: int
) -> None:
    # There is a table of their names where an open loads many.
    chain = [f"libm{number}.so" for number in range(count)]
    case.library("liba.so", chain[0], rpath="$ORIGIN/x")
    for name, needed in pairwise(chain):
        case.library(f"x/{name}", needed)
    case.library(f"x/{chain[-1]}", "libb.so", "libc1.so")
    case.library("y/libb.so", "libother.so", runpath="$ORIGIN/nowhere")
    (case.root / "y/libother.so").symlink_to(f"../x/{chain[0]}")
    case.library("x/libc1.so", "libother.so")
    case.library("x/libother.so")
    case.library_path = f"{case.root}/y"
    case.opened = ["./liba.so"]
    loaded = [f"x/{name}" for name in chain]
    case.check(libdlopen, ["liba.so", *loaded, "y/libb.so", "x/libc1.so"])


def test_a_library_of_the_program_is_known_by_name_soname_and_file(
    case: Case, libdlopen: Path
) -> None:
    case.library("x/libb.so", soname="libreal.so")
    (case.root / "libhard.so").hardlink_to(case.root / "x/libb.so")
    for name in ("libreal.so", "libb.so"):
        case.library(f"y/{name}")
    case.program("$ORIGIN/x/libb.so", rpath="$ORIGIN/y")
    case.library("liba.so", "libreal.so", "libb.so", f"{case.root}/libhard.so")
    case.opened = ["./liba.so", "libreal.so", f"{case.root}/x/libb.so"]
    # Found by its soname and by inode, but not by the name of its file.
    case.check(libdlopen, ["liba.so", "y/libb.so"])


@pytest.mark.parametrize("wrong", [{"machine_number": 3}, {"elf_class": 1}])
def test_a_file_for_another_machine_is_passed_over(
    case: Case, libdlopen: Path, wrong: dict[str, int]
) -> None:
    case.templates.library.write(case.root / "x/libb.so", **wrong)  # type: ignore[arg-type]
    case.library("y/libb.so")
    case.library("liba.so", "libb.so", runpath="$ORIGIN/x:$ORIGIN/y")
    case.opened = ["./liba.so"]
    case.check(libdlopen, ["liba.so", "y/libb.so"])


def test_a_text_file_ends_the_search(case: Case, libdlopen: Path) -> None:
    (case.root / "x").mkdir()
    (case.root / "x/libb.so").write_text("GROUP ( libreal.so )\n" * 10)
    case.library("y/libb.so")
    case.library("liba.so", "libb.so", runpath="$ORIGIN/x:$ORIGIN/y")
    case.opened = ["./liba.so"]
    case.check(libdlopen, None)


def test_a_folder_of_the_name_ends_the_search(case: Case, libdlopen: Path) -> None:
    (case.root / "x/libb.so").mkdir(parents=True)
    case.library("y/libb.so")
    case.library("liba.so", "libb.so", runpath="$ORIGIN/x:$ORIGIN/y")
    case.opened = ["./liba.so"]
    case.check(libdlopen, None)


def test_a_dangling_link_is_passed_over(case: Case, libdlopen: Path) -> None:
    (case.root / "x").mkdir()
    (case.root / "x/libb.so").symlink_to("nowhere")
    case.library("y/libb.so")
    case.library("liba.so", "libb.so", runpath="$ORIGIN/x:$ORIGIN/y")
    case.opened = ["./liba.so"]
    case.check(libdlopen, ["liba.so", "y/libb.so"])


def test_hwcaps_folders_before_the_folder_itself(case: Case, libdlopen: Path) -> None:
    case.library("liba.so", "libb.so", "libc1.so", "libd.so", runpath="$ORIGIN/y")
    for level in ("", "glibc-hwcaps/x86-64-v2/", "glibc-hwcaps/x86-64-v99/"):
        case.library(f"y/{level}libb.so")
    case.library("y/libc1.so")
    for number in range(1, 5):
        case.library(f"y/glibc-hwcaps/x86-64-v{number}/libc1.so")
    name = machine().name
    for folder in ("tls", name, f"tls/{name}", "haswell", f"haswell/avx512_1/{name}", "atomics"):
        case.library(f"y/{folder}/libd.so")
    case.library("y/libd.so")
    case.opened = ["./liba.so"]
    images, failures, _ = case.run(f"glibc:{libdlopen}")
    assert (len(images), failures) == (4, [])
    assert case.run(str(libdlopen))[0] == images


@pytest.mark.only_on("x86_64", reason="a list of libraries by ldconfig is this system's")
def test_nodeflib_keeps_out_of_the_default_folders(case: Case, libdlopen: Path) -> None:
    listing = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    usable = [
        line.partition(" => ")
        for line in listing.stdout.splitlines()
        if "x86-64" in line and "libc.so.6" not in line
    ]
    name = next(
        entry.split()[0]
        for entry, _, path in usable
        if os.path.realpath(path).startswith("/usr/lib/")
        and Elf(Path(path)).segment(elf64.PT_TLS) is None
        and not Elf(Path(path)).needs_private_libc
        and set(Elf(Path(path)).needed) <= {"libc.so.6"}  # no family that stays the host's
    )
    for flag in (False, True):
        case.library("liba.so", name, nodeflib=flag)
        case.opened = ["./liba.so"]
        glibc = case.run(f"glibc:{libdlopen}")
        assert glibc[1] == ([0] if flag else [])
        assert case.run(str(libdlopen)) == glibc


@pytest.mark.emulated(reason="in an emulator no program is secure")
def test_library_path_counts_for_nothing_in_secure_execution(
    tmp_path_factory: pytest.TempPathFactory, templates: Templates, libdlopen: Path
) -> None:
    case = Case(tmp_path_factory.mktemp("secure"), templates)
    program = case.program()
    make_secure(program)
    case.library("y/libb.so")
    case.library("liba.so", "libb.so")
    case.library_path = f"{case.root}/y"
    case.opened = [f"{case.root}/liba.so"]
    glibc = case.run(f"glibc:{libdlopen}")
    assert glibc[1] == [0], "not secure: is the file system mounted nosuid?"
    assert case.run(str(libdlopen)) == glibc


_NAMES = ("libp.so", "libq.so.1", "libr.so", "libs.so", "libt.so", "libz.so.1")
_FOLDERS = ("a", "b", "a/c", f"lib/{machine().triplet}", machine().name, "haswell", ".")
_OTHER_MACHINES = [number for number in (3, 62, 183, 243) if number != machine().number]
_LEVELS = (
    *(f"glibc-hwcaps/x86-64-v{level}" for level in (2, 3, 4)),
    "tls", machine().name, "haswell", "avx512_1", "tls/haswell",
    f"tls/haswell/avx512_1/{machine().name}", f"haswell/{machine().name}", f"tls/{machine().name}",
    "haswell/avx512_1", f"avx512_1/{machine().name}", "atomics", f"tls/{machine().name}/atomics",
)  # fmt: skip


def _path_list(rng: random.Random, root: Path, separators: str = ":") -> str:
    def element() -> str:
        folder = rng.choice(_FOLDERS)
        return rng.choice(
            (
                f"{root}/{folder}",
                f"{root}/{folder}/",
                f"$ORIGIN/{folder}",
                f"${{ORIGIN}}/../{folder}",
                "$ORIGIN",
                folder,
                f"./{folder}//",
                f"{root}/$LIB",
                f"{root}/${{PLATFORM}}",
                f"{root}/a/../{folder}",
                f"{root}/nonexistent",
                "$ORIGINAL",
                "",
            )
        )

    text = element()
    for _ in range(rng.randrange(4)):
        text += rng.choice(separators) + element()
    return text


def _name_or_path(rng: random.Random, root: Path, by_path: float) -> str:
    name = rng.choice(_NAMES)
    if rng.random() >= by_path:
        return name
    folder = rng.choice(_FOLDERS)
    return rng.choice((f"{root}/{folder}/{name}", f"./{folder}/{name}", f"$ORIGIN/{folder}/{name}"))


def _maybe(rng: random.Random, probability: float, text: str) -> str | None:
    return text if rng.random() < probability else None


def grow(root: Path, templates: Templates, seed: int) -> Case:
    """A random tree, the same for the same seed and root."""
    rng = random.Random(seed)
    case = Case(root, templates)
    write = templates.library.write
    files: list[Path] = []
    for _ in range(rng.randrange(10, 26)):
        folder = root / rng.choice(_FOLDERS)
        if rng.random() < 0.3:
            folder /= rng.choice(_LEVELS)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / rng.choice(_NAMES)
        if os.path.lexists(file):
            continue
        kind = rng.random()
        if kind < 0.10 and files:
            file.symlink_to(os.path.relpath(rng.choice(files), folder))
        elif kind < 0.15 and files:
            file.hardlink_to(rng.choice(files))
        elif kind < 0.18:
            write(file, machine_number=rng.choice(_OTHER_MACHINES))
        elif kind < 0.21:
            write(file, elf_class=1)
        elif kind < 0.23:
            file.write_text("INPUT ( libreal.so )\n")
        elif kind < 0.24:
            file.touch()
        elif kind < 0.25:
            file.mkdir()
        elif kind < 0.27:
            file.symlink_to("nowhere")
        elif kind < 0.29:
            write(file).chmod(0)
        else:
            write(
                file,
                needed=[
                    _name_or_path(rng, root, 0.15) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))
                ],
                soname=rng.choice((file.name, file.name, rng.choice(_NAMES), None)),
                rpath=_maybe(rng, 0.35, _path_list(rng, root)),
                runpath=_maybe(rng, 0.35, _path_list(rng, root)),
                nodeflib=rng.random() < 0.1,
            )
            files.append(file)
    case.program(
        # What the program itself needs is the host's, and known by name, soname and inode.
        *([str(rng.choice(files))] if files and rng.random() < 0.3 else []),
        **{
            name: value
            for name, probability in (("rpath", 0.4), ("runpath", 0.3))
            if (value := _maybe(rng, probability, _path_list(rng, root)))
        },
    )
    case.library_path = _maybe(rng, 0.6, _path_list(rng, root, ":;"))
    for _ in range(rng.randrange(1, 5)):
        if rng.random() < 0.5:
            case.opened.append(_name_or_path(rng, root, 0.0))
        else:
            case.opened.append(f"./{rng.choice(files).relative_to(root)}" if files else "libp.so")
    return case


def describe(case: Case, seed: int) -> str:
    tree = subprocess.run(["ls", "-lR", case.root], capture_output=True, text=True, check=False)
    lines = [f"seed {seed}", f"LD_LIBRARY_PATH={case.library_path}", f"opened {case.opened}"]
    for file in sorted(case.root.rglob("*")):
        if file.is_file() and os.access(file, os.R_OK) and file.stat().st_size > 1000:
            with contextlib.suppress(ValueError):
                elf = Elf(file)
                tags = {
                    name: elf.string(elf.tags[tag])
                    for name, tag in (("rpath", elf64.DT_RPATH), ("runpath", elf64.DT_RUNPATH))
                    if tag in elf.tags
                }
                lines.append(
                    f"{file.relative_to(case.root)} soname {elf.soname} needed {elf.needed} {tags}"
                )
    return "\n".join([*lines, tree.stdout])


def test_generated_trees(tmp_path: Path, templates: Templates, libdlopen: Path) -> None:
    met: Counter[str] = Counter()
    wrong = []
    for seed in range(TREES):
        case = grow(tmp_path / str(seed), templates, seed)
        glibc = case.run(f"glibc:{libdlopen}")
        ours = case.run(str(libdlopen))
        if glibc != ours:
            wrong.append(f"glibc {glibc}\nhere  {ours}\n{describe(case, seed)}")
        images, failures, mapped = glibc
        met["opens"] += len(case.opened) - len(failures)
        met["failures"] += len(failures)
        met["images"] += len(images)
        met["hwcaps"] += sum("glibc-hwcaps/" in path for path in mapped)
        met["legacy folders"] += sum("tls/" in path or "avx512" in path for path in mapped)
        met["of the system"] += sum(path.startswith("/") for path in images)
        shutil.rmtree(case.root)
    assert not wrong, f"{len(wrong)} of {TREES} trees differ; the first:\n{wrong[0]}"
    # What the trees are made of was really met.
    assert min(met.values()) > TREES // 40, met
