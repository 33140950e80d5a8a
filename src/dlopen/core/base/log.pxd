"""The log: DLOPEN_LOG=error|warn|info|debug|trace, to standard error or DLOPEN_LOG_FILE.

A line is put together on the stack and written with one write(2): no lock, no allocation,
and nothing of libc but what reads and copies memory. So a line may be written with locks
held, while an exception unwinds and after fork, and lines of threads do not mix. While the
log is off, it costs a look at one word.

A program may close descriptors that it does not know of and open its own under their
numbers. Therefore each line is written only after fstat(2) has found that the descriptor
still is of the file (device and inode) that it was of when the log took it. The file is
opened anew if not, and the number left alone, which is the program's now; standard error
as the process was started with cannot be had back, and gets no further line. Only a thread
that replaces the descriptor between those two calls could still be hit.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from dlopen.core.base.atomics cimport compare_and_swap_u32, load_u32, load_u64, store_u64
from dlopen.core.base.contract cimport (
    DLOPEN_E_NOT_FOUND, DLOPEN_E_NOT_LOADED, DLOPEN_E_RELOCATION, DLOPEN_REJECTED_FILES,
    DLOPEN_REJECTED_HOSTS, DLOPEN_REJECTED_MACHINE, Error,
)
from dlopen.core.base.environment cimport Environment, environment_value
from dlopen.core.base.kernel cimport (
    FileStatus, kernel_close, kernel_open_for_appending, kernel_process_id, kernel_status_of,
    kernel_working_directory, kernel_write,
)
from dlopen.core.base.strings cimport printable, strcmp, strlen


cdef enum:                       # 0: off
    LOG_ERROR = 1                # an open that failed
    LOG_WARN = 2                 # what is odd, and tolerated as glibc tolerates it
    LOG_INFO = 3                 # opened, loaded, closed, unloaded
    LOG_DEBUG = 4                # search, scopes, versions, constructors and destructors
    LOG_TRACE = 5                # each binding
    STANDARD_ERROR = 2


cdef extern from *:
    """
    /* File-scope: the hooks are in every layer, and few of them are handed the linker. */
    struct dlopen_log {
        uint32_t level;          /* set before the linker is usable, never changed */
        uint32_t descriptor;     /* atomic: one more than it; 0: none yet */
        uint32_t complained;     /* atomic: the file cannot be opened, which was said */
        uint64_t device, inode;  /* atomic: of the descriptor */
        uint64_t error_device, error_inode;      /* of standard error at the start */
        char path[4096];         /* absolute; "": standard error */
    };
    static struct dlopen_log dlopen_the_log;
    #define dlopen_logs(wanted) __builtin_expect(dlopen_the_log.level >= (uint32_t)(wanted), 0)
    """
    cdef struct Log "struct dlopen_log":
        uint32_t level
        uint32_t descriptor
        uint32_t complained
        uint64_t device, inode
        uint64_t error_device, error_inode
        char path[4096]
    Log the_log "dlopen_the_log"
    bint logs "dlopen_logs"(int level) noexcept nogil


cdef extern from "<string.h>" nogil:
    const char* strerrordesc_np(int number)


cdef struct Line:
    size_t length
    char text[4096]              # PIPE_BUF: up to here a pipe takes a write whole


cdef inline const char* level_name(uint32_t level) noexcept nogil:
    if level == LOG_ERROR:
        return b"error"
    if level == LOG_WARN:
        return b"warn"
    if level == LOG_INFO:
        return b"info"
    if level == LOG_DEBUG:
        return b"debug"
    return b"trace"


# A line ---------------------------------------------------------------------------


cdef inline void add(Line* line, const char* text) noexcept nogil:
    """What is too long is cut; two bytes stay for the mark of that and the line's end."""
    cdef size_t i = 0
    if text == NULL:
        return
    while text[i] != 0 and line.length < sizeof(line.text) - 2:
        line.text[line.length] = printable(text[i])
        line.length += 1
        i += 1
    if text[i] != 0:
        line.text[line.length] = 0x5c        # '\'
        line.length = sizeof(line.text) - 1


