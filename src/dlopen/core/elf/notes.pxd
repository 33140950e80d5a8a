"""The notes of a segment or section, one after another (gABI, "Note Section")."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from dlopen.core.base.words cimport align_up
from dlopen.core.elf.structures cimport Nhdr


cdef struct Notes:
    const char* content
    uint64_t size
    uint64_t alignment           # of each note: 4, or 8 in what holds properties
    uint64_t next                # where the note behind the present one begins
    Nhdr header                  # of the present one
    const char* name             # n_namesz bytes
    const char* description      # n_descsz bytes


cdef inline bint next_note(Notes* notes) noexcept nogil:
    """False: there is none that lies within the content."""
    cdef uint64_t at = notes.next
    if at > notes.size or notes.size - at < sizeof(Nhdr):
        return False
    memcpy(&notes.header, notes.content + at, sizeof(Nhdr))
    notes.name = notes.content + at + sizeof(Nhdr)
    at += sizeof(Nhdr) + align_up(notes.header.n_namesz, 4)
    if at > notes.size or notes.header.n_descsz > notes.size - at:
        return False
    notes.description = notes.content + at
    notes.next = align_up(at + notes.header.n_descsz, notes.alignment)
    return True
