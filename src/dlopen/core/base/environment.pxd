# cython: cdivision=True
"""The environment that the process was started with (environ(7)): later changes do not
count, as for ld.so(8)."""

from libc.stddef cimport size_t

from dlopen.core.base.allocator cimport Allocator
from dlopen.core.base.growable cimport Text, text_add_bytes
from dlopen.core.base.kernel cimport kernel_close, kernel_open, kernel_read
from dlopen.core.base.strings cimport strlen, strncmp


cdef extern from "<unistd.h>" nogil:
    char** process_environment "environ"


cdef inline void read_environment(Allocator* allocator, Text* environment) noexcept nogil:
    """`environment` becomes strings one after another: the kernel's, or where /proc is
    missing what libc has now."""
    cdef char buffer[4096]
    cdef char** entry = process_environment
    cdef long count
    cdef long descriptor = kernel_open(b"/proc/self/environ")
    if descriptor >= 0:
        while True:
            count = kernel_read(descriptor, &buffer[0], sizeof(buffer))
            if count <= 0:
                break
            text_add_bytes(allocator, environment, &buffer[0], <size_t>count)
        kernel_close(descriptor)
        return
    while entry != NULL and entry[0] != NULL:
        text_add_bytes(allocator, environment, entry[0], strlen(entry[0]) + 1)
        entry += 1


cdef inline const char* environment_value(const Text* environment, const char* name) noexcept nogil:
    """Of the last such variable, as glibc; `name` ends with its equals sign. NULL when it is
    not set, or empty."""
    cdef size_t length = strlen(name)
    cdef size_t i = 0
    cdef const char* value = NULL
    while i < environment.length:
        if strncmp(environment.data + i, name, length) == 0:
            value = environment.data + i + length
        i += strlen(environment.data + i) + 1
    return value if value != NULL and value[0] != 0 else NULL
