"""What nearly all entries are: words that get the load bias added.

Each function does the entries that lie one after the other and are in order, as far as that goes;
the first that is anything else it leaves to relocation/relocate.pxd, which says what is wrong with
it or goes on behind it. So a run is not checked anew for each of its words, and nothing that a
file may hold is trusted.
"""

from libc.stdint cimport uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE, is_relative
from dlopen.core.elf.structures cimport Rela, relocation_type
from dlopen.core.image.image cimport Image, load_word, store_word
from dlopen.core.image.relr cimport RELR_WORDS, RelrWalk, take_word
from dlopen.core.relocation.batch cimport Place
from dlopen.core.relocation.places cimport lies_in


cdef inline uint64_t relocate_relative(
    const Image* image, const Place* writable, const Rela* relocation, uint64_t left
) noexcept nogil:
    """RELATIVE entries, as long as their places lie in `writable`: how many they are."""
    cdef uint64_t count = left
    cdef uint64_t start = writable.start
    cdef uint64_t last
    if writable.end - start < 8:
        return 0
    last = writable.end - start - 8
    # A place below `start` wraps, and is above `last`.
    while left != 0 and relocation.r_offset - start <= last \
            and is_relative(THIS_MACHINE, relocation_type(relocation)):
        store_word(image, relocation.r_offset, image.load_bias + <uint64_t>relocation.r_addend)
        relocation += 1
        left -= 1
    return count - left


cdef inline void relocate_group(
    const Image* image, const Place* writable, RelrWalk* walk
) noexcept nogil:
    """The words of one entry of DT_RELR, unless one of them could lie elsewhere."""
    cdef uint64_t place
    if not lies_in(writable, walk.first, 8 if walk.bits == 1 else RELR_WORDS * 8):
        return
    while walk.bits != 0:
        place = take_word(walk)
        store_word(image, place, load_word(image, place) + image.load_bias)
