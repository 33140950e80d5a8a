"""The host's loader and its images.

Its functions are taken from libc's symbol table, found through the debugger's link
map, so that neither a preloaded wrapper nor our own exports stand before them. Its
images are read inside dl_iterate_phdr, whose lock keeps them from being unloaded.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport thread_pointer
from dlopen.core.base.allocator cimport Allocator, allocate, copy_text, release
from dlopen.core.base.atomics cimport load_u32, store_u32, store_u64
from dlopen.core.base.contract cimport DLOPEN_E_FORMAT, DLOPEN_E_MEMORY, DLOPEN_STATE_READY
from dlopen.core.base.growable cimport (
    Pointers, Text, pointers_add, pointers_free, pointers_hold, pointers_remove, pointers_reserve,
    text_free, text_make_room,
)
from dlopen.core.base.kernel cimport (
    FileStatus, is_shortage, kernel_close, kernel_open, kernel_read, kernel_status,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release, locks_held
from dlopen.core.base.paths cimport add_link_target
from dlopen.core.base.strings cimport has_prefix, memcmp, strcmp, strlen, strncmp, strrchr
from dlopen.core.base.words cimport align_down, align_up
from dlopen.core.elf.constants cimport (
    DT_DEBUG, PF_R, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_INTERP, PT_LOAD, PT_PHDR, PT_TLS,
    SHN_UNDEF, STT_FUNC, STT_OBJECT, VERSYM_HIDDEN,
)
from dlopen.core.elf.structures cimport Dyn, Phdr, Sym, symbol_type
from dlopen.core.image.dynamic cimport read_dynamic, read_for_lookup
from dlopen.core.image.image cimport Image, LinkMap, image_free_records, symbol_count
from dlopen.core.image.naming cimport answers_to, has_base_name
from dlopen.core.image.registry cimport (
    Registry, Snapshot, join_globals, make_snapshot, publish_snapshot, retire_image,
)
from dlopen.core.linker.assumptions cimport learn_habits
from dlopen.core.linker.host_lock cimport close_host, enter_host, leave_host, open_host
from dlopen.core.linker.state cimport (
    HostCxaThreadAtexit, HostDebug, HostDlFindObject, HostDlIteratePhdr, HostDladdr, HostDladdr1,
    HostDlclose, HostDlerror, HostDlinfo, HostDlmopen, HostDlopen, HostDlsym, HostDlvsym, HostInfo,
    HostTlsGetAddr, Linker, PhdrVisitor,
)
from dlopen.core.linker.unwinder cimport asks_for_frames, rebind_unwinder
from dlopen.core.memory.file cimport File, file_close, file_init, file_open
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, definition_address, is_export, lookup_in_image, refer, symbol_name,
)
from dlopen.core.tls.modules cimport TlsIndex


cdef extern from "<sys/auxv.h>" nogil:
    unsigned long getauxval(unsigned long kind)
    enum:
        AT_PHDR, AT_PHNUM, AT_PAGESZ, AT_SECURE, AT_SYSINFO_EHDR, AT_EXECFN


cdef extern from "<dlfcn.h>" nogil:
    enum:
        RTLD_LAZY, RTLD_NOW, RTLD_NOLOAD, RTLD_GLOBAL, RTLD_NODELETE, RTLD_DEEPBIND, RTLD_LOCAL
        RTLD_DI_SERINFO, RTLD_DI_SERINFOSIZE


cdef inline HostDebug* find_host_debug() noexcept nogil:
    """Through DT_DEBUG of the program: the symbol _r_debug may be a stale copy."""
    cdef const Phdr* headers = <const Phdr*>getauxval(AT_PHDR)
    cdef unsigned long count = getauxval(AT_PHNUM)
    cdef unsigned long i
    cdef uint64_t bias = 0
    cdef const Dyn* entry = NULL
    if headers == NULL:
        return NULL
    for i in range(count):
        if headers[i].p_type == PT_PHDR:
            bias = <uint64_t>headers - headers[i].p_vaddr
    for i in range(count):
        if headers[i].p_type == PT_DYNAMIC:
            entry = <const Dyn*>(bias + headers[i].p_vaddr)
    while entry != NULL and entry.d_tag != 0:
        if entry.d_tag == DT_DEBUG and entry.d_val != 0:
            return <HostDebug*>entry.d_val
        entry += 1
    return NULL


cdef inline bint is_c_library_name(const char* soname) noexcept nogil:
    return soname != NULL and (
        strcmp(soname, b"libc.so.6") == 0 or strncmp(soname, b"ld-linux", 8) == 0
        or strcmp(soname, b"libdl.so.2") == 0
    )


cdef inline bint is_cxx_runtime_name(const char* soname) noexcept nogil:
    return soname != NULL and (
        strcmp(soname, b"libstdc++.so.6") == 0 or strcmp(soname, b"libc++abi.so.1") == 0
        or strcmp(soname, b"libc++.so.1") == 0
    )


cdef inline bint is_stub_name(const char* soname) noexcept nogil:
    """What was a part of libc before glibc 2.34, and is empty since."""
    return (
        strcmp(soname, b"libpthread.so.0") == 0 or strcmp(soname, b"libdl.so.2") == 0
        or strcmp(soname, b"librt.so.1") == 0 or strcmp(soname, b"libutil.so.1") == 0
        or strcmp(soname, b"libanl.so.1") == 0
    )


cdef inline bint must_be_hosts(const Image* image) noexcept nogil:
    """One libc with its stubs, loader, libm, libgcc_s, libstdc++ and libpython in a process; and
    what is built into libc (GLIBC_PRIVATE) belongs to it."""
    cdef uint32_t i
    cdef const char* name = b""
    if image.soname != NULL:
        name = image.soname
    for i in range(image.version_count):
        if image.versions[i].library != NULL and image.versions[i].hash != 0 \
                and strcmp(image.versions[i].name, b"GLIBC_PRIVATE") == 0:
            return True
    return (
        has_prefix(name, b"libc.so.") or is_stub_name(name) or has_prefix(name, b"ld-linux")
        or has_prefix(name, b"libm.so.")
        or has_prefix(name, b"libgcc_s.so.") or has_prefix(name, b"libstdc++.so.")
        or has_prefix(name, b"libpython3") or has_prefix(name, b"libdlopen.so")
    )


cdef inline uint64_t function_in(const Image* image, const char* name) noexcept nogil:
    cdef Reference reference
    cdef Definition definition
    refer(&reference, name, NULL)
    definition.image = <Image*>image
    definition.symbol = lookup_in_image(image, &reference, &definition.index)
    return definition_address(&definition) if definition.symbol != NULL else 0


cdef inline bint bind_host_functions(Linker* linker) noexcept nogil:
    """False when libc cannot be found: a static program, or another libc. Asks for no memory:
    that there is none now is not to be forgotten later."""
    cdef const HostDebug* debug = find_host_debug()
    cdef const LinkMap* map = debug.r_map if debug != NULL else NULL
    cdef Image* image = &linker.scratch
    cdef Phdr dynamic
    cdef bint found = False
    memset(&dynamic, 0, sizeof(dynamic))
    while map != NULL and not (found and linker.host.tls_get_addr != NULL):
        memset(image, 0, sizeof(Image))
        image.is_host = True
        image.load_bias = map.l_addr
        image.bytes_bias = map.l_addr
        dynamic.p_vaddr = <uint64_t>map.l_ld - map.l_addr
        dynamic.p_memsz = 1 << 20          # until DT_NULL
        image.layout.dynamic = &dynamic
        if map.l_ld == NULL or read_for_lookup(image) != 0 or image.soname == NULL:
            pass
        elif strncmp(image.soname, b"ld-linux", 8) == 0:
            linker.host.tls_get_addr = <HostTlsGetAddr>function_in(image, b"__tls_get_addr")
            linker.host.stack_end = <uint64_t*>function_in(image, b"__libc_stack_end")
        elif strcmp(image.soname, b"libc.so.6") == 0:
            linker.host.dl_iterate_phdr = <HostDlIteratePhdr>function_in(image, b"dl_iterate_phdr")
            linker.host.dlopen = <HostDlopen>function_in(image, b"dlopen")
            linker.host.dlclose = <HostDlclose>function_in(image, b"dlclose")
            linker.host.dlsym = <HostDlsym>function_in(image, b"dlsym")
            linker.host.dlvsym = <HostDlvsym>function_in(image, b"dlvsym")
            linker.host.dlinfo = <HostDlinfo>function_in(image, b"dlinfo")
            linker.host.dladdr = <HostDladdr>function_in(image, b"dladdr")
            linker.host.dladdr1 = <HostDladdr1>function_in(image, b"dladdr1")
            linker.host.dlerror = <HostDlerror>function_in(image, b"dlerror")
            linker.host.dlmopen = <HostDlmopen>function_in(image, b"dlmopen")
            linker.host.dl_find_object = <HostDlFindObject>function_in(image, b"_dl_find_object")
            linker.host.cxa_thread_atexit = <HostCxaThreadAtexit>function_in(
                image, b"__cxa_thread_atexit_impl"
            )
            learn_habits(&linker.habits, image)
            found = linker.host.dl_iterate_phdr != NULL and linker.host.dlopen != NULL
        map = map.l_next
    return found


cdef struct Collection:          # what passes over the host's images find
    Linker* linker
    bint only_counters
    bint failed
    uint64_t adds, subs
    size_t count                 # how many there are
    size_t seen
    size_t cursor                # in `known`: behind the last one that is kept
    Pointers images              # Image*: kept ones and new ones
    Pointers fresh               # Image*: the new ones
    const Snapshot* known        # the snapshot of before; NULL at first


cdef inline const char* pick_probe(Collection* collection, Image* image) noexcept nogil:
    """An exported name that no image before this one defines."""
    cdef uint64_t count = symbol_count(image)
    cdef uint64_t i
    cdef size_t other
    cdef const Sym* symbol
    cdef Reference reference
    cdef uint32_t index = 0
    cdef bint unique
    for i in range(count):
        symbol = &image.symtab[i]
        if symbol.st_shndx == SHN_UNDEF or symbol.st_value == 0 or not is_export(symbol) or (
            symbol_type(symbol) != STT_FUNC and symbol_type(symbol) != STT_OBJECT
        ) or (image.versym != NULL and image.versym[i] & VERSYM_HIDDEN):
            continue
        refer(&reference, symbol_name(image, symbol), NULL)
        unique = True
        for other in range(collection.images.count):
            if lookup_in_image(<Image*>collection.images.items[other], &reference, &index) != NULL:
                unique = False
                break
        if unique:
            return reference.name
    return NULL


cdef inline bint copy_string(Allocator* allocator, Image* image, const char** text) noexcept nogil:
    cdef char* copy
    if text[0] == NULL:
        return True
    copy = copy_text(allocator, text[0], strlen(text[0]))
    text[0] = copy
    if copy != NULL and pointers_add(allocator, &image.copied, copy):
        return True
    release(allocator, copy)
    return False


cdef inline bint copy_strings(Allocator* allocator, Image* image) noexcept nogil:
    """Those that are read without a count on the image; its own can go at any time."""
    cdef size_t i
    cdef bint complete = copy_string(allocator, image, &image.soname) \
        and copy_string(allocator, image, &image.rpath) \
        and copy_string(allocator, image, &image.runpath)
    for i in range(image.needed.count):
        complete = complete and copy_string(
            allocator, image, <const char**>&image.needed.items[i]
        )
    for i in range(image.version_count):
        complete = complete and copy_string(allocator, image, &image.versions[i].name) \
            and copy_string(allocator, image, &image.versions[i].library)
    return complete


cdef inline Image* read_host_image(Collection* collection, const HostInfo* info) noexcept nogil:
    """Under the host's lock; NULL for what has no dynamic section, or with Collection.failed."""
    cdef Allocator* allocator = &collection.linker.registry.allocator
    cdef Image* image = <Image*>allocate(allocator, sizeof(Image))
    cdef uint16_t i
    cdef const Phdr* segment
    cdef uint64_t end = 0
    cdef uint64_t start = ~<uint64_t>0
    cdef Text target
    cdef const char* probe
    cdef const char* name
    cdef int code = DLOPEN_E_FORMAT
    if image == NULL:
        collection.failed = True
        return NULL
    image.is_host = True
    image.state = DLOPEN_STATE_READY
    image.is_visible = True
    image.load_bias = info.dlpi_addr
    image.bytes_bias = info.dlpi_addr
    image.host_phdrs = info.dlpi_phdr
    image.layout.phnum = info.dlpi_phnum
    image.layout.page = collection.linker.page
    image.tls_module_id = info.dlpi_tls_modid
    image.from_main = info.dlpi_name[0] == 0 and collection.images.count == 0
    image.layout.phdrs = <Phdr*>allocate(allocator, info.dlpi_phnum * sizeof(Phdr))
    if image.layout.phdrs == NULL:
        collection.failed = True
        image_free_records(allocator, image)
        return NULL
    memcpy(image.layout.phdrs, info.dlpi_phdr, info.dlpi_phnum * sizeof(Phdr))
    for i in range(info.dlpi_phnum):
        segment = &image.layout.phdrs[i]
        if segment.p_type == PT_LOAD:
            if align_down(segment.p_vaddr, collection.linker.page) < start:
                start = align_down(segment.p_vaddr, collection.linker.page)
            if segment.p_vaddr + segment.p_memsz > end:
                end = segment.p_vaddr + segment.p_memsz
        elif segment.p_type == PT_DYNAMIC:
            image.layout.dynamic = segment
        elif segment.p_type == PT_TLS:
            image.layout.tls = segment
        elif segment.p_type == PT_GNU_EH_FRAME:
            image.layout.eh_frame_header = segment
        elif segment.p_type == PT_INTERP:
            image.layout.interpreter = segment
        elif segment.p_type == PT_GNU_RELRO and segment.p_memsz != 0:
            image.layout.relro = segment
    image.layout.start = start
    image.layout.end = align_up(end, collection.linker.page)
    image.map_start = image.load_bias + start
    image.map_end = image.load_bias + image.layout.end
    image.link_map.l_addr = image.load_bias
    if image.layout.dynamic != NULL:
        code = read_dynamic(allocator, image, NULL)
    if code:
        collection.failed = collection.failed or code == DLOPEN_E_MEMORY
        image_free_records(allocator, image)
        return NULL
    image.link_map.l_ld = <void*>image.dynamic
    if image.from_main:
        memset(&target, 0, sizeof(target))
        name = <const char*>getauxval(AT_EXECFN)
        if add_link_target(allocator, &target, b"/proc/self/exe"):
            image.path = copy_text(allocator, target.data, target.length)
        elif not target.failed:  # without /proc: as execve(2) was given it
            if name == NULL or name[0] != 0x2f:
                name = b""
            image.path = copy_text(allocator, name, strlen(name))
        text_free(allocator, &target)
    else:
        image.path = copy_text(allocator, info.dlpi_name, strlen(info.dlpi_name))
    # The name as the host has it: what its dlopen finds the image by.
    image.link_map.l_name = copy_text(allocator, info.dlpi_name, strlen(info.dlpi_name))
    if image.path == NULL or image.link_map.l_name == NULL \
            or not copy_strings(allocator, image) \
            or not pointers_add(allocator, &image.names, image.link_map.l_name):
        collection.failed = True
        release(allocator, image.link_map.l_name)
        image_free_records(allocator, image)
        return NULL
    image.is_c_library = is_c_library_name(image.soname)
    image.is_cxx_runtime = is_cxx_runtime_name(image.soname)
    image.is_family = must_be_hosts(image)
    image.asks_for_frames = asks_for_frames(collection.linker, image)
    if collection.known != NULL:
        probe = pick_probe(collection, image)
        if probe != NULL:
            image.probe = copy_text(allocator, probe, strlen(probe))
            collection.failed = collection.failed or image.probe == NULL
    return image


