"""A place that was relocated gets another value while the process runs.

Other threads read it meanwhile, or call through it: it changes by one aligned store. A page of
RELRO is opened for that and closed again. Who changes several places opens all of them first:
the kernel may refuse, and nothing has changed then. To close one it should never refuse; if it
does (it has no memory at all), the page is noted, and closed by the next open, close or patch.

All of it under Registry.lock: of two threads at one page the first would close it before the
second has stored.
"""

from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.kernel cimport PROT_READ, PROT_WRITE
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.words cimport align_down
from dlopen.core.elf.layout cimport is_sealed
from dlopen.core.host.linker cimport UNSEALED_MAX, Linker, Rebinding
from dlopen.core.image.image cimport Image, PatchedPlace, bytes_end, bytes_of, bytes_start
from dlopen.core.memory.memory cimport memory_protect, memory_set_word, memory_word


cdef inline PatchedPlace* patched_place(const Image* image, uint64_t place) noexcept nogil:
    """Under the lock."""
    cdef PatchedPlace* patched = image.changes.patched
    while patched != NULL and patched.place != place:
        patched = patched.next
    return patched


cdef inline uint64_t page_of(const Image* image, uint64_t place) noexcept nogil:
    """Where its bytes are."""
    return align_down(bytes_of(image, place), image.layout.page)


cdef inline bint open_place(const Image* image, uint64_t place) noexcept nogil:
    """`place` is a run address, aligned. False where the kernel does not permit it."""
    return not is_sealed(&image.layout, place - image.load_bias, 8) or memory_protect(
        page_of(image, place), image.layout.page, PROT_READ | PROT_WRITE
    ) == 0


cdef inline void close_place(
    Rebinding* rebinding, const Image* image, uint64_t place
) noexcept nogil:
    """Also one that was not opened."""
    cdef uint64_t page = page_of(image, place)
    if is_sealed(&image.layout, place - image.load_bias, 8) \
            and memory_protect(page, image.layout.page, PROT_READ) != 0:
        note_unsealed(rebinding, image, page)


cdef inline uint64_t load_place(const Image* image, uint64_t place) noexcept nogil:
    """`place` is a run address, aligned."""
    return memory_word(bytes_of(image, place))


cdef inline void store_place(const Image* image, uint64_t place, uint64_t value) noexcept nogil:
    """One aligned store, which other threads see whole; `place` is open for it."""
    memory_set_word(bytes_of(image, place), value)


cdef inline bint store_bound(
    Rebinding* rebinding, const Image* image, uint64_t place, uint64_t value
) noexcept nogil:
    """One place; False where the kernel does not permit it."""
    if not open_place(image, place):
        return False
    store_place(image, place, value)
    close_place(rebinding, image, place)
    return True


cdef inline void note_unsealed(
    Rebinding* rebinding, const Image* image, uint64_t page
) noexcept nogil:
    """Of the host's, whose pages it unmaps when it likes, none is kept."""
    cdef int i
    if image.is_host:
        memory_protect(page, image.layout.page, PROT_READ)
        return
    for i in range(UNSEALED_MAX):
        if rebinding.unsealed[i] == 0 or rebinding.unsealed[i] == page:
            rebinding.unsealed[i] = page
            store_u32(&rebinding.has_unsealed, 1)
            return


cdef inline void close_table(
    Rebinding* rebinding, uint64_t start, uint64_t size
) noexcept nogil:
    """Under the lock: the segment of libc's symbol table, which was opened for a store."""
    rebinding.open_table = 0
    if memory_protect(start, size, PROT_READ) != 0:
        rebinding.open_table = start
        rebinding.open_table_size = size
        store_u32(&rebinding.has_unsealed, 1)


cdef inline void seal_again(Linker* linker) noexcept nogil:
    """Under the lock."""
    cdef int i
    cdef bint left = False
    if linker.rebinding.open_table != 0:
        close_table(
            &linker.rebinding, linker.rebinding.open_table, linker.rebinding.open_table_size
        )
        left = linker.rebinding.open_table != 0
    for i in range(UNSEALED_MAX):
        if linker.rebinding.unsealed[i] != 0 and memory_protect(
            linker.rebinding.unsealed[i], linker.process.page, PROT_READ
        ) == 0:
            linker.rebinding.unsealed[i] = 0
        left = left or linker.rebinding.unsealed[i] != 0
    store_u32(&linker.rebinding.has_unsealed, left)


cdef inline void seal_what_is_left(Linker* linker) noexcept nogil:
    """With no lock held; as a rule there is nothing."""
    if load_u32(&linker.rebinding.has_unsealed):
        lock_acquire(&linker.registry.lock)
        seal_again(linker)
        lock_release(&linker.registry.lock)


cdef inline void forget_unsealed(Rebinding* rebinding, const Image* image) noexcept nogil:
    """Under the lock: it is about to be unmapped."""
    cdef int i
    for i in range(UNSEALED_MAX):
        if bytes_start(image) <= rebinding.unsealed[i] < bytes_end(image):
            rebinding.unsealed[i] = 0
