# Opening, mapping, relocating and closing; namespaces; what is asked of Python meanwhile.
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint32_t, uintptr_t
from libc.string cimport memset, strlen

from dlopen.core.base.contract cimport (
    DLOPEN_OK, DLOPEN_close, DLOPEN_existing, DLOPEN_holders, DLOPEN_info, DLOPEN_map,
    DLOPEN_namespace_end, DLOPEN_namespace_new, DLOPEN_open, DLOPEN_relocate, Info, PublicImage,
    PublicReplacement, Request,
)

from os import PathLike


cpdef bytes encode_name(path):
    """A library's name for the core.

    A str or bytes without a slash is a name to be searched, as dlopen(3) does; an `os.PathLike`
    is always a file (`Path("./x.so")` drops its "./").
    """
    cdef object name = PyOS_FSPath(path)
    if isinstance(name, str):
        name = PyUnicode_EncodeFSDefault(name)
    if strlen(<const char *><bytes>name) != <size_t>len(<bytes>name):
        raise ValueError("embedded null byte")
    if type(path) is not str and isinstance(path, PathLike) and b"/" not in <bytes>name:
        return b"./" + <bytes>name
    return name


cpdef int64_t flags_of(mode) except -1:
    """A mode as a number of 32 bits, as the core takes it."""
    cdef int overflow = 0
    cdef int64_t number = -1
    if PyIndex_Check(mode):
        number = PyLong_AsLongLongAndOverflow(PyNumber_Index(mode), &overflow)
    if overflow or not 0 <= number <= 0xffffffffU:
        raise ValueError(f"{mode!r} is not a valid Mode")
    return number


cdef PublicReplacement *make_replacements(list replacements) except? NULL:
    """Of (name, version or None, address), which the caller keeps; freed with PyMem_Free."""
    cdef PublicReplacement *made
    cdef Py_ssize_t i
    if not replacements:
        return NULL
    made = <PublicReplacement *>PyMem_Calloc(len(replacements), sizeof(PublicReplacement))
    if made == NULL:
        raise MemoryError
    for i in range(len(replacements)):
        name, version, address = replacements[i]
        made[i].name = <const char *><bytes>name
        if version is not None:
            made[i].version = <const char *><bytes>version
        made[i].address = <const void *><uintptr_t>address
    return made


cdef int ask_python(
    const char *name, const char *version, const void **address, void *data
) noexcept with gil:
    """An exception ends the search, and is raised when that has been undone."""
    cdef list state = <list>data
    try:
        found = state[0](decoded(name), None if version == NULL else decoded(version))
        address[0] = <const void *><uintptr_t>found
    except BaseException as problem:
        state[1] = problem
        return 1
    return 0


def relocate(uintptr_t image, list scope, uint32_t mode, list replacements, find):
    """`find` is called with a name and a version or None, and returns an address, or 0."""
    cdef Request request
    cdef Failure error = Failure()
    cdef PublicReplacement *made
    cdef PublicImage **images
    cdef list state = [find, None]
    cdef Py_ssize_t i
    cdef size_t count = <size_t>len(scope)
    cdef int code
    memset(&request, 0, sizeof(request))
    request.size = sizeof(request)
    request.mode = mode
    if find is not None:
        request.find = ask_python
        request.find_data = <void *>state
    images = <PublicImage **>PyMem_Calloc(count + 1, sizeof(PublicImage *))
    if images == NULL:
        raise MemoryError
    made = NULL
    try:
        request.replacements = made = make_replacements(replacements)
        request.replacement_count = <size_t>len(replacements)
        for i in range(len(scope)):
            images[i] = <PublicImage *><uintptr_t>scope[i]
        with nogil:
            code = DLOPEN_relocate(<PublicImage *>image, &request, images, count, error.record)
    finally:
        PyMem_Free(images)
        PyMem_Free(made)
    if state[1] is not None:
        raise state[1]
    if code != DLOPEN_OK:
        raise failure(error.record)