cdef inline int count_host_images(HostInfo* info, size_t size, void* data) noexcept nogil:
    cdef Collection* collection = <Collection*>data
    collection.adds = info.dlpi_adds
    collection.subs = info.dlpi_subs
    collection.count += 1
    return collection.only_counters


cdef inline bint holds_linker(const Linker* linker, const Image* image) noexcept nogil:
    """It is libdlopen.so itself."""
    return image.map_start <= <uint64_t>linker < image.map_end


cdef inline bint has_stayed(
    const Collection* collection, const Image* image, const HostInfo* info
) noexcept nogil:
    """An image of before that has the address and the name of `info` is still the same load.
    The host appends what it loads, so that all but the last ones, of which there are as many
    as it has added since, have stayed. Of those, what nobody could unload."""
    cdef uint64_t added = info.dlpi_adds - collection.known.host_adds
    if info.dlpi_adds == collection.adds and info.dlpi_subs == collection.subs \
            and added <= collection.count and collection.seen <= collection.count - added:
        return True
    return image.is_startup or image.open_count != 0 or image.pins != 0 \
        or holds_linker(collection.linker, image)


cdef inline int visit_host_image(HostInfo* info, size_t size, void* data) noexcept nogil:
    cdef Collection* collection = <Collection*>data
    cdef Image* image
    cdef size_t i
    cdef Allocator* allocator = &collection.linker.registry.allocator
    collection.seen += 1
    if collection.known != NULL:
        # What is kept is kept in order.
        for i in range(collection.cursor, collection.known.host_count):
            image = collection.known.hosts[i]
            if image.host_phdrs == info.dlpi_phdr and image.load_bias == info.dlpi_addr \
                    and has_stayed(collection, image, info) \
                    and strcmp(image.link_map.l_name, info.dlpi_name) == 0:
                collection.cursor = i + 1
                if not pointers_add(allocator, &collection.images, image):
                    collection.failed = True
                return collection.failed
    image = read_host_image(collection, info)
    if image == NULL:
        return collection.failed
    if not pointers_add(allocator, &collection.fresh, image):
        image_free_records(allocator, image)
        collection.failed = True
    elif not pointers_add(allocator, &collection.images, image):
        collection.failed = True
    return collection.failed


