# cython: cdivision=True, binding=False
"""The binding of dlopen.h: numbers and bytes in, numbers, strings and exceptions out.

An image is its address as an int; the core checks each one that it is given.
The GIL is released around every call that may run foreign code, wait or take long.

Between DLOPEN_read_enter and DLOPEN_read_leave the GIL is never taken or released and no Python
object is made: whoever unmaps an image waits for its readers, perhaps while holding the GIL.
What is read there goes into a `Stream`, and becomes Python objects afterwards.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset, strcmp, strlen, strrchr

from dlopen.errors import exception_for

cdef extern from *:
    """
    // Cython imports inspect, longer than all else that this package imports, for the flags of
    // code objects, of which this module makes none.
    #define __Pyx_init_co_variables() 0
    """

cdef extern from "Python.h" nogil:
    int Py_IsInitialized()

cdef extern from "Python.h":
    ctypedef struct PyInterpreterState
    PyInterpreterState *PyInterpreterState_Get()
    int64_t PyInterpreterState_GetID(PyInterpreterState *interpreter)
    ctypedef struct PyObject
    ctypedef struct PyModuleDef:
        const char *m_name
    ctypedef struct PyTypeObject
    PyTypeObject *PyModuleDef_TypePointer "&PyModuleDef_Type"
    PyTypeObject *Py_TYPE(PyObject *thing)
    object PyModule_FromDefAndSpec(PyModuleDef *definition, object spec)
    PyModuleDef *PyModule_GetDef(object module) except? NULL
    PyObject *PyModule_Create2(PyModuleDef *definition, int version)
    const char *PyModule_GetName(object module) except NULL
    PyObject *PyState_FindModule(PyModuleDef *definition)
    int PyState_AddModule(object module, PyModuleDef *definition) except -1
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)

cdef extern from "elf.h" nogil:
    ctypedef struct Elf64_Phdr:
        uint32_t p_type, p_flags
        uint64_t p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    enum:
        STT_TLS, STT_GNU_IFUNC

cdef extern from "dlopen.h" nogil:
    enum:
        DLOPEN_ABI
        DLOPEN_PRIVATE
        DLOPEN_OWN_ONLY
        DLOPEN_NO_RESOLVE
        DLOPEN_NO_FOREIGN_CODE, DLOPEN_REPLACE_IN_TREE, DLOPEN_RELOADABLE
        DLOPEN_REJECTED_LOADED, DLOPEN_REJECTED_MACHINE, DLOPEN_REJECTED_FILES
        DLOPEN_REJECTED_HOSTS
        DLOPEN_OK, DLOPEN_E_OPEN, DLOPEN_E_READ, DLOPEN_E_MAP, DLOPEN_E_PROTECT, DLOPEN_E_MEMORY
        DLOPEN_E_NOT_FOUND, DLOPEN_E_NOT_ELF, DLOPEN_E_FORMAT, DLOPEN_E_UNSUPPORTED
        DLOPEN_E_SYMBOL, DLOPEN_E_VERSION, DLOPEN_E_RELOCATION, DLOPEN_E_HOST
        DLOPEN_E_HANDLE, DLOPEN_E_INVALID, DLOPEN_E_NOT_LOADED, DLOPEN_E_STATE
        DLOPEN_E_STOPPED, DLOPEN_E_CONSTRUCTOR
        DLOPEN_STATE_MAPPED, DLOPEN_STATE_LOADING, DLOPEN_STATE_INITIALISING
        DLOPEN_STATE_READY, DLOPEN_STATE_CLOSING
        DLOPEN_R_NONE, DLOPEN_R_RELATIVE, DLOPEN_R_SYMBOLIC, DLOPEN_R_GLOB_DAT, DLOPEN_R_JUMP_SLOT
        DLOPEN_R_COPY, DLOPEN_R_IRELATIVE, DLOPEN_R_DTPMOD, DLOPEN_R_DTPOFF, DLOPEN_R_TPOFF
        DLOPEN_R_TLSDESC, DLOPEN_R_SIZE, DLOPEN_R_PC_RELATIVE, DLOPEN_R_UNKNOWN
        DLOPEN_HELD_OPEN, DLOPEN_HELD_NODELETE, DLOPEN_HELD_DEPENDENCY, DLOPEN_HELD_BINDING
        DLOPEN_HELD_INITIALISING, DLOPEN_HELD_THREAD_LOCAL, DLOPEN_HELD_PATCH
        DLOPEN_HELD_RETAINED
    ctypedef struct DLOPEN_image
    struct DLOPEN_error:
        int32_t code, errnum
        uint64_t offset, value
        const char *library
        const char *detail
        const char *symbol
        const char *version
        const char *needed_by
        const char *searched
        uint32_t searched_count
        int32_t searched_errno[64]
    struct DLOPEN_replacement:
        const char *name
        const char *version
        const void *address
    struct DLOPEN_patched:
        uint64_t places, original
    struct DLOPEN_request:
        size_t size
        const char *name
        const void *bytes
        size_t bytes_size
        const void *caller
        uint32_t mode, flags
        int64_t namespace_id
        const DLOPEN_replacement *replacements
        size_t replacement_count
        int (*find)(
            const char *name, const char *version, const void **address, void *data
        ) noexcept nogil
        void *find_data
        DLOPEN_image *replaces
        int (*files)(
            const char *path, const void **bytes, size_t *size, void *data
        ) noexcept nogil
        void *files_data
    struct DLOPEN_symbol:
        const char *name
        const char *version
        DLOPEN_image *image
        uint64_t address, value, size
        uint32_t index
        uint8_t type, binding, visibility, is_default
        uint16_t section
    struct DLOPEN_info:
        size_t size
        const char *path
        const char *name
        const char *soname
        const char *rpath
        const char *runpath
        const char *interpreter
        uint64_t load_bias, map_start, map_end, dynamic, phdr, device, inode, flags, flags_1
        uint64_t tls_size, tls_align, tls_module_id
        uint32_t phnum, state, is_host, is_global, is_private, open_count, symbol_count
        uint32_t relocation_count, needed_count, dependency_count, version_count
        uint32_t has_textrel, nodelete
        int64_t namespace_id
    struct DLOPEN_relocation:
        uint64_t place
        int64_t addend
        uint32_t type, kind, symbol, width, table
    struct DLOPEN_version:
        const char *name
        const char *library
        uint32_t hash
        uint16_t flags, index
    uint32_t DLOPEN_abi()
    size_t DLOPEN_message(const DLOPEN_error *error, char *buffer, size_t size)
    int DLOPEN_namespace_new(
        const char *search_path, int64_t *namespace_id, DLOPEN_error *error
    )
    int DLOPEN_namespace_end(int64_t namespace_id, DLOPEN_error *error)
    int DLOPEN_open(const DLOPEN_request *request, DLOPEN_image **image, DLOPEN_error *error)
    int DLOPEN_map(const DLOPEN_request *request, DLOPEN_image **image, DLOPEN_error *error)
    int DLOPEN_relocate(
        DLOPEN_image *image, const DLOPEN_request *request, DLOPEN_image **scope,
        size_t scope_count, DLOPEN_error *error
    )
    int DLOPEN_existing(const char *name, DLOPEN_image **image, DLOPEN_error *error)
    int DLOPEN_close(DLOPEN_image *image, DLOPEN_error *error)
    ctypedef void (*visit_candidate)(
        const char *path, const char *origin, int result, void *data) noexcept
    int DLOPEN_find(const char *name, const void *caller, visit_candidate visit, void *data,
                    DLOPEN_error *error)
    int DLOPEN_symbol_find(DLOPEN_image *image, const char *name, const char *version,
                           uint32_t flags, DLOPEN_symbol *symbol, DLOPEN_error *error)
    int DLOPEN_symbol_at(DLOPEN_image *image, uint32_t index, DLOPEN_symbol *symbol)
    int DLOPEN_symbol_is_export(const DLOPEN_symbol *symbol)
    int DLOPEN_address(const void *address, DLOPEN_image **image, DLOPEN_symbol *symbol)
    int DLOPEN_info_of "DLOPEN_info"(DLOPEN_image *image, DLOPEN_info *info)
    const char *DLOPEN_needed_at(DLOPEN_image *image, uint32_t index)
    DLOPEN_image *DLOPEN_dependency_at(DLOPEN_image *image, uint32_t index)
    ctypedef void (*visit_relocation)(const DLOPEN_relocation *relocation, void *data) noexcept
    int DLOPEN_relocations(DLOPEN_image *image, visit_relocation visit, void *data)
    int DLOPEN_version_at(DLOPEN_image *image, uint32_t index, DLOPEN_version *version)
    size_t DLOPEN_images(DLOPEN_image **images, size_t capacity)
    uint32_t DLOPEN_read_enter()
    void DLOPEN_read_leave(uint32_t token)
    ctypedef void (*visit_holder)(int kind, DLOPEN_image *holder, void *data) noexcept
    int DLOPEN_patch(
        DLOPEN_image *image, const DLOPEN_replacement *replacements, size_t count,
        DLOPEN_patched *patched, uint64_t *number, DLOPEN_error *error
    )
    int DLOPEN_unpatch(uint64_t number, DLOPEN_error *error)
    int DLOPEN_swap(DLOPEN_image *old, DLOPEN_image *successor, uint64_t *places,
                    DLOPEN_error *error)
    int DLOPEN_retain(DLOPEN_image *image, DLOPEN_error *error)
    int DLOPEN_release(DLOPEN_image *image, DLOPEN_error *error)
    size_t DLOPEN_holders(DLOPEN_image *image, visit_holder visit, void *data)
    long DLOPEN_closed_function()


PRIVATE = DLOPEN_PRIVATE
NO_FOREIGN_CODE = DLOPEN_NO_FOREIGN_CODE
REPLACE_IN_TREE = DLOPEN_REPLACE_IN_TREE
RELOADABLE = DLOPEN_RELOADABLE
ABI = DLOPEN_ABI

cdef dict CODES = {
    DLOPEN_E_OPEN: "OPEN", DLOPEN_E_READ: "READ", DLOPEN_E_MAP: "MAP",
    DLOPEN_E_PROTECT: "PROTECT", DLOPEN_E_MEMORY: "MEMORY", DLOPEN_E_NOT_FOUND: "NOT_FOUND",
    DLOPEN_E_NOT_ELF: "NOT_ELF", DLOPEN_E_FORMAT: "FORMAT", DLOPEN_E_UNSUPPORTED: "UNSUPPORTED",
    DLOPEN_E_SYMBOL: "SYMBOL", DLOPEN_E_VERSION: "VERSION", DLOPEN_E_RELOCATION: "RELOCATION",
    DLOPEN_E_HOST: "HOST", DLOPEN_E_HANDLE: "HANDLE", DLOPEN_E_INVALID: "INVALID",
    DLOPEN_E_NOT_LOADED: "NOT_LOADED", DLOPEN_E_STATE: "STATE",
    DLOPEN_E_STOPPED: "STOPPED", DLOPEN_E_CONSTRUCTOR: "CONSTRUCTOR",
}
cdef dict STATES = {
    DLOPEN_STATE_MAPPED: "mapped", DLOPEN_STATE_LOADING: "loading",
    DLOPEN_STATE_INITIALISING: "initialising", DLOPEN_STATE_READY: "ready",
    DLOPEN_STATE_CLOSING: "closing",
}
cdef dict KINDS = {
    DLOPEN_R_NONE: "NONE", DLOPEN_R_RELATIVE: "RELATIVE", DLOPEN_R_SYMBOLIC: "SYMBOLIC",
    DLOPEN_R_GLOB_DAT: "GLOB_DAT", DLOPEN_R_JUMP_SLOT: "JUMP_SLOT", DLOPEN_R_COPY: "COPY",
    DLOPEN_R_IRELATIVE: "IRELATIVE", DLOPEN_R_DTPMOD: "DTPMOD", DLOPEN_R_DTPOFF: "DTPOFF",
    DLOPEN_R_TPOFF: "TPOFF", DLOPEN_R_TLSDESC: "TLSDESC", DLOPEN_R_SIZE: "SIZE",
    DLOPEN_R_PC_RELATIVE: "PC_RELATIVE", DLOPEN_R_UNKNOWN: "UNKNOWN",
}
cdef dict HOLDERS = {
    DLOPEN_HELD_OPEN: "open", DLOPEN_HELD_NODELETE: "nodelete",
    DLOPEN_HELD_DEPENDENCY: "dependency", DLOPEN_HELD_BINDING: "binding",
    DLOPEN_HELD_INITIALISING: "initialising", DLOPEN_HELD_THREAD_LOCAL: "thread_local",
    DLOPEN_HELD_PATCH: "patch", DLOPEN_HELD_RETAINED: "retained",
}
cdef dict REJECTED = {
    DLOPEN_REJECTED_LOADED: "LOADED", DLOPEN_REJECTED_MACHINE: "MACHINE",
    DLOPEN_REJECTED_FILES: "FILES", DLOPEN_REJECTED_HOSTS: "HOSTS",
}


# Numbers and strings, written while the core is read and taken out in the same order afterwards.
cdef struct Stream:
    char *data                          # owned
    size_t used, capacity, cursor
    bint failed                         # out of memory: from here on nothing more is written

cdef void put_bytes(Stream *stream, const void *data, size_t size) noexcept nogil:
    cdef size_t capacity
    cdef char *grown
    if stream.failed:
        return
    if stream.used + size > stream.capacity:
        capacity = 2 * (stream.used + size) + 256
        grown = <char *>realloc(stream.data, capacity)
        if grown == NULL:
            stream.failed = True
            return
        stream.data = grown
        stream.capacity = capacity
    memcpy(stream.data + stream.used, data, size)
    stream.used += size

cdef void put(Stream *stream, uint64_t number) noexcept nogil:
    put_bytes(stream, &number, sizeof(number))

cdef void put_text(Stream *stream, const char *text) noexcept nogil:
    cdef uint64_t size
    if text == NULL:
        put(stream, <uint64_t>-1)
        return
    size = strlen(text)
    put(stream, size)
    put_bytes(stream, text, size)

cdef uint64_t take(Stream *stream) noexcept:
    cdef uint64_t number = 0
    memcpy(&number, stream.data + stream.cursor, sizeof(number))
    stream.cursor += sizeof(number)
    return number

cdef object take_text(Stream *stream):
    cdef uint64_t size = take(stream)
    if size == <uint64_t>-1:
        return None
    text = PyUnicode_DecodeFSDefaultAndSize(
        stream.data + stream.cursor, <Py_ssize_t>size)
    stream.cursor += size
    return text

cdef int check_stream(Stream *stream) except -1:
    if stream.failed:
        raise MemoryError
    return 0


cdef object decoded(const char *text):
    return PyUnicode_DecodeFSDefaultAndSize(text, <Py_ssize_t>strlen(text))

# One that is not in use: there is seldom need for a second.
cdef DLOPEN_error *spare_record = NULL

cdef class Failure:
    """What the core may fill in: half of a small thread's stack."""
    cdef DLOPEN_error *record

    def __cinit__(self):
        global spare_record
        self.record = spare_record
        spare_record = NULL
        if self.record == NULL:
            self.record = <DLOPEN_error *>malloc(sizeof(DLOPEN_error))
        if self.record == NULL:
            raise MemoryError

    def __dealloc__(self):
        global spare_record
        if spare_record == NULL:
            spare_record = self.record
        else:
            free(self.record)


