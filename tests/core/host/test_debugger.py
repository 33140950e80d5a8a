"""Debuggers see the images: gdb's breakpoints, backtraces and lists, and what lldb is shown.

gdb is the judge wherever it can be.  lldb is far larger: what it reads, and when, is looked at
from inside the process instead, where r_brk is replaced (`watch` of steps.c).
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elftools.elf.elffile import ELFFile

from core.steps import Steps
from support.archives import pack
from support.fixtures import compile_library, compile_program, need_tool, run
from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent

# Two of these, as if from files of their own.
SOURCE = """#line 2 "source_%(name)s.c"
static int offset;
__attribute__((constructor)) static void start_%(name)s(void) {
  offset = 40;
}
int add_%(name)s(int left, int right) {
  int sum = left + right;
  sum += offset;
  return sum;
}
int call_%(name)s(void) { return add_%(name)s(1, 1); }
"""
LINE = 8  # sum += offset
CALLED = 42
ANSWER = "int answer(void) { return 42; }"

# gdb asks nobody, and in English.
ALONE = {"DEBUGINFOD_URLS": "", "LC_ALL": "C"}

# It goes by address, and is not in the memory that is unmapped.
stays = pytest.mark.emulated(
    reason="a breakpoint in an emulator stays where a library was unmapped, for the next one there"
)

# Threads that come and go while glibc adds lists of its own to the chain.
THREADS = """
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include "loader.h"
struct debug { struct r_debug base; struct debug *next; };
static void *come_and_go(void *name) {
  for (int i = 0; i < 300; i++) library_close(library_open(name));
  return NULL;
}
int main(int argc, char **argv) {
  use_loader(argv[1]);
  void *kept = library_open(argv[2]);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, come_and_go, argv[3 + i]);
  void *others[6];
  for (int i = 0; i < 6; i++) {
    if (!(others[i] = dlmopen(LM_ID_NEWLM, argv[3], RTLD_NOW))) failed("dlmopen", dlerror());
    usleep(1000);
  }
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  library_close(library_open(argv[3])); /* should ours have been lost to one of glibc's */
  const struct debug *debug = NULL;
  for (const ElfW(Dyn) *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++)
    if (entry->d_tag == DT_DEBUG) debug = (void *)entry->d_un.d_ptr;
  for (; debug; debug = debug->next) {
    struct link_map *before = NULL;
    int found = 0;
    for (struct link_map *map = debug->base.r_map; map; before = map, map = map->l_next) {
      if (map->l_prev != before) failed("chain", "inconsistent");
      found += strstr(map->l_name, "/libcoming") || strstr(map->l_name, "/libkept");
    }
    printf("%d\\n", found);
  }
  library_close(kept);
  return 0;
}
"""


def gdb(command: Sequence[str | Path], *steps: str, cwd: Path | None = None) -> str:
    """What gdb prints when it runs the steps on a program, until the program's end."""
    if machine().is_foreign:
        return gdb_of_another_machine(command, *steps)
    arguments = [part for step in ("set breakpoint pending on", *steps) for part in ("-ex", step)]
    done = run(
        [need_tool("gdb"), "-nx", "-batch", *arguments, "--args", *command],
        cwd=cwd,
        env=ALONE,
    )
    return done.stdout + done.stderr


def gdb_of_another_machine(command: Sequence[str | Path], *steps: str) -> str:
    """The same, of a program in an emulator, which stands at its first instruction.

    That this process is debugged, no program there can see.
    """
    program, socket = Path(command[0]), Path(command[0]).with_name("debugger")
    words, environment = machine().run(
        str(program), {**os.environ, "QEMU_GDB": str(socket)}, {"DLOPEN_DEBUGGER": "1"}
    )
    if machine().name == "aarch64":
        # Before 8.1 qemu does not tell gdb which bits of a return address sign it.
        environment["QEMU_CPU"] = "max,pauth=off"
    folders = ":".join(str(path.parent) for path in machine().sysroot.rglob("libc.so.6"))
    arguments = [
        part
        for step in (
            "set sysroot", f"set solib-search-path {folders}:{folders.removesuffix('/lib')}",
            "set breakpoint pending on", f"file {program}", f"target remote {socket}",
            *("continue" if step == "run" else step for step in steps),
        )
        for part in ("-ex", step)
    ]  # fmt: skip
    debugger = need_tool("gdb-multiarch")
    with subprocess.Popen(
        [*words, *map(str, command)], stdout=subprocess.PIPE, text=True, env=environment
    ) as emulator:
        try:
            while not socket.exists() and emulator.poll() is None:
                time.sleep(0.01)
            done = run([debugger, "-nx", "-batch", *arguments], env=ALONE)
            said, _ = emulator.communicate(timeout=60)
        finally:
            emulator.kill()
            socket.unlink(missing_ok=True)
    return done.stdout + done.stderr + said


