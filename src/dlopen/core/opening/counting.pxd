"""Counting: an open of what is open already, and a close that leaves it open, change a number and
nothing else.

An open is that only if all that it could do was done, and if there is no choice of an image: what
is not certain is left to a transaction, which begins from the start.
"""

from libc.stdint cimport uint32_t

from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.contract cimport DLOPEN_KEEP_AS_LIBC, Request
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD, RTLD_NOW
from dlopen.core.image.image cimport Image
from dlopen.core.image.index cimport IndexSearch, begin_search, next_found
from dlopen.core.image.known_by cimport image_file_key, name_key
from dlopen.core.image.listing cimport is_image
from dlopen.core.image.naming cimport answers_to
from dlopen.core.image.registry cimport Registry
from dlopen.core.symbols.report cimport report_close, report_open


cdef inline bint only_counts(const Request* request) noexcept nogil:
    """There is nothing in it that changes what is there, or asks for something new."""
    return request.name != NULL and request.name[0] != 0 and request.bytes == NULL \
        and request.replacement_count == 0 and request.find == NULL and request.files == NULL \
        and request.member == NULL and request.members == NULL \
        and request.replaces == NULL and request.flags & ~<uint32_t>DLOPEN_KEEP_AS_LIBC == 0 \
        and request.mode & (RTLD_LAZY | RTLD_NOW) != 0 \
        and request.mode & ~<uint32_t>(RTLD_LAZY | RTLD_NOW | RTLD_NOLOAD) == 0


cdef inline bint is_only_one_of_file(const Registry* registry, const Image* image) noexcept nogil:
    """Under the lock. Of two, one may be the asker's own."""
    cdef IndexSearch search
    cdef const Image* other = image
    begin_search(&registry.files, image_file_key(image), &search)
    while other == image:
        other = next_found(&search)
    return other == NULL


cdef inline Image* image_to_count(const Registry* registry, const Request* request) noexcept nogil:
    """Under the lock: what all who ask mean by the name, if it is open and complete; or NULL."""
    cdef IndexSearch search
    cdef Image* found = NULL
    cdef Image* image
    begin_search(&registry.names, name_key(request.name), &search)
    image = next_found(&search)
    while image != NULL:
        if answers_to(image, request.name):
            if found != NULL or image.is_host or image.scope.is_own:
                return NULL
            found = image
        image = next_found(&search)
    if found == NULL or found.life.open_count == 0 or not load_u32(&found.life.is_complete) \
            or found.namespace_id != request.namespace_id or not load_u32(&found.life.is_visible) \
            or load_u32(&found.changes.is_replaced) or not is_only_one_of_file(registry, found):
        return NULL
    return found


cdef inline Image* count_again(Registry* registry, const Request* request) noexcept nogil:
    """The image, with one open more; NULL: the open is to be made in full."""
    cdef Image* image
    if not only_counts(request):
        return NULL
    lock_acquire(&registry.lock)
    image = image_to_count(registry, request)
    if image != NULL:
        store_u32(&image.life.open_count, image.life.open_count + 1)
    lock_release(&registry.lock)
    if image != NULL:
        report_open(request.name, 0, &image, NULL)
    return image


cdef inline bint uncount(Registry* registry, Image* image) noexcept nogil:
    """One open less, of what may be no image at all. False: it was the last one, or something waits
    for the next close; then nothing was done."""
    cdef bint is_counted
    lock_acquire(&registry.lock)
    is_counted = registry.closing.count == 0 and not registry.is_sweep_due \
        and is_image(registry, image) and not image.is_host and image.life.open_count > 1
    if is_counted:
        store_u32(&image.life.open_count, image.life.open_count - 1)
        report_close(image)
    lock_release(&registry.lock)
    return is_counted
