"""STB_GNU_UNIQUE definitions of the host's images (symbols/unique.pxd).

Which of several the host's own images are bound to, only the host knows: dlsym tells,
and enters the first one in its table where nobody has asked before. From then on the
host never unloads the owner, and its own later libraries bind to it as well.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.allocator cimport allocate, release
from dlopen.core.base.atomics cimport load_u32, store_u32
from dlopen.core.base.growable cimport (
    Pointers, pointers_add, pointers_free, pointers_reserve,
)
from dlopen.core.base.lock cimport lock_acquire, lock_release, locks_held
from dlopen.core.elf.constants cimport SHN_UNDEF, STB_GNU_UNIQUE, STT_TLS
from dlopen.core.elf.structures cimport Sym, symbol_binding, symbol_type
from dlopen.core.host.counts cimport count_host_image
from dlopen.core.host.host_lock cimport close_host, enter_host, leave_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, Unique, symbol_count
from dlopen.core.image.listing cimport is_present
from dlopen.core.image.registry cimport Snapshot
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, definition_address, is_export, lookup_in_image, refer,
)
from dlopen.core.symbols.scopes cimport is_of_namespace, shares_uniques
from dlopen.core.symbols.unique cimport add_unique, fill_unique, find_unique, take_unique
cdef enum:
    UNIQUES_UNKNOWN = 0
    UNIQUES_NONE = 1
    UNIQUES_SOME = 2


cdef struct UniqueHosts:         # the host's images that define any, in the host's order
    bint collected
    bint failed                  # no memory for all of them
    Pointers images              # Image*
    Pointers handles             # of the same: one count of the host's each


cdef inline bint defines_uniques(Image* image) noexcept nogil:
    """Kept after the first look. The caller has counted the image."""
    cdef uint32_t known = load_u32(&image.host.uniques_known)
    cdef uint64_t i
    if known == UNIQUES_UNKNOWN:
        known = UNIQUES_NONE
        for i in range(symbol_count(image)):
            if symbol_binding(&image.tables.symtab[i]) == STB_GNU_UNIQUE \
                    and image.tables.symtab[i].st_shndx != SHN_UNDEF:
                known = UNIQUES_SOME
                break
        store_u32(&image.host.uniques_known, known)
    return known == UNIQUES_SOME


cdef inline void collect_unique_hosts(
    Linker* linker, const Snapshot* snapshot, int64_t namespace_id, UniqueHosts* hosts
) noexcept nogil:
    """For a namespace of its own, of the family that all share. No lock may be held."""
    cdef size_t i
    cdef Image* image
    cdef void* handle
    hosts.collected = True
    for i in range(snapshot.host_count):
        image = snapshot.hosts[i]
        if load_u32(&image.host.uniques_known) == UNIQUES_NONE \
                or not is_of_namespace(image, namespace_id):
            continue
        handle = count_host_image(linker, image, 0)
        if handle == NULL:
            continue
        if not defines_uniques(image):
            close_host(linker, handle)
        elif pointers_reserve(&hosts.handles, 1) \
                and pointers_add(&hosts.images, image):
            pointers_add(&hosts.handles, handle)
        else:
            close_host(linker, handle)
            hosts.failed = True
            return


cdef inline void free_unique_hosts(Linker* linker, UniqueHosts* hosts) noexcept nogil:
    """Gives all counts back. No lock may be held."""
    cdef size_t i
    for i in range(hosts.handles.count):
        close_host(linker, hosts.handles.items[i])
    pointers_free(&hosts.images)
    pointers_free(&hosts.handles)
    hosts.collected = False


cdef inline bint unique_in_image(
    Image* image, const char* name, Definition* definition
) noexcept nogil:
    """The image exports an STB_GNU_UNIQUE symbol of this name: `definition` is that one."""
    cdef Reference reference
    cdef const Sym* symbol
    cdef uint32_t index = 0
    refer(&reference, name, NULL)
    symbol = lookup_in_image(image, &reference, &index)
    if symbol == NULL or symbol_binding(symbol) != STB_GNU_UNIQUE or not is_export(symbol):
        return False
    definition.image = image
    definition.symbol = symbol
    definition.index = index
    return True


cdef inline bint find_unique_of_host(
    Linker* linker, const Snapshot* snapshot, int64_t namespace_id, UniqueHosts* hosts,
    const char* name, Definition* definition
) noexcept nogil:
    """The host's definition of the name; False if it has none, and then `definition` is as
    before, or with UniqueHosts.failed."""
    cdef size_t i, j
    cdef uint64_t address
    cdef Definition other
    cdef Image* owner
    if not hosts.collected:
        collect_unique_hosts(linker, snapshot, namespace_id, hosts)
    if hosts.failed:
        return False
    for i in range(hosts.images.count):
        if not unique_in_image(<Image*>hosts.images.items[i], name, definition):
            continue
        if symbol_type(definition.symbol) == STT_TLS:
            return True
        enter_host(&linker.host_use)
        address = <uint64_t>linker.host.dlsym(hosts.handles.items[i], name)
        leave_host(&linker.host_use)
        if address == 0:
            linker.host.dlerror()
        elif address != definition_address(definition):
            for j in range(hosts.images.count):
                owner = <Image*>hosts.images.items[j]
                if owner.map_start <= address < owner.map_end \
                        and unique_in_image(owner, name, &other) \
                        and definition_address(&other) == address:
                    definition[0] = other
        return True
    return False


cdef inline bint share_unique_of_lookup(
    Linker* linker, const Snapshot* snapshot, const Reference* reference, Definition* definition
) noexcept nogil:
    """What dlsym answers instead of the unique definition that it found; as under glibc, that
    one is the process's from then on if there was none. In a reader section. False without
    memory."""
    cdef UniqueHosts hosts
    cdef Unique* entry
    cdef bint found, failed
    if symbol_binding(definition.symbol) != STB_GNU_UNIQUE \
            or not shares_uniques(definition.image):
        return True
    entry = find_unique(&linker.uniques, definition.image.namespace_id, reference)
    if entry == NULL:
        memset(&hosts, 0, sizeof(hosts))
        found = find_unique_of_host(
            linker, snapshot, definition.image.namespace_id, &hosts, reference.name, definition
        )
        failed = hosts.failed
        free_unique_hosts(linker, &hosts)
        if failed:
            return False
        if not found and not definition.image.is_host \
                and not enter_unique(linker, reference, definition, &entry):
            return False
    if entry != NULL:
        take_unique(entry, definition)
    return True


cdef inline bint enter_unique(
    Linker* linker, const Reference* reference, const Definition* definition, Unique** result
) noexcept nogil:
    """The table's entry of the name, this one if there was none; NULL where the image is
    being closed, or in a handler that may have interrupted who has the lock. False without
    memory."""
    cdef Unique* entry
    cdef Unique* first
    result[0] = NULL
    if locks_held != 0:
        return True
    entry = <Unique*>allocate(sizeof(Unique))
    if entry == NULL:
        return False
    fill_unique(entry, reference, definition)
    lock_acquire(&linker.registry.lock)
    first = find_unique(&linker.uniques, entry.image.namespace_id, reference)
    if first == NULL and is_present(&linker.registry, entry.image):
        entry.sibling = entry.image.uniques
        entry.image.uniques = entry
        add_unique(&linker.uniques, entry)
        first = entry
    lock_release(&linker.registry.lock)
    if first != entry:
        release(entry)
    result[0] = first
    return True
