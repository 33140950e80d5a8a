"""An open as a transaction.

It works on images that nobody else knows, with no lock held, and pins the published ones that it
relies on. At the end it publishes all at once, under the lock. If somebody else has published one
of the same files meanwhile, it rolls back and starts again. So no thread waits for another's
loading, and two opens that need each other cannot block.

No constructor has run by then. But resolvers may have, and the caller's own files and replacements
may have been asked for: these are run and asked again.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport allocate_unset, release
from dlopen.core.base.atomics cimport load_pointer, store_pointer
from dlopen.core.base.contract cimport Error, Request
from dlopen.core.base.errors cimport fail_memory
from dlopen.core.base.growable cimport (
    Pointers, Text, pointers_add, pointers_free, pointers_hold, text_free,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.abi cimport RTLD_NOLOAD
from dlopen.core.host.counts cimport count_host_image
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport Linker, Namespace
from dlopen.core.host.rebind cimport seal_what_is_left
from dlopen.core.host.refresh cimport HOSTS_CHANGED, HOSTS_UNKNOWN, refresh_hosts
from dlopen.core.host.static_tls cimport take_back_tls
from dlopen.core.host.uniques cimport UniqueHosts, free_unique_hosts
from dlopen.core.image.image cimport Image, Unique, image_free_records
from dlopen.core.image.listing cimport is_present
from dlopen.core.image.registry cimport (
    Claim, Registry, Snapshot, current_snapshot, reader_enter, reader_leave,
)
from dlopen.core.memory.file cimport File, Files, file_init
from dlopen.core.opening.claims cimport Wait, end_claim
from dlopen.core.opening.loaded cimport LoadedIndex, free_loaded_index
from dlopen.core.opening.map_image cimport unmap_image
from dlopen.core.opening.texts cimport free_texts
from dlopen.core.relocation.batch cimport Batch
from dlopen.core.relocation.resolvers cimport free_deferred
from dlopen.core.search.cache cimport CacheUse, forget_cache
from dlopen.core.search.trail cimport Trail, trail_init
from dlopen.core.symbols.index cimport SearchedList, free_searched
from dlopen.core.symbols.scopes cimport Scopes, free_scopes
from dlopen.core.symbols.unique cimport UniqueTable


cdef enum Outcome:               # how a step of an open ends
    DONE = 0
    FAILED                       # as Transaction.code says
    TRY_AGAIN                    # somebody else published what this transaction loads
    HOSTS_OWN                    # one of the caller's files must be the host's


cdef struct Transaction:
    Linker* linker
    const Request* request       # whose caller waits for it
    Error* error                 # may be NULL
    int code                     # DLOPEN_E_*: why it has failed, with `error`
    int64_t namespace_id         # of all that it finds and loads
    Files files                  # the caller's
    const Namespace* space       # its record, kept by who opens; NULL: none
    const Snapshot* snapshot     # of the images of others; kept alive by `phase`
    uint32_t phase
    uint64_t generation          # of the registry at the start
    Pointers loaded              # Image*: new ones, breadth first
    LoadedIndex loaded_index     # of these, where they are many
    Pointers pinned              # Image*: published ones of ours that it relies on
    Pointers counted             # void*: handles of the host's, to give back
    Pointers definers            # Image*: opening/definers.pxd, if `knows_definers`
    Pointers missing_hosts       # char*, owned: paths that the host must open
    Pointers missing_names       # char*, owned: by which they are needed
    Text hosts_own               # the soname of what was given and must be the host's; "": none
    SearchedList searched        # the root's search list, which all new images have
    Scopes scopes                # of the new images, and
    Batch batch                  # what they are relocated with
    # STB_GNU_UNIQUE: the definitions of ours that are the process's once this is published.
    UniqueTable* uniques         # NULL while there is none
    Unique* new_uniques          # the same, linked by `sibling`; owned until then
    uint32_t unique_additions    # of the process's table at the start
    UniqueHosts unique_hosts
    Claim claim                  # of the root's file
    Wait* wait                   # of the open, which may take several transactions; NULL: none
    Image* root
    bint is_itself               # the root was asked for as itself, and not by what others may have
    CacheUse cache               # for all searches of it
    bint is_stale                # an image is there, but what `snapshot` has of it is old
    bint no_memory               # what is there could not all be looked at, or kept
    Trail trail                  # of the name that is looked for at the moment
    File file                    # the one that is looked at
    bint knows_definers          # of the late globals of the host's no other need be searched


# Finding images ------------------------------------------------------------------


cdef inline bint is_pinned(const Transaction* transaction, const Image* image) noexcept nogil:
    """By this transaction, and by no other since: then it may be pinned twice, and unpinned so."""
    return load_pointer(&image.life.pinner) == <const void*>transaction


cdef inline bint pin(Transaction* transaction, Image* image) noexcept nogil:
    """A published image stays while the transaction runs, of the host's at least what we
    know of it; False if it is being closed, or with Transaction.no_memory."""
    cdef Registry* registry = &transaction.linker.registry
    cdef bint usable
    if is_pinned(transaction, image):
        return True
    lock_acquire(&registry.lock)
    usable = is_present(registry, image)
    if usable and not pointers_add(&transaction.pinned, image):
        transaction.no_memory = True
        usable = False
    if usable:
        image.life.pins += 1
        store_pointer(&image.life.pinner, transaction)
    lock_release(&registry.lock)
    return usable


cdef inline bint rely_on(Transaction* transaction, Image* image) noexcept nogil:
    """The image stays while the transaction runs: one of ours is pinned, one of the host's counted
    with the host. False if it has gone, or with Transaction.no_memory or is_stale."""
    cdef void* handle
    if pointers_hold(&transaction.loaded, image) or image.host.is_startup \
            or is_pinned(transaction, image):
        return True
    if not image.is_host:
        return pin(transaction, image)
    handle = count_host_image(transaction.linker, image, 0)
    if handle == NULL:
        return False
    if not pin(transaction, image):
        transaction.is_stale = True      # unless there is no memory, which goes before
    elif pointers_add(&transaction.counted, handle):
        return True
    else:
        transaction.no_memory = True
    close_host(transaction.linker, handle)
    return False


# The transaction -----------------------------------------------------------------


cdef inline Transaction* begin(
    Linker* linker, const Request* request, Error* error
) noexcept nogil:
    """Not on the stack, which may be a small thread's. NULL without memory."""
    cdef Transaction* transaction = <Transaction*>allocate_unset(sizeof(Transaction))
    if transaction == NULL:
        return NULL
    memset(transaction, 0, <size_t>(<char*>&transaction.trail - <char*>transaction))
    trail_init(&transaction.trail)
    file_init(&transaction.file)
    transaction.linker = linker
    transaction.request = request
    transaction.error = error
    # What they give is an image of this open's own, and so none that is loaded already.
    if not request.mode & RTLD_NOLOAD:
        transaction.files.read = request.files
        transaction.files.data = request.files_data
        transaction.files.locate = request.members
        transaction.files.locate_data = request.members_data
    look_afresh(transaction)
    return transaction


