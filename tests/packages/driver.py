"""Runs a program, and then writes what its process has mapped and imported, as JSON.

    driver.py DESCRIPTOR PROGRAM [ARCHIVE …]

With archives, they are on sys.path and dlopen.importer is installed.
"""

# ruff: noqa: PTH123  (pathlib is slow to import)
import json
import sys


def mapped() -> list[str]:
    """Each file of /proc/self/maps."""
    with open("/proc/self/maps") as lines:
        names = {words[5] for line in lines if len(words := line.rstrip().split(None, 5)) > 5}
    return sorted(name for name in names if name.startswith("/"))


def main() -> None:
    """Standard library only, and no more of it than is needed: the program may ask for itself."""
    descriptor, program, *archives = sys.argv[1:]
    if archives:
        import dlopen.importer  # noqa: PLC0415

        dlopen.importer.install()
        sys.path[:0] = archives
    sys.argv[:] = [program]
    with open(program) as source:
        code = compile(source.read(), program, "exec")
    names = {"__name__": "__main__", "__file__": program, "__builtins__": __builtins__}
    exec(code, names)
    sys.stdout.flush()
    facts = {
        "mapped": mapped(),
        "modules": {
            name: file
            for name, module in list(sys.modules.items())
            if isinstance(file := getattr(module, "__file__", None), str) and name != "__main__"
        },
        "images": [info.path for info in dlopen.libraries()] if archives else [],
    }
    with open(int(descriptor), "w") as target:
        json.dump(facts, target)


if __name__ == "__main__":
    main()
