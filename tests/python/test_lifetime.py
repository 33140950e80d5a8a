"""Use after close, threads, and the process's end."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

import dlopen
from support.fixtures import compile_library, run_python

# The library is given the callback's address before its constructor runs, by the environment.
FROM_CONSTRUCTOR = r"""
#include <stdlib.h>
__attribute__((constructor)) static void start(void)
{
  ((void (*)(void))strtoull(getenv("CALLBACK"), 0, 0))();
}
int ready(void) { return 1; }
"""

AT_EXIT = r"""
#include <stdio.h>
#include <unistd.h>
static int (*number)(int);
static double (*real)(double);
static void (*nothing)(void);
void give(int (*a)(int), double (*b)(double), void (*c)(void))
{
  number = a;
  real = b;
  nothing = c;
}
int now(int value) { return number(value); }
__attribute__((destructor)) static void end(void)
{
  char text[99];
  nothing();
  int size = snprintf(text, sizeof text, "destructor: %d %g\n", number(1), real(1));
  if (write(1, text, size) != size)
    _exit(3);
}
"""


def test_functions_after_close(example: Path) -> None:
    library = dlopen.Library(example)
    functions = [
        library.add,
        library["count"],
        library["twice@EXAMPLE_1"],
        library.function("half", ctypes.c_double, ctypes.c_double),
    ]
    library.close()
    for function in functions:
        with pytest.raises(ValueError, match=r"libexample\.so is closed"):
            function(1, 2)
        assert isinstance(function, dlopen.Function)
        assert "libexample" in repr(function)
    with pytest.raises(ValueError, match="closed"):
        library.add  # noqa: B018
    with pytest.raises(ValueError, match="closed"):
        library["add"]
    with pytest.raises(ValueError, match="closed"):
        library.function("add")
    with pytest.raises(ValueError, match="closed"):
        library.variable("counter", ctypes.c_int)
    with pytest.raises(ValueError, match="closed"):
        library.__enter__()


@pytest.mark.parametrize("gil", [False, True])
@pytest.mark.parametrize("use_errno", [False, True])
def test_functions_of_all_kinds_after_close(example: Path, gil: bool, use_errno: bool) -> None:
    library = dlopen.Library(example, gil=gil, use_errno=use_errno)
    add = library.add
    add.restype = ctypes.c_long
    assert add(1, 2) == 3
    library.close()
    with pytest.raises(ValueError, match="closed"):
        add(1, 2)


def test_a_closed_function_as_an_argument_is_harmless(example: Path) -> None:
    library = dlopen.Library(example, dlopen.PRIVATE)
    add = library.add
    library.close()
    with dlopen.Library(example) as other:
        assert other.call(add, 5) == 0


def test_variables_after_close(example: Path) -> None:
    library = dlopen.Library(example)
    counter = library.variable("counter", ctypes.c_int)
    library.close()
    for use in (lambda: counter.value, lambda: counter.address):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(ValueError, match="closed"):
        counter.value = 5


def test_one_close_leaves_the_other_object_alone(example: Path) -> None:
    first, second = dlopen.Library(example), dlopen.Library(example)
    closed, alive = first.add, second.add
    first.close()
    assert alive(1, 2) == 3
    with pytest.raises(ValueError, match="closed"):
        closed(1, 2)
    second.close()


def test_closing_in_many_threads(example: Path) -> None:
    code = """
import sys, threading
import dlopen

def look(library):
    # Calls are not among what may race with close(): see dlclose(3).
    barrier.wait()
    try:
        while True:
            functions.append(library.function("add"))
            library.symbols["counter"].address, list(library.symbols), library.info.segments
    except ValueError:
        pass

def close(library):
    barrier.wait()
    library.close()

