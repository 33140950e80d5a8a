"""All of a transaction at once: from here on other threads see it.

What could fail is done first. Under the lock it is looked at whether another open was first with
one of the same files, or a scope that this one relied on has changed; then nothing is published,
and the open starts again.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from dlopen.core.base.atomics cimport load_u32, store_flag, store_u32, store_u64
from dlopen.core.base.contract cimport DLOPEN_NO_FOREIGN_CODE, DLOPEN_STATE_INITIALISING
from dlopen.core.base.growable cimport Pointers, pointer_at, pointers_add, pointers_reserve
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.abi cimport RTLD_GLOBAL, RTLD_NODELETE
from dlopen.core.host.counts cimport count_host_image
from dlopen.core.host.debugger cimport show_to_debugger
from dlopen.core.host.host_lock cimport close_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.redirect cimport expect_late_unwinders
from dlopen.core.image.image cimport Image, Retired, Unique, image_name
from dlopen.core.image.index cimport IndexSearch, begin_search, next_found
from dlopen.core.image.known_by cimport file_key, identity_of, is_same_file
from dlopen.core.image.listing cimport add_image, is_present, reserve_images
from dlopen.core.image.registry cimport Registry, Snapshot, this_thread
from dlopen.core.image.scope_lists cimport free_wider_scopes, take_wider_scopes, widen_scope
from dlopen.core.image.shown cimport reserve_shown, show_image
from dlopen.core.image.snapshot cimport (
    drop_snapshot, join_globals, list_to_join, make_snapshot, publish_snapshot,
)
from dlopen.core.memory.file cimport FileIdentity
from dlopen.core.opening.claims cimport end_claim
from dlopen.core.opening.transaction cimport (
    DONE, TRY_AGAIN, Outcome, Transaction, no_memory, whether_again,
)
from dlopen.core.opening.tree cimport put_filtees_first, sort_tree
from dlopen.core.symbols.lookup cimport Reference, refer, symbol_name
from dlopen.core.symbols.report cimport report_loaded
from dlopen.core.symbols.unique cimport UniqueTable, add_unique, find_unique


cdef inline bint uniques_conflict(const Transaction* transaction) noexcept nogil:
    """Under the lock: another transaction was first with one of the names."""
    cdef const UniqueTable* table = &transaction.linker.uniques
    cdef const Unique* entry = transaction.new_uniques
    cdef Reference reference
    if table.additions == transaction.unique_additions:
        return False
    while entry != NULL:
        refer(&reference, symbol_name(entry.image, entry.symbol), NULL)
        if find_unique(table, transaction.namespace_id, &reference) != NULL:
            return True
        entry = entry.sibling
    return False


cdef inline void publish_uniques(Transaction* transaction) noexcept nogil:
    """Under the lock."""
    cdef Unique* entry
    while transaction.new_uniques != NULL:
        entry = transaction.new_uniques
        transaction.new_uniques = entry.sibling
        entry.sibling = entry.image.uniques
        entry.image.uniques = entry
        add_unique(&transaction.linker.uniques, entry)


cdef inline bint holds_replaced(const Pointers* images) noexcept nogil:
    """A hot swap has put another in the place of one of them."""
    cdef size_t i
    for i in range(images.count):
        if load_u32(&(<const Image*>images.items[i]).changes.is_replaced):
            return True
    return False


cdef inline bint is_loaded_from(
    const Registry* registry, const FileIdentity* file, int64_t namespace_id
) noexcept nogil:
    """Under the lock: all may find an image of this file."""
    cdef IndexSearch search
    cdef const Image* image
    begin_search(&registry.files, file_key(file), &search)
    image = next_found(&search)
    while image != NULL and not (
        image.life.is_visible and is_same_file(image, file)
        and image.namespace_id == namespace_id
    ):
        image = next_found(&search)
    return image != NULL


cdef inline bint conflicts(Transaction* transaction) noexcept nogil:
    """Under the lock: what this transaction loads was published by another one, or another
    image has taken the place of what it relies on."""
    cdef Registry* registry = &transaction.linker.registry
    cdef FileIdentity file
    cdef size_t i
    cdef Image* mine
    if uniques_conflict(transaction):
        return True
    if registry.generation == transaction.generation:
        return False
    for i in range(transaction.loaded.count):
        mine = <Image*>transaction.loaded.items[i]
        if holds_replaced(&mine.needs.dependencies) or holds_replaced(&mine.needs.bindings) \
                or holds_replaced(&mine.scope.search_list.images):
            return True
        if not mine.life.is_visible or mine.is_from_bytes:
            continue
        file = identity_of(mine)
        if is_loaded_from(registry, &file, mine.namespace_id):
            return True
    return False


cdef inline bint keep_hosts(Transaction* transaction) noexcept nogil:
    """The host images that new images depend on or bound to stay counted for them. With no
    lock held, before publishing. False: one has gone, or with Transaction.no_memory."""
    cdef Linker* linker = transaction.linker
    cdef size_t i, j
    cdef Image* image
    cdef Image* other
    cdef void* handle
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        for j in range(image.needs.dependencies.count + image.needs.bindings.count):
            if j < image.needs.dependencies.count:
                other = <Image*>image.needs.dependencies.items[j]
            else:
                other = <Image*>image.needs.bindings.items[j - image.needs.dependencies.count]
            if not other.is_host or other.host.is_startup:
                continue
            if not pointers_reserve(&image.needs.host_handles, 1):
                transaction.no_memory = True
                return False
            handle = count_host_image(linker, other, 0)
            if handle == NULL:
                return False
            pointers_add(&image.needs.host_handles, handle)
    return True


cdef inline void give_back_hosts(Linker* linker, Image* image) noexcept nogil:
    """The counts that an image held; with no lock held."""
    cdef size_t i
    for i in range(image.needs.host_handles.count):
        close_host(linker, image.needs.host_handles.items[i])
    image.needs.host_handles.count = 0


cdef inline void give_back_all_hosts(Transaction* transaction) noexcept nogil:
    cdef size_t i
    for i in range(transaction.loaded.count):
        give_back_hosts(transaction.linker, <Image*>transaction.loaded.items[i])


cdef inline Outcome expect_unwinders(Transaction* transaction) noexcept nogil:
    """Of the first images."""
    if not expect_late_unwinders(
        transaction.linker, transaction.snapshot,
        transaction.request.flags & DLOPEN_NO_FOREIGN_CODE == 0
    ):
        return no_memory(transaction, transaction.request.name)
    return DONE


cdef inline Outcome count_hosts(Transaction* transaction) noexcept nogil:
    """TRY_AGAIN: one has gone."""
    if keep_hosts(transaction):
        return DONE
    give_back_all_hosts(transaction)
    return whether_again(transaction, image_name(transaction.root), TRY_AGAIN)


cdef inline void count_needs(const Pointers* needs) noexcept nogil:
    """Under the lock: those of the host's that images of ours rely on are known by their pins."""
    cdef Image* image
    cdef size_t i
    for i in range(needs.count):
        image = <Image*>needs.items[i]
        if image.is_host:
            image.life.pins += 1
        else:
            image.life.references += 1


