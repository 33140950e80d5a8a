"""Exceptions, cancellation and backtraces through our images; each the same as under glibc."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.elf64 import Elf
from support.fixtures import (
    compile_library,
    compile_program,
    compiler,
    missing,
    run,
)
from support.machines import machine

HERE = Path(__file__).parent
HEADERS = [f"-I{HERE}"]
PLAIN = "int answer(void) { return 42; }"
DEEPER = '#include "unwinding.h"\nvoid fail_elsewhere(int value) { throw Own(value); }\n'

SCENARIOS = {
    "inside": "11132",
    "to host": "~library ~caller 42 ~library ~caller text "
    "~library ~caller from the library ~library ~caller Own 3 ",
    "host library host": "~host ~library from the host ",
    "rethrow": "~host ~library rethrown ~outer from the host ",
    "translate": "~host ~library Own 9 ",
    "foreign": "~library swallowed deleted ~library caught deleted ~library caught forgotten ",
    "to another thread": "Own 11 11 ",
    "across two libraries": "5 ",
    "cancel": "~library ~thread cancelled ",
    "thread exit": "~library ~thread exited ",
    "throwing visitor": "1 ",
    "visitor that ends the thread": "~thread ",
}
# libc unwinds with libgcc_s, or is unwound with its routines: with LLVM's functions in the rest of
# the program that crashes, under glibc too.
LIBCS_OWN = ("cancel", "thread exit", "throwing visitor", "visitor that ends the thread")


def make_libraries(directory: Path, *flags: str) -> None:
    deeper = compile_library(directory, "libdeeper.so", DEEPER, language="c++", flags=HEADERS)
    compile_library(
        directory,
        "libsubject.so",
        HERE / "subject.cc",
        language="c++",
        flags=["-std=c++17", *flags],
        libraries=[deeper],
    )
    for name in ("plain", "other"):
        compile_library(directory, f"lib{name}.so", PLAIN, flags=["-nostartfiles"])


def make_program(directory: Path, *flags: str) -> Path:
    source = HERE / "unwinding.cc"
    flags = ("-std=c++17", "-rdynamic", "-pthread", *HEADERS, *flags)
    return compile_program(directory, "unwinding", source, language="c++", flags=flags)


def both(
    program: Path, libdlopen: Path, rounds: int, *scenarios: str, env: dict[str, str] | None = None
) -> list[str]:
    """What the scenarios say; the same under glibc."""
    command = [str(rounds), *scenarios]
    glibc = run([program, "glibc", *command], cwd=program.parent, check=not machine().is_foreign)
    if glibc.returncode:
        pytest.skip("this compiler's unwinder beside that release's libgcc_s crashes under glibc")
    ours = run([program, libdlopen, *command], cwd=program.parent, env=env)
    assert ours.stdout == glibc.stdout
    return ours.stdout.splitlines()


def llvm_unwinder() -> str:
    """LLVM's libunwind, as Debian and Ubuntu install it; another libunwind has the same name."""
    if machine().is_foreign:
        pytest.skip(f"Debian has LLVM's libunwind of {machine().name} among its compilers only")
    found = sorted(Path("/usr/lib").glob("llvm-*/lib/libunwind.so"))
    return str(found[-1]) if found else missing("LLVM's libunwind is not installed")


@pytest.mark.cxx
@pytest.mark.parametrize("rounds", [1, 200], ids=["alone", "while others open and close"])
@pytest.mark.parametrize("library", [(), ("-static-libgcc",), ("-nostartfiles",)], ids=" ".join)
def test_scenarios(tmp_path: Path, libdlopen: Path, library: tuple[str, ...], rounds: int) -> None:
    make_libraries(tmp_path, *library)
    lines = both(make_program(tmp_path), libdlopen, rounds, *SCENARIOS)
    assert dict(zip(SCENARIOS, lines, strict=True)) == SCENARIOS


