"""What a processor asks for: guarded jumps, its caches, tagged memory; what resolvers are told.

The same under both linkers.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from core.steps import Steps
from support.fixtures import need_tool, run
from support.machines import machine

# `landed` begins with no instruction that an indirect jump may land on; `call` jumps there.
_JUMPS = """
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>
__asm__(".text\\n.type landed, %function\\nlanded: mov w0, #7\\nret\\n.size landed, 8\\n");
int landed(void);
int call(void) { int (*volatile f)(void) = landed; return f(); }
int guards(void) { return getauxval(AT_HWCAP2) >> 17 & 1; }
"""
# Not each system's start files are made for it.
_GUARDED = ("-mbranch-protection=bti", "-Wl,-z,force-bti", "-nostartfiles")
ENDS = -4  # SIGILL


def _guarded(steps: Steps, *flags: str, source: str = _JUMPS) -> Path:
    path = steps.library("a", source, *_GUARDED, *flags)
    steps.make_program()
    if steps.ours("open:./liba.so", "call:0:guards") != ["opened", "1"]:
        pytest.skip("this processor has no BTI")
    return path


@pytest.mark.only_on("aarch64")
def test_a_jump_lands_where_it_may(steps: Steps) -> None:
    _guarded(steps)
    assert steps.run("glibc", "open:./liba.so", "call:0:call", check=False).returncode == ENDS
    into_a_slot = ("open:./liba.so:na", "close:0", "open:./liba.so:na", "call:1:call")
    for look, said in (
        (("open:./liba.so", "call:0:call"), ["opened"]),
        (("bytes:./liba.so", "call:0:call"), ["opened"]),
        (into_a_slot, ["opened", "closed", "opened"]),
    ):
        done = steps.run(str(steps.libdlopen), *look, check=False)
        assert (done.stdout.split(), done.returncode) == (said, ENDS)


@pytest.mark.only_on("aarch64")
def test_what_does_not_ask_for_guarded_jumps_has_none(steps: Steps) -> None:
    _guarded(steps)
    steps.library("b", _JUMPS)
    assert steps.both("open:./libb.so", "call:0:call") == ["opened", "7"]


@pytest.mark.only_on("aarch64")
def test_text_relocations_leave_jumps_guarded(steps: Steps) -> None:
    source = _JUMPS + '__asm__(".text\\n.balign 8\\n.global word\\nword: .quad word\\n");\n'
    path = _guarded(steps, "-Wl,-z,notext", source=source)
    assert "TEXTREL" in run([need_tool("readelf"), "-dW", str(path)]).stdout
    # libc protects such text anew, without.
    done = steps.run(str(steps.libdlopen), "open:./liba.so", "call:0:call", check=False)
    assert (done.stdout, done.returncode) == ("opened\n", ENDS)


def _property(data: bytearray) -> tuple[int, int]:
    """Where PT_GNU_PROPERTY's content begins in the file, and where its program header is."""
    start, (count,) = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)
    for at in range(start, start + 56 * count, 56):
        if struct.unpack_from("<I", data, at) == (0x6474E553,):
            return struct.unpack_from("<Q", data, at + 8)[0], at
    raise AssertionError


# What of the note is another: offset, and the word that comes there.
_MALFORMED = {
    "name": (0, 5),
    "description": (4, 4),
    "type": (8, 1),
    "property": (16, 0xC0000001),
    "size": (20, 0xFFFFFFFF),
    "bits": (24, 2),
}


@pytest.mark.only_on("aarch64")
@pytest.mark.parametrize("what", _MALFORMED)
def test_a_note_that_says_something_else(steps: Steps, what: str) -> None:
    path = _guarded(steps)
    data = bytearray(path.read_bytes())
    offset, word = _MALFORMED[what]
    struct.pack_into("<I", data, _property(data)[0] + offset, word)
    path.write_bytes(data)
    assert steps.both("open:./liba.so", "call:0:call") == ["opened", "7"]


@pytest.mark.only_on("aarch64")
def test_libdlopen_allows_guarded_jumps(libdlopen: Path) -> None:
    note = run([need_tool("readelf"), "-nW", str(libdlopen)]).stdout
    assert "AArch64 feature: BTI" in note


# What is done for bytes that will be executed, in the emulator's words for what it has translated.
# On RISC-V it is a call of the kernel, which the emulator needs not and does not show.
_SYNCHRONISED = {"aarch64": "ivau", "riscv64": r"(a7,zero|li\s+a7),\s*259\b", "loongarch64": "ibar"}


