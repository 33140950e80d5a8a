"""Patches: what a library that is loaded refers to, exchanged for a while.

A thread may be anywhere in a call when a patch ends, so a C function that a patch has put in place
must not be freed then.  Where a Python function stands for a symbol, the places therefore lead to
a C function that stays as long as the image does (`_Switch`): one for each symbol of an image and
each prototype, however many patches come and go.  It calls what is patched in at that moment.
"""

from __future__ import annotations

import ctypes
import sys
from _ctypes import CFuncPtr
from types import MappingProxyType
from weakref import WeakValueDictionary

from dlopen import _linker
from dlopen._lifecycle import at_end, new_lock
from dlopen._linker import split_key
from dlopen._records import log
from dlopen._replacing import address_of, is_kept, keep
from dlopen.callbacks import is_callback, make_callback, outcome_of
from dlopen.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Protocol, Self

    from dlopen._gate import Passage
    from dlopen._replacing import Replacement
    from dlopen.callbacks import Outcome

    class Patchable(Protocol):
        """A library, as far as its patches need to know it."""

        _path: str
        _version: int

        @property
        def _lock(self) -> Any: ...
        def _open_image(self) -> int: ...
        def _inside(self) -> Passage: ...


_MAX_ERRORS = 10  # that are kept of one patch: a callback may fail a million times


class _Switch:
    """Calls one of several Python functions: that of the latest patch, or else the original."""

    address: int
    number: int
    """What `keep` returned for its C function."""

    def __init__(self, kind: Any) -> None:  # a ctypes prototype
        self._kind = kind
        self._original = 0
        self._callbacks: dict[Patch, Any] = {}  # changed under `_lock`
        # Of the last one; read by any thread.
        self._latest: tuple[Patch, Callable[..., Any], Outcome] | None = None

    def make(self) -> Any:
        """The C function, which keeps `self`; not kept here: see `_switches`."""
        made = make_callback(self._kind, self._call)
        self.address = address_of(made)
        return made

    def add(self, patch: Patch, callback: Any) -> None:
        self._callbacks[patch] = callback
        self._choose(patch, callback)

    def remove(self, patch: Patch) -> None:
        self._callbacks.pop(patch, None)
        last = next(reversed(self._callbacks), None)
        if last is None:
            self._latest = None
        else:
            self._choose(last, self._callbacks[last])

    def _choose(self, patch: Patch, callback: Any) -> None:
        function = getattr(callback, "__wrapped__", callback)
        self._latest = patch, function, outcome_of(callback)

    def leads_to(self, original: int) -> None:
        self._original = original

    def _call(self, *arguments: Any) -> Any:
        latest = self._latest
        if latest is None:  # this thread was on its way here when the last patch ended
            if self._original:
                return self._kind(self._original)(*arguments)
            return outcome_of(self._kind).give()
        patch, function, outcome = latest
        try:
            return outcome.checked(function(*arguments))
        except BaseException as error:  # noqa: BLE001  (raised by `Patch.restore`, or told)
            if patch._note(error):
                return outcome.give()
            return outcome.report(function, error)


# By image, where it is mapped, symbol, version and prototype.  Each is of use as long as its C
# function is kept for the image; it may be here longer, when another image has the same address.
# Under `_lock`, which is not held while foreign code runs.
_switches: WeakValueDictionary[tuple[object, ...], _Switch] = WeakValueDictionary()
_lock = new_lock()
_in_force: dict[int, Patch] = {}  # by number


