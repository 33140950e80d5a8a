# Modules that the interpreter makes of images of ours.  To make one it calls dlopen, dlsym and,
# when the first has failed, dlerror; these places of it lead here for good.  In a thread that makes
# such a module the three answer for it; what else comes goes on to where the places led before.
from libc.stdint cimport uintptr_t
from libc.string cimport strcmp


cdef extern from "dlfcn.h" nogil:
    void *libc_dlopen "dlopen"(const char *path, int mode)
    void *libc_dlsym "dlsym"(void *handle, const char *name)
    char *libc_dlerror "dlerror"()

ctypedef void *(*dlopen_function)(const char *path, int mode) noexcept nogil
ctypedef void *(*dlsym_function)(void *handle, const char *name) noexcept nogil
ctypedef char *(*dlerror_function)() noexcept nogil

# Whom the places have led to.  Set anew before anybody calls that could tell: see `lead_imports`.
cdef dlopen_function other_dlopen = <dlopen_function>libc_dlopen
cdef dlsym_function other_dlsym = <dlsym_function>libc_dlsym
cdef dlerror_function other_dlerror = <dlerror_function>libc_dlerror


cdef struct Maker:
    Maker *outer                        # whose module imports this one
    void *making                        # the object that it is part of
    const char *path                    # what the interpreter asks for
    uintptr_t image                     # that it got; 0: none yet
    const char *message                 # what dlerror has to say; NULL: it was said, or is nothing
    bint is_open                        # has asked: the path is another's from now on
    bint is_found                       # and got the function that makes the module

cdef extern from *:
    """
    static __thread void *dlopen_innermost_maker;   /* of the modules that this thread makes */
    """
    void *innermost_maker "dlopen_innermost_maker"


cdef class Making:
    """A module that is made; `opener` is called with the mode of dlopen(3), and returns the image.

    A function is then asked of `finder`, with the image and the name.
    Not on the stack, which greenlets share: they end in any order.
    """
    cdef Maker maker
    cdef bytes path, message
    cdef object opener, finder
    cdef readonly object error          # what `opener` has raised

    def __cinit__(self, bytes path not None, opener, finder):
        self.path = path
        self.maker.path = path
        self.maker.making = <void *>self
        self.opener = opener
        self.finder = finder

    def make(self, create, spec):
        """What `create`, which is the interpreter's own, makes of the spec."""
        cdef Maker *maker = &self.maker
        cdef Maker *other
        maker.outer = <Maker *>innermost_maker
        (&innermost_maker)[0] = maker
        try:
            return create(spec)
        finally:
            other = <Maker *>innermost_maker
            if other == maker:
                (&innermost_maker)[0] = maker.outer
            else:
                while other != NULL and other.outer != maker:
                    other = other.outer
                if other != NULL:
                    other.outer = maker.outer

    @property
    def unused_image(self):
        """It is open, and nothing of the module has run but constructors; 0: no such."""
        return 0 if self.maker.is_found else self.maker.image


cdef void *open_for(Maker *maker, int mode) noexcept with gil:
    cdef Making making = <Making>maker.making
    maker.is_open = True
    try:
        maker.image = <uintptr_t>making.opener(mode)
    except BaseException as error:
        making.error = error
        making.message = str(error).encode(errors="surrogateescape")
        maker.message = making.message
    return <void *>maker.image


cdef void *find_for(Maker *maker, const char *name) noexcept with gil:
    cdef uintptr_t address = 0
    try:
        address = <uintptr_t>(<Making>maker.making).finder(maker.image, decoded(name))
    except Exception:
        pass                            # as dlsym, it has none; and nobody asks dlerror
    maker.is_found = maker.is_found or address != 0
    return <void *>address


# A call that is not ours is the last that a function does, so that it looks to libc, which heeds
# its caller, as one from where that leads to.
cdef void *dlopen_of_imports(const char *path, int mode) noexcept nogil:
    cdef Maker *maker = <Maker *>innermost_maker
    while maker != NULL:
        # Not the first that comes: audit hooks run before it, and may import.
        if path != NULL and strcmp(path, maker.path) == 0:
            if not maker.is_open:
                return open_for(maker, mode)
            # CPython 3.15 opens a second time, where a module has no PyModExport function.
            if maker.image != 0 and not maker.is_found:
                return <void *>maker.image
        maker = maker.outer
    return other_dlopen(path, mode)


cdef void *dlsym_of_imports(void *handle, const char *name) noexcept nogil:
    cdef Maker *maker = <Maker *>innermost_maker
    while maker != NULL:
        if maker.image != 0 and maker.image == <uintptr_t>handle:
            return find_for(maker, name)
        maker = maker.outer
    return other_dlsym(handle, name)


cdef char *dlerror_of_imports() noexcept nogil:
    cdef Maker *maker = <Maker *>innermost_maker
    cdef const char *message
    while maker != NULL:
        message = maker.message
        if message != NULL:
            maker.message = NULL
            return <char *>message
        maker = maker.outer
    return other_dlerror()


