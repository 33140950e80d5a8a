"""Where an image's content comes from: an open file, a member of one (an archive), or bytes, of the
caller's or of a file that the caller has.

The first bytes are read when it is opened: as a rule both headers are among them, and nothing else
of a file is read, but mapped.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.base.contract cimport (
    DLOPEN_E_INVALID, DLOPEN_E_OPEN, DLOPEN_E_READ, DLOPEN_E_STOPPED, Error, LocateMember, Member,
    ReadFile,
)
from dlopen.core.base.details cimport (
    DETAIL_ARCHIVES_STOPPED, DETAIL_CANNOT_OPEN, DETAIL_CANNOT_READ, DETAIL_MEMBER_BEYOND,
    DETAIL_MEMBER_SIZE, DETAIL_NONE, DETAIL_SHRANK,
)
from dlopen.core.base.errors cimport fail, fail_system, fail_text
from dlopen.core.base.growable cimport Text, text_add
from dlopen.core.base.kernel cimport (
    EISDIR, FileStatus, is_directory, kernel_close, kernel_open, kernel_read_at, kernel_status_of,
)
from dlopen.core.base.words cimport smaller


cdef enum:
    FILE_START = 1024            # the ELF header and 17 program headers: one read as a rule


cdef struct Files:               # the caller's own, asked for before the file system
    ReadFile* read               # NULL: it has no bytes
    void* data
    LocateMember* locate         # members of archives, asked for before bytes; NULL: none
    void* locate_data
    bint stopped                 # it has ended the open
    bint of_any_machine          # not only of this process's


cdef struct FileIdentity:        # two names mean the same library if these are the same
    uint64_t device, inode       # 0, 0 for bytes
    uint64_t offset              # of a member; 0: the whole file


cdef struct File:
    long descriptor              # -1: from bytes, or not open
    const char* bytes            # NULL: not from bytes
    bint is_from_files           # they are what Files has
    bint is_member               # `member` says of what; descriptor and bytes are its giver's
    bint is_stopped              # who was asked for a member has ended the open
    bint is_copied               # into memory, where it is not mapped
    uint32_t copied_for          # DETAIL_*: why a member is; NONE: it is not
    bint is_refused              # its file system does not let it be mapped
    Member member                # of an archive; zeroes: none. To be given back if it has a `done`
    uint32_t problem             # DETAIL_*: why the member cannot be used; NONE: it can
    long problem_result          # a negative errno, or 0
    uint64_t size
    FileIdentity identity
    uint64_t start_size
    char start[FILE_START]       # the first start_size bytes


cdef inline void file_init(File* file) noexcept nogil:
    """Not open, of no size."""
    file.descriptor = -1
    file.bytes = NULL
    memset(&file.is_from_files, 0, <size_t>(<char*>&file.start[0] - <char*>&file.is_from_files))


cdef inline void take_bytes(File* file, const void* bytes, uint64_t size) noexcept nogil:
    file.bytes = <const char*>bytes
    file.is_copied = True
    file.size = size
    file.start_size = smaller(size, FILE_START)
    memcpy(&file.start[0], bytes, file.start_size)


cdef inline void file_from_bytes(File* file, const void* bytes, uint64_t size) noexcept nogil:
    """The bytes stay the caller's, who keeps them until it is closed."""
    file_init(file)
    take_bytes(file, bytes, size)


cdef inline uint32_t find_member(File* file) noexcept nogil:
    """Where the file's member is; DETAIL_*: why it cannot be used, or NONE."""
    cdef const Member* member = &file.member
    cdef FileStatus status
    cdef long result
    if member.size < sizeof(Member):
        return DETAIL_MEMBER_SIZE
    result = kernel_status_of(member.descriptor, &status)
    if result == 0 and is_directory(status.st_mode):
        result = -EISDIR
    if result < 0:
        file.problem_result = result
        return DETAIL_CANNOT_READ
    if member.offset > <uint64_t>status.st_size \
            or member.length > <uint64_t>status.st_size - member.offset:
        return DETAIL_MEMBER_BEYOND
    file.identity.device = status.st_dev
    file.identity.inode = status.st_ino
    file.identity.offset = member.offset
    if member.bytes == NULL:
        file.descriptor = member.descriptor
        file.size = member.length
        file_read_start(file)
    else:
        take_bytes(file, member.bytes, member.bytes_size)
    return DETAIL_NONE


