"""A program of `programs/`, run with its packages installed, or from their archives.

The head of a program says what it needs:

    # projects: those of requirements.txt, all that its process imports
    # one: the beginning of a name, below site-packages, that exactly one image has
    # writes: files that it writes in its folder
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.fixtures import need_tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROGRAMS = Path(__file__).with_name("programs")
DRIVER = Path(__file__).with_name("driver.py")
# Calls that may write a file or make one.
TRACED = ("open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,"
          "linkat,symlink,symlinkat,unlink,unlinkat,rmdir,truncate,memfd_create")  # fmt: skip
_OPEN = re.compile(
    r'open(?:at2?)?\((?:AT_FDCWD(?:</[^>]*>)?, )?"((?:[^"\\]|\\.)*)", (.*)\) += (\S+)'
)
_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)")


@dataclass(frozen=True)
class Program:
    """A program and its head."""

    name: str
    path: Path
    projects: tuple[str, ...]
    one: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass
class Trace:
    """What its process, and those that it started, did to files."""

    opened: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)  # by name, or another call that changes files


@dataclass
class Run:
    """What came of it; `facts` are those of driver.py."""

    output: str
    errors: str
    status: int
    facts: dict[str, Any] = field(default_factory=dict)
    trace: Trace | None = None


def read(path: Path) -> Program:
    head: dict[str, list[str]] = {}
    for line in takewhile(lambda line: line.startswith("# "), path.read_text().splitlines()):
        key, _, value = line[2:].partition(": ")
        head.setdefault(key, []).append(value)

    def words(key: str) -> tuple[str, ...]:
        return tuple(" ".join(head.get(key, ())).split())

    return Program(path.stem, path, words("projects"), words("one"), words("writes"))


def programs() -> list[Program]:
    return [read(path) for path in sorted(PROGRAMS.glob("*.py"))]


def read_trace(path: Path) -> Trace:
    """Of strace -f, whose lines may be cut in two where threads take turns."""
    found = Trace()
    begun: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines():
        thread, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith(" <unfinished ...>"):
            begun[thread] = text.removesuffix(" <unfinished ...>")
            continue
        if again := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            text = begun.pop(thread, "") + again[1]
        if text.startswith(("+++", "---")) or re.search(r"= -1 E", text):
            continue
        call = _OPEN.match(text)
        if call is None:
            found.written.append(text)
        else:
            found.opened.append(call[1])
            if re.search(r"O_WRONLY|O_RDWR|O_CREAT", call[2]) and not call[1].startswith("/dev/"):
                found.written.append(call[1])
    return found


def run_program(
    python: Path,
    program: Program,
    folder: Path,
    archives: Sequence[Path] = (),
    *,
    traced: bool = False,
    before: Iterable[str] = (),
) -> Run:
    """In an empty folder, with a short environment."""
    folder.mkdir(parents=True)
    strace = folder.with_suffix(".strace")
    command = [*before]
    if traced:
        command += [
            need_tool("strace"),
            "-f",
            "--seccomp-bpf",
            "-s4096",
            f"-etrace={TRACED}",
            f"-o{strace}",
        ]
    # Open here: what the process writes is not a file of its own.
    with tempfile.TemporaryFile("w+") as facts:
        words = [python, "-P", DRIVER, facts.fileno(), program.path, *archives]
        done = subprocess.run(
            [*command, *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=folder,
            pass_fds=[facts.fileno()],
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            timeout=300,
            check=False,
        )
        facts.seek(0)
        told = json.loads(facts.read() or "{}")
    trace = read_trace(strace) if traced else None
    return Run(done.stdout, done.stderr, done.returncode, told, trace)
