"""DLOPEN_LOG: what it says is what glibc's LD_DEBUG says, and it writes where it was told to."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from core.steps import Steps
from support.elf64 import Elf
from support.fixtures import compile_library, make_secure, run_python
from support.machines import machine

LINE = re.compile(r"dlopen\[(\d+)\]: (error|warn|info|debug|trace): (.*)")
LEVELS = ("error", "warn", "info", "debug", "trace")


class Line(NamedTuple):
    pid: int
    level: str
    text: str


def lines(text: str) -> list[Line]:
    """The log; whatever else stands in `text` is an error."""
    found = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        found.append(Line(int(match[1]), match[2], match[3]))
    return found


def texts(text: str, level: str, pattern: str) -> list[tuple[str, ...]]:
    """The groups of `pattern` in the lines of that level that match it."""
    found = (re.fullmatch(pattern, line.text) for line in lines(text) if line.level == level)
    return [match.groups() for match in found if match]


def debugged(text: str, pattern: str) -> list[tuple[str, ...]]:
    """The same for LD_DEBUG, whose lines begin with the process."""
    found = (re.fullmatch(rf" *\d+:\t *{pattern}", line) for line in text.splitlines())
    return [match.groups(default="") for match in found if match]


def log(steps: Steps, level: str, *what: str, **env: str) -> str:
    """What is logged when our linker carries out the steps."""
    env = {"DLOPEN_LOG": level, **env}
    text = steps.run(str(steps.libdlopen), *what, env=env).stderr
    # The program says on its own when an open fails.
    return "".join(line for line in text.splitlines(True) if not line.startswith("open: "))


def tree(steps: Steps) -> tuple[Path, Path]:
    """A library and the one that it needs; references of every kind that glibc tells of."""
    version = steps.directory / "map"
    version.write_text("V1 { global: twice; }; V2 { global: twice_more; twice; } V1;")
    base = steps.library(
        "base",
        """
        int old(int value) { return value * 2; }
        int new(int value) { return value * 3; }
        __asm__(".symver old, twice@V1\\n.symver new, twice@@V2");
        int twice_more(int value) { return value; }
        """,
        f"-Wl,--version-script={version}",
        trace=True,
    )
    top = steps.library(
        "top",
        """
        #include <string.h>
        extern int twice(int), twice_more(int);
        __attribute__((weak)) extern int nowhere(int);
        int table = 3;
        int *place = &table;
        int mine(int value) { return twice(value) + (int)strlen("abc"); }
        int (*pointer)(int) = mine;
        int call(void) { return nowhere ? nowhere(1) : pointer(twice_more(*place)); }
        """,
        needs=[base],
        trace=True,
    )
    return base, top


def test_the_bindings_are_those_of_ld_debug(steps: Steps) -> None:
    _, top = tree(steps)
    what = (f"open:{top}:n", "call:0:call", "find:0:twice@V1")
    env = {"LD_DEBUG": "bindings"}
    glibc = debugged(
        steps.run("glibc", *what, env=env).stderr,
        r"binding file (.+) \[0\] to (.+) \[0\]: normal symbol `(.+?)'(?: \[(.+)\])?",
    )
    ours = texts(
        log(steps, "trace", *what), "trace", r"(?:bind|find) (.+): (.+) -> (/.+?)(?: IFUNC)? 0x\w+"
    )

    def of_fixtures(reference: str, definer: str, symbol: str) -> tuple[str, str, str]:
        return Path(reference).name, symbol, Path(definer).name

    expected = {
        of_fixtures(reference, definer, f"{symbol}@{version}" if version else symbol)
        for reference, definer, symbol, version in glibc
        if Path(reference).parent == steps.directory and Path(reference).suffix == ".so"
    }
    assert {of_fixtures(*(line[0], line[2], line[1])) for line in ours} == expected
    assert {("libtop.so", f"twice@V{version}", "libbase.so") for version in (1, 2)} <= expected
    assert ("libtop.so", "call", "libtop.so") in expected
    assert len({definer for _, _, definer in expected}) == 3


def test_the_addresses_are_those_of_the_symbols(steps: Steps) -> None:
    base, top = tree(steps)
    text = log(steps, "trace", f"open:{top}")
    loads = texts(text, "info", r"load (.+): load bias (0x\w+?)(?: \(needed by .+\))?")
    biases = {path: bias for path, bias in loads}  # noqa: C416  (of pairs, for mypy)
    assert set(biases) == {str(base), str(top)}
    bound = texts(
        text, "trace", r"bind .+: (twice|twice_more|mine|table)(?:@(\w+))? -> (.+) (0x\w+)"
    )
    assert {symbol for symbol, *_ in bound} == {"twice", "twice_more", "mine", "table"}
    for symbol, version, definer, address in bound:
        (value,) = (
            entry.value
            for entry in Elf(Path(definer)).symbols
            if entry.name == symbol and entry.section and (not version or entry.version == version)
        )
        assert int(address, 16) - int(biases[definer], 16) == value
    # By one relocation or two.
    assert set(texts(text, "trace", r"bind .+: (nowhere) -> nothing \(weak\)")) == {("nowhere",)}


def test_the_search_is_that_of_ld_debug(steps: Steps) -> None:
    """Glibc also tells of folders that it then finds missing; we do not look into these."""
    subfolder = {"x86_64": "glibc-hwcaps/x86-64-v2"}.get(machine().name, "none")
    folders = [steps.directory / name for name in ("a", f"b/{subfolder}", "b", "c")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    leaf = steps.library("leaf")
    top = steps.library("top", needs=[leaf], rpath="$ORIGIN/c:$ORIGIN/missing:$ORIGIN/b")
    other_machine = bytearray(leaf.read_bytes())
    other_machine[18:20] = (183 if machine().number != 183 else 62).to_bytes(2, "little")
    Path(folders[0], "libleaf.so").write_bytes(other_machine)
    shutil.move(leaf, folders[2])
    path = ":".join(str(steps.directory / name) for name in ("missing", "a"))
    env = {"LD_LIBRARY_PATH": path, "LD_DEBUG": "libs"}
    known = "libgomp.so.1" if machine().is_foreign else "libz.so.1"
    what = (f"open:{top}", "open:libnonesuch.so", f"open:{known}")
    steps.make_program("", rpath="")

    def trail(text: str) -> list[str]:
        return [
            file
            for (file,) in debugged(text, "trying file=(.+)")
            if Path(file).parent.is_dir() and re.search("leaf|none|libz|libgomp", Path(file).name)
        ]

    glibc = trail(steps.run("glibc", *what, env=env).stderr)
    ours = texts(
        log(steps, "debug", *what, LD_LIBRARY_PATH=path),
        "debug",
        r"search .+: try (.+) \((.+)\): (.+)",
    )
    assert [file for file, _, _ in ours if Path(file).parent.is_dir()] == glibc
    leafs = [line for line in ours if line[0].endswith("leaf.so")]
    results = {(Path(file).parent.name, origin): result for file, origin, result in leafs}
    assert results["a", "LD_LIBRARY_PATH"] == "for another machine or word size"
    assert results["c", "RUNPATH"] == os.strerror(2)
    assert results["b", "RUNPATH"] == "found"
    expected = {"default"} if machine().is_foreign else {"default", "ld.so.cache"}
    assert expected <= {origin for _, origin, _ in ours}


def test_constructors_and_destructors_as_ld_debug(steps: Steps) -> None:
    base, top = tree(steps)
    leaf = steps.library("leaf", needs=[base], trace=True)
    what = (f"open:{top}", f"open:{leaf}", "close:0", "close:1")
    glibc = steps.run("glibc", *what, env={"LD_DEBUG": "libs"}).stderr
    ours = log(steps, "debug", *what)
    names = {str(base), str(top), str(leaf)}
    for kind, end in (("init", ""), ("fini", r" \[0\]")):
        expected = [
            path for (path,) in debugged(glibc, f"calling {kind}: (.+){end}") if path in names
        ]
        assert sorted(expected) == sorted(names)
        # One line for each function here.
        called = [path for (path,) in texts(ours, "debug", f"{kind} (.+): 0x[0-9a-f]+")]
        assert list(dict.fromkeys(called)) == expected


def test_loading_and_unloading(steps: Steps) -> None:
    base, top = tree(steps)
    text = log(steps, "info", f"open:{top}", f"open:{top}", "close:0", "close:1")
    told = [re.sub("0x[0-9a-f]+", "BIAS", line.text) for line in lines(text)]
    assert told == [
        f"load {top}: load bias BIAS",
        f"load {base}: load bias BIAS (needed by {top})",
        f"open {top}: open count 1",
        f"open {top}: open count 2",
        f"close {top}: open count 1",
        f"close {top}: open count 0",
        *(f"unload {path}" for path in (top, base)),
    ]


def test_a_level_holds_those_before_it(steps: Steps) -> None:
    _, top = tree(steps)
    odd = steps.library("odd", 'int data; __asm__(".quad data");', "-Wl,-z,notext")
    what = (f"open:{top}", f"open:{odd}", "open:libnonesuch.so")
    for index, level in enumerate(LEVELS):
        text = log(steps, level, *what)
        assert {line.level for line in lines(text)} == set(LEVELS[: index + 1]), level
        assert ("text relocations" in text) == (level != "error")
    assert log(steps, "", *what) == ""


def test_a_level_that_is_none_is_said(steps: Steps) -> None:
    (line,) = lines(log(steps, "verbose", "open:libz.so.1"))
    assert line.level == "warn"
    assert line.text.endswith("verbose")


def test_a_failed_open_says_why(tmp_path: Path) -> None:
    """All that the exception knows."""
    gone = compile_library(tmp_path, "libgone.so", "int gone(void) { return 1; }")
    middle = compile_library(
        tmp_path,
        "libmiddle.so",
        "extern int gone(void); int f(void) { return gone(); }",
        libraries=[gone],
    )
    top = compile_library(
        tmp_path,
        "libtop.so",
        "extern int f(void); int g(void) { return f(); }",
        libraries=[middle],
        flags=["-Wl,-z,lazy,--no-as-needed"],
    )
    code = """
