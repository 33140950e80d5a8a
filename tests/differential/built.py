"""Libraries for what too few of the system's libraries show, at least five of each."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from support import elf64
from support.elf64 import Elf
from support.fixtures import compile_library
from support.machines import machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# A dependency and a library that refer to each other's names in every usual way.
_BASE = r"""
int shared_counter = 7, base_only = 8;
int shared_function(void) { return 1; }
int base_function(void) { return 2; }
int *base_pointer = &shared_counter;
int (*base_call)(void) = shared_function;
"""
_USER = r"""
extern int base_only, base_function(void);
__attribute__((weak)) extern int nowhere, nowhere_function(void);
int shared_counter = 9;
int shared_function(void) { return 3; }
__attribute__((visibility("protected"))) int protected_function(void) { return 4; }
static int local[4] = {1, 2, 3, 4};
int *const user_pointers[] = {&shared_counter, &base_only, &nowhere, local, local + 4};
int (*user_calls[])(void) = {shared_function, base_function, nowhere_function, protected_function};
int user(void) { return base_function() + shared_function() + protected_function() + base_only; }
"""
_IFUNC = r"""
static int one(void) { return 1; }
static int two(void) { return 2; }
static int (*const table[2])(void) = {one, two};  /* relocated, and read by a resolver */
%(visibility)s __attribute__((ifunc("resolve"))) int chosen(void);
static void *resolve(void) { return (void *)%(choice)s; }
int (*chosen_pointer)(void) = chosen;
int call(void) { return chosen() + 1; }
"""
_IFUNC_VARIANTS: Sequence[dict[str, str]] = (
    {"visibility": "", "choice": "one"},
    {"visibility": "static", "choice": "two"},
    {"visibility": "", "choice": "table[1]"},
    {"visibility": '__attribute__((visibility("protected")))', "choice": "table[0]"},
    {"visibility": '__attribute__((visibility("hidden")))', "choice": "table[1]"},
)
_IFUNC_USER = r"""
int chosen(void), call(void);
int (*imported)(void) = chosen;
int user(void) { return chosen() + call(); }
"""
_UNALIGNED = r"""
extern int imported[];
static int local;
struct __attribute__((packed)) odd { char pad[%d]; void *own, *other; int (*function)(void); };
int function(void) { return 1; }
struct odd odd[3] = {{"", &local, imported + 1, function}, {"", &odd[0], 0, 0},
                     {"", &odd[1].other, imported + 2, function}};
