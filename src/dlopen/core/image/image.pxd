"""An image: one ELF object that is mapped in this process, ours or the host's.

Addresses in the file's terms (p_vaddr, st_value) become bytes that we may read with
`bytes_bias`, and addresses that the code will see with `load_bias`. They are equal
in this process; they differ when the image is linked for another one.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from dlopen.core.arch.table cimport Machine
from dlopen.core.base.allocator cimport release
from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport DLOPEN_STATE_LOADING, DLOPEN_STATE_MAPPED
from dlopen.core.base.growable cimport Pointers, pointers_free
from dlopen.core.base.kernel cimport kernel_close
from dlopen.core.elf.constants cimport PF_R
from dlopen.core.elf.layout cimport Layout, segment_holding
from dlopen.core.elf.structures cimport Dyn, Half, Phdr, Rela, Sym, Word, Xword
from dlopen.core.memory.memory cimport memory_read, memory_write


cdef struct LinkMap:             # <link.h>: what programs and debuggers cast a handle to
    uint64_t l_addr
    char* l_name                 # where a debugger finds the file: `image_asked_name` for us
    void* l_ld
    LinkMap* l_next
    LinkMap* l_prev


cdef struct Version:
    const char* name             # NULL: this index is not a named version
    const char* library          # verneed: the file that should define it; verdef: NULL
    uint32_t hash
    uint16_t flags               # VER_FLG_*
    uint16_t index               # as the versym table has it, hidden bit included for verneed
    uint16_t next                # verneed: of the one that follows in the file, its place + 1


cdef struct Table:               # an address range of the file's own tables, in p_vaddr terms
    uint64_t start
    uint64_t size


cdef enum:
    MAX_TABLES = 24


cdef struct Unique:              # a definition in the table of symbols/unique.pxd
    Unique* next                 # in its chain; atomic
    Unique* sibling              # of the same image
    Image* image
    const Sym* symbol
    uint32_t index
    uint32_t hash                # of its name: gnu_hash


cdef struct Replacement:         # what a symbol of an image's is bound to instead
    uint32_t symbol
    uint64_t address


cdef struct PlaceValue:          # what a patch has stored in a place
    PlaceValue* below            # of an earlier patch
    uint64_t number              # of the patch
    uint64_t word
    uint64_t address             # the same without an addend
    Image* leads_to              # an image of ours that the patch keeps, or NULL


cdef struct PatchedPlace:        # running/patch.pxd
    PatchedPlace* next
    uint64_t place               # run address
    uint64_t original            # what stands there without any patch
    PlaceValue* top              # what stands there now


cdef struct SearchList:          # the breadth-first closure of an image's dependencies
    Pointers images              # Image*, itself first


cdef struct Name:                # that an image was opened by
    Name* next
    char text[0]                 # NUL-terminated


cdef struct Retired:            # image/registry.pxd: what readers may still look at
    Retired* next
    Image* image                 # or NULL
    void* block                  # or NULL


cdef struct Image:
    # The handle. Debuggers read beyond the public part of a link map: zeroes follow.
    LinkMap link_map
    char zeroes[2048]

    # Set once, before the image is published.
    char* path                   # owned; absolute for a file, the given name for bytes
    const Machine* machine       # of its code
    bint is_foreign              # which this process cannot run: it is only looked at
    uint64_t load_bias
    uint64_t bytes_bias
    Layout layout                # phdrs owned
    uint64_t map_start, map_end
    uint64_t device, inode
    bint is_host
    bint is_startup              # host: in the process since its start, never unloaded
    bint is_c_library            # host: libc or the loader, whose dl* names we answer for
    bint is_cxx_runtime          # host: whose __cxa_thread_atexit we answer for
    bint is_family               # host: one of those that there is only one of in a process
    bint is_private
    # PRIVATE, from bytes or files, of a set (symbols/scopes.pxd): others may have its name.
    bint is_own
    bint is_own_first            # and its set comes first: not RTLD_GLOBAL, nor RTLD_DEEPBIND
    bint is_from_bytes
    bint is_reloadable           # another image may take its place: running/swap.pxd
    uint32_t is_replaced         # atomic: and one has
    bint is_from_files           # from bytes: its path is one of the caller's files
    bint no_foreign_code
    long kept_file               # 1 + a descriptor, owned: bytes kept for a debugger; 0: none
    bint from_main               # host: the program itself
    int64_t namespace_id         # 0: the program's
    bint shares_family           # its namespace has a record: host/namespaces.pxd

    const Dyn* dynamic
    uint32_t dynamic_count
    const Sym* symtab
    const char* strtab           # its last byte is NUL
    uint64_t strtab_size
    uint64_t symbol_limit        # an index below it can be read; not the exact count
    # DT_GNU_HASH
    const Xword* bloom
    const Word* buckets
    const Word* chains           # of symbol number symbol_offset first
    uint32_t bucket_count, bloom_mask, bloom_shift, symbol_offset
    uint64_t chain_limit         # symbol index
    # DT_HASH
    const Word* sysv_buckets
    const Word* sysv_chains
    uint32_t sysv_bucket_count, sysv_chain_count
    # versions
    const Half* versym
    Version* versions            # by index; owned
    uint32_t version_count
    uint16_t first_needed        # of the first of verneed, its place + 1; 0: none
    bint has_verdef
    # relocations
    const Xword* relr
    uint64_t relr_count
    const Rela* rela
    uint64_t rela_count
    const Rela* jmprel
    uint64_t jmprel_count
    uint64_t plt_got             # DT_PLTGOT, p_vaddr; 0 when absent
    # dynamic entries in p_vaddr terms; 0 when absent
    uint64_t init, fini, init_array, fini_array
    uint64_t init_array_count, fini_array_count
    uint64_t flags, flags_1
    bint has_textrel, is_symbolic, has_tables_in_writable_memory
    const char* soname           # in strtab; NULL when absent, as are the following
    const char* rpath
    const char* runpath
    const char* interpreter      # of PT_INTERP; NULL when absent, or not readable
    Pointers needed              # const char*
    Pointers filter_entries      # const Dyn*: DT_FILTER and DT_AUXILIARY; none of the host's
    Table tables[MAX_TABLES]     # what relocation must not overwrite
    uint32_t table_count

    # Guarded by Registry.lock.
    Retired retired              # once it has gone
    Pointers names               # owned: those that it was loaded by
    Name* further_names          # owned: only grows, and is read with load_pointer
    Pointers dependencies        # Image*, one for each DT_NEEDED, in order; then its filtees
    Pointers filtees             # Image*: they stand before it in every search list
    Pointers sorted              # Image*, ours: of an image opened itself, all that it needs
    Pointers bindings            # Image*: others that its relocations bound to
    Pointers host_handles        # one count of the host's loader each, given back at unload
    PatchedPlace* patched        # owned
    uint32_t patch_count         # atomic: of patches that are in force in it
    uint32_t patch_uses          # places of other images that patches let lead here
    Unique* uniques              # owned: its entries in the table of STB_GNU_UNIQUE definitions
    uint32_t open_count
    uint32_t pins                # transactions that rely on it
    bint is_claimed              # DLOPEN_relocate is at it
    # Scratch for traversals, which take no stack: a chain of dependencies may be long.
    uint32_t mark
    Image* visited_from          # or the next that is to be visited
    size_t visit_next            # which of its needs
    uint32_t is_global           # atomic
    bint nodelete
    uint32_t is_visible          # atomic: found by name and identity
    bint fini_due                # constructors ran (or began to), destructors did not
    uint32_t live_objects        # thread_local objects, of any thread, with its destructors
    bint has_failed              # a constructor has thrown: each open of it fails
    bint is_deferred             # closed, but for these: unloaded when the last one has gone
    bint is_finished             # its destructors have run
    bint is_abandoned            # some of those of its close have not: one has thrown an exception
    uint32_t retain_count        # while it is not 0, it stays mapped even when they have run
    # A futex word; written under Registry.lock, waited for without.
    uint32_t state               # DLOPEN_STATE_*
    uint64_t initialiser         # the thread that runs the constructors, and links what was mapped
    const Image* opened_for      # the root of the open that has loaded it: to be compared only

    # Set before the image is published, never changed.
    uint64_t tls_module_id       # 0: no thread-local storage; tls/modules.pxd
    # Static TLS: the block is `tls_offset` from every thread's pointer. Of what the host
    # opened after the start this is known once it was asked for.
    bint has_static_tls
    bint needs_static_tls        # an initial-exec relocation refers to it
    int64_t tls_offset
    void* tls_donor              # host/static_tls.pxd; NULL: none
    Pointers tls_descriptors     # TlsIndex*, owned: arguments of TLS descriptors
    # Lazy binding (relocation/lazy.pxd): by index in jmprel, what a call was bound to while the
    # process ran; NULL: no place is lazy. Owned; the entries are atomic, and so is the flag,
    # which says that `bindings` does not have them all.
    Image** lazy_bindings
    uint32_t has_lazy_bindings
    Replacement* replacements    # by symbol; owned
    uint32_t replacement_count
    SearchList search_list       # of the image as a root; filled when it is first opened
    # In order, after the global scope (or before it: deepbind); a NULL ends it. Owned;
    # replaced as a whole, or an entry of it, under Registry.lock; read with load_pointer.
    SearchList** scope
    bint deepbind
    bint exact_scope             # no global scope: it was linked by hand, with a list
    # Whose DT_NEEDED brought it in; NULL: opened, or that has gone. Written under Registry.lock,
    # read with load_pointer.
    Image* loader
    Pointers copied              # char*, owned: of the host's, strings that could go with it
    # host only
    const Phdr* host_phdrs       # the host's own, to know the image by; not to be read
    bint asks_for_frames         # has slots for _dl_find_object or dl_iterate_phdr
    uint32_t is_identified       # atomic: device and inode (atomic too) were looked for
    void* host_handle            # link map, once it was asked for
    uint32_t uniques_known       # atomic: whether it defines any STB_GNU_UNIQUE: host/uniques.pxd
    uint64_t counted_symbols     # atomic: 1 + symbol_count, once it was asked for
    uint64_t counted_relocations  # atomic: 1 + relocation_count, in the same way
    char* probe                  # owned: an exported name, to ask libc whether it is global


cdef inline bint is_being_linked(const Image* image) noexcept nogil:
    """By DLOPEN_relocate, if others know it: its places and lists are that thread's alone. What
    it relies on is pinned by that thread's transaction."""
    return load_u32(&image.state) == DLOPEN_STATE_LOADING


