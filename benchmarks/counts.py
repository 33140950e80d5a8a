"""What does not depend on how busy the machine is: instructions, system calls, page faults."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import libraries
from turns import Command

COUNTED = "one_round*"  # of workers/side.h


def need(tool: str) -> str:
    """The path of a program; without it there is nothing to say."""
    path = shutil.which(tool)
    if path is None:
        raise SystemExit(f"{tool} is not installed")
    return path


def run(command: Command, before: Sequence[str] = (), requests: Sequence[int] = ()) -> str:
    """What a worker writes, under another program, with these rounds; a failure ends all."""
    words = [*before, *command.arguments]
    done = subprocess.run(
        words,
        input="".join(f"{request}\n" for request in requests),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "0", **command.environment},
        cwd=libraries.ROOT,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\nended with {done.returncode}: {done.stderr}")
    return done.stdout


def used(command: Command, requests: Sequence[int] = ()) -> tuple[float, int]:
    """Seconds of CPU time, and page faults, of a worker with these rounds."""
    with tempfile.TemporaryFile() as file:
        file.write("".join(f"{request}\n" for request in requests).encode())
        file.seek(0)
        process = subprocess.Popen(
            command.arguments,
            stdin=file,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **command.environment},
            cwd=libraries.ROOT,
        )
        _, process.returncode, usage = os.wait4(process.pid, 0)
    if process.returncode:
        raise SystemExit(f"{' '.join(command.arguments)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_minflt


def system_calls(command: Command, requests: Sequence[int] = ()) -> Counter[str]:
    """How often each is called by a worker with these rounds."""
    with tempfile.NamedTemporaryFile("r") as output:
        run(command, [need("strace"), "-f", "-c", "-o", output.name], requests)
        found = re.findall(
            r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) (?:.* )?(\w+)$", output.read(), re.MULTILINE
        )
    return Counter({name: int(count) for count, name in found if name != "total"})


def instructions(command: Command, requests: Sequence[int] = (), *, whole: bool = False) -> int:
    """Those of the rounds in user mode, or of the `whole` process."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        words = [need("valgrind"), "--tool=callgrind", f"--log-file={log}"]
        words.append(f"--callgrind-out-file={scratch}/out")
        if not whole:
            words.append(f"--toggle-collect={COUNTED}")
        run(command, words, requests)
        found = re.search(r"Collected : (\d+)", log.read_text())
    if not found or not int(found[1]):
        raise SystemExit(f"{' '.join(command.arguments)}: no instruction was counted")
    return int(found[1])
