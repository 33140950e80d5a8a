"""libc and its family: one of each in a process, however a library of them is given."""

from __future__ import annotations

from pathlib import Path

import pytest

import dlopen
from support.fixtures import compile_library, missing, run_python
from support.machines import machine

FAMILY = [
    *("libc.so.6", machine().loader, "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6"),
    *("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libanl.so.1"),
    "libresolv.so.2",  # of GLIBC_PRIVATE
]
START = """
import shutil, sys
from pathlib import Path
import dlopen
soname, file, folder = sys.argv[1:]
data = Path(file).read_bytes()

def check(library=None):
    found = [info for info in dlopen.libraries() if info.soname == soname]
    assert [info.is_host for info in found] == [True], found
    if library is not None:
        assert library.info.is_host, library
        assert library.info.map_start == found[0].map_start
"""


def find(soname: str) -> str:
    return dlopen.find(soname).path or missing(f"{soname} is not installed")


def run_with(soname: str, folder: Path, code: str) -> None:
    run_python(START + code, soname, find(soname), str(folder))


WAYS = {
    "bytes": """
with dlopen.Library.from_bytes(data, name=soname) as library:
    check(library)
""",
    "bytes of another name": """
with dlopen.Library.from_bytes(data, name="libother.so") as library:
    check(library)
with dlopen.Library.from_bytes(data, mode=dlopen.PRIVATE, name="/nowhere/libother.so") as library:
    check(library)
with dlopen.Library.from_bytes(
    data, mode=dlopen.RTLD_NOW | dlopen.RTLD_GLOBAL, name="libother.so"
) as library:
    check(library)
""",
    "files": """
with dlopen.Library(soname, files={soname: data}) as library:
    check(library)
""",
    "bytes and files": """
with dlopen.Library.from_bytes(data, name="libother.so", files={soname: data}) as library:
    check(library)
""",
    "a copy": """
copy = shutil.copy(file, Path(folder, "libcopy.so"))
for mode in (dlopen.RTLD_NOW, dlopen.PRIVATE):
    with dlopen.Library(copy, mode) as library:
        check(library)
""",
    "namespaces": """
with dlopen.Namespace("a") as one, dlopen.Namespace("b") as other:
    for namespace in (one, other):
        check(namespace.load(soname))
        check(namespace.load(file))
        check(dlopen.Library.from_bytes(data, name=soname, namespace=namespace))
""",
}


@pytest.mark.parametrize("soname", FAMILY)
@pytest.mark.parametrize("way", WAYS)
def test_the_hosts_is_taken(soname: str, way: str, tmp_path: Path) -> None:
    run_with(soname, tmp_path, WAYS[way])


@pytest.mark.parametrize("soname", FAMILY)
def test_files_that_name_it_otherwise(soname: str, tmp_path: Path) -> None:
    """It is known by its soname, if it is loaded or not; also as what another library needs."""
    other = compile_library(tmp_path, "libother.so", "int other;")
    compile_library(
        tmp_path, "libneeds.so", "int needs;", libraries=[other], flags=["-Wl,--no-as-needed"]
    )
    code = """
needs = Path(folder, "libneeds.so").read_bytes()
with dlopen.Library.from_bytes(needs, name="libneeds.so", files={"libother.so": data}) as library:
    check()
    assert library.info.needed[0] == "libother.so", library.info.needed
for name in ("libother.so", "sub/libother.so"):
    with dlopen.Library(name, files={name: data}) as library:
        check(library)
"""
    run_with(soname, tmp_path, code)


@pytest.mark.parametrize("soname", FAMILY)
def test_a_second_one_is_refused(soname: str, tmp_path: Path) -> None:
    code = """
for image in (dlopen.Image(file), dlopen.Image.from_bytes(data, name="libother.so")):
    assert image.symbols
    try:
        image.relocate()
    except dlopen.LoadError as error:
        assert "one of it in a process" in error.reason, error
    else:
        raise AssertionError("it was linked")
try:
    dlopen.Library(file, reload=True)
except dlopen.LoadError as error:
    assert "cannot be reloaded" in error.reason, error
else:
    raise AssertionError("it can be reloaded")
assert all(info.is_host for info in dlopen.libraries() if info.soname == soname)
"""
    run_with(soname, tmp_path, code)


def test_what_the_process_has_none_of(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libpython3.nonesuch.so", "int value;")
    data = path.read_bytes()
    with pytest.raises(dlopen.LoadError) as caught:
        dlopen.Library.from_bytes(data, name="libother.so")
    with pytest.raises(dlopen.LoadError) as caught_from_files:
        dlopen.Library("libother.so", files={"libother.so": data})
    for error in (caught.value, caught_from_files.value):
        assert str(error).startswith("libother.so: there is one of it"), error
        assert error.library == "libother.so"
        assert "the process has none" in error.reason


def test_replacements_are_not_for_it(tmp_path: Path) -> None:
    code = """
try:
    dlopen.Library.from_bytes(data, name=soname, replace={"malloc": 1})
except dlopen.Error as error:
    assert "loaded already" in str(error), error
else:
    raise AssertionError("it was opened")
"""
    run_with("libm.so.6", tmp_path, code)
