"""What the search knows of the process: LD_LIBRARY_PATH, the default folders of this libc, their
subfolders for this processor.

Kept in SearchSettings (host/linker.pxd). Found out on the first search, by whichever thread is
first; published under Registry.lock and never changed.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.arch.processor cimport (
    PLATFORM_PARTS, isa_level, platform_name, platform_parts,
)
from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.environment cimport Environment, environment_value
from dlopen.core.base.growable cimport Text, text_add, text_add_bytes, text_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strlen, strncmp
from dlopen.core.elf.constants cimport DF_1_NODEFLIB, PF_R, PF_X, PT_LOAD
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.host.abi cimport RTLD_DI_SERINFO, RTLD_DI_SERINFOSIZE, RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.libraries cimport c_library_name, is_loader
from dlopen.core.host.linker cimport Linker, SearchSettings
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.search.folders cimport Dl_serinfo, Dl_serpath, count_own_folders


cdef inline void add_subfolder(SearchSettings* search, const char* name) noexcept nogil:
    """With its slash at the end; "" is the folder itself."""
    text_add_bytes(&search.subfolders, name, strlen(name) + 1)
    search.subfolder_count += 1


cdef inline void make_subfolders(
    SearchSettings* search, void* features, bint with_platform
) noexcept nogil:
    """In the order in which glibc tries them. `with_platform`: an older one, which has more."""
    cdef const char* parts[PLATFORM_PARTS]
    cdef int level = isa_level(features)
    cdef int count = platform_parts(features, &parts[0], &search.legacy_hwcap)
    cdef int subset, bit, i
    for i in range(3):
        if THIS_MACHINE.hwcaps[i][0] != 0 and level >= 4 - i:
            text_add(&search.subfolders, b"glibc-hwcaps/")
            text_add(&search.subfolders, &THIS_MACHINE.hwcaps[i][0])
            add_subfolder(search, b"/")
    search.hwcaps_count = <uint32_t>search.subfolder_count
    text_add(&search.platform, platform_name(features))
    if with_platform:
        # All subsets, as binary numbers downwards, the highest bit's name first.
        subset = (<int>1 << count) - 1
        while subset > 0:
            for bit in reversed(range(count)):
                if subset >> bit & 1:
                    text_add(&search.subfolders, parts[bit])
            text_add_bytes(&search.subfolders, b"", 1)
            search.subfolder_count += 1
            subset -= 1
    add_subfolder(search, b"")


cdef inline bint holds_in(
    const Image* loader, uint32_t flags, const Text* text
) noexcept nogil:
    """In one of its segments with just these flags."""
    cdef uint32_t i
    cdef const Phdr* segment
    for i in range(loader.layout.phnum):
        segment = &loader.layout.phdrs[i]
        if segment.p_type == PT_LOAD and segment.p_flags == flags and memmem(
            <const void*>(loader.bytes_bias + segment.p_vaddr), segment.p_filesz,
            text.data, text.length
        ) != NULL:
            return True
    return False


cdef inline bint loader_holds(const Image* loader, const Text* text) noexcept nogil:
    """A constant of the host's loader: as a rule not in a segment with code, whose pages are not
    brought in then."""
    return holds_in(loader, PF_R, text) or holds_in(loader, PF_R | PF_X, text)


cdef extern from "<string.h>" nogil:
    void* memmem(const void* area, size_t size, const void* wanted, size_t wanted_size)


cdef inline bint count_default_folders(
    const Snapshot* snapshot, const Dl_serpath* paths, size_t count,
    size_t* result
) noexcept nogil:
    """How many at the end of the list that dlinfo tells for libc are the loader's own (its
    system_dirs), and not of LD_LIBRARY_PATH or a RPATH. False without memory."""
    cdef bint complete = True
    cdef size_t found = 0
    cdef size_t i
    cdef Text text
    cdef Text longer
    cdef const Image* loader = NULL
    memset(&text, 0, sizeof(text))
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].host.is_startup and is_loader(snapshot.hosts[i].tables.soname):
            loader = snapshot.hosts[i]
    while loader != NULL and found < count:
        memset(&longer, 0, sizeof(longer))
        text_add(&longer, paths[count - 1 - found].dls_name)
        text_add_bytes(&longer, b"/", 2)
        if text.length:
            text_add_bytes(&longer, text.data, text.length)
        text_free(&text)
        text = longer
        complete = not text.failed
        if not complete or not loader_holds(loader, &text):
            break
        found += 1
    text_free(&text)
    result[0] = found
    return complete


cdef inline bint ask_host_for_folders(
    Linker* linker, const char* name, Dl_serinfo** result
) noexcept nogil:
    """RTLD_DI_SERINFO of the host's for what it knows by `name`, to be released; NULL if it does
    not say. False without memory."""
    cdef bint complete = True
    cdef Dl_serinfo size
    cdef Dl_serinfo* info = NULL
    cdef void* handle = open_host(linker, name, RTLD_LAZY | RTLD_NOLOAD)
    if handle == NULL:
        linker.host.dlerror()
        result[0] = NULL
        return True
    if linker.host.dlinfo(handle, RTLD_DI_SERINFOSIZE, &size) == 0:
        info = <Dl_serinfo*>allocate(size.dls_size)
        complete = info != NULL
    if info != NULL:
        info.dls_size = size.dls_size
        info.dls_cnt = size.dls_cnt
        if linker.host.dlinfo(handle, RTLD_DI_SERINFO, info) != 0:
            release(info)
            info = NULL
    close_host(linker, handle)
    result[0] = info
    return complete


cdef inline void add_default_folder(
    SearchSettings* search, const char* above, const char* name
) noexcept nogil:
    text_add(&search.default_folders, above)
    text_add(&search.default_folders, name)
    text_add_bytes(&search.default_folders, b"/", 2)
    search.default_count += 1


cdef inline bint read_default_folders(
    Linker* linker, const Snapshot* snapshot, SearchSettings* search
) noexcept nogil:
    """The system folders that this glibc was built with. False without memory."""
    cdef Dl_serinfo* info = NULL
    cdef Dl_serpath* paths
    cdef size_t i
    cdef bint complete = ask_host_for_folders(linker, c_library_name(), &info)
    if info != NULL:
        paths = <Dl_serpath*>&info.dls_serpath
        complete = count_default_folders(snapshot, paths, info.dls_cnt, &search.default_count)
        for i in range(info.dls_cnt - search.default_count, info.dls_cnt):
            text_add(&search.default_folders, paths[i].dls_name)
            text_add_bytes(&search.default_folders, b"/", 2)
            if search.lib.length == 0 and strncmp(paths[i].dls_name, b"/lib", 4) == 0:
                text_add(&search.lib, paths[i].dls_name + 1)
        release(info)
    if search.lib.length == 0:
        text_add(&search.lib, &THIS_MACHINE.lib[0])
    if search.default_count == 0:
        add_default_folder(search, b"/", &THIS_MACHINE.lib[0])
        add_default_folder(search, b"/usr/", &THIS_MACHINE.lib[0])
        add_default_folder(search, b"/", b"lib")
        add_default_folder(search, b"/usr/", b"lib")
    return complete


cdef inline void read_library_path(
    Linker* linker, const Snapshot* snapshot, SearchSettings* search
) noexcept nogil:
    """LD_LIBRARY_PATH of the start. Where that was not there to be read any more, or where the
    loader was started as a command and has --library-path instead, the host is asked: what it
    would search for the program, without the program's own list and the default folders."""
    cdef const Environment* environment = &linker.process.environment
    cdef Text* text = &search.library_path
    cdef const Image* program = snapshot.hosts[0] if snapshot.host_count else NULL
    cdef const char* value = environment_value(environment, b"LD_LIBRARY_PATH=")
    cdef Dl_serinfo* info = NULL
    cdef const Dl_serpath* paths
    cdef size_t own, i
    cdef size_t count
    cdef bint complete = True
    if not environment.is_of_start and program != NULL:
        text.failed = not ask_host_for_folders(linker, NULL, &info)
    if info == NULL:
        if value != NULL:
            text_add(text, value)
        return
    paths = <const Dl_serpath*>&info.dls_serpath
    count = info.dls_cnt
    if not program.tables.flags_1 & DF_1_NODEFLIB:
        count -= search.default_count if search.default_count < count else count
    own = count_own_folders(search, program, paths, count, &complete)
    text.failed = text.failed or not complete
    if program.tables.runpath == NULL:
        paths += own
    for i in range(count - own):
        if i != 0:
            text_add(text, b":")
        text_add(text, paths[i].dls_name)
    release(info)


