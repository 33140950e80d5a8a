"""Arrays that grow: of pointers, and of bytes.

Each belongs to the struct that holds it, and is guarded as that is. An addition that finds no
memory leaves an array of pointers as it was; a text remembers that it has failed, so that who puts
it together from many pieces looks once, at the end.
"""

from libc.stddef cimport size_t
from libc.string cimport memcpy

from dlopen.core.base.allocator cimport allocate_unset, release
from dlopen.core.base.atomics cimport load_pointer
from dlopen.core.base.strings cimport strlen


cdef enum:
    FEW = 2                      # most lists of a small library hold no more


cdef struct Pointers:
    void** items
    size_t count
    size_t capacity


cdef inline void pointers_begin(Pointers* array) noexcept nogil:
    """Empty, without memory of its own."""
    array.items = NULL
    array.count = 0
    array.capacity = 0


cdef inline bint pointers_reserve(Pointers* array, size_t more) noexcept nogil:
    """So many can be added now, and it does not fail; False without memory, and the array is as
    before."""
    cdef void** grown
    cdef size_t capacity = FEW if array.capacity == 0 else array.capacity
    while capacity < array.count + more:
        capacity *= 2
    if more == 0 or array.count + more <= array.capacity:
        return True
    grown = <void**>allocate_unset(capacity * sizeof(void*))
    if grown == NULL:
        return False
    if array.count != 0:
        memcpy(grown, array.items, array.count * sizeof(void*))
    release(array.items)
    array.items = grown
    array.capacity = capacity
    return True


cdef inline bint pointers_add(Pointers* array, const void* item) noexcept nogil:
    """False without memory; the array is as before then."""
    if array.count == array.capacity and not pointers_reserve(array, 1):
        return False
    array.items[array.count] = <void*>item
    array.count += 1
    return True


cdef inline void* pointer_at(const Pointers* array, size_t index) noexcept nogil:
    """Of a list whose length stays, and where another thread may exchange one for another
    (running/swap.pxd)."""
    return load_pointer(&array.items[index])


cdef inline bint pointers_hold(const Pointers* array, const void* item) noexcept nogil:
    """`item` is among them."""
    cdef size_t i
    for i in range(array.count):
        if pointer_at(array, i) == item:
            return True
    return False


cdef inline bint pointers_add_once(Pointers* array, const void* item) noexcept nogil:
    return pointers_hold(array, item) or pointers_add(array, item)


cdef inline void pointers_remove(Pointers* array, const void* item) noexcept nogil:
    """Removes the first occurrence, keeping the order."""
    cdef size_t i
    for i in range(array.count):
        if array.items[i] == item:
            array.count -= 1
            while i < array.count:
                array.items[i] = array.items[i + 1]
                i += 1
            return


cdef inline void pointers_free(Pointers* array) noexcept nogil:
    release(array.items)
    array.items = NULL
    array.count = 0
    array.capacity = 0


cdef struct Text:
    char* data                   # NUL-terminated once it holds anything
    size_t length
    size_t capacity
    bint failed                  # memory ran out: the text is not complete


cdef inline bint text_make_room(Text* text, size_t length) noexcept nogil:
    """For so many bytes more, and a NUL; without memory the text is as before, and `failed`."""
    cdef char* grown
    cdef size_t capacity
    if text.length + length + 1 > text.capacity:
        capacity = (text.length + length + 1) * 2
        grown = <char*>allocate_unset(capacity)
        if grown == NULL:
            text.failed = True
            return False
        if text.length != 0:
            memcpy(grown, text.data, text.length)
        release(text.data)
        text.data = grown
        text.capacity = capacity
    return True


cdef inline void text_add_bytes(Text* text, const char* data, size_t length) noexcept nogil:
    """Bytes, behind which there always is a NUL; what finds no memory is left out, and the text has
    `failed`."""
    if not text_make_room(text, length):
        return
    memcpy(text.data + text.length, data, length)
    text.length += length
    text.data[text.length] = 0


cdef inline void text_add(Text* text, const char* data) noexcept nogil:
    """A string; what finds no memory is left out, and the text has `failed`."""
    text_add_bytes(text, data, strlen(data))


cdef inline void text_cut(Text* text, size_t length) noexcept nogil:
    """Back to the first `length` bytes."""
    text.length = length
    if text.data != NULL:
        text.data[length] = 0


cdef inline void text_free(Text* text) noexcept nogil:
    release(text.data)
    text.data = NULL
    text.length = 0
    text.capacity = 0
    text.failed = False
