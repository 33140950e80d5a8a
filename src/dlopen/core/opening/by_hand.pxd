"""An open in two steps, DLOPEN_map and DLOPEN_relocate: first mapped and checked, then relocated
with the scope that the caller gives. In between it is known by its handle only."""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32, store_u32, store_u64
from dlopen.core.base.contract cimport (
    DLOPEN_E_HANDLE, DLOPEN_E_INVALID, DLOPEN_E_STATE, DLOPEN_E_UNSUPPORTED, DLOPEN_NO_FOREIGN_CODE,
    DLOPEN_STATE_INITIALISING, DLOPEN_STATE_LOADING, DLOPEN_STATE_MAPPED, Error, Request,
)
from dlopen.core.base.details cimport (
    DETAIL_BOUND_GONE, DETAIL_EMPTY_NAME, DETAIL_HOSTS_OWN, DETAIL_MEMBER_NAME, DETAIL_NOT_MAPPED,
    DETAIL_SCOPE_GONE,
)
from dlopen.core.base.errors cimport fail, fail_handle, fail_memory
from dlopen.core.base.growable cimport Pointers, Text, pointers_add, text_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strchr
from dlopen.core.host.debugger cimport show_to_debugger
from dlopen.core.host.libraries cimport must_be_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.dynamic cimport refuse
from dlopen.core.image.image cimport Image, image_free_records, image_name, is_linked
from dlopen.core.image.listing cimport add_image, is_image, is_present, reserve_images
from dlopen.core.image.registry cimport Registry, this_thread
from dlopen.core.image.shown cimport reserve_shown, show_image
from dlopen.core.memory.file cimport (
    File, add_path_of, file_close, file_from_bytes, file_from_member, file_init, has_files,
    make_plain,
)
from dlopen.core.opening.acquire cimport not_found, open_found, stopped
from dlopen.core.opening.initialise cimport initialise
from dlopen.core.opening.map_image cimport map_image, new_image, unmap_image
from dlopen.core.opening.open cimport link_images
from dlopen.core.opening.publish cimport (
    count_all_needs, expect_unwinders, give_back_hosts, keep_hosts,
)
from dlopen.core.opening.replacing cimport replace_symbols
from dlopen.core.opening.transaction cimport (
    DONE, Outcome, Transaction, begin, end, no_memory, outcome_of, rely_on,
)
from dlopen.core.search.candidates cimport try_files
from dlopen.core.search.find cimport find_file
from dlopen.core.search.trail cimport Trail, trail_free
from dlopen.core.symbols.report cimport report_open


cdef inline int map_only(
    Linker* linker, const Request* request, Image** result, Error* error
) noexcept nogil:
    """One file mapped and checked, known to the registry by its handle only."""
    cdef Transaction* transaction
    cdef Registry* registry = &linker.registry
    cdef Pointers mapped         # `image`
    cdef Text path
    cdef Trail* trail
    cdef File* file
    cdef Image* image = NULL
    cdef int code = 0
    if request.name == NULL or request.name[0] == 0:
        return fail(error, DLOPEN_E_INVALID, b"", DETAIL_EMPTY_NAME)
    if request.member != NULL and request.bytes != NULL:
        return fail(error, DLOPEN_E_INVALID, request.name, DETAIL_MEMBER_NAME)
    memset(&path, 0, sizeof(path))
    transaction = begin(linker, request, error)
    if transaction == NULL:
        return fail_memory(error, request.name)
    trail = &transaction.trail
    file = &transaction.file
    file_init(file)
    add_path_of(&path, request.member, request.name)
    if request.member != NULL:
        if not path.failed:
            make_plain(path.data)
        file_from_member(file, request.member)
    elif request.bytes != NULL:
        file_from_bytes(file, request.bytes, request.bytes_size)
    else:
        # A path is a file to be looked at; a name is searched for, as if it were to be opened.
        transaction.files.of_any_machine = strchr(request.name, 0x2f) != NULL
        if (not has_files(&transaction.files) or not try_files(
            &transaction.files, request.name, &path, trail, file
        )) and not find_file(
            linker, transaction.snapshot, request.name, NULL, NULL, &path, trail,
            &transaction.cache, file, &transaction.files
        ):
            code = not_found(transaction, request.name)
    if path.failed or transaction.no_memory:
        code = fail_memory(error, request.name)
    if transaction.files.stopped:
        code = stopped(transaction, request.name)
    if code == 0:
        code = open_found(linker, file, &path, error)
    if code == 0:
        image = new_image(path.data, file.is_from_files)
        if image == NULL:
            code = fail_memory(error, request.name)
        else:
            code = map_image(linker, NULL, file, image, True, error)
            if code:
                image_free_records(image)
                image = NULL
    file_close(file)
    if code == 0:
        image.life.state = DLOPEN_STATE_MAPPED
        image.is_private = True
        image.scope.is_own = True
        image.scope.is_own_first = True
        image.life.open_count = 1
        mapped.items = <void**>&image
        mapped.count = 1
        lock_acquire(&registry.lock)
        if reserve_images(registry, &mapped):
            add_image(registry, image)
        else:
            code = fail_memory(error, request.name)
        lock_release(&registry.lock)
        if code:
            unmap_image(image)
            image_free_records(image)
        else:
            result[0] = image
    report_open(request.name, code, result, error)
    text_free(&path)
    trail_free(trail)
    end(transaction)
    return code


cdef inline bint claim_mapped(Registry* registry, Image* image) noexcept nogil:
    """Once: a second thread finds it claimed. It stays then, though another one may close it."""
    cdef bint is_mapped
    lock_acquire(&registry.lock)
    is_mapped = is_present(registry, image) \
        and load_u32(&image.life.state) == DLOPEN_STATE_MAPPED and image.scope.lists == NULL
    if is_mapped:
        image.life.is_claimed = True
        store_u64(&image.life.initialiser, this_thread())
        store_u32(&image.life.state, DLOPEN_STATE_LOADING)
    lock_release(&registry.lock)
    return is_mapped


