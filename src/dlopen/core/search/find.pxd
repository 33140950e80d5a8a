"""Where a name comes from: the search of ld.so(8), in the order of this glibc. The lists stand in
this order in `walk_lists` (search/walk.pxd).

RPATH of the asking image and of those that brought it in (not if it has RUNPATH), then the
program's; LD_LIBRARY_PATH; RUNPATH of the asking image; /etc/ld.so.cache; the default folders. In
every folder the glibc-hwcaps subfolders come first, and where libc does so the older ones.
A namespace's own path comes before what the process has: the program's RPATH.

Where the caller has files of its own, each path that is formed so is first asked of them, but
for those subfolders: one question a folder. Between RPATH and LD_LIBRARY_PATH they are asked
for what RUNPATH names, and for the name as it is: what somebody hands over with a library goes
before the environment. A relative folder in the lists of an image from such files is a folder
of theirs, not of the working directory.
"""

from libc.string cimport memset

from dlopen.core.base.growable cimport Text, text_add, text_cut
from dlopen.core.base.kernel cimport is_shortage
from dlopen.core.base.strings cimport strchr, strlen
from dlopen.core.elf.constants cimport DF_1_NODEFLIB
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.memory.file cimport File, Files, has_files
from dlopen.core.search.cache cimport CacheUse, in_default_folder, try_cache
from dlopen.core.search.candidates cimport Walk, is_path_in_files, probe_file, try_files, try_folder
from dlopen.core.search.settings cimport prepare_search
from dlopen.core.search.tokens cimport expand
from dlopen.core.search.trail cimport Trail, trail_add
from dlopen.core.search.walk cimport walk_default_folders, walk_lists
from dlopen.core.symbols.report cimport report_candidate


cdef inline bint find_file(
    Linker* linker, const Snapshot* snapshot, const char* name, const Image* asker,
    const char* own_path, Text* path, Trail* trail, CacheUse* cache, File* file, Files* files
) noexcept nogil:
    """The path that `name` means when `asker` needs it, in a namespace that has `own_path` or
    NULL; False when there is none. `file`, which is new (file_init), comes back open if the
    path was searched for, or with the bytes of one of `files`, which may be NULL; True with
    Files.stopped ends the open. Without memory path.failed is set; where the process lacks what
    it takes to look into a folder, the search ends there, and the trail says why. The trail, if
    not NULL, gets every candidate."""
    cdef const Image* program = snapshot.hosts[0] if snapshot.host_count else NULL
    cdef Walk walk
    cdef long result
    cdef bint in_cache = False
    if files != NULL and not has_files(files):
        files = NULL
    if strchr(name, 0x2f) != NULL and strchr(name, 0x24) == NULL:
        text_cut(path, 0)
        text_add(path, name)
        if files != NULL:
            try_files(files, name, path, trail, file)
        return True
    # It asks the host's loader, whose lock another thread's constructor may hold.
    if not prepare_search(linker, snapshot):
        path.failed = True
        return False
    if asker == NULL:
        asker = program
    if strchr(name, 0x2f) != NULL:
        text_cut(path, 0)
        return expand(&linker.search.settings, asker, name, strlen(name), path) and (
            files != NULL and try_files(files, name, path, trail, file)
            or asker == NULL or not is_path_in_files(asker, path.data)
        )
    memset(&walk, 0, sizeof(walk))
    walk.settings = &linker.search.settings
    walk.linker = linker
    walk.visit = try_folder
    walk.folder = path
    walk.name = name
    walk.own_path = own_path
    walk.trail = trail
    walk.file = file
    walk.files = files
    if walk_lists(&walk, program, asker):
        return not walk.ended
    result = try_cache(linker, cache, name, path, &in_cache)
    if is_shortage(result):
        trail_add(trail, b"/etc/ld.so.cache", b"ld.so.cache", <int>-result, file)
        return False
    if path.failed:
        return False
    if in_cache and not (
        asker != NULL and asker.tables.flags_1 & DF_1_NODEFLIB
        and in_default_folder(&linker.search.settings, path.data)
    ):
        if files != NULL and try_files(files, name, path, trail, file):
            return True
        if path.failed:
            return False
        result = probe_file(linker, path, file)
        report_candidate(name, path.data, b"ld.so.cache", <int>result)
        trail_add(trail, path.data, b"ld.so.cache", <int>result, file)
        if result == 0 or is_shortage(-result):
            return result == 0
    return walk_default_folders(&walk, asker) and not walk.ended
