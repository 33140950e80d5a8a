"""Programs of Debian for another machine under the preload, in qemu-user, as `make programs` does.

What they come in is unpacked into build/machines/MACHINE/programs. Further arguments are pytest's.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from debian_root import unpack_once
from emulated import put_commands, put_python
from machines import MACHINES, RUNTIME, build, find_programs, machine_named
from test_glibc import step

from programs.program import ROWS, read


def main() -> int:
    """The status of the tests."""
    parser = argparse.ArgumentParser(prog="machine_programs", description=__doc__)
    parser.add_argument("machine", help=", ".join(MACHINES))
    options, arguments = parser.parse_known_args()
    machine = machine_named(options.machine)
    find_programs(machine)
    rows = [row for row in map(read, sorted(ROWS.glob("*.sh"))) if row.emulated]
    root, commands = machine.folder / "programs", machine.folder / "commands"
    packages = {package for row in rows for package in row.packages}
    projects = sorted({project for row in rows for project in row.python})
    unpack_once(root, machine.debian, machine.release, [*RUNTIME, *packages])
    names = {name for row in rows for name in row.emulated}
    put_commands(commands, machine, root, names - {"python"})
    environment = {
        **os.environ,
        "DLOPEN_TEST_MACHINE": machine.name,
        "DLOPEN_TEST_ROOT": str(root),
        "DLOPEN_TEST_PROGRAMS": str(commands),
        "DLOPEN_TEST_PYTHON": str(put_python(machine.folder / "wheels", machine, root, projects)),
        "LIBDLOPEN": str(build(machine)),
    }
    step(f"programs of {machine.name}, {machine.release}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "slow or not slow",
         "tests/programs/test_programs.py", *arguments],
        check=False, env=environment,
    ).returncode  # fmt: skip


if __name__ == "__main__":
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sys.exit(main())
