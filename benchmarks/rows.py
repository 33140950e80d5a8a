"""What is measured: each row with its sides, its goals, and how often.

A value is always a cost, so that a ratio of ours to theirs below 1 is what we want: where others
would count operations a second, this is the time for one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import archives
import big
import libraries
import peers
from turns import Command

OURS, LIBC = "dlopen", "libc"
UNITS = {"anonymous": "bytes", "mappings": "mappings"}  # of a metric; all others are times


@dataclass(frozen=True)
class Goal:
    """Ours to theirs: what it has to be at most, and what it might be."""

    at_most: float
    stretch: float | None = None


@dataclass(frozen=True)
class Row:
    """One subject: a worker for each side, whose metrics are compared with those of `reference`."""

    group: str
    case: str
    commands: Callable[[], Mapping[str, Command]]
    goals: Mapping[str, Goal] = field(default_factory=dict)
    rounds: int = 30
    processes: int = 3
    fresh: bool = False  # a round needs a process of its own
    reference: str = LIBC
    at: int | None = None  # how many libraries, threads …: a place on a curve
    requests: Sequence[int] = (0,)  # the same, in one process after another
    divisor: float = 1
    difference: bool = False  # ours less theirs says more than their ratio
    file: Callable[[], Path] | None = None  # which one it was is part of the result
    full_only: bool = False


def sides(worker: str, *arguments: object, loaded: Sequence[str] = ()) -> dict[str, Command]:
    """The commands of a worker for libc, for us, and for the other loaders that there are."""
    program = str(libraries.worker(worker))
    before = [word for name in loaded for word in ("--with", name)]
    words = [*before, *map(str, arguments)]
    return {
        LIBC: Command([program, "libc", "-", *words]),
        OURS: Command([program, "dlopen", str(libraries.libdlopen()), *words]),
    } | {
        name: Command([program, name, str(library), *words])
        for name, library in peers.built()[0].items()
    }


def importing() -> dict[str, Command]:
    """The import of each module."""
    worker = str(libraries.WORKERS / "python_import.py")
    return {side: Command([sys.executable, worker, side]) for side in ("ctypes", OURS, "cffi")}


def linked(side: str, library: Path) -> str:
    """LD_PRELOAD of a library: it splits at spaces, so by a path from where workers run."""
    folder = libraries.BUILD / "preload"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / f"lib{side}.so"
    # As it is where it is right: another check may be about to use it.
    if not link.is_symlink() or link.readlink() != library:
        link.unlink(missing_ok=True)
        link.symlink_to(library)
    return str(link.relative_to(libraries.ROOT))


def preloaded(made: Callable[[], dict[str, Command]]) -> dict[str, Command]:
    """Ours in LD_PRELOAD: what it needs of libc is there at the start, and so are its names."""
    libc = made()[LIBC]
    preload = {"LD_PRELOAD": linked(OURS, libraries.libdlopen())}
    return {LIBC: libc, OURS: Command(libc.arguments, preload)}


def python(*words: object) -> dict[str, Command]:
    """The Python worker for ctypes, us and cffi."""
    worker = str(libraries.WORKERS / "python_face.py")
    return {
        side: Command([sys.executable, worker, side, *map(str, words)])
        for side in ("ctypes", OURS, "cffi")
    }


def startup() -> dict[str, Command]:
    """/bin/true with nothing, with an empty library and with ours in LD_PRELOAD."""
    program = [str(libraries.worker("startup.c")), "/bin/true"]
    return {"nothing": Command(program)} | {
        side: Command([*program, f"LD_PRELOAD={linked(side, library)}"])
        for side, library in (("empty", libraries.empty()), (OURS, libraries.libdlopen()))
    }


def opening_worker(
    task: str, find: Callable[[], Path], *, loaded: Sequence[str] = ()
) -> dict[str, Command]:
    """A task of opening.c with one library."""
    return sides("opening.c", task, find(), loaded=loaded)


def system(soname: str) -> Callable[[], Path]:
    """A small library of the system."""
    return partial(libraries.small, soname)


MATHS = ["libm.so.6"]  # one for the process, which libc loads
CASES: dict[str, tuple[Callable[[], Path], Sequence[str]]] = {  # and what libc has loaded before
    "tiny C": (libraries.tiny, []),
    "chain of three": (libraries.chain, []),
    "C++": (libraries.cxx, ["libstdc++.so.6"]),
    "zlib": (system("libz.so.1"), []),
    "sqlite3": (system("libsqlite3.so.0"), MATHS),
    "libpng": (system("libpng16.so.16"), MATHS),
    "freetype": (system("libfreetype.so.6"), MATHS),
    "zstd": (system("libzstd.so.1"), []),
    "lz4": (system("liblz4.so.1"), []),
    "sqlite3, and libm with it": (system("libsqlite3.so.0"), []),
}


def small(task: str) -> dict[str, Callable[[], dict[str, Command]]]:
    """The small libraries, each with this task of opening.c."""
    return {
        name: partial(opening_worker, task, find, loaded=loaded)
        for name, (find, loaded) in CASES.items()
    }


SMALL = small("open")
ARENA = small("arena")
HOST_LIBRARIES = 170  # as many as a browser engine needs


def beside_host_libraries() -> dict[str, Command]:
    """The first open of a process that has many libraries."""
    folder = libraries.copies(HOST_LIBRARIES)
    loaded = [str(folder / f"libcopy{i:05}.so") for i in range(HOST_LIBRARIES)]
    return opening_worker("first", libraries.tiny, loaded=loaded)


def first_opens() -> list[Row]:
    """What is prepared once is paid here."""
    goals = {"open": Goal(1.8, 1.4)}
    ways: dict[str, Callable[[], dict[str, Command]]] = {}
    for name, find in (("tiny C", libraries.tiny), ("zlib", system("libz.so.1"))):
        late = partial(opening_worker, "first", find)
        ways |= {f"{name}, preloaded": partial(preloaded, late), f"{name}, brought in late": late}
    ways[f"tiny C, late, beside {HOST_LIBRARIES} libraries of the host"] = beside_host_libraries
    group = "First open of a process"
    return [Row(group, name, made, goals, rounds=40, fresh=True) for name, made in ways.items()]


def from_bytes() -> list[Row]:
    """Libc writes them into a file in memory first."""
    found: dict[str, Callable[[], Path]] = {
        "tiny C, 15 KB": libraries.tiny,
        "zlib": system("libz.so.1"),
        "sqlite3": system("libsqlite3.so.0"),
        "10 MB": partial(libraries.large, 10 << 20),
        "100 MB": partial(libraries.large, 100 << 20),
    }
    return [
        Row(
            "From bytes",
            name,
            partial(opening_worker, "bytes", find, loaded=MATHS),
            {"open+close": Goal(0.7, 0.5)},
            rounds=12 if name.endswith("MB") else 30,
            processes=2,
            full_only=name == "100 MB",
        )
        for name, find in found.items()
    ]


SCALE_GOALS = {1000: Goal(0.65, 0.5), 5000: Goal(0.2, 0.1), 12000: Goal(0.1, 0.05)}
SCALE = (100, 250, 500, 1000, 2500, 5000, 8000, 12000)
PATIENCE = 60  # seconds until so many more libraries are open


def one_more(most: int, mode: str) -> dict[str, Command]:
    """One more library beside many."""
    folder = libraries.copies(most)
    return sides("opening.c", "scale", folder, mode, PATIENCE, libraries.tiny())


def scale() -> list[Row]:
    """One more library; in the quick run beside a thousand at most."""
    found = []
    for mode in ("local", "global"):
        for sizes in ([size for size in SCALE if size <= 1000], SCALE):
            row = Row(
                "One more library",
                mode.upper(),
                partial(one_more, sizes[-1], mode),
                {f"{metric}@{at}": SCALE_GOALS[at] for metric in ("open", "close")
                 for at in sizes if at in SCALE_GOALS},
                rounds=10,
                processes=1,
                requests=sizes,
                full_only=sizes is SCALE,
            )  # fmt: skip
            found.append(row)
    return found


def last_of_chain(count: int) -> dict[str, Command]:
    """The library that needs all others."""
    path = libraries.chained(count) / f"libcopy{count - 1:05}.so"
    return sides("opening.c", "life", path)


def whole_chain(count: int) -> dict[str, Command]:
    """Each library of the chain, the one that needs none first."""
    return sides("opening.c", "fill", libraries.chained(count), count)


def chains() -> list[Row]:
    """Libraries of which each needs the one before it."""
    goals = {"open": Goal(0.5, 0.2), "close": Goal(0.5, 0.2)}
    ways = {"the last of them opened": last_of_chain, "one opened after the other": whole_chain}
    return [
        Row("Chained libraries", name, partial(way, count), goals, rounds=4, fresh=True, at=count,
            full_only=count > 250)
        for name, way in ways.items()
        for count in (250, 500, 1000)
    ]  # fmt: skip


def bind(count: int) -> dict[str, Command]:
    """A library that binds many names, while what it needs is open."""
    user, held = libraries.binding(count)
    return sides("opening.c", "open", user, *held)


def beside(worker: str, task: str, count: int) -> dict[str, Command]:
    """A task beside so many copies."""
    return sides(worker, task, libraries.copies(count), count)


def throwing(task: str, count: int) -> dict[str, Command]:
    """Exceptions beside so many copies."""
    return sides("throws.cc", task, libraries.copies(count), count, libraries.thrower())


def symbols(soname: str) -> dict[str, Command]:
    """Dlsym of what this library exports."""
    path = libraries.small(soname)
    return sides("lookups.c", "symbols", path, *libraries.exports(path))


def questions() -> list[Row]:
    """What is asked of libraries that are open."""

    def curve(
        group: str,
        case: str,
        made: Callable[[int], dict[str, Command]],
        sizes: Sequence[int],
        metric: str,
        goals: Mapping[int, Goal],
        divisor: float = 1,
    ) -> list[Row]:
        return [
            Row(group, case, partial(made, at), {metric: goals[at]} if at in goals else {},
                rounds=20, at=at, divisor=divisor)
            for at in sizes
        ]  # fmt: skip

    sizes, every = (10, 100, 1000), "its library beside others"
    found = {"hit": Goal(0.6, 0.4), "miss": Goal(0.3, 0.2)}
    return [
        *curve("Binding a symbol", "libraries before the one that has it", bind, (0, 10, 100, 300),
               "open", {100: Goal(0.15, 0.1), 300: Goal(0.06, 0.04)}, libraries.SYMBOLS),
        *(Row("dlsym", name, partial(symbols, soname), found)
          for name, soname in (("zlib", "libz.so.1"), ("sqlite3", "libsqlite3.so.0"))),
        *curve("dlsym of RTLD_DEFAULT", "libraries before the one that has it",
               partial(beside, "lookups.c", "default"), (10, 100, 300), "lookup",
               {100: Goal(0.1, 0.06)}),
        *curve("dl_iterate_phdr", "libraries", partial(beside, "lookups.c", "iterate"), sizes,
               "iteration", {100: Goal(0.3, 0.15)}),
        *curve("dladdr", every, partial(beside, "lookups.c", "address"), sizes, "dladdr",
               {1000: Goal(0.02)}),
        *curve("Throw and catch", "through frames of a library", partial(throwing, "image"), sizes,
               "throw", dict.fromkeys(sizes, Goal(1.0, 0.9))),
        *curve("Throw and catch", "through frames of the program", partial(throwing, "host"), sizes,
               "throw", dict.fromkeys(sizes, Goal(1.0))),
    ]  # fmt: skip


def own(task: str, count: int) -> dict[str, Command]:
    """Threads with a library for each."""
    paths = (libraries.copies(8) / f"libcopy{i:05}.so" for i in range(8))
    return sides("threads.c", task, count, *paths)


def same(count: int) -> dict[str, Command]:
    """Threads that open one library, which takes longer than to wake them."""
    return sides("threads.c", "same", count, libraries.small("libsqlite3.so.0"), loaded=MATHS)


def shared(count: int) -> dict[str, Command]:
    """Threads with four libraries."""
    return sides("threads.c", "shared", count, *libraries.counters(4))


def threads() -> list[Row]:
    """Many threads at once; `at` is their number."""
    counting = {1: Goal(1.43, 1.0), 8: Goal(1.0, 0.5)}
    forking = {"median": Goal(2, 1), "99th-percentile": Goal(2, 1)}
    return [
        *(Row("Threads", "all is held open: counting only", partial(own, "counting", count),
              {"operation": goal}, rounds=15, at=count)
          for count, goal in counting.items()),
        *(Row("Threads", "a library for each thread", partial(own, "own", count),
              {"load": Goal(1.0)}, rounds=15, at=count)
          for count in (1, 2, 4, 8)),
        Row("Threads", "one library opened by all at once", partial(same, 8),
            {"all-open": Goal(1.5)}, rounds=15, at=8),
        Row("Threads", "four libraries, shared at random", partial(shared, 8),
            {"constructor-run": Goal(1.0)}, rounds=15, at=8),
        Row("fork(2)", "beside threads that open and close", partial(own, "fork", 8), forking,
            rounds=6, processes=2, at=8),
    ]  # fmt: skip


def python_life(find: Callable[[], Path], function: str) -> dict[str, Command]:
    """The Python worker with one library."""
    return python("life", find(), function)


def memory() -> dict[str, Command]:
    """Two hundred small libraries."""
    return sides("opening.c", "memory", libraries.copies(256), 200)


def faces() -> list[Row]:
    """Python, the preload and memory."""
    goals = {"open+close": Goal(0.75, 0.55), "first-attribute": Goal(0.8, 0.6), "call": Goal(1.0)}
    lives = {
        "tiny C": partial(python_life, libraries.tiny, "answer"),
        "zlib": partial(python_life, system("libz.so.1"), "zlibCompileFlags"),
    }
    return [
        *(Row("Python", name, made, goals, reference="ctypes") for name, made in lives.items()),
        Row("Python", "import of the module", importing,
            {"import": Goal(2.5, 1.8)}, fresh=True, reference="ctypes"),
        Row("Preload", "/bin/true", startup, {"start": Goal(25000, 10000)}, reference="empty",
            difference=True),
        Row("Memory", "anonymous, of one more small library", memory,
            {"anonymous": Goal(1.15, 1.0)}, rounds=3, fresh=True),
    ]  # fmt: skip


def package_import(name: str, archives_of: Callable[[str], Sequence[Path]]) -> dict[str, Command]:
    """From where pip has installed it, and from archives."""
    worker = str(libraries.WORKERS / "package_import.py")
    places = [str(archive) for archive in archives_of(name)]
    words = [worker, archives.MODULES[name]]
    python = str(archives.found().python("alone"))
    return {
        "installed": Command([python, *words], {"PYTHONPATH": str(archives.installed(name))}),
        OURS: Command([python, *words, *places]),
    }


def inflating(name: str) -> dict[str, Command]:
    """Of what the import reads, and nothing else; beside the installed import."""
    made = package_import(name, lambda name: [archives.deflated(name)])
    return made | {OURS: Command([*made[OURS].arguments, "--inflate"])}


def application(name: str, first: bool) -> dict[str, Command]:
    """A whole run of an application that imports the package."""
    worker = [sys.executable, str(libraries.WORKERS / "application.py")]
    alone = str(archives.found().python("alone"))
    unpacked = str(archives.FOLDER / "unpacked")
    script = str(archives.source(name) / "application.py")
    return {
        "installed": Command(
            [*worker, "-", alone, script], {"PYTHONPATH": str(archives.installed(name))}
        ),
        OURS: Command([*worker, "-", alone, str(archives.packed(name))]),
        "shiv": Command(
            [*worker, unpacked if first else "-", alone, str(archives.shiv(name))],
            {"SHIV_ROOT": unpacked, "PYTHONDONTWRITEBYTECODE": ""},  # it compiles once
        ),
        "PyInstaller": Command([*worker, "-", str(archives.pyinstaller(name))]),
    }


def package_rows() -> list[Row]:
    """Packages with extension modules: each sample is a process of its own."""
    forms: dict[str, tuple[Callable[[str], Sequence[Path]], dict[str, Goal]]] = {
        "stored": (lambda name: [archives.packed(name)], {"all": Goal(1.10, 1.05)}),
        "-c": (lambda name: [archives.packed(name, "-c")], {}),
        "all compressed": (lambda name: [archives.deflated(name)], {}),
        "as downloaded": (archives.wheels, {}),
    }
    group, start = "Import of packages", "Start of an application"
    return [
        *(Row(group, f"{name}, {form}", partial(package_import, name, made), goals, rounds=20,
              fresh=True, reference="installed", full_only=True)
          for name in archives.PROJECTS
          for form, (made, goals) in forms.items()),
        *(Row(group, f"{name}, inflating alone", partial(inflating, name), rounds=20,
              fresh=True, reference="installed", full_only=True)
          for name in archives.PROJECTS),
        *(Row(start, f"{name}, {'first' if first else 'later'} start",
              partial(application, name, first), rounds=10, fresh=True, reference="installed",
              full_only=True)
          for name in archives.PROJECTS
          for first in (True, False)),
    ]  # fmt: skip


BIG_GOALS = {
    "libLLVM": Goal(0.78, 0.68), "libclang-cpp": Goal(0.78, 0.68), "WebKitGTK": Goal(0.75, 0.5),
    "GDAL": Goal(0.75, 0.5), "Qt WebEngine": Goal(0.75, 0.5),
}  # fmt: skip


def first_load(case: big.Big, constructors: bool) -> dict[str, Command]:
    """A big library, and all that it needs; other loaders do not search where copies are."""
    path = case.find()
    silent = path if constructors else big.without_constructors(path)
    if case.of_python:
        made = python("first", silent)
        made.pop("cffi")
    else:
        made = sides("opening.c", "first", silent)
        if relink := made.get("relink"):
            # It takes from libc what is there of libc's, and cannot load it: a small part.
            program, name, library, *words = relink.arguments
            held = [word for name in big.HOST_ONLY for word in ("--with", name)]
            made["relink"] = Command([program, name, library, *held, *words])
    if constructors:
        return made
    search = {"LD_LIBRARY_PATH": str(silent.parent)}
    return {
        side: Command(command.arguments, search)
        for side, command in made.items()
        if side in (LIBC, OURS, "ctypes")
    }


def bigs() -> list[Row]:
    """The first load of a big library; each sample is a process of its own."""
    return [
        Row("First load" if constructors else "First load, constructors taken off", case.name,
            partial(first_load, case, constructors),
            {"open": BIG_GOALS.get(case.name, Goal(0.75, 0.6)) if constructors
             else Goal(0.7, 0.55)},
            rounds=10, fresh=True, reference="ctypes" if case.of_python else LIBC,
            file=case.find, full_only=True)
        for constructors in (True, False)
        for case in big.CASES
    ]  # fmt: skip


def all_rows() -> list[Row]:
    """Of the quick run and of the full one."""
    goals = {"open+close": Goal(0.8, 0.75), "close": Goal(0.9)}
    return [
        *(Row("Open and close", name, made, goals) for name, made in SMALL.items()),
        *(Row("In the arena", name, made, {"open+close": Goal(0.5, 0.4)})
          for name, made in ARENA.items()),
        *first_opens(),
        *from_bytes(),
        *scale(),
        *chains(),
        *questions(),
        *threads(),
        *faces(),
        *bigs(),
        *package_rows(),
    ]  # fmt: skip


def chosen(full: bool, rounds: int | None) -> list[Row]:
    """The rows of a run; a curve of the full run stands for its short one."""
    rows = all_rows()
    if full:
        longer = {(row.group, row.case) for row in rows if row.full_only and len(row.requests) > 1}
        rows = [r for r in rows if r.full_only or (r.group, r.case) not in longer]
        rows = [replace(r, rounds=2 * r.rounds) for r in rows]
    else:
        rows = [row for row in rows if not row.full_only]
    return [replace(row, rounds=rounds) for row in rows] if rounds else rows
