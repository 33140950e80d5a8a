"""Where an image's content comes from: an open file, or bytes, of the caller's or of a file that
the caller has.

The first bytes are read when it is opened: as a rule both headers are among them, and nothing else
of a file is read, but mapped.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from dlopen.core.base.contract cimport DLOPEN_E_OPEN, DLOPEN_E_READ, Error, ReadFile
from dlopen.core.base.details cimport DETAIL_CANNOT_OPEN, DETAIL_CANNOT_READ, DETAIL_SHRANK
from dlopen.core.base.errors cimport fail_system
from dlopen.core.base.kernel cimport (
    EISDIR, FileStatus, is_directory, kernel_close, kernel_open, kernel_read_at, kernel_status_of,
)


cdef enum:
    FILE_START = 1024            # the ELF header and 17 program headers: one read as a rule


cdef struct Files:               # the caller's own, asked for before the file system
    ReadFile* read               # NULL: there are none
    void* data
    bint stopped                 # it has ended the open
    bint of_any_machine          # not only of this process's


cdef struct File:
    long descriptor              # -1: from bytes, or not open
    const char* bytes            # NULL: not from bytes
    bint is_from_files           # they are what Files has
    uint64_t size
    uint64_t device, inode       # 0, 0 for bytes
    uint64_t start_size
    char start[FILE_START]       # the first start_size bytes


cdef inline void file_init(File* file) noexcept nogil:
    """Not open, of no size."""
    file.descriptor = -1
    file.bytes = NULL
    file.is_from_files = False
    file.size = 0
    file.device = 0
    file.inode = 0
    file.start_size = 0


cdef inline void file_from_bytes(File* file, const void* bytes, uint64_t size) noexcept nogil:
    """The bytes stay the caller's, who keeps them until it is closed."""
    file_init(file)
    file.bytes = <const char*>bytes
    file.size = size
    file.start_size = size if size < FILE_START else FILE_START
    memcpy(&file.start[0], bytes, file.start_size)


cdef inline bint file_from_files(File* file, Files* files, const char* path) noexcept nogil:
    """Foreign code, which may be Python: with no lock held. False if there is no such file, or
    the open is to end."""
    cdef const void* bytes = NULL
    cdef size_t size = 0
    if files.read(path, &bytes, &size, files.data) != 0:
        files.stopped = True
    elif bytes != NULL:
        file_from_bytes(file, bytes, size)
        file.is_from_files = True
        return True
    return False


cdef inline void make_plain(char* path) noexcept nogil:
    """In place and by the text alone: without `.`, empty parts and a slash at the end; without
    `..` but at the start of a relative path. Not empty on entry."""
    cdef size_t start = 1 if path[0] == 0x2f else 0
    cdef size_t floor = start    # what no `..` takes away
    cdef size_t length = start
    cdef const char* part = path + start
    cdef size_t size, i
    while part[0] != 0:
        size = 0
        while part[size] != 0 and part[size] != 0x2f:
            size += 1
        if size == 2 and part[0] == 0x2e and part[1] == 0x2e and (start or length > floor):
            while length > floor and path[length - 1] != 0x2f:
                length -= 1
            if length > floor:
                length -= 1      # the slash before it
        elif size > 1 or size == 1 and part[0] != 0x2e:
            if length > start:
                path[length] = 0x2f
                length += 1
            for i in range(size):
                path[length + i] = part[i]
            length += size
            if size == 2 and path[length - 1] == 0x2e and path[length - 2] == 0x2e:
                floor = length
        part += size + 1 if part[size] != 0 else size
    if length == 0:
        path[0] = 0x2e
        length = 1
    path[length] = 0


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
            return fail_system(error, DLOPEN_E_OPEN, path, DETAIL_CANNOT_OPEN, result)
        file.descriptor = result
        file_read_start(file)
    result = kernel_status_of(file.descriptor, &status)
    if result == 0 and is_directory(status.st_mode):
        result = -EISDIR
    if result < 0:
        file_close(file)
        return fail_system(error, DLOPEN_E_READ, path, DETAIL_CANNOT_READ, result)
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
        return fail_system(error, DLOPEN_E_READ, name, DETAIL_CANNOT_READ, result)
    if <size_t>result < size:
        return fail_system(error, DLOPEN_E_READ, name, DETAIL_SHRANK, 0)
    return 0
