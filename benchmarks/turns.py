"""Workers of several sides, one process each, that take turns.

What a side does not do, or fails to do, is kept with its reason; the other sides go on.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

import libraries

NOT_DONE = 77  # the status of a worker whose side has no such thing: workers/side.h
PATIENCE = 300  # seconds for one round


class NotDoneError(Exception):
    """The side has no such thing."""


class FailedError(Exception):
    """The worker failed."""


@dataclass(frozen=True)
class Command:
    """One side's worker, and what is added to its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Worker:
    """One process that measures one side."""

    def __init__(self, command: Command) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command.arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            env={**os.environ, **command.environment},
            cwd=libraries.ROOT,
        )
        if self._answer() != ["ready"]:
            self._ended()

    def _answer(self) -> list[str]:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            self._process.kill()
            raise FailedError(f"no answer in {PATIENCE} s")
        line = self._process.stdout.readline()
        if not line:
            self._ended()
        return line.split()

    def _ended(self) -> None:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["without a word"]
        last = re.sub(r"/\S*/", "", "; ".join(lines[-2:]))  # no paths of this machine
        self.end()
        if status == NOT_DONE:
            raise NotDoneError(last)
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        raise FailedError(f"ended with {name}: {last}")

    def round(self, request: int) -> dict[str, float]:
        """What one round has measured."""
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{request}\n")
        except BrokenPipeError:
            self._ended()
        words = self._answer()
        values = {words[i]: float(words[i + 1]) for i in range(0, len(words), 2)}
        if not values:
            raise FailedError("measured nothing")
        return values

    def end(self) -> None:
        """No more rounds; it ends by itself, or is ended."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


@dataclass
class Samples:
    """By request, metric and side: one value for each round."""

    values: dict[tuple[int, str], dict[str, list[float]]]
    not_done: dict[str, str]
    failed: dict[str, str]


def take_turns(
    commands: Mapping[str, Command],
    rounds: int,
    *,
    processes: int = 1,
    requests: Sequence[int] = (0,),
) -> Samples:
    """So many rounds for each request, in so many processes for each side, one after another.

    The first side of a round is the last of the next.  More than one process, since where a
    library comes to lie stays as it is for a process.
    """
    samples = Samples(defaultdict(lambda: defaultdict(list)), {}, {})
    each = -(-rounds // processes)
    turn = 0
    for _ in range(processes):
        workers: dict[str, Worker] = {}
        try:
            for side, command in commands.items():
                if side in samples.not_done or side in samples.failed:
                    continue
                try:
                    workers[side] = Worker(command)
                except NotDoneError as error:
                    samples.not_done[side] = str(error)
                except FailedError as error:
                    samples.failed[side] = str(error)
            for request in requests:
                for _ in range(each):
                    turn += 1
                    _one_round(workers, turn, request, samples)
        finally:
            for worker in workers.values():
                worker.end()
    return samples


def _one_round(workers: dict[str, Worker], turn: int, request: int, samples: Samples) -> None:
    """A turn for each side; one that ends here has values for the rounds before only."""
    sides = list(workers)
    start = turn % len(sides) if sides else 0
    for side in sides[start:] + sides[:start]:
        try:
            values = workers[side].round(request)
        except NotDoneError as error:
            samples.not_done[side] = str(error)
        except FailedError as error:
            samples.failed[side] = str(error)
        else:
            for metric, value in values.items():
                samples.values[request, metric][side].append(value)
            continue
        workers.pop(side).end()
