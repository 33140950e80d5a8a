"""What is missing is named, with one line a system that installs it, and exit status 1."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("mkdir", "rm", "tail")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder to be the whole PATH: the check's own programs, Python and a compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).symlink_to(which(name))
    wrap(folder / "python3", f'exec "{sys._base_executable}" "$@"')  # type: ignore[attr-defined]
    wrap(folder / "cc", f'PATH="{os.environ["PATH"]}" exec "{which("cc")}" "$@"')
    return folder


def which(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, name
    return found


def wrap(path: Path, body: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def check(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the check with `path` as its whole PATH."""
    return subprocess.run(
        [which("sh"), str(ROOT / "tools" / "check_prerequisites")],
        env={"PATH": str(path), "TMPDIR": str(path.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def install_line(result: subprocess.CompletedProcess[str], system: str) -> list[str]:
    """The packages in the one line for this system."""
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith(f"  {system}")]
    return line.split("install" if "install" in line else "add")[1].split()


def test_nothing_is_missing(path: Path) -> None:
    result = check(path)
    assert result.returncode == 0, result.stderr
    python = sys._base_executable  # type: ignore[attr-defined]
    assert result.stdout.strip() == str(Path(python).resolve())
    assert not list(path.parent.glob("check_prerequisites.*"))


def test_no_python(path: Path) -> None:
    (path / "python3").unlink()
    result = check(path)
    assert "Python 3.11 or newer" in result.stderr
    assert install_line(result, "Debian") == ["python3", "python3-venv", "python3-dev"]
    assert install_line(result, "Fedora") == ["python3", "python3-devel"]
    assert install_line(result, "Alpine") == ["python3", "python3-dev"]


def test_python_is_too_old(path: Path) -> None:
    wrap(path / "python3", "exit 1")
    assert "python3" in install_line(check(path), "Debian")
    assert "PYTHON=python3" in check(path, PYTHON="python3").stderr


def test_no_venv(path: Path) -> None:
    python = sys._base_executable  # type: ignore[attr-defined]
    # The check asks the interpreter itself, past the wrapper: let it answer with the wrapper.
    wrap(
        path / "python3",
        f'case "$2" in *ensurepip*) exit 1;; *realpath*) echo "$0";; '
        f'*) exec "{python}" "$@";; esac',
    )
    result = check(path)
    assert "venv" in result.stderr
    assert install_line(result, "Debian") == ["python3-venv"]
    assert install_line(result, "Fedora") == ["python3"]
    assert install_line(result, "Alpine") == ["python3", "py3-pip"]


def test_no_headers(path: Path) -> None:
    python = sys._base_executable  # type: ignore[attr-defined]
    wrap(
        path / "python3",
        f'case "$2" in *sysconfig*) echo /nonexistent;; *realpath*) echo "$0";; '
        f'*) exec "{python}" "$@";; esac',
    )
    for compiler in ("works", "missing"):
        result = check(path)
        assert "Python.h" in result.stderr, compiler
        assert install_line(result, "Debian")[-1] == "python3-dev"
        assert install_line(result, "Fedora")[-1] == "python3-devel"
        assert install_line(result, "Alpine")[-1] == "python3-dev"
        (path / "cc").unlink(missing_ok=True)


def test_no_compiler(path: Path) -> None:
    (path / "cc").unlink()
    result = check(path)
    assert "C compiler" in result.stderr
    assert install_line(result, "Debian") == ["gcc", "libc6-dev"]
    assert install_line(result, "Fedora") == ["gcc", "glibc-devel"]
    assert install_line(result, "Alpine") == ["gcc", "musl-dev"]


def test_a_compiler_that_cannot_link(path: Path) -> None:
    wrap(path / "cc", "echo cannot find crt1.o >&2; exit 1")
    result = check(path)
    assert "cannot find crt1.o" in result.stderr
    assert install_line(result, "Debian") == ["gcc", "libc6-dev"]


def test_everything_that_is_missing_is_in_one_answer(path: Path) -> None:
    (path / "python3").unlink()
    (path / "cc").unlink()
    assert install_line(check(path), "Debian") == [
        "python3",
        "python3-venv",
        "python3-dev",
        "gcc",
        "libc6-dev",
    ]


def test_make_stops_with_the_answer(path: Path) -> None:
    (path / "cc").unlink()
    (path / "sh").symlink_to(which("sh"))
    result = subprocess.run(
        [which("make"), "-C", str(ROOT), "demo"],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "sudo apt-get install gcc libc6-dev" in result.stderr
