"""The import of a package: from where it is installed, or from archives; the protocol is side.h's.

    package_import.py MODULE [ARCHIVE … [--inflate]]

`import` and `wall` are of the package alone; in `all` and `all-wall` is what brings the importer.
Nothing else is imported here: it would be there when the package asks for it.  With `--inflate` it
is instead what decompressing takes, of the libraries and bytecode that the import has read.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def inflate(archive: str) -> None:
    """After they were imported, by their names."""
    import zipfile  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    with zipfile.ZipFile(archive) as file:
        names = [info.member for info in dlopen.libraries() if info.archive == archive]
        files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
        names += [f"{name[len(archive) + 1 :]}c" for name in files if name.startswith(archive)]
        members = [file.getinfo(name) for name in names if name in file.NameToInfo]
        contents = [compressed(file, member) for member in members if member.compress_type]
    begin, wall = time.process_time_ns(), time.perf_counter_ns()
    for content in contents:
        zlib.decompress(content, -15)
    cpu, all_wall = time.process_time_ns() - begin, time.perf_counter_ns() - wall
    print("import", cpu, "wall", all_wall, flush=True)


def compressed(file: Any, member: Any) -> bytes:
    """As it is in the archive."""
    file.fp.seek(member.header_offset + 26)
    sizes = file.fp.read(4)
    skipped = int.from_bytes(sizes[:2], "little") + int.from_bytes(sizes[2:], "little")
    file.fp.seek(skipped, 1)
    return bytes(file.fp.read(member.compress_size))


module, *archives = sys.argv[1:]
if inflates := "--inflate" in archives:
    archives.remove("--inflate")
print("ready", flush=True)
for _ in sys.stdin:
    begin, wall = time.process_time_ns(), time.perf_counter_ns()
    if archives:
        import dlopen.importer

        dlopen.importer.install()
        sys.path[:0] = archives
    middle, middle_wall = time.process_time_ns(), time.perf_counter_ns()
    __import__(module)
    end, end_wall = time.process_time_ns(), time.perf_counter_ns()
    if inflates:
        inflate(archives[0])
    else:
        print("import", end - middle, "wall", end_wall - middle_wall, end=" ")
        print("all", end - begin, "all-wall", end_wall - wall, flush=True)
