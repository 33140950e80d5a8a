"""What goes: from the sweep to the retirement of its memory, step by step as closing/close.pxd has
them.
"""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport store_u64
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free, pointers_reserve
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.closing.destructors cimport Finishing, collecting
from dlopen.core.closing.sweep cimport sweep, take_gone
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport forget_unsealed
from dlopen.core.host.static_tls cimport take_back_tls
from dlopen.core.image.image cimport Image
from dlopen.core.image.order cimport sort_for_destructors
from dlopen.core.image.registry cimport Registry, retire_image, this_thread
from dlopen.core.opening.publish cimport give_back_hosts
from dlopen.core.running.values cimport forget_patches
from dlopen.core.symbols.report cimport report_unload


cdef inline bint take_abandoned(Registry* registry, Pointers* images) noexcept nogil:
    """Under the lock: those that an earlier close has left, all of them; without memory none, and
    then False."""
    cdef size_t count = 0
    cdef size_t i
    cdef Image* image
    for i in range(registry.closing.count):
        count += (<const Image*>registry.closing.items[i]).life.is_abandoned
    if not pointers_reserve(images, count):
        return False
    for i in range(registry.closing.count):
        image = <Image*>registry.closing.items[i]
        if image.life.is_abandoned:
            image.life.is_abandoned = False
            pointers_add(images, image)
    return True


cdef inline void adopt_abandoned(Finishing* finishing) noexcept nogil:
    """Under the lock: after what goes now, which neither needs them nor is needed by them. Without
    memory they wait for the next close."""
    cdef Pointers abandoned      # Image*
    cdef size_t sorted_before = finishing.order.count
    cdef size_t i
    cdef bint complete
    memset(&abandoned, 0, sizeof(abandoned))
    if not take_abandoned(finishing.registry, &abandoned) or abandoned.count == 0:
        return
    complete = pointers_reserve(&finishing.dead, abandoned.count) \
        and sort_for_destructors(&abandoned, NULL, &finishing.order)
    if not complete:
        finishing.order.count = sorted_before
    for i in range(abandoned.count):
        if complete:
            pointers_add(&finishing.dead, abandoned.items[i])
        else:
            (<Image*>abandoned.items[i]).life.is_abandoned = True
    pointers_free(&abandoned)


cdef inline void unpin_closed(Image* closed) noexcept nogil:
    """Under the lock. In a child of fork it may have no pin any more."""
    if closed != NULL and closed.life.pins != 0:
        closed.life.pins -= 1


cdef inline void leave_to_next_sweep(Registry* registry, Image* closed) noexcept nogil:
    """Something was let go, `closed` or what is not known."""
    lock_acquire(&registry.lock)
    unpin_closed(closed)
    registry.is_sweep_due = True
    lock_release(&registry.lock)


cdef inline void sweep_unheld(
    Linker* linker, Image* closed, Finishing* finishing
) noexcept nogil:
    """What nothing holds, and what an earlier close has left."""
    cdef Registry* registry = &linker.registry
    lock_acquire(&registry.lock)
    unpin_closed(closed)
    store_u64(&registry.closer, this_thread())
    if not sweep(
        linker, closed, linker.habits.finishes_closed_first, &finishing.dead, &finishing.order
    ):
        registry.is_sweep_due = True
    store_u64(&registry.closer, 0)
    adopt_abandoned(finishing)
    lock_release(&registry.lock)


cdef inline void take_finished(Linker* linker, Pointers* gone) noexcept nogil:
    """Of this close and of others."""
    cdef Registry* registry = &linker.registry
    cdef size_t i
    lock_acquire(&registry.lock)
    take_gone(registry, gone)
    for i in range(gone.count):
        if forget_patches(&linker.patches, <Image*>gone.items[i]) or registry.sweep_again:
            (&collecting)[0] = 2     # they may have held something
            registry.is_sweep_due = True
    lock_release(&registry.lock)


cdef inline void give_back(Linker* linker, const Pointers* gone) noexcept nogil:
    """With no lock held."""
    cdef size_t i
    for i in range(gone.count):
        report_unload(<Image*>gone.items[i])
        give_back_hosts(linker, <Image*>gone.items[i])
        take_back_tls(linker, <Image*>gone.items[i])


cdef inline void retire_all(Linker* linker, const Pointers* gone) noexcept nogil:
    cdef size_t i
    if gone.count == 0:
        return
    lock_acquire(&linker.registry.lock)
    for i in range(gone.count):
        forget_unsealed(&linker.rebinding, <Image*>gone.items[i])
        retire_image(&linker.registry, <Image*>gone.items[i])
    lock_release(&linker.registry.lock)
