"""From a name to an image: one that is there, one that the host loads, or a file that is mapped."""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport Allocator, allocate, copy_text, release
from dlopen.core.base.contract cimport (
    DLOPEN_E_MEMORY, DLOPEN_E_NOT_FOUND, DLOPEN_E_NOT_LOADED, DLOPEN_E_OPEN, DLOPEN_E_STOPPED,
    DLOPEN_E_UNSUPPORTED, DLOPEN_NO_FOREIGN_CODE, DLOPEN_PRIVATE, DLOPEN_REJECTED_HOSTS,
)
from dlopen.core.base.errors cimport error_clear, error_searched, fail, fail_memory, fail_system
from dlopen.core.base.growable cimport Text, pointers_add, text_add, text_cut, text_free
from dlopen.core.base.kernel cimport ENOENT, is_shortage
from dlopen.core.base.strings cimport strchr, strcmp, strlen
from dlopen.core.elf.constants cimport DF_1_NODELETE
from dlopen.core.elf.structures cimport Ehdr
from dlopen.core.host.abi cimport RTLD_DEEPBIND, RTLD_GLOBAL, RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.debugger cimport keep_file_for_debugger
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.libraries cimport must_be_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.dynamic cimport refuse
from dlopen.core.image.image cimport Image, LinkMap, image_free_records
from dlopen.core.memory.file cimport File, Files, file_close, file_init, file_open
from dlopen.core.opening.known cimport loaded_by_file, loaded_by_name, loaded_from_files
from dlopen.core.opening.map_image cimport map_image, new_image, read_header, unmap_image
from dlopen.core.opening.texts cimport add_text_once, holds_text, remember_name
from dlopen.core.opening.transaction cimport HOSTS_OWN, Transaction, take
from dlopen.core.search.candidates cimport is_path_in_files, try_files
from dlopen.core.search.find cimport find_file
from dlopen.core.search.settings cimport prepare_search
from dlopen.core.search.tokens cimport expand
from dlopen.core.search.trail cimport Trail, trail_add, trail_free
from dlopen.core.symbols.report cimport report_mapped


cdef inline bint note_missing_host(
    Transaction* transaction, const char* name, const char* path, const Image* asker
) noexcept nogil:
    """False without memory. The path of a namespace does not say which one is the process's,
    unless there is no other."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Text elsewhere
    cdef File* file              # a second one
    cdef bint noted
    memset(&elsewhere, 0, sizeof(elsewhere))
    if transaction.space != NULL:
        file = <File*>allocate(allocator, sizeof(File))
        if file == NULL:
            return False
        file_init(file)
        if find_file(
            linker, transaction.snapshot, name, asker, NULL, &elsewhere, NULL, file, NULL
        ):
            path = elsewhere.data
        file_close(file)
        release(allocator, file)
    noted = not elsewhere.failed and add_text_once(allocator, &transaction.missing_hosts, path) \
        and add_text_once(allocator, &transaction.missing_names, name)
    text_free(allocator, &elsewhere)
    return noted


cdef inline int delegate(
    Transaction* transaction, const File* file, Image* image, const char* name, const char* path,
    const Image* asker, Image** result
) noexcept nogil:
    """A library that must be the host's: the one that is there already, of whatever file;
    or noted, and opened by the host's loader when the whole tree has been checked. HOSTS_OWN:
    it is none of a file that the host can open. Its own mapping was only to look at it."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef size_t i
    cdef int code = 0
    cdef Image* host
    result[0] = NULL
    for i in range(transaction.snapshot.host_count):
        host = transaction.snapshot.hosts[i]
        if image.soname != NULL and host.soname != NULL \
                and strcmp(host.soname, image.soname) == 0 and take(transaction, host):
            result[0] = host
            break
    if result[0] == NULL and transaction.loaded.count == 0 \
            and transaction.flags & DLOPEN_NO_FOREIGN_CODE:
        code = fail(
            transaction.error, DLOPEN_E_UNSUPPORTED, path,
            b"the host's loader would run its code: there is one of it in a process"
        )
    elif result[0] == NULL and file.descriptor < 0:
        code = HOSTS_OWN
        text_cut(&transaction.hosts_own, 0)
        text_add(allocator, &transaction.hosts_own, b"")
        if image.soname != NULL:
            text_add(allocator, &transaction.hosts_own, image.soname)
    unmap_image(image)
    image_free_records(allocator, image)
    if result[0] != NULL or code:
        return code
    if transaction.no_memory or not note_missing_host(transaction, name, path, asker):
        return fail_memory(transaction.error, path)
    return 0


