"""Is it there already? The one question of an open, asked for each image that it needs:

by its name, before anything is searched for; by its file, when the search has ended at one; by the
soname of a file that must be the host's; and of the host itself, by a path that leads nowhere any
more.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.atomics cimport load_pointer, load_u32, load_u64
from dlopen.core.base.growable cimport pointer_at
from dlopen.core.base.strings cimport memcmp, strchr, strcmp
from dlopen.core.elf.structures cimport Ehdr, Phdr
from dlopen.core.host.abi cimport RTLD_LAZY, RTLD_NOLOAD
from dlopen.core.host.host_lock cimport close_host, open_host
from dlopen.core.host.identity cimport identify_hosts
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, LinkMap, SearchList, image_asked_name, is_linked
from dlopen.core.image.index cimport Index, IndexSearch, begin_search, next_found
from dlopen.core.image.known_by cimport file_key, identity_of, is_same_file, name_key
from dlopen.core.image.listing cimport comes_before
from dlopen.core.image.naming cimport answers_to, base_name, has_base_name, same_file_name
from dlopen.core.image.registry cimport Registry, Snapshot, current_snapshot, this_thread
from dlopen.core.memory.file cimport File, FileIdentity
from dlopen.core.opening.loaded cimport find_loaded, is_meant, name_loaded
from dlopen.core.opening.texts cimport holds_text, remember_name
from dlopen.core.opening.transaction cimport Transaction, replaced_by, rely_on
from dlopen.core.search.candidates cimport is_path_in_files
from dlopen.core.symbols.lookup cimport list_in_scope
from dlopen.core.symbols.scopes cimport is_of_namespace


cdef struct Wanted:              # an image that is asked for
    const char* name
    Image* asker                 # who means it, and whose paths count; NULL: it is not known
    bint own_only                # a new one of its own: none that is loaded already


cdef struct Asked:               # about an image
    const char* name             # NULL: by the file
    const FileIdentity* file


# Not what may change while somebody looks at it: that is `rely_on`'s.
ctypedef bint (*IsMeant)(
    const Transaction* transaction, const Image* image, const Asked* asked
) noexcept nogil


cdef inline Image* next_meant(
    const Transaction* transaction, const Index* index, uint64_t key, IsMeant fits,
    const Asked* asked, const Image* last
) noexcept nogil:
    """The first under the key that is meant, after `last`, the host's before ours; NULL: none."""
    cdef IndexSearch search
    cdef Image* found = NULL
    cdef Image* image
    begin_search(index, key, &search)
    image = next_found(&search)
    while image != NULL:
        if (last == NULL or comes_before(last, image)) \
                and (found == NULL or comes_before(image, found)) \
                and fits(transaction, image, asked):
            found = image
        image = next_found(&search)
    return found


cdef inline Image* first_meant(
    Transaction* transaction, const Index* index, uint64_t key, IsMeant fits,
    const Asked* asked
) noexcept nogil:
    """The first under the key that is meant, and can be relied on."""
    cdef Image* image = next_meant(transaction, index, key, fits, asked, NULL)
    while image != NULL and not rely_on(transaction, image):
        image = next_meant(transaction, index, key, fits, asked, image)
    return image


cdef inline Image* first_named(
    Transaction* transaction, IsMeant fits, const char* name
) noexcept nogil:
    """That is meant by the name, and can be relied on."""
    cdef Asked asked
    asked.name = name
    return first_meant(
        transaction, &transaction.linker.registry.names, name_key(name), fits, &asked
    )


cdef inline bint is_host_of_name(
    const Transaction* transaction, const Image* image, const Asked* asked
) noexcept nogil:
    """By each name that one of the host's may have."""
    return image.is_host and (
        answers_to(image, asked.name) or same_file_name(image, asked.name)
        or has_base_name(image, asked.name)
    )


cdef inline Image* host_by_name(const Registry* registry, const char* name) noexcept nogil:
    """An image of the host's, by each name that it may have; or NULL. In a reader section. The
    program as the last: few mean it, and its path may still have to be found."""
    cdef const Snapshot* snapshot = current_snapshot(registry)
    cdef Asked asked
    cdef Image* image
    asked.name = name
    image = next_meant(NULL, &registry.names, name_key(name), is_host_of_name, &asked, NULL)
    if image == NULL and strchr(name, 0x24) != NULL:
        image = next_meant(
            NULL, &registry.names, name_key(base_name(name)), is_host_of_name, &asked, NULL
        )
    if image == NULL and snapshot.host_count != 0 \
            and is_host_of_name(NULL, snapshot.hosts[0], &asked):
        image = snapshot.hosts[0]
    return image


