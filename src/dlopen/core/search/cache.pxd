"""/etc/ld.so.cache (ldconfig(8)): which file it names for a soname.

It is mapped by the first search of an open that gets so far, for all of its searches, and checked
by each: another process may replace it at any time. Of several entries for a name the one for the
best of this processor's hwcaps counts.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.growable cimport Text, text_add, text_cut
from dlopen.core.base.kernel cimport (
    FileStatus, is_shortage, kernel_close, kernel_open, kernel_status_of,
)
from dlopen.core.base.strings cimport memcmp, strchr, strlen, strncmp
from dlopen.core.elf.structures cimport Word
from dlopen.core.host.linker cimport SearchSettings
from dlopen.core.memory.memory cimport is_memory_error, memory_release, memory_reserve_file


cdef struct CacheFile:           # as it is mapped, for one open
    bint is_known                # it was looked for
    uint64_t address
    uint64_t size                # 0: there is none


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
        if entry.hwcap & ~(
            settings.legacy_hwcap | <uint64_t>0x8000000000000000 | <uint64_t>0xf000000000000
        ):
            continue
        if best == NULL:
            best = cache + entry.value
    if best == NULL:
        return False
    text_cut(path, 0)
    text_add(path, best)
    return True


cdef inline long map_cache(CacheFile* cache) noexcept nogil:
    """0, or a negative errno if it could not be looked into: it is tried again then."""
    cdef FileStatus status
    cdef long descriptor = kernel_open(b"/etc/ld.so.cache")
    cdef long mapped
    cdef long result
    if descriptor < 0:
        cache.is_known = not is_shortage(descriptor)
        return 0 if cache.is_known else descriptor
    result = kernel_status_of(descriptor, &status)
    if result == 0 and status.st_size > 0:
        mapped = memory_reserve_file(<uint64_t>status.st_size, descriptor, 0)
        if is_memory_error(mapped):
            result = mapped
        else:
            cache.address = <uint64_t>mapped
            cache.size = <uint64_t>status.st_size
    cache.is_known = result == 0
    kernel_close(descriptor)
    return result


cdef inline long try_cache(
    const SearchSettings* settings, CacheFile* cache, const char* name, Text* path, bint* found
) noexcept nogil:
    """0, or a negative errno if it could not be looked into."""
    cdef long result = 0 if cache.is_known else map_cache(cache)
    found[0] = cache.size != 0 and search_cache_file(
        settings, <const char*>cache.address, cache.size, name, path
    )
    return result


cdef inline void forget_cache(CacheFile* cache) noexcept nogil:
    """The next search maps it anew."""
    if cache.size != 0:
        memory_release(cache.address, cache.size)
    cache.size = 0
    cache.is_known = False


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
