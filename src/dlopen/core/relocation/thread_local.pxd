"""Relocations of thread-local storage: module ids, offsets in a module's block, distances from the
thread pointer, descriptors.

Which storage an image gets is known when all others are relocated; what needs its module id waits
until then.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.arch.machine cimport (
    THIS_MACHINE, tlsdesc_dynamic, tlsdesc_static, tlsdesc_undefined,
)
from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_UNSUPPORTED, DLOPEN_R_DTPMOD, DLOPEN_R_DTPOFF, DLOPEN_R_TLSDESC, DLOPEN_R_TPOFF,
    DLOPEN_STATE_LOADING,
)
from dlopen.core.base.details cimport (
    DETAIL_NOT_TLS, DETAIL_NO_TLS, DETAIL_STATIC_TLS_LATE, DETAIL_TEXT_TLS,
)
from dlopen.core.base.errors cimport error_name_symbol, error_needed_by, fail, fail_memory
from dlopen.core.base.growable cimport pointers_add
from dlopen.core.elf.constants cimport STT_TLS
from dlopen.core.elf.structures cimport Rela, relocation_symbol, symbol_type
from dlopen.core.image.image cimport Image, image_name, store_word
from dlopen.core.relocation.batch cimport Batch, DeferredTls, bad_relocation
from dlopen.core.relocation.places cimport stays_writable
from dlopen.core.symbols.lookup cimport Definition, symbol_name
from dlopen.core.tls.modules cimport TlsIndex


cdef inline int store_tls(
    Batch* batch, Image* image, const Image* owner, uint64_t place, uint64_t offset, uint32_t kind
) noexcept nogil:
    """The owner's storage has its place."""
    cdef TlsIndex* index
    if kind == DLOPEN_R_DTPMOD:
        store_word(image, place, owner.thread_local.module_id)
    elif kind == DLOPEN_R_TPOFF:
        store_word(image, place, <uint64_t>owner.thread_local.offset + offset)
    elif load_u32(&owner.thread_local.is_static):
        store_word(image, place, <uint64_t>tlsdesc_static)
        store_word(image, place + 8, <uint64_t>owner.thread_local.offset + offset)
    else:
        index = <TlsIndex*>allocate(sizeof(TlsIndex))
        if index == NULL or not pointers_add(&image.thread_local.descriptors, index):
            release(index)
            return fail_memory(batch.error, image_name(image))
        index.module = owner.thread_local.module_id
        index.offset = offset
        store_word(image, place, <uint64_t>tlsdesc_dynamic)
        store_word(image, place + 8, <uint64_t>index)
    return 0


cdef inline int relocate_tls(
    Batch* batch, Image* image, const Definition* definition, const Rela* relocation, uint32_t kind
) noexcept nogil:
    """Ulrich Drepper, "ELF Handling For Thread-Local Storage"; Alexandre Oliva, "Thread-Local
    Storage Descriptors". A symbol of index 0 is the image's own storage."""
    cdef Image* owner = image if relocation_symbol(relocation) == 0 else definition.image
    cdef uint64_t place = relocation.r_offset
    cdef uint64_t offset = <uint64_t>relocation.r_addend
    cdef DeferredTls* deferred
    if owner == NULL:            # weak and undefined
        if kind == DLOPEN_R_TLSDESC:
            store_word(image, place, <uint64_t>tlsdesc_undefined)
            store_word(image, place + 8, offset)
        elif kind != DLOPEN_R_TPOFF:
            store_word(image, place, 0)
        return 0
    if relocation_symbol(relocation) != 0:
        if symbol_type(definition.symbol) != STT_TLS:
            return bad_relocation(batch, image, DETAIL_NOT_TLS, place, kind)
        offset += definition.symbol.st_value
    if kind == DLOPEN_R_DTPOFF:
        store_word(image, place, offset - THIS_MACHINE.dtv_offset)
        return 0
    if owner == image and image.layout.tls == NULL and kind == DLOPEN_R_DTPMOD:
        store_word(image, place, 0)          # as the host does; nothing can use it
        return 0
    if owner.layout.tls == NULL:
        return bad_relocation(batch, image, DETAIL_NO_TLS, place, kind)
    if owner.life.state == DLOPEN_STATE_LOADING:
        if kind == DLOPEN_R_TPOFF:
            owner.thread_local.needs_static = True
        if not stays_writable(image, place):
            return bad_relocation(batch, image, DETAIL_TEXT_TLS, place, kind)
        deferred = <DeferredTls*>allocate(sizeof(DeferredTls))
        if deferred == NULL:
            return fail_memory(batch.error, image_name(image))
        deferred.image = image
        deferred.owner = owner
        deferred.place = place
        deferred.offset = offset
        deferred.kind = kind
        deferred.next = batch.deferred_tls
        batch.deferred_tls = deferred
        return 0
    if kind == DLOPEN_R_TPOFF and not load_u32(&owner.thread_local.is_static) and not (
        owner.is_host and not batch.no_foreign_code
        and batch.ask_for_static_tls(batch.context, definition)
    ):
        fail(batch.error, DLOPEN_E_UNSUPPORTED, image_name(image), DETAIL_STATIC_TLS_LATE)
        error_name_symbol(batch.error, symbol_name(image, &image.tables.symtab[relocation_symbol(
            relocation
        )]), NULL)
        error_needed_by(batch.error, image_name(owner))
        return DLOPEN_E_UNSUPPORTED
    return store_tls(batch, image, owner, place, offset, kind)


cdef inline int relocate_deferred_tls(Batch* batch) noexcept nogil:
    """Every image of the batch has its storage now."""
    cdef const DeferredTls* deferred = batch.deferred_tls
    cdef int code = 0
    while deferred != NULL and code == 0:
        code = store_tls(
            batch, deferred.image, deferred.owner, deferred.place, deferred.offset, deferred.kind
        )
        deferred = deferred.next
    return code
