"""Which definition of several comes first: the one rule, for places that are relocated, calls
that are bound lazily, and dlsym(3) from inside.

glibc's order is the image itself if it is symbolic, the global scope, then the search lists of the
opens that brought it in; with RTLD_DEEPBIND these come before the global scope.

An image of one's own (PRIVATE, from bytes or from the caller's files) has a *set*: what is of
one's own in the search list of its open, in the order of that. The set comes before glibc's order:
a library that the process has in another version, made global, would else take the place of what
was given. Not first are

- STB_GNU_UNIQUE definitions that the process shares: there must be one of each;
- the allocation family: what one image frees another has allocated, strdup(3) for instance.

With RTLD_GLOBAL or RTLD_DEEPBIND an image of one's own has glibc's order.

A namespace has a global scope of its own. Of the process it sees the *family* alone, of which there
is one for all (libc, libstdc++, …): in the search lists of its images, and where it shares them
(host/namespaces.pxd) after everything else, with the program behind them.
"""

from libc.stddef cimport size_t

from libc.stdint cimport int64_t, uint32_t, uint64_t

from dlopen.core.base.atomics cimport load_pointer, load_u64, store_u64
from dlopen.core.base.contract cimport Error
from dlopen.core.base.growable cimport (
    Pointers, pointer_at, pointers_add, pointers_begin, pointers_free,
)
from dlopen.core.base.strings cimport has_prefix, strcmp
from dlopen.core.elf.constants cimport STB_GNU_UNIQUE
from dlopen.core.elf.structures cimport Sym, symbol_binding
from dlopen.core.image.image cimport Image, SearchList
from dlopen.core.image.registry cimport Snapshot, SymbolIndex
from dlopen.core.image.snapshot cimport global_at
from dlopen.core.symbols.index cimport SearchedList, lookup_in_index, lookup_in_searched
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, is_export, list_in_scope, lookup_export, lookup_in_image,
    lookup_from, lookup_in_list, lookup_in_scopes,
)


cdef enum:
    ALLOCATION_NAME_SIZE = 24


cdef extern from *:
    """
    /* Those of malloc(3); those of C23; glibc's own names of them. In rows, not as pointers: these
       would be relocated. */
    static const char dlopen_allocation_names[][24] = {
        "malloc", "calloc", "realloc", "reallocarray", "free", "aligned_alloc", "memalign",
        "posix_memalign", "valloc", "pvalloc", "malloc_usable_size", "cfree", "free_sized",
        "free_aligned_sized", "__libc_malloc", "__libc_calloc", "__libc_realloc",
        "__libc_reallocarray", "__libc_free", "__libc_memalign", "__libc_valloc", "__libc_pvalloc",
        "__posix_memalign", "",
    };
    """
    const char* allocation_names "&dlopen_allocation_names[0][0]"


cdef struct OwnName:             # a name that is always ours, whoever else defines it
    const char* name
    uint64_t address


# Replaces an STB_GNU_UNIQUE definition by the process's; a DLOPEN_E_*.
ctypedef int (*ShareUnique)(
    void* context, const Reference* reference, Definition* definition
) noexcept nogil


# Whether the image may be used; from then on it stays, or it is going.
ctypedef bint (*KeepImage)(void* keeper, Image* image) noexcept nogil


# What a reference is bound with, beside its image's own lists. It is one thread's: a transaction
# has one for all that it relocates, a lazy call and a dlsym(3) from inside make theirs.
cdef struct Scopes:
    # Owned, or of a snapshot that stays meanwhile (capacity is 0 then).
    Pointers globals             # Image*: the global scope of its namespace
    Pointers family              # Image*: the family, then the program; if the namespace shares it
    Pointers process             # Image*: what the process was started with; for a namespace
    # Of the first of `globals`, which it covers: until it is made anew at most; NULL: none.
    const SymbolIndex* global_index
    uint64_t* global_steps       # Registry's; NULL: not counted
    SearchedList* searched       # that all new images have as their search list; NULL: none
    bint is_part                 # only the first of it: what comes after that is not searched
    const OwnName* own_names     # ends with a NULL name
    bint refuses_unversioned     # a definition without version table in the file that verneed names
    ShareUnique share_unique
    void* context                # of that
    Error* error                 # may be NULL


