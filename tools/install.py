"""Build the package and install it; incremental, and nothing to do without a change."""

import argparse
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mesonpy

SOURCES = ("meson.build", "meson.options", "pyproject.toml", "tools/transpile.py", "src")
SETUP = {
    "release": [],
    "debug": ["-Dbuildtype=debug", "-Doptimization=g"],
    "sanitize": ["-Dbuildtype=debug", "-Doptimization=1", "-Dsanitizer=address"],
    "faults": ["-Dbuildtype=debug", "-Doptimization=1", "-Dfaults=true"],
    "faults-sanitized": [
        "-Dbuildtype=debug",
        "-Doptimization=1",
        "-Dfaults=true",
        "-Dsanitizer=address",
    ],
    "fuzz": ["-Dbuildtype=debug", "-Doptimization=1", "-Dsanitizer=fuzzer"],
    "race": ["-Dbuildtype=debug", "-Doptimization=1", "-Dsanitizer=thread"],
}


def source_files() -> Iterator[tuple[str, int]]:
    """Each file that the package is built from, with its time of change."""
    for name in SOURCES:
        for path in sorted([Path(name), *Path(name).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path), path.stat().st_mtime_ns


def main() -> int:
    """Install the variant: release into the environment, others into build/VARIANT/site."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=SETUP)
    variant = parser.parse_args().variant
    folder = Path("build", variant)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = (Path(sys.prefix) if variant == "release" else folder) / "installed"
    site = [] if variant == "release" else ["--upgrade", "--target", str(folder / "site")]
    with Path(folder, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        now = repr((sys.version, list(source_files())))
        if stamp.exists() and stamp.read_text() == now:
            return 0
        print(f"==> building dlopen ({variant})", flush=True)
        wheel = mesonpy.build_wheel(
            str(folder),
            {"build-dir": str(folder / "meson"), "setup-args": SETUP[variant]},
        )
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
        subprocess.run([*pip, *site, str(folder / wheel)], check=True)
        stamp.write_text(now)
    return 0


if __name__ == "__main__":
    # The build's own programs (meson, ninja, cython) come from this environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sys.exit(main())
