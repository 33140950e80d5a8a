"""Writes requirements.txt: the newest wheels of these projects and of all that they need.

    python tests/packages/pin.py

A project is left out of a Python for which it, or what it needs, has no wheel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PINS = Path(__file__).with_name("requirements.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
PROJECTS = (
    "numpy", "scipy", "pandas", "cryptography", "lxml", "orjson", "pydantic", "Pillow", "msgspec",
    "regex", "uvloop", "grpcio", "pyarrow", "shapely", "psycopg[binary]", "charset-normalizer",
    "black", "markupsafe",
    "pytest<10", "hypothesis",  # the suites of numpy and pandas
)  # fmt: skip


def resolved(python: str, projects: list[str]) -> list[dict[str, Any]] | str:
    """What pip would install there, or why it cannot."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--report=-", "--only-binary=:all:", f"--python-version={python}"]
    # Of one glibc for all, whatever this machine has.
    for libc in ("2014", "_2_17", "_2_24", "_2_26", "_2_27", "_2_28"):
        command += [f"--platform=manylinux{libc}_x86_64"]
    done = subprocess.run(
        [*command, "--target=.", *projects], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return done.stderr.strip().splitlines()[-1]
    return list(json.loads(done.stdout)["install"])


def main() -> None:
    """Resolve for each Python, and write the union."""
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for python in PYTHONS:
        there = list(PROJECTS)
        report = resolved(python, there)
        if isinstance(report, str):
            there = []
            for project in PROJECTS:
                reason = resolved(python, [project])
                if isinstance(reason, str):
                    print(f"{python}: {project}: {reason}")
                else:
                    there.append(project)
            report = resolved(python, there)
            assert not isinstance(report, str), report
        for entry in report:
            name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
            hashes = found.setdefault((name, entry["metadata"]["version"]), {})
            hashes.setdefault(python, set()).add(
                entry["download_info"]["archive_info"]["hashes"]["sha256"]
            )
    lines = ["# Written by pin.py."]
    for (name, version), hashes in sorted(found.items()):
        marker = (
            ""
            if len(hashes) == len(PYTHONS)
            else " ; " + " or ".join(f'python_version == "{python}"' for python in hashes)
        )
        lines.append(f"{name}=={version}{marker} \\")
        every = sorted(set().union(*hashes.values()))
        lines += [f"    --hash=sha256:{each} \\" for each in every[:-1]]
        lines.append(f"    --hash=sha256:{every[-1]}")
    PINS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
