"""Opening as a transaction: find, map, scope, relocate, protect, publish, initialise.

A transaction works on images that nobody else knows, with no lock held. Published
images that it relies on are pinned. At the end it publishes all at once, under the
lock; if somebody else published one of the same files meanwhile, it rolls back and
starts again, which nothing but time shows: no constructor has run. So no thread ever
waits for another's loading, and two opens that need each other cannot block.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.allocator cimport Allocator, allocate, copy_text, release
from dlopen.core.base.atomics cimport (
    load_pointer, load_u32, load_u64, store_pointer, store_u32, store_u64,
)
from dlopen.core.base.contract cimport (
    DLOPEN_E_CONSTRUCTOR, DLOPEN_E_HANDLE, DLOPEN_E_HOST, DLOPEN_E_INVALID, DLOPEN_E_MEMORY,
    DLOPEN_E_NOT_FOUND, DLOPEN_E_NOT_LOADED, DLOPEN_E_OPEN, DLOPEN_E_STATE, DLOPEN_E_STOPPED,
    DLOPEN_E_UNSUPPORTED, DLOPEN_E_VERSION, DLOPEN_KEEP_AS_LIBC, DLOPEN_NO_FOREIGN_CODE,
    DLOPEN_PRIVATE, DLOPEN_REJECTED_HOSTS, DLOPEN_RELOADABLE, DLOPEN_REPLACE_IN_TREE,
    DLOPEN_STATE_INITIALISING, DLOPEN_STATE_LOADING, DLOPEN_STATE_MAPPED, DLOPEN_STATE_READY, Error,
    Request,
)
from dlopen.core.base.errors cimport (
    error_clear, error_name_symbol, error_needed_by, error_searched, fail, fail_handle, fail_memory,
    fail_system,
)
from dlopen.core.base.growable cimport (
    Pointers, Text, pointer_at, pointers_add, pointers_add_once, pointers_free, pointers_hold,
    pointers_reserve, text_add, text_cut, text_free,
)
from dlopen.core.base.kernel cimport (
    EINVAL, ENOENT, is_shortage, kernel_unmap, kernel_wait, kernel_wake,
)
from dlopen.core.base.lock cimport is_forking, lock_acquire, lock_release
from dlopen.core.base.paths cimport add_working_directory
from dlopen.core.base.strings cimport has_prefix, memcmp, strchr, strcmp, strlen
from dlopen.core.elf.constants cimport DF_1_INITFIRST, DF_1_NODELETE, DT_AUXILIARY, VER_FLG_WEAK
from dlopen.core.elf.layout cimport check_header, check_layout
from dlopen.core.elf.structures cimport Dyn, Ehdr, Phdr
from dlopen.core.host.abi cimport (
    RTLD_DEEPBIND, RTLD_GLOBAL, RTLD_LAZY, RTLD_NODELETE, RTLD_NOLOAD, RTLD_NOW,
)
from dlopen.core.host.counts cimport count_host_image, look_for_globals
from dlopen.core.host.debugger cimport keep_file_for_debugger, show_to_debugger
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.identity cimport identify_hosts
from dlopen.core.host.libraries cimport must_be_hosts
from dlopen.core.host.linker cimport Linker, Namespace
from dlopen.core.host.namespaces cimport (
    NEW_NAMESPACE, enter_namespace, leave_namespace, new_namespace,
)
from dlopen.core.host.rebind cimport seal_what_is_left
from dlopen.core.host.refresh cimport HOSTS_CHANGED, HOSTS_UNKNOWN, bring_unwinder, refresh_hosts
from dlopen.core.host.static_tls cimport ask_host_for_static_tls, give_tls, take_back_tls
from dlopen.core.host.uniques cimport UniqueHosts, find_unique_of_host, free_unique_hosts
from dlopen.core.image.dynamic cimport move_dynamic_pointers, read_dynamic, refuse
from dlopen.core.image.image cimport (
    Image, LinkMap, Name, Retired, SearchList, Unique, Version, image_asked_name,
    image_free_records, image_name, is_linked,
)
from dlopen.core.image.naming cimport answers_to, has_base_name
from dlopen.core.image.order cimport sort_for_constructors
from dlopen.core.image.registry cimport (
    Registry, Snapshot, Waiter, current_snapshot, free_wider_scopes, join_globals, make_snapshot,
    publish_snapshot, reader_enter, reader_leave, snapshot_holds, snapshot_image_at,
    take_wider_scopes, this_thread, widen_scope,
)
from dlopen.core.linker.catching cimport Exception, call_caught, describe_exception, is_catching
from dlopen.core.linker.order cimport run_constructors
from dlopen.core.memory.file cimport (
    File, Files, file_close, file_from_bytes, file_init, file_open, file_read, make_plain,
)
from dlopen.core.memory.mapping cimport map_segments, protect_relro, protect_text
from dlopen.core.relocation.batch cimport Batch
from dlopen.core.relocation.binding cimport same_file_name
from dlopen.core.relocation.relocate cimport relocate_image
from dlopen.core.relocation.replace cimport find_replacements
from dlopen.core.relocation.resolvers cimport (
    free_deferred, resolvers_fill_static_tls, run_resolvers,
)
from dlopen.core.relocation.thread_local cimport relocate_deferred_tls
from dlopen.core.search.candidates cimport is_path_in_files, try_files
from dlopen.core.search.find cimport find_file
from dlopen.core.search.settings cimport prepare_search
from dlopen.core.search.tokens cimport expand
from dlopen.core.search.trail cimport Trail, trail_add, trail_free
from dlopen.core.symbols.lookup cimport Definition, Reference, list_in_scope, refer, symbol_name
from dlopen.core.symbols.report cimport (
    report_host_open, report_loaded, report_mapped, report_open, report_scope, report_textrel,
    report_version,
)
from dlopen.core.symbols.scopes cimport shares_uniques
from dlopen.core.symbols.unique cimport (
    UniqueTable, add_unique, fill_unique, find_unique, take_unique,
)


cdef enum:
    TRY_AGAIN = -1               # somebody else published what this transaction loads
    HOSTS_OWN = -2               # one of the caller's files must be the host's


cdef struct Transaction:
    Linker* linker
    Error* error
    uint32_t mode
    uint32_t flags
    int64_t namespace_id         # of all that it finds and loads
    Files files                  # the caller's
    const Namespace* space       # its record, kept by who opens; NULL: none
    const Snapshot* snapshot     # of the images of others; kept alive by `phase`
    uint32_t phase
    uint64_t generation          # of the registry at the start
    Pointers loaded              # Image*: new ones, breadth first
    Pointers pinned              # Image*: published ones of ours that it relies on
    Pointers counted             # void*: handles of the host's, to give back
    Pointers missing_hosts       # char*, owned: paths that the host must open
    Pointers missing_names       # char*, owned: by which they are needed
    Text hosts_own               # the soname of what was given and must be the host's; "": none
    Pointers globals             # Image*: the global scope, for the batch
    Pointers family              # Image*: what a namespace with a record shares, the program last
    Pointers process             # Image*: what the process was started with, for a namespace
    # STB_GNU_UNIQUE: the definitions of ours that are the process's once this is published.
    UniqueTable* uniques         # NULL while there is none
    Unique* new_uniques          # the same, linked by `sibling`; owned until then
    uint32_t unique_additions    # of the process's table at the start
    UniqueHosts unique_hosts
    Image* root
    Image* asker                 # who opens it; NULL: not an image, or it is not known
    bint is_itself               # the root was asked for as itself, and not by what others may have
    Image* replaces              # in nobody's scope for this transaction
    Trail trail                  # of the name that is looked for at the moment
    File file                    # the one that is looked at
    bint is_stale                # an image is there, but what `snapshot` has of it is old
    bint no_memory               # what is there could not all be looked at, or kept


cdef inline Image* new_image(Linker* linker, const char* name, bint in_files) noexcept nogil:
    """`in_files`: `name` is a path of the caller's files; else it is made absolute if it has a
    slash."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Image* image = <Image*>allocate(allocator, sizeof(Image))
    cdef char* copy
    cdef Text text
    if image == NULL:
        return NULL
    memset(&text, 0, sizeof(text))
    copy = copy_text(allocator, name, strlen(name))
    if copy == NULL or not pointers_add(allocator, &image.names, copy):
        release(allocator, copy)
        image_free_records(allocator, image)
        return NULL
    image.link_map.l_name = copy
    if not in_files and name[0] != 0x2f and strchr(name, 0x2f) != NULL \
            and add_working_directory(allocator, &text):
        text_add(allocator, &text, b"/")
        text_add(allocator, &text, name + 2 if name[0] == 0x2e and name[1] == 0x2f else name)
        image.path = text.data
    elif not text.failed:
        image.path = copy_text(allocator, name, strlen(name))
    image.state = DLOPEN_STATE_LOADING
    image.is_from_files = in_files
    if image.path == NULL or text.failed:
        if image.path == NULL:
            text_free(allocator, &text)
        image_free_records(allocator, image)
        return NULL
    return image


cdef inline int read_header(
    const File* file, Ehdr* header, const char* name, Error* error
) noexcept nogil:
    cdef uint64_t size = file.size if file.size < sizeof(Ehdr) else sizeof(Ehdr)
    cdef int code
    memset(header, 0, sizeof(Ehdr))
    code = file_read(file, header, size, 0, name, error)
    return code if code else check_header(header, file.size, THIS_MACHINE, name, error)


cdef inline int map_image(
    Linker* linker, File* file, Image* image, Error* error
) noexcept nogil:
    """Header, segments, dynamic section: checked and mapped. On failure the image is not
    mapped, and the caller frees its records."""
    cdef Ehdr header
    cdef Allocator* allocator = &linker.registry.allocator
    cdef const char* name = image.link_map.l_name
    cdef int code = read_header(file, &header, name, error)
    if code:
        return code
    image.layout.phnum = header.e_phnum
    image.layout.page = linker.page
    image.layout.headers_offset = header.e_phoff
    image.layout.phdrs = <Phdr*>allocate(allocator, header.e_phnum * sizeof(Phdr))
    if image.layout.phdrs == NULL:
        return fail_memory(error, name)
    code = file_read(
        file, image.layout.phdrs, header.e_phnum * sizeof(Phdr), header.e_phoff, name, error
    )
    if code == 0:
        code = check_layout(&image.layout, file.size, name, error)
    if code == 0:
        code = map_segments(&image.layout, file, &image.load_bias, name, error)
    if code:
        return code
    image.bytes_bias = image.load_bias
    image.map_start = image.load_bias + image.layout.start
    image.map_end = image.load_bias + image.layout.end
    image.device = file.device
    image.inode = file.inode
    image.is_from_bytes = file.descriptor < 0
    image.link_map.l_addr = image.load_bias
    code = read_dynamic(allocator, image, error)
    if code == 0:
        image.link_map.l_ld = <void*>image.dynamic
        return 0
    unmap_image(image)
    return code


cdef inline void unmap_image(Image* image) noexcept nogil:
    if image.map_end != 0:
        kernel_unmap(image.map_start, image.map_end - image.map_start)
        image.map_end = 0