cdef object failure(const DLOPEN_error *error):
    """The exception that stands for an error of the core."""
    cdef size_t size = DLOPEN_message(error, NULL, 0)
    cdef bytearray line = bytearray(size + 1)
    cdef const char *path = error.searched
    cdef uint32_t i
    DLOPEN_message(error, <char *>line, size + 1)
    searched = []
    for i in range(error.searched_count):
        result = error.searched_errno[i] if i < 64 else 0
        searched.append((decoded(path), REJECTED.get(result, result)))
        path += strlen(path) + 1
    return exception_for(
        CODES.get(error.code, "UNKNOWN"),
        error.errnum,
        PyUnicode_DecodeFSDefaultAndSize(line, <Py_ssize_t>size),
        library=decoded(error.library),
        reason=decoded(error.detail),
        symbol=decoded(error.symbol),
        version=decoded(error.version),
        needed_by=decoded(error.needed_by),
        searched=tuple(searched),
    )

cdef object not_an_image():
    return exception_for("HANDLE", 0, "the image is not loaded any more")


cdef DLOPEN_replacement *make_replacements(list replacements) except? NULL:
    """Of (name, version or None, address), which the caller keeps; freed with PyMem_Free."""
    cdef DLOPEN_replacement *made
    cdef Py_ssize_t i
    if not replacements:
        return NULL
    made = <DLOPEN_replacement *>PyMem_Calloc(len(replacements), sizeof(DLOPEN_replacement))
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


