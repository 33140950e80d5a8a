"""How much of the stack the linker takes: threads and signal handlers may have little."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, run, run_python
from support.machines import machine

HERE = Path(__file__).parent
NOW, LAZY = "2", "1"
CHAIN = 60
_LIMITS = {"open": 6 * 1024 + 256, "close": 4 * 1024, "call": 2560, "find": 4 * 1024}
_MORE = 0 if machine().name == "x86_64" else 1024  # more registers that a function keeps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    flags = ["-Wl,-z,lazy", "-Wl,--no-as-needed"]
    end = "static int ends; __attribute__((destructor)) static void end(void) { ends++; }"
    plain = compile_library(folder, "libplain.so", "int leaf(void) { return 7; }" + end)
    compile_library(folder, "libother.so", "int other(void) { return 3; }")
    compile_library(
        folder,
        "libuser.so",
        "int leaf(void); int call(void) { return leaf(); }" + end,
        libraries=[plain],
        flags=flags,
    )
    compile_library(folder, "libbroken.so", "int nowhere(void); int (*place)(void) = nowhere;")
    compile_library(folder, "libstray.so", "", libraries=[plain], rpath="", soname="libstray.so")
    # Each needs the one before.
    before = plain
    for number in range(CHAIN):
        source = f"int link{number}(void) {{ return {number}; }}" + end
        before = compile_library(
            folder, f"liblink{number}.so", source, libraries=[before], flags=flags
        )
    compile_program(folder, "stack", HERE / "stack.c", flags=["-pthread"])
    return folder


def measure(folder: Path, loader: str | Path, *arguments: str, path: str = "") -> int:
    environment = {"LD_LIBRARY_PATH": path} if path else {}
    done = run([folder / "stack", loader, *arguments], cwd=folder, env=environment)
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize(
    "arguments",
    [
        ("open",),
        ("open", "./libuser.so", LAZY),
        ("open", "./libuser.so", NOW),
        ("open", f"./liblink{CHAIN - 1}.so", NOW),
        ("open-searched", "libplain.so"),
        ("open-failed", "./nonesuch.so"),
        ("open-failed", "libnonesuch.so"),
        ("open-failed", "./libbroken.so", NOW),
        ("open-failed", "./stack", NOW),
        ("first-open",),
        ("close",),
        ("close", "./libuser.so", NOW),
        ("close", f"./liblink{CHAIN - 1}.so", NOW),
        ("find",),
        ("call", "./libuser.so", LAZY),
    ],
    ids=" ".join,
)
def test_what_it_takes(folder: Path, libdlopen: Path, arguments: tuple[str, ...]) -> None:
    folders = [folder, *(folder / f"folder{number}" for number in range(40))]
    path = ":".join(map(str, reversed(folders)))
    used = measure(folder, libdlopen, *arguments, path=path)
    libcs = measure(folder, "glibc", *arguments, path=path)
    state = measure(folder, "glibc", "state") if arguments[0] == "call" else 0
    limit = next(size for name, size in _LIMITS.items() if name in arguments[0]) + state + _MORE
    if "failed" in arguments[0]:
        limit = max(limit, libcs + 1024)  # it is asked, too: it may know the file by another path
    print(f"{' '.join(arguments)}: {used}, libc's {libcs}, limit {limit}")
    assert 256 < used <= limit


def test_a_small_thread_of_python(folder: Path) -> None:
    """As small as Python allows: 32 KiB, 52 from 3.14 on; ctypes opens a library in it, too."""
    code = """
import ctypes, sys, threading
import dlopen
ctypes.CDLL(sys.argv[1] + "/libother.so").other()
with dlopen.Library(sys.argv[1] + "/libother.so") as lib:
    lib.other()
results = []
for size in range(32, 128, 4):
    try:
        threading.stack_size(size * 1024)
    except ValueError:
        continue
    break
def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
def use(library):
    results.append(library(sys.argv[1] + "/libuser.so").call())
def use_ours():
    with dlopen.Library(sys.argv[1] + "/libuser.so") as lib:
        results.append(lib.call())
        lib.symbols["call"]
def fail():
    try:
        dlopen.Library("libnonesuch.so")
    except dlopen.LoadError as error:
        results.append(error.library)
in_thread(lambda: use(ctypes.CDLL))
in_thread(use_ours)
in_thread(fail)
print(results)
"""
    assert run_python(code, str(folder)).stdout == "[7, 7, 'libnonesuch.so']\n"