@pytest.mark.cxx
@pytest.mark.parametrize("rounds", [1, 200], ids=["alone", "while others open and close"])
def test_scenarios_of_a_library_from_bytes(tmp_path: Path, libdlopen: Path, rounds: int) -> None:
    """The library that throws, is cancelled in and is traced is in no file."""
    make_libraries(tmp_path)
    from_bytes = {"SUBJECT_FROM_BYTES": "1"}
    lines = both(make_program(tmp_path), libdlopen, rounds, *SCENARIOS, "trace", env=from_bytes)
    assert dict(zip(SCENARIOS, lines, strict=False)) == SCENARIOS


@pytest.mark.cxx
@pytest.mark.parametrize(
    "flags",
    [
        lambda: ["-Wl,--no-as-needed", llvm_unwinder()],
        lambda: ["-static-libgcc", "-Wl,--allow-shlib-undefined"],
        lambda: ["-Wl,-z,norelro"],
        lambda: ["-no-pie", "-Wl,-z,lazy"],
    ],
    ids=["LLVM's unwinder", "its own unwinder", "without RELRO", "bound lazily"],
)
def test_scenarios_in_a_program_with(
    tmp_path: Path, libdlopen: Path, flags: Callable[[], list[str]]
) -> None:
    make_libraries(tmp_path)
    program = make_program(tmp_path, *flags())
    chosen = dict(SCENARIOS)
    if "libunwind.so.1" in Elf(program).needed:
        for name in LIBCS_OWN:
            del chosen[name]
    assert dict(zip(chosen, both(program, libdlopen, 20, *chosen), strict=True)) == chosen


PASS = 'void pass(void (*callback)(void)) { callback(); __asm__ volatile(""); }'
THROUGH = """
#include <stdexcept>
typedef void pass(void (*)());
static void fail() { throw std::runtime_error("*"); }
extern "C" int through(pass *pass) {
  try { pass(fail); } catch (const std::exception &e) { return e.what()[0]; }
  return -1;
}
"""


def late(directory: Path, libdlopen: Path, library: str, *, look: bool) -> str:
    """The same output of late.c under both; its error output is for a failed test."""
    compile_library(directory, "libpass.so", PASS)
    program = compile_program(
        directory, "late", HERE / "late.c", flags=["-rdynamic", "-pthread", *HEADERS]
    )
    outputs = {
        run(
            [program, loader, library and f"./{library}", "look" if look else "do not"],
            cwd=directory,
        ).stdout
        for loader in ("glibc", str(libdlopen))
    }
    assert len(outputs) == 1
    return outputs.pop()


def test_what_libc_brings_in(tmp_path: Path, libdlopen: Path) -> None:
    assert late(tmp_path, libdlopen, "", look=False) == "cancelled 1\npass main "


@pytest.mark.cxx
def test_a_library_that_brings_libgcc(tmp_path: Path, libdlopen: Path) -> None:
    compile_library(tmp_path, "libthrough.so", THROUGH, language="c++")
    assert late(tmp_path, libdlopen, "libthrough.so", look=False) == "42\n"


@pytest.mark.cxx
@pytest.mark.parametrize("look", [False, True], ids=["at once", "after a look"])
@pytest.mark.parametrize(
    "flags",
    [
        lambda: ["-static-libgcc", "-static-libstdc++"],
        lambda: ["-static-libgcc", "-static-libstdc++", "-Wl,-z,now"],
        lambda: ["-Wl,--no-as-needed", llvm_unwinder()],
    ],
    ids=["of its own", "of its own, under RELRO", "of LLVM"],
)
def test_a_library_that_brings_an_unwinder(
    tmp_path: Path, libdlopen: Path, flags: Callable[[], list[str]], *, look: bool
) -> None:
    compile_library(tmp_path, "libthrough.so", THROUGH, language="c++", flags=flags())
    assert late(tmp_path, libdlopen, "libthrough.so", look=look) == "42\n"


