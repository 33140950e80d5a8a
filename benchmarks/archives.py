"""Packages in archives: as downloaded, packed by us, and what other tools make of them."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import libraries
from libraries import MissingError

from packages.environments import OWN, PINNED, Environments, environments, pip_for

PROJECTS = {
    "numpy": ("numpy",),
    "pandas": ("pandas", "numpy", "python-dateutil", "tzdata"),
    "scipy": ("scipy", "numpy"),
}
# What is imported: scipy alone imports next to nothing.
MODULES = {"numpy": "numpy", "pandas": "pandas", "scipy": "scipy.stats"}
FOLDER = libraries.BUILD / "archives"
TOOLS = ("shiv==1.0.8", "pyinstaller==6.22.3")


@cache
def found() -> Environments:
    """Fetched once, for the interpreter that runs this."""
    there = environments(OWN)
    if there is None:
        raise MissingError(f"no python{OWN} with venv")
    return there


def wheels(name: str) -> list[Path]:
    """Of the package and all that it needs."""
    return found().archives(PROJECTS[name]) or []


def new(path: Path) -> bool:
    """Whether it has to be made: with this dlopen it has not been."""
    path.parent.mkdir(parents=True, exist_ok=True)
    package = found().site("alone") / "dlopen"
    newest = max(
        file.stat().st_mtime for file in package.rglob("*.*") if "__pycache__" not in file.parts
    )
    return not path.exists() or path.stat().st_mtime < newest


def run(words: Sequence[object]) -> None:
    """A tool that says much."""
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def installed(name: str) -> Path:
    """A folder where pip has installed the same, and nothing else that they would find."""
    folder = FOLDER / f"{name}.installed"
    if not folder.exists():
        pip = [*pip_for(found().python("alone")), "install", *PINNED, "--no-index"]
        run([*pip, "--target", folder, *wheels(name)])
    return folder


def packed(name: str, *words: str) -> Path:
    """One archive of them, as `dlopen zipapp` makes it; -c compresses all but libraries."""
    archive = FOLDER / f"{name}{''.join(words)}.pyz"
    if new(archive):
        found().pack(wheels(name), archive, *words, main=f"import {MODULES[name]}")
    return archive


def deflated(name: str) -> Path:
    """The same with all of it compressed, libraries too."""
    archive = FOLDER / f"{name}-deflated.pyz"
    if new(archive):
        with zipfile.ZipFile(packed(name)) as origin, zipfile.ZipFile(archive, "w") as target:
            for entry in origin.infolist():
                data = origin.read(entry)
                entry.extra = b""
                target.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return archive


@cache
def tools() -> Path:
    """An environment with shiv and PyInstaller, and the packages."""
    folder = FOLDER / "tools"
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        every = {wheel for name in PROJECTS for wheel in wheels(name)}
        run([found().python("alone"), "-m", "venv", folder])
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        run([*pip, *TOOLS, *sorted(every)])
        (folder / "made").touch()
    return folder / "bin"


def source(name: str) -> Path:
    """A folder with the application of one line."""
    folder = FOLDER / f"{name}.source"
    folder.mkdir(parents=True, exist_ok=True)
    text = f"def main():\n    import {MODULES[name]}\n\n\nif __name__ == '__main__':\n    main()\n"
    (folder / "application.py").write_text(text)
    return folder


def shiv(name: str) -> Path:
    """A zipapp that unpacks itself once, below SHIV_ROOT."""
    archive = FOLDER / f"{name}.shiv"
    if not archive.exists():
        words = ["--site-packages", source(name), "--no-deps", "--no-index", *wheels(name)]
        run([tools() / "shiv", "-o", archive, "-e", "application:main", *words])
    return archive


def pyinstaller(name: str) -> Path:
    """One file, which unpacks itself at each start."""
    program = FOLDER / f"{name}.pyinstaller"
    if not program.exists():
        work = FOLDER / "pyinstaller"
        words = ["--onefile", "--log-level=ERROR", f"--distpath={work}", f"--workpath={work}/work"]
        script = source(name) / "application.py"
        run([tools() / "pyinstaller", *words, f"--specpath={work}", "-y", script])
        (work / "application").rename(program)
    return program