cdef inline Outcome take_scope(
    Transaction* transaction, Image* image, Image** scope, size_t count
) noexcept nogil:
    """The image's search list: itself, then these, which it depends on from now on."""
    cdef size_t i
    if not pointers_add(&image.scope.search_list.images, image):
        return no_memory(transaction, image_name(image))
    for i in range(count):
        if scope[i] == image:
            continue             # it is the first in any case
        if not is_image(&transaction.linker.registry, scope[i]) or not is_linked(scope[i]) \
                or not rely_on(transaction, scope[i]):
            if transaction.no_memory:
                return no_memory(transaction, image_name(image))
            return outcome_of(transaction, fail(
                transaction.error, DLOPEN_E_HANDLE, image_name(image), DETAIL_SCOPE_GONE
            ))
        if not pointers_add(&image.scope.search_list.images, scope[i]) \
                or not pointers_add(&image.needs.dependencies, scope[i]):
            return no_memory(transaction, image_name(image))
    # It is what is linked.
    if not pointers_add(&transaction.loaded, image):
        return no_memory(transaction, image_name(image))
    return DONE


cdef inline Outcome publish_relocated(Transaction* transaction) noexcept nogil:
    """The registry knows it already, as mapped."""
    cdef Linker* linker = transaction.linker
    cdef Image* image = transaction.root
    if not keep_hosts(transaction):
        give_back_hosts(linker, image)
        return no_memory(transaction, image_name(image)) if transaction.no_memory \
            else outcome_of(transaction, fail(
                transaction.error, DLOPEN_E_HANDLE, image_name(image), DETAIL_BOUND_GONE
            ))
    lock_acquire(&linker.registry.lock)
    if not reserve_shown(&linker.registry.shown, &linker.registry.retirement, 1):
        lock_release(&linker.registry.lock)
        give_back_hosts(linker, image)
        return no_memory(transaction, image_name(image))
    store_u64(&image.life.initialiser, this_thread())
    image.life.opened_for = image
    store_u32(&image.life.state, DLOPEN_STATE_INITIALISING)
    show_image(&linker.registry.shown, image)
    count_all_needs(transaction)
    store_u64(&linker.registry.adds, linker.registry.adds + 1)
    # A swap that is under way has not looked at it.
    linker.registry.generation += 1
    lock_release(&linker.registry.lock)
    show_to_debugger(linker, &transaction.loaded)
    return DONE


cdef inline Outcome check_mapped(Transaction* transaction) noexcept nogil:
    """It may be linked at all."""
    cdef Image* image = transaction.root
    cdef int code = refuse(image, image_name(image), transaction.error)
    if code == 0 and transaction.no_memory:
        code = fail_memory(transaction.error, image_name(image))
    if code == 0 and must_be_hosts(image):
        code = fail(transaction.error, DLOPEN_E_UNSUPPORTED, image_name(image), DETAIL_HOSTS_OWN)
    return outcome_of(transaction, code)


cdef inline int link_mapped(
    Linker* linker, Image* image, const Request* request, Image** scope, size_t scope_count,
    Error* error
) noexcept nogil:
    """The image is this thread's: `is_being_linked`. As opening/open.pxd, from the scope on."""
    cdef Transaction* transaction
    cdef Outcome outcome
    cdef int code
    transaction = begin(linker, request, error)
    if transaction == NULL:
        return fail_memory(error, image_name(image))
    image.no_foreign_code = request.flags & DLOPEN_NO_FOREIGN_CODE != 0
    image.scope.is_exact = True
    transaction.root = image
    outcome = (
        check_mapped(transaction)
        # Scope: what was given, and nothing else.
        or take_scope(transaction, image, scope, scope_count)
        # Replace: whatever its references find there.
        or replace_symbols(transaction)
        # Link: as any other image.
        or link_images(transaction)
        # Expect, count, publish and announce.
        or expect_unwinders(transaction)
        or publish_relocated(transaction)
    )
    code = transaction.code if outcome != DONE else 0
    transaction.loaded.count = 0     # it is the registry's
    if code:
        forget_linking(&linker.registry, image)
    end(transaction)
    return code


cdef inline void forget_linking(Registry* registry, Image* image) noexcept nogil:
    """It has failed: nothing of it was counted. The image stays claimed: places are written."""
    lock_acquire(&registry.lock)
    image.needs.dependencies.count = 0
    image.needs.bindings.count = 0
    image.needs.sorted.count = 0
    lock_release(&registry.lock)


cdef inline int relocate_mapped(
    Linker* linker, Image* image, const Request* request, Image** scope, size_t scope_count,
    bint* is_closed, Error* error
) noexcept nogil:
    """The second step after map_only. `is_closed`: by this, as it has failed, or by another thread
    meanwhile: for collect(), which unpins it."""
    cdef Registry* registry = &linker.registry
    cdef int code
    if not claim_mapped(registry, image):
        return fail(error, DLOPEN_E_STATE, b"", DETAIL_NOT_MAPPED)
    code = link_mapped(linker, image, request, scope, scope_count, error)
    if code == 0:
        code = initialise(linker, image, True, error)
    lock_acquire(&registry.lock)
    image.life.is_claimed = False
    if code and image.life.open_count != 0:
        store_u32(&image.life.open_count, image.life.open_count - 1)
    is_closed[0] = image.life.open_count == 0
    image.life.pins += is_closed[0]
    lock_release(&registry.lock)
    return fail_handle(error) if code == 0 and is_closed[0] else code
