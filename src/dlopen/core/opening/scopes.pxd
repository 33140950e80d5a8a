"""What the symbols of the new images are looked up in: their search lists, and what is to be asked
of the global scope as it is now, for symbols/scopes.pxd to ask in order."""

from libc.stddef cimport size_t

from dlopen.core.base.growable cimport pointer_at
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.globals cimport look_for_globals
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, SearchList
from dlopen.core.image.registry cimport Registry, Snapshot, current_snapshot
from dlopen.core.image.snapshot cimport global_at
from dlopen.core.opening.definers cimport defines_nothing, find_definers
from dlopen.core.opening.transaction cimport Transaction, replaced_by, rely_on
from dlopen.core.opening.tree cimport (
    add_dependencies_of, add_unmarked, put_filtees_first, put_hosts_last,
)
from dlopen.core.symbols.global_index cimport index_of_globals
from dlopen.core.symbols.scopes cimport (
    Scopes, collect_family, collect_globals, take_globals, take_process,
)


cdef inline bint make_search_list(
    Transaction* transaction, Image* root, SearchList* list
) noexcept nogil:
    """The breadth-first closure of an image's dependencies, with what they are filters of.
    In a namespace with a record, its own come before the family."""
    cdef Registry* registry = &transaction.linker.registry
    cdef size_t i = 0
    cdef bint complete
    lock_acquire(&registry.lock)         # for the marks
    complete = add_unmarked(&list.images, root)
    while complete and i < list.images.count:
        complete = add_dependencies_of(
            transaction, <const Image*>list.images.items[i], &list.images
        )
        i += 1
    for i in range(list.images.count):
        (<Image*>list.images.items[i]).visit.mark = 0
    lock_release(&registry.lock)
    if not complete:
        return False
    put_filtees_first(&list.images)
    if transaction.space != NULL:
        put_hosts_last(&list.images)
    return True


cdef inline bint keep(void* keeper, Image* image) noexcept nogil:
    """A KeepImage. What is replaced is in nobody's scope. Of ours what is bound to is kept then
    (opening/link.pxd, `keep_bound`)."""
    cdef Transaction* transaction = <Transaction*>keeper
    return image != replaced_by(transaction) and (
        not image.is_host or rely_on(transaction, image)
    )


cdef inline bint keep_definer(void* keeper, Image* image) noexcept nogil:
    """A KeepImage."""
    return not defines_nothing(<const Transaction*>keeper, image) and keep(keeper, image)


cdef inline bint has_lasting_globals(
    const Scopes* scopes, const Snapshot* snapshot
) noexcept nogil:
    """All of them, so that each has its place; of the base's namespace."""
    cdef size_t count = snapshot.lasting_count
    return count == 0 or scopes.globals.count >= count \
        and pointer_at(&scopes.globals, count - 1) == global_at(snapshot, count - 1)


cdef inline bint collect_late_globals(
    Transaction* transaction, const Snapshot* snapshot
) noexcept nogil:
    """Where some may go meanwhile, or are not meant. False without memory."""
    return (
        transaction.namespace_id != 0 or find_definers(transaction, snapshot)
    ) and collect_globals(
        snapshot, transaction.namespace_id, keep_definer, transaction, &transaction.scopes
    )


cdef inline bint collect_scopes(Transaction* transaction) noexcept nogil:
    """For all new images; False without memory."""
    cdef Linker* linker = transaction.linker
    cdef Scopes* scopes = &transaction.scopes
    cdef const Snapshot* snapshot
    if not look_for_globals(linker, transaction.snapshot):
        return False
    take_process(transaction.snapshot, transaction.namespace_id, scopes)
    # Who has found out that one is global says so, and publishes it, in one hold of the lock.
    lock_acquire(&linker.registry.lock)
    snapshot = current_snapshot(&linker.registry)
    lock_release(&linker.registry.lock)
    # Of what another thread has found meanwhile nobody has asked that.
    if snapshot.host_generation != transaction.snapshot.host_generation:
        transaction.is_stale = True
    if (replaced_by(transaction) != NULL or not take_globals(
        snapshot, transaction.namespace_id, scopes
    )) and not collect_late_globals(transaction, snapshot):
        return False
    # Not where one could not be kept, or is to be replaced.
    if transaction.namespace_id == 0 and has_lasting_globals(scopes, snapshot):
        scopes.global_index = index_of_globals(&linker.registry, snapshot)
        scopes.global_steps = &linker.registry.global_steps
    return (transaction.space == NULL or collect_family(
        transaction.snapshot, keep, transaction, scopes
    )) and not transaction.no_memory
