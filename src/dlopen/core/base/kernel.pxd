"""The kernel's interface, called directly.

Not through libc: its wrappers are replaced by preloaded tools (some of which call
dlsym while they start, and so us), and they write errno, which a lazy fixup must
preserve. Every function returns what the kernel returns: a negative errno on failure.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from dlopen.core.base.faults cimport fault_at
from dlopen.core.base.strings cimport in_place_of_control, is_control


cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/futex.h>
    #include <linux/prctl.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #ifndef MAP_FIXED_NOREPLACE
    #define MAP_FIXED_NOREPLACE 0x100000
    #endif
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23
    #endif
    #ifndef PR_SET_VMA
    #define PR_SET_VMA 0x53564d41
    #define PR_SET_VMA_ANON_NAME 0
    #endif
    /* defined in arch/<machine>.S */
    __attribute__((visibility("hidden")))
    long dlopen_system_call(long number, long a, long b, long c, long d, long e, long f);
    __attribute__((visibility("hidden")))
    void dlopen_code_written(uint64_t start, uint64_t size);
    /* What every function below calls: see base/faults.pxd. */
    static inline long dlopen_kernel_call(
        long number, long a, long b, long c, long d, long e, long f
    ) {
        long fault = dlopen_fault_at(number);
        return fault ? fault : dlopen_system_call(number, a, b, c, d, e, f);
    }
    #ifdef DLOPEN_SANITIZE_THREAD
    /* ThreadSanitizer forgets who touched an address when it sees that it is unmapped. */
    static long dlopen_map(
        uint64_t at, size_t size, int protection, int flags, int file, long from
    ) {
        void *result = mmap((void *)at, size, protection, flags, file, from);
        return result == MAP_FAILED ? -errno : (long)result;
    }
    #define dlopen_unmap(address, size) (munmap((void *)(address), size) ? -errno : 0)
    #else
    #define dlopen_map(at, size, protection, flags, file, from) dlopen_system_call( \
        SYS_mmap, (long)(at), (long)(size), protection, flags, file, (long)(from))
    #define dlopen_unmap(address, size) dlopen_system_call( \
        SYS_munmap, (long)(address), (long)(size), 0, 0, 0, 0)
    #endif
    /* Where a machine has not all of them, and where a filter lets pass only those that its
       author's libc used: fstat and newfstatat (as libc since 2.33), then statx. */
    #ifdef SYS_fstat
    #define dlopen_fstat(file, status) dlopen_kernel_call( \
        SYS_fstat, file, (long)(status), 0, 0, 0, 0)
    #else
    #define dlopen_fstat(file, status) (-ENOSYS)
    #endif
    #ifdef SYS_newfstatat
    #define dlopen_fstatat(file, path, status, flags) dlopen_kernel_call( \
        SYS_newfstatat, file, (long)(path), (long)(status), flags, 0, 0)
    #else
    #define dlopen_fstatat(file, path, status, flags) (-ENOSYS)
    #endif
    static long dlopen_statx(long file, const char *path, struct stat *status, long flags) {
        struct statx found;
        long result = dlopen_kernel_call(
            SYS_statx, file, (long)path, flags, STATX_BASIC_STATS, (long)&found, 0);
        if (result != 0) return result;
        /* The kernel's dev_t for user space (new_encode_dev). */
        status->st_dev = (found.stx_dev_minor & 0xff) | (uint64_t)found.stx_dev_major << 8
            | (uint64_t)(found.stx_dev_minor & ~0xffu) << 12;
        status->st_ino = found.stx_ino;
        status->st_mode = found.stx_mode;
        status->st_size = (int64_t)found.stx_size;
        status->st_mtim.tv_sec = found.stx_mtime.tv_sec;
        status->st_mtim.tv_nsec = found.stx_mtime.tv_nsec;
        return 0;
    }
    /* In nanoseconds. */
    #define dlopen_changed_at(status) \
        ((uint64_t)(status)->st_mtim.tv_sec * 1000000000U + (uint64_t)(status)->st_mtim.tv_nsec)
    """
    long dlopen_fstat(long descriptor, FileStatus* status) noexcept nogil
    long dlopen_fstatat(
        long descriptor, const char* path, FileStatus* status, long flags
    ) noexcept nogil
    long dlopen_statx(
        long descriptor, const char* path, FileStatus* status, long flags
    ) noexcept nogil
    long dlopen_map(
        uint64_t address, uint64_t size, int protection, int flags, long descriptor, uint64_t offset
    ) noexcept nogil
    long dlopen_unmap(uint64_t address, uint64_t size) noexcept nogil
    long dlopen_system_call "dlopen_kernel_call"(
        long number, long a, long b, long c, long d, long e, long f
    ) noexcept nogil
    enum:
        SYS_mmap, SYS_openat, SYS_close, SYS_pread64, SYS_read, SYS_write, SYS_writev
        SYS_mprotect, SYS_madvise, SYS_prctl, SYS_futex, SYS_sched_yield
        SYS_readlinkat, SYS_getcwd, SYS_memfd_create, SYS_getpid, SYS_gettid, SYS_tgkill
        SYS_exit_group, SYS_fcntl, SYS_unlinkat
        AT_FDCWD, O_RDONLY, O_WRONLY, O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_CLOEXEC
        MFD_CLOEXEC, F_DUPFD_CLOEXEC
        FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE
        PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC
        MAP_PRIVATE, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_ANONYMOUS, MAP_POPULATE, MAP_NORESERVE
        MADV_HUGEPAGE, MADV_POPULATE_WRITE
        PR_SET_VMA, PR_SET_VMA_ANON_NAME
        EINTR, ENOENT, ENOTDIR, ENOMEM, EINVAL, EISDIR, EPERM, ESRCH, EMFILE, ENFILE, EIO, ENOSYS
        EACCES, EEXIST, ENODEV, ERANGE, AT_EMPTY_PATH
    void dlopen_code_written(uint64_t start, uint64_t size) noexcept nogil
    cdef struct FileStatus "stat":
        uint64_t st_dev
        uint64_t st_ino
        uint32_t st_mode
        int64_t st_size
    uint64_t changed_at "dlopen_changed_at"(const FileStatus* status) noexcept nogil
    bint is_directory "S_ISDIR"(uint32_t mode) noexcept nogil
    bint is_regular "S_ISREG"(uint32_t mode) noexcept nogil


