"""The arena: memory for small images, which is used again when they are closed.

To map a small file costs the kernel more than to read it. What costs there is new mappings, their
pages, and to give both back. So memory that an image has left is kept, with its pages, as a slot;
an image with segments of the same sizes is read into it.

A slot is one mapping for each piece of it that has a protection of its own. While nobody has it,
all of it can be written and nothing of it be executed; what an earlier image has left there is
overwritten, or cleared, before anything of the next one can be executed. Each time its pieces are
protected as the segments want it; that is cheap as long as no mapping has to be split or joined
for it. The kernel joins neighbours that are alike, and for a moment all pieces are. So every second
one is made with MAP_NORESERVE, in which they then differ. (Where overcommitting is off the kernel
takes no notice, and joins them: slower, and as right.)
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.kernel cimport EACCES, EPERM, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE
from dlopen.core.base.lock cimport Lock, lock_acquire, lock_release
from dlopen.core.base.strings cimport strcmp
from dlopen.core.base.words cimport align_down, align_up
from dlopen.core.elf.constants cimport PF_W, PT_LOAD
from dlopen.core.elf.layout cimport Layout, relro_size, relro_start
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.memory.memory cimport (
    MEMORY_NAME_SIZE, is_memory_error, memory_map_zeroes, memory_name, memory_name_of,
    memory_protect, memory_protect_written, memory_release, memory_reserve, protection_of,
)


cdef enum:
    # Of an image in memory. Above it reading costs more than mapping.
    ARENA_LARGEST = 0x40000
    # Of slots that nobody has; those that were left first are given back to the kernel.
    ARENA_KEPT = 0x200000
    # Linkers align files to the largest page of the machine, of which 64 KiB are the most common.
    ARENA_ALIGNMENT = 0x10000
    MAX_PIECES = 8


cdef struct Piece:
    uint64_t end                 # from the slot's start; it begins where the one before it ends
    int protection               # when all is relocated; PROT_NONE: between segments


cdef struct Slot:
    Slot* next                   # of those that are kept, the next to be taken
    Arena* arena
    uint64_t start               # where it is
    uint64_t size
    uint64_t alignment           # of `start`, at least a page
    uint32_t piece_count
    bint is_used                 # another image has been there: not all of it is zeroes
    Piece pieces[MAX_PIECES]
    char name[MEMORY_NAME_SIZE]  # that the kernel has for it


cdef struct Arena:
    Lock lock                    # guards `kept`
    Slot* kept                   # owned: the one that was left last is the first
    # Atomic: memory that was written may not be executed here (PR_SET_MDWE, SELinux's execmem).
    uint32_t is_refused


# What a slot looks like ----------------------------------------------------------


cdef inline bint add_piece(Slot* slot, uint64_t end, int protection) noexcept nogil:
    """False: there is no room for so many."""
    cdef uint64_t start = slot.pieces[slot.piece_count - 1].end if slot.piece_count else 0
    if end == start:
        return True
    if slot.piece_count != 0 and slot.pieces[slot.piece_count - 1].protection == protection:
        slot.pieces[slot.piece_count - 1].end = end
        return True
    if slot.piece_count == MAX_PIECES:
        return False
    slot.pieces[slot.piece_count].end = end
    slot.pieces[slot.piece_count].protection = protection
    slot.piece_count += 1
    return True


cdef inline bint add_pieces_of(
    Slot* slot, const Layout* layout, const Phdr* segment, uint64_t* sealed
) noexcept nogil:
    """`sealed`: what is left of RELRO, which has to lie in one writable segment."""
    cdef uint64_t start = align_down(segment.p_vaddr, layout.page)
    cdef uint64_t end = align_up(segment.p_vaddr + segment.p_memsz, layout.page)
    cdef uint64_t relro
    if not add_piece(slot, start - layout.start, PROT_NONE):
        return False
    if sealed[0] != 0 and segment.p_flags & PF_W:
        relro = relro_start(layout)
        if start <= relro and relro + sealed[0] <= end:
            if not add_piece(slot, relro - layout.start, protection_of(layout, segment)) \
                    or not add_piece(slot, relro + sealed[0] - layout.start, PROT_READ):
                return False
            sealed[0] = 0
    return add_piece(slot, end - layout.start, protection_of(layout, segment))


cdef inline bint shape_slot(Slot* slot, const Layout* layout) noexcept nogil:
    """The pieces that an image of this layout needs. False: such a one is to be mapped."""
    cdef uint64_t sealed = relro_size(layout)
    cdef uint32_t i
    memset(slot, 0, sizeof(Slot))
    slot.size = layout.end - layout.start
    slot.alignment = layout.alignment
    # The load bias is a multiple of the alignment, and the slot's start then is, too.
    if slot.size > ARENA_LARGEST or layout.alignment > ARENA_ALIGNMENT \
            or layout.start & (layout.alignment - 1) != 0:
        return False
    for i in range(layout.phnum):
        if layout.phdrs[i].p_type == PT_LOAD and layout.phdrs[i].p_memsz != 0 \
                and not add_pieces_of(slot, layout, &layout.phdrs[i], &sealed):
            return False
    return sealed == 0


cdef inline bint is_alike(const Slot* slot, const Slot* other) noexcept nogil:
    cdef uint32_t i
    if slot.piece_count != other.piece_count or slot.size != other.size \
            or slot.alignment != other.alignment:
        return False
    for i in range(slot.piece_count):
        if slot.pieces[i].end != other.pieces[i].end \
                or slot.pieces[i].protection != other.pieces[i].protection:
            return False
    return True


# Protection ----------------------------------------------------------------------


cdef inline uint64_t piece_start(const Slot* slot, uint32_t number) noexcept nogil:
    return slot.start + (slot.pieces[number - 1].end if number else 0)


cdef inline long protect_piece(const Slot* slot, uint32_t number) noexcept nogil:
    """As its segment wants it."""
    return memory_protect_written(
        piece_start(slot, number), slot.start + slot.pieces[number].end - piece_start(slot, number),
        slot.pieces[number].protection
    )


cdef inline bint is_open(const Slot* slot, uint32_t number) noexcept nogil:
    """It stays as it is while nobody has the slot."""
    return slot.pieces[number].protection == PROT_READ | PROT_WRITE \
        or slot.pieces[number].protection == PROT_NONE


cdef inline bint open_pieces(const Slot* slot) noexcept nogil:
    """All can be written and nothing executed, whatever code of the image has made of its own
    pages; one call for what no gap divides. False where the kernel has no memory for it."""
    cdef uint32_t first = 0
    cdef uint32_t last
    while first < slot.piece_count:
        last = first
        while last < slot.piece_count and slot.pieces[last].protection != PROT_NONE:
            last += 1
        if first < last and memory_protect(
            piece_start(slot, first), piece_start(slot, last) - piece_start(slot, first),
            PROT_READ | PROT_WRITE
        ) < 0:
            return False
        first = last + 1
    return True


cdef inline bint protect_constants(Slot* slot, const Layout* layout) noexcept nogil:
    """Before anything of it runs: all but the piece that RELRO is in, with what is read-only
    before it, and what stays writable. False: its image is to be mapped."""
    cdef uint64_t relro = slot.start + relro_start(layout) - layout.start \
        if relro_size(layout) != 0 else 0
    cdef uint32_t i
    cdef long result
    for i in range(slot.piece_count):
        if is_open(slot, i) or piece_start(slot, i) <= relro < slot.start + slot.pieces[i].end:
            continue
        result = protect_piece(slot, i)
        if (result == -EACCES or result == -EPERM) and slot.pieces[i].protection & PROT_EXEC:
            store_u32(&slot.arena.is_refused, 1)     # for all that come
        if result < 0:
            return False
    return True


cdef inline long protect_sealed(const Slot* slot, uint64_t relro) noexcept nogil:
    """The piece that RELRO is in, which begins at that address."""
    cdef uint32_t i
    for i in range(slot.piece_count):
        if relro < slot.start + slot.pieces[i].end:
            return protect_piece(slot, i)
    return 0


# Slots ---------------------------------------------------------------------------


cdef inline void free_slot(Slot* slot) noexcept nogil:
    """One that nobody knows."""
    memory_release(slot.start, slot.size)
    release(slot)


cdef inline bint map_pieces(const Slot* slot) noexcept nogil:
    cdef uint32_t i
    cdef long result = 0
    for i in range(slot.piece_count):
        if slot.pieces[i].protection == PROT_NONE:
            result = memory_protect(
                piece_start(slot, i), slot.start + slot.pieces[i].end - piece_start(slot, i),
                PROT_NONE
            )
        elif i % 2:
            result = memory_map_zeroes(
                piece_start(slot, i), slot.start + slot.pieces[i].end - piece_start(slot, i),
                PROT_READ | PROT_WRITE
            )
        if is_memory_error(result):
            return False
    return True


cdef inline long reserve_aligned(uint64_t size, uint64_t alignment) noexcept nogil:
    """Zeroes that can be written; the address, or a negative errno."""
    cdef long address = memory_reserve(size, True)
    cdef uint64_t start
    if is_memory_error(address) or address & (alignment - 1) == 0:
        return address
    memory_release(<uint64_t>address, size)
    address = memory_reserve(size + alignment, True)
    if is_memory_error(address):
        return address
    start = align_up(<uint64_t>address, alignment)
    if start != <uint64_t>address:
        memory_release(<uint64_t>address, start - <uint64_t>address)
    memory_release(start + size, <uint64_t>address + alignment - start)
    return <long>start


cdef inline Slot* new_slot(Arena* arena, const Slot* shape) noexcept nogil:
    """Of zeroes; NULL without memory."""
    cdef Slot* slot = <Slot*>allocate(sizeof(Slot))
    cdef long address
    if slot == NULL:
        return NULL
    memcpy(slot, shape, sizeof(Slot))
    slot.arena = arena
    address = reserve_aligned(slot.size, slot.alignment)
    if is_memory_error(address):
        release(slot)
        return NULL
    slot.start = <uint64_t>address
    if not map_pieces(slot):
        free_slot(slot)
        return NULL
    return slot


cdef inline Slot* take_kept(Arena* arena, const Slot* shape) noexcept nogil:
    """One that was left, of the same shape, or NULL."""
    cdef Slot** link = &arena.kept
    cdef Slot* slot
    lock_acquire(&arena.lock)
    while link[0] != NULL and not is_alike(link[0], shape):
        link = &link[0].next
    slot = link[0]
    if slot != NULL:
        link[0] = slot.next
    lock_release(&arena.lock)
    return slot


cdef inline Slot* take_slot(Arena* arena, const Layout* layout, const char* name) noexcept nogil:
    """For an image of this layout, to be written. NULL: it is to be mapped, as ever."""
    cdef Slot shape
    cdef Slot* slot
    if load_u32(&arena.is_refused) or not shape_slot(&shape, layout):
        return NULL
    memory_name_of(name, &shape.name[0])
    slot = take_kept(arena, &shape)
    if slot == NULL:
        slot = new_slot(arena, &shape)
        if slot != NULL:
            memory_name(slot.start, slot.size, &slot.name[0])
    elif strcmp(&slot.name[0], &shape.name[0]) != 0:
        memcpy(&slot.name[0], &shape.name[0], sizeof(shape.name))
        memory_name(slot.start, slot.size, &slot.name[0])
    return slot


cdef inline void give_back_slot(Slot* slot) noexcept nogil:
    """Nobody is in it any more, nor looks at it."""
    cdef Arena* arena = slot.arena
    cdef Slot* gone
    cdef Slot** link = &arena.kept
    cdef uint64_t size = 0
    if not open_pieces(slot):
        free_slot(slot)
        return
    slot.is_used = True
    lock_acquire(&arena.lock)
    slot.next = arena.kept
    arena.kept = slot
    # What is beyond, of those that were left first.
    while link[0] != NULL and size + link[0].size <= ARENA_KEPT:
        size += link[0].size
        link = &link[0].next
    gone = link[0]
    link[0] = NULL
    lock_release(&arena.lock)
    while gone != NULL:
        slot = gone.next
        free_slot(gone)
        gone = slot
