"""What is loaded already, asked for by its path, soname or base name, or at hand: counted, as an
open that loads nothing."""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport DLOPEN_E_NOT_LOADED, DLOPEN_E_STATE, Error, Request
from dlopen.core.base.details cimport DETAIL_NOT_LINKED, DETAIL_NOT_LOADED
from dlopen.core.base.errors cimport fail, fail_handle, fail_memory
from dlopen.core.base.strings cimport strchr, strcmp
from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, image_name, is_linked
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.naming cimport same_file_name
from dlopen.core.image.path cimport image_path
from dlopen.core.image.registry cimport Snapshot, first_image, next_image
from dlopen.core.opening.acquire cimport acquire
from dlopen.core.opening.initialise cimport initialise
from dlopen.core.opening.known cimport Wanted, loaded_by_name
from dlopen.core.opening.publish cimport count_root
from dlopen.core.opening.transaction cimport Transaction, begin, end, rely_on
from dlopen.core.symbols.report cimport report_open


ctypedef bint (*IsMeant)(const Image* image, const char* text) noexcept nogil


cdef inline Image* first_meant(
    Transaction* transaction, IsMeant is_meant, const char* text
) noexcept nogil:
    """Of all images, the host's first; it is relied on. NULL: none is."""
    cdef const Snapshot* snapshot = transaction.snapshot
    cdef Image* image
    cdef size_t i
    for i in range(snapshot.host_count):
        if is_meant(snapshot.hosts[i], text) and rely_on(transaction, snapshot.hosts[i]):
            return snapshot.hosts[i]
    image = first_image(&transaction.linker.registry)
    while image != NULL and not (is_meant(image, text) and rely_on(transaction, image)):
        image = next_image(image)
    return image


cdef inline bint is_found_by_base_name(const Image* image, const char* name) noexcept nogil:
    """By its soname or the last part of its path: one that others find."""
    return (load_u32(&image.life.is_visible) or image.is_host) and same_file_name(image, name)


cdef inline bint is_at_path(const Image* image, const char* path) noexcept nogil:
    """Its path is this very text: also what no search finds, which is the program, what is
    PRIVATE, from bytes, or of another namespace."""
    return is_linked(image) and not load_u32(&image.changes.is_replaced) \
        and strcmp(image_path(image), path) == 0


cdef inline int count_existing(
    Transaction* transaction, const char* name, Image** result, Error* error
) noexcept nogil:
    """One more open of the root, if there is one; ends the transaction."""
    cdef Linker* linker = transaction.linker
    cdef bint counted = transaction.root != NULL and not transaction.no_memory \
        and count_root(transaction)
    cdef int code = 0
    if transaction.no_memory:
        code = fail_memory(error, name)
    elif not counted:
        code = fail(error, DLOPEN_E_NOT_LOADED, name, DETAIL_NOT_LOADED)
    else:
        result[0] = transaction.root
    report_open(name, code, result, error)
    end(transaction)
    # Another thread may be initialising it: waits for that.
    return code if code else initialise(linker, result[0], True, error)


cdef inline int open_existing_image(
    Linker* linker, Image** result, Error* error
) noexcept nogil:
    """For an address in `result` that may be that of an image."""
    cdef Image* image = result[0]
    cdef Transaction* transaction
    cdef Request request
    cdef int code
    memset(&request, 0, sizeof(request))
    request.mode = RTLD_NOLOAD | RTLD_LAZY
    transaction = begin(linker, &request, error)
    if transaction == NULL:
        return fail_memory(error, b"")
    if not is_image(&linker.registry, image) or not rely_on(transaction, image):
        code = fail_memory(error, b"") if transaction.no_memory else fail_handle(error)
        end(transaction)
        return code
    if not is_linked(image):
        code = fail(error, DLOPEN_E_STATE, image_name(image), DETAIL_NOT_LINKED)
        end(transaction)
        return code
    transaction.root = image
    return count_existing(transaction, image_name(image), result, error)


cdef inline int open_existing(
    Linker* linker, const char* name, Image** result, Error* error
) noexcept nogil:
    """By a name as any open has it, or else by the path that an image has; NULL: what `result`
    holds."""
    cdef Transaction* transaction
    cdef Request request
    cdef Wanted wanted
    if name == NULL:
        return open_existing_image(linker, result, error)
    memset(&request, 0, sizeof(request))
    request.name = name
    request.mode = RTLD_NOLOAD | RTLD_LAZY
    wanted.name = name
    wanted.asker = NULL
    wanted.own_only = False
    transaction = begin(linker, &request, error)
    if transaction == NULL:
        return fail_memory(error, name)
    transaction.root = loaded_by_name(transaction, &wanted)
    if transaction.root == NULL and not transaction.no_memory:
        transaction.root = first_meant(transaction, is_found_by_base_name, name)
    if transaction.root == NULL and not transaction.no_memory and strchr(name, 0x2f) != NULL:
        acquire(transaction, &wanted, &transaction.root)
    if transaction.root == NULL and not transaction.no_memory:
        transaction.root = first_meant(transaction, is_at_path, name)
    return count_existing(transaction, name, result, error)