def lead_imports():
    """Let the interpreter's places lead here; False if it has none, or not all of them."""
    global other_dlopen, other_dlsym, other_dlerror
    image, _ = address(<uintptr_t><void *>PyModule_FromDefAndSpec2)
    own = [
        (b"dlopen", None, <uintptr_t><void *>dlopen_of_imports),
        (b"dlsym", None, <uintptr_t><void *>dlsym_of_imports),
        (b"dlerror", None, <uintptr_t><void *>dlerror_of_imports),
    ]
    number, places = patch(image, own)
    if not all(count for count, _ in places):
        unpatch(number)
        return False
    other_dlopen = <dlopen_function><void *><uintptr_t>places[0][1]
    other_dlsym = <dlsym_function><void *><uintptr_t>places[1][1]
    other_dlerror = <dlerror_function><void *><uintptr_t>places[2][1]
    standing.update({(image, name): function for name, _, function in own})
    return True


def lead_others(uintptr_t opening, uintptr_t finding, uintptr_t telling):
    """Let what makes no module go on to these; 0: to where it goes.  Returns where dlopen went."""
    global other_dlopen, other_dlsym, other_dlerror
    before = <uintptr_t><void *>other_dlopen
    if opening:
        other_dlopen = <dlopen_function><void *>opening
    if finding:
        other_dlsym = <dlsym_function><void *>finding
    if telling:
        other_dlerror = <dlerror_function><void *>telling
    return before


# What binding libraries know of types and modules they keep in the interpreter's dictionary, by
# names alone: a second image would be refused, or be given the modules of the first.  So each
# namespace, and each copy of a module, has a dictionary of its own.
cdef extern from "Python.h":
    ctypedef struct PyInterpreterState
    void *return_address "__builtin_return_address"(int level) noexcept nogil

cdef dict dictionaries = {}             # by number of a namespace, or else by image; for ever


cdef PyObject *dictionary_of(void *caller, bint by_namespace) noexcept:
    cdef PublicImage *image = NULL
    cdef PublicSymbol symbol
    cdef Info info
    cdef uint32_t token = DLOPEN_read_enter()
    cdef int code = DLOPEN_address(caller, &image, &symbol)
    memset(&info, 0, sizeof(info))
    info.size = sizeof(info)
    if code == DLOPEN_OK:
        code = DLOPEN_info(image, &info)
    DLOPEN_read_leave(token)
    if code != DLOPEN_OK:
        return NULL
    key = info.namespace_id if by_namespace else <uintptr_t>image
    try:
        own = dictionaries.setdefault(key, {})
    except MemoryError:
        return NULL
    return <PyObject *>own              # borrowed, as the interpreter's


cdef PyObject *dictionary_of_namespace(PyInterpreterState *interpreter) noexcept:
    return dictionary_of(return_address(0), True)


cdef PyObject *dictionary_of_copy(PyInterpreterState *interpreter) noexcept:
    return dictionary_of(return_address(0), False)


# Compiled code of a namespace imports from there, too, whenever it does.
cdef dict importers = {}                # by number of the namespace: `_Import` of `_importing`


def import_by(int64_t namespace, importer):
    """Let compiled code of the namespace import by this, for ever."""
    importers.setdefault(namespace, importer)


cdef object importer_of(void *caller):
    """Of the namespace of the caller; it is in one, where an extension module was opened."""
    cdef PublicImage *image = NULL
    cdef PublicSymbol symbol
    cdef Info info
    cdef uint32_t token = DLOPEN_read_enter()
    cdef int code = DLOPEN_address(caller, &image, &symbol)
    memset(&info, 0, sizeof(info))
    info.size = sizeof(info)
    if code == DLOPEN_OK:
        code = DLOPEN_info(image, &info)
    DLOPEN_read_leave(token)
    return importers[info.namespace_id]


cdef object import_named(const char *name):
    return importer_of(return_address(0)).import_module((<bytes>name).decode())


cdef object import_object(PyObject *name):
    return importer_of(return_address(0)).import_module(<object>name)


cdef object import_level(
    PyObject *name, PyObject *globals, PyObject *locals, PyObject *fromlist, int level
):
    return importer_of(return_address(0))(
        <object>name, None if globals == NULL else <object>globals,
        None if locals == NULL else <object>locals,
        None if fromlist == NULL else <object>fromlist, level)


cdef PyObject *imported(PyObject *name) noexcept:
    """PyImport_GetModule: NULL, and no exception, where there is none."""
    try:
        module = importer_of(return_address(0)).imported(<object>name)
    except Exception:
        return NULL
    if module is None:
        return NULL
    Py_INCREF(module)
    return <PyObject *>module


# Of an open: how what is loaded into a namespace, or is a copy of its own, is bound.
IMPORTS = [
    (b"PyImport_ImportModule", None, <uintptr_t><void *>import_named),
    (b"PyImport_ImportModuleNoBlock", None, <uintptr_t><void *>import_named),
    (b"PyImport_Import", None, <uintptr_t><void *>import_object),
    (b"PyImport_ImportModuleLevelObject", None, <uintptr_t><void *>import_level),
    (b"PyImport_GetModule", None, <uintptr_t><void *>imported),
]
IN_NAMESPACE = [
    *IMPORTS, (b"PyInterpreterState_GetDict", None, <uintptr_t><void *>dictionary_of_namespace)]
AS_COPY = [(b"PyInterpreterState_GetDict", None, <uintptr_t><void *>dictionary_of_copy)]
