"""Linking the new images: the steps, which opening/open.pxd puts in order."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_u32, store_flag, store_pointer
from dlopen.core.base.contract cimport (
    DLOPEN_E_STATE, DLOPEN_E_VERSION, DLOPEN_KEEP_AS_LIBC, DLOPEN_NO_FOREIGN_CODE,
    DLOPEN_STATE_LOADING, Request,
)
from dlopen.core.base.details cimport DETAIL_VERSION_MISSING
from dlopen.core.base.errors cimport error_name_symbol, error_needed_by, fail, fail_memory
from dlopen.core.base.growable cimport Pointers
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strcmp
from dlopen.core.elf.constants cimport VER_FLG_WEAK
from dlopen.core.host.abi cimport RTLD_NOW
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.static_tls cimport ask_host_for_static_tls, give_tls
from dlopen.core.host.uniques cimport find_unique_of_host
from dlopen.core.image.dynamic cimport move_dynamic_pointers
from dlopen.core.image.image cimport (
    Image, SearchList, Unique, Version, forget_ranges, image_name,
)
from dlopen.core.image.naming cimport answers_to, same_file_name
from dlopen.core.image.registry cimport Registry
from dlopen.core.memory.mapping cimport protect_relro, protect_text
from dlopen.core.opening.claims cimport end_claim
from dlopen.core.opening.known cimport host_by_name
from dlopen.core.opening.scopes cimport collect_scopes, make_search_list
from dlopen.core.opening.transaction cimport (
    DONE, Outcome, Transaction, no_memory, outcome_of, pin, rely_on,
)
from dlopen.core.opening.tree cimport sort_tree
from dlopen.core.relocation.batch cimport Batch
from dlopen.core.relocation.relocate cimport relocate_image
from dlopen.core.relocation.resolvers cimport resolvers_fill_static_tls, run_resolvers
from dlopen.core.relocation.thread_local cimport relocate_deferred_tls
from dlopen.core.symbols.index cimport expect_lookups
from dlopen.core.symbols.lookup cimport Definition, Reference
from dlopen.core.symbols.report cimport report_scope, report_textrel, report_version
from dlopen.core.symbols.scopes cimport shares_uniques
from dlopen.core.symbols.unique cimport (
    UniqueTable, add_unique, fill_unique, find_unique, take_unique,
)


cdef inline bint has_version(const Image* library, const Version* needed) noexcept nogil:
    """Among its definitions."""
    cdef const Version* version
    cdef uint32_t i
    for i in range(library.tables.version_count):
        version = &library.tables.versions[i]
        if version.library == NULL and version.hash == needed.hash \
                and strcmp(version.name, needed.name) == 0:
            return True
    return False


cdef inline bint is_named(const Image* image, const char* name) noexcept nogil:
    return answers_to(image, name) or same_file_name(image, name)


cdef inline const Image* dependency_named(const Image* image, const char* name) noexcept nogil:
    """The one that a verneed entry names; NULL: none does."""
    cdef const Pointers* images = &image.needs.dependencies
    cdef size_t count = images.count
    cdef size_t i = 0
    # As a rule the name is that of a DT_NEEDED, stands once in the string table, and its library
    # has the same place: it is asked first.
    while i < image.tables.needed.count and image.tables.needed.items[i] != <const void*>name:
        i += 1
    if i < count and is_named(<const Image*>images.items[i], name):
        return <const Image*>images.items[i]
    for i in range(count):
        if is_named(<const Image*>images.items[i], name):
            return <const Image*>images.items[i]
    return NULL


cdef inline int check_versions_of(Transaction* transaction, const Image* image) noexcept nogil:
    """Each version that verneed asks of a library must be defined by it, if it defines
    any; a weak one may be missing. In the file's order, so that the error names the one that
    libc's does."""
    cdef uint32_t place = image.tables.first_needed
    cdef const Version* needed
    cdef const Image* library
    while place != 0:
        needed = &image.tables.versions[place - 1]
        place = needed.next
        if needed.library == NULL or needed.hash == 0 or needed.flags & VER_FLG_WEAK:
            continue
        library = dependency_named(image, needed.library)
        if library == NULL:
            library = host_by_name(&transaction.linker.registry, needed.library)
        report_version(image, needed, library)
        if library == NULL or not library.tables.has_verdef:
            continue
        if not has_version(library, needed):
            fail(transaction.error, DLOPEN_E_VERSION, image_name(library), DETAIL_VERSION_MISSING)
            error_name_symbol(transaction.error, NULL, needed.name)
            error_needed_by(transaction.error, image_name(image))
            return DLOPEN_E_VERSION
    return 0


