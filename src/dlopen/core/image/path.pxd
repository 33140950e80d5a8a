"""Where an image's file is: `Image.path`. That of the program is found when it is first asked for:
most processes never ask, and the first look at /proc costs as much as ten system calls."""

from libc.string cimport memset

from dlopen.core.base.allocator cimport copy_text, release
from dlopen.core.base.atomics cimport compare_and_swap_pointer, load_pointer
from dlopen.core.base.environment cimport AT_EXECFN, getauxval
from dlopen.core.base.growable cimport Text, text_free
from dlopen.core.base.kernel cimport kernel_program_link
from dlopen.core.base.paths cimport add_link_target
from dlopen.core.base.strings cimport strlen
from dlopen.core.image.image cimport Image


cdef inline char* find_program_path() noexcept nogil:
    """Of the kernel; without /proc as execve(2) was given it, if that says the folder. NULL
    without memory."""
    cdef const char* name = <const char*>getauxval(AT_EXECFN)
    cdef char* path = NULL
    cdef Text target
    memset(&target, 0, sizeof(target))
    if add_link_target(&target, kernel_program_link()):
        path = copy_text(target.data, target.length)
    elif not target.failed:
        if name == NULL or name[0] != 0x2f:
            name = b""
        path = copy_text(name, strlen(name))
    text_free(&target)
    return path


cdef inline const char* image_path(const Image* image) noexcept nogil:
    """Absolute for a file, the given name for bytes; "" where it is not known. Threads that get
    here together all find the same."""
    cdef char* path = <char*>load_pointer(&image.path)
    if path == NULL and image.host.is_program:
        path = find_program_path()
        if path != NULL and not compare_and_swap_pointer(<void**>&image.path, NULL, path):
            release(path)
            path = <char*>load_pointer(&image.path)
    if path == NULL:
        return b""
    return path
