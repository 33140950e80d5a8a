# Patches, swaps, and what a closed library is kept by or replaced with.
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint64_t, uintptr_t

from dlopen.core.base.contract cimport (
    DLOPEN_OK, DLOPEN_patch, DLOPEN_release, DLOPEN_retain, DLOPEN_swap, DLOPEN_unpatch, Patched,
    PublicImage, PublicReplacement,
)


# By image and symbol: an address that patches of the symbol call on into, instead of what it is
# bound to without any: one patch is to stay. Changed by one operation of the dict.
standing = {}


def patch(uintptr_t image, list replacements):
    """Puts a patch in force: its number, and (places, original) for each replacement."""
    cdef Failure error = Failure()
    cdef PublicReplacement *made = NULL
    cdef Patched *patched = NULL
    cdef uint64_t number = 0
    cdef size_t count = <size_t>len(replacements)
    cdef size_t i
    cdef int code
    try:
        made = make_replacements(replacements)
        patched = <Patched *>PyMem_Calloc(count + 1, sizeof(Patched))
        if patched == NULL:
            raise MemoryError
        with nogil:
            code = DLOPEN_patch(<PublicImage *>image, made, count, patched, &number, error.record)
        if code != DLOPEN_OK:
            raise failure(error.record)
        return number, [
            (patched[i].places, standing.get((image, name), patched[i].original))
            for i, (name, _, _) in enumerate(replacements)
        ]
    finally:
        PyMem_Free(made)
        PyMem_Free(patched)


def unpatch(uint64_t number):
    cdef Failure error = Failure()
    cdef int code
    with nogil:
        code = DLOPEN_unpatch(number, error.record)
    if code != DLOPEN_OK:
        raise failure(error.record)


def swap(uintptr_t old, uintptr_t successor):
    """How many places were bound anew."""
    cdef Failure error = Failure()
    cdef uint64_t places = 0
    cdef int code
    with nogil:
        code = DLOPEN_swap(<PublicImage *>old, <PublicImage *>successor, &places, error.record)
    if code != DLOPEN_OK:
        raise failure(error.record)
    return places


def retain(uintptr_t image):
    cdef Failure error = Failure()
    if DLOPEN_retain(<PublicImage *>image, error.record) != DLOPEN_OK:
        raise failure(error.record)


def release(uintptr_t image):
    cdef Failure error = Failure()
    cdef int code
    with nogil:
        code = DLOPEN_release(<PublicImage *>image, error.record)
    if code != DLOPEN_OK:
        raise failure(error.record)