def new_namespace(bytes search_path):
    """Its number; `search_path` as LD_LIBRARY_PATH, or None."""
    cdef Failure error = Failure()
    cdef const char *path = NULL
    cdef int64_t namespace = 0
    if search_path is not None:
        path = search_path
    if DLOPEN_namespace_new(path, &namespace, error.record) != DLOPEN_OK:
        raise failure(error.record)
    return namespace


def end_namespace(int64_t namespace):
    cdef Failure error = Failure()
    if DLOPEN_namespace_end(namespace, error.record) != DLOPEN_OK:
        raise failure(error.record)


cdef object load(
    object name, object data, uint32_t mode, uint32_t flags, list replacements, object files,
    int64_t namespace, uintptr_t replaces, bint link, bint keeps_gil
):
    cdef Request request
    cdef PublicReplacement *made = NULL
    cdef Failure error = new_failure()
    cdef PublicImage *image = NULL
    cdef Content content
    cdef list state = None
    cdef int code
    memset(&request, 0, sizeof(request))
    request.size = sizeof(request)
    request.mode = mode
    request.flags = flags
    request.replaces = <PublicImage *>replaces
    request.namespace_id = namespace
    if name is not None:
        request.name = <const char *>name
    if data is not None:
        content = Content(data)
        request.bytes = content.address()
        request.bytes_size = <size_t>content.view.len
    if files is not None:
        state = [files, None, {}]
        request.files = ask_for_file
        request.files_data = <void *>state
        request.members = ask_for_member
        request.members_data = <void *>state
    try:
        request.replacements = made = make_replacements(replacements)
        request.replacement_count = <size_t>len(replacements or ())
        asked = begin_asking()
        if keeps_gil:
            code = DLOPEN_open(&request, &image, error.record)
        else:
            with nogil:
                if link:
                    code = DLOPEN_open(&request, &image, error.record)
                else:
                    code = DLOPEN_map(&request, &image, error.record)
    finally:
        PyMem_Free(made)
    end_asking(asked, code)
    if state is not None and state[1] is not None:
        raise state[1]
    if code != DLOPEN_OK:
        raise failure(error.record)
    return <uintptr_t>image


def open(
    bytes name, data, uint32_t mode, uint32_t flags=0, list replacements=None, files=None,
    int64_t namespace=0, uintptr_t replaces=0, bint keeps_gil=False
):
    """`files` is called with a path, and returns a buffer or None; `keeps_gil`: constructors run
    with the GIL held."""
    return load(
        name, data, mode, flags, replacements, files, namespace, replaces, True, keeps_gil)


def map(bytes name, data, uint32_t flags=0, files=None):
    return load(name, data, 0, flags, None, files, 0, 0, False, False)


def existing(bytes name, uintptr_t at_hand=0):
    """By a name, or None: the image at hand."""
    cdef Failure error = Failure()
    cdef PublicImage *image = <PublicImage *>at_hand
    cdef const char *text = NULL
    cdef int code
    if name is not None:
        text = name
    asked = begin_asking()
    with nogil:
        code = DLOPEN_existing(text, &image, error.record)
    end_asking(asked, code)
    if code != DLOPEN_OK:
        raise failure(error.record)
    return <uintptr_t>image


cdef void pass_holder(int kind, PublicImage *holder, void *data) noexcept nogil:
    pass


cpdef bint close(uintptr_t image) except -1:
    """Closes it; True if something still holds the image."""
    cdef Failure error = new_failure()
    cdef int code
    cdef size_t holders = 0
    with nogil:
        code = DLOPEN_close(<PublicImage *>image, error.record)
        if code == DLOPEN_OK:
            holders = DLOPEN_holders(<PublicImage *>image, pass_holder, NULL)
    if code != DLOPEN_OK:
        raise failure(error.record)
    return holders != 0


def is_mapped(uintptr_t image):
    """Whether there is such an image, or another one at its address."""
    cdef Info found
    cdef int code
    memset(&found, 0, sizeof(found))
    found.size = sizeof(found)
    with nogil:
        code = DLOPEN_info(<PublicImage *>image, &found)
    return code == DLOPEN_OK
