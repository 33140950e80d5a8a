"""Many libraries: each is found by name, by file and by address, whatever came and went between."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

from support.fixtures import compile_library, run_python

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 500
SOURCE = "int number = 7; int *where(void) { return &number; }"
SCRIPT = """
import os, random, sys
import dlopen
from pathlib import Path

folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
paths = [folder / f"libcopy{number:04}.so" for number in range(count)]
os.chdir(folder)
opened = {}
places = {}

def check(path):
    library = opened[path]
    name = rng.choice([str(path), path.name])
    with dlopen.existing(name) as found:
        assert found.info == library.info, name
    with dlopen.Library(f"./{path.name}") as found:     # another name of the same file
        assert found.info == library.info
    address = library.symbols["number"].address
    assert dlopen.dladdr(address).library.path == str(path)
    assert dlopen.dladdr(library.info.map_start).library == library.info
    assert dlopen.dladdr(library.info.map_end - 1).library == library.info

def check_list():
    ours = [Path(i.path) for i in dlopen.libraries() if not i.is_host and "copy" in i.path]
    assert ours == list(opened), "not in load order"
    seen = []
    dlopen.dl_iterate_phdr(lambda info: seen.append(info.path) if "copy" in info.path else None)
    assert seen == [str(path) for path in ours]

for _ in range(3):
    left = [path for path in paths if path not in opened]
    rng.shuffle(left)
    for path in left:
        opened[path] = dlopen.Library(path, dlopen.RTLD_GLOBAL if rng.random() < 0.3 else 0)
        places[path] = opened[path].info.map_start
    check_list()
    for path in rng.sample(paths, 60):
        check(path)
    for _ in range(count):                              # places are used up
        dlopen.Library(paths[0], dlopen.PRIVATE).close()
    check_list()
    gone = rng.sample(paths, count - 30)
    for path in gone:
        opened.pop(path).close()
    check_list()
    for path in opened:
        check(path)
    for path in gone:
        found = dlopen.dladdr(places[path])
        assert found is None or found.library.path != str(path)
        try:
            dlopen.existing(str(path))
        except dlopen.LoadError:
            pass
        else:
            raise AssertionError(path)
print("done")
"""


def test_each_is_found(tmp_path: Path) -> None:
    # None is bound to another one, and held by that.
    first = compile_library(tmp_path, "libfirst.so", SOURCE, flags=["-Wl,-Bsymbolic"])
    for number in range(COUNT):
        shutil.copy(first, tmp_path / f"libcopy{number:04}.so")
    seed = random.Random(tmp_path.name).randrange(1000)
    done = run_python(SCRIPT, str(tmp_path), str(COUNT), str(seed))
    assert done.stdout == "done\n"
