"""Images of other machines: looked at as readelf(1) does, and refused where they would run."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest

import dlopen
from core.arch import readelf
from core.steps import Steps
from support import elf64
from support.fixtures import BUILD, compile_library, libdlopen, need_tool, run, run_python

pytestmark = pytest.mark.in_process

pytestmark = pytest.mark.in_process

# e_machine and e_flags of the machines that are known: of libraries that Debian's programs load.
HEADERS = {
    "x86-64": (62, 0),
    "AArch64": (183, 0),
    "RISC-V": (243, 0x5),
    "LoongArch": (258, 0x43),
}
COMPILERS = {"AArch64": "aarch64-linux-gnu-gcc", "RISC-V": "riscv64-linux-gnu-gcc"}
HIGHEST_TYPE = 1100  # above all that the psABIs give
# Of these the readelf of today's distributions may not know yet.
NEW = {("RISC-V", 12): "TLSDESC", ("LoongArch", 13): "UNKNOWN", ("LoongArch", 14): "TLSDESC"}
NEW |= {("LoongArch", 109): "PC_RELATIVE"}


def make_foreign(path: Path, machine: str) -> None:
    """Another machine's header before what was made for this one."""
    number, flags = HEADERS[machine]
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, 18, number)
    struct.pack_into("<I", data, 48, flags)
    path.write_bytes(data)


@pytest.mark.parametrize("machine", HEADERS)
def test_each_type_of_relocation(machine: str, tmp_path: Path) -> None:
    """By its number, with the name that readelf has for it."""
    last = HIGHEST_TYPE - 1
    source = f"extern int there; int *places[{HIGHEST_TYPE}] = {{[0 ... {last}] = &there}};"
    library = compile_library(tmp_path, "types", source, flags=["-Wl,-z,nopack-relative-relocs"])
    make_foreign(library, machine)
    file = elf64.Elf(library)
    data = bytearray(library.read_bytes())
    start, size = file.offset(file.tags[elf64.DT_RELA]), file.tags[elf64.DT_RELASZ]
    number = 0
    for at in range(start + 8, start + size, 24):
        (info,) = struct.unpack_from("<Q", data, at)
        struct.pack_into("<Q", data, at, info >> 32 << 32 | number)
        number += 1
    assert number >= HIGHEST_TYPE
    library.write_bytes(data)
    named = {one.type: one.kind for one in readelf.relocations(library)}
    with dlopen.Image(library) as image:
        found = {one.type: (one.kind, one.width) for one in image.info.relocations}
        assert image.info.machine == machine
    assert found.keys() == named.keys()
    known = {type_: kind for type_, kind in named.items() if kind != "?"}
    assert len(set(known.values())) >= 9
    unnamed = {type_: NEW.get((machine, type_), "UNKNOWN") for type_ in named.keys() - known.keys()}
    assert {type_: kind for type_, (kind, _) in found.items()} == known | unnamed
    widths = {"NONE": {0}, "UNKNOWN": {0}, "COPY": {0}, "TLSDESC": {16}}
    for kind, width in found.values():
        assert width in widths.get(kind, {4, 8})


_SOURCE = """
extern int there(int), also(void);
__attribute__((weak)) extern int maybe(void);
static __thread int own[4];
__thread int shared = 5;
extern __thread int elsewhere;
int value = 7, *pointer = &value;
static int hidden_value;
int *hidden_pointer = &hidden_value;
int (*function)(int) = there;
int one(int number) { return there(number) + also() + (maybe ? maybe() : 0); }
int two(void) { return ++own[1] + shared + elsewhere; }
__asm__(".symver old_name, name@FIRST\\n.symver new_name, name@@SECOND");
int old_name(void) { return 1; }
int new_name(void) { return 2; }
"""
_MAP = "FIRST { global: one; two; name; local: old_name; new_name; }; SECOND { *; } FIRST;"


@pytest.mark.parametrize("style", ["gnu", "sysv"])
@pytest.mark.parametrize("machine", COMPILERS)
def test_a_library_of_a_cross_compiler(machine: str, style: str, tmp_path: Path) -> None:
    compiler = need_tool(COMPILERS[machine])
    script, source = tmp_path / "versions", tmp_path / "source.c"
    script.write_text(_MAP)
    source.write_text(_SOURCE)
    needed = tmp_path / "libneeded.so"
    (tmp_path / "needed.c").write_text(
        "int there(int number) { return number; } int also(void) { return 3; }"
        "__thread int elsewhere = 4;"
    )
    (tmp_path / "needed_map").write_text("NEEDED_1 { also; }; NEEDED_2 { *; } NEEDED_1;")
    common = [compiler, "-shared", "-fPIC", "-nostdlib", f"-Wl,--hash-style={style}"]
    run(
        [*common, tmp_path / "needed.c", "-o", needed, "-Wl,-soname,libneeded.so",
         f"-Wl,--version-script={tmp_path / 'needed_map'}"]
    )  # fmt: skip
    library = tmp_path / "libforeign.so"
    run(
        [*common, source, "-o", library, needed, "-Wl,-soname,libforeign.so.1",
         "-Wl,-rpath,$ORIGIN/lib", "-Wl,--enable-new-dtags", f"-Wl,--version-script={script}"]
    )  # fmt: skip
    mapped = readelf.as_mapped(library)
    assert mapped == readelf.as_readelf_says(library)
    assert mapped.machine == machine
    assert mapped.needed == ("libneeded.so",)
    assert (mapped.soname, mapped.runpath) == ("libforeign.so.1", "$ORIGIN/lib")
    assert {"name", "name@FIRST"} <= {symbol.key for symbol in mapped.symbols}
    assert {"FIRST", "NEEDED_1", "NEEDED_2"} <= {name for name, _, _ in mapped.versions}
    kinds = {one.kind for one in mapped.relocations}
    assert {"RELATIVE", "SYMBOLIC", "JUMP_SLOT"} < kinds
    assert kinds & {"TLSDESC", "DTPMOD", "TPOFF"}
    assert readelf.as_mapped(needed) == readelf.as_readelf_says(needed)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    library = compile_library(tmp_path, "libforeign.so", "int value(void) { return 1; }")
    make_foreign(library, "AArch64")
    return library


