"""A call that is bound lazily keeps what holds arguments; one that would not is bound at once.

Of vectors only what the base convention has is kept. Functions that take more of them have a mark:
`.variant_pcs`, `.variant_cc`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.steps import Steps
from support.fixtures import need_tool, run
from support.machines import machine

HERE = Path(__file__).parent
# How many words arguments may be in.
_WORDS = {"aarch64": 11 + 16, "riscv64": 16, "loongarch64": 8 + 2 + 32}
_RECEIVED = "#include <stdint.h>\nuint64_t received[2048];"


def _libraries(steps: Steps, *defines: str) -> None:
    assembly = ("-xassembler-with-cpp", str(HERE / "arguments.S"))
    callee = steps.library("b", _RECEIVED, "-DFUNCTION=receive", *defines, *assembly)
    source = (HERE / "arguments.c").read_text()
    flags = ("-DFUNCTION=give", "-DGIVES", *defines, *assembly)
    steps.library("a", source, *flags, needs=[callee])


@pytest.mark.only_on("aarch64", "riscv64", "loongarch64")
def test_a_lazy_call_keeps_all_arguments(steps: Steps) -> None:
    _libraries(steps)
    count = str(_WORDS[machine().name])
    looks = ["call:0:check", "call:0:words"] * 2
    assert steps.ours("open:./liba.so:l", *looks) == ["opened", *["0", count] * 2]
    if machine().name != "loongarch64":  # where libc loses what holds a static chain
        steps.both("open:./liba.so:l", *looks)


@pytest.mark.only_on("aarch64", "riscv64")
def test_a_marked_call_keeps_all_vectors(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    _libraries(steps, "-DVARIANT")
    if machine().name == "riscv64":
        monkeypatch.setenv("QEMU_CPU", "rv64,v=true")
    elif not int(steps.ours("open:./liba.so", "call:0:hwcap")[1]) >> 22 & 1:
        pytest.skip("this processor has no SVE")
    looks = ["call:0:check", "call:0:words"] * 2
    done = steps.ours("open:./liba.so:l", *looks)
    assert done[1:] == ["0", done[2]] * 2
    assert int(done[2]) >= 64
    if machine().name == "aarch64":  # on RISC-V libc does not look at the mark
        assert steps.both("open:./liba.so:l", *looks) == done


@pytest.mark.only_on("aarch64", "riscv64")
@pytest.mark.parametrize("marked", [False, True])
def test_a_marked_call_is_bound_at_once(steps: Steps, *, marked: bool) -> None:
    mark = {"aarch64": ".variant_pcs", "riscv64": ".variant_cc"}[machine().name]
    mark = f'__asm__("{mark} missing");' if marked else ""
    path = steps.library("a", f"{mark} void missing(void); void call(void) {{ missing(); }}")
    tag = {"aarch64": "AARCH64_VARIANT_PCS", "riscv64": "VARIANT_CC"}[machine().name]
    readelf = need_tool(f"{machine().triplet}-readelf")
    assert (tag in run([readelf, "-dW", path]).stdout) == marked
    if marked:
        steps.refused("open:./liba.so:l", detail="missing")
    else:
        assert steps.ours("open:./liba.so:l") == ["opened"]
    if machine().name == "aarch64":
        expected = "not opened\n" if marked else "opened\n"
        assert steps.run("glibc", "open:./liba.so:l").stdout == expected
