# What is open, as Python holds it: the part of `Library` and `Image` that opens, looks functions up
# and closes.  It is guarded by the GIL: between two lines that neither call Python code nor release
# the GIL no other thread comes.
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint32_t, uintptr_t

from dlopen.core.base.contract cimport DLOPEN_closed_function

import sys
from _weakref import ref
from os import RTLD_LAZY, RTLD_NOW

from dlopen._records import log, log_refused
from dlopen.errors import one_line


cdef uint32_t LAZY = RTLD_LAZY, NOW = RTLD_NOW
cdef object audit = sys.audit
cdef dict modules = sys.modules
cdef object data_class = None, closed_class = None
cdef list after_close = []


def set_function_classes(data, closed):
    """The classes of function objects that stand for a variable, and for what was closed."""
    global data_class, closed_class
    data_class = data
    closed_class = closed


def call_after_close(act):
    """Have it called whenever an image was closed."""
    after_close.append(act)


def was_closed():
    """An image was."""
    for act in after_close:
        act()


cdef int set_address(object function, uintptr_t address) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(function, &view, PyBUF_SIMPLE)   # of a ctypes object: the word that it holds
    (<uintptr_t *>view.buf)[0] = address
    PyBuffer_Release(&view)
    return 0


def redirect(function, uintptr_t address, uint32_t type_of_symbol, usual):
    """Let a function object lead to another address, as one of the class that suits the symbol."""
    kind = data_class if is_data(type_of_symbol) else usual
    if type(function) is not kind and type(function) is not closed_class:
        function.__class__ = kind
    set_address(function, address)


cpdef int turn_off(function) except -1:
    """Make a function object raise `ValueError` when called.

    Its class is what is changed: a call costs nothing more while the library is open.  The
    address in it is changed, too, for C code that is given the object as a pointer.
    """
    set_address(function, <uintptr_t><void *>DLOPEN_closed_function)
    function.__class__ = closed_class
    return 0


cdef bint is_data(uint32_t type_of_symbol) noexcept:
    """Called by mistake only; not NOTYPE, which assembler sources leave."""
    return type_of_symbol in (STT_OBJECT, STT_COMMON, STT_TLS)


cpdef tuple asked(path, mode):
    """What an open is asked for: name for the core, path as text, flags; tells audit hooks."""
    cdef uint32_t flags = <uint32_t>flags_of(mode)
    name = None if path is None else encode_name(path)
    if not flags & (LAZY | NOW):
        flags |= NOW
    if type(path) is str:
        text = path
    else:
        text = "" if path is None else decoded(<bytes>name)
    audit("dlopen.open", text, flags)
    return name, text, flags


cdef class Opened:
    """What is open, and the functions that it has handed out."""
    cdef public object _image           # its address; None: closed
    cdef public object _path
    cdef public bint _warns
    cdef public object _own_lock        # None: nobody has needed one
    cdef public object _last_error      # see `close`
    cdef public object _type            # the class of its functions
    cdef public dict _functions         # attributes and items
    cdef public set _given              # weak references to what `function` made; None: nothing
    cdef public object _left            # the image that was closed, if something holds it
    cdef public bint _has_ending        # whether `_end` is to be called
    # What `_open` finds, where `Library` is not called as such.
    cdef public object _given_data      # the content of the file

    def __cinit__(self):
        self._path = ""
        self._functions = {}

    def _open(
        self, path, mode, usual, uint32_t flags=0, list replacements=None, files=None,
        int64_t place=0
    ):
        """Be what `open` gives; `usual` is the class of the functions."""
        cdef uint32_t modes
        name, text, modes = asked(path, mode)
        data, self._given_data = self._given_data, None     # which the caller may want to free
        try:
            image = load(
                name, data, modes, flags, replacements, files, place, 0, True, False)
        except BaseException as error:
            log_refused(text, error)
            raise
        # Of a namespace's, the namespace warns.
        adopt(self, image, text, usual, place == 0 and (
            data is not None or files is not None or modes & DLOPEN_PRIVATE != 0))

    def _adopt(self, image, path, usual, bint warns):
        adopt(self, image, path, usual, warns)

    def _guard_by(self, lock):
        """Its lock: this one, if it has none."""
        if self._own_lock is None:
            self._own_lock = lock
        return self._own_lock

    def _open_image(self):
        """Its address; raises `ValueError` when it is closed."""
        return image_of(self)

    def _give(self, function):
        """It turns off with the library, though nobody finds it here."""
        if self._given is None:
            self._given = set()
        self._given.add(ref(function, self._given.discard))

    def __getitem__(self, name):
        function = self._functions.get(name)
        if function is None:
            image = self._image
            function = self._functions.setdefault(name, make_function(self, name))
            if self._image is not image:
                self._changed_meanwhile(function)
        return function

    def _attribute(self, name):
        """What `Library.__getattr__` is. With that name here, each attribute that a `Library` has
        would be asked for through two wrappers."""
        if (<str>name).startswith("__") and (<str>name).endswith("__"):
            raise AttributeError(name)
        function = self[name]
        PyObject_GenericSetAttr(self, name, function)
        if self._image is None:         # closed by another thread, which may not have found it here
            PyObject_GenericGetDict(self, NULL).pop(name, None)
        return function

    def _make(self, name):
        return make_function(self, name)

    def _forget(self):
        forget(self)

    def close(self):
        """Give it up; further calls do nothing.

        What can be unloaded is unloaded before this returns: destructors run, in this thread.
        No other thread may be inside one of its functions; see dlclose(3).
        """
        if self._last_error is not None:
            self._list_exports()
        if self._own_lock is None:
            image, self._image = self._image, None
        else:
            with self._own_lock:
                image, self._image = self._image, None
        if image is None:
            return
        # Without the lock: a destructor may come back here.
        forget(self)
        if close(<uintptr_t>image):
            self._left = image          # else it is gone, and another may take its address
        if self._has_ending:
            self._end()
        if after_close:
            was_closed()
        if "logging" in modules:        # as `log` does, for which this is made
            log("dlopen.library", "closed %r", self)


cdef int adopt(Opened self, object image, object path, object usual, bint warns) except -1:
    self._image = image
    self._path = path
    self._type = usual
    self._warns = warns
    if "logging" in modules:            # as `log` does, for which this is made
        log("dlopen.library", "opened %r", self)
    return 0


cdef object image_of(Opened self):
    image = self._image
    if image is None:
        raise ValueError(one_line(f"{self._path or 'the program'} is closed"))
    return image


cdef object make_function(Opened self, object name):
    """A new function object of "name" or "name@VERSION"."""
    cdef PublicSymbol found
    audit("dlopen.symbol", self._path, name)
    image = image_of(self)
    text, version = split_key(name)
    if not find_address(image, text, version, False, &found):
        raise self._undefined(name)
    if found.address == 0:
        raise self._undefined(name, True)
    function = self._type(found.address)
    if is_data(found.type):
        function.__class__ = data_class
    function.__name__ = name
    function._library = self
    return function


cdef int forget(Opened self) except -1:
    """Turn off what was handed out; again does no harm."""
    if self._given:
        for reference in self._given.copy():    # those that go meanwhile leave it
            function = reference()
            if function is not None:
                turn_off(function)
        self._given.clear()
    if self._functions:
        own = <dict>PyObject_GenericGetDict(self, NULL)
        for name, function in list(self._functions.items()):
            turn_off(function)
            own.pop(name, None)
        self._functions.clear()
    return 0
