"""Relocation of one image: what each place of it becomes.

RELR first, then DT_RELA, then the PLT's slots; RELATIVE entries, most of all, have a loop of their
own. What needs foreign code or an id that is not given yet is put off (relocation/batch.pxd).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from dlopen.core.arch.machine cimport (
    THIS_MACHINE, is_relative, relocation_kind, relocation_width,
)
from dlopen.core.base.contract cimport (
    DLOPEN_R_COPY, DLOPEN_R_DTPMOD, DLOPEN_R_DTPOFF, DLOPEN_R_IRELATIVE, DLOPEN_R_JUMP_SLOT,
    DLOPEN_R_NONE, DLOPEN_R_RELATIVE, DLOPEN_R_SIZE, DLOPEN_R_TLSDESC, DLOPEN_R_TPOFF,
    DLOPEN_R_UNKNOWN,
)
from dlopen.core.base.details cimport (
    DETAIL_NARROW_IFUNC, DETAIL_PLACE_OUTSIDE, DETAIL_RELOCATION_TYPE, DETAIL_RELR_BITMAP,
    DETAIL_RELR_PLACE, DETAIL_RESOLVER_OUTSIDE,
)
from dlopen.core.base.errors cimport fail_memory
from dlopen.core.base.growable cimport pointers_add_once, pointers_hold
from dlopen.core.base.log cimport LOG_TRACE, logs
from dlopen.core.elf.constants cimport SHN_UNDEF, STT_GNU_IFUNC
from dlopen.core.elf.structures cimport Rela, relocation_symbol, relocation_type, symbol_type
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport (
    Image, Tables, image_name, load_word, replacement_of, store_word,
)
from dlopen.core.image.relr cimport RelrWalk, relr_next, relr_of
from dlopen.core.relocation.batch cimport Batch, Cache, Place, bad_relocation
from dlopen.core.relocation.lazy cimport (
    can_bind_lazily, leave_lazy, prepare_lazy_calls, reserved_size,
)
from dlopen.core.relocation.places cimport (
    addend_of, can_write, copy_data, is_distance, narrow, store_address,
)
from dlopen.core.relocation.resolvers cimport defer
from dlopen.core.relocation.thread_local cimport relocate_tls
from dlopen.core.symbols.binding cimport own_address, resolve
from dlopen.core.symbols.lookup cimport Definition, definition_address
from dlopen.core.symbols.report cimport log_binding, report_relocation


cdef inline int bind(
    Batch* batch, Image* image, Cache* cache, uint32_t index, bint for_call, const Image* skip
) noexcept nogil:
    """Resolves into the cache, and records the image that it depends on from now on."""
    cdef int code
    cdef Image* definer
    if cache.valid and cache.symbol == index and cache.for_call == for_call:
        return 0
    cache.valid = False
    code = resolve(batch.scopes, image, index, for_call, skip, &cache.definition)
    if code:
        return code
    cache.symbol = index
    cache.for_call = for_call
    cache.valid = skip == NULL
    if logs(LOG_TRACE):
        log_binding(
            image, index, &cache.definition,
            own_address(batch.scopes.own_names, &cache.definition)
        )
    definer = cache.definition.image
    if definer != NULL and definer != image and definer != cache.bound:
        cache.bound = definer
        if not definer.host.is_startup and not pointers_hold(&image.needs.dependencies, definer) \
                and not pointers_add_once(&image.needs.bindings, definer):
            return fail_memory(batch.error, image_name(image))
    return 0


cdef inline int apply(
    Batch* batch, Image* image, Place* writable, Cache* cache, const Rela* relocation
) noexcept nogil:
    """One relocation that is not RELATIVE."""
    cdef uint32_t number = relocation_type(relocation)
    cdef uint32_t kind = relocation_kind(THIS_MACHINE, number)
    cdef uint32_t index = relocation_symbol(relocation)
    cdef uint32_t width = relocation_width(THIS_MACHINE, number)
    cdef uint64_t place = relocation.r_offset
    cdef uint64_t value
    cdef Definition* definition = &cache.definition
    cdef int code
    if kind == DLOPEN_R_NONE:
        return 0
    if not can_write(image, writable, place, width):
        return bad_relocation(batch, image, DETAIL_PLACE_OUTSIDE, place, number)
    if kind == DLOPEN_R_IRELATIVE:
        value = <uint64_t>relocation.r_addend
        if not is_code(image, value):
            return bad_relocation(batch, image, DETAIL_RESOLVER_OUTSIDE, place, value)
        return defer(batch, image, place, image.load_bias + value, 0)
    # A RELATIVE here is one that `is_relative` does not know.
    if kind == DLOPEN_R_UNKNOWN or kind == DLOPEN_R_RELATIVE:
        return bad_relocation(batch, image, DETAIL_RELOCATION_TYPE, place, number)
    if image.changes.replacement_count != 0 and kind != DLOPEN_R_SIZE and kind != DLOPEN_R_COPY:
        value = replacement_of(image, index)
        if value != 0:
            return store_address(batch, image, relocation, kind, width, value)
    code = bind(
        batch, image, cache, index, kind == DLOPEN_R_JUMP_SLOT,
        image if kind == DLOPEN_R_COPY else NULL
    )
    if code:
        return code
    if kind == DLOPEN_R_COPY:
        return copy_data(batch, image, writable, cache, relocation)
    if kind == DLOPEN_R_DTPMOD or kind == DLOPEN_R_DTPOFF or kind == DLOPEN_R_TPOFF \
            or kind == DLOPEN_R_TLSDESC:
        return relocate_tls(batch, image, definition, relocation, kind)
    if kind == DLOPEN_R_SIZE:
        value = (definition.symbol.st_size if definition.image != NULL else 0) \
            + <uint64_t>relocation.r_addend
        if width == 4:
            return narrow(batch, image, place, value, False)
        store_word(image, place, value)
        return 0
    value = own_address(batch.scopes.own_names, definition)
    if value == 0:
        value = definition_address(definition)
        if definition.image != NULL and symbol_type(definition.symbol) == STT_GNU_IFUNC \
                and definition.symbol.st_shndx != SHN_UNDEF:
            if not definition.image.is_host and not is_code(
                definition.image, definition.symbol.st_value
            ):
                return bad_relocation(
                    batch, image, DETAIL_RESOLVER_OUTSIDE, place, definition.symbol.st_value
                )
            if is_distance(kind) or width != 8:
                return bad_relocation(batch, image, DETAIL_NARROW_IFUNC, place, number)
            return defer(
                batch, image, place, value,
                <int64_t>addend_of(relocation, kind)
            )
    return store_address(batch, image, relocation, kind, width, value)


cdef inline int relocate_relr(Batch* batch, Image* image) noexcept nogil:
    cdef Place writable
    cdef RelrWalk walk = relr_of(image)
    cdef uint64_t place = 0
    writable.start = 0
    writable.end = 0
    if image.tables.relr_count != 0 and image.tables.relr[0] & 1:
        return bad_relocation(batch, image, DETAIL_RELR_BITMAP, 0, image.tables.relr[0])
    while relr_next(&walk, &place):
        if not can_write(image, &writable, place, 8):
            return bad_relocation(
                batch, image, DETAIL_RELR_PLACE, place,
                <uint64_t>(walk.entry - image.tables.relr) - 1,
            )
        store_word(image, place, load_word(image, place) + image.load_bias)
    return 0


cdef inline int relocate_table(
    Batch* batch, Image* image, Cache* cache, const Rela* table, uint64_t count, bint lazy
) noexcept nogil:
    """The entries of one table; with `lazy` those of calls are left to be bound when they come."""
    cdef Place writable
    cdef uint64_t i
    cdef const Rela* relocation
    cdef int code
    writable.start = 0
    writable.end = 0
    for i in range(count):
        relocation = &table[i]
        if is_relative(THIS_MACHINE, relocation_type(relocation)):
            if not can_write(image, &writable, relocation.r_offset, 8):
                return bad_relocation(
                    batch, image, DETAIL_PLACE_OUTSIDE, relocation.r_offset, DLOPEN_R_RELATIVE
                )
            store_word(image, relocation.r_offset, image.load_bias + <uint64_t>relocation.r_addend)
        elif lazy and can_write(image, &writable, relocation.r_offset, 8) and leave_lazy(
            image, relocation, relocation_kind(THIS_MACHINE, relocation_type(relocation))
        ):
            continue
        else:
            code = apply(batch, image, &writable, cache, relocation)
            if code:
                return code
    return 0


cdef inline int relocate_image(Batch* batch, Image* image) noexcept nogil:
    """All but what a resolver decides."""
    cdef Tables* tables = &image.tables
    cdef Cache cache
    cdef int code = relocate_relr(batch, image)
    cdef Place writable
    cdef bint lazy
    writable.start = 0
    writable.end = 0
    lazy = batch.lazy and can_bind_lazily(image) \
        and can_write(image, &writable, tables.plt_got, reserved_size())
    cache.valid = False
    cache.symbol = 0
    cache.for_call = False
    cache.bound = NULL
    report_relocation(image)
    if code == 0:
        code = relocate_table(batch, image, &cache, tables.rela, tables.rela_count, False)
    if code == 0 and lazy:
        code = prepare_lazy_calls(image, batch.error)
    if code == 0:
        code = relocate_table(batch, image, &cache, tables.jmprel, tables.jmprel_count, lazy)
    return code
