"""Libraries inside of a file, in C: a request's own member, and through the process's archives."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.archives import LARGEST_PAGE
from support.fixtures import compile_library, compile_program, run

SOURCE = Path(__file__).with_name("members.c")
LIBRARY = """
#include <link.h>
extern __typeof__(dl_iterate_phdr) dl_iterate_phdr __attribute__((weak));
int answer(void) { return 42; }
int visit(int (*each)(struct dl_phdr_info *, size_t, void *), void *data)
{
  return dl_iterate_phdr(each, data);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    return compile_program(folder, "members", SOURCE.read_text(), flags=["-pthread"])


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("library")
    return compile_library(folder, "liba.so", LIBRARY, flags=["-D_GNU_SOURCE"]).read_bytes()


@pytest.mark.parametrize("offset", [LARGEST_PAGE, 4096, 1234])
@pytest.mark.parametrize("scenario", ["stored", "mapped_only", "by_hand", "archives", "taken_away"])
def test_scenario(
    program: Path, libdlopen: Path, content: bytes, tmp_path: Path, scenario: str, offset: int
) -> None:
    """Of a file that has the library at `offset`, and something else around it."""
    archive = tmp_path / "archive"
    archive.write_bytes(b"\xee" * offset + content + b"\xee" * LARGEST_PAGE)
    run([program, libdlopen, scenario, archive, str(offset), str(len(content))])
