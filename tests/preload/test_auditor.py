"""Beside an auditor (LD_AUDIT, rtld-audit(7)): it does not see our libraries, nor harm us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, run
from support.machines import machine

AUDITOR = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
unsigned la_version(unsigned version) { return version; }
unsigned la_objopen(struct link_map *map, Lmid_t id, uintptr_t *cookie) {
  (void)id, (void)cookie;
  const char *base = strrchr(map->l_name, '/');
  dprintf(2, "open %s\\n", base ? base + 1 : map->l_name);
  return LA_FLG_BINDTO | LA_FLG_BINDFROM;
}
"""
BINDINGS = """
uintptr_t la_symbind64(Elf64_Sym *symbol, unsigned index, uintptr_t *from, uintptr_t *to,
                       unsigned *flags, const char *name) {
  (void)index, (void)from, (void)to, (void)flags, (void)name;
  return symbol->st_value;
}
"""
# As <link.h> calls the machine.
NAME = {"riscv64": "riscv", "loongarch64": "loongarch"}.get(machine().name, machine().name)
CALLS = f"""
Elf64_Addr la_{NAME}_gnu_pltenter(Elf64_Sym *symbol, unsigned index, uintptr_t *from, uintptr_t *to,
                                  La_{NAME}_regs *registers, unsigned *flags, const char *name,
                                  long *frame) {{
  (void)index, (void)from, (void)to, (void)registers, (void)flags, (void)name, (void)frame;
  return symbol->st_value;
}}
"""
LIBRARY = """
#include <stdexcept>
#include <string>
thread_local std::string text = "a text of a thread";
__attribute__((tls_model("initial-exec"))) thread_local int fixed = 5;
extern "C" double half(double value);
extern "C" int work(int depth) {
  try {
    if (depth) throw std::runtime_error(text);
  } catch (const std::exception &error) {
    return (int)std::string(error.what()).size() + ++fixed + (int)half(4.0);
  }
  return 0;
}
"""
PROGRAM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
static int (*work)(int);
static void *run(void *unused) { printf("%d\\n", work(1)); return unused; }
static int count(struct dl_phdr_info *info, size_t size, void *found) {
  (void)size;
  *(int *)found += strstr(info->dlpi_name, "libwork.so") != NULL;
  return 0;
}
int main(int argc, char **argv) {
  (void)argc;
  for (int round = 0; round < 2; round++) {
    void *handle = dlopen(argv[1], RTLD_LAZY);
    if (!handle) return puts(dlerror()), 1;
    work = (int (*)(int))dlsym(handle, "work");
    pthread_t thread;
    pthread_create(&thread, NULL, run, NULL);
    pthread_join(thread, NULL);
    Dl_info info;
    int found = 0;
    dl_iterate_phdr(count, &found);
    if (!dladdr((void *)work, &info)) return 1;
    printf("%d %s\\n", found, info.dli_sname);
    double (*next)(double) = (double (*)(double))dlsym(RTLD_NEXT, "floor");
    void *libm = dlopen("libm.so.6", RTLD_LAZY);
    double (*floor_)(double) = (double (*)(double))dlsym(libm, "floor");
    printf("%g %g\\n", next ? next(2.5) : -1.0, floor_(2.5));
    dlclose(libm);
    void *space = dlmopen(LM_ID_NEWLM, argv[1], RTLD_NOW);
    puts(space ? "in a namespace" : dlerror());
    if (space) dlclose(space);
    dlclose(handle);
  }
  puts(dlopen("libnone.so", RTLD_NOW) ? "opened" : dlerror());
  return 0;
}
"""


@pytest.mark.cxx
@pytest.mark.parametrize(
    "auditor",
    [
        pytest.param(AUDITOR, id="objects"),
        pytest.param(AUDITOR + BINDINGS, id="bindings"),
        pytest.param(AUDITOR + BINDINGS + CALLS, id="calls"),
    ],
)
def test_an_auditor(tmp_path: Path, preloads: Callable[..., dict[str, str]], auditor: str) -> None:
    half = compile_library(tmp_path, "libhalf.so", "double half(double v) { return v / 2; }")
    work = compile_library(
        tmp_path, "libwork.so", LIBRARY, language="c++", libraries=[half], flags=["-Wl,-z,lazy"]
    )
    program = compile_program(tmp_path, "program", PROGRAM, flags=["-pthread", "-lm"])
    audit = compile_library(tmp_path, "libaudit.so", auditor)
    env = preloads() | {"LD_AUDIT": str(audit)}
    ours = run([program, work], env=env)
    assert "open libdlopen.so\n" in ours.stderr
    assert "open libwork.so\n" not in ours.stderr
    del env["LD_PRELOAD"]
    libcs = run([program, work], env=env)
    assert "open libwork.so\n" in libcs.stderr
    assert ours.stdout == libcs.stdout
