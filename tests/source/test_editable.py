"""An editable installation, by pip and without the network, in an environment of its own."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from support.fixtures import run

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "editable"  # kept: what is compiled once, is not again
# What builds the package: pip shall not see the one that is installed beside it.
TOOLS = ("mesonpy", "mesonbuild", "packaging", "pyproject_metadata", "Cython", "cython.py")

CHECK = """
import sys, dlopen
from pathlib import Path
from dlopen._command_line import preload_path

root = Path(sys.argv[1])
assert Path(dlopen.__file__) == root / "src" / "dlopen" / "__init__.py", dlopen.__file__
assert Path(dlopen.get_include(), "dlopen.h").samefile(root / "src/dlopen/include/dlopen.h")
(core,) = [one.path for one in dlopen.libraries() if one.soname == "libdlopen.so"]
assert Path(core).is_relative_to(root / "build" / "editable"), core
assert Path(preload_path()).samefile(core)
with dlopen.Library("libm.so.6") as libm:
    libm.labs
print(dlopen.__version__)
"""


def test_an_editable_installation_can_be_imported(tmp_path: Path) -> None:
    python = FOLDER / "venv" / "bin" / "python"
    run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(FOLDER / "venv")])
    shutil.rmtree(FOLDER / "tools", ignore_errors=True)
    (FOLDER / "tools").mkdir()
    for name in TOOLS:
        if (path := Path(sysconfig.get_path("purelib"), name)).exists():
            (FOLDER / "tools" / name).symlink_to(path)
    programs = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    env = {"PYTHONPATH": str(FOLDER / "tools"), "PATH": programs}
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    options = ["--no-build-isolation", "--no-deps", f"-Cbuild-dir={FOLDER / 'meson'}"]
    # Not optimised, it is compiled in a third of the time.
    run([*pip, *options, "-Csetup-args=-Doptimization=0", "-e", str(ROOT)], env=env, timeout=600)
    env = {"PYTHONPATH": ""}
    version = run([str(python), "-c", CHECK, str(ROOT)], env=env, cwd=tmp_path).stdout
    program = [str(python), "-m", "dlopen"]
    assert run([*program, "--version"], env=env, cwd=tmp_path).stdout == f"dlopen {version}"
    assert run([*program, "run", "echo", "here"], env=env, cwd=tmp_path).stdout == "here\n"
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text("import dlopen; print(dlopen.__file__)")
    run([*program, "zipapp", "app"], env=env, cwd=tmp_path)
    packed = run([sys.executable, "-I", "-S", "app.pyz"], cwd=tmp_path).stdout
    assert packed == f"{tmp_path}/app.pyz/_dlopen/dlopen/__init__.pyc\n"
