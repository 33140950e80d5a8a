# What is used of Python's own interface and of <elf.h>; dlopen.h is declared in contract.pxd.
from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    // Cython imports inspect, longer than all else that this package imports, for the flags of
    // code objects, and collections for those of sequences and mappings: none is made here.
    #define __Pyx_init_co_variables() 0
    #define __Pyx_init_tpflags_variables() 0

    // The extension's own objects are of one interpreter, the first that imports it.  Another, or
    // one that begins when that has ended, is refused before the module is made: Cython would give
    // out, or use, what is gone.
    static int dlopen_is_known, dlopen_has_ended;

    static void dlopen_note_end(void)
    {
        dlopen_has_ended = 1;
    }

    static PyObject *dlopen_make_module(PyModuleDef *definition)
    {
        if (PyInterpreterState_GetID(PyInterpreterState_Get()) != 0) {
            PyErr_SetString(PyExc_ImportError,
                "dlopen works in the main interpreter only, not in a subinterpreter");
            return NULL;
        }
        if (dlopen_has_ended) {
            PyErr_SetString(PyExc_ImportError,
                "dlopen works in the first interpreter that imports it, not again after its end");
            return NULL;
        }
        if (!dlopen_is_known)
            dlopen_is_known = Py_AtExit(dlopen_note_end) == 0;
        return PyModuleDef_Init(definition);
    }
    #define PyModuleDef_Init dlopen_make_module
    """

cdef extern from "Python.h" nogil:
    int Py_IsInitialized()

cdef extern from "Python.h":
    ctypedef struct PyObject
    ctypedef struct PyModuleDef:
        const char *m_name
    ctypedef struct PyTypeObject
    PyTypeObject *PyModuleDef_TypePointer "&PyModuleDef_Type"
    PyTypeObject *Py_TYPE(PyObject *thing)
    object PyModule_FromDefAndSpec(PyModuleDef *definition, object spec)
    PyObject *PyModule_FromDefAndSpec2(PyModuleDef *definition, PyObject *spec, int version)
    PyModuleDef *PyModule_GetDef(object module) except? NULL
    PyObject *PyModule_Create2(PyModuleDef *definition, int version)
    void PyErr_SetObject(object type, object error) noexcept
    void PyErr_WriteUnraisable(object where) noexcept
    const char *PyModule_GetName(object module) except NULL
    PyObject *PyState_FindModule(PyModuleDef *definition)
    int PyState_AddModule(object module, PyModuleDef *definition) except -1
    object PyObject_GenericGetDict(object thing, void *unused)
    int PyObject_GenericSetAttr(object thing, object name, object value) except -1
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    bint PyIndex_Check(object number)
    object PyNumber_Index(object number)
    object PyOS_FSPath(object path)
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)
    object PyUnicode_EncodeFSDefault(object text)
    unsigned long PyThread_get_thread_ident()
    void Py_INCREF(object thing)
    void Py_DECREF(object thing)
    void Py_XDECREF(PyObject *thing)

cdef extern from *:
    const char *package_version "DLOPEN_VERSION"    # of the build

cdef extern from "elf.h" nogil:
    ctypedef struct Elf64_Phdr:
        uint32_t p_type, p_flags
        uint64_t p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    enum:
        STT_OBJECT, STT_COMMON, STT_TLS, STT_GNU_IFUNC
