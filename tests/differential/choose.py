"""Which of the system's libraries are compared.

Few: a library is a candidate if a Debian package owns it and this linker would map it itself; it is
chosen if glibc can open it in the driver and loads at most MOST_IMAGES for it, until its package
has had its turn MOST_OF_A_PACKAGE times.  All: every library below the system's folders and those
of this Python's packages, whether glibc can open it or not.  The system of another machine is the
folder that Debian's packages of that were unpacked into.
"""

from __future__ import annotations

import os
import sysconfig
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from differential.compare import HOST_FAMILY, NO_ROOM, NOT_FOUND, UNDEFINED
from support import elf64
from support.elf64 import Elf, system_libraries
from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_OF_A_PACKAGE = 5
MOST_IMAGES = 6
NO_PACKAGE = "(of no package)"
_SYSTEM = machine().sysroot if machine().is_foreign else Path("/")
ROOTS = [_SYSTEM / "usr/lib", _SYSTEM / "usr/local/lib"]
_DPKG = _SYSTEM / "var/lib/dpkg/info"


@dataclass(frozen=True)
class Candidate:
    path: str
    package: str
    features: frozenset[str]
    before: tuple[str, ...] = ()  # the driver's steps that it needs before it
    room: bool = False  # it needs more static TLS than a process has to spare

    @property
    def env(self) -> dict[str, str]:
        return {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=1048576"} if self.room else {}


def features(elf: Elf) -> frozenset[str]:
    """What a library shows that not every library shows."""
    found = {
        "C++": "libstdc++.so.6" in elf.needed,
        "IFUNC": elf.has_ifunc,
        "DF_SYMBOLIC": elf.is_symbolic,
        "DT_HASH only": elf64.DT_HASH in elf.tags and elf64.DT_GNU_HASH not in elf.tags,
        "RELR": bool(elf.relr),
        "TLS": elf.segment(elf64.PT_TLS) is not None,
        "unaligned places": elf.has_unaligned_place,
    }
    return frozenset(name for name, present in found.items() if present)


def owners() -> dict[str, str]:
    """Real path -> Debian package, of everything that looks like a shared library."""
    found: dict[str, str] = {}
    for listing in sorted(_DPKG.glob("*.list")):
        package = listing.name.removesuffix(".list").partition(":")[0]
        for line in listing.read_text(errors="surrogateescape").splitlines():
            # Links belong to -dev packages: only the file itself says who owns the library.
            path = _SYSTEM / line.lstrip("/")
            if ".so" in line and not path.is_symlink():
                found.setdefault(os.path.realpath(path), package)
    return found


def candidates() -> Iterator[Candidate]:
    """In path order within a package, those with the most features first."""
    owner = owners()
    found = []
    for elf in system_libraries(ROOTS):
        package = owner.get(os.path.realpath(elf.path))
        if package is None or elf.path.name in HOST_FAMILY or elf.needs_private_libc:
            continue
        found.append(Candidate(os.path.realpath(elf.path), package, features(elf)))
    yield from sorted(found, key=lambda one: (one.package, -len(one.features), one.path))


def _distance(plugin: str, library: str) -> tuple[int, int]:
    """There may be several libpython: the one of a plugin shares most of its path."""
    shared = os.path.commonpath([plugin, library]).count("/")
    return -shared, library.count("/")


def every_library(refusals: Callable[[list[Candidate]], list[str | None]]) -> list[Candidate]:
    """In path order, each with what it takes to open it.

    A plugin that counts on what its program has loaded comes after that, opened in the global
    scope: Python's and Perl's extensions after libpython and libperl.  What is meant to be there
    from a process's start gets room for its static TLS.

    Args:
        refusals: says of each candidate why glibc refuses it, if it does.
    """
    owner = owners()
    found: dict[str, Candidate] = {}
    definers: dict[str, list[str]] = defaultdict(list)
    roots = ROOTS if machine().is_foreign else [*ROOTS, Path(sysconfig.get_path("platlib"))]
    for elf in system_libraries(roots):
        path = os.path.realpath(elf.path)
        definers[elf.path.name].append(path)
        found[path] = Candidate(path, owner.get(path, NO_PACKAGE), features(elf))
        for symbol in elf.symbols:
            if symbol.section and symbol.binding != elf64.STB_LOCAL:
                definers[symbol.name].append(path)
    tried = list(found.values())
    while tried:
        following = []
        for candidate, error in zip(tried, refusals(tried), strict=True):
            if not error:
                found[candidate.path] = candidate
            elif NO_ROOM in error and not candidate.room:
                following.append(replace(candidate, room=True))
            elif missed := UNDEFINED.search(error) or NOT_FOUND.search(error):
                known = definers.get(missed[1], [candidate.path])
                step = f"+g:{min(known, key=partial(_distance, candidate.path))}"
                if step not in (f"+g:{candidate.path}", *candidate.before):
                    following.append(replace(candidate, before=(*candidate.before, step)))
        tried = following
    return list(found.values())
