"""The caller's replacements (`replace`, `find`): which symbols of the new images get other
definitions, asked for with no lock held (relocation/replace.pxd)."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from dlopen.core.base.contract cimport DLOPEN_E_STATE, DLOPEN_REPLACE_IN_TREE, Request
from dlopen.core.base.details cimport DETAIL_LOADED_ALREADY
from dlopen.core.base.errors cimport fail, fail_memory
from dlopen.core.base.growable cimport pointers_add_once
from dlopen.core.image.image cimport Image, image_name
from dlopen.core.image.listing cimport image_of_caller
from dlopen.core.opening.transaction cimport DONE, Outcome, Transaction, outcome_of, rely_on
from dlopen.core.relocation.replace cimport find_replacements


cdef inline int keep_replacements(Transaction* transaction, Image* image) noexcept nogil:
    """The libraries that hold them are bound to as any other: they stay."""
    cdef uint32_t i
    cdef Image* definer
    for i in range(image.changes.replacement_count):
        definer = image_of_caller(
            &transaction.linker.registry, <const void*>image.changes.replacements[i].address
        )
        if definer == NULL or definer == image or definer.host.is_startup:
            continue
        if not rely_on(transaction, definer):
            if transaction.no_memory:
                return fail_memory(transaction.error, image_name(image))
            continue             # it goes just now: who gives its address has closed it
        if not pointers_add_once(&image.needs.bindings, definer):
            return fail_memory(transaction.error, image_name(image))
    return 0


cdef inline Outcome replace_symbols(Transaction* transaction) noexcept nogil:
    """Before anything is bound, and with no lock held: what is asked may be Python."""
    cdef const Request* request = transaction.request
    cdef size_t i
    cdef int code = 0
    if request.replacement_count == 0 and request.find == NULL:
        return DONE
    if transaction.loaded.count == 0 or transaction.loaded.items[0] != transaction.root:
        return outcome_of(transaction, fail(
            transaction.error, DLOPEN_E_STATE, request.name, DETAIL_LOADED_ALREADY
        ))
    for i in range(transaction.loaded.count):
        if code == 0 and (i == 0 or request.flags & DLOPEN_REPLACE_IN_TREE):
            code = find_replacements(
                <Image*>transaction.loaded.items[i],
                request, transaction.error
            )
            if code == 0:
                code = keep_replacements(transaction, <Image*>transaction.loaded.items[i])
    return outcome_of(transaction, code)
