"""Files that are not what they should be: an error or success, never a crash, a hang or a leak.

The cases run in driver.c, in processes of their own.  With DLOPEN_SANITIZED_SITE set (see
`make sanitize`) that program and libdlopen.so are built with AddressSanitizer and UBSan.
"""

from __future__ import annotations

import os
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from malformed import generate
from malformed.generate import Expect
from support import fixtures
from support.elf64 import DF_1_PIE, DT_FLAGS_1, DT_RELR, PT_TLS, Elf
from support.fixtures import (
    BUILD,
    compile_library,
    compile_program,
    maps,
    need_tool,
    run,
    run_python,
)
from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
FOLDER = BUILD / "-".join(["malformed", *([machine().name] if machine().is_foreign else [])])
SITE = os.environ.get("DLOPEN_SANITIZED_SITE")
SANITIZE = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SITE else []
# The purge of freed blocks before mappings are counted must stay cheap: a small quarantine.
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:quarantine_size_mb=16:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
KINDS = {
    "gnu": ["-Wl,--hash-style=gnu", f"-Wl,--version-script={HERE / 'fixture.map'}"],
    "sysv": ["-Wl,--hash-style=sysv"],
    "relr": ["-Wl,--hash-style=gnu", *machine().packed],
    "roomy": ["-Wl,--hash-style=gnu", "-DROOM"],
    "roomy sysv": ["-Wl,--hash-style=sysv", "-DROOM"],
}
SMALL = ("gnu", "sysv", "relr")
ONLY: dict[generate.Rule, tuple[str, ...]] = {
    generate.gnu_hash: ("gnu", "relr"),
    generate.sysv_hash: ("sysv",),
    generate.relr: ("relr",),
    generate.many_versions: ("roomy",),
    generate.unaligned: ("roomy", "roomy sysv"),
}
# qemu 7.2 keeps a record of each page of a mapping: gigabytes, and half a minute, for one of 1 TiB.
COUNTS_PAGES = machine().emulator is not None and machine().name in ("aarch64", "riscv64")
LEFT_OUT = pytest.mark.emulated(reason="qemu 7.2 takes gigabytes for a mapping of 1 TiB")
MARKS: dict[generate.Rule, list[pytest.MarkDecorator]] = (
    {generate.huge_tables: [LEFT_OUT]} if COUNTS_PAGES else {}
)
PLANTS = {
    "crash": "ends with",
    "hang": "takes more than",
    "mapping": "leaks a mapping",
    "descriptor": "leaks a descriptor",
    "code": "neither success nor an error",
}
if SITE:
    PLANTS |= {"overflow": "ends with", "memory": "leaks memory"}


def libdlopen() -> Path:
    return Path(SITE, "dlopen/_lib/libdlopen.so") if SITE else fixtures.libdlopen()


@pytest.fixture(scope="module", autouse=True)
def _small_address_space() -> Iterator[None]:
    """Of 64 GiB, where the emulator counts pages: larger mappings fail at once there."""
    with pytest.MonkeyPatch.context() as patch:
        if COUNTS_PAGES:
            patch.setenv("QEMU_RESERVED_VA", hex(1 << 36))
        yield


@pytest.fixture(scope="session")
def driver() -> Path:
    directory = FOLDER.with_name("malformed-sanitized") if SITE else FOLDER
    library = libdlopen()
    flags = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", *SANITIZE]
    return compile_program(
        directory,
        "driver",
        HERE / "driver.c",
        flags=flags,
        libraries=[library],
        rpath=str(library.parent),
    )


def fixture(kind: str) -> Path:
    directory = FOLDER / kind
    path = compile_library(directory, "libfixture.so", HERE / "fixture.c", flags=KINDS[kind])
    if kind == "relr" and DT_RELR not in Elf(path).tags:
        need_tool("ld with -z pack-relative-relocs")
    return path


# Beginnings of the sonames that are left to the host's loader: it would get the mutated files.
HOSTS = (
    *("libc.so.", "ld-linux", "libm.so.", "libgcc_s.so.", "libstdc++.so.", "libpython3"),
    *("libpthread.so.", "libdl.so.", "librt.so.", "libutil.so.", "libanl.so."),
)
OPENABLE = """
import ctypes, os, sys
for path in sys.argv[1:]:
    try:
        ctypes.CDLL(path, os.RTLD_NOW)
    except OSError:
        continue
    print(path)
"""