cdef inline bint is_linked(const Image* image) noexcept nogil:
    """Its dependencies can be read. For a reader, who has no lock."""
    cdef uint32_t state = load_u32(&image.state)
    return state != DLOPEN_STATE_MAPPED and state != DLOPEN_STATE_LOADING


cdef inline uint64_t bytes_start(const Image* image) noexcept nogil:
    """Where the first byte is; it runs at `map_start`."""
    return image.bytes_bias + image.layout.start


cdef inline uint64_t bytes_end(const Image* image) noexcept nogil:
    return image.bytes_bias + image.layout.end


cdef inline uint64_t bytes_of(const Image* image, uint64_t address) noexcept nogil:
    """Where the bytes of a run address are."""
    return address - image.load_bias + image.bytes_bias


cdef inline const void* bytes_at(
    const Image* image, uint64_t address, uint64_t size
) noexcept nogil:
    """[address, address + size) of an image of ours, if it lies in what the file gives of
    one readable segment: zero-filled memory may be of any size, and holds no table."""
    cdef const Phdr* segment = segment_holding(&image.layout, address, size)
    if segment == NULL or not segment.p_flags & PF_R \
            or address - segment.p_vaddr + size > segment.p_filesz:
        return NULL
    return <const void*>(image.bytes_bias + address)


