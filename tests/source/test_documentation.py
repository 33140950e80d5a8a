"""The examples of the documentation run, and show what they say."""

import doctest
import re
from pathlib import Path

import pytest

from support.fixtures import compile_library, run_python

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = """
import doctest, os, sys
os.chdir(sys.argv[2])
failed, tried = doctest.testfile(
    sys.argv[1], module_relative=False, optionflags=doctest.FAIL_FAST
)
sys.exit(failed > 0 or tried == 0)
"""


def blocks(path: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(path.read_text()) if name == language]


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if blocks(path, "python")],
    ids=lambda path: path.name,
)
def test_examples_run(document: Path, tmp_path: Path) -> None:
    examples = "\n".join(blocks(document, "python"))
    (tmp_path / "examples").write_text(examples)
    built: list[Path] = []
    for source in blocks(document, "c"):
        named = re.match(r"/\* (\w+)\.c ", source)
        name = f"{named[1]}.so" if named else "libexample.so"
        built += [compile_library(tmp_path, name, source, libraries=built, rpath="$ORIGIN/lib")]
    assert len(doctest.DocTestParser().get_examples(examples)) > 10
    run_python(RUN, str(tmp_path / "examples"), str(tmp_path))


def test_documents_with_examples_are_known() -> None:
    assert {path.name for path in DOCUMENTS if blocks(path, "python")} == {"README.md", "guide.md"}


def test_links_lead_somewhere() -> None:
    documents = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    links = [
        (path, link)
        for path in documents
        for link in re.findall(r"\]\(([^)#\s]+)", path.read_text())
        if "://" not in link
    ]
    assert links
    assert not [(path.name, link) for path, link in links if not (path.parent / link).exists()]


def test_tasks_that_documents_name_exist() -> None:
    tasks = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        named = set(re.findall(r"`(?:\w+=\S+ )?make (\w+)", path.read_text()))
        assert named
        assert named <= tasks, path.name


def test_prerequisites_are_those_that_the_check_names() -> None:
    check = (ROOT / "tools" / "check_prerequisites").read_text()
    for line in re.findall(r"sudo (?:apt-get install|dnf install|apk add) (.*?)`", readme()):
        for package in line.split():
            name = package.replace("python3-", "python$suffix-")
            assert package == "make" or package in check or name in check, package


def readme() -> str:
    return (ROOT / "README.md").read_text()
