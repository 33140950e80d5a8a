"""Debuggers see our images.

gdb reads the lists of <link.h>: a struct r_debug for each namespace of the host's loader,
chained by r_next since glibc 2.35. One more of ours in the chain has a list of our
link maps, and shows our images like those of a namespace. They cannot be in the host's own
list: it takes each entry for one of its far larger structs, and crashes.

A change follows <link.h>: r_state, a call of r_brk, the change, RT_CONSISTENT, a call
again. r_brk is an empty function of the host's, where a debugger has its breakpoint; so a
debugger that follows what is loaded shows itself there, and nothing else has to be asked.
Images are shown before their constructors run, so that breakpoints in them are hit, and
hidden before they are unmapped.

Debugger.lock is held over a whole change. Nobody's code runs under it, but at a breakpoint
a thread may stand in r_brk as long as the user likes, and then others wait with their next
change, as under the host's loader: so this is not Registry.lock. Debugger.lock is the innermost
but for the allocator's; the host's are taken before it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset

from dlopen.core.arch.machine cimport holds_breakpoint
from dlopen.core.base.allocator cimport copy_text, release
from dlopen.core.base.atomics cimport (
    compare_and_swap_pointer, load_pointer, load_u32, load_u64, store_pointer, store_u32, store_u64,
)
from dlopen.core.base.environment cimport environment_value
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free
from dlopen.core.base.kernel cimport (
    kernel_close, kernel_descriptors_folder, kernel_memory_file, kernel_open, kernel_write,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strcmp, strlen
from dlopen.core.elf.probes cimport find_probe
from dlopen.core.host.abi cimport HostDebug, HostInfo
from dlopen.core.host.functions cimport find_host_debug
from dlopen.core.host.host_lock cimport LM_ID_BASE, LM_ID_NEWLM, close_host, enter_host, leave_host
from dlopen.core.host.linker cimport Debugger, Linker
from dlopen.core.host.static_tls cimport give_to_host
from dlopen.core.image.image cimport Image, LinkMap
from dlopen.core.memory.file cimport File
from dlopen.core.memory.memory cimport is_memory_error, memory_release, memory_reserve_file
from dlopen.core.tls.donor cimport DonorFile, make_caller
cdef extern from "<link.h>" nogil:
    enum:
        RT_CONSISTENT, RT_ADD, RT_DELETE


cdef enum:                       # Debugger.wish
    WISH_NONE = 0                # what the debugger that is there needs
    WISH_FILES = 1               # files for images from bytes, for one that comes later
    WISH_LLDB = 2                # the same, and what lldb needs


cdef enum:
    PAGE_MOST = 0x10000          # of the machines that there are; mmap(2) takes its multiples


cdef inline void read_debugger_wish(Linker* linker) noexcept nogil:
    """DLOPEN_DEBUGGER of the environment: lldb, or anything but 0; once, at the start."""
    cdef const char* value = environment_value(
        &linker.process.environment, b"DLOPEN_DEBUGGER="
    )
    if value == NULL:
        return
    if strcmp(value, b"lldb") == 0:
        linker.debugger.wish = WISH_LLDB
    elif strcmp(value, b"0") != 0:
        linker.debugger.wish = WISH_FILES


cdef inline HostDebug* host_debug(Debugger* debugger) noexcept nogil:
    """NULL where the program has none. All threads find the same."""
    cdef HostDebug* found = <HostDebug*>load_pointer(&debugger.host)
    if found == NULL:
        found = find_host_debug()
        store_pointer(&debugger.host, found)
    return found


cdef inline bint probe_is_watched(Debugger* debugger) noexcept nogil:
    """Looked for once; all threads find the same. An emulator's breakpoint is in no memory: there
    it is enough that a debugger is wished for."""
    if not load_u32(&debugger.knows_probe):
        store_u64(&debugger.probe, find_host_probe(host_debug(debugger)))
        store_u32(&debugger.knows_probe, 1)
    return load_u64(&debugger.probe) != 0 and (
        debugger.wish != WISH_NONE
        or holds_breakpoint(<const void*>load_u64(&debugger.probe))
    )


cdef inline uint64_t find_host_probe(const HostDebug* host) noexcept nogil:
    """Where the host's loader has unmapped something; of its probes the one where gdb reads
    everything anew. 0 without probes."""
    cdef const LinkMap* map = host.r_map if host != NULL else NULL
    cdef long descriptor
    cdef uint64_t address
    while map != NULL and map.l_addr != host.r_ldbase:
        map = map.l_next
    if map == NULL:
        return 0
    descriptor = kernel_open(map.l_name)
    if descriptor < 0:
        return 0
    address = find_probe(descriptor, b"rtld", b"unmap_complete")
    kernel_close(descriptor)
    return map.l_addr + address if address != 0 else 0


# The list ---------------------------------------------------------------------------------


cdef inline bint join_chain(Linker* linker) noexcept nogil:
    """Under the lock; False where there is no chain. Ours is the second node. The
    host appends its own for dlmopen with a plain store under its lock; newer releases overwrite
    r_next without looking. Ours may be lost then, and is put back with the next change."""
    cdef Debugger* debugger = &linker.debugger
    cdef HostDebug* node = &debugger.node
    cdef HostDebug* host = host_debug(&linker.debugger)
    cdef HostDebug* next
    if host == NULL or host.r_brk == NULL or not linker.habits.has_debug_chain:
        return False
    if not is_in_chain(host, node):
        node.r_version = 2
        node.r_brk = host.r_brk
        node.r_ldbase = host.r_ldbase
        while True:
            next = <HostDebug*>load_pointer(&host.r_next)
            node.r_next = next
            if compare_and_swap_pointer(<void**>&host.r_next, next, node):
                break
        store_u32(<uint32_t*>&host.r_version, 2)
    return True


cdef inline bint is_in_chain(HostDebug* first, const HostDebug* node) noexcept nogil:
    """The chain that begins with `first` still leads to `node`: the host may have cut ours off."""
    while first != NULL and first != node:
        first = <HostDebug*>load_pointer(&first.r_next)
    return first == node


cdef inline void keep_place_in_chain(Linker* linker) noexcept nogil:
    """Where a debugger is there, or is to come, the host's second list is made now, before
    ours can be lost to it: for a namespace that goes at once. The list stays, for the next one."""
    cdef HostDebug* host = host_debug(&linker.debugger)
    cdef HostDebug* second
    cdef void* handle
    cdef DonorFile file
    cdef long problem = 0
    if not linker.habits.overwrites_chain or linker.host.dlmopen == NULL or host == NULL:
        return
    second = <HostDebug*>load_pointer(&host.r_next)
    if second == &linker.debugger.node:
        second = <HostDebug*>load_pointer(&second.r_next)
    if second != NULL or not needs_files(&linker.debugger):
        return
    make_caller(&file, NULL)
    handle = give_to_host(linker, LM_ID_NEWLM, &file, sizeof(file), &problem)
    if handle != NULL:
        close_host(linker, handle)


cdef inline bint is_shown(const Debugger* debugger, const LinkMap* map) noexcept nogil:
    """It is in our list: it has a neighbour, or is the first."""
    return map.l_prev != NULL or debugger.node.r_map == map


cdef inline void link_map_in(Debugger* debugger, LinkMap* map) noexcept nogil:
    """At the end of our list. Under the lock; a debugger may read the list at any moment."""
    map.l_prev = debugger.last
    store_pointer(
        &debugger.node.r_map if debugger.last == NULL else &debugger.last.l_next, map
    )
    debugger.last = map


cdef inline void link_map_out(Debugger* debugger, LinkMap* map) noexcept nogil:
    """Out of our list. Under the lock."""
    if map.l_prev != NULL:
        map.l_prev.l_next = map.l_next
    else:
        debugger.node.r_map = map.l_next
    if map.l_next != NULL:
        map.l_next.l_prev = map.l_prev
    else:
        debugger.last = map.l_prev
    map.l_next = NULL
    map.l_prev = NULL


cdef inline void announce(HostDebug* debug, int state) noexcept nogil:
    """Says RT_ADD, RT_DELETE or RT_CONSISTENT where debuggers have their breakpoint."""
    debug.r_state = state
    debug.r_brk()


cdef inline void change_list(
    Debugger* debugger, const Pointers* images, int state
) noexcept nogil:
    """Under the lock. What was never shown cannot be hidden."""
    cdef size_t i
    cdef LinkMap* map
    for i in range(images.count):
        map = &(<Image*>images.items[i]).link_map
        if state == RT_ADD:
            link_map_in(debugger, map)
        elif is_shown(debugger, map):
            link_map_out(debugger, map)


cdef inline void tell(Linker* linker, const Pointers* images, int state) noexcept nogil:
    """Debuggers hear that `images` come (RT_ADD) or go (RT_DELETE). With no lock held."""
    cdef Debugger* debugger = &linker.debugger
    cdef bint has_joined
    if not linker.habits.fits_link_maps:
        return
    if debugger.wish == WISH_LLDB and tell_lldb(linker, images, state):
        return
    keep_place_in_chain(linker)
    lock_acquire(&debugger.lock)
    has_joined = join_chain(linker)
    if has_joined:
        announce(&debugger.node, state)
        change_list(debugger, images, state)
        announce(&debugger.node, RT_CONSISTENT)
    lock_release(&debugger.lock)
    if has_joined and probe_is_watched(&linker.debugger):
        pass_probes(linker)


cdef inline void pass_probes(Linker* linker) noexcept nogil:
    """Where the host's loader has probes, gdb has its breakpoints there and not at r_brk:
    the host is given something to load and to unload."""
    cdef void* handle
    cdef DonorFile file
    cdef long problem = 0
    make_caller(&file, NULL)
    enter_host(&linker.host_use)
    handle = give_to_host(linker, LM_ID_BASE, &file, sizeof(file), &problem)
    if handle != NULL:
        close_host(linker, handle)
    leave_host(&linker.host_use)


cdef inline void show_to_debugger(Linker* linker, const Pointers* images) noexcept nogil:
    """New images, once nothing can fail any more, before their constructors run. With no
    lock held."""
    tell(linker, images, RT_ADD)


cdef inline void hide_from_debugger(Linker* linker, const Pointers* images) noexcept nogil:
    """Images that are to be unmapped; some may never have been shown. With no lock held."""
    if images.count != 0:
        tell(linker, images, RT_DELETE)


# lldb ---------------------------------------------------------------------------------------
#
# It knows no chain: it compares the host's own list, at a call of r_brk with RT_CONSISTENT,
# with what it had seen. So our list hangs at the end of the host's for the length of that
# one call (and is in no chain: gdb would find it twice). Nobody else may
# walk the host's list meanwhile, or add to it. Two locks of the host's guard it: dlopen's,
# which is held while constructors run, so the host is given a library whose constructor is
# ours; and that of dl_iterate_phdr, held in its callback.
#
# When the host unloads something, lldb drops what it misses then: all of ours. So that
# library stays until the next change, which shows all that is left anew.


cdef extern from *:
    """
    /* What this thread is telling lldb: constructors have no argument to say it. */
    static __thread void *dlopen_debugger_errand;
    """
    void* current_errand "dlopen_debugger_errand"


cdef struct Errand:
    Linker* linker
    const Pointers* images
    int state
    bint done


cdef inline bint tell_lldb(Linker* linker, const Pointers* images, int state) noexcept nogil:
    """False when the host did not take the library."""
    cdef Debugger* debugger = &linker.debugger
    cdef Errand errand
    cdef DonorFile file
    cdef long problem = 0
    cdef Pointers old
    cdef void* handle
    cdef size_t i
    if host_debug(&linker.debugger) == NULL:
        return False
    lock_acquire(&debugger.lock)
    old = debugger.open_callers
    memset(&debugger.open_callers, 0, sizeof(Pointers))
    lock_release(&debugger.lock)
    enter_host(&linker.host_use)
    for i in range(old.count):
        close_host(linker, old.items[i])
    pointers_free(&old)
    errand.linker = linker
    errand.images = images
    errand.state = state
    errand.done = False
    (&current_errand)[0] = &errand
    make_caller(&file, <void*>run_errand)
    handle = give_to_host(linker, LM_ID_BASE, &file, sizeof(file), &problem)
    (&current_errand)[0] = NULL
    leave_host(&linker.host_use)
    lock_acquire(&debugger.lock)
    if handle != NULL:
        # Without memory it stays for ever: a leak.
        pointers_add(&debugger.open_callers, handle)
    lock_release(&debugger.lock)
    return errand.done


cdef inline void run_errand() noexcept nogil:
    """The library's constructor."""
    cdef Errand* errand = <Errand*>current_errand
    errand.linker.host.dl_iterate_phdr(change_hosts_list, errand)


