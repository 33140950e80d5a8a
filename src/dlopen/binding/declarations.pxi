# What is used of Python's own interface and of <elf.h>; dlopen.h is declared in contract.pxd.
from libc.stdint cimport int64_t, uint32_t, uint64_t

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
    void PyErr_SetObject(object type, object error) noexcept
    void PyErr_WriteUnraisable(object where) noexcept
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