cdef inline int load_file(
    Transaction* transaction, File* file, const char* name, const char* path, Image* loader,
    bint own_only, Image** result
) noexcept nogil:
    """A new image of the transaction; *result is NULL when the host must open it. HOSTS_OWN:
    it must be the host's, and is none of a file that the host can open."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef bint is_from_bytes = file.descriptor < 0
    cdef Image* image = new_image(
        linker, path, is_from_bytes and transaction.files.read != NULL
    )
    cdef char* copy
    cdef int code
    if image == NULL:
        return fail_memory(transaction.error, path)
    code = map_image(linker, file, image, transaction.error)
    if code:
        image_free_records(allocator, image)
        return code
    if must_be_hosts(image):
        return delegate(transaction, file, image, name, path, loader, result)
    code = refuse(image, name, transaction.error)
    if code == 0 and strcmp(name, path) != 0:
        copy = copy_text(allocator, name, strlen(name))
        if copy == NULL or not pointers_add(allocator, &image.names, copy):
            release(allocator, copy)
            code = fail_memory(transaction.error, path)
    if code == 0 and not pointers_add(allocator, &transaction.loaded, image):
        code = fail_memory(transaction.error, path)
    if code:
        unmap_image(image)
        image_free_records(allocator, image)
        return code
    image.loader = loader
    # New dependencies of a private image belong to it.
    image.is_private = transaction.mode & DLOPEN_PRIVATE != 0
    # Bytes answer to their names in a namespace of their own only.
    image.is_visible = not own_only and not image.is_private \
        and (not is_from_bytes or transaction.namespace_id != 0)
    image.no_foreign_code = transaction.flags & DLOPEN_NO_FOREIGN_CODE != 0
    image.namespace_id = transaction.namespace_id
    image.shares_family = transaction.space != NULL
    image.deepbind = transaction.mode & RTLD_DEEPBIND != 0
    image.is_own = image.is_private or is_from_bytes
    image.is_own_first = image.is_own \
        and transaction.mode & (RTLD_GLOBAL | RTLD_DEEPBIND) == 0
    image.nodelete = image.flags_1 & DF_1_NODELETE != 0
    if is_from_bytes:
        keep_file_for_debugger(linker, image, file)
    report_mapped(image)
    result[0] = image
    return 0


cdef inline int not_found(
    Transaction* transaction, const char* name, Trail* trail
) noexcept nogil:
    cdef long result = ENOENT
    if trail.count != 0 and trail.results[trail.count - 1] > 0:
        result = trail.results[trail.count - 1]      # as glibc: of the last folder
    if trail.other_class:
        fail(transaction.error, DLOPEN_E_NOT_FOUND, name, b"wrong ELF class: ELFCLASS32")
    else:
        fail_system(
            transaction.error, DLOPEN_E_NOT_FOUND, name, b"cannot open shared object file", -result
        )
    error_searched(transaction.error, trail.paths.data, &trail.results[0], trail.count)
    return DLOPEN_E_NOT_FOUND


cdef inline int stopped(Transaction* transaction, const char* name) noexcept nogil:
    return fail(
        transaction.error, DLOPEN_E_STOPPED, name, b"the search among the caller's files was ended"
    )


cdef inline int take_file(
    Transaction* transaction, File* file, const char* name, const char* path, Image* asker,
    bint own_only, Trail* trail, Image** result
) noexcept nogil:
    """The image of the file that the search for `name` ended at, which is closed. HOSTS_OWN:
    to be taken among the host's."""
    cdef Ehdr header
    cdef int code = 0
    if transaction.files.stopped:
        return stopped(transaction, name)
    if file.bytes == NULL:
        code = file_open(file, path, transaction.error)
    if code == 0:
        result[0] = loaded_from_files(transaction, path) if file.is_from_files \
            else loaded_by_file(transaction, file, asker, own_only)
        if result[0] != NULL:
            remember_name(transaction.linker, result[0], name)
        elif transaction.no_memory:
            code = fail_memory(transaction.error, name)
        elif transaction.mode & RTLD_NOLOAD:
            code = read_header(file, &header, path, transaction.error)
            if code == 0:
                code = fail(transaction.error, DLOPEN_E_NOT_LOADED, name, b"it is not loaded")
        else:
            code = load_file(transaction, file, name, path, asker, own_only, result)
            if code == HOSTS_OWN and trail.count:
                trail.results[trail.count - 1] = DLOPEN_REJECTED_HOSTS
    file_close(file)
    return code