cdef inline bint is_of_own(const Transaction* transaction, const Image* image) noexcept nogil:
    """One of one's own that can be found by itself, or by who was given its text. Not while
    another thread links it, or while this transaction loads it."""
    return image != NULL and not image.is_host and image.scope.is_own \
        and image.namespace_id == transaction.namespace_id \
        and (is_linked(image) or load_u64(&image.life.initialiser) == this_thread())


cdef inline Image* loaded_with_asker(
    Transaction* transaction, Image* asker, const char* name, const FileIdentity* file
) noexcept nogil:
    """What an image of one's own (PRIVATE, from bytes or files) means by `name`, or by the file
    where that is NULL: itself, or what of one's own was opened with it. Nobody else sees these,
    and there may be others of the same name. In another namespace it means what all mean."""
    cdef SearchList** scope
    cdef const SearchList* list
    cdef Image* image
    cdef size_t i
    cdef size_t number = 0
    if not is_of_own(transaction, asker):
        return NULL
    if is_meant(asker, name, file) and rely_on(transaction, asker):
        return asker
    scope = <SearchList**>load_pointer(&asker.scope.lists)
    list = list_in_scope(scope, 0)
    while list != NULL:
        for i in range(list.images.count):
            image = <Image*>pointer_at(&list.images, i)
            if not image.is_host and image.scope.is_own \
                    and is_meant(image, name, file) and rely_on(transaction, image):
                return image
        number += 1
        list = list_in_scope(scope, number)
    return NULL


cdef inline Image* own_image_of(
    Transaction* transaction, Image* asker, Image* image
) noexcept nogil:
    """`image` answers to a name for all; an image of one's own means by it that of the same file
    which it was opened with, if there is one."""
    cdef FileIdentity file
    cdef Image* own
    if image.is_from_bytes or not is_of_own(transaction, asker):
        return image
    if image.is_host and not load_u32(&image.host.is_identified) \
            and not identify_hosts(transaction.linker, transaction.snapshot):
        transaction.no_memory = True
    file = identity_of(image)
    own = loaded_with_asker(transaction, asker, NULL, &file)
    return own if own != NULL else image


cdef inline Image* loaded_by_name(
    Transaction* transaction, const Wanted* wanted
) noexcept nogil:
    """An image that answers to the name: of this transaction, then of the process."""
    cdef const char* name = wanted.name
    cdef Image* asker = wanted.asker
    cdef Image* image
    image = find_loaded(
        &transaction.loaded_index, &transaction.loaded, name, &transaction.file
    )
    if image != NULL or wanted.own_only:
        return image
    image = loaded_with_asker(transaction, asker, name, NULL)
    if image != NULL:
        return image
    image = first_named(transaction, is_seen_by_name, name)
    return NULL if image == NULL else own_image_of(transaction, asker, image)


cdef inline bint sees(const Transaction* transaction, const Image* image) noexcept nogil:
    """An image that is there already counts: one of the same namespace, or of the family
    that all share."""
    return image != replaced_by(transaction) \
        and (image.is_host or load_u32(&image.life.is_visible)) \
        and is_of_namespace(image, transaction.namespace_id)


cdef inline bint is_seen_by_name(
    const Transaction* transaction, const Image* image, const Asked* asked
) noexcept nogil:
    return sees(transaction, image) and answers_to(image, asked.name)


cdef inline bint is_seen_by_file(
    const Transaction* transaction, const Image* image, const Asked* asked
) noexcept nogil:
    return sees(transaction, image) and is_meant(image, NULL, asked.file)


cdef inline bint has_same_headers(const Image* image, const Image* other) noexcept nogil:
    """They may be of the same file. To learn of which file one of the host's is takes longer than
    to load most libraries."""
    return image.layout.phnum == other.layout.phnum and memcmp(
        image.layout.phdrs, other.layout.phdrs, image.layout.phnum * sizeof(Phdr)
    ) == 0


cdef inline bint may_be_of(const Image* image, const File* file) noexcept nogil:
    """Not with other program headers, as `has_same_headers`."""
    cdef const Ehdr* header = <const Ehdr*>&file.start[0]
    cdef uint64_t size = image.layout.phnum * sizeof(Phdr)
    if file.start_size < sizeof(Ehdr) or header.e_phoff > file.start_size \
            or size > file.start_size - header.e_phoff:
        return True
    return header.e_phnum == image.layout.phnum \
        and memcmp(&file.start[0] + header.e_phoff, image.layout.phdrs, size) == 0


