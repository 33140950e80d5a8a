"""Test suites that others wrote, with our linker let in: each test ends as it does without."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

import dlopen
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


def let_in(way: str, folder: Path) -> dict[str, str]:
    """The environment in which our linker answers ctypes and cffi; "usual": it does not.

    There is this package for each version of Python then: it adopts what comes, or its classes
    stand for those of ctypes.  Where an interpreter counts no references, a search for leaks counts
    memory and descriptors.
    """
    if way == "preload":
        return {"LD_PRELOAD": str(preload_path())}
    folder.mkdir(exist_ok=True)
    lines = ["import sys", "vars(sys).setdefault('gettotalrefcount', lambda: 0)"]
    if way != "usual":
        (folder / "dlopen").symlink_to(Path(dlopen.__file__).parent)
    if way == "adopt":
        lines += ["import dlopen", "dlopen.adopt(later=True)"]
    if way == "classes":
        lines += [
            "import ctypes, dlopen",
            "ctypes.CDLL, ctypes.PyDLL = dlopen.CDLL, dlopen.PyDLL",
            "ctypes.cdll, ctypes.pydll = map(ctypes.LibraryLoader, (dlopen.CDLL, dlopen.PyDLL))",
            "ctypes.pythonapi = dlopen.PyDLL(None)",
        ]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return {"PYTHONPATH": str(folder)}


# Those that count references are apart, and need not be there.
VERSIONS = [f"3.{minor}{kind}" for kind in ("", "-dbg") for minor in (11, 12, 13, 14)]
CTYPES = ("test", "-v", "test_ctypes")
LEAKS = ("test", "-v", "-R", "3:3", "test_ctypes")
IMPORTS = ("unittest", "-v", "test.test_importlib.extension")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("way", "arguments"),
    [
        ("preload", CTYPES),
        ("preload", IMPORTS),
        ("adopt", CTYPES),
        ("adopt", LEAKS),
        ("classes", CTYPES),
    ],
    ids=["preload-ctypes", "preload-importlib", "adopt-ctypes", "adopt-leaks", "classes-ctypes"],
)
def test_cpython(way: str, version: str, arguments: Sequence[str], tmp_path: Path) -> None:
    command = [interpreter(version), "-m", *arguments]

    def summary(name: str, way: str) -> tuple[int, list[str], set[str]]:
        added = let_in(way, tmp_path / f"{name}-site")
        done = run_command(command, tmp_path / name, added, timeout=600)
        assert bool(done.counts["loaded"]) == (way != "usual")
        text = done.output + done.errors
        counts = re.findall(r"^Ran (\d+ tests) in .*\n\n(OK.*|FAILED.*)$", text, re.MULTILINE)
        leaks = re.findall(r"^\w+ leaked \[.*\] (\w+).*, sum=\d+$", text, re.MULTILINE)
        return done.status, counts, set(leaks)

    expected = summary("1", "usual")
    assert expected[0] == 0
    assert len(expected[1]) >= (6 if arguments is LEAKS else 1)
    found = summary("2", way)
    if found[2] == {"references"} and not version.startswith(OWN):
        # An extension that was built for an older one counts what is immortal by now.
        found = 0, found[1], set()
    assert found == expected
    print(expected)


def outcomes(arguments: Sequence[str | Path], folder: Path, way: str) -> dict[str, str]:
    """Of a run of pytest: the test, and what else than passing it did."""
    report, empty = folder.with_suffix(".xml"), folder.with_suffix(".ini")
    empty.write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", f"-c{empty}", "-p", "no:cacheprovider"]
    added = let_in(way, folder.with_suffix(".site"))
    done = run_command([*command, f"--junit-xml={report}", *arguments], folder, added, 1800)
    assert bool(done.counts["loaded"]) == (way != "usual")
    assert done.status == 0, done.output[-5000:]
    return {
        f"{case.get('classname')}.{case.get('name')}": ",".join(child.tag for child in case)
        for case in ET.parse(report).iter("testcase")
    }


def same_outcomes(arguments: Sequence[str | Path], folder: Path, way: str) -> None:
    expected = outcomes(arguments, folder / "1", "usual")
    assert expected
    assert outcomes(arguments, folder / "2", way) == expected
    kinds = Counter(kind or "passed" for kind in expected.values())
    print(dict(kinds))


def need_project(name: str) -> str:
    return version_of_project(name) or missing(f"{name} is not installed")


def test_numpy(tmp_path: Path) -> None:
    need_project("numpy")
    need_project("hypothesis")
    modules = ("numpy.linalg", "numpy.fft", "numpy.random")
    same_outcomes(["--pyargs", *modules, "-m", "not slow"], tmp_path, "preload")


@pytest.fixture(scope="module")
def cffi_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """They come with its source only."""
    folder = tmp_path_factory.mktemp("cffi")
    wanted = f"cffi=={need_project('cffi')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary=cffi", f"--dest={folder}", wanted]
    done = run(command, timeout=300, check=False)
    if done.returncode != 0:
        missing(f"the source of {wanted}: {done.stderr}")
    (archive,) = folder.glob("cffi-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (source,) = folder.glob("cffi-*/testing")
    return source


@pytest.mark.parametrize(
    ("way", "part"), [("preload", "cffi1"), ("adopt", "cffi0"), ("adopt", "cffi1")]
)
def test_cffi(way: str, part: str, cffi_tests: Path, tmp_path: Path) -> None:
    """They compile extension modules by the dozen."""
    same_outcomes([cffi_tests / part], tmp_path, way)
