"""The two hash functions of symbol names: that of DT_HASH (gABI) and that of DT_GNU_HASH."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t


cdef inline uint32_t gnu_hash_of(const char* name, size_t* length) noexcept nogil:
    """And how long the name is. Two bytes a turn: the steps of one byte would each wait for the
    one before."""
    cdef uint32_t value = 5381
    cdef const uint8_t* byte = <const uint8_t*>name
    while byte[0] != 0:
        if byte[1] == 0:
            length[0] = byte + 1 - <const uint8_t*>name
            return value * 33 + byte[0]
        value = value * (33 * 33) + (byte[0] * 33U + byte[1])
        byte += 2
    length[0] = byte - <const uint8_t*>name
    return value


cdef inline uint32_t gnu_hash(const char* name) noexcept nogil:
    cdef size_t length = 0
    return gnu_hash_of(name, &length)


cdef inline uint32_t sysv_hash(const char* name) noexcept nogil:
    cdef uint32_t value = 0
    cdef uint32_t high
    cdef const uint8_t* byte = <const uint8_t*>name
    while byte[0] != 0:
        value = (value << 4) + byte[0]
        high = value & 0xf0000000U
        value ^= high >> 24
        value &= ~high
        byte += 1
    return value
