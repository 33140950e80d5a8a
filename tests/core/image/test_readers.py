"""Readers are counted, with locked instructions once there are threads and without before."""

from __future__ import annotations

from pathlib import Path

from support.fixtures import compile_library, compile_program, run

SOURCE = (Path(__file__).parent / "readers.c").read_text()


def test_what_a_reader_sees_stays_while_threads_come_and_go(
    tmp_path: Path, libdlopen: Path
) -> None:
    library = compile_library(tmp_path, "libread.so", "int number = 7;")
    program = compile_program(tmp_path, "readers", SOURCE, flags=["-pthread"])
    done = run([program, libdlopen, library])
    assert done.stdout.splitlines() == ["1 0", "1 1 0", "0"]