import sys, dlopen
try:
    dlopen.Library(sys.argv[1])
except dlopen.Error as error:
    print(error.library, error.needed_by, sep="\\n")
    for path, why in error.searched: print(f"{path}: {why}")
"""
    gone.unlink()
    done = run_python(code, str(top), env={"DLOPEN_LOG": "error"})
    library, needed_by, *searched = done.stdout.splitlines()
    assert (library, needed_by) == ("libgone.so", str(middle))
    assert len(searched) > 2
    first, *others = (line.text for line in lines(done.stderr))
    assert first.startswith(f"cannot open {top}: libgone.so: ")
    assert first.endswith(f": {os.strerror(2)} (needed by {middle})")
    assert others == [f"cannot open libgone.so: searched {where}" for where in searched]

    compile_library(tmp_path, "libgone.so", "int other(void) { return 1; }")
    (line,) = lines(run_python(code, str(top), env={"DLOPEN_LOG": "error"}).stderr)
    assert line.text == f"cannot open {top}: {middle}: undefined symbol: gone (needed by {top})"


def test_names_cannot_forge_a_line(tmp_path: Path) -> None:
    code = """
import contextlib, sys, dlopen
for name in ("x\\ndlopen[1]: error: forged", "./" + "y" * 5000):
    with contextlib.suppress(dlopen.Error):
        dlopen.Library(name)
