"""Whether this interpreter can use a wheel, by its tags: PEP 425, 600 and 656."""

from __future__ import annotations

import os
import sys


def refusal(metadata: str) -> str:
    """Why it cannot, from the content of the wheel's file WHEEL; "" if it can, or nothing is said.

    The libc that a platform tag asks for is not looked at: its libraries name the versions that
    they need.
    """
    lines = [line.partition(":") for line in metadata.splitlines()]
    tags = [value.strip().split("-") for name, _, value in lines if name == "Tag"]
    tags = [tag for tag in tags if len(tag) == 3]
    if not tags or any(_runs(*tag[:2]) and _is_here(tag[2]) for tag in tags):
        return ""
    if any(_is_here(tag[2]) for tag in tags):
        kinds = ", ".join(dict.fromkeys("-".join(tag[:2]) for tag in tags))
        major, minor = sys.version_info[:2]
        threads = " without the GIL" if "t" in sys.abiflags else ""
        return (
            f"wrong Python: the wheel is for {kinds}, and this is CPython {major}.{minor}{threads}"
        )
    kinds = ", ".join(dict.fromkeys(tag[2] for tag in tags))
    if any(_is_of(tag[2], f"musl{_kind()}") for tag in tags):
        return f"wrong libc: the wheel is for musl ({kinds}), and this is glibc"
    return f"wrong machine: the wheel is for {kinds}, and this is {_here()}"


def _here() -> str:
    return f"{_kind()}_{os.uname().machine}"


def _kind() -> str:
    return os.uname().sysname.lower()


def _is_here(platforms: str) -> bool:
    kind = _kind()
    return "any" in platforms.split(".") or _is_of(platforms, kind, f"many{kind}")


def _is_of(platforms: str, *kinds: str) -> bool:
    machine = f"_{os.uname().machine}"
    return any(one.startswith(kinds) and one.endswith(machine) for one in platforms.split("."))


def _runs(pythons: str, abis: str) -> bool:
    return any(_runs_one(python, abi) for python in pythons.split(".") for abi in abis.split("."))


def _runs_one(python: str, abi: str) -> bool:
    major, minor = sys.version_info[:2]
    kind, version = python[:2], python[2:]
    if kind not in ("py", "cp") or version[:1] != str(major):
        return False
    wanted = int(version[1:]) if version[1:].isdecimal() else 0
    if abi == "none":
        return wanted <= minor if kind == "py" or not wanted else wanted == minor
    if abi == "abi3":
        return wanted <= minor and "t" not in sys.abiflags
    return kind == "cp" and abi == f"cp{major}{minor}{sys.abiflags}"
