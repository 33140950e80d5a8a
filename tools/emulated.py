"""Programs of another machine that are started by their names, as those of this one.

Each name is a small program of this machine that starts the emulator. It and the emulator are
static: what a process preloads, and its children with it, is for the programs of the other machine.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from debian_root import unpack_once
from machines import Machine
from test_glibc import step

# Of the glibc that a wheel of PyPI needs.
MANYLINUX = [f"manylinux_2_{minor}" for minor in range(41, 16, -1)]

SOURCE = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments)
{
  char *first[] = {EMULATOR, "-L", ROOT, "-0", arguments[0], PROGRAM};
  char *words[sizeof first / sizeof *first + count];
  memcpy(words, first, sizeof first);
  memcpy(words + sizeof first / sizeof *first, arguments + 1, count * sizeof *words);
  execv(EMULATOR, words);
  perror(EMULATOR);
  return 127;
}
"""


def static_emulator(machine: Machine) -> Path:
    """Debian 13's; that of Debian 12 needs libraries."""
    root = machine.folder.parent / "emulators"
    unpack_once(root, "amd64", "trixie", ["qemu-user"])
    return root / "usr" / "bin" / f"qemu-{machine.name}"


def put_command(path: Path, emulator: Path, root: Path, program: Path) -> None:
    """`path` starts the program, which finds its libraries and all else in the root first."""
    words = {"EMULATOR": emulator, "ROOT": root, "PROGRAM": program}
    subprocess.run(
        ["cc", "-O1", "-static", *(f'-D{name}="{word}"' for name, word in words.items()),
         "-x", "c", "-", "-o", str(path)],
        input=SOURCE, text=True, check=True,
    )  # fmt: skip


def put_commands(folder: Path, machine: Machine, root: Path, names: Iterable[str]) -> None:
    """The folder has these of the root's programs, and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    emulator = static_emulator(machine)
    for name in names:
        put_command(folder / name, emulator, root, root / "usr" / "bin" / name)


def put_projects(site: Path, machine: Machine, version: str, projects: Sequence[str]) -> None:
    """Wheels for the machine and this version of Python; one that nobody has made is left out."""
    platforms = [f"--platform={name}_{machine.name}" for name in ("linux", *MANYLINUX)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *platforms]
    for project in projects:
        done = subprocess.run(
            [*pip, f"--python-version={version}", "--upgrade", f"--target={site}", project],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            step(f"{project}: {done.stderr.strip().splitlines()[-1]}")


def put_python(folder: Path, machine: Machine, root: Path, projects: Sequence[str]) -> Path:
    """A virtual environment of the root's Python with these projects: the folder of `python`."""
    name = (root / "usr/bin/python3").readlink().name
    made, wanted = folder / "made", "\n".join([name, *projects])
    if made.exists() and made.read_text() == wanted:
        return folder / "bin"
    step(f"a virtual environment of {name} for {machine.name}")
    shutil.rmtree(folder, ignore_errors=True)
    site = folder / "lib" / name / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    for alias in ("python", "python3"):
        put_command(folder / "bin" / alias, static_emulator(machine), root, root / "usr/bin" / name)
    (folder / "pyvenv.cfg").write_text(
        f"home = {root / 'usr/bin'}\ninclude-system-site-packages = false\n"
    )
    put_projects(site, machine, name.removeprefix("python"), projects)
    made.write_text(wanted)
    return folder / "bin"
