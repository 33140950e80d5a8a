"""The global scope as a call sees it that is bound while the process runs: without a lock, and
without memory."""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport Allocator
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free
from dlopen.core.host.counts cimport count_host_image
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.symbols.scopes cimport Scopes


cdef struct Globals:             # the global scope while it is searched
    Pointers images              # Image*: the snapshot's, or owned (capacity is not 0)
    Pointers family              # Image*, owned: what a namespace shares
    Pointers process             # Image*: the snapshot's: what the process was started with
    Pointers handles             # one count of the host's each
    bint failed                  # no memory for all of it


cdef inline void borrow(
    Linker* linker, Image* image, Globals* globals, Pointers* images
) noexcept nogil:
    """As the last of `images`, unless it is going."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef void* handle
    if image.is_host and not image.is_startup:
        handle = count_host_image(linker, image, 0)
        if handle == NULL:
            return
        if not pointers_add(allocator, &globals.handles, handle):
            globals.failed = True
            close_host(linker, handle)
            return
    globals.failed = globals.failed or not pointers_add(allocator, images, image)


cdef inline void take_process(const Snapshot* snapshot, Globals* globals) noexcept nogil:
    """For a namespace: nothing of it ever goes."""
    globals.process.items = <void**>snapshot.globals
    while globals.process.count < snapshot.global_count \
            and snapshot.globals[globals.process.count].is_startup:
        globals.process.count += 1


cdef inline bint take_lasting_globals(
    const Snapshot* snapshot, const Image* asker, Globals* globals
) noexcept nogil:
    """The first of them, up to one that may go when the host likes: most is found there, at no
    cost. True: that is all."""
    cdef const Image* image
    cdef size_t count = 0
    memset(globals, 0, sizeof(Globals))
    if asker.exact_scope:
        return True
    if asker.namespace_id != 0:
        take_process(snapshot, globals)
        return False
    while count < snapshot.global_count:
        image = snapshot.globals[count]
        if image.namespace_id != 0 or (image.is_host and not image.is_startup):
            break
        count += 1
    globals.images.items = <void**>snapshot.globals
    globals.images.count = count
    return count == snapshot.global_count


cdef inline void borrow_globals(
    Linker* linker, const Snapshot* snapshot, const Image* asker, Globals* globals
) noexcept nogil:
    """All of them, where those that stay anyhow are not all: libraries that the host opened
    RTLD_GLOBAL by itself. These, rare, cost memory and a lock of the host's."""
    cdef size_t i
    cdef Image* image
    memset(globals, 0, sizeof(Globals))
    for i in range(snapshot.global_count):
        image = snapshot.globals[i]
        if image.namespace_id == asker.namespace_id:
            borrow(linker, image, globals, &globals.images)
    if asker.namespace_id == 0:
        return
    take_process(snapshot, globals)
    if not asker.shares_family:
        return
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].is_family:
            borrow(linker, snapshot.hosts[i], globals, &globals.family)
    borrow(linker, snapshot.hosts[0], globals, &globals.family)


cdef inline void give_back_globals(Linker* linker, Globals* globals) noexcept nogil:
    cdef size_t i
    for i in range(globals.handles.count):
        close_host(linker, globals.handles.items[i])
    pointers_free(&linker.registry.allocator, &globals.handles)
    pointers_free(&linker.registry.allocator, &globals.family)
    if globals.images.capacity != 0:
        pointers_free(&linker.registry.allocator, &globals.images)


cdef inline Scopes scopes_of(
    const Image* asker, const Globals* globals, bint is_all
) noexcept nogil:
    cdef Scopes scopes
    scopes.globals = &globals.images
    scopes.is_part = not is_all
    scopes.family = &globals.family if asker.namespace_id != 0 else NULL
    scopes.process = &globals.process if asker.namespace_id != 0 else NULL
    return scopes
