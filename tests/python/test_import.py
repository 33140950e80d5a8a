"""Where the package does not work, importing it says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dlopen
from support.fixtures import compile_library, run_python

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


def test_subinterpreters() -> None:
    code = f"""
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
interpreters.run_string(interpreters.create(), {IMPORT!r} + "import sys; sys.stdout.flush()")
"""
    assert "subinterpreter" in run_python(code).stdout


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
