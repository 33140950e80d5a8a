"""What an image needs, breadth first: dependencies and filtees; and the order of constructors.

Filtees (DT_FILTER, DT_AUXILIARY) stand before the image that names them in every search list.
"""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport DLOPEN_STATE_LOADING
from dlopen.core.base.errors cimport error_clear, error_needed_by
from dlopen.core.base.growable cimport (
    Pointers, pointer_at, pointers_add, pointers_add_once, pointers_free,
)
from dlopen.core.elf.constants cimport DT_AUXILIARY
from dlopen.core.elf.structures cimport Dyn
from dlopen.core.image.image cimport Image, image_name
from dlopen.core.image.order cimport sort_for_constructors
from dlopen.core.opening.acquire cimport acquire_needed, may_be_missing
from dlopen.core.opening.known cimport host_by_name, sees
from dlopen.core.opening.transaction cimport (
    DONE, FAILED, Outcome, Transaction, no_memory,
)


cdef inline Outcome load_filtees(Transaction* transaction, Image* image) noexcept nogil:
    """What answers in place of `image` where it can (ld(1), -F and -f): of DT_FILTER it must
    be there, of DT_AUXILIARY it may."""
    cdef const Dyn* entry
    cdef Image* filtee
    cdef size_t i
    cdef Outcome outcome
    for i in range(image.tables.filter_entries.count):
        entry = <const Dyn*>image.tables.filter_entries.items[i]
        filtee = NULL
        outcome = acquire_needed(transaction, image.tables.strtab + entry.d_val, image, &filtee)
        if outcome == FAILED and entry.d_tag == DT_AUXILIARY and may_be_missing(transaction):
            error_clear(transaction.error)
        elif outcome != DONE:
            error_needed_by(transaction.error, image_name(image))
            return outcome
        elif filtee != NULL and filtee != image and not (
            pointers_add(&image.needs.dependencies, filtee)
            and pointers_add_once(&image.needs.filtees, filtee)
        ):
            return no_memory(transaction, image_name(image))
    return DONE


cdef inline Outcome load_dependencies(Transaction* transaction) noexcept nogil:
    """DT_NEEDED, breadth first, of every new image."""
    cdef size_t i, j
    cdef Image* image
    cdef Image* dependency = NULL
    cdef Outcome outcome
    i = 0
    while i < transaction.loaded.count:
        image = <Image*>transaction.loaded.items[i]
        # A second pass, after the host opened what was missing, starts afresh.
        image.needs.dependencies.count = 0
        image.needs.filtees.count = 0
        for j in range(image.tables.needed.count):
            outcome = acquire_needed(
                transaction, <const char*>image.tables.needed.items[j], image, &dependency
            )
            if outcome != DONE:
                error_needed_by(transaction.error, image_name(image))
                return outcome
            if dependency != NULL and not pointers_add(&image.needs.dependencies, dependency):
                return no_memory(transaction, image_name(image))
        outcome = load_filtees(transaction, image)
        if outcome != DONE:
            return outcome
        i += 1
    return DONE


cdef inline bint add_unmarked(Pointers* images, Image* image) noexcept nogil:
    """Once: Traversal.mark says whether it is there. False without memory."""
    if image.visit.mark:
        return True
    if not pointers_add(images, image):
        return False
    image.visit.mark = 1
    return True


cdef inline bint add_dependencies_of(
    Transaction* transaction, const Image* image, Pointers* images
) noexcept nogil:
    """Appends the direct dependencies of any image; under the lock. The host does not say what it
    bound DT_NEEDED to: by name."""
    cdef size_t i
    cdef Image* dependency
    if not image.is_host:
        for i in range(image.needs.dependencies.count):
            if not add_unmarked(images, <Image*>pointer_at(&image.needs.dependencies, i)):
                return False
        return True
    for i in range(image.tables.needed.count):
        dependency = host_by_name(
            &transaction.linker.registry, <const char*>image.tables.needed.items[i]
        )
        # What the family needs of others is none of a namespace's.
        if dependency != NULL and sees(transaction, dependency) \
                and not add_unmarked(images, dependency):
            return False
    return True


cdef inline void put_filtees_first(Pointers* images) noexcept nogil:
    """Each stands just before its filter, if it is not before it anyhow."""
    cdef size_t i = 0
    cdef size_t j, at
    cdef const Image* image
    cdef void* filtee
    while i < images.count:
        image = <const Image*>images.items[i]
        for j in range(image.needs.filtees.count):
            filtee = image.needs.filtees.items[j]
            at = i + 1
            while at < images.count and images.items[at] != filtee:
                at += 1
            if at == images.count:
                continue
            while at > i:
                images.items[at] = images.items[at - 1]
                at -= 1
            images.items[i] = filtee
            i += 1
        i += 1


cdef inline void put_hosts_last(Pointers* images) noexcept nogil:
    """Both parts in the order in which they are."""
    cdef size_t i, at
    cdef size_t own = 0
    cdef void* image
    for i in range(images.count):
        image = images.items[i]
        if (<const Image*>image).is_host:
            continue
        for at in reversed(range(own, i)):
            images.items[at + 1] = images.items[at]
        images.items[own] = image
        own += 1


cdef inline bint sort_tree(Image* root) noexcept nogil:
    """Under the lock: the order of what a root needs, which is a dependency's own from its
    first open on; not of one that has outlived the open which brought it in, as glibc gives that
    one a list without an order. False without memory."""
    cdef const Pointers* closure = &root.scope.search_list.images
    cdef Pointers needed, order
    cdef size_t i
    cdef bint complete
    if root.is_host or root.needs.sorted.count or root.life.has_outlived:
        return True
    memset(&needed, 0, sizeof(needed))
    memset(&order, 0, sizeof(order))
    # Itself first, which a filter is not in its list.
    complete = pointers_add(&needed, root)
    for i in range(closure.count):
        if closure.items[i] != root and not (<const Image*>closure.items[i]).is_host:
            complete = complete and pointers_add(&needed, closure.items[i])
    # Not into its list at once: a cycle that leads back to it goes by its dependencies.
    complete = complete and sort_for_constructors(
        &needed, load_u32(&root.life.state) == DLOPEN_STATE_LOADING, &order
    )
    pointers_free(&needed)
    if complete:
        pointers_free(&root.needs.sorted)
        root.needs.sorted = order
    else:
        pointers_free(&order)
    return complete
