"""The index (symbols/index.pxd) of the global scope, which opens, lazy calls and dlsym(3) share.

It is of the first of the snapshot's globals: those that cannot go behind our back. What joins later
is searched one by one behind it, until that has cost as much as a new index. It stays while the
list is the same one (image/snapshot.pxd): no other image is ever put in a place that has one. So
who has both at hand always searches the scope that his snapshot shows.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memset

from dlopen.core.base.allocator cimport release
from dlopen.core.base.atomics cimport load_pointer, load_u64, store_pointer, store_u64
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free, pointers_reserve
from dlopen.core.base.lock cimport lock_acquire, lock_release, locks_held
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Registry, Snapshot, SymbolIndex
from dlopen.core.image.retirement cimport retire
from dlopen.core.image.snapshot cimport global_at
from dlopen.core.symbols.index cimport STEPS_FOR_SYMBOL, make_index, words_of


cdef enum:
    # How often the whole scope is searched before it is looked at how large an index would be: no
    # image has much less than so many symbols.
    SEARCHES = 16


cdef inline const SymbolIndex* known_index(
    const Registry* registry, const Snapshot* snapshot
) noexcept nogil:
    """Of this snapshot's first globals; NULL: there is none. In the reader section of both."""
    cdef const SymbolIndex* index = <const SymbolIndex*>load_pointer(&registry.global_index)
    if index == NULL or index.list != snapshot.list or index.count > snapshot.lasting_count:
        return NULL
    return index


cdef inline bint index_pays(Registry* registry, const Snapshot* snapshot) noexcept nogil:
    """The scope was searched one by one as often as an index of it costs."""
    cdef uint64_t steps = load_u64(&registry.global_steps)
    cdef uint64_t due = load_u64(&registry.global_steps_due)
    cdef Pointers globals
    if steps < SEARCHES * snapshot.lasting_count:
        return False
    if due == 0:
        globals.items = <void**>snapshot.globals
        due = STEPS_FOR_SYMBOL * words_of(&globals, snapshot.lasting_count, False) + 1
        store_u64(&registry.global_steps_due, due)
    return steps >= due


cdef inline SymbolIndex* make_global_index(
    const Snapshot* snapshot, Pointers* images
) noexcept nogil:
    """Of `images`, which it fills: the places of the last ones may change meanwhile. NULL without
    memory."""
    cdef SymbolIndex* index
    cdef size_t i
    if not pointers_reserve(images, snapshot.lasting_count):
        return NULL
    for i in range(snapshot.lasting_count):
        pointers_add(images, global_at(snapshot, i))
    index = make_index(images, images.count, words_of(images, images.count, False), False)
    if index != NULL:
        index.list = snapshot.list
    return index


cdef inline bint is_of_globals(
    const Registry* registry, const SymbolIndex* index, const Pointers* images
) noexcept nogil:
    """Under the lock: the scope begins with these images still."""
    return index.list == registry.globals \
        and images.count <= registry.snapshot.lasting_count \
        and memcmp(images.items, registry.snapshot.globals, images.count * sizeof(Image*)) == 0


cdef inline const SymbolIndex* index_of_globals(
    Registry* registry, const Snapshot* snapshot
) noexcept nogil:
    """As known_index; made now if that pays. In a handler that may have interrupted who holds a
    lock it is left as it is."""
    cdef const SymbolIndex* known = known_index(registry, snapshot)
    cdef SymbolIndex* index
    cdef SymbolIndex* old
    cdef Pointers images
    # What is searched behind one that has all that can be in it makes no other one pay.
    if known != NULL and known.count == snapshot.lasting_count:
        return known
    if not index_pays(registry, snapshot) or locks_held != 0:
        return known
    memset(&images, 0, sizeof(images))
    index = make_global_index(snapshot, &images)
    lock_acquire(&registry.lock)
    store_u64(&registry.global_steps, 0)
    store_u64(&registry.global_steps_due, 0)
    if index != NULL and is_of_globals(registry, index, &images):
        if registry.globals.indexed < index.count:
            registry.globals.indexed = index.count
        old = registry.global_index
        store_pointer(&registry.global_index, index)
        index = NULL
        if old != NULL:
            old.retired.block = old
            retire(&registry.retirement, &old.retired)
    lock_release(&registry.lock)
    release(index)
    pointers_free(&images)
    return known_index(registry, snapshot)
