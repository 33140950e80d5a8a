"""Names that an image was opened by, each kept once (they only grow, and are read without a lock);
and owned lists of strings."""

from libc.stddef cimport size_t
from libc.string cimport memcpy

from dlopen.core.base.allocator cimport allocate, copy_text, release
from dlopen.core.base.atomics cimport store_pointer
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strcmp, strlen
from dlopen.core.image.image cimport Image, Name
from dlopen.core.image.listing cimport add_name_key
from dlopen.core.image.naming cimport answers_to
from dlopen.core.image.registry cimport Registry


cdef inline void remember_name(Registry* registry, Image* image, const char* name) noexcept nogil:
    """A further name that a file answers to from now on, whatever becomes of that name in the file
    system; without memory it is found by its file again."""
    cdef size_t size = strlen(name) + 1
    cdef Name* further = <Name*>allocate(sizeof(Name) + size)
    if further == NULL:
        return
    memcpy(further.text, name, size)
    lock_acquire(&registry.lock)
    # Nor has another thread been first, or taken it away.
    if not answers_to(image, name) and image.listing.is_present \
            and add_name_key(registry, image, name):
        further.next = image.further_names
        store_pointer(&image.further_names, further)
        further = NULL
    lock_release(&registry.lock)
    release(further)


cdef inline bint holds_text(const Pointers* texts, const char* text) noexcept nogil:
    """One of them is the same string."""
    cdef size_t i
    for i in range(texts.count):
        if strcmp(<const char*>texts.items[i], text) == 0:
            return True
    return False


cdef inline bint add_text_once(Pointers* texts, const char* text) noexcept nogil:
    """A copy of it; False without memory."""
    cdef char* copy
    if holds_text(texts, text):
        return True
    copy = copy_text(text, strlen(text))
    if copy != NULL and pointers_add(texts, copy):
        return True
    release(copy)
    return False


cdef inline void free_texts(Pointers* texts) noexcept nogil:
    cdef size_t i
    for i in range(texts.count):
        release(texts.items[i])
    pointers_free(texts)
