"""DLOPEN_find: where a name would come from, candidate by candidate, with nothing loaded.

It is the search of an open, whose trail is shown instead of kept for an error.
"""

from libc.stddef cimport size_t
from libc.string cimport memset

from dlopen.core.base.contract cimport (
    DLOPEN_E_NOT_FOUND, DLOPEN_E_OPEN, DLOPEN_REJECTED_LOADED, Error, Request, VisitCandidate,
)
from dlopen.core.base.details cimport DETAIL_CANNOT_OPEN
from dlopen.core.base.errors cimport fail, fail_memory, fail_system
from dlopen.core.base.growable cimport Text, text_free
from dlopen.core.base.kernel cimport is_shortage
from dlopen.core.base.strings cimport strlen
from dlopen.core.host.abi cimport RTLD_LAZY
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, image_name
from dlopen.core.image.listing cimport image_of_caller
from dlopen.core.memory.file cimport fail_for_member, file_close, file_init
from dlopen.core.opening.known cimport Wanted, loaded_by_name
from dlopen.core.opening.transaction cimport Transaction, begin, end
from dlopen.core.search.find cimport find_file
from dlopen.core.search.trail cimport Trail, trail_free


cdef inline int show_search(
    Linker* linker, const char* name, const void* caller, VisitCandidate* visit, void* data,
    Error* error
) noexcept nogil:
    """DLOPEN_find: calls `visit` for each candidate, the last one being what was found."""
    cdef Transaction* transaction
    cdef Request request
    cdef Trail* trail
    cdef Text path
    cdef Wanted wanted
    cdef Image* loaded
    cdef size_t i
    cdef const char* candidate
    cdef const char* origin
    cdef bint found, no_memory
    cdef int code
    cdef long last = 0           # how the last candidate ended
    memset(&path, 0, sizeof(path))
    memset(&request, 0, sizeof(request))
    request.name = name
    request.mode = RTLD_LAZY
    transaction = begin(linker, &request, error)
    if transaction == NULL:
        return fail_memory(error, name)
    trail = &transaction.trail
    file_init(&transaction.file)
    wanted.name = name
    wanted.asker = image_of_caller(&linker.registry, caller)
    wanted.own_only = False
    loaded = loaded_by_name(transaction, &wanted)
    if transaction.no_memory:
        end(transaction)
        return fail_memory(error, name)
    if loaded != NULL:
        visit(image_name(loaded), b"loaded", DLOPEN_REJECTED_LOADED, data)
    found = find_file(
        linker, transaction.snapshot, name, wanted.asker, NULL, &path, trail, &transaction.cache,
        &transaction.file, NULL
    )
    code = fail_for_member(&transaction.file, name, error)
    file_close(&transaction.file)
    candidate = trail.paths.data
    origin = trail.origins.data
    for i in range(trail.count if code == 0 else 0):
        last = -trail.results[i]
        visit(candidate, origin, trail.results[i], data)
        candidate += strlen(candidate) + 1
        origin += strlen(origin) + 1
    no_memory = path.failed or trail.paths.failed or trail.origins.failed
    if code == 0 and found and trail.count == 0 and not no_memory:
        visit(path.data, b"path", 0, data)
    text_free(&path)
    trail_free(trail)
    end(transaction)
    if no_memory:
        return fail_memory(error, name)
    if code:
        return code
    if not found and loaded == NULL:
        if is_shortage(last):    # the search has ended there
            return fail_system(error, DLOPEN_E_OPEN, name, DETAIL_CANNOT_OPEN, last)
        return fail(error, DLOPEN_E_NOT_FOUND, name, DETAIL_CANNOT_OPEN)
    return 0
