"""Where a name comes from: the search of ld.so(8), in the order of this glibc.

RPATH of the asking image and of those that brought it in, then the program's;
LD_LIBRARY_PATH; RUNPATH of the asking image; /etc/ld.so.cache; the default folders. In
every folder the glibc-hwcaps subfolders come first, and where libc does so the older ones.
A namespace's own path comes before what the process has: the program's RPATH.

Where the caller has files of its own, each path that is formed so is first asked of them, but
for those subfolders: one question a folder. Between RPATH and LD_LIBRARY_PATH they are asked
for what RUNPATH names, and for the name as it is: what somebody hands over with a library goes
before the environment. A relative folder in the lists of an image from such files is a folder
of theirs, not of the working directory.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.allocator cimport Allocator, allocate, copy_text, end_allocator, release
from dlopen.core.base.atomics cimport load_pointer, load_u32, store_pointer, store_u32
from dlopen.core.base.contract cimport DLOPEN_REJECTED_FILES, DLOPEN_REJECTED_MACHINE
from dlopen.core.base.environment cimport Environment, environment_value
from dlopen.core.base.growable cimport Text, text_add, text_add_bytes, text_cut, text_free
from dlopen.core.base.kernel cimport (
    ENOENT, ENOTDIR, MAP_PRIVATE, PROT_READ, FileStatus, is_directory, is_shortage, kernel_close,
    kernel_map, kernel_open, kernel_status, kernel_status_of, kernel_unmap,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.paths cimport add_working_directory
from dlopen.core.base.strings cimport memcmp, strchr, strcmp, strlen, strncmp, strrchr
from dlopen.core.elf.constants cimport DF_1_NODEFLIB, EI_CLASS, ELFCLASS64, PF_R, PF_W, PT_LOAD
from dlopen.core.elf.hash cimport gnu_hash
from dlopen.core.elf.structures cimport Ehdr, Phdr, Word
from dlopen.core.host.abi cimport RTLD_DI_SERINFO, RTLD_DI_SERINFOSIZE, RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.linker cimport (
    FOLDER_BUCKETS, FOLDER_EXISTS, FOLDER_MISSING, FOLDER_UNKNOWN, MAX_FOLDERS, Folder, Linker,
    Namespace, SearchSettings,
)
from dlopen.core.host.namespaces cimport namespace_of_image
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.memory.file cimport (
    File, Files, file_close, file_from_files, file_init, file_read_start, make_plain,
)
from dlopen.core.memory.mapping cimport is_mapping_error
from dlopen.core.symbols.report cimport report_candidate, report_search
cdef extern from *:
    """
    #if defined(__x86_64__)
    #include <cpuid.h>
    /* How glibc names this processor: the x86-64-vN level (psABI, "Micro-Architecture
       Levels"), and in older releases a platform. Not by __builtin_cpu_supports: that brings a
       constructor, which asks the processor in every process, and under a hypervisor each
       question costs microseconds. */
    static int dlopen_isa_level(void) {
        const unsigned v2 = bit_SSE3 | bit_SSSE3 | bit_CMPXCHG16B | bit_SSE4_1 | bit_SSE4_2
            | bit_POPCNT;
        const unsigned v3 = bit_FMA | bit_MOVBE | bit_OSXSAVE | bit_AVX | bit_F16C;
        const unsigned v3_of_7 = bit_BMI | bit_AVX2 | bit_BMI2;
        const unsigned v4_of_7 = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW
            | bit_AVX512VL;
        unsigned a, b, c = 0, d, of_7 = 0, extended = 0, enabled = 0;
        if (!__get_cpuid(1, &a, &b, &c, &d) || (c & v2) != v2) return 1;
        __get_cpuid_count(7, 0, &a, &of_7, &b, &d);
        __get_cpuid(0x80000001, &a, &b, &extended, &d);
        if ((c & v3) != v3 || (of_7 & v3_of_7) != v3_of_7 || !(extended & bit_LZCNT)) return 2;
        /* What the kernel saves: SSE and AVX are bits 1 and 2, AVX-512 has bits 5 to 7. */
        __asm__ ("xgetbv" : "=a" (enabled), "=d" (d) : "c" (0));
        if ((enabled & 6) != 6) return 2;
        return (of_7 & v4_of_7) == v4_of_7 && (enabled & 0xe6) == 0xe6 ? 4 : 3;
    }
    static int dlopen_is_intel(void) {
        unsigned a, b = 0, c = 0, d = 0;
        return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx;
    }
    #else
    static int dlopen_isa_level(void) { return 0; }
    static int dlopen_is_intel(void) { return 0; }
    #endif
    """
    int isa_level "dlopen_isa_level"() noexcept nogil
    bint is_intel "dlopen_is_intel"() noexcept nogil


cdef extern from "<string.h>" nogil:
    void* memmem(const void* area, size_t size, const void* wanted, size_t wanted_size)


cdef extern from "<dlfcn.h>" nogil:
    ctypedef struct Dl_serpath:
        char* dls_name
        unsigned int dls_flags
    ctypedef struct Dl_serinfo:
        size_t dls_size
        unsigned int dls_cnt
        Dl_serpath* dls_serpath


cdef struct Trail:               # the candidates of one search, for errors and for dlopen.find
    Text paths                   # strings one after another
    Text origins                 # the same: which rule named it
    int32_t results[256]
    size_t count
    bint other_class             # one of them is an ELF file of 32 bits


cdef inline void trail_free(Allocator* allocator, Trail* trail) noexcept nogil:
    text_free(allocator, &trail.paths)
    text_free(allocator, &trail.origins)
    trail.count = 0
    trail.other_class = False


cdef inline void trail_add(
    Allocator* allocator, Trail* trail, const char* path, const char* origin, int result,
    const File* file
) noexcept nogil:
    if trail == NULL or trail.count == 256:
        return
    if result == DLOPEN_REJECTED_MACHINE and file.start[EI_CLASS] != ELFCLASS64:
        trail.other_class = True
    # Without memory it ends here: what is counted is there.
    if trail.paths.failed or trail.origins.failed:
        return
    text_add_bytes(allocator, &trail.paths, path, strlen(path) + 1)
    text_add_bytes(allocator, &trail.origins, origin, strlen(origin) + 1)
    if trail.paths.failed or trail.origins.failed:
        return
    trail.results[trail.count] = result
    trail.count += 1


cdef inline bint trail_holds(const Trail* trail, const char* path) noexcept nogil:
    cdef const char* one = trail.paths.data
    cdef size_t _i
    for _i in range(trail.count):
        if strcmp(one, path) == 0:
            return True
        one += strlen(one) + 1
    return False


cdef inline size_t element_length(const char* path, const char* separators) noexcept nogil:
    cdef size_t length = 0
    while path[length] != 0 and strchr(separators, path[length]) == NULL:
        length += 1
    return length


cdef inline size_t token_length(const char* text, const char* name) noexcept nogil:
    """The length of `$name` or `${name}` at the start of text; 0 when it is not there."""
    cdef size_t length = strlen(name)
    cdef char after
    if text[1] == 0x7b:          # '{'
        if strncmp(text + 2, name, length) == 0 and text[2 + length] == 0x7d:
            return length + 3
        return 0
    if strncmp(text + 1, name, length) != 0:
        return 0
    after = text[1 + length]
    if 0x30 <= after <= 0x39 or 0x41 <= after <= 0x5a or 0x61 <= after <= 0x7a or after == 0x5f:
        return 0
    return length + 1


cdef inline bint add_origin(Linker* linker, const Image* image, Text* text) noexcept nogil:
    """The folder of an image's file; False when it is not known. Among the caller's files it
    may be relative."""
    cdef const char* path
    cdef const char* slash
    cdef Allocator* allocator = &linker.registry.allocator
    if image == NULL or image.path == NULL or image.path[0] == 0:
        return False
    path = image.path
    if path[0] != 0x2f and not image.is_from_files:
        if image.is_from_bytes or not add_working_directory(allocator, text):
            return False
        text_add(allocator, text, b"/")
    slash = strrchr(path, 0x2f)
    if slash == NULL and image.is_from_files:
        text_add(allocator, text, b".")
    elif slash == NULL:
        return image.path[0] != 0x2f and text.length != 0
    elif slash == path:
        text_add(allocator, text, b"/")
    else:
        text_add_bytes(allocator, text, path, <size_t>(slash - path))
    return True


cdef inline bint expand(
    Linker* linker, const Image* image, const char* source, size_t length, Text* text
) noexcept nogil:
    """Appends source with $ORIGIN, $LIB and $PLATFORM expanded; False when the element
    cannot be used: an unknown $ORIGIN, or one in secure execution."""
    cdef size_t i = 0
    cdef size_t token, plain
    cdef Allocator* allocator = &linker.registry.allocator
    while i < length:
        if source[i] == 0x24:    # '$'
            token = token_length(source + i, b"ORIGIN")
            if token != 0 and i + token <= length:
                if linker.secure or not add_origin(linker, image, text):
                    return False
                i += token
                continue
            token = token_length(source + i, b"LIB")
            if token != 0 and i + token <= length:
                text_add_bytes(allocator, text, linker.search.lib.data, linker.search.lib.length)
                i += token
                continue
            token = token_length(source + i, b"PLATFORM")
            if token != 0 and i + token <= length:
                text_add_bytes(
                    allocator, text, linker.search.platform.data, linker.search.platform.length
                )
                i += token
                continue
        plain = 1
        while i + plain < length and source[i + plain] != 0x24:
            plain += 1
        text_add_bytes(allocator, text, source + i, plain)
        i += plain
    return True


cdef inline void add_subfolder(Linker* linker, const char* name) noexcept nogil:
    text_add_bytes(
        &linker.registry.allocator, &linker.search.subfolders, name, strlen(name) + 1
    )
    linker.search.subfolder_count += 1


cdef inline void make_subfolders(Linker* linker) noexcept nogil:
    """In the order in which glibc tries them."""
    cdef SearchSettings* search = &linker.search
    cdef Allocator* allocator = &linker.registry.allocator
    cdef int level = isa_level()
    cdef const char* parts[4]
    cdef const char* platform = b"x86_64"
    cdef int count = 0
    cdef int subset, bit
    if level >= 4:
        add_subfolder(linker, b"glibc-hwcaps/x86-64-v4/")
    if level >= 3:
        add_subfolder(linker, b"glibc-hwcaps/x86-64-v3/")
    if level >= 2:
        add_subfolder(linker, b"glibc-hwcaps/x86-64-v2/")
    search.hwcaps_count = <uint32_t>search.subfolder_count
    if is_intel() and level >= 3:
        platform = b"haswell"
    text_add(allocator, &search.platform, platform)
    search.legacy_hwcap = 1
    if linker.habits.searches_platform_folders and level != 0:
        parts[0] = b"x86_64/"
        count = 1
        if is_intel() and level >= 4:
            parts[1] = b"avx512_1/"
            count = 2
            search.legacy_hwcap |= 4
        parts[count] = b"x86_64/"
        if is_intel() and level >= 3:
            parts[count] = b"haswell/"
        parts[count + 1] = b"tls/"
        count += 2
        # All subsets, as binary numbers downwards, the highest bit's name first.
        subset = (1 << 4) - 1 if count == 4 else (1 << 3) - 1
        while subset > 0:
            for bit in reversed(range(count)):
                if subset >> bit & 1:
                    text_add(allocator, &search.subfolders, parts[bit])
            text_add_bytes(allocator, &search.subfolders, b"", 1)
            search.subfolder_count += 1
            subset -= 1
    add_subfolder(linker, b"")


cdef inline bint loader_holds(const Image* loader, const Text* text) noexcept nogil:
    """A constant of the host's loader: in what it cannot write."""
    cdef uint32_t i
    cdef const Phdr* segment
    for i in range(loader.layout.phnum):
        segment = &loader.layout.phdrs[i]
        if segment.p_type == PT_LOAD and segment.p_flags & PF_R and not segment.p_flags & PF_W \
                and memmem(
                    <const void*>(loader.load_bias + segment.p_vaddr), segment.p_filesz,
                    text.data, text.length
                ) != NULL:
            return True
    return False


