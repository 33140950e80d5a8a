"""Build and test for another machine under qemu-user: what is missing is fetched from Debian.

A cross compiler and the emulator of this system are taken; for LoongArch, for which Debian 12 has
neither, those of Debian 13, unpacked into build/machines. The libraries that programs run with are
those of a release of Debian that has the machine (`RELEASE`), unpacked, not installed.
    ARGS    further arguments of pytest
"""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from debian_root import unpack_once
from test_glibc import fail, step

# What programs of C and C++ need.
RUNTIME = ("libc6", "libgcc-s1", "libgomp1", "libstdc++6")
# Tests whose programs are compiled for the machine, and run there by themselves.
TESTS = (
    "tests/family",
    *(
        f"tests/core/{room}"
        for room in ("closing", "face", "image", "relocation", "running", "search", "tls")
    ),
    *(f"tests/core/arch/test_{subject}.py" for subject in ("abis", "processor")),
)


@dataclass(frozen=True)
class Machine:
    """A machine by its name in Linux and meson."""

    name: str
    debian: str  # the name of Debian's architecture
    release: str  # that has it and is tested by default

    @property
    def triplet(self) -> str:
        """As the names of its compilers begin."""
        return f"{self.name}-linux-gnu"

    @property
    def folder(self) -> Path:
        """For all that is fetched and built for it."""
        return Path("build/machines", self.name).absolute()


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("aarch64", "arm64", "bookworm"),
        Machine("riscv64", "riscv64", "trixie"),
        Machine("loongarch64", "loong64", "sid"),
    )
}


def run_here(program: Path, loader: Path, libraries: Path) -> None:
    """A program that was built for a newer libc runs with the one that came with it."""
    subprocess.run(
        ["patchelf", "--set-interpreter", str(loader), "--force-rpath", "--set-rpath",
         str(libraries), str(program)],
        check=True,
    )  # fmt: skip


def fetch_compiler(machine: Machine) -> Path:
    """GCC and qemu of Debian 13 for a machine that this release has none for.

    The folder of its programs; the files hold absolute paths, and are not to be moved.
    """
    root = machine.folder / "compiler"
    programs = root / "programs"
    if programs.is_dir():
        return programs
    step(f"a compiler and an emulator for {machine.name}")
    unpack_once(root, "amd64", "trixie", [f"g++-14-{machine.triplet}", "qemu-user"])
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    for folder in ("usr/bin", "usr/libexec", "usr/lib/gcc-cross", "usr/lib/x86_64-linux-gnu"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_symlink() or not path.is_file() or path.name.startswith(("ld-", "libc.so")):
                continue
            if b"/lib64/ld-linux-x86-64.so.2\0" in path.read_bytes()[:4096]:
                run_here(path, loader, libraries)
    sysroot = root / "usr" / machine.triplet
    script = sysroot / "lib/libc.so"  # a linker script, with the paths of an installation
    script.write_text(
        script.read_text().replace(f"/usr/{machine.triplet}/lib64/", "")
        .replace(f"/usr/{machine.triplet}/lib/", "")
    )  # fmt: skip
    partial = root / "programs.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for path in sorted((root / "usr/bin").glob(f"{machine.triplet}-*")):
        (partial / path.name.removesuffix("-14")).symlink_to(path)
    emulator = f"qemu-{machine.name}"
    (partial / emulator).symlink_to(root / "usr/bin" / emulator)
    partial.rename(programs)
    return programs


def find_programs(machine: Machine) -> None:
    """A compiler and an emulator are on PATH."""
    wanted = [f"{machine.triplet}-gcc", f"qemu-{machine.name}"]
    if all(map(shutil.which, wanted)):
        return
    if machine.name != "loongarch64":
        fail(f"{' and '.join(wanted)} are needed: apt-get install g++-{machine.triplet} qemu-user")
    os.environ["PATH"] = f"{fetch_compiler(machine)}:{os.environ['PATH']}"


def build(machine: Machine) -> Path:
    """libdlopen.so for it."""
    folder = machine.folder / "meson"
    if not (folder / "build.ninja").exists():
        subprocess.run(
            ["meson", "setup", "--buildtype=release", "-Doptimization=2",
             f"--cross-file=tools/cross/{machine.name}.ini", str(folder)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    subprocess.run(["ninja", "-C", str(folder), "--quiet", "libdlopen.so"], check=True)
    return folder / "libdlopen.so"


def main() -> int:
    """The worst status of the tests."""
    parser = argparse.ArgumentParser(prog="machines", description=__doc__)
    parser.add_argument("machines", nargs="*", metavar="MACHINE", help=", ".join(MACHINES))
    parser.add_argument("--release", help="of Debian, instead of one that has the machine")
    parser.add_argument("--page", help="its size in bytes, instead of the machine's usual one")
    options, arguments = parser.parse_known_args()
    status = 0
    for name in options.machines or MACHINES:
        machine = MACHINES.get(name) or fail(f"{name} is none of {', '.join(MACHINES)}")
        find_programs(machine)
        release = options.release or machine.release
        root = machine.folder / release
        unpack_once(root, machine.debian, release, list(RUNTIME))
        library = build(machine)
        step(f"tests of {machine.name} with the libc of {release}")
        environment = {
            **os.environ,
            "DLOPEN_TEST_MACHINE": machine.name,
            "DLOPEN_TEST_ROOT": str(root),
            "LIBDLOPEN": str(library),
        }
        if options.page:
            environment["DLOPEN_TEST_PAGE"] = options.page
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "not slow", *TESTS, *arguments],
            check=False, env=environment,
        )  # fmt: skip
        status = max(status, done.returncode)
    return status


if __name__ == "__main__":
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sys.exit(main())
