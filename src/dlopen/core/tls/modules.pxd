"""Thread-local storage of our images: own module ids, blocks made on first touch.

The psABI's __tls_get_addr takes a module id and an offset. An id with the top bit set
is ours: a slot of the table of modules below, under a number that is never used twice,
so that what is left of an unloaded module can never be taken for another's. All other
ids are the host's. Each thread has a table of its own, by the same slots.

`Tls.lock` guards every field here, and all threads' tables. A thread reads its own
without it: nobody else changes an entry of a module that is still loaded. The lock is a
leaf but for the allocator's.

A thread's blocks live as long as it, as under glibc: in its last destructor of a
pthread key, too. Nothing of ours runs in it after that one: so they are freed later, by whichever
other thread finds that it has ended.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport store_pointer, store_u64
from dlopen.core.base.kernel cimport (kernel_process_id, kernel_thread_has_ended, kernel_thread_id)
from dlopen.core.base.registrations cimport Key, call_at_thread_end
from dlopen.core.base.lock cimport Lock, lock_acquire, lock_release
from dlopen.core.base.words cimport align_up
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.image.image cimport Image


cdef extern from *:
    """
    /* This thread's table, for arch/<machine>.S too. Initial-exec: see meson.build. */
    __attribute__((visibility("hidden"))) __thread void *dlopen_thread_blocks;

    #include <stddef.h>
    struct dlopen_tls_index {
      uint64_t module, offset;
    };
    struct dlopen_block {
      uint64_t id;               /* the module's; 0: none */
      char *address;
      void *allocation;
    };
    struct dlopen_thread_blocks {
      struct dlopen_block *blocks;        /* by slot */
      uint64_t count;
      uint32_t process, thread;  /* the kernel's ids */
      struct dlopen_thread_blocks *next;  /* in Tls.threads or Tls.ending */
      struct dlopen_thread_blocks **link; /* what points here */
    };
    /* What dlopen_tlsdesc_dynamic of arch/<machine>.S counts on. */
    _Static_assert(offsetof(struct dlopen_tls_index, module) == 0, "");
    _Static_assert(offsetof(struct dlopen_tls_index, offset) == 8, "");
    _Static_assert(sizeof(struct dlopen_block) == 3 * 8, "");
    _Static_assert(offsetof(struct dlopen_block, id) == 0, "");
    _Static_assert(offsetof(struct dlopen_block, address) == 8, "");
    _Static_assert(offsetof(struct dlopen_thread_blocks, blocks) == 0, "");
    _Static_assert(offsetof(struct dlopen_thread_blocks, count) == 8, "");
    """
    void* thread_blocks "dlopen_thread_blocks"

    ctypedef struct TlsIndex "struct dlopen_tls_index":  # tls_index of the psABI
        uint64_t module
        uint64_t offset

    ctypedef struct Block "struct dlopen_block":
        uint64_t id
        char* address
        void* allocation

    ctypedef struct ThreadBlocks "struct dlopen_thread_blocks":
        Block* blocks
        uint64_t count
        uint32_t process
        uint32_t thread
        ThreadBlocks* next
        ThreadBlocks** link


cdef struct Module:
    uint64_t id                  # 0: the slot is free
    const void* content          # PT_TLS: p_filesz bytes, relocated; zeroes follow
    uint64_t content_size, size, alignment
    uint64_t first_byte          # p_vaddr modulo the alignment


cdef struct Tls:
    Lock lock
    Module* modules              # by slot
    uint32_t count, capacity
    uint32_t issued              # ids so far
    ThreadBlocks* threads
    ThreadBlocks* ending         # those whose key destructors run, or have run
    Key key                      # its destructor: thread_ends


cdef inline bint is_own_module(uint64_t id) noexcept nogil:
    """The id is one of ours, and not the host's."""
    return id >> 63 != 0


cdef inline uint64_t slot_of(uint64_t id) noexcept nogil:
    """The place of a module of ours in the table of modules, and in each thread's."""
    return id & 0xffffffffU


