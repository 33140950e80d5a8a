"""Lazy binding: a function is looked up when it is called first (psABI, "Procedure
Linkage Table").

Until then the slot of a call leads back into the PLT, whose first entry hands on a reserved word of
the GOT (Machine.got_image: here the Image) and which slot of DT_JMPREL it is, and jumps to another
one (Machine.got_resolver), which is `lazy_call` of arch/<machine>.S. That asks running/calls.pxd
and jumps to the answer.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE, lazy_call
from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.contract cimport DLOPEN_R_JUMP_SLOT, Error
from dlopen.core.base.errors cimport fail_memory
from dlopen.core.elf.constants cimport DF_1_NOW, DF_BIND_NOW, PF_W
from dlopen.core.elf.layout cimport is_sealed, segment_holding
from dlopen.core.elf.structures cimport Phdr, Rela, Xword, relocation_symbol
from dlopen.core.image.checked cimport is_code
from dlopen.core.image.image cimport Image, Tables, image_name, load_word, store_word


cdef inline uint64_t reserved_size() noexcept nogil:
    """Of the words of DT_PLTGOT that come before the slots."""
    return <uint64_t>THIS_MACHINE.got_reserved * 8


cdef inline bint can_bind_lazily(const Image* image) noexcept nogil:
    """It asks for nothing else, and the words that the PLT reads are where they belong: they
    are written once, and RELRO may close them."""
    cdef const Tables* tables = &image.tables
    cdef const Phdr* segment
    if tables.jmprel_count == 0 or tables.flags & DF_BIND_NOW or tables.flags_1 & DF_1_NOW \
            or image.no_foreign_code or tables.has_textrel:
        return False
    segment = segment_holding(&image.layout, tables.plt_got, reserved_size())
    return segment != NULL and segment.p_flags & PF_W != 0


cdef inline int prepare_lazy_calls(Image* image, Error* error) noexcept nogil:
    """What the PLT's first entry finds in the GOT, and room for what each call is bound to."""
    cdef Xword* got = <Xword*>(image.bytes_bias + image.tables.plt_got)
    image.calls.definers = <Image**>allocate(image.tables.jmprel_count * sizeof(Image*))
    if image.calls.definers == NULL:
        return fail_memory(error, image_name(image))
    got[THIS_MACHINE.got_image] = <uint64_t>image
    got[THIS_MACHINE.got_resolver] = <uint64_t>lazy_call
    return 0


cdef inline bint leave_lazy(
    const Image* image, const Rela* relocation, uint32_t kind
) noexcept nogil:
    """A slot, which was checked, keeps leading into the PLT; False if it does not."""
    cdef uint64_t entry
    cdef uint32_t symbol = relocation_symbol(relocation)
    if kind != DLOPEN_R_JUMP_SLOT or relocation.r_offset & 7 \
            or is_sealed(&image.layout, relocation.r_offset, 8):
        return False
    if THIS_MACHINE.variant_call != 0 and (
        symbol >= image.tables.symbol_limit
        or image.tables.symtab[symbol].st_other & THIS_MACHINE.variant_call
    ):
        return False
    entry = load_word(image, relocation.r_offset)
    if not is_code(image, entry):
        return False
    store_word(image, relocation.r_offset, image.load_bias + entry)
    return True
