"""The exceptions of this package, and which error of the core becomes which of them.

    Error
     ├── LoadError (also an OSError)      a library cannot be found, read, mapped or linked
     │    └── VersionError                it needs a symbol version that another does not define
     └── SymbolError (also an AttributeError and a KeyError)      an undefined symbol

An argument that cannot be, and the use of what is closed, are a `ValueError`.
`str(error)` is one line that says what happened, and what may have been meant; the attributes hold
the rest.  All can be pickled.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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

    similar: tuple[str, ...] = ()
    """Names that may have been meant, the most similar first."""

    def __str__(self) -> str:
        # KeyError and OSError render their arguments in ways of their own.
        message = str(self.__dict__["message"])
        if not self.similar or self.__dict__.get("names_similar"):  # the message has them
            return message
        return one_line(f"{message}. Did you mean: {self.similar[0]!r}?")

    def __repr__(self) -> str:
        known = self.__dict__
        names = (name for name in ("library", "symbol", "version", "needed_by") if known.get(name))
        facts = (f", {name}={known[name]!r}" for name in names)
        return f"{type(self).__name__}({known['message']!r}{''.join(facts)})"

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

    @property
    def similar(self) -> tuple[str, ...]:  # type: ignore[override]
        """Files of the folders that were searched which "z" or "libz.so" may stand for.

        Empty for a path, and for what another library needs.
        """
        if "_similar" not in self.__dict__:
            is_name = bool(self.searched) and "/" not in self.library and not self.needed_by
            self._similar = _versions_of(self.library, self.searched) if is_name else ()
        return self._similar

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), self.__dict__ | {"_similar": self.similar})


def _versions_of(name: str, searched: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Files that libNAME.so may stand for: sonames, with one number, come first."""
    from contextlib import suppress  # noqa: PLC0415  (slow to import)

    start = "lib" + name.partition(".so")[0].removeprefix("lib") + ".so"
    found = set()
    for folder in {os.path.dirname(path) for path, _ in searched}:  # noqa: PTH120  (slow to import)
        with suppress(OSError):
            for file in os.listdir(folder):  # noqa: PTH208
                numbers = file[len(start) :].split(".")
                if (
                    file.startswith(start)
                    and numbers[0] == ""
                    and all(number.isdecimal() for number in numbers[1:])
                ):
                    found.add(
                        (len(numbers) != 2, tuple(-int(number) for number in numbers[1:]), file)
                    )
    return tuple(file for _, _, file in sorted(found))


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
    """Where it was looked for: the library whose relocation needs it, or that was asked."""
    needed_by: str
    """The image that brought this library in, or uses the symbol of an old version; "" if the
    library was opened itself, and for a lookup."""

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
    def similar(self) -> tuple[str, ...]:  # type: ignore[override]
        """Exports of the library with a similar name, the most similar first.

        For a version that is not there, those that are: "name@VERSION".
        """
        if "_similar" not in self.__dict__:
            # Only who asks pays for it: hasattr() is a lookup that may fail, too.
            try:
                keys = list(self._exports)
            except ValueError:  # closed meanwhile
                keys = []
            names = {key.partition("@")[0] for key in keys}
            if self.symbol in names:
                found = [key for key in keys if key.partition("@")[0] == self.symbol]
            else:
                found = _most_similar(self.symbol, names)
            self._similar = tuple(found)
        return self._similar

    # The interpreter sets these of an AttributeError, to show in tracebacks which attribute of the
    # object may have been meant: here `str` has said it, of more names.
    @property
    def name(self) -> None:
        """None: see `symbol`."""

    @name.setter
    def name(self, name: object) -> None:
        pass

    @property
    def obj(self) -> None:
        """None: see `library`."""

    @obj.setter
    def obj(self, thing: object) -> None:
        pass

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        attributes = self.__dict__ | {"_similar": self.similar}
        del attributes["_exports"]
        return _rebuild, (type(self), attributes)


_MOST_COMPARED = 2000  # names: difflib takes a second for 20,000


def _most_similar(name: str, names: set[str]) -> list[str]:
    if not names:
        return []
    from difflib import get_close_matches  # noqa: PLC0415  (slow to import)

    near = sorted(names)
    if len(near) > _MOST_COMPARED:  # those that begin and end alike
        near.sort(
            key=lambda one: _beginning(one, name) + _beginning(one[::-1], name[::-1]), reverse=True
        )
    return get_close_matches(name, near[:_MOST_COMPARED])


def _beginning(one: str, other: str) -> int:
    """How many characters the two begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (left, right) in pairs if left != right), min(len(one), len(other)))


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
