"""What the targets of fuzz.c begin with: small files, made anew for each run.

An input that has failed comes here, too, or as a rule to malformed/generate.py.

`python seeds.py DIRECTORY` writes them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS)] if str(TESTS) not in sys.path else []

from malformed import generate  # noqa: E402
from malformed.elf import Elf, Field  # noqa: E402
from support.fixtures import compile_library  # noqa: E402

# A few KiB each: of what a mutation changes, as much as possible shall mean something.
SMALL = [
    *("-nostdlib", "-Wl,-z,noseparate-code", "-Wl,-z,max-page-size=4096", "-Wl,--build-id=none"),
    *("-s", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-DSMALL"),
]
FIXTURE = TESTS / "malformed" / "fixture.c"
MAP = f"-Wl,--version-script={TESTS / 'malformed' / 'fixture.map'}"
THREAD_LOCAL = """
static __thread int own = 1;
__thread long other = 2;
extern __thread int elsewhere __attribute__((weak));
int *first(void) { return &own; }
long *second(void) { return &other; }
int *third(void) { return &elsewhere; }
"""
CXX = """
struct Counter { static inline int count = 3; virtual int get() { return count; } };
template <class T> struct Held { static T value; };
template <class T> T Held<T>::value = 4;
int use() { Counter one; return one.get() + Held<int>::value; }
extern "C" int call() { return use(); }
"""
KINDS: dict[str, tuple[str | Path, str, list[str]]] = {
    "gnu": (FIXTURE, "c", ["-Wl,--hash-style=gnu", MAP, "-lc"]),
    "sysv": (FIXTURE, "c", ["-Wl,--hash-style=sysv", MAP, "-lc"]),
    "both": (FIXTURE, "c", ["-Wl,--hash-style=both", "-lc"]),
    "relr": (FIXTURE, "c", ["-Wl,--hash-style=gnu", "-Wl,-z,pack-relative-relocs", "-lc"]),
    "lazy": (FIXTURE, "c", ["-Wl,-z,lazy", "-Wl,-z,norelro", "-lc"]),
    "symbolic": (FIXTURE, "c", ["-Wl,-Bsymbolic", "-Wl,-z,now", "-lc"]),
    "tls": (THREAD_LOCAL, "c", []),
    "tlsdesc": (THREAD_LOCAL, "c", ["-mtls-dialect=gnu2"]),
    "initial-exec": (THREAD_LOCAL, "c", ["-ftls-model=initial-exec"]),
    "unique": (CXX, "c++", ["-fno-exceptions", "-fno-rtti"]),
    "filter": (FIXTURE, "c", ["-Wl,--auxiliary=libnone.so", "-Wl,-rpath,$ORIGIN/../lib", "-lc"]),
}


def library(directory: Path, kind: str) -> bytes:
    """A small library of this kind."""
    source, language, flags = KINDS[kind]
    return compile_library(
        directory, f"{kind}.so", source, language=language, flags=[*SMALL, *flags]
    ).read_bytes()


def libraries(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Each kind, with options for those that read them in e_flags, and each rule's cases of one."""
    for kind in KINDS:
        elf = Elf(library(directory, kind))
        for options in range(0, 64, 9):
            flags = Field("e_flags", 48, 4)
            yield f"{kind}-{options}", elf.changed((flags, options | options << 10))
    for number, (rule, case) in enumerate(generate.cases(library(directory, "gnu"))):
        yield f"{rule}-{number:05}", case.data


# ---- ld.so.cache: glibc's sysdeps/generic/dl-cache.h


def cache(names: dict[str, tuple[str, int]], *, subfolders: tuple[str, ...] = ()) -> bytes:
    """A cache of the new format: path and hwcap by name; `subfolders` of glibc-hwcaps."""
    header, strings = 48 + 24 * len(names), b""
    entries = []
    for name in sorted(names, reverse=True):
        path, hwcap = names[name]
        at = header + len(strings)
        strings += name.encode() + b"\0" + path.encode() + b"\0"
        entries.append(struct.pack("<iIIIQ", 0x0303, at, at + len(name) + 1, 0, hwcap))
    words = b""
    for one in subfolders:
        words += struct.pack("<I", header + len(strings))
        strings += one.encode() + b"\0"
    strings += bytes(-(header + len(strings)) % 4)
    end = header + len(strings)
    extension = struct.pack("<IIIIII", 0xEAA42174, 1, 1, 0, end + 24, len(words)) + words
    start = struct.pack(
        "<20sIIB3xI12x", b"glibc-ld.so.cache1.1", len(names), len(strings), 2,
        end if subfolders else 0,
    )  # fmt: skip
    return start + b"".join(entries) + strings + (extension if subfolders else b"")