cdef inline uint64_t load_word(const Image* image, uint64_t place) noexcept nogil:
    """Places may be unaligned."""
    cdef uint64_t value = 0
    memory_read(image.bytes_bias + place, &value, 8)
    return value


cdef inline void store_word(const Image* image, uint64_t place, uint64_t value) noexcept nogil:
    """At a place in the file's terms, which may be unaligned."""
    memory_write(image.bytes_bias + place, &value, 8)


cdef inline uint64_t replacement_of(const Image* image, uint32_t symbol) noexcept nogil:
    """0: it is bound to what the scope has."""
    cdef uint32_t low = 0
    cdef uint32_t high = image.replacement_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) // 2
        if image.replacements[middle].symbol < symbol:
            low = middle + 1
        else:
            high = middle
    if low == image.replacement_count or image.replacements[low].symbol != symbol:
        return 0
    return image.replacements[low].address


cdef inline const char* string_at(const Image* image, uint64_t offset) noexcept nogil:
    """A string of the dynamic string table; NULL when out of range."""
    if offset >= image.strtab_size:
        return NULL
    return image.strtab + offset


cdef inline const char* image_asked_name(const Image* image) noexcept nogil:
    """The name that it was loaded by, of the host's as its own list has it."""
    return <const char*>image.names.items[0]