cdef class Content:
    """The memory of a buffer, held as long as this object lives."""
    cdef Py_buffer view

    def __cinit__(self, data):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef void *address(self) noexcept:
        """Not NULL, which an empty buffer's may be, and which stands for none."""
        return self.view.buf if self.view.buf != NULL else <void *>self


cdef int ask_for_file(
    const char *path, const void **bytes, size_t *size, void *data
) noexcept with gil:
    """As `ask_python`. An open that begins anew gets the answers of before."""
    cdef list state = <list>data        # the function, an exception, what it has given
    cdef dict known = state[2]
    cdef Content content
    try:
        name = decoded(path)
        if name not in known:
            found = state[0](name)
            known[name] = None if found is None else Content(found)
        content = known[name]
        if content is not None:
            bytes[0] = content.address()
            size[0] = <size_t>content.view.len
    except BaseException as problem:
        state[1] = problem
        return 1
    return 0


def relocate(uintptr_t image, list scope, uint32_t mode, list replacements, find):
    """`find` is called with a name and a version or None, and returns an address, or 0."""
    cdef DLOPEN_request request
    cdef Failure error = Failure()
    cdef DLOPEN_replacement *made
    cdef DLOPEN_image **images
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
    images = <DLOPEN_image **>PyMem_Calloc(count + 1, sizeof(DLOPEN_image *))
    if images == NULL:
        raise MemoryError
    made = NULL
    try:
        request.replacements = made = make_replacements(replacements)
        request.replacement_count = <size_t>len(replacements)
        for i in range(len(scope)):
            images[i] = <DLOPEN_image *><uintptr_t>scope[i]
        with nogil:
            code = DLOPEN_relocate(<DLOPEN_image *>image, &request, images, count, error.record)
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
    cdef DLOPEN_request request
    cdef DLOPEN_replacement *made = NULL
    cdef Failure error = Failure()
    cdef DLOPEN_image *image = NULL
    cdef Content content
    cdef list state = [files, None, {}]
    cdef int code
    memset(&request, 0, sizeof(request))
    request.size = sizeof(request)
    request.mode = mode
    request.flags = flags
    request.replaces = <DLOPEN_image *>replaces
    request.namespace_id = namespace
    if name is not None:
        request.name = <const char *>name
    if data is not None:
        content = Content(data)
        request.bytes = content.address()
        request.bytes_size = <size_t>content.view.len
    if files is not None:
        request.files = ask_for_file
        request.files_data = <void *>state
    try:
        request.replacements = made = make_replacements(replacements)
        request.replacement_count = <size_t>len(replacements or ())
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
    if state[1] is not None:
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