"""
    text = run_python(code, env={"DLOPEN_LOG": "debug"}).stderr
    assert not [line for line in lines(text) if line.pid == 1]
    assert "x?dlopen[1]: error: forged" in text
    longest = max(text.splitlines(), key=len)
    assert len(longest) + 1 <= 4096
    assert longest.endswith(("\\", "y"))


OPEN_AND_CLOSE = """
import os, sys, dlopen
library, own = sys.argv[1:]
def use():
    dlopen.Library(library).close()
"""
# In a process with few descriptors and a small library, one use of it.
USE = 4  # load, open, close, unload


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return compile_library(tmp_path, "libused.so", "int x;")


def use(code: str, library: Path, **env: str) -> str:
    own = library.with_name("own")
    env = {"DLOPEN_LOG": "info", **env}
    stderr = run_python(OPEN_AND_CLOSE + code, str(library), str(own), env=env).stderr
    # Nothing of ours is in the program's file.
    assert own.read_text() == "own\n"
    return stderr


def test_files_of_the_program_that_take_the_descriptor_are_left_alone(library: Path) -> None:
    code = """
use()
os.closerange(3, 100)
files = [os.open(own, os.O_RDWR | os.O_CREAT | os.O_APPEND) for _ in range(20)]
use()
os.write(files[0], b"own\\n")
os.closerange(3, 100)
use()
"""
    file = library.with_name("log")
    assert use(code, library, DLOPEN_LOG_FILE=str(file)) == ""
    assert len(lines(file.read_text())) == 3 * USE
    assert file.stat().st_mode & 0o777 == 0o600


def test_standard_error_that_was_replaced_gets_no_lines(library: Path) -> None:
    code = """
