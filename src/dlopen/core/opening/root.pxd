"""What was asked for, by its name or from bytes; and what the host must open for it."""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32, load_u64
from dlopen.core.base.contract cimport (
    DLOPEN_E_HOST, DLOPEN_E_UNSUPPORTED, DLOPEN_PRIVATE, DLOPEN_RELOADABLE, DLOPEN_STATE_LOADING,
    Request,
)
from dlopen.core.base.details cimport DETAIL_HOSTS_OWN_RELOADED, DETAIL_HOST_REFUSED
from dlopen.core.base.errors cimport fail, fail_text
from dlopen.core.base.growable cimport Text, pointers_add, pointers_reserve, text_add, text_free
from dlopen.core.host.abi cimport RTLD_NOW
from dlopen.core.host.host_lock cimport open_host
from dlopen.core.host.identity cimport identify_hosts
from dlopen.core.image.image cimport Image
from dlopen.core.image.known_by cimport identity_of, is_same_file
from dlopen.core.image.listing cimport image_of_caller
from dlopen.core.image.registry cimport reader_leave
from dlopen.core.memory.file cimport (
    File, FileIdentity, add_path_of, file_from_bytes, file_from_member, has_files, make_plain,
)
from dlopen.core.opening.acquire cimport acquire, load_file, take_file, take_hosts_own
from dlopen.core.opening.claims cimport end_claim
from dlopen.core.opening.known cimport (
    Wanted, has_same_headers, loaded_by_own_text, sees,
)
from dlopen.core.opening.texts cimport free_texts
from dlopen.core.opening.transaction cimport (
    DONE, HOSTS_OWN, Outcome, Transaction, free_new_images, look_afresh, no_memory, outcome_of,
    unpin_all,
)
from dlopen.core.search.trail cimport trail_free
from dlopen.core.symbols.report cimport report_host_open


cdef inline Outcome root_from_bytes(Transaction* transaction) noexcept nogil:
    """From the caller's bytes, under the name that the request gives them."""
    cdef const Request* request = transaction.request
    cdef File* file = &transaction.file
    cdef Wanted wanted
    cdef Text path
    cdef Outcome outcome
    memset(&path, 0, sizeof(path))
    text_add(&path, request.name)
    if path.failed:
        return no_memory(transaction, request.name)
    if has_files(&transaction.files):
        make_plain(path.data)
    file_from_bytes(file, request.bytes, request.bytes_size)
    wanted.name = request.name
    wanted.asker = NULL
    # Bytes answer to their name in a namespace of their own only.
    wanted.own_only = transaction.namespace_id == 0
    outcome = load_file(transaction, &wanted, file, path.data, &transaction.root)
    text_free(&path)
    if outcome == HOSTS_OWN or outcome == DONE and transaction.root.is_host:
        if request.flags & DLOPEN_RELOADABLE:
            return outcome_of(transaction, fail(
                transaction.error, DLOPEN_E_UNSUPPORTED, request.name, DETAIL_HOSTS_OWN_RELOADED
            ))
        if outcome == HOSTS_OWN:
            wanted.own_only = False
            outcome = take_hosts_own(transaction, &wanted, &transaction.root)
            trail_free(&transaction.trail)
    elif outcome == DONE and request.flags & DLOPEN_RELOADABLE:
        transaction.root.is_reloadable = True
        transaction.root.life.is_visible = not transaction.root.is_private
    return outcome


cdef inline Outcome root_from_member(Transaction* transaction) noexcept nogil:
    """A member of an archive, under the path that the request gives it: new, or the one that it is
    known by as a file is."""
    cdef const Request* request = transaction.request
    cdef Wanted wanted
    cdef Text path
    cdef Outcome outcome
    memset(&path, 0, sizeof(path))
    add_path_of(&path, request.member, request.name)
    if path.failed:
        text_free(&path)
        return no_memory(transaction, request.name)
    make_plain(path.data)
    file_from_member(&transaction.file, request.member)
    wanted.name = path.data
    wanted.asker = NULL
    wanted.own_only = request.mode & DLOPEN_PRIVATE != 0
    outcome = take_file(transaction, &wanted, &transaction.file, &path, &transaction.root)
    if outcome == HOSTS_OWN:
        outcome = take_hosts_own(transaction, &wanted, &transaction.root)
    trail_free(&transaction.trail)
    text_free(&path)
    return outcome


