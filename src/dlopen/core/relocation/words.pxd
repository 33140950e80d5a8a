"""Which words of an image stand for which symbols: the one walk for all who ask what could be
bound otherwise.

A replacement wants them before anything is bound; a patch and a hot swap, while the process runs;
of the host's images, those that stand for an unwinder's functions are wanted (host/unwinder.pxd).
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE, relocation_kind, relocation_width
from dlopen.core.base.contract cimport (
    DLOPEN_R_GLOB_DAT, DLOPEN_R_JUMP_SLOT, DLOPEN_R_SYMBOLIC,
)
from dlopen.core.elf.constants cimport PF_W, STB_LOCAL, STV_HIDDEN, STV_INTERNAL
from dlopen.core.elf.layout cimport segment_holding
from dlopen.core.elf.structures cimport (
    Phdr, Rela, Sym, relocation_symbol, relocation_type, symbol_binding, symbol_visibility,
)
from dlopen.core.image.checked cimport RelocationTables
from dlopen.core.image.dynamic cimport read_tables
from dlopen.core.image.image cimport Image
from dlopen.core.relocation.places cimport is_distance
from dlopen.core.symbols.lookup cimport symbol_name


cdef enum:
    NOT_A_CALL = 0xffffffffffffffff


cdef struct Word:
    const Rela* relocation       # how it was made
    uint32_t kind                # DLOPEN_R_*
    uint32_t symbol              # its index: one that others may define, with a name
    uint64_t call                # the word's number in DT_JMPREL, or NOT_A_CALL


cdef struct WordWalk:
    const Image* image
    RelocationTables tables
    const Rela* entry            # the next one
    uint64_t left                # of its table, from there: one of none may have no address
    bint in_calls                # it is in DT_JMPREL
    bint is_last                 # that table is the last one


cdef inline WordWalk words_of(const Image* image, bint calls_first) noexcept nogil:
    """Of an image that cannot go meanwhile: DT_RELA, then DT_JMPREL, or the other way round."""
    cdef WordWalk walk
    walk.image = image
    read_tables(image, &walk.tables)
    walk.is_last = False
    begin_table(&walk, calls_first)
    return walk


cdef inline void begin_table(WordWalk* walk, bint calls) noexcept nogil:
    walk.in_calls = calls
    walk.entry = walk.tables.jmprel if calls else walk.tables.rela
    walk.left = walk.tables.jmprel_count if calls else walk.tables.rela_count


cdef inline bint next_word(WordWalk* walk, Word* word) noexcept nogil:
    """Of any kind that has a symbol, thread-local ones too; False at the end."""
    cdef const Image* image = walk.image
    cdef const Rela* relocation
    cdef const Sym* symbol
    while True:
        if walk.left == 0:
            if walk.is_last:
                return False
            walk.is_last = True
            begin_table(walk, not walk.in_calls)
            continue
        relocation = walk.entry
        walk.entry += 1
        walk.left -= 1
        word.symbol = relocation_symbol(relocation)
        if word.symbol == 0 or word.symbol >= image.tables.symbol_limit:
            continue
        symbol = &image.tables.symtab[word.symbol]
        if symbol_binding(symbol) == STB_LOCAL or symbol_visibility(symbol) == STV_HIDDEN \
                or symbol_visibility(symbol) == STV_INTERNAL \
                or symbol_name(image, symbol) == NULL:
            continue
        word.relocation = relocation
        word.kind = relocation_kind(THIS_MACHINE, relocation_type(relocation))
        word.call = <uint64_t>(relocation - walk.tables.jmprel) if walk.in_calls else NOT_A_CALL
        return True


cdef inline bint holds_address(const Word* word) noexcept nogil:
    """The symbol's, with an addend or without."""
    return word.kind == DLOPEN_R_SYMBOLIC or word.kind == DLOPEN_R_GLOB_DAT \
        or word.kind == DLOPEN_R_JUMP_SLOT


cdef inline bint leads_to_symbol(const Word* word) noexcept nogil:
    """By its address, or by how far it is from the word."""
    return holds_address(word) or is_distance(word.kind)


cdef inline bint is_one_store(const Image* image, const Word* word) noexcept nogil:
    """An address that one store exchanges while others read it: a whole word, aligned, in memory
    that is writable, or was until RELRO."""
    cdef const Phdr* segment = segment_holding(&image.layout, word.relocation.r_offset, 8)
    return holds_address(word) and segment != NULL and segment.p_flags & PF_W \
        and (image.load_bias + word.relocation.r_offset) & 7 == 0 \
        and relocation_width(THIS_MACHINE, relocation_type(word.relocation)) == 8
