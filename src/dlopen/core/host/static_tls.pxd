"""Where the thread-local storage of a batch goes, before its references are relocated.

An image that an initial-exec relocation refers to gets static TLS through a donor (see
tls/donor.pxd), any other an id of ours. The host's loader takes static TLS back only from
its end: donors are closed in the order of their distances from the thread pointer, and one
that is not the farthest waits until it is. It never takes back what it
left free to align a block, nor anything nearer: so a donor is made so large that nothing is left.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdio cimport snprintf

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport store_u32
from dlopen.core.base.contract cimport DLOPEN_E_MEMORY, Error
from dlopen.core.base.details cimport DETAIL_STATIC_TLS_FILE
from dlopen.core.base.environment cimport environment_value
from dlopen.core.base.errors cimport fail_memory, fail_system, fail_text
from dlopen.core.base.kernel cimport (
    EEXIST, ENOMEM, kernel_close, kernel_create, kernel_memory_file, kernel_open, kernel_process_id,
    kernel_unlink, kernel_write, kernel_yield,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release
from dlopen.core.base.strings cimport strlen
from dlopen.core.base.words cimport align_up
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.host.assumptions cimport note_unmet
from dlopen.core.host.host_lock cimport LM_ID_BASE, close_host, open_host_in
from dlopen.core.host.linker cimport Donor, Linker, Process
from dlopen.core.image.image cimport Image, LinkMap, image_name
from dlopen.core.symbols.lookup cimport Definition, symbol_name
from dlopen.core.tls.donor cimport DonorFile, donor_path, make_donor, make_question
from dlopen.core.tls.modules cimport add_module, remove_module
cdef extern from "<dlfcn.h>" nogil:
    enum:
        RTLD_NOW


cdef enum:
    DONOR_PATIENCE = 10000       # turns of sched_yield(2)
    STATIC_TLS_MORE = 4096       # an advice is so much more: others take of it, too


cdef inline int64_t distance(const Donor* donor) noexcept nogil:
    """From the thread pointer, the farther the greater."""
    return donor.offset if THIS_MACHINE.tls_variant == 1 else -donor.offset


cdef inline const DonorFile* donor_file(void* handle) noexcept nogil:
    """What the host has mapped of a donor: its own bytes, with the two words relocated."""
    return <const DonorFile*>(<LinkMap*>handle).l_addr


cdef inline void* open_donor_of_size(
    Linker* linker, const void* content, uint64_t content_size, uint64_t size, uint64_t alignment,
    uint64_t first_byte, long* problem
) noexcept nogil:
    """The host's handle; NULL when it refuses. A negative *problem is an errno."""
    cdef uint64_t file_size = 0
    cdef char* file = make_donor(content, content_size, size, alignment, first_byte, &file_size)
    cdef void* handle
    if file == NULL:
        problem[0] = -ENOMEM
        return NULL
    handle = give_to_host(linker, LM_ID_BASE, file, file_size, problem)
    release(file)
    if handle != NULL and (donor_file(handle).module == 0 or donor_file(handle).offset == 0):
        note_unmet(
            &linker.preparation, b"it has given a library no static thread-local storage", b""
        )
        close_host(linker, handle)
        handle = NULL
    return handle


cdef inline uint64_t next_donor(Linker* linker) noexcept nogil:
    """A number that no other file given to the host has had."""
    cdef uint64_t number
    lock_acquire(&linker.tls.lock)
    linker.static_storage.made += 1
    number = linker.static_storage.made
    lock_release(&linker.tls.lock)
    return number


cdef inline void* open_by_path(Linker* linker, long namespace, const char* path) noexcept nogil:
    """The host's handle, or NULL with the host's message dropped."""
    cdef void* handle = open_host_in(linker, namespace, path, RTLD_NOW)
    if handle == NULL:
        linker.host.dlerror()
    return handle


cdef inline void* give_to_host(
    Linker* linker, long namespace, const void* content, uint64_t size, long* problem
) noexcept nogil:
    """The handle of a library of this content that the host has opened, in a namespace of its own
    numbers; NULL when it refuses, or when there could be no such file, for the errno in *problem
    (negative). With no lock held."""
    cdef char path[160]
    cdef void* handle = NULL
    cdef long found
    cdef long descriptor = kernel_memory_file(b"dlopen-tls")
    problem[0] = 0
    if descriptor >= 0:
        problem[0] = kernel_write(descriptor, content, size)
        if problem[0] == 0:
            donor_path(descriptor, next_donor(linker), &path[0])
            handle = open_by_path(linker, namespace, &path[0])
        if handle == NULL and problem[0] == 0:
            found = kernel_open(&path[0])        # where there is no /proc, there is no such path
            if found >= 0:
                kernel_close(found)
            else:
                problem[0] = found
        kernel_close(descriptor)
        if problem[0] == 0:
            return handle
    return give_file_to_host(linker, namespace, content, size, problem)


cdef inline const char* donor_folder(const Process* process, int turn) noexcept nogil:
    """For files of the length of one open; NULL: there is none here. They hold no code,
    so that it may be mounted noexec."""
    if turn == 0 and process.is_secure:
        return NULL
    if turn == 0:
        return environment_value(&process.environment, b"XDG_RUNTIME_DIR=")
    return b"/dev/shm" if turn == 1 else b"/tmp"


