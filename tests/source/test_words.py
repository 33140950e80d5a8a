"""Each file of the core says what it is about, and each docstring stands alone."""

import re
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "src" / "dlopen" / "core"
FILES = sorted(path for path in CORE.rglob("*.pxd") if path.stat().st_size)
# What sends the reader elsewhere to learn what a function does.
LEANING = re.compile(r"""^The same\b|\b(?:[Aa]s|[Ss]ee|same as) (?:above|below)\b""")


def docstrings(source: str) -> list[str]:
    """The head, and those of functions."""
    return re.findall(r'^ *"""(?!\n)(.*?)"""', source, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_a_file_begins_with_its_subject(path: Path) -> None:
    head = re.match(r'"""([A-Z$/_]?.*?[.:?])"""\n|"""(.*?[.])\n"""\n', path.read_text(), re.DOTALL)
    assert head, path.read_text()[:200]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_a_docstring_stands_alone(path: Path) -> None:
    assert [text for text in docstrings(path.read_text()) if LEANING.search(text)] == []


@pytest.mark.parametrize(
    ("text", "leans"),
    [("The same for a table.", True), ("As above, for two.", True), ("As glibc.", False)],
)
def test_one_that_leans_is_found(text: str, leans: bool) -> None:
    source = f'cdef int f() noexcept nogil:\n    """{text}"""\n'
    assert bool([found for found in docstrings(source) if LEANING.search(found)]) is leans
