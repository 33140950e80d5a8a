"""A program that others wrote, as a script in `rows/`, and what a run of it shows.

The head of a script says what it is, on one line, and then what it needs:

    # packages: those of Debian, which bring the commands
    # python: projects of PyPI; `python` is then the one of .venv
    # quick                         (part of `make test`)
    # emulated: COMMANDS            of Debian, or `python`: all that it needs on another machine
    # not: MACHINE REASON           why it means nothing there
    # mask: EXPRESSION REASON       of output that differs between two runs without us
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from support.fixtures import BUILD
from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROWS = Path(__file__).with_name("rows")
MEASURED = Path(BUILD.parent, "programs", machine().name)
# Where its programs are, and `python`; of another machine those that start them: tools/emulated.py.
DEBIAN = os.environ.get("DLOPEN_TEST_PROGRAMS", "/usr/bin")
PYTHON = Path(os.environ.get("DLOPEN_TEST_PYTHON", Path(sys.executable).parent))
_EVENTS = {
    "open": "opened",
    "load": "loaded",
    "by the system's loader: load": "by the system",
    "unload": "unloaded",
    "cannot open": "failed",
}
_EVENT = re.compile(
    rf"dlopen\[\d+\]: (?:info|error): ({'|'.join(_EVENTS)}) (?!.*: searched )", re.ASCII
)


@dataclass(frozen=True)
class Program:
    """A script and its head."""

    name: str
    path: Path
    what: str
    packages: tuple[str, ...]
    python: tuple[str, ...]
    quick: bool
    masks: tuple[str, ...]
    emulated: tuple[str, ...]
    left_out: dict[str, str]


@dataclass
class Run:
    """What came of it; the counts are those of our linker, over all processes."""

    output: str
    errors: str
    status: int
    counts: Counter[str] = field(default_factory=Counter)


def read(path: Path) -> Program:
    comments = takewhile(lambda line: line.startswith("# "), path.read_text().splitlines())
    what, *lines = (line[2:] for line in comments)
    head: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition(":")
        head.setdefault(key, []).append(value.strip())
    assert set(head) <= {"packages", "python", "quick", "mask", "emulated", "not"}, path
    return Program(
        path.stem,
        path,
        what,
        tuple(" ".join(head["packages"]).split()),
        tuple(" ".join(head.get("python", ())).split()),
        "quick" in head,
        tuple(mask.split()[0] for mask in head.get("mask", ())),
        tuple(" ".join(head.get("emulated", ())).split()),
        {name: reason for name, _, reason in (line.partition(" ") for line in head.get("not", ()))},
    )


def programs() -> list[Program]:
    """Those that the machine can run."""
    found = [read(path) for path in sorted(ROWS.glob("*.sh"))]
    return [program for program in found if program.emulated or not machine().is_foreign]


def version_of(package: str) -> str | None:
    """None if it is not installed."""
    where = [f"--admindir={machine().sysroot}/var/lib/dpkg"] if machine().is_foreign else []
    form = "--showformat=${db:Status-Status} ${Version}"
    done = subprocess.run(
        ["dpkg-query", *where, "--show", form, package],
        capture_output=True,
        text=True,
        check=False,
    )
    status, _, version = done.stdout.partition(" ")
    return version if status == "installed" else None


def version_of_project(name: str) -> str | None:
    """Of a Python project; None if it is not installed."""
    sites = [str(path) for path in PYTHON.parent.glob("lib/python3.*/site-packages")]
    found = next(iter(metadata.distributions(name=name, path=sites)), None)
    return None if found is None else found.version


def environment(folder: Path) -> dict[str, str]:
    """A short one, that nothing of the caller's gets into."""
    return {
        "PATH": f"{PYTHON}:{DEBIAN}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PROGRAMS": DEBIAN,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
    }


def run_command(
    command: Sequence[str | Path],
    folder: Path,
    added: Mapping[str, str] | None,
    timeout: int,
) -> Run:
    """In an empty folder; `added` to the environment of all processes, our linker comes in."""
    folder.mkdir(parents=True)
    log = folder.with_suffix(".log")
    ours: dict[str, str] = {}
    if added is not None:
        ours = {**added, "DLOPEN_LOG": "info", "DLOPEN_LOG_FILE": str(log)}
        if machine().is_foreign:  # the shell is of this one
            words = ",".join(f"{name}={value}" for name, value in ours.items())
            ours = {"QEMU_SET_ENV": words}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        cwd=folder,
        env=environment(folder) | ours,
        timeout=timeout,
        check=False,
    )
    counts: Counter[str] = Counter()
    if log.exists():
        events = (_EVENT.match(line) for line in log.read_text(errors="replace").splitlines())
        counts.update(_EVENTS[event[1]] for event in events if event)
    output = done.stdout.replace(str(folder), "FOLDER")
    return Run(output, done.stderr, done.returncode, counts)


def run_program(program: Program, folder: Path, preload: str | None) -> Run:
    added = None if preload is None else {"LD_PRELOAD": preload}
    done = run_command(["/bin/sh", program.path], folder, added, timeout=300)
    for mask in program.masks:
        done.output = re.sub(mask, "MASKED", done.output, flags=re.MULTILINE)
    return done


def measured(program: Program, done: Run) -> None:
    """Kept for table.py."""
    MEASURED.mkdir(parents=True, exist_ok=True)
    versions = {package: version_of(package) for package in program.packages}
    versions |= {project: version_of_project(project) for project in program.python}
    record = {"name": program.name, "what": program.what, "versions": versions}
    Path(MEASURED, f"{program.name}.json").write_text(json.dumps(record | {"counts": done.counts}))
