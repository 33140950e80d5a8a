"""From a name to an image: one that is here already, one that the host must load, or a file that is
mapped. For the library that was asked for and for each that one needs."""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport allocate, copy_text, release
from dlopen.core.base.contract cimport (
    DLOPEN_ARENA, DLOPEN_E_MEMORY, DLOPEN_E_NOT_FOUND, DLOPEN_E_NOT_LOADED, DLOPEN_E_OPEN,
    DLOPEN_E_STOPPED, DLOPEN_E_UNSUPPORTED, DLOPEN_NO_FOREIGN_CODE, DLOPEN_PRIVATE,
    DLOPEN_REJECTED_HOSTS, Error, Request,
)
from dlopen.core.base.details cimport (
    DETAIL_CANNOT_OPEN, DETAIL_CLASS_32, DETAIL_FILES_STOPPED, DETAIL_HOSTS_CODE,
    DETAIL_HOSTS_OWN_MISSING, DETAIL_NOT_LOADED,
)
from dlopen.core.base.errors cimport error_clear, error_searched, fail, fail_memory, fail_system
from dlopen.core.base.growable cimport Text, pointers_add, text_add, text_cut, text_free
from dlopen.core.base.kernel cimport ENOENT, is_shortage
from dlopen.core.base.strings cimport strchr, strcmp, strlen
from dlopen.core.elf.constants cimport DF_1_NODELETE
from dlopen.core.elf.structures cimport Ehdr
from dlopen.core.host.abi cimport RTLD_DEEPBIND, RTLD_GLOBAL, RTLD_NOLOAD
from dlopen.core.host.debugger cimport keep_file_for_debugger
from dlopen.core.host.libraries cimport must_be_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.dynamic cimport refuse
from dlopen.core.image.image cimport Image, image_free_records
from dlopen.core.memory.file cimport (
    File, Files, fail_for_member, file_close, file_init, file_open, has_files, is_from_bytes,
    is_open,
)
from dlopen.core.opening.claims cimport claim_file, may_claim
from dlopen.core.opening.hosts_file cimport FileSoname, is_hosts_file
from dlopen.core.opening.known cimport (
    Wanted, known_by_file, known_by_name, known_host, known_to_host,
)
from dlopen.core.opening.map_image cimport map_image, new_image, read_header, unmap_image
from dlopen.core.opening.texts cimport add_text_once
from dlopen.core.opening.transaction cimport (
    DONE, FAILED, HOSTS_OWN, TRY_AGAIN, Outcome, Transaction, no_memory, outcome_of,
)
from dlopen.core.search.archives cimport open_at
from dlopen.core.search.candidates cimport is_path_in_files, try_files
from dlopen.core.search.find cimport find_file
from dlopen.core.search.settings cimport prepare_search
from dlopen.core.search.tokens cimport expand
from dlopen.core.search.trail cimport Trail, trail_add, trail_free
from dlopen.core.symbols.report cimport report_mapped


cdef inline bint note_missing_host(
    Transaction* transaction, const Wanted* wanted, const char* path
) noexcept nogil:
    """False without memory. The path of a namespace does not say which one is the process's,
    unless there is no other."""
    cdef Linker* linker = transaction.linker
    cdef Text elsewhere
    cdef File* file              # a second one
    cdef bint noted
    memset(&elsewhere, 0, sizeof(elsewhere))
    if transaction.space != NULL:
        file = <File*>allocate(sizeof(File))
        if file == NULL:
            return False
        file_init(file)
        if find_file(
            linker, transaction.snapshot, wanted.name, wanted.asker, NULL, &elsewhere, NULL,
            &transaction.cache, file, NULL
        ):
            path = elsewhere.data
        file_close(file)
        release(file)
    noted = not elsewhere.failed and add_text_once(&transaction.missing_hosts, path) \
        and add_text_once(&transaction.missing_names, wanted.name)
    text_free(&elsewhere)
    return noted


cdef inline Outcome delegate(
    Transaction* transaction, const Wanted* wanted, const File* file, const char* soname,
    const char* path, Image** result
) noexcept nogil:
    """A library that must be the host's: the one that is there already, of whatever file;
    or noted, and opened by the host's loader when the whole tree has been checked. HOSTS_OWN:
    it was given as bytes or is in an archive, so there is no file that the host could open.
    `soname` may be NULL."""
    cdef Outcome outcome = DONE
    result[0] = known_host(transaction, soname)
    if result[0] == NULL and transaction.loaded.count == 0 \
            and transaction.request.flags & DLOPEN_NO_FOREIGN_CODE:
        outcome = outcome_of(transaction, fail(
            transaction.error, DLOPEN_E_UNSUPPORTED, path, DETAIL_HOSTS_CODE
        ))
    elif result[0] == NULL and (file.is_member or is_from_bytes(file)):
        outcome = HOSTS_OWN
        text_cut(&transaction.hosts_own, 0)
        text_add(&transaction.hosts_own, b"")
        if soname != NULL:
            text_add(&transaction.hosts_own, soname)
    if result[0] != NULL or outcome != DONE:
        return outcome
    if transaction.no_memory or not note_missing_host(transaction, wanted, path):
        return no_memory(transaction, path)
    return DONE


