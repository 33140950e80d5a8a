# cython: cdivision=True
"""What differs between releases of glibc's loader, and how it is told.

By looking, where the difference can be seen when it matters. Else by the version nodes that
libc.so.6 defines: they are ABI, and what a distribution has taken over from a later release
does not change them, as it does not change the loader's habits; the text of a version is for
people. A release that added no function to libc has no node (2.37): it is taken for the one
before.
"""

from libc.stdint cimport uint32_t

from dlopen.core.base.strings cimport strcmp
from dlopen.core.image.image cimport Image
from dlopen.core.linker.state cimport HostHabits


cdef inline bint defines_version(const Image* image, const char* name) noexcept nogil:
    """DT_VERDEF has the node."""
    cdef uint32_t i
    cdef const char* found
    for i in range(image.version_count):
        found = image.versions[i].name
        if found != NULL and image.versions[i].library == NULL and strcmp(found, name) == 0:
            return True
    return False


cdef inline void learn_habits(HostHabits* habits, const Image* libc) noexcept nogil:
    """Of the loader that belongs to this libc.so.6."""
    habits.has_debug_chain = defines_version(libc, b"GLIBC_2.35")
    # The next three came at some time after 2.36.
    habits.searches_platform_folders = not defines_version(libc, b"GLIBC_2.38")
    habits.asserts_versions = not defines_version(libc, b"GLIBC_2.38")
    habits.overwrites_chain = defines_version(libc, b"GLIBC_2.38")
    habits.finishes_closed_first = defines_version(libc, b"GLIBC_2.39")
