"""Parts of the core by themselves: a few lines of Cython that call them, as a shared library."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from support.fixtures import compiler, run

ROOT = Path(__file__).parents[2]
# What arch/<machine>.S defines for the rooms below it; only the first two are called here.
ASSEMBLY = """
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
__attribute__((visibility("hidden")))
long dlopen_system_call(long number, long a, long b, long c, long d, long e, long f) {
    long result = syscall(number, a, b, c, d, e, f);
    return result == -1 ? -errno : result;
}
__attribute__((visibility("hidden"))) void dlopen_code_written(char *start, unsigned long size) {
    __builtin___clear_cache(start, start + size);
}
#define UNUSED(name) __attribute__((visibility("hidden"))) void name(void) { __builtin_trap(); }
UNUSED(dlopen_lazy_call)
UNUSED(dlopen_thread_pointer)
UNUSED(dlopen_tlsdesc_dynamic)
UNUSED(dlopen_tlsdesc_static)
UNUSED(dlopen_tlsdesc_undefined)
"""


def compile_unit(folder: Path, name: str, code: str, *defines: str) -> Path:
    """The library `folder`/lib`name`.so of `code`, with its `cdef public` functions exported.

    Built as libdlopen.so is: what only Cython's module initialisation needs is dropped.
    """
    source, unit = folder / f"{name}.pyx", folder / f"{name}.c"
    source.write_text(code)
    (folder / "assembly.c").write_text(ASSEMBLY)
    transpile = [sys.executable, str(ROOT / "tools" / "transpile.py"), "--core"]
    run([*transpile, "-I", str(ROOT / "src"), str(source), str(unit)])
    library = folder / f"lib{name}.so"
    flags = [
        *("-O1", "-w", "-shared", "-fPIC", "-ffunction-sections", "-fdata-sections"),
        *("-fvisibility=hidden", "-Wl,--gc-sections", "-Wl,-z,defs"),
        '-DCYTHON_EXTERN_C=extern __attribute__((visibility("default")))',
        *(f"-I{ROOT / 'src' / 'dlopen' / part}" for part in ("include", "core/arch")),
        f"-I{sysconfig.get_path('include')}",
        *(f"-D{define}" for define in defines),
    ]
    exports = folder / f"{name}.map"
    exports.write_text("{ global: unit_*; local: *; };\n")
    flags.append(f"-Wl,--version-script={exports}")
    run([compiler("c"), *flags, str(unit), str(folder / "assembly.c"), "-o", str(library)])
    return library
