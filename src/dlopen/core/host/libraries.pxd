"""Libraries that there is one of in a process, by their sonames: the host's loader alone loads
them.

Each holds state that a second copy would not share: libc with its loader, stubs and libm, which are
built as one; the unwinder's registered frames; the exceptions and types of C++; the interpreter.
What refers to GLIBC_PRIVATE symbols is built into libc, and belongs to it.
"""

from libc.stdint cimport uint32_t

from dlopen.core.base.strings cimport has_prefix, strcmp, strncmp
from dlopen.core.image.image cimport Image, Tables


cdef inline const char* c_library_name() noexcept nogil:
    """By which the host's functions know libc."""
    return b"libc.so.6"


cdef inline bint is_c_library(const char* soname) noexcept nogil:
    """The one with libc's functions; `soname` may be NULL, here and below."""
    return soname != NULL and strcmp(soname, c_library_name()) == 0


cdef inline bint is_loader(const char* soname) noexcept nogil:
    """What the kernel starts a program with, and what maps libc."""
    return soname != NULL and strncmp(soname, b"ld-linux", 8) == 0


cdef inline bint is_c_library_name(const char* soname) noexcept nogil:
    """One of those whose dl* functions ours stand for."""
    return is_c_library(soname) or is_loader(soname) \
        or (soname != NULL and strcmp(soname, b"libdl.so.2") == 0)


cdef inline bint is_cxx_runtime_name(const char* soname) noexcept nogil:
    """One of those whose __cxa_thread_atexit ours stands for."""
    return soname != NULL and (
        strcmp(soname, b"libstdc++.so.6") == 0 or strcmp(soname, b"libc++abi.so.1") == 0
        or strcmp(soname, b"libc++.so.1") == 0
    )


cdef inline bint is_stub_name(const char* soname) noexcept nogil:
    """What was a part of libc before glibc 2.34, and is empty since."""
    return (
        strcmp(soname, b"libpthread.so.0") == 0 or strcmp(soname, b"libdl.so.2") == 0
        or strcmp(soname, b"librt.so.1") == 0 or strcmp(soname, b"libutil.so.1") == 0
        or strcmp(soname, b"libanl.so.1") == 0
    )


cdef inline bint is_family_name(const char* soname) noexcept nogil:
    """One libc with its stubs, loader, libm, libgcc_s, libstdc++ and libpython in a process."""
    return (
        has_prefix(soname, b"libc.so.") or is_stub_name(soname) or has_prefix(soname, b"ld-linux")
        or has_prefix(soname, b"libm.so.")
        or has_prefix(soname, b"libgcc_s.so.") or has_prefix(soname, b"libstdc++.so.")
        or has_prefix(soname, b"libpython3") or has_prefix(soname, b"libdlopen.so")
    )


cdef inline bint must_be_hosts(const Image* image) noexcept nogil:
    """By its soname; and what is built into libc (GLIBC_PRIVATE) belongs to it."""
    cdef const Tables* tables = &image.tables
    cdef uint32_t i
    for i in range(tables.version_count):
        if tables.versions[i].library != NULL and tables.versions[i].hash != 0 \
                and strcmp(tables.versions[i].name, b"GLIBC_PRIVATE") == 0:
            return True
    return tables.soname != NULL and is_family_name(tables.soname)
