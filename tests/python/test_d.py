"""Libraries in D: their runtime walks dynamic sections, and opens who calls it by its own name."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import BUILD, need_tool, run, run_python

pytestmark = pytest.mark.emulated(reason="the compilers of D are for this system")

SOURCE = Path(__file__).parents[1] / "support" / "library.d"
COMPILERS = {
    "gdc": ["-shared", "-fPIC", "-shared-libphobos", "-o"],
    "ldc2": ["-shared", "-relocation-model=pic", "-link-defaultlib-shared", "-of"],
}
OPENED = {
    "path": "dlopen.Library(file)",
    "PRIVATE": "dlopen.Library(file, dlopen.PRIVATE)",
    "bytes": "dlopen.Library.from_bytes(data, name='libd.so')",
    "files": "dlopen.Library(name, files=with_all_that_it_needs())",
    "reload": "dlopen.Library(file, reload=True)",
    "namespace": "dlopen.Namespace('a').load(file)",
}
CODE = """
import sys
from pathlib import Path
import dlopen
file = Path(sys.argv[1])
name, data = file.name, file.read_bytes()

def with_all_that_it_needs():
    files, left = {}, [str(file)]
    while left:
        path = left.pop()
        path = path if "/" in path else dlopen.find(path).path
        if Path(path).name not in files:
            files[Path(path).name] = Path(path).read_bytes()
            with dlopen.Image(path) as image:
                left += image.info.needed
    return files

lib = eval(sys.argv[2])
assert lib.start() == 1
assert lib.constructed() == 8
assert lib.squares(5) == 30
assert lib.catches() == 1
assert lib.collects() == 500
assert lib.thread() == 15
assert lib.stop() == 1
lib.close()
assert not lib.unload_blockers
"""


@pytest.fixture(scope="module", params=COMPILERS)
def library(request: pytest.FixtureRequest) -> Path:
    """Not in /tmp, which may be mounted noexec."""
    compiler = need_tool(request.param)
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"lib{request.param}.so"
    *flags, output = COMPILERS[request.param]
    named = [f"{output}={path}"] if output == "-of" else [output, path]
    run([compiler, SOURCE, *flags, *named], cwd=BUILD, timeout=120)
    return path


@pytest.mark.parametrize("way", OPENED)
def test_a_library_with_its_runtime(library: Path, way: str) -> None:
    assert run_python(CODE, str(library), OPENED[way]).stdout == "finished\n"