cdef inline void file_from_member(File* file, const Member* member) noexcept nogil:
    """What it says is checked, and reported by `fail_for_member`. It stays the giver's, who keeps
    it until the file is closed, and perhaps gives it again: it is not given back."""
    file_init(file)
    file.is_member = True
    memcpy(&file.member, member, smaller(member.size, sizeof(Member)))
    file.member.done = NULL
    file.problem = find_member(file)


cdef inline bint file_from_locating(
    File* file, LocateMember* locate, const char* path, void* data
) noexcept nogil:
    """Foreign code, which may be Python: with no lock held. False if there is no such member; True
    also with `is_stopped` or a problem."""
    cdef Member member
    cdef int answer
    memset(&member, 0, sizeof(member))
    member.size = sizeof(member)
    member.descriptor = -1
    answer = locate(path, &member, data)
    if answer == 0:
        file_from_member(file, &member)
    else:
        file_init(file)
        file.is_member = True
        file.is_stopped = answer != 1
        file.member.reason = member.reason
    file.member.done = member.done
    file.member.done_data = member.done_data
    if answer == 1:
        file_close(file)         # what it has filled in all the same
        file_init(file)
    return answer != 1


cdef inline int fail_for_member(const File* file, const char* name, Error* error) noexcept nogil:
    """The error of one that cannot be used, or if who was asked has ended the open; 0: neither."""
    if file.is_stopped and file.member.reason != NULL:
        return fail_text(error, DLOPEN_E_STOPPED, name, file.member.reason)
    if file.is_stopped:
        return fail(error, DLOPEN_E_STOPPED, name, DETAIL_ARCHIVES_STOPPED)
    if file.problem == DETAIL_NONE:
        return 0
    return fail_system(
        error, DLOPEN_E_INVALID if file.problem == DETAIL_MEMBER_SIZE else DLOPEN_E_READ, name,
        file.problem, file.problem_result
    )


cdef inline void add_path_of(Text* text, const Member* member, const char* path) noexcept nogil:
    """That an image goes by: a relative one is in the archive. `member` may be NULL."""
    if member != NULL and member.path != NULL:
        path = member.path
    if member != NULL and member.archive != NULL and path[0] != 0x2f:
        text_add(text, member.archive)
        text_add(text, b"/")
    text_add(text, path)


cdef inline bint has_files(const Files* files) noexcept nogil:
    return files.read != NULL or files.locate != NULL


cdef inline bint is_open(const File* file) noexcept nogil:
    """There is content, or what is wrong with it."""
    return file.descriptor >= 0 or file.bytes != NULL or file.is_member


cdef inline bint is_from_bytes(const File* file) noexcept nogil:
    """It is of no file that others could find it by."""
    return file.bytes != NULL and not file.is_member


cdef inline bint file_from_files(File* file, Files* files, const char* path) noexcept nogil:
    """Foreign code, which may be Python: with no lock held. False if there is no such file, or
    the open is to end."""
    cdef const void* bytes = NULL
    cdef size_t size = 0
    if files.locate != NULL and file_from_locating(file, files.locate, path, files.locate_data):
        return True
    if files.read == NULL:
        return False
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
    cdef long count = kernel_read_at(
        file.descriptor, &file.start[0],
        smaller(file.size, FILE_START) if file.is_member else FILE_START, file.identity.offset
    )
    file.start_size = <uint64_t>count if count > 0 else 0


cdef inline int file_open(File* file, const char* path, Error* error) noexcept nogil:
    """Opens it, unless the search that found it has (file.descriptor is not -1 then)."""
    cdef FileStatus status
    cdef long result
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
    file.identity.device = status.st_dev
    file.identity.inode = status.st_ino
    return 0


cdef inline void file_close(File* file) noexcept nogil:
    """Again does no harm. What an asking gave is given back, to foreign code: with no lock held."""
    if file.is_member and file.member.done != NULL:
        file.member.done(file.member.done_data)
    elif not file.is_member and file.descriptor >= 0:
        kernel_close(file.descriptor)
    file.member.done = NULL
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
    result = kernel_read_at(file.descriptor, buffer, size, file.identity.offset + offset)
    if result < 0:
        return fail_system(error, DLOPEN_E_READ, name, DETAIL_CANNOT_READ, result)
    if <size_t>result < size:
        return fail_system(error, DLOPEN_E_READ, name, DETAIL_SHRANK, 0)
    return 0