cdef inline int search_and_take(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Files* files,
    Trail* trail, Image** result
) noexcept nogil:
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef const char* own_path = transaction.space.search_path if transaction.space != NULL \
        else NULL
    cdef Text path
    cdef File* file = &transaction.file
    cdef bint found
    cdef int code
    memset(&path, 0, sizeof(path))
    file_init(file)
    found = find_file(
        linker, transaction.snapshot, name, asker, own_path, &path, trail, file, files
    )
    # What is needed by a relative path; one that is opened itself is the caller's affair.
    if transaction.loaded.count != 0 and file.bytes == NULL and file.descriptor < 0 \
            and not transaction.files.stopped and is_path_in_files(asker, path.data):
        found = False
    if path.failed or (found and path.data == NULL):
        file_close(file)
        code = fail_memory(transaction.error, name)
    elif not found:
        code = not_found(transaction, name, trail)
    else:
        code = take_file(transaction, file, name, path.data, asker, own_only, trail, result)
        if code == DLOPEN_E_OPEN and trail.count != 0:
            # A path, which the caller's files have not.
            if transaction.error != NULL:
                trail_add(allocator, trail, path.data, b"path", transaction.error.errnum, file)
            error_searched(
                transaction.error, trail.paths.data, &trail.results[0], trail.count
            )
    text_free(allocator, &path)
    return code


cdef inline int take_from_files(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Trail* trail,
    Image** result
) noexcept nogil:
    """As it is named; *result is NULL if the caller's files have it not."""
    cdef Linker* linker = transaction.linker
    cdef Text path
    cdef File* file = &transaction.file
    cdef int code = 0
    memset(&path, 0, sizeof(path))
    file_init(file)
    text_add(&linker.registry.allocator, &path, name)
    if try_files(&linker.registry.allocator, &transaction.files, name, &path, trail, file):
        code = take_file(transaction, file, name, path.data, asker, own_only, trail, result)
    elif path.failed:
        code = fail_memory(transaction.error, name)
    text_free(&linker.registry.allocator, &path)
    return code


cdef inline Image* known_to_host(
    Transaction* transaction, const char* name, const Image* asker
) noexcept nogil:
    """The image that the host has opened by a path which leads nowhere by now: it tells nobody
    what else than its own name an image answers to. A name that is searched for it would search
    for, too, which is dear."""
    cdef Linker* linker = transaction.linker
    cdef Image* image = NULL
    cdef void* handle
    cdef size_t i
    if transaction.namespace_id != 0 or strchr(name, 0x2f) == NULL or strchr(name, 0x24) != NULL:
        return NULL
    if transaction.loaded.count != 0 and is_path_in_files(asker, name):
        return NULL
    handle = open_host(linker, name, RTLD_LAZY | RTLD_NOLOAD)
    if handle == NULL:
        linker.host.dlerror()
        return NULL
    for i in range(transaction.snapshot.host_count):
        if transaction.snapshot.hosts[i].link_map.l_ld == (<LinkMap*>handle).l_ld \
                and take(transaction, transaction.snapshot.hosts[i]):
            image = transaction.snapshot.hosts[i]
            remember_name(linker, image, name)
    close_host(linker, handle)
    return image


