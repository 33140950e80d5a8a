"""What became of each test, as JSON for docs/machines.md."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.machines import machine


def _emulator() -> str:
    """Its name and version; nothing where programs run by themselves."""
    if not machine().emulator:
        return ""
    command = [str(machine().emulator), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return f"qemu {said[said.index('version') + 1]}"


def _reason(report: pytest.TestReport) -> str:
    """Why it was left out, or the last line of how it failed."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return getattr(report, "wasxfail", "") or report.longreprtext.strip().rpartition("\n")[2]


class Results:
    """Of all tests of one run, in a file when it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = self.tests.setdefault(report.nodeid, {"outcome": "passed"})
        found.update(report.user_properties)
        if not report.passed and found["outcome"] != "failed":
            found["outcome"] = "left out" if report.skipped else "failed"
            found["reason"] = _reason(report)

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        text = json.dumps(
            {
                "machine": machine().name,
                "release": machine().release,
                "glibc": ".".join(map(str, machine().glibc)),
                "emulator": _emulator(),
                "page": os.environ.get("DLOPEN_TEST_PAGE", ""),
                "tests": self.tests,
            },
            indent=1,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text + "\n")
