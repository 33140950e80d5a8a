"""The search lists that are an image's scope: one joins when the image is part of a further open,
and leaves with the image whose list it is.

Changed under Registry.lock; who looks symbols up has none, and reads each pointer once.
"""

from libc.stddef cimport size_t

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport store_pointer
from dlopen.core.image.image cimport Image, Retired, SearchList
from dlopen.core.image.retirement cimport Retirement, retire


cdef inline bint widen_scope(
    Image* image, const SearchList* list, Retired** wider
) noexcept nogil:
    """Under the lock: a scope with a search list more, as the last, unless it is there. It waits in
    `wider` until it is taken, so that several images get theirs, or none. False without memory."""
    cdef size_t count = 0
    cdef size_t kept = 0
    cdef size_t i
    cdef SearchList** old = image.scope.lists
    cdef SearchList** new
    cdef Retired* entry
    while old != NULL and old[count] != NULL:
        if old[count] == list:
            return True
        count += 1
    entry = <Retired*>allocate(sizeof(Retired))
    new = <SearchList**>allocate((count + 2) * sizeof(SearchList*))
    if entry == NULL or new == NULL:
        release(entry)
        release(new)
        return False
    for i in range(count):
        # What `leave_scope` has doubled.
        if i == 0 or old[i] != old[i - 1]:
            new[kept] = old[i]
            kept += 1
    new[kept] = <SearchList*>list
    entry.image = image
    entry.block = new
    entry.next = wider[0]
    wider[0] = entry
    return True


cdef inline void take_wider_scopes(Retirement* retirement, Retired* wider) noexcept nogil:
    """Under the same hold of the lock as `widen_scope`."""
    cdef Retired* entry
    cdef void* old
    while wider != NULL:
        entry = wider
        wider = entry.next
        old = entry.image.scope.lists
        store_pointer(&entry.image.scope.lists, entry.block)
        entry.image = NULL
        entry.block = old
        retire(retirement, entry)


cdef inline void free_wider_scopes(Retired* wider) noexcept nogil:
    cdef Retired* entry
    while wider != NULL:
        entry = wider
        wider = entry.next
        release(entry.block)
        release(entry)


cdef inline void leave_scope(Image* image) noexcept nogil:
    """Under the lock: the search lists of what goes leave the scope of an image that stays. Its
    own comes where the first one was, unless it is there anyhow: what outlives the open that
    brought it in still sees itself and what it needs, as under glibc. Any other gives its place
    to a neighbour: a reader in the middle of it misses nothing, and no memory is wanted."""
    cdef SearchList** scope = image.scope.lists
    cdef SearchList* neighbour = NULL
    cdef bint holds_own = False
    cdef size_t i, following
    i = 0
    while scope != NULL and scope[i] != NULL:
        holds_own = holds_own or scope[i] == &image.scope.search_list
        i += 1
    i = 0
    while scope != NULL and scope[i] != NULL:
        if scope[i].is_leaving:
            if not holds_own:
                neighbour = &image.scope.search_list
                holds_own = True
                image.life.has_outlived = True
            elif neighbour == NULL:
                following = i + 1            # its own is there
                while scope[following].is_leaving:
                    following += 1
                neighbour = scope[following]
            store_pointer(&scope[i], neighbour)
        neighbour = scope[i]
        i += 1
