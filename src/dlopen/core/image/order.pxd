"""Dependency order.

It is glibc's (its dynamic_sort=2): depth first over the direct dependencies, from the last
image of the breadth-first list to the first; an image stands before all that it depends on.
Constructors run from the end of it, destructors from its beginning.
"""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free, pointers_remove
from dlopen.core.image.image cimport Image, Needs


cdef enum:
    MARK_NONE = 0
    MARK_MEMBER = 1              # of the list that is sorted
    MARK_VISITED = 2


cdef inline Image* next_need(Image* image, const Image* blank, bint with_bindings) noexcept nogil:
    """NULL after the last one: dependencies, of an image opened itself all that it needs from
    itself on (glibc's l_initfini), then what was bound, the last first."""
    cdef const Needs* kept = &image.needs
    cdef const Pointers* needs = &kept.sorted if kept.sorted.count else &kept.dependencies
    cdef size_t number = image.visit.next
    if image == blank:
        return NULL
    image.visit.next += 1
    if number < needs.count:
        return <Image*>needs.items[needs.count - 1 - number if kept.sorted.count else number]
    number -= needs.count
    if not with_bindings or number >= kept.bindings.count:
        return NULL
    return <Image*>kept.bindings.items[kept.bindings.count - 1 - number]


cdef inline void visit(Image* image, Image* visited_from) noexcept nogil:
    """The traversal goes into the image, and knows the way back."""
    image.visit.mark = MARK_VISITED
    image.visit.visited_from = visited_from
    image.visit.next = 0


cdef inline bint visit_for_order(
    Image* image, const Image* blank, bint with_bindings, Pointers* order
) noexcept nogil:
    """Appends in postorder: what is depended on comes first. `blank` counts as without
    dependencies, where a cycle leads to it."""
    cdef Image* need
    if image.visit.mark != MARK_MEMBER:
        return True
    visit(image, NULL)
    while image != NULL:
        need = next_need(image, blank, with_bindings)
        if need == NULL:
            if not pointers_add(order, image):
                return False
            image = image.visit.visited_from
        elif need.visit.mark == MARK_MEMBER:
            visit(need, image)
            image = need
    return True


cdef inline bint visit_all(
    const Pointers* images, bint backwards, const Image* blank,
    bint with_bindings, Pointers* order
) noexcept nogil:
    """Adds all of `images` to `order`, each before what it depends on; False without memory."""
    cdef size_t i
    cdef bint complete = True
    for i in range(images.count):
        (<Image*>images.items[i]).visit.mark = MARK_MEMBER
    for i in range(images.count):
        complete = complete and visit_for_order(
            <Image*>images.items[images.count - 1 - i if backwards else i], blank,
            with_bindings, order
        )
    for i in range(images.count):
        (<Image*>images.items[i]).visit.mark = MARK_NONE
    return complete


cdef inline bint sort_for_constructors(
    const Pointers* images, bint is_new, Pointers* order
) noexcept nogil:
    """`order` gets the images, dependencies first and the root (the first) last, also in a
    cycle. `is_new`: the root is being loaded, and has no list of its own yet where a cycle leads
    back to it. Uses Image.visit.mark: under Registry.lock."""
    cdef Image* root = <Image*>images.items[0]
    if not visit_all(images, True, root if is_new else NULL, False, order):
        return False
    pointers_remove(order, root)
    return pointers_add(order, root)


cdef inline bint sort_for_destructors(
    const Pointers* images, Image* closed, Pointers* order
) noexcept nogil:
    """`order` gets the images, dependencies first: destructors run from its end. What was
    bound counts as a dependency, but DT_NEEDED goes before it where they contradict each
    other: hence a second pass, where anything was. `closed`, if it is not NULL, is the first
    image, and its destructors run before all others, also in a cycle (glibc's force_first).
    Under Registry.lock."""
    cdef Pointers first
    cdef bint complete
    if not have_bindings(images):
        complete = visit_all(images, True, NULL, False, order)
    else:
        memset(&first, 0, sizeof(first))
        complete = visit_all(images, True, NULL, True, &first) \
            and visit_all(&first, False, NULL, False, order)
        pointers_free(&first)
    if not complete or closed == NULL:
        return complete
    pointers_remove(order, closed)
    return pointers_add(order, closed)


cdef inline bint have_bindings(const Pointers* images) noexcept nogil:
    """To others of ours; what the process started with goes after all of them."""
    cdef size_t i, j
    cdef const Image* image
    for i in range(images.count):
        image = <const Image*>images.items[i]
        for j in range(image.needs.bindings.count):
            if not (<const Image*>image.needs.bindings.items[j]).is_host:
                return True
    return False


cdef inline bint comes_later(const Pointers* images, size_t one, size_t other) noexcept nogil:
    return (<const Image*>images.items[one]).listing.number \
        > (<const Image*>images.items[other]).listing.number


cdef inline void sink(Pointers* images, size_t root, size_t count) noexcept nogil:
    """Of heapsort: the greater ones above it rise."""
    cdef size_t child = 2 * root + 1
    while child < count:
        if child + 1 < count and comes_later(images, child + 1, child):
            child += 1
        if not comes_later(images, child, root):
            return
        images.items[root], images.items[child] = images.items[child], images.items[root]
        root = child
        child = 2 * root + 1


cdef inline void sort_by_number(Pointers* images) noexcept nogil:
    """Into the order in which they were loaded: heapsort (Knuth, 5.2.3)."""
    cdef size_t i
    for i in reversed(range(images.count // 2)):
        sink(images, i, images.count)
    for i in reversed(range(1, images.count)):
        images.items[0], images.items[i] = images.items[i], images.items[0]
        sink(images, 0, i)