cdef inline bint is_needed_as(
    const Pointers* images, const Image* image, const char* name
) noexcept nogil:
    """Some image's DT_NEEDED can only have meant this one: it has the file's name, and none
    answers to it. The host keeps such names to itself."""
    cdef size_t i, j
    cdef const Image* other
    cdef bint needed = False
    for i in range(images.count):
        other = <const Image*>images.items[i]
        if answers_to(other, name):
            return False
        for j in range(other.needed.count):
            needed = needed or strcmp(<const char*>other.needed.items[j], name) == 0
    return needed


cdef inline bint add_needed_names(Allocator* allocator, const Collection* found) noexcept nogil:
    """To the images that are new, so that nobody reads their names yet."""
    cdef size_t i
    cdef Image* image
    cdef const char* name
    cdef char* copy
    for i in range(found.fresh.count):
        image = <Image*>found.fresh.items[i]
        name = strrchr(image.path, 0x2f)
        if name == NULL or not is_needed_as(&found.images, image, name + 1):
            continue
        copy = copy_text(allocator, name + 1, strlen(name + 1))
        if copy == NULL or not pointers_add(allocator, &image.names, copy):
            release(allocator, copy)
            return False
    return True


cdef inline void find_static_tls_of_host(Linker* linker, Image* image) noexcept nogil:
    """Where the storage of an image that the process started with is: always static."""
    cdef TlsIndex index
    if image.tls_module_id != 0 and linker.host.tls_get_addr != NULL:
        index.module = image.tls_module_id
        index.offset = 0
        image.tls_offset = <int64_t>(
            <uint64_t>linker.host.tls_get_addr(&index) - thread_pointer()
        )
        image.has_static_tls = True


