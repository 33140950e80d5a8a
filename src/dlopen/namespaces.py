"""Namespaces: dependency trees of their own, side by side in one process."""

from __future__ import annotations

import os
import sys
from _warnings import warn
from os import RTLD_LOCAL, RTLD_NOW
from types import MappingProxyType

from dlopen import _linker
from dlopen._lifecycle import late
from dlopen._mapped import Place
from dlopen._records import or_log
from dlopen.errors import Error
from dlopen.info import Info
from dlopen.library import Blocker, Library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType, TracebackType
    from typing import Any, NoReturn, Self, Unpack

    from typing_extensions import Buffer

    from dlopen._importing import Block
    from dlopen.library import Keywords


class Namespace(Place):
    """Libraries with dependencies of their own, which see no other namespace and not the process's.

    What is loaded into it, and all that this needs, is loaded anew, once, whatever the process has
    under the same names.  Only one family is shared by all: libc, ld.so, libm, libgcc_s, libstdc++
    and libpython.  A library in it is bound to those of its own namespace, then to the family,
    then to the program.  `RTLD_GLOBAL` means global in the namespace.  See dlmopen(3), which has
    sixteen; of these there may be any number.

    Args:
        name: For messages; need not be unique.
        path: Folders in which libraries are searched, for what they need, too: after the RPATH of
            the library that needs it, before all else that ld.so(8) names.
        arena: For all that is loaded into it: see `Library`.

    Raises:
        ValueError: A folder with a colon or a null byte in its name.
        TypeError: `path` is one folder, not several.

    Raises the audit event `dlopen.namespace` with name and path.  Nothing is unloaded by garbage
    collection or at the interpreter's end: use `close`, or `with`.
    """

    def __init__(
        self, name: str, path: Iterable[str | os.PathLike[str]] = (), *, arena: bool = False
    ) -> None:
        if isinstance(path, (str, bytes, os.PathLike)):
            raise TypeError(f"path holds folders, and is none itself: [{path!r}]")
        # Not resolved: a symbolic link may lead elsewhere later.
        folders = tuple(os.path.abspath(os.fsdecode(folder)) for folder in path)  # noqa: PTH100
        for folder in folders:
            if ":" in folder or "\0" in folder:
                raise ValueError(f"a folder of a search path holds no colon or null: {folder!r}")
        sys.audit("dlopen.namespace", name, folders)
        super().__init__(name)
        self._path = folders
        self._arena = arena
        self._modules: dict[str, ModuleType] = {}
        self._block: Block | None = None  # in which its modules are where the interpreter's are
        self._builtins: dict[str, Any] | None = None  # of its modules, with an `import` of its own
        self._number = _linker.new_namespace(os.fsencode(":".join(folders)) or None)

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    @property
    def path(self) -> tuple[str, ...]:
        """The folders in which its libraries are searched, absolute."""
        return self._path

    def load(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        mode: int = RTLD_NOW | RTLD_LOCAL,
        **keywords: Unpack[Keywords],
    ) -> Library:
        """A library of this namespace; parameters and errors are those of `Library`.

        One that is in it already is counted, and its image the same.  It is open until it, or the
        namespace, is closed.
        """
        return Library(path, mode, namespace=self, **keywords)

    def load_bytes(
        self,
        data: Buffer,
        *,
        name: str = "<bytes>",
        mode: int = RTLD_NOW | RTLD_LOCAL,
        **keywords: Unpack[Keywords],
    ) -> Library:
        """Opens it here, from the content of a file: see `Library.from_bytes`.

        It is what the libraries that are loaded into the namespace later, and need its name or
        soname, get.
        """
        return Library.from_bytes(data, name=name, mode=mode, namespace=self, **keywords)

    def imports(self, *names: str) -> Block:
        """For `with`: what this thread imports in the block belongs to the namespace.

        Extension modules are loaded into the namespace, with what they need, and the modules are
        apart from all others: at the end of the block they leave `sys.modules`, and what was there
        comes back.  They are in `modules`, and in `sys.modules` again in the next block.

        What was imported before the block is used as it is, a package with all its parts; so are
        modules of the standard library, imported now or before.

        Args:
            names: Top-level modules and packages that are imported anew all the same.

        Raises:
            ValueError: The namespace is closed; or a name that is no top-level module's, or that of
                one which is built into the interpreter.

        A block in another one suspends it.  `sys.modules` is one for all threads: while a thread is
        in a block, others that enter one wait, and those that import a module which the block has
        imported get that one.
        """
        with late():
            from dlopen._importing import Block  # noqa: PLC0415  (slow to import)

        self._entered()
        return Block(self, names)

    @property
    def modules(self) -> Mapping[str, ModuleType]:
        """What was imported in its blocks, by name; read-only."""
        block = self._block
        return MappingProxyType(self._modules.copy() if block is None else block.modules())

    @property
    def libraries(self) -> tuple[Info, ...]:
        """The images that are loaded in it, in load order; those of the family are in none."""
        found = []
        for image in self._images():
            try:
                found.append(Info(image))
            except ValueError:  # unloaded since
                continue
        return tuple(found)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    @property
    def unload_blockers(self) -> tuple[Blocker, ...]:
        """What keeps images of it mapped, now that it is closed.

        What other images of it need is not named: it stays as long as these.
        """
        return tuple(
            Blocker(kind, library)
            for image in self._images()
            for kind, library in _linker.holders(image)
            if kind not in ("dependency", "binding")
        )

    def close(self) -> None:
        """Close every library that was loaded into it and is open; further calls do nothing.

        All that nothing else holds is unloaded before this returns, as by `Library.close`.
        Extension modules are never unloaded, nor is what they need: Python objects of theirs may
        be anywhere.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            libraries = [*self._open]
        # Without the lock: destructors may come back here.
        for library in reversed(libraries):
            library.close()
        if self._number is not None:
            _linker.end_namespace(self._number)

    def __enter__(self) -> Self:
        self._entered()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Namespace cannot be copied or pickled")

    def __repr__(self) -> str:
        return f"<dlopen.Namespace {self._name!r}{' closed' if self._is_closed else ''}>"

    def __del__(self) -> None:
        if self._number is None or self._is_closed:
            return
        if _linker.images_of(self._number):
            # Nothing is unloaded here: code of its images may be in use from anywhere.
            warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        else:
            _linker.end_namespace(self._number)

    def _images(self) -> list[int]:
        return [] if self._number is None else _linker.images_of(self._number)

    def _entered_for_module(self) -> int:
        """As `_entered`, for an extension module: what it imports later comes from here."""
        with late():
            from dlopen._importing import importing  # noqa: PLC0415  (slow to import)

        number = self._entered()
        _linker.import_by(number, importing(self)["__import__"])
        return number

    def _open_extension(self, path: str, mode: int) -> int:
        """Open the file of an extension module, and return its image."""
        number = self._entered_for_module()
        name, text, flags = _linker.asked(os.path.abspath(path), mode)  # noqa: PTH100
        more = _linker.REPLACE_IN_TREE | (_linker.ARENA if self._arena else 0)

        def load(replacements: list[tuple[bytes, bytes | None, int]]) -> int:
            # Its constructors may use Python, as under the interpreter's own import.
            return _linker.open(
                name, None, flags, more, replacements, namespace=number, keeps_gil=True
            )

        try:
            return or_log(load, text, _linker.IN_NAMESPACE)
        except Error as error:
            if type(error) is not Error:
                raise
            return or_log(load, text, [])  # it is bound: the file has another module, or is needed
