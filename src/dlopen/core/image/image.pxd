"""An image: one ELF object that is mapped in this process, ours or the host's.

Addresses in the file's terms (p_vaddr, st_value) become bytes that we may read with
`bytes_bias`, and addresses that the code will see with `load_bias`. They are equal
in this process; they differ when the image is linked for another one.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from dlopen.core.arch.table cimport Machine
from dlopen.core.base.allocator cimport Releases, release, release_all, release_later
from dlopen.core.base.atomics cimport load_u32, load_u64, store_u64
from dlopen.core.base.contract cimport DLOPEN_STATE_LOADING, DLOPEN_STATE_MAPPED
from dlopen.core.base.growable cimport Pointers
from dlopen.core.base.kernel cimport kernel_close
from dlopen.core.base.strings cimport strlen
from dlopen.core.base.words cimport smaller
from dlopen.core.elf.constants cimport PF_R
from dlopen.core.elf.layout cimport Layout, segment_holding
from dlopen.core.elf.structures cimport Dyn, Half, Phdr, Rela, Sym, Word, Xword
from dlopen.core.memory.arena cimport Slot
from dlopen.core.memory.memory cimport memory_read, memory_write


cdef extern from *:
    ctypedef bint Flag "_Bool"   # one byte


cdef struct LinkMap:             # <link.h>: what programs and debuggers cast a handle to
    uint64_t l_addr
    char* l_name                 # where a debugger finds the file; we call `image_asked_name`
    void* l_ld
    LinkMap* l_next
    LinkMap* l_prev


cdef struct Version:
    const char* name             # NULL: this index is not a named version
    const char* library          # verneed: the file that should define it; verdef: NULL
    uint32_t hash
    uint16_t flags               # VER_FLG_*
    uint16_t index               # as the versym table has it, hidden bit included for verneed
    uint16_t next                # verneed: of the one that follows in the file, its index + 1


cdef struct Table:               # an address range of the file's own tables, in p_vaddr terms
    uint64_t start
    uint64_t size


cdef enum:
    MAX_TABLES = 24


cdef struct Tables:
    # What the file says of itself: image/dynamic.pxd and the readers beside it. Set before the
    # image is published, never changed. All but the owned ones lie in the mapped file, and are
    # checked to be there.
    const Dyn* dynamic           # of PT_DYNAMIC; NULL: none
    uint32_t dynamic_count       # entries, without the DT_NULL
    const Sym* symtab
    const char* strtab           # its last byte is NUL
    uint64_t strtab_size
    uint64_t symbol_limit        # an index below it can be read; not the exact count
    # DT_GNU_HASH; `buckets` is NULL without one
    const Xword* bloom
    const Word* buckets
    const Word* chains           # of symbol number symbol_offset first
    uint32_t bucket_count
    uint32_t bloom_mask          # the count of words, less 1
    uint32_t bloom_shift
    uint32_t symbol_offset       # the first symbol that the table holds
    uint64_t chain_limit         # symbol index
    # DT_HASH; NULL without one
    const Word* sysv_buckets
    const Word* sysv_chains
    uint32_t sysv_bucket_count
    uint32_t sysv_chain_count    # symbols, too
    # versions
    const Half* versym           # by symbol; NULL: it has none
    Version* versions            # by index; owned
    uint32_t version_count
    uint16_t first_needed        # of the first of verneed, its index + 1; 0: none
    bint has_verdef
    # relocations
    const Xword* relr
    uint64_t relr_count          # words
    const Rela* rela
    uint64_t rela_count
    const Rela* jmprel
    uint64_t jmprel_count
    uint64_t plt_got             # DT_PLTGOT, p_vaddr; 0 without DT_JMPREL
    # Dynamic entries in p_vaddr terms; 0 when absent.
    uint64_t init
    uint64_t fini
    uint64_t init_array
    uint64_t fini_array
    uint64_t init_array_count    # functions
    uint64_t fini_array_count
    uint64_t flags               # DT_FLAGS
    uint64_t flags_1             # DT_FLAGS_1
    bint has_textrel             # relocations change what is mapped read-only
    bint is_symbolic             # its own definitions come first for it
    bint has_tables_in_writable_memory   # constructors may break them, and relocations
    const char* soname           # in strtab; NULL when absent, as are the following
    const char* rpath
    const char* runpath
    const char* interpreter      # of PT_INTERP; NULL when absent, or not readable
    Pointers needed              # const char*: DT_NEEDED, in order
    Pointers filter_entries      # const Dyn*: DT_FILTER and DT_AUXILIARY; none of the host's
    Table* ranges                # what relocation must not overwrite; owned, NULL once it is done
    uint32_t range_count


cdef struct ThreadLocal:
    # Its thread-local storage: tls/modules.pxd, host/static_tls.pxd. Set before the image is
    # published; of what the host opened after the start, static storage is known once it was
    # asked for: `offset` is written once, under Tls.lock, before `is_static`.
    uint64_t module_id           # 0: it has none
    uint32_t is_static           # atomic: its block is `offset` from every thread's pointer
    bint needs_static            # an initial-exec relocation refers to it
    int64_t offset
    void* donor                  # Donor*, of the room that it has; NULL: none
    Pointers descriptors         # TlsIndex*, owned: arguments of TLS descriptors


cdef struct SearchList:          # the breadth-first closure of an image's dependencies
    Pointers images              # Image*, itself first
    bint is_leaving              # of one that goes now: under Registry.lock, and only meanwhile


cdef struct Scope:
    # Where its symbols are looked for: opening/scopes.pxd, read by relocation, lazy calls, dlsym.
    SearchList search_list       # of the image as a root; filled when it is first opened
    # In order, after the global scope (or before it: deepbind); a NULL ends it. Owned;
    # replaced as a whole, or an entry of it, under Registry.lock; read with load_pointer.
    SearchList** lists
    # Set before the image is published.
    bint deepbind                # RTLD_DEEPBIND
    bint is_exact                # no global scope: it was linked by hand, with a list
    bint is_own                  # PRIVATE, from bytes or files: of a set; others may have its name
    bint is_own_first            # the set comes first: not RTLD_GLOBAL, nor RTLD_DEEPBIND


cdef struct Needs:
    # What it keeps in the process, while it is used itself: opening/, read by closing/. Guarded by
    # Registry.lock, and its transaction's alone before it is published.
    Pointers dependencies        # Image*, one for each DT_NEEDED, in order; then its filtees
    Pointers filtees             # Image*: they stand before it in every search list
    Pointers sorted              # Image*, ours: of an image opened itself, all that it needs
    Pointers bindings            # Image*: others that its relocations bound to
    Pointers host_handles        # one count of the host's loader each, given back at unload


cdef struct Retired:             # image/registry.pxd: what readers may still look at
    Retired* next
    Image* image                 # or NULL
    void* block                  # or NULL


cdef enum:
    ADDRESS_LEVELS = 8           # for some 4 to the power of so many images


cdef struct Listing:             # image/listing.pxd: written under Registry.lock
    Image* next                  # atomic; what has gone leads on to what followed it
    Image* previous
    Image* by_address[ADDRESS_LEVELS]    # atomic: image/addresses.pxd
    uint64_t number              # grows from one to the next
    uint64_t shown_at            # image/shown.pxd: 1 + its entry there; 0: none
    uint32_t is_present          # atomic; 0: nobody knows it, or only by handle and address
    uint32_t key_count
    uint32_t* keys               # owned, of its names: image/known_by.pxd


cdef struct Life:
    # How it is used and where it stands between open and unload: opening/, closing/. Guarded by
    # Registry.lock.
    uint32_t state               # DLOPEN_STATE_*; a futex word, waited for without the lock
    uint32_t open_count          # atomic
    uint32_t pins                # transactions that rely on it
    # Needs of published images that lead to it, one of ours: closing/candidates.pxd.
    uint32_t references
    Flag is_claimed              # DLOPEN_relocate is at it
    Flag nodelete                # atomic, a handler sets it without the lock: never unloaded
    # Atomic, set by the thread that runs the constructors, before READY says that they have ended.
    Flag has_failed              # one has thrown: each open of it fails
    Flag fini_due                # constructors ran (or began to), destructors did not
    Flag is_deferred             # closed, and unloaded when the last of `live_objects` has gone
    Flag is_finished             # its destructors have run
    Flag is_abandoned            # some of those of its close have not: one has thrown an exception
    # The open that brought it in: it has got its list of that before its own.
    Flag has_outlived
    # Atomic: the thread that runs the constructors, and links what was mapped.
    uint64_t initialiser
    const void* pinner           # atomic: the transaction that pinned it last; NULL: that has ended
    const Image* opened_for      # the root of the open that has loaded it: to be compared only
    # Whose DT_NEEDED brought it in; NULL: opened, or that has gone. Read with load_pointer.
    Image* loader
    uint32_t is_global           # atomic
    uint32_t is_visible          # atomic: found by name and identity
    uint32_t is_complete         # atomic: an open has found all that it needs initialised
    uint32_t live_objects        # thread_local objects, of any thread, with its destructors
    uint32_t retain_count        # while it is not 0, it stays mapped when its destructors have run
    Retired retired              # once it has gone


cdef struct Traversal:
    # Of traversals, which take no stack: a chain of dependencies may be long. image/order.pxd;
    # under Registry.lock, and of no meaning in between.
    uint32_t mark
    Image* visited_from          # or the next that is to be visited
    size_t next                  # which of its needs


cdef struct Calls:
    # Lazy binding: relocation/lazy.pxd, running/calls.pxd.
    # By index in jmprel, what a call was bound to while the process ran; NULL: no place is lazy.
    # Owned; the entries are atomic.
    Image** definers
    uint32_t has_definers        # atomic: Needs.bindings does not have them all


cdef struct Replacement:         # what a symbol of an image's is bound to instead
    uint32_t symbol
    uint64_t address             # atomic: a swap changes it


cdef struct PlaceValue:          # what a patch has stored in a place
    PlaceValue* below            # of an earlier patch
    uint64_t number              # of the patch
    uint64_t word
    uint64_t address             # the same without an addend
    Image* leads_to              # an image of ours that the patch keeps, or NULL


cdef struct PatchedPlace:
    PatchedPlace* next
    uint64_t place               # run address
    uint64_t original            # what stands there without any patch
    PlaceValue* top              # what stands there now


cdef struct Changes:
    # What callers had changed in it. The replacements are set before it is published
    # (relocation/replace.pxd); the rest, of running/patch.pxd and running/swap.pxd, is guarded
    # by Registry.lock.
    Replacement* replacements    # by symbol; owned
    PatchedPlace* patched        # owned
    uint32_t replacement_count
    uint32_t patch_count         # atomic: of patches that are in force in it
    uint32_t patch_uses          # places of other images that patches let lead here
    uint32_t is_replaced         # atomic: another image has taken its place


cdef struct HostRecord:
    # What is kept of an image of the host's: host/. Set before it is published, but for what is
    # found when it is first asked for: atomic, and the same for each who looks.
    Flag is_startup              # in the process since its start, never unloaded
    Flag is_program
    Flag is_c_library            # libc or the loader, whose dl* names we answer for
    Flag is_cxx_runtime          # whose __cxa_thread_atexit we answer for
    Flag is_family               # one of those that there is only one of in a process
    Flag asks_for_frames         # has slots for _dl_find_object or dl_iterate_phdr
    const Phdr* phdrs            # the host's own, to know the image by; not to be read
    char* probe                  # owned: an exported name, to ask libc whether it is global
    Pointers copied              # char*, owned: what could go with it, its texts
    void* handle                 # link map; NULL: it was not asked for
    uint32_t is_identified       # Image.device and .inode were looked for
    uint32_t uniques_known       # UNIQUES_* of host/uniques.pxd: whether it defines any
    uint64_t counted_symbols     # 1 + symbol_count
    uint64_t counted_relocations     # 1 + relocation_count


cdef struct Unique:              # a definition in the table of symbols/unique.pxd
    Unique* next                 # in its chain; atomic
    Unique* sibling              # of the same image
    Image* image
    const Sym* symbol
    uint32_t index
    uint32_t hash                # of its name: gnu_hash


cdef struct Name:                # that an image was opened by
    Name* next
    char text[0]                 # NUL-terminated


cdef struct Image:
    # The handle. It begins as libc's own link map does, and more of that is read: by pldd(1) what
    # follows the public part, by libthread_db for gdb and lldb the module id of thread-local
    # storage, whose offset libc tells (host/assumptions.pxd), and by libc most of it when it is
    # handed a handle of ours by mistake: with zeroes it takes that for closed. So zeroes
    # stand there. But of `l_info`, 80 pointers or more into the dynamic section, nobody reads
    # but two, and records of ours lie there; tests/core/image/test_records.py has the offsets.
    LinkMap link_map
    char zeroes[24]              # l_real, l_ns, l_libname
    # All up to further_zeroes is set before it is published, but for what is said.
    Layout layout                # phdrs owned but of the host's
    uint64_t no_rpath            # l_info[DT_RPATH]: 0
    ThreadLocal thread_local
    uint64_t load_bias
    uint64_t bytes_bias
    uint64_t map_start           # run addresses
    uint64_t map_end
    # Owned, or the first of `names`; of a file it is absolute. Of the program atomic: path.pxd.
    char* path
    const Machine* machine       # of its code
    uint64_t no_runpath          # l_info[DT_RUNPATH]: 0
    Tables tables
    uint64_t device              # 0 with `inode`: not a file; of the host's: HostRecord
    uint64_t inode
    char further_zeroes[560]     # up to offset 1,264

    # What it is, set before it is published.
    int64_t namespace_id         # 0: the program's
    Flag is_host                 # mapped by the process's own loader
    Flag is_foreign              # of another machine: it is only looked at
    Flag is_private              # found by no name or file: DLOPEN_PRIVATE
    Flag is_from_bytes
    Flag is_from_files           # from bytes: its path is one of the caller's files
    Flag is_reloadable           # another image may take its place: running/swap.pxd
    Flag no_foreign_code         # constructors and resolvers of it do not run
    Flag shares_family           # its namespace has a record: host/namespaces.pxd
    uint64_t asked_length        # atomic: 1 + `asked_name_length`, once it was asked for
    Slot* slot                   # of the arena, which it is in; NULL: it is mapped
    long kept_file               # 1 + a descriptor, owned: bytes kept for a debugger; 0: none
    uint64_t offset              # of a member, where it begins in the file; 0: the whole file
    char* archive                # owned: the path of the file that it is a member of; or NULL

    # Guarded by Registry.lock.
    Pointers names               # char*, owned but of the host's: those that it was loaded by
    Name* further_names          # owned: only grows, and is read with load_pointer
    Unique* uniques              # owned: its entries in the table of STB_GNU_UNIQUE definitions

    Scope scope
    Needs needs
    Listing listing
    Life life
    Traversal visit
    Calls calls
    Changes changes
    HostRecord host


cdef inline bint is_being_linked(const Image* image) noexcept nogil:
    """By DLOPEN_relocate, if others know it: its places and lists are that thread's alone. What
    it relies on is pinned by that thread's transaction."""
    return load_u32(&image.life.state) == DLOPEN_STATE_LOADING


