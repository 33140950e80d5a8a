"""Where the packages are: of each interpreter its wheels, as downloaded, and two environments.

Everything is below build/packages/VERSION, is fetched once, and made anew when requirements.txt
is another:

    wheels/      the wheels
    installed/   an environment into which pip has installed them
    alone/       one with dlopen only
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from packages.platlib import with_platlib
from support.fixtures import BUILD, run

if TYPE_CHECKING:
    from collections.abc import Sequence

PINS = Path(__file__).with_name("requirements.txt")
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
MOVED = "markupsafe"  # no small wheel of PyPI is known that has .data/platlib: this one gets it
PINNED = ("--no-deps", "--only-binary=:all:")


@dataclass(frozen=True)
class Environments:
    """Of one interpreter."""

    version: str
    folder: Path

    @property
    def wheels(self) -> Path:
        return self.folder / "wheels"

    def python(self, name: str) -> Path:
        """Of the environment `installed` or `alone`."""
        return self.folder / name / "bin" / "python"

    def site(self, name: str) -> Path:
        return self.folder / name / "lib" / f"python{self.version}" / "site-packages"

    def pack(self, wheels: Sequence[Path], archive: Path, *words: str, main: str = "pass") -> None:
        """An application of one statement, with these, as `dlopen zipapp` packs it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            pip = pip_for(self.python("installed"))
            pip += ["install", *PINNED, "--no-index", "--no-compile", "--target", folder]
            run([*pip, *wheels], timeout=300)
            Path(folder, "application.py").write_text(f"def main():\n    {main}\n")
            zipapp: list[str | Path] = [self.python("alone"), "-m", "dlopen", "zipapp", folder]
            run([*zipapp, "-o", archive, "-m", "application:main", *words], timeout=300)

    def archives(self, projects: tuple[str, ...]) -> list[Path] | None:
        """The wheels of these projects; None where one of them has none for this interpreter."""
        found = {re.sub(r"[-_.]+", "-", path.name.split("-")[0]).lower(): path
                 for path in sorted(self.wheels.glob("*.whl"))}  # fmt: skip
        there = [found[project] for project in projects if project in found]
        return there if len(there) == len(projects) else None


def interpreter(version: str) -> str | None:
    """That of .venv, or one that PATH has."""
    names = [sys._base_executable] if version == OWN else [f"python{version}"]  # type: ignore[attr-defined]
    for name in names:
        if shutil.which(name):
            # Which of pyenv's, where the name is a wrapper of it.
            code = "import ensurepip, sys; print(sys.executable)"
            done = run([name, "-c", code], env={"PYENV_VERSION": version}, check=False)
            if done.returncode == 0:
                return done.stdout.strip()
    return None


def pip_for(python: Path) -> list[str | Path]:
    """Of the newest pip, that of .venv."""
    return [sys.executable, "-m", "pip", "--quiet", "--python", python]


def make(python: str, folder: Path) -> None:
    """Fetch and install; nothing is built here, and nothing but what is pinned is taken."""
    wheels = folder / "wheels"
    for name in ("installed", "alone"):
        run([python, "-m", "venv", "--without-pip", folder / name])
    pip = pip_for(folder / "installed/bin/python")
    run([*pip, "download", *PINNED, "--require-hashes", "-r", PINS, "-d", wheels], timeout=900)
    for path in list(wheels.glob(f"{MOVED}-*.whl")):
        with_platlib(path)
    run([*pip, "install", *PINNED, "--no-index", *sorted(wheels.glob("*.whl"))], timeout=900)


@cache
def environments(version: str) -> Environments | None:
    """Made if they are not there; dlopen in it is the one that is tested.

    None without such an interpreter, and its venv.
    """
    python = interpreter(version)
    if python is None:
        return None
    found = Environments(version, BUILD.parent / "packages" / version)
    wanted = f"{python} {os.fspath(found.folder)}\n{PINS.read_text()}"
    stamp = found.folder / "made-for"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(found.folder, ignore_errors=True)
        found.folder.mkdir(parents=True)
        make(python, found.folder)
        stamp.write_text(wanted)
    spec = importlib.util.find_spec("dlopen")
    assert spec
    assert spec.origin
    package = found.site("alone") / "dlopen"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(Path(spec.origin).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    # As pip does: importing writes nothing then.
    run([found.python("alone"), "-m", "compileall", "-q", package])
    return found


def need(version: str) -> Environments:
    """The test is skipped without: that of .venv only must be there."""
    import pytest  # noqa: PLC0415  (benchmarks have none)

    return environments(version) or pytest.skip(f"no python{version} with venv")
