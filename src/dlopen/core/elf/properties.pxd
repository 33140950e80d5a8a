"""What a file says of all its code (PT_GNU_PROPERTY; "Linux Extensions to gABI"): a note that holds
properties, each of a type and with data, by ascending types."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.base.strings cimport memcmp
from dlopen.core.base.words cimport align_up
from dlopen.core.elf.constants cimport NT_GNU_PROPERTY_TYPE_0
from dlopen.core.elf.notes cimport Notes, next_note


cdef struct Property:
    uint32_t type
    uint32_t size
    # its data follow, aligned to 8


cdef inline uint32_t bits_of_property(
    const char* properties, uint64_t size, uint32_t type
) noexcept nogil:
    """Its four bytes in a note's description; 0: it is not there, or has another size."""
    cdef Property property
    cdef uint32_t bits = 0
    cdef uint64_t at = 0
    while size - at >= sizeof(property):
        memcpy(&property, properties + at, sizeof(property))
        at += sizeof(property)
        if property.size > size - at or property.type > type:
            break
        if property.type == type:
            if property.size == sizeof(bits):
                memcpy(&bits, properties + at, sizeof(bits))
            break
        at = align_up(at + property.size, 8)
        if at > size:
            break
    return bits


cdef inline uint32_t property_bits(
    const char* notes, uint64_t size, uint32_t type
) noexcept nogil:
    """Those of the type in the segment's content; 0 where the file says nothing of it."""
    cdef Notes found
    memset(&found, 0, sizeof(found))
    found.content = notes
    found.size = size
    found.alignment = 8
    while next_note(&found):
        if found.header.n_type == NT_GNU_PROPERTY_TYPE_0 and found.header.n_namesz == 4 \
                and memcmp(found.name, b"GNU", 4) == 0:
            return bits_of_property(found.description, found.header.n_descsz, type)
    return 0
