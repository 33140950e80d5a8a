"""Moves the packages of a wheel into its `NAME.data/platlib`, as PEP 427 allows them to be."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path


def with_platlib(path: Path) -> None:
    """In place; RECORD is written anew."""
    name = "-".join(path.name.split("-")[:2])
    lines, moved = [], path.with_suffix(".moved")
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(moved, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                record = entry.filename
                continue
            if ".dist-info/" not in entry.filename:
                entry.filename = f"{name}.data/platlib/{entry.filename}"
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{entry.filename},sha256={digest},{len(data)}\n")
            target.writestr(entry, data, zipfile.ZIP_DEFLATED)
        target.writestr(record, "".join([*lines, f"{record},,\n"]))
    moved.rename(path)
