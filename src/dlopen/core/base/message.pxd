"""What an error says, in one line: in glibc's words where it has them, since programs look for
these.

Written into a buffer of the caller's, as snprintf(3) does: the length is the whole text's, whatever
room there was.
"""

from libc.stddef cimport size_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from dlopen.core.base.contract cimport (
    DLOPEN_E_HOST, DLOPEN_E_NOT_FOUND, DLOPEN_E_RELOCATION, DLOPEN_E_SYMBOL, DLOPEN_E_VERSION,
    Error,
)
from dlopen.core.base.strings cimport make_printable, strlen
from dlopen.core.base.words cimport smaller


cdef extern from "<string.h>" nogil:
    const char* strerrordesc_np(int number)
    size_t length_of_literal "__builtin_strlen"(const char* text)    # by the compiler


cdef inline size_t append(
    char* buffer, size_t size, size_t length, const char* text
) noexcept nogil:
    """The length that the text has with it; what has no room is left out."""
    return append_known(buffer, size, length, text, strlen(text))


cdef inline size_t append_known(
    char* buffer, size_t size, size_t length, const char* text, size_t more
) noexcept nogil:
    """`more` bytes of text."""
    if length + 1 < size:
        memcpy(buffer + length, text, smaller(more, size - 1 - length))
    return length + more


cdef enum:
    UNDEFINED_PIECES = 5


cdef inline size_t undefined_pieces(
    const char* object, const char* symbol, const char* version, const char** pieces
) noexcept nogil:
    """How many texts make up the message; filled into `pieces`."""
    pieces[0] = object
    pieces[1] = b": undefined symbol: "
    pieces[2] = symbol
    if version[0] == 0:
        return 3
    pieces[3] = b", version "
    pieces[4] = version
    return 5


cdef inline size_t write_undefined(
    const char* object, size_t object_length, const char* symbol, size_t symbol_length,
    const char* version, char* buffer, size_t size
) noexcept nogil:
    """`version` is "" where none was asked for. As snprintf, which takes longer than to look for
    the symbol, and is not for signal handlers. What is no text in a name stays."""
    cdef const char* pieces[UNDEFINED_PIECES]
    cdef size_t lengths[UNDEFINED_PIECES]
    cdef size_t length = 0
    cdef size_t i
    lengths[0] = object_length
    lengths[1] = length_of_literal(b": undefined symbol: ")
    lengths[2] = symbol_length
    lengths[3] = length_of_literal(b", version ")
    lengths[4] = strlen(version)
    for i in range(undefined_pieces(object, symbol, version, &pieces[0])):
        length = append_known(buffer, size, length, pieces[i], lengths[i])
    if size != 0:
        buffer[length if length < size else size - 1] = 0
    return length


cdef inline size_t write_message(
    const Error* error, char* buffer, size_t size
) noexcept nogil:
    """Returns the length, as snprintf does."""
    cdef size_t length = compose(error, buffer, size)
    if size != 0:
        make_printable(buffer)
    return length


cdef inline size_t compose(const Error* error, char* buffer, size_t size) noexcept nogil:
    """The text by the kind of error; returns the whole length."""
    cdef size_t length
    if error.code == DLOPEN_E_SYMBOL:
        length = write_undefined(
            error.library, strlen(error.library), error.symbol, strlen(error.symbol),
            error.version, buffer, size
        )
        if error.needed_by[0] != 0:      # by another than the library that lacks it
            length = append(buffer, size, length, b" (needed by ")
            length = append(buffer, size, length, error.needed_by)
            length = append_known(buffer, size, length, b")", 1)
            if size != 0:
                buffer[length if length < size else size - 1] = 0
        return length
    if error.code == DLOPEN_E_VERSION and error.symbol[0] != 0:
        return <size_t>snprintf(
            buffer, size,
            b"%s: no version information available for symbol %s, version %s (required by %s)",
            error.library, error.symbol, error.version, error.needed_by
        )
    if error.code == DLOPEN_E_VERSION:
        return <size_t>snprintf(
            buffer, size,
            b"%s: version `%s' not found (required by %s)", error.library, error.version,
            error.needed_by
        )
    if error.code == DLOPEN_E_RELOCATION:
        return <size_t>snprintf(
            buffer, size, b"%s: %s (place 0x%llx, value 0x%llx)", error.library, error.detail,
            <unsigned long long>error.offset, <unsigned long long>error.value
        )
    if error.code == DLOPEN_E_HOST or (error.library[0] == 0 and error.errnum == 0):
        return <size_t>snprintf(buffer, size, b"%s", error.detail)
    if error.library[0] == 0:
        return <size_t>snprintf(
            buffer, size, b"%s: %s", error.detail, strerrordesc_np(error.errnum)
        )
    if error.code == DLOPEN_E_NOT_FOUND and error.needed_by[0] != 0 and error.errnum == 0:
        return <size_t>snprintf(
            buffer, size, b"%s: %s (needed by %s)", error.library, error.detail, error.needed_by
        )
    if error.code == DLOPEN_E_NOT_FOUND and error.needed_by[0] != 0:
        return <size_t>snprintf(
            buffer, size, b"%s: %s: %s (needed by %s)", error.library, error.detail,
            strerrordesc_np(error.errnum), error.needed_by
        )
    if error.errnum != 0 and strerrordesc_np(error.errnum) != NULL:
        return <size_t>snprintf(
            buffer, size, b"%s: %s: %s", error.library, error.detail, strerrordesc_np(error.errnum)
        )
    return <size_t>snprintf(buffer, size, b"%s: %s", error.library, error.detail)
