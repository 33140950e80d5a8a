"""The string functions of C, of our own: they are called before a sanitizer's runtime has made
its replacements of libc's ready, which would jump to NULL then."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline size_t strlen(const char* text) noexcept nogil:
    cdef size_t length = 0
    while text[length] != 0:
        length += 1
    return length


cdef inline int memcmp(const void* one, const void* other, size_t size) noexcept nogil:
    cdef const uint8_t* left = <const uint8_t*>one
    cdef const uint8_t* right = <const uint8_t*>other
    cdef size_t i
    for i in range(size):
        if left[i] != right[i]:
            return <int>left[i] - <int>right[i]
    return 0


cdef inline uint64_t word_at(const char* bytes) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, bytes, 8)      # an instruction: of a known size
    return word


cdef inline uint32_t half_at(const char* bytes) noexcept nogil:
    cdef uint32_t half
    memcpy(&half, bytes, 4)
    return half


cdef inline bint is_same(const char* one, const char* other, size_t size) noexcept nogil:
    """So many bytes: by words, of which the last overlaps the one before."""
    cdef size_t i = 0
    if size >= 8:
        while i + 8 < size:
            if word_at(one + i) != word_at(other + i):
                return False
            i += 8
        return word_at(one + size - 8) == word_at(other + size - 8)
    if size >= 4:
        return half_at(one) == half_at(other) \
            and half_at(one + size - 4) == half_at(other + size - 4)
    while i < size:
        if one[i] != other[i]:
            return False
        i += 1
    return True


cdef inline int strncmp(const char* one, const char* other, size_t size) noexcept nogil:
    cdef const uint8_t* left = <const uint8_t*>one
    cdef const uint8_t* right = <const uint8_t*>other
    cdef size_t i
    for i in range(size):
        if left[i] != right[i] or left[i] == 0:
            return <int>left[i] - <int>right[i]
    return 0


cdef inline int strcmp(const char* one, const char* other) noexcept nogil:
    cdef const uint8_t* left = <const uint8_t*>one
    cdef const uint8_t* right = <const uint8_t*>other
    while left[0] == right[0] and left[0] != 0:
        left += 1
        right += 1
    return <int>left[0] - <int>right[0]


cdef inline char* strchr(const char* text, int wanted) noexcept nogil:
    while text[0] != <char>wanted:
        if text[0] == 0:
            return NULL
        text += 1
    return <char*>text


cdef inline char* strrchr(const char* text, int wanted) noexcept nogil:
    cdef const char* last = NULL
    while True:
        if text[0] == <char>wanted:
            last = text
        if text[0] == 0:
            return <char*>last
        text += 1


cdef inline bint has_prefix(const char* text, const char* prefix) noexcept nogil:
    cdef size_t i = 0
    while prefix[i] != 0:
        if text[i] != prefix[i]:
            return False
        i += 1
    return True


cdef inline bint is_control(char character) noexcept nogil:
    """Names come from files and programs: such characters of theirs could break a line, or forge
    one."""
    return 0 <= character < 0x20 or character == 0x7f


cdef inline const char* in_place_of_control() noexcept nogil:
    """What stands for a control character in a line of text."""
    return b"?"


cdef inline char printable(char character) noexcept nogil:
    return in_place_of_control()[0] if is_control(character) else character


cdef inline void make_printable(char* text) noexcept nogil:
    while text[0] != 0:
        text[0] = printable(text[0])
        text += 1
