"""The environment that the process was started with (environ(7)), as far as it concerns a
loader: later changes do not count, as for ld.so(8).

Programs change theirs, and many write a title over its strings (setproctitle, `$0 =` of perl);
so what counts is copied by whichever is first, the constructor or a call before it. Read is what
the kernel has put at the top of the stack (execve(2)): the strings of argv, those of the
environment, the program's path. What the constructors of other libraries have set or unset by
then does not count, either. /proc/self/environ is the same memory, and an open(2).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.strings cimport strlen, strncmp


cdef extern from "<unistd.h>" nogil:
    char** process_environment "environ"


cdef extern from *:
    """
    /* The names that concern us, as numbers in the code: who looks for them in each process that
       starts shall not touch the page of constants. */
    #define DLOPEN_WORD(a, b, c, d, e, f, g, h) ( \
        (uint64_t)(a) | (uint64_t)(b) << 8 | (uint64_t)(c) << 16 | (uint64_t)(d) << 24 | \
        (uint64_t)(e) << 32 | (uint64_t)(f) << 40 | (uint64_t)(g) << 48 | (uint64_t)(h) << 56)
    """
    enum:
        DLOPEN_ "DLOPEN_WORD('D', 'L', 'O', 'P', 'E', 'N', '_', 0)"
        LD_LIBRA "DLOPEN_WORD('L', 'D', '_', 'L', 'I', 'B', 'R', 'A')"
        RY_PATH_IS "DLOPEN_WORD('R', 'Y', '_', 'P', 'A', 'T', 'H', '=')"
        LD_BIND_ "DLOPEN_WORD('L', 'D', '_', 'B', 'I', 'N', 'D', '_')"
        NOW_IS "DLOPEN_WORD('N', 'O', 'W', '=', 0, 0, 0, 0)"
        NOT_IS "DLOPEN_WORD('N', 'O', 'T', '=', 0, 0, 0, 0)"
        XDG_RUNT "DLOPEN_WORD('X', 'D', 'G', '_', 'R', 'U', 'N', 'T')"
        IME_DIR_IS "DLOPEN_WORD('I', 'M', 'E', '_', 'D', 'I', 'R', '=')"


cdef extern from "<sys/auxv.h>" nogil:
    unsigned long getauxval(unsigned long kind)
    enum:
        AT_EXECFN


cdef struct Environment:         # of the start; written once, with the lock or alone
    const char* data             # `length` bytes, strings one after another: NAME=VALUE
    size_t length
    bint is_complete             # it was read: there may be nothing in it
    bint is_of_start             # False: of later, since something else was where it stood


cdef inline bint begins(const char* text, uint64_t word) noexcept nogil:
    """With the characters of the word, the lowest byte's first."""
    while word != 0:
        if <uint8_t>text[0] != (word & 0xffU):
            return False
        text += 1
        word >>= 8
    return True


cdef inline size_t counted_length(const char* entry) noexcept nogil:
    """With its NUL, of a variable that concerns us; 0 of another."""
    if begins(entry, DLOPEN_) or begins(entry, LD_LIBRA) and begins(entry + 8, RY_PATH_IS) \
            or begins(entry, LD_BIND_) and (
                begins(entry + 8, NOW_IS) or begins(entry + 8, NOT_IS)
            ) or begins(entry, XDG_RUNT) and begins(entry + 8, IME_DIR_IS):
        return strlen(entry) + 1
    return 0


cdef inline size_t keep_entry(
    const char* entry, char* buffer, size_t size, size_t kept
) noexcept nogil:
    """How much is kept with it."""
    cdef size_t length = counted_length(entry)
    if length != 0 and kept + length <= size:
        memcpy(buffer + kept, entry, length)
    return kept + length


cdef inline const char* first_string(int argc, char** argv, const char* end) noexcept nogil:
    """Where the environment's strings begin: behind the last of argv's. NULL if argv does not say,
    which may be another array by now, and have strings of its own."""
    cdef const char* last = NULL
    cdef int i
    for i in range(argc if argv != NULL else 0):
        if argv[i] != NULL and <const char*>&argv[argc] < argv[i] < end and argv[i] > last:
            last = argv[i]
    return last + strlen(last) + 1 if last != NULL else NULL


cdef inline const char* end_of_string(const char* text, const char* end) noexcept nogil:
    """Its NUL, which is before `end`; eight bytes at a time."""
    cdef uint64_t word
    while text + sizeof(word) <= end:
        memcpy(&word, text, sizeof(word))
        if (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL:
            break
        text += sizeof(word)
    return text + strlen(text)


cdef inline bint keep_strings(
    int argc, char** argv, char* buffer, size_t size, size_t* kept
) noexcept nogil:
    """False where something else is in their place: a title (an environment has an equals sign in
    each string), or a loader that was started as a command, whose last string is no path."""
    cdef const char* end = <const char*>getauxval(AT_EXECFN)
    cdef const char* first = first_string(argc, argv, end)
    cdef const char* entry = first
    cdef const char* text
    kept[0] = 0
    while entry != NULL and entry < end:
        kept[0] = keep_entry(entry, buffer, size, kept[0])
        text = entry
        while text[0] != 0x3d and text[0] != 0:
            text += 1
        if text[0] == 0:
            return False
        entry = end_of_string(text, end) + 1
    # An empty one may also be a title that ends just there.
    return entry == end and entry != first


cdef inline size_t keep_environment(
    int argc, char** argv, char** envp, char* buffer, size_t size, bint* is_of_start
) noexcept nogil:
    """Copies what concerns us, if there is room for it: returns how much it is. The arguments are
    those of a constructor; `envp` is read where the strings of the start are not there."""
    cdef size_t kept = 0
    is_of_start[0] = keep_strings(argc, argv, buffer, size, &kept)
    if is_of_start[0]:
        return kept
    kept = 0
    while envp != NULL and envp[0] != NULL:
        kept = keep_entry(envp[0], buffer, size, kept)
        envp += 1
    return kept


cdef inline void read_environment(
    int argc, char** argv, char** envp, Environment* environment
) noexcept nogil:
    """In memory of its own. Without any it is not complete, and read another time."""
    cdef bint of_start = False
    cdef size_t length = keep_environment(argc, argv, envp, NULL, 0, &of_start)
    cdef char* data = <char*>allocate(length) if length != 0 else NULL
    if length != 0 and data == NULL:
        return
    # Another thread may change it meanwhile.
    if keep_environment(argc, argv, envp, data, length, &of_start) > length:
        release(data)
        return
    environment.data = data
    environment.length = length
    environment.is_of_start = of_start
    environment.is_complete = True


cdef inline const char* environment_value(
    const Environment* environment, const char* name
) noexcept nogil:
    """Of the last such variable, as glibc; `name` ends with its equals sign. NULL when it is
    not set, or empty."""
    cdef size_t length = strlen(name)
    cdef size_t i = 0
    cdef const char* value = NULL
    while i < environment.length:
        if strncmp(environment.data + i, name, length) == 0:
            value = environment.data + i + length
        i += strlen(environment.data + i) + 1
    return value if value != NULL and value[0] != 0 else NULL
