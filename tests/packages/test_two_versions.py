"""Two versions of numpy in one process, each from its wheel and in a namespace of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from packages.environments import PINNED, VERSIONS, Environments, need, pip_for
from support.fixtures import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.only_on("x86_64", reason="the wheels are pinned for x86-64"),
]

OLDER = Path(__file__).with_name("older.txt")
PROGRAM = """
import sys
from collections import Counter
import dlopen
from dlopen import importer

importer.install()
numpys, namespaces = [], []
for wheel in sys.argv[1:]:
    sys.path.insert(0, wheel)
    namespaces.append(dlopen.Namespace(wheel))
    with namespaces[-1].imports("numpy"):
        import numpy
    numpys.append(numpy)
    sys.path.remove(wheel)
    del numpy
older, newer = numpys
assert older.__version__ < newer.__version__
assert older.ndarray is not newer.ndarray
values = []
for namespace, numpy in zip(namespaces, numpys):
    with namespace.imports():
        matrix = numpy.random.default_rng(5).random((40, 40))
        inverse = numpy.linalg.inv(matrix)
        assert numpy.allclose(matrix @ inverse, numpy.eye(40))
        values.append((inverse.round(8).tolist(), numpy.fft.fft(matrix[0]).real.round(8).tolist()))
        assert "1." in str(numpy.ones(2))
assert values[0] == values[1]
# An array of one is an array of the other, by the buffer protocol.
assert memoryview(older.ones(3)) == memoryview(newer.asarray(older.ones(3)))
assert "numpy" not in sys.modules
found = Counter(
    (info.archive, kind)
    for info in dlopen.libraries()
    for kind in ("openblas", "/_multiarray_umath")
    if info.archive and kind in info.path
)
assert sorted(found.values()) == [1, 1, 1, 1], found
"""


def older(found: Environments) -> Path:
    """Fetched once."""
    folder = found.folder / "older"
    if not list(folder.glob("*.whl")):
        shutil.rmtree(folder, ignore_errors=True)
        pip = [*pip_for(found.python("installed")), "download", "--require-hashes", *PINNED]
        run([*pip, "-r", OLDER, "-d", folder], timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.parametrize("version", [v for v in VERSIONS if v != "3.15"])
def test_two_versions(version: str) -> None:
    found = need(version)
    newer = found.archives(("numpy",))
    assert newer
    run([found.python("alone"), "-P", "-c", PROGRAM, older(found), *newer], timeout=300)
