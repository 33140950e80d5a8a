"""The machine this library was built for; every architecture's table is compiled."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from dlopen.core.arch.x86_64 cimport relocation_kind as x86_64_relocation_kind
from dlopen.core.arch.x86_64 cimport relocation_width as x86_64_relocation_width


cdef enum:
    EM_X86_64 = 62
    THIS_MACHINE = 62            # the build refuses any other, see meson.build


cdef inline uint32_t relocation_kind(uint16_t machine, uint32_t number) noexcept nogil:
    """enum DLOPEN_relocation_kind."""
    return x86_64_relocation_kind(number)


cdef inline uint32_t relocation_width(uint16_t machine, uint32_t number) noexcept nogil:
    """Bytes at the place."""
    return x86_64_relocation_width(number)