cdef inline int share_unique(
    void* context, const Reference* reference, Definition* definition
) noexcept nogil:
    """The definition of that name that stands for all in this process: ours, the host's, or
    from now on this one."""
    cdef Transaction* transaction = <Transaction*>context
    cdef Linker* linker = transaction.linker
    cdef Unique* entry = NULL
    if not shares_uniques(definition.image):
        return 0
    if transaction.uniques != NULL:
        entry = find_unique(transaction.uniques, transaction.namespace_id, reference)
    if entry == NULL:
        entry = find_unique(&linker.uniques, transaction.namespace_id, reference)
        if entry != NULL and not pin(transaction, entry.image):
            entry = NULL         # it has been taken out meanwhile
    if transaction.no_memory:
        return fail_memory(transaction.error, image_name(definition.image))
    if entry != NULL:
        take_unique(entry, definition)
        return 0
    if find_unique_of_host(
        linker, transaction.snapshot, transaction.namespace_id, &transaction.unique_hosts,
        reference.name, definition
    ) or definition.image.is_host:
        return 0
    if transaction.unique_hosts.failed:
        return fail_memory(transaction.error, image_name(definition.image))
    entry = <Unique*>allocate(sizeof(Unique))
    if transaction.uniques == NULL:
        transaction.uniques = <UniqueTable*>allocate(sizeof(UniqueTable))
    if entry == NULL or transaction.uniques == NULL:
        release(entry)
        return fail_memory(transaction.error, image_name(definition.image))
    fill_unique(entry, reference, definition)
    entry.sibling = transaction.new_uniques
    transaction.new_uniques = entry
    add_unique(transaction.uniques, entry)
    if transaction.request.flags & DLOPEN_KEEP_AS_LIBC:
        keep_for_ever(&linker.registry, definition.image)
    return 0


cdef inline void keep_for_ever(Registry* registry, Image* image) noexcept nogil:
    """As NODELETE: somebody has an address of it whom nobody counts."""
    lock_acquire(&registry.lock)
    store_flag(&image.life.nodelete, True)
    lock_release(&registry.lock)


cdef inline bint ask_for_static_tls(void* context, const Definition* definition) noexcept nogil:
    """For Batch.ask_for_static_tls."""
    return ask_host_for_static_tls((<Transaction*>context).linker, definition)


cdef inline int keep_bound(void* context, Image* image) noexcept nogil:
    """For Batch.keep_bound. What is searched of ours stays readable in the reader section of the
    open; what is bound to must not be just going."""
    cdef Transaction* transaction = <Transaction*>context
    if rely_on(transaction, image):
        return 0
    if transaction.no_memory:
        return fail_memory(transaction.error, image_name(image))
    transaction.is_stale = True
    return DLOPEN_E_STATE


cdef inline Outcome make_scopes(Transaction* transaction) noexcept nogil:
    """One that is linked by hand (`is_exact`) has its list already."""
    cdef Image* root = <Image*>transaction.loaded.items[0]
    cdef SearchList** scope
    cdef Image* image
    cdef size_t i
    if not root.scope.is_exact and (
        not collect_scopes(transaction)
        or not make_search_list(transaction, root, &root.scope.search_list)
    ):
        return no_memory(transaction, image_name(root))
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        if i and not make_search_list(transaction, image, &image.scope.search_list):
            return no_memory(transaction, image_name(image))
        scope = <SearchList**>allocate(2 * sizeof(SearchList*))
        if scope == NULL:
            return no_memory(transaction, image_name(image))
        scope[0] = &root.scope.search_list
        store_pointer(&image.scope.lists, scope)     # readers know one that was mapped only
        move_dynamic_pointers(image)
        report_scope(image, &transaction.scopes.globals)
    return DONE


cdef inline Outcome check_versions(Transaction* transaction) noexcept nogil:
    """Of all new images that the root needs."""
    cdef const Image* root = <const Image*>transaction.loaded.items[0]
    cdef const Image* image
    cdef size_t i
    cdef int code = 0
    for i in range(0 if root.scope.is_exact else root.scope.search_list.images.count):
        image = <const Image*>root.scope.search_list.images.items[i]
        if not image.is_host and load_u32(&image.life.state) == DLOPEN_STATE_LOADING:
            code = check_versions_of(transaction, image)
        if code:
            break
    return outcome_of(transaction, code)


