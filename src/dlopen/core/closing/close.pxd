"""Closing: what nothing holds any more is swept; destructors, then unmapping.

One that thread_local objects keep alive is only deferred: the thread that destroys the last
one unloads it.
"""

from libc.string cimport memset

from dlopen.core.base.atomics cimport store_u32
from dlopen.core.base.contract cimport DLOPEN_E_CONSTRUCTOR, Error
from dlopen.core.base.errors cimport fail_handle
from dlopen.core.base.growable cimport Pointers, pointers_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.section cimport in_section
from dlopen.core.closing.destructors cimport (
    Finishing, collecting, end_destructors, run_all_destructors,
)
from dlopen.core.closing.unload cimport (
    give_back, leave_to_next_sweep, retire_all, sweep_unheld, take_finished,
)
from dlopen.core.host.debugger cimport hide_from_debugger
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport seal_what_is_left
from dlopen.core.image.image cimport Image
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.registry cimport Registry, reclaim
from dlopen.core.opening.counting cimport uncount
from dlopen.core.symbols.report cimport report_close


cdef inline void collect(Linker* linker, Image* closed) noexcept nogil:
    """Unloads all that nothing holds, and begins anew where a destructor has closed something (as
    under glibc, that is unloaded after the image that closed it), or what was unloaded meanwhile
    had held something. `closed` is what the caller has closed, and pinned for this; NULL: not that
    alone."""
    cdef bint again = True
    if collecting != 0:
        (&collecting)[0] = 2
        leave_to_next_sweep(&linker.registry, closed)
        return
    while again:
        (&collecting)[0] = 1
        collect_once(linker, closed)
        closed = NULL
        again = collecting == 2
        (&collecting)[0] = 0


cdef inline void collect_once(Linker* linker, Image* closed) noexcept nogil:
    """The steps of an unload, in their order."""
    cdef Finishing finishing
    cdef Pointers gone           # Image*
    memset(&finishing, 0, sizeof(finishing))
    memset(&gone, 0, sizeof(gone))
    finishing.registry = &linker.registry
    # Mark and sweep: what nothing holds is out of sight from now on, and sorted.
    sweep_unheld(linker, closed, &finishing)
    # Finish: its destructors run, in that order, with no lock held.
    in_section(run_all_destructors, end_destructors, &finishing)
    # Take out: what will never run again leaves the registry, and its patches with it.
    take_finished(linker, &gone)
    # Announce: debuggers forget it.
    hide_from_debugger(linker, &gone)
    # Give back: the host's images that it relied on, and static TLS.
    give_back(linker, &gone)
    # Retire: it is unmapped when no reader can be inside any more.
    retire_all(linker, &gone)
    pointers_free(&gone)
    reclaim(&linker.registry, True)


cdef inline int close_in_full(Linker* linker, Image* image, Error* error) noexcept nogil:
    """As close_image, where `uncount` has not."""
    cdef Registry* registry = &linker.registry
    cdef void* handle = NULL
    cdef bint valid
    seal_what_is_left(linker)
    lock_acquire(&registry.lock)
    valid = is_image(registry, image) and image.life.open_count != 0
    if valid:
        store_u32(&image.life.open_count, image.life.open_count - 1)
        # Who sweeps before this thread does leaves it alone.
        image.life.pins += not image.is_host
        report_close(image)
        if image.is_host:
            handle = image.host.handle
    lock_release(&registry.lock)
    if not valid:
        return fail_handle(error)
    if handle != NULL:
        close_host(linker, handle)
    else:
        collect(linker, image)
    return 0


cdef inline int close_image(Linker* linker, Image* image, Error* error) noexcept nogil:
    """One open less; unloads what nothing holds any more."""
    return 0 if uncount(&linker.registry, image) else close_in_full(linker, image, error)


cdef inline int closed_if_failed(Linker* linker, int code, Image** image) noexcept nogil:
    """Of an open: what had constructors that threw was counted."""
    if code == DLOPEN_E_CONSTRUCTOR:
        close_image(linker, image[0], NULL)
        image[0] = NULL
    return code
