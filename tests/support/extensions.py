"""Extension modules for tests: sources, in which NAME is the name of the module."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from support.fixtures import compile_library

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
INCLUDE = f"-I{sysconfig.get_paths()['include']}"

START = """
#include <Python.h>
static int count;
static PyObject *next_count(PyObject *module, PyObject *none) { return PyLong_FromLong(++count); }
static PyMethodDef methods[] = {
    {"next_count", next_count, METH_NOARGS, "Counts."}, {NULL, NULL, 0, NULL}};

"""
# The interpreter gives a single-phase module of size -1 what it had at first, others it makes anew.
SINGLE = (
    START
    + """
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "NAME", "Of one phase.", SIZE, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_NAME(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddStringConstant(module, "early", PyModule_GetName(module)) < 0)
        Py_CLEAR(module);
    return module;
}
"""
)
MULTI = (
    START
    + """
static int execute(PyObject *module) {
    DURING
    return PyModule_AddStringConstant(module, "early", PyModule_GetName(module));
}
static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "whatever", "Of two phases.", 0, methods, slots, NULL, NULL, NULL};
PyMODINIT_FUNC FUNCTION(void) { return PyModuleDef_Init(&definition); }
"""
)
CREATED = (
    START
    + """
/* As Cython's modules: they look at the spec. */
static PyObject *create(PyObject *spec, PyModuleDef *definition) {
    PyObject *name = PyObject_GetAttrString(spec, "name");
    PyObject *origin = PyObject_GetAttrString(spec, "origin");
    PyObject *module = name && origin ? PyModule_NewObject(name) : NULL;
    if (module && PyModule_AddObjectRef(module, "__file__", origin) < 0) Py_CLEAR(module);
    Py_XDECREF(name);
    Py_XDECREF(origin);
    return module;
}
static PyModuleDef_Slot slots[] = {{Py_mod_create, create}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "whatever", NULL, 0, methods, slots, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_created(void) { return PyModuleDef_Init(&definition); }
"""
)
# What compiled code imports when it is called; see also Cython's modules.
IMPORTS_LATE = """
#include <Python.h>
static PyObject *by_name(PyObject *module, PyObject *name) {
    return PyImport_ImportModule(PyUnicode_AsUTF8(name));
}
static PyObject *by_object(PyObject *module, PyObject *name) { return PyImport_Import(name); }
static PyObject *from_list(PyObject *module, PyObject *name) {
    PyObject *list = Py_BuildValue("(s)", "__name__");
    PyObject *found = PyImport_ImportModuleLevelObject(name, NULL, NULL, list, 0);
    Py_DECREF(list);
    return found;
}
static PyObject *known(PyObject *module, PyObject *name) {
    PyObject *found = PyImport_GetModule(name);
    return found || PyErr_Occurred() ? found : Py_NewRef(Py_None);
}
static PyMethodDef methods[] = {
    {"by_name", by_name, METH_O, NULL}, {"by_object", by_object, METH_O, NULL},
    {"from_list", from_list, METH_O, NULL}, {"known", known, METH_O, NULL},
    {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "NAME", NULL, 0, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_NAME(void) { return PyModuleDef_Init(&definition); }
"""
# As pybind11 and nanobind: what they know of their types is in the interpreter's dictionary.
KNOWS = """
#include <Python.h>
static PyObject *dictionary(PyObject *module, PyObject *none) {
    return Py_NewRef(PyInterpreterState_GetDict(PyInterpreterState_Get()));
}
static PyMethodDef methods[] = {
    {"dictionary", dictionary, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "NAME", NULL, 0, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC FUNCTION(void) { return PyModuleDef_Init(&definition); }
"""
FAILS = """
#include <Python.h>
static int execute_late(PyObject *module) {
    PyErr_SetString(PyExc_LookupError, "in the second phase");
    return -1;
}
PyMODINIT_FUNC PyInit_NAME(void) { DOES }
"""


def extension(
    directory: Path, name: str, source: str, *, flags: tuple[str, ...] = (), suffix: str = SUFFIX
) -> Path:
    """The extension module of a source, in which NAME is its name."""
    text = source.replace("NAME", name).replace("FUNCTION", f"PyInit_{name}").replace("DURING", "")
    return compile_library(directory, f"{name}{suffix}", text, flags=[INCLUDE, *flags], soname="")
