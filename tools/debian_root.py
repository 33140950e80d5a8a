"""Packages of Debian with all that they depend on, for any machine, unpacked into a folder.

Enough for an emulator to run programs with (`qemu-MACHINE -L FOLDER`); nothing is installed.

    MIRROR  an address of Debian's packages instead of the one that apt has
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from debian_libraries import records, write_settings
from test_glibc import step

LISTS = "var/lib/dpkg/info"  # where an installation has the files of each package


def natural(name: str) -> list[tuple[int, str]]:
    """Names in this order have their versions in order."""
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def find_packages(names: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """Those of them that the release has.

    In a name * stands for a version, of which the newest is taken. A library may have t64, its
    64-bit time_t, behind its name.
    """
    listed = subprocess.run(
        ["apt-cache", "dumpavail"], capture_output=True, text=True, check=True, env=environment
    ).stdout
    present = sorted({record.get("Package", "") for record in records(listed)}, key=natural)
    found, lost = [], []
    for name in names:
        pattern = re.compile(re.escape(name).replace(r"\*", r"[\d.]*\d") + "(?:t64)?")
        matching = [other for other in present if pattern.fullmatch(other)]
        if matching:
            found.append(matching[-1])
        else:
            lost.append(name)
    if lost:
        step(f"not there: {' '.join(lost)}")
    return found


def note(folder: Path, packages: list[Path]) -> None:
    """The root lists them as installed: dpkg-query(1) tells their versions with --admindir."""
    status = folder / "var/lib/dpkg/status"
    listed: dict[str, str] = {}
    if status.exists():
        paragraphs = status.read_text().strip().split("\n\n")
        listed = {paragraph.partition("\n")[0]: paragraph for paragraph in paragraphs}
    for package in packages:
        fields = subprocess.run(
            ["dpkg-deb", "--field", str(package)], check=True, capture_output=True, text=True
        ).stdout.strip()
        name, _, rest = fields.partition("\n")
        listed[name] = f"{name}\nStatus: install ok installed\n{rest}"
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_text("".join(f"{paragraph}\n\n" for paragraph in listed.values()))


def unpack(
    folder: Path, release: str, architecture: str, packages: list[str], wanted: Iterable[str]
) -> None:
    """Into the folder, whatever it holds already; which package a file is of is listed there."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        root = Path(temporary)
        environment = write_settings(root, release, architecture)
        step(f"packages of {release} for {architecture}")
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(
            ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "--download-only",
             *packages, *find_packages(wanted, environment)],
            check=True, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        fetched = sorted((root / "cache/archives").glob("*.deb"))
        (folder / LISTS).mkdir(parents=True, exist_ok=True)
        for package in fetched:
            # Through a tar that keeps links between folders: /lib is one in newer releases.
            with subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
            ) as archive:
                files = subprocess.run(
                    ["tar", "-x", "-v", "-C", str(folder), "--keep-directory-symlink",
                     "--no-same-owner", "--exclude=./dev"],
                    stdin=archive.stdout, capture_output=True, text=True, check=True,
                ).stdout  # fmt: skip
            name = package.name.partition("_")[0]
            (folder / LISTS / f"{name}.list").write_text(
                "".join(f"{line[1:].rstrip('/')}\n" for line in files.splitlines())
            )
        note(folder, fetched)


def unpack_once(
    folder: Path,
    architecture: str,
    release: str,
    packages: list[str],
    wanted: Iterable[str] = (),
) -> None:
    """What is not there of the packages, and of those wanted that the release has."""
    listed = folder / ".packages"
    asked = " ".join([release, architecture, *sorted([*packages, *wanted])])
    if listed.exists() and asked in listed.read_text().splitlines():
        return
    for name in ("lib", "lib64", "bin", "sbin"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():  # what an installation does
            (folder / name).symlink_to(f"usr/{name}")
    unpack(folder, release, architecture, packages, wanted)
    with listed.open("a") as file:
        file.write(asked + "\n")
