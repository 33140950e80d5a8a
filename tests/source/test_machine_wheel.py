"""Wheels for other machines: what is in them is of that machine, and knows nothing of this one."""

import io
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from support.fixtures import missing, run
from support.machines import MACHINES, Machine

ROOT = Path(__file__).parents[2]
# Fetched by the tasks that need it, since this system may have none.
LOONGARCH = ROOT / "build" / "machines" / "loongarch64" / "compiler" / "programs"
FOREIGN = [machine for machine in MACHINES.values() if machine.name != "x86_64"]
NEEDED = {
    "dlopen/_lib/libdlopen.so": {"libc.so.6"},
    "dlopen/_linker.abi3.so": {"libdlopen.so", "libc.so.6"},
}


@pytest.fixture
def wheel(machine: Machine, tmp_path: Path) -> Path:
    if machine.name == "loongarch64":
        if not shutil.which(f"{machine.triplet}-gcc") and not LOONGARCH.is_dir():
            pytest.skip(f"no compiler for {machine.name} was fetched")
    elif not shutil.which(f"{machine.triplet}-gcc"):
        missing(f"{machine.triplet}-gcc is not installed")
    tool = [sys.executable, "tools/machine_wheel.py", "--tree", f"--outdir={tmp_path}"]
    run([*tool, machine.name], cwd=ROOT, timeout=600)
    (path,) = tmp_path.glob("*.whl")
    return path


@pytest.mark.parametrize("machine", FOREIGN, ids=lambda machine: machine.name)
def test_a_wheel_holds_what_is_of_its_machine(machine: Machine, wheel: Path) -> None:
    name, version, *tag = wheel.stem.split("-")
    assert tag == ["cp311", "abi3", f"linux_{machine.name}"]
    with zipfile.ZipFile(wheel) as file:
        content = {one: file.read(one) for one in file.namelist()}
    metadata = content[f"{name}-{version}.dist-info/WHEEL"].decode().splitlines()
    assert [line for line in metadata if line.startswith("Tag:")] == [f"Tag: {'-'.join(tag)}"]
    binaries = {path: data for path, data in content.items() if data.startswith(b"\x7fELF")}
    assert set(binaries) == set(NEEDED)
    for path, data in binaries.items():
        elf = ELFFile(io.BytesIO(data))
        tags = list(elf.get_section_by_name(".dynamic").iter_tags())
        assert int.from_bytes(data[18:20], "little") == machine.number
        needed = {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"}
        # On some machines the loader defines __tls_get_addr.
        assert {one for one in needed if not one.startswith("ld-linux-")} == NEEDED[path]
        paths = [tag.rpath for tag in tags if tag.entry.d_tag in {"DT_RPATH", "DT_RUNPATH"}]
        assert paths == ([] if "_lib" in path else ["$ORIGIN/_lib:$ORIGIN"])
    for folder in (ROOT, Path.home(), Path(sys.prefix)):
        inside = [path for path, data in content.items() if os.fsencode(folder) + b"/" in data]
        assert not inside, folder
