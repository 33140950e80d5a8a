# Extension modules that this package loads.  See PEP 489.
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uintptr_t
from libc.string cimport strcmp, strrchr


ctypedef PyObject *(*init_function)() noexcept


cdef int raise_pending() except? -1:
    # After a -1, Cython raises what is pending, and goes on if nothing is.
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
    try:
        raise_pending()
    except BaseException as error:
        raise SystemError(f"initialization of {spec.name} raised unreported exception") from error
    if Py_TYPE(made) == NULL:
        raise SystemError(f"init function of {spec.name} returned uninitialized object")
    if Py_TYPE(made) == PyModuleDef_TypePointer:
        return PyModule_FromDefAndSpec(<PyModuleDef *>made, spec)
    module = <object>made
    Py_DECREF(module)                   # the reference that was returned
    try:
        definition = PyModule_GetDef(module)
    except TypeError:
        definition = NULL               # it is no module at all
    if definition == NULL:
        raise SystemError(f"initialization of {spec.name} did not return an extension module")
    if PyState_FindModule(definition) == NULL:
        PyState_AddModule(module, definition)
    if unused != NULL and strcmp(PyModule_GetName(module), last) == 0:
        module.__name__ = spec.name     # made by a library on its behalf (Boost.Python)
    module.__file__ = spec.origin
    return module


def definition_of(module):
    """Where the module was defined in C: an address in the image that it is of; 0 for others."""
    return <uintptr_t>PyModule_GetDef(module)
