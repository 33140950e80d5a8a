"""The plugin costs nothing, and breaks nothing, where nobody uses it."""

from __future__ import annotations

import sys

import pytest

pytest_plugins = ["pytester"]

LIST_MODULES = """
import sys
def pytest_unconfigure():
    with open("modules", "w") as file:
        file.writelines(name + "\\n" for name in sys.modules)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\naddopts = --strict-markers\n")
    return pytester


def test_a_session_without_it_imports_one_module(project: pytest.Pytester) -> None:
    project.makeconftest(LIST_MODULES)
    project.makepyfile("def test(tmp_path): pass")

    def modules(*arguments: str) -> set[str]:
        result = project.runpytest_subprocess(*arguments, timeout=60)
        result.assert_outcomes(passed=1)
        return set((project.path / "modules").read_text().split())

    without = modules("-p", "no:dlopen")
    assert "pytest" in without
    assert "dlopen" not in without
    assert modules() - without == {"dlopen_pytest"}
    assert not {"ctypes", "unittest.mock"} & modules()


def test_dlopen_may_be_imported_before_pytest(project: pytest.Pytester) -> None:
    """By who imports pytest, or what is to be tested, from an archive.

    pytest explains assertions of all modules that a plugin's distribution lists, and warns of those
    that it cannot; an editable installation lists none, so here another one does.
    """
    project.makepyfile(listed="", test_nothing="def test(): pass")
    folder = project.mkdir("listed-1.dist-info")
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: listed\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[pytest11]\nlisted = listed\n")
    (folder / "RECORD").write_text("listed.py,,\ndlopen/__init__.py,,\n")
    code = "import sys, dlopen, pytest; sys.exit(pytest.main(['-W', 'error']))"
    result = project.run(sys.executable, "-c", code, timeout=60)
    result.assert_outcomes(passed=1)


def test_where_dlopen_cannot_be_imported(project: pytest.Pytester) -> None:
    """As on musl: what does not use it passes, and what does says why not."""
    package = project.mkpydir("dlopen")
    (package / "__init__.py").write_text("raise ImportError('not on this system')")
    project.makepyfile(
        """
        import os, pytest

        def test_does_not_use_it():
            pass

        def test_loads(load_library):
            pass

        def test_patches(patch_library):
            pass

        @pytest.mark.own_process
        def test_dies():
            os.abort()
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(project.path), prepend=":")
        result = project.runpytest_subprocess(timeout=60)
    result.assert_outcomes(passed=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(["*ImportError: not on this system", "*killed by SIGABRT*"])


def test_mark_and_fixtures_are_documented(project: pytest.Pytester) -> None:
    marks = project.runpytest_subprocess("--markers", timeout=60)
    marks.stdout.fnmatch_lines(["@pytest.mark.own_process(*timeout=None): *"])
    fixtures = project.runpytest_subprocess("--fixtures", timeout=60)
    fixtures.stdout.fnmatch_lines(
        ["load_library -- *", "    Load shared libraries*", "patch_library -- *", "    Replace *"]
    )
