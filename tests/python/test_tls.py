"""Thread-local storage from Python, and in real libraries: each from its bytes, in four threads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

import dlopen
from support.elf64 import PT_TLS, Elf
from support.fixtures import compile_library, missing, run_python

COUNTER = """
__thread int counter = 40;
__thread long pair[2] = {1, 2};
int count(void) { return ++counter; }
int *counter_at(void) { return &counter; }
"""

HEAD = """
import sys, threading
from ctypes import *
from pathlib import Path
import dlopen
from support.fixtures import maps
path = sys.argv[1]

def four(function):
    # Its results for 0 to 3, from a thread each, at the same time.
    results, start = {}, threading.Barrier(4)
    def work(number):
        start.wait()
        results[number] = function(number)
    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return [results[number] for number in range(4)]

def mapped(name): return any(Path(name).name in Path(one.path).name for one in maps())
"""
FROM_BYTES = """
lib = dlopen.Library.from_bytes(Path(path).read_bytes(), name=Path(path).name)
assert lib.info.tls
assert not mapped(Path(path).resolve())
"""


def python(code: str, path: Path, timeout: float = 60) -> str:
    return run_python(HEAD + code, str(path), timeout=timeout).stdout


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    return compile_library(tmp_path, "libcounter.so", COUNTER)


def test_what_is_known_of_it(counter: Path) -> None:
    segment = Elf(counter).segment(PT_TLS)
    assert segment is not None
    with dlopen.Library(counter) as library:
        tls = library.info.tls
        assert tls is not None
        assert (tls.size, tls.align) == (segment.memory_size, segment.align)
        symbol = library.symbols["counter"]
        assert (symbol.type, symbol.size) == ("TLS", 4)


def test_symbols_and_variables_are_the_calling_threads(counter: Path) -> None:
    code = """
lib, copy = dlopen.Library(path), dlopen.Library(path, dlopen.PRIVATE)
symbol, variable = lib.symbols["counter"], lib.variable("counter", c_int)
pair = lib.variable("pair", c_long * 2)
others = copy.variable("counter", c_int)
done = threading.Barrier(4)
def look(number):
    assert variable.value == 40
    variable.value += number
    assert lib.count() == variable.value == 41 + number
    where = lib.function("counter_at", c_void_p)()
    assert symbol.address == variable.address == where == lib.symbols["counter"].address
    assert list(pair.value) == [1, 2]
    pair.value[0] = number
    assert others.value == 40 and others.address == copy.function("counter_at", c_void_p)()
    done.wait()  # all four have theirs
    assert list(pair.value) == [number, 2] and lib.count() == 42 + number
    return {where, others.address}
assert len(set.union(look_main := {variable.address, others.address}, *four(look))) == 10
assert (variable.value, others.value) == (40, 40)
"""
    python(code, counter)


def test_errno_of_libc() -> None:
    code = """
libc = dlopen.existing("libc.so.6")
symbol = libc.symbols["errno@GLIBC_PRIVATE"]
where = libc.function("__errno_location", c_void_p)
def look(number): return symbol.address, where()
found = [look(4), *four(look)]
assert all(one == other for one, other in found), found
assert len({one for one, _ in found}) > 1
"""
    python(code, Path())


@pytest.mark.cxx
def test_what_the_systems_loader_never_unloads(tmp_path: Path) -> None:
    """STB_GNU_UNIQUE, and a thread_local object of a thread that has ended."""
    source = """
    #include <string>
    template <class T> struct Box { static int value; };
    template <class T> int Box<T>::value;
    static thread_local std::string text = "a text that is longer than what fits in itself";
    extern "C" int count() { text += "x"; return ++Box<int>::value + (text.size() > 40); }
    """
    path = compile_library(tmp_path, "libunique.so", source, language="c++")
    code = """
import _ctypes
def used(library):
    function = library.count
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
    return function()
theirs = CDLL(path)
assert used(theirs) == 3
_ctypes.dlclose(theirs._handle)
assert mapped(path)
print("theirs stays")
"""
    assert python(code, path) == "theirs stays\n"
    code = """
