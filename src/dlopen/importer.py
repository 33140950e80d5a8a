"""Modules, and extension modules, from zip archives and wheels as they are: nothing is unpacked.

>>> from dlopen import importer
>>> importer.install()
>>> sys.path.insert(0, "numpy-2.2.6-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")
>>> import numpy
"""

from __future__ import annotations

import _imp
import errno
import marshal
import os
import sys
from _frozen_importlib import (  # type: ignore[attr-defined]
    ModuleSpec,
    _find_and_load_unlocked,
)
from _frozen_importlib_external import (
    EXTENSION_SUFFIXES,
    MAGIC_NUMBER,
    decode_source,
)
from _imp import _fix_co_filename  # type: ignore[attr-defined]
from _weakref import ref
from time import mktime
from zipimport import (  # type: ignore[attr-defined]
    ZipImportError,
    _zip_directory_cache,
    zipimporter,
)

from dlopen import _archives, _linker
from dlopen._lifecycle import late, new_lock
from dlopen._modules import (
    ExtensionLoader,
    find_behind,
    load_module,
    reload_module,
    take_everything,
)
from dlopen.errors import LoadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any


__all__ = ["Importer", "install", "load_module", "reload_module", "uninstall"]


_EXTENSION, _SOURCE, _BYTECODE = range(3)
_KINDS = (
    *((suffix, _EXTENSION) for suffix in EXTENSION_SUFFIXES),
    (".py", _SOURCE),
    (".pyc", _BYTECODE),
)
# The order of a folder, in which zipimport differs: packages first, extensions before sources.
_ORDER = (
    *((f"/__init__{suffix}", True, kind) for suffix, kind in _KINDS),
    *((suffix, False, kind) for suffix, kind in _KINDS),
)
_CODE = type((lambda: None).__code__)
_OPTIMIZED = f".opt-{sys.flags.optimize}" if sys.flags.optimize else ""
_CACHED = f".{sys.implementation.cache_tag}{_OPTIMIZED}.pyc"


