"""The dynamic section of an image into its fields (PT_DYNAMIC, gABI chapter 5).

The entries are collected by tag first, then each table is found and checked by the file beside this
one that knows it. Of a host image the same is read, by its addresses as they are.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.arch.machine cimport THIS_MACHINE, fail_for_machine
from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.contract cimport DLOPEN_E_FORMAT, DLOPEN_E_UNSUPPORTED, Error
from dlopen.core.base.details cimport (
    DETAIL_DYNAMIC_OUTSIDE, DETAIL_FILTER_OUTSIDE, DETAIL_NEEDED_OUTSIDE, DETAIL_NOOPEN,
    DETAIL_NO_TABLES, DETAIL_PIE, DETAIL_RELRO_OUTSIDE, DETAIL_RPATH_OUTSIDE,
    DETAIL_RUNPATH_OUTSIDE, DETAIL_SONAME_OUTSIDE, DETAIL_STRTAB_END, DETAIL_STRTAB_OUTSIDE,
    DETAIL_SYMENT, DETAIL_SYMTAB_OUTSIDE, DETAIL_TLS_OUTSIDE,
)
from dlopen.core.base.errors cimport fail, fail_memory
from dlopen.core.base.growable cimport pointers_add
from dlopen.core.base.words cimport align_up
from dlopen.core.elf.constants cimport (
    DF_1_NOOPEN, DF_1_PIE, DF_SYMBOLIC, DF_TEXTREL, DT_AUXILIARY, DT_FILTER, DT_FLAGS, DT_FLAGS_1,
    DT_GNU_HASH, DT_HASH, DT_JMPREL, DT_NEEDED, DT_NULL, DT_PLTGOT, DT_PLTREL, DT_PLTRELSZ, DT_RELA,
    DT_RELACOUNT, DT_RELASZ, DT_RELR, DT_RELRSZ, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRSZ,
    DT_STRTAB, DT_SYMBOLIC, DT_SYMENT, DT_SYMTAB, DT_TEXTREL, DT_VERDEF, DT_VERDEFNUM,
    DT_VERNEED, DT_VERNEEDNUM, DT_VERSYM, PF_R, PF_W,
)
from dlopen.core.elf.layout cimport refuse_executable_stack, segment_holding
from dlopen.core.elf.structures cimport Dyn, Phdr, Rela, Sym, Xword
from dlopen.core.image.checked cimport RelocationTables, entry_at, malformed, room_after, table_at
from dlopen.core.image.functions cimport read_functions
from dlopen.core.image.hash_tables cimport protect_symbols, read_hash_tables
from dlopen.core.image.image cimport (
    Image, MAX_TABLES, Table, Tables, bytes_at, image_name, string_at,
)
from dlopen.core.image.relocation_tables cimport read_relocations
from dlopen.core.image.versions cimport (
    EXTRA_FLAGS_1, EXTRA_GNU_HASH, EXTRA_VERDEF, EXTRA_VERDEFNUM, EXTRA_VERNEED, EXTRA_VERNEEDNUM,
    EXTRA_VERSYM, OLD_TAGS, TAG_COUNT, read_versions,
)
from dlopen.core.memory.memory cimport memory_own


cdef inline int tag_slot(uint64_t tag) noexcept nogil:
    """The place of a tag in the table of values; negative: it does not concern us."""
    if tag < OLD_TAGS:
        return <int>tag
    if tag == DT_GNU_HASH:
        return EXTRA_GNU_HASH
    if tag == DT_VERSYM:
        return EXTRA_VERSYM
    if tag == DT_VERDEF:
        return EXTRA_VERDEF
    if tag == DT_VERDEFNUM:
        return EXTRA_VERDEFNUM
    if tag == DT_VERNEED:
        return EXTRA_VERNEED
    if tag == DT_VERNEEDNUM:
        return EXTRA_VERNEEDNUM
    if tag == DT_FLAGS_1:
        return EXTRA_FLAGS_1
    return -1


cdef inline void read_tables(const Image* image, RelocationTables* tables) noexcept nogil:
    """Of any image that cannot go meanwhile. The host's are not kept: most are never asked for."""
    cdef uint64_t rela = 0
    cdef uint64_t rela_size = 0
    cdef uint64_t relative = 0   # so many come first, and have no symbol
    cdef uint64_t jmprel = 0
    cdef uint64_t jmprel_size = 0
    cdef uint64_t jmprel_kind = DT_RELA
    cdef uint64_t relr = 0
    cdef uint64_t relr_size = 0
    cdef uint32_t i
    tables.relr = image.tables.relr
    tables.relr_count = image.tables.relr_count
    tables.relative_count = 0
    tables.rela = image.tables.rela
    tables.rela_count = image.tables.rela_count
    tables.jmprel = image.tables.jmprel
    tables.jmprel_count = image.tables.jmprel_count
    if not image.is_host:
        return
    for i in range(image.tables.dynamic_count):
        if image.tables.dynamic[i].d_tag == DT_RELA:
            rela = image.tables.dynamic[i].d_val
        elif image.tables.dynamic[i].d_tag == DT_RELASZ:
            rela_size = image.tables.dynamic[i].d_val
        elif image.tables.dynamic[i].d_tag == DT_RELACOUNT:
            relative = image.tables.dynamic[i].d_val
        elif image.tables.dynamic[i].d_tag == DT_JMPREL:
            jmprel = image.tables.dynamic[i].d_val
        elif image.tables.dynamic[i].d_tag == DT_PLTRELSZ:
            jmprel_size = image.tables.dynamic[i].d_val
        elif image.tables.dynamic[i].d_tag == DT_PLTREL:
            jmprel_kind = image.tables.dynamic[i].d_val
        elif image.tables.dynamic[i].d_tag == DT_RELR:
            relr = image.tables.dynamic[i].d_val
        elif image.tables.dynamic[i].d_tag == DT_RELRSZ:
            relr_size = image.tables.dynamic[i].d_val
    if jmprel_kind != DT_RELA:
        jmprel = 0
    # Some linkers count DT_JMPREL's entries in DT_RELASZ too.
    if jmprel != 0 and rela <= jmprel and rela + rela_size == jmprel + jmprel_size:
        rela_size -= jmprel_size
    if rela != 0:
        if relative > rela_size // sizeof(Rela):
            relative = rela_size // sizeof(Rela)
        tables.relative_count = relative
        tables.rela = <const Rela*>entry_at(image, rela, rela_size) + relative
        tables.rela_count = rela_size // sizeof(Rela) - relative
    if jmprel != 0:
        tables.jmprel = <const Rela*>entry_at(image, jmprel, jmprel_size)
        tables.jmprel_count = jmprel_size // sizeof(Rela)
    if relr != 0:
        tables.relr = <const Xword*>entry_at(image, relr, relr_size)
        tables.relr_count = relr_size // sizeof(Xword)


