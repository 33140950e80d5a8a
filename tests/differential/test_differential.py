"""Every relocated place of hundreds of libraries means what it means under glibc; slow: of all.

The figures asked for are in `test_enough_was_compared`; the tables of what differs and what is
refused by nature are in `compare`.  packages.txt names Debian packages whose libraries make up the
number.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from differential import built
from differential.compare import (
    COMPARED_TYPES,
    DYNAMIC,
    IN_A_BLOCK,
    LAZY_REASON,
    OVERWRITTEN_REASON,
    RELR,
    REPORTED_TYPES,
    Difference,
    Dump,
    Image,
    compare,
    open_elf,
    relocated_places,
    words,
)
from differential.conftest import REPORT
from differential.report import Report, build_driver, dump, has_cxx, run
from support import elf64
from support.fixtures import BUILD, compile_library, missing
from support.machines import machine


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory, libdlopen: Path, pytestconfig: pytest.Config
) -> Report:
    """Of another machine all are compared: its system has what was chosen for that."""
    directory, everything = tmp_path_factory.mktemp("differential"), machine().is_foreign
    found = run(directory, libdlopen, cxx=has_cxx(), everything=everything)
    found.write(BUILD / "differential" / machine().name, "all" if everything else "report")
    pytestconfig.stash[REPORT] = found.text()
    return found


def test_no_difference_is_unexplained(report: Report) -> None:
    assert not report.differences, report.text()


@pytest.mark.cxx
def test_enough_was_compared(report: Report) -> None:
    if report.system_libraries < 300 or report.packages < 60:
        missing("too few libraries: install those of tests/differential/packages.txt")
    assert report.features["C++"] >= 20
    for feature in ("IFUNC", "DF_SYMBOLIC", "DT_HASH only", "RELR", "TLS", "unaligned places"):
        assert report.features[feature] >= 5, feature
    assert {name: report.places[name] for name in REPORTED_TYPES if not report.places[name]} == {}


@pytest.mark.slow
@pytest.mark.only_on("x86_64", reason="has no system; of Debian's libraries all are compared")
def test_every_library_of_the_system(
    tmp_path: Path, libdlopen: Path, pytestconfig: pytest.Config
) -> None:
    found = run(tmp_path, libdlopen, cxx=has_cxx(), everything=True)
    found.write(BUILD / "differential" / machine().name, "all")
    pytestconfig.stash[REPORT] = found.text()
    assert not found.differences, found.text()
    assert found.system_libraries > sum(map(len, found.refused.values())), found.text()
    assert {name: found.places[name] for name in REPORTED_TYPES if not found.places[name]} == {}


def test_glibc_compared_with_itself_shows_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, None, ours="glibc", cxx=False, chosen=())
    assert not found.differences, found.text()
    assert all(found.places[name] for name in REPORTED_TYPES), found.places


@pytest.fixture(scope="module")
def two_dumps(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Dump, Dump]]:
    directory = tmp_path_factory.mktemp("planted")
    driver = build_driver(directory)
    return [
        (str(path), dump(driver, "glibc", str(path)), dump(driver, "glibc", str(path)))
        for path in built.build(directory)
    ]


def flip(content: bytes, at: int) -> bytes:
    """The next byte of the same image, the module of another one: the smallest of errors."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def plant(image: Image, place: int, name: str) -> Image:
    """The same image with a wrong word there, or a descriptor that gives a wrong one."""
    if name == "TLSDESC":
        wrong = image.descriptors | {place: image.descriptors[place] ^ 1}
        return replace(image, descriptors=wrong)
    if name.endswith(IN_A_BLOCK):
        assert image.tls
        return replace(image, content=flip(image.content, place - image.tls.address))
    address = image.bias + place
    return replace(
        image,
        memory=[
            (start, flip(content, address - start))
            if start <= address < start + len(content)
            else (start, content)
            for start, content in image.memory
        ],
    )


@pytest.mark.parametrize("name", REPORTED_TYPES)
def test_a_wrong_word_planted_at_a_place_of_each_type_is_found(
    two_dumps: list[tuple[str, Dump, Dump]], name: str
) -> None:
    path, glibc, ours, place = next(
        (path, glibc, ours, relocation.place)
        for path, glibc, ours in two_dumps
        for type_, relocation, _, _ in words(
            relocated_places(open_elf(path)), glibc.new[path], ours.new[path]
        )
        if type_ == name
    )
    images = [
        plant(image, place, name) if image is ours.new[path] else image for image in ours.images
    ]
    found = compare(path, glibc, replace(ours, images=images), None).differences
    assert (path, place, name) in [(one.image, one.place, one.type) for one in found]
    # What the offset of a pair belongs to, the other half says.
    assert len(found) == 1 or name == "DTPMOD64", found


def test_every_type_that_is_compared_is_reported() -> None:
    reported = {name for name in REPORTED_TYPES if not name.endswith(IN_A_BLOCK)}
    assert {RELR, DYNAMIC, *COMPARED_TYPES} == reported
    assert set(elf64.RELOCATION_NAMES[machine().number].values()) >= COMPARED_TYPES


