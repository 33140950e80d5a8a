"""The memory of images: reserved, mapped, read, written, protected and released here alone.

It is this process's own. An address is where the bytes lie, which `bytes_bias` of an image leads
to; where they will run, which `load_bias` does, is never touched. An image for another process
would be put together in memory of this one, or behind other bodies of these functions.

Each that asks the kernel returns what it returns: a negative errno on failure.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.base.atomics cimport add_u32, load_pointer, store_pointer
from dlopen.core.base.kernel cimport (
    MADV_HUGEPAGE, MADV_POPULATE_WRITE, MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE,
    MAP_NORESERVE, MAP_POPULATE, MAP_PRIVATE, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE,
    code_written, kernel_advise, kernel_map, kernel_name_memory, kernel_protect, kernel_unmap,
)
from dlopen.core.base.strings cimport strchr, strrchr
from dlopen.core.elf.constants cimport PF_R, PF_W, PF_X
from dlopen.core.elf.layout cimport Layout
from dlopen.core.elf.structures cimport Phdr


cdef inline int protection_of(const Layout* layout, const Phdr* segment) noexcept nogil:
    """Of what a PT_LOAD maps."""
    cdef int protection = PROT_NONE
    if segment.p_flags & PF_R:
        protection |= PROT_READ
    if segment.p_flags & PF_W:
        protection |= PROT_WRITE
    if segment.p_flags & PF_X:
        protection |= PROT_EXEC | layout.code_protection
    return protection


cdef inline bint is_memory_error(long result) noexcept nogil:
    return result < 0 and result > -4096


cdef inline long memory_reserve(uint64_t size, bint writable) noexcept nogil:
    """Zeroes, somewhere; the address."""
    return kernel_map(
        0, size, PROT_READ | PROT_WRITE if writable else PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
    )


cdef inline long memory_reserve_file(uint64_t size, long file, uint64_t offset) noexcept nogil:
    """The file from `offset` on, to be read, somewhere; the address."""
    return kernel_map(0, size, PROT_READ, MAP_PRIVATE, file, offset)


cdef inline long memory_map(
    uint64_t address, uint64_t size, int protection, long file, uint64_t offset, bint populated
) noexcept nogil:
    """The file from `offset` on, over what is there."""
    return kernel_map(
        address, size, protection,
        MAP_PRIVATE | MAP_FIXED | MAP_POPULATE if populated else MAP_PRIVATE | MAP_FIXED,
        file, offset
    )


cdef inline bint memory_map_if_free(
    uint64_t address, uint64_t size, int protection, long file, uint64_t offset
) noexcept nogil:
    """The file from `offset` on, if nothing is there."""
    cdef long result = kernel_map(
        address, size, protection, MAP_PRIVATE | MAP_FIXED_NOREPLACE, file, offset
    )
    if <uint64_t>result == address:
        return True
    if not is_memory_error(result):
        kernel_unmap(<uint64_t>result, size)     # before Linux 4.17 it is a wish
    return False


cdef inline long memory_map_zeroes(uint64_t address, uint64_t size, int protection) noexcept nogil:
    return kernel_map(
        address, size, protection, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0
    )


cdef inline void memory_take_huge_pages(uint64_t address, uint64_t size) noexcept nogil:
    """Of HUGE_PAGE bytes each, where the system has them; of zeroes that nobody has touched."""
    kernel_advise(address, size, MADV_HUGEPAGE)


cdef inline void memory_take_pages(uint64_t address, uint64_t size) noexcept nogil:
    """Now, all at once: zeroes that are about to be written."""
    kernel_advise(address, size, MADV_POPULATE_WRITE)


cdef enum:
    MEMORY_NAME_SIZE = 80        # as prctl(2) has it


cdef inline void memory_name_of(const char* name, char* text) noexcept nogil:
    """What the memory of an image is called, in MEMORY_NAME_SIZE bytes: its path is left out."""
    cdef const char* base = strrchr(name, 0x2f)
    cdef size_t length = 8
    memcpy(text, b"dlopen: ", length)
    if base != NULL:
        name = base + 1
    while name[0] != 0 and length < MEMORY_NAME_SIZE - 1:
        # What the kernel refuses (prctl(2)), and what is not ASCII.
        if name[0] < 0x20 or name[0] > 0x7e or strchr(b"\\`$[]", name[0]) != NULL:
            text[length] = 0x3f
        else:
            text[length] = name[0]
        length += 1
        name += 1
    text[length] = 0


cdef inline void memory_name(uint64_t address, uint64_t size, const char* text) noexcept nogil:
    """Of zeroes that an image is copied into, for who looks at /proc/PID/maps; where the kernel
    can. Our other memory has no name: a sandbox may end a process for a prctl(2) that it does not
    know, and an open from bytes, or into the arena, is asked for."""
    kernel_name_memory(address, size, text)


cdef inline long memory_protect(uint64_t address, uint64_t size, int protection) noexcept nogil:
    return kernel_protect(address, size, protection)


cdef inline long memory_protect_written(
    uint64_t address, uint64_t size, int protection
) noexcept nogil:
    """As its segment wants it, from now on; until then it could be read and written, and was."""
    if protection & PROT_EXEC:
        code_written(address, size)
    return kernel_protect(address, size, protection)


cdef inline void memory_release(uint64_t address, uint64_t size) noexcept nogil:
    kernel_unmap(address, size)


cdef inline void memory_read(uint64_t address, void* buffer, size_t size) noexcept nogil:
    memcpy(buffer, <const void*>address, size)


cdef inline void memory_write(uint64_t address, const void* bytes, size_t size) noexcept nogil:
    memcpy(<void*>address, bytes, size)


cdef inline void memory_own(uint64_t address) noexcept nogil:
    """A store that changes nothing, before the page of a writable mapping of a file is read and
    then written: read first it would be the file's page, and the write a page fault of its own."""
    add_u32(<uint32_t*>(address & ~<uint64_t>3), 0)


cdef inline void memory_clear(uint64_t address, size_t size) noexcept nogil:
    memset(<void*>address, 0, size)


cdef inline uint64_t memory_word(uint64_t address) noexcept nogil:
    """An aligned one that other threads may be changing."""
    return <uint64_t>load_pointer(<void*>address)


cdef inline void memory_set_word(uint64_t address, uint64_t word) noexcept nogil:
    """An aligned one that other threads may be reading."""
    store_pointer(<void*>address, <const void*>word)
