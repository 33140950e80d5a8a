"""The exported symbols of an image."""

from __future__ import annotations

import os
import sys
from _collections_abc import Mapping
from _weakref import ref

from dlopen import _linker
from dlopen.errors import SymbolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    from dlopen.info import Info, Source

    class Listed(Source, Protocol):
        """Something open, which keeps the list of its exports."""

        _keys: tuple[str, ...] | None
        _last_error: ref[SymbolError] | None


# As readelf(1) prints them; values in elf(5).
TYPES = {
    0: "NOTYPE",
    1: "OBJECT",
    2: "FUNC",
    3: "SECTION",
    4: "FILE",
    5: "COMMON",
    6: "TLS",
    10: "IFUNC",
}
_BINDINGS = {0: "LOCAL", 1: "GLOBAL", 2: "WEAK", 10: "UNIQUE"}


class Symbol:
    """A definition in the dynamic symbol table of an image; see elf(5).

    `int(symbol)` is its address.
    """

    __slots__ = (
        "_address",
        "_image",
        "_own",
        "_source",
        "binding",
        "name",
        "size",
        "type",
        "version",
    )

    name: str
    version: str
    """Its version, "" without."""
    size: int
    """Bytes; 0 if unknown."""
    type: str
    """As readelf(1) prints it: FUNC, OBJECT, IFUNC, TLS, NOTYPE …"""
    binding: str
    """GLOBAL, WEAK, UNIQUE or LOCAL."""

    def __init__(
        self, found: tuple[str, str, int, int, int, int, int], source: Source, own: bool = True
    ) -> None:
        self.name, self.version, self._address, _, self.size, type_, binding = found
        self.type = TYPES.get(type_, str(type_))
        self.binding = _BINDINGS.get(binding, str(binding))
        self._source = source
        self._image = source._image
        self._own = own

    @property
    def key(self) -> str:
        """Its name, with its version if it has one: "name@VERSION"."""
        return f"{self.name}@{self.version}" if self.version else self.name

    @property
    def library(self) -> Info:
        """The image that it belongs to.  Raises `ValueError` when that is closed."""
        return self._source._describe()

    @property
    def address(self) -> int:
        """Where it is in this process; of a TLS symbol, for the calling thread.

        The resolver of an IFUNC is called when this is first read.  0 where dlsym(3) returns NULL
        for a symbol that is there: an absolute one of that value (as those that name a version
        are), or a resolver that says so.  Raises `ValueError` when the library is closed.
        """
        image = self._source._open_image()
        if self._address and image == self._image:
            return self._address
        name, version = os.fsencode(self.name), os.fsencode(self.version) or None
        found = _linker.symbol_address(image, name, version, self._own)
        if found is None:  # it was there: the library was reloaded
            raise undefined(self.key, self._source._path, ())
        address, _ = found
        if self.type != "TLS":
            self._address, self._image = address, image
        return address

    def __int__(self) -> int:
        return self.address

    __index__ = __int__

    def __repr__(self) -> str:
        return f"<dlopen.Symbol {self.key!r} {self.type} {self.binding}>"


def undefined(key: str, library: str, exports: Iterable[str]) -> SymbolError:
    """The error for a lookup that found nothing."""
    name, _, version = key.partition("@")
    version = version.removeprefix("@")
    of_version = f", version {version}" if version else ""
    return SymbolError(
        f"{library or 'the program'}: undefined symbol: {name}{of_version}",
        symbol=name,
        version=version,
        library=library,
        exports=exports,
    )


def without_address(key: str, library: str) -> SymbolError:
    """The error for a symbol whose value is NULL, where something is to be there."""
    name, _, version = key.partition("@")
    return SymbolError(
        f"{library or 'the program'}: {key} is at no address: its value is NULL",
        symbol=name,
        version=version.removeprefix("@"),
        library=library,
    )


class _Exports:
    """The keys of what was listed before it was closed, for an error that is shown later."""

    def __init__(self, source: Listed) -> None:
        self._source = source

    def __iter__(self) -> Iterator[str]:
        return iter(self._source._keys or Symbols(self._source))


def undefined_in(source: Listed, key: str) -> SymbolError:
    """As `undefined`, of something open; the error may be shown when it is closed."""
    error = undefined(key, source._path, _Exports(source))
    source._last_error = ref(error)
    return error


class Symbols(Mapping[str, Symbol]):
    """The exports of one image, without those of its dependencies.

    The key "name" is the default version, what dlsym(3) finds; "name@VERSION" is any one version,
    as dlvsym(3) finds it.  Iteration gives each export once, the default as "name".
    All raise `ValueError` when the library is closed.
    """

    def __init__(self, source: Listed) -> None:
        self._source = source

    def __getitem__(self, key: str) -> Symbol:
        image = self._source._open_image()
        sys.audit("dlopen.symbol", self._source._path, key)
        found = _linker.symbol(image, *_linker.split_key(key), True)
        if found is None:
            raise undefined_in(self._source, key)
        return Symbol(found, self._source)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all_keys())

    def __len__(self) -> int:
        return len(self._all_keys())

    def __contains__(self, key: object) -> bool:
        image = self._source._open_image()
        if not isinstance(key, str) or "\0" in key:
            return False
        return _linker.symbol(image, *_linker.split_key(key), True) is not None

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def _all_keys(self) -> tuple[str, ...]:
        image = self._source._open_image()
        keys = self._source._keys
        if keys is None:
            self._source._keys = keys = tuple(dict.fromkeys(_linker.exports(image)))
        return keys

    def __repr__(self) -> str:
        return f"<dlopen.Symbols of {self._source!r}>"
