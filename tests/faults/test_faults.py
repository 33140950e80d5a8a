"""Each allocation and each kernel call of the linker fails once, and then all after it.

`make faults` builds libdlopen.so so that driver.c and driver.py decide which one fails
(core/base/faults.pxd), and names it in DLOPEN_FAULTS_SITE; with DLOPEN_FAULTS_STRIDE=N each N-th
point only. It prints how many points each operation has.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faults.libraries import make_libraries
from support.fixtures import BUILD, compile_library, compile_program, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = [
    pytest.mark.cxx,
    pytest.mark.slow,
    pytest.mark.skipif("DLOPEN_FAULTS_SITE" not in os.environ, reason="make faults"),
]

HERE = Path(__file__).parent
SITE = Path(os.environ.get("DLOPEN_FAULTS_SITE", ""))
LIBRARY = SITE / "dlopen" / "_lib" / "libdlopen.so"
STRIDE = os.environ.get("DLOPEN_FAULTS_STRIDE", "1")
IS_SANITIZED = "sanitized" in str(SITE)
SANITIZE = ["-fsanitize=address,undefined"] if IS_SANITIZED else []
DIRECTORY = BUILD / ("faults-sanitized" if IS_SANITIZED else "faults")


@pytest.fixture(scope="session")
def libraries() -> Path:
    folder = DIRECTORY / "lib"
    make_libraries(folder)
    return folder


def make(function: Callable[..., Path], name: str, source: str, *flags: str) -> Path:
    """With faults.c; `source` is included, so that it is not compiled anew for each test."""
    return function(
        DIRECTORY,
        name,
        f'#include "{HERE / "faults.c"}"\n{source}',
        flags=[
            *("-g", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer", "-pthread"),
            *(f"-I{HERE}", *flags),
        ],
        **({"libraries": [LIBRARY], "rpath": str(LIBRARY.parent)} if name == "driver" else {}),
    )


def report(command: Sequence[str | Path], environment: dict[str, str]) -> None:
    done = run(command, env=environment, timeout=3600, check=False)
    print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0]) > 100


def test_c_face(libraries: Path) -> None:
    source = f'#include "{HERE / "driver.c"}"\n'
    driver = make(compile_program, "driver", source, "-rdynamic", *SANITIZE)
    report([driver, "--stride", STRIDE, libraries], {"LD_LIBRARY_PATH": str(libraries)})


@pytest.mark.skipif(IS_SANITIZED, reason="the interpreter is not built for it")
def test_python_face(libraries: Path) -> None:
    faults = make(compile_library, "libfaults.so", "")
    report(
        [sys.executable, HERE / "driver.py", "--stride", STRIDE, libraries],
        {
            "LD_LIBRARY_PATH": str(libraries),
            "LD_PRELOAD": str(faults),
            "PYTHONPATH": str(SITE),
        },
    )