for _ in range(50):
    library = dlopen.Library(sys.argv[1], dlopen.PRIVATE)
    functions = [library.add]
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=target, args=[library])
               for target in (look, look, close, close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for function in functions:
        try:
            function(1, 2)
        except ValueError:
            continue
        sys.exit("a function of a closed library was called")
print("done")
"""
    assert run_python(code, str(example)).stdout == "done\n"


def test_a_callback_in_a_constructor_while_another_thread_imports(tmp_path: Path) -> None:
    """The system's loader holds its lock, and the GIL, when an extension module is imported."""
    path = compile_library(tmp_path, "libconstructor.so", FROM_CONSTRUCTOR)
    code = """
import ctypes, importlib.util, os, sys, threading
import dlopen

names = ("_csv", "_elementtree", "_queue", "_heapq", "array", "_zoneinfo", "_lsprof", "audioop",
         "cmath", "mmap", "_multibytecodec", "_statistics", "xxlimited", "_testbuffer")
modules = []
for name in names:
    spec = name not in sys.modules and importlib.util.find_spec(name)
    if spec and (spec.origin or "").endswith(".so"):
        modules.append(name)
assert len(modules) >= 2, modules
entered, imported = threading.Event(), threading.Event()

def import_them():
    assert entered.wait(20)
    for name in modules:
        __import__(name)
    imported.set()

@dlopen.callback(None)
def in_constructor():
    entered.set()
    print("imported meanwhile:", imported.wait(20))

os.environ["CALLBACK"] = str(ctypes.cast(in_constructor, ctypes.c_void_p).value)
thread = threading.Thread(target=import_them)
thread.start()
with dlopen.Library(sys.argv[1]) as library:
    print("ready:", library.ready())
thread.join()
"""
    output = run_python(code, str(path)).stdout
    assert output.splitlines() == ["imported meanwhile: True", "ready: 1"]


def test_fork_while_others_import_and_call_back(tmp_path: Path, example: Path) -> None:
    """The GIL, the system's loader, ours and fork, all at once."""
    path = compile_library(tmp_path, "libconstructor.so", FROM_CONSTRUCTOR)
    code = """
import ctypes, importlib.machinery, importlib.util, os, signal, sys, threading
import dlopen

origin = importlib.util.find_spec("_queue").origin
stop = threading.Event()
threading.excepthook = lambda problem: (sys.__excepthook__(*problem[:3]), os._exit(1))

def import_again():
    while not stop.is_set():
        loader = importlib.machinery.ExtensionFileLoader("_queue", origin)
        importlib.util.module_from_spec(importlib.util.spec_from_loader("_queue", loader))

@dlopen.callback(None)
def in_constructor():
    sum(range(100))

def call_back():
    while not stop.is_set():
        dlopen.Library(sys.argv[1], dlopen.PRIVATE).close()

os.environ["CALLBACK"] = str(ctypes.cast(in_constructor, ctypes.c_void_p).value)
threads = [threading.Thread(target=target) for target in (import_again, call_back)]
for thread in threads:
    thread.start()
for _ in range(100):
    child = os.fork()
    if child == 0:
        signal.alarm(120)  # where it deadlocks
        library = dlopen.Library(sys.argv[2], dlopen.PRIVATE)
        os._exit(library.add(1, 2) - 3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
stop.set()
for thread in threads:
    thread.join()
print("done")
"""
    assert run_python(code, str(path), str(example)).stdout == "done\n"


def test_opening_from_a_constructor(tmp_path: Path, example: Path) -> None:
    path = compile_library(tmp_path, "libconstructor.so", FROM_CONSTRUCTOR)
    code = """
import ctypes, os, sys
import dlopen

@dlopen.callback(None)
def in_constructor():
    with dlopen.Library(sys.argv[2]) as library:
        print("inside:", library.add(1, 2))

os.environ["CALLBACK"] = str(ctypes.cast(in_constructor, ctypes.c_void_p).value)
with dlopen.Library(sys.argv[1]) as library:
    print("ready:", library.ready())
"""
    output = run_python(code, str(path), str(example)).stdout
    assert output.splitlines() == ["inside: 3", "ready: 1"]


@pytest.mark.parametrize("allocator", ["pymalloc", "malloc_debug"])
def test_a_callback_at_process_exit(tmp_path: Path, allocator: str) -> None:
    """Destructors run after Python's end; what they call is Python no more, and returns 0."""
    path = compile_library(tmp_path, "libatexit.so", AT_EXIT)
    code = """
import atexit, ctypes, sys
import dlopen
number = dlopen.callback(ctypes.c_int, ctypes.c_int)(lambda value: value + 1)
real = dlopen.callback(ctypes.c_double, ctypes.c_double)(lambda value: value + 1)
nothing = dlopen.callback(None)(lambda: None)
library = dlopen.Library(sys.argv[1])
library.give(number, real, nothing)
print("running:", library.now(1), flush=True)
atexit.register(lambda: print("atexit:", library.now(2), flush=True))
"""
    done = run_python(code, str(path), env={"PYTHONMALLOC": allocator})
    assert done.stdout.splitlines() == ["running: 2", "atexit: 3", "destructor: 0 0"]
    assert done.stderr == ""


def test_a_callback_in_a_destructor_at_close(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libatexit.so", AT_EXIT)
    code = """
import ctypes, sys
import dlopen
number = dlopen.callback(ctypes.c_int, ctypes.c_int)(lambda value: value + 1)
real = dlopen.callback(ctypes.c_double, ctypes.c_double)(lambda value: value + 1)
nothing = dlopen.callback(None)(lambda: print("in destructor", library.closed, flush=True))
library = dlopen.Library(sys.argv[1])
library.give(number, real, nothing)
library.close()
"""
    done = run_python(code, str(path))
    assert done.stdout.splitlines() == ["in destructor True", "destructor: 2 2"]


def test_nothing_is_unloaded_by_garbage_collection_but_destructors_run_at_exit(
    tmp_path: Path,
) -> None:
    source = r"""
    #include <unistd.h>
    __attribute__((destructor)) static void end(void)
    {
      if (write(1, "destructor\n", 11) < 0)
        _exit(3);
    }
    """
    path = compile_library(tmp_path, "libend.so", source)
    code = """
import atexit, gc, sys
import dlopen
from support.fixtures import maps
library = dlopen.Library(sys.argv[1])
del library
gc.collect()
print("mapped:", any(mapping.path == sys.argv[1] for mapping in maps()), flush=True)
atexit.register(print, "atexit", flush=True)
"""
    output = run_python(code, str(path)).stdout
    assert output.splitlines() == ["mapped: True", "atexit", "destructor"]
