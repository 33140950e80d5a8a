"""The machine that fixtures are compiled for and that their programs run on.

It is this one, or the one that the environment variable DLOPEN_TEST_MACHINE names, under qemu-user
(`make test-arch`), with pages of DLOPEN_TEST_PAGE bytes, if that is set. Only the standard library
is imported here.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """One that libdlopen.so runs on."""

    name: str  # as uname(1), qemu-user and meson have it
    number: int  # e_machine
    loader: str  # the file name of the system's
    baseline: str  # the version of libc's oldest symbols
    tls_descriptors: tuple[str, ...]  # the compiler's flags for them; none where it has none
    tls_traditional: tuple[str, ...] = ()  # … for what came before them
    relocated_text: tuple[str, ...] = ()  # … and for code that holds addresses
    # … and for DT_RELR, which GNU ld writes for few machines
    packed: tuple[str, ...] = ("-fuse-ld=lld", "-Wl,--pack-dyn-relocs=relr")
    dtv_offset: int = 0  # that __tls_get_addr adds to an offset: psABI
    # What others do without being asked: C++ may throw through C.
    always: tuple[str, ...] = ()

    @property
    def is_foreign(self) -> bool:
        return self.name != platform.machine()

    @property
    def emulator(self) -> str | None:
        """What its programs are started with.

        DLOPEN_TEST_EMULATOR names it for tests that run under it themselves.
        """
        chosen = os.environ.get("DLOPEN_TEST_EMULATOR")
        return chosen or (f"qemu-{self.name}" if self.is_foreign else None)

    @property
    def triplet(self) -> str:
        return f"{self.name}-linux-gnu"

    @property
    @cache  # noqa: B019
    def sysroot(self) -> Path:
        """Where the libraries are that its programs run with.

        What DLOPEN_TEST_ROOT names, or the compiler's own.
        """
        if chosen := os.environ.get("DLOPEN_TEST_ROOT"):
            return Path(chosen)
        done = subprocess.run(
            [f"{self.triplet}-gcc", "-print-file-name=libc.so.6"],
            capture_output=True,
            text=True,
            check=True,
        )
        return Path(done.stdout.strip()).resolve().parent.parent

    @property
    def release(self) -> str:
        """The system whose libraries those are, by its name."""
        if chosen := os.environ.get("DLOPEN_TEST_ROOT"):
            return Path(chosen).name
        here = platform.freedesktop_os_release()
        return here.get("VERSION_CODENAME", here["ID"])

    @property
    def page(self) -> int:
        """The size of its pages."""
        if not self.is_foreign:
            return resource.getpagesize()
        return int(os.environ.get("DLOPEN_TEST_PAGE", "4096"))

    @property
    def shows_pages(self) -> bool:
        """/proc/self/maps is true: qemu 7.2's goes by pages of 4 KiB."""
        return not self.is_foreign or self.page == 4096

    @property
    @cache  # noqa: B019
    def glibc(self) -> tuple[int, ...]:
        """The version of its libc."""
        if not self.is_foreign:
            return tuple(map(int, platform.libc_ver()[1].split(".")))
        content = next(self.sysroot.rglob("libc.so.6")).read_bytes()
        text = content.partition(b"stable release version ")[2][:16]
        return tuple(int(part) for part in text.partition(b".\n")[0].decode().split("."))

    def run(
        self, program: str, environment: Mapping[str, str], variables: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """The words before a program's own, and the environment of the whole.

        `variables` are for the program and not for the emulator.
        """
        if self.emulator is None or not self.is_program(program):
            return [], {**environment, **variables}
        words = [self.emulator, "-L", str(self.sysroot)]
        # qemu's child of a fork takes a lock of GLib's own allocator, which another thread may have
        # held then; malloc's are free in the child.
        environment = {**environment, "G_SLICE": "always-malloc"}
        if page := os.environ.get("DLOPEN_TEST_PAGE"):
            # qemu 7.2 knows of the last page of a mapping only as far as somebody has asked for it,
            # in pieces of 4 KiB: SVE's loads and stores, which look, fail in the rest of it.
            words += ["-p", page, "-cpu", "cortex-a72"]
        for name, value in variables.items():
            words += ["-E", f"{name}={value}"]
        return words, dict(environment)

    def file(self, path: str) -> str:
        """The file that its programs find at this path, which they have made a real one."""
        inside = Path(f"{self.sysroot}{path}") if self.is_foreign else None
        return str(inside.resolve()) if inside and inside.exists() else path

    def is_program(self, path: str) -> bool:
        """A file that only it can run."""
        try:
            with Path(path).open("rb") as file:
                header = file.read(20)
        except OSError:
            return False
        return header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == self.number


MACHINES = {
    machine.name: machine
    for machine in (
        Machine(
            "x86_64",
            62,
            "ld-linux-x86-64.so.2",
            "GLIBC_2.2.5",
            ("-mtls-dialect=gnu2",),
            ("-mtls-dialect=gnu",),
            ("-mcmodel=large", "-fno-pic"),
            ("-Wl,-z,pack-relative-relocs",),
        ),
        Machine(
            "aarch64",
            183,
            "ld-linux-aarch64.so.1",
            "GLIBC_2.17",
            ("-mtls-dialect=desc",),
            ("-mtls-dialect=trad",),
        ),
        Machine(
            "riscv64",
            243,
            "ld-linux-riscv64-lp64d.so.1",
            "GLIBC_2.27",
            (),
            dtv_offset=0x800,
            always=("-fasynchronous-unwind-tables",),
        ),
        Machine(
            "loongarch64",
            258,
            "ld-linux-loongarch-lp64d.so.1",
            "GLIBC_2.36",
            ("-mtls-dialect=desc",),
            ("-mtls-dialect=trad",),
            packed=("-Wl,-z,pack-relative-relocs",),
        ),
    )
}


@cache
def machine() -> Machine:
    """The one that is tested."""
    return MACHINES[os.environ.get("DLOPEN_TEST_MACHINE") or platform.machine()]
