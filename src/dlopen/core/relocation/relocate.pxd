"""Relocation of one image: what each place of it becomes.

RELR first, then DT_RELA, then the PLT's slots; RELATIVE entries, most of all, have loops of their
own (relocation/runs.pxd), and so have words that get an address, most of the rest. What needs
foreign code or an id that is not given yet is put off (relocation/batch.pxd).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from dlopen.core.arch.machine cimport (
    THIS_MACHINE, is_relative, relocation_kind, relocation_width,
)
from dlopen.core.base.contract cimport (
    DLOPEN_R_COPY, DLOPEN_R_DTPMOD, DLOPEN_R_DTPOFF, DLOPEN_R_GLOB_DAT, DLOPEN_R_IRELATIVE,
    DLOPEN_R_JUMP_SLOT, DLOPEN_R_NONE, DLOPEN_R_RELATIVE, DLOPEN_R_SIZE, DLOPEN_R_SYMBOLIC,
    DLOPEN_R_TLSDESC, DLOPEN_R_TPOFF, DLOPEN_R_UNKNOWN,
)
from dlopen.core.base.details cimport (
    DETAIL_NARROW_IFUNC, DETAIL_PLACE_OUTSIDE, DETAIL_RELOCATION_TYPE, DETAIL_RELR_BITMAP,
    DETAIL_RELR_PLACE, DETAIL_RESOLVER_OUTSIDE,
)
from dlopen.core.base.errors cimport fail_memory
from dlopen.core.base.growable cimport pointers_add, pointers_hold
from dlopen.core.base.log cimport LOG_TRACE, logs
from dlopen.core.elf.constants cimport SHN_UNDEF, STT_GNU_IFUNC
from dlopen.core.elf.structures cimport Rela, relocation_symbol, relocation_type, symbol_type
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport (
    Image, Tables, image_name, load_word, replacement_of, store_word,
)
from dlopen.core.image.relr cimport RelrWalk, relr_group, relr_of, take_word
from dlopen.core.relocation.ahead cimport BLOCK, look_ahead
from dlopen.core.relocation.batch cimport Batch, Cache, Place, bad_relocation
from dlopen.core.relocation.lazy cimport (
    can_bind_lazily, leave_lazy, prepare_lazy_calls, reserved_size,
)
from dlopen.core.relocation.places cimport (
    addend_of, can_write, copy_data, is_distance, lies_in, narrow, store_address,
)
from dlopen.core.relocation.resolvers cimport defer
from dlopen.core.relocation.runs cimport relocate_group, relocate_relative
from dlopen.core.relocation.thread_local cimport relocate_tls
from dlopen.core.symbols.binding cimport own_address, resolve
from dlopen.core.symbols.lookup cimport Definition, definition_address
from dlopen.core.symbols.report cimport log_binding, report_relocation


cdef inline bint has_resolver(const Definition* definition) noexcept nogil:
    """It is an IFUNC, of an image that has it."""
    return definition.image != NULL and symbol_type(definition.symbol) == STT_GNU_IFUNC \
        and definition.symbol.st_shndx != SHN_UNDEF


cdef inline int bind(
    Batch* batch, Image* image, Cache* cache, uint32_t index, bint for_call, const Image* skip
) noexcept nogil:
    """Resolves into the cache, and records the image that it depends on from now on."""
    cdef int code
    cdef uint64_t own
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
    own = own_address(batch.scopes.own_names, &cache.definition)
    cache.address = own if own != 0 else definition_address(&cache.definition)
    cache.is_address = own != 0 or not has_resolver(&cache.definition)
    if logs(LOG_TRACE):
        log_binding(image, index, &cache.definition, own)
    definer = cache.definition.image
    if definer != NULL and definer != image and definer != cache.bound:
        cache.bound = definer
        if not definer.host.is_startup and not pointers_hold(&image.needs.dependencies, definer) \
                and not pointers_hold(&image.needs.bindings, definer):
            code = batch.keep_bound(batch.context, definer)
            if code == 0 and not pointers_add(&image.needs.bindings, definer):
                code = fail_memory(batch.error, image_name(image))
    return code


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
    if not cache.is_address:
        if not definition.image.is_host and not is_code(
            definition.image, definition.symbol.st_value
        ):
            return bad_relocation(
                batch, image, DETAIL_RESOLVER_OUTSIDE, place, definition.symbol.st_value
            )
        if is_distance(kind) or width != 8:
            return bad_relocation(batch, image, DETAIL_NARROW_IFUNC, place, number)
        return defer(batch, image, place, cache.address, <int64_t>addend_of(relocation, kind))
    return store_address(batch, image, relocation, kind, width, cache.address)


cdef inline int relocate_addresses(
    Batch* batch, Image* image, const Place* writable, Cache* cache, const Rela* relocation,
    uint64_t left, uint64_t* done
) noexcept nogil:
    """Entries of whole words that get a symbol's address, as far as no resolver gives it, no
    replacement was asked for and their places lie in `writable`; `done` is how many they are. What
    is left, `apply` does."""
    cdef uint32_t kind
    cdef uint32_t number
    cdef int code
    done[0] = 0
    if image.changes.replacement_count != 0:
        return 0
    while left != 0:
        number = relocation_type(relocation)
        kind = relocation_kind(THIS_MACHINE, number)
        if kind != DLOPEN_R_SYMBOLIC and kind != DLOPEN_R_GLOB_DAT and kind != DLOPEN_R_JUMP_SLOT:
            return 0
        if relocation_width(THIS_MACHINE, number) != 8 \
                or not lies_in(writable, relocation.r_offset, 8):
            return 0
        if done[0] % BLOCK == 0 and left >= BLOCK:
            look_ahead(batch.scopes.searched, image, relocation, left)
        code = bind(
            batch, image, cache, relocation_symbol(relocation), kind == DLOPEN_R_JUMP_SLOT, NULL
        )
        if code:
            return code
        if not cache.is_address:
            return 0
        store_word(image, relocation.r_offset, cache.address + addend_of(relocation, kind))
        relocation += 1
        left -= 1
        done[0] += 1
    return 0


cdef inline int relocate_relr(Batch* batch, Image* image) noexcept nogil:
    cdef Place writable
    cdef RelrWalk walk = relr_of(image)
    cdef uint64_t place
    writable.start = 0
    writable.end = 0
    if image.tables.relr_count != 0 and image.tables.relr[0] & 1:
        return bad_relocation(batch, image, DETAIL_RELR_BITMAP, 0, image.tables.relr[0])
    while relr_group(&walk):
        relocate_group(image, &writable, &walk)
        while walk.bits != 0:
            place = take_word(&walk)
            if not can_write(image, &writable, place, 8):
                return bad_relocation(
                    batch, image, DETAIL_RELR_PLACE, place,
                    <uint64_t>(walk.entry - image.tables.relr) - 1,
                )
            store_word(image, place, load_word(image, place) + image.load_bias)
    return 0


cdef inline int relocate_table(
    Batch* batch, Image* image, Cache* cache, const Rela* relocation, uint64_t left, bint lazy
) noexcept nogil:
    """The entries of one table; with `lazy` those of calls are left to be bound when they come."""
    cdef Place writable
    cdef uint64_t done
    cdef int code
    writable.start = 0
    writable.end = 0
    while left != 0:
        done = relocate_relative(image, &writable, relocation, left)
        if done == 0 and not lazy:
            code = relocate_addresses(batch, image, &writable, cache, relocation, left, &done)
            if code:
                return code
        if done == 0:
            code = relocate_one(batch, image, &writable, cache, relocation, lazy)
            if code:
                return code
            done = 1
        relocation += done
        left -= done
    return 0


cdef inline int relocate_one(
    Batch* batch, Image* image, Place* writable, Cache* cache, const Rela* relocation, bint lazy
) noexcept nogil:
    """An entry of any kind."""
    if is_relative(THIS_MACHINE, relocation_type(relocation)):
        if not can_write(image, writable, relocation.r_offset, 8):
            return bad_relocation(
                batch, image, DETAIL_PLACE_OUTSIDE, relocation.r_offset, DLOPEN_R_RELATIVE
            )
        store_word(image, relocation.r_offset, image.load_bias + <uint64_t>relocation.r_addend)
        return 0
    if lazy and can_write(image, writable, relocation.r_offset, 8) and leave_lazy(
        image, relocation, relocation_kind(THIS_MACHINE, relocation_type(relocation))
    ):
        return 0
    return apply(batch, image, writable, cache, relocation)


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
