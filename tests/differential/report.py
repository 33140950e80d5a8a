"""Runs the comparison over the chosen and the built libraries, and sums it up."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from differential import built
from differential.choose import (
    MOST_IMAGES,
    MOST_OF_A_PACKAGE,
    NO_PACKAGE,
    Candidate,
    candidates,
    every_library,
    features,
)
from differential.compare import (
    REPORTED_TYPES,
    Comparison,
    Difference,
    Dump,
    compare,
    descriptors,
    is_host,
    open_elf,
    run_driver,
)
from support.fixtures import compile_library, compile_program
from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DRIVER = Path(__file__).with_name("driver.c")
BUILT = "(built here)"
_HELPER = "libtls.so"
_HELPER_SOURCE = """
void *__tls_get_addr(const unsigned long index[2]);
void *tls_address(const unsigned long index[2]) { return __tls_get_addr(index); }
"""


@dataclass
class Report:
    """The sum over all libraries."""

    system_libraries: int = 0
    packages: int = 0
    built_libraries: int = 0
    after_others: int = 0  # system libraries that do not name all that they need
    with_room: int = 0  # with more room for static TLS than a process has
    images: int = 0
    features: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(REPORTED_TYPES, 0)))
    bound: Counter[str] = field(default_factory=Counter)
    by_nature: Counter[str] = field(default_factory=Counter)
    refused: dict[str, list[str]] = field(default_factory=dict)  # libraries, by kind of reason
    differences: list[Difference] = field(default_factory=list)

    def add(self, candidate: Candidate, comparison: Comparison) -> None:
        if comparison.refused:
            assert candidate.package != BUILT, f"{candidate.path}: {comparison.refused}"
            kind, _, what = comparison.refused.partition(": ")
            text = f"{candidate.path} ({what})" if what else candidate.path
            self.refused.setdefault(kind, []).append(text)
            return
        if candidate.package == BUILT:
            self.built_libraries += 1
        else:
            self.system_libraries += 1
            self.after_others += bool(candidate.before)
            self.with_room += candidate.room
        self.images += comparison.images
        self.features.update(candidate.features)
        self.places.update(comparison.places)
        self.bound.update(comparison.bound)
        self.by_nature.update(comparison.by_nature)
        self.differences += comparison.differences

    def text(self) -> str:
        lines = [
            f"{self.system_libraries} libraries of {self.packages} packages",
            f"{self.after_others} of them after others that they do not name",
            f"{self.with_room} of them with more room for static TLS",
            f"{self.built_libraries} built ones; {self.images} images compared",
            "libraries with: "
            + ", ".join(f"{name} {count}" for name, count in sorted(self.features.items())),
            "",
            "relocated places by type:",
            *(f"{count:>10,}  {name}" for name, count in self.places.most_common()),
            f"{sum(self.places.values()):>10,}  in all",
            "",
            "places with a symbol, by what they got:",
            *(f"{count:>10,}  {kind}" for kind, count in self.bound.most_common()),
            "",
            "different by nature:",
            *(f"{count:>10,}  {reason}" for reason, count in self.by_nature.most_common()),
            "",
            f"refused by both linkers, or by design: {sum(map(len, self.refused.values()))}",
            *(
                f"{len(libraries):>10,}  {kind}: {', '.join(map(os.path.basename, libraries))}"
                for kind, libraries in sorted(self.refused.items(), key=lambda item: -len(item[1]))
            ),
            "",
            f"unexplained differences: {len(self.differences)}",
            *map(str, self.differences[:50]),
        ]
        return "\n".join(lines) + "\n"

    def write(self, directory: Path, name: str = "report") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{name}.txt").write_text(self.text())
        content = vars(self) | {"differences": [asdict(one) for one in self.differences]}
        (directory / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def build_driver(directory: Path) -> Path:
    """The driver, with its helper beside it."""
    compile_library(directory, _HELPER, _HELPER_SOURCE)
    return compile_program(directory, "driver", DRIVER)


def dump(driver: Path, loader: str, *steps: str, env: Mapping[str, str] | None = None) -> Dump:
    """What the driver shows, with all TLS descriptors of the images that were opened called."""
    steps = *steps, f"={driver.with_name(_HELPER)}"
    found = run_driver(driver, loader, *steps, env=env)
    calls = [
        f"@{place:x}:{image.shown}"
        for image in found.new.values()
        if "/" in image.path and not is_host(image.path)
        for place in descriptors(image.path)
    ]
    return run_driver(driver, loader, *steps, *calls, env=env) if calls else found


def _refusal(candidate: Candidate, driver: Path) -> str | None:
    steps = *candidate.before, candidate.path, f"={driver.with_name(_HELPER)}"
    return run_driver(driver, "glibc", *steps, env=candidate.env).error


def refusals(chosen: list[Candidate], driver: Path) -> list[str | None]:
    """Why glibc cannot open each, None where it can."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(partial(_refusal, driver=driver), chosen, chunksize=4))