cdef inline void add_number(Line* line, uint64_t value, uint32_t base) noexcept nogil:
    """In decimal or hexadecimal digits."""
    cdef const char* names = b"0123456789abcdef"
    cdef char digits[24]
    cdef size_t start = sizeof(digits) - 1
    digits[start] = 0
    while True:
        start -= 1
        digits[start] = names[value % base]
        value = value // base
        if value == 0:
            break
    add(line, &digits[start])


cdef inline void add_address(Line* line, uint64_t address) noexcept nogil:
    add(line, b"0x")
    add_number(line, address, 16)


cdef inline void add_system_error(Line* line, int number) noexcept nogil:
    """As `reason` of the Python face has it."""
    if number == DLOPEN_REJECTED_MACHINE:
        add(line, b"for another machine or word size")
    elif number == DLOPEN_REJECTED_FILES:
        add(line, b"not in files")
    elif number == DLOPEN_REJECTED_HOSTS:
        add(line, b"it must be the host's own")
    elif number > 0:
        add(line, strerrordesc_np(number))


cdef inline void begin_line(Line* line, uint32_t level) noexcept nogil:
    """Who says it, and how bad it is."""
    line.length = 0
    add(line, b"dlopen[")
    add_number(line, <uint64_t>kernel_process_id(), 10)
    add(line, b"]: ")
    add(line, level_name(level))
    add(line, b": ")


cdef inline void end_line(Line* line) noexcept nogil:
    """Writes it, if there is a descriptor to write to."""
    cdef long descriptor = log_descriptor()
    line.text[line.length] = 0x0a
    # Nobody could be told that it failed.
    if descriptor >= 0:
        kernel_write(descriptor, &line.text[0], line.length + 1)


cdef inline void log_text(uint32_t level, const char* one, const char* other) noexcept nogil:
    """A whole line of two pieces. The caller has looked whether the level is on."""
    cdef Line line
    begin_line(&line, level)
    add(&line, one)
    add(&line, other)
    end_line(&line)


# Where it goes --------------------------------------------------------------------


cdef inline long standard_error() noexcept nogil:
    """Negative if it is not the one of the start any more."""
    cdef FileStatus status
    if kernel_status_of(STANDARD_ERROR, &status) == 0 and status.st_ino == the_log.error_inode \
            and status.st_dev == the_log.error_device:
        return STANDARD_ERROR
    return -1


cdef inline long log_descriptor() noexcept nogil:
    """Negative if there is none that is ours."""
    cdef FileStatus status
    cdef uint32_t known = load_u32(&the_log.descriptor)
    cdef long opened
    if the_log.path[0] == 0:
        return standard_error()
    if known != 0 and kernel_status_of(<long>known - 1, &status) == 0 \
            and status.st_ino == load_u64(&the_log.inode) \
            and status.st_dev == load_u64(&the_log.device):
        return <long>known - 1
    opened = kernel_open_for_appending(&the_log.path[0])
    if opened < 0:
        complain(opened)
        return -1
    if kernel_status_of(opened, &status) != 0:
        kernel_close(opened)
        return -1
    # Of two threads one is first: the file is the same.
    store_u64(&the_log.device, status.st_dev)
    store_u64(&the_log.inode, status.st_ino)
    if not compare_and_swap_u32(&the_log.descriptor, known, <uint32_t>opened + 1):
        kernel_close(opened)
        return <long>load_u32(&the_log.descriptor) - 1
    return opened


cdef inline void complain(long result) noexcept nogil:
    """Once, on standard error."""
    cdef Line line
    cdef long descriptor = standard_error()
    if descriptor < 0 or not compare_and_swap_u32(&the_log.complained, 0, 1):
        return
    begin_line(&line, LOG_ERROR)
    add(&line, b"DLOPEN_LOG_FILE: ")
    add(&line, &the_log.path[0])
    add(&line, b": ")
    add_system_error(&line, <int>-result)
    line.text[line.length] = 0x0a
    kernel_write(descriptor, &line.text[0], line.length + 1)


