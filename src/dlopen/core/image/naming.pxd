"""Names by which an image is known: those that it was opened by, and its soname. A name with a
slash is a path, any other may be a soname."""

from libc.stddef cimport size_t

from dlopen.core.base.atomics cimport load_pointer
from dlopen.core.base.strings cimport strchr, strcmp, strrchr
from dlopen.core.image.image cimport Image, Name
from dlopen.core.image.path cimport image_path


cdef inline bint answers_to(const Image* image, const char* name) noexcept nogil:
    """glibc's _dl_name_match_p and its soname rule."""
    cdef size_t i
    cdef const Name* further = <const Name*>load_pointer(&image.further_names)
    for i in range(image.names.count):
        if strcmp(<const char*>image.names.items[i], name) == 0:
            return True
    while further != NULL:
        if strcmp(further.text, name) == 0:
            return True
        further = further.next
    return image.tables.soname != NULL and strcmp(image.tables.soname, name) == 0


cdef inline const char* base_name(const char* path) noexcept nogil:
    cdef const char* slash = strrchr(path, 0x2f)
    return slash + 1 if slash != NULL else path


cdef inline bint same_file_name(const Image* image, const char* name) noexcept nogil:
    """The image is the one that a verneed entry names."""
    if image.tables.soname != NULL and strcmp(image.tables.soname, name) == 0:
        return True
    return strcmp(base_name(image_path(image)), name) == 0


cdef inline bint has_base_name(const Image* image, const char* name) noexcept nogil:
    """What the host made of a name with $ORIGIN in it, it tells nobody: there the last part of it
    has to do."""
    if strchr(name, 0x24) != NULL:
        name = base_name(name)
    return strcmp(base_name(image_path(image)), name) == 0
