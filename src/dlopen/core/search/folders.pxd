"""Lists of folders as dlinfo(3) hands them out (RTLD_DI_SERINFO): its structs, and what of such a
list of the host's is the program's own."""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.growable cimport Text, text_add_bytes, text_cut, text_free
from dlopen.core.base.strings cimport strcmp, strlen, strncmp
from dlopen.core.host.linker cimport SearchSettings
from dlopen.core.image.image cimport Image
from dlopen.core.search.candidates cimport Walk
from dlopen.core.search.walk cimport walk_list


cdef extern from "<dlfcn.h>" nogil:
    ctypedef struct Dl_serpath:
        char* dls_name
        unsigned int dls_flags
    ctypedef struct Dl_serinfo:
        size_t dls_size
        unsigned int dls_cnt
        Dl_serpath* dls_serpath


cdef struct Listing:
    Dl_serinfo* info
    bint only_counts             # RTLD_DI_SERINFOSIZE
    Dl_serpath* path             # the next one
    char* text                   # where its name goes
    const char* list             # the path list that the folders of `seen` are of
    Text seen                    # strings one after another


cdef inline bint is_new_in_list(Walk* walk, Listing* listing) noexcept nogil:
    """A folder counts once in each list."""
    cdef size_t i = 0
    if listing.list != walk.list:
        listing.list = walk.list
        text_cut(&listing.seen, 0)
    while i < listing.seen.length:
        if strcmp(listing.seen.data + i, walk.folder.data) == 0:
            return False
        i += strlen(listing.seen.data + i) + 1
    text_add_bytes(&listing.seen, walk.folder.data, walk.folder.length + 1)
    return not listing.seen.failed       # or it might be listed twice, where there is no room


cdef inline bint see_folder(void* data) noexcept nogil:
    """Walk.visit that only notes what is there."""
    is_new_in_list(<Walk*>data, <Listing*>(<Walk*>data).listing)
    return False


cdef inline size_t count_own_folders(
    const SearchSettings* settings, const Image* program,
    const Dl_serpath* paths, size_t count, bint* complete
) noexcept nogil:
    """How many of `paths`, the first or (of RUNPATH) the last ones, are of the program's own list:
    all of that, or none if the host has dropped it, because no folder of it was there. Without
    memory *complete becomes False."""
    cdef Listing listing
    cdef Walk walk
    cdef Text folder
    cdef size_t own = 0
    cdef size_t i = 0
    cdef size_t length
    cdef const char* list = program.tables.runpath
    memset(&listing, 0, sizeof(listing))
    memset(&walk, 0, sizeof(walk))
    memset(&folder, 0, sizeof(folder))
    if list == NULL:
        list = program.tables.rpath
    walk.settings = settings
    walk.visit = see_folder
    walk.folder = &folder
    walk.listing = &listing
    walk_list(&walk, program, list, b":", b"")
    if walk.ended or folder.failed or listing.seen.failed:
        complete[0] = False
    while i < listing.seen.length:
        own += 1
        i += strlen(listing.seen.data + i) + 1
    if own <= count and program.tables.runpath != NULL:
        paths += count - own
    i = 0
    while own <= count and i < listing.seen.length:
        length = strlen(listing.seen.data + i)
        # Each has a slash at its end, where the host has it at the root's only.
        if strncmp(paths.dls_name, listing.seen.data + i, length - 1 if length > 1 else 1) != 0 \
                or paths.dls_name[length - 1 if length > 1 else 1] != 0:
            own = count + 1
        paths += 1
        i += length + 1
    text_free(&folder)
    text_free(&listing.seen)
    return own if own <= count else 0