cdef inline void begin_scopes(Scopes* scopes) noexcept nogil:
    """Empty. Each field by itself: a memset of so many bytes takes as long as a look-up."""
    pointers_begin(&scopes.globals)
    pointers_begin(&scopes.family)
    pointers_begin(&scopes.process)
    scopes.global_index = NULL
    scopes.global_steps = NULL
    scopes.searched = NULL
    scopes.is_part = False
    scopes.own_names = NULL
    scopes.refuses_unversioned = False
    scopes.share_unique = NULL
    scopes.context = NULL
    scopes.error = NULL


cdef inline bint is_of_namespace(const Image* image, int64_t namespace_id) noexcept nogil:
    """It counts there: one of its own, or one of the process that it sees."""
    if image.is_host:
        return namespace_id == 0 or image.host.is_family
    return image.namespace_id == namespace_id


cdef inline bint is_global_in(const Image* image, int64_t namespace_id) noexcept nogil:
    """One of Snapshot.globals: of the namespace's global scope. The host's are in the base's."""
    return image.namespace_id == namespace_id


cdef inline bint collect_globals(
    const Snapshot* snapshot, int64_t namespace_id, KeepImage keep,
    void* keeper, Scopes* scopes
) noexcept nogil:
    """What the process was started with, if it is the base, then what was opened RTLD_GLOBAL, by
    the host and by us. False without memory."""
    cdef Image* image
    cdef size_t i
    for i in range(snapshot.global_count):
        image = global_at(snapshot, i)
        if is_global_in(image, namespace_id) and keep(keeper, image) \
                and not pointers_add(&scopes.globals, image):
            return False
    return True


cdef inline bint take_globals(
    const Snapshot* snapshot, int64_t namespace_id, Scopes* scopes
) noexcept nogil:
    """All that `collect_globals` finds, where there is nothing to keep: each of them lasts, and is
    readable in the caller's reader section. Else False."""
    if namespace_id != 0 or snapshot.lasting_count != snapshot.global_count:
        return False
    scopes.globals.items = <void**>snapshot.globals
    scopes.globals.count = snapshot.global_count
    return True


cdef inline void take_process(
    const Snapshot* snapshot, int64_t namespace_id, Scopes* scopes
) noexcept nogil:
    """Nothing of it ever goes; it is the first of what is global."""
    if namespace_id == 0:
        return
    scopes.process.items = <void**>snapshot.globals
    while scopes.process.count < snapshot.global_count \
            and global_at(snapshot, scopes.process.count).host.is_startup:
        scopes.process.count += 1


cdef inline bint collect_family(
    const Snapshot* snapshot, KeepImage keep, void* keeper, Scopes* scopes
) noexcept nogil:
    """For a namespace that shares it. False without memory."""
    cdef size_t i
    for i in range(snapshot.host_count):
        if snapshot.hosts[i].host.is_family and keep(keeper, snapshot.hosts[i]) \
                and not pointers_add(&scopes.family, snapshot.hosts[i]):
            return False
    return snapshot.host_count == 0 \
        or pointers_add(&scopes.family, snapshot.hosts[0])


cdef inline void free_scopes(Scopes* scopes) noexcept nogil:
    pointers_free(&scopes.family)
    if scopes.globals.capacity != 0:
        pointers_free(&scopes.globals)


cdef inline bint is_allocation(const char* name) noexcept nogil:
    """It allocates, or frees what others may have allocated."""
    cdef const char* each = allocation_names
    # Itanium C++ ABI, 5.1.6: operator new, new[], delete and delete[], of whatever parameters.
    if name[0] == 0x5f and name[1] == 0x5a:
        return has_prefix(name, b"_Znw") or has_prefix(name, b"_Zna") \
            or has_prefix(name, b"_Zdl") or has_prefix(name, b"_Zda")
    while each[0] != 0:
        if each[0] == name[0] and strcmp(each, name) == 0:
            return True
        each += ALLOCATION_NAME_SIZE
    return False


cdef inline bint shares_uniques(const Image* image) noexcept nogil:
    """Its STB_GNU_UNIQUE definitions may stand for all of the process, or others' for them."""
    return not image.is_private and not image.is_reloadable


cdef inline bint is_in_set(const Image* image, const Image* other) noexcept nogil:
    """`other` is in a search list of `image`. What was linked by hand is alone."""
    return other.scope.is_own and (not image.scope.is_exact or other == image)


