"""The process's environment (environ(7)), as it is when it is read: at the start."""

from libc.stddef cimport size_t
from libc.string cimport strlen, strncmp


cdef extern from "<unistd.h>" nogil:
    char** process_environment "environ"


cdef inline const char* environment_value(const char* name) noexcept nogil:
    """`name` ends with its equals sign; NULL when it is not set, or empty."""
    cdef char** entry = process_environment
    cdef size_t length = strlen(name)
    while entry != NULL and entry[0] != NULL:
        if strncmp(entry[0], name, length) == 0:
            return entry[0] + length if entry[0][length] != 0 else NULL
        entry += 1
    return NULL
