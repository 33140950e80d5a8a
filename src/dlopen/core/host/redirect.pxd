"""Unwinders that come later than our first image.

libc brings in libgcc_s when a thread is cancelled or a backtrace is wanted, and what the host opens
may hold an unwinder of its own. Each of them binds _dl_find_object or dl_iterate_phdr when it is
loaded, as libc's symbol table says. So the table says ours from our first image on: `st_value` of
the two dynamic symbols of libc.so.6 leads to our functions, modulo 2**64 from wherever libc lies.
What has bound them before is rebound (host/unwinder.pxd). No library is brought into a process for
it, and libc's own code does not look there. A debugger reads the table of the file.

Where code lies in the same segment, as linkers of AArch64, RISC-V and LoongArch have it, only the
pages of the two are opened, which hold no code; nothing of them can be executed afterwards.

Where libdlopen.so stands before libc in the global scope, preloaded or linked, ours are found
anyhow, and the table stays as it is. Where the table cannot be written for a moment, because the
kernel refuses, or because code may lie in the same page, libgcc_s is brought in at once: the
unwinder that nearly all share is not among those that come late then.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.kernel cimport PROT_READ, PROT_WRITE
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.words cimport align_down, align_up, larger, smaller
from dlopen.core.elf.constants cimport PF_W, PF_X, SHN_UNDEF, STT_FUNC
from dlopen.core.elf.layout cimport Layout, segment_holding
from dlopen.core.elf.structures cimport Phdr, Sym, symbol_type
from dlopen.core.host.abi cimport RTLD_LAZY
from dlopen.core.host.host_lock cimport open_host
from dlopen.core.host.iterate cimport holds_linker
from dlopen.core.host.libraries cimport is_c_library
from dlopen.core.host.linker cimport Linker
from dlopen.core.host.rebind cimport close_table
from dlopen.core.host.refresh cimport HOSTS_UNKNOWN, refresh_hosts
from dlopen.core.host.unwinder cimport own_unwinder_function
from dlopen.core.image.image cimport Image, Tables, bytes_start, symbol_count
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.memory.memory cimport memory_protect, memory_set_word
from dlopen.core.symbols.lookup cimport Reference, lookup_in_image, refer


cdef struct Entry:               # of libc's symbol table, that is to lead to a function of ours
    const Image* libc
    const Sym* symbol            # NULL: nothing is to be done
    uint64_t value


cdef struct Range:
    uint64_t start
    uint64_t end


cdef inline Entry find_entry(
    Linker* linker, const Snapshot* snapshot, const char* name
) noexcept nogil:
    """Not where a libc has no such symbol, where ours is found before it, or again."""
    cdef Entry entry
    cdef Reference reference
    cdef const Sym* symbol
    cdef const Image* image
    cdef uint32_t index = 0
    cdef size_t i
    memset(&entry, 0, sizeof(entry))
    refer(&reference, name, NULL)
    for i in range(snapshot.host_count):
        image = snapshot.hosts[i]
        if not image.host.is_startup:
            break
        symbol = lookup_in_image(image, &reference, &index)
        if symbol != NULL and holds_linker(linker, image):
            break
        if symbol != NULL and is_c_library(image.tables.soname):
            entry.libc = image
            entry.value = own_unwinder_function(linker.own_names, name, False) - image.load_bias
            if symbol.st_value != entry.value:
                entry.symbol = symbol
            break
    return entry


cdef inline const Phdr* segment_of(const Entry* entry) noexcept nogil:
    """NULL where the value cannot be stored at once."""
    cdef uint64_t place = <uint64_t>&entry.symbol.st_value
    if place & 7U:
        return NULL
    return segment_holding(&entry.libc.layout, place - entry.libc.load_bias, 8)


cdef inline uint64_t end_of_tables(const Image* libc) noexcept nogil:
    """Behind all that linkers put before the code of one segment with it."""
    cdef const Tables* tables = &libc.tables
    cdef uint64_t end = <uint64_t>tables.strtab + tables.strtab_size
    if tables.rela_count != 0:
        end = larger(end, <uint64_t>&tables.rela[tables.rela_count])
    if tables.jmprel_count != 0:
        end = larger(end, <uint64_t>&tables.jmprel[tables.jmprel_count])
    return end


cdef inline bint is_before_code(const Image* libc, uint64_t start, uint64_t end) noexcept nogil:
    """Nothing of [start, end), which holds entries of the symbol table, is code."""
    cdef const Sym* symbol
    cdef size_t i
    if end > end_of_tables(libc):
        return False
    for i in range(symbol_count(libc)):
        symbol = &libc.tables.symtab[i]
        if symbol_type(symbol) == STT_FUNC and symbol.st_shndx != SHN_UNDEF \
                and libc.load_bias + symbol.st_value < end \
                and libc.load_bias + symbol.st_value >= bytes_start(libc):
            return False
    return True


cdef inline void widen(Range* pages, const Entry* entry) noexcept nogil:
    """By the page, or the two, of the entry's value."""
    cdef uint64_t place = <uint64_t>&entry.symbol.st_value
    cdef uint64_t page = entry.libc.layout.page
    pages.start = smaller(pages.start, align_down(place, page))
    pages.end = larger(pages.end, align_up(place + 8, page))