cdef inline void mark_startup(Linker* linker, Pointers* images) noexcept nogil:
    """Which images the process was started with: the closure of the program's needs, and
    all that stand before its last member, since the host appends what it loads later."""
    cdef size_t boundary = 1
    cdef size_t i, j, k
    cdef Image* image
    cdef bint grew = True
    while grew:
        grew = False
        for i in range(min_size(boundary, images.count)):
            image = <Image*>images.items[i]
            for j in range(image.needed.count):
                for k in range(boundary, images.count):
                    if answers_to(<Image*>images.items[k], <const char*>image.needed.items[j]) \
                            or has_base_name(
                                <Image*>images.items[k], <const char*>image.needed.items[j]
                            ):
                        boundary = k + 1
                        grew = True
    for i in range(min_size(boundary, images.count)):
        image = <Image*>images.items[i]
        image.is_startup = True
        find_static_tls_of_host(linker, image)
        # The vDSO is in nobody's scope.
        image.is_global = image.load_bias == 0 \
            or image.load_bias != getauxval(AT_SYSINFO_EHDR)


cdef inline size_t min_size(size_t one, size_t other) noexcept nogil:
    return one if one < other else other


cdef inline void pick_missing_probes(Collection* collection) noexcept nogil:
    """On the first pass nobody knew yet which images came late. They cannot vanish while
    the caller holds the host's lock, which is why this runs in a last visit."""
    cdef size_t i
    cdef Image* image
    cdef const char* probe
    cdef Pointers before = collection.images
    for i in range(collection.images.count):
        image = <Image*>before.items[i]
        if image.is_startup or image.probe != NULL:
            continue
        collection.images.count = i
        probe = pick_probe(collection, image)
        collection.images.count = before.count
        if probe != NULL:
            image.probe = copy_text(
                &collection.linker.registry.allocator, probe, strlen(probe)
            )
            collection.failed = collection.failed or image.probe == NULL