cdef inline Outcome root_by_name(Transaction* transaction) noexcept nogil:
    """The program, or what has the name."""
    cdef const Request* request = transaction.request
    cdef Wanted wanted
    cdef Outcome outcome
    wanted.name = request.name
    wanted.asker = image_of_caller(&transaction.linker.registry, request.caller)
    wanted.own_only = request.mode & DLOPEN_PRIVATE != 0
    if not wanted.own_only:
        transaction.root = loaded_by_own_text(transaction, request.name)
        if transaction.root != NULL:
            transaction.is_itself = True
            return DONE
    outcome = acquire(transaction, &wanted, &transaction.root)
    transaction.is_itself = outcome == DONE and transaction.root == wanted.asker
    if outcome == DONE and transaction.root != NULL and not transaction.root.is_host \
            and load_u32(&transaction.root.life.state) == DLOPEN_STATE_LOADING:
        transaction.root.life.loader = NULL     # the caller's paths were for finding it only
    return outcome


cdef inline Outcome find_root(Transaction* transaction) noexcept nogil:
    """Transaction.root: what is asked for, of which a new one is mapped; NULL when the host must
    open it."""
    if transaction.request.bytes != NULL:
        return root_from_bytes(transaction)
    if transaction.request.member != NULL:
        return root_from_member(transaction)
    if transaction.request.name != NULL:
        return root_by_name(transaction)
    transaction.root = transaction.snapshot.hosts[0]
    return DONE


cdef inline bint host_has_loaded(Transaction* transaction) noexcept nogil:
    """What the host opened has brought one of the files that this transaction has mapped:
    there shall be one image of it."""
    cdef FileIdentity file
    cdef size_t i, j
    cdef const Image* mine
    cdef const Image* host
    for i in range(transaction.loaded.count):
        mine = <const Image*>transaction.loaded.items[i]
        for j in range(transaction.snapshot.host_count):
            host = transaction.snapshot.hosts[j]
            if mine.is_from_bytes or mine.offset != 0 or not sees(transaction, host) \
                    or not has_same_headers(mine, host):
                continue
            if not load_u32(&host.host.is_identified) \
                    and not identify_hosts(transaction.linker, transaction.snapshot):
                transaction.no_memory = True
                return False
            file = identity_of(mine)
            if is_same_file(host, &file):
                return True
    return False


cdef inline Outcome open_missing_hosts(Transaction* transaction) noexcept nogil:
    """By the host's loader, by the paths that we found; what it ran cannot be undone."""
    cdef size_t i
    cdef void* handle
    cdef const char* path
    cdef const char* reason
    end_claim(&transaction.linker.registry, &transaction.claim)
    for i in range(transaction.missing_hosts.count):
        path = <const char*>transaction.missing_hosts.items[i]
        report_host_open(path)
        if not pointers_reserve(&transaction.counted, 1):
            return no_memory(transaction, path)
        handle = open_host(transaction.linker, path, RTLD_NOW)
        if handle == NULL:
            reason = transaction.linker.host.dlerror()
            return outcome_of(transaction, fail(
                transaction.error, DLOPEN_E_UNSUPPORTED, path, DETAIL_HOST_REFUSED
            ) if reason == NULL else fail_text(transaction.error, DLOPEN_E_HOST, path, reason))
        pointers_add(&transaction.counted, handle)
    return DONE


cdef inline void look_again(Transaction* transaction) noexcept nogil:
    """Now that the host has opened what was missing: what it has brought, too, is there already."""
    free_texts(&transaction.missing_hosts)
    free_texts(&transaction.missing_names)
    reader_leave(&transaction.linker.registry, transaction.phase)
    look_afresh(transaction)
    if not transaction.no_memory and host_has_loaded(transaction):
        free_new_images(transaction)
        unpin_all(transaction)