cdef inline bint find_pages(
    const Entry* find_object, const Entry* iterate, Range* pages
) noexcept nogil:
    """Those that are to be opened for a store into both, one of which may be none. False: code
    might lie there."""
    cdef const Entry* some = iterate if find_object.symbol == NULL else find_object
    cdef const Phdr* segment = segment_of(some)
    cdef const Layout* layout = &some.libc.layout
    if segment == NULL or segment.p_flags & PF_W \
            or iterate.symbol != NULL and segment_of(iterate) != segment:
        return False
    if not segment.p_flags & PF_X:
        # The whole of it: a mapping that is split for this stays split.
        pages.start = some.libc.load_bias + align_down(segment.p_vaddr, layout.page)
        pages.end = some.libc.load_bias \
            + align_up(segment.p_vaddr + segment.p_memsz, layout.page)
        return True
    pages.start = ~<uint64_t>0
    pages.end = 0
    widen(pages, some)
    if iterate.symbol != NULL:
        widen(pages, iterate)
    return is_before_code(some.libc, pages.start, pages.end)


cdef inline void store_value(const Entry* entry) noexcept nogil:
    """Who looks the symbol up sees the one or the other."""
    if entry.symbol != NULL:
        memory_set_word(<uint64_t>&entry.symbol.st_value, entry.value)


cdef inline bint redirect(Linker* linker, const Snapshot* snapshot) noexcept nogil:
    """Under Registry.lock: of two threads the first would close the segment before the second has
    stored. Again does no harm. False where the table cannot be written."""
    cdef Entry find_object = find_entry(linker, snapshot, b"_dl_find_object")
    cdef Entry iterate = find_entry(linker, snapshot, b"dl_iterate_phdr")
    cdef Range pages
    if find_object.symbol == NULL and iterate.symbol == NULL:
        return True
    if not find_pages(&find_object, &iterate, &pages) or memory_protect(
        pages.start, pages.end - pages.start, PROT_READ | PROT_WRITE
    ) != 0:
        return False
    store_value(&find_object)
    store_value(&iterate)
    close_table(&linker.rebinding, pages.start, pages.end - pages.start)
    return True


cdef inline void bring_unwinder(Linker* linker) noexcept nogil:
    """libgcc_s, by the name that libc uses; a process may do without it. Never given back. No lock
    may be held."""
    if open_host(linker, b"libgcc_s.so.1", RTLD_LAZY) == NULL:
        linker.host.dlerror()


cdef inline bint expect_late_unwinders(
    Linker* linker, const Snapshot* snapshot, bint may_run_foreign_code
) noexcept nogil:
    """Before the first image is published; once. Called in the reader section of `snapshot`, with
    no lock held. False without memory."""
    cdef bint redirected
    if load_u32(&linker.rebinding.expects_unwinders):
        return True
    lock_acquire(&linker.registry.lock)
    redirected = redirect(linker, snapshot)
    lock_release(&linker.registry.lock)
    if not redirected:
        if not may_run_foreign_code:
            return True          # the next open sees to it
        bring_unwinder(linker)
    # What the host has bound since `snapshot`.
    if refresh_hosts(linker, snapshot) == HOSTS_UNKNOWN:
        return False
    store_u32(&linker.rebinding.expects_unwinders, 1)
    return True
