"""Extension modules whose files this package opens.

The interpreter makes the module: what it calls to open a file and to find a function in it leads
to our linker, and all else is its own.  See PEP 489.  Where it has no places that can be led,
`_create_without` does what it would.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import ExtensionFileLoader
from _imp import create_dynamic
from itertools import count

from dlopen import _linker
from dlopen._lifecycle import new_lock
from dlopen.errors import Error, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import TypeAlias

    Opener: TypeAlias = Callable[[str, int], int]
    """Of a module's path and the mode of dlopen(3): opens it, and returns the image."""

_lock = new_lock()
_led: list[bool] = []  # whether the interpreter's places lead here, once that was tried
_ways = count(1)


def create(spec: ModuleSpec, opener: Opener, *, anew: bool = False) -> ModuleType:
    """Make the module of a spec, whose origin is an absolute path, of the image that is opened.

    As `_imp.create_dynamic`, with its exceptions.  Once a function of the module has been called
    the image stays open, also if that has failed: it may have left Python objects anywhere.

    Args:
        spec: As the import system has it; `_imp.exec_dynamic` is the next step.
        opener: Called in this thread, with the GIL held.  What it raises comes out, an error of
            this package as the cause of an `ImportError`.
        anew: Whether the image is not that of earlier modules of this name and origin.  Otherwise
            the interpreter may make a single-phase module from what it remembers, and open nothing.
    """
    path = spec.origin
    assert path  # of a spec that a loader of extension modules has
    if not _lead_places():
        return _create_without(spec, path, opener)
    asked = _another_way_to(path) if anew else path
    making = _linker.Making(os.fsencode(asked), lambda mode: opener(path, mode))
    spec.origin = asked
    try:
        module = making.make(create_dynamic, spec)
    except BaseException as error:
        if making.unused_image:
            _close(making.unused_image)
        if making.error is None:
            if isinstance(error, ImportError) and error.path == asked:
                error.path = path
            raise
    else:
        if getattr(module, "__file__", None) == asked:
            module.__file__ = path
        return module
    finally:
        spec.origin = path
    raise _as_of_import(making.error, spec, path)


def _as_of_import(error: BaseException, spec: ModuleSpec, path: str) -> BaseException:
    """What an opener has raised, as who imports shall see it."""
    if not isinstance(error, Error):
        return error
    told = ImportError(str(error), name=spec.name, path=path)
    told.__cause__ = error
    return told


def _close(image: int) -> None:
    _linker.close(image)
    _linker.was_closed()


def _lead_places() -> bool:
    """Whether the interpreter's own calls come to our linker, from now on."""
    if not _led:
        with _lock:
            if not _led:
                try:
                    _led.append(_linker.lead_imports())
                except Error:  # the kernel does not let them be changed
                    _led.append(False)
    return _led[0]


def _another_way_to(path: str) -> str:
    """A path of the same file that nobody has asked for; `/./` and `//` lead nowhere else.

    The interpreter remembers single-phase modules by name and path.
    """
    folder, slash, name = path.rpartition("/")
    steps = f"{next(_ways):b}".replace("0", "/").replace("1", "/.")
    return f"{folder if slash else '.'}{steps}/{name}"


def export_name(name: str) -> str:
    """The function that makes a module of this name; see PEP 489."""
    last = name.rpartition(".")[2]
    if last.isascii():
        return f"PyInit_{last}"
    return "PyInitU_" + last.encode("punycode").decode("ascii").replace("-", "_")


def _create_without(spec: ModuleSpec, path: str, opener: Opener) -> ModuleType:
    """As `create`, without the interpreter's import; it remembers nothing."""
    sys.audit("import", spec.name, path, None, None, None)
    try:
        image = opener(path, sys.getdlopenflags())
    except Error as error:
        raise _as_of_import(error, spec, path) from error
    symbol = export_name(spec.name)
    found = _linker.symbol_address(image, symbol.encode(), None, own=False)
    if not found or not found[0]:
        _close(image)
        message = f"dynamic module does not define module export function ({symbol})"
        raise ImportError(one_line(message), name=spec.name, path=path)
    number = _give_package_context(found[0]) if "." in spec.name else 0
    try:
        module = _linker.create_module(found[0], spec)
    finally:
        if number:
            _linker.unpatch(number)
    if getattr(module, "__file__", None) is None:
        module.__file__ = path
    return module


def _give_package_context(function: int) -> int:
    """A single-phase module is named when it is made, and its functions with it.

    What the interpreter's own import says of the package is out of reach (a variable that
    libpython of 3.12 hides), but the call that makes the module is not: the number of a patch.
    """
    found = _linker.address(function)
    assert found
    return _linker.patch(found[0], [(b"PyModule_Create2", None, _linker.CREATE_IN_PACKAGE)])[0]


class ExtensionLoader(ExtensionFileLoader):
    """As the interpreter's, but our linker opens the file."""

    def __init__(self, name: str, path: str, opener: Opener, *, anew: bool = False) -> None:
        super().__init__(name, path)
        self._opener = opener
        self._anew = anew

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Open the file, and make the module."""
        return create(spec, self._opener, anew=self._anew)
