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


cdef enum:
    RELR_WORDS = 63              # of a bitmap


cdef struct RelrWalk:
    const Xword* entry           # the next one
    uint64_t left                # entries from there; a table of none may have no address
    uint64_t bits                # of the last entry: words that are still to come
    uint64_t first               # the word of the lowest bit; p_vaddr terms, as all here
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


cdef inline bint relr_group(RelrWalk* walk) noexcept nogil:
    """The words of the next entry: those of `bits` from `first` on. False at the end. What bitmaps
    say that no address comes before is the caller's affair."""
    cdef uint64_t entry
    if walk.left == 0:
        return False
    entry = walk.entry[0]
    walk.entry += 1
    walk.left -= 1
    if entry & 1:
        walk.bits = entry >> 1
        walk.first = walk.after
        walk.after += RELR_WORDS * 8
    else:
        walk.bits = 1
        walk.first = entry
        walk.after = entry + 8
    return True


cdef inline uint64_t take_word(RelrWalk* walk) noexcept nogil:
    """The nearest of `bits`, of which there is one, and it is none of them any more."""
    cdef uint64_t place = walk.first + <uint64_t>count_trailing_zeros(walk.bits) * 8
    walk.bits &= walk.bits - 1
    return place


cdef inline bint relr_next(RelrWalk* walk, uint64_t* place) noexcept nogil:
    """The next word, of whatever entry; False at the end."""
    while walk.bits == 0:
        if not relr_group(walk):
            return False
    place[0] = take_word(walk)
    return True