cdef inline bint search_set(
    const Image* image, Reference* reference, const Image* skip, Definition* definition
) noexcept nogil:
    """What comes before glibc's order."""
    cdef const SearchList* list
    cdef Image* other
    cdef size_t i
    if not image.scope.is_own_first:
        return False
    list = list_in_scope(<SearchList**>load_pointer(&image.scope.lists), 0)
    for i in range(list.images.count if list != NULL else 0):
        other = <Image*>pointer_at(&list.images, i)
        if other != skip and is_in_set(image, other) \
                and lookup_export(other, reference, definition):
            # Most are not found here: what costs time comes last.
            return (
                symbol_binding(definition.symbol) != STB_GNU_UNIQUE or not shares_uniques(other)
            ) and not is_allocation(reference.name)
    return False


cdef inline void add_steps(uint64_t* steps, size_t more) noexcept nogil:
    """Threads may count at the same time; one or the other step is lost."""
    if steps != NULL:
        store_u64(steps, load_u64(steps) + more)


cdef inline bint search_globals(
    const Scopes* scopes, Reference* reference, const Image* skip, Definition* definition
) noexcept nogil:
    cdef size_t start = 0
    cdef size_t place
    cdef bint found
    if scopes.global_index != NULL:
        start = scopes.global_index.count
        if lookup_in_index(
            scopes.global_index, &scopes.globals, reference, skip, definition
        ):
            return True
    place = start
    found = lookup_from(
        &scopes.globals, &place, scopes.globals.count, reference, skip, definition
    )
    add_steps(scopes.global_steps, place - start)
    return found


cdef inline bint search_lists(
    const Scopes* scopes, const Image* image, Reference* reference, const Image* skip,
    Definition* definition
) noexcept nogil:
    """In those of the image's scope, in order."""
    cdef const SearchList* first
    if scopes.searched != NULL:
        first = list_in_scope(<SearchList**>load_pointer(&image.scope.lists), 0)
        if first != NULL and &first.images == scopes.searched.images:
            return lookup_in_searched(scopes.searched, reference, skip, definition) \
                or lookup_in_scopes(image, 1, reference, skip, definition)
    return lookup_in_scopes(image, 0, reference, skip, definition)


cdef inline bint search_as_glibc(
    const Scopes* scopes, const Image* image, Reference* reference, const Image* skip,
    Definition* definition
) noexcept nogil:
    """Without the set: the first definition in the order of dlopen(3)."""
    if image.scope.is_exact:
        # What was given stands for the process, which the image itself comes after.
        return (skip == NULL and lookup_in_scopes(image, 0, reference, image, definition)) \
            or lookup_in_scopes(image, 0, reference, skip, definition)
    if image.scope.deepbind:
        return search_lists(scopes, image, reference, skip, definition) \
            or search_globals(scopes, reference, skip, definition)
    return search_globals(scopes, reference, skip, definition) or (
        not scopes.is_part and search_lists(scopes, image, reference, skip, definition)
    )


cdef inline bint search_process(
    const Scopes* scopes, const Image* image, Reference* reference, const Image* skip,
    Definition* definition, bint found
) noexcept nogil:
    """Of a namespace: what it has of the process."""
    cdef Definition first
    if not found and image.shares_family:
        found = lookup_in_list(&scopes.family, reference, skip, definition)
    # There is one family: what stands before it in the process (a preloaded malloc, the copy
    # of a variable in the program) does so for all, or two would serve one heap.
    if found and definition.image.host.is_family \
            and lookup_in_list(&scopes.process, reference, skip, &first):
        definition[0] = first
    return found


cdef inline bint find_in_scopes(
    const Scopes* scopes, const Image* image, Reference* reference, const Image* skip,
    Definition* definition
) noexcept nogil:
    """What a reference of `image` finds, past `skip`. The caller keeps the images of the scopes.
    Found in a part, it is found."""
    cdef uint32_t index = 0
    cdef const Sym* symbol
    cdef bint found
    if image.tables.is_symbolic and not image.scope.deepbind and image != skip:
        symbol = lookup_in_image(image, reference, &index)
        if symbol != NULL and is_export(symbol):
            definition.image = <Image*>image
            definition.symbol = symbol
            definition.index = index
            return True
    if search_set(image, reference, skip, definition):
        return True
    found = search_as_glibc(scopes, image, reference, skip, definition)
    if scopes.process.count != 0:
        found = search_process(scopes, image, reference, skip, definition, found)
    return found
