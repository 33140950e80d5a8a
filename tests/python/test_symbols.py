"""The mapping of exports, and its symbols."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import dlopen
from support.fixtures import compile_library
from support.machines import machine


def test_mapping(example: Path) -> None:
    with dlopen.Library(example) as library:
        symbols = library.symbols
        keys = list(symbols)
        assert len(keys) == len(set(keys)) == len(symbols)
        assert {"add", "twice", "twice@EXAMPLE_1", "counter", "weak_one"} <= set(keys)
        assert "twice@EXAMPLE_2" not in keys  # it is "twice"
        assert "twice@EXAMPLE_2" in symbols
        for absent in ("hidden_one", "answer_impl", "puts", "twice@EXAMPLE_3", 5):
            assert absent not in symbols
        with pytest.raises(KeyError):
            symbols["puts"]  # libc's, not this library's
        assert {symbol.name for symbol in symbols.values()} == {
            key.partition("@")[0] for key in keys
        }


def test_keys_are_those_of_the_symbol_table(example: Path) -> None:
    """Against pyelftools, an independent reader."""
    wanted = set()
    with example.open("rb") as file:
        elf = ELFFile(file)
        versions = elf.get_section_by_name(".gnu.version")
        names = {
            definition.entry.vd_ndx: next(auxiliaries).name
            for definition, auxiliaries in elf.get_section_by_name(".gnu.version_d").iter_versions()
        }
        for index, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
            if symbol["st_shndx"] == "SHN_UNDEF" or symbol["st_info"]["bind"] == "STB_LOCAL":
                continue
            number = versions.get_symbol(index)["ndx"]
            hidden = isinstance(number, int) and number & 0x8000
            wanted.add(f"{symbol.name}@{names[number & 0x7FFF]}" if hidden else symbol.name)
    with dlopen.Library(example) as library:
        assert set(library.symbols) == wanted


def test_attributes(example: Path) -> None:
    with dlopen.Library(example) as library:
        counter = library.symbols["counter"]
        assert (counter.name, counter.version) == ("counter", "EXAMPLE_1")
        assert (counter.type, counter.binding, counter.size) == ("OBJECT", "GLOBAL", 4)
        assert counter.library == library.info
        assert int(counter) == counter.address
        assert ctypes.c_int.from_address(counter.address).value == 5
        assert library.info.map_start <= counter.address < library.info.map_end
        assert "counter" in repr(counter)
        assert library.symbols["weak_one"].binding == "WEAK"
        assert library.symbols["add"].type == "FUNC"
        old, new = library.symbols["twice@EXAMPLE_1"], library.symbols["twice"]
        assert (old.version, new.version) == ("EXAMPLE_1", "EXAMPLE_2")
        assert old.address != new.address


def test_an_ifunc_is_resolved_when_its_address_is_read(example: Path) -> None:
    with dlopen.Library(example, dlopen.PRIVATE) as library:
        resolved = library.variable("resolved", ctypes.c_int)
        answer = library.symbols["answer"]
        assert answer.type == "IFUNC"
        before = resolved.value
        address = answer.address
        assert resolved.value == before + 1
        assert answer.address == address
        assert resolved.value == before + 1
        assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() == 42
        assert library.answer() == 42


def test_many_symbols_are_listed_quickly(tmp_path: Path) -> None:
    count = 50_000
    source = "".join(f"char variable_{number};\n" for number in range(count))
    path = compile_library(tmp_path, "libmany.so", source)
    with dlopen.Library(path) as library:
        keys = set(library.symbols)
        assert {f"variable_{number}" for number in range(count)} <= keys
        assert "variable_49999" in library.symbols
        with pytest.raises(dlopen.SymbolError) as caught:
            library.symbols["variable_4321x"]
    start = time.process_time()
    assert "variable_4321" in caught.value.similar
    assert time.process_time() - start < 2  # and not a minute


def test_similar_names(example: Path) -> None:
    with dlopen.Library(example) as library:
        with pytest.raises(dlopen.SymbolError) as caught:
            library.symbols["cuonter"]
        assert caught.value.similar[0] == "counter"
        assert caught.value.library == str(example)


def test_host_libraries_have_symbols_too() -> None:
    libc = dlopen.existing("libc.so.6")
    assert "malloc" in libc.symbols
    baseline = machine().baseline
    oldest, newest = libc.symbols[f"pthread_create@{baseline}"], libc.symbols["pthread_create"]
    assert (oldest.version, newest.version) == (baseline, "GLIBC_2.34")
    assert oldest.address
    assert newest.address
    assert (
        int(libc.symbols["getpid"]) == ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
    )
    libc.close()


def test_after_close(example: Path) -> None:
    library = dlopen.Library(example)
    symbols, counter = library.symbols, library.symbols["counter"]
    library.close()
    assert counter.name == "counter"
    for use in (
        lambda: counter.address,
        lambda: int(counter),
        lambda: counter.library,
        lambda: list(symbols),
        lambda: len(symbols),
        lambda: symbols["add"],
        lambda: "add" in symbols,
        lambda: library.symbols,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
