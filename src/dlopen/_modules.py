"""Extension modules whose files this package opens.

The interpreter makes the module: what it calls to open a file and to find a function in it leads
to our linker, and all else is its own.  See PEP 489.  Where it has no places that can be led,
`_create_without` does what it would.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib import ModuleSpec, module_from_spec
from _frozen_importlib_external import ExtensionFileLoader
from _imp import create_dynamic
from itertools import count

from dlopen import _linker
from dlopen._lifecycle import new_lock
from dlopen._records import or_log
from dlopen.errors import Error, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import ModuleType
    from typing import Protocol, TypeAlias

    from typing_extensions import Buffer

    Opener: TypeAlias = Callable[[str, int], int]
    """Of a module's path and the mode of dlopen(3): opens it, and returns the image."""
    Finder: TypeAlias = Callable[[int, str], int]
    """Of the image and a name: the address of a function, or 0."""
    Reader: TypeAlias = Callable[[str], bytes]
    """The `get_data` of a loader, to which the file of a module is no secret."""

    class Home(Protocol):
        """A namespace that modules are imported into."""

        def imports(self, *names: str) -> AbstractContextManager[None]: ...
        def _entered_for_module(self) -> int: ...
        def _open_extension(self, path: str, mode: int) -> int: ...


_lock = new_lock()
_led: list[bool] = []  # whether the interpreter's places lead here, once that was tried
_ways = count(1)


def find_function(image: int, name: str) -> int:
    """As dlsym(3): of the image, or of what it needs."""
    found = _linker.symbol_address(image, name.encode(), None, own=False)
    return found[0] if found else 0


def create(
    spec: ModuleSpec, opener: Opener, *, anew: bool = False, finder: Finder = find_function
) -> ModuleType:
    """Make the module of a spec, whose origin is a path, of the image that is opened.

    As `_imp.create_dynamic`, with its exceptions.  Once a function of the module has been called
    the image stays open, also if that has failed: it may have left Python objects anywhere.

    Args:
        spec: As the import system has it; `_imp.exec_dynamic` is the next step.
        opener: Called in this thread, with the GIL held.  What it raises comes out, an error of
            this package as the cause of an `ImportError`.
        anew: Whether the image is not that of earlier modules of this name and origin.  Otherwise
            the interpreter may make a single-phase module from what it remembers, and open nothing.
        finder: How the function that makes the module is found; see `export_name`.
    """
    path = spec.origin
    assert path  # of a spec that a loader of extension modules has
    if not lead_places():
        return _create_without(spec, path, opener, finder)
    asked = path if "/" in path and not anew else _another_way_to(path)
    making = _linker.Making(os.fsencode(asked), lambda mode: opener(path, mode), finder)
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
    try:
        raise _as_of_import(making.error, spec, path)
    finally:
        del making  # the error's traceback leads here: no circle


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


def lead_places() -> bool:
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


def _create_without(spec: ModuleSpec, path: str, opener: Opener, finder: Finder) -> ModuleType:
    """As `create`, without the interpreter's import; it remembers nothing."""
    sys.audit("import", spec.name, path, None, None, None)
    try:
        image = opener(path, sys.getdlopenflags())
    except Error as error:
        raise _as_of_import(error, spec, path) from error
    symbol = export_name(spec.name)
    function = finder(image, symbol)
    if not function:
        _close(image)
        message = f"dynamic module does not define module export function ({symbol})"
        raise ImportError(one_line(message), name=spec.name, path=path)
    number = _give_package_context(function) if "." in spec.name else 0
    try:
        return _linker.create_module(function, spec)
    finally:
        if number:
            _linker.unpatch(number)


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

    namespace: Home | None = None
    """That the module belongs to; each load makes one anew.  Set before it is used."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Open the file, and make the module."""
        return create(spec, self.open_image, anew=self.namespace is not None)

    def open_image(self, path: str, mode: int) -> int:
        """As dlopen(3), where the module belongs."""
        if self.namespace is not None:
            return self.namespace._open_extension(path, mode)
        return open_extension(path, mode)


