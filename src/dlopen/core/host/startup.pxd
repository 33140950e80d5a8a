"""What the process was started with: the program, all that it needs, what was preloaded.

The host's list does not say where that ends. It is never unloaded, its thread-local storage is
static, and it is the global scope as libc has made it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

from dlopen.core.arch.machine cimport thread_pointer
from dlopen.core.base.atomics cimport store_u32
from dlopen.core.base.growable cimport Pointers, pointers_add
from dlopen.core.base.strings cimport strcmp, strrchr
from dlopen.core.base.words cimport smaller
from dlopen.core.host.abi cimport AT_SYSINFO_EHDR, getauxval, host_block
from dlopen.core.host.assumptions cimport note_unmet
from dlopen.core.host.iterate cimport Collection
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.naming cimport answers_to, has_base_name


cdef inline bint is_needed_as(
    const Pointers* images, const Image* image, const char* name
) noexcept nogil:
    """Some image's DT_NEEDED can only have meant this one: it has the file's name, and none
    answers to it. The host keeps such names to itself."""
    cdef size_t i, j
    cdef const Image* other
    cdef bint needed = False
    if answers_to(image, name):          # as a rule
        return False
    for i in range(images.count):
        other = <const Image*>images.items[i]
        if answers_to(other, name):
            return False
        for j in range(other.tables.needed.count):
            needed = needed or strcmp(<const char*>other.tables.needed.items[j], name) == 0
    return needed


cdef inline bint add_needed_names(const Collection* found) noexcept nogil:
    """To the images that are new, so that nobody reads their names yet. False without memory."""
    cdef size_t i
    cdef Image* image
    cdef char* name
    for i in range(found.fresh.count):
        image = <Image*>found.fresh.items[i]
        # The program's has no folder in it, nor has any other that is found by a name alone.
        name = strrchr(image.link_map.l_name, 0x2f)
        if name == NULL or not is_needed_as(&found.images, image, name + 1):
            continue
        if not pointers_add(&image.names, name + 1):
            return False
    return True


cdef inline bint find_static_tls_of_host(Linker* linker, Image* image) noexcept nogil:
    """Where the storage of an image that the process started with is: always static. libc's errno
    shows it, which is at such a distance. False with `note_unmet`."""
    cdef uint64_t block
    if image.thread_local.module_id == 0:
        return True
    block = <uint64_t>host_block(&linker.host, image.thread_local.module_id)
    image.thread_local.offset = <int64_t>(block - thread_pointer())
    store_u32(&image.thread_local.is_static, 1)
    # Of the libc whose function it is: each namespace of the host's has one of its own.
    if not image.map_start <= <uint64_t>linker.host.errno_location < image.map_end:
        return True
    if <uint64_t>linker.host.errno_location() - block < image.layout.tls.p_memsz:
        return True
    note_unmet(
        &linker.preparation, b"errno is not where __tls_get_addr says that its storage is", b""
    )
    return False


cdef inline size_t first_meant(
    const Pointers* images, size_t start, size_t end, const char* name
) noexcept nogil:
    """The first of those that a DT_NEEDED means; `end`: none."""
    cdef const Image* image
    while start < end:
        image = <const Image*>images.items[start]
        if answers_to(image, name) or has_base_name(image, name):
            break
        start += 1
    return start


cdef inline bint mark_startup(Linker* linker, Pointers* images) noexcept nogil:
    """Which images the process was started with: the closure of the program's needs, and
    all that stand before its last member, since the host appends what it loads later. False with
    `note_unmet`."""
    cdef uint64_t vdso = getauxval(AT_SYSINFO_EHDR)
    cdef size_t boundary = 1
    cdef size_t i, j, k
    cdef Image* image
    cdef const char* name
    cdef bint grew = True
    while grew:
        grew = False
        for i in range(smaller(boundary, images.count)):
            image = <Image*>images.items[i]
            for j in range(image.tables.needed.count):
                name = <const char*>image.tables.needed.items[j]
                # First, as most are: and one of the same name may have come late, by a path.
                if first_meant(images, 1, boundary, name) != boundary:
                    continue
                k = first_meant(images, boundary, images.count, name)
                if k != images.count:
                    boundary = k + 1
                    grew = True
    for i in range(smaller(boundary, images.count)):
        image = <Image*>images.items[i]
        image.host.is_startup = True
        if not find_static_tls_of_host(linker, image):
            return False
        # The vDSO is in nobody's scope.
        image.life.is_global = not image.map_start <= vdso < image.map_end
    return True
