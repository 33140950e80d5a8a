"""What threads share is written and read in few ways, none of them weaker than it looks.

An emulator on x86-64 shows nothing of it: docs/how-it-works.md, "Memory order", has the pairs.
"""

import re
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "src" / "dlopen" / "core"
# Where the compiler's builtins are: the names for all, what one thread does alone, and what a
# machine can do better.
FILES = ("base/atomics.pxd", "base/single_thread.pxd", "arch/machine.pxd", "arch/x86_64.pxd")
BUILTIN = re.compile(r"__atomic_\w+|__sync_\w+|\b_Atomic\b|stdatomic")
ARGUMENTS = re.compile(r"\((?:[^()]|\([^()]*\))*\)")
ORDERS = {
    "__atomic_load_n": {"ACQUIRE", "SEQ_CST"},
    "__atomic_store_n": {"RELEASE"},
    "__atomic_thread_fence": {"SEQ_CST"},
    "__atomic_fetch_add": {"SEQ_CST"},
    "__atomic_fetch_sub": {"SEQ_CST"},
    "__atomic_exchange_n": {"SEQ_CST"},
    "__atomic_compare_exchange_n": {"SEQ_CST"},
}


def weak(source: str) -> list[str]:
    """Builtins with another order than theirs, or with none that can be read here."""
    found = []
    for match in BUILTIN.finditer(source):
        arguments = ARGUMENTS.match(source, match.end())
        orders = set(re.findall(r"__ATOMIC_(\w+)", arguments[0] if arguments else ""))
        if not orders or not orders <= ORDERS.get(match[0], set()):
            found.append(match[0])
    return found


def test_builtins_are_in_few_files() -> None:
    found = {
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.p[xy][dx]")
        if BUILTIN.search(path.read_text())
    }
    assert found == set(FILES)


def test_no_order_is_weaker_than_acquire_and_release() -> None:
    assert weak((CORE / FILES[0]).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "#define f(p) __atomic_load_n((p), __ATOMIC_RELAXED)",
        "#define f(p) __atomic_load_n((p), __ATOMIC_CONSUME)",
        "#define f(p) __atomic_store_n((p), 1, __ATOMIC_RELAXED)",
        "#define f(p) __atomic_exchange_n((p), 1, order)",
        "#define f(p) __sync_fetch_and_add((p), 1)",
    ],
)
def test_a_weak_one_is_found(line: str) -> None:
    assert len(weak(f"{line}\n")) == 1
