"""Each relocated place of Debian's libraries for another machine, compared with its own loader.

Both run in qemu-user. The libraries are those of tests/differential/packages*.txt and what they
need, unpacked into build/machines/MACHINE/differential-RELEASE. Further arguments are pytest's.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from debian_root import unpack_once
from machines import MACHINES, RUNTIME, build, find_programs, machine_named
from test_glibc import step

TESTS = "tests/differential"


def wanted() -> list[str]:
    """The packages, as `find_packages` takes them."""
    texts = (path.read_text() for path in sorted(Path(TESTS).glob("packages*.txt")))
    lines = (line.partition("#")[0].strip() for text in texts for line in text.splitlines())
    return [line for line in lines if line]


def main() -> int:
    """The status of the tests."""
    parser = argparse.ArgumentParser(prog="machine_differential", description=__doc__)
    parser.add_argument("machine", help=", ".join(MACHINES))
    parser.add_argument("--release", help="of Debian, instead of one that has the machine")
    options, arguments = parser.parse_known_args()
    machine = machine_named(options.machine)
    find_programs(machine)
    release = options.release or machine.release
    root = machine.folder / f"differential-{release}"
    unpack_once(root, machine.debian, release, list(RUNTIME), wanted())
    environment = {
        **os.environ,
        "DLOPEN_TEST_MACHINE": machine.name,
        "DLOPEN_TEST_ROOT": str(root),
        "LIBDLOPEN": str(build(machine)),
    }
    step(f"libraries of {machine.name}, {release}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "slow or not slow", TESTS, *arguments],
        check=False, env=environment,
    ).returncode  # fmt: skip


if __name__ == "__main__":
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sys.exit(main())
