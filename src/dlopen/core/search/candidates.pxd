"""One folder, and one file in it: is it there, and is it for this machine?

In every folder the glibc-hwcaps subfolders come first, and where libc does so the older ones.
That a folder is not there is remembered; but one whose path leads through a file may be in an
archive, and each file of it is asked for.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport runs_here
from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport (
    add_u32, compare_and_swap_pointer, load_pointer, load_u32, store_u32,
)
from dlopen.core.base.contract cimport DLOPEN_REJECTED_FILES, DLOPEN_REJECTED_MACHINE
from dlopen.core.base.growable cimport Text, text_add, text_add_bytes, text_cut, text_free
from dlopen.core.base.kernel cimport (
    ENOENT, ENOTDIR, FileStatus, is_directory, is_shortage, kernel_status,
)
from dlopen.core.base.strings cimport memcmp, strcmp, strlen
from dlopen.core.elf.constants cimport EI_CLASS, ELFCLASS64
from dlopen.core.elf.hash cimport gnu_hash
from dlopen.core.elf.structures cimport Ehdr
from dlopen.core.host.linker cimport (
    FOLDER_BUCKETS, FOLDER_EXISTS, FOLDER_IN_FILE, FOLDER_MISSING, FOLDER_UNKNOWN, MAX_FOLDERS,
    Folder, Linker, Search, SearchSettings,
)
from dlopen.core.image.image cimport Image
from dlopen.core.memory.file cimport (
    File, Files, add_path_of, file_close, file_from_files, file_init, make_plain,
)
from dlopen.core.search.archives cimport has_archives, open_at
from dlopen.core.search.trail cimport Trail, trail_add, trail_holds
from dlopen.core.symbols.report cimport report_candidate


cdef inline bint is_for_this_machine(const File* file) noexcept nogil:
    """Or no ELF file."""
    cdef const Ehdr* header = <const Ehdr*>&file.start[0]
    return file.start_size < sizeof(Ehdr) or memcmp(header.e_ident, b"\x7fELF", 4) != 0 \
        or (header.e_ident[EI_CLASS] == ELFCLASS64 and runs_here(header))


cdef inline int probe_file(Linker* linker, Text* path, File* file) noexcept nogil:
    """0 and the open file: one that the search ends at (whether it can be loaded shows
    later); else a positive errno, or DLOPEN_REJECTED_MACHINE for another class or machine. With
    `linker`, which may be NULL, it may be in an archive."""
    cdef long result = open_at(linker, path, file)
    if result < 0:
        return <int>-result
    if not is_for_this_machine(file):
        file_close(file)
        return DLOPEN_REJECTED_MACHINE
    return 0


cdef inline Folder* find_folder(Folder* folder, const char* path) noexcept nogil:
    """In a chain; NULL: it is not there. What is there stays."""
    while folder != NULL and strcmp(folder.path, path) != 0:
        folder = folder.next
    return folder


cdef inline Folder* known_folder(Linker* linker, const char* path) noexcept nogil:
    """What is known of an absolute folder; NULL for a relative one, which another working
    directory makes another folder (glibc's rule), and when there are too many."""
    cdef Search* search = &linker.search
    cdef Folder** bucket
    cdef Folder* first
    cdef Folder* folder
    cdef Folder* new
    if path == NULL or path[0] != 0x2f:
        return NULL
    bucket = &search.folders[gnu_hash(path) % FOLDER_BUCKETS]
    first = <Folder*>load_pointer(bucket)
    folder = find_folder(first, path)
    if folder != NULL or load_u32(&search.folder_count) >= MAX_FOLDERS:
        return folder
    new = <Folder*>allocate(sizeof(Folder) + strlen(path) + 1)
    if new == NULL:
        return NULL
    memcpy(new.path, path, strlen(path) + 1)
    new.next = first
    while not compare_and_swap_pointer(<void**>bucket, new.next, new):
        new.next = <Folder*>load_pointer(bucket)
        folder = find_folder(new.next, path)
        if folder != NULL:       # another thread's
            release(new)
            return folder
    add_u32(&search.folder_count, 1)
    return new


cdef inline int folder_problem(Folder* folder, size_t subfolder, const char* path) noexcept nogil:
    """0 if it is there, else a positive errno: ENOTDIR if it may be in an archive. As glibc it is
    looked for once: what is made later is not found. But where it could not be looked for, nothing
    is known, which glibc takes for an answer."""
    cdef FileStatus status
    cdef uint32_t state
    cdef long result
    if folder == NULL:
        return 0
    state = load_u32(&folder.states[subfolder])
    if state == FOLDER_UNKNOWN:
        result = kernel_status(path, &status)
        if result < 0 and result != -ENOENT and result != -ENOTDIR:
            return <int>-result
        if result == 0 and is_directory(status.st_mode):
            state = FOLDER_EXISTS
        else:
            state = FOLDER_IN_FILE if result == -ENOTDIR else FOLDER_MISSING
        store_u32(&folder.states[subfolder], state)
    if state == FOLDER_EXISTS:
        return 0
    return ENOTDIR if state == FOLDER_IN_FILE else ENOENT


cdef struct Walk:                # over the folders of a search
    const SearchSettings* settings
    Linker* linker               # which remembers folders; NULL: they are listed only
    bint (*visit)(void* walk) noexcept nogil     # True ends it
    const char* origin           # the rule that names this folder: "RPATH" …
    const char* list             # the path list that it stands in
    Text* folder                 # ends with a slash; the visitor may append to it
    const char* name             # what is searched for; NULL: the folders are listed only
    const char* own_path         # of the namespace; NULL: none
    Trail* trail
    File* file
    Files* files                 # NULL: there are none
    bint in_files_only           # this folder is one of theirs
    bint ended                   # given up: there is no memory or descriptor to look further
    void* listing


cdef inline bint try_files(
    Files* files, const char* name, Text* path, Trail* trail, File* file
) noexcept nogil:
    """Whether the search for `name` ends among the caller's files: with `file`, and its plain
    path in `path`, or with Files.stopped. None is asked for twice in one search."""
    cdef Text plain
    cdef int result = DLOPEN_REJECTED_FILES
    memset(&plain, 0, sizeof(plain))
    if not path.failed:
        text_add_bytes(&plain, path.data, path.length)
    if path.failed or plain.failed:
        path.failed = True       # so that the search does not go on to the file system
        text_free(&plain)
        return False
    make_plain(plain.data)
    if not trail_holds(trail, plain.data):
        if file_from_files(file, files, plain.data):
            result = 0 if files.of_any_machine or is_for_this_machine(file) \
                else DLOPEN_REJECTED_MACHINE
        report_candidate(name, plain.data, b"files", result)
        trail_add(trail, plain.data, b"files", result, file)
    if result == 0:
        text_cut(path, 0)
        add_path_of(path, &file.member, plain.data)
    else:
        file_close(file)
        file_init(file)
    text_free(&plain)
    return result == 0 or files.stopped


cdef inline bint try_folder_in_files(void* data) noexcept nogil:
    """Walk.visit of a search among the caller's files alone."""
    cdef Walk* walk = <Walk*>data
    cdef size_t length = walk.folder.length
    text_add(walk.folder, walk.name)
    if try_files(walk.files, walk.name, walk.folder, walk.trail, walk.file):
        return True
    if walk.folder.failed:
        return end_walk(walk)
    text_cut(walk.folder, length)
    return False


cdef inline bint end_walk(Walk* walk) noexcept nogil:
    """What comes later in the search shall not be taken in place of what could not be looked at."""
    walk.ended = True
    return True


cdef inline bint try_folder(void* data) noexcept nogil:
    """Walk.visit of a search: at its end `folder` is the file's path."""
    cdef Walk* walk = <Walk*>data
    cdef Text* path = walk.folder
    cdef Folder* folder = known_folder(walk.linker, path.data)
    cdef size_t length = path.length
    cdef size_t i
    cdef const char* subfolder = walk.settings.subfolders.data
    cdef bint in_file
    cdef int result
    if path.failed:
        return end_walk(walk)
    if walk.files != NULL and try_folder_in_files(data):
        return True
    if walk.in_files_only:
        return False
    for i in range(walk.settings.subfolder_count):
        text_cut(path, length)
        text_add(path, subfolder)
        if path.failed:
            return end_walk(walk)
        result = folder_problem(folder, i, path.data)
        if result == 0 or subfolder[0] == 0 or is_shortage(-result):
            text_add(path, walk.name)
            if path.failed:
                return end_walk(walk)
            # The file may be there all the same, if its folder could not be looked for.
            in_file = result == ENOTDIR
            if result != ENOENT and (not in_file or has_archives(walk.linker)):
                result = probe_file(walk.linker if subfolder[0] == 0 else NULL, path, walk.file)
            if in_file and result == ENOTDIR:
                result = ENOENT
            report_candidate(walk.name, path.data, walk.origin, result)
            if result == 0 or subfolder[0] == 0 or result != ENOENT:
                trail_add(walk.trail, path.data, walk.origin, result, walk.file)
            if result == 0:
                return True
            if is_shortage(-result):
                return end_walk(walk)
        subfolder += strlen(subfolder) + 1
    return False


cdef inline bint is_path_in_files(const Image* image, const char* path) noexcept nogil:
    """`path`, which `image` names, is no path of the file system."""
    return image.is_from_files and path != NULL and path[0] != 0x2f