cdef inline Outcome load_file(
    Transaction* transaction, const Wanted* wanted, File* file, const char* path, Image** result
) noexcept nogil:
    """A new image of the transaction; *result is NULL when the host must open it. HOSTS_OWN:
    it must be the host's, which cannot open this."""
    cdef Linker* linker = transaction.linker
    cdef const Request* request = transaction.request
    cdef const char* name = wanted.name
    cdef bint from_bytes = is_from_bytes(file)
    cdef Image* image
    cdef FileSoname soname
    cdef Outcome outcome
    cdef char* copy
    cdef int code
    if is_hosts_file(file, name, &soname):
        return delegate(transaction, wanted, file, &soname.text[0], path, result)
    image = new_image(path, from_bytes and has_files(&transaction.files))
    if image == NULL:
        return no_memory(transaction, path)
    code = map_image(
        linker, &linker.registry.arena if request.flags & DLOPEN_ARENA else NULL, file, image,
        False, transaction.error
    )
    if code:
        image_free_records(image)
        return outcome_of(transaction, code)
    if must_be_hosts(image):     # it was mapped to look at it
        outcome = delegate(transaction, wanted, file, image.tables.soname, path, result)
        unmap_image(image)
        image_free_records(image)
        return outcome
    code = refuse(image, name, transaction.error)
    if code == 0 and strcmp(name, path) != 0:
        copy = copy_text(name, strlen(name))
        if copy == NULL or not pointers_add(&image.names, copy):
            release(copy)
            code = fail_memory(transaction.error, path)
    if code == 0 and not pointers_add(&transaction.loaded, image):
        code = fail_memory(transaction.error, path)
    if code:
        unmap_image(image)
        image_free_records(image)
        return outcome_of(transaction, code)
    image.life.loader = wanted.asker
    # New dependencies of a private image belong to it.
    image.is_private = request.mode & DLOPEN_PRIVATE != 0
    # Bytes answer to their names in a namespace of their own only.
    image.life.is_visible = not wanted.own_only and not image.is_private \
        and (not from_bytes or transaction.namespace_id != 0)
    image.no_foreign_code = request.flags & DLOPEN_NO_FOREIGN_CODE != 0
    image.namespace_id = transaction.namespace_id
    image.shares_family = transaction.space != NULL
    image.scope.deepbind = request.mode & RTLD_DEEPBIND != 0
    image.scope.is_own = image.is_private or from_bytes
    image.scope.is_own_first = image.scope.is_own \
        and request.mode & (RTLD_GLOBAL | RTLD_DEEPBIND) == 0
    image.life.nodelete = image.tables.flags_1 & DF_1_NODELETE != 0
    if from_bytes or file.is_member:
        keep_file_for_debugger(&linker.debugger, image, file)
    report_mapped(image)
    result[0] = image
    return DONE


cdef inline int not_found(Transaction* transaction, const char* name) noexcept nogil:
    """The error, with what was searched."""
    cdef const Trail* trail = &transaction.trail
    cdef long result = ENOENT
    if trail.count != 0 and trail.results[trail.count - 1] > 0:
        result = trail.results[trail.count - 1]      # as glibc: of the last folder
    if trail.other_class:
        fail(transaction.error, DLOPEN_E_NOT_FOUND, name, DETAIL_CLASS_32)
    else:
        fail_system(transaction.error, DLOPEN_E_NOT_FOUND, name, DETAIL_CANNOT_OPEN, -result)
    tell_searched(transaction)
    return DLOPEN_E_NOT_FOUND


cdef inline void tell_searched(Transaction* transaction) noexcept nogil:
    cdef const Trail* trail = &transaction.trail
    error_searched(transaction.error, trail.paths.data, &trail.results[0], trail.count)


cdef inline int stopped(Transaction* transaction, const char* name) noexcept nogil:
    """The error of an open that the caller's own files have ended."""
    return fail(transaction.error, DLOPEN_E_STOPPED, name, DETAIL_FILES_STOPPED)