# Finding images ------------------------------------------------------------------


cdef inline bint pin(Transaction* transaction, Image* image) noexcept nogil:
    """A published image stays while the transaction runs, of the host's at least what we
    know of it; False if it is being closed, or with Transaction.no_memory."""
    cdef Registry* registry = &transaction.linker.registry
    cdef bint usable
    if pointers_hold(&transaction.pinned, image):
        return True
    lock_acquire(&registry.lock)
    usable = pointers_hold(&registry.hosts if image.is_host else &registry.images, image)
    if usable and not pointers_add(&registry.allocator, &transaction.pinned, image):
        transaction.no_memory = True
        usable = False
    if usable:
        image.pins += 1
    lock_release(&registry.lock)
    return usable


cdef inline bint take(Transaction* transaction, Image* image) noexcept nogil:
    """The same for any image: the host's are counted with the host."""
    cdef void* handle
    if pointers_hold(&transaction.loaded, image) or image.is_startup \
            or pointers_hold(&transaction.pinned, image):
        return True
    if not image.is_host:
        return pin(transaction, image)
    handle = count_host_image(transaction.linker, image, 0)
    if handle == NULL:
        return False
    if not pin(transaction, image):
        transaction.is_stale = True      # unless there is no memory, which goes before
    elif pointers_add(&transaction.linker.registry.allocator, &transaction.counted, handle):
        return True
    else:
        transaction.no_memory = True
    close_host(transaction.linker, handle)
    return False


cdef inline bint is_meant(
    const Image* image, const char* name, uint64_t device, uint64_t inode
) noexcept nogil:
    """By the name, or by the file where that is NULL."""
    if name != NULL:
        return answers_to(image, name)
    return not image.is_from_bytes and image.inode == inode and image.device == device


cdef inline bint is_of_own(const Transaction* transaction, const Image* image) noexcept nogil:
    """One of one's own that can be found by itself, or by who was given its text. Not while
    another thread links it, or while this transaction loads it."""
    return image != NULL and not image.is_host and image.is_own \
        and image.namespace_id == transaction.namespace_id \
        and (is_linked(image) or image.initialiser == this_thread())


cdef inline Image* loaded_with_asker(
    Transaction* transaction, Image* asker, const char* name, uint64_t device, uint64_t inode
) noexcept nogil:
    """What an image of one's own means by a name (NULL), or a file: itself, or what of one's own
    was opened with it. Nobody else sees these, and there may be others of the same name. In
    another namespace it means by it what all mean."""
    cdef SearchList** scope
    cdef const SearchList* list
    cdef Image* image
    cdef size_t i
    cdef size_t number = 0
    if not is_of_own(transaction, asker):
        return NULL
    if is_meant(asker, name, device, inode) and take(transaction, asker):
        return asker
    scope = <SearchList**>load_pointer(&asker.scope)
    list = list_in_scope(scope, 0)
    while list != NULL:
        for i in range(list.images.count):
            image = <Image*>pointer_at(&list.images, i)
            if not image.is_host and image.is_own \
                    and is_meant(image, name, device, inode) and take(transaction, image):
                return image
        number += 1
        list = list_in_scope(scope, number)
    return NULL


cdef inline Image* own_image_of(
    Transaction* transaction, Image* asker, Image* image
) noexcept nogil:
    """`image` answers to a name for all; an image of one's own means by it that of the same file
    which it was opened with, if there is one."""
    cdef Image* own
    if image.is_from_bytes or not is_of_own(transaction, asker):
        return image
    if image.is_host and not load_u32(&image.is_identified) \
            and not identify_hosts(transaction.linker, transaction.snapshot):
        transaction.no_memory = True
    own = loaded_with_asker(
        transaction, asker, NULL, load_u64(&image.device), load_u64(&image.inode)
    )
    return own if own != NULL else image


cdef inline Image* loaded_by_name(
    Transaction* transaction, const char* name, Image* asker, bint own_only
) noexcept nogil:
    """An image that answers to the name: of this transaction, then of the process."""
    cdef size_t i
    cdef Image* image
    for i in range(transaction.loaded.count):
        if answers_to(<Image*>transaction.loaded.items[i], name):
            return <Image*>transaction.loaded.items[i]
    if own_only:
        return NULL
    image = loaded_with_asker(transaction, asker, name, 0, 0)
    if image != NULL:
        return image
    for i in range(transaction.snapshot.host_count):
        image = transaction.snapshot.hosts[i]
        if sees(transaction, image) and answers_to(image, name) and take(transaction, image):
            return own_image_of(transaction, asker, image)
    for i in range(transaction.snapshot.count):
        image = transaction.snapshot.images[i]
        if sees(transaction, image) and answers_to(image, name) and take(transaction, image):
            return own_image_of(transaction, asker, image)
    return NULL


cdef inline bint sees(const Transaction* transaction, const Image* image) noexcept nogil:
    """An image that is there already counts: one of the same namespace, or of the family
    that all share."""
    if image == transaction.replaces:
        return False
    if image.is_host:
        return transaction.namespace_id == 0 or image.is_family
    return load_u32(&image.is_visible) and image.namespace_id == transaction.namespace_id


cdef inline bint may_be_of(const Image* image, const File* file) noexcept nogil:
    """Not with other program headers. To learn of which file an image is takes longer than
    to load most libraries."""
    cdef const Ehdr* header = <const Ehdr*>&file.start[0]
    cdef uint64_t size = image.layout.phnum * sizeof(Phdr)
    if file.start_size < sizeof(Ehdr) or header.e_phoff > file.start_size \
            or size > file.start_size - header.e_phoff:
        return True
    return header.e_phnum == image.layout.phnum \
        and memcmp(&file.start[0] + header.e_phoff, image.layout.phdrs, size) == 0


cdef inline Image* loaded_by_file(
    Transaction* transaction, const File* file, Image* asker, bint own_only
) noexcept nogil:
    """An image of the same file: device and inode."""
    cdef size_t i
    cdef Image* image
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        if is_meant(image, NULL, file.device, file.inode):
            return image
    if own_only:
        return NULL
    image = loaded_with_asker(transaction, asker, NULL, file.device, file.inode)
    if image != NULL:
        return image
    for i in range(transaction.snapshot.host_count):
        image = transaction.snapshot.hosts[i]
        # As glibc, which knows no file of the program: as a library it is refused.
        if not sees(transaction, image) or image.from_main:
            continue
        if not load_u32(&image.is_identified) and may_be_of(image, file) \
                and not identify_hosts(transaction.linker, transaction.snapshot):
            transaction.no_memory = True
            return NULL
        if load_u64(&image.inode) == file.inode and load_u64(&image.device) == file.device \
                and take(transaction, image):
            return image
    for i in range(transaction.snapshot.count):
        image = transaction.snapshot.images[i]
        if sees(transaction, image) and is_meant(image, NULL, file.device, file.inode) \
                and take(transaction, image):
            return image
    return NULL


cdef inline Image* loaded_by_own_text(Transaction* transaction, const char* name) noexcept nogil:
    """The image of one's own that this very text, not a copy of it, is the name of: of dladdr(3)
    or in a link map. A runtime that a library calls so asks for that library: D's does."""
    cdef size_t i
    cdef Image* image
    for i in range(transaction.snapshot.count):
        image = transaction.snapshot.images[i]
        if (name == image_asked_name(image) or name == image.link_map.l_name) \
                and is_of_own(transaction, image) and take(transaction, image):
            return image
    return NULL


cdef inline Image* loaded_from_files(
    const Transaction* transaction, const char* path
) noexcept nogil:
    """An image of the same of the caller's files."""
    cdef size_t i
    cdef Image* image
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        if image.is_from_files and strcmp(image.path, path) == 0:
            return image
    return NULL


cdef inline void remember_name(Linker* linker, Image* image, const char* name) noexcept nogil:
    """A further name that a file answers to from now on, whatever becomes of that name in the file
    system; without memory it is found by its file again."""
    cdef Registry* registry = &linker.registry
    cdef size_t size = strlen(name) + 1
    cdef Name* further = <Name*>allocate(&registry.allocator, sizeof(Name) + size)
    if further == NULL:
        return
    memcpy(further.text, name, size)
    lock_acquire(&registry.lock)
    if not answers_to(image, name):      # nor has another thread been first
        further.next = image.further_names
        store_pointer(&image.further_names, further)
        further = NULL
    lock_release(&registry.lock)
    release(&registry.allocator, further)


cdef inline bint holds_text(const Pointers* texts, const char* text) noexcept nogil:
    cdef size_t i
    for i in range(texts.count):
        if strcmp(<const char*>texts.items[i], text) == 0:
            return True
    return False


cdef inline bint add_text_once(
    Allocator* allocator, Pointers* texts, const char* text
) noexcept nogil:
    """A copy of it; False without memory."""
    cdef char* copy
    if holds_text(texts, text):
        return True
    copy = copy_text(allocator, text, strlen(text))
    if copy != NULL and pointers_add(allocator, texts, copy):
        return True
    release(allocator, copy)
    return False


cdef inline void free_texts(Allocator* allocator, Pointers* texts) noexcept nogil:
    cdef size_t i
    for i in range(texts.count):
        release(allocator, texts.items[i])
    pointers_free(allocator, texts)


cdef inline bint note_missing_host(
    Transaction* transaction, const char* name, const char* path, const Image* asker
) noexcept nogil:
    """False without memory. The path of a namespace does not say which one is the process's,
    unless there is no other."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Text elsewhere
    cdef File* file              # a second one
    cdef bint noted
    memset(&elsewhere, 0, sizeof(elsewhere))
    if transaction.space != NULL:
        file = <File*>allocate(allocator, sizeof(File))
        if file == NULL:
            return False
        file_init(file)
        if find_file(
            linker, transaction.snapshot, name, asker, NULL, &elsewhere, NULL, file, NULL
        ):
            path = elsewhere.data
        file_close(file)
        release(allocator, file)
    noted = not elsewhere.failed and add_text_once(allocator, &transaction.missing_hosts, path) \
        and add_text_once(allocator, &transaction.missing_names, name)
    text_free(allocator, &elsewhere)
    return noted


cdef inline int delegate(
    Transaction* transaction, const File* file, Image* image, const char* name, const char* path,
    const Image* asker, Image** result
) noexcept nogil:
    """A library that must be the host's: the one that is there already, of whatever file;
    or noted, and opened by the host's loader when the whole tree has been checked. HOSTS_OWN:
    it is none of a file that the host can open. Its own mapping was only to look at it."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef size_t i
    cdef int code = 0
    cdef Image* host
    result[0] = NULL
    for i in range(transaction.snapshot.host_count):
        host = transaction.snapshot.hosts[i]
        if image.soname != NULL and host.soname != NULL \
                and strcmp(host.soname, image.soname) == 0 and take(transaction, host):
            result[0] = host
            break
    if result[0] == NULL and transaction.loaded.count == 0 \
            and transaction.flags & DLOPEN_NO_FOREIGN_CODE:
        code = fail(
            transaction.error, DLOPEN_E_UNSUPPORTED, path,
            b"the host's loader would run its code: there is one of it in a process"
        )
    elif result[0] == NULL and file.descriptor < 0:
        code = HOSTS_OWN
        text_cut(&transaction.hosts_own, 0)
        text_add(allocator, &transaction.hosts_own, b"")
        if image.soname != NULL:
            text_add(allocator, &transaction.hosts_own, image.soname)
    unmap_image(image)
    image_free_records(allocator, image)
    if result[0] != NULL or code:
        return code
    if transaction.no_memory or not note_missing_host(transaction, name, path, asker):
        return fail_memory(transaction.error, path)
    return 0


