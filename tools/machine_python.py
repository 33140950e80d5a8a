"""The tests of the Python face for another machine: Debian's Python of it runs them, in qemu-user.

It has the wheel that is made of this tree, and what the tests need from PyPI. Their fixtures are
compiled by a cross compiler, and each program of that machine that they start is started with the
emulator before it. What became of them is kept for docs/machines.md, but where further arguments,
which are pytest's, choose some.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from debian_root import unpack_once
from emulated import put_commands, put_projects, put_python, static_emulator
from machines import MACHINES, RUNTIME, Machine, find_programs, machine_named
from machines_page import RESULTS
from test_glibc import step

# Programs that tests start, with the preload among others.
COMMANDS = ("cat", "env", "grep", "sh")
PACKAGES = ("python3", "libpython3-dev", "coreutils", "dash", "grep")


def install_this_tree(folder: Path, machine: Machine) -> None:
    """The wheel of it, into the virtual environment; what it replaces goes."""
    (site,) = folder.glob("lib/python3.*/site-packages")
    version = site.parent.name.removeprefix("python")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        make = [sys.executable, "tools/machine_wheel.py", "--tree", "--outdir", temporary]
        subprocess.run([*make, machine.name], check=True, stdout=subprocess.DEVNULL)
        put_projects(site, machine, version, [str(*Path(temporary).glob("*.whl"))])


def main() -> int:
    """The status of the tests."""
    parser = argparse.ArgumentParser(prog="machine_python", description=__doc__)
    parser.add_argument("machine", help=", ".join(MACHINES))
    options, arguments = parser.parse_known_args()
    machine = machine_named(options.machine)
    find_programs(machine)
    root, commands = machine.folder / "programs", machine.folder / "python-commands"
    unpack_once(root, machine.debian, machine.release, [*RUNTIME, *PACKAGES])
    put_commands(commands, machine, root, COMMANDS)
    groups = tomllib.loads(Path("pyproject.toml").read_text())["dependency-groups"]
    folder = machine.folder / "python"
    programs = put_python(folder, machine, root, groups["test"])
    install_this_tree(folder, machine)
    headers = folder / "include"  # Debian's Python.h looks for a file in a folder of this name
    headers.mkdir(exist_ok=True)
    (headers / machine.triplet).unlink(missing_ok=True)
    (headers / machine.triplet).symlink_to(root / "usr" / "include" / machine.triplet)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{commands}:{os.environ['PATH']}",
        "DLOPEN_TEST_ROOT": str(root),
        "DLOPEN_TEST_EMULATOR": str(static_emulator(machine)),
        "CC": f"{machine.triplet}-gcc",
        "CPATH": str(headers),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(folder / "cache"),
    }
    kept = f"{machine.release}-python" if not arguments else "part"
    step(f"tests of Python on {machine.name}, {machine.release}")
    return subprocess.run(
        [programs / "python", "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow",
         f"--results={RESULTS / machine.name / kept}.json", "tests/python", *arguments],
        check=False, env=environment,
    ).returncode  # fmt: skip


if __name__ == "__main__":
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sys.exit(main())
