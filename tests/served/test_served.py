"""A server with numpy and Pillow in one file, where dlopen is not installed: `make zipapp`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from served import serving
from support.fixtures import missing, run

pytestmark = pytest.mark.slow
REQUESTS = range(1000)
WORKERS = 8


def system_python() -> str:
    """Debian's, whose interpreter is not in a library: of the version that the archive is for."""
    python = "/usr/bin/python3"
    code = "import sys; print(sys.version_info[:2])"
    if not Path(python).exists() or run([python, "-c", code]).stdout != f"{sys.version_info[:2]}\n":
        missing(f"{python} of this version is not installed")
    return python


@pytest.fixture(scope="module")
def expected() -> list[dict[str, object]]:
    with serving.served_by([serving.installed(), serving.APP / "served.py"]) as server:
        return [without_process(one) for one in server.ask(REQUESTS)]


def without_process(answer: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in answer.items() if name != "process"}


@pytest.mark.parametrize("which", ["this", "system"])
def test_a_thousand_requests(which: str, expected: list[dict[str, object]]) -> None:
    python = [sys.executable, "-S"] if which == "this" else [system_python()]
    with serving.served_by([*python, "-I", serving.packed()]) as server:
        answers = [without_process(one) for one in server.ask(REQUESTS)]
        maps = Path(f"/proc/{server.pid}/maps").read_text()
    assert answers == expected
    assert len({str(one) for one in answers}) == len(REQUESTS)
    # Nothing of the application's is mapped from elsewhere.
    libraries = {line.split()[5] for line in maps.splitlines() if "r-xp" in line and "/" in line}
    assert str(serving.packed()) in libraries
    assert not [one for one in libraries if "site-packages" in one]


@pytest.mark.parametrize("by", ["dlopen zipapp", "shiv"])
def test_workers_share_the_text(by: str, expected: list[dict[str, object]]) -> None:
    """As those of an application that is unpacked share what is in its folder."""
    archive = serving.packed() if by == "dlopen zipapp" else serving.shiv()
    below = archive if by == "dlopen zipapp" else serving.UNPACKED
    with serving.served_by([sys.executable, "-S", "-I", str(archive)], WORKERS) as server:
        assert [without_process(one) for one in server.ask(REQUESTS)] == expected
        workers = server.workers(WORKERS)
        each = [serving.text_of(worker, below) for worker in workers]
    resident = [text.resident / 2**20 for text in each]
    share = sum(text.share for text in each) / 2**20
    print(
        f"{by}: text of {WORKERS} workers, in MiB: {sum(resident):.1f}, "
        f"at most {max(resident):.1f} in one; their share of the memory {share:.1f}"
    )
    # It is there once, and not once for each.
    assert 0 < share < 1.25 * max(resident)