def existing(bytes name not None):
    cdef Failure error = Failure()
    cdef DLOPEN_image *image = NULL
    cdef const char *text = name
    cdef int code
    with nogil:
        code = DLOPEN_existing(text, &image, error.record)
    if code != DLOPEN_OK:
        raise failure(error.record)
    return <uintptr_t>image


cdef void pass_holder(int kind, DLOPEN_image *holder, void *data) noexcept nogil:
    pass


def close(uintptr_t image):
    """Whether something still holds the image."""
    cdef Failure error = Failure()
    cdef int code
    cdef size_t holders = 0
    with nogil:
        code = DLOPEN_close(<DLOPEN_image *>image, error.record)
        if code == DLOPEN_OK:
            holders = DLOPEN_holders(<DLOPEN_image *>image, pass_holder, NULL)
    if code != DLOPEN_OK:
        raise failure(error.record)
    return holders != 0


def is_mapped(uintptr_t image):
    """Whether there is such an image, or another one at its address."""
    cdef DLOPEN_info found
    cdef int code
    found.size = sizeof(found)
    with nogil:
        code = DLOPEN_info_of(<DLOPEN_image *>image, &found)
    return code == DLOPEN_OK


cdef void put_candidate(
        const char *path, const char *origin, int result, void *data) noexcept nogil:
    put_text(<Stream *>data, path)
    put_text(<Stream *>data, origin)
    put(<Stream *>data, <uint64_t><int64_t>result)


