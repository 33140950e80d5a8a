"""What the userland of another release is given of this machine."""

import importlib.util
import os
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