cdef inline int visit_for_probes(HostInfo* info, size_t size, void* data) noexcept nogil:
    cdef Collection* collection = <Collection*>data
    if info.dlpi_adds == collection.adds and info.dlpi_subs == collection.subs:
        pick_missing_probes(collection)
    return 1


cdef inline Image* pinned_record(const Registry* registry, const Image* image) noexcept nogil:
    """Under the lock: of the same load, if it is counted; or NULL."""
    cdef size_t i
    cdef Image* old
    for i in range(registry.hosts.count):
        old = <Image*>registry.hosts.items[i]
        if old.host_phdrs == image.host_phdrs and old.load_bias == image.load_bias \
                and (old.pins != 0 or old.open_count != 0):
            return old
    return NULL


cdef inline void keep_pinned_records(Registry* registry, Collection* found) noexcept nogil:
    """Under the lock: what was counted while the collection was made cannot have gone; a
    second record of it gives way to the first."""
    cdef size_t i, j
    cdef Image* old
    cdef Image* new
    for i in reversed(range(found.fresh.count)):
        new = <Image*>found.fresh.items[i]
        old = pinned_record(registry, new)
        if old == NULL:
            continue
        for j in range(found.images.count):
            if found.images.items[j] == new:
                found.images.items[j] = old
        pointers_remove(&found.fresh, new)
        image_free_records(&registry.allocator, new)


cdef inline void retire_gone_hosts(Registry* registry, const Pointers* now) noexcept nogil:
    """Under the lock. Each is looked for behind the one before: what is kept is in order."""
    cdef size_t i, tried
    cdef size_t place = 0
    cdef Image* image
    for i in range(registry.hosts.count):
        image = <Image*>registry.hosts.items[i]
        tried = 0
        while tried < now.count and now.items[place] != image:
            place = (place + 1) % now.count
            tried += 1
        if tried == now.count:
            pointers_remove(&registry.globals, image)
            retire_image(registry, image)


cdef inline void iterate_hosts(Linker* linker, PhdrVisitor visit, void* data) noexcept nogil:
    enter_host(linker)
    linker.host.dl_iterate_phdr(visit, data)
    leave_host(linker)


cdef enum:                       # of refresh_hosts
    HOSTS_AS_BEFORE = 0
    HOSTS_CHANGED = 1
    HOSTS_UNKNOWN = 2            # no memory: what is known may be old


