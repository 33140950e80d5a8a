"""Which file each image of the host's is.

Two names mean the same library if they lead to the same file (device and inode), and the host tells
names only: relative to a folder that was the working one once, or of a file that has another's
place by now. So the process's own map is read (proc_pid_maps(5)), when it is first needed; where
that cannot be read, the file at the image's path counts if it begins as the image does.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_u32, store_u32, store_u64
from dlopen.core.base.growable cimport (
    Pointers, Text, pointers_add, pointers_free, text_free, text_make_room,
)
from dlopen.core.base.kernel cimport (
    FileStatus, is_shortage, kernel_close, kernel_open, kernel_read, kernel_status,
)
from dlopen.core.base.strings cimport memcmp, strrchr
from dlopen.core.base.words cimport smaller
from dlopen.core.elf.constants cimport PF_R, PT_LOAD
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.host.counts cimport borrow_host_image, give_back_host_image
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.memory.file cimport File, file_close, file_init, file_open


cdef inline uint64_t parse_hex(const char** cursor) noexcept nogil:
    """The number in lower-case digits at the cursor, which is moved behind it."""
    cdef uint64_t value = 0
    cdef char c
    while True:
        c = cursor[0][0]
        if 0x30 <= c <= 0x39:
            value = value * 16 + <uint64_t>(c - 0x30)
        elif 0x61 <= c <= 0x66:
            value = value * 16 + <uint64_t>(c - 0x61 + 10)
        else:
            return value
        cursor[0] += 1


cdef inline uint64_t parse_decimal(const char** cursor) noexcept nogil:
    """The decimal number at the cursor, which is moved behind it."""
    cdef uint64_t value = 0
    while 0x30 <= cursor[0][0] <= 0x39:
        value = value * 10 + <uint64_t>(cursor[0][0] - 0x30)
        cursor[0] += 1
    return value


cdef inline void identify_line(const Pointers* wanted, size_t* found, char* line) noexcept nogil:
    """One line of /proc/self/maps (proc_pid_maps(5)): its device and inode to the image
    that is mapped there. Some file systems show another device there than stat does:
    the file is asked by the line's own path, if the inode agrees."""
    cdef const char* cursor = line
    cdef uint64_t start = parse_hex(&cursor)
    cdef uint64_t end
    cdef uint64_t major, minor, device, inode
    cdef size_t i
    cdef int _field
    cdef Image* image = NULL
    cdef FileStatus status
    if cursor[0] != 0x2d:
        return
    cursor += 1
    end = parse_hex(&cursor)
    for i in range(wanted.count):
        if start <= (<Image*>wanted.items[i]).map_start < end:
            image = <Image*>wanted.items[i]
    if image == NULL:
        return
    found[0] += 1
    for _field in range(2):       # permissions, offset
        while cursor[0] == 0x20:
            cursor += 1
        while cursor[0] != 0x20 and cursor[0] != 0:
            cursor += 1
    while cursor[0] == 0x20:
        cursor += 1
    major = parse_hex(&cursor)
    if cursor[0] != 0x3a:
        return
    cursor += 1
    minor = parse_hex(&cursor)
    while cursor[0] == 0x20:
        cursor += 1
    inode = parse_decimal(&cursor)
    while cursor[0] == 0x20:
        cursor += 1
    if inode == 0:
        return
    # The kernel's dev_t for user space (new_encode_dev).
    device = (minor & 0xff) | (major << 8) | ((minor & ~<uint64_t>0xff) << 12)
    if kernel_status(cursor, &status) == 0 and status.st_ino == inode:
        device = status.st_dev
    store_u64(&image.device, device)
    store_u64(&image.inode, inode)


cdef enum:
    MAP_ROOM = 4096


cdef enum:                       # of read_process_map
    MAP_READ = 0
    MAP_MISSING = 1              # there is no /proc
    MAP_LATER = 2                # it could not be read now


