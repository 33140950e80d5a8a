"""Symbol versions, as glibc has them: "ELF Symbol Versioning" in the gABI's GNU extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import elf64

if TYPE_CHECKING:
    from pathlib import Path

    from core.steps import Steps

_CALL = "int value(void); int call(void) { return value(); }"
_TWO = """
__asm__(".symver old_value, value@V1");
__asm__(".symver new_value, value@@V2");
int old_value(void) { return 1; }
int new_value(void) { return 2; }
"""
_MAP = "V1 { global: value; local: *; }; V2 { global: value; } V1;"


def versioned(steps: Steps, name: str, source: str, text: str, *flags: str) -> Path:
    script = steps.directory / f"{name}.map"
    script.write_text(text)
    return steps.library(name, source, f"-Wl,--version-script={script}", *flags)


def test_the_default_version_is_what_a_new_reference_gets(steps: Steps) -> None:
    b = versioned(steps, "b", _TWO, _MAP)
    steps.library("a", _CALL, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call")[-1] == "2"


def test_a_reference_keeps_its_old_version(steps: Steps) -> None:
    b = versioned(steps, "b", _TWO, _MAP)
    old = '__asm__(".symver value, value@V1");' + _CALL
    steps.library("a", old, needs=[b])
    assert steps.both("open:./liba.so", "call:0:call")[-1] == "1"


def test_dlsym_finds_the_default_and_dlvsym_any(steps: Steps) -> None:
    versioned(steps, "b", _TWO, _MAP)
    said = steps.both(
        *("open:./libb.so", "call:0:value", "call:0:value@V1", "call:0:value@V2", "find:0:value@V3")
    )
    assert said[1:] == ["2", "1", "2", "not found"]


def test_a_reference_without_version_gets_the_base_definition(steps: Steps) -> None:
    # Linked when the library had no versions: gets the oldest one, hidden or not.
    b = steps.library("b", "int value(void) { return 0; }")
    steps.library("a", _CALL, needs=[b])
    versioned(steps, "b", _TWO, _MAP)
    assert steps.both("open:./liba.so", "call:0:call")[-1] == "1"


def test_a_version_that_the_library_no_longer_has_is_an_error(steps: Steps) -> None:
    b = versioned(steps, "b", _TWO, _MAP)
    steps.library("a", _CALL, needs=[b])
    versioned(steps, "b", "int value(void) { return 5; }", "V9 { global: value; };")
    assert steps.both("open:./liba.so") == ["not opened"]
    message = steps.run(str(steps.libdlopen), "open:./liba.so").stderr
    assert "V2" in message
    assert "libb.so" in message


def test_a_weak_version_may_be_missing(steps: Steps) -> None:
    b = versioned(steps, "b", _TWO, _MAP)
    a = steps.library("a", "__attribute__((weak)) int value(void);"
                      "int call(void) { return value ? value() : -1; }", needs=[b])  # fmt: skip
    elf = elf64.Elf(a)
    data = bytearray(elf.data)
    at = elf.offset(elf.tags[elf64.DT_VERNEED])
    changed = 0
    for _ in range(elf.tags[elf64.DT_VERNEEDNUM]):
        count, aux = data[at + 2], int.from_bytes(data[at + 8 : at + 12], "little")
        entry = at + aux
        for _ in range(count):
            name = int.from_bytes(data[entry + 8 : entry + 12], "little")
            if elf.string(name) == "V2":
                data[entry + 4] |= 2  # VER_FLG_WEAK
                changed += 1
            entry += int.from_bytes(data[entry + 12 : entry + 16], "little")
        at += int.from_bytes(data[at + 12 : at + 16], "little")
    assert changed == 1
    a.write_bytes(data)
    versioned(steps, "b", "int other(void) { return 5; }", "V1 { global: other; };")
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "-1"]


def test_a_library_that_defines_no_versions_binds(steps: Steps) -> None:
    # It has a versym table all the same, for what it needs of libc.
    b = versioned(steps, "b", _TWO, _MAP)
    steps.library("a", _CALL, needs=[b])
    steps.library("b", '#include <stdlib.h>\nint value(void) { return 5 + !getenv("PATH"); }')
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "5"]


def test_a_library_without_version_information_where_one_is_needed(steps: Steps) -> None:
    b = versioned(steps, "b", _TWO, _MAP)
    steps.library("a", _CALL, needs=[b])
    steps.library("b", "int value(void) { return 5; }", "-nostdlib")
    asked = ("open:./liba.so", "call:0:call")
    glibc = steps.run("glibc", *asked, check=False)
    if "Assertion" in glibc.stderr:  # of older releases, which ends the process
        assert glibc.returncode != 0
        refused = steps.run(str(steps.libdlopen), *asked[:1])
        assert refused.stdout == "not opened\n"
        assert "no version information" in refused.stderr
    else:
        assert steps.both(*asked) == ["opened", "5"]


def test_the_same_version_name_of_two_libraries(steps: Steps) -> None:
    # A verneed entry names a file, but any library with the symbol and version will do.
    b = versioned(steps, "b", "int value(void) { return 1; }", "V1 { global: value; };")
    c = versioned(steps, "c", "int value(void) { return 2; }", "V1 { global: value; };")
    first = steps.library("a", _CALL, needs=[b])
    assert first.exists()
    steps.library("g", needs=[c, first])
    assert steps.both("open:./libg.so", "call:0:call")[-1] == "2"


def test_a_definition_without_version_serves_a_versioned_reference(steps: Steps) -> None:
    b = versioned(steps, "b", _TWO, _MAP)
    steps.library("a", _CALL, needs=[b])
    steps.library("g", "int value(void) { return 7; }")
    assert steps.both("open:./libg.so:g", "open:./liba.so", "call:1:call")[-1] == "7"
