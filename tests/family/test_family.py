"""The exported family against libc's: each case runs once under each, and shows the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from family import libraries
from family.cases import REFERENCE, Case, read_cases
from support.fixtures import run
from support.machines import machine

CASES = read_cases()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The libraries and, when they are asked for, the programs."""
    folder = tmp_path_factory.mktemp("family")
    libraries.build(folder)
    return folder


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory, libdlopen: Path) -> Path:
    """A folder for LD_LIBRARY_PATH: LD_PRELOAD cannot hold a path with a space."""
    folder = tmp_path_factory.mktemp("preload")
    shutil.copy(libdlopen, folder / "libdlopen.so")
    return folder


def outcome(case: Case, folder: Path, preload: Path, place: Path, *, ours: bool) -> str:
    place.mkdir()
    program = folder / case.program
    if not program.exists():
        libraries.build_program(folder, case.program)
    env = {
        "FAMILY_LIBRARIES": str(folder),
        "LD_LIBRARY_PATH": str(preload),
        **{name: value.replace("{folder}", str(folder)) for name, value in case.env.items()},
    }
    if "LD_LIBRARY_PATH" in case.env:
        env["LD_LIBRARY_PATH"] += f":{preload}"
    if ours:
        # The last one, so that a wrapper's RTLD_NEXT leads to it.
        env["LD_PRELOAD"] = ":".join(filter(None, [case.env.get("LD_PRELOAD"), "libdlopen.so"]))
    done = run([program, case.name], env=env, cwd=place, check=False, timeout=180)
    text = done.stdout + done.stderr
    return f"{text}status {done.returncode}\n".replace(str(folder), "FOLDER")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(
    case: Case,
    folder: Path,
    preload: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    version = machine().glibc
    if version < case.needs:
        pytest.skip(f"glibc {version} is older than {case.needs}")
    if machine().is_foreign and case.emulated:
        pytest.skip(case.emulated)
    glibc = outcome(case, folder, preload, tmp_path / "glibc", ours=False)
    ours = outcome(case, folder, preload, tmp_path / "ours", ours=True)
    crashed = glibc.endswith("status -11\n") and ours != glibc
    if machine().is_foreign and crashed and not case.differs:
        assert not ours.endswith("status -11\n")
        pytest.skip("libc itself ends with SIGSEGV under the emulator")
    if case.differs:
        assert ours == case.ours
        native = version == REFERENCE and not machine().is_foreign
        assert not native or glibc != ours, "the difference is gone: take it out"
        if glibc != ours:
            record_property("differs", case.differs)
    else:
        assert ours == glibc
        # Not that there is no such case, or that it could not get to its subject.
        assert not glibc.endswith(tuple(f"status {number}\n" for number in (98, 99)))


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 200
    assert len({str(case) for case in CASES}) == len(CASES)
