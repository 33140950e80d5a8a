"""The flags of dlopen(3), and one of our own."""

from __future__ import annotations

import os
from enum import IntFlag

from dlopen import _linker


class Mode(IntFlag):
    """How to open a library; the values are those of `os.RTLD_*`."""

    RTLD_LOCAL = os.RTLD_LOCAL
    RTLD_LAZY = os.RTLD_LAZY
    RTLD_NOW = os.RTLD_NOW
    RTLD_NOLOAD = os.RTLD_NOLOAD
    RTLD_DEEPBIND = os.RTLD_DEEPBIND
    RTLD_GLOBAL = os.RTLD_GLOBAL
    RTLD_NODELETE = os.RTLD_NODELETE
    PRIVATE = _linker.PRIVATE
    """An image of one's own, beside any other of the same file; it finds itself first."""


_HIGHEST = (1 << 32) - 1


def flags_of(mode: int) -> int:
    """A mode for the core.  Raises `ValueError` for what cannot be one."""
    if mode.__class__ in _MODE_TYPES and mode in _known:
        return _known[mode]
    flags = int(Mode(mode))
    if not 0 <= mode <= _HIGHEST:
        raise ValueError(f"{mode!r} is not a valid Mode")
    if len(_known) < _MOST:
        _known[flags] = flags
    return flags


_MODE_TYPES = (Mode, int)
_known: dict[int, int] = {}  # modes that were checked: an enumeration takes a microsecond
_MOST = 256


RTLD_LOCAL = Mode.RTLD_LOCAL
RTLD_LAZY = Mode.RTLD_LAZY
RTLD_NOW = Mode.RTLD_NOW
RTLD_NOLOAD = Mode.RTLD_NOLOAD
RTLD_DEEPBIND = Mode.RTLD_DEEPBIND
RTLD_GLOBAL = Mode.RTLD_GLOBAL
RTLD_NODELETE = Mode.RTLD_NODELETE
PRIVATE = Mode.PRIVATE
