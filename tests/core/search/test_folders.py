"""Folders that appear while the process runs: found or not as glibc finds them."""

from __future__ import annotations

import pytest

from core.steps import Steps

_MOVE = """
#include <stdio.h>
__attribute__((constructor)) static void move(void) {
  if (rename("later/x", "x")) perror("rename");
}
"""


@pytest.mark.parametrize(
    ("rpath", "first", "last"),
    [
        pytest.param("$ORIGIN/x", "not opened", "not opened", id="absolute: for ever missing"),
        pytest.param("x", "not opened", "opened", id="relative: of the working directory"),
        pytest.param("$ORIGIN/later/x", "opened", "not opened", id="one that goes"),
    ],
)
def test_a_folder_that_is_moved(steps: Steps, rpath: str, first: str, last: str) -> None:
    (steps.directory / "later/x").mkdir(parents=True)
    b = steps.library("b")
    steps.library("a", needs=[b], rpath=rpath)
    steps.library("move", _MOVE)
    b.rename(steps.directory / "later/x/libb.so")
    close = ["close:0"] if first == "opened" else []
    seen = []
    for loader in ("glibc", str(steps.libdlopen)):
        done = steps.run(loader, "open:./liba.so", *close, "open:./libmove.so", "open:./liba.so")
        seen.append(done.stdout.splitlines())
        (steps.directory / "x").rename(steps.directory / "later/x")
    assert seen[0] == seen[1]
    assert [line for line in seen[0] if "opened" in line] == [first, "opened", last]
