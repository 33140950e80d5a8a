"""The exceptions of this package, and which error of the core becomes which of them.

    Error
     ├── LoadError (also an OSError)      a library cannot be found, read, mapped or linked
     │    └── VersionError                it needs a symbol version that another does not define
     └── SymbolError (also an AttributeError and a KeyError)      an undefined symbol

An argument that cannot be, and the use of what is closed, are a `ValueError`.
`str(error)` is one line that says what happened; the attributes hold the rest.  All can be pickled.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# As the core shows them: names may hold what ends a line, or drives a terminal.
_CONTROLS = dict.fromkeys((*range(0x20), 0x7F), "?")


def one_line(text: str) -> str:
    """The text of an error, whatever the names in it hold."""
    return text.translate(_CONTROLS)


class Error(Exception):
    """Base class of the errors of this package."""

    def __init__(self, message: str, **attributes: Any) -> None:
        message = one_line(message)
        super().__init__(message)
        self.__dict__.update(message=message, **attributes)

    def __str__(self) -> str:
        # KeyError and OSError render their arguments in ways of their own.
        return str(self.__dict__["message"])

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(kind: type[Error], attributes: dict[str, Any]) -> Error:
    return kind(**attributes)


class LoadError(Error, OSError):
    """A library cannot be loaded; see dlopen(3).

    `errno`, `strerror` and `filename` are those of `OSError` where the operating system refused,
    None elsewhere.
    """

    library: str
    """The file or name that cannot be used."""
    reason: str
    """The rule that it breaks, or why it is refused."""
    needed_by: str
    """The image that needs it; "" if it was asked for directly."""
    searched: tuple[tuple[str, str], ...]
    """(path, why not) for each place that was searched."""

    def __init__(
        self,
        message: str,
        *,
        library: str = "",
        reason: str = "",
        needed_by: str = "",
        searched: tuple[tuple[str, str], ...] = (),
        error_number: int = 0,
        **attributes: Any,
    ) -> None:
        Error.__init__(
            self,
            message,
            library=library,
            reason=reason,
            needed_by=needed_by,
            searched=searched,
            error_number=error_number,
            **attributes,
        )
        if error_number:
            OSError.__init__(self, error_number, os.strerror(error_number), library)


class VersionError(LoadError):
    """A library needs a symbol version that the library which should define it lacks.

    `symbol` and `version` say which.  See the LSB, "Symbol Versioning".
    """

    symbol: str
    version: str


class SymbolError(Error, AttributeError, KeyError):
    """A symbol is not defined where it was looked for; see dlsym(3)."""

    symbol: str
    version: str
    """The version that was asked for, "" for the default one."""
    library: str
    """Where it was looked for."""
    needed_by: str
    """The image whose relocation needs it; "" for a lookup."""

    def __init__(
        self,
        message: str,
        *,
        symbol: str = "",
        version: str = "",
        library: str = "",
        needed_by: str = "",
        exports: Iterable[str] = (),
        **attributes: Any,
    ) -> None:
        Error.__init__(
            self,
            message,
            symbol=symbol,
            version=version,
            library=library,
            needed_by=needed_by,
            **attributes,
        )
        self._exports = exports

    @property
    def similar(self) -> tuple[str, ...]:
        """Exports of the library with a similar name, the most similar first."""
        if "_similar" not in self.__dict__:
            # Only who asks pays for it: hasattr() is a lookup that may fail, too.
            from difflib import get_close_matches  # noqa: PLC0415

            try:
                names = {key.partition("@")[0] for key in self._exports}
            except ValueError:  # closed meanwhile
                names = set()
            self._similar = tuple(get_close_matches(self.symbol, sorted(names)))
        return self._similar

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        attributes = self.__dict__ | {"_similar": self.similar}
        del attributes["_exports"]
        return _rebuild, (type(self), attributes)


_EXCEPTIONS: dict[str, type[Error]] = {
    "OPEN": LoadError,
    "READ": LoadError,
    "MAP": LoadError,
    "PROTECT": LoadError,
    "MEMORY": LoadError,
    "NOT_FOUND": LoadError,
    "NOT_ELF": LoadError,
    "FORMAT": LoadError,
    "UNSUPPORTED": LoadError,
    "RELOCATION": LoadError,
    "HOST": LoadError,
    "NOT_LOADED": LoadError,
    "SYMBOL": SymbolError,
    "VERSION": VersionError,
    "STATE": Error,
    "STOPPED": LoadError,
    "CONSTRUCTOR": LoadError,
}
_IMPLIED_ERRNO = {"MEMORY": errno.ENOMEM, "NOT_FOUND": errno.ENOENT}


def exception_for(
    code: str,
    errnum: int,
    message: str,
    *,
    library: str = "",
    reason: str = "",
    symbol: str = "",
    version: str = "",
    needed_by: str = "",
    searched: tuple[tuple[str, int | str], ...] = (),
) -> Exception:
    """The exception for the error DLOPEN_E_`code` of dlopen.h."""
    if code in ("HANDLE", "INVALID"):
        return ValueError(message)
    errnum = errnum or _IMPLIED_ERRNO.get(code, 0)
    if code == "SYMBOL":  # the core names the image that refers to it
        needed_by = needed_by or library
    return _EXCEPTIONS.get(code, Error)(
        message,
        library=library,
        reason=reason or (os.strerror(errnum) if errnum else ""),
        needed_by=needed_by,
        symbol=symbol,
        version=version,
        searched=tuple((path, why_not(result)) for path, result in searched),
        error_number=errnum,
    )


_REJECTED = {
    "LOADED": "an image that is loaded already answers to the name",
    "MACHINE": "for another machine or word size",
    "FILES": "not in files",
    "HOSTS": "it must be the host's own",
}


def why_not(result: int | str) -> str:
    """Why a candidate of a search was not taken, in words; "" for the one that was."""
    if isinstance(result, str):
        return _REJECTED.get(result, result)
    return os.strerror(result) if result > 0 else ""
