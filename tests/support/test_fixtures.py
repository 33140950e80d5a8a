"""The helpers that every other test trusts."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from support.fixtures import (
    compile_library,
    compile_program,
    compiler,
    maps,
    need_tool,
    run_python,
)

ANSWER = {
    "c": "int answer(void) { return 42; }",
    "c++": 'extern "C" int answer() { return 42; }',
    "rust": '#[no_mangle] pub extern "C" fn answer() -> i32 { 42 }',
    "go": 'package main\nimport "C"\n\n//export answer\nfunc answer() C.int { return 42 }\n'
    "func main() {}\n",
    "fortran": 'integer(c_int) function answer() bind(c, name="answer")\n'
    "use iso_c_binding\nanswer = 42\nend function\n",
    "asm": ".globl answer\n.type answer, @function\nanswer: mov $42, %eax\nret\n"
    '.size answer, .-answer\n.section .note.GNU-stack,"",@progbits\n',
}


@pytest.mark.parametrize(
    "language",
    [
        "c",
        "asm",
        pytest.param("c++", marks=pytest.mark.cxx),
        pytest.param("rust", marks=pytest.mark.rust),
        pytest.param("go", marks=pytest.mark.go),
        pytest.param("fortran", marks=pytest.mark.fortran),
    ],
)
def test_each_language_makes_a_library_that_can_be_called(tmp_path: Path, language: str) -> None:
    library = compile_library(tmp_path, "libanswer.so", ANSWER[language], language=language)
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).answer())"
    assert run_python(code, str(library)).stdout == "42\n"


def test_a_compiler_that_cannot_run_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that can, later on PATH, is found behind it."""
    monkeypatch.delenv("RUSTC", raising=False)
    monkeypatch.delenv("CI", raising=False)
    for folder, status in (("shim", 1), ("real", 0)):
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "rustc"
        program.write_text(f"#!/bin/sh\necho rustc 1.0\nexit {status}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/shim")
    with pytest.raises(pytest.skip.Exception, match="does not run"):
        compiler("rust")
    monkeypatch.setenv("PATH", f"{tmp_path}/shim:{tmp_path}/real")
    assert compiler("rust") == f"{tmp_path}/real/rustc"


def test_what_a_child_prints_before_os_exit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    assert run_python("import os; print(1); os._exit(0)").stdout == "1\n"


def test_a_program_is_linked_to_its_libraries(tmp_path: Path) -> None:
    library = compile_library(tmp_path, "libanswer.so", ANSWER["c"])
    source = "int answer(void); int main(void) { return answer(); }"
    program = compile_program(tmp_path, "program", source, libraries=[library])
    assert subprocess.run([program], check=False).returncode == 42


def test_a_changed_source_is_compiled_again(tmp_path: Path) -> None:
    first = compile_library(tmp_path, "one.so", ANSWER["c"]).read_bytes()
    again = compile_library(tmp_path / "again", "one.so", ANSWER["c"]).read_bytes()
    other = compile_library(tmp_path / "other", "one.so", ANSWER["c"].replace("42", "43"))
    assert again == first != other.read_bytes()


def test_a_crash_of_the_child_is_shown() -> None:
    with pytest.raises(AssertionError, match=r"(?s)SIGSEGV.*Segmentation fault"):
        run_python("import ctypes; ctypes.string_at(0)")


def test_maps_shows_this_process() -> None:
    address = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p).value
    assert address is not None
    (mapping,) = (mapping for mapping in maps() if mapping.start <= address < mapping.end)
    assert mapping.permissions.startswith("r-x")
    assert mapping.inode == Path(mapping.path).stat().st_ino


def test_a_missing_tool_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="no-such-tool is not installed"):
        need_tool("no-such-tool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-tool is not installed"):
        need_tool("no-such-tool")
    monkeypatch.undo()
    assert Path(need_tool("sh")).is_absolute()
