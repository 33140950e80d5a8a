"""Shared libraries of Debian for a machine, whatever this one is, unpacked into a folder.

The packages are fetched with a private configuration of apt, from the mirror that apt of this
machine is set up with; nothing of this system is changed.  A folder that is there stays.
    MIRROR  an address of Debian's packages instead of the one that apt has
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from test_glibc import KEYRING, apt_settings, fail, find_mirror, step

# With much of what few have: storage of threads, resolvers, versions.
ALWAYS = ("libc6", "libstdc++6", "libgomp1", "libjemalloc2")
LARGEST_PACKAGE = 300_000


def write_settings(root: Path, release: str, architecture: str) -> dict[str, str]:
    """The environment with which apt knows this folder, this release and this machine only."""
    for name in ("lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True)
    (root / "status").touch()
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    source = f"deb [arch={architecture}{signed}] {find_mirror()} {release} main\n"
    (root / "sources.list").write_text(source)
    nothing = ("sourceparts", "preferences", "preferencesparts", "main", "parts")
    lines = [
        *apt_settings(),
        *(f'Dir::Etc::{name} "/dev/null";' for name in nothing),
        f'Dir::Etc::sourcelist "{root}/sources.list";',
        f'Dir::State "{root}";',
        f'Dir::State::status "{root}/status";',
        f'Dir::State::lists "{root}/lists";',
        f'Dir::Cache "{root}/cache";',
        f'APT::Architecture "{architecture}";',
        f'APT::Architectures {{ "{architecture}"; }};',
        'APT::Sandbox::User "root";',
        'Acquire::Languages "none";',
        # A mirror may stand still; what it has is signed all the same.
        'Acquire::Check-Valid-Until "false";',
    ]
    (root / "apt.conf").write_text("\n".join(lines) + "\n")
    return {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"}


def records(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a list of packages, by field."""
    for paragraph in text.split("\n\n"):
        yield dict(re.findall(r"^(\S+): (.*)$", paragraph, re.MULTILINE))


def choose(available: list[dict[str, str]], count: int) -> list[str]:
    """Names of about `count` packages that hold libraries, all over the alphabet."""
    names = sorted(
        record["Package"]
        for record in available
        if record.get("Section", "").split("/")[-1] == "libs"
        and re.fullmatch(r"lib[a-z0-9+.-]*\d", record["Package"])
        and int(record["Size"]) <= LARGEST_PACKAGE
    )
    present = {record.get("Package") for record in available}
    spread = names[:: max(1, len(names) // count)]
    return list(dict.fromkeys([*(name for name in ALWAYS if name in present), *spread]))


def is_elf(path: Path) -> bool:
    """A regular file with ELF's first bytes."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def fetch(folder: Path, release: str, architecture: str, count: int) -> None:
    """The libraries appear in `folder` when all are there, each under its own name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        root = Path(temporary)
        environment = write_settings(root, release, architecture)
        step(f"packages of {release} for {architecture}")
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        listed = subprocess.run(
            ["apt-cache", "dumpavail"], capture_output=True, text=True, check=True, env=environment
        ).stdout
        (root / "packages").mkdir()
        for name in choose(list(records(listed)), count):
            # One that the mirror has lost is missing, and no more.
            subprocess.run(
                ["apt-get", "download", "-qq", name],
                check=False, cwd=root / "packages", env=environment, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        (root / "libraries").mkdir()
        for package in sorted((root / "packages").glob("*.deb")):
            unpacked = root / "unpacked"
            subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
            for path in sorted(unpacked.rglob("*.so*")):
                if is_elf(path):
                    path.rename(root / "libraries" / path.name)
            shutil.rmtree(unpacked)
        (root / "libraries").rename(folder)
    step(f"{len(list(folder.iterdir()))} libraries in {folder}")


def main() -> None:
    """Fetch what is not there."""
    parser = argparse.ArgumentParser(prog="debian_libraries", description=__doc__)
    parser.add_argument("folder", type=Path, help="made for each architecture, below this one")
    parser.add_argument("architectures", nargs="+", help="as Debian names them: arm64")
    parser.add_argument("--release", default="sid", help="one that has them all")
    parser.add_argument("--count", type=int, default=100, help="of packages, about")
    options = parser.parse_args()
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", options.release):
        fail("needs the name of a release, as --release=trixie")
    for architecture in options.architectures:
        folder = options.folder.absolute() / architecture
        if not folder.is_dir():
            fetch(folder, options.release, architecture, options.count)


if __name__ == "__main__":
    main()
