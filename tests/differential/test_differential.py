"""Every relocated place of hundreds of libraries means what it means under glibc.

The figures asked for are in `test_enough_was_compared`; the table of what differs by nature is in
`compare`.  packages.txt names Debian packages whose libraries make up the number.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from differential import built
from differential.compare import (
    COMPARED_TYPES,
    RELR,
    REPORTED_TYPES,
    Dump,
    compare,
    run_driver,
)
from differential.conftest import REPORT
from differential.report import DRIVER, Report, has_cxx, run
from support import elf64
from support.elf64 import Elf
from support.fixtures import BUILD, compile_library, compile_program, missing


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory, libdlopen: Path, pytestconfig: pytest.Config
) -> Report:
    found = run(tmp_path_factory.mktemp("differential"), libdlopen, cxx=has_cxx())
    found.write(BUILD / "differential")
    pytestconfig.stash[REPORT] = found.text()
    return found


def test_no_difference_is_unexplained(report: Report) -> None:
    assert not report.differences, report.text()


@pytest.mark.cxx
def test_enough_was_compared(report: Report) -> None:
    if report.system_libraries < 300 or report.packages < 60:
        missing("too few libraries: install those of tests/differential/packages.txt")
    assert report.features["C++"] >= 20
    for feature in ("IFUNC", "DF_SYMBOLIC", "DT_HASH only", "RELR", "unaligned places"):
        assert report.features[feature] >= 5, feature
    assert {name: report.places[name] for name in REPORTED_TYPES if not report.places[name]} == {}


def test_glibc_compared_with_itself_shows_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, None, ours="glibc", cxx=False, chosen=())
    assert not found.differences, found.text()
    assert all(found.places[name] for name in REPORTED_TYPES), found.places


@pytest.fixture(scope="module")
def two_dumps(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Dump, Dump]]:
    directory = tmp_path_factory.mktemp("planted")
    driver = compile_program(directory, "driver", DRIVER)
    return [
        (str(path), run_driver(driver, "glibc", str(path)), run_driver(driver, "glibc", str(path)))
        for path in built.build(directory)
    ]


@pytest.mark.parametrize("name", REPORTED_TYPES)
def test_a_wrong_word_planted_at_a_place_of_each_type_is_found(
    two_dumps: list[tuple[str, Dump, Dump]], name: str
) -> None:
    def places_of(path: str) -> list[int]:
        elf = Elf(Path(path))
        if name == RELR:
            return elf.relr
        return [r.place for r in elf.relocations if elf64.RELOCATION_NAMES[r.type] == name]

    path, glibc, ours = next(dumps for dumps in two_dumps if places_of(dumps[0]))
    image = ours.new[path]
    place = places_of(path)[-1]
    address = image.bias + place
    untouched = image.memory
    index, (start, content) = next(
        (i, (start, content))
        for i, (start, content) in enumerate(image.memory)
        if start <= address < start + len(content)
    )
    at = address - start
    # The next byte of the same image: the smallest error that a linker can make.
    changed = bytearray(content)
    changed[at] ^= 1
    try:
        image.memory = [*untouched]
        image.memory[index] = (start, bytes(changed))
        found = compare(path, glibc, ours, None).differences
    finally:
        image.memory = untouched
    assert [(one.image, one.place, one.type) for one in found] == [(path, place, name)]


def test_every_type_that_is_compared_is_reported() -> None:
    assert {RELR, *(elf64.RELOCATION_NAMES[type_] for type_ in COMPARED_TYPES)} == {*REPORTED_TYPES}


def test_a_binding_to_the_wrong_library_is_found(tmp_path: Path) -> None:
    driver = compile_program(tmp_path, "driver", DRIVER)
    base = compile_library(tmp_path, "libbase.so", "int value(void) { return 1; }")
    source = "int value(void); int user(void) { return value(); }"
    user = compile_library(tmp_path, "libuser.so", source, libraries=[base])
    other = compile_library(tmp_path, "libother.so", "int value(void) { return 2; }")
    right = run_driver(driver, "glibc", str(user))
    # LD_PRELOAD cannot hold a path with a space.
    env = {"LD_PRELOAD": other.name, "LD_LIBRARY_PATH": str(tmp_path)}
    wrong = run_driver(driver, "glibc", str(user), env=env)
    found = compare(str(user), right, wrong, None).differences
    assert [(one.type, one.symbol) for one in found] == [("JUMP_SLOT", "value@")]
    assert f"{base}+" in found[0].glibc
    assert f"{other}+" in found[0].ours
