"""DT_RELR (gABI, "Relative Relocation Table"): the words that it names, of which each gets the load
bias added.

An even entry is the address of such a word. An odd one is a bitmap of the 63 words after the last
that was spoken of, the nearest in bit 1.
"""

from libc.stdint cimport uint64_t

from dlopen.core.elf.structures cimport Xword
from dlopen.core.image.image cimport Image


cdef extern from *:
    int count_trailing_zeros "__builtin_ctzll"(unsigned long long value) noexcept nogil


cdef struct RelrWalk:
    const Xword* entry           # the next one
    uint64_t left                # entries from there; a table of none may have no address
    uint64_t bits                # of a bitmap: words that are still to come
    uint64_t first               # the word of its lowest bit; p_vaddr terms, as all here
    uint64_t after               # the word of the next bitmap's lowest bit


cdef inline RelrWalk relr_in(const Xword* table, uint64_t count) noexcept nogil:
    """At the first word of the table."""
    cdef RelrWalk walk
    walk.entry = table
    walk.left = count
    walk.bits = 0
    walk.first = 0
    walk.after = 0
    return walk


cdef inline RelrWalk relr_of(const Image* image) noexcept nogil:
    return relr_in(image.tables.relr, image.tables.relr_count)


cdef inline bint relr_next(RelrWalk* walk, uint64_t* place) noexcept nogil:
    """False at the end. What bitmaps say that no address comes before is the caller's affair."""
    cdef uint64_t entry
    while walk.bits == 0:
        if walk.left == 0:
            return False
        entry = walk.entry[0]
        walk.entry += 1
        walk.left -= 1
        if entry & 1 == 0:
            place[0] = entry
            walk.after = entry + 8
            return True
        walk.bits = entry >> 1
        walk.first = walk.after
        walk.after += 63 * 8
    place[0] = walk.first + <uint64_t>count_trailing_zeros(walk.bits) * 8
    walk.bits &= walk.bits - 1
    return True
