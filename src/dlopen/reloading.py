"""Hot swap: a new version of a library takes the place of the old one while both are loaded.

Calls from Python pass a gate (`_gate`), which is closed for the moment of the switch.  Calls from C
pass none: they go to the old version until their place is bound anew, and may be inside of it for
ever; so its code stays until somebody who knows says that they are not (`release_old`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from time import monotonic, sleep
from weakref import ref

from dlopen import _linker
from dlopen._files import content_of
from dlopen._gate import Gate, release_image
from dlopen._records import Record, log, or_log
from dlopen.errors import Error, LoadError, SymbolError, one_line
from dlopen.functions import check_size
from dlopen.patching import patches_of
from dlopen.symbols import Symbol, undefined_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    from typing_extensions import Buffer

    from dlopen._requests import Request
    from dlopen.functions import Function, Variable
    from dlopen.patching import Applied, Patch, Patchable
    from dlopen.symbols import Listed

    class Reloadable(Patchable, Listed, Protocol):
        """A library, as far as its reload needs to know it: see `Library`."""

        _image: int | None

        def _handed_out(self) -> list[Function]: ...
        def _redirect(
            self, function: Function, image: int, found: tuple[int, int] | None
        ) -> None: ...


_LONGEST_WAIT = 0.01  # seconds for which new calls are held while others end
# With the GIL: while calls are held, other threads would take it at each of many variables.
_copy = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(
    ctypes.cast(ctypes.memmove, ctypes.c_void_p).value or 0
)


class Reloaded(Record):
    """What a reload has done."""

    version: int
    """How many times the library was reloaded by now."""
    places: int
    """Places of other libraries that were bound to the new version."""
    kept: tuple[str, ...]
    """Variables whose values were moved."""
    held: float
    """Seconds for which calls from Python were held back."""


class _Checked(Record):
    """What was found in a new version."""

    addresses: dict[str, tuple[int, int]]  # and types, of functions
    variables: set[ref[Variable]]


class Reloading:
    """State of a library opened with `reload=True`: request, variables handed out, gate."""

    def __init__(self, request: Request, *, is_from_file: bool) -> None:
        name = request.name
        if name is None:
            raise ValueError("the program cannot be reloaded")
        self.path: str | None = None  # of the file on disk
        self._identity: tuple[int, ...] = ()  # of its content, when it was read last
        if is_from_file:
            plain = os.path.normpath(os.fsdecode(name))
            if request.read is None or request.read(plain) is None:
                plain = self.path = _find(name)
            name = os.fsencode(plain)
        self._is_from_file = is_from_file
        self._name = os.fsdecode(name)
        self._request = request.changed(name=name, flags=request.flags | _linker.RELOADABLE)
        self._variables: set[ref[Variable]] = set()
        self.gate: Gate  # from the first load on

    def load(self, source: object, replaces: int = 0) -> int:
        """A new image of it, from the file as it is now or from `source`."""
        data: Any = source
        if source is None and not self._is_from_file:
            raise ValueError("a library from bytes is reloaded from a source")
        if source is None or isinstance(source, (str, os.PathLike)):
            data = self._content(os.fspath(source or self._name))
        sys.audit("dlopen.open", self._name, self._request.mode)
        image = self._request.open(data, replaces)
        if not replaces:
            self.gate = Gate(image)
        return image

    def _content(self, path: str) -> Buffer:
        read = self._request.read
        found = read(path) if read else None
        if found is None:
            found, identity = _read(path)
            if path == self.path:
                self._identity = identity
        return content_of(found)

    def has_changed(self) -> bool:
        """Whether the file is another one, or was written, since it was read last."""
        if self.path is None:
            return False
        try:
            status = os.stat(self.path)  # noqa: PTH116  (pathlib takes long to import)
            return _identity(status) != self._identity
        except OSError:  # between two versions
            return False

    def note_variable(self, variable: Variable) -> None:
        """It was handed out: a new version must have it, too."""
        self._variables.add(ref(variable, self._variables.discard))

    def reload(
        self, library: Reloadable, source: object, keep: Iterable[str], timeout: float
    ) -> Reloaded:
        """See `Library.reload`."""
        names = names_of(keep)
        gate = self.gate
        if not gate.begin_reload():
            raise Error(f"{library._path} is being reloaded already")
        try:
            return self._reload(library, source, names, timeout)
        finally:
            gate.end_reload()

    def _reload(
        self, library: Reloadable, source: object, keep: tuple[str, ...], timeout: float
    ) -> Reloaded:
        old = library._open_image()
        _linker.retain(old)  # if another thread closes it meanwhile, what is looked at stays
        try:
            return self._replace(library, old, source, keep, timeout)
        except BaseException as error:
            release_image(old)
            if isinstance(error, ValueError) and library._image != old:
                raise _closed_meanwhile(library) from None
            raise

    def _replace(
        self, library: Reloadable, old: int, source: object, keep: tuple[str, ...], timeout: float
    ) -> Reloaded:
        new = or_log(self.load, library._path, source, replaces=old)
        try:
            moves = [_move(library, old, new, name) for name in keep]
            checked = _Checked({}, set())
            self._check_objects(library, new, checked)
            patches: dict[Patch, Applied | None] = {}
            outdated: list[Applied] = []
            try:
                for patch in patches_of(library):
                    patches[patch] = patch.apply_to(new)
                try:
                    begun = self._close_gate(library, timeout if moves else 0)
                    if library._image != old:
                        raise _closed_meanwhile(library)
                    # What other threads have made meanwhile.
                    self._check_objects(library, new, checked)
                    for target, origin, size in moves:
                        _copy(target, origin, size)
                    places = _linker.swap(old, new)
                    number = self._switch(library, old, new, checked.addresses, patches, outdated)
                finally:
                    self.gate.open()
                held = monotonic() - begun
            except BaseException:
                for applied in filter(None, patches.values()):
                    applied.take_back()
                raise
        except BaseException:
            _linker.close(new)
            raise
        for applied in outdated:
            try:
                applied.take_back()
            except Error as error:  # it goes with the old version
                log("dlopen.reload", "a patch stays in the old version: %s", error)
        self.gate.clear()
        log("dlopen.reload", "reloaded %r: version %d", library, number)
        return Reloaded(number, places, keep, held)

    def _close_gate(self, library: Reloadable, timeout: float) -> float:
        """Wait until no other thread is inside, or `timeout` is over; returns when it was closed.

        Calls are held for a moment only: what is inside may stay for long.
        """
        end = monotonic() + timeout
        while True:
            begun = monotonic()
            inside = self.gate.close(_LONGEST_WAIT)
            if not inside or not timeout:
                return begun
            self.gate.open()
            if monotonic() > end:
                raise Error(
                    f"{library._path}: {inside} threads are still inside of it after {timeout} s, "
                    "and may be changing what shall be kept"
                )
            sleep(_LONGEST_WAIT)

    def _check_objects(self, library: Reloadable, new: int, checked: _Checked) -> None:
        """What was handed out must be there in the new version."""
        for function in library._handed_out():
            name = function.__name__
            if name not in checked.addresses:
                checked.addresses[name] = _address(library, new, name)
        for reference in self._variables - checked.variables:
            if variable := reference():
                name = variable._symbol.key
                found = _linker.symbol(new, *_linker.split_key(name), False)
                if found is None:
                    raise _missing(library, new, name)
                check_size(name, found[4], variable._type)
                checked.variables.add(reference)

    def _switch(
        self,
        library: Reloadable,
        old: int,
        new: int,
        addresses: dict[str, tuple[int, int]],
        patches: dict[Patch, Applied | None],
        outdated: list[Applied],
    ) -> int:
        """`patches` are those that are in force in the new version already."""
        late: list[Patch] = []
        while True:
            for patch in late:
                patches[patch] = _apply_late(patch, new)
            with library._lock:
                if library._image != old:
                    raise _closed_meanwhile(library)
                late = [patch for patch in patches_of(library) if patch not in patches]
                if not late:
                    library._version = number = self.gate.succeed(new)
                    library._image = new
                    library._keys = None
                    outdated += [
                        patch.take_over(applied) for patch, applied in patches.items() if applied
                    ]
                    break
        for function in library._handed_out():
            library._redirect(function, new, addresses.get(function.__name__))
        return number


def _apply_late(patch: Patch, image: int) -> Applied | None:
    """It was made in the moment of the switch, which cannot fail any more."""
    try:
        return patch.apply_to(image)
    except Exception as error:  # noqa: BLE001
        log("dlopen.reload", "%r stays in the old version: %s", patch, error)
        return None


def _closed_meanwhile(library: Reloadable) -> ValueError:
    return ValueError(one_line(f"{library._path} was closed meanwhile"))


def names_of(keep: Iterable[str]) -> tuple[str, ...]:
    """`keep` as a tuple; a single string is refused."""
    if isinstance(keep, (str, bytes)):
        raise TypeError(f"keep holds names, and is none itself: [{keep!r}]")
    return tuple(keep)


def _missing(library: Reloadable, image: int, name: str) -> Exception:
    """As the core says it of other libraries' places; `image` is the new version."""
    symbol, _, version = name.partition("@")
    return SymbolError(
        f"{library._path}: the new version lacks a symbol that is in use: {name}",
        symbol=symbol,
        version=version.removeprefix("@"),
        library=library._path,
        exports=_linker.exports(image),  # listed now: the new version is closed next
    )


