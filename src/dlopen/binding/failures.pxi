# Errors of the core, and the exceptions that stand for them.
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport strlen

from dlopen.core.base.contract cimport (
    DLOPEN_E_CONSTRUCTOR, DLOPEN_E_FORMAT, DLOPEN_E_HANDLE, DLOPEN_E_HOST, DLOPEN_E_INVALID,
    DLOPEN_E_MAP, DLOPEN_E_MEMORY, DLOPEN_E_NOT_ELF, DLOPEN_E_NOT_FOUND, DLOPEN_E_NOT_LOADED,
    DLOPEN_E_OPEN, DLOPEN_E_PROTECT, DLOPEN_E_READ, DLOPEN_E_RELOCATION, DLOPEN_E_STATE,
    DLOPEN_E_STOPPED, DLOPEN_E_SYMBOL, DLOPEN_E_UNSUPPORTED, DLOPEN_E_VERSION,
    DLOPEN_REJECTED_FILES, DLOPEN_REJECTED_HOSTS, DLOPEN_REJECTED_LOADED, DLOPEN_REJECTED_MACHINE,
    DLOPEN_message, Error,
)

from dlopen.errors import exception_for


cdef dict CODES = {
    DLOPEN_E_OPEN: "OPEN", DLOPEN_E_READ: "READ", DLOPEN_E_MAP: "MAP",
    DLOPEN_E_PROTECT: "PROTECT", DLOPEN_E_MEMORY: "MEMORY", DLOPEN_E_NOT_FOUND: "NOT_FOUND",
    DLOPEN_E_NOT_ELF: "NOT_ELF", DLOPEN_E_FORMAT: "FORMAT", DLOPEN_E_UNSUPPORTED: "UNSUPPORTED",
    DLOPEN_E_SYMBOL: "SYMBOL", DLOPEN_E_VERSION: "VERSION", DLOPEN_E_RELOCATION: "RELOCATION",
    DLOPEN_E_HOST: "HOST", DLOPEN_E_HANDLE: "HANDLE", DLOPEN_E_INVALID: "INVALID",
    DLOPEN_E_NOT_LOADED: "NOT_LOADED", DLOPEN_E_STATE: "STATE",
    DLOPEN_E_STOPPED: "STOPPED", DLOPEN_E_CONSTRUCTOR: "CONSTRUCTOR",
}
cdef dict REJECTED = {
    DLOPEN_REJECTED_LOADED: "LOADED", DLOPEN_REJECTED_MACHINE: "MACHINE",
    DLOPEN_REJECTED_FILES: "FILES", DLOPEN_REJECTED_HOSTS: "HOSTS",
}


cdef object decoded(const char *text):
    return PyUnicode_DecodeFSDefaultAndSize(text, <Py_ssize_t>strlen(text))

# One freed record is kept for the next call: there is seldom need for a second.
cdef Error *spare_record = NULL

cdef class Failure:
    """A DLOPEN_error that the core fills in, on the heap: it is half of a small thread's stack."""
    cdef Error *record

    def __cinit__(self):
        global spare_record
        self.record = spare_record
        spare_record = NULL
        if self.record == NULL:
            self.record = <Error *>malloc(sizeof(Error))
        if self.record == NULL:
            raise MemoryError

    def __dealloc__(self):
        global spare_record
        if spare_record == NULL:
            spare_record = self.record
        else:
            free(self.record)


cdef inline Failure new_failure():
    return Failure.__new__(Failure)     # without a call of the type


cdef object failure(const Error *error):
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