def listed(output: str) -> Iterator[list[str]]:
    """The files of each `info sharedlibrary`, in order."""
    for part in output.split("Shared Object Library\n")[1:]:
        # Newer ones have a column for the linker's namespaces, where there are some.
        line = r"^0x\S+ +0x\S+ +(?:\S+ +)?Yes(?: \(\*\))? +(.*)$"
        yield re.findall(line, part, flags=re.MULTILINE)


def two_libraries(steps: Steps) -> tuple[str, str]:
    """One to open from its file, one from its bytes."""
    file, from_bytes = (
        steps.library(name, SOURCE % {"name": name}, "-g", "-O0") for name in ("file", "bytes")
    )
    return str(file), str(from_bytes)


def test_breakpoints_backtraces_and_variables(steps: Steps) -> None:
    """Also in constructors, which run while the library is being opened."""
    file, from_bytes = two_libraries(steps)
    program = steps.make_program("", "-g")
    output = gdb(
        [
            program, steps.libdlopen, "descriptors", f"open:{file}", "call:0:call_file",
            f"bytes:{from_bytes}", "call:1:call_bytes", "close:0", "close:1", "descriptors",
            "atexit",
        ],
        "break start_file", "break add_file", "break start_bytes", f"break source_bytes.c:{LINE}",
        "break atexit",
        "run", "backtrace",
        "continue", "backtrace", "info args", "next", "info locals",
        "continue", "backtrace",
        "continue", "backtrace", "info locals", "info sharedlibrary",
        "continue", "info sharedlibrary",
        "delete", "continue",
    )  # fmt: skip
    stops = re.findall(r"^Breakpoint (\d+), (?:0x\S+ in )?(\w+)", output, flags=re.MULTILINE)
    names = ["start_file", "add_file", "start_bytes", "add_bytes", "atexit"]
    assert [name for _, name in stops] == names, output
    assert [int(number) for number, _ in stops] == [1, 2, 3, 4, 5]
    traces = output.split("\nBreakpoint ")
    for trace in traces[-5:-1]:
        assert re.search(r"#\d+ .*\bmain \(", trace), output
    # The function's own frame, that of its caller in the same library, then the program.
    assert re.search(r"#0 +add_file .*\n#1 .* call_file .*\n(#.*\n)*#\d .* main ", output), output
    assert re.search(r"#0 +add_bytes .*\n#1 .* call_bytes .*\n(#.*\n)*#\d .* main ", output), output
    assert "left = 1\nright = 1\n" in output
    assert output.count("\nsum = 2\n") == 2
    while_open, afterwards = listed(output)
    assert file in while_open
    assert [path for path in while_open if re.fullmatch(r"/proc/\d+/fd/\d+", path)]
    assert not [path for path in afterwards if path == file or path.startswith("/proc/")]
    assert {Path(path).name for path in afterwards} >= {"libc.so.6", "libdlopen.so"}
    said = re.findall(r"^\d+$", output, flags=re.MULTILINE)
    assert [int(number) for number in (said[1], said[2])] == [CALLED, CALLED]
    assert said[0] == said[3], "a descriptor is left open"


@stays
def test_a_library_that_is_loaded_again_elsewhere(steps: Steps) -> None:
    """Closed, opened again and as a private copy: each is found where it is now."""
    file, from_bytes = two_libraries(steps)
    output = gdb(
        [
            steps.make_program("", "-g"), steps.libdlopen, f"open:{file}", "call:0:call_file",
            "close:0", f"bytes:{from_bytes}", f"open:{file}:p", "call:2:call_file", "close:1",
            f"bytes:{from_bytes}", f"open:{file}", "call:4:call_file", "call:3:call_bytes",
        ],
        "break add_file", "break add_bytes",
        "run", "continue", "continue", "info symbol $pc", "continue", "info sharedlibrary",
        "continue",
    )  # fmt: skip
    stops = re.findall(r"^Breakpoint \d+(?:\.\d+)?, (?:0x\S+ in )?(\w+)", output, re.MULTILINE)
    assert stops == ["add_file", "add_file", "add_file", "add_bytes"], output
    (libraries,) = listed(output)
    assert libraries.count(file) == 2
    assert f"section .text of {file}" in output