def _address(library: Reloadable, image: int, name: str) -> tuple[int, int]:
    found = _linker.symbol_address(image, *_linker.split_key(name), False)
    if found is None or not found[0]:
        raise _missing(library, image, name)
    return found


def _move(library: Reloadable, old: int, new: int, name: str) -> tuple[int, int, int]:
    """Where a variable is in the new version, where in the old one, and its size."""
    found = []
    for image in (old, new):
        symbol = _linker.symbol(image, *_linker.split_key(name), True)
        if symbol is None:
            raise (_missing(library, new, name) if image == new else undefined_in(library, name))
        found.append(symbol)
    (before, after) = (Symbol(one, library) for one in found)
    if before.type != "OBJECT" or not before.size:
        raise Error(f"{library._path}: {name} cannot be kept: it is no variable ({before.type})")
    for what, one, other in (
        ("type", before.type, after.type),
        ("size", before.size, after.size),
    ):
        if one != other:
            raise Error(
                f"{library._path}: {name} cannot be kept: its {what} was {one} and is {other} now"
            )
    origin, target = found[0][2], found[1][2]
    if not _is_writable(new, target):
        raise Error(f"{library._path}: {name} cannot be kept: it is read-only in the new version")
    return target, origin, before.size


def _is_writable(image: int, address: int) -> bool:
    """Neither constant nor sealed by RELRO."""
    known = _linker.info(image)
    inside = {
        type_: flags
        for type_, flags, _, vaddr, _, memsz, _ in known["segments"]
        if type_ in (_PT_LOAD, _PT_GNU_RELRO) and 0 <= address - known["load_bias"] - vaddr < memsz
    }
    return bool(inside.get(_PT_LOAD, 0) & _PF_W) and _PT_GNU_RELRO not in inside


# Of program headers, see elf(5).
_PT_LOAD = 1
_PT_GNU_RELRO = 0x6474E552
_PF_W = 2


def _find(name: bytes) -> str:
    """The absolute path of a file; what the search finds for a name without a slash."""
    if b"/" not in name:
        found = [path for path, _, result in _linker.find(name) if result == 0]
        if not found:
            _linker.close(_linker.open(name, None, os.RTLD_LAZY))  # for its error
        name = os.fsencode(found[0])
    return os.path.abspath(os.fsdecode(name))  # noqa: PTH100  (as the linker: links stay)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: str) -> tuple[bytes, tuple[int, ...]]:
    """The content of a file, and the identity that it had before it was read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (pathlib takes long to import)
            identity = _identity(os.fstat(file.fileno()))
            return file.read(), identity
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise LoadError(
            f"{path}: cannot open shared object file: {reason}",
            library=path,
            reason=reason,
            error_number=error.errno or 0,
        ) from None