cdef inline uint64_t add_module(Tls* tls, const Image* image) noexcept nogil:
    """The id of a new module for an image with PT_TLS; 0 without memory."""
    cdef const Phdr* segment = image.layout.tls
    cdef Module* module
    cdef Module* grown
    cdef uint32_t slot = 0
    cdef uint32_t capacity
    cdef uint64_t id = 0
    lock_acquire(&tls.lock)
    while slot < tls.count and tls.modules[slot].id != 0:
        slot += 1
    if slot == tls.capacity:
        capacity = 16 if tls.capacity == 0 else tls.capacity * 2
        grown = <Module*>allocate(capacity * sizeof(Module))
        if grown != NULL:
            if tls.count != 0:
                memcpy(grown, tls.modules, tls.count * sizeof(Module))
            release(tls.modules)
            tls.modules = grown
            tls.capacity = capacity
    if slot < tls.capacity:
        tls.issued = (tls.issued + 1) & 0x7fffffffU
        id = <uint64_t>1 << 63 | <uint64_t>tls.issued << 32 | slot
        module = &tls.modules[slot]
        module.id = id
        module.content = <const void*>(image.bytes_bias + segment.p_vaddr)
        module.content_size = segment.p_filesz
        module.size = segment.p_memsz
        module.alignment = segment.p_align if segment.p_align else 1
        module.first_byte = segment.p_vaddr & (module.alignment - 1)
        if slot == tls.count:
            tls.count += 1
    lock_release(&tls.lock)
    return id


cdef inline void remove_blocks(ThreadBlocks* thread, uint64_t id) noexcept nogil:
    """Under the lock: a module's, in this thread and those that follow in its list."""
    cdef Block* block
    while thread != NULL:
        if slot_of(id) < thread.count:
            block = &thread.blocks[slot_of(id)]
            if block.id == id:
                block.id = 0
                release(block.allocation)
                block.allocation = NULL
        thread = thread.next


cdef inline void remove_module(Tls* tls, uint64_t id) noexcept nogil:
    """With its blocks in all threads."""
    if not is_own_module(id):
        return
    lock_acquire(&tls.lock)
    tls.modules[slot_of(id)].id = 0
    remove_blocks(tls.threads, id)
    remove_blocks(tls.ending, id)
    free_ended(tls)
    lock_release(&tls.lock)


cdef inline char* known_block(uint64_t id) noexcept nogil:
    """This thread's block of a module of ours; NULL if it has not touched it yet."""
    cdef const ThreadBlocks* thread = <const ThreadBlocks*>thread_blocks
    if thread != NULL and slot_of(id) < thread.count and thread.blocks[slot_of(id)].id == id:
        return thread.blocks[slot_of(id)].address
    return NULL


cdef inline void link_table(ThreadBlocks** list, ThreadBlocks* thread) noexcept nogil:
    """Under the lock: at the head of Tls.threads or Tls.ending."""
    thread.next = list[0]
    thread.link = list
    if thread.next != NULL:
        thread.next.link = &thread.next
    list[0] = thread


cdef inline void unlink_table(ThreadBlocks* thread) noexcept nogil:
    """Under the lock: out of the list that it is in."""
    thread.link[0] = thread.next
    if thread.next != NULL:
        thread.next.link = thread.link


cdef inline void free_table(ThreadBlocks* thread) noexcept nogil:
    """With all of its blocks; it is in no list any more."""
    cdef uint64_t i
    for i in range(thread.count):
        if thread.blocks[i].id != 0:
            release(thread.blocks[i].allocation)
    release(thread.blocks)
    release(thread)


cdef inline void free_ended(Tls* tls) noexcept nogil:
    """Under the lock: the tables of threads that are no more."""
    cdef ThreadBlocks* thread = tls.ending
    cdef ThreadBlocks* next
    while thread != NULL:
        next = thread.next
        if kernel_thread_has_ended(thread.process, thread.thread):
            unlink_table(thread)
            free_table(thread)
        thread = next


