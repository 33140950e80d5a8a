"""The folders that an image's needed libraries are looked for in, as dlinfo(3) tells them for one
of ours (RTLD_DI_SERINFO): the walk of a search, with no file opened."""

from libc.stddef cimport size_t
from libc.string cimport memcpy, memset

from dlopen.core.base.growable cimport Text, text_free
from dlopen.core.host.linker cimport Linker, Namespace
from dlopen.core.host.namespaces cimport namespace_of_image
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.search.candidates cimport Walk, end_walk
from dlopen.core.search.folders cimport Dl_serinfo, Dl_serpath, Listing, is_new_in_list
from dlopen.core.search.settings cimport prepare_search
from dlopen.core.search.walk cimport walk_default_folders, walk_lists


cdef inline bint list_folder(void* data) noexcept nogil:
    """Walk.visit of a listing. No folder but the root is named with its slash."""
    cdef Walk* walk = <Walk*>data
    cdef Listing* listing = <Listing*>walk.listing
    cdef size_t length = walk.folder.length
    if walk.folder.failed or listing.seen.failed:
        return end_walk(walk)
    if walk.folder.data == NULL or not is_new_in_list(walk, listing):
        return False
    if length > 1:
        length -= 1
    if listing.only_counts:
        listing.info.dls_cnt += 1
        listing.info.dls_size += sizeof(Dl_serpath) + length + 1
        return False
    listing.path.dls_name = listing.text
    listing.path.dls_flags = 0
    listing.path += 1
    memcpy(listing.text, walk.folder.data, length)
    listing.text[length] = 0
    listing.text += length + 1
    return False


cdef inline bint list_folders(
    Linker* linker, const Snapshot* snapshot, const Image* asker, bint only_counts,
    Dl_serinfo* info
) noexcept nogil:
    """RTLD_DI_SERINFO, whose caller has made room as RTLD_DI_SERINFOSIZE said. False without
    memory."""
    cdef Listing listing
    cdef Walk walk
    cdef Text folder
    cdef bint complete
    cdef const Namespace* space = namespace_of_image(linker, asker)
    if not prepare_search(linker, snapshot):
        return False
    memset(&listing, 0, sizeof(listing))
    memset(&walk, 0, sizeof(walk))
    memset(&folder, 0, sizeof(folder))
    listing.info = info
    listing.only_counts = only_counts
    listing.path = <Dl_serpath*>&info.dls_serpath
    if only_counts:
        info.dls_cnt = 0
        info.dls_size = <size_t>(<char*>listing.path - <char*>info)
    listing.text = <char*>(listing.path + info.dls_cnt)
    walk.settings = &linker.search.settings
    walk.visit = list_folder
    walk.folder = &folder
    walk.listing = &listing
    walk.own_path = space.search_path if space != NULL else NULL
    if not walk_lists(&walk, snapshot.hosts[0] if snapshot.host_count else NULL, asker):
        walk_default_folders(&walk, asker)
    complete = not (walk.ended or folder.failed or listing.seen.failed)
    text_free(&folder)
    text_free(&listing.seen)
    return complete
