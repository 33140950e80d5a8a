"""What the userland of another release is given of this machine."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    path = ROOT / "tools" / "test_glibc.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load()


def test_settings_of_pip_are_handed_in(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    first.write_text("[global]\nindex-url = a\ntimeout = 5\n[freeze]\nall = yes\n")
    second.write_text("[global]\nindex-url = b\n[install]\nfind-links =\n    /x\n    /y\n")
    third.write_text("[global]\ntimeout = 7\n")
    environment = {
        "PIP_CONFIG_FILE": str(third),
        "PIP_TIMEOUT": "9",
        "SSL_CERT_FILE": "/certificates",
        "https_proxy": "proxy",
        "SECRET": "x",
        "PYTHONPATH": "x",
    }
    assert TOOL.handed_in(environment, [str(first), str(tmp_path / "none"), str(second)]) == {
        "PIP_INDEX_URL": "b",
        "PIP_TIMEOUT": "9",
        "PIP_FIND_LINKS": "/x /y",
        "SSL_CERT_FILE": "/certificates",
        "https_proxy": "proxy",
    }
    assert TOOL.handed_in({"PIP_CONFIG_FILE": str(third)}, [str(first)])["PIP_TIMEOUT"] == "7"


def test_what_the_settings_name_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "certificate").touch()
    named = TOOL.named_paths(
        {
            "PIP_FIND_LINKS": f"file://{tmp_path}/wheels {tmp_path}/nonexistent",
            "PIP_CERT": str(tmp_path / "certificate"),
            "PIP_INDEX_URL": "scheme://name/path",
        }
    )
    assert list(named) == [tmp_path / "wheels", tmp_path / "certificate"]


def test_without_root_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["test_glibc.py", "trixie"])
    with pytest.raises(SystemExit, match="needs root"):
        TOOL.main()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("release", ["", ".", "..", "a/b", "/tmp"])
def test_a_release_is_a_name(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes the name of a folder, which RENEW removes."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["test_glibc.py", "--renew", "--", release])
    with pytest.raises(SystemExit, match="needs the name of a release"):
        TOOL.main()


def test_a_command_that_fails_is_named(tmp_path: Path) -> None:
    """In one line, and without the tool's own stack."""
    for name, body in (("mmdebstrap", "exit 25"), ("apt-config", ":")):
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\n{body}\n")
        command.chmod(0o755)
    code = """
import os, runpy, sys
os.geteuid = lambda: 0
sys.argv[:] = [sys.argv[1], "--in-namespace", "--", "trixie"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tools" / "test_glibc.py")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "MIRROR": "http://127.0.0.1:1/"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("test-glibc: mmdebstrap "), line
    assert line.endswith(" ended with status 25"), line
    assert done.returncode == 1
