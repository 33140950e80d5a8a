"""Where an image's record is zeroes: there others read what they take for libc's own link map."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from support.fixtures import compile_library, compile_program, run, run_python
from support.units import compile_unit

UNIT = """
from libc.stdint cimport uint64_t
from dlopen.core.image.image cimport Image

cdef public uint64_t unit_place(int which) noexcept nogil:
    cdef Image* image = NULL
    if which == 0:
        return <uint64_t>&image.zeroes
    if which == 1:
        return <uint64_t>&image.layout
    if which == 2:
        return <uint64_t>&image.further_zeroes
    if which == 3:
        return <uint64_t>&image.namespace_id
    if which == 4:
        return <uint64_t>&image.no_rpath
    if which == 5:
        return <uint64_t>&image.no_runpath
    return sizeof(Image)
"""
# <link.h>: the public part; glibc's include/link.h: what follows it, then l_info, of which each
# machine has DT_NUM entries, the versions', the extra and the address range's at least.
PUBLIC = 40
L_INFO = PUBLIC + 3 * 8
AFTER_L_INFO = L_INFO + 80 * 8
DT_RPATH, DT_RUNPATH = 15, 29
# libc's own functions: this program's, which libdlopen.so does not stand before.
MISTAKEN = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include "loader.h"
int main(int argc, char **argv) {
  use_loader(argv[1]);
  void *handle = library_open(argv[2]);
  Dl_serinfo paths;
  size_t module = 9;
  Lmid_t space = 9;
  printf("%d ", dlsym(handle, "answer") == NULL);
  printf("%d ", dlclose(handle) != 0);
  printf("%s ", dlerror());
  printf("%d ", dlinfo(handle, RTLD_DI_TLS_MODID, &module) == 0 && module == 0);
  printf("%d ", dlinfo(handle, RTLD_DI_LMID, &space) == 0 && space == 0);
  printf("%d ", dlinfo(handle, RTLD_DI_SERINFOSIZE, &paths) == 0);
  library_close(handle);
  return 0;
}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    unit = compile_unit(tmp_path_factory.mktemp("records"), "records", UNIT)
    code = (
        "import ctypes, sys; unit = ctypes.CDLL(sys.argv[1])\n"
        "unit.unit_place.restype = ctypes.c_uint64\n"
        "print(*map(unit.unit_place, range(7)))"
    )
    return [int(text) for text in run_python(code, str(unit)).stdout.split()]


@pytest.mark.in_process
def test_only_where_libc_has_l_info_is_there_something_of_ours(places: list[int]) -> None:
    zeroes, records, further, after, no_rpath, no_runpath, _size = places
    assert (zeroes, records) == (PUBLIC, L_INFO)
    assert [no_rpath, no_runpath] == [L_INFO + 8 * tag for tag in (DT_RPATH, DT_RUNPATH)]
    assert records < further <= AFTER_L_INFO
    assert after >= 1264


@pytest.mark.in_process
@pytest.mark.parametrize("member", ["l_tls_modid", "l_tls_offset"])
def test_what_libthread_db_reads_is_zeroes(places: list[int], member: str) -> None:
    """As libc says it for gdb and lldb: bits, how many, the offset."""
    further, after = places[2:4]
    name = f"_thread_db_link_map_{member}"
    bits, count, offset = (ctypes.c_uint32 * 3).in_dll(ctypes.CDLL(None), name)
    assert further <= offset <= after - bits // 8 * count


def test_libc_survives_a_handle_of_ours(tmp_path: Path, libdlopen: Path) -> None:
    """By mistake, of a program that is not preloaded."""
    library = compile_library(tmp_path, "liba.so", "int answer(void) { return 42; }")
    program = compile_program(tmp_path, "mistaken", MISTAKEN)
    done = run([program, libdlopen, library])
    assert done.stdout == f"1 1 {library}: shared object not open 1 1 1 "


@pytest.mark.in_process
def test_a_record_is_small(places: list[int]) -> None:
    assert places[-1] <= 2032
