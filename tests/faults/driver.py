"""Each operation of the Python face with the n-th allocation or kernel call of the linker failing.

    driver.py [--only NAME] [--point N] [--stride N] [--explain] FOLDER

As driver.c, with faults.c preloaded. Each point is tried in a forked child.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from ctypes import c_int
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

LIMIT = 60
faults = ctypes.CDLL(None)
faults.faults_arm.argtypes = [ctypes.c_long, c_int]
faults.faults_disarm.restype = ctypes.c_long
faults.faults_state.restype = ctypes.c_size_t
_text = ctypes.create_string_buffer(1 << 17)

folder = Path()
content: dict[str, bytes] = {}


def nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Operation:
    """`run` is given what `prepare` returned, and `finish` that and what `run` returned."""

    name: str
    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = nothing
    finish: Callable[[Any, Any], None] = nothing
    ends_with: str = ""
    # Without memory for the record of a thread_local object its library stays.
    may_stay: bool = False
    # The process's first image: an unwinder may come with it.
    is_first: bool = False


def close(_: object, library: Any) -> None:
    library.close()


def close_both(one: Any, other: Any) -> None:
    other.close()
    one.close()


def path(name: str) -> str:
    return str(folder / name)


def operations() -> list[Operation]:
    import dlopen  # noqa: PLC0415  (the first time is an operation itself)

    lazy = os.RTLD_LAZY

    def opener(name: str, mode: int = os.RTLD_NOW, **keywords: Any) -> Callable[..., Any]:
        return lambda *_: dlopen.Library(path(name), mode, **keywords)

    def from_bytes(name: str, **keywords: Any) -> Callable[..., Any]:
        return lambda *_: dlopen.Library.from_bytes(content[name], name=name, **keywords)

    def closing(library: Any, _: object) -> None:
        if not library.closed:
            library.close()

    def call_middle(library: Any, expected: int) -> None:
        assert library.middle(1) == expected, library.middle(1)

    def patched(library: Any) -> Any:
        return library.patch(leaf=replacement)

    def restore(library: Any, patch: Any) -> None:
        call_middle(library, 101)
        patch.restore()
        call_middle(library, 3)
        library.close()

    @dlopen.callback(c_int, c_int)
    def replacement(number: int) -> int:
        return number + 100

    def close_patched(library: Any, patch: Any) -> None:
        call_middle(library, 3)
        library.close()

    def prepare_patched() -> tuple[Any, Any]:
        library = opener("libmiddle.so")()
        return library, library.patch(leaf=replacement)

    def take_back(both: tuple[Any, Any]) -> None:
        both[1].restore()

    def close_taken_back(both: tuple[Any, Any], _: object) -> None:
        call_middle(both[0], 3)
        both[0].close()

    def reload(library: Any) -> Any:
        return library.reload(content["libleaf2.so"])

    def close_reloaded(library: Any, _: object) -> None:
        assert library.leaf(1) == 1002, library.leaf(1)
        library.close()

    def two_steps(_: object) -> Any:
        image = dlopen.Image(path("libleaf.so"))
        try:
            return image.relocate(scope=[libc])
        except BaseException:
            image.close()
            raise

    def namespace(_: object) -> Any:
        space = dlopen.Namespace("faults", path=[str(folder)])
        try:
            space.load("libchain.so")
        except BaseException:
            space.close()
            raise
        return space

    def storage(library: Any) -> None:
        assert library.touch() == 7

    def storage_in_thread(library: Any) -> None:
        results = []
        thread = threading.Thread(target=lambda: results.append(library.touch()))
        thread.start()
        thread.join()
        # And the kernel says that it has ended: then its storage is freed.
        while len(list(Path("/proc/self/task").iterdir())) != 1:
            sleep(0.001)
        assert results == [7]

    def variable(library: Any) -> None:
        assert library.variable("counter", c_int).value == 7

    def describe(library: Any) -> None:
        assert library.info.path.endswith("libchain.so")
        assert list(library.info.relocations)
        assert len(library.info.dependencies) >= 2

    def symbols(library: Any) -> None:
        assert "chain" in library.symbols
        assert library.function("chain", c_int, c_int)(1) == 6
        assert "missing" not in library.symbols

    def missing(_: object) -> None:
        try:
            dlopen.Library("libmissing.so")
        except dlopen.LoadError as error:
            if "No such file" not in str(error):
                raise
        else:
            raise AssertionError

    def no_symbol(library: Any) -> None:
        try:
            library["missing"]
        except dlopen.SymbolError as error:
            assert "undefined symbol" in str(error)  # noqa: PT017
        else:
            raise AssertionError

    def look(library: Any) -> None:
        found = dlopen.dladdr(int(library.symbols["leaf"]))
        assert found is not None
        assert found.library.path.endswith("libleaf.so")

    def iterate(_: object) -> None:
        seen: list[str] = []
        dlopen.dl_iterate_phdr(lambda image: seen.append(image.name))
        assert seen

    def found(_: object) -> None:
        assert dlopen.find("libchain.so").path == path("libchain.so")

    def replaced(_: object) -> Any:
        library = dlopen.Library(path("libmiddle.so"), replace={"leaf": replacement})
        assert library.middle(1) == 101
        return library

    def call(library: Any) -> None:
        assert library.lazy(1) == 3

    def work(library: Any) -> None:
        assert library.work() == 42

    # All that is found out once.
    libc = dlopen.existing("libc.so.6")
    dlopen.Library("libchain.so").close()
    no_storage = "cannot allocate memory for thread-local data: ABORT"
    return [
        Operation("Library", opener("libleaf.so"), finish=close),
        Operation("Library of a chain", opener("libchain.so"), finish=close),
        Operation("Library by search", lambda _: dlopen.Library("libchain.so"), finish=close),
        Operation("Library RTLD_GLOBAL", opener("libleaf.so", os.RTLD_GLOBAL), finish=close),
        Operation("Library RTLD_LAZY", opener("liblazy.so", lazy), finish=close),
        Operation("Library PRIVATE", opener("libchain.so", dlopen.PRIVATE), finish=close),
        Operation("Library of C++", opener("libcxx.so"), finish=close),
        Operation("Library of dynamic storage", opener("libtls.so"), finish=close),
        Operation("Library of initial-exec storage", opener("libinitial.so"), finish=close),
        Operation("Library of text relocations", opener("libtextrel.so"), finish=close),
        Operation("Library of the program", lambda _: dlopen.Library(None), finish=close),
        Operation("Library of libc", lambda _: dlopen.Library("libc.so.6"), finish=close),
        Operation("Library again", opener("libleaf.so"), opener("libleaf.so"), close_both),
        # What it asked the system's cache is kept mapped, whether it is done again or not.
        Operation("Library of what is missing", missing, lambda: missing(None)),
        Operation(
            "Library with files",
            lambda _: dlopen.Library("libchain.so", files=content),
            finish=close,
        ),
        Operation("Library with replacements", replaced, finish=close),
        Operation("Library.from_bytes", from_bytes("libleaf.so"), finish=close),
        Operation(
            "Library.from_bytes of initial-exec storage", from_bytes("libinitial.so"), finish=close
        ),
        Operation(
            "Library.from_bytes with files", from_bytes("libchain.so", files=content), finish=close
        ),
        Operation("Library.close", lambda library: library.close(), opener("libchain.so")),
        Operation(
            "Library.close of bytes", lambda library: library.close(), from_bytes("libleaf.so")
        ),
        Operation("Library.info", describe, opener("libchain.so"), closing),
        Operation("Library.symbols", symbols, opener("libchain.so"), closing),
        Operation("a symbol that is missing", no_symbol, opener("libleaf.so"), closing),
        Operation("lazy call", call, opener("liblazy.so", lazy), closing, "symbol lookup error"),
        Operation("C++ at work", work, opener("libcxx.so"), closing, no_storage, may_stay=True),
        Operation("storage touched", storage, opener("libtls.so"), closing, no_storage),
        Operation(
            "storage touched in a thread",
            storage_in_thread,
            opener("libtls.so"),
            closing,
            no_storage,
        ),
        Operation(
            "Library.variable of storage", variable, opener("libtls.so"), closing, no_storage
        ),
        Operation("Library.patch", patched, opener("libmiddle.so"), restore),
        Operation("Patch.restore", take_back, prepare_patched, close_taken_back),
        Operation("reload=True", opener("libleaf.so", reload=True), finish=close),
        Operation("Library.reload", reload, opener("libleaf.so", reload=True), close_reloaded),
        Operation("Image, relocate", two_steps, finish=close),
        Operation("Namespace", namespace, finish=close),
        Operation("existing", lambda _: dlopen.existing("libc.so.6"), finish=close),
        Operation(
            "existing, of ours",
            lambda _: dlopen.existing("libleaf.so"),
            opener("libleaf.so"),
            close_both,
        ),
        Operation("libraries", lambda _: len(dlopen.libraries())),
        Operation("dladdr", look, opener("libleaf.so"), closing),
        Operation("dl_iterate_phdr", iterate),
        Operation("find", found),
    ]


def importing() -> list[Operation]:
    """With the package not imported yet: only its constructor, and what DLOPEN_abi asks."""

    def imported(_: object) -> None:
        import dlopen  # noqa: F401, PLC0415

    return [Operation("import dlopen", imported)]


def first_operations() -> list[Operation]:
    """With the package imported, which asks the linker for nothing yet."""
    import dlopen  # noqa: PLC0415

    def first_bytes(_: object) -> Any:
        return dlopen.Library.from_bytes(content["libinitial.so"], name="libinitial.so")

    return [
        Operation(
            "first Library",
            lambda _: dlopen.Library(path("libchain.so")),
            finish=close,
            is_first=True,
        ),
        Operation(
            "first Library by search",
            lambda _: dlopen.Library("libchain.so"),
            finish=close,
            is_first=True,
        ),
        Operation("first Library.from_bytes", first_bytes, finish=close, is_first=True),
        Operation("first libraries()", lambda _: len(dlopen.libraries())),
        Operation("first find()", lambda _: dlopen.find("libchain.so")),
    ]


def state(blocks: bool) -> list[str]:
    """What faults_state says, but for anonymous memory: the interpreter's own grows as it likes."""
    import dlopen  # noqa: PLC0415

    # What could not be closed then is, with the next close.
    dlopen.Library.from_bytes(content["libleaf2.so"], name="libleaf2.so").close()
    count = len(dlopen.libraries())
    length = faults.faults_state(_text, len(_text), blocks)
    lines = _text.raw[:length].decode().splitlines()
    return [line for line in lines if not line.startswith(" rw-p ")] + [f"images {count}"]