cdef inline bint count_default_folders(
    Allocator* allocator, const Snapshot* snapshot, const Dl_serpath* paths, size_t count,
    size_t* result
) noexcept nogil:
    """How many at the end of what libc's dlinfo says are the loader's own (its system_dirs,
    strings one after another), and not of LD_LIBRARY_PATH or a RPATH. False without memory."""
    cdef bint complete = True
    cdef size_t found = 0
    cdef size_t i
    cdef Text text
    cdef Text longer
    cdef const Image* loader = NULL
    memset(&text, 0, sizeof(text))
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].is_startup and snapshot.hosts[i].soname != NULL \
                and strncmp(snapshot.hosts[i].soname, b"ld-linux", 8) == 0:
            loader = snapshot.hosts[i]
    while loader != NULL and found < count:
        memset(&longer, 0, sizeof(longer))
        text_add(allocator, &longer, paths[count - 1 - found].dls_name)
        text_add_bytes(allocator, &longer, b"/", 2)
        if text.length:
            text_add_bytes(allocator, &longer, text.data, text.length)
        text_free(allocator, &text)
        text = longer
        complete = not text.failed
        if not complete or not loader_holds(loader, &text):
            break
        found += 1
    text_free(allocator, &text)
    result[0] = found
    return complete


cdef inline bint ask_host_for_folders(
    Linker* linker, const char* name, Dl_serinfo** result
) noexcept nogil:
    """RTLD_DI_SERINFO of the host's for what it knows by `name`, to be released; NULL if it does
    not say. False without memory."""
    cdef bint complete = True
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Dl_serinfo size
    cdef Dl_serinfo* info = NULL
    cdef void* handle = open_host(linker, name, RTLD_LAZY | RTLD_NOLOAD)
    if handle == NULL:
        linker.host.dlerror()
        result[0] = NULL
        return True
    if linker.host.dlinfo(handle, RTLD_DI_SERINFOSIZE, &size) == 0:
        info = <Dl_serinfo*>allocate(allocator, size.dls_size)
        complete = info != NULL
    if info != NULL:
        info.dls_size = size.dls_size
        info.dls_cnt = size.dls_cnt
        if linker.host.dlinfo(handle, RTLD_DI_SERINFO, info) != 0:
            release(allocator, info)
            info = NULL
    close_host(linker, handle)
    result[0] = info
    return complete