cdef inline const char* image_name(const Image* image) noexcept nogil:
    """For messages: as it was asked for, like glibc's."""
    if image.names.count != 0 and (<const char*>image.names.items[0])[0] != 0:
        return <const char*>image.names.items[0]
    if image.from_main:
        return b"(main program)"
    return b"(unnamed)"


cdef inline uint64_t symbol_count(const Image* image) noexcept nogil:
    """How many entries the dynamic symbol table has, as its hash tables tell."""
    cdef uint64_t last = 0
    cdef uint64_t index
    cdef uint32_t i
    if image.sysv_buckets != NULL:
        return image.sysv_chain_count if image.sysv_chain_count < image.symbol_limit \
            else image.symbol_limit
    if image.buckets == NULL:
        return 0
    for i in range(image.bucket_count):
        if image.buckets[i] > last:
            last = image.buckets[i]
    if last < image.symbol_offset:
        return image.symbol_offset if image.symbol_offset < image.symbol_limit \
            else image.symbol_limit
    index = last
    while index < image.chain_limit and not image.chains[index - image.symbol_offset] & 1:
        index += 1
    return index + 1 if index < image.chain_limit else image.chain_limit


cdef inline void free_patched_place(PatchedPlace* patched) noexcept nogil:
    """With all values of its patches."""
    cdef PlaceValue* value
    while patched.top != NULL:
        value = patched.top
        patched.top = value.below
        release(value)
    release(patched)


cdef inline void image_free_records(Image* image) noexcept nogil:
    """All that the image owns but its mapping and its host handles, and itself."""
    cdef size_t i
    cdef Name* name
    cdef Unique* unique = image.uniques
    while unique != NULL:
        image.uniques = unique.sibling
        release(unique)
        unique = image.uniques
    for i in range(image.names.count):
        release(image.names.items[i])
    pointers_free(&image.names)
    while image.further_names != NULL:
        name = image.further_names
        image.further_names = name.next
        release(name)
    for i in range(image.tls_descriptors.count):
        release(image.tls_descriptors.items[i])
    pointers_free(&image.tls_descriptors)
    for i in range(image.copied.count):
        release(image.copied.items[i])
    pointers_free(&image.copied)
    pointers_free(&image.needed)
    pointers_free(&image.filter_entries)
    pointers_free(&image.dependencies)
    pointers_free(&image.filtees)
    pointers_free(&image.sorted)
    pointers_free(&image.bindings)
    pointers_free(&image.host_handles)
    pointers_free(&image.search_list.images)
    release(image.lazy_bindings)
    release(image.replacements)
    if image.kept_file != 0:
        kernel_close(image.kept_file - 1)
    release(image.scope)
    release(image.versions)
    release(image.path)
    release(image.probe)
    release(image.layout.phdrs)
    release(image)
