"""Constructors that throw: the open fails, and says what was thrown."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library, run_python

pytestmark = pytest.mark.cxx

SOURCE = """
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
extern "C" void note(int);
struct Made { Made() { note(1); } ~Made() { note(-1); } };
static Made made;
struct Left : virtual std::exception {};
struct Right : virtual std::exception {};
struct Both : Left, Right { const char *what() const noexcept override { return "of both"; } };
struct Private : private std::exception {};
struct Guard { ~Guard() { note(7); } };
static int again() {
  try { throw std::out_of_range("first"); }
  catch (...) { std::rethrow_exception(std::current_exception()); }
}
static int start() { Guard guard; WHAT; return 1; }
static int started = start();
static Made never;
extern "C" int answer(void) { return 42; }
"""
HEAD = """
import ctypes, sys, threading
from ctypes import c_int
import dlopen
path = sys.argv[1]
events = []
noted = dlopen.callback(None, c_int)(events.append)
def load(what=path):
    return dlopen.Library(what, replace={"note": noted}, replace_in="tree")
def loaded():
    return [info.path for info in dlopen.libraries() if info.path in sys.argv]
"""
THROWN = {
    'throw std::runtime_error("no licence")': ": no licence",
    "throw Both()": ": of both",
    "throw Private()": " of type 7Private",
    "throw 42": " of type i",
    'throw std::string("text")': " of type ",
    "again()": " of type St12out_of_range",
}


def build(directory: Path, what: str, name: str = "libthrows.so") -> Path:
    source = SOURCE.replace("WHAT", what)
    return compile_library(directory, name, source, language="c++", flags=["-std=c++17"])


@pytest.mark.parametrize("what", THROWN)
def test_the_open_fails(tmp_path: Path, what: str) -> None:
    code = """
for _ in range(3):
    events.clear()
    try:
        load()
    except dlopen.LoadError as error:
        print(error.reason)
    # What was made is destroyed, in the order of C++; what was not made is not.
    assert events == [1, 7, -1], events
    assert not loaded()
cxx = dlopen.existing("libstdc++.so.6")
count = cxx.function("_ZSt19uncaught_exceptionsv", c_int)
print(count())
"""
    *reasons, uncaught = run_python(HEAD + code, str(build(tmp_path, what))).stdout.splitlines()
    assert len(set(reasons)) == 1
    assert reasons[0].startswith("a constructor has thrown an exception" + THROWN[what])
    assert uncaught == "0"


def test_of_a_dependency(tmp_path: Path) -> None:
    """What needs it is not constructed, nor destroyed."""
    base = build(tmp_path, 'throw std::runtime_error("no licence")')
    source = """
    void note(int); int answer(void);
    __attribute__((constructor)) static void begin(void) { note(100 + answer()); }
    __attribute__((destructor)) static void end(void) { note(-100); }
    """
    top = compile_library(tmp_path, "libtop.so", source, libraries=[base])
    code = """
try:
    load(sys.argv[2])
except dlopen.LoadError as error:
    print(error.library == path, error.reason, error.needed_by == sys.argv[2])
print(events, loaded())
"""
    assert run_python(HEAD + code, str(base), str(top)).stdout.splitlines() == [
        "True a constructor has thrown an exception: no licence True",
        "[1, 7, -1] []",
    ]


def test_another_thread_waits_for_it(tmp_path: Path) -> None:
    """It gets no library that is half made."""
    what = 'note(2); throw std::runtime_error("no licence")'
    code = """
inside, errors = threading.Event(), []
@dlopen.callback(None, c_int)
def noted(number):
    if number == 2:
        inside.set()
        waiting.wait(0.3)
waiting = threading.Event()
def open_it(replace):
    try:
        dlopen.Library(path, replace=replace)
    except dlopen.LoadError as error:
        errors.append(error.reason)
first = threading.Thread(target=open_it, args=[{"note": noted}])
first.start()
inside.wait()
second = threading.Thread(target=open_it, args=[None])
second.start()
first.join()
second.join()
print(*sorted(errors), loaded(), sep="; ")
"""
    done = run_python(HEAD + code, str(build(tmp_path, what)))
    assert done.stdout == (
        "a constructor has thrown an exception when it was opened; "
        "a constructor has thrown an exception: no licence; []\n"
    )


@pytest.mark.emulated(reason="the pages are counted of the emulator")
def test_linked_by_hand_and_a_thousand_times(tmp_path: Path) -> None:
    code = """
libraries = [dlopen.Library(name) for name in ("libstdc++.so.6", "libc.so.6", "libgcc_s.so.1")]
pages = lambda: int(open("/proc/self/statm").read().split()[1])
for turn in range(1100):
    if turn == 100:
        loaded()  # which imports what it needs
        before = pages()
    image = dlopen.Image(path)
    try:
        image.relocate(libraries, replace={"note": noted})
    except dlopen.LoadError as error:
        assert error.reason.endswith("no licence") and image.closed
    events.clear()
print(loaded(), pages() - before < 100)
"""
    library = build(tmp_path, 'throw std::runtime_error("no licence")')
    assert run_python(HEAD + code, str(library)).stdout == "[] True\n"
