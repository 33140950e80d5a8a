"""The linker's own memory: pages that it maps itself, never malloc.

Malloc wrappers call dlsym while they start, and a lazy fixup may run inside malloc.
Blocks come zeroed, but for those whose user does not read before he writes, each behind a 16-byte
header, in size classes: 16 bytes apart up to 1 KiB, then 16 to an octave; larger ones are mappings
of their own. Freed blocks go to their class's list.

`Allocator.lock` guards every field and is a leaf: nothing is called while it is held
but the kernel. A signal handler that has interrupted this thread in here waits for
nothing: what it allocates is a mapping of its own, what it frees of the classes is lost.

In a DLOPEN_SANITIZE build blocks come from malloc, so that the sanitizers see each one's
bounds and life.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.base.faults cimport FAULT_ALLOCATION, fault_at, note_block
from dlopen.core.base.kernel cimport (
    MADV_HUGEPAGE, MADV_POPULATE_WRITE, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE,
    kernel_advise, kernel_map, kernel_unmap,
)
from dlopen.core.base.lock cimport Lock, is_forking, lock_acquire, lock_release
from dlopen.core.base.words cimport align_up


cdef extern from *:
    """
    #ifdef DLOPEN_SANITIZE
    #include <stdlib.h>
    #define DLOPEN_USES_MALLOC 1
    #define dlopen_malloc(size, zeroed) ((zeroed) ? calloc(1, size) : malloc(size))
    #define dlopen_free(block) free(block)
    #else
    #define DLOPEN_USES_MALLOC 0
    #define dlopen_malloc(size, zeroed) ((void *)0)
    #define dlopen_free(block) ((void)0)
    #endif
    """
    enum:
        DLOPEN_USES_MALLOC
    void* dlopen_malloc(size_t size, bint zeroed) noexcept nogil
    void dlopen_free(void* block) noexcept nogil
    int count_leading_zeros "__builtin_clzll"(unsigned long long value) noexcept nogil


cdef extern from *:
    """
    /* This thread holds Allocator.lock, or is about to: what a signal handler finds. */
    static __thread uint32_t dlopen_allocates;
    """
    uint32_t allocates "dlopen_allocates"


cdef enum:
    HEADER_SIZE = 16
    FINE_SIZE = 1024             # up to here classes are FINE_STEP apart; header included
    FINE_STEP = 16
    FINE_COUNT = 64
    FINE_SHIFT = 10
    LARGEST_CLASS_SIZE = 98304
    CHUNK_SIZE = 1 << 20         # never unmapped; below the size of a huge page
    # Of what is about to be filled: from here on a huge page costs less than small ones, though
    # only a quarter of it may be needed.
    HUGE_LEAST = 0x80000
    HUGE_PAGE = 0x200000


cdef extern from *:
    """
    enum { DLOPEN_CLASS_COUNT = 168 };   /* 16, 32, 48, … 1024, 1088, 1152, … 96 KiB */
    struct dlopen_block_header {
        uint64_t size;           /* of the whole block */
        uint64_t size_class;     /* DLOPEN_CLASS_COUNT: a mapping of its own */
    };
    struct dlopen_free_block {
        struct dlopen_block_header header;
        struct dlopen_free_block *next;
    };
    /* The process's one: nobody is handed it. Zeroes are its beginning. */
    static struct dlopen_allocator {
        struct dlopen_lock lock;
        struct dlopen_free_block *free_blocks[DLOPEN_CLASS_COUNT];
        char *chunk;             /* what is left of the newest chunk */
        size_t chunk_left;
        uint32_t has_begun;      /* the first one was taken: it is mapped with this library */
        __attribute__((aligned(16))) char first_chunk[65536];
    } dlopen_heap;
    """
    enum:
        CLASS_COUNT "DLOPEN_CLASS_COUNT"
        FIRST_CHUNK_SIZE "sizeof(dlopen_heap.first_chunk)"
    cdef struct BlockHeader "dlopen_block_header":
        uint64_t size
        uint64_t size_class
    cdef struct FreeBlock "dlopen_free_block":
        BlockHeader header
        FreeBlock* next
    cdef struct Allocator "dlopen_allocator":
        Lock lock
        FreeBlock** free_blocks  # an array of CLASS_COUNT
        char* chunk
        size_t chunk_left
        uint32_t has_begun
        char* first_chunk        # an array of FIRST_CHUNK_SIZE
    Allocator heap "dlopen_heap"


cdef inline bint is_in_first_chunk(const void* address) noexcept nogil:
    """It is the heap's, though libc's loader sees a variable of libdlopen.so there."""
    return <uint64_t>address - <uint64_t>heap.first_chunk < FIRST_CHUNK_SIZE


cdef inline uint32_t size_class_of(uint64_t size) noexcept nogil:
    """The smallest class that holds `size` bytes, which are not 0."""
    cdef uint64_t last = size - 1
    cdef uint32_t octave
    if size <= FINE_SIZE:
        return <uint32_t>(last // FINE_STEP)
    octave = <uint32_t>(63 - count_leading_zeros(last))
    # The four bits below the highest one of `last` say which part of the octave.
    return FINE_COUNT + (octave - FINE_SHIFT) * 16 + <uint32_t>(last >> (octave - 4) & 15)


cdef inline uint64_t size_of_class(uint32_t size_class) noexcept nogil:
    """Of a block with its header."""
    cdef uint32_t parts = size_class - FINE_COUNT
    if size_class < FINE_COUNT:
        return <uint64_t>(size_class + 1) * FINE_STEP
    return <uint64_t>(parts % 16 + 17) << (FINE_SHIFT - 4 + parts // 16)


cdef inline bint is_allocating() noexcept nogil:
    """In a signal handler: it has interrupted the allocator."""
    return allocates != 0 and not is_forking()


cdef inline void allocator_acquire() noexcept nogil:
    (&allocates)[0] = 1
    lock_acquire(&heap.lock)


cdef inline void allocator_release() noexcept nogil:
    lock_release(&heap.lock)
    if not is_forking():         # who forks has it until the end
        (&allocates)[0] = 0


cdef inline void* allocate_as(uint64_t size, bint zeroed, bint populated) noexcept nogil:
    """NULL without memory."""
    cdef void* block = NULL
    if not fault_at(FAULT_ALLOCATION):
        block = take_block(size, zeroed, populated)
        note_block(block, True)
    return block


cdef inline void* allocate(uint64_t size) noexcept nogil:
    """A zeroed block of at least `size` bytes, 16-byte aligned; NULL without memory."""
    return allocate_as(size, True, False)


cdef inline void* allocate_table(uint64_t size) noexcept nogil:
    """As allocate, for what is about to be written all over: a large one has all its pages at
    once."""
    return allocate_as(size, True, True)


cdef inline void* allocate_unset(uint64_t size) noexcept nogil:
    """A block of at least `size` bytes, 16-byte aligned, that may hold anything; NULL without
    memory."""
    return allocate_as(size, False, False)


cdef inline void* take_block(uint64_t size, bint zeroed, bint populated) noexcept nogil:
    """With its header. NULL without memory."""
    cdef uint64_t whole
    cdef uint32_t size_class
    cdef long mapped
    cdef int advice
    cdef char* block = NULL
    cdef bint is_fresh = False
    if size > <uint64_t>0x7fffffffffff:
        return NULL
    if DLOPEN_USES_MALLOC:
        return dlopen_malloc(size, zeroed)
    whole = size + HEADER_SIZE
    if whole > LARGEST_CLASS_SIZE or is_allocating():
        if populated and whole >= HUGE_LEAST:
            whole = align_up(whole, HUGE_PAGE)
        mapped = kernel_map(0, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if mapped < 0 and mapped > -4096:
            return NULL
        if populated:
            advice = MADV_HUGEPAGE if whole >= HUGE_PAGE else MADV_POPULATE_WRITE
            kernel_advise(<uint64_t>mapped, whole, advice)
        (<BlockHeader*>mapped).size = whole
        (<BlockHeader*>mapped).size_class = CLASS_COUNT
        return <char*>mapped + HEADER_SIZE
    size_class = size_class_of(whole)
    whole = size_of_class(size_class)
    allocator_acquire()
    if heap.free_blocks[size_class] != NULL:
        block = <char*>heap.free_blocks[size_class]
        heap.free_blocks[size_class] = heap.free_blocks[size_class].next
    else:
        if not heap.has_begun:
            heap.has_begun = True
            heap.chunk = heap.first_chunk
            heap.chunk_left = FIRST_CHUNK_SIZE
        if heap.chunk_left < whole:
            mapped = kernel_map(
                0, CHUNK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
            )
            if not (mapped < 0 and mapped > -4096):
                heap.chunk = <char*>mapped
                heap.chunk_left = CHUNK_SIZE
        if heap.chunk_left >= whole:
            is_fresh = True      # zeroes of the kernel's; of what nobody touches no page is made
            block = heap.chunk
            heap.chunk += whole
            heap.chunk_left -= whole
    allocator_release()
    if block == NULL:
        return NULL
    (<BlockHeader*>block).size = whole
    (<BlockHeader*>block).size_class = size_class
    if zeroed and not is_fresh:
        memset(block + HEADER_SIZE, 0, size)
    return block + HEADER_SIZE


cdef inline void release(void* pointer) noexcept nogil:
    """Gives a block back; NULL is allowed."""
    cdef BlockHeader* header
    cdef FreeBlock* block
    if pointer == NULL:
        return
    note_block(pointer, False)
    if DLOPEN_USES_MALLOC:
        dlopen_free(pointer)
        return
    header = <BlockHeader*>(<char*>pointer - HEADER_SIZE)
    if header.size_class == CLASS_COUNT:
        kernel_unmap(<uint64_t>header, header.size)
        return
    if is_allocating():
        return
    block = <FreeBlock*>header
    allocator_acquire()
    block.next = heap.free_blocks[header.size_class]
    heap.free_blocks[header.size_class] = block
    allocator_release()


cdef inline uint64_t room_of(const void* pointer) noexcept nogil:
    """How many bytes the block has; 0 where that is not known."""
    if DLOPEN_USES_MALLOC:
        return 0
    return (<const BlockHeader*>(<const char*>pointer - HEADER_SIZE)).size - HEADER_SIZE


cdef struct Releases:            # blocks to be given back together
    FreeBlock* first             # linked by `next`


cdef inline void release_later(Releases* releases, void* pointer) noexcept nogil:
    """By `release_all`, in one hold of the lock; NULL is allowed. Nobody reads it any more."""
    cdef FreeBlock* block
    if pointer == NULL:
        return
    block = <FreeBlock*>(<char*>pointer - HEADER_SIZE)
    if DLOPEN_USES_MALLOC or block.header.size_class == CLASS_COUNT:
        release(pointer)
        return
    note_block(pointer, False)
    block.next = releases.first
    releases.first = block


cdef inline void release_all(Releases* releases) noexcept nogil:
    """In a signal handler that has interrupted the allocator they are lost."""
    cdef FreeBlock* block = releases.first
    cdef FreeBlock* next
    if block == NULL or is_allocating():
        return
    allocator_acquire()
    while block != NULL:
        next = block.next
        block.next = heap.free_blocks[block.header.size_class]
        heap.free_blocks[block.header.size_class] = block
        block = next
    allocator_release()


cdef inline char* copy_text(const char* text, size_t length) noexcept nogil:
    """A NUL-terminated copy of `length` bytes; NULL without memory."""
    cdef char* copy = <char*>allocate_unset(length + 1)
    if copy != NULL:
        memcpy(copy, text, length)
        copy[length] = 0
    return copy
