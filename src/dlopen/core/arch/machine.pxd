"""The machine this library was built for; every architecture's table is compiled."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from dlopen.core.arch.x86_64 cimport (
    R_X86_64_DTPMOD64, R_X86_64_TPOFF64, X86_64_INT3, X86_64_MOVES_DYNAMIC_POINTERS,
)
from dlopen.core.arch.x86_64 cimport relocation_kind as x86_64_relocation_kind
from dlopen.core.arch.x86_64 cimport relocation_width as x86_64_relocation_width


cdef enum:
    EM_X86_64 = 62
    THIS_MACHINE = 62            # the build refuses any other, see meson.build
    # This machine's numbers, for a file that is made here.
    DTPMOD_NUMBER = R_X86_64_DTPMOD64
    TPOFF_NUMBER = R_X86_64_TPOFF64
    # Of this machine and its libc: whether addresses in the dynamic section become those of the
    # process.
    MOVES_DYNAMIC_POINTERS = X86_64_MOVES_DYNAMIC_POINTERS


cdef extern from *:
    """
    /* Defined in arch/<machine>.S. TLS descriptors call the first three, with a calling
       convention of their own: never to be called from here. */
    #define DLOPEN_ASSEMBLY __attribute__((visibility("hidden")))
    DLOPEN_ASSEMBLY extern const char dlopen_tlsdesc_static[];
    DLOPEN_ASSEMBLY extern const char dlopen_tlsdesc_undefined[];
    DLOPEN_ASSEMBLY extern const char dlopen_tlsdesc_dynamic[];
    /* Jumped to by a PLT's first entry. */
    DLOPEN_ASSEMBLY extern const char dlopen_lazy_call[];
    DLOPEN_ASSEMBLY uint64_t dlopen_thread_pointer(void);
    DLOPEN_ASSEMBLY void *dlopen_make_block_aligned(uint64_t module);
    """
    const char* tlsdesc_static "dlopen_tlsdesc_static"
    const char* tlsdesc_undefined "dlopen_tlsdesc_undefined"
    const char* tlsdesc_dynamic "dlopen_tlsdesc_dynamic"
    const char* lazy_call "dlopen_lazy_call"
    uint64_t thread_pointer "dlopen_thread_pointer"() noexcept nogil
    # dlopen_make_block, from a stack that may not be aligned.
    char* make_block_aligned "dlopen_make_block_aligned"(uint64_t module) noexcept nogil


cdef inline uint32_t relocation_kind(uint16_t machine, uint32_t number) noexcept nogil:
    """enum DLOPEN_relocation_kind."""
    return x86_64_relocation_kind(number)


cdef inline uint32_t relocation_width(uint16_t machine, uint32_t number) noexcept nogil:
    """Bytes at the place."""
    return x86_64_relocation_width(number)


cdef inline bint holds_breakpoint(const void* code) noexcept nogil:
    """A debugger has put one there."""
    return (<const volatile uint8_t*>code)[0] == X86_64_INT3
