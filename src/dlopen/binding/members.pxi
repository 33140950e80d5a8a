# Content that Python gives: the caller's own files, and members of archives.
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memset

from dlopen.core.base.contract cimport (
    DLOPEN_E_STOPPED, DLOPEN_MEMBER_MAPPED_ONLY, DLOPEN_set_archives, Member,
)

MAPPED_ONLY = DLOPEN_MEMBER_MAPPED_ONLY

# Owned: who is asked for paths that lead through a file; NULL: nobody.  Whether to ask is looked at
# without the GIL, which cannot be had any more when the interpreter has begun to end.
cdef PyObject *archives = NULL
cdef bint are_asked = False             # the core knows of it
# By thread, of those in an open from Python: what the function has raised in it, or None.
cdef dict problems = {}


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


cdef class Answer:
    """A member of an archive, and what it points to, held as long as this object lives."""
    cdef Member member
    cdef bytes archive, path
    cdef Content content

    def __cinit__(self, found):
        """Of (path of the archive or None, descriptor, offset, length, content or None, flags, and
        perhaps the path that the image goes by)."""
        memset(&self.member, 0, sizeof(self.member))
        self.member.size = sizeof(self.member)
        archive, descriptor, offset, length, data, flags, *path = found
        self.member.descriptor = descriptor
        self.member.offset = offset
        self.member.length = length
        self.member.flags = flags
        if archive is not None:
            self.archive = encode_name(archive)
            self.member.archive = self.archive
        if path:
            self.path = encode_name(path[0])
            self.member.path = self.path
        if data is not None:
            self.content = Content(data)
            self.member.bytes = self.content.address()
            self.member.bytes_size = <size_t>self.content.view.len

    cdef void fill(self, Member *member) noexcept:
        member[0] = self.member


cdef object given_file(list state, const char *path):
    """What the caller's function has for a path: a `Content`, an `Answer` or None.  It is asked
    once: an open that is tried again sees the same files."""
    cdef dict known = state[2]          # beside the function, and an exception that it has raised
    name = decoded(path)
    if name not in known:
        found = state[0](name)
        if type(found) is tuple:
            known[name] = Answer(found)
        else:
            known[name] = None if found is None else Content(found)
    return known[name]


cdef int ask_for_file(
    const char *path, const void **bytes, size_t *size, void *data
) noexcept with gil:
    """An exception ends the search, and is raised when that has been undone."""
    cdef list state = <list>data
    try:
        given = given_file(state, path)
        if type(given) is Content:
            bytes[0] = (<Content>given).address()
            size[0] = <size_t>(<Content>given).view.len
    except BaseException as problem:
        state[1] = problem
        return 1
    return 0


cdef int ask_for_member(const char *path, Member *member, void *data) noexcept with gil:
    """As `ask_for_file`, which is asked next."""
    cdef list state = <list>data
    try:
        given = given_file(state, path)
        if type(given) is not Answer:
            return 1
        (<Answer>given).fill(member)
    except BaseException as problem:
        state[1] = problem
        return 2
    return 0


cdef void forget_answer(void *answer) noexcept with gil:
    Py_DECREF(<object>answer)


cdef int ask_for_archives(const char *path, Member *member) noexcept with gil:
    cdef object answer
    cdef int result = 0
    if archives == NULL:
        return 1
    try:
        found = (<object>archives)(decoded(path))
        if found is None:
            return 1
        answer = Answer(found)
        (<Answer>answer).fill(member)
    except BaseException as problem:
        thread = PyThread_get_thread_ident()
        if thread in problems:
            problems[thread] = problem
        text = f"{type(problem).__name__}: {problem}".replace("\0", "?")
        answer = text.encode("utf-8", "backslashreplace")
        member.reason = <bytes>answer
        result = 2
    Py_INCREF(answer)
    member.done = forget_answer
    member.done_data = <void *>answer
    return result


cdef int ask_archives(const char *path, Member *member, void *data) noexcept nogil:
    return ask_for_archives(path, member) if archives != NULL and Py_IsInitialized() else 1


def set_archives(function):
    """Have it asked for each path that leads through a file; None: nobody.

    It is called with the path, absolute and plain, and returns None or (path of the archive,
    descriptor, offset, length, content or None, flags): the content if the archive has it
    compressed; flags of `MAPPED_ONLY`; and, if it is another one, the path that the image goes by.
    The descriptor stays open until the open that asked has
    ended.  What it raises comes out of that open, if that came from Python.
    """
    global archives, are_asked
    cdef PyObject *former = archives
    if function is not None and not are_asked:
        # For good: to take it away is to wait, perhaps for who waits for this thread.
        DLOPEN_set_archives(ask_archives, NULL)
        are_asked = True
    if function is None:
        archives = NULL
    else:
        Py_INCREF(function)
        archives = <PyObject *>function
    Py_XDECREF(former)


def located(path):
    """What who was set by `set_archives` says of a path."""
    return None if archives == NULL else (<object>archives)(path)


cdef object begin_asking():
    """Before an open: for `end_asking`."""
    if archives == NULL:
        return None
    thread = PyThread_get_thread_ident()
    before = (thread, thread in problems, problems.get(thread))
    problems[thread] = None
    return before


cdef int end_asking(object before, int code) except -1:
    """Raises what the function has raised, if that has ended the open."""
    if before is None:
        return 0
    thread, was_inside, former = before
    problem = problems.pop(thread, None)
    if was_inside:
        problems[thread] = former
    if problem is not None and code == DLOPEN_E_STOPPED:
        raise problem
    return 0