@pytest.mark.emulated(reason="gdb cannot attach to what an emulator runs")
def test_attaching(steps: Steps) -> None:
    file, from_bytes = two_libraries(steps)
    command = [
        steps.make_program(), steps.libdlopen, f"open:{file}", f"bytes:{from_bytes}", "pause",
        f"open:{file}:p", "call:2:call_file",
    ]  # fmt: skip
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"DLOPEN_DEBUGGER": "1"},
    ) as child:
        assert child.stdin
        assert child.stdout
        try:
            while child.stdout.readline() not in ("paused\n", ""):
                pass
            child.stdin.write("\n")  # for getchar(), once gdb lets it go on
            output = gdb(
                [str(part) for part in command[:1]],
                f"attach {child.pid}", "info sharedlibrary", "break add_file", "break add_bytes",
                "info breakpoints",
                "detach",
            )  # fmt: skip
            child.stdin.flush()
            assert child.stdout.read().splitlines() == ["opened", str(CALLED)]
        finally:
            child.kill()
    (libraries,) = listed(output)
    assert file in libraries, output
    assert [path for path in libraries if path.startswith(f"/proc/{child.pid}/fd/")]
    assert re.search(r"in add_file at .*source_file\.c", output)
    assert "<PENDING>" not in output
    assert "in add_bytes at" in output


@pytest.mark.emulated(reason="there is no Python of that machine here")
def test_python_under_gdb(steps: Steps) -> None:
    file, _ = two_libraries(steps)
    output = gdb(
        [
            sys.executable, "-c",
            "import sys, dlopen; dlopen.Library(sys.argv[1]).add_file(40, 1)", file,
        ],
        "break add_file", "run", "backtrace", "continue",
    )  # fmt: skip
    assert re.search(r"^Breakpoint 1, add_file \(left=40, right=1\)", output, re.MULTILINE), output
    assert re.search(r"#\d+ .* in .*Py_?\w+", output)
    assert "exited normally" in output


@pytest.mark.emulated(reason="there is no Python of that machine here")
def test_a_member_of_an_archive_under_gdb(steps: Steps) -> None:
    """Of which gdb is given a copy of its own: mapped, and compressed."""
    file, _ = two_libraries(steps)
    content = {"inner/lib.so": Path(file).read_bytes()}
    mapped = pack(steps.directory / "mapped.zip", content)
    compressed = pack(steps.directory / "compressed.zip", content, compress=True)
    code = """
import sys, zipfile, dlopen
for path in sys.argv[1:]:
    with dlopen.Library("inner/lib.so", files=zipfile.ZipFile(path)) as library:
        library.add_file(40, 1)
        print(library.info.name)
"""
    output = gdb(
        [sys.executable, "-c", code, str(mapped), str(compressed)],
        "break add_file", "run", "backtrace 1", "continue", "backtrace 1", "continue",
    )  # fmt: skip
    stops = re.findall(r"^Breakpoint 1, add_file \(left=40, right=1\) at", output, re.MULTILINE)
    assert len(stops) == 2, output
    assert f"{mapped}/inner/lib.so" in output
    assert f"{compressed}/inner/lib.so" in output
    assert "exited normally" in output


def test_static_tls_under_gdb(steps: Steps) -> None:
    """Glibc is given a file for it, whose name gdb must not look for among its own descriptors."""
    source = """
    static __thread int place __attribute__((tls_model("initial-exec"))) = 42;
    int answer(void) { return place; }
    """
    libraries = [steps.library(name, source, "-g") for name in ("one", "two")]
    output = gdb(
        [
            steps.make_program(), steps.libdlopen, *(f"open:{library}" for library in libraries),
            "call:0:answer", "call:1:answer", "close:0", "close:1",
        ],
        "break answer", "run", "info sharedlibrary", "continue", "continue",
    )  # fmt: skip
    assert (
        len(re.findall(r"^Breakpoint 1(?:\.\d)?, (?:0x\S+ in )?answer", output, re.MULTILINE)) == 2
    )
    (files,) = listed(output)
    assert files[-2:] == [str(library) for library in libraries], output
    assert "exited normally" in output