use()
os.close(2)
assert os.open(own, os.O_RDWR | os.O_CREAT) == 2
use()
os.write(2, b"own\\n")
"""
    assert len(lines(use(code, library))) == USE


def test_the_file_is_never_a_standard_stream(library: Path) -> None:
    code = """
os.closerange(0, 3)
use()
file = os.open(own, os.O_RDWR | os.O_CREAT)
assert file == 0
os.write(file, b"own\\n")
use()
"""
    file = library.with_name("log")
    use(code, library, DLOPEN_LOG_FILE=str(file))
    assert len(lines(file.read_text())) == 2 * USE


def test_the_file_is_that_of_the_start_also_after_fork_and_chdir(library: Path) -> None:
    code = """
with open(own, "w") as file: file.write("own\\n")
use()
os.mkdir("elsewhere")
os.chdir("elsewhere")
os.closerange(3, 100)
use()
child = os.fork()
use()
if child:
    assert os.waitpid(child, 0)[1] == 0
    print(os.getpid(), child)
    assert os.listdir() == []
"""
    file = library.with_name("log")
    start = f"import os; os.chdir({str(library.parent)!r})\n"
    done = run_python(
        start + OPEN_AND_CLOSE + code,
        str(library),
        str(library.with_name("own")),
        env={"DLOPEN_LOG": "info", "DLOPEN_LOG_FILE": "log"},
    )
    assert done.stderr == ""
    parent, child = map(int, done.stdout.split())
    pids = [line.pid for line in lines(file.read_text())]
    assert pids.count(parent) == 3 * USE
    assert pids.count(child) == USE


def test_a_file_that_cannot_be_opened_is_said_once(library: Path) -> None:
    code = """
with open(own, "w") as file: file.write("own\\n")
use()
use()
"""
    file = library.with_name("missing") / "log"
    (line,) = lines(use(code, library, DLOPEN_LOG_FILE=str(file)))
    assert (line.level, line.text) == ("error", f"DLOPEN_LOG_FILE: {file}: {os.strerror(2)}")


def test_lines_of_threads_do_not_mix(steps: Steps) -> None:
    _, top = tree(steps)
    code = """
import sys, threading, dlopen
def work():
    for _ in range(20):
        dlopen.Library(sys.argv[1], dlopen.PRIVATE).close()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    file = steps.directory / "log"
    run_python(code, str(top), env={"DLOPEN_LOG": "trace", "DLOPEN_LOG_FILE": str(file)})
    told = [line.text for line in lines(file.read_text())]
    assert told.count(f"unload {top}") == 80
    assert sum(text.startswith(f"bind {top}: table -> {top} 0x") for text in told) >= 80


@pytest.mark.emulated(reason="the emulator is no set-group-ID program")
def test_secure_execution_logs_nothing(steps: Steps, library: Path) -> None:
    program = steps.make_program()
    what = f"open:{library}"
    assert "load" in log(steps, "info", what)
    make_secure(program)
    file = steps.directory / "log"
    env = {"DLOPEN_LOG": "info", "DLOPEN_LOG_FILE": str(file)}
    done = steps.run(str(steps.libdlopen), what, env=env)
    assert (done.stdout, done.stderr) == ("opened\n", "")
    assert not file.exists()
