# What is read of the core without the GIL, to be made Python objects afterwards.
from libc.stdint cimport uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, strlen


# Numbers and strings, written while the core is read and taken out in the same order afterwards.
cdef struct Stream:
    char *data                          # owned
    size_t used, capacity, cursor
    bint failed                         # out of memory: from here on nothing more is written

cdef void put_bytes(Stream *stream, const void *data, size_t size) noexcept nogil:
    cdef size_t capacity
    cdef char *grown
    if stream.failed:
        return
    if stream.used + size > stream.capacity:
        capacity = 2 * (stream.used + size) + 256
        grown = <char *>realloc(stream.data, capacity)
        if grown == NULL:
            stream.failed = True
            return
        stream.data = grown
        stream.capacity = capacity
    memcpy(stream.data + stream.used, data, size)
    stream.used += size

cdef void put(Stream *stream, uint64_t number) noexcept nogil:
    put_bytes(stream, &number, sizeof(number))

cdef void put_text(Stream *stream, const char *text) noexcept nogil:
    cdef uint64_t size
    if text == NULL:
        put(stream, <uint64_t>-1)
        return
    size = strlen(text)
    put(stream, size)
    put_bytes(stream, text, size)

cdef uint64_t take(Stream *stream) noexcept:
    cdef uint64_t number = 0
    memcpy(&number, stream.data + stream.cursor, sizeof(number))
    stream.cursor += sizeof(number)
    return number

cdef object take_text(Stream *stream):
    cdef uint64_t size = take(stream)
    if size == <uint64_t>-1:
        return None
    text = PyUnicode_DecodeFSDefaultAndSize(
        stream.data + stream.cursor, <Py_ssize_t>size)
    stream.cursor += size
    return text

cdef int check_stream(Stream *stream) except -1:
    if stream.failed:
        raise MemoryError
    return 0