cdef inline bint lacks_memory(const SearchSettings* search) noexcept nogil:
    """For one of its texts."""
    return search.library_path.failed or search.default_folders.failed or search.lib.failed \
        or search.platform.failed or search.subfolders.failed


cdef inline void free_settings(SearchSettings* search) noexcept nogil:
    text_free(&search.library_path)
    text_free(&search.default_folders)
    text_free(&search.lib)
    text_free(&search.platform)
    text_free(&search.subfolders)


cdef inline bint prepare_search(Linker* linker, const Snapshot* snapshot) noexcept nogil:
    """Once; False without memory. Two threads may both find out; the first to finish is kept."""
    cdef SearchSettings search
    cdef bint complete
    if load_u32(&linker.search.has_settings):
        return True
    memset(&search, 0, sizeof(search))
    search.is_secure = linker.process.is_secure
    make_subfolders(
        &search, linker.host.processor_features, linker.habits.searches_platform_folders
    )
    complete = read_default_folders(linker, snapshot, &search)
    if not linker.process.is_secure:
        read_library_path(linker, snapshot, &search)
    complete = complete and not lacks_memory(&search)
    lock_acquire(&linker.registry.lock)
    if complete and not linker.search.has_settings:
        memcpy(&linker.search.settings, &search, sizeof(search))
        store_u32(&linker.search.has_settings, 1)
        memset(&search, 0, sizeof(search))
    lock_release(&linker.registry.lock)
    free_settings(&search)
    return complete
