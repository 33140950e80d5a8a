"""One load for many who ask at once: who is about to load a file as the root of an open claims it,
and another thread that wants the same waits a little, to find it there.

A claim is a hint and not a lock. Who finds a claim has none himself, for each ends before the
transaction runs anybody's code (resolvers, the host's loader), and an open with callbacks makes
none; so waits never chain. Each open waits once, and not for long: the other thread may itself
wait, for the host's loader say, which the one that asks may hold.
"""

from libc.stdint cimport int64_t, uint32_t

from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.contract cimport DLOPEN_PRIVATE, Request
from dlopen.core.base.kernel cimport TEN_MILLISECONDS, kernel_wait_shortly, kernel_wake
from dlopen.core.base.lock cimport is_forking, lock_acquire, lock_release
from dlopen.core.image.registry cimport Claim, Registry, this_thread
from dlopen.core.memory.file cimport FileIdentity


cdef struct Wait:                # of an open, for the claim of another thread
    bint is_due
    bint is_over                 # it is never made again
    uint32_t ended               # Registry.claims_ended before it


cdef inline bint may_claim(const Request* request) noexcept nogil:
    """The root is one that others would find, and nobody is asked on the way."""
    return not request.mode & DLOPEN_PRIVATE and request.bytes == NULL and request.files == NULL \
        and request.member == NULL and request.members == NULL and request.find == NULL \
        and request.replacement_count == 0 and request.replaces == NULL


cdef inline void claim_file(
    Registry* registry, Claim* mine, const FileIdentity* file, int64_t namespace_id, Wait* wait
) noexcept nogil:
    """Unless another thread has claimed it: then a wait is due."""
    cdef Claim* other
    if mine.is_made or is_forking():
        return
    mine.thread = this_thread()
    mine.file = file[0]
    mine.namespace_id = namespace_id
    lock_acquire(&registry.lock)
    other = registry.claims
    while other != NULL and not (
        other.file.inode == file.inode and other.file.device == file.device
        and other.namespace_id == namespace_id
    ):
        other = other.next
    if other == NULL:
        mine.next = registry.claims
        registry.claims = mine
        mine.is_made = True
    # One of this thread's: a handler of a signal has come in between.
    elif other.thread != mine.thread and not wait.is_over:
        other.is_awaited = True
        wait.ended = registry.claims_ended
        wait.is_due = True
    lock_release(&registry.lock)


cdef inline void await_claim(Registry* registry, Wait* wait) noexcept nogil:
    """If that is due. With no lock held, and in no reader section."""
    if wait.is_due:
        if load_u32(&registry.claims_ended) == wait.ended:
            kernel_wait_shortly(&registry.claims_ended, wait.ended, TEN_MILLISECONDS)
        wait.is_due = False
        wait.is_over = True


cdef inline void end_claim(Registry* registry, Claim* mine) noexcept nogil:
    """If it is made."""
    cdef Claim** link
    if not mine.is_made:
        return
    lock_acquire(&registry.lock)
    link = &registry.claims
    while link[0] != mine:
        link = &link[0].next
    link[0] = mine.next
    if mine.is_awaited:
        store_u32(&registry.claims_ended, registry.claims_ended + 1)
    lock_release(&registry.lock)
    if mine.is_awaited:
        kernel_wake(&registry.claims_ended, 0x7fffffff)
    mine.is_made = False
