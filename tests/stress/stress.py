"""python stress.py FOLDER SEED SECONDS [PLANT]: as stress.cc, through the package.

A thread that makes no step for PATIENCE seconds is a deadlock: all threads' stacks are printed.
"""

from __future__ import annotations

import collections
import ctypes
import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import dlopen
from support.fixtures import maps

THREADS, SLOTS, PATIENCE = 8, 24, 20
NAMES = ("plain", "tree", "left", "throwing", "local", "walking", "late")
ALONE = ("plain", "throwing", "local")  # they need nothing beside them

folder, seed, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
plant = sys.argv[4] if len(sys.argv) > 4 else ""
contents = {name: Path(folder, f"lib{name}.so").read_bytes() for name in NAMES}
slots: list[dlopen.Library | None] = [None] * SLOTS
steps: collections.Counter[str] = collections.Counter()
failures: list[BaseException] = []


lock = threading.Lock()


def exchange(chance: random.Random, library: dlopen.Library | None) -> dlopen.Library | None:
    place = chance.randrange(SLOTS)
    with lock:
        old, slots[place] = slots[place], library
    return old


def work(library: dlopen.Library, value: int) -> None:
    assert library.function("work", ctypes.c_int, ctypes.c_int)(value) == value, library


def open_one(chance: random.Random) -> dlopen.Library:
    how, name = chance.randrange(4), chance.choice(NAMES)
    steps[("open", "open RTLD_GLOBAL", "open PRIVATE", "open from bytes")[how]] += 1
    if how == 3:
        return dlopen.Library.from_bytes(contents[chance.choice(ALONE)], name="bytes.so")
    mode = (dlopen.RTLD_LOCAL, dlopen.RTLD_GLOBAL, dlopen.PRIVATE)[how]
    return dlopen.Library(folder / f"lib{name}.so", mode)


def look() -> None:
    for info in dlopen.libraries():
        assert info.map_start < info.map_end, info
    seen: list[str] = []
    dlopen.dl_iterate_phdr(lambda info: seen.append(info.name))
    assert seen


def fork() -> None:
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        try:
            for name in ALONE:
                work(dlopen.Library(folder / f"lib{name}.so"), 5)
                work(dlopen.Library.from_bytes(contents[name], name="bytes.so"), 6)
            look()
        except BaseException:  # noqa: BLE001  (it is not the parent)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"a child ended with {status}"


def step(chance: random.Random) -> None:
    number = chance.randrange(100)
    if number < 25:
        old = exchange(chance, open_one(chance))
        if old:
            old.close()
    elif number < 99:
        library = exchange(chance, None)
        if library is None:
            return
        kind = ("close", "call", "call", "symbols", "address")[number % 5]
        steps[kind] += 1
        if kind == "close":
            library.close()
            return
        if kind == "call":
            work(library, number)
        elif kind == "symbols":
            assert "work" in library.symbols
            assert "nonesuch" not in library.symbols
        else:
            found = dlopen.dladdr(library.symbols["work"].address)
            assert found is not None
            assert found.symbol is not None
            assert found.symbol.name == "work"
        old = exchange(chance, library)
        if old:
            old.close()
    elif chance.randrange(4):
        steps["look"] += 1
        look()
    else:
        steps["fork"] += 1
        fork()


def lane(number: int, progress: list[int], ended: list[bool], end: float) -> None:
    chance = random.Random(number)
    try:
        for _ in range(chance.randrange(20, 200)):
            if time.monotonic() > end or failures:
                break
            step(chance)
            progress[0] += 1
            while plant == "deadlock":
                time.sleep(1)
    except BaseException as failure:  # noqa: BLE001  (raised again by the main thread)
        failures.append(failure)
    ended[0] = True


def turn(chance: random.Random, length: float) -> None:
    """Ends with all threads joined and all libraries closed."""
    end = time.monotonic() + length
    patience = 0.5 if plant == "deadlock" else PATIENCE
    lanes: list[tuple[threading.Thread, list[int], list[bool]]] = []
    watched: dict[int, tuple[int, float]] = {}
    while lanes or time.monotonic() < end:
        while len(lanes) < THREADS and time.monotonic() < end and not failures:
            progress, ended = [0], [False]
            number = chance.randrange(1 << 60)
            thread = threading.Thread(target=lane, args=(number, progress, ended, end), daemon=True)
            lanes.append((thread, progress, ended))
            thread.start()
            steps["threads"] += 1
        for index, (thread, progress, ended) in reversed(list(enumerate(lanes))):
            key = id(thread)
            if ended[0]:
                thread.join(0.001)
            if not thread.is_alive():
                del lanes[index]
                watched.pop(key, None)
                continue
            count, since = watched.get(key, (-1, 0.0))
            if count != progress[0]:
                watched[key] = (progress[0], time.monotonic())
            elif time.monotonic() - since > patience:
                print(f"failed: seed {seed}: a deadlock", flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(1)
        time.sleep(0.002)
        if failures and not lanes:
            break
    if failures:
        print(f"failed: seed {seed}", flush=True)
        raise failures[0]
    for place in range(SLOTS):
        library, slots[place] = slots[place], None
        if library and plant != "leak":
            library.close()


def rest() -> tuple[int, int, int]:
    gc.collect()
    mappings = maps()
    left = {part.path for part in mappings if part.path.startswith(f"{folder}/")}
    if left:
        print(f"failed: seed {seed}: still mapped: {left}", flush=True)
        os._exit(1)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        len(mappings),
        len([*Path("/proc/self/fd").iterdir()]),
        pages * os.sysconf("SC_PAGESIZE") // 1024,
    )


def main() -> None:
    # Without the GIL: whatever blocks, a thread of C prints the stacks and ends the process.
    faulthandler.dump_traceback_later(2 * seconds + 2 * PATIENCE, exit=True)
    chance = random.Random(seed)
    turn(chance, min(5, seconds / 3))
    before = rest()
    turn(chance, max(seconds - 5, seconds * 2 / 3))
    after = rest()
    for name, count in sorted(steps.items()):
        print(f"{name}: {count}")
    for when, what in (("warming up", before), ("all", after)):
        print(f"after {when}: {what[0]} mappings, {what[1]} descriptors, {what[2]} KiB resident")
    assert after[1] == before[1], "descriptors are left open"
    assert after[0] <= before[0] + 16, "mappings are left"
    assert after[2] <= before[2] + 6144, "memory is left"
    print("done", flush=True)
    os._exit(0)


main()
