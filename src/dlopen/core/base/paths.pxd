"""Paths that the kernel tells: into text of the allocator's, which grows with them.

PATH_MAX bytes would be a great part of a small thread's stack, and of a signal handler's.
"""

from libc.stddef cimport size_t

from dlopen.core.base.growable cimport Text, text_make_room
from dlopen.core.base.kernel cimport (
    ERANGE, is_shortage, kernel_read_link, kernel_working_directory,
)


cdef enum:
    FIRST_ROOM = 240
    LAST_ROOM = 0x10000          # the kernel's own limit is below it


cdef inline bint add_working_directory(Text* text) noexcept nogil:
    """False where it is not known, or for want of memory, for which the text has `failed`; it is as
    before then."""
    cdef size_t room = FIRST_ROOM
    cdef long length
    while room <= LAST_ROOM and text_make_room(text, room):
        length = kernel_working_directory(text.data + text.length, room)
        if length > 0:
            text.length += <size_t>length - 1    # it counts its NUL
            return True
        text.data[text.length] = 0
        if length != -ERANGE:
            text.failed = text.failed or is_shortage(length)
            return False
        room *= 4
    return False


cdef inline bint add_link_target(Text* text, const char* path) noexcept nogil:
    """What a symbolic link holds. False where it cannot be read, or for want of memory, for which
    the text has `failed`; it is as before then."""
    cdef size_t room = FIRST_ROOM
    cdef long length
    while room <= LAST_ROOM and text_make_room(text, room):
        length = kernel_read_link(path, text.data + text.length, room)
        if length >= 0 and <size_t>length < room:
            text.length += <size_t>length
            text.data[text.length] = 0
            return True
        text.data[text.length] = 0
        if length < 0:
            text.failed = text.failed or is_shortage(length)
            return False
        room *= 4                # cut, perhaps
    return False
