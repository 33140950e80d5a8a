"""Each allocation and each kernel call of the linker fails once, and then all after it.

`make faults` builds libdlopen.so so that driver.c decides which one fails (core/base/faults.pxd), and
names it in DLOPEN_FAULTS_SITE; with DLOPEN_FAULTS_STRIDE=N each N-th point only. It prints how many
points each operation has.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faults.libraries import make_libraries
from support.fixtures import BUILD, compile_program, run

pytestmark = [
    pytest.mark.cxx,
    pytest.mark.slow,
    pytest.mark.skipif("DLOPEN_FAULTS_SITE" not in os.environ, reason="make faults"),
]

HERE = Path(__file__).parent
SITE = Path(os.environ.get("DLOPEN_FAULTS_SITE", ""))
STRIDE = os.environ.get("DLOPEN_FAULTS_STRIDE", "1")
IS_SANITIZED = "sanitized" in str(SITE)
SANITIZE = ["-fsanitize=address,undefined"] if IS_SANITIZED else []
DIRECTORY = BUILD / ("faults-sanitized" if IS_SANITIZED else "faults")


@pytest.fixture(scope="session")
def libraries() -> Path:
    folder = DIRECTORY / "lib"
    make_libraries(folder)
    return folder


def test_c_face(libraries: Path) -> None:
    library = SITE / "dlopen" / "_lib" / "libdlopen.so"
    both = f'#include "{HERE / "faults.c"}"\n#include "{HERE / "driver.c"}"\n'
    driver = compile_program(
        DIRECTORY,
        "driver",
        both,
        flags=[
            *("-g", "-Wall", "-Wextra", "-Werror", "-rdynamic", "-fno-omit-frame-pointer"),
            *("-pthread", f"-I{HERE}", *SANITIZE),
        ],
        libraries=[library],
        rpath=str(library.parent),
    )
    done = run(
        [driver, "--stride", STRIDE, libraries],
        env={"LD_LIBRARY_PATH": str(libraries)},
        timeout=1200,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
