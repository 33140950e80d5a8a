"""Blocks in which imports go to a namespace.

Not imported before it is used: `importlib.machinery` takes longer than all of this package.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from _thread import get_ident
from contextlib import nullcontext
from importlib.machinery import ExtensionFileLoader
from importlib.util import resolve_name
from types import ModuleType

from dlopen._lifecycle import new_lock
from dlopen._modules import ExtensionLoader, find_behind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import TracebackType
    from typing import Any, Protocol

    class Home(Protocol):
        """The namespace that modules are imported into."""

        _modules: dict[str, ModuleType]
        _block: Block | None
        _builtins: dict[str, Any] | None

        @property
        def closed(self) -> bool: ...
        def imports(self, *names: str) -> Block: ...
        def _entered(self) -> int: ...
        def _entered_for_module(self) -> int: ...
        def _open_extension(self, path: str, mode: int) -> int: ...


def top_of(name: str) -> str:
    """The top-level package of a module."""
    return name.partition(".")[0]


class Block:
    """The `with` block of `Namespace.imports`.

    A package belongs to the namespace as a whole or not at all: `_tops` are those that do.  While
    the block is the innermost, their modules are in `sys.modules`, and those of the same packages
    that were there are in `_displaced`.
    """

    def __init__(self, namespace: Home, names: Sequence[str]) -> None:
        for name in names:
            if not name or "." in name:
                raise ValueError(f"imports() takes names of top-level modules, not {name!r}")
            if name in sys.builtin_module_names or name == "dlopen":
                raise ValueError(f"{name} cannot be imported a second time")
        self._namespace = namespace
        self._names = frozenset(names)
        self._tops: set[str] = set()
        self._displaced: dict[str, ModuleType] = {}
        self._outer: Block | None = None

    def __enter__(self) -> None:
        _turn.acquire()
        try:
            self._namespace._entered()
            if _finder.block is self or self._is_suspended():
                raise ValueError("the block was entered already")
        except BaseException:
            _turn.release()
            raise
        self._tops = {*self._names}
        self._outer = _finder.block
        if self._outer is not None:
            self._outer._leave()
        else:
            _finder.thread = get_ident()
            sys.meta_path.insert(0, _finder)
        self._come()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if _finder.block is not self or _finder.thread != get_ident():
            raise RuntimeError("blocks end in the thread that entered them, the inner one first")
        self._leave()
        if self._outer is not None:
            self._outer._come()
        else:
            _finder.block = None
            _finder.thread = 0
            if _finder in sys.meta_path:
                sys.meta_path.remove(_finder)
        self._outer = None
        _turn.release()

    def _is_suspended(self) -> bool:
        block = _finder.block
        while block is not None and block is not self:
            block = block._outer
        return block is self

    def modules(self) -> dict[str, ModuleType]:
        """What is in `sys.modules` of the namespace's packages."""
        found = sys.modules.copy().items()  # other threads change it
        return {name: module for name, module in found if top_of(name) in self._tops}

    def _come(self) -> None:
        # Those of earlier blocks, and of the inner one that ends.
        self._tops.update(map(top_of, self._namespace._modules))
        self._displaced = self.modules()
        for name in self._displaced:
            sys.modules.pop(name, None)
        sys.modules.update(self._namespace._modules)
        self._namespace._block = _finder.block = self

    def _leave(self) -> None:
        self._namespace._modules = self.modules()
        self._namespace._block = None
        for name in self._namespace._modules:
            sys.modules.pop(name, None)
        sys.modules.update(self._displaced)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        """What the other finders say, if it is the namespace's, with a loader of ours."""
        top = top_of(name)
        if top not in self._tops and (top != name or top in sys.stdlib_module_names):
            return None
        spec = find_behind(_finder, name, path, target)
        if spec is None or spec.origin in ("built-in", "frozen"):
            return None
        self._tops.add(top)
        loader = spec.loader
        if isinstance(loader, ExtensionFileLoader):
            if not isinstance(loader, ExtensionLoader):
                loader = ExtensionLoader(loader.name, loader.path)
            loader.namespace = self._namespace
            spec.loader = loader
        elif hasattr(loader, "exec_module"):
            ours: Any = _Loader(loader, self._namespace)
            spec.loader = ours
        return spec