@pytest.mark.only_on("aarch64", "riscv64", "loongarch64")
def test_the_processor_sees_code_that_was_written(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    steps.library("a", "int call(void) { return 7; }")
    steps.make_program()
    monkeypatch.setenv("QEMU_LOG", "in_asm")
    monkeypatch.setenv("QEMU_LOG_FILENAME", str(log))
    found = {}
    for way in ("open", "bytes"):
        assert steps.ours(f"{way}:./liba.so", "call:0:call") == ["opened", "7"]
        found[way] = re.search(_SYNCHRONISED[machine().name], log.read_text()) is not None
    assert found == {"open": False, "bytes": True}


_RESOLVER = {
    "aarch64": (
        "unsigned long first, const unsigned long *second",
        """
        seen[0] = first;
        for (int i = 0; i < 5; i++) if (second[0] > i * 8) seen[1 + i] = second[i];
        """,
    ),
    "riscv64": (
        "unsigned long first, void *second, void *third",
        # A function that is not the same in ld.so as in libc, which asks the kernel.
        """
        long pair[2] = {0};
        if (second) seen[1] = 1000 + ((long (*)(void *, long, long, void *, unsigned))second)(
            pair, 1, 0, 0, 0);
        seen[0] = first; seen[2] = (unsigned long)third;
        """,
    ),
    "loongarch64": (
        "const unsigned long *first",
        "for (int i = 0; i < 2; i++) seen[i] = first[i];",
    ),
}


@pytest.mark.only_on("aarch64", "riscv64", "loongarch64")
def test_a_resolver_is_told_what_libc_tells_it(steps: Steps) -> None:
    arguments, store = _RESOLVER[machine().name]
    steps.library(
        "a",
        f"""
        static volatile unsigned long seen[8];
        static int one(void) {{ return 1; }}
        static void *resolve({arguments}) {{ {store} return one; }}
        int chosen(void) __attribute__((ifunc("resolve")));
        int call(void) {{ return chosen(); }}
        #define WORD(n) int low##n(void) {{ return (int)seen[n]; }} \\
            int high##n(void) {{ return (int)(seen[n] >> 32); }}
        WORD(0) WORD(1) WORD(2) WORD(3) WORD(4) WORD(5)
        """,
    )
    words = [f"call:0:{half}{n}" for n in range(6) for half in ("low", "high")]
    done = steps.both("open:./liba.so", "call:0:call", *words)
    assert done[:2] == ["opened", "1"]
    assert done[2] != "0"


_TAGGED = """
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
static char *block;
__thread int counter = 3;
int is_tagged(void) { return (unsigned long)(block = malloc(40)) >> 56 != 0; }
int is_checked(void) { return (prctl(PR_GET_TAGGED_ADDR_CTRL, 0, 0, 0, 0) >> 1 & 3) != 0; }
int call(void) { memset(block, 7, 40); free(block); return counter + 4; }
__attribute__((constructor)) static void start(void) { free(malloc(100)); }
"""
_CHECKS = {"GLIBC_TUNABLES": "glibc.mem.tagging=3"}


@pytest.mark.only_on("aarch64")
def test_with_tagged_memory(steps: Steps, libdlopen: Path) -> None:
    """MTE: the heap's pointers have a tag, and an access by another one ends the process."""
    flags = ["-mtls-dialect=desc"]
    steps.library("a", _TAGGED, *flags)
    look = [f"call:0:{name}" for name in ("is_tagged", "is_checked", "call")]
    again = ["close:0", "open:./liba.so:l", *(step.replace("0", "1", 1) for step in look)]
    expected = ["opened", "1", "1", "7"]
    if steps.run("glibc", "open:./liba.so", *look, env=_CHECKS).stdout.split() != expected:
        pytest.skip("this processor has no MTE")
    done = steps.both("open:./liba.so", *look, *again, env=_CHECKS)
    assert done == [*expected, "closed", *expected]
    assert steps.ours("bytes:./liba.so", *look, *again, env=_CHECKS) == done
    preloaded = {**_CHECKS, "LD_PRELOAD": str(libdlopen)}
    assert steps.run("glibc", "open:./liba.so", *look, *again, env=preloaded).stdout.split() == done


@pytest.mark.only_on("aarch64")
def test_a_tagged_pointer_is_no_address_of_a_library(steps: Steps, libdlopen: Path) -> None:
    """dladdr(3) and what goes by addresses, for what malloc gives: as libc."""
    steps.library(
        "a",
        """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        int a_function(void) { return 1; }
        int named(void *at) { Dl_info info; return dladdr(at, &info) != 0; }
        int of_block(void) { return named(malloc(40)); }
        int of_function(void) { return named((void *)a_function); }
        int of_tagged(void) { return named((void *)((unsigned long)a_function | 3UL << 56)); }
        int symbols(void) { return dlsym(RTLD_DEFAULT, "malloc") != NULL; }
        int name(void) {
          char *name = malloc(20), *mode = "./libb.so";
          for (int i = 0; (name[i] = mode[i]); i++) ;
          void *opened = dlopen(name, RTLD_LAZY);
          free(name);
          return opened != NULL && dlclose(opened) == 0;
        }
        """,
    )
    steps.library("b", "int b;")
    words = [f"call:0:{n}" for n in ("of_block", "of_function", "of_tagged", "symbols", "name")]
    glibc = steps.run("glibc", "open:./liba.so", *words, env=_CHECKS).stdout
    ours = {**_CHECKS, "LD_PRELOAD": str(libdlopen)}
    assert steps.run("glibc", "open:./liba.so", *words, env=ours).stdout == glibc
    assert glibc.split()[:3] == ["opened", "0", "1"]
