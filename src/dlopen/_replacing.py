"""What a symbol is bound to instead of its definition, and how long that is kept."""

from __future__ import annotations

import os
from _collections_abc import Mapping
from _ctypes import CFuncPtr
from itertools import count

from dlopen import _linker
from dlopen._lifecycle import at_end
from dlopen.callbacks import code_of, guard, is_callback
from dlopen.errors import Error
from dlopen.symbols import Symbol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Replacement: TypeAlias = int | Symbol | CFuncPtr
    """An address, a `Symbol`, or a ctypes function object (`callback` makes one)."""
    Find: TypeAlias = Callable[[str, str | None], Replacement | None]
    Kept: TypeAlias = tuple[tuple[bytes, bytes | None] | None, object]
    """The symbol that an open has replaced by it, or None; and the thing that is kept alive."""

_HIGHEST = (1 << 64) - 1
_numbers = count()
# Number -> images, and the things that live while any of them is mapped: C may call them. What is
# gone is looked for after each close; another image at the address of one that is gone makes it
# stay longer, no more. Each change is one operation of the dict: no lock.
_kept: dict[int, tuple[set[int], list[Kept]]] = {}


def address_of(replacement: Replacement) -> int:
    """The address that stands for it.  Raises `TypeError` or `ValueError` for what has none."""
    if isinstance(replacement, (int, Symbol)):
        address = int(replacement)
    elif isinstance(replacement, CFuncPtr):
        guard(replacement)
        address = code_of(replacement)
    else:
        raise TypeError(
            f"a replacement is an address, a Symbol or a ctypes function, not {replacement!r}"
        )
    if not 0 < address <= _HIGHEST:
        raise ValueError(f"a replacement has an address, and {replacement!r} is none")
    return address


def replacements_for(
    replace: Mapping[str, Replacement] | None,
) -> list[tuple[bytes, bytes | None, int]]:
    """For the core.  A key is a name, or "name@VERSION"."""
    if replace is not None and not isinstance(replace, Mapping):
        raise TypeError(f"replace maps names to what stands for them; it is not {replace!r}")
    return [(*_linker.split_key(key), address_of(one)) for key, one in (replace or {}).items()]


def kept_of(replace: Mapping[str, Replacement] | None) -> list[Kept]:
    """What `keep` takes, of a mapping."""
    return [(_linker.split_key(key), one) for key, one in (replace or {}).items()]


def finder(find: Find | None, kept: list[Kept]) -> Callable[[str, str | None], int] | None:
    """`find` for the core; what it returns is added to `kept`."""
    if find is None:
        return None

    def address(name: str, version: str | None) -> int:
        found = find(name, version)
        if found is None:
            return 0
        kept.append(((os.fsencode(name), (version and os.fsencode(version)) or None), found))
        return address_of(found)

    return address


def keep(image: int, things: list[Kept], *, in_tree: bool = False) -> int:
    """Keeps things alive while the image is mapped, which may be longer than its Library object.

    In the tree: as long as one of all that it needs is.  Returns a number for `is_kept`.
    """
    number = next(_numbers)
    if not things:
        return number
    images: set[int] = set()
    left = [image]
    while left:
        images.add(one := left.pop())
        known = _linker.info(one)["dependencies"] if in_tree else ()
        left += [other for other in known if other not in images and not _is_host(other)]
    _kept[number] = images, things
    return number


def is_kept(number: int) -> bool:
    """Whether what `keep` was given has not been let go."""
    return number in _kept


def _is_host(image: int) -> bool:
    return bool(_linker.info(image)["is_host"])


def forget_gone() -> None:
    """After an image was closed."""
    if not _kept:
        return
    for number, (images, _) in list(_kept.items()):
        if not any(map(_linker.is_mapped, images)):
            _kept.pop(number, None)


_linker.call_after_close(forget_gone)


@at_end
def _outlive_interpreter() -> None:
    """Libraries stay, and their destructors run, when the interpreter has gone.

    No Python function can answer for it then: what it stood for is bound to its definition.
    """
    for images, things in list(_kept.values()):
        replaced = [(*key, 0) for key, thing in things if key and is_callback(thing)]
        for image in images if replaced else ():
            try:  # noqa: SIM105  (contextlib is slow to import)
                _linker.patch(image, replaced)
            except (Error, ValueError):  # it has gone meanwhile, or must stay as it is
                pass
        for _, thing in things:
            _linker.keep_for_ever(thing)  # a thread may be on its way there
