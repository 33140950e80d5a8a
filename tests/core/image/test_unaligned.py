"""Tables at addresses that the gABI does not allow and libc takes: LIEF writes such files."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.steps import Steps
from malformed.elf import OTHERS, READ_ONLY, RELOCATED, Elf, Mover
from support.fixtures import run_python
from support.machines import machine

SOURCE = Path(__file__).with_name("unaligned.c")
STEPS = (
    *("open:./liba.so:l", "call:0:sum", "value:0:counter", "call:0:value", "call:0:value@V1"),
    *("find:0:value@V3", "find:0:none", "close:0", "mapped:liba.so"),
)
SAID = ["begin", "opened", "350", "42", "5000", "1000", "not found", "not found"]
SAID += ["end 42", "closed", "0"]

ALL = {
    what: number % 7 + 1
    for number, what in enumerate((*READ_ONLY, *RELOCATED, *OTHERS))
    if what not in ("HASH", "RELR")
}


def moved(path: Path, whither: dict[str, int]) -> None:
    """The library's tables go so many bytes above a multiple of eight."""
    elf = Elf(path.read_bytes())
    read_only, writable = (elf.symbol_named(name) for name in ("room", "writable_room"))
    mover = Mover(elf, elf.get(read_only["st_value"]), elf.get(writable["st_value"]))
    for what, odd in whither.items():
        mover.move(what, odd)
    assert bytes(elf.data) != path.read_bytes()
    path.write_bytes(bytes(elf.data))


def make(steps: Steps, what: str) -> Path:
    script = steps.directory / "a.map"
    script.write_text(
        "V1 { global: value; local: *; };"
        "V2 { global: value; sum; counter; room; writable_room; } V1;"
    )
    flags = [f"-Wl,--version-script={script}", "-Wl,-z,lazy", "-Wl,--build-id", "-fno-builtin"]
    flags.append("-Wl,--hash-style=sysv" if what == "HASH" else "-Wl,--hash-style=gnu")
    if what == "RELR":
        flags += machine().packed
    return steps.library("a", SOURCE.read_text(), *flags)


@pytest.mark.parametrize("odd", [1, 2, 4, 6, 7])
@pytest.mark.parametrize("what", [*READ_ONLY, *RELOCATED, *OTHERS])
def test_one_table(steps: Steps, what: str, odd: int) -> None:
    path = make(steps, what)
    moved(path, {what: odd})
    # libc wants a version of its own beside DT_RELR, which older linkers do not write.
    is_libcs = what != "RELR" or b"GLIBC_ABI_DT_RELR" in path.read_bytes()
    assert (steps.both if is_libcs else steps.ours)(*STEPS) == SAID


def test_all_tables(steps: Steps) -> None:
    moved(make(steps, "GNU_HASH"), ALL)
    assert steps.both(*STEPS) == SAID


@pytest.mark.parametrize("loads", ["Library", "os_dlopen"])
def test_what_python_says_of_it(steps: Steps, loads: str) -> None:
    """Ours, and one of the host's, whose tables are read where they are."""
    path = make(steps, "GNU_HASH")
    code = """
import ctypes, sys, dlopen
if sys.argv[2] == "os_dlopen":
    kept = ctypes.CDLL(sys.argv[1])
    lib = dlopen.existing(sys.argv[1])
else:
    lib = dlopen.Library(sys.argv[1])
info = lib.info
print(sorted(lib.symbols), [(one.type, one.filesz) for one in info.segments])
print(info.versions, len(info.relocations), info.needed, info.soname)
print(lib.sum(), lib.symbols["value@V1"].version, dlopen.dladdr(lib.symbols["sum"]).symbol.name)
with lib.patch(abs=dlopen.callback(ctypes.c_int, ctypes.c_int)(lambda one: 7)) as patch:
    print(lib.sum(), dict(patch.places))
lib.close()
"""
    plain = run_python(code, str(path), loads).stdout
    moved(path, ALL)
    assert run_python(code, str(path), loads).stdout == plain
    assert "'sum'" in plain
