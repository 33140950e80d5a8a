"""Archives of the process: who knows them is asked for a path that leads through a file.

The kernel says so (ENOTDIR of path_resolution(7)), and such a path names nothing else. So the
question costs nothing where there are no archives, and a path in one is searched for, opened and
found again as any other.

Who is asked is foreign code, which may be Python: no lock is held meanwhile. An asking is written
down, so that who takes the function away can wait for it.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_pointer, load_u32, store_pointer, store_u32
from dlopen.core.base.contract cimport LocateMember
from dlopen.core.base.growable cimport Text, text_add, text_cut, text_free
from dlopen.core.base.kernel cimport ENOMEM, ENOTDIR, kernel_open, kernel_wait, kernel_wake
from dlopen.core.base.lock cimport is_forking, lock_acquire, lock_release
from dlopen.core.base.paths cimport add_working_directory
from dlopen.core.base.strings cimport strlen
from dlopen.core.host.linker cimport Archives, Asking, Linker
from dlopen.core.image.registry cimport this_thread
from dlopen.core.memory.file cimport (
    File, add_path_of, file_from_locating, file_read_start, make_plain,
)


cdef inline bint has_archives(const Linker* linker) noexcept nogil:
    return load_pointer(<void**>&linker.search.archives.locate) != NULL


cdef inline LocateMember* begin_asking(Linker* linker, Asking* asking) noexcept nogil:
    """Whom to ask; NULL: nobody, and nothing has begun."""
    cdef Archives* archives = &linker.search.archives
    cdef LocateMember* locate
    lock_acquire(&linker.registry.lock)
    locate = archives.locate
    if locate != NULL:
        asking.thread = this_thread()
        asking.age = archives.age
        asking.data = archives.data
        asking.next = archives.askings
        archives.askings = asking
    lock_release(&linker.registry.lock)
    return locate


cdef inline void end_asking(Linker* linker, Asking* asking) noexcept nogil:
    cdef Archives* archives = &linker.search.archives
    cdef Asking** link = &archives.askings
    cdef bint is_awaited
    lock_acquire(&linker.registry.lock)
    while link[0] != asking:
        link = &link[0].next
    link[0] = asking.next
    is_awaited = archives.waiting != 0
    store_u32(&archives.ended, archives.ended + 1)
    lock_release(&linker.registry.lock)
    if is_awaited:
        kernel_wake(&archives.ended, 0x7fffffff)


cdef inline bint is_asking(const Archives* archives, uint64_t thread, uint32_t age) noexcept nogil:
    """Under the lock: another thread than this one asks what was set before `age`; but not if this
    one does, too, as it might be waited for itself."""
    cdef const Asking* asking = archives.askings
    cdef bint found = False
    while asking != NULL:
        if asking.thread == thread:
            return False
        found = found or asking.age != age
        asking = asking.next
    return found


cdef inline void set_archives(Linker* linker, LocateMember* locate, void* data) noexcept nogil:
    """DLOPEN_set_archives."""
    cdef Archives* archives = &linker.search.archives
    cdef uint32_t age, ended
    lock_acquire(&linker.registry.lock)
    store_pointer(<void**>&archives.locate, <void*>locate)
    archives.data = data
    archives.age += 1
    age = archives.age
    archives.waiting += 1
    while not is_forking() and is_asking(archives, this_thread(), age):
        ended = load_u32(&archives.ended)
        lock_release(&linker.registry.lock)
        kernel_wait(&archives.ended, ended)
        lock_acquire(&linker.registry.lock)
    archives.waiting -= 1
    lock_release(&linker.registry.lock)


cdef inline void forget_other_askings(Linker* linker) noexcept nogil:
    """In a forked child, where nobody else asks or waits."""
    cdef Asking** link = &linker.search.archives.askings
    while link[0] != NULL:
        if link[0].thread == this_thread():
            link = &link[0].next
        else:
            link[0] = link[0].next
    linker.search.archives.waiting = 0


cdef inline bint make_absolute(Text* text, const char* path) noexcept nogil:
    """And plain. False where the working directory is not known, or without memory."""
    if path[0] != 0x2f:
        if not add_working_directory(text):
            return False
        text_add(text, b"/")
    text_add(text, path)
    if text.failed:
        return False
    make_plain(text.data)
    text_cut(text, strlen(text.data))
    return True


cdef inline long ask_archives(Linker* linker, Text* path, File* file) noexcept nogil:
    """0 and the member that the path means, with its plain path; -ENOTDIR: there is none. 0 also
    if the open is to end, which `fail_for_member` finds."""
    cdef Asking asking
    cdef LocateMember* locate
    cdef Text plain
    cdef long result = -ENOTDIR
    cdef bint found = False
    if not has_archives(linker):
        return -ENOTDIR
    memset(&plain, 0, sizeof(plain))
    locate = begin_asking(linker, &asking) if make_absolute(&plain, path.data) else NULL
    if locate != NULL:
        found = file_from_locating(file, locate, plain.data, asking.data)
        end_asking(linker, &asking)
    if found:
        text_cut(path, 0)
        add_path_of(path, &file.member, plain.data)
    if plain.failed:
        result = -ENOMEM
    text_free(&plain)
    return 0 if found else result


cdef inline long open_at(Linker* linker, Text* path, File* file) noexcept nogil:
    """0 and the file at a path, its start read, or a member of an archive as `ask_archives` (not
    without `linker`, which may be NULL); else a negative errno."""
    cdef long descriptor = kernel_open(path.data)
    if descriptor == -ENOTDIR and linker != NULL:
        return ask_archives(linker, path, file)
    if descriptor < 0:
        return descriptor
    file.descriptor = descriptor
    file_read_start(file)
    return 0