cdef inline void* give_file_to_host(
    Linker* linker, long namespace, const void* content, uint64_t size, long* problem
) noexcept nogil:
    """The library as a file that nobody else can read, for where there is no file in memory. It has
    a name only until the host has opened it, and no name is used twice: the host would take it for
    the old file's."""
    cdef char path[320]
    cdef void* handle = NULL
    cdef const char* folder
    cdef long descriptor
    cdef int turn, _try
    for turn in range(3):
        folder = donor_folder(&linker.process, turn)
        if folder == NULL or folder[0] != 0x2f or strlen(folder) > 200:
            continue
        descriptor = -EEXIST
        for _try in range(100):
            snprintf(
                &path[0], sizeof(path), b"%s/.dlopen-%u-%llu", folder, kernel_process_id(),
                <unsigned long long>next_donor(linker)
            )
            descriptor = kernel_create(&path[0])
            if descriptor != -EEXIST:
                break
        if descriptor < 0:
            problem[0] = descriptor
            continue
        problem[0] = kernel_write(descriptor, content, size)
        if problem[0] == 0:
            handle = open_by_path(linker, namespace, &path[0])
        kernel_unlink(&path[0])
        kernel_close(descriptor)
        if problem[0] == 0:
            break
    return handle


cdef inline void* open_donor(
    Linker* linker, const void* content, uint64_t content_size, uint64_t size, uint64_t alignment,
    uint64_t first_byte, long* problem
) noexcept nogil:
    """A donor of at least this size; the host's handle, or NULL. The host puts a block at the next
    distance where its first byte is aligned; below the thread pointer, where that begins, a donor
    of one byte tells."""
    cdef void* probe
    cdef uint64_t used
    if alignment > 1 and THIS_MACHINE.tls_variant == 2:
        probe = open_donor_of_size(linker, NULL, 0, 1, 1, 0, problem)
        if probe == NULL:
            return NULL
        used = <uint64_t>-<int64_t>donor_file(probe).offset - 1
        close_host(linker, probe)
        size = align_up(used + size + first_byte, alignment) - first_byte - used
    return open_donor_of_size(
        linker, content, content_size, size, alignment, first_byte, problem
    )


cdef inline bint begin_donors(Linker* linker) noexcept nogil:
    """One thread at a time opens and closes donors, or their order would not hold. Waiting is
    bounded, since who waits may be in the host's loader, which the other one needs. False:
    it goes on all the same, and at worst some room is lost."""
    cdef int _turn
    cdef bint begun = False
    for _turn in range(DONOR_PATIENCE):
        lock_acquire(&linker.tls.lock)
        begun = not linker.static_storage.is_changing
        linker.static_storage.is_changing = True
        lock_release(&linker.tls.lock)
        if begun:
            break
        kernel_yield()
    return begun


cdef inline void end_donors(Linker* linker) noexcept nogil:
    """Closes what it can before."""
    cdef Donor* donor
    lock_acquire(&linker.tls.lock)
    while linker.static_storage.donors != NULL and linker.static_storage.donors.is_unused:
        donor = linker.static_storage.donors
        linker.static_storage.donors = donor.next
        lock_release(&linker.tls.lock)
        close_host(linker, donor.handle)
        release(donor)
        lock_acquire(&linker.tls.lock)
    linker.static_storage.is_changing = False
    lock_release(&linker.tls.lock)


cdef inline uint64_t static_tls_left(
    Linker* linker, uint64_t most, uint64_t alignment
) noexcept nogil:
    """How much of `most` the host would still give: asked by trying, for an error's text."""
    cdef uint64_t low = 0
    cdef uint64_t high = most
    cdef uint64_t middle
    cdef void* handle
    cdef long problem = 0
    while low < high:
        middle = (low + high + 1) // 2
        handle = open_donor(linker, NULL, 0, middle, alignment, 0, &problem)
        if handle != NULL:
            close_host(linker, handle)
            low = middle
        else:
            high = middle - 1
    return low


cdef inline int no_static_tls(Linker* linker, const Image* image, Error* error) noexcept nogil:
    """The error of an image that the host has no room for: how much is needed, how much there is,
    which setting makes room."""
    cdef const Phdr* segment = image.layout.tls
    cdef uint64_t alignment = segment.p_align if segment.p_align else 1
    cdef uint64_t left = static_tls_left(linker, segment.p_memsz, alignment)
    cdef char text[320]
    if left == 0 and alignment > 64:
        snprintf(
            &text[0], sizeof(text),
            b"cannot allocate memory in static TLS block: %llu bytes are needed at a multiple of "
            b"%llu, which libc gives only to libraries that a program starts with (LD_PRELOAD)",
            <unsigned long long>segment.p_memsz, <unsigned long long>alignment
        )
    else:
        snprintf(
            &text[0], sizeof(text),
            b"cannot allocate memory in static TLS block: %llu bytes are needed, %llu are left; "
            b"GLIBC_TUNABLES=glibc.rtld.optional_static_tls=%llu, set before the program starts, "
            b"makes room", <unsigned long long>segment.p_memsz, <unsigned long long>left,
            <unsigned long long>(segment.p_memsz + STATIC_TLS_MORE)
        )
    return fail_text(error, DLOPEN_E_MEMORY, image_name(image), &text[0])