def wrong_binding(
    tmp_path: Path, right: str, wrong: str, user: str, *flags: str
) -> list[Difference]:
    """What is found when glibc binds `user` to another library's definition, by LD_PRELOAD."""
    driver = build_driver(tmp_path)
    base = compile_library(tmp_path, "libbase.so", right)
    library = compile_library(tmp_path, "libuser.so", user, flags=flags, libraries=[base])
    other = compile_library(tmp_path, "libother.so", wrong)
    # LD_PRELOAD cannot hold a path with a space.
    env = {"LD_PRELOAD": other.name, "LD_LIBRARY_PATH": str(tmp_path)}
    dumps = dump(driver, "glibc", str(library)), dump(driver, "glibc", str(library), env=env)
    found = compare(str(library), *dumps, None).differences
    assert all(f"{base}" in one.glibc and f"{other}" in one.ours for one in found), found
    return found


def test_a_binding_to_the_wrong_library_is_found(tmp_path: Path) -> None:
    found = wrong_binding(
        tmp_path,
        "int value(void) { return 1; }",
        "int value(void) { return 2; }",
        "int value(void); int user(void) { return value(); }",
    )
    assert [(one.type, one.symbol) for one in found] == [("JUMP_SLOT", "value@")]


@pytest.mark.parametrize(
    ("model", "types"),
    [
        ("general", {"DTPMOD64", "DTPOFF64"}),
        ("initial", {"TPOFF64"}),
        ("descriptors", {"TLSDESC"}),
    ],
)
def test_a_binding_to_the_wrong_librarys_storage_is_found(
    tmp_path: Path, model: str, types: set[str]
) -> None:
    if model not in built.TLS_MODELS:
        pytest.skip(f"there are no descriptors of {machine().name}")
    source = "extern __thread int value; int *user(void) { return &value; }"
    definition = "__thread int value = 1;"
    found = wrong_binding(tmp_path, definition, definition, source, *built.TLS_MODELS[model])
    assert {(one.type, one.symbol) for one in found} == {(type_, "value@") for type_ in types}


_CONSTRUCTOR = """
#include <dlfcn.h>
#include <stdlib.h>
static int own;
int *word = &own;
__attribute__((constructor)) static void start(void) {
  if (getenv("WORD")) word = (int *)strtol(getenv("WORD"), 0, 0);
  void *plugin = getenv("CALL") ? dlopen(PLUGIN, RTLD_LAZY) : 0;
  if (plugin && *getenv("CALL")) ((int (*)(void))dlsym(plugin, "call"))();
}
"""


@pytest.mark.parametrize(
    ("glibc", "ours", "reason"),
    [
        ({"WORD": "3"}, {"WORD": "4"}, OVERWRITTEN_REASON),
        ({"WORD": "3"}, {}, None),
        ({"CALL": "once"}, {"CALL": ""}, LAZY_REASON),
    ],
)
def test_what_constructors_do_is_told_apart(
    tmp_path: Path, glibc: dict[str, str], ours: dict[str, str], reason: str | None
) -> None:
    driver = build_driver(tmp_path)
    source = "int value(void) { return 1; } int call(void) { return value(); }"
    plugin = compile_library(tmp_path, "libplugin.so", source, flags=["-Wl,-z,lazy"])
    flags = [f'-DPLUGIN="{plugin}"']
    library = str(compile_library(tmp_path, "liba.so", _CONSTRUCTOR, flags=flags))
    dumps = [dump(driver, "glibc", library, env=env) for env in (glibc, ours)]
    result = compare(library, dumps[0], dumps[1], None)
    assert [*result.by_nature] == ([reason] if reason else []), result
    assert bool(result.differences) is not bool(reason), result


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("int value;", ["-Wl,-z,execstack"]),
        ("int value(void) { return 1; }", ["-Wl,--omagic", "-nostdlib"]),
    ],
    ids=["an executable stack", "a writable text"],
)
def test_what_is_refused_by_design_is_told_apart(
    tmp_path: Path, libdlopen: Path, source: str, flags: list[str]
) -> None:
    driver = build_driver(tmp_path)
    library = str(compile_library(tmp_path, "liba.so", source, flags=flags))
    dumps = [dump(driver, loader, library) for loader in ("glibc", str(libdlopen))]
    assert dumps[1].error
    result = compare(library, dumps[0], dumps[1], None)
    assert not result.differences, result
    assert result.refused


@pytest.mark.parametrize(
    ("glibc", "ours"),
    [
        ("undefined symbol: one", None),
        (None, "undefined symbol: one"),
        ("undefined symbol: one", "undefined symbol: two"),
        ("liba.so: cannot open shared object file: No such file or directory", "out of memory"),
        ("cannot enable executable stack as shared object requires", None),
    ],
)
def test_a_refusal_that_is_not_shared_is_a_difference(glibc: str | None, ours: str | None) -> None:
    dumps = [Dump([], [], {0: error} if error else {}) for error in (glibc, ours)]
    result = compare("liba.so", dumps[0], dumps[1], None)
    assert [one.type for one in result.differences] == ["open"]
    assert not result.refused