def find(bytes name not None):
    cdef Stream stream
    cdef Failure error = Failure()
    cdef const char *text = name
    cdef int code
    memset(&stream, 0, sizeof(stream))
    candidates = []
    try:
        with nogil:
            code = DLOPEN_find(text, NULL, put_candidate, &stream, error.record)
        check_stream(&stream)
        if code not in (DLOPEN_OK, DLOPEN_E_NOT_FOUND):
            raise failure(error.record)
        while stream.cursor < stream.used:
            path = take_text(&stream)
            origin = take_text(&stream)
            result = <int64_t>take(&stream)
            candidates.append((path, origin, REJECTED.get(result, result)))
    finally:
        free(stream.data)
    return candidates


cdef void put_symbol(Stream *stream, const DLOPEN_symbol *symbol) noexcept nogil:
    put_text(stream, symbol.name)
    put_text(stream, symbol.version)
    put(stream, symbol.address)
    put(stream, symbol.value)
    put(stream, symbol.size)
    put(stream, symbol.type)
    put(stream, symbol.binding)

cdef object take_symbol(Stream *stream):
    return (take_text(stream), take_text(stream) or "", take(stream), take(stream), take(stream),
            take(stream), take(stream))


def symbol(uintptr_t image, bytes name not None, bytes version, bint own):
    """One definition, its resolver not called; None if there is none."""
    cdef Stream stream
    cdef Failure error = Failure()
    cdef DLOPEN_symbol found
    cdef const char *text = name
    cdef const char *version_text = NULL
    cdef uint32_t token, flags = DLOPEN_NO_RESOLVE | (DLOPEN_OWN_ONLY if own else 0)
    cdef int code
    memset(&stream, 0, sizeof(stream))
    if version is not None:
        version_text = version
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_symbol_find(
                <DLOPEN_image *>image, text, version_text, flags, &found, error.record)
            if code == DLOPEN_OK:
                put_symbol(&stream, &found)
            DLOPEN_read_leave(token)
        check_stream(&stream)
        if code in (DLOPEN_E_SYMBOL, DLOPEN_E_VERSION):
            return None
        if code != DLOPEN_OK:
            raise failure(error.record)
        return take_symbol(&stream)
    finally:
        free(stream.data)


def symbol_address(uintptr_t image, bytes name not None, bytes version, bint own):
    """Where a symbol is, its resolver called if it has one, and its type; None if there is none.

    The address may be 0: an absolute symbol of that value, or a resolver that says so.
    Outside of the readers' section: a resolver is foreign code, and may close libraries.
    """
    cdef Failure error = Failure()
    cdef DLOPEN_symbol found
    cdef const char *text = name
    cdef const char *version_text = NULL
    cdef int code
    if version is not None:
        version_text = version
    with nogil:
        code = DLOPEN_symbol_find(
            <DLOPEN_image *>image, text, version_text, DLOPEN_OWN_ONLY if own else 0,
            &found, error.record)
    if code in (DLOPEN_E_SYMBOL, DLOPEN_E_VERSION):
        return None
    if code != DLOPEN_OK:
        raise failure(error.record)
    if found.type == STT_TLS and found.address == 0:
        raise exception_for("STATE", 0, f"{decoded(text)} is a thread-local symbol")
    return found.address, found.type


def exports(uintptr_t image):
    """The keys of all exports, "name" for a default version and "name@VERSION" for others."""
    cdef Stream stream
    cdef DLOPEN_symbol found
    cdef uint32_t token, index = 0
    cdef int code
    cdef DLOPEN_info info
    memset(&stream, 0, sizeof(stream))
    info.size = sizeof(info)
    keys = []
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_info_of(<DLOPEN_image *>image, &info)
            if code == DLOPEN_OK:
                while DLOPEN_symbol_at(<DLOPEN_image *>image, index, &found) == DLOPEN_OK:
                    if DLOPEN_symbol_is_export(&found):
                        put_text(&stream, found.name)
                        if found.is_default:
                            found.version = NULL
                        put_text(&stream, found.version)
                    index += 1
            DLOPEN_read_leave(token)
        check_stream(&stream)
        if code != DLOPEN_OK:
            raise not_an_image()
        while stream.cursor < stream.used:
            name = take_text(&stream)
            version = take_text(&stream)
            keys.append(f"{name}@{version}" if version else name)
    finally:
        free(stream.data)
    return keys