cdef inline bint is_linked(const Image* image) noexcept nogil:
    """Its dependencies can be read. For a reader, who has no lock."""
    cdef uint32_t state = load_u32(&image.life.state)
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
    cdef uint32_t high = image.changes.replacement_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) // 2
        if image.changes.replacements[middle].symbol < symbol:
            low = middle + 1
        else:
            high = middle
    if low == image.changes.replacement_count or image.changes.replacements[low].symbol != symbol:
        return 0
    return load_u64(&image.changes.replacements[low].address)


cdef inline const char* string_at(const Image* image, uint64_t offset) noexcept nogil:
    """A string of the dynamic string table; NULL when out of range."""
    if offset >= image.tables.strtab_size:
        return NULL
    return image.tables.strtab + offset


cdef inline const char* image_asked_name(const Image* image) noexcept nogil:
    """The name that it was loaded by, of the host's as its own list has it."""
    return <const char*>image.names.items[0]


cdef inline void* image_handle(Image* image) noexcept nogil:
    """What the dl* functions hand out for it; NULL where the host was not asked for its own."""
    return image.host.handle if image.is_host else image


cdef inline size_t asked_name_length(Image* image) noexcept nogil:
    """Of that name. Kept: each miss of a dlsym writes it."""
    cdef uint64_t known = load_u64(&image.asked_length)
    if known == 0:
        known = 1 + strlen(image_asked_name(image))
        store_u64(&image.asked_length, known)
    return known - 1


