"""What the figures depend on, without the machine's name."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def field_of(path: str, name: str) -> str | None:
    """The first value of this name in a file of lines `NAME: VALUE`."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def described() -> dict[str, str]:
    """A word for each, in the order in which they are shown."""
    flags = (field_of("/proc/cpuinfo", "flags") or "").split()
    memory = (field_of("/proc/meminfo", "MemTotal") or "0").split()[0]
    load = os.getloadavg()
    found = {
        "processor": field_of("/proc/cpuinfo", "model name") or platform.machine(),
        "processors": f"{os.cpu_count()}{', virtual' if 'hypervisor' in flags else ''}",
        "memory": f"{int(memory) / 2**20:.0f} GiB",
        "kernel": f"Linux {platform.release().split('-')[0]}",
        "libc": " ".join(platform.libc_ver()),
        "Python": platform.python_version(),
        "compiler of the package": compiler(),
        "load at the start": f"{load[0]:.1f}",
    }
    return {name: value for name, value in found.items() if value}


def compiler() -> str:
    """What made the interpreter, and so most likely this package."""
    return platform.python_compiler() if sys.implementation.name == "cpython" else ""
