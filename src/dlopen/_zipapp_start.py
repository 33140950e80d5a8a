"""The start of an archive that `dlopen zipapp` has made; there it is the package `_dlopen`.

It brings dlopen into the process, unless that is there or installed, then starts the application.
The archive holds dlopen's Python files below `_dlopen`, and its two libraries, which only files can
give to the system's loader: they become files in memory.  So nothing of dlopen is imported here
before that is done, and nothing that the interpreter has not imported to come here.
"""

from __future__ import annotations

# ruff: noqa: PTH100, PTH112, PTH118, PTH120  (pathlib is slow to import)
import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import spec_from_file_location
from zipimport import zipimporter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def start(names: dict[str, object], settings: dict[str, str]) -> None:
    """Run the application of this archive, whose module `__main__` has these names."""
    given = os.path.dirname(os.path.dirname(__file__))
    archive = os.path.abspath(given)
    sys.path[:] = [archive if entry == given else entry for entry in sys.path]
    if (machine := os.uname().machine) != settings["machine"]:
        sys.exit(f"{archive}: made for {settings['machine']}, and this machine is {machine}")
    try:
        if "dlopen" not in sys.modules and not _import_installed(settings["dlopen"]):
            _Finder(archive).import_dlopen()
        from dlopen import importer  # noqa: PLC0415  (is there only now)
    except ImportError as error:
        sys.exit(f"{archive}: {error}")
    importer.install()
    # A process of multiprocessing that was not forked runs the parent's `__main__.__file__` first.
    # The application's own `__main__` is not run there: as with any archive.
    if names["__name__"] == "__main__":
        _run(names, archive, settings)


def _import_installed(version: str) -> bool:
    """Import dlopen, if this version of it is installed.

    That is known by a look at files: an import may find another version.
    """
    name = f"dlopen-{version}.dist-info"
    if not any(os.path.isdir(os.path.join(entry, name)) for entry in sys.path):
        return False
    try:
        __import__("dlopen")
    except ModuleNotFoundError:  # that is all that is left of it
        return False
    return True


class _Finder:
    """Finds dlopen in the archive, and its extension module in memory."""

    def __init__(self, archive: str) -> None:
        self._importer = zipimporter(f"{archive}/_dlopen")

    def import_dlopen(self) -> None:
        """Import it, from here and nowhere else."""
        sys.meta_path.insert(0, self)
        try:
            __import__("dlopen")
        finally:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, _path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The package itself; its other modules are found by its path."""
        if name == "dlopen":
            return self._importer.find_spec(name, target)
        if name == "dlopen._linker":
            file = self._load_libraries()
            return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))
        return None

    def _load_libraries(self) -> str:
        """Load the linker itself; return the file of its extension module.

        The module needs `libdlopen.so`, and ld.so takes what has that soname already.
        """
        from _ctypes import dlopen  # noqa: PLC0415  (ctypes itself takes five times as long)

        try:
            try:
                dlopen("libdlopen.so", os.RTLD_NOW | os.RTLD_NOLOAD)  # preloaded
            except OSError:
                dlopen(self._in_memory("libdlopen.so"), os.RTLD_NOW)
            return self._in_memory("_linker.so")
        except OSError as error:
            raise ImportError(
                f"this system does not let dlopen be loaded from memory ({error}): "
                "pip install dlopen"
            ) from error

    def _in_memory(self, name: str) -> str:
        """The path of a copy in memory, where a debugger finds it, too: it stays open.

        ld.so knows a library by its path.  In this spelling that is nobody else's, also where the
        application closes all descriptors (a daemon does) and the number comes again.
        """
        data = memoryview(self._importer.get_data(f"{self._importer.archive}/_dlopen/{name}"))
        descriptor = os.memfd_create(name)
        while data:
            data = data[os.write(descriptor, data) :]
        return f"/proc/{os.getpid()}/fd/../fd/{descriptor}"


def _run(names: dict[str, object], archive: str, settings: dict[str, str]) -> None:
    """As the interpreter runs a script: `__main__` has no spec, and the archive is its file."""
    from dlopen.importer import Importer  # noqa: PLC0415  (is there only now)

    loader = Importer(f"{archive}/_dlopen/main")
    builtins = names["__builtins__"]
    names.clear()
    names.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=loader,
        __spec__=None,
        __file__=archive,
        __cached__=None,
        __builtins__=builtins,
    )
    if not settings["entry"]:
        code = loader.get_code("__main__")
        assert code is not None
        exec(code, names)
        return
    module, _, attribute = settings["entry"].partition(":")
    __import__(module)
    function = sys.modules[module]
    for name in attribute.split("."):
        function = getattr(function, name)
    result = function()  # type: ignore[operator]
    if settings["kind"] == "script":
        sys.exit(result)