def clear(error: BaseException) -> str:
    """Why this is no clear error; "" if it is one."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return ""
    if type(error).__module__ != "dlopen.errors":
        return f"not an error of the package: {text}: {traceback.format_exception(error)}"
    if not str(error) or "was not found in this process" in text:
        return f"not clear: {text}"
    return ""


def attempt(operation: Operation, number: int, stays: bool) -> dict[str, Any]:
    prepared = operation.prepare()
    failure = None
    faults.faults_arm(number, stays)
    try:
        result = operation.run(prepared)
    except Exception as error:  # noqa: BLE001
        failure = error
    passed = faults.faults_disarm()
    hit = bool(faults.faults_hit())
    if os.environ.get("FAULTS_EXPLAIN"):
        faults.faults_explain()
        print(repr(failure), file=sys.stderr)
    if failure is not None:
        if wrong := clear(failure):
            return {"wrong": wrong, "hit": hit}
        failure = None  # and with it the frames that hold what was opened
        result = operation.run(prepared)
    opened = state(blocks=False)
    operation.finish(prepared, result)
    prepared = operation.prepare()
    operation.finish(prepared, operation.run(prepared))
    del prepared, result
    ended = state(blocks=True)
    if os.environ.get("FAULTS_EXPLAIN"):
        faults.faults_explain()
    return {"wrong": "", "hit": hit, "passed": passed, "opened": opened, "ended": ended}


def try_point(operation: Operation, number: int, stays: bool) -> dict[str, Any]:
    """In a process of its own."""
    answers = os.memfd_create("answers")  # a pipe's name would be another each time
    said = os.memfd_create("errors")
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        if not os.environ.get("FAULTS_EXPLAIN"):
            os.dup2(said, 2)
        signal.alarm(LIMIT)
        try:
            outcome = attempt(operation, number, stays)
        except BaseException as error:  # noqa: BLE001
            outcome = {"wrong": "".join(traceback.format_exception(error)), "hit": True}
        os.write(answers, pickle.dumps(outcome))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answer = os.pread(answers, 1 << 20, 0)
    os.close(answers)
    words = os.pread(said, 4000, 0).decode(errors="replace")
    os.close(said)
    if status == 0 and answer:
        found: dict[str, Any] = pickle.loads(answer)
        return found
    if status == 127 and operation.ends_with and operation.ends_with in words:
        return {"wrong": "", "hit": True}
    return {"wrong": f"ends with {status}: {words}", "hit": True}


def difference(what: str, expected: list[str], got: list[str]) -> str:
    changes = [f"+ {line}" for line in got if line not in expected]
    changes += [f"- {line}" for line in expected if line not in got]
    return f"{what} differs: {'  '.join(changes)}" if changes else ""


def without_unwinder(expected: list[str], got: list[str]) -> tuple[list[str], list[str]]:
    """But for libgcc_s, and the blocks of its record.

    It was brought in, for good, where libc's symbol table could not be opened (host/redirect.pxd).
    """
    library = "/libgcc_s.so.1"
    if any(library in line for line in expected) or not any(library in line for line in got):
        return expected, got
    count = next(line for line in got if line.startswith("images "))
    one_less = f"images {int(count.split()[1]) - 1}"
    return [line for line in expected if not line.startswith("blocks ")], [
        one_less if line == count else line
        for line in got
        if library not in line and not line.startswith("blocks ")
    ]


def try_operation(operation: Operation, point: int, stride: int) -> tuple[int, int]:
    reference = try_point(operation, 0, False)
    if reference["wrong"]:
        print(f"FAILED {operation.name}: without a failure: {reference['wrong']}")
        return 0, 1
    tried = bad = 0
    for stays in (False, True):
        for number in range(point or 1, 5000, stride):
            outcome = try_point(operation, number, stays)
            wrong = outcome["wrong"]
            opened, ended = reference["opened"], reference["ended"]
            if not wrong and "opened" in outcome and operation.is_first and outcome["hit"]:
                opened, outcome["opened"] = without_unwinder(opened, outcome["opened"])
                ended, outcome["ended"] = without_unwinder(ended, outcome["ended"])
            if not wrong and "opened" in outcome:
                wrong = difference("with it done, the state", opened, outcome["opened"])
                if not (wrong or (operation.may_stay and outcome["hit"])):
                    wrong = difference("after it, the state", ended, outcome["ended"])
            if wrong:
                print(
                    f"FAILED {operation.name}, point {number}{' and all after it' * stays}: {wrong}"
                )
                bad += 1
            if not outcome["hit"]:
                break
            tried += 1
            if point:
                break
    print(f"{operation.name:50} {tried:5} points{'  FAILED' if bad else ''}", flush=True)
    return tried, bad


def main() -> int:
    global folder  # noqa: PLW0603
    parser = argparse.ArgumentParser()
    parser.add_argument("--only")
    parser.add_argument("--point", type=int, default=0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.explain:
        os.environ["FAULTS_EXPLAIN"] = "1"
    folder = arguments.folder.resolve()
    content.update({file.name: file.read_bytes() for file in folder.glob("*.so")})
    tried = failures = 0
    for make in (importing, first_operations, operations):
        for operation in make():
            if arguments.only in (None, operation.name):
                counts = try_operation(operation, arguments.point, arguments.stride)
                tried, failures = tried + counts[0], failures + counts[1]
    print(f"{tried} points, {failures} failures")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