class Patch:
    """Symbols that are patched in one library: what `Library.patch` returns.

    It is in force from then on; `restore`, or the end of a `with` block, takes it back.
    """

    original: Mapping[str, Any]
    """By the keys that were given: what the places led to without any patch, as a function of the
    replacement's prototype (for an address or a `Symbol`: one that returns int).  None: nothing."""
    places: Mapping[str, int]
    """How many places were bound anew.  0: the library does not refer to the symbol, or in no way
    that can be changed."""

    def __init__(self, library: Patchable, replacements: Mapping[str, Replacement]) -> None:
        """See `Library.patch`."""
        library._open_image()
        sys.audit("dlopen.patch", library._path, tuple(replacements))
        self._library = library
        self._replacements = dict(replacements)  # alive while they are in force
        self._lock = new_lock()  # guards what follows
        self._collects = True
        self._errors: list[BaseException] = []
        self._error_count = 0
        # Guarded by the library's lock, as its version is: a reload moves what is in force.
        self._in_force = True
        self._applied: Applied
        # All the rest was set: what is called through a place that is patched, and a reload, which
        # finds this in `_in_force`, may come at once.
        self._apply_and_register()
        log("dlopen.patch", "patched %r: %r", library, dict(self.places))

    def _apply_and_register(self) -> None:
        # Counted as a call, so that the version that is patched stays mapped meanwhile.
        with self._library._inside():
            self._apply_inside(self._library)

    def _apply_inside(self, library: Patchable) -> None:
        while True:
            with library._lock:
                image, version = library._open_image(), library._version
            try:
                applied = self.apply_to(image)
            except ValueError:  # the version has gone
                if library._version == version:
                    raise
                continue
            with library._lock:
                if library._version == version:
                    self._applied = applied
                    self._describe()
                    _in_force[applied.number] = self
                    return
            applied.take_back()

    def apply_to(self, image: int) -> Applied:
        """Patch one version of the library; with no lock held, since a resolver may run."""
        replacements = self._replacements.copy()  # another thread may end it
        switches = {
            key: _switch_for(image, key, thing)
            for key, thing in replacements.items()
            if is_callback(thing)
        }
        addresses = [
            (*split_key(key), switches[key].address if key in switches else address_of(thing))
            for key, thing in replacements.items()
        ]
        with _lock:
            for key, switch in switches.items():
                switch.add(self, replacements[key])
        try:
            number, results = _linker.patch(image, addresses)
        except BaseException:
            _leave(self, switches)
            raise
        for key, (_, original) in zip(replacements, results, strict=True):
            if key in switches:
                switches[key].leads_to(original)
        return Applied(self, switches, number, results)

    def take_over(self, applied: Applied) -> Applied:
        """Under the library's lock: it is the new version's now.

        Returns what is to be taken back: what was in force, or this, if that was restored.
        """
        if not self._in_force:
            return applied
        old, self._applied = self._applied, applied
        _in_force[applied.number] = self
        _in_force.pop(old.number, None)
        self._describe()
        return old

    def _describe(self) -> None:
        pairs = list(zip(self._replacements.items(), self._applied.results, strict=True))
        self.original = MappingProxyType(
            {
                key: _function_like(thing, original) if original else None
                for (key, thing), (_, original) in pairs
            }
        )
        self.places = MappingProxyType({key: places for (key, _), (places, _) in pairs})

    def _note(self, error: BaseException) -> bool:
        """An exception in a callback; False if nobody would raise it any more."""
        with self._lock:
            if not self._collects:
                return False
            self._error_count += 1
            if len(self._errors) < _MAX_ERRORS:
                self._errors.append(error)
            return True

    @property
    def in_force(self) -> bool:
        """Whether it was not taken back yet."""
        return self._in_force

    def restore(self) -> None:
        """Take it back; further calls do nothing.

        Each place that no other patch holds gets the very word that stood there.

        Raises:
            Exception: What a callback raised meanwhile: the exception itself, or a
                `BaseExceptionGroup` of the first ones.
            LoadError: The kernel does not let the places be changed; the patch is in force still.
        """
        with self._library._lock:
            if not self._in_force:
                return
            self._in_force = False
            applied = self._applied
            _in_force.pop(applied.number, None)
        try:
            applied.take_back()
        except Error:
            with self._library._lock:
                self._in_force = True
                _in_force[applied.number] = self
            raise
        with self._lock:
            self._collects = False
            errors, self._errors = self._errors, []
        self._replacements.clear()
        log("dlopen.patch", "restored %r", self._library)
        _raise_all(f"callbacks failed {self._error_count} times", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.restore()
        except BaseException as failed:
            if error is None:
                raise
            error.add_note(f"A callback of the patch had failed: {failed!r}")

    def __repr__(self) -> str:
        state = "in force" if self.in_force else "restored"
        return f"<dlopen.Patch of {', '.join(self.places)} in {self._library!r}, {state}>"


class Applied:
    """A patch in one version of a library."""

    def __init__(
        self,
        patch: Patch,
        switches: dict[str, _Switch],
        number: int,
        results: list[tuple[int, int]],
    ) -> None:
        self._patch = patch
        self._switches = switches
        self.number = number
        self.results = results  # (places, original) by symbol

    @property
    def has_callbacks(self) -> bool:
        """Whether Python functions are among what is patched in."""
        return bool(self._switches)

    def take_back(self) -> None:
        """Each place gets what it had; what only the patch has kept may go."""
        _linker.unpatch(self.number)
        _leave(self._patch, self._switches)


def _leave(patch: Patch, switches: dict[str, _Switch]) -> None:
    with _lock:
        for switch in switches.values():
            switch.remove(patch)


def patches_of(library: Patchable) -> list[Patch]:
    """Those that are in force in it, in the order in which they were made."""
    return [patch for patch in list(_in_force.values()) if patch._library is library]


def _switch_for(image: int, key: str, thing: object) -> _Switch:
    kind: Any = type(thing)
    where = image, _linker.info(image)["map_start"], *split_key(key), kind
    with _lock:
        switch = _switches.get(where)
        if switch is None or not is_kept(switch.number):
            switch = _switches[where] = _Switch(kind)
            switch.number = keep(image, [(None, switch.make())])
        return switch


def _function_like(thing: object, address: int) -> Any:
    if is_callback(thing):
        return type(thing)(address)  # type: ignore[call-arg]
    function = ctypes.CFUNCTYPE(ctypes.c_int)(address)
    if isinstance(thing, CFuncPtr):
        function.restype = thing.restype
        function.argtypes = thing.argtypes
    return function


def _raise_all(message: str, errors: list[BaseException]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup(message, errors)


@at_end
def _restore_all() -> None:
    """No Python function can answer for C code that runs after the interpreter's end."""
    errors: list[BaseException] = []
    for patch in list(_in_force.values()):
        if patch._applied.has_callbacks:
            try:
                patch.restore()
            except BaseException as error:  # noqa: BLE001  (raised below)
                errors.append(error)
    _raise_all("callbacks of patches failed", errors)