for _ in range(3):
    results = []
    with dlopen.Library(path) as lib:
        for _ in range(2):
            thread = threading.Thread(target=lambda: results.append(lib.count()))
            thread.start()
            thread.join()
    assert results == [2, 3]  # from the start each time
    while mapped(path):  # a Python thread is joined before the system's has ended
        pass
"""
    python(code, path)


# Real libraries -----------------------------------------------------------------------------------


def test_mpfr(need_library: Callable[[str], Path]) -> None:
    """Caches of constants; some of its storage is static, some dynamic."""
    code = """
class Number(Structure):  # mpfr_t
    _fields_ = ("precision", c_long), ("sign", c_int), ("exponent", c_long), ("limbs", c_void_p)
text = lib.function("mpfr_get_str", c_void_p, c_void_p, c_void_p, c_int, c_size_t, c_void_p, c_int)
digits = 2000
def pi(number):
    found = Number()
    for bits in (64, 700 * (number + 1), 7000):
        lib.mpfr_init2(byref(found), c_long(bits))
        lib.mpfr_const_pi(byref(found), 0)
        if bits != 7000:
            lib.mpfr_clear(byref(found))
    buffer, exponent = create_string_buffer(digits + 10), c_long()
    text(buffer, byref(exponent), 10, digits + 2, byref(found), 0)
    lib.mpfr_clear(byref(found))
    lib.mpfr_free_cache()
    assert exponent.value == 1
    return buffer.value.decode()[:digits]

