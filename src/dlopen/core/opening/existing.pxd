"""What is loaded already, asked for by its path, soname or base name, or at hand: counted, as an
open that loads nothing."""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_NOT_LOADED, DLOPEN_E_STATE, DLOPEN_E_STOPPED, Error, Request,
)
from dlopen.core.base.details cimport DETAIL_NOT_LINKED, DETAIL_NOT_LOADED
from dlopen.core.base.errors cimport fail, fail_handle, fail_memory
from dlopen.core.base.strings cimport strchr, strcmp
from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, image_name, is_linked
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.naming cimport same_file_name
from dlopen.core.image.path cimport image_path
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.opening.acquire cimport acquire
from dlopen.core.opening.initialise cimport initialise
from dlopen.core.opening.known cimport Asked, IsMeant, Wanted, first_named, loaded_by_name
from dlopen.core.opening.publish cimport count_root
from dlopen.core.opening.transaction cimport FAILED, Transaction, begin, end, rely_on
from dlopen.core.symbols.report cimport report_open


cdef inline bint is_found_by_base_name(
    const Transaction* transaction, const Image* image, const Asked* asked
) noexcept nogil:
    """By its soname or the last part of its path: one that others find."""
    return (load_u32(&image.life.is_visible) or image.is_host) \
        and same_file_name(image, asked.name)


cdef inline bint is_at_path(
    const Transaction* transaction, const Image* image, const Asked* asked
) noexcept nogil:
    """Its path is this very text: also what no search finds, which is the program, what is
    PRIVATE, from bytes, or of another namespace."""
    return is_linked(image) and not load_u32(&image.changes.is_replaced) \
        and strcmp(image_path(image), asked.name) == 0


cdef inline Image* first_by_path(
    Transaction* transaction, IsMeant fits, const char* name
) noexcept nogil:
    """That is meant by a path or a part of it. The program's is in no table."""
    cdef const Snapshot* snapshot = transaction.snapshot
    cdef Image* image = first_named(transaction, fits, name)
    cdef Asked asked
    asked.name = name
    if image == NULL and not transaction.no_memory and snapshot.host_count != 0 \
            and fits(transaction, snapshot.hosts[0], &asked):
        image = snapshot.hosts[0]
    return image


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
        transaction.root = first_by_path(transaction, is_found_by_base_name, name)
    if transaction.root == NULL and not transaction.no_memory and strchr(name, 0x2f) != NULL:
        if acquire(transaction, &wanted, &transaction.root) == FAILED \
                and transaction.code == DLOPEN_E_STOPPED:
            end(transaction)
            return DLOPEN_E_STOPPED
    if transaction.root == NULL and not transaction.no_memory:
        transaction.root = first_by_path(transaction, is_at_path, name)
    return count_existing(transaction, name, result, error)
