"""Errors as data: a code, its subject and a detail's number; rendered at the faces only.

The strings are copied into the error itself, since what they name may be rolled back.
A NULL error is allowed everywhere: the code alone is returned then.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from dlopen.core.base.contract cimport (
    DLOPEN_E_HANDLE, DLOPEN_E_MEMORY, DLOPEN_SEARCHED_MAX, Error,
)
from dlopen.core.base.details cimport (
    DETAIL_NO_HANDLE, DETAIL_NO_MEMORY, DETAIL_NONE, OURS, detail_text,
)
from dlopen.core.base.strings cimport strlen


cdef inline void error_clear(Error* error) noexcept nogil:
    """No error, and no text: offset is unknown (all ones)."""
    if error == NULL:
        return
    error.code = 0
    error.errnum = 0
    error.offset = ~<uint64_t>0
    error.value = 0
    error.text[0] = 0
    error.text_used = 1
    error.library = &error.text[0]
    error.detail = &error.text[0]
    error.symbol = &error.text[0]
    error.version = &error.text[0]
    error.needed_by = &error.text[0]
    error.searched = &error.text[0]
    error.searched_count = 0
    error.detail_number = DETAIL_NONE


cdef inline const char* error_copy(Error* error, const char* text) noexcept nogil:
    """`text` in the error's own storage, cut where that is full."""
    cdef size_t length = strlen(text) if text != NULL else 0
    cdef size_t room = sizeof(error.text) - error.text_used
    cdef char* copy
    if length == 0 or room < 2:
        return &error.text[0]
    if length > room - 1:
        length = room - 1
    copy = &error.text[error.text_used]
    memcpy(copy, text, length)
    copy[length] = 0
    error.text_used += <uint16_t>(length + 1)
    return copy


cdef inline int fail(
    Error* error, int code, const char* library, uint32_t detail
) noexcept nogil:
    """Starts the error afresh and returns its code, so that callers `return fail(…)`. `detail` is
    one of base/details.pxd."""
    fail_text(error, code, library, detail_text(detail, OURS))
    if error != NULL:
        error.detail_number = <uint16_t>detail
    return code


cdef inline int fail_text(
    Error* error, int code, const char* library, const char* detail
) noexcept nogil:
    """Starts the error afresh, as `fail`, with a text that is made only now."""
    if error != NULL:
        error_clear(error)
        error.code = code
        error.library = error_copy(error, library)
        error.detail = error_copy(error, detail)
    return code


cdef inline int fail_system(
    Error* error, int code, const char* library, uint32_t detail, long result
) noexcept nogil:
    """For a negative result of the kernel."""
    fail(error, code, library, detail)
    if error != NULL:
        error.errnum = <int>-result
    return code


cdef inline int fail_at(
    Error* error, int code, const char* library, uint32_t detail, uint64_t offset, uint64_t value
) noexcept nogil:
    """For a place in the file, and what stood there."""
    fail(error, code, library, detail)
    if error != NULL:
        error.offset = offset
        error.value = value
    return code


cdef inline int fail_memory(Error* error, const char* library) noexcept nogil:
    return fail(error, DLOPEN_E_MEMORY, library, DETAIL_NO_MEMORY)


cdef inline int fail_handle(Error* error) noexcept nogil:
    return fail(error, DLOPEN_E_HANDLE, b"", DETAIL_NO_HANDLE)


cdef inline void error_name_symbol(
    Error* error, const char* symbol, const char* version
) noexcept nogil:
    """Adds the symbol, and its version or NULL, to an error that is there."""
    if error != NULL:
        error.symbol = error_copy(error, symbol)
        error.version = error_copy(error, version)


cdef inline void error_needed_by(Error* error, const char* needed_by) noexcept nogil:
    """Adds who needed it, unless that is known: the innermost asker says it first."""
    if error != NULL and error.needed_by[0] == 0:
        error.needed_by = error_copy(error, needed_by)


cdef inline void error_searched(
    Error* error, const char* paths, const int32_t* errnums, size_t count
) noexcept nogil:
    """`paths` holds `count` strings one after another."""
    cdef size_t i
    cdef const char* path = paths
    cdef const char* copy
    if error == NULL:
        return
    for i in range(count):
        if i == DLOPEN_SEARCHED_MAX or sizeof(error.text) - error.text_used < strlen(path) + 2:
            return
        copy = error_copy(error, path)
        if i == 0:
            error.searched = copy
        error.searched_errno[i] = errnums[i]
        error.searched_count = <unsigned int>i + 1
        path += strlen(path) + 1
