"""Without memory or descriptors: as libc's loader does, and once there is some again, all works."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support.fixtures import compile_library, compile_program, run

pytestmark = pytest.mark.cxx

MEMORY = pytest.mark.emulated(reason="qemu-user does not heed the program's RLIMIT_AS")
HERE = Path(__file__).parent
LEAF = "int leaf(int number) { return number + 1; }"
# More than the heap has left.
TLS = "__thread char many[1 << 20]; int touch(void) { return many[5]; }"


def start(folder: Path, libdlopen: Path | None, *arguments: str | Path) -> CompletedProcess[str]:
    program = compile_program(
        folder, "short", HERE / "short.cc", language="c++", flags=["-std=c++17", "-pthread"]
    )
    environment = {"LD_LIBRARY_PATH": str(folder)}
    if libdlopen:
        environment["LD_PRELOAD"] = str(libdlopen)
    return run([program, *arguments], env=environment, check=False)


@pytest.mark.parametrize("wish", [pytest.param("memory", marks=MEMORY), "descriptors"])
@pytest.mark.parametrize("by_path", [True, False], ids=["path", "name"])
def test_a_first_open_that_lacks_something_is_refused_with_a_reason_and_the_next_one_works(
    tmp_path: Path, libdlopen: Path, wish: str, by_path: bool
) -> None:
    library = compile_library(tmp_path, "libleaf.so", LEAF)
    asked = library if by_path else library.name
    expected = start(tmp_path, None, wish, asked)
    assert expected.stdout == "refused, with a reason\nopened\n2\nclosed: 0\n"
    done = start(tmp_path, libdlopen, wish, asked)
    assert (done.returncode, done.stdout) == (0, expected.stdout)
    if wish == "descriptors":
        assert "Too many open files" in expected.stderr
        assert "Too many open files" in done.stderr


@MEMORY
def test_thread_local_storage_without_memory_ends_the_process_as_libc_does(
    tmp_path: Path, libdlopen: Path
) -> None:
    library = compile_library(tmp_path, "libtouch.so", TLS)
    expected = start(tmp_path, None, "touch", library)
    assert expected.returncode == 127
    done = start(tmp_path, libdlopen, "touch", library)
    assert (done.returncode, done.stderr) == (expected.returncode, expected.stderr)


@MEMORY
def test_an_exception_for_want_of_memory_is_caught_though_the_linker_has_none_either(
    tmp_path: Path, libdlopen: Path
) -> None:
    expected = start(tmp_path, None, "throw")
    assert (expected.returncode, expected.stdout) == (0, "caught\n")
    done = start(tmp_path, libdlopen, "throw")
    assert (done.returncode, done.stdout) == (0, expected.stdout)


@MEMORY
def test_what_needs_no_memory_works_without(tmp_path: Path, libdlopen: Path) -> None:
    """What is no handle is refused (libc crashes), and libc's own names are found."""
    done = start(tmp_path, libdlopen, "unknown")
    assert (done.returncode, done.stdout) == (0, "-1 1 1\n")
