"""Other loaders, which cargo makes from crates.io: dlopen-rs and Relink."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import libraries

PROJECT = Path(__file__).with_name("peers")
NAMES = {"dlopen-rs": "libpeer_dlopen_rs.so", "relink": "libpeer_relink.so"}
WITHOUT = "DLOPEN_BENCH_WITHOUT_PEERS"  # set in the environment: they are not built


@cache
def built() -> tuple[dict[str, Path], str]:
    """The library of each, or none and the reason."""
    if os.environ.get(WITHOUT):
        return {}, f"{WITHOUT} is set"
    cargo = shutil.which("cargo")
    if cargo is None:
        return {}, "cargo is not installed"
    target = libraries.BUILD / "peers"
    command = [cargo, "build", "--release", "--locked", "--target-dir", str(target)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "cargo fails").splitlines()
        return {}, next((line for line in reason if line.startswith("error")), reason[-1])
    return {name: target / "release" / file for name, file in NAMES.items()}, ""
