"""Lists of folders, one after another, until one has the file; why in this order, search/find.pxd
says. A new one is a line of `walk_lists`, and a field of SearchSettings if the process gives it."""

from libc.stddef cimport size_t

from dlopen.core.base.atomics cimport load_pointer
from dlopen.core.base.growable cimport Text, text_add, text_cut
from dlopen.core.base.strings cimport strlen
from dlopen.core.elf.constants cimport DF_1_NODEFLIB
from dlopen.core.image.image cimport Image
from dlopen.core.search.candidates cimport (
    Walk, end_walk, is_path_in_files, try_folder, try_folder_in_files,
)
from dlopen.core.search.tokens cimport element_length, expand
from dlopen.core.symbols.report cimport report_search


cdef inline bint walk_list(
    Walk* walk, const Image* image, const char* list, const char* separators, const char* origin
) noexcept nogil:
    """Each folder of a path list of `image`."""
    cdef Text* folder = walk.folder
    cdef size_t length
    if list == NULL or list[0] == 0:
        return False
    if walk.name != NULL:
        report_search(walk.name, origin, image, list)
    walk.origin = origin
    walk.list = list
    while True:
        length = element_length(list, separators)
        text_cut(folder, 0)
        if expand(walk.settings, image, list, length, folder) and not folder.failed:
            while folder.length > 1 and folder.data[folder.length - 1] == 0x2f:
                text_cut(folder, folder.length - 1)
            if folder.length == 0:
                text_add(folder, b"./")   # an empty element: the working directory
            elif folder.data[folder.length - 1] != 0x2f:
                text_add(folder, b"/")
            walk.in_files_only = image != NULL and is_path_in_files(image, folder.data)
            if walk.visit(walk):
                return True
        if folder.failed:
            return end_walk(walk)
        if list[length] == 0:
            return False
        list += length + 1


cdef inline bint walk_rpaths(
    Walk* walk, const Image* program, const Image* asker
) noexcept nogil:
    """And, before the program's, the namespace's own path."""
    cdef const Image* image = asker
    cdef bint did_program = False
    cdef bint use_rpaths = asker == NULL or asker.tables.runpath == NULL
    while use_rpaths and image != NULL and (walk.own_path == NULL or image != program):
        if image == program:
            did_program = True
        if image.tables.runpath == NULL \
                and walk_list(walk, image, image.tables.rpath, b":", b"RPATH"):
            return True
        image = <const Image*>load_pointer(&image.life.loader)
    if walk_list(walk, program, walk.own_path, b":", b"the namespace's path"):
        return True
    return use_rpaths and not did_program and program != NULL and program.tables.runpath == NULL \
        and walk_list(walk, program, program.tables.rpath, b":", b"RPATH")


cdef inline bint walk_files(Walk* walk, const Image* asker) noexcept nogil:
    """What is asked of the caller's files only: RUNPATH before its turn, and the name itself."""
    cdef bint found
    if walk.files == NULL:
        return False
    walk.visit = try_folder_in_files
    found = asker != NULL and walk_list(walk, asker, asker.tables.runpath, b":", b"RUNPATH")
    walk.visit = try_folder
    if not found:
        text_cut(walk.folder, 0)
        found = try_folder_in_files(walk)
    return found


cdef inline bint walk_lists(
    Walk* walk, const Image* program, const Image* asker
) noexcept nogil:
    """What comes before ld.so.cache."""
    return walk_rpaths(walk, program, asker) or walk_files(walk, asker) or walk_list(
        walk, program, walk.settings.library_path.data, b":;", b"LD_LIBRARY_PATH"
    ) or (asker != NULL and walk_list(walk, asker, asker.tables.runpath, b":", b"RUNPATH"))


cdef inline bint walk_default_folders(Walk* walk, const Image* asker) noexcept nogil:
    """What comes after it."""
    cdef const char* folder = walk.settings.default_folders.data
    cdef size_t _i
    if asker != NULL and asker.tables.flags_1 & DF_1_NODEFLIB:
        return False
    walk.origin = b"default"
    walk.list = folder
    walk.in_files_only = False
    for _i in range(walk.settings.default_count):
        text_cut(walk.folder, 0)
        text_add(walk.folder, folder)
        if walk.visit(walk):
            return True
        folder += strlen(folder) + 1
    return False
