"""What differs between releases of glibc's loader, and how it is told.

By looking, where the difference can be seen when it matters. Else by the version nodes that
libc.so.6 defines: they are ABI, and what a distribution has taken over from a later release
does not change them, as it does not change the loader's habits; the text of a version is for
people. A release that added no function to libc has no node (2.37): it is taken for the one
before.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.strings cimport strcmp
from dlopen.core.elf.constants cimport DT_VERDEF, DT_VERDEFNUM
from dlopen.core.elf.structures cimport Verdaux, Verdef
from dlopen.core.host.abi cimport HostHabits
from dlopen.core.image.checked cimport entry_at
from dlopen.core.image.image cimport Image, string_at
cdef inline bint defines_version(const Image* image, const char* name) noexcept nogil:
    """DT_VERDEF has the node. Of the host's; it asks for no memory."""
    cdef const Verdef* definition
    cdef const Verdaux* entry
    cdef const char* found
    cdef uint64_t address = 0
    cdef uint64_t count = 0
    cdef uint64_t _i
    cdef uint32_t i
    for i in range(image.dynamic_count):
        if image.dynamic[i].d_tag == DT_VERDEF:
            address = image.dynamic[i].d_val
        elif image.dynamic[i].d_tag == DT_VERDEFNUM:
            count = image.dynamic[i].d_val
    for _i in range(count if address != 0 else 0):
        definition = <const Verdef*>entry_at(image, address, sizeof(Verdef))
        entry = <const Verdaux*>entry_at(image, address + definition.vd_aux, sizeof(Verdaux))
        found = string_at(image, entry.vda_name)
        if found != NULL and strcmp(found, name) == 0:
            return True
        address += definition.vd_next
    return False


cdef inline void learn_habits(HostHabits* habits, const Image* libc) noexcept nogil:
    """Of the loader that belongs to this libc.so.6."""
    habits.has_debug_chain = defines_version(libc, b"GLIBC_2.35")
    # The next three came at some time after 2.36.
    habits.searches_platform_folders = not defines_version(libc, b"GLIBC_2.38")
    habits.asserts_versions = not defines_version(libc, b"GLIBC_2.38")
    habits.overwrites_chain = defines_version(libc, b"GLIBC_2.38")
    habits.finishes_closed_first = defines_version(libc, b"GLIBC_2.39")