def find_behind(
    finder: object, name: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """What those say that are asked after this one."""
    finders = [*sys.meta_path]
    for other in finders[finders.index(finder) + 1 :] if finder in finders else ():
        find = getattr(other, "find_spec", None)
        spec: ModuleSpec | None = find(name, path, target) if find else None
        if spec is not None:
            return spec
    return None


def open_extension(path: str, mode: int) -> int:
    """Open the file of a module as any library: one image, however often it is asked for."""
    name, text, flags = _linker.asked(path, mode)
    # Its constructors may use Python, as under the interpreter's own import.
    return or_log(_linker.open, text, name, None, flags, keeps_gil=True)


class _Everything:
    """A finder for `sys.meta_path`: what others find, but our linker opens extension modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = find_behind(self, name, path, target)
        # A subclass has reasons of its own.
        if spec is not None and type(spec.loader) is ExtensionFileLoader:
            spec.loader = ExtensionLoader(spec.loader.name, spec.loader.path)
        return spec


_everything = _Everything()


def take_everything(*, on: bool) -> None:
    """Whether all extension modules that are imported from now on come through our linker."""
    if on and _everything not in sys.meta_path:
        sys.meta_path.insert(0, _everything)
    elif not on and _everything in sys.meta_path:
        sys.meta_path.remove(_everything)


class _Copy(ExtensionLoader):
    """Of one load: an image of its own, from the content of a file."""

    def __init__(
        self, name: str, path: str, data: Buffer, namespace: Home | None, reader: Reader
    ) -> None:
        super().__init__(name, path)
        self.namespace = namespace
        self.reader = reader
        self._data: list[Buffer] = [data]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return create(spec, self.open_image, anew=True, finder=_find_only)

    def get_data(self, path: str) -> bytes:
        return self.reader(path)

    def open_image(self, path: str, mode: int) -> int:
        name, _, flags = _linker.asked(path, mode)
        place, bound = 0, _linker.AS_COPY
        if self.namespace is not None:
            place, bound = self.namespace._entered_for_module(), [*bound, *_linker.IMPORTS]
        # Given away: it may be large.
        data = self._data.pop()
        return _linker.open(name, data, flags, 0, bound, None, place, keeps_gil=True)


def _find_only(image: int, name: str) -> int:
    """A copy may have a name of its own: then it is the only function that makes a module."""
    kind = name.partition("_")[0].removesuffix("U")  # PyInit, PyModExport
    kinds = (kind, f"{kind}U")
    found = find_function(image, name)
    others = () if found else [n for n in _linker.exports(image) if n.partition("_")[0] in kinds]
    return find_function(image, others[0]) if len(others) == 1 else found


def load_module(
    name: str, source: str | os.PathLike[str] | Buffer, *, namespace: Home | None = None
) -> ModuleType:
    """Import an extension module from the content of a file, which need not be on any disk.

    Each call loads an image of its own, so there may be any number of copies side by side, under
    different names.  As by `import`, the packages of the name are imported first, and the module is
    in `sys.modules`, or in those of the namespace.

    Args:
        name: The module's.  The file may have been built for another one, if it holds one module.
        source: The content, or the path of a file, which is read: it may be overwritten later.
        namespace: The `Namespace` that the module belongs to, as in its `imports`.

    Returns:
        The module.  `__file__` is the path, or "<NAME>" for bytes.

    Raises:
        ImportError: There is a module of this name already, or it cannot be loaded: with the
            `LoadError` or `OSError` as its cause.
        ValueError: The namespace is closed, or the name cannot be one.
        Exception: What the module's initialisation raises; nothing of it is in `sys.modules` then.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a module is a str, not {name!r}")
    if not all(name.split(".")):
        raise ValueError(f"no name of a module: {name!r}")
    loader = _copy(name, source, namespace, _read_file)
    if namespace is None:
        return _load_new(loader)
    with namespace.imports(name.partition(".")[0]):
        return _load_new(loader)


def reload_module(
    module: ModuleType, source: str | os.PathLike[str] | Buffer | None = None
) -> ModuleType:
    """Import the new version of an extension module, and return it: another module, of its name.

    It takes the old one's place in `sys.modules` and in its package.  What has objects of the old
    one goes on with the old code, which stays: each time the process grows by an image.

    Args:
        module: However it was imported.
        source: The content of the new file, or its path; None: the file of the module as it is now.

    Raises:
        ImportError: As by `load_module`; the old module stays where it is.
        ValueError: It has no file, and no source is given.
        Exception: What the module's initialisation raises; the old one comes back then.
    """
    spec = module.__spec__
    name = spec.name if spec else module.__name__
    old = spec.loader if spec else None
    namespace = old.namespace if isinstance(old, ExtensionLoader) else None
    reader: Reader = _read_file
    if source is None:
        source = spec.origin if spec else None
        if not source or source[0] != "/":
            raise ValueError(f"{name} has no file that could be read again")
        # The first one's, however often it is reloaded: the file may be in an archive.
        reader = old.reader if isinstance(old, _Copy) else getattr(old, "get_data", reader)
    loader = _copy(name, source, namespace, reader)
    if namespace is None:
        return _load(loader)
    with namespace.imports():
        return _load(loader)


def _read_file(path: str) -> bytes:
    """Also where a path leads into an archive, once `dlopen.importer` is installed."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (pathlib is slow to import)
            return file.read()
    except NotADirectoryError:
        member = _linker.located(path)
        if member is None:
            raise
        _, descriptor, offset, length, data, *_ = member
        return os.pread(descriptor, length, offset) if data is None else bytes(data)


def _copy(
    name: str, source: str | os.PathLike[str] | Buffer, namespace: Home | None, reader: Reader
) -> _Copy:
    if not isinstance(source, (str, os.PathLike)):
        return _Copy(name, f"<{name}>", memoryview(source), namespace, reader)
    path = os.path.abspath(os.fsdecode(source))  # noqa: PTH100
    try:
        data = reader(path)
    except OSError as error:
        raise ImportError(one_line(str(error)), name=name, path=path) from error
    return _Copy(name, path, data, namespace, reader)


def _load_new(loader: _Copy) -> ModuleType:
    name = loader.name
    if name in sys.modules:
        raise ImportError(f"{name} is imported already: reload_module replaces it", name=name)
    return _load(loader)


def _load(loader: _Copy) -> ModuleType:
    name, path = loader.name, loader.path
    parent, _, last = name.rpartition(".")
    if parent:
        __import__(parent)
    spec = ModuleSpec(name, loader, origin=path, is_package=loader.is_package(name))
    spec.has_location = True
    if spec.submodule_search_locations is not None:
        spec.submodule_search_locations.append(path.rpartition("/")[0])
    module = module_from_spec(spec)
    if getattr(module, "__name__", name) != name:
        module.__name__ = name  # of one phase: the file has the name that it was built for
    old = sys.modules.get(name)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        if old is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = old
        raise
    module = sys.modules.get(name, module)  # it may have put another thing there, as by `import`
    if parent:
        setattr(sys.modules[parent], last, module)
    return module
