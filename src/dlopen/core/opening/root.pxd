"""What was asked for, with all that it needs."""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport Allocator
from dlopen.core.base.atomics cimport load_u32, load_u64
from dlopen.core.base.contract cimport (
    DLOPEN_E_HOST, DLOPEN_E_UNSUPPORTED, DLOPEN_PRIVATE, DLOPEN_RELOADABLE, DLOPEN_STATE_LOADING,
    Request,
)
from dlopen.core.base.errors cimport fail, fail_memory
from dlopen.core.base.growable cimport Text, pointers_add, pointers_reserve, text_add, text_free
from dlopen.core.host.abi cimport RTLD_NOW
from dlopen.core.host.host_lock cimport open_host
from dlopen.core.host.identity cimport identify_hosts
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot, reader_leave, snapshot_image_at
from dlopen.core.memory.file cimport File, file_from_bytes, make_plain
from dlopen.core.opening.acquire cimport acquire, load_file, take_hosts_own
from dlopen.core.opening.known cimport loaded_by_own_text, sees
from dlopen.core.opening.texts cimport free_texts
from dlopen.core.opening.transaction cimport (
    HOSTS_OWN, Transaction, free_new_images, look_afresh, unpin_all,
)
from dlopen.core.opening.tree cimport load_dependencies
from dlopen.core.search.trail cimport trail_free
from dlopen.core.symbols.report cimport report_host_open


# Opening -------------------------------------------------------------------------


cdef inline Image* image_of_caller(const Snapshot* snapshot, const void* caller) noexcept nogil:
    cdef size_t i
    cdef uint64_t address = <uint64_t>caller
    cdef Image* image = snapshot_image_at(snapshot, address)
    if caller == NULL or image != NULL:
        return image
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].map_start <= address < snapshot.hosts[i].map_end:
            return snapshot.hosts[i]
    return NULL


cdef inline int find_root(Transaction* transaction, const Request* request) noexcept nogil:
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef Text path
    cdef File* file = &transaction.file
    cdef bint own = request.mode & DLOPEN_PRIVATE != 0
    # Bytes answer to their name in a namespace of their own only.
    cdef bint is_base = transaction.namespace_id == 0
    cdef Image* image
    cdef int code
    if request.bytes != NULL:
        memset(&path, 0, sizeof(path))
        text_add(allocator, &path, request.name)
        if path.failed:
            return fail_memory(transaction.error, request.name)
        if transaction.files.read != NULL:
            make_plain(path.data)
        file_from_bytes(file, request.bytes, request.bytes_size)
        code = load_file(
            transaction, file, request.name, path.data, NULL, is_base, &transaction.root
        )
        text_free(allocator, &path)
        if code == HOSTS_OWN or code == 0 and transaction.root.is_host:
            if request.flags & DLOPEN_RELOADABLE:
                return fail(
                    transaction.error, DLOPEN_E_UNSUPPORTED, request.name,
                    b"there is one of it in a process, the host's own, which cannot be reloaded"
                )
            if code:
                code = take_hosts_own(
                    transaction, request.name, NULL, False, &transaction.trail, &transaction.root
                )
                trail_free(allocator, &transaction.trail)
            return code
        if code == 0 and request.flags & DLOPEN_RELOADABLE:
            transaction.root.is_reloadable = True
            transaction.root.is_visible = not transaction.root.is_private
        return code
    if request.name == NULL:
        transaction.root = transaction.snapshot.hosts[0]
        return 0
    transaction.asker = image_of_caller(transaction.snapshot, request.caller)
    image = NULL if own else loaded_by_own_text(transaction, request.name)
    if image != NULL:
        transaction.root = image
        transaction.is_itself = True
        return 0
    code = acquire(transaction, request.name, transaction.asker, own, &transaction.root)
    transaction.is_itself = code == 0 and transaction.root == transaction.asker
    if code == 0 and transaction.root != NULL and not transaction.root.is_host \
            and load_u32(&transaction.root.state) == DLOPEN_STATE_LOADING:
        transaction.root.loader = NULL     # the caller's paths were for finding it only
    return code


cdef inline bint host_has_loaded(Transaction* transaction) noexcept nogil:
    """What the host opened has brought one of the files that this transaction has mapped:
    there shall be one image of it."""
    cdef size_t i, j
    cdef Image* mine
    cdef Image* host
    transaction.no_memory = transaction.no_memory or not identify_hosts(
        transaction.linker, transaction.snapshot
    )
    for i in range(transaction.loaded.count):
        mine = <Image*>transaction.loaded.items[i]
        for j in range(transaction.snapshot.host_count):
            host = transaction.snapshot.hosts[j]
            if not mine.is_from_bytes and sees(transaction, host) \
                    and load_u64(&host.inode) == mine.inode \
                    and load_u64(&host.device) == mine.device:
                return True
    return False


cdef inline int open_missing_hosts(Transaction* transaction) noexcept nogil:
    """By the host's loader, by the paths that we found; what it ran cannot be undone."""
    cdef size_t i
    cdef void* handle
    cdef const char* path
    cdef const char* reason
    for i in range(transaction.missing_hosts.count):
        path = <const char*>transaction.missing_hosts.items[i]
        report_host_open(path)
        if not pointers_reserve(
            &transaction.linker.registry.allocator, &transaction.counted, 1
        ):
            return fail_memory(transaction.error, path)
        handle = open_host(transaction.linker, path, RTLD_NOW)
        if handle == NULL:
            reason = transaction.linker.host.dlerror()
            if reason == NULL:
                return fail(
                    transaction.error, DLOPEN_E_UNSUPPORTED, path, b"the host's loader refused"
                )
            return fail(transaction.error, DLOPEN_E_HOST, path, reason)
        pointers_add(&transaction.linker.registry.allocator, &transaction.counted, handle)
    return 0


cdef inline int load_tree(Transaction* transaction, const Request* request) noexcept nogil:
    """Root and dependencies; if the host had to open some, the dependencies once more, now
    that they are there."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef int code = 0
    cdef int _round
    for _round in range(8):
        if transaction.no_memory:
            return fail_memory(transaction.error, request.name)
        if transaction.loaded.count == 0:
            code = find_root(transaction, request)
        if code == 0 and transaction.loaded.count:
            code = load_dependencies(transaction)
        if code or transaction.missing_hosts.count == 0:
            return code
        code = open_missing_hosts(transaction)
        if code:
            return code
        free_texts(allocator, &transaction.missing_hosts)
        free_texts(allocator, &transaction.missing_names)
        reader_leave(&transaction.linker.registry, transaction.phase)
        look_afresh(transaction)
        if not transaction.no_memory and host_has_loaded(transaction):
            free_new_images(transaction)
            unpin_all(transaction)
    return fail(
        transaction.error, DLOPEN_E_UNSUPPORTED, request.name,
        b"a host library does not stay loaded"
    )
