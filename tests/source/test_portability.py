"""Nothing but its own room knows a libc, a machine or a file of the kernel's by name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "src" / "dlopen"
ARCH = PACKAGE / "core" / "arch"
# Where names of the system belong.
ROOMS = ("core/arch/", "core/host/", "core/base/kernel.pxd")
SYSTEM = re.compile(
    r"""lib\w+\.so\.\d | ld-linux | (?:(?<![a-z])ld\.so) | glibc | GLIBC | musl
    | /(?:proc|dev|sys|etc|tmp|run)\b | \bAT_SYSINFO""",
    re.VERBOSE,
)
# A machine's belong in core/arch, and nowhere else.
MACHINE = re.compile(
    r"""x86 | amd64 | i[3-6]86 | (?i:aarch64) | arm64 | __arm | (?i:risc-?v) | (?i:loong) | haswell
    | lp64 | \blib64\b
    # Numbers of machines and of their relocations, by name …
    | \bR_(?:\w*64|RISCV|LARCH)_ | \bEM_(?!NONE)[A-Z0-9]+
    # … and without one.
    | machine(?:\.number)?\s*[!=]=\s*(?:0x\w|[1-9]) | \bnumber\s*[!=]=\s*(?:0x\w|[1-9])
    | relocation_type\([^)]*\)\s*[!=]=\s*(?:0x\w|[1-9])
    # Registers, instructions that are no directives of the assembler, what the processor says.
    | \b[re](?:ax|bx|cx|dx|si|di|sp|bp)\b | \b[xyz]mm\d | \btpidr | \b[fg]s:\d
    | __asm__(?:\s+volatile)?\s*\(\s*"(?!\.) | cpuid | intrin\.h | __(?:SSE|AVX|ARM)
    | \bAT_(?:HWCAP|PLATFORM)""",
    re.VERBOSE,
)
# What may say one elsewhere, and why: (file, what the line holds, the reason).
EXCEPTIONS = (
    ("core/base/details.pxd", "(memfd_create", "a text for people: where a file was tried"),
    ("core/search/cache.pxd", "ld.so", "the file's name and magic numbers, which are its format"),
    ("core/search/settings.pxd", "glibc-hwcaps/", "the folder's name, as ld.so(8) has it"),
    ("core/search/find.pxd", "ld.so.cache", "how a user is told where a library came from"),
    ("core/symbols/scopes.pxd", "search_as_glibc", "the order that dlopen(3) is known for"),
)


HEAD = '"""As glibc on x86-64."""\n\n# See /proc/self/maps.\n'


def without_comments(source: str) -> str:
    """The code and its strings, line for line; C of a verbatim block is code, too."""

    def keep_lines(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    def keep_code(match: re.Match[str]) -> str:
        before = source[: match.start()].rstrip().rpartition("\n")[2]
        return match[0] if before.startswith("cdef extern from") else keep_lines(match)

    source = re.sub(r'^ *"""(?:.|\n)*?"""$', keep_code, source, flags=re.MULTILINE)
    source = re.sub(r"/\*(?:.|\n)*?\*/", keep_lines, source)
    return re.sub(r"(?m)(^|\s)#(?!\s*(?:define|undef|include|if|el|end)).*$", "", source)


def names(source: str, name: re.Pattern[str]) -> Iterator[str]:
    """The lines of code that hold such a name."""
    for line in without_comments(source).splitlines():
        if name.search(line):
            yield line.strip()


def found() -> list[tuple[str, str]]:
    """Of the system."""
    sources = [*sorted((PACKAGE / "core").rglob("*.p[xy][dx]")), PACKAGE / "libdlopen.pyx"]
    assert len(sources) > 100
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sources}
    return [
        (path, line)
        for path, source in files.items()
        if not path.startswith(ROOMS)
        for line in names(source, SYSTEM)
    ]


def excepted(path: str, line: str) -> list[tuple[str, str, str]]:
    return [entry for entry in EXCEPTIONS if entry[0] == path and entry[1] in line]


def test_a_libc_a_machine_and_files_of_the_kernel_are_named_in_their_rooms_only() -> None:
    assert [pair for pair in found() if not excepted(*pair)] == []


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_each_exception_is_needed(exception: tuple[str, str, str]) -> None:
    assert [pair for pair in found() if exception in excepted(*pair)]


def machine_names(sources: list[Path]) -> dict[str, list[str]]:
    found = {str(path.relative_to(TOP)): list(names(path.read_text(), MACHINE)) for path in sources}
    return {path: lines for path, lines in found.items() if lines}


def test_machines_differ_in_their_room_only() -> None:
    """Neither the core outside it, nor the system's rooms, nor the Python face and its header."""
    sources = [
        path
        for pattern in ("*.p[xy][dxi]", "*.py", "*.h", "*.map")
        for path in sorted((TOP / "src").rglob(pattern))
        if path.parent != ARCH
    ]
    assert len(sources) > 200
    assert machine_names(sources) == {}


def test_a_machine_is_a_table_and_an_assembly_file() -> None:
    """What is there for all knows them by the names of their tables, in one function."""
    machines = {path.stem for path in ARCH.glob("*.S")}
    assert len(machines) == 4
    shared = sorted({path for path in ARCH.glob("*.pxd") if path.stem not in machines})
    assert {path.stem for path in shared} == {"__init__", "machine", "processor", "table"}
    lines = {path: set(lines) for path, lines in machine_names(shared).items()}
    assert lines == {
        # The kernel says it in the same way on all of them.
        "src/dlopen/core/arch/processor.pxd": {
            "const char *platform = (const char *)getauxval(AT_PLATFORM);"
        },
        "src/dlopen/core/arch/machine.pxd": {
            line
            for name in machines
            for line in (
                f"from dlopen.core.arch.{name} cimport {name}",
                f"if number == {name}.number:",
                f"return &{name}",
            )
        },
    }


def test_the_build_has_one_table_of_machines() -> None:
    build = (TOP / "meson.build").read_text()
    match = re.search(r"^machines = \{\n((?: .*\n)+)\}\n", build, re.MULTILINE)
    assert match
    keys = set(re.findall(r"^  '(\w+)': ", match[1], re.MULTILINE))
    assert keys == {path.stem for path in ARCH.glob("*.S")}
    rest = build.replace(match[0], "")
    assert list(names(rest, MACHINE)) == []
    # What one machine's compiler is told (-m…; -mllvm is the compiler's own).
    assert not re.findall(r"'-m(?!llvm).*'", rest)


@pytest.mark.parametrize(
    "line",
    ['strcmp(soname, b"libc.so.6")', 'kernel_open(b"/proc/self/maps")', 'b"/etc/ld.so.cache"'],
)
def test_a_name_of_the_system_is_found(line: str) -> None:
    source = f"{HEAD}cdef int f() noexcept nogil:\n    {line}\n"
    assert list(names(source, SYSTEM)) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "if image.machine == EM_X86_64:",
        "if header.e_machine == 183:",
        "if machine.number != 0xf3:",
        'cdef const char* platform = b"x86_64"',
        "kind = R_X86_64_RELATIVE",
        "if relocation_type(rela) == 8:",
        "elif number == 1027:",
        'text_add(path, b"lib64")',
        'machine = "AArch64"',
        "#if defined(__x86_64__)",
        "#ifdef __riscv",
        '__asm__ volatile ("mfence");',
        "register long rsp;",
        "getauxval(AT_HWCAP)",
    ],
)
def test_a_name_of_a_machine_is_found(line: str) -> None:
    source = f"{HEAD}cdef int f() noexcept nogil:\n    {line}\n"
    assert list(names(source, MACHINE)) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "if image.machine == THIS_MACHINE:",
        "if machine_of(header.e_machine) == NULL:",
        '__asm__ volatile (".cfi_personality 0x1b, f");',
        "if relocation_type(rela) == machine.relative:",
        "uint64_t legacy_hwcap",
    ],
)
def test_what_is_the_same_on_all_machines_is_not(line: str) -> None:
    source = f"{HEAD}cdef int f() noexcept nogil:\n    {line}\n"
    assert not list(names(source, MACHINE))


def test_names_in_verbatim_code_are_found() -> None:
    source = 'cdef extern from *:\n    """\n    /* x86 */\n    int x86;\n    """\n    int x\n'
    assert list(names(source, MACHINE)) == ["int x86;"]


def test_comments_may_say_what_they_like() -> None:
    source = 'cdef int f():\n    """As glibc on x86."""\n    return 0    # /proc is missing\n'
    assert not [*names(source, SYSTEM), *names(source, MACHINE)]
