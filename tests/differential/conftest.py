from __future__ import annotations

import pytest

REPORT = pytest.StashKey[str]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if text := config.stash.get(REPORT, ""):
        terminalreporter.section("relocated places, compared with glibc's")
        terminalreporter.write(text)
