"""The cases of this folder: one `CASE(name) { … }` each, in the .c files beside this one.

Lines of the comment before a case that begin with one of these words are for the test:

    env: NAME=VALUE …      added to its environment
    differs: REASON        its output under the preload is what follows `ours:`, not glibc's
    ours: TEXT             a line of that output
    needs: VERSION         of glibc, for what older ones do not have
    emulated: REASON       why it means nothing under an emulator
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# The glibc whose differences are written down; of others some may be gone.
REFERENCE = (2, 36)
FOLDER = Path(__file__).parent
_CASE = re.compile(r"(?:/\*((?:(?!\*/).)*)\*/\n)?^CASE\((\w+)\)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Case:
    program: str
    name: str
    env: dict[str, str]
    differs: str
    ours: str
    needs: tuple[int, ...]
    emulated: str

    def __str__(self) -> str:
        return f"{self.program}-{self.name}"


def _case(program: str, name: str, comment: str) -> Case:
    fields: dict[str, list[str]] = {
        name: [] for name in ("env", "differs", "ours", "needs", "emulated")
    }
    current: list[str] = []
    for line in comment.splitlines():
        word, colon, rest = line.strip(" *").partition(":")
        if colon and word in fields:
            current = fields[word]
            current.append(rest.strip())
        elif current:
            current[-1] += " " + line.strip()
    if fields["ours"] and not fields["ours"][-1].startswith("status"):
        fields["ours"].append("status 0")
    env = dict(part.split("=", 1) for line in fields["env"] for part in line.split())
    return Case(
        program,
        name,
        env,
        " ".join(fields["differs"]).strip(),
        "".join(line.strip() + "\n" for line in fields["ours"]),
        tuple(int(part) for line in fields["needs"] for part in line.split(".")),
        " ".join(fields["emulated"]),
    )


def read_cases() -> list[Case]:
    return [
        _case(file.stem, match[2], match[1] or "")
        for file in sorted(FOLDER.glob("*.c"))
        for match in _CASE.finditer(file.read_text())
    ]
