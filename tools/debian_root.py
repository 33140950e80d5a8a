"""Packages of Debian with all that they depend on, for any machine, unpacked into a folder.

Enough for an emulator to run programs with (`qemu-MACHINE -L FOLDER`); nothing is installed.

    MIRROR  an address of Debian's packages instead of the one that apt has
"""

import subprocess
import tempfile
from pathlib import Path

from debian_libraries import write_settings
from test_glibc import step


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


def unpack(folder: Path, release: str, architecture: str, packages: list[str]) -> None:
    """Into the folder, whatever it holds already."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        root = Path(temporary)
        environment = write_settings(root, release, architecture)
        step(f"packages of {release} for {architecture}")
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(
            ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "--download-only",
             *packages],
            check=True, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        fetched = sorted((root / "cache/archives").glob("*.deb"))
        for package in fetched:
            # Through a tar that keeps links between folders: /lib is one in newer releases.
            with subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
            ) as archive:
                subprocess.run(
                    ["tar", "-x", "-C", str(folder), "--keep-directory-symlink",
                     "--no-same-owner", "--exclude=./dev"],
                    stdin=archive.stdout, check=True,
                )  # fmt: skip
        note(folder, fetched)


def unpack_once(folder: Path, architecture: str, release: str, packages: list[str]) -> None:
    """What is not there of them."""
    listed = folder / ".packages"
    wanted = " ".join([release, architecture, *sorted(packages)])
    if listed.exists() and wanted in listed.read_text().splitlines():
        return
    for name in ("lib", "lib64", "bin", "sbin"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():  # what an installation does
            (folder / name).symlink_to(f"usr/{name}")
    unpack(folder, release, architecture, packages)
    with listed.open("a") as file:
        file.write(wanted + "\n")
