"""Build and test for another machine under qemu-user: what is missing is fetched from Debian.

A cross compiler, the emulator and gdb of this system are taken; for LoongArch, for which Debian 12
has none, those of Debian 13, unpacked into build/machines. The libraries that programs run with are
those of a release of Debian that has the machine (`RELEASE`), unpacked, not installed; or, with
nothing to fetch, those that come with the compiler (`--installed`).

What became of each test is in build/results/MACHINE, for docs/machines.md (machines_page.py).
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
from machines_page import RESULTS, read, summary, to_run
from test_glibc import fail, step

# What programs of C and C++ need.
RUNTIME = ("libc6", "libgcc-s1", "libgomp1", "libstdc++6")


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


def machine_named(name: str) -> Machine:
    """By the name that a task was given."""
    return MACHINES.get(name) or fail(f"{name} is none of {', '.join(MACHINES)}")


def run_here(program: Path, loader: Path, libraries: Path) -> None:
    """A program that was built for a newer libc runs with the one that came with it."""
    subprocess.run(
        ["patchelf", "--set-interpreter", str(loader), "--force-rpath", "--set-rpath",
         str(libraries), str(program)],
        check=True,
    )  # fmt: skip


def fetch(root: Path, packages: list[str]) -> None:
    """Programs of Debian 13, with the libc that they need.

    The files hold absolute paths, and are not to be moved.
    """
    unpack_once(root, "amd64", "trixie", packages)
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    for folder in ("usr/bin", "usr/libexec", "usr/lib/gcc-cross", "usr/lib/x86_64-linux-gnu"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_symlink() or not path.is_file() or path.name.startswith(("ld-", "libc.so")):
                continue
            if b"/lib64/ld-linux-x86-64.so.2\0" in path.read_bytes()[:4096]:
                run_here(path, loader, libraries)


def publish(root: Path, programs: dict[str, Path]) -> None:
    """The folder of programs appears when all is done."""
    partial = root / "programs.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, path in programs.items():
        (partial / name).symlink_to(path)
    partial.rename(root / "programs")


def fetch_compiler(machine: Machine) -> Path:
    """The folder of GCC and qemu, for a machine that this release has none for."""
    root = machine.folder / "compiler"
    programs = root / "programs"
    if programs.is_dir():
        return programs
    step(f"a compiler and an emulator for {machine.name}")
    fetch(root, [f"g++-14-{machine.triplet}", "qemu-user"])
    sysroot = root / "usr" / machine.triplet
    script = sysroot / "lib/libc.so"  # a linker script, with the paths of an installation
    script.write_text(
        script.read_text().replace(f"/usr/{machine.triplet}/lib64/", "")
        .replace(f"/usr/{machine.triplet}/lib/", "")
    )  # fmt: skip
    compilers = sorted((root / "usr/bin").glob(f"{machine.triplet}-*"))
    emulator = root / "usr/bin" / f"qemu-{machine.name}"
    publish(root, {path.name.removesuffix("-14"): path for path in [*compilers, emulator]})
    return programs


def fetch_debugger(machine: Machine) -> Path:
    """The folder of a gdb that knows a machine, which the one of this release does not."""
    root = machine.folder / "debugger"
    programs = root / "programs"
    if programs.is_dir():
        return programs
    step(f"a debugger for {machine.name}")
    fetch(root, ["gdb-multiarch"])
    script = root / "gdb"
    script.write_text(
        f"#!/bin/sh\nexport PYTHONHOME='{root}/usr'\n"
        f"exec '{root}/usr/bin/gdb-multiarch' --data-directory='{root}/usr/share/gdb' \"$@\"\n"
    )
    script.chmod(0o755)
    publish(root, {"gdb-multiarch": script})
    return programs


def find_programs(machine: Machine) -> None:
    """A compiler and an emulator are on PATH."""
    wanted = [f"{machine.triplet}-gcc", f"qemu-{machine.name}"]
    if all(map(shutil.which, wanted)):
        return
    if machine.name != "loongarch64":
        fail(f"{' and '.join(wanted)} are needed: apt-get install g++-{machine.triplet} qemu-user")
    folders = [fetch_compiler(machine), fetch_debugger(machine), os.environ["PATH"]]
    os.environ["PATH"] = os.pathsep.join(map(str, folders))


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


def test(
    machine: Machine, release: str, page: str, library: Path, arguments: list[str]
) -> tuple[int, Path]:
    """The status of the tests, and where it stands what became of each.

    Of all tests that is kept, of some for this run only. Without a release they run with the
    compiler's libraries.
    """
    environment = {
        **os.environ,
        "DLOPEN_TEST_MACHINE": machine.name,
        "LIBDLOPEN": str(library),
    }
    if release:
        environment["DLOPEN_TEST_ROOT"] = str(machine.folder / release)
    if page:
        environment["DLOPEN_TEST_PAGE"] = page
    name = "_".join(filter(None, [release, page]))
    results = RESULTS / machine.name / f"{name if release and not arguments else 'part'}.json"
    results.unlink(missing_ok=True)
    step(f"tests of {machine.name} with the libc of {release or 'its compiler'}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not slow", f"--results={results}",
         *to_run(), *arguments],
        check=False, env=environment,
    )  # fmt: skip
    return done.returncode, results


def main() -> int:
    """The worst status of the tests."""
    parser = argparse.ArgumentParser(prog="machines", description=__doc__)
    parser.add_argument("machines", nargs="*", metavar="MACHINE", help=", ".join(MACHINES))
    parser.add_argument("--release", help="of Debian, instead of one that has the machine")
    parser.add_argument(
        "--page", default="", help="its size in bytes, instead of the machine's usual one"
    )
    parser.add_argument("--installed", action="store_true", help="with the compiler's libraries")
    options, arguments = parser.parse_known_args()
    worst = 0
    lines = []
    for name in options.machines or MACHINES:
        machine = machine_named(name)
        find_programs(machine)
        release = "" if options.installed else options.release or machine.release
        if release:
            unpack_once(machine.folder / release, machine.debian, release, list(RUNTIME))
        library = build(machine)
        status, results = test(machine, release, options.page, library, arguments)
        worst = max(worst, status)
        lines.append(summary(read(results)) if results.exists() else f"{name}: no results")
    print(*lines, sep="\n")
    return worst


if __name__ == "__main__":
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sys.exit(main())
