"""What is loaded already, asked for by its path, soname or base name."""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport DLOPEN_E_NOT_LOADED, Error, Request
from dlopen.core.base.details cimport DETAIL_NOT_LOADED
from dlopen.core.base.errors cimport fail, fail_memory
from dlopen.core.base.strings cimport strchr
from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.naming cimport same_file_name
from dlopen.core.opening.acquire cimport acquire
from dlopen.core.opening.initialise cimport initialise
from dlopen.core.opening.known cimport Wanted, loaded_by_name
from dlopen.core.opening.publish cimport count_root
from dlopen.core.opening.transaction cimport Transaction, begin, end, rely_on
from dlopen.core.symbols.report cimport report_open


cdef inline Image* loaded_by_base_name(
    Transaction* transaction, const char* name
) noexcept nogil:
    """Whatever has a file of this name; it is relied on."""
    cdef Image* image
    cdef size_t i
    for i in range(transaction.snapshot.host_count + transaction.snapshot.count):
        image = transaction.snapshot.hosts[i] if i < transaction.snapshot.host_count \
            else transaction.snapshot.images[i - transaction.snapshot.host_count]
        if (load_u32(&image.is_visible) or image.is_host) and same_file_name(image, name) \
                and rely_on(transaction, image):
            return image
    return NULL


cdef inline int open_existing(
    Linker* linker, const char* name, Image** result, Error* error
) noexcept nogil:
    """Counted, as an open that loads nothing."""
    cdef Transaction* transaction
    cdef Request request
    cdef Wanted wanted
    cdef bint counted
    cdef int code
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
        transaction.root = loaded_by_base_name(transaction, name)
    if transaction.root == NULL and not transaction.no_memory and strchr(name, 0x2f) != NULL:
        acquire(transaction, &wanted, &transaction.root)
    counted = transaction.root != NULL and not transaction.no_memory and count_root(transaction)
    if transaction.no_memory:
        code = fail_memory(error, name)
    elif not counted:
        code = fail(error, DLOPEN_E_NOT_LOADED, name, DETAIL_NOT_LOADED)
    else:
        code = 0
        result[0] = transaction.root
    report_open(name, code, result, error)
    end(transaction)
    if code == 0:
        # Waits for the thread that is at it.
        code = initialise(linker, result[0], True, error)
    return code
