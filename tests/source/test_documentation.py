"""The examples of the documentation run, and show what they say.

Each page with a block of Python runs in a process and a folder of its own.  A C block is saved and
compiled as the text before it says: "Save it as `NAME.c` … `cc -shared …`".  A page without one may
use the guide's libexample.so, if it links to the guide.  A block of `py` is a test file for pytest.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest

from support.fixtures import compiler, run, run_python

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide.md"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED = re.compile(
    r"`(\w+\.c)`(?:(?!```).)*?`cc ([^`]*)`(?:(?!```).)*?^```c\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
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


def compile_examples(document: Path, folder: Path) -> None:
    found = SAVED.findall(document.read_text())
    assert len(found) == len(blocks(document, "c")), "a C block whose text does not say how"
    for name, arguments, source in found:
        (folder / name).write_text(source)
        run([compiler("c"), *shlex.split(arguments)], cwd=folder)


WITH_EXAMPLES = [path for path in DOCUMENTS if blocks(path, "python")]


@pytest.mark.parametrize("document", WITH_EXAMPLES, ids=lambda path: path.name)
def test_examples_run(document: Path, tmp_path: Path) -> None:
    if "(guide.md)" in document.read_text():
        compile_examples(GUIDE, tmp_path)
    compile_examples(document, tmp_path)
    (tmp_path / "examples").write_text("\n".join(blocks(document, "python")))
    run_python(RUN, str(tmp_path / "examples"), str(tmp_path))


WITH_TESTS = [path for path in DOCUMENTS if blocks(path, "py")]


@pytest.mark.parametrize("document", WITH_TESTS, ids=lambda path: path.name)
def test_test_files_pass(document: Path, tmp_path: Path) -> None:
    compile_examples(document, tmp_path)
    for text in blocks(document, "py"):
        name = re.match(r"# (test_\w+\.py)\n", text)
        assert name, "a test file without its name"
        (tmp_path / name[1]).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -W error\n")
    output = run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path).stdout
    tests = sum(text.count("\ndef test_") for text in blocks(document, "py"))
    assert sum(map(int, re.findall(r"(\d+) (?:passed|xfailed)", output))) == tests


def test_no_example_is_left_out() -> None:
    assert GUIDE in WITH_EXAMPLES
    assert WITH_TESTS
    for path in DOCUMENTS:
        inside = sum(block.count(">>> ") for block in blocks(path, "python"))
        assert path.read_text().count(">>> ") == inside, path.name


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
            # make runs the check, and only one of the tests asks pkg-config, where it is.
            unchecked = package == "make" or package.startswith("pkg")
            assert unchecked or package in check or name in check, package


def readme() -> str:
    return (ROOT / "README.md").read_text()