cdef inline bint must_await(Transaction* transaction, const File* file) noexcept nogil:
    """Another thread is loading this very file. Else it is claimed, if it is the root's. What is in
    an archive needs others there: somebody is asked on the way."""
    if transaction.wait == NULL or transaction.loaded.count != 0 or file.is_member \
            or not may_claim(transaction.request):
        return False
    claim_file(
        &transaction.linker.registry, &transaction.claim, &file.identity, transaction.namespace_id,
        transaction.wait
    )
    return transaction.wait.is_due


cdef inline int open_found(Linker* linker, File* file, Text* path, Error* error) noexcept nogil:
    """What a search has ended at, if it is not open yet: a path that was asked for."""
    cdef long result
    if file.bytes != NULL and not file.is_member:
        return 0
    if not is_open(file):
        result = open_at(linker, path, file)
        if result < 0:
            return fail_system(error, DLOPEN_E_OPEN, path.data, DETAIL_CANNOT_OPEN, result)
    if path.failed:
        return fail_memory(error, b"")
    return fail_for_member(file, path.data, error) if file.is_member \
        else file_open(file, path.data, error)


cdef inline Outcome take_file(
    Transaction* transaction, const Wanted* wanted, File* file, Text* found, Image** result
) noexcept nogil:
    """The image of the file that the search for `name` ended at, which is closed. HOSTS_OWN:
    to be taken among the host's."""
    cdef Ehdr header
    cdef Trail* trail = &transaction.trail
    cdef const char* name = wanted.name
    cdef Wanted meant = wanted[0]
    cdef const char* path
    cdef Outcome outcome
    cdef int code
    if transaction.files.stopped:
        return outcome_of(transaction, stopped(transaction, name))
    outcome = outcome_of(
        transaction, open_found(transaction.linker, file, found, transaction.error)
    )
    path = found.data
    # The name of a member in its archive is no name of the process's.
    if outcome == DONE and file.is_member and name[0] != 0x2f and strchr(name, 0x2f) != NULL:
        meant.name = path
    if outcome == DONE:
        result[0] = known_by_file(transaction, &meant, file, path)
        if result[0] == NULL and transaction.no_memory:
            outcome = no_memory(transaction, name)
        elif result[0] == NULL and transaction.request.mode & RTLD_NOLOAD:
            code = read_header(file, &header, False, path, transaction.error)
            if code == 0:
                code = fail(transaction.error, DLOPEN_E_NOT_LOADED, name, DETAIL_NOT_LOADED)
            outcome = outcome_of(transaction, code)
        elif result[0] == NULL and must_await(transaction, file):
            outcome = TRY_AGAIN
        elif result[0] == NULL:
            outcome = load_file(transaction, &meant, file, path, result)
            if outcome == HOSTS_OWN and trail.count:
                trail.results[trail.count - 1] = DLOPEN_REJECTED_HOSTS
    file_close(file)
    return outcome


cdef inline Outcome search_and_take(
    Transaction* transaction, const Wanted* wanted, Files* files, Image** result
) noexcept nogil:
    """Searches for the name; what is found is an image that is here, the host's, or mapped now."""
    cdef Linker* linker = transaction.linker
    cdef const char* own_path = transaction.space.search_path if transaction.space != NULL \
        else NULL
    cdef Text path
    cdef File* file = &transaction.file
    cdef Trail* trail = &transaction.trail
    cdef Outcome outcome
    cdef bint found
    memset(&path, 0, sizeof(path))
    file_init(file)
    found = find_file(
        linker, transaction.snapshot, wanted.name, wanted.asker, own_path, &path, trail,
        &transaction.cache, file, files
    )
    # What is needed by a relative path; one that is opened itself is the caller's affair.
    if transaction.loaded.count != 0 and not is_open(file) \
            and not transaction.files.stopped and is_path_in_files(wanted.asker, path.data):
        found = False
    if path.failed or (found and path.data == NULL):
        file_close(file)
        outcome = no_memory(transaction, wanted.name)
    elif not found:
        outcome = outcome_of(transaction, not_found(transaction, wanted.name))
    else:
        outcome = take_file(transaction, wanted, file, &path, result)
        if outcome == FAILED and transaction.code == DLOPEN_E_OPEN and trail.count != 0:
            # A path, which the caller's files have not.
            if transaction.error != NULL:
                trail_add(trail, path.data, b"path", transaction.error.errnum, file)
            tell_searched(transaction)
    text_free(&path)
    return outcome


