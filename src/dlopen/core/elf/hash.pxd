"""The two hash functions of symbol names: that of DT_HASH (gABI) and that of DT_GNU_HASH."""

from libc.stdint cimport uint8_t, uint32_t


cdef inline uint32_t gnu_hash(const char* name) noexcept nogil:
    """Two bytes a turn: the steps of one byte would each wait for the one before."""
    cdef uint32_t value = 5381
    cdef const uint8_t* byte = <const uint8_t*>name
    while byte[0] != 0:
        if byte[1] == 0:
            return value * 33 + byte[0]
        value = value * (33 * 33) + (byte[0] * 33U + byte[1])
        byte += 2
    return value


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
