"""The fixture `patch_library`."""

from __future__ import annotations

import ctypes
import os
from _ctypes import CFuncPtr, _Pointer
from contextlib import ExitStack
from difflib import get_close_matches
from threading import Event
from types import ModuleType
from unittest.mock import DEFAULT, Mock

import dlopen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, Self, TypeAlias

    Target: TypeAlias = (
        dlopen.Library
        | ctypes.CDLL
        | ModuleType
        | str
        | bytes
        | os.PathLike[str]
        | os.PathLike[bytes]
    )
    """A library that is loaded: itself, as ctypes has it, an extension module, or a name."""

_WITHOUT_ZERO = (None, ctypes.c_void_p, ctypes.py_object)
_POINTERS = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p, _Pointer, CFuncPtr)
# What C was given stays valid for ever, as a string literal does: it may have kept the pointer.
_literals: dict[bytes | str, Any] = {}


class Fake(Mock):
    """The `unittest.mock.Mock` that stands for a C function; its calls have what C has passed."""

    errno: int | None
    """What each call sets errno to; None leaves it as it is."""
    original: Any
    """The function that is called without the fake, as a ctypes function.  None: nothing."""
    patch: dlopen.Patch
    """The patch: `restore` ends it early, `places` says how much it has changed."""


class PatchLibrary:
    """Replaces functions that libraries call by fakes; at the end of the test all are put back."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._returned: dict[int, Any] = {}  # by id: what C was given pointers to

    def __call__(
        self,
        library: Target,
        symbol: str,
        restype: Any,
        *argtypes: Any,
        return_value: Any = DEFAULT,
        side_effect: Callable[..., Any] | Iterable[Any] | BaseException | None = None,
        wraps: bool = False,
        errno: int | None = None,
        on_error: Any = None,
        missing_ok: bool = False,
    ) -> Fake:
        """Let a fake answer the calls of `symbol` that this library makes, and no other.

        Args:
            library: A `dlopen.Library`, a `ctypes.CDLL`, an extension module, or the name of a
                library that is loaded already, as for `dlopen.existing`.
            symbol: "name" or "name@VERSION", as the library refers to it.
            restype: The ctypes type that the function returns; None for void.
            argtypes: Those of its parameters.
            return_value: What it returns, by default 0 or NULL.  For a pointer: an address, None,
                bytes or str for a string, or the ctypes object that it points to.
            side_effect: As in `unittest.mock`: a function that is called in its stead, the results
                of the calls one after the other, or an exception.  C gets `on_error` from a call
                that raises, and the exception is raised at the end of the test.
            wraps: Call the original where neither of the two says what to return.
            errno: What each call sets errno to.
            on_error: What C gets from a call that raises: a value as in `return_value`, or
                `(value, errno)`.  By default 0 or NULL, which often means success.
            missing_ok: Whether the library need not refer to the symbol.

        Raises:
            dlopen.SymbolError: The library does not refer to the symbol: nothing would be faked.
            dlopen.LoadError: No such library is loaded.
            TypeError: A type or value that a C function cannot return.
        """
        code, convert = _converter(restype)
        if return_value is not DEFAULT:
            convert(return_value)
        elif not wraps:
            return_value = None if code in _WITHOUT_ZERO else code().value
        value, error_number = on_error if isinstance(on_error, tuple) else (on_error, None)
        value = value if value is None else self._kept(code, value, convert)
        target = self._open(library)
        patched = Event()  # another thread may call before `patch` returns

        def call_original(*arguments: Any) -> Any:
            patched.wait()
            return patch.original[symbol](*arguments)

        fake = Fake(
            name=symbol,
            spec_set=("errno", "original", "patch"),
            return_value=return_value,
            side_effect=side_effect,
            wraps=call_original if wraps else None,
        )
        fake.errno = errno

        # Whatever Python does to errno meanwhile, C finds it as it was, or as the fake has set it.
        @dlopen.callback(code, *argtypes, use_errno=True, on_error=(value, error_number))
        def answer(*arguments: Any) -> Any:
            result = self._kept(code, fake(*arguments), convert)
            if fake.errno is not None:
                ctypes.set_errno(fake.errno)
            return result

        try:
            fake.patch = patch = target.patch({symbol: answer})
        finally:
            patched.set()
        if not patch.places[symbol] and not missing_ok:
            patch.restore()
            raise _not_there(target, symbol)
        self._stack.enter_context(patch)
        original = patch.original[symbol]
        fake.original = original and ctypes.cast(
            original, ctypes.CFUNCTYPE(restype, *argtypes, use_errno=True)
        )
        return fake

    def _kept(self, code: Any, result: Any, convert: Callable[[Any], Any]) -> Any:
        """A result as the callback returns it; what it points to stays."""
        if code is ctypes.c_void_p and not isinstance(result, int):
            self._returned[id(result)] = result
        return convert(result)

    def _open(self, library: Target) -> dlopen.Library:
        if isinstance(library, dlopen.Library):
            return library
        name: Any = library
        if isinstance(library, ctypes.CDLL):
            name = library._name
        elif isinstance(library, ModuleType):
            name = getattr(library, "__file__", None)
            if not name or not name.endswith(".so"):
                raise TypeError(f"{library!r} is not in a shared library of its own")
        return self._stack.enter_context(dlopen.existing(name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def _converter(restype: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The type that the callback returns for a function that returns `restype`, and how.

    ctypes callbacks return no pointers but c_void_p, and a value of a wrong type only disappears.
    """
    if restype is None:
        return None, lambda _: None
    if restype is ctypes.py_object:
        return restype, lambda value: value
    if issubclass(restype, _POINTERS):
        return ctypes.c_void_p, _address
    if issubclass(restype, ctypes._SimpleCData):
        return restype, lambda value: restype(getattr(value, "value", value)).value
    raise TypeError(f"a fake cannot return {restype!r}: ctypes callbacks cannot")


