"""Where the package does not work, importing it says so."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import dlopen
from support.fixtures import compile_library, run, run_python

IMPORT = """
try:
    import dlopen
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("preparation", "message"),
    [
        ("sys.implementation.name = 'pypy'", "needs CPython, not pypy"),
        ("sys.abiflags = 't'", "free-threaded"),
        ("os.confstr = lambda name: 'glibc 2.31'", "needs glibc 2.34 or newer, not glibc 2.31"),
        ("os.confstr = lambda name: ''", "needs glibc 2.34 or newer, not another C library"),
        ("os.confstr = lambda name: None", "needs glibc 2.34 or newer, not another C library"),
        (
            "os.uname = lambda: types.SimpleNamespace(machine='sparc64')",
            "needs 64-bit Linux on x86_64, not linux sparc64",
        ),
        ("sys.maxsize = 2**31 - 1", "32 bits"),
        ("sys.platform = 'freebsd14'", "not freebsd14"),
    ],
)
def test_unsupported(preparation: str, message: str) -> None:
    output = run_python(f"import os, sys, types\n{preparation}\n{IMPORT}").stdout
    assert message in output


def test_the_version_is_known_without_the_metadata() -> None:
    code = "import dlopen, sys; print(dlopen.__version__, 'importlib.metadata' in sys.modules)"
    assert run_python(code).stdout.split() == [version("dlopen"), "False"]


def test_what_is_slow_to_import_is_not_imported() -> None:
    """Of the standard library only this, and what it needs itself."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(dlopen.__file__).parents[1])!r})
import __future__, _ctypes, _thread, _warnings, atexit, collections.abc, ctypes, enum, errno
import functools, itertools, os, threading, time, types, weakref
before = set(sys.modules)
import dlopen
print(*sorted(name for name in set(sys.modules) - before if not name.startswith("dlopen")))
"""
    # Neither a .pth file of the environment nor its site-packages bring in more.
    names = run([sys.executable, "-I", "-S", "-c", code]).stdout.split()
    assert [name for name in names if "cython" not in name] == []


# What is left of the package says what was imported before it refused.
REFUSED = f"""{IMPORT}
import sys
print(sorted(name for name in sys.modules if name.startswith("dlopen")))
sys.stdout.flush()
"""


@pytest.mark.parametrize("first", ["", "import dlopen", "import dlopen, _ctypes, threading"])
@pytest.mark.parametrize("kind", ["legacy", "isolated"])
def test_subinterpreters(kind: str, first: str) -> None:
    """Those that share the GIL, and those that have their own where there are such (PEP 684)."""
    code = f"""
{first}
try:
    import _interpreters as interpreters
    number = interpreters.create({kind!r})
except ImportError:
    import _xxsubinterpreters as interpreters
    number = interpreters.create(isolated={kind == "isolated"})
interpreters.run_string(number, {REFUSED!r})
interpreters.destroy(number)
{first and "print(dlopen.existing('libc.so.6').abs(-3))"}
"""
    refused, left, *rest = run_python(code).stdout.splitlines()
    assert refused == "dlopen works in the main interpreter only, not in a subinterpreter"
    assert left in ("[]", "['dlopen._platform']")
    assert rest == (["3"] if first else [])


# A module whose import ends the interpreter of the process, starts one, and runs a text in it.
AGAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern int Py_FinalizeEx(void);
extern void Py_Initialize(void);
extern int PyRun_SimpleString(const char *);

void *PyInit_again(void)
{
    int status;
    Py_FinalizeEx();
    Py_Initialize();
    status = PyRun_SimpleString(getenv("AGAIN"));
    fflush(stdout);
    _exit(status != 0);
}
"""


@pytest.mark.parametrize("first", ["import dlopen; dlopen.existing('libc.so.6').abs(1)", ""])
def test_a_second_initialisation(first: str, tmp_path: Path) -> None:
    """What the extension keeps is of the first interpreter, if that has imported it."""
    compile_library(tmp_path, "again.so", AGAIN)
    code = f"""
import os, sys
{first}
os.environ["PYTHONHOME"] = f"{{sys.base_prefix}}:{{sys.base_exec_prefix}}"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
sys.path.append({str(tmp_path)!r})
import again
"""
    lines = run_python(code, env={"AGAIN": REFUSED}).stdout.splitlines()
    if first:
        assert lines == [
            "dlopen works in the first interpreter that imports it, not again after its end",
            "['dlopen._platform']",
        ]
    else:
        assert "'dlopen.library'" in lines[0]


def test_another_version_of_the_linker_is_refused(tmp_path: Path) -> None:
    """One in LD_PRELOAD satisfies the extension module's need of the name."""
    header = Path(dlopen.get_include(), "dlopen.h").read_text()
    names = set(re.findall(r"^\w[\w ]*[ *](DLOPEN_\w+)\(", header, re.MULTILINE)) - {"DLOPEN_abi"}
    assert {"DLOPEN_open", "DLOPEN_needed_at", "DLOPEN_holders"} <= names
    source = "unsigned DLOPEN_abi(void) { return 99; }\n"
    source += "".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(names))
    other = compile_library(tmp_path, "libdlopen.so", source)
    # LD_PRELOAD cannot hold a path with a space.
    env = {"LD_PRELOAD": other.name, "LD_LIBRARY_PATH": str(tmp_path)}
    output = run_python(IMPORT, env=env).stdout
    assert str(other) in output
    assert "_linker" in output
    assert "99" in output