def caches() -> Iterator[tuple[str, bytes]]:
    plain = {f"lib{name}.so.{i}": (f"/lib/lib{name}.so.{i}", 0) for name in "abc" for i in (1, 10)}
    hwcaps = {
        "libb.so.1": ("/lib/glibc-hwcaps/x86-64-v2/libb.so.1", 1 << 62),
        "libc.so.1": ("/lib/tls/libc.so.1", 1 << 63),
    }
    old = struct.pack("<12sI", b"ld.so-1.7.0\0", 1) + struct.pack("<iII", 3, 0, 0)
    old += bytes(-len(old) % 8)
    # Their last bytes are the beginning of the name, or of its path, and there is no NUL.
    unended = []
    for field, text in ((4, b"libb.so.1"), (8, b"/lib/libb.so.1")):
        broken = bytearray(cache(plain, subfolders=("x86-64-v2",))) + text
        entry = 48 + 24 * sorted(plain, reverse=True).index("libb.so.1")
        broken[entry + field : entry + field + 4] = struct.pack("<I", len(broken) - len(text))
        unended.append(bytes(broken))
    for name, content in {
        "unended-name": unended[0],
        "unended-path": unended[1],
        "plain": cache(plain),
        "hwcaps": cache(plain | hwcaps, subfolders=("x86-64-v2", "x86-64-v3")),
        "old": old + cache(plain),
        "empty": cache({}),
    }.items():
        for wanted in ("liba.so.1", "libb.so.1", "libc.so.10", "libnone.so"):
            yield f"{name}-{wanted}", wanted.encode() + b"\0" + content


# ---- archives


def archive(files: dict[str, bytes]) -> bytes:
    return b"".join(
        name.encode() + b"\0" + struct.pack("<I", len(content)) + content
        for name, content in files.items()
    )


def archives(directory: Path) -> Iterator[tuple[str, bytes]]:
    tiny = ["-nostdlib", *SMALL]
    leaf = compile_library(directory, "libleaf.so", "int leaf(void) { return 1; }", flags=tiny)
    branch = compile_library(
        directory,
        "libbranch.so",
        "int leaf(void); int branch(void) { return leaf(); }",
        flags=["-Wl,--no-as-needed", *tiny],
        libraries=[leaf],
    )
    root = compile_library(
        directory,
        "libroot.so",
        "int leaf(void), branch(void); int (*all[])(void) = { leaf, branch };"
        "int root(void) { return leaf() + branch(); }",
        flags=["-Wl,--no-as-needed", *tiny],
        libraries=[branch, leaf],
        rpath="$ORIGIN/sub:$ORIGIN",
    )
    files = {path.name: path.read_bytes() for path in (root, branch, leaf)}
    yield "flat", archive({f"lib/{name}": content for name, content in files.items()})
    yield "absolute", archive({f"/opt/x/{name}": content for name, content in files.items()})
    yield "names", archive(files)
    leaves = {"lib/libroot.so": files["libroot.so"], "lib/libbranch.so": files["libbranch.so"]}
    yield "folders", archive({**leaves, "lib/sub/libleaf.so": files["libleaf.so"]})
    yield "missing", archive(leaves)
    gnu = library(directory, "gnu")
    yield "own", archive({"a/libc.so.6": files["libleaf.so"], "libgnu.so": gnu})
    for kind in KINDS:
        yield kind, archive({f"lib/{kind}.so": library(directory, kind), **files})


def write(directory: Path) -> None:
    """All of them; the same folder may be written again."""
    made = directory / "libraries"
    for name, inputs in (("elf", libraries(made)), ("cache", caches()), ("files", archives(made))):
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        for one, content in inputs:
            (folder / one).write_bytes(content)


def folder_of(target: str) -> str:
    """Of those that `write` makes, the one for a target."""
    return target if target in ("cache", "files") else "elf"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