cdef inline void count_all_needs(Transaction* transaction) noexcept nogil:
    """Under the lock: of the new images."""
    cdef size_t i
    cdef Image* image
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        count_needs(&image.needs.dependencies)
        count_needs(&image.needs.bindings)


cdef inline Outcome publish(Transaction* transaction) noexcept nogil:
    """All new images at once. TRY_AGAIN if another transaction was first."""
    cdef Registry* registry = &transaction.linker.registry
    cdef Snapshot* snapshot = NULL
    cdef Image* image
    cdef bint complete
    cdef size_t i
    cdef Outcome outcome = DONE
    cdef Image* root = transaction.root
    put_filtees_first(&transaction.loaded)
    lock_acquire(&registry.lock)
    # All that may fail first.
    complete = reserve_images(registry, &transaction.loaded) and reserve_shown(
        &registry.shown, &registry.retirement, transaction.loaded.count
    )
    if complete and transaction.request.mode & RTLD_GLOBAL:
        snapshot = make_room_for_globals(registry, root)
        complete = snapshot != NULL
    if not complete:
        outcome = no_memory(transaction, image_name(root))
    elif conflicts(transaction):
        outcome = TRY_AGAIN
    elif not join_scopes(registry, root):
        outcome = no_memory(transaction, image_name(root))
    if outcome == DONE:
        for i in range(transaction.loaded.count):
            image = <Image*>transaction.loaded.items[i]
            store_u64(&image.life.initialiser, this_thread())
            image.life.opened_for = root
            image.life.fini_due = False
            store_u32(&image.life.state, DLOPEN_STATE_INITIALISING)
            add_image(registry, image)
            show_image(&registry.shown, image)
        count_all_needs(transaction)
        publish_uniques(transaction)
        store_u64(&registry.adds, registry.adds + transaction.loaded.count)
        if snapshot != NULL:
            join_tree(snapshot, root)
            publish_snapshot(registry, snapshot)
    else:
        drop_snapshot(registry, snapshot)
    lock_release(&registry.lock)
    if outcome != DONE:
        give_back_all_hosts(transaction)
    else:
        end_claim(registry, &transaction.claim)      # who waits finds it now
    return outcome


cdef inline Outcome announce(Transaction* transaction) noexcept nogil:
    """To debuggers, and in the log."""
    show_to_debugger(transaction.linker, &transaction.loaded)
    report_loaded(&transaction.loaded)
    transaction.loaded.count = 0     # they are the registry's now
    return DONE