cdef inline int load_file(
    Transaction* transaction, File* file, const char* name, const char* path, Image* loader,
    bint own_only, Image** result
) noexcept nogil:
    """A new image of the transaction; *result is NULL when the host must open it. HOSTS_OWN:
    it must be the host's, and is none of a file that the host can open."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef bint is_from_bytes = file.descriptor < 0
    cdef Image* image = new_image(
        linker, path, is_from_bytes and transaction.files.read != NULL
    )
    cdef char* copy
    cdef int code
    if image == NULL:
        return fail_memory(transaction.error, path)
    code = map_image(linker, file, image, transaction.error)
    if code:
        image_free_records(allocator, image)
        return code
    if must_be_hosts(image):
        return delegate(transaction, file, image, name, path, loader, result)
    code = refuse(image, name, transaction.error)
    if code == 0 and strcmp(name, path) != 0:
        copy = copy_text(allocator, name, strlen(name))
        if copy == NULL or not pointers_add(allocator, &image.names, copy):
            release(allocator, copy)
            code = fail_memory(transaction.error, path)
    if code == 0 and not pointers_add(allocator, &transaction.loaded, image):
        code = fail_memory(transaction.error, path)
    if code:
        unmap_image(image)
        image_free_records(allocator, image)
        return code
    image.loader = loader
    # New dependencies of a private image belong to it.
    image.is_private = transaction.mode & DLOPEN_PRIVATE != 0
    # Bytes answer to their names in a namespace of their own only.
    image.is_visible = not own_only and not image.is_private \
        and (not is_from_bytes or transaction.namespace_id != 0)
    image.no_foreign_code = transaction.flags & DLOPEN_NO_FOREIGN_CODE != 0
    image.namespace_id = transaction.namespace_id
    image.shares_family = transaction.space != NULL
    image.deepbind = transaction.mode & RTLD_DEEPBIND != 0
    image.is_own = image.is_private or is_from_bytes
    image.is_own_first = image.is_own \
        and transaction.mode & (RTLD_GLOBAL | RTLD_DEEPBIND) == 0
    image.nodelete = image.flags_1 & DF_1_NODELETE != 0
    if is_from_bytes:
        keep_file_for_debugger(linker, image, file)
    report_mapped(image)
    result[0] = image
    return 0


cdef inline int not_found(
    Transaction* transaction, const char* name, Trail* trail
) noexcept nogil:
    cdef long result = ENOENT
    if trail.count != 0 and trail.results[trail.count - 1] > 0:
        result = trail.results[trail.count - 1]      # as glibc: of the last folder
    if trail.other_class:
        fail(transaction.error, DLOPEN_E_NOT_FOUND, name, b"wrong ELF class: ELFCLASS32")
    else:
        fail_system(
            transaction.error, DLOPEN_E_NOT_FOUND, name, b"cannot open shared object file", -result
        )
    error_searched(transaction.error, trail.paths.data, &trail.results[0], trail.count)
    return DLOPEN_E_NOT_FOUND


cdef inline int stopped(Transaction* transaction, const char* name) noexcept nogil:
    return fail(
        transaction.error, DLOPEN_E_STOPPED, name, b"the search among the caller's files was ended"
    )


cdef inline int take_file(
    Transaction* transaction, File* file, const char* name, const char* path, Image* asker,
    bint own_only, Trail* trail, Image** result
) noexcept nogil:
    """The image of the file that the search for `name` ended at, which is closed. HOSTS_OWN:
    to be taken among the host's."""
    cdef Ehdr header
    cdef int code = 0
    if transaction.files.stopped:
        return stopped(transaction, name)
    if file.bytes == NULL:
        code = file_open(file, path, transaction.error)
    if code == 0:
        result[0] = loaded_from_files(transaction, path) if file.is_from_files \
            else loaded_by_file(transaction, file, asker, own_only)
        if result[0] != NULL:
            remember_name(transaction.linker, result[0], name)
        elif transaction.no_memory:
            code = fail_memory(transaction.error, name)
        elif transaction.mode & RTLD_NOLOAD:
            code = read_header(file, &header, path, transaction.error)
            if code == 0:
                code = fail(transaction.error, DLOPEN_E_NOT_LOADED, name, b"it is not loaded")
        else:
            code = load_file(transaction, file, name, path, asker, own_only, result)
            if code == HOSTS_OWN and trail.count:
                trail.results[trail.count - 1] = DLOPEN_REJECTED_HOSTS
    file_close(file)
    return code


cdef inline int search_and_take(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Files* files,
    Trail* trail, Image** result
) noexcept nogil:
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef const char* own_path = transaction.space.search_path if transaction.space != NULL \
        else NULL
    cdef Text path
    cdef File* file = &transaction.file
    cdef bint found
    cdef int code
    memset(&path, 0, sizeof(path))
    file_init(file)
    found = find_file(
        linker, transaction.snapshot, name, asker, own_path, &path, trail, file, files
    )
    # What is needed by a relative path; one that is opened itself is the caller's affair.
    if transaction.loaded.count != 0 and file.bytes == NULL and file.descriptor < 0 \
            and not transaction.files.stopped and is_path_in_files(asker, path.data):
        found = False
    if path.failed or (found and path.data == NULL):
        file_close(file)
        code = fail_memory(transaction.error, name)
    elif not found:
        code = not_found(transaction, name, trail)
    else:
        code = take_file(transaction, file, name, path.data, asker, own_only, trail, result)
        if code == DLOPEN_E_OPEN and trail.count != 0:
            # A path, which the caller's files have not.
            if transaction.error != NULL:
                trail_add(allocator, trail, path.data, b"path", transaction.error.errnum, file)
            error_searched(
                transaction.error, trail.paths.data, &trail.results[0], trail.count
            )
    text_free(allocator, &path)
    return code


cdef inline int take_from_files(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Trail* trail,
    Image** result
) noexcept nogil:
    """As it is named; *result is NULL if the caller's files have it not."""
    cdef Linker* linker = transaction.linker
    cdef Text path
    cdef File* file = &transaction.file
    cdef int code = 0
    memset(&path, 0, sizeof(path))
    file_init(file)
    text_add(&linker.registry.allocator, &path, name)
    if try_files(linker, &transaction.files, name, &path, trail, file):
        code = take_file(transaction, file, name, path.data, asker, own_only, trail, result)
    elif path.failed:
        code = fail_memory(transaction.error, name)
    text_free(&linker.registry.allocator, &path)
    return code


cdef inline Image* known_to_host(
    Transaction* transaction, const char* name, const Image* asker
) noexcept nogil:
    """The image that the host has opened by a path which leads nowhere by now: it tells nobody
    what else than its own name an image answers to. A name that is searched for it would search
    for, too, which is dear."""
    cdef Linker* linker = transaction.linker
    cdef Image* image = NULL
    cdef void* handle
    cdef size_t i
    if transaction.namespace_id != 0 or strchr(name, 0x2f) == NULL or strchr(name, 0x24) != NULL:
        return NULL
    if transaction.loaded.count != 0 and is_path_in_files(asker, name):
        return NULL
    handle = open_host(linker, name, RTLD_LAZY | RTLD_NOLOAD)
    if handle == NULL:
        linker.host.dlerror()
        return NULL
    for i in range(transaction.snapshot.host_count):
        if transaction.snapshot.hosts[i].link_map.l_ld == (<LinkMap*>handle).l_ld \
                and take(transaction, transaction.snapshot.hosts[i]):
            image = transaction.snapshot.hosts[i]
            remember_name(linker, image, name)
    close_host(linker, handle)
    return image


cdef inline int acquire_by_name(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Files* files,
    Trail* trail, Image** result
) noexcept nogil:
    result[0] = loaded_by_name(transaction, name, asker, own_only)
    if transaction.no_memory:
        return fail_memory(transaction.error, name)
    if result[0] != NULL or holds_text(&transaction.missing_names, name):
        return 0
    return search_and_take(transaction, name, asker, own_only, files, trail, result)


cdef inline int take_hosts_own(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Trail* trail,
    Image** result
) noexcept nogil:
    """What was given under this name, as bytes or among the caller's files, must be the host's:
    it is taken there by its soname, never from what was given."""
    cdef Text soname = transaction.hosts_own
    cdef int code
    memset(&transaction.hosts_own, 0, sizeof(Text))
    if soname.data == NULL or soname.failed:
        code = fail_memory(transaction.error, name)
    elif soname.data[0] == 0:
        code = DLOPEN_E_NOT_FOUND
    else:
        code = acquire_by_name(
            transaction, soname.data, asker, own_only, NULL, trail, result
        )
    if code == DLOPEN_E_NOT_FOUND:
        code = fail(
            transaction.error, DLOPEN_E_UNSUPPORTED, name,
            b"there is one of it in a process, the host's own, and the process has none"
        )
        error_searched(transaction.error, trail.paths.data, &trail.results[0], trail.count)
    text_free(&transaction.linker.registry.allocator, &soname)
    return code


cdef inline int acquire(
    Transaction* transaction, const char* name, Image* asker, bint own_only, Image** result
) noexcept nogil:
    """The image that `name` means for `asker`: loaded already, or loaded now. *result is
    NULL when the host must open it. `own_only`: not one that is loaded already."""
    cdef Files* files = &transaction.files
    cdef Trail* trail = &transaction.trail
    cdef int code = 0
    result[0] = NULL
    # What is opened itself is another image than the one that is there; what is needed is not.
    if files.read != NULL and transaction.loaded.count == 0:
        code = take_from_files(transaction, name, asker, own_only, trail, result)
    if code == 0 and result[0] == NULL:
        code = acquire_by_name(transaction, name, asker, own_only, files, trail, result)
    if code == HOSTS_OWN:
        code = take_hosts_own(transaction, name, asker, own_only, trail, result)
    if (code == DLOPEN_E_NOT_FOUND or code == DLOPEN_E_OPEN) and not own_only:
        result[0] = known_to_host(transaction, name, asker)
        if result[0] != NULL:
            error_clear(transaction.error)
            code = 0
    trail_free(&transaction.linker.registry.allocator, trail)
    return code