def real_libraries(count: int) -> list[Path]:
    """Libraries of the system, small to large, without TLS, that libc, with libm, can open."""
    (libc,) = {Path(mapping.path) for mapping in maps() if mapping.path.endswith("/libc.so.6")}
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(libc.parent.glob("*.so*")):
        status = path.stat() if path.exists() else None
        if status is None or not 10_000 < status.st_size < 800_000:
            continue
        elf = Elf(path)
        try:
            if (elf.soname or "").startswith(HOSTS):
                continue
            if elf.segment(PT_TLS) or not set(elf.needed) <= {"libc.so.6", "libm.so.6"}:
                continue
        except ValueError:
            continue
        private = "GLIBC_PRIVATE" in elf.versions.values()  # libc's own: loaded by libc alone
        if elf.needed and not private and not elf.tags.get(DT_FLAGS_1, 0) & DF_1_PIE:
            found.setdefault((status.st_size, status.st_ino), path.resolve())
    good = run_python(OPENABLE, *map(str, found.values())).stdout.splitlines()
    chosen = [found[key] for key in sorted(found) if str(found[key]) in good]
    assert len(chosen) >= count
    return chosen[:: len(chosen) // count][:count]


class Summary(dict[str, float]):
    """The driver's last line: what happened to how many cases."""


def run_driver(driver: Path, *arguments: str | Path) -> tuple[list[str], Summary]:
    """The lines of the driver and its summary; an unusable argument is an error."""
    limit = ["--limit", "20"] if machine().emulator else []  # an emulator's seconds are longer
    command = [str(driver), *limit, *map(str, arguments)]
    done = run(command, env=ENVIRONMENT, timeout=3600, check=False)
    *lines, last = done.stdout.splitlines() or [""]
    if not last.startswith("cases "):
        pytest.fail(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr[-4000:]}")
    words = last.split()
    summary = Summary(zip(words[::2], map(float, words[1::2]), strict=True))
    assert (done.returncode != 0) == (summary["failed"] != 0), done.stderr[-4000:]
    failures = [line for line in lines if line.startswith("FAIL ")]
    if failures:
        lines.append(done.stderr[-6000:])
    return lines, summary


def failures(lines: Sequence[str]) -> str:
    """For an assertion's message: each failure with the command that repeats it, one report."""
    found = [line for line in lines if line.startswith("FAIL ")]
    return "\n".join([*found[:20], f"{len(found)} failures", lines[-1]]) if found else ""


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        pytest.param(kind, rule, id=f"{rule.__name__}-{kind}", marks=MARKS.get(rule, []))
        for rule in generate.RULES
        for kind in ONLY.get(rule, SMALL)
    ],
)
def test_broken_by_rule(driver: Path, kind: str, rule: generate.Rule) -> None:
    directory = FOLDER / "cases" / f"{kind}-{rule.__name__}{'-sanitized' * bool(SITE)}"
    shutil.rmtree(directory, ignore_errors=True)
    cases = generate.write(fixture(kind).read_bytes(), directory, (rule,))
    assert cases
    lines, _ = run_driver(driver, "files", *cases)
    assert not failures(lines), failures(lines)
    wrong, seen = [], set()
    for line in lines:
        name, mapped, opened, opened_path, message = line.split("\t", 4)
        path = Path(name)
        seen.add(path)
        case = cases[path]
        succeeded = mapped == opened == opened_path == "0"
        refused = "0" not in (opened, opened_path)
        if (case.expect is Expect.REFUSED and not refused) or (
            case.expect is Expect.LOADED and not succeeded
        ):
            wrong.append(f"{path}: {case.name}: not {case.expect.value}: {message}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:40])
    assert seen == set(cases)
    shutil.rmtree(directory)


def test_broken_dependency(driver: Path) -> None:
    """A good library that needs a broken one: refused by name, and all that was done is undone."""
    directory = FOLDER / f"needed{'-sanitized' * bool(SITE)}"
    shutil.rmtree(directory, ignore_errors=True)
    good = compile_library(
        directory, "libbroken-00000.so", HERE / "fixture.c", flags=KINDS["gnu"]
    ).read_bytes()
    leaf = compile_library(
        directory,
        "libleaf.so",
        'int use(const char *); int leaf(void) { return use("x"); }',
        libraries=[directory / "libbroken-00000.so"],
        rpath=str(directory),
    )
    refused = [case for _, case in generate.cases(good) if case.expect is Expect.REFUSED]
    names = {}
    for number, case in enumerate([generate.Case("unchanged", good, Expect.LOADED), *refused[::9]]):
        name = f"libbroken-{number:05}.so"
        (directory / name).write_bytes(case.data)
        needs = directory / f"leaf-{number:05}"
        needs.write_bytes(leaf.read_bytes().replace(b"libbroken-00000.so", name.encode()))
        names[str(needs)] = (name, case)
    lines, _ = run_driver(driver, "files", *names)
    assert not failures(lines), failures(lines)
    assert len(lines) == len(names) > 100
    assert lines[0].split("\t")[1:4] == ["0"] * 3, lines[0]
    for line in lines[1:]:
        path, mapped, opened, opened_path, message = line.split("\t", 4)
        name, case = names[path]
        assert mapped == "0", line
        assert "0" not in (opened, opened_path), f"{path}: {case.name}"
        assert name in message, message
    shutil.rmtree(directory)


def run_mutations(driver: Path, total: int) -> Summary:
    """Seeds 0 … total-1 shared out over the fixtures and real libraries; the sum of summaries."""
    bases = [*map(fixture, SMALL), *([] if machine().is_foreign else real_libraries(13))]
    each = -(-total // len(bases))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(
            pool.map(
                lambda item: run_driver(
                    driver, "mutate", str(item[0] * each), str(each), str(item[1])
                ),
                enumerate(bases),
            )
        )
    text = "\n".join(filter(None, (failures(lines) for lines, _ in results)))
    assert not text, text
    for base, (_, summary) in zip(bases, results, strict=True):
        print(base.name, *(f"{name}={value:g}" for name, value in summary.items()))
        # Mutations that all fail, or all do not matter, show nothing.
        assert summary["cases"] == each
        assert 0 < summary["opened"] < summary["cases"] / 2
        assert 0 < summary["refused"] < summary["cases"]
        assert summary["peak_mb"] < 2048
    names = ("cases", "mapped", "opened", "refused")
    return Summary({name: sum(summary[name] for _, summary in results) for name in names})


def test_some_mutations(driver: Path) -> None:
    assert run_mutations(driver, 2_000)["cases"] >= 2_000


@pytest.mark.slow
def test_mutations(driver: Path) -> None:
    assert run_mutations(driver, 20_000)["cases"] >= 20_000


@pytest.mark.parametrize("bug", PLANTS)
def test_a_planted_bug_is_seen(driver: Path, bug: str, tmp_path: Path) -> None:
    """Only the planted case fails, and by the command that is printed it fails again."""
    base = shutil.copy(fixture("gnu"), tmp_path / "it's a copy.so")
    lines, summary = run_driver(driver, "--plant", bug, "77", "mutate", "0", "300", base)
    found = [line for line in lines if line.startswith("FAIL ")]
    assert len(found) == 1
    assert PLANTS[bug] in found[0]
    assert summary["cases"] == 300
    program, *arguments = shlex.split(found[0].partition("; again: ")[2])
    assert program == str(driver)
    assert arguments[-3:] == ["77", "1", str(base)]
    repeated, _ = run_driver(driver, *arguments)
    assert PLANTS[bug] in repeated[0]


def test_a_wrong_expectation_is_seen(driver: Path, tmp_path: Path) -> None:
    """The lines that test_broken_by_rule judges: good and bad files give different ones."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(fixture("gnu").read_bytes())
    bad.write_bytes(b"\x7fELF")
    lines, _ = run_driver(driver, "files", good, bad)
    assert [line.split("\t")[1:4] == ["0"] * 3 for line in lines] == [True, False]
    assert lines[1].split("\t")[4]


@pytest.mark.skipif(SITE is not None, reason="the package in this interpreter is not sanitized")
@pytest.mark.parametrize("kind", SMALL)
def test_through_python(kind: str, tmp_path: Path) -> None:
    """Image.from_bytes maps and checks: what it refuses is a LoadError, what it takes is closed."""
    rules = (generate.not_libraries, generate.file_header, generate.overlaps, generate.truncations)
    generate.write(fixture(kind).read_bytes(), tmp_path, rules)
    done = run_python(
        """
import sys
from pathlib import Path
import dlopen
loaded = refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        image = dlopen.Image.from_bytes(path.read_bytes(), name=path.name)
    except dlopen.LoadError as error:
        assert path.name in str(error), str(error)
        refused += 1
    else:
        repr(image.info)
        image.close()
        loaded += 1
print(loaded, refused)
""",
        str(tmp_path),
    )
    loaded, refused = map(int, done.stdout.split())
    assert loaded
    assert refused