@pytest.mark.only_on(
    "x86_64", "loongarch64",
    reason="GCC 12 for AArch64 and RISC-V says to no debugger where a thread-local variable is",
)  # fmt: skip
def test_a_thread_local_variable_under_gdb(steps: Steps) -> None:
    """Its module is not libc's: libthread_db finds no number of it, and says so."""
    source = """
    static __thread int place __attribute__((tls_model("global-dynamic"))) = 42;
    int answer(void) { return place++; }
    """
    library = steps.library("one", source, "-g", "-O0")
    output = gdb(
        [steps.make_program(), steps.libdlopen, f"open:{library}", "call:0:answer", "close:0"],
        "break answer", "run", "print place", "continue",
    )  # fmt: skip
    assert "Cannot find thread-local" in output, output
    assert "exited normally" in output


@stays
def test_glibc_beside_it_under_gdb(steps: Steps) -> None:
    """Its dlopen, dlmopen, dlsym, dladdr and dlclose, and gdb's knowledge of what they load."""
    file, _ = two_libraries(steps)
    other = steps.library("other", ANSWER, "-g")
    output = gdb(
        [
            steps.make_program("", "-g"), steps.libdlopen,
            f"host:{other}", f"open:{file}", f"host:{other}", "call:0:call_file", "close:0",
            f"host:{other}", f"open:{file}", "call:1:call_file",
        ],
        "break add_file", "break answer", "run", *["continue"] * 8,
    )  # fmt: skip
    stops = re.findall(r"^Breakpoint \d+(?:\.\d+)?, (?:0x\S+ in )?(\w+)", output, re.MULTILINE)
    answers = ["answer", "answer"]
    assert stops == [*answers, *answers, "add_file", *answers, "add_file"], output
    assert "exited normally" in output


def test_a_namespace_of_glibc_under_gdb(steps: Steps) -> None:
    """The first dlmopen of a process adds a list of glibc's to the chain: ours is still there."""
    file, _ = two_libraries(steps)
    other = steps.library("other", ANSWER, "-g")
    output = gdb(
        [
            steps.make_program("", "-g"), steps.libdlopen,
            f"open:{file}", f"host:{other}", "call:0:call_file",
        ],
        "break answer", "break add_file", "run", "continue", "info sharedlibrary", "continue",
        "backtrace", "continue",
    )  # fmt: skip
    stops = re.findall(r"^Breakpoint \d+(?:\.\d+)?, (?:0x\S+ in )?(\w+)", output, re.MULTILINE)
    assert stops == ["answer", "answer", "add_file"], output
    (files,) = listed(output)
    assert files.count(file) == 1
    assert files.count(str(other)) == 2
    assert "exited normally" in output


@pytest.mark.parametrize("wish", ["0", "1"])
def test_the_list_joins_the_chain(steps: Steps, wish: str) -> None:
    """In load order of opens; glibc's own lists never have an entry, and all stay consistent.

    If a debugger is there, or to come, the list is there all the time.  Else a dlmopen of glibc's
    may take it out, and it comes back with the next change.
    """
    first, second = steps.library("first"), steps.library("second")
    other = steps.library("other", ANSWER)
    here = str(steps.directory)
    steps_ = [
        f"chain:{here}", f"open:{first}", f"chain:{here}", f"open:{second}:p", f"chain:{here}",
        f"host:{other}", *[f"chain:{here}"] * (wish == "1"), "close:0", f"chain:{here}", "close:1",
        f"chain:{here}", f"open:{second}", f"chain:{here}", f"linkmap:{here}/lib",
    ]  # fmt: skip
    said = steps.ours(*steps_, env={"DLOPEN_DEBUGGER": wish})
    # How many lists glibc has made is its own affair.
    assert [re.sub(r"^0(?: 0)*(?: ([1-9]))?(?: 0)*$", r"0 \1", line).strip() for line in said] == [
        "0", "opened", "0 1", "opened", "0 2", "libother.so: 42", "libother.so: 42",
        *["0 2"] * (wish == "1"), "closed", "0 1", "closed", "0", "opened", "0 1", "0",
    ]  # fmt: skip


def test_threads_and_namespaces_of_glibc(tmp_path: Path, libdlopen: Path) -> None:
    names = ["kept", *(f"coming{i}" for i in range(3))]
    libraries = [compile_library(tmp_path, f"lib{name}.so", ANSWER) for name in names]
    program = compile_program(tmp_path, "threads", THREADS, flags=["-pthread", "-ldl"])
    lines = run([program, libdlopen, *libraries]).stdout.split()
    # glibc's main list, ours wherever its place in the chain, and glibc's six.
    assert lines[0] == "0"
    assert sorted(lines[1:]) == ["1"] * 7


