"""thread_local objects of our images: an image stays while any thread has one alive.

__cxa_thread_atexit of libstdc++ and __cxa_thread_atexit_impl of libc are ours in our
images. The host's list of each thread gets a function of ours instead of the
destructor, which counts, and unloads the image if that was the last thing to hold it.
"""

from libc.stdint cimport uint64_t

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport store_flag
from dlopen.core.base.kernel cimport kernel_in_main_thread
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.closing.close cimport collect
from dlopen.core.host.host_lock cimport enter_host, leave_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.listing cimport image_at
from dlopen.core.image.registry cimport LiveObject, ObjectDestructor, Registry, this_thread
cdef extern from *:
    """
    /* crtbegin's: the host counts what is registered on this library. */
    extern void *__dso_handle __attribute__((visibility("hidden")));
    #define dlopen_own_dso_handle ((void *)&__dso_handle)
    """
    void* own_dso_handle "dlopen_own_dso_handle"


cdef inline void link_object(Registry* registry, LiveObject* live) noexcept nogil:
    """Under the lock: one more that its image stays for."""
    live.next = registry.live_objects
    live.link = &registry.live_objects
    if live.next != NULL:
        live.next.link = &live.next
    registry.live_objects = live
    live.image.life.live_objects += 1


cdef inline void unlink_object(LiveObject* live) noexcept nogil:
    """Under the lock: one less."""
    live.link[0] = live.next
    if live.next != NULL:
        live.next.link = live.link
    live.image.life.live_objects -= 1


cdef inline int host_thread_atexit(
    Linker* linker, ObjectDestructor destructor, void* object, void* dso_handle
) noexcept nogil:
    """The host's own function: 0 on success."""
    cdef int code
    enter_host(&linker.host_use)
    code = linker.host.cxa_thread_atexit(destructor, object, dso_handle)
    leave_host(&linker.host_use)
    return code


cdef inline int at_thread_exit(
    Linker* linker, ObjectDestructor destructor, void* object, void* dso_handle
) noexcept nogil:
    """__cxa_thread_atexit; 0 on success."""
    cdef Registry* registry = &linker.registry
    cdef LiveObject* live
    cdef Image* image
    cdef int code
    if linker.host.cxa_thread_atexit == NULL:
        return -1
    live = <LiveObject*>allocate(sizeof(LiveObject))
    lock_acquire(&registry.lock)
    image = image_at(registry, <uint64_t>dso_handle)
    if image == NULL:
        image = image_at(registry, <uint64_t>destructor)
    if image != NULL and live != NULL:
        live.linker = linker
        live.thread = this_thread()
        live.image = image
        live.destructor = destructor
        live.object = object
        link_object(registry, live)
    elif image != NULL:
        store_flag(&image.life.nodelete, True)   # without memory it stays for ever
    lock_release(&registry.lock)
    if image == NULL or live == NULL:
        release(live)
        return host_thread_atexit(linker, destructor, object, dso_handle)
    code = host_thread_atexit(linker, run_at_thread_exit, live, own_dso_handle)
    if code:
        lock_acquire(&registry.lock)
        unlink_object(live)
        lock_release(&registry.lock)
        release(live)
    return code


cdef inline void run_at_thread_exit(void* data) noexcept nogil:
    """In the thread that ends, called by the host. The image may be unmapped in here."""
    cdef LiveObject* live = <LiveObject*>data
    cdef Linker* linker = <Linker*>live.linker
    cdef bint last
    live.destructor(live.object)
    lock_acquire(&linker.registry.lock)
    unlink_object(live)
    last = live.image.life.live_objects == 0 and live.image.life.is_deferred \
        and not linker.process.is_exiting
    linker.registry.is_sweep_due = linker.registry.is_sweep_due or last
    lock_release(&linker.registry.lock)
    release(live)
    # The main thread ends with the process: its destructors come after the atexit handlers.
    if last and not kernel_in_main_thread():
        collect(linker, NULL)


cdef inline void forget_other_objects(Registry* registry) noexcept nogil:
    """In the child of fork: their objects will never be destroyed."""
    cdef LiveObject* live
    cdef LiveObject* next
    cdef LiveObject* gone = NULL
    lock_acquire(&registry.lock)
    live = registry.live_objects
    while live != NULL:
        next = live.next
        if live.thread != this_thread():
            unlink_object(live)
            live.next = gone
            gone = live
        live = next
    lock_release(&registry.lock)
    while gone != NULL:
        next = gone.next
        release(gone)
        gone = next
