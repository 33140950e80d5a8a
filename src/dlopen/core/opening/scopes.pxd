"""What the symbols of the new images are looked up in (symbols/scopes.pxd)."""

from libc.stddef cimport size_t

from dlopen.core.base.allocator cimport Allocator
from dlopen.core.base.growable cimport pointers_add
from dlopen.core.host.counts cimport look_for_globals
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, SearchList
from dlopen.core.image.registry cimport Registry, Snapshot, current_snapshot
from dlopen.core.opening.transaction cimport Transaction, take
from dlopen.core.opening.tree cimport add_dependencies_of, put_filtees_first, put_hosts_last


cdef inline bint make_search_list(
    Transaction* transaction, Image* root, SearchList* list
) noexcept nogil:
    """The breadth-first closure of an image's dependencies, with what they are filters of.
    In a namespace with a record, its own come before the family."""
    cdef size_t i = 0
    if not pointers_add(&transaction.linker.registry.allocator, &list.images, root):
        return False
    while i < list.images.count:
        if not add_dependencies_of(transaction, <const Image*>list.images.items[i], &list.images):
            return False
        i += 1
    put_filtees_first(&list.images)
    if transaction.space != NULL:
        put_hosts_last(&list.images)
    return True


cdef inline bint collect_globals(Transaction* transaction) noexcept nogil:
    """The process's global scope: what it was started with, then what was opened
    RTLD_GLOBAL, by the host and by us. Late host images are counted while we look."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Registry* registry = &linker.registry
    cdef const Snapshot* newest
    cdef size_t i
    cdef Image* image
    if not look_for_globals(linker, transaction.snapshot):
        return False
    newest = current_snapshot(registry)
    for i in range(newest.global_count):
        image = newest.globals[i]
        if image == transaction.replaces or image.namespace_id != transaction.namespace_id \
                or not take(transaction, image):
            continue
        if not pointers_add(allocator, &transaction.globals, image):
            return False
    return not transaction.no_memory


cdef inline bint collect_shared(Transaction* transaction) noexcept nogil:
    """What a namespace shares with the process: host/namespaces.pxd, symbols/scopes.pxd."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef const Snapshot* snapshot = transaction.snapshot
    cdef size_t i
    if transaction.namespace_id == 0:
        return True
    for i in range(snapshot.global_count):
        if snapshot.globals[i].is_startup and not pointers_add(
            allocator, &transaction.process, snapshot.globals[i]
        ):
            return False
    if transaction.space == NULL:
        return True
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].is_family and take(transaction, snapshot.hosts[i]) \
                and not pointers_add(allocator, &transaction.family, snapshot.hosts[i]):
            return False
    if transaction.no_memory:
        return False
    return snapshot.host_count == 0 \
        or pointers_add(allocator, &transaction.family, snapshot.hosts[0])
