"""Closing: mark from what is held, sweep the rest; destructors, then unmapping.

One that thread_local objects keep alive is only deferred: the thread that destroys the last
one unloads it.
"""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport Allocator
from dlopen.core.base.atomics cimport store_u64
from dlopen.core.base.contract cimport DLOPEN_E_CONSTRUCTOR, Error
from dlopen.core.base.errors cimport fail_handle
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free, pointers_reserve
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.section cimport in_section
from dlopen.core.closing.destructors cimport (
    Finishing, collecting, end_destructors, run_all_destructors,
)
from dlopen.core.closing.sweep cimport sweep, take_gone
from dlopen.core.host.debugger cimport hide_from_debugger
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport forget_unsealed, seal_what_is_left
from dlopen.core.host.static_tls cimport take_back_tls
from dlopen.core.image.image cimport Image
from dlopen.core.image.order cimport sort_for_destructors
from dlopen.core.image.registry cimport (
    Registry, current_snapshot, reclaim, retire_image, snapshot_holds, this_thread,
)
from dlopen.core.opening.publish cimport give_back_hosts
from dlopen.core.running.patch cimport forget_patches
from dlopen.core.symbols.report cimport report_close, report_unload


cdef inline void collect(Linker* linker, const Image* closed) noexcept nogil:
    """Unloads all that nothing holds; and again, if a destructor closed something: as
    under glibc, that is unloaded after the image that closed it. And again, if what was
    unloaded meanwhile held something. `closed` is what the caller has closed, or NULL: it may
    be gone, and is only compared."""
    cdef bint again = True
    if collecting != 0:
        (&collecting)[0] = 2
        return
    while again:
        (&collecting)[0] = 1
        collect_once(linker, closed)
        closed = NULL
        again = collecting == 2
        (&collecting)[0] = 0


cdef inline void adopt_abandoned(Finishing* finishing) noexcept nogil:
    """Under the lock: they come first. What goes now neither needs them nor is needed by them.
    Without memory they wait for the next close."""
    cdef Allocator* allocator = &finishing.registry.allocator
    cdef Pointers abandoned      # Image*
    cdef size_t sorted_before = finishing.order.count
    cdef size_t i
    cdef bint complete
    memset(&abandoned, 0, sizeof(abandoned))
    if not take_abandoned(finishing.registry, &abandoned) or abandoned.count == 0:
        return
    complete = pointers_reserve(allocator, &finishing.dead, abandoned.count) \
        and sort_for_destructors(allocator, &abandoned, NULL, &finishing.order)
    if not complete:
        finishing.order.count = sorted_before
    for i in range(abandoned.count):
        if complete:
            pointers_add(allocator, &finishing.dead, abandoned.items[i])
        else:
            (<Image*>abandoned.items[i]).is_abandoned = True
    pointers_free(allocator, &abandoned)


cdef inline bint take_abandoned(Registry* registry, Pointers* images) noexcept nogil:
    """Under the lock: those that an earlier close has left, all of them; without memory none, and
    then False."""
    cdef size_t count = 0
    cdef size_t i
    cdef Image* image
    for i in range(registry.closing.count):
        count += (<const Image*>registry.closing.items[i]).is_abandoned
    if not pointers_reserve(&registry.allocator, images, count):
        return False
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if image.is_abandoned:
            image.is_abandoned = False
            pointers_add(&registry.allocator, images, image)
    return True


cdef inline void collect_once(Linker* linker, const Image* closed) noexcept nogil:
    cdef Registry* registry = &linker.registry
    cdef Finishing finishing
    cdef Pointers gone
    cdef size_t i
    memset(&finishing, 0, sizeof(finishing))
    memset(&gone, 0, sizeof(gone))
    finishing.registry = registry
    lock_acquire(&registry.lock)
    if not linker.habits.finishes_closed_first:
        closed = NULL
    store_u64(&registry.closer, this_thread())
    sweep(linker, closed, &finishing.dead, &finishing.order)
    store_u64(&registry.closer, 0)
    adopt_abandoned(&finishing)
    lock_release(&registry.lock)
    in_section(run_all_destructors, end_destructors, &finishing)
    lock_acquire(&registry.lock)
    take_gone(registry, &gone)
    for i in range(gone.count):
        if forget_patches(linker, <Image*>gone.items[i]) or registry.sweep_again:
            (&collecting)[0] = 2     # they may have held something
    lock_release(&registry.lock)
    hide_from_debugger(linker, &gone)
    for i in range(gone.count):
        report_unload(<Image*>gone.items[i])
        give_back_hosts(linker, <Image*>gone.items[i])
        take_back_tls(linker, <Image*>gone.items[i])
    if gone.count:
        lock_acquire(&registry.lock)
        for i in range(gone.count):
            forget_unsealed(linker, <Image*>gone.items[i])
            retire_image(registry, <Image*>gone.items[i])
        lock_release(&registry.lock)
    pointers_free(&registry.allocator, &gone)
    reclaim(registry, True)


cdef inline int close_image(Linker* linker, Image* image, Error* error) noexcept nogil:
    """One open less; unloads what nothing holds any more."""
    cdef Registry* registry = &linker.registry
    cdef void* handle = NULL
    cdef bint valid
    seal_what_is_left(linker)
    lock_acquire(&registry.lock)
    valid = snapshot_holds(current_snapshot(registry), image) and image.open_count != 0
    if valid:
        image.open_count -= 1
        report_close(image)
        if image.is_host:
            handle = image.host_handle
    lock_release(&registry.lock)
    if not valid:
        return fail_handle(error)
    if handle != NULL:
        close_host(linker, handle)
    else:
        collect(linker, image)
    return 0


cdef inline int closed_if_failed(Linker* linker, int code, Image** image) noexcept nogil:
    """Of an open: what had constructors that threw was counted."""
    if code == DLOPEN_E_CONSTRUCTOR:
        close_image(linker, image[0], NULL)
        image[0] = NULL
    return code