cdef inline int acquire_needed(
    Transaction* transaction, const char* name, Image* image, Image** result
) noexcept nogil:
    """By a name in the dynamic section. Its $ORIGIN is expanded before it is compared with names
    of what is loaded: of two images it means two files. (As glibc; not so for dlopen(3).)"""
    cdef Linker* linker = transaction.linker
    cdef Text text
    cdef int code
    if strchr(name, 0x24) == NULL:
        return acquire(transaction, name, image, False, result)
    if not prepare_search(linker, transaction.snapshot):
        return fail_memory(transaction.error, name)
    memset(&text, 0, sizeof(text))
    if expand(linker, image, name, strlen(name), &text) and text.data != NULL \
            and not text.failed:
        code = acquire(transaction, text.data, image, False, result)
    elif text.failed:
        code = fail_memory(transaction.error, name)
    else:
        code = acquire(transaction, name, image, False, result)    # which says what is wrong
    text_free(&linker.registry.allocator, &text)
    return code


cdef inline bint may_be_missing(const Transaction* transaction, int code) noexcept nogil:
    """What DT_AUXILIARY names; but it shall not be missing for want of memory."""
    return code != DLOPEN_E_STOPPED and code != DLOPEN_E_MEMORY and (
        transaction.error == NULL or not is_shortage(-transaction.error.errnum)
    )


cdef inline int load_filtees(Transaction* transaction, Image* image) noexcept nogil:
    """What answers in place of `image` where it can (ld(1), -F and -f): of DT_FILTER it must
    be there, of DT_AUXILIARY it may."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef const Dyn* entry
    cdef Image* filtee
    cdef size_t i
    cdef int code
    for i in range(image.filter_entries.count):
        entry = <const Dyn*>image.filter_entries.items[i]
        filtee = NULL
        code = acquire_needed(transaction, image.strtab + entry.d_val, image, &filtee)
        if code and entry.d_tag == DT_AUXILIARY and may_be_missing(transaction, code):
            error_clear(transaction.error)
        elif code:
            error_needed_by(transaction.error, image_name(image))
            return code
        elif filtee != NULL and filtee != image and not (
            pointers_add(allocator, &image.dependencies, filtee)
            and pointers_add_once(allocator, &image.filtees, filtee)
        ):
            return fail_memory(transaction.error, image_name(image))
    return 0


cdef inline int load_dependencies(Transaction* transaction) noexcept nogil:
    """DT_NEEDED, breadth first, of every new image."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef size_t i, j
    cdef Image* image
    cdef Image* dependency = NULL
    cdef int code
    i = 0
    while i < transaction.loaded.count:
        image = <Image*>transaction.loaded.items[i]
        # A second pass, after the host opened what was missing, starts afresh.
        image.dependencies.count = 0
        image.filtees.count = 0
        for j in range(image.needed.count):
            code = acquire_needed(
                transaction, <const char*>image.needed.items[j], image, &dependency
            )
            if code:
                error_needed_by(transaction.error, image_name(image))
                return code
            if dependency != NULL and not pointers_add(allocator, &image.dependencies, dependency):
                return fail_memory(transaction.error, image_name(image))
        code = load_filtees(transaction, image)
        if code:
            return code
        i += 1
    return 0


# Linking ---------------------------------------------------------------------------


cdef inline Image* host_by_name(const Snapshot* snapshot, const char* name) noexcept nogil:
    cdef size_t i
    for i in range(snapshot.host_count):
        if answers_to(snapshot.hosts[i], name) or same_file_name(snapshot.hosts[i], name) \
                or has_base_name(snapshot.hosts[i], name):
            return snapshot.hosts[i]
    return NULL


cdef inline bint add_dependencies_of(
    Transaction* transaction, const Image* image, Pointers* images
) noexcept nogil:
    """Appends the direct dependencies of any image. The host does not say what it bound
    DT_NEEDED to: by name."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef size_t i
    cdef Image* dependency
    if not image.is_host:
        for i in range(image.dependencies.count):
            if not pointers_add_once(
                allocator, images, pointer_at(&image.dependencies, i)
            ):
                return False
        return True
    for i in range(image.needed.count):
        dependency = host_by_name(transaction.snapshot, <const char*>image.needed.items[i])
        # What the family needs of others is none of a namespace's.
        if dependency != NULL and sees(transaction, dependency) \
                and not pointers_add_once(allocator, images, dependency):
            return False
    return True


cdef inline void put_filtees_first(Pointers* images) noexcept nogil:
    """Each stands just before its filter, if it is not before it anyhow."""
    cdef size_t i = 0
    cdef size_t j, at
    cdef const Image* image
    cdef void* filtee
    while i < images.count:
        image = <const Image*>images.items[i]
        for j in range(image.filtees.count):
            filtee = image.filtees.items[j]
            at = i + 1
            while at < images.count and images.items[at] != filtee:
                at += 1
            if at == images.count:
                continue
            while at > i:
                images.items[at] = images.items[at - 1]
                at -= 1
            images.items[i] = filtee
            i += 1
        i += 1


cdef inline void put_hosts_last(Pointers* images) noexcept nogil:
    """Both parts in the order in which they are."""
    cdef size_t i, at
    cdef size_t own = 0
    cdef void* image
    for i in range(images.count):
        image = images.items[i]
        if (<const Image*>image).is_host:
            continue
        for at in reversed(range(own, i)):
            images.items[at + 1] = images.items[at]
        images.items[own] = image
        own += 1


cdef inline bint make_search_list(
    Transaction* transaction, Image* root, SearchList* list
) noexcept nogil:
    """The breadth-first closure of an image's dependencies, with what they are filters of.
    In a namespace with a record, its own come before the family."""
    cdef size_t i = 0
    if not pointers_add(&transaction.linker.registry.allocator, &list.images, root):
        return False
    while i < list.images.count:
        if not add_dependencies_of(transaction, <const Image*>list.images.items[i], &list.images):
            return False
        i += 1
    put_filtees_first(&list.images)
    if transaction.space != NULL:
        put_hosts_last(&list.images)
    return True


cdef inline bint collect_globals(Transaction* transaction) noexcept nogil:
    """The process's global scope: what it was started with, then what was opened
    RTLD_GLOBAL, by the host and by us. Late host images are counted while we look."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Registry* registry = &linker.registry
    cdef const Snapshot* newest
    cdef size_t i
    cdef Image* image
    if not look_for_globals(linker, transaction.snapshot):
        return False
    newest = current_snapshot(registry)
    for i in range(newest.global_count):
        image = newest.globals[i]
        if image == transaction.replaces or image.namespace_id != transaction.namespace_id \
                or not take(transaction, image):
            continue
        if not pointers_add(allocator, &transaction.globals, image):
            return False
    return not transaction.no_memory


cdef inline bint collect_shared(Transaction* transaction) noexcept nogil:
    """What a namespace shares with the process: host/namespaces.pxd, symbols/scopes.pxd."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef const Snapshot* snapshot = transaction.snapshot
    cdef size_t i
    if transaction.namespace_id == 0:
        return True
    for i in range(snapshot.global_count):
        if snapshot.globals[i].is_startup and not pointers_add(
            allocator, &transaction.process, snapshot.globals[i]
        ):
            return False
    if transaction.space == NULL:
        return True
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].is_family and take(transaction, snapshot.hosts[i]) \
                and not pointers_add(allocator, &transaction.family, snapshot.hosts[i]):
            return False
    if transaction.no_memory:
        return False
    return snapshot.host_count == 0 \
        or pointers_add(allocator, &transaction.family, snapshot.hosts[0])


cdef inline int check_versions(Transaction* transaction, Image* image) noexcept nogil:
    """Each version that verneed asks of a library must be defined by it, if it defines
    any; a weak one may be missing. In the file's order, so that the error names the one that
    libc's does."""
    cdef uint32_t place = image.first_needed
    cdef uint32_t j
    cdef size_t k
    cdef const Version* needed
    cdef const Image* library
    cdef bint found
    while place != 0:
        needed = &image.versions[place - 1]
        place = needed.next
        if needed.library == NULL or needed.hash == 0 or needed.flags & VER_FLG_WEAK:
            continue
        library = NULL
        for k in range(image.dependencies.count):
            if answers_to(<Image*>image.dependencies.items[k], needed.library) \
                    or same_file_name(<Image*>image.dependencies.items[k], needed.library):
                library = <const Image*>image.dependencies.items[k]
                break
        if library == NULL:
            library = host_by_name(transaction.snapshot, needed.library)
        report_version(image, needed, library)
        if library == NULL or not library.has_verdef:
            continue
        found = False
        for j in range(library.version_count):
            if library.versions[j].library == NULL and library.versions[j].hash == needed.hash \
                    and strcmp(library.versions[j].name, needed.name) == 0:
                found = True
                break
        if not found:
            fail(
                transaction.error, DLOPEN_E_VERSION, image_name(library),
                b"a version that is needed is not defined"
            )
            error_name_symbol(transaction.error, NULL, needed.name)
            error_needed_by(transaction.error, image_name(image))
            return DLOPEN_E_VERSION
    return 0


cdef inline int share_unique(
    void* context, const Reference* reference, Definition* definition
) noexcept nogil:
    """The definition of that name that stands for all in this process: ours, the host's, or
    from now on this one."""
    cdef Transaction* transaction = <Transaction*>context
    cdef Linker* linker = transaction.linker
    cdef Unique* entry = NULL
    if not shares_uniques(definition.image):
        return 0
    if transaction.uniques != NULL:
        entry = find_unique(transaction.uniques, transaction.namespace_id, reference)
    if entry == NULL:
        entry = find_unique(&linker.uniques, transaction.namespace_id, reference)
        if entry != NULL and not pin(transaction, entry.image):
            entry = NULL         # it has been taken out meanwhile
    if transaction.no_memory:
        return fail_memory(transaction.error, image_name(definition.image))
    if entry != NULL:
        take_unique(entry, definition)
        return 0
    if find_unique_of_host(
        linker, transaction.snapshot, transaction.namespace_id, &transaction.unique_hosts,
        reference.name, definition
    ) or definition.image.is_host:
        return 0
    if transaction.unique_hosts.failed:
        return fail_memory(transaction.error, image_name(definition.image))
    entry = <Unique*>allocate(&linker.registry.allocator, sizeof(Unique))
    if transaction.uniques == NULL:
        transaction.uniques = <UniqueTable*>allocate(
            &linker.registry.allocator, sizeof(UniqueTable)
        )
    if entry == NULL or transaction.uniques == NULL:
        release(&linker.registry.allocator, entry)
        return fail_memory(transaction.error, image_name(definition.image))
    fill_unique(entry, reference, definition)
    entry.sibling = transaction.new_uniques
    transaction.new_uniques = entry
    add_unique(transaction.uniques, entry)
    if transaction.flags & DLOPEN_KEEP_AS_LIBC:
        keep_for_ever(linker, definition.image)
    return 0


cdef inline void keep_for_ever(Linker* linker, Image* image) noexcept nogil:
    lock_acquire(&linker.registry.lock)
    image.nodelete = True
    lock_release(&linker.registry.lock)


cdef inline bint ask_for_static_tls(void* context, const Definition* definition) noexcept nogil:
    return ask_host_for_static_tls((<Transaction*>context).linker, definition)


