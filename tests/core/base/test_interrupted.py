"""A signal handler that uses the linker, wherever it has interrupted it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, run

pytestmark = pytest.mark.only_on(
    "x86_64", reason="no other processor lets a process trap at each of its own instructions"
)

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "scenario", ["closing", "reading", "reading_late", "forking", "forking_inside"]
)
def test_at_every_instruction(tmp_path: Path, libdlopen: Path, scenario: str) -> None:
    compile_library(tmp_path, "libfirst.so", "int target(void) { return 1; }")
    compile_library(tmp_path, "libsecond.so", "int target(void) { return 2; }")
    compile_library(tmp_path, "libother.so", "int other(void) { return 3; }")
    compile_library(
        tmp_path,
        "libuser.so",
        "int target(void); int call_target(void) { return target(); }",
        flags=["-Wl,-z,lazy"],
    )
    compile_library(tmp_path, "liblate.so", "int late(void) { return 4; }")
    compile_library(
        tmp_path,
        "liblateuser.so",
        "int late(void); int call_late(void) { return late(); }",
        flags=["-Wl,-z,lazy"],
    )
    flags = ["-pthread", "-Wl,-z,now"]
    program = compile_program(tmp_path, "interrupted", HERE / "interrupted.c", flags=flags)
    environment = {"LD_BIND_NOT": "1"}
    done = run([program, libdlopen, scenario], cwd=tmp_path, env=environment, timeout=150)
    assert done.stdout == "done\n"
