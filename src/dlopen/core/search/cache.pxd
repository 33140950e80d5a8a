"""/etc/ld.so.cache (ldconfig(8)): which file it names for a soname.

Another process may replace it at any time: the first search of an open that gets so far asks for
the file's identity and time, and maps it anew where they are not those of the mapping that is
there. Each search checks what it reads. Of several entries for a name the one for the best of this
processor's hwcaps counts.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.growable cimport Text, text_add, text_cut
from dlopen.core.base.kernel cimport (
    ENOMEM, FileStatus, changed_at, is_shortage, kernel_close, kernel_open, kernel_status,
    kernel_status_of,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport memcmp, strchr, strlen, strncmp
from dlopen.core.elf.structures cimport Word
from dlopen.core.host.linker cimport CacheFile, Linker, SearchSettings
from dlopen.core.memory.memory cimport is_memory_error, memory_release, memory_reserve_file


cdef struct CacheUse:            # of an open, for all of its searches
    bint is_known                # it was looked for
    CacheFile* file              # borrowed; NULL: there is none


cdef extern from *:
    """
    #define DLOPEN_CACHE_PATH "/etc/ld.so.cache"
    """
    const char* CACHE_PATH "DLOPEN_CACHE_PATH"


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
    const SearchSettings* settings, const char* cache, uint64_t size, uint64_t text_end,
    const CacheHeader* header, uint64_t hwcap
) noexcept nogil:
    """1 for the best subfolder of this machine, 0 for one that it cannot use."""
    cdef const Word* words
    cdef uint32_t i, j
    cdef uint32_t names = 0
    cdef uint32_t count = 0
    cdef const char* name
    cdef const char* level       # "NAME/" of a subfolder
    cdef const char* subfolder = settings.subfolders.data
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
    for i in range(settings.hwcaps_count):
        level = strchr(subfolder, 0x2f) + 1
        if strncmp(level, name, strlen(name)) == 0 and level[strlen(name)] == 0x2f:
            return i + 1
        subfolder += strlen(subfolder) + 1
    return 0


cdef inline bint search_cache_file(
    const SearchSettings* settings, const char* file, uint64_t file_size,
    const char* name, Text* path
) noexcept nogil:
    """In a cache that is mapped: the path for `name`, if it has one. Each offset of it is
    checked."""
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
        if entry.flags != THIS_MACHINE.cache_flags and entry.flags != 1:       # any ELF
            continue
        if (entry.hwcap >> 32) & ~<uint64_t>0x3ff == 0x40000000:
            priority = hwcaps_priority(settings, cache, size, text_end, header, entry.hwcap)
            if priority != 0 and (best_priority == 0 or priority < best_priority):
                best = cache + entry.value
                best_priority = priority
            continue
        # The older scheme: bits that all must be this machine's (bit 63: tls).
        if entry.hwcap & ~(settings.legacy_hwcap | <uint64_t>0x8000000000000000):
            continue
        if best == NULL:
            best = cache + entry.value
    if best == NULL:
        return False
    text_cut(path, 0)
    text_add(path, best)
    return True


cdef inline void free_cache(CacheFile* cache) noexcept nogil:
    """NULL is allowed."""
    if cache != NULL:
        memory_release(cache.start, cache.size)
        release(cache)


cdef inline CacheFile* borrow_known_cache(Linker* linker) noexcept nogil:
    """What is mapped already; NULL: nothing."""
    cdef CacheFile* cache
    lock_acquire(&linker.registry.lock)
    cache = linker.search.cache
    if cache != NULL:
        cache.users += 1
    lock_release(&linker.registry.lock)
    return cache


cdef inline void give_back_cache(Linker* linker, CacheFile* cache) noexcept nogil:
    """What was borrowed."""
    cdef bint is_last
    lock_acquire(&linker.registry.lock)
    cache.users -= 1
    is_last = cache.users == 0 and cache != linker.search.cache
    lock_release(&linker.registry.lock)
    if is_last:
        free_cache(cache)


cdef inline bint is_cache_of(const CacheFile* cache, const FileStatus* status) noexcept nogil:
    """It has not been changed since it was mapped."""
    return cache.inode == status.st_ino and cache.device == status.st_dev \
        and cache.changed_at == changed_at(status) and cache.size == <uint64_t>status.st_size


cdef inline long map_cache(CacheFile* cache, FileStatus* status) noexcept nogil:
    """The file as it is now, if it is there and not empty; 0, or a negative errno. `status` is only
    room: the stack may be small."""
    cdef long descriptor = kernel_open(CACHE_PATH)
    cdef long mapped
    cdef long result
    if descriptor < 0:
        return descriptor if is_shortage(descriptor) else 0
    result = kernel_status_of(descriptor, status)
    if result == 0 and status.st_size > 0:
        mapped = memory_reserve_file(<uint64_t>status.st_size, descriptor, 0)
        if is_memory_error(mapped):
            result = mapped
        else:
            cache.start = <uint64_t>mapped
            cache.size = <uint64_t>status.st_size
            cache.device = status.st_dev
            cache.inode = status.st_ino
            cache.changed_at = changed_at(status)
    kernel_close(descriptor)
    return result


cdef inline long borrow_cache(Linker* linker, CacheFile** borrowed) noexcept nogil:
    """The cache as it is now, NULL if there is none; 0, or a negative errno."""
    cdef FileStatus status
    cdef CacheFile* former = borrow_known_cache(linker)
    cdef CacheFile* cache
    cdef long result
    if former != NULL:
        result = kernel_status(CACHE_PATH, &status)
        if result == 0 and is_cache_of(former, &status):
            borrowed[0] = former
            return 0
        give_back_cache(linker, former)
    borrowed[0] = NULL
    cache = <CacheFile*>allocate(sizeof(CacheFile))
    if cache == NULL:
        return -ENOMEM
    result = map_cache(cache, &status)
    if cache.size == 0:
        release(cache)
        return result
    cache.users = 1
    lock_acquire(&linker.registry.lock)
    former = linker.search.cache
    linker.search.cache = cache
    if former != NULL and former.users != 0:
        former = NULL            # its last user frees it
    lock_release(&linker.registry.lock)
    free_cache(former)
    borrowed[0] = cache
    return 0


cdef inline void forget_cache(Linker* linker, CacheUse* use) noexcept nogil:
    """The next search asks for it again."""
    if use.file != NULL:
        give_back_cache(linker, use.file)
    use.file = NULL
    use.is_known = False


cdef inline long try_cache(
    Linker* linker, CacheUse* use, const char* name, Text* path, bint* found
) noexcept nogil:
    """0, or a negative errno if it could not be looked into."""
    cdef long result = 0
    if not use.is_known:
        result = borrow_cache(linker, &use.file)
        use.is_known = result == 0
    found[0] = use.file != NULL and search_cache_file(
        &linker.search.settings, <const char*>use.file.start, use.file.size, name, path
    )
    return result


cdef inline bint in_default_folder(
    const SearchSettings* settings, const char* path
) noexcept nogil:
    """For an image that must not be found there (DF_1_NODEFLIB)."""
    cdef const char* folder = settings.default_folders.data
    cdef size_t _i
    for _i in range(settings.default_count):
        if strncmp(folder, path, strlen(folder)) == 0:
            return True
        folder += strlen(folder) + 1
    return False
