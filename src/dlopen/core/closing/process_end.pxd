"""The end of the process: destructors of all that is loaded, once, where libc runs its own. Nothing
is unmapped: other threads may run on."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_flag, store_flag
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.closing.destructors cimport run_destructors
from dlopen.core.closing.sweep cimport absorb_lazy_bindings
from dlopen.core.closing.unload cimport take_abandoned
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.order cimport sort_for_destructors
from dlopen.core.image.registry cimport Registry, first_image, next_image


cdef inline void finish_at_exit(Linker* linker) noexcept nogil:
    """The process's end: every destructor that is still due, dependents first; nothing is
    unmapped, since other threads may still run. As under glibc the last namespace goes
    first, an image whose constructor ended the process is finished too, and what a
    destructor closes stays, to be finished in its turn."""
    cdef Registry* registry = &linker.registry
    cdef Pointers left           # Image*
    cdef Pointers order
    cdef size_t i
    cdef Image* image
    memset(&left, 0, sizeof(left))
    memset(&order, 0, sizeof(order))
    lock_acquire(&registry.lock)
    linker.process.is_exiting = True
    image = first_image(registry)
    while image != NULL:
        absorb_lazy_bindings(registry, image)
        image.life.pins += 1
        # Without memory the rest is not finished.
        if not pointers_add(&left, image):
            break
        image = next_image(image)
    take_abandoned(registry, &left)
    lock_release(&registry.lock)
    while left.count:
        take_last_namespace(registry, &left, &order)
        for i in reversed(range(order.count)):
            image = <Image*>order.items[i]
            # Another thread may be running its constructors.
            if load_flag(&image.life.fini_due):
                store_flag(&image.life.fini_due, False)
                run_destructors(image)
        order.count = 0
    pointers_free(&left)
    pointers_free(&order)


cdef inline void take_last_namespace(
    Registry* registry, Pointers* images, Pointers* order
) noexcept nogil:
    """Those with the highest id go from `images` to `order`, dependencies first."""
    cdef Pointers members
    cdef size_t i
    cdef size_t kept = 0
    cdef Image* image
    cdef int64_t last = 0
    memset(&members, 0, sizeof(members))
    for i in range(images.count):
        image = <Image*>images.items[i]
        if image.namespace_id > last:
            last = image.namespace_id
    for i in range(images.count):
        image = <Image*>images.items[i]
        if image.namespace_id != last:
            images.items[kept] = image
            kept += 1
        else:
            pointers_add(&members, image)
    images.count = kept
    lock_acquire(&registry.lock)
    sort_for_destructors(&members, NULL, order)
    lock_release(&registry.lock)
    pointers_free(&members)
