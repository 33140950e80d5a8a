"""The scopes (symbols/scopes.pxd) of what is bound or looked up while the process runs: without a
lock, and without memory where that does.
"""

from dlopen.core.base.contract cimport DLOPEN_E_MEMORY
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_begin, pointers_free
from dlopen.core.host.counts cimport count_host_image
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.uniques cimport share_unique_of_lookup
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.symbols.global_index cimport index_of_globals
from dlopen.core.symbols.lookup cimport Definition, Reference
from dlopen.core.symbols.scopes cimport (
    Scopes, begin_scopes, collect_family, collect_globals, free_scopes, take_process,
)


cdef struct Borrowed:
    Scopes scopes
    Linker* linker
    const Snapshot* snapshot     # of the reader section that it is used in
    Pointers handles             # one count of the host's each
    bint failed                  # no memory for all of it


cdef inline bint borrow(void* keeper, Image* image) noexcept nogil:
    """A KeepImage. Ours stay in a reader section."""
    cdef Borrowed* borrowed = <Borrowed*>keeper
    cdef void* handle
    if not image.is_host or image.host.is_startup:
        return True
    handle = count_host_image(borrowed.linker, image, 0)
    if handle == NULL:
        return False
    if pointers_add(&borrowed.handles, handle):
        return True
    borrowed.failed = True
    close_host(borrowed.linker, handle)
    return False


cdef inline int share_unique_while_running(
    void* context, const Reference* reference, Definition* definition
) noexcept nogil:
    """A ShareUnique."""
    cdef const Borrowed* borrowed = <const Borrowed*>context
    return 0 if share_unique_of_lookup(
        borrowed.linker, borrowed.snapshot, reference, definition
    ) else DLOPEN_E_MEMORY


cdef inline void take_lasting_scopes(
    Linker* linker, const Snapshot* snapshot, const Image* asker, Borrowed* borrowed
) noexcept nogil:
    """The first of what is global, up to one that may go when the host likes: most is found there,
    at no cost. `scopes.is_part`, unless that is all. To be given back, in any case."""
    cdef Scopes* scopes = &borrowed.scopes
    begin_scopes(scopes)
    borrowed.linker = linker
    borrowed.snapshot = snapshot
    pointers_begin(&borrowed.handles)
    borrowed.failed = False
    scopes.own_names = linker.own_names
    scopes.refuses_unversioned = linker.habits.asserts_versions
    scopes.share_unique = share_unique_while_running
    scopes.context = borrowed
    if asker.scope.is_exact:
        return
    scopes.is_part = True
    take_process(snapshot, asker.namespace_id, scopes)
    if asker.namespace_id != 0:
        return
    scopes.globals.items = <void**>snapshot.globals
    scopes.globals.count = snapshot.lasting_count
    scopes.global_index = index_of_globals(&linker.registry, snapshot)
    scopes.global_steps = &linker.registry.global_steps
    scopes.is_part = scopes.globals.count != snapshot.global_count


cdef inline void borrow_scopes(const Image* asker, Borrowed* borrowed) noexcept nogil:
    """All of them, where those that stay anyhow are not all: libraries that the host opened
    RTLD_GLOBAL by itself. These, rare, cost memory and a lock of the host's."""
    cdef Scopes* scopes = &borrowed.scopes
    pointers_begin(&scopes.globals)
    scopes.global_index = NULL
    scopes.global_steps = NULL
    scopes.is_part = False
    if not collect_globals(
        borrowed.snapshot, asker.namespace_id, borrow,
        borrowed, scopes
    ) or asker.shares_family and not collect_family(borrowed.snapshot, borrow, borrowed, scopes):
        borrowed.failed = True


cdef inline void give_back_scopes(Borrowed* borrowed) noexcept nogil:
    """Ends what borrow_scopes has begun."""
    cdef size_t i
    for i in range(borrowed.handles.count):
        close_host(borrowed.linker, borrowed.handles.items[i])
    pointers_free(&borrowed.handles)
    free_scopes(&borrowed.scopes)
