"""Test suites that others wrote, with the preload: each test ends as it does without."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from dlopen._command_line import preload_path
from programs.program import run_command, version_of_project
from support.fixtures import missing, run

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def interpreter(version: str) -> str:
    """One that has its tests."""
    names = [sys._base_executable] if version == OWN else []  # type: ignore[attr-defined]
    for name in [*names, f"python{version}"]:
        if shutil.which(name):
            code = "import sys, test.test_ctypes, test.test_importlib; print(sys.executable)"
            # Which of pyenv's, where the name is a wrapper of it.
            done = run([name, "-c", code], env={"PYENV_VERSION": version}, check=False)
            if done.returncode == 0:
                return done.stdout.strip()
    if version == OWN:
        missing(f"the tests of Python {version} (libpython{version}-testsuite) are not installed")
    pytest.skip(f"no python{version} with its tests")  # nor need be: that of .venv must


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(
    "arguments",
    [("test", "-v", "test_ctypes"), ("unittest", "-v", "test.test_importlib.extension")],
    ids=["ctypes", "importlib"],
)
def test_cpython(version: str, arguments: Sequence[str], tmp_path: Path) -> None:
    command = [interpreter(version), "-m", *arguments]

    def summary(name: str, preload: str | None) -> tuple[int, list[str]]:
        done = run_command(command, tmp_path / name, preload, timeout=300)
        assert bool(done.counts["loaded"]) == (preload is not None)
        text = done.output + done.errors
        return done.status, re.findall(
            r"^Ran (\d+ tests) in .*\n\n(OK.*|FAILED.*)$", text, re.MULTILINE
        )

    expected = summary("1", None)
    assert expected[0] == 0
    assert expected[1]
    assert summary("2", str(preload_path())) == expected
    print(expected)


def outcomes(arguments: Sequence[str | Path], folder: Path, preload: str | None) -> dict[str, str]:
    """Of a run of pytest: the test, and what else than passing it did."""
    report, empty = folder.with_suffix(".xml"), folder.with_suffix(".ini")
    empty.write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", f"-c{empty}", "-p", "no:cacheprovider"]
    done = run_command([*command, f"--junit-xml={report}", *arguments], folder, preload, 900)
    assert bool(done.counts["loaded"]) == (preload is not None)
    assert done.status == 0, done.output[-5000:]
    return {
        f"{case.get('classname')}.{case.get('name')}": ",".join(child.tag for child in case)
        for case in ET.parse(report).iter("testcase")
    }


def same_outcomes(arguments: Sequence[str | Path], folder: Path) -> None:
    expected = outcomes(arguments, folder / "1", None)
    assert expected
    assert outcomes(arguments, folder / "2", str(preload_path())) == expected


def need_project(name: str) -> str:
    return version_of_project(name) or missing(f"{name} is not installed")


def test_numpy(tmp_path: Path) -> None:
    need_project("numpy")
    need_project("hypothesis")
    modules = ("numpy.linalg", "numpy.fft", "numpy.random")
    same_outcomes(["--pyargs", *modules, "-m", "not slow"], tmp_path)


def test_cffi(tmp_path: Path) -> None:
    """Its tests compile extension modules by the dozen; they come with its source only."""
    wanted = f"cffi=={need_project('cffi')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary=cffi", f"--dest={tmp_path}", wanted]
    done = run(command, timeout=300, check=False)
    if done.returncode != 0:
        missing(f"the source of {wanted}: {done.stderr}")
    (archive,) = tmp_path.glob("cffi-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("cffi-*/testing/cffi1")
    same_outcomes([source], tmp_path)
