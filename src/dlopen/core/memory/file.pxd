# cython: cdivision=True
"""Where an image's content comes from: an open file, or the caller's bytes."""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from dlopen.core.base.contract cimport DLOPEN_E_OPEN, DLOPEN_E_READ, Error
from dlopen.core.base.errors cimport fail_system
from dlopen.core.base.kernel cimport (
    EISDIR, FileStatus, is_directory, kernel_close, kernel_open, kernel_read_at, kernel_read_link,
    kernel_status_of,
)


cdef enum:
    DESCRIPTORS_SIZE = 40
    FILE_START = 1024            # the ELF header and 17 program headers: one read as a rule


cdef struct File:
    long descriptor              # -1: from bytes, or not open
    const char* bytes
    uint64_t size
    uint64_t device, inode       # 0, 0 for bytes
    uint64_t start_size
    char start[FILE_START]       # the first start_size bytes


cdef inline void file_from_bytes(File* file, const void* bytes, uint64_t size) noexcept nogil:
    file.descriptor = -1
    file.bytes = <const char*>bytes
    file.size = size
    file.device = 0
    file.inode = 0
    file.start_size = 0


cdef inline void file_read_start(File* file) noexcept nogil:
    """What cannot be read now is asked for again, and reported, when it is needed."""
    cdef long count = kernel_read_at(file.descriptor, &file.start[0], FILE_START, 0)
    file.start_size = <uint64_t>count if count > 0 else 0


cdef inline int file_open(File* file, const char* path, Error* error) noexcept nogil:
    """Opens it, unless the search that found it has (file.descriptor is not -1 then)."""
    cdef FileStatus status
    cdef long result
    file.bytes = NULL
    if file.descriptor < 0:
        result = kernel_open(path)
        if result < 0:
            return fail_system(
                error, DLOPEN_E_OPEN, path, b"cannot open shared object file", result
            )
        file.descriptor = result
        file_read_start(file)
    result = kernel_status_of(file.descriptor, &status)
    if result == 0 and is_directory(status.st_mode):
        result = -EISDIR
    if result < 0:
        file_close(file)
        return fail_system(error, DLOPEN_E_READ, path, b"cannot read file data", result)
    file.size = <uint64_t>status.st_size
    file.device = status.st_dev
    file.inode = status.st_ino
    return 0


cdef inline void file_close(File* file) noexcept nogil:
    if file.descriptor >= 0:
        kernel_close(file.descriptor)
        file.descriptor = -1


cdef inline int file_read(
    const File* file, void* buffer, size_t size, uint64_t offset, const char* name, Error* error
) noexcept nogil:
    """All of it; the range was checked against file.size."""
    cdef long result
    if file.descriptor < 0:
        memcpy(buffer, file.bytes + offset, size)
        return 0
    if offset <= file.start_size and size <= file.start_size - offset:
        memcpy(buffer, &file.start[0] + offset, size)
        return 0
    result = kernel_read_at(file.descriptor, buffer, size, offset)
    if result < 0:
        return fail_system(error, DLOPEN_E_READ, name, b"cannot read file data", result)
    if <size_t>result < size:
        return fail_system(error, DLOPEN_E_READ, name, b"file too short: it shrank", 0)
    return 0


cdef inline size_t descriptors_folder(char* path) noexcept nogil:
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
