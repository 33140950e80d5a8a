"""Unmodified programs that load their plugins through us: as they run without us."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs.program import (
    Program,
    measured,
    programs,
    run_program,
    version_of,
    version_of_project,
)
from support.fixtures import missing, need_tool
from support.machines import machine


def need(program: Program) -> None:
    if machine().name in program.left_out:
        pytest.skip(program.left_out[machine().name])
    need_tool("dpkg-query")
    absent = [package for package in program.packages if version_of(package) is None]
    absent += [project for project in program.python if version_of_project(project) is None]
    if absent:
        missing(f"{program.name}: not installed: {' '.join(absent)}")


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(program, id=program.name, marks=[] if program.quick else [pytest.mark.slow])
        for program in programs()
    ],
)
def test_as_without_us(program: Program, libdlopen: Path, tmp_path: Path) -> None:
    need(program)
    # In folders of names of one length: some programs write it, or wrap lines.
    expected = run_program(program, tmp_path / "1", None)
    found = run_program(program, tmp_path / "2", str(libdlopen))
    assert (found.output, found.status) == (expected.output, expected.status), found.errors
    assert expected.output
    assert not expected.counts
    assert found.counts["loaded"] > 0
    measured(program, found)
