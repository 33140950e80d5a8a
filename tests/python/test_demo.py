"""The demo succeeds, and shows what it promises."""

from __future__ import annotations

from support.fixtures import REPOSITORY, run_python


def test_demo() -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
    output = run_python(code, str(REPOSITORY / "tools" / "demo.py")).stdout
    for heading in ("Loaded from these bytes", "Mapped", "Bound", "Called", "Unloaded"):
        assert heading in output
    assert output.endswith("All as it should be.\n")


def test_demo_uses_a_fixture_where_no_library_fits() -> None:
    code = f"""
import sys, runpy
sys.path.insert(0, {str(REPOSITORY / "tools")!r})
import demo
demo.CANDIDATES = []
sys.exit(demo.main())
"""
    assert "demo_length" in run_python(code).stdout