def machin():  # 16 arctan(1/5) - 4 arctan(1/239)
    unit = 10 ** (digits + 20)
    def arctan(inverse):
        term = total = unit // inverse
        n, sign = 3, -1
        while term:
            term //= inverse * inverse
            total += sign * (term // n)
            n, sign = n + 2, -sign
        return total
    return str(4 * (4 * arctan(5) - arctan(239)))[:digits]
assert four(pi) == [machin()] * 4
assert pi(1) == machin()
lib.close()
assert not mapped("mpfr")
"""
    python(FROM_BYTES + code, need_library("libmpfr.so.6"))


def test_z3(need_library: Callable[[str], Path]) -> None:
    """C++, with exceptions and libstdc++."""
    code = """
lib.Z3_mk_config.restype = lib.Z3_mk_context.restype = c_void_p
evaluate = lib.function("Z3_eval_smtlib2_string", c_char_p, c_void_p, c_char_p)
def solve(number):
    config = c_void_p(lib.Z3_mk_config())
    context = c_void_p(lib.Z3_mk_context(config))
    lib.Z3_del_config(config)
    lib.Z3_set_error_handler(context, None)  # the default one ends the process
    text = f'''
    (declare-const x Int) (declare-const y Int)
    (assert (= (+ (* 3 x) (* 5 y)) {100 + number})) (assert (< 10 x 16))
    (check-sat) (get-value (x y))
    (assert (> y 1000)) (check-sat)
    '''
    answer = evaluate(context, text.encode()).decode().split()
    error = evaluate(context, b"(assert undeclared)").decode()
    lib.Z3_del_context(context)
    return answer, "unknown constant undeclared" in error
for number, (answer, error) in enumerate(four(solve)):
    x = next(x for x in range(11, 16) if (100 + number - 3 * x) % 5 == 0)
    y = (100 + number - 3 * x) // 5
    assert answer == ["sat", "((x", f"{x})", "(y", f"{y}))", "unsat"], answer
    assert error
"""
    python(FROM_BYTES + code, need_library("libz3.so.4"))


def test_gomp(need_library: Callable[[str], Path]) -> None:
    code = """
results = [[], [], [], []]
@dlopen.callback(None, c_void_p)
def body(number):
    results[number or 0].append((lib.omp_get_thread_num(), lib.omp_get_num_threads()))
def use(number):
    lib.omp_set_num_threads(number + 1)  # this thread's
    lib.GOMP_parallel(body, c_void_p(number), 0, 0)
    return lib.omp_get_max_threads()
lib.function("omp_set_dynamic", None, c_int)(0)
assert four(use) == [1, 2, 3, 4]
for number in range(4):
    assert sorted(results[number]) == [(n, number + 1) for n in range(number + 1)], results
"""
    python(FROM_BYTES + code, need_library("libgomp.so.1"))


@pytest.mark.rust
def test_rust(tmp_path: Path) -> None:
    source = Path(__file__).with_name("tls.rs")
    path = compile_library(tmp_path, "libtls.so", source, language="rust")
    code = """
add, dropped = lib.function("add", c_int64, c_int64), lib.function("dropped", c_int64)
def use(number): return [add(number * n) for n in (1, 10, 100)]
assert four(use) == [[1000 + k * number for k in (1, 11, 111)] for number in range(4)]
while dropped() != 4 * 1000 + 111 * 6:  # a Python thread is joined before the system's has ended
    pass
start, end = lib.info.map_start, lib.info.map_end
lib.close()
while any(start <= mapping.start < end and mapping.permissions[2] == "x" for mapping in maps()):
    pass
"""
    python(FROM_BYTES + code, path)


GO = """
package main

import "C"

import "sync"

//export Sum
func Sum(count C.long) C.long {
	parts := make(chan int64, 4)
	var group sync.WaitGroup
	for part := int64(0); part < 4; part++ {
		group.Add(1)
		go func(part int64) {
			defer group.Done()
			var total int64
			for n := part; n < int64(count); n += 4 {
				total += n
			}
			parts <- total
		}(part) // a variable of its own, in Go before 1.22 too
	}
	group.Wait()
	close(parts)
	var total int64
	for part := range parts {
		total += part
	}
	return C.long(total)
}

//export Recovered
func Recovered(index C.long) (result C.long) {
	defer func() {
		if recover() != nil {
			result = -1
		}
	}()
	numbers := make([]int, 3)
	return C.long(numbers[index])
}

func main() {}
"""


@pytest.mark.go
def test_go(tmp_path: Path) -> None:
    path = compile_library(tmp_path, "libtls.so", GO, language="go")
    code = """
total, recovered = lib.function("Sum", c_long, c_long), lib.function("Recovered", c_long, c_long)
def use(number):
    found = [total(1000 * (number + n)) for n in range(50)]
    return found, recovered(number)
for number, (found, result) in enumerate(four(use)):
    assert found == [sum(range(1000 * (number + n))) for n in range(50)]
    assert result == (0 if number < 3 else -1)
print(total(10))
"""
    # Its runtime cannot be unloaded.
    assert python(FROM_BYTES + code, path) == "45\n"


def test_openblas() -> None:
    spec = importlib.util.find_spec("scipy_openblas64")
    if spec is None or spec.origin is None:
        missing("scipy-openblas64 is not installed")
    path = Path(spec.origin).with_name("lib") / "libscipy_openblas64_.so"
    code = """
import random
size = 150
def multiply(number):
    chosen = random.Random(number)
    a, b = ([float(chosen.randrange(-99, 99)) for _ in range(size * size)] for _ in "ab")
    kind = c_double * (size * size)
    c = kind()
    one, zero, n = c_double(1), c_double(0), c_long(size)
    for _ in range(5):
        lib.scipy_cblas_dgemm64_(101, 111, 111, n, n, n, one, kind(*a), n, kind(*b), n, zero, c, n)
    for row in range(0, size, 15):
        for column in range(0, size, 15):
            wanted = sum(a[row * size + k] * b[k * size + column] for k in range(size))
            assert c[row * size + column] == wanted  # exact: small integers
    # c x = d, by LU decomposition
    d, pivots = (c_double * size)(*range(size)), (c_long * size)()
    matrix = kind(*a)
    lib.scipy_LAPACKE_dgesv64_(101, n, c_long(1), matrix, n, pivots, d, c_long(1))
    for row in range(0, size, 15):
        assert abs(sum(a[row * size + k] * d[k] for k in range(size)) - row) < 1e-6
    return True
assert four(multiply) == [True] * 4
assert multiply(5)
lib.close()
"""
    python(FROM_BYTES + code, path)
