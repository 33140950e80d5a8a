"""Random trees of libraries that define the same names, opened as images of one's own among others.

The reference is the rule in words, on what each library defines: itself if it is symbolic; those of
its set; the global scope; the tree of its open. Of the allocation family no set.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from support.fixtures import compile_library, run_python

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES, OPENS = 14, 120
# The last two are of the allocation family; libc has one of them.
NAMES = ("f0", "f1", "f2", "f3", "f4", "f5", "valloc", "_ZdaPvi")

CHILD = """
import json, random, sys
from ctypes import c_void_p
from pathlib import Path
import dlopen

folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
libraries = json.loads(Path(folder, "libraries.json").read_text())
data = {name: Path(folder, name).read_bytes() for name in libraries}
names = json.loads(sys.argv[3])

def tree(*roots):
    found = list(roots)
    for name in found:
        found += [other for other in libraries[name]["needs"] if other not in found]
    return found

def first(order, symbol):
    for name in order:
        if name == "libc.so.6" and symbol == "valloc":
            return name
        if name in libraries and symbol in libraries[name]["defines"]:
            return name
    return None

def expected(asker, symbol, own, globals, root, mode):
    if libraries[asker]["symbolic"] and symbol in libraries[asker]["defines"]:
        return asker
    before = [] if symbol in names[-2:] or mode & dlopen.RTLD_GLOBAL or asker not in own else own
    return first([*before, "libc.so.6", *globals, *tree(root)], symbol)

def where(address):
    found = dlopen.dladdr(address) if address else None
    return found and found.library.soname

wrong, asked, not_first = [], 0, 0
for _ in range(int(sys.argv[4])):
    kept, globals = [], []
    loaded = set()
    for name in rng.sample(sorted(libraries), rng.randrange(4)):
        mode = rng.choice((dlopen.RTLD_GLOBAL, dlopen.RTLD_GLOBAL, dlopen.RTLD_LOCAL))
        kept.append(dlopen.Library(folder / name, mode))
        loaded.update(tree(name))
        if mode == dlopen.RTLD_GLOBAL:
            globals += [other for other in tree(name) if other not in globals]
    root = rng.choice([name for name in libraries if libraries[name]["needs"]])
    how = rng.choice(("private", "files", "bytes"))
    mode = rng.choice((dlopen.RTLD_NOW, dlopen.RTLD_LAZY)) | rng.choice((0, 0, dlopen.RTLD_GLOBAL))
    # What is loaded already is not loaded again; bytes alone bring what they need as others do.
    new = [name for name in tree(root) if name == root or name not in loaded]
    own = [root] if how == "bytes" else new
    if how == "private":
        library = dlopen.Library(folder / root, mode | dlopen.PRIVATE)
    elif how == "files":
        library = dlopen.Library(root, mode, files=data)
    else:
        library = dlopen.Library.from_bytes(data[root], name=str(folder / root), mode=mode)
    for asker in own:
        for kind in ("address", "found"):
            for symbol in names:
                address = library.function(f"{kind}_{symbol}_{libraries[asker]['number']}",
                                           c_void_p)()
                wanted = expected(asker, symbol, own, globals, root, mode)
                asked += 1
                not_first += wanted != first([*globals, *tree(root)], symbol)
                if where(address) != wanted:
                    wrong.append((how, mode, root, asker, kind, symbol, where(address), wanted,
                                  own, globals))
    library.close()
    for other in kept:
        other.close()
print(json.dumps([wrong[:3], len(wrong), asked, not_first]))
"""


def build(folder: Path, rng: random.Random) -> None:
    libraries: dict[str, dict[str, Any]] = {}
    for number in range(LIBRARIES):
        defines = rng.sample(NAMES, rng.randrange(2, 6))
        needs = rng.sample(sorted(libraries), min(len(libraries), rng.choice((0, 1, 2, 2, 3))))
        symbolic = rng.random() < 0.2
        lines = ["#define _GNU_SOURCE", "#include <dlfcn.h>"]
        for name in NAMES:
            if name in defines:
                lines += [f"void {name}(void) {{ }}"]
            else:
                lines += [f"__attribute__((weak)) void {name}(void);"]
            lines += [
                f"void *address_{name}_{number}(void) {{ return (void *){name}; }}",
                f"void *found_{name}_{number}(void)",
                f'{{ void *found = dlsym(RTLD_DEFAULT, "{name}"); return found; }}',
            ]
        flags = [
            "-fno-builtin",
            "-Wl,--no-as-needed",
            "-Wl,-z,lazy",
            *["-Wl,-Bsymbolic"] * symbolic,
        ]
        name = f"libown{number}.so"
        compile_library(
            folder, name, "\n".join(lines), flags=flags, libraries=[folder / n for n in needs]
        )
        libraries[name] = {
            "number": number,
            "defines": defines,
            "needs": needs,
            "symbolic": symbolic,
        }
    (folder / "libraries.json").write_text(json.dumps(libraries))


@pytest.mark.parametrize("seed", range(3))
def test_orders(tmp_path: Path, seed: int) -> None:
    build(tmp_path, random.Random(seed))
    arguments = (str(tmp_path), str(seed), json.dumps(NAMES), str(OPENS))
    wrong, count, asked, not_first = json.loads(
        run_python(CHILD, *arguments, timeout=300).stdout.splitlines()[-1]
    )
    assert not wrong, f"{count} of {asked} differ; the first:\n{wrong[0]}"
    assert asked > 1000
    assert not_first > 200  # where glibc's order gives another one
