"""The tables of docs/machines.md, from what `make test` and `make test-arch` have found.

Each run of all tests of a machine leaves build/results/MACHINE/RELEASE.json. What stands between
`<!-- NAME -->` and `<!-- end -->` is written anew; the rest is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.features import FEATURES, shows  # noqa: E402

PAGE = ROOT / "docs" / "machines.md"
RESULTS = ROOT / "build" / "results"
# In the order of the page, with the run that is the machine's: `make test`, `make test-arch`.
MACHINES = {"x86_64": "system", "aarch64": "bookworm", "riscv64": "trixie", "loongarch64": "sid"}
_PYTHON = "driven by Python, which has not been tried there"
_NOT_TRIED = "not tried there"
# Folders of tests that `make test-arch` leaves out, by why.
NOT_RUN = {
    "tests/benchmarks": "about speed, of which an emulator says nothing",
    "tests/core/arch": "looks at files of all machines, but for two of its files that run",
    "tests/differential": "run by `make differential`, which has a table of its own",
    "tests/faults": _NOT_TRIED,
    "tests/fuzz": "libFuzzer runs the linker's own code in this process",
    "tests/programs": "`make programs ARCH=…` runs what of it there is for the machine",
    "tests/pytest_plugin": _PYTHON,
    "tests/python": "driven by Python: `make test-arch-python` runs it, where that was done",
    "tests/source": "reads the source, which is the same for all machines",
    "tests/support": "about the tests themselves",
}
# Parts of them that do run.
RUN_ALL_THE_SAME = (
    "tests/core/arch/test_abis.py",
    "tests/core/arch/test_processor.py",
)
Test = dict[str, Any]


def folders() -> list[str]:
    """Those that hold tests."""
    return sorted(
        {str(path.parent.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    )


def to_run() -> list[str]:
    """What `make test-arch` runs."""
    return [*(name for name in folders() if name not in NOT_RUN), *RUN_ALL_THE_SAME]


@dataclass
class Run:
    """All tests of a machine with the libc of one release."""

    machine: str
    release: str
    glibc: str
    emulator: str
    page: str  # its size in bytes, where it is not the usual one
    tests: dict[str, Test]

    def number(self, kind: str) -> int:
        """How many tests came to that."""
        return sum(outcome(test) == kind for test in self.tests.values())

    @property
    def where(self) -> str:
        """What it ran with."""
        emulated = f" under {self.emulator}" if self.emulator else ""
        return f"glibc {self.glibc} of {self.libraries}{emulated}"

    @property
    def libraries(self) -> str:
        """Whose they are."""
        return self.release + (f", pages of {self.page} bytes" if self.page else "")


def outcome(test: Test) -> str:
    """One of passed, failed, left out; or elsewhere, where it is about other machines."""
    return "elsewhere" if test.get("elsewhere") else str(test["outcome"])


def read(path: Path) -> Run:
    """With what was run apart for the same release, RELEASE-*.json; the last word counts."""
    run = Run(**json.loads(path.read_text()))
    run.tests = {}
    files = [path, *path.parent.glob(f"{path.stem}-*.json")]
    for part in sorted(files, key=lambda file: file.stat().st_mtime):
        run.tests |= json.loads(part.read_text())["tests"]
    return run


def why(run: Run, kind: str) -> dict[str, list[str]]:
    """The tests that came to that, by reason; first the reason that most have."""
    found: dict[str, list[str]] = {}
    for name, test in run.tests.items():
        if outcome(test) == kind:
            found.setdefault(test["reason"], []).append(name)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def summary(run: Run) -> str:
    """One line: counts, and what is left out."""
    text = f"{run.machine}, {run.where}: {run.number('passed')} passed"
    if failed := run.number("failed"):
        text += f", {failed} failed"
    if other := run.number("elsewhere"):
        text += f", {other} are about other machines"
    left = [f"{len(names)} {reason}" for reason, names in why(run, "left out").items()]
    return text + (f"; left out: {'; '.join(left)}" if left else "")


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    rows = [list(head), *map(list, lines)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cell(run: Run, feature: str, everywhere: set[str]) -> str:
    """Passes if none of its tests fails; a reason where none of them was run."""
    counts: Counter[str] = Counter()
    gaps: Counter[str] = Counter()
    for name in everywhere:
        if not shows(feature, name):
            continue
        if test := run.tests.get(name):
            counts[outcome(test)] += 1
            if outcome(test) == "left out":
                gaps[test["reason"]] += 1
        elif reason := NOT_RUN.get(name.rpartition("/")[0]):
            counts["left out"] += 1
            gaps[reason] += 1
    if failed := counts["failed"]:
        return f"**{failed} of {failed + counts['passed']} fail**"
    if not counts["passed"]:
        return gaps.most_common(1)[0][0] if gaps else "no test"
    text = f"pass: {counts['passed']}"
    return text + (f", left out: {counts['left out']}" if counts["left out"] else "")


def features(runs: list[Run]) -> str:
    """The first table."""
    everywhere = {name for run in runs for name in run.tests}
    return table(
        ["", *(run.machine for run in runs)],
        ([feature, *(cell(run, feature, everywhere) for run in runs)] for feature in FEATURES),
    )


def counts(runs: list[Run]) -> str:
    """What was run with what."""
    kinds = ("passed", "failed", "left out", "elsewhere")
    return table(
        ["machine", "libc", "emulator", *kinds[:3], "about other machines"],
        (
            [run.machine, f"{run.glibc} ({run.libraries})", run.emulator or "none",
             *(str(run.number(kind)) for kind in kinds)]
            for run in runs
        ),
    )  # fmt: skip


def short(name: str) -> str:
    """The name of a test without its folder."""
    return f"`{name.rpartition('/')[2]}`"


def reasons(runs: list[Run], kind: str) -> str:
    """The tests of each machine that came to that, with the reason."""
    lines = []
    for run in runs:
        for reason, names in why(run, kind).items():
            some = ", ".join(map(short, names[:3])) + (", …" if len(names) > 3 else "")
            lines.append([f"{run.machine}, {run.libraries}", str(len(names)), reason, some])
    return table(["", "tests", "why", "which"], lines) if lines else "None."


def not_run(_: list[Run]) -> str:
    """Whole folders."""
    return table(["folder", "why"], ([f"`{name}`", why] for name, why in NOT_RUN.items()))


def differences(runs: list[Run]) -> str:
    """Where the exported family does something else than that libc, on purpose."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for name, test in run.tests.items():
            if "differs" in test:
                found.setdefault((name, test["differs"]), []).append(run.machine)
    every = [run.machine for run in runs]
    return table(
        ["case", "why", "where"],
        (
            [f"`{name.partition('[')[2].rstrip(']')}`", reason,
             "all" if where == every else ", ".join(where)]
            for (name, reason), where in sorted(found.items())
        ),
    )  # fmt: skip


