"""The tests that numpy and pandas have in their wheels: each ends as where pip has installed it."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from packages.environments import VERSIONS, need

pytestmark = [
    pytest.mark.slow,
    pytest.mark.only_on("x86_64", reason="the wheels are pinned for x86-64"),
]

PATH = Path(__file__).with_name("path")
PYTEST = (
    "pytest",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
    "hypothesis",
    "sortedcontainers",
)
SUITES = {
    "numpy": (
        ("numpy", "cffi", "pycparser", "tzdata"),
        ("numpy/linalg/", "numpy/fft/", "numpy/random/", "numpy/_core/"),
        ["test_mem_policy"],  # builds a module, with what is not there
    ),
    "pandas": (
        ("pandas", "numpy", "python-dateutil", "tzdata"),
        ("pandas/tests/libs/", "pandas/tests/tslibs/"),
        [],
    ),
}
# Tests that open files beside `__file__`, or write them there: they fail in any zip.
BESIDE = re.compile(
    r"numpy\._core\.tests\.test_cpu_features\.TestEnvPrivation"
    r"|numpy\._core\.tests\.test_records\.TestFromrecords\.test_recarray_fromfile$"
    r"|numpy\._core\.tests\.test_regression\.TestRegression\.test_astype_copy$"
    r"|numpy\._core\.tests\.test_umath_accuracy\."
    r"|numpy\.random\.tests\.test_direct\.Test(MT19937|PCG64|PCG64DXSM|Philox|SFC64)\."
    r"|numpy\.random\.tests\.test_extending\.test_cffi$"
    r"|numpy\.random\.tests\.test_generator_mt19937\.test_legacy_pickle"
)


def modules(wheel: Path, folders: tuple[str, ...], left_out: list[str]) -> list[str]:
    """The test modules there."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(archive.namelist())
    found = [
        name.removesuffix(".py").replace("/", ".")
        for name in names
        if name.startswith(folders) and re.search(r"/test_\w+\.py$", name)
    ]
    return [name for name in found if name.rpartition(".")[2] not in left_out]


def outcomes(python: Path, suite: str, names: list[str], folder: Path, archives: list[Path]
             ) -> dict[str, str]:  # fmt: skip
    """Of each test what else than passing it did, and why where it failed."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / f"{suite}.modules").write_text("\n".join(names))
    report = folder / "report.xml"
    done = subprocess.run(
        [python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "modules_by_name",
         "-p", f"{suite}.conftest", "-m", "not slow", f"--junit-xml={report}", f"{suite}.modules"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": ":".join(map(str, [PATH, *archives])),
        },
        timeout=3000,
        check=False,
    )  # fmt: skip
    assert report.exists(), done.stdout[-5000:] + done.stderr
    return {
        f"{case.get('classname')}.{case.get('name')}": ",".join(
            child.tag if child.tag == "skipped" else f"{child.tag}: {child.get('message')}"
            for child in case
        )
        for case in ET.parse(report).iter("testcase")
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("suite", SUITES)
def test_as_installed(suite: str, version: str, tmp_path: Path) -> None:
    found = need(version)
    projects, folders, left_out = SUITES[suite]
    archives = found.archives((*projects, *PYTEST)) or pytest.skip(f"no wheels for {version}")
    names = modules(archives[0], folders, left_out)
    expected = outcomes(found.python("installed"), suite, names, tmp_path / "installed", [])
    assert len(expected) > 1000
    done = outcomes(found.python("alone"), suite, names, tmp_path / "archives", archives)
    other = {name for name in done.keys() | expected.keys() if done.get(name) != expected.get(name)}
    print(f"{suite} {version}: {len(expected)} tests, of which {len(other)} read beside __file__")
    assert [name for name in sorted(other) if not BESIDE.match(name)] == []
    assert [done[name] for name in other if "Not a directory" not in done[name]] == []
