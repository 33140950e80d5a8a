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


RTLD_LOCAL = Mode.RTLD_LOCAL
RTLD_LAZY = Mode.RTLD_LAZY
RTLD_NOW = Mode.RTLD_NOW
RTLD_NOLOAD = Mode.RTLD_NOLOAD
RTLD_DEEPBIND = Mode.RTLD_DEEPBIND
RTLD_GLOBAL = Mode.RTLD_GLOBAL
RTLD_NODELETE = Mode.RTLD_NODELETE
PRIVATE = Mode.PRIVATE