cdef inline int refresh_hosts(Linker* linker, const Snapshot* known) noexcept nogil:
    """Brings registry.hosts up to date with the host's list. Called in a reader section whose
    snapshot is `known` (NULL at first), with no lock held. A handler that has interrupted who
    holds one makes do with what is known."""
    cdef Collection collection
    cdef Registry* registry = &linker.registry
    cdef Snapshot* snapshot
    cdef size_t i
    cdef bint published = False
    cdef bint rebound = True
    memset(&collection, 0, sizeof(collection))
    collection.linker = linker
    collection.known = known
    if known != NULL and locks_held != 0:
        return HOSTS_AS_BEFORE
    if known != NULL:
        collection.only_counters = True
        iterate_hosts(linker, count_host_images, &collection)
        if collection.adds == known.host_adds and collection.subs == known.host_subs:
            if load_u32(&linker.must_rebind) and not rebind_unwinders(linker, known):
                return HOSTS_UNKNOWN
            return HOSTS_AS_BEFORE
        collection.only_counters = False
        collection.count = 0
    iterate_hosts(linker, count_host_images, &collection)
    iterate_hosts(linker, visit_host_image, &collection)
    collection.failed = collection.failed or not add_needed_names(
        &registry.allocator, &collection
    )
    if known == NULL and not collection.failed:
        mark_startup(linker, &collection.images)
        iterate_hosts(linker, visit_for_probes, &collection)
    lock_acquire(&registry.lock)
    snapshot = make_snapshot(registry, 0, collection.images.count)
    collection.failed = collection.failed or snapshot == NULL
    keep_pinned_records(registry, &collection)
    if not collection.failed \
            and registry.host_generation == (0 if known == NULL else known.host_generation):
        retire_gone_hosts(registry, &collection.images)
        pointers_free(&registry.allocator, &registry.hosts)
        registry.hosts = collection.images
        registry.host_adds = collection.adds
        registry.host_subs = collection.subs
        registry.host_generation += 1
        publish_snapshot(registry, snapshot)
        published = True
    lock_release(&registry.lock)
    if published:
        # Without the lock, but `known`'s reader section, or being the first, keeps them.
        rebound = rebind_unwinders(linker, snapshot)
    else:
        for i in range(collection.fresh.count):
            image_free_records(&registry.allocator, <Image*>collection.fresh.items[i])
        pointers_free(&registry.allocator, &collection.images)
        release(&registry.allocator, snapshot)
    pointers_free(&registry.allocator, &collection.fresh)
    if collection.failed or not rebound:
        return HOSTS_UNKNOWN
    # Or another thread was first.
    return HOSTS_CHANGED if published else HOSTS_AS_BEFORE


cdef inline void* count_host_image(Linker* linker, Image* image, int mode) noexcept nogil:
    """One more count of the host's on one of its images, so that it stays; give it back
    with the host's dlclose. NULL: it has gone. No lock may be held."""
    cdef void* handle
    handle = open_host(
        linker, NULL if image.from_main else image.link_map.l_name,
        RTLD_LAZY | RTLD_NOLOAD | mode
    )
    if handle == NULL:
        linker.host.dlerror()
    elif (<LinkMap*>handle).l_ld != image.link_map.l_ld:
        close_host(linker, handle)      # another one, under the name of one that has gone
        handle = NULL
    return handle


cdef struct HandleSearch:
    const void* handle
    bint found


cdef inline int search_for_handle(HostInfo* info, size_t size, void* data) noexcept nogil:
    """Once, under the host's lock: through its lists of all namespaces."""
    cdef HandleSearch* search = <HandleSearch*>data
    cdef const HostDebug* debug = find_host_debug()
    cdef bint has_more = debug != NULL and debug.r_version > 1
    cdef const LinkMap* map
    while debug != NULL:
        map = debug.r_map
        while map != NULL:
            search.found = search.found or map == search.handle
            map = map.l_next
        debug = debug.r_next if has_more else NULL
    return 1


cdef inline bint host_knows(Linker* linker, const void* handle) noexcept nogil:
    """It is a handle of the host's, however it was come by."""
    cdef HandleSearch search
    search.handle = handle
    search.found = False
    iterate_hosts(linker, search_for_handle, &search)
    return search.found


cdef inline void* borrow_host_image(Linker* linker, Image* image) noexcept nogil:
    """Before the memory of an image that the caller may not have counted is read; NULL: it
    has gone. No lock may be held. For ours, the caller's reader section is enough. That
    somebody has it open does not help: it may be closed meanwhile."""
    if not image.is_host or image.is_startup:
        return image
    return count_host_image(linker, image, 0)


cdef inline void give_back_host_image(Linker* linker, Image* image, void* borrowed) noexcept nogil:
    if borrowed != image:
        close_host(linker, borrowed)


