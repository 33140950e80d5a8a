# cython: cdivision=True
"""Dependency order, and the running of constructors and destructors in it.

The order is glibc's (its dynamic_sort=2): depth first over the direct dependencies, from
the last image of the breadth-first list to the first; an image stands before all that
it depends on. Constructors run from the end of it, destructors from its beginning.
No lock is held while they run.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.base.allocator cimport Allocator
from dlopen.core.base.growable cimport Pointers, pointers_add, pointers_free, pointers_hold
from dlopen.core.elf.constants cimport DF_1_INITFIRST
from dlopen.core.image.dynamic cimport is_code
from dlopen.core.image.image cimport Image
from dlopen.core.linker.state cimport Linker


ctypedef void (*Constructor)(int argc, char** argv, char** environ) noexcept nogil
ctypedef void (*Destructor)() noexcept nogil


cdef enum:
    MARK_NONE = 0
    MARK_MEMBER = 1              # of the list that is sorted
    MARK_VISITED = 2


cdef inline bint visit_for_order(
    Allocator* allocator, Image* image, bint with_bindings, Pointers* order
) noexcept nogil:
    """Appends in postorder: what is depended on comes first."""
    cdef size_t i
    if image.mark != MARK_MEMBER:
        return True
    image.mark = MARK_VISITED
    for i in range(image.dependencies.count):
        if not visit_for_order(
            allocator, <Image*>image.dependencies.items[i], with_bindings, order
        ):
            return False
    if with_bindings:
        for i in range(image.bindings.count):
            if not visit_for_order(
                allocator, <Image*>image.bindings.items[i], with_bindings, order
            ):
                return False
    return pointers_add(allocator, order, image)


cdef inline bint sort_dependencies_first(
    Allocator* allocator, const Pointers* images, bint with_bindings, Pointers* order
) noexcept nogil:
    """`order` gets the images of the list, dependencies first. Uses Image.mark: under
    Registry.lock, or for images that nobody else knows yet."""
    cdef size_t i
    cdef bint complete = True
    for i in range(images.count):
        (<Image*>images.items[i]).mark = MARK_MEMBER
    for i in reversed(range(images.count)):
        complete = complete and visit_for_order(
            allocator, <Image*>images.items[i], with_bindings, order
        )
    for i in range(images.count):
        (<Image*>images.items[i]).mark = MARK_NONE
    return complete


cdef inline void run_constructors(const Linker* linker, const Image* image) noexcept nogil:
    """DT_INIT, then DT_INIT_ARRAY (gABI), with the arguments of the host's."""
    cdef const uint64_t* entries = <const uint64_t*>(image.bytes_bias + image.init_array)
    cdef uint64_t i
    if image.no_foreign_code:
        return
    if image.init != 0:
        (<Constructor>(image.load_bias + image.init))(linker.argc, linker.argv, linker.environ)
    for i in range(image.init_array_count):
        # 0 and -1 stand for none, as in the arrays of old linkers.
        if entries[i] != 0 and entries[i] != ~<uint64_t>0:
            (<Constructor>entries[i])(linker.argc, linker.argv, linker.environ)


cdef inline void run_destructors(const Image* image) noexcept nogil:
    """DT_FINI_ARRAY backwards, then DT_FINI (gABI)."""
    cdef const uint64_t* entries = <const uint64_t*>(image.bytes_bias + image.fini_array)
    cdef uint64_t i
    if image.no_foreign_code:
        return
    for i in reversed(range(image.fini_array_count)):
        if entries[i] != 0 and entries[i] != ~<uint64_t>0:
            (<Destructor>entries[i])()
    if image.fini != 0:
        (<Destructor>(image.load_bias + image.fini))()