cdef inline void look_afresh(Transaction* transaction) noexcept nogil:
    """Takes the newest snapshot, with the host's images as they are now."""
    cdef Registry* registry = &transaction.linker.registry
    cdef int hosts
    transaction.phase = reader_enter(registry)
    hosts = refresh_hosts(transaction.linker, current_snapshot(registry))
    transaction.no_memory = transaction.no_memory or hosts == HOSTS_UNKNOWN
    if hosts == HOSTS_CHANGED:
        reader_leave(registry, transaction.phase)
        transaction.phase = reader_enter(registry)
    lock_acquire(&registry.lock)
    transaction.snapshot = current_snapshot(registry)
    transaction.generation = registry.generation
    transaction.unique_additions = transaction.linker.uniques.additions
    lock_release(&registry.lock)


cdef inline void free_new_images(Transaction* transaction) noexcept nogil:
    """All of them, that nobody else has seen."""
    cdef size_t i
    cdef Image* image
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        take_back_tls(transaction.linker, image)
        unmap_image(image)
        image_free_records(image)
    transaction.loaded.count = 0


cdef inline void unpin_all(Transaction* transaction) noexcept nogil:
    """Gives back what `pin` has counted."""
    cdef size_t i
    cdef Image* image
    lock_acquire(&transaction.linker.registry.lock)
    for i in range(transaction.pinned.count):
        image = <Image*>transaction.pinned.items[i]
        image.life.pins -= 1
        if is_pinned(transaction, image):
            store_pointer(&image.life.pinner, NULL)
    lock_release(&transaction.linker.registry.lock)
    transaction.pinned.count = 0


cdef inline void end(Transaction* transaction) noexcept nogil:
    """What is left of it after success or failure: the only rollback there is."""
    cdef size_t i
    cdef Unique* unique
    end_claim(&transaction.linker.registry, &transaction.claim)
    seal_what_is_left(transaction.linker)
    free_deferred(&transaction.batch)
    free_new_images(transaction)
    unpin_all(transaction)
    reader_leave(&transaction.linker.registry, transaction.phase)
    for i in range(transaction.counted.count):
        close_host(transaction.linker, transaction.counted.items[i])
    free_unique_hosts(transaction.linker, &transaction.unique_hosts)
    while transaction.new_uniques != NULL:
        unique = transaction.new_uniques
        transaction.new_uniques = unique.sibling
        release(unique)
    release(transaction.uniques)
    pointers_free(&transaction.loaded)
    free_loaded_index(&transaction.loaded_index)
    pointers_free(&transaction.pinned)
    pointers_free(&transaction.counted)
    pointers_free(&transaction.definers)
    forget_cache(transaction.linker, &transaction.cache)
    free_texts(&transaction.missing_hosts)
    free_texts(&transaction.missing_names)
    text_free(&transaction.hosts_own)
    free_searched(&transaction.searched)
    free_scopes(&transaction.scopes)
    release(transaction)


cdef inline Outcome outcome_of(Transaction* transaction, int code) noexcept nogil:
    """Of a step that has ended with a DLOPEN_E_*, or 0."""
    transaction.code = code
    return FAILED if code else DONE


cdef inline Outcome no_memory(Transaction* transaction, const char* name) noexcept nogil:
    """The outcome and the error of a step that has found none."""
    return outcome_of(transaction, fail_memory(transaction.error, name))


cdef inline Outcome whether_again(
    Transaction* transaction, const char* name, Outcome outcome
) noexcept nogil:
    """Once more, if what was there has changed; but not for want of memory."""
    if transaction.no_memory:
        return no_memory(transaction, name)
    return TRY_AGAIN if transaction.is_stale else outcome


cdef inline const Image* replaced_by(const Transaction* transaction) noexcept nogil:
    """In nobody's scope for this transaction; as a rule NULL."""
    return <const Image*>transaction.request.replaces
