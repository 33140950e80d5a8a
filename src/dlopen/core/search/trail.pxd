"""What was tried: each candidate of a search, which rule led there and why it was not taken. The
error of a name that is not found tells path and reason, DLOPEN_find the rule, too."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t
from libc.string cimport memset

from dlopen.core.base.contract cimport DLOPEN_REJECTED_MACHINE
from dlopen.core.base.growable cimport Text, text_add_bytes, text_free
from dlopen.core.base.strings cimport strcmp, strlen
from dlopen.core.elf.constants cimport EI_CLASS, ELFCLASS64
from dlopen.core.memory.file cimport File


cdef struct Trail:               # the candidates of one search, for errors and for dlopen.find
    Text paths                   # strings one after another
    Text origins                 # the same: which rule named it
    int32_t results[256]
    size_t count
    bint other_class             # one of them is an ELF file of 32 bits


cdef inline void trail_init(Trail* trail) noexcept nogil:
    """Empty; of the results nothing is read that was not counted."""
    memset(&trail.paths, 0, sizeof(trail.paths))
    memset(&trail.origins, 0, sizeof(trail.origins))
    trail.count = 0
    trail.other_class = False


cdef inline void trail_free(Trail* trail) noexcept nogil:
    text_free(&trail.paths)
    text_free(&trail.origins)
    trail.count = 0
    trail.other_class = False


cdef inline void trail_add(
    Trail* trail, const char* path, const char* origin, int result,
    const File* file
) noexcept nogil:
    """One candidate, and how it ended: 0, an errno or DLOPEN_REJECTED_*. `trail` may be NULL."""
    if trail == NULL or trail.count == 256:
        return
    if result == DLOPEN_REJECTED_MACHINE and file.start[EI_CLASS] != ELFCLASS64:
        trail.other_class = True
    # Without memory it ends here: what is counted is there.
    if trail.paths.failed or trail.origins.failed:
        return
    text_add_bytes(&trail.paths, path, strlen(path) + 1)
    text_add_bytes(&trail.origins, origin, strlen(origin) + 1)
    if trail.paths.failed or trail.origins.failed:
        return
    trail.results[trail.count] = result
    trail.count += 1


cdef inline bint trail_holds(const Trail* trail, const char* path) noexcept nogil:
    """The path was tried already."""
    cdef const char* one = trail.paths.data
    cdef size_t _i
    for _i in range(trail.count):
        if strcmp(one, path) == 0:
            return True
        one += strlen(one) + 1
    return False
