"""What libc is asked to call later: when a thread ends, when the process forks.

Each returns 0, or an errno: libc may have no memory, or no key left, for it.
"""

from dlopen.core.base.faults cimport FAULT_REGISTRATION, fault_at


cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned int Key "pthread_key_t"
    int pthread_key_create(Key* key, void (*destructor)(void* value) noexcept nogil)
    int pthread_setspecific(Key key, const void* value)
cdef extern from *:
    """
    /* What pthread_atfork(3) calls. That itself is an object of libc's, which would be linked in;
       some systems' allows no guarded jumps (BTI), and then the whole library would not. */
    extern int __register_atfork(
        void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso_handle);
    """
    int register_at_fork "__register_atfork"(
        void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil,
        void (*child)() noexcept nogil, void* dso_handle
    ) nogil


cdef inline int make_key(Key* key, void (*destructor)(void* value) noexcept nogil) noexcept nogil:
    """pthread_key_create(3)."""
    cdef long fault = fault_at(FAULT_REGISTRATION)
    return <int>-fault if fault else pthread_key_create(key, destructor)


cdef inline int call_at_thread_end(Key key, const void* value) noexcept nogil:
    """The key's destructor, with `value`, in this thread."""
    cdef long fault = fault_at(FAULT_REGISTRATION)
    return <int>-fault if fault else pthread_setspecific(key, value)


cdef inline int call_at_fork(
    void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil,
    void (*child)() noexcept nogil
) noexcept nogil:
    """pthread_atfork(3), for ever: this library stays."""
    cdef long fault = fault_at(FAULT_REGISTRATION)
    return <int>-fault if fault else register_at_fork(prepare, parent, child, NULL)
