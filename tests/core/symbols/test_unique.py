"""STB_GNU_UNIQUE: one definition in the process, RTLD_LOCAL or not, as under glibc."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.steps import Steps
from support.elf64 import STB_GNU_UNIQUE, STB_WEAK, Elf
from support.fixtures import run_python

pytestmark = pytest.mark.cxx

TEMPLATE = """
template <class T> struct Box { static int value; };
template <class T> int Box<T>::value;
#define COUNTER Box<int>::value
"""
COUNTERS = {
    "static member of a template": TEMPLATE,
    "local static of an inline function": """
    inline int &counter() { static int value; return value; }
    #define COUNTER counter()
    """,
    "inline variable": """
    template <class T> inline int counter;
    #define COUNTER counter<int>
    """,
}
COUNT = 'extern "C" int count() { return ++COUNTER; }\n'
NAME = "_ZN3BoxIiE5valueE"


def counting(
    steps: Steps, name: str, *flags: str, counter: str = TEMPLATE, needs: tuple[Path, ...] = ()
) -> Path:
    return steps.library(name, counter + COUNT, *flags, language="c++", needs=needs)


def bindings(path: Path) -> set[int]:
    return {symbol.binding for symbol in Elf(path).symbols if "value" in symbol.name}


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
def test_two_local_libraries_share_one(steps: Steps, counter: str) -> None:
    for name in "abc":
        path = counting(steps, name, counter=counter)
        symbols = Elf(path).symbols
        assert any(symbol.binding == STB_GNU_UNIQUE and symbol.section for symbol in symbols)
    assert steps.both(
        *("open:./liba.so", "open:./libb.so", "call:0:count", "call:1:count"),
        *("open:./libc.so:d", "call:2:count", "call:0:count"),
    ) == ["opened", "opened", "1", "2", "opened", "3", "4"]


def test_weak_ones_are_not_shared(steps: Steps) -> None:
    for name in "ab":
        assert bindings(counting(steps, name, "-fno-gnu-unique")) == {STB_WEAK}
    assert steps.both("open:./liba.so", "open:./libb.so", "call:0:count", "call:1:count") == [
        *("opened", "opened", "1", "1"),
    ]


@pytest.mark.parametrize("mode", ["n", "ng"])
@pytest.mark.parametrize("weak", ["a", "b", "c"])
@pytest.mark.parametrize("dependency", [False, True])
def test_weak_and_unique_definitions_together(
    steps: Steps, weak: str, mode: str, dependency: bool
) -> None:
    made: tuple[Path, ...] = ()
    for name in "abc":
        needs = made if dependency else ()
        flags = ["-fno-gnu-unique"] if name == weak else []
        made = (counting(steps, name, *flags, needs=needs),)
    said = steps.both(
        *(f"open:./liba.so:{mode}", f"open:./libb.so:{mode}", f"open:./libc.so:{mode}"),
        *("call:0:count", "call:1:count", "call:2:count"),
        *(f"value:{library}:{NAME}" for library in range(3)),
    )
    assert said[:3] == ["opened"] * 3


@pytest.mark.parametrize("flag", ["-Wl,-Bsymbolic", "-Wl,-z,lazy", "-fvisibility=hidden"])
def test_how_the_library_is_linked(steps: Steps, flag: str) -> None:
    exported = TEMPLATE + '__attribute__((visibility("default"))) ' + COUNT.replace("\n", "")
    for name in "ab":
        text = f'extern "C" {{ __attribute__((visibility("default"))) int count(); }}{exported}'
        steps.library(name, text.replace("extern", "\nextern"), flag, language="c++")
    said = steps.both("open:./liba.so", "open:./libb.so", "call:0:count", "call:1:count")
    assert said[:3] == ["opened", "opened", "1"]


def test_a_weak_reference_and_one_to_a_function(steps: Steps) -> None:
    made = []
    for name in "ab":
        defined = "template <class T> struct F { static int call() { static int v; return ++v; } };"
        text = defined + 'extern "C" int count() { return F<int>::call(); }'
        made.append(steps.library(name, text, language="c++"))
    symbol = next(symbol.name for symbol in Elf(made[0]).symbols if symbol.binding == 10)
    steps.library(
        "c",
        f"extern int counter __asm__({symbol!r}) __attribute__((weak));".replace("'", '"')
        + "int count(void) { return &counter ? ++counter : -1; }",
        needs=[made[1]],
    )
    assert steps.both(
        *("open:./liba.so", "call:0:count", "open:./libc.so", "call:1:count", "call:0:count"),
    ) == ["opened", "1", "opened", "2", "3"]


def test_versions_are_not_compared(steps: Steps) -> None:
    for name in "ab":
        script = steps.directory / f"{name}.map"
        script.write_text(f"VERSION_{name} {{ global: *; }};")
        path = counting(steps, name, f"-Wl,--version-script={script}")
        assert {s.version for s in Elf(path).symbols if s.name == NAME} == {f"VERSION_{name}"}
    assert steps.both("open:./liba.so", "open:./libb.so", "call:0:count", "call:1:count") == [
        *("opened", "opened", "1", "2"),
    ]


def test_dlsym_gives_the_one_that_is_used(steps: Steps) -> None:
    for name in "ab":
        counting(steps, name)
    assert steps.both(
        *("open:./liba.so", "open:./libb.so", "call:0:count", f"value:1:{NAME}", "call:1:count"),
        f"value:0:{NAME}",
    ) == ["opened", "opened", "1", "1", "2", "2"]


def test_dlsym_of_the_first_makes_it_the_one(steps: Steps) -> None:
    # Nothing in it refers to its definition.
    steps.library("a", TEMPLATE + "template struct Box<int>;", language="c++")
    counting(steps, "b")
    steps_before = ["open:./liba.so", "open:./libb.so", "call:1:count", f"value:0:{NAME}"]
    assert steps.both(*steps_before)[-1] == "1"
    steps_before = ["open:./liba.so", f"value:0:{NAME}", "open:./libb.so", "call:1:count"]
    assert steps.both(*steps_before, f"value:0:{NAME}")[-2:] == ["1", "1"]


@pytest.mark.parametrize("how", ["with the program", "by the program", "two by the program"])
def test_shared_with_what_the_host_has_loaded(steps: Steps, how: str) -> None:
    host = counting(steps, "host")
    counting(steps, "late")
    for name in "ab":
        counting(steps, name)
    # The program counts to 10 first, in each of its libraries.
    start = """
    static void load(const char *path) {
      void *host = dlopen(path, RTLD_NOW | RTLD_LOCAL);
      for (int i = 0; i < 10; i++) ((int (*)(void))dlsym(host, "count"))();
    }
    __attribute__((constructor)) static void start(void) {
    """
    start += 'load("./libhost.so");'
    if how == "two by the program":
        start += 'load("./liblate.so");'
    steps.make_program(start + "}", needs=[host] if how == "with the program" else [])
    first = 21 if how == "two by the program" else 11
    assert steps.both(
        "open:./liba.so", "call:0:count", "open:./libb.so", "call:1:count", f"value:0:{NAME}"
    ) == ["opened", str(first), "opened", str(first + 1), str(first + 1)]


def test_what_the_host_loads_later_shares_with_its_first(steps: Steps) -> None:
    # The host's own library has a definition that nothing is bound to until ours is.
    steps.library("host", TEMPLATE + "template struct Box<int>;", language="c++")
    counting(steps, "later")
    counting(steps, "a")
    steps.make_program("""
    static void *host;
    __attribute__((constructor)) static void start(void) { host = dlopen("./libhost.so", 1); }
    __attribute__((destructor)) static void stop(void) {
      void *later = dlopen("./liblater.so", 1);
      int count = ((int (*)(void))dlsym(later, "count"))();
      dprintf(1, "%d %d\\n", count, *(int *)dlsym(host, "_ZN3BoxIiE5valueE"));
    }
    """)
    assert steps.ours("open:./liba.so", "call:0:count") == ["opened", "1", "2 2"]


def test_private_copies_are_separate(steps: Steps) -> None:
    b = counting(steps, "b")
    steps.library(
        "a", TEMPLATE + 'extern "C" int both() { return ++COUNTER; }', language="c++", needs=[b]
    )
    assert steps.ours(
        *("open:./liba.so:np", "call:0:both", "call:0:count", "open:./liba.so:np", "call:1:both"),
        *("call:1:count", "open:./liba.so", "call:2:both", "call:2:count", "call:0:count"),
    ) == ["opened", "1", "2", "opened", "1", "2", "opened", "1", "2", "3"]


def test_a_private_copy_of_what_needs_a_shared_library(steps: Steps) -> None:
    # It has no definition of its own: that of the process, which is not its dependency's.
    counting(steps, "first")
    b = counting(steps, "b")
    declared = f'extern int counter __asm__("{NAME}"); int both(void) {{ return ++counter; }}'
    steps.library("a", declared, needs=[b])
    assert steps.ours(
        *("open:./libfirst.so", "call:0:count", "open:./libb.so", "open:./liba.so:np"),
        *("call:2:both", "call:1:count", "call:0:count"),
    ) == ["opened", "1", "opened", "opened", "2", "3", "4"]


def test_unloaded_when_nobody_is_bound_to_it(steps: Steps) -> None:
    for name in "ab":
        counting(steps, name)
    walk = [
        *("open:./liba.so", "open:./libb.so", "call:0:count", "close:0"),
        *("mapped:/liba.so", "call:1:count", "close:1", "mapped:/liba.so", "mapped:/libb.so"),
        *("open:./libb.so", "call:2:count"),
    ]
    ours = steps.ours(*walk)
    glibc = steps.run("glibc", *walk).stdout.splitlines()
    # The second keeps the first, whose definition it uses …
    assert ours[4:7] == glibc[4:7]
    assert int(ours[4]) > 0
    # … and here both go then; glibc keeps an owner for ever, with its value.
    assert ours[7:] == ["0", "0", "opened", "1"]
    assert int(glibc[7]) > 0
    assert glibc[8:] == ["0", "opened", "3"]


def test_unload_blockers_name_who_is_bound(steps: Steps) -> None:
    for name in "ab":
        counting(steps, name)
    run_python(
        """
import sys, dlopen
from support.fixtures import maps
a, b = dlopen.Library(sys.argv[1]), dlopen.Library(sys.argv[2])
a.close()
assert a.unload_blockers == (dlopen.Blocker("binding", sys.argv[2]),), a.unload_blockers
b.close()
assert not any(part.path in sys.argv for part in maps())
""",
        *(str(steps.directory / f"lib{name}.so") for name in "ab"),
    )


def test_two_threads_open_the_first_two_at_once(steps: Steps) -> None:
    for name in "ab":
        path = steps.library(
            name, TEMPLATE + 'extern "C" int *where() { return &COUNTER; }', language="c++"
        )
    run_python(
        """
import ctypes, sys, threading, dlopen
start = threading.Barrier(2)
def take(name):
    start.wait()
    opened[name] = dlopen.Library(f"{sys.argv[1]}/lib{name}.so")
for _ in range(300):
    opened = {}
    threads = [threading.Thread(target=take, args=(name,)) for name in "ab"]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    where = [lib.function("where", ctypes.c_void_p)() for lib in opened.values()]
    assert where[0] == where[1], where
    for lib in opened.values(): lib.close()
""",
        str(path.parent),
    )