cdef inline int change_hosts_list(HostInfo* info, size_t size, void* data) noexcept nogil:
    """In a callback of dl_iterate_phdr, once: our list hangs at the host's for one call of
    r_brk."""
    cdef Errand* errand = <Errand*>data
    cdef Debugger* debugger = &errand.linker.debugger
    cdef HostDebug* host = debugger.host
    cdef LinkMap* last = host.r_map
    lock_acquire(&debugger.lock)
    announce(host, RT_ADD)
    change_list(debugger, errand.images, errand.state)
    while last.l_next != NULL:
        last = last.l_next
    last.l_next = debugger.node.r_map
    if last.l_next != NULL:
        last.l_next.l_prev = last
    announce(host, RT_CONSISTENT)
    if last.l_next != NULL:
        last.l_next.l_prev = NULL
    last.l_next = NULL
    lock_release(&debugger.lock)
    errand.done = True
    return 1


# Images from bytes --------------------------------------------------------------------------


cdef inline bint needs_files(Debugger* debugger) noexcept nogil:
    """A debugger is there, or is to come."""
    cdef const HostDebug* host = host_debug(debugger)
    return debugger.wish != WISH_NONE or (
        host != NULL and host.r_brk != NULL and holds_breakpoint(<const void*>host.r_brk)
    ) or probe_is_watched(debugger)