cdef inline Outcome take_from_files(
    Transaction* transaction, const Wanted* wanted, Image** result
) noexcept nogil:
    """As it is named; *result is NULL if the caller's files have it not."""
    cdef Text path
    cdef File* file = &transaction.file
    cdef Outcome outcome = DONE
    memset(&path, 0, sizeof(path))
    file_init(file)
    text_add(&path, wanted.name)
    if try_files(&transaction.files, wanted.name, &path, &transaction.trail, file):
        outcome = take_file(transaction, wanted, file, &path, result)
    elif path.failed:
        outcome = no_memory(transaction, wanted.name)
    text_free(&path)
    return outcome


cdef inline Outcome take_by_name(
    Transaction* transaction, const Wanted* wanted, Files* files, Image** result
) noexcept nogil:
    """One that is there already, or else what the search for it finds."""
    cdef bint is_known
    result[0] = known_by_name(transaction, wanted, &is_known)
    if transaction.no_memory:
        return no_memory(transaction, wanted.name)
    if is_known:
        return DONE
    return search_and_take(transaction, wanted, files, result)


cdef inline Outcome take_hosts_own(
    Transaction* transaction, const Wanted* wanted, Image** result
) noexcept nogil:
    """What was given under this name, as bytes or among the caller's files, must be the host's:
    it is taken there by its soname, never from what was given."""
    cdef Text soname = transaction.hosts_own
    cdef Wanted hosts = wanted[0]
    cdef Outcome outcome
    memset(&transaction.hosts_own, 0, sizeof(Text))
    if soname.data == NULL or soname.failed:
        outcome = no_memory(transaction, wanted.name)
    elif soname.data[0] == 0:
        outcome = outcome_of(transaction, DLOPEN_E_NOT_FOUND)
    else:
        hosts.name = soname.data
        outcome = take_by_name(transaction, &hosts, NULL, result)
    if outcome == FAILED and transaction.code == DLOPEN_E_NOT_FOUND:
        outcome = outcome_of(transaction, fail(
            transaction.error, DLOPEN_E_UNSUPPORTED, wanted.name, DETAIL_HOSTS_OWN_MISSING
        ))
        tell_searched(transaction)
    text_free(&soname)
    return outcome


cdef inline Outcome acquire(
    Transaction* transaction, const Wanted* wanted, Image** result
) noexcept nogil:
    """The image that is meant: loaded already, or loaded now. *result is NULL when the host must
    open it."""
    cdef Files* files = &transaction.files
    cdef Outcome outcome = DONE
    result[0] = NULL
    # With `files`, the library that is opened is always a new image; what it needs may be there.
    if has_files(files) and transaction.loaded.count == 0:
        outcome = take_from_files(transaction, wanted, result)
    if outcome == DONE and result[0] == NULL:
        outcome = take_by_name(transaction, wanted, files, result)
    if outcome == HOSTS_OWN:
        outcome = take_hosts_own(transaction, wanted, result)
    if outcome == FAILED and not wanted.own_only and (
        transaction.code == DLOPEN_E_NOT_FOUND or transaction.code == DLOPEN_E_OPEN
    ):
        result[0] = known_to_host(transaction, wanted)
        if result[0] != NULL:
            error_clear(transaction.error)
            outcome = DONE
    trail_free(&transaction.trail)
    return outcome


cdef inline Outcome acquire_needed(
    Transaction* transaction, const char* name, Image* image, Image** result
) noexcept nogil:
    """By a name in the dynamic section. Its $ORIGIN is expanded before it is compared with names
    of what is loaded: of two images it means two files. (As glibc; not so for dlopen(3).)"""
    cdef Linker* linker = transaction.linker
    cdef Wanted wanted
    cdef Text text
    cdef Outcome outcome
    wanted.name = name
    wanted.asker = image
    wanted.own_only = False
    if strchr(name, 0x24) == NULL:
        return acquire(transaction, &wanted, result)
    if not prepare_search(linker, transaction.snapshot):
        return no_memory(transaction, name)
    memset(&text, 0, sizeof(text))
    if expand(
        &linker.search.settings, image, name, strlen(name), &text
    ) and text.data != NULL and not text.failed:
        wanted.name = text.data
        outcome = acquire(transaction, &wanted, result)
    elif text.failed:
        outcome = no_memory(transaction, name)
    else:
        outcome = acquire(transaction, &wanted, result)    # which says what is wrong
    text_free(&text)
    return outcome


cdef inline bint may_be_missing(const Transaction* transaction) noexcept nogil:
    """What DT_AUXILIARY names, and was not had; but not for want of memory."""
    return transaction.code != DLOPEN_E_STOPPED and transaction.code != DLOPEN_E_MEMORY and (
        transaction.error == NULL or not is_shortage(-transaction.error.errnum)
    )