# The start ------------------------------------------------------------------------


cdef inline void set_log_path(const char* path) noexcept nogil:
    """Absolute: the program may change its folder. One that is too long is cut, and shows
    when it is opened."""
    cdef size_t length = strlen(path)
    cdef size_t used = 0
    cdef long folder
    if path[0] != 0x2f:
        folder = kernel_working_directory(&the_log.path[0], sizeof(the_log.path))
        if folder > 1:
            used = <size_t>folder
            the_log.path[used - 1] = 0x2f
    if length > sizeof(the_log.path) - 1 - used:
        length = sizeof(the_log.path) - 1 - used
    memcpy(&the_log.path[used], path, length)
    the_log.path[used + length] = 0


cdef inline void start_log(const Environment* environment) noexcept nogil:
    """Once; not in secure execution (ld.so(8)), where who starts the program must not choose
    a file that it writes."""
    cdef const char* wanted
    cdef const char* path
    cdef uint32_t level
    cdef FileStatus status
    wanted = environment_value(environment, b"DLOPEN_LOG=")
    if wanted == NULL:
        return
    if kernel_status_of(STANDARD_ERROR, &status) == 0:
        the_log.error_device = status.st_dev
        the_log.error_inode = status.st_ino
    path = environment_value(environment, b"DLOPEN_LOG_FILE=")
    if path != NULL:
        set_log_path(path)
    for level in range(LOG_ERROR, LOG_TRACE + 1):
        if strcmp(wanted, level_name(level)) == 0:
            the_log.level = level
            return
    log_text(LOG_WARN, b"DLOPEN_LOG is error, warn, info, debug or trace, and not ", wanted)


# Opens that failed ----------------------------------------------------------------


cdef inline void log_failure(const char* name, int code, const Error* error) noexcept nogil:
    """The reason, who needed it, what was searched. Who asks with RTLD_NOLOAD expects a no."""
    cdef uint32_t level = LOG_DEBUG if code == DLOPEN_E_NOT_LOADED else LOG_ERROR
    cdef Line line
    cdef const char* asked = b"(main program)"
    cdef const char* path
    cdef uint32_t i
    if not logs(level):
        return
    if name != NULL:
        asked = name
    begin_line(&line, level)
    add(&line, b"cannot open ")
    add(&line, asked)
    if error == NULL:
        add(&line, b": DLOPEN_E_ number ")
        add_number(&line, <uint64_t>code, 10)
        end_line(&line)
        return
    if error.library[0] != 0 and strcmp(asked, error.library) != 0:
        add(&line, b": ")
        add(&line, error.library)
    add(&line, b": ")
    add(&line, error.detail)
    if error.symbol[0] != 0:
        add(&line, b": ")
        add(&line, error.symbol)
    if error.version[0] != 0:
        add(&line, b": version ")
        add(&line, error.version)
    if error.errnum > 0:
        add(&line, b": ")
        add_system_error(&line, error.errnum)
    if code == DLOPEN_E_RELOCATION:
        add(&line, b" (place ")
        add_address(&line, error.offset)
        add(&line, b", value ")
        add_address(&line, error.value)
        add(&line, b")")
    if error.needed_by[0] != 0:
        add(&line, b" (needed by ")
        add(&line, error.needed_by)
        add(&line, b")")
    end_line(&line)
    path = error.searched
    for i in range(error.searched_count if code == DLOPEN_E_NOT_FOUND else 0):
        begin_line(&line, level)
        add(&line, b"cannot open ")
        add(&line, error.library)
        add(&line, b": searched ")
        add(&line, path)
        add(&line, b": ")
        add_system_error(&line, error.searched_errno[i])
        end_line(&line)
        path += strlen(path) + 1