def table(directory: Path, libdlopen: Path, case: str, preload: str = "") -> list[str]:
    """What table.c says; the test is skipped where the kernel cannot do what it is about."""
    compile_library(directory, "libpass.so", PASS)
    compile_library(directory, "libthrough.so", THROUGH, language="c++")
    program = compile_program(
        directory, "table", HERE / "table.c", flags=["-rdynamic", "-pthread", *HEADERS]
    )
    env = {"LD_PRELOAD": preload} if preload else {}
    done = run([program, libdlopen, case], cwd=directory, env=env, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no such thing")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.cxx
@pytest.mark.parametrize("case", ["plain", "child", "no gain of execution", "namespace"])
def test_no_library_is_brought_in(tmp_path: Path, libdlopen: Path, case: str) -> None:
    """Nor is libc mapped otherwise, but for tables beside its code; later ones find our frames."""
    assert table(tmp_path, libdlopen, case) == ["libgcc_s is not there", "42"]


@pytest.mark.cxx
def test_no_library_is_brought_in_by_the_preload(tmp_path: Path, libdlopen: Path) -> None:
    said = table(tmp_path, libdlopen, "plain", preload=str(libdlopen))
    assert said == ["libgcc_s is not there", "42"]


@pytest.mark.cxx
def test_a_table_that_cannot_be_written(tmp_path: Path, libdlopen: Path) -> None:
    """Then the unwinder that nearly all share is there before our first image."""
    assert table(tmp_path, libdlopen, "refused") == ["libgcc_s is there", "42"]


@pytest.mark.cxx
def test_the_two_names_in_libcs_table(tmp_path: Path, libdlopen: Path) -> None:
    assert table(tmp_path, libdlopen, "names") == [
        "libgcc_s is not there",
        *("_dl_find_object of another", "dl_iterate_phdr of another"),
    ]


@pytest.mark.in_process
@pytest.mark.cxx
def test_between_two_libraries_that_ctypes_has_opened(tmp_path: Path) -> None:
    """From Python: no library is brought in, and an exception goes from the one to the other."""
    compile_library(tmp_path, "libpass.so", PASS)
    compile_library(tmp_path, "libthrough.so", THROUGH, language="c++")
    code = """
import ctypes
import dlopen
passes = dlopen.Library("./libpass.so")
if "/libgcc_s" not in before and "/libgcc_s" in open("/proc/self/maps").read():
    print("libgcc_s was brought in")
through = ctypes.CDLL("./libthrough.so").through
print(through(ctypes.c_void_p(int(passes.symbols["pass"]))))
"""
    code = "before = open('/proc/self/maps').read()\n" + code
    assert run([sys.executable, "-c", code], cwd=tmp_path).stdout == "42\n"


FINISHES = """
#include <stdexcept>
#include <unistd.h>
static __attribute__((noinline)) void fail() { throw std::runtime_error("*"); }
__attribute__((destructor)) static void finish() {
  try { fail(); } catch (const std::exception &) { (void)!write(1, "caught\\n", 7); }
}
"""
CLOSES = """
#define _GNU_SOURCE
#include "loader.h"
int main(int argc, char **argv) {
  use_loader(argv[1]);
  library_close(library_open("./libfinishes.so"));
  library_open("./libfinishes.so");
}
"""


@pytest.mark.cxx
def test_an_exception_in_a_destructor(tmp_path: Path, libdlopen: Path) -> None:
    """Of a library that is being closed, and at the end of the process."""
    compile_library(tmp_path, "libfinishes.so", FINISHES, language="c++")
    program = compile_program(tmp_path, "closes", CLOSES, flags=HEADERS)
    for loader in ("glibc", str(libdlopen)):
        assert run([program, loader], cwd=tmp_path).stdout == "caught\ncaught\n", loader


@pytest.mark.cxx
@pytest.mark.rust
def test_panics(tmp_path: Path, libdlopen: Path) -> None:
    version = subprocess.run([compiler("rust"), "-V"], capture_output=True, text=True, check=True)
    if tuple(map(int, version.stdout.split()[1].split(".")[:2])) < (1, 71):
        pytest.skip('Rust has "C-unwind" since 1.71')
    compile_library(tmp_path, "libpanics.so", HERE / "panics.rs", language="rust")
    program = compile_program(
        tmp_path, "panics", HERE / "panics.cc", language="c++", flags=["-std=c++17", *HEADERS]
    )
    for loader in ("glibc", str(libdlopen)):
        done = run([program, loader], cwd=tmp_path)
        assert done.stdout == "42\n~library ~host 8\n~host ~library caught ", loader