cdef inline int acquire_by_name(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Files* files,
    Trail* trail, Image** result
) noexcept nogil:
    result[0] = loaded_by_name(transaction, name, asker, own_only)
    if transaction.no_memory:
        return fail_memory(transaction.error, name)
    if result[0] != NULL or holds_text(&transaction.missing_names, name):
        return 0
    return search_and_take(transaction, name, asker, own_only, files, trail, result)


cdef inline int take_hosts_own(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Trail* trail,
    Image** result
) noexcept nogil:
    """What was given under this name, as bytes or among the caller's files, must be the host's:
    it is taken there by its soname, never from what was given."""
    cdef Text soname = transaction.hosts_own
    cdef int code
    memset(&transaction.hosts_own, 0, sizeof(Text))
    if soname.data == NULL or soname.failed:
        code = fail_memory(transaction.error, name)
    elif soname.data[0] == 0:
        code = DLOPEN_E_NOT_FOUND
    else:
        code = acquire_by_name(
            transaction, soname.data, asker, own_only, NULL, trail, result
        )
    if code == DLOPEN_E_NOT_FOUND:
        code = fail(
            transaction.error, DLOPEN_E_UNSUPPORTED, name,
            b"there is one of it in a process, the host's own, and the process has none"
        )
        error_searched(transaction.error, trail.paths.data, &trail.results[0], trail.count)
    text_free(&transaction.linker.registry.allocator, &soname)
    return code


cdef inline int acquire(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Image** result
) noexcept nogil:
    """The image that `name` means for `asker`: loaded already, or loaded now. *result is
    NULL when the host must open it. `own_only`: not one that is loaded already."""
    cdef Files* files = &transaction.files
    cdef Trail* trail = &transaction.trail
    cdef int code = 0
    result[0] = NULL
    # What is opened itself is another image than the one that is there; what is needed is not.
    if files.read != NULL and transaction.loaded.count == 0:
        code = take_from_files(transaction, name, asker, own_only, trail, result)
    if code == 0 and result[0] == NULL:
        code = acquire_by_name(transaction, name, asker, own_only, files, trail, result)
    if code == HOSTS_OWN:
        code = take_hosts_own(transaction, name, asker, own_only, trail, result)
    if (code == DLOPEN_E_NOT_FOUND or code == DLOPEN_E_OPEN) and not own_only:
        result[0] = known_to_host(transaction, name, asker)
        if result[0] != NULL:
            error_clear(transaction.error)
            code = 0
    trail_free(&transaction.linker.registry.allocator, trail)
    return code


cdef inline int acquire_needed(
    Transaction* transaction, const char* name, Image* image, Image** result
) noexcept nogil:
    """By a name in the dynamic section. Its $ORIGIN is expanded before it is compared with names
    of what is loaded: of two images it means two files. (As glibc; not so for dlopen(3).)"""
    cdef Linker* linker = transaction.linker
    cdef Text text
    cdef int code
    if strchr(name, 0x24) == NULL:
        return acquire(transaction, name, image, False, result)
    if not prepare_search(linker, transaction.snapshot):
        return fail_memory(transaction.error, name)
    memset(&text, 0, sizeof(text))
    if expand(
        &linker.registry.allocator, &linker.search, image, name, strlen(name), &text
    ) and text.data != NULL and not text.failed:
        code = acquire(transaction, text.data, image, False, result)
    elif text.failed:
        code = fail_memory(transaction.error, name)
    else:
        code = acquire(transaction, name, image, False, result)    # which says what is wrong
    text_free(&linker.registry.allocator, &text)
    return code


cdef inline bint may_be_missing(const Transaction* transaction, int code) noexcept nogil:
    """What DT_AUXILIARY names; but it shall not be missing for want of memory."""
    return code != DLOPEN_E_STOPPED and code != DLOPEN_E_MEMORY and (
        transaction.error == NULL or not is_shortage(-transaction.error.errnum)
    )
