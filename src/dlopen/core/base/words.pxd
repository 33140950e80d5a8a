"""Machine words: alignment, and ranges of a file or of memory, by arithmetic that cannot wrap."""

from libc.stdint cimport uint64_t


cdef inline uint64_t align_down(uint64_t value, uint64_t alignment) noexcept nogil:
    return value & ~(alignment - 1)


cdef inline uint64_t align_up(uint64_t value, uint64_t alignment) noexcept nogil:
    return (value + alignment - 1) & ~(alignment - 1)


cdef inline uint64_t smaller(uint64_t one, uint64_t other) noexcept nogil:
    return one if one < other else other


cdef inline uint64_t larger(uint64_t one, uint64_t other) noexcept nogil:
    return one if one > other else other


cdef inline bint is_power_of_two(uint64_t value) noexcept nogil:
    return value != 0 and (value & (value - 1)) == 0


cdef inline bint range_within(
    uint64_t start, uint64_t size, uint64_t outer_start, uint64_t outer_size
) noexcept nogil:
    """[start, start + size) lies in [outer_start, outer_start + outer_size)."""
    return (
        start >= outer_start
        and start - outer_start <= outer_size
        and size <= outer_size - (start - outer_start)
    )


cdef inline bint ranges_overlap(
    uint64_t start, uint64_t size, uint64_t other, uint64_t other_size
) noexcept nogil:
    """Neither range may wrap."""
    return start < other + other_size and other < start + size
