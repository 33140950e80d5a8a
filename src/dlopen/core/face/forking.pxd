"""fork(2): all that is locked before it, so that the child finds each structure whole, and what the
child starts from.

No thread is in the host's loader for us, and all of our locks are held, until it has happened. The
child has one thread: what others have of tables and counts is given up.

Where the process has one thread before, there is nothing to wait for and nothing to give up. What
is not at rest then is this thread's own, which a signal's handler that forks has interrupted, and
which goes on in both when that returns.
"""

from dlopen.core.base.lock cimport is_forking, lock_acquire, lock_release, set_forking
from dlopen.core.base.single_thread cimport is_alone
from dlopen.core.closing.thread_exit cimport forget_other_objects
from dlopen.core.host.host_lock cimport await_hosts_before_fork, has_forked, is_forked
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.registry cimport after_fork, after_fork_in_child, before_fork
from dlopen.core.search.archives cimport forget_other_askings
from dlopen.core.tls.modules cimport forget_other_threads, renew_thread


cdef inline void begin_fork(Linker* linker) noexcept nogil:
    """Before fork(2), in the thread that forks: all is at rest."""
    if is_alone():
        return
    await_hosts_before_fork(&linker.host_use)
    lock_acquire(&linker.debugger.lock)
    lock_acquire(&linker.tls.lock)
    before_fork(&linker.registry)
    set_forking(True)


cdef inline void end_fork(Linker* linker) noexcept nogil:
    """In the parent."""
    if not is_forking():
        return
    set_forking(False)
    after_fork(&linker.registry)
    lock_release(&linker.tls.lock)
    lock_release(&linker.debugger.lock)
    has_forked(&linker.host_use)


cdef inline void end_fork_in_child(Linker* linker) noexcept nogil:
    """In the child: no other thread is left, nor what it was about."""
    if not is_forking():
        renew_thread()
        return
    set_forking(False)
    linker.static_storage.is_changing = False
    is_forked(&linker.host_use)
    after_fork_in_child(&linker.registry)
    forget_other_askings(linker)
    forget_other_threads(&linker.tls)
    lock_release(&linker.tls.lock)
    lock_release(&linker.debugger.lock)
    forget_other_objects(&linker.registry)
