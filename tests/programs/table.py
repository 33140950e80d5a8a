"""Prints a table of docs/programs.md from the last runs: `python -m programs.table` in tests.

It is that of another machine with DLOPEN_TEST_MACHINE.
"""

from __future__ import annotations

import json
from pathlib import Path

from programs.program import MEASURED, ROWS


def row(path: Path) -> str:
    record = json.loads(path.read_text())
    counts = record["counts"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    numbers = [counts.get(key, 0) for key in ("opened", "failed", "loaded", "by the system")]
    return " | ".join([f"| {record['name']}", record["what"], *map(str, numbers), f"{versions} |"])


def main() -> None:
    for path in sorted(MEASURED.glob("*.json")):
        if Path(ROWS, f"{path.stem}.sh").exists():
            print(row(path))


if __name__ == "__main__":
    main()
