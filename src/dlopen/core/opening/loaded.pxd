"""The images that a transaction has loaded, by name and by file: a library may need thousands, and
each DT_NEEDED asks whether it is one of them.

The tables are made of many only, and hold nothing that the images themselves do not say: without
memory for them one image is asked after the other.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.allocator cimport copy_text, release
from dlopen.core.base.growable cimport Pointers, pointers_add
from dlopen.core.base.strings cimport strlen
from dlopen.core.image.image cimport Image, Retired
from dlopen.core.image.index cimport (
    Index, IndexSearch, begin_search, index_add, index_reserve, next_found,
)
from dlopen.core.image.known_by cimport (
    file_key, image_file_key, is_same_file, name_key,
)
from dlopen.core.image.naming cimport answers_to
from dlopen.core.image.retirement cimport Retirement
from dlopen.core.memory.file cimport File, FileIdentity


cdef enum:
    MANY_LOADED = 16


cdef struct LoadedIndex:         # of one transaction's images
    size_t count                 # so many of the first are in it
    Index names
    Index files
    Retirement outgrown          # tables that were too small


cdef inline bint is_meant(
    const Image* image, const char* name, const FileIdentity* file
) noexcept nogil:
    """By the name, or by the file where that is NULL."""
    if name != NULL:
        return answers_to(image, name)
    return not image.is_from_bytes and is_same_file(image, file)


cdef inline bint index_loaded(LoadedIndex* index, const Pointers* loaded) noexcept nogil:
    """Brings it up to date. False without memory."""
    cdef Image* image
    cdef size_t i
    while index.count < loaded.count:
        image = <Image*>loaded.items[index.count]
        if not index_reserve(&index.names, &index.outgrown, image.names.count + 1) \
                or not index_reserve(&index.files, &index.outgrown, 1):
            return False
        for i in range(image.names.count):
            index_add(&index.names, name_key(<const char*>image.names.items[i]), image)
        if image.tables.soname != NULL:
            index_add(&index.names, name_key(image.tables.soname), image)
        index_add(&index.files, image_file_key(image), image)
        index.count += 1
    return True


cdef inline Image* only_one_under(
    const Index* index, uint64_t key, const char* name, const FileIdentity* file, bint* several
) noexcept nogil:
    """That is meant; NULL: none. Of `several` it is not known which is the first."""
    cdef IndexSearch search
    cdef Image* found = NULL
    cdef Image* image
    begin_search(index, key, &search)
    image = next_found(&search)
    while image != NULL:
        if image != found and is_meant(image, name, file):
            several[0] = found != NULL
            found = image
        image = next_found(&search)
    return found


cdef inline Image* find_loaded(
    LoadedIndex* index, const Pointers* loaded, const char* name, const File* file
) noexcept nogil:
    """The first of them that is meant, by the name or by the file where that is NULL."""
    cdef Image* image
    cdef bint several = False
    cdef size_t i
    if loaded.count >= MANY_LOADED and index_loaded(index, loaded):
        image = only_one_under(
            &index.files if name == NULL else &index.names,
            file_key(&file.identity) if name == NULL else name_key(name),
            name, &file.identity, &several,
        )
        if not several:
            return image
    for i in range(loaded.count):
        image = <Image*>loaded.items[i]
        if is_meant(image, name, &file.identity):
            return image
    return NULL


cdef inline void name_loaded(
    LoadedIndex* index, Image* image, const char* name
) noexcept nogil:
    """One of them, which nobody else knows yet, answers to a further name; without memory it is
    found by its file again."""
    cdef char* copy
    if answers_to(image, name) or (
        index.count != 0 and not index_reserve(&index.names, &index.outgrown, 1)
    ):
        return
    copy = copy_text(name, strlen(name))
    if copy == NULL or not pointers_add(&image.names, copy):
        release(copy)
    elif index.count != 0:
        index_add(&index.names, name_key(name), image)


cdef inline void free_loaded_index(LoadedIndex* index) noexcept nogil:
    cdef Retired* entry = index.outgrown.first
    cdef Retired* next
    while entry != NULL:
        next = entry.next
        release(entry)           # which begins the table
        entry = next
    release(index.names.table)
    release(index.files.table)
