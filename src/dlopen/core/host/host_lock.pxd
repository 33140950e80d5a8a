"""Calls of the host's loader, which takes a lock of its own, and fork.

The host does not reset that lock in a forked child: no thread shall be in there for us at
that moment, and none goes in while another forks. Waiting is bounded: who forks may itself
be waited for, by a constructor or a destructor that the host runs.
"""

from libc.stdint cimport uint32_t

from dlopen.core.base.atomics cimport add_u32, load_u32, load_u32_seq, store_u32, sub_u32
from dlopen.core.base.kernel cimport MILLISECOND, kernel_wait_shortly, kernel_wake
from dlopen.core.base.lock cimport locks_held
from dlopen.core.base.single_thread cimport count_one, uncount_one
from dlopen.core.host.abi cimport RTLD_DI_LINKMAP
from dlopen.core.host.assumptions cimport note_unmet
from dlopen.core.host.linker cimport HostUse, Linker


cdef extern from "<dlfcn.h>" nogil:
    enum:
        LM_ID_BASE, LM_ID_NEWLM


cdef extern from *:
    """
    /* How many of HostUse.entered are this thread's. */
    static __thread uint32_t dlopen_in_host;
    /* This thread has announced that it forks. */
    static __thread uint32_t dlopen_announces_fork;
    """
    uint32_t in_host "dlopen_in_host"
    uint32_t announces_fork "dlopen_announces_fork"


cdef enum:
    FORK_PATIENCE = 400          # waits of a millisecond at most each: as a rule of microseconds


cdef inline void enter_host(HostUse* host_use) noexcept nogil:
    """Before a call of the host's loader; may be nested. A thread that is not in there yet waits
    for one that forks."""
    cdef int turn = 0
    cdef uint32_t forking
    count_one(&host_use.entered)
    (&in_host)[0] += 1
    forking = load_u32_seq(&host_use.forking)
    # Not where it would wait for itself: nor in a signal handler that has interrupted who forks,
    # or who holds a lock that who forks will wait for.
    while forking != 0 and in_host == 1 and not announces_fork and locks_held == 0 \
            and turn < FORK_PATIENCE:
        leave_host(host_use)
        kernel_wait_shortly(&host_use.forking, forking, MILLISECOND)
        count_one(&host_use.entered)
        (&in_host)[0] += 1
        forking = load_u32_seq(&host_use.forking)
        turn += 1


cdef inline void leave_host(HostUse* host_use) noexcept nogil:
    """Ends what enter_host began. Who forks may wait for that."""
    (&in_host)[0] -= 1
    uncount_one(&host_use.entered)
    if load_u32_seq(&host_use.forking) != 0:
        kernel_wake(&host_use.entered, 0x7fffffff)


cdef inline void await_hosts_before_fork(HostUse* host_use) noexcept nogil:
    """Ends with `has_forked`, or in the child `is_forked`."""
    cdef int turn = 0
    cdef uint32_t entered
    (&announces_fork)[0] = 1
    add_u32(&host_use.forking, 1)
    while turn < FORK_PATIENCE:
        entered = load_u32_seq(&host_use.entered)
        if entered == in_host:
            break
        kernel_wait_shortly(&host_use.entered, entered, MILLISECOND)
        turn += 1


cdef inline void has_forked(HostUse* host_use) noexcept nogil:
    """In the parent: who waits goes in."""
    # Before the announcement ends: a handler in between would wait for its own thread.
    cdef bint is_last = sub_u32(&host_use.forking, 1) == 1
    (&announces_fork)[0] = 0
    if is_last:
        kernel_wake(&host_use.forking, 0x7fffffff)


cdef inline void is_forked(HostUse* host_use) noexcept nogil:
    """In the child, which has one thread."""
    host_use.entered = in_host
    host_use.forking = 0
    (&announces_fork)[0] = 0


cdef inline void* open_host(Linker* linker, const char* name, int mode) noexcept nogil:
    """dlopen of the host's, into the main namespace: its handle, or NULL."""
    return open_host_in(linker, LM_ID_BASE, name, mode)


cdef inline void* open_host_in(
    Linker* linker, long namespace, const char* name, int mode
) noexcept nogil:
    """Into a namespace of the host's: LM_ID_BASE or, where it has dlmopen, LM_ID_NEWLM."""
    cdef void* handle
    enter_host(&linker.host_use)
    if namespace == LM_ID_BASE:
        handle = linker.host.dlopen(name, mode)
    else:
        handle = linker.host.dlmopen(namespace, name, mode)
    leave_host(&linker.host_use)
    if handle != NULL and not load_u32(&linker.host_use.knows_handles) \
            and not is_link_map(linker, handle):
        close_host(linker, handle)
        return NULL
    return handle


cdef inline bint is_link_map(Linker* linker, void* handle) noexcept nogil:
    """The first handle of the host's shows what all of them are; False with `note_unmet`."""
    cdef void* map = NULL
    if linker.host.dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 and map == handle:
        store_u32(&linker.host_use.knows_handles, 1)
        return True
    note_unmet(&linker.preparation, b"a handle of its is not the struct link_map", b"")
    return False


cdef inline int close_host(Linker* linker, void* handle) noexcept nogil:
    """dlclose of the host's, for a handle of its own: 0 on success."""
    cdef int code
    enter_host(&linker.host_use)
    code = linker.host.dlclose(handle)
    leave_host(&linker.host_use)
    return code