cdef inline bint rebind_unwinders(Linker* linker, const Snapshot* snapshot) noexcept nogil:
    """Of all of the host's images. With no lock held. False: not all, and an exception through
    an image of ours might find no frame."""
    cdef size_t i
    cdef Image* image
    cdef void* borrowed
    cdef bint complete = True
    store_u32(&linker.must_rebind, 0)
    for i in range(snapshot.host_count):
        image = snapshot.hosts[i]
        borrowed = borrow_host_image(linker, image) if image.asks_for_frames else NULL
        if borrowed != NULL:
            complete = rebind_unwinder(linker, image) and complete
            give_back_host_image(linker, image, borrowed)
    if not complete:
        store_u32(&linker.must_rebind, 1)
    return complete


cdef inline void bring_unwinder(Linker* linker) noexcept nogil:
    """libgcc_s: libc opens it late, for the first cancellation or backtrace, and would do so
    behind our back. By the name that libc uses; a process may do without it. Never given
    back. No lock may be held."""
    if load_u32(&linker.has_unwinder):
        return
    if open_host(linker, b"libgcc_s.so.1", RTLD_LAZY) == NULL:
        linker.host.dlerror()
    store_u32(&linker.has_unwinder, 1)


cdef inline bint look_for_globals(Linker* linker, const Snapshot* known) noexcept nogil:
    """Asks libc for each image that came late, by a name that only this image defines. Once
    global, always global. The program's handle searches the global scope, and unlike
    RTLD_DEFAULT it does not make libdlopen.so a user of what is found, which would keep it.
    False without memory."""
    cdef Registry* registry = &linker.registry
    cdef Snapshot* snapshot
    cdef Image* image
    cdef void* program = NULL
    cdef uint64_t address = 1
    cdef size_t i
    cdef bint complete = True
    for i in range(known.host_count):
        image = known.hosts[i]
        # dlsym searches the caller's own scope too: libdlopen.so's would always be found.
        if load_u32(&image.is_global) or image.probe == NULL or holds_linker(linker, image):
            continue
        enter_host(linker)
        if program == NULL:
            program = linker.host.dlopen(NULL, RTLD_LAZY | RTLD_NOLOAD)
        address = <uint64_t>linker.host.dlsym(program, image.probe)
        leave_host(linker)
        if not image.map_start <= address < image.map_end:
            continue
        lock_acquire(&registry.lock)
        if pointers_hold(&registry.hosts, image) and not load_u32(&image.is_global):
            snapshot = NULL
            if pointers_reserve(&registry.allocator, &registry.globals, 1):
                snapshot = make_snapshot(registry, 0, registry.hosts.count)
            if snapshot != NULL:
                join_globals(registry, image)
                publish_snapshot(registry, snapshot)
            else:
                complete = False
        lock_release(&registry.lock)
    if address == 0:
        linker.host.dlerror()    # each call has cleared the message of the one before
    if program != NULL:
        close_host(linker, program)
    return complete


cdef inline uint64_t parse_hex(const char** cursor) noexcept nogil:
    cdef uint64_t value = 0
    cdef char c
    while True:
        c = cursor[0][0]
        if 0x30 <= c <= 0x39:
            value = value * 16 + <uint64_t>(c - 0x30)
        elif 0x61 <= c <= 0x66:
            value = value * 16 + <uint64_t>(c - 0x61 + 10)
        else:
            return value
        cursor[0] += 1


cdef inline uint64_t parse_decimal(const char** cursor) noexcept nogil:
    cdef uint64_t value = 0
    while 0x30 <= cursor[0][0] <= 0x39:
        value = value * 10 + <uint64_t>(cursor[0][0] - 0x30)
        cursor[0] += 1
    return value


cdef inline void identify_line(const Pointers* wanted, size_t* found, char* line) noexcept nogil:
    """One line of /proc/self/maps (proc_pid_maps(5)): its device and inode to the image
    that is mapped there. Some file systems show another device there than stat does:
    the file is asked by the line's own path, if the inode agrees."""
    cdef const char* cursor = line
    cdef uint64_t start = parse_hex(&cursor)
    cdef uint64_t end
    cdef uint64_t major, minor, device, inode
    cdef size_t i
    cdef int _field
    cdef Image* image = NULL
    cdef FileStatus status
    if cursor[0] != 0x2d:
        return
    cursor += 1
    end = parse_hex(&cursor)
    for i in range(wanted.count):
        if start <= (<Image*>wanted.items[i]).map_start < end:
            image = <Image*>wanted.items[i]
    if image == NULL:
        return
    found[0] += 1
    for _field in range(2):       # permissions, offset
        while cursor[0] == 0x20:
            cursor += 1
        while cursor[0] != 0x20 and cursor[0] != 0:
            cursor += 1
    while cursor[0] == 0x20:
        cursor += 1
    major = parse_hex(&cursor)
    if cursor[0] != 0x3a:
        return
    cursor += 1
    minor = parse_hex(&cursor)
    while cursor[0] == 0x20:
        cursor += 1
    inode = parse_decimal(&cursor)
    while cursor[0] == 0x20:
        cursor += 1
    if inode == 0:
        return
    # The kernel's dev_t for user space (new_encode_dev).
    device = (minor & 0xff) | (major << 8) | ((minor & ~<uint64_t>0xff) << 12)
    if kernel_status(cursor, &status) == 0 and status.st_ino == inode:
        device = status.st_dev
    store_u64(&image.device, device)
    store_u64(&image.inode, inode)


