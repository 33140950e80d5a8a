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
        ("sys.maxsize = 2**31 - 1", "needs 64-bit Linux, not linux of 32 bits"),
        ("sys.platform = 'freebsd14'", "needs 64-bit Linux, not freebsd14 of 64 bits"),
    ],
)
def test_unsupported(preparation: str, message: str) -> None:
    output = run_python(f"import os, sys\n{preparation}\n{IMPORT}").stdout
    assert message in output


def test_the_version_is_known_without_the_metadata() -> None:
    code = "import dlopen, sys; print(dlopen.__version__, 'importlib.metadata' in sys.modules)"
    assert run_python(code).stdout.split() == [version("dlopen"), "False"]


def test_what_is_slow_to_import_is_not_imported() -> None:
    """Of the standard library only this, and what it needs itself; and a part of the package."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(dlopen.__file__).parents[1])!r})
import __future__, _ctypes, _thread, _warnings, _weakref, atexit, ctypes, errno, os
before = set(sys.modules)
import dlopen
with dlopen.Library("libz.so.1") as library:
    library.zlibVersion, library.symbols["crc32"], library.variable, repr(library)
print(*sorted(set(sys.modules) - before))
"""
    # Neither a .pth file of the environment nor its site-packages bring in more.
    names = run([sys.executable, "-I", "-S", "-c", code]).stdout.split()
    assert [name for name in names if not name.startswith("dlopen") and "cython" not in name] == []
    late = {
        "callbacks",
        "image",
        "jitdump",
        "modes",
        "namespaces",
        "patching",
        "process",
        "reloading",
    }
    assert not {f"dlopen.{name}" for name in late} & set(names)


# Each in a process that has used nothing yet.
LATE = {
    "star": """
names = {}
exec("from dlopen import *", names)
print({*dlopen.__all__} <= {*names}, names["Mode"] is dlopen.Mode)
""",
    "dir": "print({*dlopen.__all__, '__version__', 'modes', 'patching'} <= {*dir(dlopen)}, True)",
    "identity": """
from dlopen import RTLD_NOW, modes
print(dlopen.Mode is modes.Mode is dlopen.modes.Mode, RTLD_NOW is dlopen.Mode.RTLD_NOW)
""",
    "pickle": """
import pickle
now, found = pickle.loads(pickle.dumps((dlopen.RTLD_NOW, dlopen.find("libc.so.6"))))
print(now is dlopen.Mode.RTLD_NOW, found == dlopen.find("libc.so.6"))
""",
    "unpickle": r"""
import pickle
now = pickle.loads(b"cdlopen.modes\nMode\n(I2\ntR.")
print(now is dlopen.RTLD_NOW, type(now) is dlopen.Mode)
""",
    "help": """
import io, pydoc
from contextlib import redirect_stdout
with redirect_stdout(text := io.StringIO()):
    help(dlopen)
print(all(name in text.getvalue() for name in dlopen.__all__), "class Mode" in text.getvalue())
""",
    "a submodule": "print(dlopen.patching.Patch is dlopen.Patch, 'Patch' in vars(dlopen))",
    "a name of it first": "print(dlopen.watch is dlopen.watching.watch, dlopen.watching.Watcher)",
    "no such name": """
for act in (lambda: dlopen.Modes, lambda: dlopen._modes, lambda: dlopen.patchings):
    try:
        act()
        print("found")
    except AttributeError as error:
        assert "module 'dlopen' has no attribute" in str(error)
try:
    from dlopen import Modes
except ImportError:
    print(True, True)
""",
}


@pytest.mark.parametrize("code", LATE.values(), ids=LATE)
def test_names_that_are_imported_late(code: str) -> None:
    found = run_python(f"import dlopen\n{code}").stdout
    assert found.startswith("True ")
    assert "False" not in found
    assert found.count("\n") == 1


def test_types_know_what_is_there() -> None:
    """Refused by mypy, too: `make types` says so of an ignore that is not needed."""
    with pytest.raises(AttributeError):
        dlopen.Modes  # type: ignore[attr-defined]  # noqa: B018
    mode: dlopen.Mode = dlopen.RTLD_NOW | dlopen.PRIVATE
    assert isinstance(mode, dlopen.Mode)


def test_many_threads_ask_first() -> None:
    code = """
import sys, threading
import dlopen
sys.setswitchinterval(1e-6)
names = [name for name in dlopen.__all__ if name not in vars(dlopen)]
assert len(names) > 20
barrier, found = threading.Barrier(8), []

def ask(number):
    barrier.wait()
    for name in names[number:] + names[:number]:
        found.append((name, getattr(dlopen, name)))

threads = [threading.Thread(target=ask, args=[3 * number]) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 8 * len(names)
print(all(vars(dlopen)[name] is value for name, value in found))
"""
    for _ in range(5):
        assert run_python(code).stdout == "True\n"


def test_a_fork_while_another_thread_asks_first() -> None:
    """A module that a thread was importing is never imported in a child."""
    code = """
import os, signal, sys, threading, time
import dlopen

class Slow:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == "dlopen.modes":
            begun.set()
            time.sleep(0.2)

begun = threading.Event()
sys.meta_path.insert(0, Slow)
thread = threading.Thread(target=lambda: dlopen.Mode)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(dlopen.Mode is not dlopen.modes.Mode)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), dlopen.RTLD_NOW == os.RTLD_NOW)
thread.join()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(len(dlopen.libraries()) < 2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(dlopen.libraries()) > 1)
"""
    assert run_python(code).stdout == "0 True\n0 True\n"


def test_an_importer_with_a_lock_imports_too() -> None:
    """A thread that holds it does not wait for one that waits for it."""
    code = """
import importlib.machinery, signal, sys, threading
import dlopen

class Locking(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path, target=None):
        if name != "dlopen.watching":
            return None
        spec = super().find_spec(name, path, target)
        execute = spec.loader.exec_module
        def wait(module):
            begun.set()
            held.wait()
            with lock:
                execute(module)
        spec.loader.exec_module = wait
        return spec

def hold():
    begun.wait()
    with lock:
        held.set()
        print(dlopen.Mode.__name__, flush=True)

signal.alarm(20)
lock, begun, held = threading.Lock(), threading.Event(), threading.Event()
sys.meta_path.insert(0, Locking)
thread = threading.Thread(target=hold)
thread.start()
print(dlopen.watch.__name__)
thread.join()
"""
    assert run_python(code).stdout.splitlines() == ["Mode", "watch"]


def test_what_is_registered_later_ends_first(tmp_path: Path) -> None:
    """Though nothing of patches was imported when it was registered."""
    source = "int rand(void); int often(void) { return rand(); }"
    path = compile_library(tmp_path, "liboften.so", source)
    code = """
import atexit, ctypes, sys
import dlopen
atexit.register(lambda: print(library.often()))
assert "dlopen.patching" not in sys.modules
library = dlopen.Library(sys.argv[1])
library.patch(rand=dlopen.callback(ctypes.c_int)(lambda: -7))
"""
    assert run_python(code, str(path)).stdout == "-7\n"


def test_what_fails_at_the_end_is_told() -> None:
    """And all the rest is done."""
    code = """
from dlopen import _lifecycle
_lifecycle.at_end(lambda: print("last"))
_lifecycle.at_end(lambda: 1 / 0)
_lifecycle.at_end(lambda: print("first"))
"""
    done = run_python(code)
    assert done.stdout == "first\nlast\n"
    assert "ZeroDivisionError" in done.stderr


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
        assert "'dlopen.errors'" in lines[0]


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
