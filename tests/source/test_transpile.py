"""The build refuses Cython that would need Python where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest

TRANSPILE = Path(__file__).parents[2] / "tools" / "transpile.py"
HINT = """\
cdef void store(int *place){} nogil:
    place[0] = 1
cdef public void twice(int *place) noexcept nogil:
    store(place)
"""


def transpile(directory: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "unit.pyx").write_text(code)
    command = [sys.executable, str(TRANSPILE), "-I", str(directory), *options, "unit.pyx", "unit.c"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_a_performance_hint_is_an_error(tmp_path: Path) -> None:
    result = transpile(tmp_path, HINT.format(""), "--core")
    assert result.returncode == 1
    assert "unit.pyx: performance hints are errors" in result.stderr


def test_noexcept_is_accepted(tmp_path: Path) -> None:
    result = transpile(tmp_path, HINT.format(" noexcept"), "--core")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "unit.c").stat().st_size > 0


def test_an_error_is_passed_on(tmp_path: Path) -> None:
    result = transpile(tmp_path, "cdef int x = y\n")
    assert result.returncode != 0
    assert "undeclared name not builtin: y" in result.stderr


def test_what_was_read_is_listed_for_the_build(tmp_path: Path) -> None:
    (tmp_path / "below.pxd").write_text("cdef inline int one() noexcept nogil:\n    return 1\n")
    (tmp_path / "above.pxd").write_text(
        "from below cimport one\n\ncdef inline int two() noexcept nogil:\n    return one() + 1\n"
    )
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part.pxi").write_text("from above cimport two\n")
    code = 'include "parts/part.pxi"\ncdef public int f() noexcept nogil:\n    return two()\n'
    assert transpile(tmp_path, code, "--core").returncode == 0
    listed = (tmp_path / "unit.c.dep").read_text()
    assert {"unit.pyx", "part.pxi", "above.pxd", "below.pxd"} <= {
        Path(name).name for name in listed.replace("\\", " ").split()
    }


@pytest.mark.parametrize(("options", "checked"), [(["--core"], False), ([], True)])
def test_division_by_zero_is_checked_outside_the_core_only(
    tmp_path: Path, options: list[str], checked: bool
) -> None:
    code = "cdef public int f(int a, int b) noexcept:\n    return a // b\n"
    assert transpile(tmp_path, code, *options).returncode == 0
    assert ("ZeroDivisionError" in (tmp_path / "unit.c").read_text()) == checked
