"""Small immutable records, and logging; both without what makes an import slow.

`dataclasses`, `typing` and `logging` would each take longer to import than this whole package.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from logging import Logger
    from typing import Any, ClassVar, TypeVar

    T = TypeVar("T")


class Record:
    """An immutable object with the annotated names of its class as attributes, in order."""

    _names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._names = tuple(cls.__annotations__)

    def __init__(self, *values: Any) -> None:
        self.__dict__.update(zip(self._names, values, strict=True))

    def __iter__(self) -> Iterator[Any]:
        return (self.__dict__[name] for name in self._names)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and tuple(other) == tuple(self)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._names)
        return f"{type(self).__name__}({fields})"


_loggers: dict[str, Logger] = {}  # getLogger takes longer than all else here


def log(name: str, message: str, *values: object) -> None:
    """Log at level DEBUG.  Who has not imported `logging` has no handler either."""
    if logging := sys.modules.get("logging"):
        logger = _loggers.get(name)
        if logger is None:
            logger = _loggers.setdefault(name, logging.getLogger(name))
        logger.debug(message, *values)


def or_log(act: Callable[..., T], path: object, /, *arguments: Any, **keywords: Any) -> T:
    """What `act` returns for an open; why it has failed is logged."""
    try:
        return act(*arguments, **keywords)
    except BaseException as error:
        log_refused(path, error)
        raise


def log_refused(path: object, error: BaseException) -> None:
    """Why an open has failed, for who has no time for `or_log`."""
    log("dlopen.library", "cannot open %r: %s", path, error)