def test_each_change_is_announced(steps: Steps) -> None:
    """r_state and r_brk as <link.h> has them; a library that is never shown is not."""
    here = str(steps.directory / "lib")
    library = steps.library("one", trace=True)
    assert steps.ours(f"watch:{here}", f"open:{library}", "close:0") == [
        "add 0 0", "consistent 0 1", "+one", "opened",
        "-one", "delete 0 1", "consistent 0 0", "closed",
    ]  # fmt: skip


def test_the_hosts_list_for_lldb(steps: Steps) -> None:
    """All of ours are in it at the one call of r_brk that ends a change, and gone right after.

    While they are there no other thread can come into glibc's loader.
    """
    here = str(steps.directory / "lib")
    library, second = steps.library("one", ANSWER, trace=True), steps.library("two", ANSWER)
    said = steps.ours(
        f"watch:{here}", f"open:{library}", f"open:{second}", f"chain:{here}", f"host:{second}",
        "close:0", f"chain:{here}", f"host:{library}",
        env={"DLOPEN_DEBUGGER": "lldb"},
    )  # fmt: skip
    assert said == [
        "add alone 0", "consistent alone 1", "+one", "opened",
        "add alone 0", "consistent alone 2", "opened", "0",
        "libtwo.so: 42", "libtwo.so: 42",
        "-one", "add alone 0 0", "consistent alone 1 0", "closed", "0 0",
        "+one", "+one", "libone.so: 42", "libone.so: 42", "-one", "-one",
    ]  # fmt: skip


def test_no_descriptor_is_held_without_a_debugger(steps: Steps) -> None:
    _, from_bytes = two_libraries(steps)
    asked = ("descriptors", f"bytes:{from_bytes}", "descriptors", "close:0", "descriptors")
    plain = steps.ours(*asked)
    assert plain[0] == plain[2] == plain[4]
    for wish in ("1", "gdb", "lldb"):
        held = steps.ours(*asked, env={"DLOPEN_DEBUGGER": wish})
        assert int(held[2]) == int(held[0]) + 1, wish
        assert held[4] == held[0], wish


def probe(address: int) -> bytes:
    """A note of SystemTap's: name, three addresses, provider, probe, arguments."""
    content = struct.pack("<3Q", address, 0, 0) + b"rtld\0unmap_complete\0\0"
    head = struct.pack("<3I", 8, len(content), 3)
    return head + b"stapsdt\0" + content + bytes(-len(content) % 4)


def test_a_breakpoint_at_a_probe(tmp_path: Path, libdlopen: Path) -> None:
    """ld.so has probes, and gdb its breakpoints there: the host loads something, and passes them.

    The copy of it has one at a function that nobody calls.
    """
    objcopy = need_tool(f"{machine().triplet}-objcopy" if machine().is_foreign else "objcopy")
    compile_library(tmp_path, "libanswer.so", ANSWER)
    plain = compile_program(tmp_path, "plain", HERE / "probes.c")
    with plain.open("rb") as file:
        segments = ELFFile(file).iter_segments()
        loader = next(s.get_interp_name() for s in segments if s["p_type"] == "PT_INTERP")
    if machine().is_foreign:
        loader = f"{machine().sysroot}{loader}"
    with Path(loader).open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        address = table.get_symbol_by_name("_dl_mcount")[0]["st_value"]
    note, copy = tmp_path / "note", tmp_path / "ld.so"
    note.write_bytes(probe(address))
    remove, add = "--remove-section=.note.stapsdt", f"--add-section=.note.stapsdt={note}"
    subprocess.run([objcopy, remove, add, loader, copy], check=True)
    program = compile_program(
        tmp_path, "probes", HERE / "probes.c", flags=[f"-Wl,--dynamic-linker={copy}"]
    )
    none, watched, wished = (
        int(run([program, libdlopen, where], cwd=tmp_path, env=env).stdout)
        for where, env in (
            ("none", {}), (f"{address:x}", {}), ("none", {"DLOPEN_DEBUGGER": "gdb"}),
        )
    )  # fmt: skip
    # libgcc_s, where libc's table cannot be written (host/redirect.pxd).
    assert none in (0, 1)
    # One more where a second namespace of the host's would cut our list off (glibc 2.38).
    assert watched - none in (1, 2)
    assert wished == watched
