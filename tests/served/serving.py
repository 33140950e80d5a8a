"""The application as an archive, installed, and as others pack it; and what its processes answer.

All that is made lies in build/served, where it stays: what is packed is packed once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support.fixtures import run

HERE = Path(__file__).parent
APP = HERE / "app"
REQUIREMENTS = HERE / "requirements.txt"
FOLDER = HERE.parents[1] / "build" / "served"
UNPACKED = FOLDER / "unpacked"  # by shiv
# Only what every process has: no module of this environment.
ENVIRONMENT = {"PATH": os.environ["PATH"], "SHIV_ROOT": str(UNPACKED)}


@cache
def installed() -> Path:
    """The interpreter of an environment with the application's packages, and shiv."""
    python = FOLDER / "installed" / "bin" / "python"
    stamp = FOLDER / "installed" / "stamp"
    wanted = f"{sys.version}\n{REQUIREMENTS.read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        run([sys.executable, "-m", "venv", "--clear", FOLDER / "installed"])
        run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS, "shiv==1.0.8"])
        stamp.write_text(wanted)
    return python


@cache
def packed() -> Path:
    """By `dlopen zipapp`."""
    path = FOLDER / "served.pyz"
    command = [sys.executable, "-m", "dlopen", "zipapp", str(APP), "-r", str(REQUIREMENTS)]
    run([*command, "-m", "served:main", "-o", path], timeout=600)
    return path


@cache
def shiv() -> Path:
    """By shiv, which unpacks at its first start."""
    path = FOLDER / "shiv.pyz"
    command = [str(installed()), "-m", "shiv", "--site-packages", str(APP)]
    command += ["-r", str(REQUIREMENTS), "-q", "-e", "served:main"]
    run([*command, "-o", path], timeout=600)
    return path


@dataclass
class Server:
    """One that runs: its process, and those that it has started."""

    pid: int
    port: int

    def ask(self, seeds: range, connections: int = 4) -> list[dict[str, object]]:
        """The answers, in the order of the seeds."""

        def ask_some(start: int) -> list[dict[str, object]]:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            found = []
            for seed in seeds[start::connections]:
                connection.request("GET", f"/{seed}")
                response = connection.getresponse()
                assert response.status == 200
                found.append({"seed": seed, **json.loads(response.read())})
            connection.close()
            return found

        with ThreadPoolExecutor(connections) as pool:
            answers = [one for some in pool.map(ask_some, range(connections)) for one in some]
        return sorted(answers, key=lambda answer: int(str(answer["seed"])))

    def workers(self, count: int) -> list[int]:
        """The processes that have answered, when it is so many."""
        found: set[int] = set()
        deadline = time.monotonic() + 120
        while len(found) < count:
            assert time.monotonic() < deadline, found
            found.update(int(str(answer["process"])) for answer in self.ask(range(40), 40))
        return sorted(found)


@contextlib.contextmanager
def served_by(command: Sequence[str | Path], workers: int = 1) -> Iterator[Server]:
    """Started by this command, until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [str(port), "--workers", str(workers)]
    process = subprocess.Popen([*command, *arguments], env=ENVIRONMENT, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, f"ended with {process.returncode}"
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield Server(process.pid, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@dataclass
class Text:
    """Executable pages of the application's libraries in a process, in bytes; see proc(5)."""

    resident: int = 0
    share: int = 0  # each page by how many processes have it


_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ ..x. \S+ \S+ \S+ *(.*)")


def text_of(process: int, below: Path) -> Text:
    """Of what is mapped from this file, or from below this folder."""
    found = Text()
    is_it = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            head = _HEAD.match(line)
            is_it = head is not None and head[1].startswith(str(below))
        elif is_it and name in {"Rss:", "Pss:"}:
            size = int(values[0]) * 1024
            if name == "Rss:":
                found.resident += size
            else:
                found.share += size
    return found
