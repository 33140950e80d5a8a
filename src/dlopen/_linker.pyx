# cython: cdivision=True, binding=False
"""The binding of dlopen.h: numbers and bytes in, numbers, strings and exceptions out.

An image is its address as an int; the core checks each one that it is given.
The GIL is released around every call that may run foreign code, wait or take long.

Between DLOPEN_read_enter and DLOPEN_read_leave the GIL is never taken or released and no Python
object is made: whoever unmaps an image waits for its readers, perhaps while holding the GIL.
What is read there goes into a `Stream`, and becomes Python objects afterwards.
"""
from libc.stdint cimport uintptr_t

from dlopen.core.base.contract cimport (
    DLOPEN_ABI, DLOPEN_ARENA, DLOPEN_NO_FOREIGN_CODE, DLOPEN_PRIVATE, DLOPEN_RELOADABLE,
    DLOPEN_REPLACE_IN_TREE, DLOPEN_abi,
)

include "binding/declarations.pxi"
include "binding/stream.pxi"
include "binding/failures.pxi"
include "binding/members.pxi"
include "binding/opening.pxi"
include "binding/looking.pxi"
include "binding/opened.pxi"
include "binding/changing.pxi"
include "binding/callbacks.pxi"
include "binding/extensions.pxi"
include "binding/modules.pxi"
include "binding/archives.pxi"


PRIVATE = DLOPEN_PRIVATE
NO_FOREIGN_CODE = DLOPEN_NO_FOREIGN_CODE
REPLACE_IN_TREE = DLOPEN_REPLACE_IN_TREE
RELOADABLE = DLOPEN_RELOADABLE
ARENA = DLOPEN_ARENA
ABI = DLOPEN_ABI
VERSION = package_version.decode()
OWN_CODE = <uintptr_t><void *>DLOPEN_abi    # an address in libdlopen.so


cdef object loaded_file():
    """The file that holds the linker in this process."""
    cdef uintptr_t address = <uintptr_t><void *>DLOPEN_abi
    import builtins
    try:
        with builtins.open("/proc/self/maps", errors="surrogateescape") as maps:
            for line in maps:
                start, end = line.split(maxsplit=1)[0].split("-")
                if int(start, 16) <= address < int(end, 16):
                    return line.split(maxsplit=5)[5].strip()
    except OSError:
        pass                            # there is no /proc
    return "an unknown file"


if DLOPEN_abi() != DLOPEN_ABI:
    raise ImportError(
        f"{loaded_file()} has version {DLOPEN_abi()} of the interface, but {__file__} was made "
        f"for version {DLOPEN_ABI}; is another release of dlopen in LD_PRELOAD?")
