"""The images of this process, and where a name would come from."""

from __future__ import annotations

import ctypes
import os
import sys
from _ctypes import CFuncPtr

from dlopen import _linker
from dlopen._records import Record, or_log
from dlopen.errors import one_line, why_not
from dlopen.functions import ClosedFunction, function_type
from dlopen.info import Info
from dlopen.library import Library
from dlopen.symbols import Symbol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, SupportsInt


class AddressInfo(Record):
    """What is at an address; see dladdr(3)."""

    library: Info
    symbol: Symbol | None
    """The nearest symbol at or below it, or None."""
    offset: int
    """Bytes from the symbol, or without one from the start of the mapping."""


class Candidate(Record):
    """A file that a search looked at."""

    path: str
    origin: str
    """What made it a candidate: a RUNPATH, the cache, a default directory …"""
    reason: str
    """Why it was not taken; "" for the one that was."""


class Found(Record):
    """The result of a search."""

    path: str | None
    """Where the name would come from; None if nowhere."""
    candidates: tuple[Candidate, ...]
    """What was tried, in order."""


def existing(
    name: str | bytes | os.PathLike[str] | os.PathLike[bytes] | Info,
    *,
    gil: bool = False,
    use_errno: bool = False,
) -> Library:
    """A library that is loaded already, by us or by the host's loader.

    It stays loaded until the object is closed.

    Args:
        name: A path, a soname or a base name, by which any library would find it; or else a path
            exactly as `Info.path` has it, which also leads to the program, and to what is
            `PRIVATE`, from bytes or in a namespace (of several, to the first).  Or an `Info`, of
            `libraries()`, `dladdr` or `dependencies`, which is always that very image.
        gil: As in `Library`.
        use_errno: As in `Library`.

    Raises:
        LoadError: It is not loaded.
        ValueError: The image of the `Info` has gone.
        Error: It is an `Image` that was not linked.
    """
    library = Library.__new__(Library)
    encoded = b"" if isinstance(name, Info) else _linker.encode_name(name)
    path = name.path if isinstance(name, Info) else os.fsdecode(encoded)
    sys.audit("dlopen.open", path, os.RTLD_NOLOAD)
    if isinstance(name, Info):
        image = or_log(_count, path, name)
    else:
        image = or_log(_linker.existing, path, encoded)
    library._adopt(image, path, function_type(gil, use_errno), False)
    return library


def _count(info: Info) -> int:
    """Open the image of a snapshot once more; another one may be at its address by now."""
    image = info._image
    gone = one_line(f"{info.path or 'the program'} is not loaded any more")
    try:
        _linker.existing(None, image)
    except ValueError:
        raise ValueError(gone) from None
    if Info(image) != info:
        _linker.close(image)
        raise ValueError(gone)
    return image


def libraries() -> list[Info]:
    """A snapshot of all images in this process: the host's, then ours, each in load order."""
    found = []
    for image in _linker.images():
        try:
            found.append(Info(image))
        except ValueError:  # unloaded since
            continue
    return found


def dl_iterate_phdr(callback: Callable[[Info], Any]) -> Any:
    """Call `callback` for each image until it returns something true, and return that; else 0.

    See dl_iterate_phdr(3): `dlpi_addr` is `load_bias`, `dlpi_name` is `name`, `dlpi_phdr` is
    `segments`.
    """
    for info in libraries():
        if result := callback(info):
            return result
    return 0


def dladdr(address: SupportsInt | Any) -> AddressInfo | None:
    """What is at an address: an int, a `Symbol`, or a ctypes function or pointer.

    Returns None if no image is there.  See dladdr(3).
    """
    if isinstance(address, ClosedFunction):
        raise ValueError(f"{address!r} has no address any more")
    if isinstance(address, (ctypes._SimpleCData, ctypes._Pointer, CFuncPtr)):
        address = ctypes.cast(address, ctypes.c_void_p).value or 0
    number = int(address)
    found = _linker.address(number) if 0 <= number < 1 << 64 else None
    if found is None:
        return None
    image, nearest = found
    try:
        info = Info(image)
    except ValueError:  # unloaded since
        return None
    if nearest is None:
        return AddressInfo(info, None, number - info.map_start)
    start = nearest[2] or (info.load_bias + nearest[3]) % (1 << 64)
    return AddressInfo(info, Symbol(nearest, info), number - start)


def find(name: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Found:
    """Where a name would come from, and what was tried; nothing is loaded.  See ld.so(8)."""
    trail = _linker.find(_linker.encode_name(name))
    chosen = next((path for path, _, result in trail if result in (0, "LOADED")), None)
    return Found(chosen, tuple(Candidate(path, origin, why_not(r)) for path, origin, r in trail))