cdef inline bint is_shortage(long result) noexcept nogil:
    """A failure that says nothing of what was asked for: there was no memory or no descriptor for
    the question, or the disk did not answer. Not to be remembered."""
    return result == -ENOMEM or result == -EMFILE or result == -ENFILE or result == -EIO


cdef inline long kernel_open(const char* path) noexcept nogil:
    cdef long result
    while True:
        result = dlopen_system_call(
            SYS_openat, AT_FDCWD, <long>path, O_RDONLY | O_CLOEXEC, 0, 0, 0
        )
        if result != -EINTR:
            return result


cdef inline void kernel_close(long descriptor) noexcept nogil:
    dlopen_system_call(SYS_close, descriptor, 0, 0, 0, 0, 0)


cdef inline long kernel_open_for_appending(const char* path) noexcept nogil:
    """Made if it is not there, for its owner alone. Never standard input, output or error: a
    program that closed these may be about to open its own."""
    cdef long result
    cdef long moved
    while True:
        result = dlopen_system_call(
            SYS_openat, AT_FDCWD, <long>path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600, 0, 0
        )
        if result != -EINTR:
            break
    if 0 <= result <= 2:
        moved = dlopen_system_call(SYS_fcntl, result, F_DUPFD_CLOEXEC, 3, 0, 0, 0)
        kernel_close(result)
        return moved
    return result


cdef inline long kernel_create(const char* path) noexcept nogil:
    """A new file, for its owner alone, to be written; -EEXIST if there is one, or a link."""
    cdef long result
    while True:
        result = dlopen_system_call(
            SYS_openat, AT_FDCWD, <long>path,
            O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600, 0, 0
        )
        if result != -EINTR:
            return result


cdef inline void kernel_unlink(const char* path) noexcept nogil:
    dlopen_system_call(SYS_unlinkat, AT_FDCWD, <long>path, 0, 0, 0, 0)


cdef inline long kernel_read_at(
    long descriptor, void* buffer, size_t size, uint64_t offset
) noexcept nogil:
    """Reads until `size` or the end of the file; the number of bytes."""
    cdef size_t done = 0
    cdef long result
    while done < size:
        result = dlopen_system_call(
            SYS_pread64, descriptor, <long>(<char*>buffer + done), <long>(size - done),
            <long>(offset + done), 0, 0
        )
        if result == -EINTR:
            continue
        if result < 0:
            return result
        if result == 0:
            break
        done += <size_t>result
    return <long>done


