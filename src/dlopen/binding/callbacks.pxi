# Callbacks.  A library's destructors run after every atexit handler, so after Py_Finalize, where a
# ctypes callback would wait for a GIL that does not exist any more; and ctypes leaves the result
# as it was when the Python function fails.  The function that a callback's libffi closure calls is
# therefore replaced.  ctypes has no name for it: it is found by what must stand around it, or left
# alone.  The thunk object of ctypes begins with the closure's writable and executable address; an
# ffi_closure ends with the call interface (which is a member of that object), the function, and
# the function's argument, which is the object.
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint16_t, uint32_t, uintptr_t
from libc.string cimport memset


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


def tell_unraisable(where, error):
    """Give an exception that nobody can raise to sys.unraisablehook."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(where)


def keep_for_ever(thing):
    """Let an object outlive the interpreter."""
    Py_INCREF(thing)
