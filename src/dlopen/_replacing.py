"""What a symbol is bound to instead of its definition, and how long that is kept."""

from __future__ import annotations

import atexit
import ctypes
from _ctypes import CFuncPtr

from dlopen import _linker
from dlopen.symbols import Symbol, split_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Replacement: TypeAlias = int | Symbol | Any
    """An address, a `Symbol`, or a ctypes function object (`callback` makes one)."""
    Find: TypeAlias = Callable[[str, str | None], Replacement | None]

# image -> what its places lead to, which C may call as long as the image is mapped
_kept: dict[int, list[object]] = {}


def address_of(replacement: Replacement) -> int:
    """The address that stands for it.  Raises `TypeError` for what has none."""
    if isinstance(replacement, (int, Symbol)):
        return int(replacement)
    if isinstance(replacement, CFuncPtr):
        return ctypes.cast(replacement, ctypes.c_void_p).value or 0
    raise TypeError(
        f"a replacement is an address, a Symbol or a ctypes function, not {replacement!r}"
    )


def replacements_for(
    replace: Mapping[str, Replacement] | None,
) -> list[tuple[bytes, bytes | None, int]]:
    """For the core.  A key is a name, or "name@VERSION"."""
    return [(*split_key(key), address_of(one)) for key, one in (replace or {}).items()]


def finder(find: Find | None, kept: list[object]) -> Callable[[str, str | None], int] | None:
    """`find` for the core; what it returns is added to `kept`."""
    if find is None:
        return None

    def address(name: str, version: str | None) -> int:
        found = find(name, version)
        if found is None:
            return 0
        kept.append(found)
        return address_of(found)

    return address


def keep(image: int, things: list[object]) -> None:
    """As long as the image is mapped: the Library object may be dropped before that."""
    if things:
        _kept[image] = things


def forget(image: int) -> None:
    """The image is gone."""
    _kept.pop(image, None)


@atexit.register
def _outlive_interpreter() -> None:
    """Libraries stay, and their destructors run, when the interpreter has gone."""
    for things in list(_kept.values()):
        for thing in things:
            _linker.keep_for_ever(thing)