cdef inline const char* image_name(const Image* image) noexcept nogil:
    """For messages: as it was asked for, like glibc's."""
    if image.names.count != 0 and (<const char*>image.names.items[0])[0] != 0:
        return <const char*>image.names.items[0]
    if image.host.is_program:
        return b"(main program)"
    return b"(unnamed)"


cdef inline uint64_t chains_end(const Image* image) noexcept nogil:
    """Behind the last symbol that DT_GNU_HASH leads to; its `symbol_offset` if it leads to none."""
    cdef const Tables* tables = &image.tables
    cdef uint64_t index = 0
    cdef uint32_t i
    for i in range(tables.bucket_count):
        if tables.buckets[i] > index:
            index = tables.buckets[i]
    if index < tables.symbol_offset:
        return tables.symbol_offset
    while index < tables.chain_limit and not tables.chains[index - tables.symbol_offset] & 1:
        index += 1
    return smaller(index + 1, tables.chain_limit)


cdef inline uint64_t symbol_count(const Image* image) noexcept nogil:
    """How many entries the dynamic symbol table has, as its hash tables tell."""
    cdef const Tables* tables = &image.tables
    if tables.sysv_buckets != NULL:
        return smaller(tables.sysv_chain_count, tables.symbol_limit)
    if tables.buckets == NULL:
        return 0
    return smaller(chains_end(image), tables.symbol_limit)