def info(uintptr_t image):
    """Everything that is known of an image but its symbols and relocations."""
    cdef Stream stream
    cdef DLOPEN_info found
    cdef DLOPEN_version version
    cdef DLOPEN_image *handle = <DLOPEN_image *>image
    cdef Elf64_Phdr *phdr
    cdef uint32_t token, i
    cdef int code
    memset(&stream, 0, sizeof(stream))
    found.size = sizeof(found)
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_info_of(handle, &found)
            if code == DLOPEN_OK:
                put_text(&stream, found.path)
                put_text(&stream, found.name)
                put_text(&stream, found.soname)
                put_text(&stream, found.rpath)
                put_text(&stream, found.runpath)
                put_text(&stream, found.interpreter)
                for i in range(found.needed_count):
                    put_text(&stream, DLOPEN_needed_at(handle, i))
                for i in range(found.dependency_count):
                    put(&stream, <uintptr_t>DLOPEN_dependency_at(handle, i))
                for i in range(found.phnum):
                    phdr = <Elf64_Phdr *><uintptr_t>found.phdr + i
                    put(&stream, phdr.p_type)
                    put(&stream, phdr.p_flags)
                    put(&stream, phdr.p_offset)
                    put(&stream, phdr.p_vaddr)
                    put(&stream, phdr.p_filesz)
                    put(&stream, phdr.p_memsz)
                    put(&stream, phdr.p_align)
                for i in range(found.version_count):
                    memset(&version, 0, sizeof(version))
                    DLOPEN_version_at(handle, i, &version)
                    put_text(&stream, version.name)
                    put_text(&stream, version.library)
                    put(&stream, version.index)
                    put(&stream, version.flags)
                    put(&stream, version.hash)
            DLOPEN_read_leave(token)
        check_stream(&stream)
        if code != DLOPEN_OK:
            raise not_an_image()
        return {
            "path": take_text(&stream),
            "name": take_text(&stream),
            "soname": take_text(&stream),
            "rpath": take_text(&stream),
            "runpath": take_text(&stream),
            "interpreter": take_text(&stream),
            "needed": tuple([take_text(&stream) for _ in range(found.needed_count)]),
            "dependencies": tuple([take(&stream) for _ in range(found.dependency_count)]),
            "segments": [
                (take(&stream), take(&stream), take(&stream), take(&stream), take(&stream),
                 take(&stream), take(&stream)) for _ in range(found.phnum)],
            "versions": [
                (take_text(&stream) or "", take_text(&stream), take(&stream), take(&stream),
                 take(&stream)) for _ in range(found.version_count)],
            "load_bias": found.load_bias,
            "map_start": found.map_start,
            "map_end": found.map_end,
            "dynamic": found.dynamic,
            "phdr": found.phdr,
            "device": found.device,
            "inode": found.inode,
            "flags": found.flags,
            "flags_1": found.flags_1,
            "tls": (found.tls_size, found.tls_align, found.tls_module_id),
            "state": STATES.get(found.state, "unknown"),
            "is_host": bool(found.is_host),
            "is_global": bool(found.is_global),
            "is_private": bool(found.is_private),
            "open_count": found.open_count,
            "symbol_count": found.symbol_count,
            "relocation_count": found.relocation_count,
            "namespace_id": found.namespace_id,
            "has_textrel": bool(found.has_textrel),
            "nodelete": bool(found.nodelete),
        }
    finally:
        free(stream.data)


# A relocation names its symbol by number: each name is copied once, when it is first met.
cdef struct RelocationReader:
    Stream stream
    DLOPEN_image *image
    uint8_t *seen                       # owned: one for each dynamic symbol
    uint32_t symbol_count

cdef void put_relocation(const DLOPEN_relocation *relocation, void *data) noexcept nogil:
    cdef RelocationReader *reader = <RelocationReader *>data
    cdef Stream *stream = &reader.stream
    cdef DLOPEN_symbol symbol
    cdef uint32_t index = relocation.symbol
    put(stream, relocation.place)
    put(stream, <uint64_t>relocation.addend)
    put(stream, relocation.type)
    put(stream, relocation.kind)
    put(stream, relocation.width)
    put(stream, relocation.table)
    if index >= reader.symbol_count:
        index = 0
    put(stream, index)
    if index and not reader.seen[index]:
        reader.seen[index] = 1
        memset(&symbol, 0, sizeof(symbol))
        DLOPEN_symbol_at(reader.image, index, &symbol)
        put_text(stream, symbol.name)
        put_text(stream, symbol.version)


def relocations(uintptr_t image):
    cdef RelocationReader reader
    cdef DLOPEN_info found
    cdef uint32_t token
    cdef uint64_t place, type, kind, width, table, index
    cdef int64_t addend
    cdef int code
    cdef dict symbols = {0: (None, "")}
    memset(&reader, 0, sizeof(reader))
    found.size = sizeof(found)
    reader.image = <DLOPEN_image *>image
    result = []
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_info_of(reader.image, &found)
            if code == DLOPEN_OK:
                reader.symbol_count = found.symbol_count
                reader.seen = <uint8_t *>malloc(<size_t>found.symbol_count + 1)
                if reader.seen == NULL:
                    reader.stream.failed = True
                else:
                    memset(reader.seen, 0, <size_t>found.symbol_count + 1)
                    code = DLOPEN_relocations(reader.image, put_relocation, &reader)
            DLOPEN_read_leave(token)
        check_stream(&reader.stream)
        if code != DLOPEN_OK:
            raise not_an_image()
        while reader.stream.cursor < reader.stream.used:
            place = take(&reader.stream)
            addend = <int64_t>take(&reader.stream)
            type = take(&reader.stream)
            kind = take(&reader.stream)
            width = take(&reader.stream)
            table = take(&reader.stream)
            index = take(&reader.stream)
            if index not in symbols:
                symbols[index] = (take_text(&reader.stream), take_text(&reader.stream) or "")
            name, version = symbols[index]
            result.append((place, KINDS.get(kind, "UNKNOWN"), type, name, version, addend, width,
                           ("RELR", "RELA", "JMPREL")[table if table < 3 else 1]))
    finally:
        free(reader.stream.data)
        free(reader.seen)
    return result