cdef inline Snapshot* make_room_for_globals(
    Registry* registry, const Image* root
) noexcept nogil:
    """Under the lock, for `join_tree`: the snapshot that will show it, or NULL without memory."""
    return make_snapshot(registry, registry.hosts.count, list_to_join(
        registry, root.scope.search_list.images.count, root.namespace_id == 0
    ))


cdef inline bint join_scopes(Registry* registry, Image* root) noexcept nogil:
    """Under the lock: a library that was a dependency until now, and those that it brings, see it
    as a root too. False without memory: then none does."""
    cdef Retired* wider = NULL
    cdef size_t i
    cdef Image* image
    for i in range(root.scope.search_list.images.count):
        image = <Image*>root.scope.search_list.images.items[i]
        if not image.is_host and not widen_scope(image, &root.scope.search_list, &wider):
            free_wider_scopes(wider)
            return False
    take_wider_scopes(&registry.retirement, wider)
    return True


cdef inline bint join_tree(Snapshot* snapshot, const Image* root) noexcept nogil:
    """Under the lock: an image and its dependencies join the global scope, which has room for
    them. False if all are there."""
    cdef size_t i
    cdef Image* image
    cdef bint joined = False
    for i in range(root.scope.search_list.images.count):
        image = <Image*>root.scope.search_list.images.items[i]
        if image.is_host or load_u32(&image.life.is_global):
            continue
        join_globals(snapshot, image)
        joined = True
        if image.is_from_bytes:
            store_u32(&image.life.is_visible, 1)
    return joined


cdef inline bint make_global(Linker* linker, Image* root) noexcept nogil:
    """RTLD_GLOBAL, of an image that is published: it and its dependencies join the global scope.
    False without memory."""
    cdef Registry* registry = &linker.registry
    cdef Snapshot* snapshot
    cdef size_t i
    cdef Image* image
    cdef void* handle
    cdef bint complete
    lock_acquire(&registry.lock)
    snapshot = make_room_for_globals(registry, root)
    complete = snapshot != NULL
    if complete and join_tree(snapshot, root):
        publish_snapshot(registry, snapshot)
    else:
        drop_snapshot(registry, snapshot)
    lock_release(&registry.lock)
    if not complete:
        return False
    if root.namespace_id != 0:
        return True              # the host's are global in the base, or nowhere
    for i in range(root.scope.search_list.images.count):
        image = <Image*>pointer_at(&root.scope.search_list.images, i)
        if image.is_host and not load_u32(&image.life.is_global):
            handle = count_host_image(linker, image, RTLD_GLOBAL)
            if handle != NULL:
                close_host(linker, handle)
    return True


cdef inline Outcome join_global_scope(Transaction* transaction) noexcept nogil:
    """RTLD_GLOBAL, also of what was there already; a host image's own count does it."""
    cdef Image* root = transaction.root
    if transaction.request.mode & RTLD_GLOBAL and not root.is_host \
            and not make_global(transaction.linker, root):
        return no_memory(transaction, transaction.request.name)
    return DONE


cdef inline bint count_root(Transaction* transaction) noexcept nogil:
    """One more open of the root; a host image's is the host's own count. False: another image
    is in its place by now, or with Transaction.no_memory."""
    cdef Linker* linker = transaction.linker
    cdef Image* root = transaction.root
    cdef void* handle = NULL
    cdef uint32_t mode = transaction.request.mode & (RTLD_GLOBAL | RTLD_NODELETE)
    if root.is_host:
        if transaction.namespace_id != 0:
            mode &= ~<uint32_t>RTLD_GLOBAL
        handle = count_host_image(linker, root, <int>mode)
        if handle == NULL:
            return False
    lock_acquire(&linker.registry.lock)
    # A replaced version may still be opened as itself.
    if load_u32(&root.changes.is_replaced) and not transaction.is_itself or (
        root.is_host and not is_present(&linker.registry, root)
    ):
        # Or the host's list was read anew: another image is in its place.
        lock_release(&linker.registry.lock)
        if handle != NULL:
            close_host(linker, handle)
        return False
    if not join_scopes(&linker.registry, root) or not sort_tree(root):
        transaction.no_memory = True
        lock_release(&linker.registry.lock)
        if handle != NULL:
            close_host(linker, handle)
        return False
    store_u32(&root.life.open_count, root.life.open_count + 1)
    if root.is_host:
        root.host.handle = handle
    elif transaction.request.mode & RTLD_NODELETE:
        store_flag(&root.life.nodelete, True)
    lock_release(&linker.registry.lock)
    return True


cdef inline Outcome count_open(Transaction* transaction) noexcept nogil:
    """TRY_AGAIN: another image is in its place by now."""
    if count_root(transaction):
        return DONE
    return whether_again(transaction, transaction.request.name, TRY_AGAIN)