cdef enum:
    MAP_ROOM = 4096


cdef enum:                       # of read_process_map
    MAP_READ = 0
    MAP_MISSING = 1              # there is no /proc
    MAP_LATER = 2                # it could not be read now


cdef inline int read_process_map(
    Allocator* allocator, const Pointers* wanted, size_t* found
) noexcept nogil:
    """No further than needed: the kernel makes each line when it is read, and what was
    loaded last has low addresses."""
    cdef Text text
    cdef size_t line
    cdef size_t i
    cdef long count = 0
    cdef long descriptor = kernel_open(b"/proc/self/maps")
    if descriptor < 0:
        return MAP_LATER if is_shortage(descriptor) else MAP_MISSING
    memset(&text, 0, sizeof(text))
    # A page: the kernel gives no more at once. It grows with a line that is longer.
    while found[0] < wanted.count and text_make_room(allocator, &text, MAP_ROOM):
        count = kernel_read(descriptor, text.data + text.length, MAP_ROOM)
        if count <= 0:
            break
        text.length += <size_t>count
        line = 0
        for i in range(text.length):
            if text.data[i] == 0x0a:
                text.data[i] = 0
                identify_line(wanted, found, text.data + line)
                line = i + 1
        text.length -= line
        for i in range(text.length):
            text.data[i] = text.data[line + i]
    kernel_close(descriptor)
    if text.failed:
        count = -1
    text_free(allocator, &text)
    return MAP_READ if count >= 0 else MAP_LATER


cdef inline bint starts_as(const Image* image, const File* file) noexcept nogil:
    """What is mapped of the file's start, headers and build-id as a rule, is the same."""
    cdef uint32_t i
    cdef const Phdr* segment
    for i in range(image.layout.phnum):
        segment = &image.layout.phdrs[i]
        if segment.p_type == PT_LOAD and segment.p_offset == 0 and segment.p_flags & PF_R:
            return file.start_size != 0 and memcmp(
                &file.start[0], <const void*>(image.load_bias + segment.p_vaddr),
                min_size(file.start_size, segment.p_filesz)
            ) == 0
    return False


cdef inline void identify_by_path(Linker* linker, Image* image) noexcept nogil:
    """Where there is no /proc: by the path that the host has found it at, if the file there still
    is the one that is mapped."""
    cdef const char* path = image.link_map.l_name
    cdef void* borrowed = NULL
    cdef File* file
    if strrchr(path, 0x2f) == NULL or image.from_main:
        return
    file = <File*>allocate(&linker.registry.allocator, sizeof(File))
    if file == NULL:
        return
    file_init(file)
    if file_open(file, path, NULL) != 0:
        release(&linker.registry.allocator, file)
        return
    borrowed = <void*>image
    if not image.is_startup:
        borrowed = borrow_host_image(linker, image)
    if borrowed != NULL and starts_as(image, file):
        store_u64(&image.device, file.device)
        store_u64(&image.inode, file.inode)
        store_u32(&image.is_identified, 1)
    if borrowed != NULL:
        give_back_host_image(linker, image, borrowed)
    file_close(file)
    release(&linker.registry.allocator, file)


cdef inline bint identify_hosts(Linker* linker, const Snapshot* snapshot) noexcept nogil:
    """Device and inode of each host image from the process's own map: its name may be
    relative, or a newer file's by now. With no lock held. False: not this time, for want of memory
    or descriptors."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Pointers wanted
    cdef size_t found = 0
    cdef size_t i
    cdef int code = MAP_READ
    memset(&wanted, 0, sizeof(wanted))
    for i in range(snapshot.host_count):
        if not load_u32(&snapshot.hosts[i].is_identified) \
                and not pointers_add(allocator, &wanted, snapshot.hosts[i]):
            code = MAP_LATER
    if wanted.count == 0:
        return code == MAP_READ
    if code == MAP_READ:
        code = read_process_map(allocator, &wanted, &found)
    # Also those without a file, such as the vDSO. Threads that get here together all find
    # the same.
    for i in range(wanted.count):
        if code == MAP_READ:
            store_u32(&(<Image*>wanted.items[i]).is_identified, 1)
        elif code == MAP_MISSING:
            identify_by_path(linker, <Image*>wanted.items[i])
    pointers_free(allocator, &wanted)
    return code != MAP_LATER