def compare_some(
    group: Sequence[Candidate], driver: Path, libdlopen: Path | None, ours: str, most: int | None
) -> list[tuple[Candidate, Comparison]]:
    """Open each in both; with `most` only so many of those that glibc can open with few others."""
    found: list[tuple[Candidate, Comparison]] = []
    for candidate in group:
        if len(found) == most:
            break
        steps = *candidate.before, candidate.path
        loader = f"glibc:{libdlopen}" if libdlopen else "glibc"
        glibc = dump(driver, loader, *steps, env=candidate.env)
        if most is not None and (glibc.error or len(glibc.new) > MOST_IMAGES):
            continue
        here = dump(driver, ours, *steps, env=candidate.env)
        before = [step.partition(":")[2] for step in candidate.before]
        comparison = compare(
            candidate.path, glibc, here, str(libdlopen) if libdlopen else None, before
        )
        found.append((candidate, comparison))
    return found


def run(
    directory: Path,
    libdlopen: Path | None,
    *,
    ours: str | None = None,
    cxx: bool = True,
    chosen: Iterable[Candidate] | None = None,
    everything: bool = False,
) -> Report:
    """Compare everything.

    Args:
        directory: for the driver and the built libraries.
        libdlopen: the libdlopen.so to compare with glibc; None only with `ours`.
        ours: the driver's LOADER argument, by default `libdlopen`.
        cxx: whether there is a C++ compiler.
        chosen: libraries instead of those of `candidates`.
        everything: all of the system's libraries, those too that glibc cannot open.
    """
    driver = build_driver(directory)
    files: Sequence[Path] = built.build(directory)
    if cxx:
        files = [*files, *built.build_cxx(directory)]
    of_tests = [Candidate(str(file), BUILT, features(open_elf(str(file)))) for file in files]
    groups = [[one] for one in of_tests]
    if chosen is not None:
        groups += [[one] for one in chosen]
    elif everything:
        groups += [[one] for one in every_library(partial(refusals, driver=driver))]
    else:
        groups += [list(few) for _, few in groupby(candidates(), attrgetter("package"))]
    work = partial(
        compare_some,
        driver=driver,
        libdlopen=libdlopen,
        ours=ours or str(libdlopen),
        most=None if everything else MOST_OF_A_PACKAGE,
    )
    report = Report()
    packages = set()
    with ProcessPoolExecutor() as pool:
        for candidate, comparison in chain.from_iterable(pool.map(work, groups, chunksize=4)):
            report.add(candidate, comparison)
            if not comparison.refused:
                packages.add(candidate.package)
    assert report.built_libraries == len(of_tests), "glibc cannot open what was built"
    report.packages = len(packages - {BUILT, NO_PACKAGE})
    return report


def has_cxx() -> bool:
    names = (f"{machine().triplet}-g++",) if machine().is_foreign else ("c++", "g++")
    return any(map(shutil.which, names))
