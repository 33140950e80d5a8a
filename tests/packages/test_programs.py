"""Packages imported from their wheels, as downloaded: as they are where pip has installed them."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from packages.environments import OWN, VERSIONS, Environments, need
from packages.running import Program, Run, programs, run_program
from support.fixtures import need_tool, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.only_on("x86_64", reason="the wheels are pinned for x86-64"),
]

ALL = [
    pytest.param(version, program, id=f"{program.name}-{version}")
    for version in VERSIONS
    for program in programs()
]
# As root of a user namespace where that is needed; the file system ends with the program.
READ_ONLY = """
mount -t tmpfs -o noexec,mode=755 archives "$1" && mv "$2"/* "$1"/ || exit 99
mount -o remount,ro "$1" || exit 99
shift 2
exec "$@"
"""


def archives_of(found: Environments, program: Program) -> list[Path]:
    """Skips where a project has no wheel for this interpreter."""
    return found.archives(program.projects) or pytest.skip(f"no wheels for {found.version}")


def below(path: str, roots: list[Path]) -> str | None:
    """Its name below the place where packages are; None for what is not there."""
    for root in roots:
        if path.startswith(f"{root}/"):
            return re.sub(r"^[^/]*\.data/(?:plat|pure)lib/", "", path.removeprefix(f"{root}/"))
    return None


def libraries(paths: list[str], roots: list[Path]) -> list[str]:
    """With those that are there twice."""
    names = (below(path, roots) for path in paths)
    return sorted(name for name in names if name and re.search(r"\.so(\.|$)", name))


def origins(done: Run, roots: list[Path]) -> dict[str, str]:
    """Each module of the packages, and its file."""
    names = {module: below(file, roots) for module, file in done.facts["modules"].items()}
    return {module: re.sub(r"\.pyc$", ".py", name) for module, name in names.items() if name}


def check(
    found: Environments, program: Program, folder: Path, done: Run, archives: list[Path]
) -> None:
    """The same output, images and modules as installed; and nothing of them from elsewhere."""
    expected = run_program(found.python("installed"), program, folder / "installed")
    assert expected.status == 0, expected.errors
    assert expected.output
    assert (done.output, done.status) == (expected.output, 0), done.errors
    site = [found.site("installed")]
    assert origins(done, archives) == origins(expected, site)
    images = libraries(done.facts["images"], archives)
    assert images == libraries(expected.facts["mapped"], site)
    for name in program.one:
        assert sum(image.startswith(name) for image in images) == 1, images
    # No module and no mapping of a package that is installed anywhere.
    places = [*done.facts["mapped"], *done.facts["modules"].values()]
    assert {path for path in places if "site-packages/" in path and "/dlopen/" not in path} == set()


@pytest.mark.parametrize(("version", "program"), ALL)
def test_from_wheels(version: str, program: Program, tmp_path: Path) -> None:
    found = need(version)
    archives = archives_of(found, program)
    done = run_program(found.python("alone"), program, tmp_path / "wheels", archives, traced=True)
    check(found, program, tmp_path, done, archives)
    assert done.trace
    assert set(done.trace.written) <= set(program.writes)
    opened = Counter(path for path in done.trace.opened if path.endswith(".whl"))
    assert set(opened) <= set(map(str, archives))
    assert max(opened.values()) <= 2, opened


def run_read_only(found: Environments, program: Program, folder: Path, archives: list[Path]
                  ) -> tuple[Run, list[Path]]:  # fmt: skip
    """From a file system of its own, on which nothing may be mapped executable, nor written."""
    place, copies = folder / "mounted", folder / "copies"
    place.mkdir()
    copies.mkdir()
    for archive in archives:
        (copies / archive.name).hardlink_to(archive)
    unshare = [need_tool("unshare"), "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if run([*unshare, "true"], check=False).returncode != 0:
        pytest.skip("unshare(1) may not make a mount namespace")
    before = [*unshare, "sh", "-c", READ_ONLY, "sh", str(place), str(copies)]
    mounted = [place / archive.name for archive in archives]
    python = found.python("alone")
    return run_program(python, program, folder / "wheels", mounted, before=before), mounted


@pytest.mark.parametrize(("version", "program"), ALL)
def test_from_wheels_that_may_not_be_mapped(version: str, program: Program, tmp_path: Path) -> None:
    found = need(version)
    done, archives = run_read_only(found, program, tmp_path, archives_of(found, program))
    check(found, program, tmp_path, done, archives)


@pytest.mark.parametrize(("version", "program"), ALL)
def test_from_one_archive(version: str, program: Program, tmp_path: Path) -> None:
    """With native members stored at a page's begin: they are mapped from the archive."""
    found = need(version)
    archive = tmp_path / "packages.zip"
    found.pack(archives_of(found, program), archive)
    done = run_program(found.python("alone"), program, tmp_path / "archive", [archive], traced=True)
    check(found, program, tmp_path, done, [archive])
    assert done.trace
    assert set(done.trace.written) <= set(program.writes)
    assert done.trace.opened.count(str(archive)) <= 2
    assert (str(archive) in done.facts["mapped"]) == bool(
        libraries(done.facts["images"], [archive])
    )


def test_from_an_archive_that_may_not_be_mapped(tmp_path: Path) -> None:
    """What is stored is copied then."""
    found = need(OWN)
    program = next(program for program in programs() if program.name == "numpy")
    archive = tmp_path / "packages.zip"
    found.pack(archives_of(found, program), archive)
    done, archives = run_read_only(found, program, tmp_path, [archive])
    check(found, program, tmp_path, done, archives)
    assert str(archives[0]) not in done.facts["mapped"]
