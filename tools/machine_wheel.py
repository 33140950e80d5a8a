"""The wheel for another machine, by its cross compiler: of the last commit, or of this tree.

dist    the source archive of the last commit and the wheel from it, as `make wheel` does
--tree  the wheel alone, of the files as they are; what is compiled once, is not again
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import mesonpy
from machines import MACHINES, Machine, find_programs, machine_named


def setup_arguments(machine: Machine) -> list[str]:
    """Of meson; in a folder of its own a path from here would lead nowhere."""
    return [f"--cross-file={Path('tools', 'cross', f'{machine.name}.ini').absolute()}"]


def of_the_tree(machine: Machine, folder: Path) -> Path:
    """The wheel, in the folder."""
    settings = {
        "build-dir": str(machine.folder / "wheel"),
        "setup-args": setup_arguments(machine),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return Path(folder, mesonpy.build_wheel(str(folder), settings))


def of_the_last_commit(machine: Machine, folder: Path) -> None:
    """With what builds it from this environment: one of its own would be for that machine, too."""
    options = [f"-Csetup-args={argument}" for argument in setup_arguments(machine)]
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *options]
    subprocess.run(command, check=True)


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(prog="machine_wheel", description=__doc__)
    parser.add_argument("machine", help=", ".join(MACHINES))
    parser.add_argument("--tree", action="store_true")
    parser.add_argument("--outdir", type=Path, default=Path("dist"))
    options = parser.parse_args()
    machine = machine_named(options.machine)
    find_programs(machine)
    # What sysconfig.get_platform() says, and so the tag of the wheel.
    os.environ["_PYTHON_HOST_PLATFORM"] = f"linux-{machine.name}"
    if options.tree:
        of_the_tree(machine, options.outdir)
    else:
        of_the_last_commit(machine, options.outdir)


if __name__ == "__main__":
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    main()