cdef inline bint sort_tree(Linker* linker, Image* root) noexcept nogil:
    """Under the lock: the order of what a root needs, which is a dependency's own from its
    first open on. False without memory."""
    cdef Pointers needed
    cdef size_t i
    cdef bint complete
    if root.is_host or root.sorted.count:
        return True
    memset(&needed, 0, sizeof(needed))
    # Itself first, which a filter is not in its list.
    complete = pointers_add(&linker.registry.allocator, &needed, root)
    for i in range(root.search_list.images.count):
        if not (<const Image*>root.search_list.images.items[i]).is_host:
            complete = complete and pointers_add_once(
                &linker.registry.allocator, &needed, root.search_list.images.items[i]
            )
    complete = complete and sort_for_constructors(
        &linker.registry.allocator, &needed, &root.sorted
    )
    if not complete:
        root.sorted.count = 0
    pointers_free(&linker.registry.allocator, &needed)
    return complete


cdef inline int link_images(Transaction* transaction) noexcept nogil:
    """Scopes, relocation in dependency order, resolvers, protection."""
    cdef Linker* linker = transaction.linker
    cdef Allocator* allocator = &linker.registry.allocator
    cdef Batch batch
    cdef Pointers* order         # of the root and all that it needs of ours
    cdef SearchList** scope
    cdef size_t i
    cdef Image* image
    cdef Image* root = <Image*>transaction.loaded.items[0]
    cdef bint resolved_first
    cdef int code = 0
    memset(&batch, 0, sizeof(batch))
    order = &root.sorted
    if not root.exact_scope and (
        not collect_globals(transaction)
        or not collect_shared(transaction)
        or not make_search_list(transaction, root, &root.search_list)
    ):
        return fail_memory(transaction.error, image_name(root))
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        if i and not make_search_list(transaction, image, &image.search_list):
            return fail_memory(transaction.error, image_name(image))
        scope = <SearchList**>allocate(allocator, 2 * sizeof(SearchList*))
        if scope == NULL:
            return fail_memory(transaction.error, image_name(image))
        scope[0] = &root.search_list
        store_pointer(&image.scope, scope)       # one that was mapped only is known to readers
        move_dynamic_pointers(image)
        report_scope(image, &transaction.globals)
    for i in range(0 if root.exact_scope else root.search_list.images.count):
        image = <Image*>root.search_list.images.items[i]
        if not image.is_host and load_u32(&image.state) == DLOPEN_STATE_LOADING:
            code = check_versions(transaction, image)
        if code:
            return code
    # Image.mark of images that are known already.
    lock_acquire(&linker.registry.lock)
    if not sort_tree(linker, root):
        code = fail_memory(transaction.error, image_name(root))
    lock_release(&linker.registry.lock)
    if code:
        return code
    batch.allocator = allocator
    batch.scopes.globals = &transaction.globals
    if transaction.namespace_id != 0:
        batch.scopes.family = &transaction.family
        batch.scopes.process = &transaction.process
    batch.own_names = linker.own_names
    batch.share_unique = share_unique
    batch.ask_for_static_tls = ask_for_static_tls
    batch.context = transaction
    batch.error = transaction.error
    batch.refuses_unversioned = linker.habits.asserts_versions
    batch.lazy = transaction.mode & RTLD_NOW == 0 and not linker.bind_now
    batch.no_foreign_code = transaction.flags & DLOPEN_NO_FOREIGN_CODE != 0
    for i in range(order.count):
        image = <Image*>order.items[i]
        if load_u32(&image.state) != DLOPEN_STATE_LOADING:
            continue
        if image.has_textrel:
            report_textrel(image)
            code = protect_text(
                &image.layout, image.load_bias, True, image_name(image), transaction.error
            )
        if code == 0:
            code = relocate_image(&batch, image)
        if code == 0 and image.has_textrel:
            code = protect_text(
                &image.layout, image.load_bias, False, image_name(image), transaction.error
            )
        if code:
            break
    resolved_first = code == 0 and resolvers_fill_static_tls(&batch)
    if resolved_first:
        run_resolvers(&batch)
    for i in range(transaction.loaded.count):
        if code == 0:
            code = give_tls(
                linker, <Image*>transaction.loaded.items[i], batch.no_foreign_code,
                transaction.error
            )
    if code == 0:
        code = relocate_deferred_tls(&batch)
    if code == 0:
        if not resolved_first:
            run_resolvers(&batch)
        for i in range(order.count):
            image = <Image*>order.items[i]
            if load_u32(&image.state) == DLOPEN_STATE_LOADING:
                code = protect_relro(
                    &image.layout, image.load_bias, image_name(image), transaction.error
                )
            if code:
                break
    free_deferred(&batch)
    return code


cdef inline int open_missing_hosts(Transaction* transaction) noexcept nogil:
    """By the host's loader, by the paths that we found; what it ran cannot be undone."""
    cdef size_t i
    cdef void* handle
    cdef const char* path
    cdef const char* reason
    for i in range(transaction.missing_hosts.count):
        path = <const char*>transaction.missing_hosts.items[i]
        report_host_open(path)
        if not pointers_reserve(
            &transaction.linker.registry.allocator, &transaction.counted, 1
        ):
            return fail_memory(transaction.error, path)
        handle = open_host(transaction.linker, path, RTLD_NOW)
        if handle == NULL:
            reason = transaction.linker.host.dlerror()
            if reason == NULL:
                return fail(
                    transaction.error, DLOPEN_E_UNSUPPORTED, path, b"the host's loader refused"
                )
            return fail(transaction.error, DLOPEN_E_HOST, path, reason)
        pointers_add(&transaction.linker.registry.allocator, &transaction.counted, handle)
    return 0


# The transaction -----------------------------------------------------------------


cdef inline Transaction* begin(
    Linker* linker, uint32_t mode, uint32_t flags, Error* error
) noexcept nogil:
    """Not on the stack, which may be a small thread's. NULL without memory."""
    cdef Transaction* transaction = <Transaction*>allocate(
        &linker.registry.allocator, sizeof(Transaction)
    )
    if transaction == NULL:
        return NULL
    transaction.linker = linker
    transaction.error = error
    transaction.mode = mode
    transaction.flags = flags
    look_afresh(transaction)
    return transaction


cdef inline void use_files(Transaction* transaction, const Request* request) noexcept nogil:
    """What they give is an image of this open's own, and so none that is loaded already."""
    if not request.mode & RTLD_NOLOAD:
        transaction.files.read = request.files
        transaction.files.data = request.files_data


cdef inline void look_afresh(Transaction* transaction) noexcept nogil:
    """Takes the newest snapshot, with the host's images as they are now."""
    cdef Registry* registry = &transaction.linker.registry
    cdef int hosts
    transaction.phase = reader_enter(registry)
    hosts = refresh_hosts(transaction.linker, current_snapshot(registry))
    transaction.no_memory = transaction.no_memory or hosts == HOSTS_UNKNOWN
    if hosts == HOSTS_CHANGED:
        reader_leave(registry, transaction.phase)
        transaction.phase = reader_enter(registry)
    lock_acquire(&registry.lock)
    transaction.snapshot = current_snapshot(registry)
    transaction.generation = registry.generation
    transaction.unique_additions = transaction.linker.uniques.additions
    lock_release(&registry.lock)


cdef inline void free_new_images(Transaction* transaction) noexcept nogil:
    cdef size_t i
    cdef Image* image
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        take_back_tls(transaction.linker, image)
        unmap_image(image)
        image_free_records(&transaction.linker.registry.allocator, image)
    transaction.loaded.count = 0


cdef inline void unpin_all(Transaction* transaction) noexcept nogil:
    cdef size_t i
    lock_acquire(&transaction.linker.registry.lock)
    for i in range(transaction.pinned.count):
        (<Image*>transaction.pinned.items[i]).pins -= 1
    lock_release(&transaction.linker.registry.lock)
    transaction.pinned.count = 0


