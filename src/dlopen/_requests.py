"""What an open is given: a name or the content of a file."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer


def encode_name(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bytes:
    """A library's name for the core.

    A str or bytes without a slash is a name to be searched, as dlopen(3) does; an `os.PathLike`
    is always a file (`Path("./x.so")` drops its "./").
    """
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    return b"./" + name if isinstance(path, os.PathLike) and b"/" not in name else name


def content(data: Buffer | None) -> Buffer:
    """What is given as bytes.  To the core None is a file that it shall read."""
    if data is None:
        raise TypeError("a bytes-like object is required, not None")
    return data