cdef inline int give_static_tls(Linker* linker, Image* image, Error* error) noexcept nogil:
    """With no lock held. The content must be relocated: the host copies it into all threads
    at once."""
    cdef bint begun = begin_donors(linker)
    cdef int code = add_donor(linker, image, error)
    if begun:
        end_donors(linker)
    return code


cdef inline int add_donor(Linker* linker, Image* image, Error* error) noexcept nogil:
    """Opens one for the image and files it by its distance; between begin_donors and end_donors."""
    cdef const Phdr* segment = image.layout.tls
    cdef uint64_t alignment = segment.p_align if segment.p_align else 1
    cdef Donor* donor = <Donor*>allocate(sizeof(Donor))
    cdef Donor** link
    cdef const DonorFile* file
    cdef long problem = 0
    if donor == NULL:
        return fail_memory(error, image_name(image))
    donor.handle = open_donor(
        linker, <const void*>(image.bytes_bias + segment.p_vaddr), segment.p_filesz,
        segment.p_memsz, alignment, segment.p_vaddr & (alignment - 1), &problem
    )
    if donor.handle == NULL:
        release(donor)
        if problem < 0:
            return fail_system(
                error, DLOPEN_E_MEMORY, image_name(image), DETAIL_STATIC_TLS_FILE, problem
            )
        return no_static_tls(linker, image, error)
    file = donor_file(donor.handle)
    donor.offset = <int64_t>file.offset
    image.thread_local.offset = donor.offset
    image.thread_local.module_id = file.module
    store_u32(&image.thread_local.is_static, 1)
    image.thread_local.donor = donor
    lock_acquire(&linker.tls.lock)
    link = &linker.static_storage.donors       # the farthest first
    while link[0] != NULL and distance(link[0]) > distance(donor):
        link = &link[0].next
    donor.next = link[0]
    link[0] = donor
    lock_release(&linker.tls.lock)
    return 0


cdef inline void take_back_static_tls(Linker* linker, Donor* unused) noexcept nogil:
    """With no lock held. A thread that is at it closes this one, too."""
    cdef bint begun
    lock_acquire(&linker.tls.lock)
    unused.is_unused = True
    begun = not linker.static_storage.is_changing
    linker.static_storage.is_changing = True
    lock_release(&linker.tls.lock)
    if begun:
        end_donors(linker)


cdef inline int give_tls(Linker* linker, Image* image, bint no_host, Error* error) noexcept nogil:
    """An image of a batch whose relocations, but for those of TLS, are done. `no_host`: the
    image will never run, and the host is left alone."""
    if image.layout.tls == NULL:
        return 0
    if image.thread_local.needs_static and not no_host:
        return give_static_tls(linker, image, error)
    image.thread_local.module_id = add_module(&linker.tls, image)
    if image.thread_local.module_id == 0:
        return fail_memory(error, image_name(image))
    return 0


cdef inline void take_back_tls(Linker* linker, Image* image) noexcept nogil:
    """With no lock held; nothing of the image runs any more."""
    if image.thread_local.donor != NULL:
        take_back_static_tls(linker, <Donor*>image.thread_local.donor)
        image.thread_local.donor = NULL
    else:
        # A reader may still hold the image: the id stays, and means no module any more.
        remove_module(&linker.tls, image.thread_local.module_id)


cdef inline void keep_answer(Linker* linker, Image* owner, int64_t offset) noexcept nogil:
    """All threads that ask find the same; readers have no lock."""
    lock_acquire(&linker.tls.lock)
    if not owner.thread_local.is_static:
        owner.thread_local.offset = offset
        store_u32(&owner.thread_local.is_static, 1)
    lock_release(&linker.tls.lock)


cdef inline bint ask_host_for_static_tls(
    Linker* linker, const Definition* definition
) noexcept nogil:
    """Where the storage of a library is that the host opened after the start. The host gives
    it static TLS for the question, if it has room and no thread has touched the library's."""
    cdef Image* owner = definition.image
    cdef const char* name = symbol_name(owner, definition.symbol)
    cdef const DonorFile* file
    cdef void* handle
    cdef char* question
    cdef uint64_t size = 0
    cdef long problem = 0
    cdef bint found = False
    cdef bint begun
    if name == NULL:
        return False
    question = make_question(name, owner.link_map.l_name, &size)
    if question == NULL:
        return False
    begun = begin_donors(linker)
    handle = give_to_host(linker, LM_ID_BASE, question, size, &problem)
    release(question)
    if handle != NULL:
        file = donor_file(handle)
        found = file.module == owner.thread_local.module_id  # and no other library's of this name
        if found:
            keep_answer(linker, owner, <int64_t>(file.offset - definition.symbol.st_value))
        close_host(linker, handle)
    if begun:
        end_donors(linker)
    return found
