"""The steps of an open: find, map, scope, relocate, protect, publish, initialise."""

from libc.stddef cimport size_t

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_INVALID, DLOPEN_E_NOT_LOADED, DLOPEN_E_STATE, DLOPEN_E_STOPPED, DLOPEN_KEEP_AS_LIBC,
    DLOPEN_NO_FOREIGN_CODE, Error, Request,
)
from dlopen.core.base.errors cimport fail, fail_memory, fail_system
from dlopen.core.base.kernel cimport EINVAL
from dlopen.core.base.strings cimport strchr
from dlopen.core.host.abi cimport RTLD_GLOBAL, RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.linker cimport Linker, Namespace
from dlopen.core.host.namespaces cimport (
    NEW_NAMESPACE, enter_namespace, leave_namespace, new_namespace,
)
from dlopen.core.host.refresh cimport bring_unwinder
from dlopen.core.image.image cimport Image
from dlopen.core.image.naming cimport same_file_name
from dlopen.core.opening.acquire cimport acquire
from dlopen.core.opening.catching cimport is_catching
from dlopen.core.opening.initialise cimport initialise
from dlopen.core.opening.known cimport loaded_by_name
from dlopen.core.opening.link cimport link_images
from dlopen.core.opening.publish cimport count_root, make_global, publish
from dlopen.core.opening.replacing cimport replace_symbols
from dlopen.core.opening.root cimport load_tree
from dlopen.core.opening.transaction cimport (
    TRY_AGAIN, Transaction, begin, end, take, use_files, whether_again,
)
from dlopen.core.symbols.report cimport report_loaded, report_open


cdef inline int open_once(
    Linker* linker, const Request* request, const Namespace* space, Image** result, Error* error
) noexcept nogil:
    """One attempt; TRY_AGAIN if another thread was first."""
    cdef Transaction* transaction
    cdef int code
    cdef Image* root = NULL
    transaction = begin(linker, request.mode, request.flags, error)
    if transaction == NULL:
        return fail_memory(error, request.name)
    use_files(transaction, request)
    transaction.namespace_id = request.namespace_id
    transaction.replaces = <Image*>request.replaces
    transaction.space = space
    if request.namespace_id == NEW_NAMESPACE:
        transaction.namespace_id = new_namespace(linker)
    code = load_tree(transaction, request)
    if code != DLOPEN_E_STOPPED:
        code = whether_again(transaction, request.name, code)
    if code == 0:
        code = replace_symbols(transaction, request)
    if code == 0 and transaction.loaded.count:
        code = whether_again(transaction, request.name, link_images(transaction))
        if code == 0:
            code = publish(transaction)
        if code == 0:
            report_loaded(&transaction.loaded)
            transaction.loaded.count = 0      # they are the registry's now
    root = transaction.root
    if code == 0 and request.mode & RTLD_GLOBAL and not root.is_host:
        transaction.no_memory = not make_global(linker, root)
    if code == 0 and (transaction.no_memory or not count_root(transaction)):
        code = whether_again(transaction, request.name, TRY_AGAIN)
    end(transaction)
    if code == 0:
        # Under libc's names an exception goes on, and libc's callers end by it; but not where
        # it would be caught further out, with this open half done for ever.
        code = initialise(
            linker, root, not request.flags & DLOPEN_KEEP_AS_LIBC or is_catching(), error
        )
        result[0] = root
    return code


cdef inline int open_image(
    Linker* linker, const Request* request, Image** result, Error* error
) noexcept nogil:
    cdef Namespace* space = NULL
    cdef int code = TRY_AGAIN
    cdef int _round
    if request.bytes == NULL and request.name != NULL and request.name[0] == 0:
        return fail(error, DLOPEN_E_INVALID, request.name, b"an empty name")
    if request.bytes != NULL and request.name == NULL:
        return fail(error, DLOPEN_E_INVALID, b"", b"an image from bytes needs a name")
    if not enter_namespace(linker, request.namespace_id, &space):
        return fail_system(
            error, DLOPEN_E_INVALID, request.name, b"invalid target namespace in dlmopen()",
            -EINVAL
        )
    if not request.flags & DLOPEN_NO_FOREIGN_CODE:
        bring_unwinder(linker)
    for _round in range(1000):
        code = open_once(linker, request, space, result, error)
        if code != TRY_AGAIN:
            report_open(request.name, code, result, error)
            break
    leave_namespace(linker, space)
    if code == TRY_AGAIN:
        return fail(error, DLOPEN_E_STATE, request.name, b"other threads kept replacing it")
    return code


cdef inline int open_existing(
    Linker* linker, const char* name, Image** result, Error* error
) noexcept nogil:
    """By path, soname or base name; counted."""
    cdef Transaction* transaction
    cdef Image* image
    cdef size_t i
    cdef bint counted
    cdef int code
    transaction = begin(linker, RTLD_NOLOAD | RTLD_LAZY, 0, error)
    if transaction == NULL:
        return fail_memory(error, name)
    transaction.root = loaded_by_name(transaction, name, NULL, False)
    if transaction.root == NULL and not transaction.no_memory:
        for i in range(transaction.snapshot.host_count + transaction.snapshot.count):
            image = transaction.snapshot.hosts[i] if i < transaction.snapshot.host_count \
                else transaction.snapshot.images[i - transaction.snapshot.host_count]
            if (load_u32(&image.is_visible) or image.is_host) and same_file_name(image, name) \
                    and take(transaction, image):
                transaction.root = image
                break
    if transaction.root == NULL and not transaction.no_memory and strchr(name, 0x2f) != NULL:
        acquire(transaction, name, NULL, False, &transaction.root)
    counted = transaction.root != NULL and not transaction.no_memory and count_root(transaction)
    if transaction.no_memory:
        code = fail_memory(error, name)
    elif not counted:
        code = fail(error, DLOPEN_E_NOT_LOADED, name, b"it is not loaded")
    else:
        code = 0
        result[0] = transaction.root
    report_open(name, code, result, error)
    end(transaction)
    if code == 0:
        # Waits for the thread that is at it.
        code = initialise(linker, result[0], True, error)
    return code