"""
_RELR = r"""
static int target[8];
int *pointers[%d] = {[0 ... %d] = target, &target[3]};
static char gap[5000] = {1};
void *spread[] = {gap, 0, 0, target, 0, gap + 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, pointers};
"""
_CXX = r"""
#include <string>
#include <vector>
struct Base { virtual ~Base() {} virtual int value() const { return 1; } };
struct Derived : Base { int value() const override { return 2; } std::vector<std::string> names; };
Base *make() { return new Derived; }
"""
# Thread-local storage: a definer, and users of it and of their own in each model.  The content of
# the first holds addresses; `first` and the alignment keep the others away from offset 0.
_TLS = r"""
int global, other(void);
__thread char first = 1;
__thread int shared = 7;
__thread int *pointer = &global;
static int local_target;
__attribute__((visibility("hidden"))) __thread void *local = &local_target;
__thread int (*function)(void) = other;
__attribute__((aligned(32))) __thread long aligned = 3;
__thread int zero[20];
int other(void) { return shared; }
int tls_user(void) { return first + shared + *pointer + (local != 0) + aligned + zero[3]; }
"""
_TLS_USER = r"""
extern __thread int shared, zero[20];
extern __thread long aligned;
static __thread int own = 3, none;
__thread int shared_too = 1;
int *addresses(int index) {
  int *all[] = {&shared, zero + 2, (int *)&aligned, &own, &none, &shared_too};
  return all[index];
}
#ifdef WEAK
__attribute__((weak)) extern __thread int nowhere;
int *weak_address(void) { return &nowhere; }
#endif
"""
# Model -> flags
TLS_MODELS = {
    "general": ["-ftls-model=global-dynamic", *machine().tls_traditional],
    "local": ["-ftls-model=local-dynamic", *machine().tls_traditional],
    "initial": ["-ftls-model=initial-exec"],
}
if machine().tls_descriptors:
    TLS_MODELS["descriptors"] = ["-ftls-model=global-dynamic", *machine().tls_descriptors]
# Types that only x86-64 has, or that only its libc takes.
_NUMBERS = r"""
.data
.globl object
.type object, @object
object: .fill 40, 1, 1
.size object, 40
.globl elsewhere
.type elsewhere, @object
elsewhere: .quad 0
.size elsewhere, 8
.weak nowhere
.globl fixed
fixed = 0x1234
.balign 8
.quad object@SIZE
.long object@SIZE + 2
.long 0
.quad elsewhere + 4      /* becomes PC32 */
.quad nowhere + 0x77     /* becomes 32 */
.quad fixed + 1
.section .note.GNU-stack, "", @progbits
"""


def retype(library: Path, symbol: str, type_: int) -> None:
    """Give the relocations of a whole address against `symbol` another type.

    For types that the psABI has and a linker does not write for this use.
    """
    elf = Elf(library)
    index = next(i for i, found in enumerate(elf.symbols) if found.name == symbol)
    data = bytearray(elf.data)
    start = elf.offset(elf.tags[elf64.DT_RELA])
    changed = 0
    for at in range(start, start + elf.tags[elf64.DT_RELASZ], 24):
        if struct.unpack_from("<Q", data, at + 8)[0] == index << 32 | elf.relocation_numbers["64"]:
            struct.pack_into("<Q", data, at + 8, index << 32 | type_)
            changed += 1
    assert changed, f"{library} has no such relocation against {symbol}"
    library.write_bytes(data)


def build(directory: Path) -> list[Path]:
    """The libraries, each with its dependencies beside it."""
    base = compile_library(directory, "libbase.so", _BASE)
    found = [base]

    def add(name: str, source: str, *flags: str, needs: Sequence[Path] = (), **more: str) -> Path:
        found.append(compile_library(directory, name, source, flags=flags, libraries=needs, **more))
        return found[-1]

    for number, variant in enumerate(_IFUNC_VARIANTS):
        chosen = add(f"libifunc{number}.so", _IFUNC % variant)
        if not variant["visibility"]:
            add(f"libifuncuser{number}.so", _IFUNC_USER, needs=[chosen])
    add("libuser.so", _USER, needs=[base])
    for number, flags in enumerate(
        (
            ["-Wl,-Bsymbolic"],
            ["-Wl,-Bsymbolic", "-Wl,--hash-style=gnu"],
            ["-Wl,-Bsymbolic", "-Wl,-z,now"],
            ["-Wl,-Bsymbolic", "-fno-plt"],
            ["-Wl,-Bsymbolic", "-O2", "-Wl,--hash-style=both"],
        )
    ):
        add(f"libsymbolic{number}.so", _USER, *flags, needs=[base])
    script = directory / "versions.map"
    script.write_text("ONE { global: shared_*; }; TWO { global: user*; local: *; } ONE;\n")
    for number, flags in enumerate(
        ([], ["-Wl,-z,norelro"], ["-fno-plt"], [f"-Wl,--version-script={script}"], ["-Wl,-z,now"])
    ):
        add(f"libsysv{number}.so", _USER, "-Wl,--hash-style=sysv", *flags, needs=[base])
    for number, count in enumerate((1, 3, 64, 65, 500)):
        add(f"librelr{number}.so", _RELR % (count + 1, count - 1), *machine().packed)
    imported = add("libimported.so", "int imported[4];")
    for pad in (1, 2, 3, 5, 7):
        add(f"libunaligned{pad}.so", _UNALIGNED % pad, needs=[imported])
    add("libunalignedrelr.so", _UNALIGNED % 4, *machine().packed, needs=[imported])

    for model, flags in TLS_MODELS.items():
        storage = add(f"libtls{model}.so", _TLS, *flags)
        for other, other_flags in TLS_MODELS.items():
            # LoongArch's libc crashes for a module id or a distance of nothing.
            has_weak = machine().name != "loongarch64" or other == "descriptors"
            how = [*other_flags, *(["-DWEAK"] if has_weak else [])]
            if other != "local":  # only for what is its own
                add(f"libtls{model}{other}.so", _TLS_USER, *how, needs=[storage])

    if machine().name == "x86_64":
        numbers = add("libnumbers.so", _NUMBERS, language="asm")
        types = elf64.relocation_numbers(machine().number)
        retype(numbers, "elsewhere", types["PC32"])
        retype(numbers, "nowhere", types["32"])
    return found


def build_cxx(directory: Path) -> list[Path]:
    """Those that need a C++ compiler."""
    return [
        compile_library(directory, "libcxx.so", _CXX, language="c++"),
        compile_library(
            directory, "libcxxsysv.so", _CXX, language="c++", flags=["-Wl,--hash-style=sysv"]
        ),
    ]