def importing(home: Home) -> dict[str, Any]:
    """The builtins of the namespace's modules."""
    if home._builtins is None:
        home._builtins = {**vars(builtins), "__import__": _Import(home)}
    return home._builtins


class _Loader:
    """Of a module of Python code: until it runs, when it gets its own loader and our `import`."""

    def __init__(self, loader: Any, home: Home) -> None:
        self._loader = loader
        self._home = home

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        create = getattr(self._loader, "create_module", None)
        made: ModuleType | None = create(spec) if create else None
        return made

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__:
            module.__spec__.loader = self._loader
        module.__dict__["__builtins__"] = importing(self._home)
        self._loader.exec_module(module)


class _Import:
    """The `import` of a namespace's modules, also in their functions, and outside of any block."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.importlib = _Importlib(self)

    def __call__(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  (as of `__import__`)
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        arguments = name, globals, locals, fromlist or (), level
        known = None if self._is_inside() else self._known(*arguments)
        if known is not None:
            return known
        if level or not self._is_of_others(top_of(name)):
            with self._block_for(name):
                return builtins.__import__(*arguments)
        found = builtins.__import__(*arguments)
        return self.importlib if found is importlib else found

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """As that of `importlib`."""
        full = resolve_name(name, package) if name.startswith(".") else name
        known = None if self._is_inside() else self._home._modules.get(full)
        if known is not None:
            return known
        if self._is_of_others(top_of(full)):
            return importlib.import_module(full)
        with self._block_for(full):
            return importlib.import_module(full)

    def imported(self, name: str) -> ModuleType | None:
        """What `sys.modules` has of it in the namespace."""
        own = self._home._modules
        is_own = top_of(name) in own and not self._is_inside()
        return own.get(name) if is_own else sys.modules.get(name)

    def _is_inside(self) -> bool:
        """Whether this thread is in a block of the namespace: then `sys.modules` has the rest."""
        return _finder.thread == get_ident() and self._home._block is not None

    def _block_for(self, name: str) -> Any:
        """What to import it in."""
        if self._is_inside():
            return nullcontext()
        if self._home.closed:
            raise ModuleNotFoundError(f"the namespace is closed: no import of {name}", name=name)
        return self._home.imports()

    def _known(
        self, name: str, globals_: Any, _: object, fromlist: Sequence[str], level: int
    ) -> ModuleType | None:
        """What was imported in blocks that ended: no turn is waited for."""
        modules = self._home._modules
        if not fromlist:
            return modules.get(top_of(name)) if not level and name in modules else None
        if level:
            parent = str((globals_ or {}).get("__package__") or "").rsplit(".", level - 1)[0]
            name = f"{parent}.{name}" if name else parent
        module = modules.get(name)
        return module if all(one != "*" and hasattr(module, one) for one in fromlist) else None

    def _is_of_others(self, top: str) -> bool:
        """Whether this package is the process's.  While another thread is in a block, who knows."""
        if top in self._home._modules:
            return False
        if top in sys.stdlib_module_names or self._home.closed:
            return True
        return _finder.block is None and top in sys.modules


class _Importlib(ModuleType):
    """What the namespace's modules get as `importlib`: with an `import_module` for them."""

    def __init__(self, importing: _Import) -> None:
        super().__init__("importlib")
        self.__dict__.update(vars(importlib), import_module=importing.import_module)

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)


class _Finder:
    """Stands before all others in `sys.meta_path` while a thread is in a block."""

    block: Block | None = None  # the innermost
    thread = 0  # that is in it

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        block = self.block
        if block is None or self.thread != get_ident():
            return None
        return block.find_spec(name, path, target)


_finder = _Finder()
# Of the thread that is in a block: held while the caller's own code runs, unlike other locks.
_turn = new_lock()
