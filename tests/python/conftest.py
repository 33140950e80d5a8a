"""A library with a bit of everything, and libraries of the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fixtures import compile_library

EXAMPLE = r"""
#include <errno.h>
#include <stdio.h>

struct point { int x, y; };

int counter = 5;
struct point origin = { 1, 2 };
int table[4] = { 1, 2, 3, 4 };
char label[8] = "label";

int add(int a, int b) { return a + b; }
double half(double value) { return value / 2; }
int count(void) { return ++counter; }
int close(int value) { return value + 1000; }
void print(const char *text) { puts(text); fflush(stdout); }
int fails(void) { errno = ERANGE; return -1; }
int call(int (*function)(int), int value) { return function(value); }

static int answer_impl(void) { return 42; }
int resolved;
__attribute__((visibility("hidden"))) void *resolve(void) { resolved++; return answer_impl; }
int answer(void) __attribute__((ifunc("resolve")));

__attribute__((weak)) int weak_one(void) { return 1; }
__attribute__((visibility("hidden"))) int hidden_one(void) { return 1; }

int old_twice(int value) { return 2 * value + 1; }
int new_twice(int value) { return 2 * value; }
__asm__(".symver old_twice, twice@EXAMPLE_1");
__asm__(".symver new_twice, twice@@EXAMPLE_2");
"""

MAP = """
EXAMPLE_1 {
  global: add; half; count; close; print; fails; call; answer; counter; origin; table; label;
          weak_one; resolved; twice;
  local: *;
};
EXAMPLE_2 { global: twice; } EXAMPLE_1;
"""


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the example library."""
    directory = tmp_path_factory.mktemp("example")
    map_file = directory / "example.map"
    map_file.write_text(MAP)
    flags = [f"-Wl,--version-script={map_file}", "-fno-builtin"]
    return compile_library(directory, "libexample.so", EXAMPLE, flags=flags)