def images():
    """The addresses of all images of this moment."""
    cdef DLOPEN_image **found = NULL
    cdef size_t capacity = 0, count, i
    result = []
    try:
        while True:
            with nogil:
                count = DLOPEN_images(found, capacity)
            if count == 0:
                raise MemoryError
            if count <= capacity:
                for i in range(count):
                    result.append(<uintptr_t>found[i])
                return result
            capacity = count + 8
            free(found)
            found = <DLOPEN_image **>malloc(capacity * sizeof(found[0]))
            if found == NULL:
                raise MemoryError
    finally:
        free(found)


def images_of(int64_t namespace):
    """Those of one namespace."""
    cdef DLOPEN_info found
    cdef uintptr_t image
    cdef uint32_t token
    cdef int code
    result = []
    found.size = sizeof(found)
    for image in images():
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_info_of(<DLOPEN_image *>image, &found)
            DLOPEN_read_leave(token)
        if code == DLOPEN_OK and found.namespace_id == namespace:
            result.append(image)
    return result


def address(uintptr_t address):
    """(image, nearest symbol or None), or None where no image is."""
    cdef Stream stream
    cdef DLOPEN_symbol symbol
    cdef DLOPEN_image *image = NULL
    cdef uint32_t token
    cdef int code
    memset(&stream, 0, sizeof(stream))
    memset(&symbol, 0, sizeof(symbol))
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_address(<const void *>address, &image, &symbol)
            if code == DLOPEN_OK and symbol.name != NULL:
                put_symbol(&stream, &symbol)
            DLOPEN_read_leave(token)
        check_stream(&stream)
        if code == DLOPEN_E_MEMORY:
            raise MemoryError
        if code != DLOPEN_OK:
            return None
        return <uintptr_t>image, take_symbol(&stream) if stream.used else None
    finally:
        free(stream.data)


def patch(uintptr_t image, list replacements):
    """(number, [(places, original) for each])"""
    cdef Failure error = Failure()
    cdef DLOPEN_replacement *made = NULL
    cdef DLOPEN_patched *patched = NULL
    cdef uint64_t number = 0
    cdef size_t count = <size_t>len(replacements)
    cdef size_t i
    cdef int code
    try:
        made = make_replacements(replacements)
        patched = <DLOPEN_patched *>PyMem_Calloc(count + 1, sizeof(DLOPEN_patched))
        if patched == NULL:
            raise MemoryError
        with nogil:
            code = DLOPEN_patch(<DLOPEN_image *>image, made, count, patched, &number, error.record)
        if code != DLOPEN_OK:
            raise failure(error.record)
        return number, [(patched[i].places, patched[i].original) for i in range(count)]
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
        code = DLOPEN_swap(<DLOPEN_image *>old, <DLOPEN_image *>successor, &places, error.record)
    if code != DLOPEN_OK:
        raise failure(error.record)
    return places


def retain(uintptr_t image):
    cdef Failure error = Failure()
    if DLOPEN_retain(<DLOPEN_image *>image, error.record) != DLOPEN_OK:
        raise failure(error.record)


def release(uintptr_t image):
    cdef Failure error = Failure()
    cdef int code
    with nogil:
        code = DLOPEN_release(<DLOPEN_image *>image, error.record)
    if code != DLOPEN_OK:
        raise failure(error.record)


cdef void put_holder(int kind, DLOPEN_image *holder, void *data) noexcept nogil:
    cdef DLOPEN_info found
    put(<Stream *>data, <uint64_t>kind)
    found.size = sizeof(found)
    if holder != NULL and DLOPEN_info_of(holder, &found) == DLOPEN_OK:
        put_text(<Stream *>data, found.path)
    else:
        put_text(<Stream *>data, NULL)


def holders(uintptr_t image):
    """(kind, path of the holder or None) for all that keeps an image mapped."""
    cdef Stream stream
    cdef uint32_t token
    memset(&stream, 0, sizeof(stream))
    found = []
    try:
        with nogil:
            token = DLOPEN_read_enter()
            DLOPEN_holders(<DLOPEN_image *>image, put_holder, &stream)
            DLOPEN_read_leave(token)
        check_stream(&stream)
        while stream.cursor < stream.used:
            kind = take(&stream)
            found.append((HOLDERS.get(kind, "unknown"), take_text(&stream)))
    finally:
        free(stream.data)
    return found


def closed_function():
    """The address of the function without effect that the functions of a closed library become."""
    return <uintptr_t><void *>DLOPEN_closed_function


# Callbacks.  A library's destructors run after every atexit handler, so after Py_Finalize, where a
# ctypes callback would wait for a GIL that does not exist any more; and ctypes leaves the result
# as it was when the Python function fails.  The function that a callback's libffi closure calls is
# therefore replaced.  ctypes has no name for it: it is found by what must stand around it, or left
# alone.  The thunk object of ctypes begins with the closure's writable and executable address; an
# ffi_closure ends with the call interface (which is a member of that object), the function, and
# the function's argument, which is the object.
ctypedef void (*closure_function)(
    void *interface, void *result, void **arguments, void *thunk) noexcept nogil

cdef struct CallInterface:              # ffi_cif, see ffi.h
    uint32_t abi, argument_count
    void *argument_types
    ResultType *result_type

