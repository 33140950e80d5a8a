"""The `size` that begins a struct of dlopen.h, whose end may grow: as copy_struct_from_user has it.

An older client's struct is smaller: what it has not got counts as zeroes, which stand for what
the function did before. A newer client's is larger: it may ask only for what is known here, so
all that is beyond must be zeroes.
"""

from libc.stddef cimport size_t
from libc.string cimport memcpy, memset

from dlopen.core.base.contract cimport DLOPEN_E_INVALID, Error, Request
from dlopen.core.base.details cimport DETAIL_REQUEST_SIZE
from dlopen.core.base.errors cimport fail


cdef extern from *:
    """
    #include <stddef.h>
    /* The structs of the first release of the interface. */
    #define DLOPEN_OLDEST_REQUEST offsetof(struct DLOPEN_request, namespace_id)
    #define DLOPEN_OLDEST_INFO offsetof(struct DLOPEN_info, namespace_id)
    """
    enum:
        OLDEST_REQUEST "DLOPEN_OLDEST_REQUEST"
        OLDEST_INFO "DLOPEN_OLDEST_INFO"


cdef enum:
    LARGEST_STRUCT = 4096        # beyond this it is no size


cdef inline bint can_serve(
    const void* given, size_t size, size_t oldest, size_t known
) noexcept nogil:
    """A client's struct of `size` bytes, where `known` are known here."""
    cdef size_t i
    if size < oldest or size > LARGEST_STRUCT:
        return False
    for i in range(known, size):
        if (<const char*>given)[i] != 0:
            return False
    return True


cdef inline int wrong_size(Error* error) noexcept nogil:
    """Of a request."""
    return fail(error, DLOPEN_E_INVALID, b"", DETAIL_REQUEST_SIZE)


cdef inline const Request* whole_request(const Request* given, Request* room) noexcept nogil:
    """The client's, or a longer copy of it in `room`; NULL: its size cannot be."""
    if given.size == sizeof(Request):
        return given
    if not can_serve(given, given.size, OLDEST_REQUEST, sizeof(Request)):
        return NULL
    memset(room, 0, sizeof(Request))
    memcpy(room, given, given.size if given.size < sizeof(Request) else sizeof(Request))
    return room