cdef inline bint read_default_folders(Linker* linker, const Snapshot* snapshot) noexcept nogil:
    """The system folders that this glibc was built with. False without memory."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef SearchSettings* search = &linker.search
    cdef Dl_serinfo* info = NULL
    cdef Dl_serpath* paths
    cdef size_t i
    cdef bint complete = ask_host_for_folders(linker, b"libc.so.6", &info)
    if info != NULL:
        paths = <Dl_serpath*>&info.dls_serpath
        complete = count_default_folders(
            allocator, snapshot, paths, info.dls_cnt, &search.default_count
        )
        for i in range(info.dls_cnt - search.default_count, info.dls_cnt):
            text_add(allocator, &search.default_folders, paths[i].dls_name)
            text_add_bytes(allocator, &search.default_folders, b"/", 2)
            if search.lib.length == 0 and strncmp(paths[i].dls_name, b"/lib", 4) == 0:
                text_add(allocator, &search.lib, paths[i].dls_name + 1)
        release(allocator, info)
    if search.default_count == 0:
        text_add_bytes(
            allocator, &search.default_folders, b"/lib64/\0/usr/lib64/\0/lib/\0/usr/lib/", 36
        )
        search.default_count = 4
    if search.lib.length == 0:
        text_add(allocator, &search.lib, b"lib64")
    return complete


cdef inline bint is_for_this_machine(const File* file) noexcept nogil:
    """Or no ELF file."""
    cdef const Ehdr* header = <const Ehdr*>&file.start[0]
    return file.start_size < sizeof(Ehdr) or memcmp(header.e_ident, b"\x7fELF", 4) != 0 \
        or (header.e_ident[EI_CLASS] == ELFCLASS64 and header.e_machine == THIS_MACHINE)


cdef inline int probe_file(const char* path, File* file) noexcept nogil:
    """0 and the open file: one that the search ends at (whether it can be loaded shows
    later); else a positive errno, or DLOPEN_REJECTED_MACHINE for another class or machine."""
    cdef long descriptor = kernel_open(path)
    if descriptor < 0:
        return <int>-descriptor
    file.descriptor = descriptor
    file_read_start(file)
    if not is_for_this_machine(file):
        file_close(file)
        return DLOPEN_REJECTED_MACHINE
    return 0


cdef inline Folder* find_folder(const Linker* linker, const char* path) noexcept nogil:
    cdef Folder* folder = <Folder*>load_pointer(
        &linker.folders[gnu_hash(path) % FOLDER_BUCKETS]
    )
    while folder != NULL and strcmp(folder.path, path) != 0:
        folder = folder.next
    return folder


cdef inline Folder* known_folder(Linker* linker, const char* path) noexcept nogil:
    """What is known of an absolute folder; NULL for a relative one, which another working
    directory makes another folder (glibc's rule), and when there are too many."""
    cdef Folder* folder
    cdef Folder* other
    cdef Folder** bucket
    if path == NULL or path[0] != 0x2f:
        return NULL
    folder = find_folder(linker, path)
    if folder != NULL or linker.folder_count >= MAX_FOLDERS:
        return folder
    folder = <Folder*>allocate(&linker.registry.allocator, sizeof(Folder) + strlen(path) + 1)
    if folder == NULL:
        return NULL
    memcpy(folder.path, path, strlen(path) + 1)
    bucket = &linker.folders[gnu_hash(path) % FOLDER_BUCKETS]
    lock_acquire(&linker.registry.lock)
    other = find_folder(linker, path)
    if other == NULL:
        folder.next = bucket[0]
        store_pointer(bucket, folder)
        linker.folder_count += 1
    lock_release(&linker.registry.lock)
    if other != NULL:
        release(&linker.registry.allocator, folder)
        return other
    return folder


cdef inline int folder_problem(Folder* folder, size_t subfolder, const char* path) noexcept nogil:
    """0 if it is there, else a positive errno. As glibc it is looked for once: what is made later
    is not found. But where it could not be looked for, nothing is known, which glibc takes for
    an answer."""
    cdef FileStatus status
    cdef uint32_t state
    cdef long result
    if folder == NULL:
        return 0
    state = load_u32(&folder.states[subfolder])
    if state == FOLDER_UNKNOWN:
        result = kernel_status(path, &status)
        if result < 0 and result != -ENOENT and result != -ENOTDIR:
            return <int>-result
        state = FOLDER_EXISTS if result == 0 and is_directory(status.st_mode) else FOLDER_MISSING
        store_u32(&folder.states[subfolder], state)
    return 0 if state == FOLDER_EXISTS else ENOENT


cdef struct Walk:                # over the folders of a search
    Linker* linker
    bint (*visit)(void* walk) noexcept nogil     # True ends it
    const char* origin           # the rule that names this folder
    const char* list             # the path list that it stands in
    Text* folder                 # ends with a slash; the visitor may append to it
    const char* name             # what is searched for; NULL: the folders are listed only
    const char* own_path         # of the namespace; NULL: none
    Trail* trail
    File* file
    Files* files                 # NULL: there are none
    bint in_files_only           # this folder is one of theirs
    bint ended                   # without the file: there is no memory or descriptor to look with
    void* listing


cdef inline bint try_files(
    Linker* linker, Files* files, const char* name, Text* path, Trail* trail, File* file
) noexcept nogil:
    """Whether the search for `name` ends among the caller's files: with `file`, and its plain
    path in `path`, or with Files.stopped. None is asked for twice in one search."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Text plain
    cdef int result = DLOPEN_REJECTED_FILES
    memset(&plain, 0, sizeof(plain))
    if not path.failed:
        text_add_bytes(allocator, &plain, path.data, path.length)
    if path.failed or plain.failed:
        path.failed = True       # nor shall another file be taken in place of theirs
        text_free(allocator, &plain)
        return False
    make_plain(plain.data)
    if not trail_holds(trail, plain.data):
        if file_from_files(file, files, plain.data):
            result = 0 if is_for_this_machine(file) else DLOPEN_REJECTED_MACHINE
        report_candidate(name, plain.data, b"files", result)
        trail_add(allocator, trail, plain.data, b"files", result, file)
    if result == 0:
        text_cut(path, 0)
        text_add(allocator, path, plain.data)
    elif file.is_from_files:
        file_init(file)
    text_free(allocator, &plain)
    return result == 0 or files.stopped


cdef inline bint try_folder_in_files(void* data) noexcept nogil:
    """Walk.visit of a search among the caller's files alone."""
    cdef Walk* walk = <Walk*>data
    cdef Allocator* allocator = &walk.linker.registry.allocator
    cdef size_t length = walk.folder.length
    text_add(allocator, walk.folder, walk.name)
    if try_files(walk.linker, walk.files, walk.name, walk.folder, walk.trail, walk.file):
        return True
    if walk.folder.failed:
        return end_walk(walk)
    text_cut(walk.folder, length)
    return False


cdef inline bint end_walk(Walk* walk) noexcept nogil:
    """What comes later in the search shall not be taken in place of what could not be looked at."""
    walk.ended = True
    return True


cdef inline bint try_folder(void* data) noexcept nogil:
    """Walk.visit of a search: at its end `folder` is the file's path."""
    cdef Walk* walk = <Walk*>data
    cdef Linker* linker = walk.linker
    cdef Text* path = walk.folder
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Folder* folder = known_folder(linker, path.data)
    cdef size_t length = path.length
    cdef size_t i
    cdef const char* subfolder = linker.search.subfolders.data
    cdef int result
    if path.failed:
        return end_walk(walk)
    if walk.files != NULL and try_folder_in_files(data):
        return True
    if walk.in_files_only:
        return False
    for i in range(linker.search.subfolder_count):
        text_cut(path, length)
        text_add(allocator, path, subfolder)
        if path.failed:
            return end_walk(walk)
        result = folder_problem(folder, i, path.data)
        if result == 0 or subfolder[0] == 0 or is_shortage(-result):
            text_add(allocator, path, walk.name)
            if path.failed:
                return end_walk(walk)
            # The file may be there all the same, if its folder could not be looked for.
            if result != ENOENT:
                result = probe_file(path.data, walk.file)
            report_candidate(walk.name, path.data, walk.origin, result)
            if result == 0 or subfolder[0] == 0 or result != ENOENT:
                trail_add(allocator, walk.trail, path.data, walk.origin, result, walk.file)
            if result == 0:
                return True
            if is_shortage(-result):
                return end_walk(walk)
        subfolder += strlen(subfolder) + 1
    return False


cdef inline bint is_path_in_files(const Image* image, const char* path) noexcept nogil:
    """`path`, which `image` names, is no path of the file system."""
    return image.is_from_files and path != NULL and path[0] != 0x2f


cdef inline bint walk_list(
    Walk* walk, const Image* image, const char* list, const char* separators, const char* origin
) noexcept nogil:
    """Each folder of a path list of `image`."""
    cdef Allocator* allocator = &walk.linker.registry.allocator
    cdef Text* folder = walk.folder
    cdef size_t length
    if list == NULL or list[0] == 0:
        return False
    if walk.name != NULL:
        report_search(walk.name, origin, image, list)
    walk.origin = origin
    walk.list = list
    while True:
        length = element_length(list, separators)
        text_cut(folder, 0)
        if expand(walk.linker, image, list, length, folder) and not folder.failed:
            while folder.length > 1 and folder.data[folder.length - 1] == 0x2f:
                text_cut(folder, folder.length - 1)
            if folder.length == 0:
                text_add(allocator, folder, b"./")   # an empty element: the working directory
            elif folder.data[folder.length - 1] != 0x2f:
                text_add(allocator, folder, b"/")
            walk.in_files_only = image != NULL and is_path_in_files(image, folder.data)
            if walk.visit(walk):
                return True
        if folder.failed:
            return end_walk(walk)
        if list[length] == 0:
            return False
        list += length + 1


cdef inline bint walk_rpaths(
    Walk* walk, const Image* program, const Image* asker
) noexcept nogil:
    """And, before the program's, the namespace's own path."""
    cdef const Image* image = asker
    cdef bint did_program = False
    cdef bint use_rpaths = asker == NULL or asker.runpath == NULL
    while use_rpaths and image != NULL and (walk.own_path == NULL or image != program):
        if image == program:
            did_program = True
        if image.runpath == NULL and walk_list(walk, image, image.rpath, b":", b"RPATH"):
            return True
        image = <const Image*>load_pointer(&image.loader)
    if walk_list(walk, program, walk.own_path, b":", b"the namespace's path"):
        return True
    return use_rpaths and not did_program and program != NULL and program.runpath == NULL \
        and walk_list(walk, program, program.rpath, b":", b"RPATH")


cdef inline bint walk_files(Walk* walk, const Image* asker) noexcept nogil:
    """What is asked of the caller's files only: RUNPATH before its turn, and the name itself."""
    cdef bint found
    if walk.files == NULL:
        return False
    walk.visit = try_folder_in_files
    found = asker != NULL and walk_list(walk, asker, asker.runpath, b":", b"RUNPATH")
    walk.visit = try_folder
    if not found:
        text_cut(walk.folder, 0)
        found = try_folder_in_files(walk)
    return found


cdef inline bint walk_lists(
    Walk* walk, const Image* program, const Image* asker
) noexcept nogil:
    """What comes before ld.so.cache."""
    return walk_rpaths(walk, program, asker) or walk_files(walk, asker) or walk_list(
        walk, program, walk.linker.search.library_path.data, b":;", b"LD_LIBRARY_PATH"
    ) or (asker != NULL and walk_list(walk, asker, asker.runpath, b":", b"RUNPATH"))


cdef inline bint walk_default_folders(Walk* walk, const Image* asker) noexcept nogil:
    """What comes after it."""
    cdef const char* folder = walk.linker.search.default_folders.data
    cdef size_t _i
    if asker != NULL and asker.flags_1 & DF_1_NODEFLIB:
        return False
    walk.origin = b"default"
    walk.list = folder
    walk.in_files_only = False
    for _i in range(walk.linker.search.default_count):
        text_cut(walk.folder, 0)
        text_add(&walk.linker.registry.allocator, walk.folder, folder)
        if walk.visit(walk):
            return True
        folder += strlen(folder) + 1
    return False


cdef packed struct CacheHeader:
    char magic[17]
    char version[3]
    uint32_t nlibs
    uint32_t len_strings
    uint8_t flags
    uint8_t padding[3]
    uint32_t extension_offset
    uint32_t unused[3]


cdef packed struct CacheEntry:
    int32_t flags
    uint32_t key
    uint32_t value
    uint32_t osversion
    uint64_t hwcap


cdef inline int compare_cache_names(const char* one, const char* other) noexcept nogil:
    """The order of the cache: digits by their number."""
    cdef uint64_t first, second
    while one[0] != 0:
        if 0x30 <= one[0] <= 0x39:
            if not 0x30 <= other[0] <= 0x39:
                return 1
            first = 0
            second = 0
            while 0x30 <= one[0] <= 0x39:
                first = first * 10 + <uint64_t>(one[0] - 0x30)
                one += 1
            while 0x30 <= other[0] <= 0x39:
                second = second * 10 + <uint64_t>(other[0] - 0x30)
                other += 1
            if first != second:
                return -1 if first < second else 1
        elif 0x30 <= other[0] <= 0x39:
            return -1
        elif one[0] != other[0]:
            return <int>one[0] - <int>other[0]
        else:
            one += 1
            other += 1
    return -<int>other[0]


cdef inline uint32_t hwcaps_priority(
    const Linker* linker, const char* cache, uint64_t size, uint64_t text_end,
    const CacheHeader* header, uint64_t hwcap
) noexcept nogil:
    """1 for the best subfolder of this machine, 0 for one that it cannot use."""
    cdef const Word* words
    cdef uint32_t i, j
    cdef uint32_t names = 0
    cdef uint32_t count = 0
    cdef const char* name
    cdef const char* subfolder = linker.search.subfolders.data
    cdef uint64_t offset = header.extension_offset
    if offset == 0 or offset + 8 > size:
        return 0
    words = <const Word*>(cache + offset)
    if words[0] != 0xeaa42174U or words[1] > (size - offset - 8) // 16:
        return 0
    for i in range(words[1]):
        if words[2 + i * 4] == 1:
            names = words[2 + i * 4 + 2]
            count = words[2 + i * 4 + 3] // 4
    j = <uint32_t>(hwcap & 0xffffffffU)
    if j >= count or <uint64_t>names + <uint64_t>count * 4 > size:
        return 0
    offset = (<const Word*>(cache + names))[j]
    if offset >= text_end:
        return 0
    name = cache + offset
    for i in range(linker.search.hwcaps_count):
        # "glibc-hwcaps/NAME/"
        if strncmp(subfolder + 13, name, strlen(name)) == 0 and subfolder[13 + strlen(
            name
        )] == 0x2f:
            return i + 1
        subfolder += strlen(subfolder) + 1
    return 0


cdef inline bint search_cache_file(
    Linker* linker, const char* file, uint64_t file_size, const char* name, Text* path
) noexcept nogil:
    cdef const char* cache = file
    cdef uint64_t size = file_size
    cdef const CacheHeader* header
    cdef const CacheEntry* entries
    cdef long low, high, middle
    cdef int order
    cdef uint32_t priority
    cdef uint32_t best_priority = 0
    cdef const char* best = NULL
    cdef uint64_t skip, text_end
    cdef const CacheEntry* entry
    # An old-format header may stand before the new one.
    if size > 16 and memcmp(cache, b"ld.so-1.7.0", 11) == 0:
        skip = (16 + <uint64_t>(<const Word*>(cache + 12))[0] * 12 + 7) & ~<uint64_t>7
        if skip >= size:
            return False
        cache += skip
        size -= skip
    header = <const CacheHeader*>cache
    text_end = size
    if size < sizeof(CacheHeader) or memcmp(cache, b"glibc-ld.so.cache1.1", 20) != 0 \
            or header.nlibs > (size - sizeof(CacheHeader)) // sizeof(CacheEntry):
        return False
    # A string that begins before this has its end within the file.
    while text_end != 0 and cache[text_end - 1] != 0:
        text_end -= 1
    entries = <const CacheEntry*>(cache + sizeof(CacheHeader))
    low = 0
    high = <long>header.nlibs
    # The table is sorted downwards: find the first entry that is not above the name.
    while low < high:
        middle = (low + high) // 2
        if entries[middle].key >= text_end:
            return False
        order = compare_cache_names(name, cache + entries[middle].key)
        if order < 0:
            low = middle + 1
        else:
            high = middle
    while low < <long>header.nlibs:
        entry = &entries[low]
        if entry.key >= text_end or entry.value >= text_end \
                or compare_cache_names(name, cache + entry.key) != 0:
            break
        low += 1
        if entry.flags != 0x0303 and entry.flags != 1:       # ELF, libc6, x86-64
            continue
        if (entry.hwcap >> 32) & ~<uint64_t>0x3ff == 0x40000000:
            priority = hwcaps_priority(linker, cache, size, text_end, header, entry.hwcap)
            if priority != 0 and (best_priority == 0 or priority < best_priority):
                best = cache + entry.value
                best_priority = priority
            continue
        # The older scheme: bits that all must be this machine's (bit 63: tls).
        if entry.hwcap & ~(
            linker.search.legacy_hwcap | <uint64_t>0x8000000000000000 | <uint64_t>0xf000000000000
        ):
            continue
        if best == NULL:
            best = cache + entry.value
    if best == NULL:
        return False
    text_cut(path, 0)
    text_add(&linker.registry.allocator, path, best)
    return True


cdef inline long try_cache(
    Linker* linker, const char* name, Text* path, bint* found
) noexcept nogil:
    """0, or a negative errno if it could not be looked into."""
    cdef FileStatus status
    cdef long descriptor = kernel_open(b"/etc/ld.so.cache")
    cdef long mapped
    cdef long result
    found[0] = False
    if descriptor < 0:
        return descriptor if is_shortage(descriptor) else 0
    result = kernel_status_of(descriptor, &status)
    if result == 0 and status.st_size > 0:
        mapped = kernel_map(0, <uint64_t>status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0)
        if is_mapping_error(mapped):
            result = mapped
        else:
            found[0] = search_cache_file(
                linker, <const char*>mapped, <uint64_t>status.st_size, name, path
            )
            kernel_unmap(<uint64_t>mapped, <uint64_t>status.st_size)
    kernel_close(descriptor)
    return result


cdef inline bint in_default_folder(Linker* linker, const char* path) noexcept nogil:
    cdef const char* folder = linker.search.default_folders.data
    cdef size_t _i
    for _i in range(linker.search.default_count):
        if strncmp(folder, path, strlen(folder)) == 0:
            return True
        folder += strlen(folder) + 1
    return False


cdef struct Listing:
    Dl_serinfo* info
    bint only_counts             # RTLD_DI_SERINFOSIZE
    Dl_serpath* path             # the next one
    char* text                   # where its name goes
    const char* list             # the path list that the folders of `seen` are of
    Text seen                    # strings one after another


cdef inline bint is_new_in_list(Walk* walk, Listing* listing) noexcept nogil:
    """A folder counts once in each list."""
    cdef size_t i = 0
    if listing.list != walk.list:
        listing.list = walk.list
        text_cut(&listing.seen, 0)
    while i < listing.seen.length:
        if strcmp(listing.seen.data + i, walk.folder.data) == 0:
            return False
        i += strlen(listing.seen.data + i) + 1
    text_add_bytes(
        &walk.linker.registry.allocator, &listing.seen, walk.folder.data, walk.folder.length + 1
    )
    return not listing.seen.failed       # or it might be listed twice, where there is no room


cdef inline bint see_folder(void* data) noexcept nogil:
    """Walk.visit that only notes what is there."""
    is_new_in_list(<Walk*>data, <Listing*>(<Walk*>data).listing)
    return False


cdef inline size_t count_own_folders(
    Linker* linker, const Image* program, const Dl_serpath* paths, size_t count
) noexcept nogil:
    """How many of `paths`, the first or (of RUNPATH) the last ones, are of the program's own list:
    all of that, or none if the host has dropped it, because no folder of it was there."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Listing listing
    cdef Walk walk
    cdef Text folder
    cdef size_t own = 0
    cdef size_t i = 0
    cdef size_t length
    cdef const char* list = program.runpath if program.runpath != NULL else program.rpath
    memset(&listing, 0, sizeof(listing))
    memset(&walk, 0, sizeof(walk))
    memset(&folder, 0, sizeof(folder))
    walk.linker = linker
    walk.visit = see_folder
    walk.folder = &folder
    walk.listing = &listing
    walk_list(&walk, program, list, b":", b"")
    if walk.ended or folder.failed or listing.seen.failed:
        linker.search.library_path.failed = True
    while i < listing.seen.length:
        own += 1
        i += strlen(listing.seen.data + i) + 1
    if own <= count and program.runpath != NULL:
        paths += count - own
    i = 0
    while own <= count and i < listing.seen.length:
        length = strlen(listing.seen.data + i)
        # Each has a slash at its end, where the host has it at the root's only.
        if strncmp(paths.dls_name, listing.seen.data + i, length - 1 if length > 1 else 1) != 0 \
                or paths.dls_name[length - 1 if length > 1 else 1] != 0:
            own = count + 1
        paths += 1
        i += length + 1
    text_free(allocator, &folder)
    text_free(allocator, &listing.seen)
    return own if own <= count else 0


cdef inline void read_library_path(
    Linker* linker, const Snapshot* snapshot, const Environment* environment
) noexcept nogil:
    """LD_LIBRARY_PATH of the start. Where that was not there to be read any more, or where the
    loader was started as a command and has --library-path instead, the host is asked: what it
    would search for the program, without the program's own list and the default folders."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Text* text = &linker.search.library_path
    cdef const Image* program = snapshot.hosts[0] if snapshot.host_count else NULL
    cdef const char* value = environment_value(environment, b"LD_LIBRARY_PATH=")
    cdef Dl_serinfo* info = NULL
    cdef const Dl_serpath* paths
    cdef size_t own, i
    cdef size_t count
    if not environment.is_of_start and program != NULL:
        text.failed = not ask_host_for_folders(linker, NULL, &info)
    if info == NULL:
        if value != NULL:
            text_add(allocator, text, value)
        return
    paths = <const Dl_serpath*>&info.dls_serpath
    count = info.dls_cnt
    if not program.flags_1 & DF_1_NODEFLIB:
        count -= linker.search.default_count if linker.search.default_count < count else count
    own = count_own_folders(linker, program, paths, count)
    if program.runpath == NULL:
        paths += own
    for i in range(count - own):
        if i != 0:
            text_add(allocator, text, b":")
        text_add(allocator, text, paths[i].dls_name)
    release(allocator, info)


cdef inline bint move_text(Text* text, Allocator* origin, Allocator* target) noexcept nogil:
    """Into memory of another allocator; False without, or if it is not complete anyhow."""
    cdef char* copy = NULL
    cdef bint complete = not text.failed
    if complete and text.data != NULL:
        copy = copy_text(target, text.data, text.length)
        complete = copy != NULL
    release(origin, text.data)
    text.data = copy
    text.capacity = text.length + 1 if copy != NULL else 0
    return complete


cdef inline void free_settings(Allocator* allocator, SearchSettings* search) noexcept nogil:
    text_free(allocator, &search.library_path)
    text_free(allocator, &search.default_folders)
    text_free(allocator, &search.lib)
    text_free(allocator, &search.platform)
    text_free(allocator, &search.subfolders)


cdef inline bint prepare_search(Linker* linker, const Snapshot* snapshot) noexcept nogil:
    """Once; False without memory. Two threads may both find out; the first to finish is kept."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Allocator* scratch
    cdef SearchSettings* search
    cdef Linker* mine
    cdef bint complete
    if load_u32(&linker.search.ready):
        return True
    # A scratch linker with the same host, whose settings are copied under the lock.
    mine = <Linker*>allocate(allocator, sizeof(Linker))
    if mine == NULL:
        return False
    scratch = &mine.registry.allocator
    search = &mine.search
    mine.host = linker.host
    mine.habits = linker.habits
    mine.secure = linker.secure
    make_subfolders(mine)
    complete = read_default_folders(mine, snapshot)
    if not linker.secure:
        read_library_path(mine, snapshot, &linker.environment)
    complete = move_text(&search.library_path, scratch, allocator) and complete
    complete = move_text(&search.default_folders, scratch, allocator) and complete
    complete = move_text(&search.lib, scratch, allocator) and complete
    complete = move_text(&search.platform, scratch, allocator) and complete
    complete = move_text(&search.subfolders, scratch, allocator) and complete
    lock_acquire(&linker.registry.lock)
    if complete and not linker.search.ready:
        memcpy(&linker.search, search, sizeof(SearchSettings))
        store_u32(&linker.search.ready, 1)
        memset(search, 0, sizeof(SearchSettings))
    lock_release(&linker.registry.lock)
    free_settings(allocator, search)
    end_allocator(scratch)
    release(allocator, mine)
    return complete


cdef inline bint find_file(
    Linker* linker, const Snapshot* snapshot, const char* name, const Image* asker,
    const char* own_path, Text* path, Trail* trail, File* file, Files* files
) noexcept nogil:
    """The path that `name` means when `asker` needs it, in a namespace that has `own_path` or
    NULL; False when there is none. `file`, which is new (file_init), comes back open if the
    path was searched for, or with the bytes of one of `files`, which may be NULL; True with
    Files.stopped ends the open. Without memory path.failed is set; where the process lacks what
    it takes to look into a folder, the search ends there, and the trail says why. The trail, if
    not NULL, gets every candidate."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef const Image* program = snapshot.hosts[0] if snapshot.host_count else NULL
    cdef Walk walk
    cdef long result
    cdef bint in_cache = False
    if files != NULL and files.read == NULL:
        files = NULL
    if strchr(name, 0x2f) != NULL and strchr(name, 0x24) == NULL:
        text_cut(path, 0)
        text_add(allocator, path, name)
        if files != NULL:
            try_files(linker, files, name, path, trail, file)
        return True
    # It asks the host's loader, whose lock another thread's constructor may hold.
    if not prepare_search(linker, snapshot):
        path.failed = True
        return False
    if asker == NULL:
        asker = program
    if strchr(name, 0x2f) != NULL:
        text_cut(path, 0)
        return expand(linker, asker, name, strlen(name), path) and (
            files != NULL and try_files(linker, files, name, path, trail, file)
            or asker == NULL or not is_path_in_files(asker, path.data)
        )
    memset(&walk, 0, sizeof(walk))
    walk.linker = linker
    walk.visit = try_folder
    walk.folder = path
    walk.name = name
    walk.own_path = own_path
    walk.trail = trail
    walk.file = file
    walk.files = files
    if walk_lists(&walk, program, asker):
        return not walk.ended
    result = try_cache(linker, name, path, &in_cache)
    if is_shortage(result):
        trail_add(allocator, trail, b"/etc/ld.so.cache", b"ld.so.cache", <int>-result, file)
        return False
    if path.failed:
        return False
    if in_cache and not (
        asker != NULL and asker.flags_1 & DF_1_NODEFLIB and in_default_folder(linker, path.data)
    ):
        if files != NULL and try_files(linker, files, name, path, trail, file):
            return True
        if path.failed:
            return False
        result = probe_file(path.data, file)
        report_candidate(name, path.data, b"ld.so.cache", <int>result)
        trail_add(allocator, trail, path.data, b"ld.so.cache", <int>result, file)
        if result == 0 or is_shortage(-result):
            return result == 0
    return walk_default_folders(&walk, asker) and not walk.ended


# The same folders, listed: dlinfo(3) ------------------------------------------------------


cdef inline bint list_folder(void* data) noexcept nogil:
    """Walk.visit of a listing. No folder but the root is named with its slash."""
    cdef Walk* walk = <Walk*>data
    cdef Listing* listing = <Listing*>walk.listing
    cdef size_t length = walk.folder.length
    if walk.folder.failed or listing.seen.failed:
        return end_walk(walk)
    if walk.folder.data == NULL or not is_new_in_list(walk, listing):
        return False
    if length > 1:
        length -= 1
    if listing.only_counts:
        listing.info.dls_cnt += 1
        listing.info.dls_size += sizeof(Dl_serpath) + length + 1
        return False
    listing.path.dls_name = listing.text
    listing.path.dls_flags = 0
    listing.path += 1
    memcpy(listing.text, walk.folder.data, length)
    listing.text[length] = 0
    listing.text += length + 1
    return False


cdef inline bint list_folders(
    Linker* linker, const Snapshot* snapshot, const Image* asker, bint only_counts,
    Dl_serinfo* info
) noexcept nogil:
    """RTLD_DI_SERINFO, whose caller has made room as RTLD_DI_SERINFOSIZE said. False without
    memory."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Listing listing
    cdef Walk walk
    cdef Text folder
    cdef bint complete
    cdef const Namespace* space = namespace_of_image(linker, asker)
    if not prepare_search(linker, snapshot):
        return False
    memset(&listing, 0, sizeof(listing))
    memset(&walk, 0, sizeof(walk))
    memset(&folder, 0, sizeof(folder))
    listing.info = info
    listing.only_counts = only_counts
    listing.path = <Dl_serpath*>&info.dls_serpath
    if only_counts:
        info.dls_cnt = 0
        info.dls_size = <size_t>(<char*>listing.path - <char*>info)
    listing.text = <char*>(listing.path + info.dls_cnt)
    walk.linker = linker
    walk.visit = list_folder
    walk.folder = &folder
    walk.listing = &listing
    walk.own_path = space.search_path if space != NULL else NULL
    if not walk_lists(&walk, snapshot.hosts[0] if snapshot.host_count else NULL, asker):
        walk_default_folders(&walk, asker)
    complete = not (walk.ended or folder.failed or listing.seen.failed)
    text_free(allocator, &folder)
    text_free(allocator, &listing.seen)
    return complete