cdef inline void free_patched_place(PatchedPlace* patched) noexcept nogil:
    """With all values of its patches."""
    cdef PlaceValue* value
    while patched.top != NULL:
        value = patched.top
        patched.top = value.below
        release(value)
    release(patched)


cdef inline void forget_ranges(Image* image) noexcept nogil:
    """Once each of its places is relocated."""
    release(image.tables.ranges)
    image.tables.ranges = NULL
    image.tables.range_count = 0


cdef inline void release_list(Releases* releases, const Pointers* array, bint items) noexcept nogil:
    """Later, and its items if it owns them."""
    cdef size_t i
    for i in range(array.count if items else 0):
        release_later(releases, array.items[i])
    release_later(releases, array.items)


cdef inline void image_free_records(Image* image) noexcept nogil:
    """All that the image owns but its mapping and its host handles, and itself."""
    cdef Name* name
    cdef Unique* unique = image.uniques
    cdef Releases releases
    releases.first = NULL
    while unique != NULL:
        image.uniques = unique.sibling
        release_later(&releases, unique)
        unique = image.uniques
    if image.host.is_program or not image.is_host and (
        image.names.count == 0 or image.path != image.names.items[0]
    ):
        release_later(&releases, image.path)
    release_list(&releases, &image.names, not image.is_host)
    while image.further_names != NULL:
        name = image.further_names
        image.further_names = name.next
        release_later(&releases, name)
    release_list(&releases, &image.thread_local.descriptors, True)
    release_list(&releases, &image.host.copied, True)
    release_list(&releases, &image.tables.needed, False)
    release_list(&releases, &image.tables.filter_entries, False)
    release_list(&releases, &image.needs.dependencies, False)
    release_list(&releases, &image.needs.filtees, False)
    release_list(&releases, &image.needs.sorted, False)
    release_list(&releases, &image.needs.bindings, False)
    release_list(&releases, &image.needs.host_handles, False)
    release_list(&releases, &image.scope.search_list.images, False)
    release_later(&releases, image.archive)
    release_later(&releases, image.listing.keys)
    release_later(&releases, image.calls.definers)
    release_later(&releases, image.changes.replacements)
    if image.kept_file != 0:
        kernel_close(image.kept_file - 1)
    release_later(&releases, image.scope.lists)
    release_later(&releases, image.tables.versions)
    release_later(&releases, image.tables.ranges)
    release_later(&releases, image.host.probe)
    if not image.is_host:
        release_later(&releases, image.layout.phdrs)
    release_later(&releases, image)
    release_all(&releases)