cdef inline void end(Transaction* transaction) noexcept nogil:
    """What is left of it after success or failure: the only rollback there is."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef size_t i
    cdef Unique* unique
    seal_what_is_left(transaction.linker)
    free_new_images(transaction)
    unpin_all(transaction)
    reader_leave(&transaction.linker.registry, transaction.phase)
    for i in range(transaction.counted.count):
        close_host(transaction.linker, transaction.counted.items[i])
    free_unique_hosts(transaction.linker, &transaction.unique_hosts)
    while transaction.new_uniques != NULL:
        unique = transaction.new_uniques
        transaction.new_uniques = unique.sibling
        release(allocator, unique)
    release(allocator, transaction.uniques)
    pointers_free(allocator, &transaction.loaded)
    pointers_free(allocator, &transaction.pinned)
    pointers_free(allocator, &transaction.counted)
    free_texts(allocator, &transaction.missing_hosts)
    free_texts(allocator, &transaction.missing_names)
    text_free(allocator, &transaction.hosts_own)
    pointers_free(allocator, &transaction.globals)
    pointers_free(allocator, &transaction.family)
    pointers_free(allocator, &transaction.process)
    release(allocator, transaction)


cdef inline bint uniques_conflict(const Transaction* transaction) noexcept nogil:
    """Under the lock: another transaction was first with one of the names."""
    cdef const UniqueTable* table = &transaction.linker.uniques
    cdef const Unique* entry = transaction.new_uniques
    cdef Reference reference
    if table.additions == transaction.unique_additions:
        return False
    while entry != NULL:
        refer(&reference, symbol_name(entry.image, entry.symbol), NULL)
        if find_unique(table, transaction.namespace_id, &reference) != NULL:
            return True
        entry = entry.sibling
    return False


cdef inline void publish_uniques(Transaction* transaction) noexcept nogil:
    """Under the lock."""
    cdef Unique* entry
    while transaction.new_uniques != NULL:
        entry = transaction.new_uniques
        transaction.new_uniques = entry.sibling
        entry.sibling = entry.image.uniques
        entry.image.uniques = entry
        add_unique(&transaction.linker.uniques, entry)


cdef inline bint holds_replaced(const Pointers* images) noexcept nogil:
    cdef size_t i
    for i in range(images.count):
        if load_u32(&(<const Image*>images.items[i]).is_replaced):
            return True
    return False


cdef inline bint conflicts(Transaction* transaction) noexcept nogil:
    """Under the lock: what this transaction loads was published by another one, or another
    image has taken the place of what it relies on."""
    cdef Registry* registry = &transaction.linker.registry
    cdef size_t i, j
    cdef Image* mine
    cdef Image* other
    if uniques_conflict(transaction):
        return True
    if registry.generation == transaction.generation:
        return False
    for i in range(transaction.loaded.count):
        mine = <Image*>transaction.loaded.items[i]
        if holds_replaced(&mine.dependencies) or holds_replaced(&mine.bindings) \
                or holds_replaced(&mine.search_list.images):
            return True
        if not mine.is_visible or mine.is_from_bytes:
            continue
        for j in range(registry.images.count):
            other = <Image*>registry.images.items[j]
            if other.is_visible and not other.is_from_bytes and other.inode == mine.inode \
                    and other.device == mine.device and other.namespace_id == mine.namespace_id:
                return True
    return False


cdef inline bint keep_hosts(Transaction* transaction) noexcept nogil:
    """The host images that new images depend on or bound to stay counted for them. With no
    lock held, before publishing. False: one has gone, or with Transaction.no_memory."""
    cdef Linker* linker = transaction.linker
    cdef size_t i, j
    cdef Image* image
    cdef Image* other
    cdef void* handle
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        for j in range(image.dependencies.count + image.bindings.count):
            other = <Image*>image.dependencies.items[j] if j < image.dependencies.count \
                else <Image*>image.bindings.items[j - image.dependencies.count]
            if not other.is_host or other.is_startup:
                continue
            if not pointers_reserve(&linker.registry.allocator, &image.host_handles, 1):
                transaction.no_memory = True
                return False
            handle = count_host_image(linker, other, 0)
            if handle == NULL:
                return False
            pointers_add(&linker.registry.allocator, &image.host_handles, handle)
    return True


cdef inline void give_back_hosts(Linker* linker, Image* image) noexcept nogil:
    """The counts that an image held; with no lock held."""
    cdef size_t i
    for i in range(image.host_handles.count):
        close_host(linker, image.host_handles.items[i])
    image.host_handles.count = 0


cdef inline void count_bound_hosts(Transaction* transaction, int change) noexcept nogil:
    """Under the lock: host images that images of ours rely on are known by their pins."""
    cdef size_t i, j
    cdef Image* image
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        for j in range(image.dependencies.count):
            if (<Image*>image.dependencies.items[j]).is_host:
                (<Image*>image.dependencies.items[j]).pins += <uint32_t>change
        for j in range(image.bindings.count):
            if (<Image*>image.bindings.items[j]).is_host:
                (<Image*>image.bindings.items[j]).pins += <uint32_t>change


cdef inline int publish(Transaction* transaction) noexcept nogil:
    """All new images at once. TRY_AGAIN if another transaction was first."""
    cdef Linker* linker = transaction.linker
    cdef Registry* registry = &linker.registry
    cdef Snapshot* snapshot = NULL
    cdef Image* image
    cdef bint complete
    cdef size_t i
    cdef int code = 0
    cdef Image* root = transaction.root
    if not keep_hosts(transaction):
        for i in range(transaction.loaded.count):
            give_back_hosts(linker, <Image*>transaction.loaded.items[i])
        return whether_again(transaction, image_name(root), TRY_AGAIN)
    put_filtees_first(&transaction.loaded)
    lock_acquire(&registry.lock)
    # All that may fail first.
    complete = pointers_reserve(&registry.allocator, &registry.images, transaction.loaded.count)
    if transaction.mode & RTLD_GLOBAL:
        complete = complete and pointers_reserve(
            &registry.allocator, &registry.globals, root.search_list.images.count
        )
    if complete:
        snapshot = make_snapshot(registry, transaction.loaded.count, registry.hosts.count)
    if snapshot == NULL:
        code = fail_memory(transaction.error, image_name(root))
    elif conflicts(transaction):
        code = TRY_AGAIN
    elif not join_scopes(registry, root):
        code = fail_memory(transaction.error, image_name(root))
    if code == 0:
        for i in range(transaction.loaded.count):
            image = <Image*>transaction.loaded.items[i]
            pointers_add(&registry.allocator, &registry.images, image)
            image.initialiser = this_thread()
            image.opened_for = root
            image.fini_due = False
            store_u32(&image.state, DLOPEN_STATE_INITIALISING)
        count_bound_hosts(transaction, 1)
        publish_uniques(transaction)
        if transaction.mode & RTLD_GLOBAL:
            join_tree(registry, root)
        store_u64(&registry.adds, registry.adds + transaction.loaded.count)
        publish_snapshot(registry, snapshot)
    lock_release(&registry.lock)
    if code:
        release(&registry.allocator, snapshot)
        for i in range(transaction.loaded.count):
            give_back_hosts(linker, <Image*>transaction.loaded.items[i])
    else:
        show_to_debugger(linker, &transaction.loaded)
    return code


cdef inline bint join_scopes(Registry* registry, Image* root) noexcept nogil:
    """Under the lock: a library that was a dependency until now, and those that it brings, see it
    as a root too. False without memory: then none does."""
    cdef Retired* wider = NULL
    cdef size_t i
    cdef Image* image
    for i in range(root.search_list.images.count):
        image = <Image*>root.search_list.images.items[i]
        if not image.is_host and not widen_scope(registry, image, &root.search_list, &wider):
            free_wider_scopes(registry, wider)
            return False
    take_wider_scopes(registry, wider)
    return True


cdef inline bint join_tree(Registry* registry, const Image* root) noexcept nogil:
    """Under the lock: an image and its dependencies join the global scope, which has room for
    them. False if all are there."""
    cdef size_t i
    cdef Image* image
    cdef bint joined = False
    for i in range(root.search_list.images.count):
        image = <Image*>root.search_list.images.items[i]
        if image.is_host or load_u32(&image.is_global):
            continue
        joined = join_globals(registry, image)
        if image.is_from_bytes:
            store_u32(&image.is_visible, 1)
    return joined


cdef inline bint make_global(Linker* linker, Image* root) noexcept nogil:
    """RTLD_GLOBAL, of an image that is published: it and its dependencies join the global scope.
    False without memory."""
    cdef Registry* registry = &linker.registry
    cdef Snapshot* snapshot = NULL
    cdef size_t i
    cdef Image* image
    cdef void* handle
    lock_acquire(&registry.lock)
    if pointers_reserve(&registry.allocator, &registry.globals, root.search_list.images.count):
        snapshot = make_snapshot(registry, 0, registry.hosts.count)
    if snapshot != NULL and join_tree(registry, root):
        publish_snapshot(registry, snapshot)
    elif snapshot != NULL:
        release(&registry.allocator, snapshot)
    lock_release(&registry.lock)
    if snapshot == NULL:
        return False
    if root.namespace_id != 0:
        return True              # the host's are global in the base, or nowhere
    for i in range(root.search_list.images.count):
        image = <Image*>pointer_at(&root.search_list.images, i)
        if image.is_host and not load_u32(&image.is_global):
            handle = count_host_image(linker, image, RTLD_GLOBAL)
            if handle != NULL:
                close_host(linker, handle)
    return True


# Initialising --------------------------------------------------------------------


cdef inline bint would_deadlock(
    const Registry* registry, uint64_t me, const Image* image
) noexcept nogil:
    """Under the lock: the thread that initialises `image` waits, perhaps through others,
    for one that this thread initialises."""
    cdef uint64_t thread = image.initialiser
    cdef const Waiter* waiter
    cdef int _step
    for _step in range(1000):
        if thread == me:
            return True
        waiter = registry.waiters
        while waiter != NULL and waiter.thread != thread:
            waiter = waiter.next
        # Or it has yet to wake up.
        if waiter == NULL or waiter.image.state != DLOPEN_STATE_INITIALISING:
            return False
        thread = waiter.image.initialiser
    return True


cdef inline void wait_for(Registry* registry, Image* image) noexcept nogil:
    """Until another thread has initialised the image; not if that thread is this one, or
    waits for this one."""
    cdef Waiter waiter
    cdef Waiter** link
    cdef bint pass_by
    # In a child whose handler has not run yet nobody would ever wake this thread.
    if load_u32(&image.state) != DLOPEN_STATE_INITIALISING or is_forking():
        return
    waiter.thread = this_thread()
    waiter.image = image
    lock_acquire(&registry.lock)
    pass_by = image.state != DLOPEN_STATE_INITIALISING \
        or would_deadlock(registry, waiter.thread, image)
    if not pass_by:
        waiter.next = registry.waiters
        registry.waiters = &waiter
    lock_release(&registry.lock)
    if pass_by:
        return
    while load_u32(&image.state) == DLOPEN_STATE_INITIALISING:
        kernel_wait(&image.state, DLOPEN_STATE_INITIALISING)
    lock_acquire(&registry.lock)
    link = &registry.waiters
    while link[0] != &waiter:
        link = &link[0].next
    link[0] = waiter.next
    lock_release(&registry.lock)


cdef struct Construction:        # what `construct` is given
    const Linker* linker
    const Image* image


cdef inline void construct(void* data) noexcept nogil:
    cdef const Construction* construction = <const Construction*>data
    run_constructors(construction.linker, construction.image)


cdef inline void name_who_needs(
    Registry* registry, const Image* image, Error* error
) noexcept nogil:
    """Whose DT_NEEDED brought it in."""
    lock_acquire(&registry.lock)
    if image.loader != NULL:
        error_needed_by(error, image_name(image.loader))
    lock_release(&registry.lock)


cdef inline int fail_constructor(
    Linker* linker, const Image* image, Exception* exception, Error* error
) noexcept nogil:
    """The exception is given up: with no lock held, its destructor runs."""
    cdef Allocator* allocator = &linker.registry.allocator
    cdef const Image* runtime
    cdef const char* detail = b"a constructor has thrown an exception"
    cdef Text text
    cdef uint32_t phase = reader_enter(&linker.registry)
    cdef int code
    # The one that has thrown it: there may be others, in images that are linked with one
    # statically. Only libstdc++'s tables are known; it stays, since the image needs it.
    runtime = image_of_caller(
        current_snapshot(&linker.registry), <const void*>exception.cleanup
    )
    if runtime != NULL and not (
        runtime.is_cxx_runtime and has_prefix(runtime.soname, b"libstdc++.so.")
    ):
        runtime = NULL
    memset(&text, 0, sizeof(text))
    text_add(allocator, &text, detail)
    describe_exception(allocator, runtime, exception, &text)
    if text.data != NULL:        # there may be no memory
        detail = text.data
    code = fail(error, DLOPEN_E_CONSTRUCTOR, image_name(image), detail)
    name_who_needs(&linker.registry, image, error)
    text_free(allocator, &text)
    reader_leave(&linker.registry, phase)
    return code


cdef inline int initialise_one(
    Linker* linker, Image* image, bint catches, Error* error
) noexcept nogil:
    cdef bint awaited
    cdef Construction construction
    cdef void* thrown = NULL
    cdef int code = 0
    if load_u32(&image.state) != DLOPEN_STATE_INITIALISING \
            or image.initialiser != this_thread() or image.fini_due:
        return 0
    image.fini_due = True
    if catches:
        construction.linker = linker
        construction.image = image
        thrown = call_caught(construct, &construction)
        if thrown != NULL:
            code = fail_constructor(linker, image, <Exception*>thrown, error)
            image.has_failed = True
    else:
        run_constructors(linker, image)
    # Who waits has said so under the same lock, in which it found the old state.
    lock_acquire(&linker.registry.lock)
    store_u32(&image.state, DLOPEN_STATE_READY)
    awaited = linker.registry.waiters != NULL
    lock_release(&linker.registry.lock)
    if awaited:
        kernel_wake(&image.state, 0x7fffffff)
    return code


cdef inline int initialise(
    Linker* linker, Image* root, bint catches, Error* error
) noexcept nogil:
    """Runs the constructors of what `root` needs and that nobody initialised yet,
    dependencies first; waits for what another thread is initialising. The caller holds
    a count on root, so that nothing of it can go. The first that throws, if it `catches`
    that, ends it; what has failed once, in another thread too, is never a success."""
    cdef Registry* registry = &linker.registry
    cdef const Pointers* order
    cdef size_t i
    cdef Image* image
    cdef int code = 0
    if root.is_host:
        return 0
    # Without memory for it: its search list.
    order = &root.sorted if root.sorted.count else &root.search_list.images
    for i in range(order.count):
        image = <Image*>pointer_at(order, i)
        if code == 0 and not image.is_host and image.flags_1 & DF_1_INITFIRST:
            code = initialise_one(linker, image, catches, error)
    for i in range(order.count):
        image = <Image*>pointer_at(order, i)
        if image.is_host:
            continue
        if code == 0:
            code = initialise_one(linker, image, catches, error)
        elif load_u32(&image.state) == DLOPEN_STATE_INITIALISING \
                and image.initialiser == this_thread() and image.opened_for == root \
                and not image.fini_due:
            give_up_constructors(registry, image)
        wait_for(registry, image)
        if code == 0 and image.has_failed:
            code = fail(
                error, DLOPEN_E_CONSTRUCTOR, image_name(image),
                b"a constructor has thrown an exception when it was opened"
            )
            name_who_needs(registry, image, error)
    return code


cdef inline void give_up_constructors(Registry* registry, Image* image) noexcept nogil:
    """Those of another image of the same open have failed; nor will its destructors run. What an
    open has loaded that this one stands in a constructor of is left to that."""
    image.has_failed = True
    lock_acquire(&registry.lock)
    store_u32(&image.state, DLOPEN_STATE_READY)
    lock_release(&registry.lock)
    kernel_wake(&image.state, 0x7fffffff)


# Opening -------------------------------------------------------------------------


cdef inline Image* image_of_caller(const Snapshot* snapshot, const void* caller) noexcept nogil:
    cdef size_t i
    cdef uint64_t address = <uint64_t>caller
    cdef Image* image = snapshot_image_at(snapshot, address)
    if caller == NULL or image != NULL:
        return image
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].map_start <= address < snapshot.hosts[i].map_end:
            return snapshot.hosts[i]
    return NULL


cdef inline int find_root(Transaction* transaction, const Request* request) noexcept nogil:
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef Text path
    cdef File* file = &transaction.file
    cdef bint own = request.mode & DLOPEN_PRIVATE != 0
    # Bytes answer to their name in a namespace of their own only.
    cdef bint is_base = transaction.namespace_id == 0
    cdef Image* image
    cdef int code
    if request.bytes != NULL:
        memset(&path, 0, sizeof(path))
        text_add(allocator, &path, request.name)
        if path.failed:
            return fail_memory(transaction.error, request.name)
        if transaction.files.read != NULL:
            make_plain(path.data)
        file_from_bytes(file, request.bytes, request.bytes_size)
        code = load_file(
            transaction, file, request.name, path.data, NULL, is_base, &transaction.root
        )
        text_free(allocator, &path)
        if code == HOSTS_OWN or code == 0 and transaction.root.is_host:
            if request.flags & DLOPEN_RELOADABLE:
                return fail(
                    transaction.error, DLOPEN_E_UNSUPPORTED, request.name,
                    b"there is one of it in a process, the host's own, which cannot be reloaded"
                )
            if code:
                code = take_hosts_own(
                    transaction, request.name, NULL, False, &transaction.trail, &transaction.root
                )
                trail_free(allocator, &transaction.trail)
            return code
        if code == 0 and request.flags & DLOPEN_RELOADABLE:
            transaction.root.is_reloadable = True
            transaction.root.is_visible = not transaction.root.is_private
        return code
    if request.name == NULL:
        transaction.root = transaction.snapshot.hosts[0]
        return 0
    transaction.asker = image_of_caller(transaction.snapshot, request.caller)
    image = NULL if own else loaded_by_own_text(transaction, request.name)
    if image != NULL:
        transaction.root = image
        transaction.is_itself = True
        return 0
    code = acquire(transaction, request.name, transaction.asker, own, &transaction.root)
    transaction.is_itself = code == 0 and transaction.root == transaction.asker
    if code == 0 and transaction.root != NULL and not transaction.root.is_host \
            and load_u32(&transaction.root.state) == DLOPEN_STATE_LOADING:
        transaction.root.loader = NULL     # the caller's paths were for finding it only
    return code


cdef inline bint host_has_loaded(Transaction* transaction) noexcept nogil:
    """What the host opened has brought one of the files that this transaction has mapped:
    there shall be one image of it."""
    cdef size_t i, j
    cdef Image* mine
    cdef Image* host
    transaction.no_memory = transaction.no_memory or not identify_hosts(
        transaction.linker, transaction.snapshot
    )
    for i in range(transaction.loaded.count):
        mine = <Image*>transaction.loaded.items[i]
        for j in range(transaction.snapshot.host_count):
            host = transaction.snapshot.hosts[j]
            if not mine.is_from_bytes and sees(transaction, host) \
                    and load_u64(&host.inode) == mine.inode \
                    and load_u64(&host.device) == mine.device:
                return True
    return False


cdef inline int load_tree(Transaction* transaction, const Request* request) noexcept nogil:
    """Root and dependencies; if the host had to open some, the dependencies once more, now
    that they are there."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef int code = 0
    cdef int _round
    for _round in range(8):
        if transaction.no_memory:
            return fail_memory(transaction.error, request.name)
        if transaction.loaded.count == 0:
            code = find_root(transaction, request)
        if code == 0 and transaction.loaded.count:
            code = load_dependencies(transaction)
        if code or transaction.missing_hosts.count == 0:
            return code
        code = open_missing_hosts(transaction)
        if code:
            return code
        free_texts(allocator, &transaction.missing_hosts)
        free_texts(allocator, &transaction.missing_names)
        reader_leave(&transaction.linker.registry, transaction.phase)
        look_afresh(transaction)
        if not transaction.no_memory and host_has_loaded(transaction):
            free_new_images(transaction)
            unpin_all(transaction)
    return fail(
        transaction.error, DLOPEN_E_UNSUPPORTED, request.name,
        b"a host library does not stay loaded"
    )


