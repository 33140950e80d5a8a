"""In the lists of other images and in the global scope, the new version stands for the old. All of
it under Registry.lock, each pointer by one store: readers have no lock.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport full_fence, load_pointer, load_u32, store_pointer, store_u32
from dlopen.core.base.growable cimport Pointers, pointers_hold, pointers_remove
from dlopen.core.image.image cimport Image, SearchList, is_being_linked
from dlopen.core.image.registry cimport Registry, Snapshot, first_image, next_image
from dlopen.core.image.snapshot cimport publish_snapshot, replace_global
from dlopen.core.running.moves cimport Swap


cdef inline void exchange(Pointers* array, const Swap* swap) noexcept nogil:
    """Readers have no lock: each pointer by one store."""
    cdef size_t i
    for i in range(array.count):
        if array.items[i] == swap.old:
            store_pointer(&array.items[i], swap.successor)


cdef inline void exchange_in_scope(Image* image, const Swap* swap) noexcept nogil:
    """What both versions need sees what the new one has brought, in the place of the old one's.
    What only the old one needs is not in that list, and stays with it."""
    cdef SearchList** scope = image.scope.lists
    cdef size_t i = 0
    if not pointers_hold(&swap.successor.scope.search_list.images, image):
        return
    while scope != NULL and scope[i] != NULL:
        if scope[i] == &swap.old.scope.search_list:
            store_pointer(&scope[i], &swap.successor.scope.search_list)
        i += 1


cdef inline void exchange_lazy_bindings(const Swap* swap) noexcept nogil:
    """Under the lock: who was bound to the old one by a call is bound to its successor."""
    cdef const Registry* registry = &swap.linker.registry
    cdef const Image* image = first_image(registry)
    cdef uint64_t j
    while image != NULL:
        if image != swap.old and not is_being_linked(image) and image.calls.definers != NULL:
            for j in range(image.tables.jmprel_count):
                if load_pointer(&image.calls.definers[j]) == swap.old:
                    store_pointer(&image.calls.definers[j], swap.successor)
        image = next_image(image)


cdef inline void take_place_in_lists(Swap* swap, Image* image) noexcept nogil:
    """In those of another image."""
    exchange(&image.scope.search_list.images, swap)
    exchange(&image.needs.sorted, swap)
    exchange_in_scope(image, swap)
    if image.life.loader == swap.old:
        store_pointer(&image.life.loader, swap.successor)
    if image == swap.successor:
        pointers_remove(&image.needs.bindings, swap.old)
    else:
        exchange(&image.needs.dependencies, swap)
        exchange(&image.needs.bindings, swap)
        exchange(&image.needs.filtees, swap)


cdef inline void take_place(Swap* swap, Snapshot* snapshot) noexcept nogil:
    """Under the lock: in all lists of other images; with a snapshot, in the global scope too."""
    cdef Registry* registry = &swap.linker.registry
    cdef Image* old = swap.old
    cdef Image* successor = swap.successor
    cdef Image* image = first_image(registry)
    while image != NULL:
        if image != old and not is_being_linked(image):
            take_place_in_lists(swap, image)
        image = next_image(image)
    if snapshot != NULL:
        replace_global(registry, snapshot, old, successor)
        publish_snapshot(registry, snapshot)
    if load_u32(&old.life.is_visible):
        store_u32(&successor.life.is_visible, 1)
        store_u32(&old.life.is_visible, 0)
    registry.generation += 1
    registry.counts_are_stale = True
    registry.has_swapped = True
    # Now that no call finds the old one: whoever does not see this has written down before it
    # what it has found (running/calls.pxd).
    store_u32(&successor.changes.is_replaced, 0)
    store_u32(&old.changes.is_replaced, 1)
    full_fence()
    exchange_lazy_bindings(swap)