cdef inline int read_process_map(const Pointers* wanted, size_t* found) noexcept nogil:
    """No further than needed: the kernel makes each line when it is read, and what was
    loaded last has low addresses."""
    cdef Text text
    cdef size_t line
    cdef size_t i
    cdef long count = 0
    cdef long descriptor = kernel_open(b"/proc/self/maps")
    if descriptor < 0:
        return MAP_LATER if is_shortage(descriptor) else MAP_MISSING
    memset(&text, 0, sizeof(text))
    # A page: the kernel gives no more at once. It grows with a line that is longer.
    while found[0] < wanted.count and text_make_room(&text, MAP_ROOM):
        count = kernel_read(descriptor, text.data + text.length, MAP_ROOM)
        if count <= 0:
            break
        text.length += <size_t>count
        line = 0
        for i in range(text.length):
            if text.data[i] == 0x0a:
                text.data[i] = 0
                identify_line(wanted, found, text.data + line)
                line = i + 1
        text.length -= line
        for i in range(text.length):
            text.data[i] = text.data[line + i]
    kernel_close(descriptor)
    if text.failed:
        count = -1
    text_free(&text)
    return MAP_READ if count >= 0 else MAP_LATER


cdef inline bint starts_as(const Image* image, const File* file) noexcept nogil:
    """What is mapped of the file's start, headers and build-id as a rule, is the same."""
    cdef uint32_t i
    cdef const Phdr* segment
    for i in range(image.layout.phnum):
        segment = &image.layout.phdrs[i]
        if segment.p_type == PT_LOAD and segment.p_offset == 0 and segment.p_flags & PF_R:
            return file.start_size != 0 and memcmp(
                &file.start[0], <const void*>(image.bytes_bias + segment.p_vaddr),
                smaller(file.start_size, segment.p_filesz)
            ) == 0
    return False


cdef inline void identify_by_path(Linker* linker, Image* image) noexcept nogil:
    """Where there is no /proc: by the path that the host has found it at, if the file there still
    is the one that is mapped."""
    cdef const char* path = image.link_map.l_name
    cdef void* borrowed = NULL
    cdef File* file
    if strrchr(path, 0x2f) == NULL or image.host.is_program:
        return
    file = <File*>allocate(sizeof(File))
    if file == NULL:
        return
    file_init(file)
    if file_open(file, path, NULL) != 0:
        release(file)
        return
    borrowed = <void*>image
    if not image.host.is_startup:
        borrowed = borrow_host_image(linker, image)
    if borrowed != NULL and starts_as(image, file):
        store_u64(&image.device, file.identity.device)
        store_u64(&image.inode, file.identity.inode)
        store_u32(&image.host.is_identified, 1)
    if borrowed != NULL:
        give_back_host_image(linker, image, borrowed)
    file_close(file)
    release(file)


cdef inline bint identify_hosts(Linker* linker, const Snapshot* snapshot) noexcept nogil:
    """Device and inode of each host image from the process's own map: its name may be
    relative, or a newer file's by now. With no lock held. False: not this time, for want of memory
    or descriptors."""
    cdef Pointers wanted
    cdef size_t found = 0
    cdef size_t i
    cdef int code = MAP_READ
    memset(&wanted, 0, sizeof(wanted))
    for i in range(snapshot.host_count):
        if not load_u32(&snapshot.hosts[i].host.is_identified) \
                and not pointers_add(&wanted, snapshot.hosts[i]):
            code = MAP_LATER
    if wanted.count == 0:
        return code == MAP_READ
    if code == MAP_READ:
        code = read_process_map(&wanted, &found)
    # Also those without a file, such as the vDSO. Threads that get here together all find
    # the same.
    for i in range(wanted.count):
        if code == MAP_READ:
            store_u32(&(<Image*>wanted.items[i]).host.is_identified, 1)
        elif code == MAP_MISSING:
            identify_by_path(linker, <Image*>wanted.items[i])
    pointers_free(&wanted)
    return code != MAP_LATER