cdef inline bint count_root(Transaction* transaction) noexcept nogil:
    """One more open of the root; a host image's is the host's own count. False: another image
    is in its place by now, or with Transaction.no_memory."""
    cdef Linker* linker = transaction.linker
    cdef Image* root = transaction.root
    cdef void* handle = NULL
    cdef uint32_t mode = transaction.mode & (RTLD_GLOBAL | RTLD_NODELETE)
    if root.is_host:
        if transaction.namespace_id != 0:
            mode &= ~<uint32_t>RTLD_GLOBAL
        handle = count_host_image(linker, root, <int>mode)
        if handle == NULL:
            return False
    lock_acquire(&linker.registry.lock)
    # An old version may hold itself, or be held by who has its own text.
    if load_u32(&root.is_replaced) and not transaction.is_itself or (
        root.is_host and not pointers_hold(&linker.registry.hosts, root)
    ):
        # Or the host's list was read anew: another image is in its place.
        lock_release(&linker.registry.lock)
        if handle != NULL:
            close_host(linker, handle)
        return False
    if not join_scopes(&linker.registry, root) or not sort_tree(linker, root):
        transaction.no_memory = True
        lock_release(&linker.registry.lock)
        if handle != NULL:
            close_host(linker, handle)
        return False
    root.open_count += 1
    if root.is_host:
        root.host_handle = handle
    elif transaction.mode & RTLD_NODELETE:
        root.nodelete = True
    lock_release(&linker.registry.lock)
    return True


cdef inline int keep_replacements(Transaction* transaction, Image* image) noexcept nogil:
    """The libraries that hold them are bound to as any other: they stay."""
    cdef uint32_t i
    cdef Image* definer
    for i in range(image.replacement_count):
        definer = image_of_caller(
            transaction.snapshot, <const void*>image.replacements[i].address
        )
        if definer == NULL or definer == image or definer.is_startup:
            continue
        # One that goes just now was closed by whoever gives its address.
        if take(transaction, definer) and not pointers_add_once(
            &transaction.linker.registry.allocator, &image.bindings, definer
        ):
            return fail_memory(transaction.error, image_name(image))
    return 0


cdef inline int replace_symbols(Transaction* transaction, const Request* request) noexcept nogil:
    """Before anything is bound, and with no lock held: what is asked may be Python."""
    cdef size_t i
    cdef int code = 0
    if request.replacement_count == 0 and request.find == NULL:
        return 0
    if transaction.loaded.count == 0 or transaction.loaded.items[0] != transaction.root:
        return fail(
            transaction.error, DLOPEN_E_STATE, request.name,
            b"it is loaded already, and its references are bound: open a private copy of it"
        )
    for i in range(transaction.loaded.count):
        if code == 0 and (i == 0 or request.flags & DLOPEN_REPLACE_IN_TREE):
            code = find_replacements(
                &transaction.linker.registry.allocator, <Image*>transaction.loaded.items[i],
                request, transaction.error
            )
            if code == 0:
                code = keep_replacements(transaction, <Image*>transaction.loaded.items[i])
    return code


cdef inline int whether_again(
    Transaction* transaction, const char* name, int code
) noexcept nogil:
    """Once more, if what was there has changed; but not for want of memory."""
    if transaction.no_memory:
        return fail_memory(transaction.error, name)
    return TRY_AGAIN if transaction.is_stale else code


cdef inline int open_once(
    Linker* linker, const Request* request, const Namespace* space, Image** result, Error* error
) noexcept nogil:
    """One attempt; TRY_AGAIN if another thread was first."""
    cdef Transaction* transaction
    cdef int code
    cdef Image* root = NULL
    transaction = begin(linker, request.mode, request.flags, error)
    if transaction == NULL:
        return fail_memory(error, request.name)
    use_files(transaction, request)
    transaction.namespace_id = request.namespace_id
    transaction.replaces = <Image*>request.replaces
    transaction.space = space
    if request.namespace_id == NEW_NAMESPACE:
        transaction.namespace_id = new_namespace(linker)
    code = load_tree(transaction, request)
    if code != DLOPEN_E_STOPPED:
        code = whether_again(transaction, request.name, code)
    if code == 0:
        code = replace_symbols(transaction, request)
    if code == 0 and transaction.loaded.count:
        code = whether_again(transaction, request.name, link_images(transaction))
        if code == 0:
            code = publish(transaction)
        if code == 0:
            report_loaded(&transaction.loaded)
            transaction.loaded.count = 0      # they are the registry's now
    root = transaction.root
    if code == 0 and request.mode & RTLD_GLOBAL and not root.is_host:
        transaction.no_memory = not make_global(linker, root)
    if code == 0 and (transaction.no_memory or not count_root(transaction)):
        code = whether_again(transaction, request.name, TRY_AGAIN)
    end(transaction)
    if code == 0:
        # Under libc's names an exception goes on, and libc's callers end by it; but not where
        # it would be caught further out, with this open half done for ever.
        code = initialise(
            linker, root, not request.flags & DLOPEN_KEEP_AS_LIBC or is_catching(), error
        )
        result[0] = root
    return code