cdef inline bint write_content(const File* file, long descriptor) noexcept nogil:
    """All of it, into another file."""
    cdef uint64_t before = file.identity.offset & (PAGE_MOST - 1)
    cdef long result
    cdef long written
    if file.bytes != NULL:
        return kernel_write(descriptor, file.bytes, file.size) == 0
    result = memory_reserve_file(
        before + file.size, file.descriptor, file.identity.offset - before
    )
    if is_memory_error(result):
        return False
    written = kernel_write(descriptor, <const char*><uint64_t>result + before, file.size)
    memory_release(<uint64_t>result, before + file.size)
    return written == 0


cdef inline void keep_file_for_debugger(
    Debugger* debugger, Image* image, const File* file
) noexcept nogil:
    """A debugger reads debugging information from a file, which a new image from bytes has
    not, and from no member of one: a copy in memory, whose descriptor and pages are held as long as
    the image. So only where a debugger is there, or is to come. Without it the name stays as it was
    given."""
    cdef char path[64]           # DESCRIPTORS_SIZE and a number
    cdef size_t length
    cdef char* copy
    cdef long descriptor
    if not needs_files(debugger):
        return
    descriptor = kernel_memory_file(b"dlopen-image")
    if descriptor < 0:
        return
    length = kernel_descriptors_folder(&path[0])
    snprintf(&path[length], sizeof(path) - length, b"%ld", descriptor)
    copy = copy_text(&path[0], strlen(&path[0]))
    if copy == NULL or not write_content(file, descriptor) \
            or not pointers_add(&image.host.copied, copy):
        release(copy)
        kernel_close(descriptor)
        return
    image.link_map.l_name = copy
    image.kept_file = descriptor + 1
