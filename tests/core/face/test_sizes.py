"""A client of another release of dlopen.h: smaller and larger structs."""

from __future__ import annotations

from pathlib import Path

from support.fixtures import compile_library, compile_program, libdlopen, run

HERE = Path(__file__).parent
INCLUDE = HERE.parents[2] / "src" / "dlopen" / "include"


def test_structs_of_other_sizes(tmp_path: Path) -> None:
    library = compile_library(tmp_path, "libneeds.so", "int getpid(void); int (*p)(void) = getpid;")
    linker = libdlopen()
    flags = [f"-I{INCLUDE}", f"-Wl,-rpath,{linker.parent}"]
    program = compile_program(tmp_path, "sizes", HERE / "sizes.c", libraries=[linker], flags=flags)
    done = run([str(program), str(library)], cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "as they should be\n"), done.stdout + done.stderr