cdef inline int open_image(
    Linker* linker, const Request* request, Image** result, Error* error
) noexcept nogil:
    cdef Namespace* space = NULL
    cdef int code = TRY_AGAIN
    cdef int _round
    if request.bytes == NULL and request.name != NULL and request.name[0] == 0:
        return fail(error, DLOPEN_E_INVALID, request.name, b"an empty name")
    if request.bytes != NULL and request.name == NULL:
        return fail(error, DLOPEN_E_INVALID, b"", b"an image from bytes needs a name")
    if not enter_namespace(linker, request.namespace_id, &space):
        return fail_system(
            error, DLOPEN_E_INVALID, request.name, b"invalid target namespace in dlmopen()",
            -EINVAL
        )
    if not request.flags & DLOPEN_NO_FOREIGN_CODE:
        bring_unwinder(linker)
    for _round in range(1000):
        code = open_once(linker, request, space, result, error)
        if code != TRY_AGAIN:
            report_open(request.name, code, result, error)
            break
    leave_namespace(linker, space)
    if code == TRY_AGAIN:
        return fail(error, DLOPEN_E_STATE, request.name, b"other threads kept replacing it")
    return code


cdef inline int map_only(
    Linker* linker, const Request* request, Image** result, Error* error
) noexcept nogil:
    """One file mapped and checked, known to the registry by its handle only."""
    cdef Transaction* transaction
    cdef Registry* registry = &linker.registry
    cdef Snapshot* snapshot = NULL
    cdef Allocator* allocator = &registry.allocator
    cdef Text path
    cdef Trail* trail
    cdef File* file
    cdef Image* image = NULL
    cdef int code = 0
    if request.name == NULL or request.name[0] == 0:
        return fail(error, DLOPEN_E_INVALID, b"", b"an empty name")
    memset(&path, 0, sizeof(path))
    transaction = begin(linker, request.mode, request.flags, error)
    if transaction == NULL:
        return fail_memory(error, request.name)
    trail = &transaction.trail
    file = &transaction.file
    file_init(file)
    text_add(allocator, &path, request.name)
    if request.bytes != NULL:
        file_from_bytes(file, request.bytes, request.bytes_size)
    else:
        use_files(transaction, request)
        if (transaction.files.read == NULL or not try_files(
            linker, &transaction.files, request.name, &path, trail, file
        )) and not find_file(
            linker, transaction.snapshot, request.name, NULL, NULL, &path, trail, file,
            &transaction.files
        ):
            code = not_found(transaction, request.name, trail)
    if path.failed or transaction.no_memory:
        code = fail_memory(error, request.name)
    if transaction.files.stopped:
        code = stopped(transaction, request.name)
    if code == 0 and file.bytes == NULL:
        code = file_open(file, path.data, error)
    if code == 0:
        image = new_image(linker, path.data, file.is_from_files)
        if image == NULL:
            code = fail_memory(error, request.name)
        else:
            code = map_image(linker, file, image, error)
            if code:
                image_free_records(allocator, image)
                image = NULL
    file_close(file)
    if code == 0:
        image.state = DLOPEN_STATE_MAPPED
        image.is_private = True
        image.is_own = True
        image.is_own_first = True
        image.open_count = 1
        lock_acquire(&registry.lock)
        snapshot = make_snapshot(registry, 1, registry.hosts.count)
        if snapshot == NULL or not pointers_add(allocator, &registry.images, image):
            code = fail_memory(error, request.name)
        else:
            publish_snapshot(registry, snapshot)
        lock_release(&registry.lock)
        if code:
            release(allocator, snapshot)
            unmap_image(image)
            image_free_records(allocator, image)
        else:
            result[0] = image
    report_open(request.name, code, result, error)
    text_free(allocator, &path)
    trail_free(allocator, trail)
    end(transaction)
    return code


cdef inline bint claim_mapped(Registry* registry, Image* image) noexcept nogil:
    """Once: a second thread finds it claimed. It stays then, though another one may close it."""
    cdef bint is_mapped
    lock_acquire(&registry.lock)
    is_mapped = pointers_hold(&registry.images, image) \
        and load_u32(&image.state) == DLOPEN_STATE_MAPPED and image.scope == NULL
    if is_mapped:
        image.is_claimed = True
        image.initialiser = this_thread()
        store_u32(&image.state, DLOPEN_STATE_LOADING)
    lock_release(&registry.lock)
    return is_mapped


cdef inline int take_scope(
    Transaction* transaction, Image* image, Image** scope, size_t count
) noexcept nogil:
    """The image's search list: itself, then these, which it depends on from now on."""
    cdef Allocator* allocator = &transaction.linker.registry.allocator
    cdef size_t i
    if not pointers_add(allocator, &image.search_list.images, image):
        return fail_memory(transaction.error, image_name(image))
    for i in range(count):
        if scope[i] == image:
            continue             # it is the first in any case
        if not snapshot_holds(transaction.snapshot, scope[i]) or not is_linked(scope[i]) \
                or not take(transaction, scope[i]):
            if transaction.no_memory:
                return fail_memory(transaction.error, image_name(image))
            return fail(
                transaction.error, DLOPEN_E_HANDLE, image_name(image),
                b"an image of the scope is not loaded"
            )
        if not pointers_add(allocator, &image.search_list.images, scope[i]) \
                or not pointers_add(allocator, &image.dependencies, scope[i]):
            return fail_memory(transaction.error, image_name(image))
    return 0


cdef inline int publish_relocated(Transaction* transaction) noexcept nogil:
    """The registry knows it already, as mapped."""
    cdef Linker* linker = transaction.linker
    cdef Image* image = transaction.root
    if not keep_hosts(transaction):
        give_back_hosts(linker, image)
        return fail_memory(transaction.error, image_name(image)) if transaction.no_memory \
            else fail(
                transaction.error, DLOPEN_E_HANDLE, image_name(image),
                b"an image that it is bound to has gone"
            )
    lock_acquire(&linker.registry.lock)
    image.initialiser = this_thread()
    image.opened_for = image
    store_u32(&image.state, DLOPEN_STATE_INITIALISING)
    count_bound_hosts(transaction, 1)
    store_u64(&linker.registry.adds, linker.registry.adds + 1)
    # A swap that is under way has not looked at it.
    linker.registry.generation += 1
    lock_release(&linker.registry.lock)
    show_to_debugger(linker, &transaction.loaded)
    return 0


cdef inline int link_mapped(
    Linker* linker, Image* image, const Request* request, Image** scope, size_t scope_count,
    Error* error
) noexcept nogil:
    """The image is this thread's: `is_being_linked`."""
    cdef Transaction* transaction
    cdef int code
    if not request.flags & DLOPEN_NO_FOREIGN_CODE:
        bring_unwinder(linker)
    transaction = begin(linker, request.mode, request.flags, error)
    if transaction == NULL:
        return fail_memory(error, image_name(image))
    image.no_foreign_code = request.flags & DLOPEN_NO_FOREIGN_CODE != 0
    image.exact_scope = True
    transaction.root = image
    code = refuse(image, image_name(image), error)
    if code == 0 and transaction.no_memory:
        code = fail_memory(error, image_name(image))
    if code == 0 and must_be_hosts(image):
        code = fail(
            error, DLOPEN_E_UNSUPPORTED, image_name(image),
            b"there is one of it in a process, the host's own"
        )
    if code == 0:
        code = take_scope(transaction, image, scope, scope_count)
    if code == 0 and not pointers_add(&linker.registry.allocator, &transaction.loaded, image):
        code = fail_memory(error, image_name(image))
    if code == 0:
        code = replace_symbols(transaction, request)
    if code == 0:
        code = link_images(transaction)
    if code == 0:
        code = publish_relocated(transaction)
    transaction.loaded.count = 0     # it is the registry's
    if code:
        forget_linking(&linker.registry, image)
    end(transaction)
    return code


cdef inline void forget_linking(Registry* registry, Image* image) noexcept nogil:
    """It has failed: nothing of it was counted. The image stays claimed: places are written."""
    lock_acquire(&registry.lock)
    image.dependencies.count = 0
    image.bindings.count = 0
    image.sorted.count = 0
    lock_release(&registry.lock)


cdef inline int relocate_mapped(
    Linker* linker, Image* image, const Request* request, Image** scope, size_t scope_count,
    bint* is_closed, Error* error
) noexcept nogil:
    """The second step after map_only. `is_closed`: by this, as it has failed, or by another thread
    meanwhile: for collect()."""
    cdef Registry* registry = &linker.registry
    cdef int code
    if not claim_mapped(registry, image):
        return fail(
            error, DLOPEN_E_STATE, b"", b"only an image that is mapped, and once, can be relocated"
        )
    code = link_mapped(linker, image, request, scope, scope_count, error)
    if code == 0:
        code = initialise(linker, image, True, error)
    lock_acquire(&registry.lock)
    image.is_claimed = False
    if code and image.open_count != 0:
        image.open_count -= 1
    is_closed[0] = image.open_count == 0
    lock_release(&registry.lock)
    return fail_handle(error) if code == 0 and is_closed[0] else code


cdef inline int open_existing(
    Linker* linker, const char* name, Image** result, Error* error
) noexcept nogil:
    """By path, soname or base name; counted."""
    cdef Transaction* transaction
    cdef Image* image
    cdef size_t i
    cdef bint counted
    cdef int code
    transaction = begin(linker, RTLD_NOLOAD | RTLD_LAZY, 0, error)
    if transaction == NULL:
        return fail_memory(error, name)
    transaction.root = loaded_by_name(transaction, name, NULL, False)
    if transaction.root == NULL and not transaction.no_memory:
        for i in range(transaction.snapshot.host_count + transaction.snapshot.count):
            image = transaction.snapshot.hosts[i] if i < transaction.snapshot.host_count \
                else transaction.snapshot.images[i - transaction.snapshot.host_count]
            if (load_u32(&image.is_visible) or image.is_host) and same_file_name(image, name) \
                    and take(transaction, image):
                transaction.root = image
                break
    if transaction.root == NULL and not transaction.no_memory and strchr(name, 0x2f) != NULL:
        acquire(transaction, name, NULL, False, &transaction.root)
    counted = transaction.root != NULL and not transaction.no_memory and count_root(transaction)
    if transaction.no_memory:
        code = fail_memory(error, name)
    elif not counted:
        code = fail(error, DLOPEN_E_NOT_LOADED, name, b"it is not loaded")
    else:
        code = 0
        result[0] = transaction.root
    report_open(name, code, result, error)
    end(transaction)
    if code == 0:
        # Waits for the thread that is at it.
        code = initialise(linker, result[0], True, error)
    return code
