"""`CDLL` and `PyDLL`: ctypes' classes, on libraries of this linker."""

from __future__ import annotations

import ctypes
import os
import sys
from os import RTLD_NOW

from dlopen import _linker
from dlopen.adopting import answer_ctypes
from dlopen.errors import LoadError, SymbolError, one_line
from dlopen.library import Library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, Literal, Self

    from dlopen._files import Files
    from dlopen._mapped import Place
    from dlopen._replacing import Replacement

    Name = str | bytes | os.PathLike[str] | os.PathLike[bytes] | Library | None


class CDLL(ctypes.CDLL):
    """A library as `ctypes.CDLL` has it, which it is a subclass of, opened by this linker.

    All that takes a `ctypes.CDLL` takes it: `in_dll`, prototypes of names, `ctypes.LibraryLoader`,
    `isinstance`.  The first one lets the process's `_ctypes` understand this linker's handles, for
    ever (see `adopt`); what ctypes itself opens remains the system loader's.

    It has no names of its own that could hide a function of the library, but `_library`: the
    `Library` that it stands on (info, symbols, patch, close); None where a handle was given.
    At the end of a `with` block it is closed.  Function objects that it has handed out raise
    `ValueError` from then on; those of prototypes are not known, and crash, as does all that was
    handed out after `_ctypes.dlclose(lib._handle)`.

    Args:
        name: As in ctypes: a path, or a name that is searched; None is the program.  Or a
            `Library` that is open, from bytes, say; it is closed with it.
        mode: As in ctypes, which adds `RTLD_NOW`; and `PRIVATE`.
        handle: As in ctypes: of a library that is open, this linker's or the system loader's.
        use_errno: As in ctypes.
        use_last_error: As in ctypes, for other systems.
        winmode: The same.
        replace: This and the following as in `Library`.
        replace_in: See there.
        files: See there.
        namespace: See there.
        arena: See there.

    Raises:
        LoadError: It cannot be opened; also where it refers to a symbol that nobody defines, as
            all errors of opening are an `OSError` in ctypes.
        ValueError: An argument that cannot be.
        TypeError: Keywords of `Library` for what is open already, or a `Library` that can be
            reloaded: ctypes knows one address of a function.
    """

    _library: Library | None = None

    def __init__(
        self,
        name: Name,
        mode: int = ctypes.DEFAULT_MODE,
        handle: int | None = None,
        use_errno: bool = False,
        use_last_error: bool = False,
        winmode: int | None = None,
        *,
        replace: Mapping[str, Replacement] | None = None,
        replace_in: Literal["tree"] | None = None,
        files: Files | None = None,
        namespace: Place | None = None,
        arena: bool = False,
    ) -> None:
        keywords: dict[str, Any] = {
            "replace": replace,
            "replace_in": replace_in,
            "files": files,
            "namespace": namespace,
            "arena": arena,
        }
        library = None
        answer_ctypes()
        if handle is not None or isinstance(name, Library):
            for keyword, value in keywords.items():
                if value is not None and value is not False:
                    raise TypeError(f"{keyword} is for a library that is not open yet")
        if isinstance(name, Library):
            library, name = name, name._path or None
            if library._reloading:
                raise TypeError(one_line(f"{name} can be reloaded: use the Library itself"))
        elif handle is None:
            library = _open(name, mode, keywords)
        if library is not None:
            handle = _linker.info(library._open_image())["handle"]
        given: Any = name  # of which ctypes says less than it takes
        super().__init__(given, mode, handle, use_errno, use_last_error, winmode)
        # So that a library can have weak references to what it turns off.
        self._FuncPtr.__hash__ = object.__hash__  # type: ignore[method-assign]
        self._library = library

    @property
    def _handle(self) -> int:
        """What ctypes asks it for.  Raises `ValueError` when it is closed."""
        if self._library is not None:
            self._library._open_image()
        known: int = self.__dict__.get("_handle", 0)
        return known

    @_handle.setter
    def _handle(self, handle: int) -> None:
        self.__dict__["_handle"] = handle

    def __getitem__(self, name_or_ordinal: str) -> Any:
        function: Any = super().__getitem__(name_or_ordinal)
        library = self._library
        if library is not None:
            function._library = library
            library._give(function)
            if library.closed:  # by another thread, which may not have found it
                _linker.turn_off(function)
        return function

    def _owned(self) -> Library:
        if self._library is None:
            text = f"{self._name} was given as a handle: who opened it closes it"
            raise ValueError(one_line(text))
        return self._library

    def __enter__(self) -> Self:
        self._owned()._open_image()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owned().close()

    def __repr__(self) -> str:
        if self._library is not None and self._library.closed:
            return f"<{type(self).__name__} '{self._name}', closed at {id(self):#x}>"
        return super().__repr__()


class PyDLL(CDLL, ctypes.PyDLL):
    """The same as `ctypes.PyDLL` has it: calls keep the GIL, and raise what Python code raised."""


def _open(name: Any, mode: int, keywords: dict[str, Any]) -> Library:
    if name is not None:
        name = os.fspath(name) or None
    sys.audit("ctypes.dlopen", name)
    try:
        library = Library(name, mode | RTLD_NOW, **keywords)
    except SymbolError as error:
        raise LoadError(
            str(error), library=error.library, reason="undefined symbol", needed_by=error.needed_by
        ) from error
    library._warns = False  # ctypes never closes
    return library