REASON = "for another machine: it is for AArch64, and this process is x86-64"


def test_it_is_not_opened(foreign: Path) -> None:
    with pytest.raises(dlopen.LoadError, match=REASON) as caught:
        dlopen.Library(foreign)
    assert str(foreign) in str(caught.value)
    with pytest.raises(dlopen.LoadError, match=REASON):
        dlopen.Library(foreign, dlopen.PRIVATE)
    with pytest.raises(dlopen.LoadError, match=REASON):
        dlopen.Library.from_bytes(foreign.read_bytes())
    with pytest.raises(dlopen.LoadError, match=REASON):
        dlopen.Library(foreign, dlopen.RTLD_NOLOAD)


def test_it_is_not_linked_by_hand(foreign: Path) -> None:
    for image in (dlopen.Image(foreign), dlopen.Image.from_bytes(foreign.read_bytes())):
        assert image.info.state == "mapped"
        with pytest.raises(dlopen.LoadError, match=REASON):
            image.relocate()
        assert image.closed
    assert str(foreign) not in [info.path for info in dlopen.libraries()]


def test_a_library_that_needs_it_is_not_opened(foreign: Path, tmp_path: Path) -> None:
    native = compile_library(tmp_path / "native", "libforeign.so", "int value(void) { return 1; }")
    user = compile_library(
        tmp_path, "libuser.so", "int value(void); int use(void) { return value(); }",
        libraries=[native], flags=[f"-Wl,-rpath,{tmp_path}"],
    )  # fmt: skip
    assert foreign.parent == tmp_path
    with pytest.raises(dlopen.LoadError, match=r"libforeign\.so") as caught:
        dlopen.Library(user)
    assert (str(foreign), "for another machine or word size") in caught.value.searched


def test_libc_says_the_same_of_it(steps: Steps) -> None:
    make_foreign(steps.library("a", trace=True), "RISC-V")
    assert steps.both("open:./liba.so") == ["not opened"]
    steps.refused("open:./liba.so", detail="it is for RISC-V, and this process is x86-64")


def test_dlerror_is_libcs(foreign: Path) -> None:
    ours = ctypes.CDLL(str(libdlopen()))
    texts = []
    for linker in (ours, ctypes.CDLL(None)):
        linker.dlerror.restype = ctypes.c_char_p
        linker.dlopen.restype = ctypes.c_void_p
        assert linker.dlopen(str(foreign).encode(), 2) is None
        texts.append(linker.dlerror())
    assert texts[0] == texts[1]
    assert str(foreign).encode() in texts[0]


def test_a_machine_that_is_not_known(foreign: Path) -> None:
    data = bytearray(foreign.read_bytes())
    struct.pack_into("<H", data, 18, 21)  # EM_PPC64
    foreign.write_bytes(data)
    for opens in (dlopen.Image, dlopen.Library):
        with pytest.raises(dlopen.LoadError, match=r"not known here \(e_machine 21\).* is x86-64"):
            opens(foreign)


def test_no_resolver_of_it_is_called(tmp_path: Path) -> None:
    """Not even by who asks for the address."""
    library = compile_library(
        tmp_path, "resolved",
        "static int real(void) { return 1; } static void *pick(void) { __builtin_trap(); }"
        "int chosen(void) __attribute__((ifunc(\"pick\"))); int (*pointer)(void) = chosen;",
    )  # fmt: skip
    make_foreign(library, "LoongArch")
    code = (
        "import sys, dlopen\n"
        "with dlopen.Image(sys.argv[1]) as image:\n"
        "    symbol = image.symbols['chosen']\n"
        "    assert symbol.type == 'IFUNC'\n"
        "    try: assert symbol.address == 0\n"
        "    except dlopen.Error: pass\n"
        "    list(image.info.relocations)\n"
        "print('alive')"
    )
    assert run_python(code, str(library)).stdout == "alive\n"


def test_the_command_tells_of_it(foreign: Path) -> None:
    done = run_python("import sys, dlopen._command_line as c; sys.exit(c.main(sys.argv[1:]))",
                      "info", str(foreign))  # fmt: skip
    assert "machine      AArch64\n" in done.stdout
    assert "relocations  " in done.stdout


def test_among_the_callers_files(foreign: Path) -> None:
    content = foreign.read_bytes()
    with dlopen.Image("/no/such/libforeign.so", files={"/no/such/libforeign.so": content}) as image:
        assert image.info.machine == "AArch64"


def test_a_search_by_name_passes_over_it(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert foreign.parent.is_relative_to(BUILD)
    code = (
        "import dlopen\ntry: dlopen.Image('libforeign.so')\n"
        "except dlopen.LoadError as error: print(error.searched)"
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(foreign.parent))
    assert f"('{foreign}', 'for another machine or word size')" in run_python(code).stdout


def test_an_executable_stack_is_refused_when_it_is_to_run(tmp_path: Path) -> None:
    library = compile_library(tmp_path, "libstack.so", "int value;", flags=["-Wl,-z,execstack"])
    with dlopen.Image(library) as image:
        assert ("GNU_STACK", "rwx") in [(one.type, one.flags) for one in image.info.segments]
        with pytest.raises(dlopen.LoadError, match="cannot enable executable stack"):
            image.relocate()
