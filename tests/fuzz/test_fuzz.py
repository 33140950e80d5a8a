"""That the fuzzer's seeds are good files, and that it sees what it is there to see."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import dlopen
from fuzz import run, seeds
from support.fixtures import missing, need_tool


@pytest.mark.parametrize("kind", seeds.KINDS)
def test_a_seed_loads(kind: str, tmp_path: Path) -> None:
    """One that is refused at once would show nothing."""
    content = seeds.library(tmp_path, kind)
    assert len(content) < 16384
    with dlopen.Library.from_bytes(content, name=f"{kind}.so") as library:
        assert library.symbols


def test_the_caches_are_caches(tmp_path: Path) -> None:
    """For ldconfig(8), which reads them with code of its own."""
    ldconfig = need_tool("/sbin/ldconfig")
    for name, content in seeds.caches():
        if name.startswith(("plain", "hwcaps", "old")):
            wanted, _, cache = content.partition(b"\0")
            (tmp_path / "cache").write_bytes(cache)
            command = [ldconfig, "-p", "-C", str(tmp_path / "cache")]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert "6 libs found" in said or "8 libs found" in said, (name, said)
            assert wanted.decode() in said or wanted == b"libnone.so", (name, said)
            assert ("x86-64-v2" in said) == name.startswith("hwcaps")


def test_the_archives_are_opened(tmp_path: Path) -> None:
    for name, content in seeds.archives(tmp_path):
        files = {}
        rest = content
        while rest:
            path, _, rest = rest.partition(b"\0")
            size = int.from_bytes(rest[:4], "little")
            files[path.decode()] = rest[4 : 4 + size]
            rest = rest[4 + size :]
        first = next(iter(files))
        if name == "missing":
            with pytest.raises(dlopen.LoadError):
                dlopen.Library(first, files=files)
        else:
            dlopen.Library(first, files=files).close()


def test_a_summary_is_read() -> None:
    said = "#12 NEW cov: 34 ft: 5\n#20 DONE cov: 36 ft: 9\nstat::number_of_executed_units: 20\n"
    assert run.last_number(r"\bcov: (\d+)", said) == 36
    assert run.last_number(r"stat::number_of_executed_units: +(\d+)", said) == 20
    said = "WRONG: leaks\nSUMMARY: libFuzzer\nx; Test unit written to /a b/map-crash-1\n"
    line = run.describe("map", said, 77, Path("/fuzz"))
    assert line == "map: WRONG: leaks; again: DLOPEN_FUZZ=map /fuzz '/a b/map-crash-1'"


@pytest.mark.slow
def test_a_planted_leak_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    try:
        clang = run.find_clang()
    except SystemExit:
        missing("clang is not installed")
    program = run.build(clang)
    monkeypatch.setattr(run, "BUILD", tmp_path)
    seeds.write(tmp_path / "seeds")
    clean = run.fuzz("map", 5, program, clang)
    assert clean.executions > 1000
    assert clean.edges > 500
    assert not clean.failures
    monkeypatch.setenv("DLOPEN_FUZZ_PLANT", "1")
    planted = run.fuzz("map", 60, program, clang)
    assert planted.failures
    assert re.match(r"map: WRONG: leaks a mapping; again: DLOPEN_FUZZ=map ", planted.failures[0])