cdef inline Image* loaded_by_file(
    Transaction* transaction, const Wanted* wanted, const File* file
) noexcept nogil:
    """An image that is loaded from this file: device and inode, and of an archive's member where it
    begins. The host has no members."""
    cdef Asked asked
    cdef size_t i
    cdef Image* image
    image = find_loaded(&transaction.loaded_index, &transaction.loaded, NULL, file)
    if image != NULL or wanted.own_only:
        return image
    image = loaded_with_asker(transaction, wanted.asker, NULL, &file.identity)
    if image != NULL:
        return image
    for i in range(transaction.snapshot.host_count if file.identity.offset == 0 else 0):
        image = transaction.snapshot.hosts[i]
        # As glibc, which knows no file of the program: as a library it is refused.
        if not sees(transaction, image) or image.host.is_program:
            continue
        if not load_u32(&image.host.is_identified) and may_be_of(image, file) \
                and not identify_hosts(transaction.linker, transaction.snapshot):
            transaction.no_memory = True
            return NULL
        if is_same_file(image, &file.identity) and rely_on(transaction, image):
            return image
    asked.file = &file.identity
    return first_meant(
        transaction, &transaction.linker.registry.files, file_key(&file.identity),
        is_seen_by_file, &asked
    )


cdef inline bint has_own_text(
    const Transaction* transaction, const Image* image, const Asked* asked
) noexcept nogil:
    return is_of_own(transaction, image) and (
        asked.name == image_asked_name(image) or asked.name == image.link_map.l_name
    )


cdef inline Image* loaded_by_own_text(Transaction* transaction, const char* name) noexcept nogil:
    """The image of one's own that this very text, not a copy of it, is the name of: of dladdr(3)
    or in a link map. A runtime that a library calls so asks for that library: D's does."""
    return first_named(transaction, has_own_text, name)


cdef inline Image* loaded_from_files(
    const Transaction* transaction, const char* path
) noexcept nogil:
    """An image of this transaction that is this one of the caller's files."""
    cdef size_t i
    cdef Image* image
    for i in range(transaction.loaded.count):
        image = <Image*>transaction.loaded.items[i]
        if image.is_from_files and strcmp(image.path, path) == 0:
            return image
    return NULL


cdef inline Image* known_by_name(
    Transaction* transaction, const Wanted* wanted, bint* is_known
) noexcept nogil:
    """*is_known is True with NULL for what the host is to open already."""
    cdef Image* image = loaded_by_name(transaction, wanted)
    is_known[0] = image != NULL or holds_text(&transaction.missing_names, wanted.name)
    return image


cdef inline Image* known_by_file(
    Transaction* transaction, const Wanted* wanted, const File* file, const char* path
) noexcept nogil:
    """It answers to this name too from now on."""
    cdef Image* image = loaded_from_files(transaction, path) if file.is_from_files \
        else loaded_by_file(transaction, wanted, file)
    if image != NULL and not image.is_host and image.listing.number == 0:
        name_loaded(&transaction.loaded_index, image, wanted.name)
    elif image != NULL:
        remember_name(&transaction.linker.registry, image, wanted.name)
    return image


cdef inline bint is_host_of_soname(
    const Transaction* transaction, const Image* image, const Asked* asked
) noexcept nogil:
    return image.is_host and image.tables.soname != NULL \
        and strcmp(image.tables.soname, asked.name) == 0


cdef inline Image* known_host(Transaction* transaction, const char* soname) noexcept nogil:
    """Of whatever file."""
    return NULL if soname == NULL else first_named(transaction, is_host_of_soname, soname)


cdef inline Image* known_to_host(
    Transaction* transaction, const Wanted* wanted
) noexcept nogil:
    """The image that the host has opened by a path which leads nowhere by now: it tells nobody
    what else than its own name an image answers to. Not for a name
    without a path: the host would search for it, too, which is slow."""
    cdef Linker* linker = transaction.linker
    cdef const char* name = wanted.name
    cdef Image* image = NULL
    cdef void* handle
    cdef size_t i
    if transaction.namespace_id != 0 or strchr(name, 0x2f) == NULL or strchr(name, 0x24) != NULL:
        return NULL
    if transaction.loaded.count != 0 and is_path_in_files(wanted.asker, name):
        return NULL
    handle = open_host(linker, name, RTLD_LAZY | RTLD_NOLOAD)
    if handle == NULL:
        linker.host.dlerror()
        return NULL
    for i in range(transaction.snapshot.host_count):
        if transaction.snapshot.hosts[i].link_map.l_ld == (<LinkMap*>handle).l_ld \
                and rely_on(transaction, transaction.snapshot.hosts[i]):
            image = transaction.snapshot.hosts[i]
            remember_name(&linker.registry, image, name)
    close_host(linker, handle)
    return image
