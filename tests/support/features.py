"""What docs/machines.md has a column for, and which tests show it.

A feature is there on a machine if none of its tests fails there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FAMILY = r"^tests/family/.*\[(?:{})\]$"
_TLS = r"^tests/core/tls/.*(?:{})"


def _family(*cases: str) -> str:
    """Cases of tests/family: `PROGRAM-NAME`, as expressions."""
    return _FAMILY.format("|".join(cases))


# Feature -> expressions, one of which the name of a test has somewhere.
FEATURES: dict[str, tuple[str, ...]] = {
    "load": (
        _family("(?:opening|shapes|started|early|identity|fixed|copying|exporting)-.*"),
        r"^tests/core/opening/test_(?:initialisation|refusals)",
    ),
    "load from memory": (
        r"^tests/core/running/.*from_bytes",
        r"^tests/core/symbols/test_own_first.*\[bytes",
    ),
    "versions": (_family(".*version.*"), r"^tests/core/symbols/test_versions"),
    "lazy calls": (_family("lazy-.*", ".*_lazy_.*"),),
    "TLS: general dynamic": (_TLS.format("global-dynamic"),),
    "TLS: local dynamic": (_TLS.format("local-dynamic"),),
    "TLS: descriptors": (_TLS.format("descriptor"), _family(".*descriptors")),
    "TLS: initial-exec, by the donor": (
        _TLS.format("initial-exec|test_static_storage"),
        _family(".*initial_exec.*"),
    ),
    "TLS: local-exec, in the program": (_TLS.format("local_exec"),),
    "exceptions": (
        _family("iterating-find_object.*"),
        r"^tests/core/host/test_unwinding",
        r"^tests/core/running/.*test_thrown",
    ),
    "unwinders that come late": (r"^tests/core/host/test_unwinding.*(?:brings|libcs_table)",),
    "backtraces, cancellation": (
        _family("systems-.*(?:backtrace|cancel).*", ".*cancelled.*"),
        r"^tests/core/host/test_unwinding.*test_scenarios",
    ),
    "threads": (
        _family(".*thread.*"),
        r"^tests/core/closing/test_thread_exit",
        r"^tests/core/opening/test_threads",
        r"^tests/stress/.*test_short$",
    ),
    "fork": (
        _family(".*_child.*", ".*fork.*"),
        r"^tests/core/(?!arch).*fork",
        r"^tests/stress/.*test_short$",
    ),
    "unload": (_family("(?:closing|surviving|order)-.*"), r"^tests/core/closing/"),
    "patch": (r"^tests/core/running/.*patch",),
    "swap": (r"^tests/core/running/.*swap",),
    "namespaces": (_family("namespaces-.*", ".*_namespace.*"),),
    "preload": (_family("(?:wrapped|allocating)-.*"), r"^tests/preload/"),
    "gdb": (r"^tests/core/host/test_debugger",),
    "Python face": (r"^tests/python/",),
}


def shows(feature: str, test: str) -> bool:
    """The test, by its name in pytest, is one of the feature's."""
    return any(re.search(expression, test) for expression in FEATURES[feature])


def few_of_each(tests: Iterable[str], count: int) -> set[str]:
    """At most `count` tests of each feature, from all over its tests."""
    names = list(tests)
    chosen: set[str] = set()
    for feature in FEATURES:
        mine = [name for name in names if shows(feature, name)]
        chosen.update(mine[len(mine) * i // count] for i in range(count) if mine)
    return chosen