def fill(page: str, written: dict[str, str]) -> str:
    """The page with these texts by name."""
    for name, text in written.items():
        page, times = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda match: f"{match[1]}{text}\n{match[2]}",  # noqa: B023
            page,
            flags=re.DOTALL,
        )
        assert times == 1, name
    return page


def write(page: str, runs: list[Run], others: list[Run]) -> str:
    """The page with all that is written by this."""
    written = {
        "features": features(runs),
        "counts": counts(runs),
        "left_out": reasons(runs, "left out"),
        "not_run": not_run(runs),
        "differences": differences(runs),
        "releases": counts(others),
        "failures": reasons(runs + others, "failed"),
    }
    return fill(page, written)


def main() -> None:
    """Write the page."""
    missing = [
        name for name, release in MACHINES.items()
        if not (RESULTS / name / f"{release}.json").exists()
    ]  # fmt: skip
    if missing:
        sys.exit(f"machines_page: no results of {', '.join(missing)}: make test, make test-arch")
    runs = [read(RESULTS / name / f"{release}.json") for name, release in MACHINES.items()]
    others = [
        read(path)
        for name, release in MACHINES.items()
        for path in sorted((RESULTS / name).glob("*.json"))
        if path.stem not in (release, "part") and "-" not in path.stem
    ]
    PAGE.write_text(write(PAGE.read_text(), runs, others))


if __name__ == "__main__":
    main()