cdef inline void read_entries(Image* image, uint64_t* values, bint* present) noexcept nogil:
    """The dynamic section's, up to DT_NULL, by slot."""
    cdef Tables* tables = &image.tables
    cdef uint32_t i
    cdef int slot
    memset(values, 0, TAG_COUNT * sizeof(values[0]))
    memset(present, 0, TAG_COUNT * sizeof(present[0]))
    tables.dynamic_count = <uint32_t>(image.layout.dynamic.p_memsz // sizeof(Dyn))
    for i in range(tables.dynamic_count):
        if tables.dynamic[i].d_tag == DT_NULL:
            tables.dynamic_count = i
            break
        slot = tag_slot(<uint64_t>tables.dynamic[i].d_tag)
        if slot >= 0:
            values[slot] = tables.dynamic[i].d_val
            present[slot] = True


cdef inline int read_symbols(
    Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    """DT_STRTAB and DT_SYMTAB."""
    cdef Tables* tables = &image.tables
    if not present[DT_STRTAB] or not present[DT_SYMTAB]:
        if image.is_host:
            return DLOPEN_E_FORMAT
        return malformed(image, error, DETAIL_NO_TABLES, 0)
    tables.strtab = <const char*>table_at(image, values[DT_STRTAB], values[DT_STRSZ])
    if tables.strtab == NULL:
        return malformed(image, error, DETAIL_STRTAB_OUTSIDE, values[DT_STRTAB])
    tables.strtab_size = values[DT_STRSZ]
    if tables.strtab_size == 0 \
            or (not image.is_host and tables.strtab[tables.strtab_size - 1] != 0):
        return malformed(image, error, DETAIL_STRTAB_END, tables.strtab_size)
    if present[DT_SYMENT] and values[DT_SYMENT] != sizeof(Sym):
        return malformed(image, error, DETAIL_SYMENT, values[DT_SYMENT])
    tables.symtab = <const Sym*>table_at(image, values[DT_SYMTAB], sizeof(Sym))
    if tables.symtab == NULL:
        return malformed(image, error, DETAIL_SYMTAB_OUTSIDE, values[DT_SYMTAB])
    if image.is_host:
        tables.symbol_limit = <uint64_t>1 << 32
    else:
        tables.symbol_limit = room_after(image, values[DT_SYMTAB]) // sizeof(Sym)
        if values[DT_STRTAB] > values[DT_SYMTAB] \
                and (values[DT_STRTAB] - values[DT_SYMTAB]) // sizeof(Sym) < tables.symbol_limit:
            tables.symbol_limit = (values[DT_STRTAB] - values[DT_SYMTAB]) // sizeof(Sym)
    return 0


cdef inline int read_for_lookup(Image* image) noexcept nogil:
    """Of an image of the host's, as much as its soname and lookups without a version need: it
    asks for no memory."""
    cdef uint64_t values[TAG_COUNT]
    cdef bint present[TAG_COUNT]
    cdef int code
    image.tables.dynamic = <const Dyn*>(image.bytes_bias + image.layout.dynamic.p_vaddr)
    read_entries(image, &values[0], &present[0])
    code = read_symbols(image, &values[0], &present[0], NULL)
    if code == 0:
        code = read_hash_tables(image, &values[0], &present[0], NULL)
    if code == 0 and present[DT_SONAME]:
        image.tables.soname = string_at(image, values[DT_SONAME])
    if code == 0 and present[EXTRA_VERSYM]:
        image.tables.versym = <const uint16_t*>table_at(image, values[EXTRA_VERSYM], 2)
    return code


cdef inline const char* interpreter_of(const Image* image) noexcept nogil:
    """The text of PT_INTERP, which a library may have and nobody uses: so of the host's, too, it
    is looked at before it is read."""
    cdef const Phdr* header = image.layout.interpreter
    cdef const Phdr* segment
    cdef const char* text
    if header == NULL or header.p_filesz == 0:
        return NULL
    segment = segment_holding(&image.layout, header.p_vaddr, header.p_filesz)
    if segment == NULL or not segment.p_flags & PF_R:
        return NULL
    text = <const char*>entry_at(image, header.p_vaddr, header.p_filesz)
    return text if text != NULL and text[header.p_filesz - 1] == 0 else NULL


cdef inline int read_dynamic(Image* image, Error* error) noexcept nogil:
    """Fills Image.tables, each table checked; whether such a file is to be opened at all is asked
    of `refuse`."""
    cdef Tables* tables = &image.tables
    cdef uint64_t values[TAG_COUNT]
    cdef bint present[TAG_COUNT]
    cdef uint64_t address = image.layout.dynamic.p_vaddr
    cdef uint64_t size = image.layout.dynamic.p_memsz
    cdef uint64_t i
    cdef int code
    cdef const char* text
    cdef const Phdr* relro = image.layout.relro
    cdef const Phdr* segment
    if image.is_host:
        tables.dynamic = <const Dyn*>(image.bytes_bias + address)
    else:
        tables.ranges = <Table*>allocate(MAX_TABLES * sizeof(Table))
        if tables.ranges == NULL:
            return fail_memory(error, image_name(image))
        tables.dynamic = <const Dyn*>table_at(image, address, size)
        if tables.dynamic == NULL:
            return malformed(image, error, DETAIL_DYNAMIC_OUTSIDE, address)
        if segment_holding(&image.layout, address, size).p_flags & PF_W:
            memory_own(<uint64_t>tables.dynamic)     # relocation writes to that page
        if relro != NULL:
            segment = segment_holding(&image.layout, relro.p_vaddr, 1)
            if segment == NULL or not segment.p_flags & PF_W or relro.p_memsz > align_up(
                segment.p_vaddr + segment.p_memsz, image.layout.page
            ) - relro.p_vaddr:
                return malformed(image, error, DETAIL_RELRO_OUTSIDE, relro.p_vaddr)
    read_entries(image, &values[0], &present[0])
    code = read_symbols(image, &values[0], &present[0], error)
    if code:
        return code
    tables.flags = values[DT_FLAGS]
    tables.flags_1 = values[EXTRA_FLAGS_1]
    tables.is_symbolic = present[DT_SYMBOLIC] or tables.flags & DF_SYMBOLIC != 0
    tables.has_textrel = present[DT_TEXTREL] or tables.flags & DF_TEXTREL != 0
    for i in range(tables.dynamic_count):
        if tables.dynamic[i].d_tag != DT_NEEDED:
            continue
        text = string_at(image, tables.dynamic[i].d_val)
        if text == NULL or text[0] == 0:
            return malformed(image, error, DETAIL_NEEDED_OUTSIDE, tables.dynamic[i].d_val)
        if not pointers_add(&tables.needed, text):
            return fail_memory(error, image_name(image))
    for i in range(tables.dynamic_count):
        if image.is_host or (
            tables.dynamic[i].d_tag != DT_FILTER and tables.dynamic[i].d_tag != DT_AUXILIARY
        ):
            continue
        text = string_at(image, tables.dynamic[i].d_val)
        if text == NULL or text[0] == 0:
            return malformed(image, error, DETAIL_FILTER_OUTSIDE, tables.dynamic[i].d_val)
        if not pointers_add(&tables.filter_entries, &tables.dynamic[i]):
            return fail_memory(error, image_name(image))
    if present[DT_SONAME]:
        tables.soname = string_at(image, values[DT_SONAME])
        if tables.soname == NULL:
            return malformed(image, error, DETAIL_SONAME_OUTSIDE, values[DT_SONAME])
    if present[DT_RUNPATH]:
        tables.runpath = string_at(image, values[DT_RUNPATH])
        if tables.runpath == NULL:
            return malformed(image, error, DETAIL_RUNPATH_OUTSIDE, values[DT_RUNPATH])
    if present[DT_RPATH]:
        tables.rpath = string_at(image, values[DT_RPATH])
        if tables.rpath == NULL:
            return malformed(image, error, DETAIL_RPATH_OUTSIDE, values[DT_RPATH])
    tables.interpreter = interpreter_of(image)
    code = read_hash_tables(image, &values[0], &present[0], error)
    if code:
        return code
    if not image.is_host:
        protect_symbols(image, values)
    code = read_versions(image, values, present, error)
    if code or image.is_host:
        return code
    if image.layout.tls != NULL and image.layout.tls.p_filesz != 0 and bytes_at(
        image, image.layout.tls.p_vaddr, image.layout.tls.p_filesz
    ) == NULL:
        return malformed(image, error, DETAIL_TLS_OUTSIDE, image.layout.tls.p_vaddr)
    code = read_relocations(image, values, present, error)
    if code:
        return code
    return read_functions(image, values, present, error)


cdef inline void move_dynamic_pointers(Image* image) noexcept nogil:
    """As libc's loader leaves the section in memory for those who walk it: runtimes that look for
    what their libraries need, hookers of the GOT. Once, when nothing of ours will read it again
    and before any foreign code; of a tag that stands there twice the last counts."""
    cdef Dyn* last[TAG_COUNT]
    cdef int[9] moved
    cdef const Phdr* section = image.layout.dynamic
    cdef const Phdr* segment = segment_holding(&image.layout, section.p_vaddr, section.p_memsz)
    cdef uint32_t i
    cdef int slot
    if not THIS_MACHINE.moves_dynamic_pointers or not section.p_flags & PF_W or segment == NULL \
            or not segment.p_flags & PF_W:
        return
    memset(last, 0, sizeof(last))
    for i in range(image.tables.dynamic_count):
        slot = tag_slot(<uint64_t>image.tables.dynamic[i].d_tag)
        if slot >= 0:
            last[slot] = <Dyn*>&image.tables.dynamic[i]
    moved = [
        DT_HASH, DT_PLTGOT, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL, DT_RELR, EXTRA_GNU_HASH,
        EXTRA_VERSYM,
    ]
    for slot in moved:
        if last[slot] != NULL and (slot != DT_RELA or last[slot].d_val != 0):
            last[slot].d_val += image.load_bias


cdef inline int refuse(const Image* image, const char* name, Error* error) noexcept nogil:
    """What is well-formed but cannot be opened, by the name that was asked for."""
    if image.is_foreign:
        return fail_for_machine(error, name, image.machine.number, image.layout.flags)
    if image.layout.wants_executable_stack:
        return refuse_executable_stack(&image.layout, name, error)
    if image.tables.flags_1 & DF_1_PIE:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_PIE)
    if image.tables.flags_1 & DF_1_NOOPEN:
        return fail(error, DLOPEN_E_UNSUPPORTED, name, DETAIL_NOOPEN)
    return 0
