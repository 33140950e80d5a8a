"""What is in the two binaries: no Python in the core, nothing exported by accident."""

import io
import re
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

SOURCE = Path(__file__).parents[2] / "src" / "dlopen"
SHF_EXECINSTR = 4
DF_TEXTREL, DF_BIND_NOW = 4, 8
DF_1_NOW, DF_1_NODELETE = 1, 8


@cache
def binary(name: str) -> Any:
    """An ELF file of the installed package."""
    with as_file(files("dlopen") / name) as path:
        return ELFFile(io.BytesIO(path.read_bytes()))


def core() -> Any:
    return binary("_lib/libdlopen.so")


def dynamic(elf: Any, tag: str) -> list[Any]:
    """The values of all dynamic entries with this tag."""
    return [
        entry
        for entry in elf.get_section_by_name(".dynamic").iter_tags()
        if entry.entry.d_tag == tag
    ]


def symbols(elf: Any, *, defined: bool) -> set[str]:
    return {
        symbol.name
        for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
        if symbol.name and (symbol["st_shndx"] != "SHN_UNDEF") == defined
    }


def map_globals() -> list[str]:
    """The patterns between `global:` and `local:` of the version script."""
    text = re.sub(r"/\*.*?\*/", "", (SOURCE / "libdlopen.map").read_text(), flags=re.DOTALL)
    assert re.match(r"\s*\{", text), "a version node with a name would give the exports a version"
    return re.findall(r"[\w*]+(?=;)", text[text.index("global:") : text.index("local:")])


def declared() -> set[str]:
    """The functions that dlopen.h declares."""
    text = re.sub(r"/\*.*?\*/", "", (SOURCE / "include" / "dlopen.h").read_text(), flags=re.DOTALL)
    return set(re.findall(r"^(?!typedef)\w[\w ]*[ *](DLOPEN_\w+)\s*\(", text, flags=re.MULTILINE))


def test_the_core_has_no_python_symbol() -> None:
    names = symbols(core(), defined=False) | symbols(core(), defined=True)
    assert not [name for name in names if re.match(r"_?Py|__pyx|__Pyx", name)]


def test_exports_are_those_of_the_map_and_the_header() -> None:
    exported = symbols(core(), defined=True)
    patterns = map_globals()
    exact = {pattern for pattern in patterns if "*" not in pattern}
    assert [pattern for pattern in patterns if "*" in pattern] == ["DLOPEN_*"]
    assert len(declared()) > 20
    assert exported == declared() | exact


def test_exports_have_no_version() -> None:
    assert not dynamic(core(), "DT_VERDEF")


def test_the_core_needs_libc_only() -> None:
    needed = {entry.needed for entry in dynamic(core(), "DT_NEEDED")}
    assert needed <= {"libc.so.6", "ld-linux-x86-64.so.2", "libgcc_s.so.1"}


def test_a_process_that_does_not_call_it_pays_little() -> None:
    """Two mappings, no variable with a value of its own, no code of the compiler's start files."""
    loads = [s for s in core().iter_segments() if s["p_type"] == "PT_LOAD"]
    relro = next(s for s in core().iter_segments() if s["p_type"] == "PT_GNU_RELRO")
    assert len(loads) == 2
    assert loads[1]["p_filesz"] <= relro["p_memsz"]
    assert not dynamic(core(), "DT_INIT")
    assert not dynamic(core(), "DT_FINI")
    weak = {
        symbol.name
        for symbol in core().get_section_by_name(".dynsym").iter_symbols()
        if symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] == "STB_WEAK"
    }
    assert not weak


def test_it_is_not_marked_for_shadow_stacks() -> None:
    """Else it would come into a process that enforces them, and would have to look at marks."""
    note = core().get_section_by_name(".note.gnu.property")
    if note is None:
        return
    feature_1_and = (0xC0000002).to_bytes(4, "little") + (4).to_bytes(4, "little")
    bits = note.data().partition(feature_1_and)[2][:4]
    assert not int.from_bytes(bits, "little") & 2


def test_soname_nodelete_bind_now() -> None:
    assert [entry.soname for entry in dynamic(core(), "DT_SONAME")] == ["libdlopen.so"]
    assert dynamic(core(), "DT_FLAGS_1")[0].entry.d_val & DF_1_NODELETE
    for elf in (core(), binary("_linker.abi3.so")):
        assert dynamic(elf, "DT_FLAGS_1")[0].entry.d_val & DF_1_NOW


@pytest.mark.parametrize("name", ["_lib/libdlopen.so", "_linker.abi3.so"])
def test_segments(name: str) -> None:
    """No page is writable and executable, nor is the stack; RELRO; no text relocations."""
    elf = binary(name)
    flags = {(segment["p_type"], segment["p_flags"]) for segment in elf.iter_segments()}
    assert ("PT_GNU_STACK", 6) in flags
    assert not [kind for kind, bits in flags if bits & 3 == 3]
    assert "PT_GNU_RELRO" in {kind for kind, _ in flags}
    assert not dynamic(elf, "DT_TEXTREL")
    assert not any(entry.entry.d_val & DF_TEXTREL for entry in dynamic(elf, "DT_FLAGS"))


def test_the_extension_finds_the_core_by_rpath() -> None:
    extension = binary("_linker.abi3.so")
    assert [entry.rpath for entry in dynamic(extension, "DT_RPATH")] == ["$ORIGIN/_lib:$ORIGIN"]
    assert not dynamic(extension, "DT_RUNPATH")
    assert "libdlopen.so" in {entry.needed for entry in dynamic(extension, "DT_NEEDED")}


def test_the_extension_uses_declared_functions_only() -> None:
    used = {name for name in symbols(binary("_linker.abi3.so"), defined=False) if name[:2] == "DL"}
    assert used
    assert used <= declared()


def test_the_sources_of_the_core_are_not_installed() -> None:
    package = files("dlopen")
    names = {entry.name for entry in package.iterdir()}
    assert {"_lib", "include", "py.typed", "_linker.pyi"} <= names
    assert not names & {"binding", "core", "libdlopen.pyx", "_linker.pyx", "libdlopen.map"}
    assert (package / "include" / "dlopen.h").is_file()