cdef inline long kernel_read(long descriptor, void* buffer, size_t size) noexcept nogil:
    cdef long result
    while True:
        result = dlopen_system_call(SYS_read, descriptor, <long>buffer, <long>size, 0, 0, 0)
        if result != -EINTR:
            return result


cdef inline long kernel_write(long descriptor, const void* buffer, size_t size) noexcept nogil:
    """All of it: 0, or a negative errno."""
    cdef size_t done = 0
    cdef long result
    while done < size:
        result = dlopen_system_call(
            SYS_write, descriptor, <long>(<const char*>buffer + done), <long>(size - done), 0, 0, 0
        )
        if result < 0 and result != -EINTR:
            return result
        if result > 0:
            done += <size_t>result
    return 0


cdef inline long kernel_memory_file(const char* name) noexcept nogil:
    """An empty file without a place in a file system: memfd_create(2)."""
    return dlopen_system_call(SYS_memfd_create, <long>name, MFD_CLOEXEC, 0, 0, 0, 0)


cdef inline bint is_filtered(long result) noexcept nogil:
    """The kernel, or a filter (seccomp(2)), knows no such call. A question for a file's status has
    no other reason for these."""
    return result == -ENOSYS or result == -EPERM


cdef inline long kernel_status_of(long descriptor, FileStatus* status) noexcept nogil:
    """fstat(2), or what a sandbox allows of its relatives."""
    cdef long result = dlopen_fstat(descriptor, status)
    if is_filtered(result):
        result = dlopen_fstatat(descriptor, b"", status, AT_EMPTY_PATH)
    return dlopen_statx(descriptor, b"", status, AT_EMPTY_PATH) if is_filtered(result) else result


cdef inline long kernel_status(const char* path, FileStatus* status) noexcept nogil:
    """stat(2), or what a sandbox allows of its relatives."""
    cdef long result = dlopen_fstatat(AT_FDCWD, path, status, 0)
    return dlopen_statx(AT_FDCWD, path, status, 0) if is_filtered(result) else result


cdef struct IoVector:            # struct iovec of <sys/uio.h>
    const void* start
    size_t size


cdef enum:
    MOST_VECTORS = 8


cdef inline void kernel_write_line(
    long descriptor, const char** texts, size_t count
) noexcept nogil:
    """These texts as one line, at once as far as the kernel takes it so: names that hold control
    characters, shown as `printable` shows them, may need several calls."""
    cdef IoVector vectors[MOST_VECTORS]
    cdef size_t used = 0, size, i
    cdef const char* text
    for i in range(count + 1):
        text = texts[i] if i < count else <const char*>b"\n"
        while text[0] != 0:
            if used == MOST_VECTORS:
                dlopen_system_call(SYS_writev, descriptor, <long>&vectors[0], MOST_VECTORS, 0, 0, 0)
                used = 0
            size = 0
            while i == count and size == 0 or text[size] != 0 and not is_control(text[size]):
                size += 1
            vectors[used].start = text if size != 0 else in_place_of_control()
            vectors[used].size = size if size != 0 else 1
            text += vectors[used].size
            used += 1
    dlopen_system_call(SYS_writev, descriptor, <long>&vectors[0], <long>used, 0, 0, 0)


cdef inline long kernel_read_link(const char* path, char* buffer, size_t size) noexcept nogil:
    """readlink(2): no NUL is written; a link that is longer is cut."""
    return dlopen_system_call(
        SYS_readlinkat, AT_FDCWD, <long>path, <long>buffer, <long>size, 0, 0
    )


cdef inline long kernel_working_directory(char* buffer, size_t size) noexcept nogil:
    """The length with its NUL."""
    return dlopen_system_call(SYS_getcwd, <long>buffer, <long>size, 0, 0, 0, 0)


cdef inline long kernel_map(
    uint64_t address, uint64_t size, int protection, int flags, long descriptor, uint64_t offset
) noexcept nogil:
    """mmap(2), as a number that may be an errno."""
    cdef long fault = fault_at(SYS_mmap)
    return fault if fault else dlopen_map(address, size, protection, flags, descriptor, offset)


cdef inline long kernel_unmap(uint64_t address, uint64_t size) noexcept nogil:
    return dlopen_unmap(address, size)


cdef inline long kernel_protect(uint64_t address, uint64_t size, int protection) noexcept nogil:
    return dlopen_system_call(SYS_mprotect, <long>address, <long>size, protection, 0, 0, 0)