class Importer(zipimporter):
    """Finds and loads the modules of one folder of an archive, as `zipimport.zipimporter` does.

    It finds extension modules, too, and what is found is what a folder of the file system with the
    same content would give: packages first, then extensions in the order of
    `importlib.machinery.EXTENSION_SUFFIXES`, sources, and bytecode without source.  A `.pyc` beside
    its source, or in `__pycache__`, is used if it is of this interpreter, and either unchecked
    (PEP 552) or as old as the source.

    Attributes:
        archive: The absolute path of the archive.
        prefix: The folder in it, with a slash at its end, or "".
    """

    archive: str
    prefix: str

    def __init__(self, path: str) -> None:
        """`path` is that of an archive, or one that leads into it: `app.zip/lib`.

        Raises:
            ZipImportError: There is no archive.
        """
        if not isinstance(path, str):
            raise TypeError(f"expected str, not {type(path)!r}")
        if not path:
            raise ZipImportError("archive path is empty", path=path)
        try:
            place = _archives.plain(path)
        except (OSError, ValueError) as error:  # the folder that the process is in is gone
            raise ZipImportError(f"no absolute path: {error}", path=path) from error
        archive = _archive_of_package(place)
        found = (archive, place[len(archive.path) + 1 :]) if archive else _archives.split(place)
        if found is None:
            raise ZipImportError("not a Zip file", path=path)
        self._archive, folder = found
        self.archive = self._archive.path
        self.prefix = f"{folder}/" if folder else ""
        self._publish()

    def _publish(self) -> None:
        files = _zip_directory_cache.get(self.archive)
        if not isinstance(files, _archives.Files) or files.archive is not self._archive:
            _zip_directory_cache[self.archive] = _archives.Files(self._archive)

    @property
    def _files(self) -> _archives.Files:
        """What tools look at, in each version of zipimport by one of two names."""
        return _archives.Files(self._archive)

    def _get_files(self) -> _archives.Files:
        return self._files

    def _find(self, name: str) -> tuple[str, bool, int] | None:
        """The member that the module is made from, whether it is a package, and of which kind."""
        base = self.prefix + name.rpartition(".")[2]
        members = self._archive.names
        for suffix, is_package, kind in _ORDER:
            if base + suffix in members:
                return base + suffix, is_package, kind
        return None

    def _found(self, name: str) -> tuple[str, bool, int]:
        found = self._find(name)
        if found is None:
            raise ZipImportError(f"can't find module {name!r}", name=name)
        return found

    def find_spec(
        self,
        fullname: str,
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The spec of a module, or of a part of a namespace package; None if there is neither."""
        found = self._find(fullname)
        if found is None:
            return self._part_of_namespace(fullname)
        # Another place of the path may have it: see `_Last`.  Of zlib, what is compressed needs the
        # interpreter's own.
        if self._archive.refusal() is not None or fullname == "zlib":
            return None
        member, is_package, kind = found
        path = f"{self.archive}/{member}"
        loader: Any = MemberLoader(fullname, path, self) if kind == _EXTENSION else self
        spec = ModuleSpec(fullname, loader, origin=path, is_package=is_package)
        spec.has_location = True
        folder, _, base = path.rpartition("/")
        if kind == _SOURCE:
            spec.cached = f"{folder}/__pycache__/{base[:-3]}{_CACHED}"
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(folder)
            self._keep(fullname, folder)
        return spec

    def _keep(self, name: str, folder: str) -> None:
        """The modules of a package are from the archive that it is from."""
        _archives.packages[folder] = name, ref(self._archive)
        known = sys.path_importer_cache.get(folder)
        if isinstance(known, Importer) and known._archive is not self._archive:
            sys.path_importer_cache.pop(folder, None)

    def _part_of_namespace(self, name: str) -> ModuleSpec | None:
        folder = self.prefix + name.rpartition(".")[2]
        if folder not in self._archive.folders or self._archive.refusal() is not None:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        assert spec.submodule_search_locations is not None
        spec.submodule_search_locations.append(f"{self.archive}/{folder}")
        self._keep(name, f"{self.archive}/{folder}")
        return spec

    if sys.version_info < (3, 12):

        def find_loader(self, fullname: str, path: str | None = None) -> Any:  # noqa: ARG002
            """Of versions before 3.12: the loader, and parts of a namespace package."""
            spec = self.find_spec(fullname)
            if spec is None:
                return None, []
            return spec.loader, ([] if spec.loader else [*(spec.submodule_search_locations or ())])

    def get_code(self, fullname: str) -> CodeType | None:  # type: ignore[override]
        """The code of a module; None of an extension.  Raises `ZipImportError`."""
        member, _, kind = self._found(fullname)
        if kind == _EXTENSION:
            return None
        path = f"{self.archive}/{member}"
        try:
            if kind == _BYTECODE:
                return self._from_bytecode(fullname, member, None)
            folder, slash, base = member.rpartition("/")
            for cached in (f"{member}c", f"{folder}{slash}__pycache__/{base[:-3]}{_CACHED}"):
                if cached in self._archive.names:
                    try:
                        code = self._from_bytecode(fullname, cached, member)
                    except (ImportError, EOFError):  # of another version, or cut off
                        continue
                    if code is not None:
                        _fix_co_filename(code, path)
                        return code
            source = self._archive.view(member)
        except (ImportError, LoadError) as error:
            raise ZipImportError(str(error), name=fullname, path=path) from error
        return compile(source, path, "exec", dont_inherit=True)

    def _from_bytecode(self, name: str, member: str, source: str | None) -> CodeType | None:
        """The code; None if it is older than the source, which is taken then."""
        data = memoryview(self._archive.view(member))
        path = f"{self.archive}/{member}"
        if data[:4] != MAGIC_NUMBER:
            raise ImportError(
                f"bad magic number in {name!r}: {bytes(data[:4])!r}", name=name, path=path
            )
        if len(data) < 16:
            raise EOFError(f"reached EOF while reading pyc header of {name!r}")
        if (flags := int.from_bytes(data[4:8], "little")) > 3:
            raise ImportError(f"invalid flags {flags!r} in {name!r}", name=name, path=path)
        if source is not None and not self._is_valid(data, source):
            return None
        code = marshal.loads(data[16:])
        if not isinstance(code, _CODE):
            raise ImportError(f"Non-code object in {path!r}", name=name, path=path)
        return code

    def _is_valid(self, data: memoryview, source: str) -> bool:
        """Of what belongs to a source; see PEP 552."""
        flags = int.from_bytes(data[4:8], "little")
        if flags & 1:
            checked = _imp.check_hash_based_pycs
            if checked == "never" or (checked == "default" and not flags & 2):
                return True
            from importlib.util import source_hash  # noqa: PLC0415  (slow to import)

            return source_hash(self._archive.data(source)) == data[8:16]
        _, _, time, date, _, _, size, _ = self._archive.header(source)
        fields = (
            date >> 9,
            date >> 5 & 0xF,
            date & 0x1F,
            time >> 11,
            time >> 5 & 0x3F,
            time % 32 * 2,
        )
        made = mktime((fields[0] + 1980, *fields[1:], -1, -1, -1))
        # The archive's times are of two seconds, and of no zone.
        return (
            abs(int.from_bytes(data[8:12], "little") - made) <= 1
            and int.from_bytes(data[12:16], "little") == size & 0xFFFFFFFF
        )

    def get_data(self, pathname: str) -> bytes:
        """The content of a member, by its absolute path or that in the archive.

        Raises:
            OSError: There is none, or it is damaged.
        """
        name = pathname.removeprefix(f"{self.archive}/")
        try:
            return self._archive.data(name)
        except KeyError:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), pathname) from None

    def get_filename(self, fullname: str) -> str:
        """What is `__file__` of the module."""
        return f"{self.archive}/{self._found(fullname)[0]}"

    def get_source(self, fullname: str) -> str | None:
        """The source of a module; None if there is none of it.  Raises `ZipImportError`."""
        member, _, kind = self._found(fullname)
        if kind != _SOURCE:
            return None
        try:
            return decode_source(self._archive.data(member))
        except LoadError as error:
            path = f"{self.archive}/{member}"
            raise ZipImportError(str(error), name=fullname, path=path) from error

    def is_package(self, fullname: str) -> bool:
        """Whether the module is a package.  Raises `ZipImportError` if there is none."""
        return self._found(fullname)[1]

    def get_resource_reader(self, fullname: str) -> Any:
        """The `TraversableResources` of the folder that a module is in; None if there is none."""
        found = self._find(fullname)
        if found is None:
            return None
        with late():
            from dlopen._resources import Reader  # noqa: PLC0415  (slow to import)

        return Reader(self._archive, found[0].rpartition("/")[0])

    def invalidate_caches(self) -> None:
        """Take the archive that is at the path now, if it is another one, or was changed."""
        self._archive = _archives.read_anew(self._archive)
        self._publish()

    def _refusal_of(self, name: str) -> LoadError | None:
        """Why a module that the archive has cannot be imported."""
        refusal = self._archive.refusal()
        base = self.prefix + name.rpartition(".")[2]
        if refusal is not None and (self._find(name) or base in self._archive.folders):
            return refusal
        for member in self._archive.foreign(base):
            ours = sys.implementation.cache_tag
            reason = f"wrong Python or machine: this is {ours} on {os.uname().machine}"
            return self._archive.damaged(reason, member)
        return None

    def __repr__(self) -> str:
        return f'<dlopen.importer.Importer "{self.archive}/{self.prefix}">'


def _archive_of_package(folder: str) -> _archives.Archive | None:
    """That of the loaded package that has this folder in its `__path__`, if it is from here."""
    name, reference = _archives.packages.get(folder, ("", None))
    archive = reference() if reference else None
    loader = getattr(getattr(sys.modules.get(name), "__spec__", None), "loader", None)
    if loader is None or type(loader) is zipimporter:
        return None
    # Loaders of namespace packages, and those that others put around ours, have none.
    return archive if getattr(loader, "_archive", archive) is archive else None


class MemberLoader(ExtensionLoader):
    """Loads an extension module that is a member of an archive."""

    def __init__(self, name: str, path: str, importer: Importer) -> None:
        super().__init__(name, path)
        self._importer = importer
        # Its descriptor stays open until the linker has the file, also if another takes its place.
        self._archive = importer._archive

    def open_image(self, path: str, mode: int) -> int:
        """As dlopen(3)."""
        return _archives.locate.open_from(self._archive, super().open_image, path, mode)

    def get_data(self, path: str) -> bytes:
        """As `Importer.get_data`."""
        return self._importer.get_data(path)

    def get_resource_reader(self, name: str | None = None) -> Any:
        """As `Importer.get_resource_reader`."""
        return self._importer.get_resource_reader(name or self.name)


class _First:
    """Asked first for distributions: `importlib.metadata` would read an archive by zipfile."""

    @staticmethod
    def find_spec(name: str, path: object, target: object = None) -> None:
        """Leave modules to the others."""

    @staticmethod
    def find_distributions(context: Any) -> tuple[()]:
        """None of its own: the standard library's finder is told what is in archives.

        It keeps an object for each place, and asks it for the names there, and for paths of them.
        """
        kept: Any = getattr(sys.modules["importlib.metadata"], "FastPath", None)
        for place in context.path if kept else ():
            finder = sys.path_importer_cache.get(place) if isinstance(place, str) else None
            if isinstance(finder, Importer):
                with late():
                    from dlopen._archive_paths import ArchivePath  # noqa: PLC0415  (not needed by most)

                folder = ArchivePath(finder._archive, finder.prefix.rstrip("/"))
                known = kept(place)
                known.children, known.joinpath = folder.folders, folder.joinpath
        return ()


def _plain(place: str) -> str:
    try:
        return _archives.plain(place)
    except (OSError, ValueError):
        return ""


class _Last:
    """Asked when no other finder has a module: an import is told if that is an archive's fault.

    Who only asks (`importlib.util.find_spec`) is told that there is none.
    """

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = _fault(name, sys.path if path is None else path)
        # Two frames above, an import has the function that raises ModuleNotFoundError for None.
        if found is None or sys._getframe(2).f_code is not _find_and_load_unlocked.__code__:
            return None
        spec = find_behind(_Last, name, path, target)
        if spec is None:
            message, error = found
            raise ModuleNotFoundError(message, name=name, path=error.library) from error
        return spec


def _fault(name: str, places: Sequence[object]) -> tuple[str, LoadError] | None:
    """What to say of a module that is nowhere; None if no archive of these places is at fault."""
    for place in places:
        if not isinstance(place, str):  # sys.path may hold anything
            continue
        finder = sys.path_importer_cache.get(place)
        error, which = None, ""
        if isinstance(finder, Importer):
            error, which = finder._refusal_of(name), " that can be used here"
        elif finder is None and _archives.broken:
            error = _archives.broken.get(_plain(place))
        if error is not None:
            return f"No module named {name!r}{which}; {error}", error
    return None


_lock = new_lock()  # held while the next two run


def install(*, everything: bool | None = None, mapped_only: bool | None = None) -> None:
    """Import from zip archives and wheels on `sys.path` through this package, from now on.

    Modules that were imported before stay as they are.  Called again, it changes the settings that
    are given, and no others; `uninstall` ends both.

    Args:
        everything: Whether extension modules that are files of their own come through our linker,
            too: all that are imported from now on.
        mapped_only: Whether a library that cannot be mapped from its archive (it is compressed, or
            not aligned to a page, or the file system is mounted noexec) is an error, where it is
            else copied into memory.
    """
    with _lock:
        if mapped_only is not None:
            _archives.locate.flags = _linker.MAPPED_ONLY if mapped_only else 0
        _linker.set_archives(_archives.locate)
        if _First not in sys.meta_path:
            sys.meta_path.insert(0, _First)
        if everything is not None:
            take_everything(on=everything)
        if Importer not in sys.path_hooks:
            at = sys.path_hooks.index(zipimporter) if zipimporter in sys.path_hooks else 0
            sys.path_hooks.insert(at, Importer)
        if _Last not in sys.meta_path:
            sys.meta_path.append(_Last)
        _forget(zipimporter, type(None))


def uninstall() -> None:
    """Import as before, whoever has called `install`, and how often.

    Modules that were imported stay, and read what they need as ever.  What they import later
    `zipimport` has to find: no extension modules.
    """
    with _lock:
        if Importer in sys.path_hooks:
            sys.path_hooks.remove(Importer)
        for finder in (_First, _Last):
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)
        _forget(Importer)
        _linker.set_archives(None)
        _archives.locate.flags = 0
        take_everything(on=False)
        for path, files in [*_zip_directory_cache.items()]:
            if isinstance(files, _archives.Files):
                del _zip_directory_cache[path]


def _forget(*kinds: type) -> None:
    """What was found at places of the path; they are asked anew."""
    for path, finder in [*sys.path_importer_cache.items()]:
        if type(finder) in kinds:
            sys.path_importer_cache.pop(path, None)