cdef inline Outcome sort_images(Transaction* transaction) noexcept nogil:
    """Image.needs.sorted of the root: it and all that it needs of ours, dependencies first."""
    cdef Linker* linker = transaction.linker
    cdef Image* root = <Image*>transaction.loaded.items[0]
    cdef bint complete
    # Image.visit.mark of images that are known already.
    lock_acquire(&linker.registry.lock)
    complete = sort_tree(root)
    lock_release(&linker.registry.lock)
    return DONE if complete else no_memory(transaction, image_name(root))


cdef inline void begin_batch(Transaction* transaction) noexcept nogil:
    """What the relocation of all new images needs to know, once for all of them."""
    cdef Linker* linker = transaction.linker
    cdef const Request* request = transaction.request
    cdef const Image* root = <const Image*>transaction.loaded.items[0]
    cdef Batch* batch = &transaction.batch
    transaction.searched.images = &root.scope.search_list.images
    transaction.searched.after_start = not root.scope.deepbind and transaction.namespace_id == 0
    transaction.scopes.searched = &transaction.searched
    transaction.scopes.own_names = linker.own_names
    transaction.scopes.refuses_unversioned = linker.habits.asserts_versions
    transaction.scopes.share_unique = share_unique
    transaction.scopes.context = transaction
    transaction.scopes.error = transaction.error
    batch.scopes = &transaction.scopes
    batch.ask_for_static_tls = ask_for_static_tls
    batch.keep_bound = keep_bound
    batch.context = transaction
    batch.error = transaction.error
    batch.lazy = request.mode & RTLD_NOW == 0 and not linker.process.bind_now
    batch.no_foreign_code = request.flags & DLOPEN_NO_FOREIGN_CODE != 0
    expect_lookups(&transaction.searched, batch.lazy)


cdef inline int relocate_with_text(Batch* batch, Image* image) noexcept nogil:
    """Its text is writable meanwhile, if it must be."""
    cdef int code = 0
    if image.tables.has_textrel:
        report_textrel(image)
        code = protect_text(
            &image.layout, image.bytes_bias, True, image_name(image), batch.error
        )
    if code == 0:
        code = relocate_image(batch, image)
    if code == 0 and image.tables.has_textrel:
        code = protect_text(
            &image.layout, image.bytes_bias, False, image_name(image), batch.error
        )
    return code


cdef inline Outcome relocate_images(Transaction* transaction) noexcept nogil:
    """All but what waits for thread-local storage, and what a resolver gives."""
    cdef const Pointers* order = &(<const Image*>transaction.loaded.items[0]).needs.sorted
    cdef Image* image
    cdef size_t i
    cdef int code = 0
    begin_batch(transaction)
    for i in range(order.count):
        image = <Image*>order.items[i]
        if code == 0 and load_u32(&image.life.state) == DLOPEN_STATE_LOADING:
            code = relocate_with_text(&transaction.batch, image)
    return outcome_of(transaction, code)


cdef inline Outcome resolve_for_static_tls(Transaction* transaction) noexcept nogil:
    """All resolvers, if one of them fills static TLS: the host copies that into all threads when
    it is placed."""
    if transaction.batch.first_deferred != NULL:     # no claim while they run
        end_claim(&transaction.linker.registry, &transaction.claim)
    if resolvers_fill_static_tls(&transaction.batch):
        run_resolvers(&transaction.batch)
    return DONE


cdef inline Outcome place_tls(Transaction* transaction) noexcept nogil:
    """And then the places that waited for it."""
    cdef size_t i
    cdef int code = 0
    for i in range(transaction.loaded.count):
        if code == 0:
            code = give_tls(
                transaction.linker, <Image*>transaction.loaded.items[i],
                transaction.batch.no_foreign_code, transaction.error
            )
    if code == 0:
        code = relocate_deferred_tls(&transaction.batch)
    return outcome_of(transaction, code)


cdef inline Outcome resolve_places(Transaction* transaction) noexcept nogil:
    """Unless all of it is done."""
    if not transaction.batch.is_resolved:
        run_resolvers(&transaction.batch)
    return DONE


cdef inline Outcome protect_images(Transaction* transaction) noexcept nogil:
    """RELRO of each new image, which nothing is written to any more."""
    cdef const Pointers* order = &(<const Image*>transaction.loaded.items[0]).needs.sorted
    cdef Image* image
    cdef size_t i
    cdef int code = 0
    for i in range(order.count):
        image = <Image*>order.items[i]
        if code == 0 and load_u32(&image.life.state) == DLOPEN_STATE_LOADING:
            forget_ranges(image)
            code = protect_relro(
                &image.layout, image.bytes_bias, image.slot, image_name(image), transaction.error
            )
    return outcome_of(transaction, code)