cdef struct ResultType:                 # ffi_type
    size_t size
    uint16_t alignment, kind

cdef closure_function call_python = NULL

cdef void call_guarded(
        void *interface, void *result, void **arguments, void *thunk) noexcept nogil:
    cdef ResultType *type = (<CallInterface *>interface).result_type
    if type.kind != 0:                  # FFI_TYPE_VOID
        # An integer narrower than a register is returned as a whole one (ffi_arg).
        memset(result, 0, max(type.size, sizeof(void *)))
    if Py_IsInitialized():
        call_python(interface, result, arguments, thunk)


def guard_callback(thunk, uintptr_t code, size_t thunk_size):
    """Let a ctypes callback return 0 when it fails, or when the interpreter has ended.

    False if it does not look as expected and was left alone.
    """
    global call_python
    cdef uintptr_t start = <uintptr_t><void *>thunk
    cdef uintptr_t *member = <uintptr_t *>(start + 3 * sizeof(void *))  # after PyVarObject
    cdef uintptr_t *closure
    cdef size_t i
    if thunk_size < 5 * sizeof(void *) or member[1] != code or member[0] == 0:
        return False
    closure = <uintptr_t *>member[0]
    for i in range(2, 8):               # the code before it has 16 to 56 bytes
        if closure[i + 2] == start and start < closure[i] < start + thunk_size:
            if call_python == NULL:
                call_python = <closure_function><void *>closure[i + 1]
            if closure[i + 1] != <uintptr_t><void *>call_python:
                return False
            closure[i + 1] = <uintptr_t><void *>call_guarded
            return True
    return False


def keep_for_ever(thing):
    """Let an object outlive the interpreter."""
    Py_INCREF(thing)


# Extension modules that this package loads.  See PEP 489.
ctypedef PyObject *(*init_function)() noexcept


cdef int raise_pending() except? -1:
    return -1


cdef extern from *:
    """
    /* The module that this thread imports, with its package; NULL: none, or it was made. */
    static __thread const char *dlopen_package_context;
    """
    const char *package_context "dlopen_package_context"


cdef PyObject *create_in_package(PyModuleDef *definition, int version) noexcept:
    """PyModule_Create2 of an extension module that is being imported: where the interpreter would
    give the module's name its package, so do we. Only it can tell itself which one it imports."""
    cdef const char *name = package_context
    cdef const char *last = NULL
    cdef const char *own = definition.m_name
    cdef PyObject *made
    if name != NULL:
        last = strrchr(name, 0x2e)
    if last == NULL or own == NULL or strcmp(last + 1, own) != 0:
        return PyModule_Create2(definition, version)
    (&package_context)[0] = NULL        # once, as the interpreter's
    definition.m_name = name
    made = PyModule_Create2(definition, version)
    definition.m_name = own
    return made


CREATE_IN_PACKAGE = <uintptr_t><void *>create_in_package


def create_module(uintptr_t function, spec):
    """What PyInit_NAME at this address makes, with its exceptions.

    Nothing is kept of single-phase initialisation for a second import: each image has its own.
    """
    cdef bytes name = spec.name.encode()
    cdef bytes last = name.rpartition(b".")[2]
    cdef const char *outer = package_context
    cdef const char *unused
    cdef PyObject *made
    cdef PyModuleDef *definition
    (&package_context)[0] = name
    made = (<init_function><void *>function)()
    unused = package_context
    (&package_context)[0] = outer       # of the module whose import has brought this one
    if made == NULL:
        raise_pending()
        raise SystemError(f"initialization of {spec.name} failed without raising an exception")
    raise_pending()
    if Py_TYPE(made) == NULL:
        raise SystemError(f"init function of {spec.name} returned uninitialized object")
    if Py_TYPE(made) == PyModuleDef_TypePointer:
        return PyModule_FromDefAndSpec(<PyModuleDef *>made, spec)
    module = <object>made
    Py_DECREF(module)                   # the reference that was returned
    definition = PyModule_GetDef(module)
    if definition == NULL:
        raise SystemError(f"initialization of {spec.name} did not return an extension module")
    if PyState_FindModule(definition) == NULL:
        PyState_AddModule(module, definition)
    if unused != NULL and strcmp(PyModule_GetName(module), last) == 0:
        module.__name__ = spec.name     # made by a library on its behalf (Boost.Python)
    return module


cdef object loaded_file():
    """The file that holds the linker in this process."""
    cdef uintptr_t address = <uintptr_t><void *>DLOPEN_abi
    import builtins
    try:
        with builtins.open("/proc/self/maps", errors="surrogateescape") as maps:
            for line in maps:
                start, end = line.split(maxsplit=1)[0].split("-")
                if int(start, 16) <= address < int(end, 16):
                    return line.split(maxsplit=5)[5].strip()
    except OSError:
        pass                            # there is no /proc
    return "an unknown file"


if PyInterpreterState_GetID(PyInterpreterState_Get()) != 0:
    raise ImportError("dlopen works in the main interpreter only, not in a subinterpreter")
if DLOPEN_abi() != DLOPEN_ABI:
    raise ImportError(
        f"{loaded_file()} has version {DLOPEN_abi()} of the interface, but {__file__} was made "
        f"for version {DLOPEN_ABI}; is another release of dlopen in LD_PRELOAD?")
