"""Functions that perf finds no file of: what names them, by its specification, and perf."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support.elf64 import Elf
from support.fixtures import compile_library, need_tool, run, run_python
from support.package_archives import pack

SOURCE = """
__attribute__((noinline)) static int in_secret(int times) {
  volatile int sum = 0;
  for (int i = 0; i < times; i++) sum += i;
  return sum + 1;
}
int in_public(int times) {
  volatile int sum = 0;
  for (int i = 0; i < times; i++) sum += i;
  return sum;
}
int secretly(int times) { return in_secret(times) * 2; }
int other_name(int times) __attribute__((alias("secretly")));
static int one(void) { return 1; }
static void *resolve(void) { return one; }
int either(void) __attribute__((ifunc("resolve")));
int variable = 3;
"""

# Each gives `library`, of the content at `library_path` or in `folder`.
OPENINGS = {
    "mapped": "library = dlopen.Library(f'{folder}/mapped.zip/lib.so')",
    "compressed": "library = dlopen.Library(f'{folder}/compressed.zip/lib.so')",
    "arena": "library = dlopen.Library(library_path, arena=True)",
    "bytes": "library = dlopen.Library.from_bytes(open(library_path, 'rb').read())",
    "reload": "library = dlopen.Library(library_path, reload=True)",
}
WITH_STATIC = {"mapped", "compressed", "arena"}  # the others' content is not kept

START = """
import json, os, sys
import dlopen
from dlopen import importer, jitdump
folder, library_path = sys.argv[1:]
importer.install()
"""
TELL = """
print(json.dumps([os.getpid(), library.info.load_bias, path]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With both archives beside it."""
    folder = tmp_path_factory.mktemp("jitdump")
    path = compile_library(folder, "lib.so", SOURCE, flags=["-O1"])
    pack(folder / "mapped.zip", {"lib.so": path.read_bytes()})
    pack(folder / "compressed.zip", {"lib.so": path.read_bytes()}, compressed=True)
    return path


class Load(NamedTuple):
    """A record JIT_CODE_LOAD."""

    time: int
    process: int
    thread: int
    address: int
    code_address: int
    number: int
    """`code_index`"""
    name: str
    code: bytes


class Dump(NamedTuple):
    machine: int
    process: int
    time: int
    loads: list[Load]
    closed: list[int]
    """The times of JIT_CODE_CLOSE."""


def parse(path: Path | str) -> Dump:
    """By jitdump-specification.txt, version 2; what is not as it says there is an error."""
    data = Path(path).read_bytes()
    fields = iter(struct.unpack_from("<6I2Q", data))
    assert (next(fields), next(fields), next(fields)) == (0x4A695444, 1, 40)
    machine, padding, process, time, flags = fields
    assert (padding, flags) == (0, 0)
    dump = Dump(machine, process, time, [], [])
    at = 40
    while at < len(data):
        kind, size, time = struct.unpack_from("<IIQ", data, at)
        record = data[at + 16 : at + size]
        assert len(record) == size - 16
        at += size
        if kind == 3:
            assert not record
            dump.closed.append(time)
            continue
        assert kind == 0
        process, thread, address, code_address, code_size, index = struct.unpack_from(
            "<IIQQQQ", record
        )
        name, _, code = record[40:].partition(b"\0")
        assert len(code) == code_size
        dump.loads.append(
            Load(time, process, thread, address, code_address, index, name.decode(), code)
        )
    return dump


def functions(path: Path, table: str) -> dict[str, tuple[int, int]]:
    """Value and size of those that readelf lists, by name."""
    output = run([need_tool("readelf"), "-W", table, path], env={"LC_ALL": "C"}).stdout
    if table == "--syms":
        output = output.partition("'.symtab'")[2]
    pattern = r"^ *\d+: ([0-9a-f]+) +(\d+) FUNC +\w+ +\w+ +\d+ (\S+)$"
    return {
        name: (int(value, 16), int(size))
        for value, size, name in re.findall(pattern, output, re.MULTILINE)
        if int(size)
    }


def write(library: Path, code: str) -> tuple[int, int, str]:
    output = run_python(START + code + TELL, str(library.parent), str(library)).stdout
    process, bias, path = json.loads(output.splitlines()[-1])
    return process, bias, path


@pytest.mark.parametrize("way", OPENINGS)
def test_each_function_is_there_with_its_code(library: Path, tmp_path: Path, way: str) -> None:
    process, bias, path = write(
        library, f"{OPENINGS[way]}\npath = jitdump.write({str(tmp_path)!r})"
    )
    assert path == str(tmp_path / f"jit-{process}.dump")
    dump = parse(path)
    elf = Elf(library)
    assert (dump.machine, dump.process) == (elf.machine, process)

    expected = functions(library, "--dyn-syms")
    assert {"in_public", "secretly", "other_name"} <= set(expected)
    if way in WITH_STATIC:
        expected.update(functions(library, "--syms"))
        assert {"in_secret", "one", "resolve"} <= set(expected)
    assert {load.address - bias for load in dump.loads} == {value for value, _ in expected.values()}
    for load in dump.loads:
        value, size = expected[load.name]
        assert (load.address, load.code_address) == (bias + value, bias + value)
        start = elf.offset(value)
        assert load.code == elf.data[start : start + size]
        assert (load.process, load.thread) == (process, process)
    assert len({load.address for load in dump.loads}) == len(dump.loads)

    assert [load.number for load in dump.loads] == list(range(len(dump.loads)))
    times = [dump.time, *(load.time for load in dump.loads), *dump.closed]
    assert times == sorted(times)
    assert len(dump.closed) == 1


def test_what_perf_can_read_is_not_there(library: Path, tmp_path: Path) -> None:
    code = f"""
library = dlopen.Library(library_path)
copy = dlopen.Library(library_path, dlopen.PRIVATE | dlopen.RTLD_NOW)
unlinked = dlopen.Image.from_bytes(open(library_path, "rb").read())
path = jitdump.write({str(tmp_path)!r})
"""
    assert parse(write(library, code)[2]).loads == []


def test_later_calls_add_what_is_new(library: Path, tmp_path: Path) -> None:
    code = f"""
os.chdir({str(tmp_path)!r})
{OPENINGS["bytes"]}
path = jitdump.write()
size = os.path.getsize(path)
assert jitdump.write() == jitdump.write(os.getcwd()) == path
assert os.path.getsize(path) == size
again = dlopen.Library.from_bytes(open(library_path, "rb").read())
assert jitdump.write() == path
assert os.path.getsize(path) == 2 * size - 40
lines = [line.split() for line in open("/proc/self/maps") if line.rstrip().endswith(path)]
assert [line[1] for line in lines] == ["r-xp"], lines
try:
    jitdump.write(folder)
except ValueError as error:
    assert path in str(error), error
else:
    raise AssertionError
"""
    loads = parse(write(library, code)[2]).loads
    assert [load.number for load in loads] == list(range(len(loads)))
    assert len({load.address for load in loads}) == len(loads)


def test_a_forked_process_has_a_file_of_its_own(library: Path, tmp_path: Path) -> None:
    code = f"""
{OPENINGS["bytes"]}
path = jitdump.write({str(tmp_path)!r})
if not os.fork():
    jitdump.write({str(tmp_path)!r})
    sys.exit()
os.wait()
"""
    process, _, path = write(library, code)
    (other,) = {*tmp_path.iterdir()} - {tmp_path / f"jit-{process}.dump"}
    one, two = parse(path), parse(other)
    assert other.name == f"jit-{two.process}.dump"
    assert (one.process, {load.process for load in two.loads}) == (process, {two.process})
    assert [load.address for load in one.loads] == [load.address for load in two.loads]
    assert (len(one.closed), len(two.closed)) == (1, 1)


def test_a_file_of_an_earlier_process_is_replaced(library: Path, tmp_path: Path) -> None:
    code = f"""
{OPENINGS["bytes"]}
os.symlink("/nowhere/at-all", f"{tmp_path}/jit-{{os.getpid()}}.dump")
path = jitdump.write({str(tmp_path)!r})
"""
    assert parse(write(library, code)[2]).loads


def test_what_cannot_be_written_is_not_there_in_part(library: Path, tmp_path: Path) -> None:
    code = f"""
import resource
path = jitdump.write({str(tmp_path)!r})
{OPENINGS["bytes"]}
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    jitdump.write()
except OSError:
    assert os.path.getsize(path) == 40
else:
    raise AssertionError
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
jitdump.write()
"""
    dump = parse(write(library, code)[2])
    assert [load.number for load in dump.loads] == list(range(len(dump.loads)))
    assert {load.name for load in dump.loads} >= {"in_public"}


def test_a_file_that_was_taken_away(library: Path, tmp_path: Path) -> None:
    """Neither is another one there written to, nor does the end of the program complain."""
    code = f"""
{OPENINGS["bytes"]}
path = jitdump.write({str(tmp_path)!r})
os.unlink(path)
for found in (FileNotFoundError, FileExistsError):
    try:
        jitdump.write()
    except found:
        pass
    else:
        raise AssertionError
    open(path, "w").close()
print(json.dumps([os.getpid(), 0, path]))
"""
    done = run_python(START + code, str(library.parent), str(library))
    assert done.stderr == ""
    assert Path(json.loads(done.stdout)[2]).read_bytes() == b""


def test_of_a_file_that_has_changed_the_exports_are_there(tmp_path: Path) -> None:
    for name in ("lib.so", "other.so"):
        compile_library(tmp_path, name, SOURCE, flags=["-O1"])
    code = f"""
library = dlopen.Library(library_path, arena=True)
os.replace(f"{{folder}}/other.so", library_path)
path = jitdump.write({str(tmp_path)!r})
"""
    names = {load.name for load in parse(write(tmp_path / "lib.so", code)[2]).loads}
    assert "in_public" in names
    assert "in_secret" not in names


def test_of_an_archive_that_was_replaced_no_names_are_taken(tmp_path: Path) -> None:
    renamed = SOURCE.replace("in_secret", "in_spring").replace("int one(", "int two(")
    for name, source in (("lib", SOURCE), ("other", renamed.replace("return one", "return two"))):
        built = compile_library(tmp_path, f"{name}.so", source, flags=["-O1"])
        pack(tmp_path / f"{name}.zip", {"lib.so": built.read_bytes()})
    code = f"""
library = dlopen.Library(f"{{folder}}/lib.zip/lib.so")
os.replace(f"{{folder}}/other.zip", f"{{folder}}/lib.zip")
newer = dlopen.Library(f"{{folder}}/lib.zip/lib.so", dlopen.PRIVATE | dlopen.RTLD_NOW)
path = jitdump.write({str(tmp_path)!r})
old, new = library.info, newer.info
print(json.dumps([path, old.map_start, old.map_end, old.inode != new.inode]))
"""
    output = run_python(START + code, str(tmp_path), "").stdout
    path, start, end, is_other = json.loads(output)
    names = {load.name for load in parse(path).loads if start <= load.address < end}
    assert "in_public" in names
    assert "in_spring" not in names
    assert is_other


# What perf says.


def perf(*arguments: str | Path) -> str:
    return run([need_tool("perf"), *arguments]).stdout


@pytest.fixture(scope="module")
def _perf(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It may record; in most containers it may not."""
    data = tmp_path_factory.mktemp("perf") / "perf.data"
    words = ["record", "-q", "-k", "1", "-e", "cpu-clock", "-o", str(data), "true"]
    attempt = [need_tool("perf"), *words]
    if subprocess.run(attempt, capture_output=True, check=False).returncode:
        pytest.skip("perf may not record here")


def profile(library: Path, folder: Path, code: str) -> set[str]:
    """The functions that perf reports for a program, by the shared objects of jitted code."""
    words = [sys.executable, "-c", START + code, str(library.parent), str(library)]
    events = ("record", "-q", "-k", "1", "-e", "cpu-clock", "-F", "999")
    perf(*events, "-o", folder / "perf.data", "--", *words)
    perf("inject", "--jit", "-i", folder / "perf.data", "-o", folder / "perf.jit.data")
    report = perf("report", "--stdio", "-i", folder / "perf.jit.data")
    return set(re.findall(r" jitted-\d+-\d+\.so +\[\.\] (\S+)", report))


@pytest.mark.usefixtures("_perf")
@pytest.mark.parametrize("way", OPENINGS)
def test_perf_finds_the_names(library: Path, tmp_path: Path, way: str) -> None:
    call = "\nlibrary.in_public(60_000_000), library.secretly(60_000_000)"
    written = f"{OPENINGS[way]}\njitdump.write({str(tmp_path)!r})"
    expected = {"in_public"} | ({"in_secret"} if way in WITH_STATIC else set())
    assert profile(library, tmp_path, written + call) == expected


@pytest.mark.usefixtures("_perf")
def test_perf_finds_none_without_the_file(library: Path, tmp_path: Path) -> None:
    call = "\nlibrary.in_public(60_000_000)"
    assert profile(library, tmp_path, OPENINGS["mapped"] + call) == set()


@pytest.mark.usefixtures("_perf")
def test_perf_finds_those_that_came_later(library: Path, tmp_path: Path) -> None:
    """Also where a library was closed before."""
    code = f"""
{OPENINGS["bytes"]}
jitdump.write({str(tmp_path)!r})
library.close()
{OPENINGS["mapped"]}
jitdump.write()
library.secretly(60_000_000)
"""
    assert profile(library, tmp_path, code) == {"in_secret"}
