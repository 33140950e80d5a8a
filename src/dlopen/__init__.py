"""A dynamic linker for Linux: load, inspect, call and really unload shared libraries.

>>> import dlopen
>>> with dlopen.Library("libz.so.1") as zlib:
...     zlib.crc32(0, b"hello", 5)

There are no assertions for pytest to explain, and it need not mind who imports this before it:
PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from dlopen import _platform

_platform.check()

# ruff: noqa: E402  (the check comes first: what follows cannot be imported everywhere)
# Nor can the extension, which says so itself, in each interpreter: it is the next.
from dlopen import _linker
from dlopen._lifecycle import late as _late
from dlopen.errors import Error, LoadError, SymbolError, VersionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlopen.adopting import Adoption, adopt
    from dlopen.callbacks import callback
    from dlopen.ctypes_libraries import CDLL, PyDLL
    from dlopen.functions import Function, Variable
    from dlopen.image import Image
    from dlopen.info import Info, Relocation, Segment, ThreadLocal, Version
    from dlopen.library import Blocker, Library
    from dlopen.members import Member
    from dlopen.modes import (
        PRIVATE,
        RTLD_DEEPBIND,
        RTLD_GLOBAL,
        RTLD_LAZY,
        RTLD_LOCAL,
        RTLD_NODELETE,
        RTLD_NOLOAD,
        RTLD_NOW,
        Mode,
    )
    from dlopen.namespaces import Namespace
    from dlopen.patching import Patch
    from dlopen.process import (
        AddressInfo,
        Candidate,
        Found,
        dl_iterate_phdr,
        dladdr,
        existing,
        find,
        libraries,
    )
    from dlopen.reloading import Reloaded
    from dlopen.symbols import Symbol, Symbols
    from dlopen.watching import Watcher, watch
else:
    # By module, which is imported when a name of it, or itself, is asked for first.
    _LATE = {
        "adopting": ("Adoption", "adopt"),
        "callbacks": ("callback",),
        "ctypes_libraries": ("CDLL", "PyDLL"),
        "functions": ("Function", "Variable"),
        "image": ("Image",),
        "info": ("Info", "Relocation", "Segment", "ThreadLocal", "Version"),
        "library": ("Blocker", "Library"),
        "members": ("Member",),
        "modes": (
            "Mode",
            "PRIVATE",
            "RTLD_DEEPBIND",
            "RTLD_GLOBAL",
            "RTLD_LAZY",
            "RTLD_LOCAL",
            "RTLD_NODELETE",
            "RTLD_NOLOAD",
            "RTLD_NOW",
        ),
        "namespaces": ("Namespace",),
        "patching": ("Patch",),
        "process": (
            "AddressInfo",
            "Candidate",
            "Found",
            "dl_iterate_phdr",
            "dladdr",
            "existing",
            "find",
            "libraries",
        ),
        "reloading": ("Reloaded",),
        "symbols": ("Symbol", "Symbols"),
        "watching": ("Watcher", "watch"),
    }

    def __getattr__(name):
        """Threads that ask at once wait for the same import, and set the same names."""
        for module, names in _LATE.items():
            if name == module or name in names:
                with _late():
                    found = __import__(f"{__name__}.{module}", fromlist=names)
                globals().update({known: getattr(found, known) for known in names})
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__, *_LATE})


__version__ = _linker.VERSION

__all__ = [  # noqa: RUF022  (plainly sorted)
    "AddressInfo",
    "Adoption",
    "Blocker",
    "CDLL",
    "Candidate",
    "Error",
    "Found",
    "Function",
    "Image",
    "Info",
    "Library",
    "LoadError",
    "Member",
    "Mode",
    "Namespace",
    "PRIVATE",
    "Patch",
    "PyDLL",
    "RTLD_DEEPBIND",
    "RTLD_GLOBAL",
    "RTLD_LAZY",
    "RTLD_LOCAL",
    "RTLD_NODELETE",
    "RTLD_NOLOAD",
    "RTLD_NOW",
    "Reloaded",
    "Relocation",
    "Segment",
    "Symbol",
    "SymbolError",
    "Symbols",
    "ThreadLocal",
    "Variable",
    "Version",
    "VersionError",
    "Watcher",
    "adopt",
    "callback",
    "dl_iterate_phdr",
    "dladdr",
    "existing",
    "find",
    "get_include",
    "libraries",
    "watch",
]


def get_include() -> str:
    """The directory of dlopen.h, for the -I of a C compiler."""
    import os  # noqa: PLC0415  (no name of this module)
    from importlib.resources import files  # noqa: PLC0415  (slow to import)

    # In an editable installation only a file has a path.
    return os.path.dirname(str(files("dlopen") / "include" / "dlopen.h"))  # noqa: PTH120