cdef inline void code_written(uint64_t start, uint64_t size) noexcept nogil:
    """Bytes that will be executed, and can still be read. Where code is not fetched from where data
    is stored, a processor may have kept what was there: the kernel sees to that once, for a page
    that it has just made, and not where one that was executed is written and executed again (a
    slot of the arena). Another processor has come by an entry of the kernel since it executed
    what was there, or it would be no safer after munmap(2) and mmap(2) at the same address."""
    dlopen_code_written(start, size)


cdef inline void kernel_advise(uint64_t address, uint64_t size, int advice) noexcept nogil:
    """madvise(2), of what changes nothing but the price: a kernel may not know it."""
    dlopen_system_call(SYS_madvise, <long>address, <long>size, advice, 0, 0, 0)


cdef inline void kernel_name_memory(
    uint64_t address, uint64_t size, const char* name
) noexcept nogil:
    """Zeroes that were mapped are shown in /proc/PID/maps as [anon:NAME], where the kernel can. Up
    to 79 printable characters, without `[`, `]`, `\\`, `$` and the backquote."""
    dlopen_system_call(
        SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, <long>address, <long>size, <long>name, 0
    )


cdef inline uint32_t kernel_process_id() noexcept nogil:
    return <uint32_t>dlopen_system_call(SYS_getpid, 0, 0, 0, 0, 0, 0)


cdef inline uint32_t kernel_thread_id() noexcept nogil:
    return <uint32_t>dlopen_system_call(SYS_gettid, 0, 0, 0, 0, 0, 0)


cdef inline bint kernel_in_main_thread() noexcept nogil:
    return kernel_thread_id() == kernel_process_id()


cdef inline bint kernel_thread_has_ended(uint32_t process, uint32_t thread) noexcept nogil:
    """False while its id is another's, or if the kernel does not say."""
    return dlopen_system_call(SYS_tgkill, process, thread, 0, 0, 0, 0) == -ESRCH


cdef inline void kernel_end_process(int status) noexcept nogil:
    """At once: no handler, no destructor."""
    dlopen_system_call(SYS_exit_group, status, 0, 0, 0, 0, 0)


cdef inline void kernel_yield() noexcept nogil:
    dlopen_system_call(SYS_sched_yield, 0, 0, 0, 0, 0, 0)


cdef inline void kernel_wait(uint32_t* word, uint32_t expected) noexcept nogil:
    """Sleeps while *word is `expected`; may wake for no reason."""
    dlopen_system_call(
        SYS_futex, <long>word, FUTEX_WAIT_PRIVATE, <long>expected, 0, 0, 0
    )


cdef extern from *:
    """
    /* struct timespec; not on the stack, which an open has little of. */
    static const long dlopen_millisecond[] = {0, 1000000};
    static const long dlopen_ten_milliseconds[] = {0, 10000000};
    """
    const long* MILLISECOND "dlopen_millisecond"
    const long* TEN_MILLISECONDS "dlopen_ten_milliseconds"


cdef inline void kernel_wait_shortly(
    uint32_t* word, uint32_t expected, const long* time
) noexcept nogil:
    """As `kernel_wait`, for so long at most."""
    dlopen_system_call(
        SYS_futex, <long>word, FUTEX_WAIT_PRIVATE, <long>expected, <long>time, 0, 0
    )


cdef inline void kernel_wake(uint32_t* word, int count) noexcept nogil:
    dlopen_system_call(SYS_futex, <long>word, FUTEX_WAKE_PRIVATE, count, 0, 0, 0)


cdef enum:
    DESCRIPTORS_SIZE = 40


cdef inline const char* kernel_program_link() noexcept nogil:
    """The symbolic link to the program's file."""
    return b"/proc/self/exe"


cdef inline size_t kernel_descriptors_folder(char* path) noexcept nogil:
    """/proc/PID/fd/, in DESCRIPTORS_SIZE bytes; its length. Not /proc/self, since a debugger
    that reads the name would look into its own; the number is the one that /proc has."""
    cdef char process[24]
    cdef long length = kernel_read_link(b"/proc/self", &process[0], sizeof(process))
    if length <= 0:
        length = 4
        memcpy(&process[0], b"self", 4)
    memcpy(path, b"/proc/", 6)
    memcpy(path + 6, &process[0], <size_t>length)
    memcpy(path + 6 + length, b"/fd/", 5)
    return <size_t>length + 10