def _address(value: Any) -> int | None:
    """A pointer to it, or itself if it is one."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, (bytes, str)):
        if value not in _literals:
            is_wide = isinstance(value, str)
            make: Any = ctypes.create_unicode_buffer if is_wide else ctypes.create_string_buffer
            _literals.setdefault(value, make(value))
        return ctypes.addressof(_literals[value])
    if isinstance(value, (ctypes.Structure, ctypes.Union)):
        return ctypes.addressof(value)
    try:
        return ctypes.cast(value, ctypes.c_void_p).value
    except ctypes.ArgumentError:
        raise TypeError(f"{value!r} is no pointer, and nothing that C can point to") from None


def _not_there(library: dlopen.Library, symbol: str) -> dlopen.SymbolError:
    """The error for a patch that has changed nothing, with who does refer to the symbol."""
    name, _, version = symbol.partition("@")
    info = library.info
    uses = _references(info, with_versions=bool(version))
    message = f"{info.path} does not refer to {symbol}"
    similar = get_close_matches(symbol, sorted(uses))
    similar += [use for use in sorted(uses) if name in use and use not in similar]
    if similar:
        message += f"; it refers to {', '.join(similar[:5])}"
    if name in library.symbols:
        message += f"; it defines {name}, and calls that without its symbol table"
    others = [one for one in _all_needed(info) if symbol in _references(one, bool(version))]
    # Who defines it may call it through its symbol table, too; that is seldom what is meant.
    callers = [one for one in others if not _defines(one, name)] or others
    if callers:
        names = " and ".join(one.soname or one.path for one in callers[:3])
        message += f"; {names}, which it needs, {'does' if len(callers) == 1 else 'do'}"
    return dlopen.SymbolError(
        message,
        symbol=name,
        version=version.removeprefix("@"),
        library=info.path,
        exports=uses,
        names_similar=True,
    )


def _references(info: dlopen.Info, with_versions: bool) -> set[str]:
    """The symbols of its relocations, "name" or, where there is one, "name@VERSION"."""
    return {
        f"{one.symbol}@{one.version}" if one.version and with_versions else one.symbol
        for one in info.relocations
        if one.symbol
    }


def _all_needed(info: dlopen.Info) -> list[dlopen.Info]:
    """What it needs, and what that needs, breadth first; without itself."""
    found = [info]
    for one in found:
        found += [other for other in one.dependencies if other not in found]
    return found[1:]


def _defines(info: dlopen.Info, name: str) -> bool:
    with dlopen.existing(info) as library:
        return name in library.symbols