cdef inline ThreadBlocks* table_with(Tls* tls, uint64_t slot) noexcept nogil:
    """Under the lock: this thread's table with room for the slot; NULL without memory."""
    cdef ThreadBlocks* thread = <ThreadBlocks*>thread_blocks
    cdef Block* grown
    cdef Block* old
    cdef uint64_t count
    if thread == NULL:
        thread = <ThreadBlocks*>allocate(sizeof(ThreadBlocks))
        if thread == NULL:
            return NULL
        thread.process = kernel_process_id()
        thread.thread = kernel_thread_id()
        free_ended(tls)
        link_table(&tls.threads, thread)
        store_pointer(&thread_blocks, thread)
    if slot >= thread.count:
        count = align_up(slot + 1, 16)
        grown = <Block*>allocate(count * sizeof(Block))
        if grown == NULL and thread.count == 0:      # a new one, which is not known to its key yet
            unlink_table(thread)
            (&thread_blocks)[0] = NULL
            release(thread)
        if grown == NULL:
            return NULL
        old = thread.blocks
        if thread.count != 0:
            memcpy(grown, old, thread.count * sizeof(Block))
        # In this order: a signal handler of this thread may read it at any moment.
        store_pointer(&thread.blocks, grown)
        store_u64(&thread.count, count)
        release(old)
    return thread


cdef inline char* make_block(Tls* tls, uint64_t id) noexcept nogil:
    """On the first touch; NULL without memory or for a module that is not loaded. Calls
    nothing that writes errno."""
    cdef Module module
    cdef ThreadBlocks* thread
    cdef Block* block
    cdef void* allocation
    cdef char* address = NULL
    cdef bint is_first = thread_blocks == NULL
    memset(&module, 0, sizeof(module))
    lock_acquire(&tls.lock)
    if slot_of(id) < tls.count:
        module = tls.modules[slot_of(id)]
    lock_release(&tls.lock)
    if module.id != id:
        return NULL
    allocation = allocate(module.size + 2 * module.alignment)
    if allocation == NULL:
        return NULL
    address = <char*>align_up(<uint64_t>allocation, module.alignment) + module.first_byte
    if module.content_size != 0:
        memcpy(address, module.content, module.content_size)
    lock_acquire(&tls.lock)
    thread = table_with(tls, slot_of(id))
    if thread != NULL:
        block = &thread.blocks[slot_of(id)]
        block.allocation = allocation
        block.address = address
        store_u64(&block.id, id)             # the last, likewise
    lock_release(&tls.lock)
    if thread == NULL:
        release(allocation)
        return NULL
    if is_first and call_at_thread_end(tls.key, thread) != 0:
        # Nobody would free it.
        lock_acquire(&tls.lock)
        unlink_table(thread)
        (&thread_blocks)[0] = NULL
        lock_release(&tls.lock)
        free_table(thread)
        return NULL
    return address


cdef inline void thread_ends(Tls* tls, void* table) noexcept nogil:
    """The key's destructor. Those of other keys may yet come, and use the blocks."""
    lock_acquire(&tls.lock)
    unlink_table(<ThreadBlocks*>table)
    free_ended(tls)
    link_table(&tls.ending, <ThreadBlocks*>table)
    lock_release(&tls.lock)


cdef inline void renew_thread() noexcept nogil:
    """In a forked child: the kernel knows this thread by other ids. By the old ones it would be
    taken for ended as soon as the parent has."""
    cdef ThreadBlocks* thread = <ThreadBlocks*>thread_blocks
    if thread != NULL:
        thread.process = kernel_process_id()
        thread.thread = kernel_thread_id()


cdef inline void forget_tables(ThreadBlocks** list) noexcept nogil:
    """All but this thread's."""
    cdef ThreadBlocks* thread = list[0]
    cdef ThreadBlocks* next
    while thread != NULL:
        next = thread.next
        if thread != thread_blocks:
            unlink_table(thread)
            free_table(thread)
        thread = next


cdef inline void forget_other_threads(Tls* tls) noexcept nogil:
    """In a forked child, which has none of them."""
    renew_thread()
    forget_tables(&tls.threads)
    forget_tables(&tls.ending)
