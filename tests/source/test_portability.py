"""Nothing but its own room knows a libc, a machine or a file of the kernel's by name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "dlopen"
# Where such names belong.
ROOMS = ("core/arch/", "core/host/", "core/base/kernel.pxd")
NAME = re.compile(
    r"""lib\w+\.so\.\d | ld-linux | (?:(?<![a-z])ld\.so) | glibc | GLIBC | musl
    | /(?:proc|dev|sys|etc|tmp|run)\b | \blib64\b | \bAT_SYSINFO
    | x86 | aarch64 | arm64 | riscv | loongarch | amd64 | haswell | cpuid | \bR_[A-Z0-9_]*64_
    | \bEM_(?!NONE)[A-Z0-9_]+""",
    re.VERBOSE,
)
# What may say one elsewhere, and why: (file, what the line holds, the reason).
EXCEPTIONS = (
    ("core/base/details.pxd", "(memfd_create", "a text for people: where a file was tried"),
    ("core/search/cache.pxd", "ld.so", "the file's name and magic numbers, which are its format"),
    ("core/search/settings.pxd", "glibc-hwcaps/", "the folder's name, as ld.so(8) has it"),
    ("core/search/settings.pxd", "lib64", "not in the table of the machine yet"),
    ("core/search/find.pxd", "ld.so.cache", "how a user is told where a library came from"),
    ("core/symbols/scopes.pxd", "search_as_glibc", "the order that dlopen(3) is known for"),
)


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


def names(source: str) -> Iterator[str]:
    """The lines of code that hold such a name."""
    for line in without_comments(source).splitlines():
        if NAME.search(line):
            yield line.strip()


def found() -> list[tuple[str, str]]:
    sources = [*sorted((PACKAGE / "core").rglob("*.p[xy][dx]")), PACKAGE / "libdlopen.pyx"]
    assert len(sources) > 100
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sources}
    return [
        (path, line)
        for path, source in files.items()
        if not path.startswith(ROOMS)
        for line in names(source)
    ]


def excepted(path: str, line: str) -> list[tuple[str, str, str]]:
    return [entry for entry in EXCEPTIONS if entry[0] == path and entry[1] in line]


def test_a_libc_a_machine_and_files_of_the_kernel_are_named_in_their_rooms_only() -> None:
    assert [pair for pair in found() if not excepted(*pair)] == []


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_each_exception_is_needed(exception: tuple[str, str, str]) -> None:
    assert [pair for pair in found() if exception in excepted(*pair)]


@pytest.mark.parametrize(
    "line",
    [
        'strcmp(soname, b"libc.so.6")',
        'kernel_open(b"/proc/self/maps")',
        "if image.machine == EM_X86_64:",
        '    cdef const char* platform = b"x86_64"',
        "kind = R_X86_64_RELATIVE",
        "    #if defined(__x86_64__)",
    ],
)
def test_a_name_is_found(line: str) -> None:
    head = '"""As glibc on x86-64."""\n\n# See /proc/self/maps.\n'
    source = f"{head}cdef int f() noexcept nogil:\n    {line}\n"
    assert list(names(source)) == [line.strip()]


def test_names_in_verbatim_code_are_found() -> None:
    source = 'cdef extern from *:\n    """\n    /* glibc */\n    int x86;\n    """\n    int x\n'
    assert list(names(source)) == ["int x86;"]


def test_comments_may_say_what_they_like() -> None:
    source = 'cdef int f():\n    """As glibc."""\n    return 0    # /proc is missing\n'
    assert not list(names(source))
