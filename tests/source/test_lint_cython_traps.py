"""Each trap is found where it is planted, and what looks like one but is not is let through."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION = "cdef inline void f(uint64_t a, uint64_t n) noexcept nogil:\n    "


def load() -> ModuleType:
    path = ROOT / "tools" / "lint_cython_traps.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TRAPS = load()


def rules(code: str, *, core: bool = True, name: str = "x.pxd") -> list[str]:
    """The rules that the lint finds broken in the source, by line."""
    return [finding.rule for finding in TRAPS.lint(code, Path(name), core=core)]


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("shift", FUNCTION + "a = 1 << n\n"),
        ("shift", FUNCTION + "a = <uint64_t>(1 << n)\n"),
        ("shift", FUNCTION + "a = 1U << 40\n"),
        ("shift", "cdef enum:\n    A = 1 << 40\n"),
        ("complement", FUNCTION + "a &= ~4095U\n"),
        ("complement", FUNCTION + "a &= ~(4096U - 1U)\n"),
        ("descending_range", FUNCTION + "for n in range(a - 1, -1, -1): pass\n"),
        ("true_division", FUNCTION + "a = a / 8\n"),
        ("true_division", FUNCTION + "a /= 8\n"),
        ("module_initialiser", "cdef int X = 5\n"),
        ("module_initialiser", 'cdef const char* N = b"x"\n'),
        ("module_initialiser", "cdef:\n    int X = 5\n"),
        ("missing_noexcept", "cdef inline int f(int a) nogil:\n    return a\n"),
        ("missing_noexcept", "cdef inline int f(int a) except -1 nogil:\n    return a\n"),
        ("missing_noexcept", "cdef int f(int a) nogil\n"),
        ("missing_noexcept", "ctypedef int (*f)(int a) nogil\n"),
        ("missing_noexcept", "cdef struct s:\n    int (*f)(int a) nogil\n"),
        ("python_statement", FUNCTION + "assert a\n"),
        ("python_statement", FUNCTION + "raise ValueError\n"),
        ("python_statement", FUNCTION + "with gil: pass\n"),
        ("enumerator", "cdef enum:\n    A = 4294967296\n"),
        ("cimport_form", "from . cimport x\n"),
        ("cimport_form", "from .elf.hash cimport gnu_hash\n"),
        ("cimport_form", "from dlopen.core.elf cimport hash\n"),
        ("cimport_form", "cimport dlopen.core.elf.hash\n"),
    ],
)
def test_a_planted_trap_is_found(rule: str, code: str) -> None:
    assert rules(code) == [rule]


@pytest.mark.parametrize(
    "code",
    [
        FUNCTION + "a = <uint64_t>1 << n\n",
        FUNCTION + "a = 1ULL << 40 | 1 << 12 | n << 3\n",
        FUNCTION + "a &= ~<uint64_t>4095U & ~(n - 1) & ~4095ULL\n",
        FUNCTION + "for n in reversed(range(a)): pass\n",
        FUNCTION + "for n in range(0, a, 2): pass\n",
        FUNCTION + "a = a // 8\n",
        FUNCTION + "cdef int x = 5\n",
        FUNCTION + "a = 1 << n  # trap: n is below 8\n",
        "cdef enum:\n    A = 0x100000000\n    B = 5\n",
        'cdef extern from "x.h":\n    int f(int a) nogil\n    ctypedef int (*g)(int) nogil\n',
        'cdef extern from *:\n    """\n    static int x = 1 / 1;\n    """\n    int x\n',
        "ctypedef int (*f)(int a) noexcept nogil\n",
        "from dlopen.core.elf.hash cimport gnu_hash\n",
        "from libc.stdint cimport uint64_t\n",
    ],
)
def test_what_is_no_trap_is_let_through(code: str) -> None:
    assert rules(code) == []


def test_python_is_allowed_outside_the_core() -> None:
    code = "def f(a):\n    assert a\n    return a / 2\ncdef int g(int a):\n    raise ValueError\n"
    assert rules(code, core=False, name="_linker.pyx") == []
    assert rules(code, name="libdlopen.pyx") == [
        "python_statement",
        "true_division",
        "missing_noexcept",
        "python_statement",
    ]


def test_the_command_reports_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "core").mkdir()
    trap = tmp_path / "core" / "words.pxd"
    trap.write_text("cdef int X = 5\n")
    monkeypatch.setattr("sys.argv", ["lint", str(tmp_path)])
    assert TRAPS.main() == 1
    assert f"{trap}:1: module_initialiser: " in capsys.readouterr().out
    trap.write_text("cdef int X\n")
    assert TRAPS.main() == 0
